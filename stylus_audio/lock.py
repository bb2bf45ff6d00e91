"""One process at a time: a lock that ends with its holder, however it dies, on every system."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from .errors import NotAllowed


class Taken(Exception):
    """Another process holds the lock."""


class Lock:
    """Held from its making until `release`, or the end of the process.

    An exclusive transaction on an SQLite file that holds nothing: SQLite knows how to lock on every system.
    """

    def __init__(self, file: Path, wait: float = 0.0) -> None:
        """Take the lock, waiting up to `wait` seconds; raises `Taken`, and `NotAllowed` for a file of no use."""
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(file, timeout=wait, isolation_level=None)
        except sqlite3.DatabaseError as error:
            raise NotAllowed(f"{file} cannot be used: {error}") from error
        try:
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            self._connection.close()
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise Taken(f"{file} is held by another process") from error
            raise NotAllowed(f"{file} cannot be used: {error}") from error

    def release(self) -> None:
        """Let it go."""
        self._connection.close()
