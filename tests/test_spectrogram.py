"""Pictures of sound against librosa and against tones of known place."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from stylus_audio.spectrogram import (
    MINI,
    RIFFUSION,
    Profile,
    band_centres,
    from_image,
    mel_filters,
    mel_spectrogram,
    mel_spectrogram_on,
    silent_frames,
    to_image,
)
from tests.sounds import RATE, noise, tone


@pytest.mark.parametrize("profile", [RIFFUSION, MINI], ids=["riffusion", "mini"])
def test_mel_equals_librosas(profile: Profile) -> None:
    audio = noise(0.5)
    expected = librosa.feature.melspectrogram(
        y=audio[0], sr=RATE, n_fft=profile.n_fft, hop_length=profile.hop, win_length=profile.window, center=True,
        pad_mode="constant", power=1.0, n_mels=profile.bands, fmin=profile.low, fmax=profile.high, htk=True, norm=None,
    )  # fmt: skip
    ours = mel_spectrogram(audio, profile)[0]
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() < 1e-4 * expected.max()


@pytest.mark.parametrize("samples", [1, 440, 44100, 66151])
def test_on_a_device_it_is_the_same(samples: int) -> None:
    audio = np.concatenate([noise(1.5, seed=1), noise(1.5, seed=2)])
    audio = np.tile(audio, (1, 2))[:, :samples]
    expected = mel_spectrogram(audio, RIFFUSION)
    made = mel_spectrogram_on(torch.device("cpu"), audio, RIFFUSION, 64)
    assert made.shape == expected.shape
    assert np.abs(made - expected).max() <= 1e-5 * expected.max()


@pytest.mark.parametrize("frequency", [55.0, 440.0, 3000.0, 9000.0])
def test_a_tone_lies_in_its_band(frequency: float) -> None:
    mel = mel_spectrogram(tone(frequency, 0.5), RIFFUSION)[0, :, 25]
    centre = band_centres(RIFFUSION)[int(mel.argmax())]
    assert abs(centre - frequency) < max(8.0, 0.02 * frequency)


def test_blocks_do_not_show() -> None:
    audio = noise(1.0)
    assert np.array_equal(mel_spectrogram(audio, MINI, block_frames=7), mel_spectrogram(audio, MINI))


def test_riffusions_picture() -> None:
    # By its documentation: value 1 − (mel / max) ^ 0.25; a tenth is 0.4377 from the light end.
    assert to_image(np.array([[[0.1]]]), RIFFUSION, 1.0)[0, 0, 0] == pytest.approx(1 - 0.1**0.25, rel=1e-6)


@pytest.mark.parametrize("profile", [RIFFUSION, MINI], ids=["riffusion", "mini"])
def test_pictures_keep_the_scale(profile: Profile) -> None:
    mel = np.random.default_rng(0).uniform(0.01, 30, (1, 8, 5)).astype(np.float32)
    back = from_image(to_image(mel, profile, float(mel.max())), profile, float(mel.max()))
    assert np.allclose(back, mel, rtol=1e-4)


def test_bands_over_nyquist_are_empty() -> None:
    filters = mel_filters(MINI, 16000, 2048)
    centres = band_centres(MINI)
    assert not filters[centres > 8200].any()
    assert filters[(centres > 1000) & (centres < 7500)].any(axis=1).all()


def test_silence_is_found() -> None:
    mel = np.ones((1, 4, 3), np.float32)
    mel[..., 1] = 1e-5
    assert silent_frames(mel, 1.0).tolist() == [False, True, False]
