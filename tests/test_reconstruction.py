"""A piece of a long carrier sounds as it does in the whole of it."""

from __future__ import annotations

import numpy as np
import pytest

from stylus_audio.gains import Gains
from stylus_audio.metrics import si_sdr
from stylus_audio.passage import Passage
from stylus_audio.reconstruction import reconstruct
from stylus_audio.settings import Settings
from stylus_audio.spectrogram import MINI


@pytest.mark.parametrize(
    ("rate", "reconstruction"), [(11025, "gain"), (22050, "gain"), (22050, "phase"), (44100, "gain"), (48000, "gain")]
)
def test_a_preview_is_the_same_passage_of_the_whole_render(rate: int, reconstruction: str) -> None:
    rng = np.random.default_rng(rate)
    carrier = rng.normal(0, 0.1, (1, 8 * rate)).astype(np.float32)
    frames = 8 * 100 + 1
    # Gains that change from frame to frame and from band to band, so that a shift of either would be heard.
    reference = rng.uniform(0.5, 1, (1, MINI.bands, frames)).astype(np.float32)
    styled = reference * rng.uniform(0.1, 4, (1, MINI.bands, frames)).astype(np.float32)
    first, last = round(6.37 * rate), round(7.37 * rate)
    passage = Passage(carrier, carrier, rate, first, last, first)
    gains = Gains(styled, reference, MINI)
    whole = reconstruct(passage, gains, Settings(reconstruction=reconstruction))
    preview = reconstruct(passage, gains, Settings(reconstruction=reconstruction, preview=1.0))
    assert preview.shape == whole.shape
    assert si_sdr(preview[:, first:last], whole[:, first:last]) > 60
    # Long before it nothing is worked on.
    assert np.abs(preview[:, : round(2 * rate)]).max() == 0
