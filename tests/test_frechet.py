"""Fréchet distance: closed forms, an independent square root, and sounds whose order is known."""

from __future__ import annotations

import math
from typing import Any

import librosa
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from stylus_audio.frechet import frechet_distance, mel_embeddings
from tests.sounds import RATE, noise, plucks
from tests.test_metrics import FLUTE, MELODY, REED, notes

Floats = NDArray[np.floating[Any]]


def drawn(mean: Floats, covariance: Floats, rows: int, seed: int) -> Floats:
    """Rows whose own mean and unbiased covariance are these to the last digits."""
    values = np.random.default_rng(seed).standard_normal((rows, len(mean)))
    values -= values.mean(0)
    white = values @ np.linalg.inv(np.linalg.cholesky(np.cov(values.T))).T
    return np.asarray(mean + white @ np.linalg.cholesky(covariance).T)


def test_a_set_is_no_distance_from_itself_in_any_order() -> None:
    for rows, dimensions in ((300, 8), (5, 80), (2, 512)):
        values = np.random.default_rng(0).normal(3, 10, (rows, dimensions))
        assert frechet_distance(values, values[::-1]) < 1e-6


def test_a_shift_and_two_diagonal_covariances_by_hand() -> None:
    one = drawn(np.zeros(3), np.diag([1.0, 4.0, 9.0]), 50, 1)
    shifted = drawn(np.array([3.0, 0.0, 4.0]), np.diag([1.0, 4.0, 9.0]), 70, 2)
    wider = drawn(np.zeros(3), np.diag([4.0, 16.0, 9.0]), 60, 3)
    assert frechet_distance(one, shifted) == pytest.approx(25.0, abs=1e-9)
    # Of each dimension the difference of the standard deviations, squared: 1, 4 and 0.
    assert frechet_distance(one, wider) == pytest.approx(5.0, abs=1e-9)
    assert frechet_distance(shifted, wider) == pytest.approx(30.0, abs=1e-9)


def test_covariances_that_do_not_commute_are_as_scipys_square_root_says() -> None:
    rng = np.random.default_rng(4)
    one, other = (rng.normal(size=(rows, 6)) @ rng.normal(size=(6, 6)) + rng.normal(size=6) for rows in (40, 90))
    first, second = np.cov(one.T), np.cov(other.T)
    moved = one.mean(0) - other.mean(0)
    expected = moved @ moved + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-9)


def test_fewer_rows_than_dimensions() -> None:
    # Two rows each, at right angles: the covariances share nothing, so their traces add up.
    one, other = np.zeros((2, 100)), np.zeros((2, 100))
    one[:, 0], other[:, 1] = (-1, 1), (-2, 2)
    assert frechet_distance(one, other) == pytest.approx(2.0 + 8.0, abs=1e-12)


def test_one_row_has_no_covariance() -> None:
    rows = np.random.default_rng(5).normal(size=(4, 3))
    assert math.isnan(frechet_distance(rows[:1], rows))
    assert math.isnan(frechet_distance(rows, np.zeros((0, 3))))


@pytest.mark.slow
def test_an_embedding_is_the_mean_and_deviation_of_librosas_bands() -> None:
    clip = noise(1.0) * np.linspace(0.2, 1, RATE)
    mel = librosa.feature.melspectrogram(
        y=clip[0], sr=RATE, n_fft=4096, win_length=2048, hop_length=441, power=1, n_mels=40, fmin=20, fmax=20000,
        htk=True, norm=None, pad_mode="constant",
    )  # fmt: skip
    logs = np.log10(mel / np.sqrt((mel**2).sum(0).mean()))
    np.testing.assert_allclose(mel_embeddings(clip, RATE)[0], np.concatenate([logs.mean(1), logs.std(1)]), atol=1e-3)


def test_there_is_a_row_for_about_every_second() -> None:
    lengths = (0.1, 1.0, 1.4, 1.6, 3.0)
    assert [mel_embeddings(noise(seconds), RATE).shape for seconds in lengths] == [
        (rows, 80) for rows in (1, 1, 1, 2, 3)
    ]
    assert mel_embeddings(np.zeros((2, RATE), np.float32), RATE).shape == (0, 80)


def test_level_channels_rate_and_silence_do_not_count() -> None:
    clip = notes(MELODY, REED)
    plain = mel_embeddings(clip, RATE)
    np.testing.assert_allclose(mel_embeddings(clip / 8, RATE), plain, atol=1e-4)
    np.testing.assert_allclose(mel_embeddings(clip * np.array([[1], [-1]], np.float32), RATE), plain, atol=1e-4)
    slower = mel_embeddings(notes(MELODY, REED, 48000), 48000)
    # Where there is next to nothing, at the top, a resampler's own limits are what is left.
    np.testing.assert_allclose(slower[:, :30], plain[:, :30], atol=0.02)
    followed = np.concatenate([clip, np.zeros((2, 5 * RATE), np.float32)], axis=1)
    assert len(mel_embeddings(followed, RATE)) <= len(plain) + 1


def test_moved_in_time_is_nearer_than_another_instrument_and_noise_is_farthest() -> None:
    content = plucks(8.0)

    def distance(other: Floats) -> float:
        return frechet_distance(mel_embeddings(content, RATE), mel_embeddings(other, RATE))

    later = distance(np.roll(content, RATE // 3, axis=1))
    reeds = np.concatenate([notes(MELODY, REED)] * 4, axis=1)
    flutes = np.concatenate([notes(MELODY, FLUTE)] * 4, axis=1)
    hiss = distance(noise(8.0))
    assert later < 0.3 * distance(reeds)
    assert later < 0.3 * distance(flutes)
    assert hiss > max(distance(reeds), distance(flutes))
