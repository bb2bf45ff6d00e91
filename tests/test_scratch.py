"""Arrays in files: the same numbers in little memory, and nothing left behind."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from stylus_audio import Engine, finish, onsets, passage, scratch
from stylus_audio.job import render_file
from stylus_audio.scratch import blocks, let_go, padded, zeros
from stylus_audio.target import Target
from tests.sounds import RATE, noise, plucks


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files of this process go, which every array but the smallest is one of."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(scratch, "LARGE_BYTES", 1000)
    return tmp_path


def in_files() -> int:
    gc.collect()
    return len(scratch._mapped)


def test_a_large_array_is_a_file_and_holds_what_is_written(folder: Path) -> None:
    before = in_files()
    array, small = zeros((3, 1000)), zeros((10,))
    assert in_files() == before + 1
    assert not array.any()
    values = np.random.default_rng(0).random((3, 1000), np.float32)
    array[...] = values
    let_go()
    assert np.array_equal(array, values)
    view = array[:, 500:]
    del array
    assert in_files() == before + 1
    assert np.array_equal(view, values[:, 500:])
    del view
    assert in_files() == before
    assert small.flags.writeable
    assert not list(folder.iterdir())


@pytest.mark.parametrize("reserves", [True, False])
def test_the_disks_room_is_taken_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch, reserves: bool) -> None:
    """Where the system cannot reserve it, it is written."""
    taken: list[int] = []

    def full(*_: object) -> None:
        taken.append(1)
        raise OSError(errno.ENOSPC, "no space left")

    before = in_files()
    if reserves:
        monkeypatch.setattr(os, "posix_fallocate", full)
        assert zeros((5000,)).shape == (5000,)
        assert (len(taken), in_files()) == (1, before)
    else:
        monkeypatch.delattr(os, "posix_fallocate")
        array = zeros((3_000_000,), np.uint8)
        assert in_files() == before + 1
        array[-1] = 7
        assert int(array.sum()) == 7


def test_a_disk_with_little_room_costs_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = in_files()
    monkeypatch.setattr(scratch, "SPARE_BYTES", shutil.disk_usage(folder).total)
    assert zeros((5000,)).shape == (5000,)
    assert in_files() == before


def test_blocks_cover_all_once() -> None:
    assert [list(blocks(count, 4)) for count in (0, 4, 9)] == [
        [], [slice(0, 4)], [slice(0, 4), slice(4, 8), slice(8, 9)]
    ]  # fmt: skip
    audio = np.arange(6, dtype=np.float64).reshape(2, 3)
    assert np.array_equal(padded(audio, 1, 2), np.pad(audio, ((0, 0), (1, 2))))
    assert padded(audio, 1, 2).dtype == np.float64


@pytest.mark.parametrize("samples", [50, 900, 30_000])
def test_what_is_done_in_blocks_is_as_if_it_were_done_at_once(monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    """Blocks shorter and longer than a filter's reach; the whole is one block."""
    audio = np.random.default_rng(0).standard_normal((2, samples))

    def done() -> list[NDArray[Any]]:
        return [
            finish.without_kept_bands(audio.copy(), RATE, 300.0, 9000.0),
            passage._turns(audio, 70),
            onsets._flux(audio, RATE),
        ]

    whole = done()
    for module in (finish, passage):
        monkeypatch.setattr(module, "SAMPLES", 701)
    monkeypatch.setattr(onsets, "_FRAMES", 3)
    for found, expected in zip(done(), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert np.array_equal(whole[1], np.take(audio, np.arange(-70, samples + 70), 1, mode="wrap"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"stereo": "independent", "loudness": -20.0}, {"stereo": "mid-side", "preview": 1.0},
     {"transients": 0.5, "keep_below": 200.0, "mix": 0.7},
     {"tail": 0.3, "ceiling": -12.0}],
)  # fmt: skip
def test_a_stem_from_files_is_that_from_memory(
    told: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    """Clip, stem and metrics, to the bit; the rate is not the model's."""
    clip, style = tmp_path / "clip.wav", tmp_path / "style.wav"
    soundfile.write(clip, plucks(3.0, channels=2).T, 48000)
    soundfile.write(style, noise(1.0).T, RATE)
    made = []
    for name in ("memory", "files"):
        target = Target(tmp_path / f"{name}.wav")
        made.append(render_file(told, clip, [(style, "style")], told.settings(**changes), target))
        monkeypatch.setattr(scratch, "LARGE_BYTES", 1000)
    first, second = (one.path.read_bytes() for one in made)
    assert first == second
    assert made[0].report["metrics"] == made[1].report["metrics"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system decides what is in memory")
def test_what_is_worked_on_is_all_that_is_in_memory() -> None:
    """256 MiB are written, read and summed up; a process of its own says how much was there at most."""
    code = """
from pathlib import Path
import numpy as np
from stylus_audio.scratch import blocks, zeros
def most():
    # Of this process alone: the other counts have what its parent had.
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1])
before = most()
array = zeros((4, 2**24))
for here in blocks(2**24, 2**18):
    array[:, here] = 1.0
total = sum(float(array[:, here].sum(dtype=np.float64)) for here in blocks(2**24, 2**18))
print(total == 4 * 2**24, (most() - before) // 1024)
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    assert said[0] == "True"
    assert int(said[1]) < 40
