"""Windows cover a clip, and their blend has no seam."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylus_audio.windows import blend, cut, window_starts


@given(st.integers(1, 3000), st.floats(0.05, 0.75))
def test_on_a_grid_neighbours_have_what_repeats_the_other_way_round(frames: int, overlap: float) -> None:
    even, starts = window_starts(frames, 256, overlap), window_starts(frames, 256, overlap, 100, grid=4)
    assert len(starts) == len(even)
    assert (starts[0], starts[-1]) == (100, 100 + even[-1])
    assert all(abs(one - 100 - other) <= 4.5 for one, other in zip(starts, even, strict=True))
    assert all((after - before) % 8 == 4 for before, after in itertools.pairwise(starts[:-1]))


@given(st.integers(1, 3000), st.integers(8, 512), st.floats(0.05, 0.75))
def test_windows_cover_and_overlap(frames: int, window: int, overlap: float) -> None:
    starts = window_starts(frames, window, overlap)
    assert starts[0] == 0
    assert starts[-1] + window >= frames
    assert all(0 < b - a <= window - int(np.ceil(window * overlap)) + 1 for a, b in itertools.pairwise(starts))
    ones = np.ones((len(starts), 1, 1, window), np.float32)
    assert np.allclose(blend(ones, starts, frames), 1, atol=1e-5)


def test_one_picture_cut_and_blended_is_itself() -> None:
    picture = np.random.default_rng(0).random((2, 5, 300)).astype(np.float32)
    starts = window_starts(300, 64, 0.25)
    assert np.allclose(blend(cut(picture, starts, 64, 0.0), starts, 300), picture, atol=1e-5)


def test_unlike_windows_keep_their_power_at_the_seam() -> None:
    rng = np.random.default_rng(1)
    starts = window_starts(600, 256, 0.25)
    pictures = np.abs(rng.standard_normal((len(starts), 1, 2000, 256))).astype(np.float32)
    power = (blend(pictures, starts, 600)[0] ** 2).mean(0)
    assert 10 * np.log10(power.max() / power.min()) < 1.0


def test_windows_apart_leave_silence_between() -> None:
    pictures = np.ones((2, 1, 1, 10), np.float32)
    result = blend(pictures, [0, 20], 30)[0, 0]
    assert result.tolist() == pytest.approx([1.0] * 10 + [0.0] * 10 + [1.0] * 10)
