"""What of a clip is rendered as a loop, and what its last moment rings on as."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stylus_audio.audio import Clip
from stylus_audio.passage import passage_of, rung_out, segment_of
from stylus_audio.riff import Chunk
from stylus_audio.settings import Settings
from tests.sounds import RATE, decibels, tone


@pytest.mark.parametrize(
    ("asked", "loops"),
    [
        ({}, True),
        ({"start": 0}, True),
        ({"start": "0 samples", "end": 1}, True),
        ({"end": 7}, True),
        ({"preview": 1}, True),
        ({"start": "1 samples"}, False),
        ({"end": 0.9}, False),
        ({"preview": 0.9}, False),
    ],
)
def test_only_ends_that_cut_something_off_end_a_loop(asked: dict[str, Any], loops: bool) -> None:
    settings = Settings.parse(asked)
    acid = Chunk(b"acid", bytes(24))
    clip = Clip(tone(440, 1.0), RATE, "FLOAT", "WAV", 0, RATE, (acid,))
    passage = passage_of(clip, settings, *segment_of(settings, RATE, RATE), context=1000, margin=100)
    assert passage.wraps == loops


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
