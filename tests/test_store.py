"""Small files that several processes change: none loses what another has put there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stylus_audio import store
from stylus_audio.errors import Busy
from stylus_audio.lock import Lock
from stylus_audio.presets import presets

_SAVES = """
import sys
from stylus_audio.presets import save_preset
for number in range(10):
    save_preset(f"{sys.argv[1]} {number}", {"mix": 0.5})
"""


def test_presets_saved_at_the_same_time_are_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLUS_HOME", str(tmp_path))
    processes = [subprocess.Popen([sys.executable, "-c", _SAVES, name], env=dict(os.environ)) for name in "abc"]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert sorted(presets()) == sorted(f"{name} {number}" for name in "abc" for number in range(10))


def test_who_cannot_have_a_file_in_time_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.1)
    file = tmp_path / "x.json"
    lock = Lock(file.with_suffix(".lock"))
    with pytest.raises(Busy, match="another process"), store.held(file):
        pass
    lock.release()
    with store.held(file):
        store.save(file, {"a": 1})
    assert json.loads(file.read_text("utf-8")) == {"a": 1}
