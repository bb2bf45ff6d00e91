"""Bursts: moments at which a stem stands out as neither its clip nor the reference ever does.

A clip that no training had, such as a bare sine, has corners in which it is suddenly broad; a model may take such a
corner for an attack, and the whole stem would be turned down for its peak.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scratch import SAMPLES, blocks

Floats = NDArray[np.floating[Any]]

MOMENT = 0.005
"""Seconds over which a level is taken."""
USUAL = 0.9
"""A loud moment that is usual: this share of all that sounds is not over it."""
SOUNDING_DB = -60.0
"""Under the loudest moment; what is softer does not count in what is usual."""
SPARE_DB = 3.0
"""How much farther than in clip and reference a moment may stand out."""


def standing_out(audio: Floats, sample_rate: int) -> float:
    """How far the loudest moment of `[channel, sample]` lies over what is usual in it, in dB; 0 for silence."""
    found = levels(audio, sample_rate, MOMENT)
    return float(found.max() - _usual(found)) if len(found) else 0.0


def limit_bursts(audio: Floats, sample_rate: int, allowed: float) -> None:
    """Change `[channel, sample]` so that no moment lies over what is usual by more than `allowed` dB and `SPARE_DB`."""
    found = levels(audio, sample_rate, MOMENT)
    if not len(found):
        return
    over = found - (_usual(found) + allowed + SPARE_DB)
    # A moment's gain holds for the whole of it, and changes in its neighbours.
    padded = np.pad(over, 1, mode="edge")
    turn_down(audio, sample_rate, MOMENT, np.maximum(np.maximum(padded[:-2], padded[2:]), over))


def _usual(found: Floats) -> float:
    return float(np.quantile(found[found >= found.max() + SOUNDING_DB], USUAL))


def levels(audio: Floats, sample_rate: int, moment: float) -> Floats:
    """Level of each `moment` (s) of `[channel, sample]`, over all channels, in dB `[moment]`."""
    size = max(1, round(moment * sample_rate))
    power = np.zeros(-(-audio.shape[1] // size))
    step = max(1, SAMPLES // size) * size
    for first in range(0, audio.shape[1], step):
        piece = np.square(audio[:, first : first + step], dtype=np.float64).sum(0)
        sums = np.add.reduceat(piece, np.arange(0, len(piece), size))
        power[first // size : first // size + len(sums)] = sums
    return np.asarray(10 * np.log10(np.maximum(power, 1e-30)))


def turn_down(audio: Floats, sample_rate: int, moment: float, decibels: Floats) -> None:
    """Lower each `moment` (s) of `[channel, sample]` by so many `decibels` `[moment]`, none where that is not positive.

    In a straight line from the middle of a moment to that of the next.
    """
    down = np.maximum(0, decibels)
    if not down.any():
        return
    size = max(1, round(moment * sample_rate))
    middles = (np.arange(len(down)) + 0.5) * size
    for here in blocks(audio.shape[1], SAMPLES):
        gain = 10 ** (-np.interp(np.arange(here.start, here.stop), middles, down) / 20)
        audio[:, here] *= gain.astype(audio.dtype)
