"""Bursts: what stands out as neither clip nor reference does is brought down, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest

from stylus_audio import Engine, moments
from stylus_audio.bursts import SPARE_DB, limit_bursts, standing_out
from tests.sounds import RATE, noise

TIME = np.arange(RATE) / RATE
TONE = 0.1 * np.sin(2 * np.pi * 441 * TIME)[None].astype(np.float32)


def with_burst(level: float, at: float = 0.5) -> np.ndarray:
    """The tone, so many dB louder for 5 ms."""
    first = round(at * RATE)
    audio = TONE.copy()
    audio[:, first : first + 220] *= np.float32(10 ** (level / 20))
    return audio


def test_how_far_the_loudest_moment_stands_out() -> None:
    assert standing_out(TONE, RATE) == pytest.approx(0, abs=0.3)
    assert standing_out(with_burst(20, 110 / 441), RATE) == pytest.approx(20, abs=0.5)
    # Silence is not what is usual.
    gated = np.concatenate([TONE, np.zeros_like(TONE), np.zeros_like(TONE)], axis=1)
    assert standing_out(gated, RATE) == pytest.approx(0, abs=0.3)
    assert standing_out(np.zeros((1, 100), np.float32), RATE) == 0
    assert standing_out(np.zeros((1, 0), np.float32), RATE) == 0


@pytest.mark.parametrize("allowed", [0.0, 6.0])
def test_a_burst_is_brought_down_and_the_rest_is_as_it_was(allowed: float) -> None:
    audio = with_burst(20)
    limit_bursts(audio, RATE, allowed)
    assert standing_out(audio, RATE) <= allowed + SPARE_DB + 0.01
    assert standing_out(audio, RATE) > allowed + SPARE_DB - 4
    away = np.abs(TIME - 0.5) > 0.02
    assert np.array_equal(audio[:, away], TONE[:, away])


def test_what_the_style_or_the_clip_does_is_left_alone() -> None:
    audio = with_burst(20)
    limit_bursts(audio, RATE, 18.0)
    assert np.array_equal(audio, with_burst(20))


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate([with_burst(20, at) for at in (0.1, 0.5, 0.9)], axis=1)
    pieces = whole.copy()
    limit_bursts(whole, RATE, 0.0)
    monkeypatch.setattr(moments, "SAMPLES", 3000)
    limit_bursts(pieces, RATE, 0.0)
    assert np.array_equal(whole, pieces)


def test_a_bare_sine_has_no_burst_at_its_corners() -> None:
    """Its corner is 50 dB under it, and was 16 dB over it in the stem."""
    time = np.arange(2 * RATE) / RATE
    sine = 0.5 * np.sin(2 * np.pi * 55 * time) * np.minimum(1, np.minimum(time, 2 - time) / 0.05)
    engine = Engine("mini")
    hiss = 0.1 * noise(3.0)
    stem = engine.render((sine[None], RATE), (hiss, RATE), engine.settings()).audio
    assert standing_out(stem, RATE) <= standing_out(hiss, RATE) + SPARE_DB + 1
