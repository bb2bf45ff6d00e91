"""Whether a style is noise: its spectrum then depends on no notes, and is that of whatever is played in it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .match_eq import smoothed
from .spectrogram import Profile

Floats = NDArray[np.floating[Any]]

SECONDS = 0.16
"""Over which a mean is taken: what speckles is gone then, and partials stay."""
DEPTH = 0.5
"""How far under the loudest band of its time a band still counts, as a part of the range."""
SOUNDING = 0.4
"""Of what reaches this in a picture."""
NOISE_DB, TONE_DB = 2.5, 3.5
"""White and coloured noise, crackle and rain stand out of their surroundings by 1.5 to 2.5 dB, drum kits by 3.7 to 5.9,
instruments and voices by 5.7 and more, 12 in the median."""


def noisiness(images: Floats, profile: Profile) -> float:
    """How much of a noise is in pictures `[window, mel, frame]`: 0 none, 1 nothing else; 0 where they are silent."""
    size = max(1, round(SECONDS * profile.frame_rate))
    count = images.shape[-1] // size
    cut = images[..., : count * size].reshape(*images.shape[:-1], count, size)
    means = cut.mean(-1, dtype=np.float32).swapaxes(0, 1).reshape(images.shape[1], -1)
    loudest = means.max(0)
    means, loudest = means[:, loudest > SOUNDING], loudest[loudest > SOUNDING]
    if not means.size:
        return 0.0
    apart = (means - np.apply_along_axis(smoothed, 0, means, profile)) * profile.range_db
    spread = float(np.sqrt(np.square(apart[means > loudest - DEPTH]).mean()))
    return float(np.clip((TONE_DB - spread) / (TONE_DB - NOISE_DB), 0.0, 1.0))
