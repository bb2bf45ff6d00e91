"""Match-EQ: known answers."""

from __future__ import annotations

import numpy as np
import pytest

from stylus_audio.match_eq import LIMIT_DB, equalised, long_term_level, match_eq
from stylus_audio.reference import picture_of
from stylus_audio.spectrogram import MINI, band_centres
from tests.sounds import RATE, noise


def coloured(seconds: float, slope_db_per_octave: float, seed: int) -> np.ndarray:
    """Noise with a known slope over 1 kHz."""
    samples = round(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 20) / 1000)
    return np.fft.irfft(spectrum * 10 ** (slope_db_per_octave * octaves / 20), samples)[None].astype(np.float32)


def test_the_gain_is_the_difference_of_two_known_slopes() -> None:
    content, reference = (picture_of(coloured(2.0, slope, seed), RATE, MINI) for slope, seed in ((0, 1), (-3, 2)))
    gain = match_eq(content.level, reference.level)
    octaves = np.log2(band_centres(MINI) / 1000)
    middle = (band_centres(MINI) > 300) & (band_centres(MINI) < 10000)
    slope = np.polyfit(octaves[middle], gain[middle], 1)[0]
    assert slope == pytest.approx(-3.0, abs=0.4)


def test_a_clip_is_not_changed_by_its_own_spectrum_and_gains_are_bounded() -> None:
    level = picture_of(noise(1.0), RATE, MINI).level
    assert np.array_equal(match_eq(level, level), np.zeros_like(level))
    assert match_eq(level, level + 100).max() == LIMIT_DB
    assert match_eq(level, level - 100).min() == -LIMIT_DB


def test_level_is_that_of_the_mean_power_down_to_the_range() -> None:
    power = np.full((MINI.bands, 4), 0.01)
    power[:, 2:] = 0.03
    assert long_term_level(power, MINI) == pytest.approx(10 * np.log10(0.02), abs=1e-4)
    assert long_term_level(np.zeros((MINI.bands, 4)), MINI) == pytest.approx(-80.0, abs=1e-4)


def test_silence_of_a_picture_stays_silence() -> None:
    image = np.zeros((MINI.bands, 3), np.float32)
    image[:, 1] = 0.5
    louder = equalised(image, np.full(MINI.bands, 8.0, np.float32), MINI)
    assert not louder[:, [0, 2]].any()
    assert louder[:, 1] == pytest.approx(0.6)
    assert equalised(image, np.full(MINI.bands, 80.0, np.float32), MINI).max() == 1.0
