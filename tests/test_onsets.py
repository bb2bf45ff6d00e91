"""Onsets of sounds whose onsets are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

from stylus_audio.onsets import onset_times

Floats = NDArray[np.floating[Any]]

TIMES = np.array([0.3, 0.65, 1.113, 1.4, 2.2])


def struck(sample_rate: int, sound: Any, seconds: float = 3.0) -> Floats:
    """`sound(number, time)` begun at each of `TIMES`, `[1, sample]`."""
    audio = np.zeros(round(seconds * sample_rate))
    for number, start in enumerate(TIMES):
        first = round(start * sample_rate)
        audio[first:] += sound(number, np.arange(len(audio) - first) / sample_rate)
    return audio[None].astype(np.float32)


def click(_: int, time: Floats) -> Floats:
    return np.where(time == 0, 0.5, 0.0)


def pluck(number: int, time: Floats) -> Floats:
    hz = (110.0, 440.0, 262.0, 1760.0, 82.4)[number]
    return 0.3 * np.asarray(sum(np.sin(2 * np.pi * hz * n * time) / n for n in (1, 2, 3)) * np.exp(-time / 0.3))


def drum(number: int, time: Floats) -> Floats:
    noise = np.random.default_rng(number).normal(0, 0.3, len(time)) * np.exp(-time / 0.04)
    body = np.sin(2 * np.pi * (50 + 80 * np.exp(-time / 0.03)) * time) * np.exp(-time / 0.1)
    return np.asarray(body if number % 2 else noise)


@pytest.mark.parametrize("sample_rate", [8000, 44100, 48000, 192000])
@pytest.mark.parametrize("sound", [click, pluck, drum])
def test_attacks_are_found_within_10_ms(sound: Any, sample_rate: int) -> None:
    found = onset_times(struck(sample_rate, sound), sample_rate)
    assert len(found) == len(TIMES)
    np.testing.assert_allclose(found, TIMES, rtol=0, atol=0.01)


@pytest.mark.parametrize("sample_rate", [11025, 22050, 32000])
def test_times_of_a_long_clip_do_not_drift(sample_rate: int) -> None:
    audio = np.zeros((1, 40 * sample_rate), np.float32)
    starts = np.arange(1, 39)
    for start in starts:
        hit = np.random.default_rng(start).normal(0, 0.3, sample_rate // 10)
        audio[0, start * sample_rate : start * sample_rate + len(hit)] = hit * np.exp(
            -np.arange(len(hit)) / len(hit) * 5
        )
    assert onset_times(audio, sample_rate) == pytest.approx(starts, abs=0.01)


def test_soft_notes_are_found_over_a_loud_one() -> None:
    time = np.arange(3 * 44100) / 44100
    drone = 0.5 * np.sin(2 * np.pi * 98 * time) * np.minimum(1, time / 0.02)
    found = onset_times(drone + 0.2 * struck(44100, pluck), 44100)
    np.testing.assert_allclose(found[1:], TIMES, rtol=0, atol=0.01)


def test_swells_are_found_where_they_rise() -> None:
    def bowed(number: int, time: Floats) -> Floats:
        tone = sum(np.sin(2 * np.pi * (220 + 55 * number) * n * time) / n for n in range(1, 8))
        return np.asarray(0.2 * tone * np.minimum(1, time / 0.06) * np.exp(-time / 0.1))

    found = onset_times(struck(44100, bowed), 44100)
    assert len(found) == len(TIMES)
    assert np.all((found > TIMES - 0.02) & (found < TIMES + 0.05))


def test_a_clip_that_starts_at_once_has_an_onset_there() -> None:
    audio = struck(44100, pluck)[:, round(0.3 * 44100) :]
    found = onset_times(audio, 44100)
    np.testing.assert_allclose(found, TIMES - 0.3, rtol=0, atol=0.01)


@pytest.mark.parametrize("samples", [0, 1, 300, 44100])
def test_silence_has_none(samples: int) -> None:
    assert onset_times(np.zeros((2, samples), np.float32), 44100).tolist() == []


@pytest.mark.parametrize("samples", [1, 40, 882])
def test_a_one_shot_has_one(samples: int) -> None:
    assert onset_times(struck(44100, drum)[:, 13230 : 13230 + samples], 44100).tolist() == [0.0]


def test_what_does_not_change_has_no_onset_but_its_beginning() -> None:
    time = np.arange(4 * 44100) / 44100
    vibrato = sum(np.sin(n * (2 * np.pi * 440 * time + 4 * np.sin(2 * np.pi * 6 * time))) / n for n in range(1, 12))
    for sound in (np.sin(2 * np.pi * 440 * time), vibrato):
        assert np.all(onset_times(np.asarray(sound)[None], 44100) < 0.05)


def test_noise_has_hardly_any() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 10 * 44100))
    assert len(onset_times(noise, 44100)) <= 3


@pytest.mark.parametrize("gain", [1e-4, 0.37, 30.0])
def test_level_does_not_matter(gain: float) -> None:
    audio = struck(44100, pluck) + struck(44100, drum)
    np.testing.assert_allclose(onset_times(gain * audio, 44100), onset_times(audio, 44100), rtol=0, atol=1e-3)


def test_channels_out_of_phase_count() -> None:
    audio = struck(44100, pluck)
    turned = np.concatenate([audio, -audio])
    np.testing.assert_allclose(onset_times(turned, 44100), onset_times(audio, 44100), rtol=0, atol=1e-3)


def test_a_dull_attack_is_as_exact() -> None:
    dull = sosfilt(butter(2, 400, fs=44100, output="sos"), struck(44100, drum))
    found = onset_times(dull, 44100)
    assert len(found) == len(TIMES)
    np.testing.assert_allclose(found, TIMES, rtol=0, atol=0.01)
