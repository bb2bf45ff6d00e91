"""What a file at a glance shows: where sounds lie, how loud they are, and that long files cost no more columns."""

from __future__ import annotations

import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from stylus_audio import audio
from stylus_audio.errors import NotFound, UnsupportedAudio
from stylus_audio.overview import BANDS, COLUMNS, HIGH, LOW, overview, picture
from stylus_audio.riff import Chunk, Tempo, append_chunks
from stylus_audio.spectrogram import hz_to_mel
from tests.sounds import RATE, noise, tone


def band_of(frequency: float) -> float:
    low, high = float(hz_to_mel(LOW)), float(hz_to_mel(HIGH))
    return (float(hz_to_mel(frequency)) - low) / (high - low) * (BANDS + 1) - 1


def written(folder: Path, sound: np.ndarray, rate: int = RATE) -> Path:
    path = folder / "sound.wav"
    soundfile.write(path, sound.T, rate, subtype="FLOAT")
    return path


@pytest.mark.parametrize("rate", [22050, 44100, 96000])
@pytest.mark.parametrize("frequency", [220.0, 3000.0])
def test_a_tone_lies_in_its_band_at_any_rate(tmp_path: Path, rate: int, frequency: float) -> None:
    time = np.arange(rate) / rate
    about = overview(written(tmp_path, 0.5 * np.sin(2 * np.pi * frequency * time)[None], rate))
    middle = about.levels[:, about.levels.shape[1] // 2]
    assert abs(int(middle.argmax()) - band_of(frequency)) <= 1
    assert middle.max() > -3
    assert np.median(middle) < -40


def test_peaks_and_levels_follow_the_sound_in_time(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros((2, RATE), np.float32), np.repeat(tone(440, 1, 0.5), 2, axis=0)], axis=1)
    sound[1] *= -0.5
    about = overview(written(tmp_path, sound))
    half = len(about.peaks) // 2
    assert (about.seconds, about.channels, about.samples) == (2.0, 2, 2 * RATE)
    assert about.peaks[: half - 1].max() == 0
    assert about.peaks[half + 1 :].min() == pytest.approx(0.5, abs=0.01)
    columns = about.levels.shape[1]
    assert about.levels[:, : int(columns * 0.45)].max() == -80
    assert about.levels[:, int(columns * 0.55) :].max() > -1


def test_a_long_file_has_no_more_columns_and_keeps_its_attacks(tmp_path: Path) -> None:
    sound = np.zeros((1, 100 * RATE), np.float32)
    clicks = [13.0, 50.5, 87.25]
    for at in clicks:
        sound[0, round(at * RATE) : round(at * RATE) + 2000] = noise(1)[0, :2000]
    about = overview(written(tmp_path, sound))
    assert len(about.peaks) == COLUMNS
    assert about.levels.shape[1] <= COLUMNS
    heard = np.flatnonzero(about.levels.max(0) > -30) / about.levels.shape[1] * 100
    for at in clicks:
        assert np.abs(heard - at).min() < 0.25


def test_a_hit_between_the_frames_of_a_long_file_is_seen(tmp_path: Path) -> None:
    rate, minutes = 22050, 20
    sound = np.zeros((1, minutes * 60 * rate), np.float32)
    # A frame in each quarter of a column would look at none of them.
    quarter = sound.shape[1] // (4 * COLUMNS)
    places = [(number + 0.5) * quarter for number in (0, 601, 2500, 4798)]
    for at in places:
        sound[0, round(at) : round(at) + 200] = noise(1)[0, :200]
    path = tmp_path / "long.wav"
    soundfile.write(path, sound.T, rate)
    about = overview(path)
    columns = about.levels.shape[1]
    assert 0.6 * COLUMNS <= columns <= COLUMNS
    heard = np.flatnonzero(about.levels.max(0) > -30)
    assert sorted({int(at / sound.shape[1] * columns) for at in places}) == heard.tolist()


@pytest.mark.parametrize("block", [1, 777, 4410, 20000])
def test_it_is_the_same_however_the_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    left = np.concatenate([noise(0.1), 0.2 * noise(0.3)], axis=1)[:, 3:]
    path = written(tmp_path, np.concatenate([left, left[:, ::-1]]))
    whole = overview(path)
    monkeypatch.setattr(audio, "_BLOCK", block)
    again = overview(path)
    assert np.array_equal(again.peaks, whole.peaks)
    assert np.allclose(again.levels, whole.levels, atol=0.01)
    assert (again.lufs, again.loudest) == (whole.lufs, whole.loudest)


def test_a_long_file_takes_little_memory(tmp_path: Path) -> None:
    path = written(tmp_path, np.tile(noise(10), (2, 30)))
    tracemalloc.start()
    try:
        overview(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 3


def test_a_loop_and_a_tempo_are_the_files_own(tmp_path: Path) -> None:
    path = written(tmp_path, noise(4))
    assert (overview(path).loop, overview(path).tempo) == (None, None)
    append_chunks(path, [Chunk(b"acid", struct.pack("<IHHfIHHf", 0, 60, 0x8000, 0, 8, 4, 4, 120.0))])
    assert overview(path).tempo == Tempo(120.0, 4)
    assert overview(path).loop == (0.0, 4.0)


def test_silence_and_what_is_no_audio(tmp_path: Path) -> None:
    about = overview(written(tmp_path, np.zeros((1, 1000), np.float32)))
    assert about.lufs is None
    assert about.levels.max() == -80
    (tmp_path / "no.wav").write_text("nothing")
    with pytest.raises(UnsupportedAudio):
        overview(tmp_path / "no.wav")
    with pytest.raises(NotFound):
        overview(tmp_path / "nowhere.wav")


def test_the_picture_grows_lighter_with_level_and_has_low_bands_below(tmp_path: Path) -> None:
    levels = np.linspace(-80, 0, BANDS * 4, dtype=np.float32).reshape(BANDS, 4)
    image = Image.open(io.BytesIO(picture(levels))).convert("L")
    grey = np.asarray(image, int)
    assert grey.shape == (BANDS, 4)
    ascending = grey[::-1].ravel()
    assert (np.diff(ascending) >= -1).all()
    assert ascending[-1] - ascending[0] > 200
