"""Noise as a style: how it is known, and that stems have its spectrum."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from stylus_audio import Engine
from stylus_audio.match_eq import TOLERATED_DB, equalised, long_term_level, releveled
from stylus_audio.noisiness import noisiness
from stylus_audio.reference import picture_of
from stylus_audio.spectrogram import MINI, to_image
from tests.sounds import RATE, Audio, noise, plucks


def _image(audio: Audio) -> NDArray[np.float32]:
    picture = picture_of(audio, RATE, MINI)
    return to_image(picture.mel, MINI, picture.maximum)


def test_noise_is_told_from_notes_whatever_its_colour_and_its_swells() -> None:
    white = noise(3.0, seed=1)
    time = np.arange(white.shape[1]) / RATE
    swelling = np.asarray(white * (0.5 + 0.5 * np.sin(2 * np.pi * 2 * time)) ** 2, np.float32)
    brown = np.cumsum(white, 1)
    brown = np.asarray(0.1 * brown / np.abs(brown).max(), np.float32)
    for sound in (white, swelling, brown):
        assert noisiness(_image(sound), MINI) == 1
    assert noisiness(_image(plucks(3.0)), MINI) == 0
    assert noisiness(np.zeros((2, MINI.bands, 256), np.float32), MINI) == 0
    # Nothing of less than one mean's length is known.
    assert noisiness(_image(white)[..., :8], MINI) == 0


@pytest.mark.parametrize("tilt", [12.0, 20.0])
def test_a_picture_takes_a_share_of_the_way_to_the_other_ones_spectrum_and_all_of_what_is_too_far(tilt: float) -> None:
    guide = _image(noise(2.0, seed=2))
    image = equalised(guide[0], np.linspace(0, -tilt, MINI.bands), MINI)[None]

    def level(picture: NDArray[np.float32]) -> NDArray[np.float32]:
        return long_term_level(10 ** ((picture[0] - 1) * 8), MINI)

    apart = [np.abs(level(releveled(image, guide, share, MINI)) - level(guide)).max() for share in (0.0, 0.5, 1.0)]
    assert apart[0] == pytest.approx(min(tilt, TOLERATED_DB), abs=0.5)
    assert apart[1] == pytest.approx(min(tilt, TOLERATED_DB) / 2, abs=0.5)
    assert apart[2] < 0.5


def test_notes_in_the_sound_of_white_noise_are_as_bright_as_it_is() -> None:
    clip = np.asarray(plucks(4.0, channels=2) + noise(4.0, 0.03), np.float32)
    stem = Engine("mini", "cpu").render((clip, RATE), (noise(3.0, seed=2), RATE)).audio

    def octaves(sound: Audio) -> NDArray[np.float64]:
        power = np.abs(np.fft.rfft(sound.mean(0) * np.hanning(sound.shape[1]))) ** 2
        frequencies = np.fft.rfftfreq(sound.shape[1], 1 / RATE)
        bands = [(frequencies >= low) & (frequencies < 2 * low) for low in (250, 500, 1000, 2000, 4000)]
        return np.array([10 * np.log10(power[band].mean()) for band in bands])

    assert np.ptp(octaves(clip)) > 15
    assert np.ptp(octaves(stem)) < 6
