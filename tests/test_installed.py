"""Where `stylus` lies is written down, and that never stands in the way of anything else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from stylus_audio import installed
from stylus_audio.places import user_data


def installation(folder: Path) -> Path:
    """A Python and a `stylus` beside each other; Python is a link, as in an environment."""
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    (folder / "stylus").touch()
    return folder / "stylus"


def test_the_executable_beside_python_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = installation(tmp_path / "Jörgs Umgebung")
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    assert installed.record() == (True, str(program))
    python = str(program.with_name("python"))
    assert json.loads((user_data() / "installed.json").read_text("utf-8")) == {
        "executable": str(program), "python": python,
    }  # fmt: skip
    assert [path.name for path in user_data().iterdir()] == ["installed.json"]


def test_else_the_one_that_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = installation(tmp_path / "environment")
    link = tmp_path / "stylus"
    link.symlink_to(program)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "nothing.py")])
    assert installed.executable() == link
    link.rename(tmp_path / "elsewhere")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "stylus").symlink_to(program)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin" / "stylus"), "daemon"])
    assert installed.executable() == program


def test_without_one_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sys, "argv", ["-m"])
    monkeypatch.chdir(tmp_path)
    assert not installed.record()[0]
    assert not (user_data() / "installed.json").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = installation(tmp_path / "environment")
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    (tmp_path / "file").touch()
    monkeypatch.setenv("STYLUS_HOME", str(tmp_path / "file"))
    ok, detail = installed.record()
    assert not ok
    assert detail.startswith(f"{program}, but {tmp_path / 'file' / 'installed.json'} cannot be written: ")
