"""Loudness and peaks of audio `[channel, sample]`: ITU-R BS.1770-4.

Our own, since libraries refuse clips under 400 ms and more than five channels. All channels weigh 1: the standard gives
1.41 to the surrounds of a 5.1 layout, but a channel count alone does not say which those are, and we do not guess.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scratch import blocks

Floats = NDArray[np.floating[Any]]

_STEP_SECONDS = 0.1
_STEPS = 4
"""In a block of 400 ms; blocks start a step apart, so that they overlap by 75 %."""

_ABSOLUTE_GATE = -70.0
_RELATIVE_GATE = -10.0
_OFFSET = -0.691
_PIECE = 2**18
"""Samples of one channel that are worked on at once."""

_MARGIN = 64
"""Samples around a piece, more than the interpolation filter reaches."""


def k_weighting(sample_rate: int) -> NDArray[np.float64]:
    """The two biquads at any rate (Hz), as second-order sections `[2, 6]` (BS.1770, annex 1).

    The standard lists them at 48 kHz only. They are bilinear transforms of a shelf of +4 dB at 1682 Hz and a high-pass
    at 38 Hz, which are transformed anew for every rate.
    """
    frequency, q = 1681.974450955533, 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    middle = high**0.4996667741545416
    k = math.tan(math.pi * frequency / sample_rate)
    shelf = np.array([
        high + middle * k / q + k * k, 2 * (k * k - high), high - middle * k / q + k * k,
        1 + k / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k,
    ])  # fmt: skip
    frequency, q = 38.13547087602444, 0.5003270373238773
    # The listed numerator is 1, -2, 1 over a denominator scaled to 1: a gain of 1.005 that is right at 48 kHz only.
    at_48k = math.tan(math.pi * frequency / 48000)
    gain = 1 + at_48k / q + at_48k * at_48k
    k = math.tan(math.pi * frequency / sample_rate)
    high_pass = np.array([gain, -2 * gain, gain, 1 + k / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k])
    return np.stack([shelf / shelf[3], high_pass / high_pass[3]])


def integrated(audio: Floats, sample_rate: int, gain: float = 1.0) -> float:
    """Integrated loudness in LUFS of audio times `gain`; -inf for silence, and where all is under the gate of -70 LUFS.

    A clip shorter than a block (400 ms) is one block.

    >>> time = np.arange(48000) / 48000
    >>> round(integrated(np.sin(2 * np.pi * 997 * time)[None], 48000), 1)
    -3.0
    """
    channels, samples = audio.shape
    meter = Meter(sample_rate, channels, samples)
    piece = max(1, _PIECE // channels)
    for here in blocks(samples, piece):
        meter.add(audio[:, here] if gain == 1.0 else audio[:, here] * gain)
    return meter.integrated()


class Meter:
    """`integrated` of audio that comes in pieces `[channel, sample]`, of `samples` in all."""

    def __init__(self, sample_rate: int, channels: int, samples: int) -> None:
        self._hop, self._per_block = round(_STEP_SECONDS * sample_rate), _STEPS
        if samples < self._hop * self._per_block:
            self._hop, self._per_block = max(1, samples), 1
        self._sections = k_weighting(sample_rate)
        self._state = np.zeros((len(self._sections), channels, 2))
        self._rest = np.zeros((channels, 0))
        self._powers: list[NDArray[np.float64]] = []

    def add(self, piece: Floats) -> None:
        """The next samples."""
        from scipy.signal import sosfilt

        audio = np.concatenate([self._rest, piece], axis=1)
        whole = audio.shape[1] // self._hop * self._hop
        self._rest = audio[:, whole:]
        if whole:
            weighted, self._state = sosfilt(self._sections, audio[:, :whole], zi=self._state)
            self._powers.append(np.square(weighted).sum(0).reshape(-1, self._hop).mean(1))

    def integrated(self) -> float:
        """In LUFS, of what has been added."""
        # Blocks of 400 ms every 100 ms.
        hops = np.concatenate([np.zeros(0), *self._powers])
        powers = np.convolve(hops, np.full(self._per_block, 1 / self._per_block), "valid") if len(hops) else hops
        loud = powers[powers > 10 ** ((_ABSOLUTE_GATE - _OFFSET) / 10)]
        if not len(loud):
            return -math.inf
        loud = loud[loud > loud.mean() * 10 ** (_RELATIVE_GATE / 10)]
        return _OFFSET + 10 * math.log10(loud.mean())


def sample_peak(audio: Floats) -> float:
    """Highest sample in dBFS; -inf for silence.

    >>> round(sample_peak(np.array([[0.0, -0.5]])), 2)
    -6.02
    """
    return _decibels(max((float(np.abs(piece).max()) for piece, _, _ in _pieces(audio)), default=0.0))


def true_peak(audio: Floats, sample_rate: int) -> float:
    """Highest value between the samples too, in dBTP (BS.1770, annex 2); -inf for silence, never under `sample_peak`.

    Oversampled 4 times under 96 kHz, 2 times under 192 kHz; from there on the samples are dense enough.
    """
    from scipy.signal import resample_poly

    peak = sample_peak(audio)
    factor = 4 if sample_rate < 96000 else 2 if sample_rate < 192000 else 1
    if factor == 1:
        return peak
    for piece, before, length in _pieces(audio):
        between = resample_poly(piece.astype(np.float64), factor, 1)
        # The margins only give the filter its surroundings; where they are cut off, it overshoots.
        own = between[before * factor : (before + length) * factor]
        peak = max(peak, _decibels(float(np.abs(own).max())))
    return peak


def _pieces(audio: Floats) -> Iterator[tuple[Floats, int, int]]:
    """Pieces of every channel with margins: the samples, how many precede the piece, the piece's own length."""
    samples = audio.shape[1]
    for channel in audio:
        for here in blocks(samples, _PIECE):
            before, length = min(here.start, _MARGIN), here.stop - here.start
            yield channel[here.start - before : here.stop + _MARGIN], before, length


def _decibels(amplitude: float) -> float:
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf
