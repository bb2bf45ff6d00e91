"""Loudness and peaks: ITU-R BS.1770-4.

Our own, since libraries refuse clips under 400 ms and more than five channels. All channels count alike: what a
channel beyond stereo is for, a stem does not say. Audio is `[channel, sample]`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

_BLOCK_SECONDS = 0.4
_HOP_SECONDS = 0.1
_ABSOLUTE_GATE = -70.0
_RELATIVE_GATE = -10.0
_PIECE = 2**18


@lru_cache(maxsize=32)
def _k_weighting(sample_rate: int) -> NDArray[np.float64]:
    """The two biquads at any rate, as second-order sections, from their analogue prototypes (BS.1770, annex 1)."""
    return np.array([_shelf(sample_rate), _high_pass(sample_rate)])


def _shelf(sample_rate: int) -> list[float]:
    frequency, gain_db, q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
    k = math.tan(math.pi * frequency / sample_rate)
    high = 10 ** (gain_db / 20)
    middle = high**0.4996667741545416
    a0 = 1 + k / q + k * k
    return [
        (high + middle * k / q + k * k) / a0,
        2 * (k * k - high) / a0,
        (high - middle * k / q + k * k) / a0,
        1.0,
        2 * (k * k - 1) / a0,
        (1 - k / q + k * k) / a0,
    ]


def _high_pass(sample_rate: int) -> list[float]:
    frequency, q = 38.13547087602444, 0.5003270373238773
    k = math.tan(math.pi * frequency / sample_rate)
    a0 = 1 + k / q + k * k
    return [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / a0, (1 - k / q + k * k) / a0]


def integrated(audio: Floats, sample_rate: int) -> float:
    """Integrated loudness in LUFS; -inf for silence. A clip shorter than a block (400 ms) is one block.

    >>> time = np.arange(48000) / 48000
    >>> round(integrated(np.sin(2 * np.pi * 997 * time)[None], 48000), 1)
    -3.0
    """
    power = _block_powers(audio, sample_rate)
    loud = power[_lufs(power) > _ABSOLUTE_GATE]
    if not len(loud):
        return -math.inf
    loud = loud[_lufs(loud) > _lufs(loud.mean()) + _RELATIVE_GATE]
    return float(_lufs(loud.mean()))


def _lufs(power: Any) -> Any:
    with np.errstate(divide="ignore"):
        return -0.691 + 10 * np.log10(power)


def _block_powers(audio: Floats, sample_rate: int) -> NDArray[np.float64]:
    """Mean power of the weighted channels, summed, in blocks of 400 ms every 100 ms, `[block]`."""
    from scipy.signal import sosfilt

    sections = _k_weighting(sample_rate)
    samples = audio.shape[1]
    hop = round(_HOP_SECONDS * sample_rate)
    per_block = round(_BLOCK_SECONDS / _HOP_SECONDS)
    short = samples < hop * per_block
    if short:
        hop, per_block = samples, 1
    hops = np.zeros(samples // hop)
    piece = max(1, _PIECE // hop) * hop
    for channel in audio:
        state = np.zeros((len(sections), 2))
        for first in range(0, len(hops) * hop, piece):
            part = np.asarray(channel[first : min(first + piece, len(hops) * hop)], np.float64)
            weighted, state = sosfilt(sections, part, zi=state)
            squares = (weighted**2).reshape(-1, hop).mean(1)
            hops[first // hop : first // hop + len(squares)] += squares
    return np.convolve(hops, np.full(per_block, 1 / per_block), "valid")


def sample_peak(audio: Floats) -> float:
    """Highest sample in dBFS; -inf for silence."""
    peak = max((float(np.abs(channel).max(initial=0.0)) for channel in audio), default=0.0)
    return 20 * math.log10(peak) if peak > 0 else -math.inf


def true_peak(audio: Floats, sample_rate: int) -> float:
    """Highest value between the samples in dBTP, by oversampling to at least 176.4 kHz (BS.1770, annex 2)."""
    from scipy.signal import resample_poly

    factor = 4 if sample_rate < 96000 else 2 if sample_rate < 176400 else 1
    peak = 10 ** (sample_peak(audio) / 20)
    margin = 64
    for channel in audio if factor > 1 else ():
        for first in range(0, len(channel), _PIECE):
            low, high = max(0, first - margin), min(len(channel), first + _PIECE + margin)
            peak = max(peak, float(np.abs(resample_poly(channel[low:high], factor, 1)).max(initial=0.0)))
    return 20 * math.log10(peak) if peak > 0 else -math.inf
