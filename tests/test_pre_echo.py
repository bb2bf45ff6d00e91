"""Pre-echo goes, the attack and all else stays to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from stylus_audio import Engine
from stylus_audio.pre_echo import without_pre_echo
from tests.sounds import RATE, noise

HIT = RATE // 2


def hit(floor: float = 1e-4) -> np.ndarray:
    """A burst of noise in the middle of a second of a faint one."""
    audio = noise(1.0, seed=1).astype(np.float32) * floor
    audio[:, HIT:] += noise(0.5, seed=2) * np.exp(-np.arange(RATE - HIT) / 2000)
    return np.asarray(audio, np.float32)


def level(audio: np.ndarray, first: float, last: float) -> float:
    """In dB, between milliseconds from the hit."""
    piece = audio[:, HIT + round(first * RATE / 1000) : HIT + round(last * RATE / 1000)]
    return float(10 * np.log10(np.square(piece, dtype=np.float64).mean()))


def test_what_comes_before_an_attack_is_as_soft_as_it_was() -> None:
    dry = hit()
    wet = dry.copy()
    wet[:, HIT - 1500 : HIT] += noise(1.0, 0.1, seed=3)[:, :1500]
    kept = wet.copy()
    without_pre_echo(wet, dry, RATE)
    assert level(kept, -30, -4) > -25
    assert level(wet, -30, -4) < level(dry, -30, -4) + 8
    assert np.array_equal(wet[:, HIT:], kept[:, HIT:])
    assert np.array_equal(wet[:, : HIT - round(0.06 * RATE)], kept[:, : HIT - round(0.06 * RATE)])


@pytest.mark.parametrize("case", ["held", "soft rise", "short", "silent before"])
def test_what_is_no_pre_echo_stays_to_the_bit(case: str) -> None:
    dry = hit(0.0 if case == "silent before" else 1e-4)
    # A style that holds its notes, over a clip that has let go of them.
    wet = dry + noise(1.0, 0.1, seed=4).astype(np.float32)
    if case == "soft rise":
        dry = (noise(1.0, seed=1) * np.linspace(0.01, 1, RATE)).astype(np.float32)
        wet = dry * 2
    elif case == "short":
        dry, wet = dry[:, :1000], wet[:, :1000]
    kept = wet.copy()
    without_pre_echo(wet, dry, RATE)
    assert np.array_equal(wet, kept)


def test_a_stem_has_no_pre_echo_over_a_noise_floor() -> None:
    engine = Engine("mini")
    organ = sum(np.sin(2 * np.pi * 220 * n * np.arange(3 * RATE) / RATE) / n for n in range(1, 9))
    dry = hit(3e-5)
    stem = engine.render((dry, RATE), (0.1 * np.asarray(organ)[None], RATE), engine.settings()).audio
    attack = level(stem, 0, 30)
    # It was at -9 dB in an organ, where the clip has -69.
    assert max(level(stem, first, first + 7) for first in range(-45, -10, 7)) < attack - 30
