"""The grid of a paper over two folders: whole, resumed, refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stylus_audio import paper_grid
from stylus_audio.errors import BadRequest, NoModel
from stylus_audio.paper_grid import METHODS, PARTS, asked_of, markdown, planned, run
from stylus_audio.settings import Settings
from tests.sounds import RATE, noise, plucks

SYSTEMS = {system.name for system in (*METHODS, *PARTS)}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name, sound in {"c/a.wav": plucks(0.5), "s/b.wav": noise(0.5), "s/b c.wav": noise(0.4, seed=1)}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, sound.T, RATE)
    return tmp_path


def command(folder: Path, model: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stylus_audio.paper_grid", folder / "c", folder / "s", "--out", folder / "out",
         "--model", model, "--set", "steps=2", "--set", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def unhurried(err: str) -> str:
    """What was said, but for how long it takes on this machine."""
    return "".join(line for line in err.splitlines(keepends=True) if not line.startswith("this will take about "))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C reaches a child process in another way on Windows")
def test_a_stopped_grid_goes_on_and_prints_both_tables(folders: Path, tiny_folder: Path) -> None:
    first = command(folders, tiny_folder, "layers=0-1")
    deadline = time.monotonic() + 120
    while not (before := sorted((folders / "out").glob("*/*.wav"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=60)
    assert (first.returncode, unhurried(err)) == (130, "stopped; the same command goes on\n")
    made = {stem: stem.stat().st_mtime_ns for stem in before}
    assert made
    out, err = command(folders, tiny_folder, "layers=0-1").communicate(timeout=300)
    assert unhurried(err) == ""
    stems = sorted((folders / "out").glob("*/*.wav"))
    assert {stem.parent.name for stem in stems} == SYSTEMS
    assert len(stems) == 2 * len(SYSTEMS)
    assert {stem: stem.stat().st_mtime_ns for stem in made} == made
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("|")]
    names = [row[0] for row in rows if row[0] and not row[0].startswith("---")]
    assert names == [*(system.name for system in METHODS), *(system.name for system in PARTS)]
    by_name = {row[0]: row for row in rows}
    # The content itself keeps all of the content; Stylus is the same row in both tables.
    assert by_name["content"][1:4] == ["2", "1.000", "1.000"]
    assert [row for row in rows if row[0] == "Stylus"] == 2 * [by_name["Stylus"]]
    assert (folders / "out" / "tables.md").read_text("utf-8") == out.removesuffix("\n")
    # A stem that is gone is made again, and all is measured again.
    stems[0].unlink()
    again, _ = command(folders, tiny_folder, "layers=0-1").communicate(timeout=300)
    assert again == out
    assert stems[0].exists()


@pytest.mark.slow
def test_what_does_not_fit_the_model_is_said_before_anything_is_rendered(folders: Path, tiny_folder: Path) -> None:
    process = command(folders, tiny_folder, "layers=6-7")
    _, err = process.communicate(timeout=120)
    assert (process.returncode, unhurried(err)) == (
        2,
        "layers: the model has no layer 6; it has 0, 1, 3, 4 (a recipe's are those of --model sd15)\n",
    )
    assert not list((folders / "out").glob("*/*"))


@pytest.mark.slow
def test_what_cannot_be_rendered_leaves_a_row_without_values(folders: Path, tiny_folder: Path) -> None:
    for style in (folders / "s").iterdir():
        soundfile.write(style, np.zeros((9000, 1)), RATE)
    process = command(folders, tiny_folder, "layers=0-1")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0
    # By match-EQ, mini and everything published, but not by what takes the content as it is.
    said = unhurried(err).splitlines()
    assert len(said) >= 2 * 3
    assert all("silen" in line for line in said)
    assert "| Stylus | 0 |" in out


def test_what_a_row_is_named_after_is_not_set_otherwise() -> None:
    asked = {"keep": "0.5", "layers": "0-1"}
    settings = {part.name: Settings.parse(asked_of(part, asked)) for part in (*METHODS, *PARTS)}
    assert settings["Stylus"].gamma == settings["no guidance"].gamma == 0.5
    assert settings["no query preservation"].gamma == 0.0
    assert settings["no query preservation"].layers == settings["Stylus"].layers == (0, 1)
    assert settings["mini"].layers is None


def test_another_grid_is_not_mixed_in(folders: Path) -> None:
    places = (folders / "c", folders / "s", folders / "out")
    assert planned(*places, "sd15", {}).contents == [folders / "c" / "a.wav"]
    planned(*places, "sd15", {}).begin()
    planned(*places, "sd15", {})
    with pytest.raises(BadRequest, match="holds another grid"):
        planned(*places, "sd21", {})
    soundfile.write(folders / "c" / "a.wav", noise(0.2).T, RATE)
    with pytest.raises(BadRequest, match="holds another grid"):
        planned(*places, "sd15", {})
    (folders / "empty").mkdir()
    with pytest.raises(BadRequest, match="empty holds no audio files"):
        planned(folders / "empty", folders / "s", folders / "new", "sd15", {})
    assert not (folders / "new").exists()


def test_a_command_that_cannot_run_takes_no_folder(folders: Path) -> None:
    grid = planned(folders / "c", folders / "s", folders / "out", "nosuch", {})
    with pytest.raises(NoModel, match="nosuch"):
        run(grid, "nosuch", "cpu", {}, None, None, print)
    assert not (folders / "out").exists()


def test_tables_of_others_are_not_replaced(folders: Path) -> None:
    (folders / "out").mkdir()
    (folders / "out" / "tables.md").write_text("mine", "utf-8")
    with pytest.raises(BadRequest, match=r"tables\.md that is no grid's"):
        planned(folders / "c", folders / "s", folders / "out", "sd15", {})


def test_names_that_run_together_stay_apart(folders: Path) -> None:
    grid = planned(folders / "c", folders / "s", folders / "out", "sd15", {})
    assert len({grid.stem(METHODS[0], 0, column) for column in range(2)}) == 2
    assert grid.missing(METHODS[0]) == [(0, 0), (0, 1)]


def test_a_column_without_values_is_left_out() -> None:
    text = markdown({"x": {"stems": 3.0, "chroma_similarity": 0.5, "fad_mel": None}})
    assert text.splitlines()[0] == "|  | stems | content: chroma |"


def test_a_setting_is_a_name_and_a_value() -> None:
    assert paper_grid._pair("layers=6-7") == ("layers", "6-7")
