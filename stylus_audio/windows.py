"""Where the model's windows lie on a clip, and how their results are blended (METHOD 6).

All positions are frames; a window has `window` frames.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def window_starts(frames: int, window: int, overlap: float, first: int = 0) -> list[int]:
    """First frames of the windows over `frames` frames from `first` on, overlapping by at least a share `overlap`.

    A clip no longer than a window has one, padded behind; otherwise none reaches beyond the clip.

    >>> window_starts(100, 256, 0.25), window_starts(600, 256, 0.25)
    ([0], [0, 172, 344])
    """
    if frames <= window:
        return [first]
    shared = int(np.ceil(window * overlap))
    count = -(-(frames - shared) // (window - shared))
    return [first + int(start) for start in np.linspace(0, frames - window, count).round()]


def cut(image: Floats, starts: Sequence[int], window: int, padding: float) -> NDArray[np.float32]:
    """Windows of a picture, `[channel, mel, frame]` → `[start, channel, mel, window]`, filled up with `padding`."""
    channels, bands, frames = image.shape
    result = np.full((len(starts), channels, bands, window), padding, np.float32)
    for row, start in enumerate(starts):
        low, high = max(0, start), min(frames, start + window)
        if low < high:
            result[row, :, :, low - start : high - start] = image[:, :, low:high]
    return result


def blend_weights(starts: Sequence[int], window: int, frames: int) -> NDArray[np.float32]:
    """Raised-cosine weights `[start, frame]` over the clip that sum to one in every frame under a window.

    >>> weights = blend_weights([0, 172, 344], 256, 600)
    >>> bool(np.allclose(weights.sum(0), 1))
    True
    """
    weights = np.zeros((len(starts), frames), np.float32)
    for row, start in enumerate(starts):
        shape = np.ones(window)
        before = starts[row - 1] + window - start if row > 0 else 0
        after = start + window - starts[row + 1] if row + 1 < len(starts) else 0
        if before > 0:
            shape[:before] *= _ramp(before)
        if after > 0:
            shape[window - after :] *= _ramp(after)[::-1]
        low, high = max(0, start), min(frames, start + window)
        weights[row, low:high] = shape[low - start : high - start]
    # Where more than two windows overlap the ramps do not sum to one by themselves.
    covered = weights.sum(0)
    return np.asarray(weights / np.where(covered > 0, covered, 1), np.float32)


def seams(starts: Sequence[int], window: int) -> list[float]:
    """Frames in the middle of the overlap of each window with the next.

    >>> seams([0, 172], 256)
    [214.0]
    """
    return [(after + before + window) / 2 for before, after in itertools.pairwise(starts) if after < before + window]


def _ramp(length: int) -> Floats:
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length))


def blend(pictures: Floats, starts: Sequence[int], frames: int) -> NDArray[np.float32]:
    """Blend magnitudes `[start, channel, mel, window]` to `[channel, mel, frame]` by their power.

    The mean power of two unlike textures is the power of either; the mean of their magnitudes or decibels is less, and
    would be heard as a dip. Frames under no window are zero.
    """
    window = pictures.shape[-1]
    weights = blend_weights(starts, window, frames)
    result = np.zeros((*pictures.shape[1:3], frames), np.float32)
    for row, start in enumerate(starts):
        low, high = max(0, start), min(frames, start + window)
        piece = pictures[row, :, :, low - start : high - start]
        result[:, :, low:high] += weights[row, low:high] * piece**2
    return np.sqrt(result)
