"""Gains to audio, at the clip's own sample rate, with the content's phase (METHOD 5).

Three ways: `gain` multiplies the content's complex STFT, `phase` inverts the stylised mel and borrows the content's
phase (the papers' way), `griffin_lim` inverts it and finds a phase from noise (Riffusion's way).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .gains import Gains, across, spread
from .scratch import blocks, zeros
from .spectrogram import Profile, band_centres, mel_filters

Floats = NDArray[np.floating[Any]]

CPU = torch.device("cpu")

TOGETHER = 128
"""Frames of an STFT that are worked on at once."""

BLOCK_SECONDS = 20.0
"""Long clips are processed in blocks of this length; their context makes them equal to one long one."""


@dataclass(frozen=True)
class Stft:
    """A centred STFT with a Hann window at a clip's sample rate; lengths in samples."""

    sample_rate: int
    hop: int
    window: int
    n_fft: int

    @classmethod
    def like(cls, profile: Profile, sample_rate: int, padded: bool = False) -> Stft:
        """With the profile's hop and window in seconds; the hop is a whole number of samples.

        `padded` takes the profile's FFT size too, which its narrow low bands need to be inverted.
        """
        ratio = sample_rate / profile.sample_rate
        window = max(16, 2 * round(profile.window * ratio / 2))
        n_fft = 2 * round(profile.n_fft * ratio / 2) if padded else window
        return cls(sample_rate, max(1, round(profile.hop * ratio)), window, n_fft)

    @property
    def frequencies(self) -> Floats:
        """Of the bins, in Hz."""
        return np.fft.rfftfreq(self.n_fft, 1 / self.sample_rate)

    def times(self, frames: int) -> Floats:
        """Of the frames' centres, in seconds."""
        return np.arange(frames) * (self.hop / self.sample_rate)

    def forward(self, audio: Tensor) -> Tensor:
        """`[channel, sample]` → complex `[channel, bin, frame]`, zeros beyond both ends."""
        hann = torch.hann_window(self.window, device=audio.device)
        return torch.stft(
            audio, self.n_fft, self.hop, self.window, hann, center=True, pad_mode="constant", return_complex=True
        )

    def inverse(self, spectrum: Tensor, samples: int) -> Tensor:
        """Complex `[channel, bin, frame]` → `[channel, sample]`."""
        hann = torch.hann_window(self.window, device=spectrum.device)
        return torch.istft(spectrum, self.n_fft, self.hop, self.window, hann, center=True, length=samples)

    def iterate(self, audio: Tensor, magnitude: Tensor, iterations: int) -> Tensor:
        """Griffin and Lim's iterations: `[sample]` towards an STFT of `magnitude` `[bin, frame]`.

        Each is `inverse(magnitude · sgn(forward(audio)))`, a few frames at a time: a whole spectrum does not fit into a
        CPU's cache, and memory for it was taken and given back at every turn.
        """
        samples, frames = len(audio), magnitude.shape[1]
        shares = list(blocks(frames, TOGETHER if audio.device.type == "cpu" else frames))
        hann = torch.hann_window(self.window, device=audio.device)
        # A frame reaches over so many hops, and the first one's centre is the first sample.
        reach, half = -(-self.window // self.hop), self.window // 2

        def overlapped(pieces: Iterable[Tensor]) -> Tensor:
            """The sum of all frames, `[frame, sample]` for each share, where they lie in the audio."""
            rows = torch.zeros(frames + reach - 1, self.hop, device=audio.device)
            for here, piece in zip(shares, pieces, strict=True):
                hops = F.pad(piece, (0, reach * self.hop - self.window)).reshape(-1, reach, self.hop)
                for hop in range(reach):
                    rows[here.start + hop : here.stop + hop] += hops[:, hop]
            return rows.flatten()[half : half + samples]

        weight = overlapped(hann.square().expand(here.stop - here.start, -1) for here in shares)
        for _ in range(iterations):
            seen = F.pad(audio, (half, half)).unfold(0, self.window, self.hop)
            spectra = (
                torch.fft.rfft(seen[here] * hann, self.n_fft).sgn_().mul_(magnitude[:, here].T) for here in shares
            )
            pieces = (torch.fft.irfft(spectrum, self.n_fft)[:, : self.window] * hann for spectrum in spectra)
            audio = overlapped(pieces) / weight
        return audio


def refined(stft: Stft, magnitude: Tensor, start: Tensor, samples: int, iterations: int) -> Tensor:
    """Griffin and Lim's iterations from the spectrum `start`: audio whose STFT is nearest to `magnitude`.

    With the content's own spectrum as the start and an unchanged magnitude the audio stays as it is. One channel after
    the other, in a fraction of the memory.
    """
    result = torch.empty(len(start), samples, device=start.device)
    for channel, spectrum in enumerate(start):
        result[channel] = stft.iterate(stft.inverse(spectrum[None], samples)[0], magnitude[channel], iterations)
    return result


def apply_gain(
    audio: Floats, sample_rate: int, gains: Gains, iterations: int = 8, device: torch.device = CPU
) -> NDArray[np.float32]:
    """The content's STFT times the gains; `audio` `[channel, sample]` → the same shape."""
    stft = Stft.like(gains.profile, sample_rate)

    def block(piece: Tensor, first: int) -> Tensor:
        times = stft.times(1 + piece.shape[-1] // stft.hop) + first / sample_rate
        factors = 10 ** (_on_bins(gains, times, stft, device) / 20)
        made = []
        for channel, factor in zip(piece, factors.expand(len(piece), -1, -1), strict=True):
            target = stft.forward(channel[None]).mul_(factor)
            made.append(refined(stft, target.abs(), target, piece.shape[-1], iterations))
        return torch.cat(made)

    return _in_blocks(audio, stft, iterations, block, device)


def _on_bins(gains: Gains, times: Floats, stft: Stft, device: torch.device) -> Tensor:
    """`gains.db_at` of the STFT's bins, `[channel, bin, frame]`, which are many: from bands to bins on the device."""
    low, share = across(gains.profile, stft.frequencies)
    bands = torch.from_numpy(gains.db_at(times, band_centres(gains.profile))).to(device)
    under = torch.from_numpy(low).to(device)
    weight = torch.from_numpy(share).to(device)[:, None]
    over = (under + 1).clamp_max(bands.shape[1] - 1)
    return bands.index_select(1, under) * (1 - weight) + bands.index_select(1, over) * weight


def apply_phase(
    audio: Floats, sample_rate: int, gains: Gains, iterations: int = 8, device: torch.device = CPU
) -> NDArray[np.float32]:
    """Inverse mel of the stylised picture with the content's phase; what lies over the model's range is lost."""
    stft = Stft.like(gains.profile, sample_rate, padded=True)

    def block(piece: Tensor, first: int) -> Tensor:
        content = stft.forward(piece)
        magnitude = _inverted_mel(content, gains, stft, first)
        target = magnitude * content.sgn()
        return refined(stft, magnitude, target, piece.shape[-1], iterations)

    return _in_blocks(audio, stft, iterations, block, device)


def griffin_lim(
    audio: Floats, sample_rate: int, gains: Gains, iterations: int = 32, seed: int = 0
) -> NDArray[np.float32]:
    """Inverse mel of the stylised picture with a phase found from noise; the content only gives its channels' levels.

    The published baseline. In blocks, each of which starts from the phase of what the one before has left in their
    overlap, so that the two agree where they are crossfaded.
    """
    stft = Stft.like(gains.profile, sample_rate, padded=True)
    generator = torch.Generator().manual_seed(seed)
    samples = audio.shape[-1]
    length, overlap = _aligned(BLOCK_SECONDS, stft), _aligned(1.0, stft)
    result = zeros(audio.shape)
    for here in blocks(samples, length):
        first, high = here.start, here.stop
        low = max(0, first - overlap)
        piece = torch.from_numpy(np.ascontiguousarray(audio[:, low:high], np.float32))
        magnitude = _inverted_mel(stft.forward(piece), gains, stft, low)
        phase = torch.rand(magnitude.shape, generator=generator) * (2 * np.pi)
        known = torch.from_numpy(np.ascontiguousarray(result[:, low:high]))
        settled = (first - low) // stft.hop
        phase[..., :settled] = stft.forward(known)[..., :settled].angle()
        made = refined(stft, magnitude, torch.polar(magnitude, phase), high - low, iterations).numpy()
        fade = np.clip(np.arange(high - low) / max(1, first - low), 0, 1) if low else 1.0
        result[:, low:high] += fade * (made - result[:, low:high])
    return result


def _inverted_mel(content: Tensor, gains: Gains, stft: Stft, first: int) -> Tensor:
    """Magnitude of the stylised mel, `[channel, bin, frame]`.

    Channels that share a mel take their shares of it from the content, so that they keep their places.
    """
    filters, _ = _filters(gains.profile, stft)
    times = stft.times(content.shape[-1]) + first / stft.sample_rate
    mel = torch.from_numpy(spread(gains.styled, gains.profile, times, band_centres(gains.profile))).to(content.device)
    if mel.shape[0] < content.shape[0]:
        mel = shared_out(mel, filters.to(content.device) @ content.abs())
    return inverted_mel(mel, gains.profile, stft)


def shared_out(mel: Tensor, own: Tensor) -> Tensor:
    """One mel for all channels, `[1, mel, frame]`, in the shares that their `own` have, `[channel, mel, frame]`."""
    together = own.square().mean(0, keepdim=True).sqrt()
    return mel * own / together.clamp_min(1e-12)


def inverted_mel(mel: Tensor, profile: Profile, stft: Stft) -> Tensor:
    """Magnitudes `[channel, bin, frame]` of an STFT from those of a mel, by the pseudo-inverse of the filters."""
    _, inverse = _filters(profile, stft)
    # The mel's scale is that of the profile's window, whose samples are as many as its length in seconds has.
    return (inverse.to(mel.device) @ mel).clamp_min(0) * (stft.window / profile.window)


@lru_cache(maxsize=4)
def _filters(profile: Profile, stft: Stft) -> tuple[Tensor, Tensor]:
    """The mel filters over the clip's bins `[mel, bin]`, and their pseudo-inverse `[bin, mel]`."""
    filters = torch.from_numpy(mel_filters(profile, stft.sample_rate, stft.n_fft).copy())
    exact = filters.double()
    inverse = exact.T @ torch.linalg.pinv(exact @ exact.T, rtol=1e-9, hermitian=True)
    return filters, inverse.float()


def _aligned(seconds: float, stft: Stft) -> int:
    """Samples of so many seconds, a whole number of hops."""
    return max(1, round(seconds * stft.sample_rate / stft.hop)) * stft.hop


def _in_blocks(
    audio: Floats, stft: Stft, iterations: int, block: Callable[[Tensor, int], Tensor], device: torch.device
) -> NDArray[np.float32]:
    """Run `block` on `device` over pieces of the clip with so much context that the result is that of the whole clip.

    One STFT and its inverse reach a window far; every iteration reaches another.
    """
    samples = audio.shape[-1]
    context = -(-stft.window * (iterations + 2) // stft.hop) * stft.hop
    length = _aligned(BLOCK_SECONDS, stft)
    result = zeros(audio.shape)
    for here in blocks(samples, length):
        low, high = max(0, here.start - context), min(samples, here.stop + context)
        piece = torch.from_numpy(np.ascontiguousarray(audio[:, low:high], np.float32)).to(device)
        result[:, here] = block(piece, low)[:, here.start - low : here.stop - low].cpu().numpy()
    return result
