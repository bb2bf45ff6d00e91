"""GuideDiff: a diffusion decoder from a mel picture to a waveform (after Huang et al., arXiv 2404.14771).

The picture guides twice: the network sees it, and it shapes the noise that decoding starts from and the scale at
which the network works (SpecGrad, Koizumi et al., arXiv 2203.16749), so that loud and soft places are alike to it. The
network is a small UNet over an STFT of the noisy waveform and predicts the velocity (Salimans & Ho, arXiv 2202.00512).

Shapes: audio `[window, sample]` at the profile's rate, pictures `[window, mel, frame]` in [0, 1], spectra complex
`[window, frame, bin]`. Frame `j` is centred on sample `j * hop`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from numpy.typing import NDArray
from torch import Tensor, nn

from .spectrogram import MINI, Profile, band_centres

N_FFT = 4 * MINI.hop
"""Window and FFT of the network's own STFT: 40 ms, 25 Hz. Four hops, so that from frame to frame the phase of bin `k`
advances by `k` quarter turns, and every fourth bin is alike to a convolution."""

BINS = N_FFT // 2 + 1
TOGETHER = 4
"""Bins that make a row of the network's picture."""
ROWS = 224
"""Of four bins: all but the highest, filled up to what can be halved."""
POINTS = 3
"""Where the mel picture, finer than the bins where it is low, is read for each bin."""

STEPS = 4
LARGEST = 8.0
_NEIGHBOUR = 0.25
"""How much of a frame's power its neighbours hear: the squared Hann window, a hop from its middle."""


class GuideDiff(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Predicts the whitened velocity of the spectrum of a noisy waveform under a picture.

    `whitening` `[bin]` brings the picture's envelope to the audio's true scale.
    """

    whitening: Tensor

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, widths: tuple[int, ...] = (32, 48, 80)) -> None:
        super().__init__()
        self.unet = UNet2DModel(
            in_channels=TOGETHER * (2 + POINTS) + 1,
            out_channels=TOGETHER * 2,
            block_out_channels=tuple(widths),
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * len(widths),
            up_block_types=("UpBlock2D",) * len(widths),
            norm_num_groups=8,
            add_attention=False,
        )
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)
        self.register_buffer("whitening", torch.ones(BINS))

    def forward(self, noisy: Tensor, guide: Tensor, timestep: Tensor) -> Tensor:
        """Whitened spectra, guides `[window, channel, row, frame]` and times `[window]` in 0 to 999 → velocities."""
        frames = noisy.shape[1]
        factor = 2 ** (len(self.config["widths"]) - 1)
        rows = _rows(torch.view_as_real(limited(noisy)).permute(0, 3, 2, 1))
        inner = F.pad(torch.cat([rows, guide], 1), (0, -frames % factor))
        if inner.device.type == "cpu":
            inner = inner.contiguous(memory_format=torch.channels_last)
        velocity = self.unet(inner, timestep).sample[..., :frames].float()
        split = velocity.reshape(len(velocity), 2, TOGETHER, ROWS, frames)
        bins = split.permute(0, 4, 3, 2, 1).flatten(2, 3)
        return torch.view_as_complex(bins.contiguous())[..., :BINS]

    def shaped(self, white: Tensor, expected: Tensor) -> Tensor:
        """White noise `[window, sample]` of unit variance, brought to the magnitudes that are expected."""
        unit = math.sqrt(3 / 8 * N_FFT)
        return waveform(spectrum(white) / unit * expected, white.shape[-1])

    @torch.no_grad()
    def decode(self, picture: Tensor, mel: Tensor, white: Tensor, steps: int = STEPS) -> Tensor:
        """Audio `[window, sample]` of pictures, by DDIM from shaped noise; `mel` has the pictures as magnitudes.

        `white` is noise of unit variance, as long as the audio is to be.
        """
        times = scheduler()
        times.set_timesteps(steps)
        expected, guide = envelope(mel) * self.whitening, guided(picture)
        sample = self.shaped(white, expected)
        for time in times.timesteps:
            at = time.expand(len(sample)).to(sample.device)
            velocity = waveform(self(spectrum(sample) / expected, guide, at) * expected, sample.shape[-1])
            sample = times.step(velocity, time, sample).prev_sample
        return sample


def _rows(values: Tensor) -> Tensor:
    """`[window, channel, bin, frame]` → `[window, channel · TOGETHER, row, frame]`."""
    filled = F.pad(values, (0, 0, 0, ROWS * TOGETHER - values.shape[2]))
    split = filled.reshape(*values.shape[:2], ROWS, TOGETHER, values.shape[3])
    return split.transpose(2, 3).flatten(1, 2)


def guided(picture: Tensor, profile: Profile = MINI) -> Tensor:
    """What the network sees of pictures, `[window, channel, row, frame]`: read around each bin, and the frequency."""
    points = (np.arange(POINTS * BINS) - (POINTS - 1) / 2) / POINTS * profile.sample_rate / N_FFT
    place = np.interp(points, band_centres(profile), np.arange(profile.bands))
    low = torch.from_numpy(np.minimum(place.astype(int), profile.bands - 2)).to(picture.device)
    share = torch.from_numpy(place).to(picture.device, torch.float32) - low
    read = torch.lerp(picture[:, low], picture[:, low + 1], share[:, None])
    seen = _rows((2 * read - 1).reshape(len(read), BINS, POINTS, -1).transpose(1, 2))
    ramp = torch.linspace(-1, 1, ROWS, device=picture.device)[:, None].expand(len(seen), 1, -1, seen.shape[-1])
    return torch.cat([seen, ramp], 1)


def limited(whitened: Tensor) -> Tensor:
    """No magnitude over `LARGEST`: what stands out so far the picture has not shown."""
    return whitened * (LARGEST / whitened.abs().clamp_min(LARGEST))


def scheduler() -> Any:
    """Cosine (Nichol & Dhariwal, arXiv 2102.09672), all the way to noise (Lin et al., arXiv 2305.08891)."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def spectrum(audio: Tensor, profile: Profile = MINI) -> Tensor:
    """Complex `[window, frame, bin]` on the profile's frames, zeros beyond both ends."""
    window = torch.hann_window(N_FFT, device=audio.device)
    made: Tensor = torch.stft(
        audio, N_FFT, profile.hop, window=window, center=True, pad_mode="constant", return_complex=True
    )
    return made.mT


def waveform(spectra: Tensor, samples: int, profile: Profile = MINI) -> Tensor:
    """The audio `[window, sample]` whose spectrum is nearest to `spectra`."""
    window = torch.hann_window(N_FFT, device=spectra.device)
    audio: Tensor = torch.istft(spectra.mT, N_FFT, profile.hop, window=window, center=True, length=samples)
    return audio


def envelope(mel: Tensor, profile: Profile = MINI) -> Tensor:
    """How large a magnitude to expect, `[window, frame, bin]`, from magnitude mels `[window, mel, frame]`.

    Every band is a density of power around its centre, seen through the short window's main lobe; a frame hears its
    neighbours through the window's ends; nothing lies further than the picture's range under the loudest.
    """
    lobes = torch.from_numpy(_lobes(profile)).to(mel.device)
    power = mel.square().mT @ lobes
    before, after = power[:, :1], power[:, -1:]
    around = torch.cat([before, power[:, :-1]], 1) + torch.cat([power[:, 1:], after], 1)
    power = power + _NEIGHBOUR * around
    floor = power.amax((1, 2), keepdim=True).clamp_min(1e-20) * 10 ** (-profile.range_db / 10)
    return (power + floor).sqrt()


@lru_cache(maxsize=2)
def _lobes(profile: Profile) -> NDArray[np.float32]:
    """Power in each bin for each band's squared mel, `[mel, bin]`.

    Between the bands' centres the density is interpolated, outside the nearest holds; the lobe of the short window
    gathers it.
    """
    fine = 4
    centres = np.asarray(band_centres(profile), np.float64)
    at = np.arange(fine * BINS) * profile.sample_rate / (fine * N_FFT)
    density = np.array([np.interp(at, centres, one) for one in np.diag(np.gradient(centres) ** -2.0)])
    away = np.arange(-2, 2 + 1 / fine, 1 / fine)
    with np.errstate(divide="ignore", invalid="ignore"):
        lobe = np.sinc(away) / (1 - away**2)
    lobe[np.isclose(np.abs(away), 1)] = 0.5
    padded = np.pad(density, ((0, 0), (2 * fine, 2 * fine)), mode="edge")
    seen = np.lib.stride_tricks.sliding_window_view(padded, len(away), axis=1)[:, ::fine] @ lobe**2
    # The lowest hears what lies beside it: the profile does not say what lies under its range.
    seen[:, 0] = seen[:, 1]
    return np.asarray(seen[:, :BINS], np.float32)
