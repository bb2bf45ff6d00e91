"""What an audition leaves for the page: the scores of a passage in many styles, in a folder for each job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylus_audio.errors import NotFound
from stylus_audio.files import writable_folder, write_files

RETENTION = 86400.0
"""Seconds; an audition is made again in less than a minute."""


def folder_of(home: Path) -> Path:
    """Where auditions lie."""
    return home / "auditions"


class Audition:
    """One audition on disk. The worker that makes it is the only one that writes."""

    def __init__(self, home: Path, job: int) -> None:
        self._folder = folder_of(home) / str(job)

    def begin(self, about: dict[str, Any], styles: Sequence[tuple[str, str]], attack: bytes) -> None:
        """Say what is auditioned (`audition.about`), in which styles, path and name, best guess first."""
        writable_folder(self._folder)
        for old in self._folder.iterdir():
            old.unlink()
        listed = [{"path": path, "name": name} for path, name in styles]
        index = json.dumps({**about, "styles": listed}, ensure_ascii=False).encode()
        write_files({self._folder / "attack": attack, self._folder / "index.json": index}, overwrite=True)

    def put(self, number: int, score: bytes) -> None:
        """The score of a style."""
        write_files({self._folder / f"{number}.score": score}, overwrite=True)

    def fail(self, number: int, why: str) -> None:
        """Why a style has none."""
        write_files({self._folder / f"{number}.error": why.encode()}, overwrite=True)

    def index(self) -> dict[str, Any]:
        """What `begin` said, with of each style whether it is `ready`, or its `error`; `NotFound` before that."""
        try:
            index: dict[str, Any] = json.loads((self._folder / "index.json").read_text("utf-8"))
        except (OSError, ValueError):
            raise NotFound("this audition has not begun, or is forgotten") from None
        there = {path.name for path in self._folder.iterdir()}
        for number, style in enumerate(index["styles"]):
            style["ready"] = f"{number}.score" in there
            if f"{number}.error" in there:
                style["error"] = (self._folder / f"{number}.error").read_text("utf-8")
        return index

    def score(self, number: int) -> bytes:
        """The score of a style; `NotFound`."""
        return self._read(f"{number}.score")

    def attack(self) -> bytes:
        """The envelope of attacks, float32, little-endian."""
        return self._read("attack")

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError:
            raise NotFound("this style has not been auditioned yet") from None
