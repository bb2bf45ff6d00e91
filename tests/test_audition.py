"""Scores of an audition: the gains that a render of the same passage has, in whole numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stylus_audio import Engine
from stylus_audio.audition import UNITS_PER_DB, about, attack_envelope, likeness, score_of
from stylus_audio.errors import StylusError, UnsupportedAudio
from stylus_audio.gains import Gains
from stylus_audio.spectrogram import MINI, Profile
from tests.sounds import RATE, noise, plucks


def test_a_score_is_the_renders_gains(told: Engine, tmp_path: Path) -> None:
    content = plucks(1.5, channels=2)
    styles = []
    for number in range(2):
        styles.append(tmp_path / f"{number}.wav")
        soundfile.write(styles[-1], noise(0.8, seed=number).T, RATE)
    settings = told.settings()
    _, passage = told.passage((content, RATE), settings)
    found = list(told.audition(passage, [*styles, tmp_path / "nowhere.wav"], settings))
    assert isinstance(found[2], StylusError)
    for style, gains in zip(styles, found, strict=False):
        assert isinstance(gains, Gains)
        render = told.render((content, RATE), style, settings)
        assert render.gains is not None
        np.testing.assert_array_equal(gains.styled, render.gains.styled)
        score = score_of(gains, passage)
        shape = about(passage, told.model.profile, 1)
        assert score.shape == (1, shape["frames"], shape["bands"])
        assert shape["samples"] == content.shape[1]
        # Where a frame of the passage is one of the carrier, it is that frame.
        rate = told.model.profile.frame_rate
        first = passage.first / RATE * rate
        assert first == round(first)
        expected = gains.db[0, :, round(first) : round(first) + shape["frames"]].T
        np.testing.assert_allclose(score[0] / UNITS_PER_DB, expected, atol=0.51 / UNITS_PER_DB)


def test_silence_is_not_auditioned(told: Engine) -> None:
    settings = told.settings()
    _, passage = told.passage((np.zeros((1, RATE), np.float32), RATE), settings)
    with pytest.raises(UnsupportedAudio):
        next(told.audition(passage, [], settings), None)


def test_the_attack_envelope_lies_on_the_passage(told: Engine) -> None:
    content = np.concatenate([np.zeros((1, RATE // 2), np.float32), plucks(1.0, every=0.5)], axis=1)
    _, passage = told.passage((content, RATE), told.settings())
    envelope = attack_envelope(passage)
    assert envelope.shape == (content.shape[1],)
    assert envelope[: RATE // 2 - 1000].max() == 0
    assert envelope[RATE // 2 : RATE // 2 + 200].max() == 1


def spectrum(peak: float, profile: Profile) -> np.ndarray:
    bands = np.arange(profile.bands)
    return np.asarray(-np.abs(bands - peak) / 4, np.float32)


def test_the_nearer_spectrum_is_the_better_guess() -> None:
    profile = replace(MINI, bands=128)
    content = spectrum(40, profile)
    guesses = [likeness(content, spectrum(peak, profile)) for peak in (40, 50, 90)]
    assert guesses[0] == 0
    assert guesses == sorted(guesses, reverse=True)
    # A level of its own says nothing of a sound.
    assert likeness(content, content - 20) == 0
