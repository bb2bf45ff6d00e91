"""Small JSON files of the user's, written atomically: presets, and what is known of weights."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import BadRequest, Busy, NotAllowed
from .files import hidden
from .lock import Lock, Taken

PATIENCE = 10.0
"""Seconds to wait for another process that changes the same file."""


def load(file: Path) -> dict[str, Any]:
    """The file's object; an absent or damaged file is an empty one."""
    with suppress(BadRequest):
        return load_whole(file)
    return {}


def load_whole(file: Path) -> dict[str, Any]:
    """As `load`, but `BadRequest` for a damaged file: for what a user has put there, and the next `save` would lose."""
    try:
        values = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise damaged(file, str(error)) from None
    if not isinstance(values, dict):
        raise damaged(file, "no object")
    return values


def damaged(file: Path, why: str) -> BadRequest:
    """The error for a file that does not hold what it should."""
    return BadRequest(f"{file} is damaged: {why}; mend it, or move it away to begin anew")


@contextmanager
def held(file: Path) -> Iterator[None]:
    """The right to read a file, think, and replace it, which one process has at a time.

    Raises `Busy` where another keeps it, and `NotAllowed` where the place cannot be written.
    """
    try:
        lock = Lock(file.with_suffix(".lock"), PATIENCE)
    except Taken:
        raise Busy(f"{file} is being changed by another process; try again") from None
    except OSError as error:
        raise NotAllowed(f"{file} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def save(file: Path, values: dict[str, Any]) -> None:
    """Replace the file's object; `NotAllowed` where the place cannot be written."""
    # A link to where the user keeps such files stays one.
    file = file.resolve()
    part = hidden(file, secrets.token_hex(4), ".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(values, indent=1, ensure_ascii=False), "utf-8")
        part.replace(file)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise NotAllowed(f"{file} cannot be written: {error.strerror}") from error
