"""Audio to mel-spectrogram picture and back to a mel-spectrogram (METHOD 1).

Shapes: audio `[channel, sample]`, mel `[channel, mel, frame]` as magnitudes, image `[channel, mel, frame]` in [0, 1].
Frame `j` is centred on sample `j * hop`. Band 0 is the lowest.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .scratch import blocks, zeros

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Profile:
    """How a model sees sound. A profile belongs to a model, never to a caller.

    Lengths are in samples at `sample_rate` (Hz), frequencies in Hz. `compression` is "root" (Riffusion: the picture is
    `1 - (mel / max) ** exponent`, dark is loud) or "log" (`1 + 20 log10(mel / max) / range_db`, bright is loud).
    """

    sample_rate: int
    hop: int
    window: int
    n_fft: int
    bands: int
    low: float
    high: float
    frames: int
    compression: Literal["root", "log"]
    exponent: float = 0.25
    range_db: float = 80.0

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop

    @property
    def seconds(self) -> float:
        """Length of one window of the model."""
        return self.frames / self.frame_rate

    def to_dict(self) -> dict[str, Any]:
        """As plain values, the way a model's `stylus.json` holds it."""
        return asdict(self)


RIFFUSION = Profile(44100, 441, 4410, 17640, 512, 0.0, 10000.0, 512, "root")
"""Riffusion's parameters (Forsgren & Martiros 2022), which Stylus uses with Stable Diffusion: 512 × 512 = 5.12 s."""

MINI = Profile(44100, 441, 4096, 16384, 512, 20.0, 20000.0, 256, "log")
"""The embedded model's: the whole hearing range, 80 dB deep, 512 × 256 = 2.56 s."""

_THREADS = int(os.environ.get("OMP_NUM_THREADS") or -1)
"""Of a Fourier transform: as many as there are, unless OpenMP is told otherwise, as beside others of our processes."""

BANDS = 16
"""Of a long clip's mel, that are worked on at once."""

SILENCE_DB = -80.0
"""A frame whose loudest band is this far under the clip's maximum counts as silence (METHOD 3)."""


def hz_to_mel(hz: Floats | float) -> Floats:
    """HTK mel scale: `2595 log10(1 + f / 700)`."""
    return np.asarray(2595.0 * np.log10(1.0 + np.asarray(hz) / 700.0))


def mel_to_hz(mel: Floats | float) -> Floats:
    """Inverse of `hz_to_mel`.

    >>> round(float(mel_to_hz(hz_to_mel(440.0))), 6)
    440.0
    """
    return np.asarray(700.0 * (10.0 ** (np.asarray(mel) / 2595.0) - 1.0))


def _band_edges(profile: Profile) -> Floats:
    """In Hz, evenly spaced in mel, `[mel + 2]`: a band reaches from one over the next, its centre, to the one after."""
    return mel_to_hz(np.linspace(hz_to_mel(profile.low), hz_to_mel(profile.high), profile.bands + 2))


@lru_cache(maxsize=8)
def band_centres(profile: Profile) -> Floats:
    """Centre frequency of each band in Hz, `[mel]`."""
    centres = _band_edges(profile)[1:-1]
    centres.setflags(write=False)
    return centres


@lru_cache(maxsize=8)
def mel_filters(profile: Profile, sample_rate: int | None = None, n_fft: int | None = None) -> NDArray[np.float32]:
    """Triangular HTK filters without area normalisation, `[mel, bin]`, for the profile's own STFT or another one.

    With another sample rate or FFT size the bands keep their frequencies; those over Nyquist are empty. Equal to
    librosa's, whose import alone would take longer than the picture of a short clip.
    """
    edges = _band_edges(profile)[:, None]
    bins = np.fft.rfftfreq(n_fft or profile.n_fft, 1 / (sample_rate or profile.sample_rate))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    filters = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    result = np.maximum(filters, 0, out=filters).astype(np.float32)
    result.setflags(write=False)
    return result


@lru_cache(maxsize=8)
def _sparse_filters(profile: Profile) -> Any:
    """The same filters without their zeros, which are nearly all of them."""
    from scipy.sparse import csr_array

    return csr_array(mel_filters(profile))


def frame_count(samples: int, hop: int) -> int:
    """Frames of a centred STFT over `samples` samples: one on every hop, the first on sample 0."""
    return 1 + samples // hop


def mel_spectrogram(audio: Floats, profile: Profile, block_frames: int = 128) -> NDArray[np.float32]:
    """Magnitude mel-spectrogram of audio at the profile's sample rate, `[channel, sample]` → `[channel, mel, frame]`.

    A centred STFT with zeros beyond both ends, made in blocks of frames so that memory grows with the result only.

    >>> mel_spectrogram(np.zeros((2, 44100), np.float32), MINI).shape
    (2, 512, 101)
    """
    import scipy.fft

    channels, samples = audio.shape
    frames = frame_count(samples, profile.hop)
    filters = _sparse_filters(profile)
    window = np.hanning(profile.window + 1)[:-1].astype(np.float32)
    result = zeros((channels, profile.bands, frames))
    for here in blocks(frames, block_frames):
        low = here.start * profile.hop - profile.window // 2
        piece = zero_padded(audio, low, low + (here.stop - here.start - 1) * profile.hop + profile.window)
        cut = np.lib.stride_tricks.sliding_window_view(piece, profile.window, axis=1)[:, :: profile.hop]
        for channel in range(channels):
            spectrum = np.abs(scipy.fft.rfft(cut[channel] * window, profile.n_fft, axis=1, workers=_THREADS))
            result[channel, :, here] = filters @ spectrum.T
    return result


def mel_spectrogram_on(
    device: torch.device, audio: Floats, profile: Profile, block_frames: int = 1024
) -> NDArray[np.float32]:
    """`mel_spectrogram` by PyTorch, for a device that is quicker than the CPU; equal but for rounding."""
    import torch

    samples = torch.from_numpy(np.ascontiguousarray(audio, np.float32)).to(device)
    half = profile.window // 2
    padded = torch.nn.functional.pad(samples, (half, profile.window - half))
    cut = padded.unfold(1, profile.window, profile.hop)[:, : frame_count(audio.shape[1], profile.hop)]
    filters = torch.from_numpy(mel_filters(profile).copy()).to(device)
    window = torch.hann_window(profile.window, device=device)
    result = zeros((len(audio), profile.bands, cut.shape[1]))
    for here in blocks(cut.shape[1], block_frames):
        result[..., here] = (filters @ torch.fft.rfft(cut[:, here] * window, profile.n_fft).abs().mT).cpu().numpy()
    return result


def zero_padded(audio: Floats, low: int, high: int, dtype: Any = np.float32) -> NDArray[Any]:
    """Samples `[low, high)`, zero where there are none."""
    piece = np.zeros((len(audio), high - low), dtype)
    inside = slice(max(0, low), min(audio.shape[1], high))
    piece[:, inside.start - low : inside.stop - low] = audio[:, inside]
    return piece


def to_image(mel: Floats, profile: Profile, maximum: float) -> NDArray[np.float32]:
    """Compress a mel-spectrogram to a picture in [0, 1]; `maximum` is the clip's one scale, which travels with it.

    >>> to_image(np.array([[[1.0, 0.1, 0.0]]]), MINI, 1.0).round(2).tolist()
    [[[1.0, 0.75, 0.0]]]
    >>> to_image(np.array([[[1.0, 0.0]]]), RIFFUSION, 1.0).tolist()
    [[[0.0, 1.0]]]
    """
    relative = np.asarray(mel, np.float32) / np.float32(maximum if maximum > 0 else 1.0)
    if profile.compression == "root":
        return np.asarray(1.0 - np.clip(relative, 0.0, 1.0) ** np.float32(profile.exponent), np.float32)
    floor = np.float32(10.0 ** (-profile.range_db / 20.0))
    image = 1.0 + 20.0 * np.log10(np.maximum(relative, floor)) / np.float32(profile.range_db)
    return np.asarray(np.clip(image, 0.0, 1.0), np.float32)


def from_image(image: Floats, profile: Profile, maximum: float) -> NDArray[np.float32]:
    """Inverse of `to_image`: a magnitude mel-spectrogram. A log picture's black is its floor, not zero.

    >>> mel = np.array([[[1.0, 0.1]]])
    >>> bool(np.allclose(from_image(to_image(mel, RIFFUSION, 1.0), RIFFUSION, 1.0), mel, rtol=1e-5))
    True
    """
    image = np.clip(np.asarray(image, np.float32), 0.0, 1.0)
    if profile.compression == "root":
        relative = (1.0 - image) ** np.float32(1.0 / profile.exponent)
    else:
        relative = 10.0 ** ((image - 1.0) * np.float32(profile.range_db / 20.0))
    return np.asarray(relative * np.float32(maximum), np.float32)


def highest(mel: Floats) -> float:
    """The largest value of `[channel, mel, frame]`, at least 0."""
    return max((float(mel[:, bands].max(initial=0.0)) for bands in blocks(mel.shape[1], BANDS)), default=0.0)


def loudest(mel: Floats) -> NDArray[np.floating[Any]]:
    """The largest value of each frame of `[channel, mel, frame]`, `[frame]`."""
    result = np.zeros(mel.shape[-1], mel.dtype)
    for bands in blocks(mel.shape[1], BANDS):
        np.maximum(result, mel[:, bands].max(axis=(0, 1)), out=result)
    return result


def silent_frames(mel: Floats, maximum: float) -> NDArray[np.bool_]:
    """Which frames are silence, `[frame]`: the loudest band over all channels lies under `SILENCE_DB` of `maximum`."""
    return np.asarray(loudest(mel) <= maximum * 10.0 ** (SILENCE_DB / 20.0))
