"""The tail of a clip: what its last moment rings on as."""

from __future__ import annotations

import numpy as np
import pytest

from stylus_audio.passage import rung_out
from tests.sounds import RATE, decibels, tone


@pytest.mark.parametrize("seconds", [0.02, 0.04, 0.05, 0.06, 0.1, 0.11, 0.125, 0.5])
@pytest.mark.parametrize("odd", [0, 1])
def test_a_short_clip_rings_on_at_its_pitch(seconds: float, odd: int) -> None:
    audio = tone(440, seconds)[:, : round(seconds * RATE) - odd]
    tail = rung_out(audio, RATE // 2, RATE)[0, -RATE // 2 :]
    start = tail[: RATE // 5]
    spectrum = np.abs(np.fft.rfft(start * np.hanning(len(start)), 8 * len(start)))
    assert spectrum.argmax() * RATE / (8 * len(start)) == pytest.approx(440, rel=0.01)
    assert decibels(tail[:2000]) > decibels(audio) - 6


def test_what_is_too_short_to_have_a_spectrum_rings_on_as_silence() -> None:
    assert not rung_out(tone(440, 0.0005), 100, RATE).any()
