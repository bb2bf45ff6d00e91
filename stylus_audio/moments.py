"""Moments: the level of a sound in short pieces, side by side, and turning some of them down."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scratch import SAMPLES, blocks

Floats = NDArray[np.floating[Any]]


def levels(audio: Floats, sample_rate: int, moment: float) -> Floats:
    """Level of each `moment` (s) of `[channel, sample]`, over all channels, in dB `[moment]`."""
    size = _size(sample_rate, moment)
    power = np.zeros(-(-audio.shape[1] // size))
    step = max(1, SAMPLES // size) * size
    for here in blocks(audio.shape[1], step):
        piece = np.square(audio[:, here], dtype=np.float64).sum(0)
        sums = np.add.reduceat(piece, np.arange(0, len(piece), size))
        power[here.start // size : here.start // size + len(sums)] = sums
    return np.asarray(10 * np.log10(np.maximum(power, 1e-30)))


def turn_down(audio: Floats, sample_rate: int, moment: float, decibels: Floats) -> None:
    """Lower each `moment` (s) of `[channel, sample]` by so many `decibels` `[moment]`, none where that is not positive.

    In a straight line from the middle of a moment to that of the next.
    """
    down = np.maximum(0, decibels)
    if not down.any():
        return
    size = _size(sample_rate, moment)
    middles = (np.arange(len(down)) + 0.5) * size
    for here in blocks(audio.shape[1], SAMPLES):
        gain = 10 ** (-np.interp(np.arange(here.start, here.stop), middles, down) / 20)
        audio[:, here] *= gain.astype(audio.dtype)


def _size(sample_rate: int, moment: float) -> int:
    return max(1, round(moment * sample_rate))
