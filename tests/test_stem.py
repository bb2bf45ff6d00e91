"""Writing: exact, dithered where needed, whole or not at all, and never over something."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stylus_audio.errors import BadRequest, Cancelled, DiskFull, NotAllowed, NotFound
from stylus_audio.stem import made_folder, quantise, settle, write_stem
from tests.daemons import until
from tests.sounds import RATE, noise, plucks


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_what_was_read_is_written_bit_for_bit(tmp_path: Path, subtype: str) -> None:
    from stylus_audio.audio import read_clip

    source = tmp_path / "a.wav"
    extremes = np.array([[-1.0, 1.0, 0.0, -(2.0**-31), 0.5]])
    soundfile.write(source, np.concatenate([noise(0.2, 0.3), extremes], axis=1).T, RATE, subtype=subtype)
    written = write_stem(read_clip(source).audio, RATE, tmp_path / "b.wav", subtype=subtype)
    assert soundfile.info(written).subtype == subtype
    assert np.array_equal(soundfile.read(written)[0], soundfile.read(source)[0])


def test_dither_is_triangular_and_leaves_the_grid_alone() -> None:
    rng = np.random.default_rng(0)
    fine = np.full((1, 400_000), 0.3 / 32768)
    error = (quantise(fine, 16, rng) >> 16) - 0.3
    assert error.mean() == pytest.approx(0, abs=0.005)
    # Two uniform dithers and the rounding: the variance of TPDF-dithered quantisation is a quarter step².
    assert error.var() == pytest.approx(0.25, rel=0.02)
    grid = np.arange(-5, 5)[None] / 32768
    assert np.array_equal(quantise(grid, 16, rng) >> 16, np.arange(-5, 5)[None])
    assert quantise(np.array([[2.0, -2.0]]), 16, rng).tolist() == [[32767 << 16, -(32768 << 16)]]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff", ".caf", ".w64", ".rf64"])
def test_every_container(tmp_path: Path, suffix: str) -> None:
    audio = plucks(0.2, channels=2) * 0.1
    path = write_stem(audio, RATE, tmp_path / f"stem{suffix}", subtype="PCM_24")
    assert np.abs(soundfile.read(path)[0].T - audio).max() < 2**-23


def test_an_aiff_that_would_end_short_is_refused(tmp_path: Path) -> None:
    large = np.broadcast_to(np.float32(0.1), (8, 2**27))
    with pytest.raises(BadRequest, match="4 GiB"):
        write_stem(large, RATE, tmp_path / "x.aiff", subtype="FLOAT")
    assert not list(tmp_path.iterdir())


def test_a_sidecar_that_another_stem_has_left_is_not_that_of_one_without(tmp_path: Path) -> None:
    left = {"schema": 1, "content": {}, "styles": [], "stem": "x.wav"}
    (tmp_path / "x.json").write_text(json.dumps(left), "utf-8")
    (tmp_path / "y.json").write_text("{}", "utf-8")
    assert write_stem(noise(0.1), RATE, tmp_path / "x.wav", subtype="PCM_16").name == "x_2.wav"
    assert write_stem(noise(0.1), RATE, tmp_path / "y.wav", subtype="PCM_16").name == "y.wav"


@pytest.mark.skipif(os.name == "nt", reason="Windows flushes folders by itself")
def test_a_stem_in_a_folder_that_cannot_be_flushed_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def of_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", of_files)
    path = write_stem(noise(0.1), RATE, tmp_path / "x.wav", subtype="PCM_16", sidecar=lambda stem: b"{}")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["x.json", path.name]


@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".caf", ".w64"])
def test_a_stem_does_not_hold_when_it_was_written(tmp_path: Path, suffix: str) -> None:
    path = write_stem(np.full((1, 100), 0.1, np.float32), RATE, tmp_path / f"x{suffix}", subtype="FLOAT")
    assert b"PEAK" not in path.read_bytes().upper()


def test_what_was_there_stays_where_its_sidecar_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stem, note = tmp_path / "stem.wav", tmp_path / "stem.json"
    stem.write_text("old stem")
    note.write_text("old sidecar")
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        # As Windows does with a file that another program has open.
        if target == note:
            raise PermissionError(errno.EACCES, "in use", str(self), None, str(target))
        return replace(self, target)

    for number in (0, errno.ENOTSUP, errno.EINVAL):

        def no_links(*_: object, number: int = number) -> None:
            raise OSError(number, "no hard links here")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", refuse)
            if number:
                patch.setattr(os, "link", no_links)
            with pytest.raises(NotAllowed, match=r"stem\.json cannot be written"):
                write_stem(noise(0.01), RATE, stem, subtype="PCM_16", overwrite=True, sidecar=lambda _: b"new")
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
            "stem.wav": "old stem", "stem.json": "old sidecar",
        }  # fmt: skip
    write_stem(noise(0.01), RATE, stem, subtype="PCM_16", overwrite=True, sidecar=lambda _: b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stem.json", "stem.wav"]
    assert note.read_text() == "new"


def test_what_cannot_be_put_back_keeps_its_second_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stem, note = tmp_path / "stem.wav", tmp_path / "stem.json"
    stem.write_text("old stem")
    note.write_text("old sidecar")
    replace = Path.replace
    refused: list[Path] = []

    def refuse(self: Path, target: Path) -> Path:
        if target == note or refused:
            refused.append(target)
            raise PermissionError(errno.EACCES, "in use", str(self), None, str(target))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(NotAllowed, match=r"stem\.json cannot be written"):
        write_stem(noise(0.01), RATE, stem, subtype="PCM_16", overwrite=True, sidecar=lambda _: b"new")
    assert refused == [note, stem]
    assert [path.read_text() for path in tmp_path.glob(".*.old")] == ["old stem"]
    assert note.read_text() == "old sidecar"


@pytest.mark.parametrize("published", [False, True])
def test_after_a_crash_amid_an_overwrite_stem_and_sidecar_are_of_one_render(tmp_path: Path, published: bool) -> None:
    stem, note = tmp_path / "stem.wav", tmp_path / "stem.json"
    stem.write_text("new stem" if published else "old stem")
    note.write_text("old sidecar")
    (tmp_path / ".stem.wav.abcd.json.part").write_text("new sidecar")
    for name in (".stem.wav.abcd.part", ".stem.wav.abcd.part.old", ".stem.wav.abcd.json.part.old"):
        (tmp_path / name).write_text("old")
    settle(tmp_path, "abcd", stem if published else None)
    age = "new" if published else "old"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "stem.wav": f"{age} stem", "stem.json": f"{age} sidecar",
    }  # fmt: skip


def test_names_are_never_taken(tmp_path: Path) -> None:
    target = tmp_path / "stem.wav"
    names = [write_stem(noise(0.01), RATE, target, subtype="PCM_16", sidecar=lambda _: b"{}").name for _ in range(3)]
    assert names == ["stem.wav", "stem_2.wav", "stem_3.wav"]
    (tmp_path / "other.json").write_text("mine", "utf-8")
    other = write_stem(noise(0.01), RATE, tmp_path / "other.wav", subtype="PCM_16", sidecar=lambda _: b"{}")
    assert other.name == "other_2.wav"
    assert (tmp_path / "other.json").read_text("utf-8") == "mine"


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    audio = noise(0.01)
    source = tmp_path / "source.wav"
    soundfile.write(source, audio.T, RATE)
    before = source.read_bytes()
    with pytest.raises(NotAllowed):
        write_stem(audio, RATE, source, subtype="PCM_16", overwrite=True, protect=[source])
    with pytest.raises(BadRequest, match="8 channels"):
        write_stem(np.zeros((9, 100)), RATE, tmp_path / "wide.flac", subtype="PCM_16")
    with pytest.raises(BadRequest, match="flac"):
        write_stem(audio, RATE, tmp_path / "stem.mp3", subtype="PCM_16")
    with pytest.raises(NotFound):
        write_stem(audio, RATE, tmp_path / "none" / "stem.wav", subtype="PCM_16")
    with pytest.raises(ZeroDivisionError):
        write_stem(audio, RATE, tmp_path / "stem.wav", subtype="PCM_16", sidecar=lambda _: bytes([1 // 0]))
    assert [path.name for path in tmp_path.iterdir()] == ["source.wav"]
    assert source.read_bytes() == before


def test_a_folder_that_was_made_stays_only_with_something_in_it(tmp_path: Path) -> None:
    made, there = tmp_path / "made", tmp_path / "there"
    there.mkdir()

    def cancelled(folder: Path, stems: int) -> None:
        with made_folder(folder):
            for number in range(stems):
                (folder / f"{number}.wav").touch()
            raise Cancelled("cancelled")

    for folder in (made, there):
        with pytest.raises(Cancelled):
            cancelled(folder, 0)
    assert (made.exists(), there.is_dir()) == (False, True)
    with pytest.raises(Cancelled):
        cancelled(made, 1)
    assert [path.name for path in made.iterdir()] == ["0.wav"]
    with pytest.raises(BadRequest, match="is a file, not a folder"):
        cancelled(made / "0.wav", 0)
    with pytest.raises(NotFound, match=r"the folder .*no does not exist"):
        cancelled(tmp_path / "no" / "such", 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "there"]


@pytest.mark.skipif(os.name == "nt", reason="no user ids")
def test_a_folder_in_a_closed_one_is_not_allowed(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # nothing is closed to root
    try:
        with pytest.raises(NotAllowed, match="may not be read"), made_folder(closed / "stems"):
            pass
    finally:
        os.seteuid(user)


def test_not_finite_is_never_written(tmp_path: Path) -> None:
    path = write_stem(np.array([[0.1, np.nan, np.inf]]), RATE, tmp_path / "stem.wav", subtype="FLOAT")
    assert soundfile.read(path, dtype="float32")[0].tolist() == pytest.approx([0.1, 0, 0])


def test_a_full_disk(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    mounted = subprocess.run(mount, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs Linux and root")
    try:
        with pytest.raises(DiskFull, match="no room"):
            write_stem(noise(20), RATE, small / "stem.wav", subtype="PCM_24")
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


WRITER = """
import sys, numpy as np
from pathlib import Path
from stylus_audio.stem import write_stem
print("ready", flush=True)
for number in range(int(sys.argv[2])):
    target = Path(sys.argv[1]) / "stem.wav"
    write_stem(np.full((2, 400_000), 0.1), 44100, target, subtype="PCM_24", sidecar=lambda _: b"{}")
"""


def writer(folder: Path, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(count)], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_never_take_one_name(tmp_path: Path) -> None:
    writers = [writer(tmp_path, 12) for _ in range(2)]
    for one in writers:
        one.communicate(timeout=120)
        assert one.returncode == 0
    stems = sorted(path.name for path in tmp_path.glob("*.wav"))
    assert len(stems) == 24
    assert all((tmp_path / name).with_suffix(".json").is_file() for name in stems)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("number", range(4))
def test_a_killed_process_leaves_no_partial_stem(tmp_path: Path, number: int) -> None:
    process = writer(tmp_path, 500)
    assert process.stdout is not None
    process.stdout.readline()
    until((tmp_path / "stem.wav").is_file)
    time.sleep(0.11 * number)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    stems = list(tmp_path.glob("[!.]*.wav"))
    assert {soundfile.info(stem).frames for stem in stems} == {400_000}
    # A stem comes before its sidecar, and the next one after both.
    assert sum(not stem.with_suffix(".json").is_file() for stem in stems) <= 1
