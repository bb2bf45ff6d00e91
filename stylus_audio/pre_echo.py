"""Pre-echo: an analysis window hears an attack before it comes, and what the gains make of it lies in front of it.

Codecs know the same (temporal noise shaping, ISO/IEC 13818-7). Where the clip itself rises at once, the wet sound in
front of that may not rise over the clip any further than it did before the window heard of the attack.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .moments import levels, turn_down

Floats = NDArray[np.floating[Any]]

MOMENT = 0.002
"""Seconds over which a level is taken."""
REACH = 0.046
"""Seconds that half an analysis window reaches."""
RISE_DB = 15.0
"""An attack lies so far over all that the clip had within the reach before it."""
SPARE_DB = 3.0
FAINT_DB = -200.0
"""Digital silence, of which other rules keep."""


def without_pre_echo(wet: Floats, dry: Floats, sample_rate: int) -> None:
    """Change `wet` `[channel, sample]` in front of the attacks of `dry`; the last moment before one is left alone."""
    ours, theirs = (levels(audio, sample_rate, MOMENT) for audio in (wet, dry))
    reach = round(REACH / MOMENT)
    if len(theirs) <= reach:
        return
    before = np.lib.stride_tricks.sliding_window_view(theirs, reach).max(1)[:-1]
    attacks: list[int] = (reach + np.flatnonzero((theirs[reach:] > before + RISE_DB) & (before > FAINT_DB))).tolist()
    over = np.zeros(len(theirs))
    for attack in attacks:
        heard, first = attack - reach, max(0, attack - 2 * reach)
        if heard - first < reach // 4:
            continue
        allowed = np.quantile((ours - theirs)[first:heard], 0.9) + SPARE_DB
        here = slice(heard, attack - 1)
        over[here] = np.maximum(over[here], (ours - theirs)[here] - allowed)
    turn_down(wet, sample_rate, MOMENT, over)
