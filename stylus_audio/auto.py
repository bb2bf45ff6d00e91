"""How much style a clip bears: γ and α found on a short excerpt, so that the stem stays similar to its content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .audio import resample
from .metrics import chroma, chroma_similarity, onset_f1
from .onsets import onset_times
from .settings import Line, Settings
from .spectrogram import MINI

Floats = NDArray[np.floating[Any]]

EXCERPT = 5.0
"""Seconds of the loudest passage, on which is tried what the clip bears."""

HALVINGS = 4
"""Tries on the excerpt after the first: the strength is found to a sixteenth."""

RETRIES = 3
"""Whole renders after the first one, each at `LESS` of the strength, where the clip bears less than its excerpt."""
LESS = 0.7

TRIES = 1 + HALVINGS
"""Excerpts at most."""


def similarity(stem: Floats, content: Floats, sample_rate: int) -> float:
    """How much of the content `[channel, sample]` a stem has kept, 0 to 1: notes and groove, whichever is kept less.

    The lower of chroma similarity and onset F1 (`metrics`); what the content does not have, is kept.
    """
    stem, content = (resample(audio, sample_rate, MINI.sample_rate) for audio in (stem, content))
    notes = chroma_similarity(chroma(stem), chroma(content))
    onsets = onset_f1(*(onset_times(audio, MINI.sample_rate) for audio in (stem, content)))
    return min(1.0 if np.isnan(value) else value for value in (notes, onsets))


def at_strength(settings: Settings, strength: float) -> Settings:
    """Settings between none of the style (0) and all that they ask for (1), as γ and α.

    >>> made = at_strength(Settings(gamma=0.6, alpha=(0.5, 1.0)), 0.5)
    >>> made.gamma, made.alpha
    (0.8, (0.25, 0.5))
    """
    return replace(
        settings, auto=None, gamma=_each(settings.gamma, lambda value: 1 - strength * (1 - value)),
        alpha=_each(settings.alpha, lambda value: strength * value),
    )  # fmt: skip


def _each(line: Line, change: Callable[[float], float]) -> Line:
    if isinstance(line, tuple):
        return round(change(line[0]), 4), round(change(line[1]), 4)
    return round(change(line), 4)


def excerpt_of(settings: Settings) -> Settings:
    """The same for a short passage: the loudest, or the beginning of a segment that is given in seconds."""
    if settings.preview is not None:
        return replace(settings, preview=min(settings.preview, EXCERPT))
    if settings.start is None and settings.end is None:
        return replace(settings, preview=EXCERPT)
    start = settings.start or 0.0
    if isinstance(start, str) or isinstance(settings.end, str):
        return settings
    end = start + EXCERPT
    return replace(settings, end=end if settings.end is None else min(end, settings.end))


Made = TypeVar("Made")


@dataclass(frozen=True)
class Found(Generic[Made]):
    """A render whose similarity is at least `floor`, or, if `kept` is false, could not be brought to it."""

    made: Made
    settings: Settings
    similarity: float
    kept: bool


def found(
    settings: Settings, excerpt: Callable[[Settings], float], whole: Callable[[Settings], tuple[Made, float]]
) -> Found[Made]:
    """Render with as much of the style as leaves a similarity of `settings.auto`.

    `excerpt` renders a passage and returns its similarity, `whole` renders all and returns that too. Strength is found
    by halving; a clip that bears less than its excerpt is rendered again with less.
    """
    floor = settings.auto or 0.0
    strength = _strength(settings, floor, excerpt)
    for _ in range(1 + RETRIES):
        tried = at_strength(settings, strength)
        made, reached = whole(tried)
        if reached >= floor or strength == 0:
            break
        strength *= LESS
    return Found(made, tried, reached, reached >= floor)


def _strength(settings: Settings, floor: float, excerpt: Callable[[Settings], float]) -> float:
    short = excerpt_of(settings)
    if excerpt(at_strength(short, 1.0)) >= floor:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if excerpt(at_strength(short, middle)) >= floor:
            low = middle
        else:
            high = middle
    return low
