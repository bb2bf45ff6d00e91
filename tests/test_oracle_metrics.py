"""Metrics against the true answer, on sounds whose values are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.signal import lfilter

from stylus_audio.oracle_metrics import (
    Played,
    flatness,
    formant_drift,
    formants,
    local_contrast,
    mfcc_distance,
    note_f1,
    pitch_leakage,
)
from stylus_audio.reference import Picture, picture_of
from stylus_audio.spectrogram import MINI
from tests.sounds import RATE, noise

NOTES = tuple(Played(0.5 * number, 0.45, key) for number, key in enumerate((60, 64, 67, 71)))


def played(notes: tuple[Played, ...], seconds: float = 2.5, harmonics: int = 6, step: int = 0) -> np.ndarray:
    """Harmonic tones at known notes, `[1, sample]`."""
    sound = np.zeros(round(seconds * RATE))
    for note in notes:
        time = np.arange(round(note.length * RATE)) / RATE
        frequency = 440 * 2 ** ((note.key + step - 69) / 12)
        tone = sum(np.sin(2 * np.pi * frequency * n * time) / n for n in range(1, harmonics + 1))
        first = round(note.start * RATE)
        sound[first : first + len(time)] += 0.1 * np.asarray(tone) * np.hanning(len(time)) ** 0.25
    return sound[None].astype(np.float32)


def picture(audio: np.ndarray) -> Picture:
    return picture_of(audio, RATE, MINI)


def test_notes_that_sound_are_found_and_others_are_not() -> None:
    assert note_f1(played(NOTES), NOTES) == 1.0
    # All a semitone lower: none is there, and every decoy that is looked for lies a semitone higher.
    assert note_f1(played(NOTES, step=-1), NOTES) == 0.0
    assert note_f1(0.1 * noise(2.5), NOTES) < 0.3
    assert note_f1(played(NOTES[:2]), NOTES) == pytest.approx(2 * 2 / (4 + 2))
    assert math.isnan(note_f1(noise(1.0), ()))


def test_bass_notes_are_found_too() -> None:
    low = tuple(Played(note.start, note.length, note.key - 30) for note in NOTES)
    assert note_f1(played(low), low) >= 0.85


def test_leakage_is_the_energy_at_notes_of_the_reference_alone() -> None:
    others = (Played(0, 1, 61), Played(0, 1, 60))
    assert pitch_leakage(played(NOTES, harmonics=1), NOTES, others) < 0.05
    assert pitch_leakage(played(others, harmonics=1), NOTES, others) == pytest.approx(0.5, abs=0.1)
    assert math.isnan(pitch_leakage(noise(1.0), NOTES, NOTES))


def test_cepstral_distance_is_of_timbre_not_of_level() -> None:
    clip = played(NOTES)
    assert mfcc_distance(picture(0.3 * clip), picture(clip)) == pytest.approx(0, abs=1e-3)
    duller = lfilter([0.1], [1, -0.9], clip).astype(np.float32)
    darker = lfilter([0.03], [1, -0.97], clip).astype(np.float32)
    assert 0.5 < mfcc_distance(picture(duller), picture(clip)) < mfcc_distance(picture(darker), picture(clip))


def test_a_blur_has_less_contrast_and_noise_is_flatter() -> None:
    clip = picture(played(NOTES))
    blurred = Picture(np.exp(_blur(np.log(clip.mel + 1e-6))), clip.maximum, clip.silent, MINI)
    sharp, soft = local_contrast(clip, clip), local_contrast(blurred, clip)
    assert sharp.shape == soft.shape
    assert soft.mean() < 0.7 * sharp.mean()
    assert flatness(picture(noise(2.5)), clip).mean() > flatness(clip, clip).mean() + 10


def _blur(values: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(values, (0, 4, 4)))


def vowel(resonances: tuple[float, ...]) -> np.ndarray:
    """A buzz through resonances of known frequency."""
    buzz = np.zeros(RATE)
    buzz[:: RATE // 110] = 1.0
    for frequency in resonances:
        radius = np.exp(-np.pi * 80 / RATE)
        buzz = lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * frequency / RATE), radius**2], buzz)
    return np.asarray(buzz / np.abs(buzz).max(), np.float32)[None]


@pytest.mark.slow
def test_formants_of_a_vowel_are_found_and_their_drift_measured() -> None:
    found = formants(vowel((700, 1200, 2600)))
    assert found == pytest.approx([700, 1200, 2600], rel=0.06)
    assert formant_drift(vowel((700, 1200, 2600)), vowel((700, 1200, 2600))) == 0
    moved = formant_drift(vowel((770, 1320, 2860)), vowel((700, 1200, 2600)))
    assert moved == pytest.approx(0.1, abs=0.04)
