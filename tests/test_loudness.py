"""Known answers of ITU-R BS.1770-4 and EBU Tech 3341."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter, sosfreqz

from stylus_audio.loudness import integrated, k_weighting, sample_peak, true_peak

Floats = NDArray[np.floating[Any]]

SHELF = [1.53512485958697, -2.69169619940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585]
HIGH_PASS = [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621]
"""Tables 1 and 2 of BS.1770-4: numerator and denominator at 48 kHz."""


def sine(hz: float, seconds: float, sample_rate: int, db: float = 0.0, channels: int = 1) -> Floats:
    """A sine `[channel, sample]` with its peak at `db` dBFS."""
    wave = 10 ** (db / 20) * np.sin(2 * np.pi * hz * np.arange(round(seconds * sample_rate)) / sample_rate)
    return np.tile(wave.astype(np.float32), (channels, 1))


def passages(*parts: tuple[float, float]) -> Floats:
    """EBU Tech 3341's signals: a stereo 1 kHz sine at 48 kHz with these peaks (dBFS) for so many seconds."""
    return np.concatenate([sine(1000, seconds, 48000, db, 2) for db, seconds in parts], axis=1)


def test_the_filter_is_the_standards_at_48_khz() -> None:
    np.testing.assert_allclose(k_weighting(48000), [SHELF, HIGH_PASS], atol=1e-8)


@pytest.mark.parametrize("sample_rate", [8000, 11025, 44100, 96000, 384000])
def test_the_filter_is_the_same_at_other_rates(sample_rate: int) -> None:
    hz = np.geomspace(20, 2000, 50)
    response = 20 * np.log10(np.abs(sosfreqz(k_weighting(sample_rate), hz, fs=sample_rate)[1]))
    expected = 20 * np.log10(np.abs(sosfreqz(k_weighting(48000), hz, fs=48000)[1]))
    np.testing.assert_allclose(response, expected, atol=0.3 if sample_rate < 44100 else 0.03)


@pytest.mark.parametrize("sample_rate", [8000, 11025, 44100, 48000, 96000, 192000])
def test_full_scale_sine_in_one_channel(sample_rate: int) -> None:
    audio = np.concatenate([sine(997, 3, sample_rate), np.zeros((1, 3 * sample_rate), np.float32)])
    # At low rates the shelf's transition reaches their Nyquist frequency, where the bilinear transform bends it.
    assert integrated(audio, sample_rate) == pytest.approx(-3.01, abs=0.25 if sample_rate < 44100 else 0.01)


@pytest.mark.parametrize(
    ("audio", "expected"),
    [
        pytest.param(passages((-23, 20)), -23.0, id="case 1"),
        pytest.param(passages((-33, 20)), -33.0, id="case 2"),
        pytest.param(passages((-36, 10), (-23, 60), (-36, 10)), -23.0, id="case 3"),
        pytest.param(passages((-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)), -23.0, id="case 4"),
        pytest.param(passages((-26, 20), (-20, 20.1), (-26, 20)), -23.0, id="case 5"),
    ],
)
def test_gating_cases_of_ebu_tech_3341(audio: Floats, expected: float) -> None:
    assert integrated(audio, 48000) == pytest.approx(expected, abs=0.1)


def test_every_channel_weighs_the_same() -> None:
    one = integrated(sine(997, 1, 44100), 44100)
    assert integrated(sine(997, 1, 44100, channels=32), 44100) == pytest.approx(one + 10 * np.log10(32), abs=1e-6)


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.399])
def test_a_short_clip_is_one_block(seconds: float) -> None:
    one_shot = sine(2000, seconds, 48000, -6)
    weighted = lfilter(HIGH_PASS[:3], HIGH_PASS[3:], lfilter(SHELF[:3], SHELF[3:], one_shot[0].astype(float)))
    expected = -0.691 + 10 * np.log10(np.mean(weighted**2))
    assert integrated(one_shot, 48000) == pytest.approx(expected, abs=1e-4)


def test_silence_and_nothing_have_no_loudness() -> None:
    for audio in (np.zeros((2, 48000)), np.zeros((2, 100)), np.zeros((1, 0)), passages((-80, 2))):
        assert integrated(audio, 48000) == -np.inf


def test_loudness_does_not_depend_on_the_blocks() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 25 * 11025))
    whole = sosfreqz(k_weighting(11025), 4096, fs=11025)[1]
    expected = -0.691 + 10 * np.log10(0.01 * np.mean(np.abs(whole) ** 2))
    assert integrated(noise, 11025) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("sample_rate", [44100, 48000, 96000])
def test_true_peak_lies_between_the_samples(sample_rate: int) -> None:
    samples = 2 * sample_rate
    wave = np.sin(np.pi / 2 * np.arange(samples) + np.pi / 4) * np.hanning(samples)
    audio = np.stack([np.zeros(samples), 0.5 * wave])
    assert sample_peak(audio) == pytest.approx(-9.03, abs=0.01)
    assert true_peak(audio, sample_rate) - sample_peak(audio) == pytest.approx(3.01, abs=0.1)


def test_true_peak_of_ebu_tech_3341() -> None:
    fade = np.minimum(1, np.arange(4800) / 480) * np.minimum(1, np.arange(4800)[::-1] / 480)
    for divisor, degrees in ((4, 0), (4, 45), (6, 60), (8, 67.5)):
        wave = 0.5 * np.sin(2 * np.pi * np.arange(4800) / divisor + np.radians(degrees)) * fade
        assert -6.4 <= true_peak(wave[None], 48000) <= -5.8


def test_from_192_khz_on_the_samples_are_dense_enough() -> None:
    noise = np.random.default_rng(1).uniform(-1, 1, (2, 1000))
    assert true_peak(noise, 192000) == sample_peak(noise)


def test_a_peak_is_found_wherever_the_blocks_meet() -> None:
    audio = np.zeros((1, (1 << 18) + 5000), np.float32)
    pulse = np.sin(np.pi / 2 * np.arange(64) + np.pi / 4) * np.hanning(64)
    found = []
    for start in (1000, (1 << 18) - 40, (1 << 18) - 30, (1 << 18) + 1000):
        audio[:] = 0
        audio[0, start : start + 64] = pulse
        found.append(true_peak(audio, 44100))
    np.testing.assert_allclose(found, found[0], atol=1e-9)


def test_peaks_of_silence() -> None:
    assert sample_peak(np.zeros((2, 10))) == -np.inf
    assert true_peak(np.zeros((2, 0)), 44100) == -np.inf


def test_a_long_slow_wave_has_no_peak_where_the_blocks_meet() -> None:
    samples = (1 << 18) + 50000
    wave = np.sin(2 * np.pi * 50 * np.arange(samples) / 44100) * np.minimum(1, np.hanning(samples) * 4)
    assert true_peak(wave[None], 44100) == pytest.approx(0.0, abs=0.02)
