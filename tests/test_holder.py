"""What a daemon says of itself to who meets its lock."""

from __future__ import annotations

from pathlib import Path

import pytest
from stylus_daemon.holder import Holder, said_of_holder, say_holder


def test_who_meets_the_lock_learns_port_and_folders(tmp_path: Path) -> None:
    assert said_of_holder(tmp_path) == Holder()
    for holder in (Holder(9109, (tmp_path / "Müsik", tmp_path)), Holder(9110)):
        say_holder(tmp_path, holder.port, holder.roots)
        assert said_of_holder(tmp_path) == holder
    assert [path.name for path in tmp_path.iterdir()] == ["daemon.json"]


@pytest.mark.parametrize("text", ["", "9109", "[]", '{"port": "x", "roots": []}', '{"port": 1, "roots": [1]}', "{"])
def test_of_a_damaged_file_nothing_is_believed(tmp_path: Path, text: str) -> None:
    (tmp_path / "daemon.json").write_text(text, "utf-8")
    assert said_of_holder(tmp_path) == Holder()


def test_a_place_that_cannot_be_written_ends_no_daemon(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    say_holder(tmp_path / "file", 9109, [])
    assert "daemon.json cannot be written" in caplog.text
    say_holder(tmp_path, 9109, [tmp_path, tmp_path / "no\udcff text"])
    assert said_of_holder(tmp_path) == Holder(9109, (tmp_path, tmp_path / r"no\udcff text"))
