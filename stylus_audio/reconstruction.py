"""From gains to the wet sound, in the way that is asked for (METHOD 5)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .gains import Gains
from .passage import Passage
from .phase import apply_gain, apply_phase, griffin_lim
from .settings import Settings

Floats = NDArray[np.floating[Any]]


def reconstruct(passage: Passage, gains: Gains, settings: Settings) -> Floats:
    """The wet sound on the passage's carrier, `[channel, sample]`; needs no model."""
    carrier = mid_side(passage.carrier) if settings.stereo == "mid-side" else passage.carrier
    rate = passage.sample_rate
    if settings.reconstruction == "griffin-lim":
        wet = griffin_lim(carrier, rate, gains, 32 if settings.refine is None else settings.refine, settings.seed)
    else:
        apply = apply_gain if settings.reconstruction == "gain" else apply_phase
        wet = apply(carrier, rate, gains, 8 if settings.refine is None else settings.refine)
    return mid_side(wet) if settings.stereo == "mid-side" else wet


def mid_side(audio: Floats) -> Floats:
    """Left and right to mid and side and back: its own inverse.

    >>> mid_side(mid_side(np.array([[1.0], [0.5]]))).round(6).tolist()
    [[1.0], [0.5]]
    """
    left, right = audio
    return np.stack([left + right, left - right]) * np.asarray(0.5**0.5, audio.dtype)
