"""Bursts: moments at which a stem stands out as neither its clip nor the reference ever does.

A clip that no training had, such as a bare sine, has corners in which it is suddenly broad; a model may take such a
corner for an attack, and the whole stem would be turned down for its peak.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .moments import levels, turn_down

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
