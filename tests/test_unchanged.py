"""What is kept of a file is that of the file as it is now."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stylus_audio import Engine
from stylus_audio.audio import sha256
from stylus_audio.job import report_of
from stylus_audio.provenance import identities
from stylus_audio.unchanged import WhileUnchanged
from tests.sounds import RATE, noise, plucks


class Reader:
    """Reads text, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, path: Path, more: str = "") -> str:
        self.times += 1
        return path.read_text("utf-8") + more


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, reader = tmp_path / "file", Reader()
    file.write_text("one", "utf-8")
    kept = WhileUnchanged(reader, 8)
    monkeypatch.chdir(tmp_path)
    assert [kept(file), kept(Path("file")), kept(file, "!"), kept(file, more="?")] == ["one", "one", "one!", "one?"]
    assert reader.times == 3


@pytest.mark.parametrize("way", ["written", "replaced"])
def test_another_file_of_the_same_size_is_read(tmp_path: Path, way: str) -> None:
    file, reader = tmp_path / "file", Reader()
    file.write_text("one", "utf-8")
    kept = WhileUnchanged(reader, 8)
    assert kept(file) == "one"
    before = file.stat()
    if way == "written":
        file.write_text("two", "utf-8")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1000))
    else:
        (tmp_path / "other").write_text("two", "utf-8")
        os.utime(tmp_path / "other", ns=(before.st_atime_ns, before.st_mtime_ns))
        (tmp_path / "other").replace(file)
    assert kept(file) == "two"


def test_what_fails_is_tried_again(tmp_path: Path) -> None:
    file, reader = tmp_path / "file", Reader()
    kept = WhileUnchanged(reader, 8)
    with pytest.raises(FileNotFoundError):
        kept(file)
    file.write_text("there", "utf-8")
    assert kept(file) == "there"
    file.unlink()
    with pytest.raises(FileNotFoundError):
        kept(file)


def test_the_least_recently_asked_goes_first(tmp_path: Path) -> None:
    reader = Reader()
    kept = WhileUnchanged(reader, 5, len)
    files = [tmp_path / name for name in "abcd"]
    for file in files[:3]:
        file.write_text("xx", "utf-8")
    files[3].write_text("larger", "utf-8")
    kept(files[0]), kept(files[1]), kept(files[0]), kept(files[2])
    assert reader.times == 3
    kept(files[0])
    assert reader.times == 3
    kept(files[1])
    assert reader.times == 4
    kept(files[3]), kept(files[3])
    assert reader.times == 6


def test_a_style_that_was_written_anew_is_heard_and_measured_anew(told: Engine, tmp_path: Path) -> None:
    clip, style = tmp_path / "clip.wav", tmp_path / "style.wav"
    soundfile.write(clip, plucks(0.8).T, RATE)
    stems, reports = [], []
    for sound in (noise(1.5), plucks(1.5, 0.1), noise(1.5)):
        soundfile.write(style, sound.T, RATE)
        render = told.render(clip, style)
        report = report_of(render, identities(clip, [(style, "style")]), [(style, "style")])
        assert report["styles"][0]["sha256"] == sha256(style)
        stems.append(render.audio)
        reports.append(report["metrics"])
    assert np.array_equal(stems[0], stems[2])
    assert reports[0] == reports[2]
    assert not np.array_equal(stems[0], stems[1])
    assert reports[0]["log_mel_distance_content_style"] != reports[1]["log_mel_distance_content_style"]
