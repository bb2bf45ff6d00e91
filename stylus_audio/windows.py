"""Where the model's windows lie on a clip, and how their results are blended (METHOD 6).

All positions are frames; a window has `window` frames.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scratch import blocks, let_go, zeros
from .spectrogram import BANDS

Floats = NDArray[np.floating[Any]]


def window_starts(frames: int, window: int, overlap: float, first: int = 0, grid: int = 1) -> list[int]:
    """First frames of the windows over `frames` frames from `first` on, overlapping by at least a share `overlap`.

    A clip no longer than a window has one, padded behind; otherwise none reaches beyond the clip. With a `grid` over 1
    windows begin, give or take as much, an odd number of grids after the one before, but for the last: what a network
    repeats every two grids is then blended with its opposite.

    >>> window_starts(100, 256, 0.25), window_starts(600, 256, 0.25)
    ([0], [0, 172, 344])
    >>> window_starts(1000, 256, 0.5, grid=4)
    [0, 124, 248, 372, 496, 620, 744]
    """
    if frames <= window:
        return [first]
    shared = int(np.ceil(window * overlap))
    count = -(-(frames - shared) // (window - shared))
    starts = np.linspace(0, frames - window, count)
    if grid > 1:
        odd = grid * (np.arange(count - 1) % 2)
        starts[:-1] = odd + 2 * grid * ((starts[:-1] - odd) / (2 * grid)).round()
    return [first + int(start) for start in starts.round()]


def cut(image: Floats, starts: Sequence[int], window: int, padding: float) -> NDArray[np.float32]:
    """Windows of a picture, `[channel, mel, frame]` → `[start, channel, mel, window]`, filled up with `padding`."""
    channels, bands, frames = image.shape
    result = np.full((len(starts), channels, bands, window), padding, np.float32)
    for row, start in enumerate(starts):
        low, high = max(0, start), min(frames, start + window)
        if low < high:
            result[row, :, :, low - start : high - start] = image[:, :, low:high]
    return result


def seams(starts: Sequence[int], window: int) -> list[float]:
    """Frames in the middle of the overlap of each window with the next.

    >>> seams([0, 172], 256)
    [214.0]
    """
    return [(after + before + window) / 2 for before, after in itertools.pairwise(starts) if after < before + window]


class Blend:
    """Magnitudes of windows, `[channel, mel, window]`, blended by their power as they come, to `[channel, mel, frame]`.

    The mean power of two unlike textures is the power of either; the mean of their magnitudes or decibels is less, and
    would be heard as a dip. Frames under no window are zero.
    """

    def __init__(self, starts: Sequence[int], frames: int) -> None:
        self._starts, self._frames = starts, frames
        self._power = np.zeros((0, 0, frames), np.float32)
        self._covered = np.zeros(frames, np.float32)
        self._rows = 0

    def add(self, picture: Floats) -> None:
        """The next window, in the order of the starts."""
        start, window = self._starts[self._rows], picture.shape[-1]
        if not self._power.size:
            self._power = zeros((*picture.shape[:-1], self._frames))
        weights = _weights(self._starts, self._rows, window)
        low, high = max(0, start), min(self._frames, start + window)
        here = slice(low - start, high - start)
        self._power[..., low:high] += weights[here] * np.square(picture[..., here])
        self._covered[low:high] += weights[here]
        self._rows += 1
        let_go()

    @property
    def settled(self) -> int:
        """Frames before this will not change any more."""
        return self._starts[self._rows] if self._rows < len(self._starts) else self._frames

    def part(self, first: int, last: int) -> NDArray[np.float32]:
        """Frames `[first, last)` as they are by now."""
        covered = self._covered[first:last]
        return np.asarray(np.sqrt(self._power[..., first:last] / np.where(covered > 0, covered, 1)), np.float32)

    def result(self) -> NDArray[np.float32]:
        """All frames; what it was made of is used up."""
        # Where more than two windows overlap, the weights do not sum to one by themselves.
        covered = np.where(self._covered > 0, self._covered, 1)
        for bands in blocks(self._power.shape[1], BANDS):
            power = self._power[:, bands]
            power /= covered
            np.sqrt(power, out=power)
        return self._power


def blend(pictures: Iterable[Floats], starts: Sequence[int], frames: int) -> NDArray[np.float32]:
    """All windows blended as `Blend` does; pictures are taken one by one, as they are needed.

    >>> blend(np.full((3, 1, 1, 256), 2.0), [0, 172, 344], 610)[0, 0, [0, 200, 599, 600]].tolist()
    [2.0, 2.0, 2.0, 0.0]
    """
    blended = Blend(starts, frames)
    for _, picture in zip(starts, pictures, strict=True):
        blended.add(picture)
    return blended.result()


def _weights(starts: Sequence[int], row: int, window: int) -> NDArray[np.float32]:
    """Raised-cosine weights `[frame]` of one window, that sum to one with those of its neighbours."""
    weights = np.ones(window, np.float32)
    before = starts[row - 1] + window - starts[row] if row > 0 else 0
    after = starts[row] + window - starts[row + 1] if row + 1 < len(starts) else 0
    if before > 0:
        weights[:before] *= _ramp(before)
    if after > 0:
        weights[window - after :] *= _ramp(after)[::-1]
    return weights


def _ramp(length: int) -> NDArray[np.float32]:
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length), np.float32)
