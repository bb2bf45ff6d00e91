"""Reading: every container, and everything that can be wrong with a file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stylus_audio.audio import Clip, probe, read_clip, resample
from stylus_audio.errors import BadRequest, NotFound, StylusError, UnsupportedAudio
from stylus_audio.stem import stem_subtype
from tests.sounds import RATE, noise, plucks, tone

EXACT = [("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "PCM_32"), ("wav", "FLOAT"), ("wav", "DOUBLE"),
         ("wav", "PCM_U8"), ("aiff", "PCM_24"), ("flac", "PCM_16"), ("flac", "PCM_24"), ("rf64", "PCM_24"),
         ("w64", "PCM_16"), ("caf", "PCM_24"), ("caf", "FLOAT")]  # fmt: skip
LOSSY = [("ogg", "VORBIS", RATE), ("ogg", "OPUS", 48000), ("mp3", "MPEG_LAYER_III", RATE)]


def write(path: Path, audio: np.ndarray, rate: int, subtype: str) -> None:
    soundfile.write(path, audio.T, rate, subtype=subtype, format={"rf64": "RF64"}.get(path.suffix[1:]))


def test_a_flac_that_does_not_say_how_long_it_is_is_refused(tmp_path: Path) -> None:
    """As an encoder that writes to a pipe leaves it."""
    path = tmp_path / "clip.flac"
    soundfile.write(path, tone(300, 0.2).T, RATE)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(UnsupportedAudio, match="how long it is"):
        probe(path)


@pytest.mark.parametrize(("suffix", "subtype"), EXACT)
def test_every_exact_container(tmp_path: Path, suffix: str, subtype: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    write(path, plucks(0.3, channels=2) * 0.1, RATE, subtype)
    clip = read_clip(path)
    assert np.array_equal(clip.audio, soundfile.read(path, always_2d=True)[0].T.astype(clip.audio.dtype))
    assert (clip.sample_rate, clip.subtype, clip.total) == (RATE, subtype, clip.audio.shape[1])
    assert clip.audio.dtype == (np.float64 if subtype in ("PCM_32", "DOUBLE") else np.float32)
    assert np.array_equal(read_clip(path, 1000, 2000).audio, clip.audio[:, 1000:2000])


@pytest.mark.parametrize(("suffix", "subtype", "rate"), LOSSY)
def test_every_lossy_container(tmp_path: Path, suffix: str, subtype: str, rate: int) -> None:
    path = tmp_path / f"clip.{suffix}"
    write(path, plucks(1.0) * 0.3, rate, subtype)
    clip = read_clip(path)
    assert clip.audio.shape[1] == probe(path).samples
    # A segment is exactly that slice of the whole, though these containers seek badly.
    assert np.array_equal(read_clip(path, 20000, 30000).audio, clip.audio[:, 20000:30000])


@pytest.mark.parametrize(("packed", "unpacked"), [("ALAC_16", "PCM_16"), ("ALAC_24", "PCM_24"), ("ALAC_32", "PCM_32")])
def test_what_is_packed_without_loss_keeps_its_depth(tmp_path: Path, packed: str, unpacked: str) -> None:
    path, audio = tmp_path / "loop.caf", plucks(0.3) * 0.1
    write(path, audio, RATE, packed)
    clip = read_clip(path)
    assert stem_subtype(clip.subtype, None) == unpacked
    step = 2.0 ** -(int(packed[-2:]) - 1)
    assert np.abs(clip.audio - np.asarray(audio, np.float64)).max() <= max(step, 1e-9)


@pytest.mark.parametrize("declared", [0xFFFFFFFF, 0x7FFFF000 + 24, 0x7FFFFFFF])
def test_what_was_written_to_a_pipe_ends_where_it_ends(tmp_path: Path, declared: int) -> None:
    path, audio = tmp_path / "pipe.wav", noise(0.1)
    write(path, audio, RATE, "PCM_16")
    data = path.read_bytes()
    at = data.index(b"data") + 4
    path.write_bytes(data[:at] + declared.to_bytes(4, "little") + data[at + 4 :])
    assert read_clip(path).audio.shape == audio.shape


@pytest.mark.parametrize("rate", [8000, 384000])
@pytest.mark.parametrize("channels", [1, 32])
def test_the_limits_are_read(tmp_path: Path, rate: int, channels: int) -> None:
    path = tmp_path / "clip.wav"
    write(path, np.tile(noise(0.02), (channels, 1)), rate, "PCM_16")
    assert read_clip(path).audio.shape == (channels, 882)


@pytest.mark.parametrize("suffix", ["wav", "aiff", "w64", "caf", "flac", "rf64"])
def test_a_file_cut_anywhere_is_whole_or_refused(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole.{suffix}"
    audio = noise(0.05)
    write(whole, audio, RATE, "PCM_16")
    data, cut = whole.read_bytes(), tmp_path / f"cut.{suffix}"
    expected = read_clip(whole).audio
    for length in range(0, len(data), 97):
        cut.write_bytes(data[:length])
        refused = None
        try:
            made = read_clip(cut).audio
        except StylusError as error:
            refused = error
        if refused:
            assert refused.exit_code == 2
            assert "\n" not in str(refused)
        else:
            assert np.array_equal(made, expected)


def test_what_is_no_audio(tmp_path: Path) -> None:
    text = tmp_path / "text.wav"
    text.write_text("not audio", "utf-8")
    for path, error in ((tmp_path / "none.wav", NotFound), (tmp_path, UnsupportedAudio), (text, UnsupportedAudio)):
        with pytest.raises(error):
            read_clip(path)


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/Gr\xfc\xdfe.wav"))
    with path.open("wb") as stream:
        soundfile.write(stream, noise(0.1).T, RATE, format="WAV")
    for read in (probe, read_clip):
        with pytest.raises(UnsupportedAudio, match=r"Gr\\udcfc\\udcdfe\.wav is not UTF-8; rename it"):
            read(path)


def test_segments_outside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    write(path, noise(0.01), RATE, "PCM_16")
    for start, end in ((441, None), (10, 10), (20, 10)):
        with pytest.raises(BadRequest, match="hold nothing"):
            read_clip(path, start, end)


def test_arrays_are_held_to_the_same_limits() -> None:
    assert Clip.from_array(noise(0.1)[0], RATE).audio.shape == (1, 4410)
    for audio, rate in (
        (np.zeros((40, 9)), RATE),
        (np.zeros(0), RATE),
        (np.zeros(9), 100),
        (np.zeros((1, 1, 2)), RATE),
    ):
        with pytest.raises(UnsupportedAudio):
            Clip.from_array(audio, rate)
    broken = Clip.from_array(np.array([0.1, np.nan, -np.inf]), RATE)
    assert broken.audio.tolist() == [[0.1, 0.0, 0.0]]
    assert "2 samples" in broken.warnings[0]


@pytest.mark.parametrize(("source", "target"), [(48000, 44100), (44100, 96000), (11025, 44100), (384000, 44100)])
def test_resampling_keeps_time_and_level(source: int, target: int) -> None:
    audio = np.zeros((1, source), np.float32)
    audio[0, source // 2] = 1.0
    made = resample(audio, source, target)
    assert made.shape == (1, target)
    assert abs(int(np.abs(made[0]).argmax()) - source // 2 * target / source) <= 1
    time = np.arange(source) / source
    sine = resample(np.sin(2 * np.pi * 1000 * time)[None], source, target)[0, 2000:-2000]
    assert np.abs(sine).max() == pytest.approx(1.0, abs=0.01)


def test_resampling_in_blocks_is_seamless() -> None:
    long = tone(1000, 14.0)
    made = resample(long, 44100, 48000)[0]
    expected = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(len(made)) / 48000)
    assert np.abs(made - expected)[500:-500].max() < 1e-3
