"""Gains to sound: known gains on known sounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylus_audio import phase
from stylus_audio.gains import HEARD_DB, LIMIT_DB, SOUNDING_DB, Gains, limit_edges, see_under_floor, spread
from stylus_audio.metrics import si_sdr
from stylus_audio.phase import Stft, apply_gain, apply_phase, griffin_lim
from stylus_audio.spectrogram import MINI, RIFFUSION, Profile, band_centres, mel_spectrogram
from tests.sounds import RATE, Audio, decibels, noise, plucks, tone


def gains(audio: Audio, factor: float = 1.0, profile: Profile = MINI) -> Gains:
    mel = mel_spectrogram(audio[:1], profile)
    return Gains(mel * np.float32(factor), mel, profile)


@pytest.mark.parametrize("profile", [MINI, RIFFUSION], ids=["mini", "riffusion"])
def test_no_gain_is_the_content(profile: Profile) -> None:
    audio = plucks(1.0)
    assert si_sdr(apply_gain(audio, RATE, gains(audio, profile=profile)), audio) > 100


@pytest.mark.parametrize("factor", [0.1, 2.0])
def test_one_gain_for_all_is_that_gain(factor: float) -> None:
    audio = noise(1.0)
    made = apply_gain(audio, RATE, gains(audio, factor))
    assert decibels(made) - decibels(audio) == pytest.approx(20 * np.log10(factor), abs=0.1)


def test_a_gain_of_one_band_moves_that_tone_only() -> None:
    low, high = tone(300, 1.0), tone(3000, 1.0)
    mel = mel_spectrogram(low + high, MINI)
    styled = mel.copy()
    styled[:, band_centres(MINI) > 1500] *= 0.1
    made = apply_gain(low + high, RATE, Gains(styled, mel, MINI), 0)
    inner = slice(RATE // 4, 3 * RATE // 4)
    assert np.abs(made - low - 0.1 * high)[:, inner].max() < 0.01


def test_at_the_edges_no_gain_is_over_those_of_the_first_and_last_whole_frame() -> None:
    reference = np.full((1, 2, 6), 0.5, np.float32)
    styled = reference * np.array([9, 1, 2, 3, 4, 9], np.float32)
    before = styled.copy()
    limit_edges(styled, reference, 4, 2)
    assert np.array_equal(styled, before)
    limit_edges(styled, reference, 2, 4)
    assert (styled[0, 0] / 0.5).tolist() == pytest.approx([2, 1, 2, 3, 4, 4], rel=1e-3)


def test_what_rises_from_under_the_floor_reaches_the_level_that_is_meant() -> None:
    def magnitudes(*levels: float) -> Audio:
        return np.array([[[10 ** (level / 20) for level in levels]]], np.float32)

    # In dB, under a loud band: what becomes loud, what stays black, what is over the floor, what is nearly black.
    low = magnitudes(-95, -95, -78, -90, -95, -95)
    # Of the last two moments one has next to nothing loud, and one half as much as would count.
    high = magnitudes(0, 0, 0, 0, -80, -80 + SOUNDING_DB / 2)
    mel = np.concatenate([low, high], axis=1)
    reference = np.maximum(mel, 10 ** (-80 / 20))
    styled = np.concatenate([magnitudes(-50, -80, -50, -80 + HEARD_DB / 2, -50, -50), high], axis=1)
    see_under_floor(styled, reference, mel, 10 ** (-80 / 20))
    gains = Gains(styled, reference, MINI).db
    assert gains[0, 0].tolist() == pytest.approx([45, 0, 28, HEARD_DB / 2 + 5, 30, 30 + 15 / 2], abs=1e-4)
    assert np.abs(gains[0, 1]).max() < 1e-4


@pytest.mark.parametrize("first", [0.0, 0.0123, 0.5, 3.0])
def test_gains_at_some_times_are_those_of_the_whole(first: float) -> None:
    styled, reference = np.random.default_rng(0).uniform(0.01, 1, (2, 1, MINI.bands, 90)).astype(np.float32)
    gains = Gains(styled, reference, MINI)
    times, frequencies = first + np.arange(40) * 0.0087, np.linspace(0, 24000, 300)
    expected = spread(gains.db, MINI, times, frequencies)
    assert np.allclose(gains.db_at(times, frequencies), expected, atol=1e-4)


def test_gains_are_limited_and_silence_has_none() -> None:
    one, nothing = np.ones((1, 2, 1), np.float32), np.zeros((1, 2, 1), np.float32)
    assert Gains(one, one * 1e-9, MINI).db.max() == LIMIT_DB
    assert not Gains(nothing, nothing, MINI).db.any()


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = plucks(3.0)
    shaped = gains(audio)
    rng = np.random.default_rng(0)
    shaped = Gains(shaped.styled * rng.uniform(0.3, 3, shaped.styled.shape).astype(np.float32), shaped.reference, MINI)
    whole = apply_gain(audio, RATE, shaped)
    monkeypatch.setattr(phase, "BLOCK_SECONDS", 0.7)
    assert np.abs(apply_gain(audio, RATE, shaped) - whole).max() < 1e-4


def test_the_content_s_phase_beats_a_random_one() -> None:
    audio = plucks(1.0)
    by_phase = apply_phase(audio, RATE, gains(audio), 0)
    assert si_sdr(by_phase, audio) > 15
    assert si_sdr(griffin_lim(audio, RATE, gains(audio), 8), audio) < si_sdr(by_phase, audio)


def test_griffin_lim_keeps_the_level_over_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = tone(440, 4.0) + noise(4.0, 0.02)
    monkeypatch.setattr(phase, "BLOCK_SECONDS", 1.5)
    made = griffin_lim(audio, RATE, gains(audio), 16)
    levels = [decibels(made[:, at : at + 8820]) for at in range(8820, 4 * RATE - 17640, 8820)]
    assert max(levels) - min(levels) < 1.5
    assert np.mean(levels) == pytest.approx(decibels(audio), abs=1.5)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 192000])
def test_gains_fall_on_the_same_time_and_pitch_at_every_rate(rate: int) -> None:
    stft = Stft.like(MINI, rate)
    assert stft.hop / rate == pytest.approx(0.01, rel=0.01)
    values = np.zeros((1, MINI.bands, 100), np.float32)
    values[0, :, 50] = 1.0
    times = stft.times(101)
    assert times[int(spread(values, MINI, times, stft.frequencies)[0, 5].argmax())] == pytest.approx(0.5, abs=0.006)


@pytest.mark.parametrize("padded", [False, True], ids=["gain", "phase"])
@pytest.mark.parametrize(("rate", "samples"), [(44100, 44117), (48000, 30000), (22050, 300), (8000, 5)])
def test_iterations_are_those_of_whole_spectra(rate: int, samples: int, padded: bool) -> None:
    stft = Stft.like(MINI, rate, padded)
    audio = torch.from_numpy(noise(2.0)[:1, :samples])
    spectrum = stft.forward(audio)
    magnitude = spectrum.abs() * torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(0)) * 3
    expected = audio
    for _ in range(3):
        expected = stft.inverse(magnitude * stft.forward(expected).sgn(), samples)
    made = stft.iterate(audio[0], magnitude[0], 3)
    assert made.shape == (samples,)
    assert (made - expected[0]).abs().max() < 1e-5 * expected.abs().max()


def test_outside_the_bands_the_nearest_one_holds() -> None:
    values = np.arange(MINI.bands, dtype=np.float32)[None, :, None] * np.ones((1, 1, 2), np.float32)
    made = spread(values, MINI, np.array([0.0]), np.array([0.0, 21000.0, 40000.0]))[0, :, 0]
    assert made.tolist() == [0.0, MINI.bands - 1, MINI.bands - 1]
