"""What has come of each item, on the disk: the one truth of a batch, whatever is killed when.

A stem is aimed at (its name, its SHA-256 and its report are written down) before it appears, and done after. One that
was aimed at when a run ended is looked at by the next: it is there and whole, or was never there.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..audio import sha256
from ..errors import Busy, DiskFull, NotAllowed
from ..files import in_text, means_full, writable_folder
from ..stem import Journal, settle
from .packs import Failed

_TABLES = """
CREATE TABLE IF NOT EXISTS items (
  key TEXT PRIMARY KEY, state TEXT NOT NULL, content TEXT NOT NULL, stem TEXT NOT NULL DEFAULT '',
  bytes INTEGER NOT NULL DEFAULT 0, digest TEXT NOT NULL DEFAULT '', stamp TEXT NOT NULL DEFAULT '',
  code TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '', seconds REAL NOT NULL DEFAULT 0,
  lowered REAL NOT NULL DEFAULT 0, report TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS items_stem ON items (stem);
CREATE TABLE IF NOT EXISTS former (stem TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

_DONE = "SELECT key, stem, bytes, stamp, lowered FROM items WHERE state = 'done'"


@dataclass(frozen=True, slots=True)
class Stem:
    """A stem that is done: its file, and its sources as they were when it was made (`sources.stamp`)."""

    path: str
    bytes: int
    stamp: str
    lowered_db: float


class Ledger:
    """The state of one batch in one file, for one process at a time: `Busy` for another.

    A context manager. Raises `DiskFull`, and `NotAllowed` where the file cannot be written or read, as all it does may.
    """

    def __init__(self, file: Path) -> None:
        writable_folder(file.parent)
        self.file = file
        with _said(file):
            self._base = sqlite3.connect(file, timeout=0.5, isolation_level=None)
            # Held until the process ends, however it ends; works on network disks too.
            self._base.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")
            self._base.execute("BEGIN EXCLUSIVE")
            for statement in filter(str.strip, _TABLES.split(";")):
                self._base.execute(statement)
            self._base.execute("COMMIT")
        self.token = self.fact("token") or self._new_token()
        self._settle()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def _do(self, statement: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Carry out a statement at once; returns its rows."""
        with _said(self.file):
            rows = self._base.execute(statement, values)
        return self._read(rows)

    def _read(self, rows: sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
        with _said(self.file):
            yield from rows

    def _new_token(self) -> str:
        token = secrets.token_hex(6)
        self.note("token", token)
        return token

    def fact(self, name: str) -> str:
        """What was noted under a name; "" where nothing was."""
        return next((str(value) for (value,) in self._do("SELECT value FROM facts WHERE name = ?", name)), "")

    def note(self, name: str, value: str) -> None:
        """Keep a fact about the whole batch."""
        self._do("INSERT OR REPLACE INTO facts VALUES (?, ?)", name, value)

    def _settle(self) -> None:
        """Look at the stems that were aimed at when the last run ended."""
        aimed = list(self._do("SELECT key, stem, digest FROM items WHERE state = 'aimed'"))
        for key, stem, digest in aimed:
            path = Path(stem)
            # A name is given in one step, so a file under it is whole; but it may be somebody else's.
            there = path.is_file() and sha256(path) == digest
            if path.parent.is_dir():
                settle(path.parent, self.token, path if there else None)
            if there:
                self.done([key])
            else:
                self._do("UPDATE items SET state = 'open' WHERE key = ?", key)

    def sweep(self, folders: Iterable[Path]) -> None:
        """Take away what an interrupted run has left unfinished in folders of stems."""
        for folder in folders:
            if folder.is_dir():
                settle(folder, self.token, None)

    def stems(self) -> dict[str, Stem]:
        """Every stem that is done, by its item's key."""
        return {key: Stem(*row) for key, *row in self._do(_DONE)}

    def placed(self) -> set[str]:
        """Where this batch has ever put a stem."""
        rows = self._do("SELECT stem FROM items WHERE state = 'done' UNION SELECT stem FROM former")
        return {stem for (stem,) in rows}

    def _part_with(self, key: str) -> None:
        """What becomes of an item now is not its stem of before, which stays on the disk."""
        self._do("INSERT OR IGNORE INTO former SELECT stem FROM items WHERE key = ? AND state = 'done'", key)

    def failures(self) -> dict[str, Failed]:
        """Why there is no stem of an item, by its key."""
        rows = self._do("SELECT key, code, message FROM items WHERE state = 'failed'")
        return {key: Failed(code, message) for key, code, message in rows}

    def journal(self, key: str, content: str, stamp: str, seconds: float, lowered: float, report: Any) -> Journal:
        """For `stem.publish_stem`: writes down what is about to appear."""

        def aim(candidate: Path, part: Path) -> None:
            if in_text(str(candidate)) != str(candidate):
                raise NotAllowed(f"the name of {in_text(str(candidate))} is not UTF-8; put the stem elsewhere")
            self._part_with(key)
            self._do(
                "INSERT OR REPLACE INTO items"
                " (key, state, content, stem, bytes, digest, stamp, seconds, lowered, report)"
                " VALUES (?, 'aimed', ?, ?, ?, ?, ?, ?, ?, ?)",
                key, in_text(content), str(candidate), part.stat().st_size, sha256(part), stamp, seconds, lowered,
                json.dumps(report, ensure_ascii=False),
            )  # fmt: skip

        return Journal(self.token, aim)

    def done(self, keys: Sequence[str]) -> None:
        """The stems that were aimed at are there, in place of those that lay there before, of other settings.

        To say so of many at once takes hardly longer than of one.
        """
        made, said = "SELECT value FROM json_each(?)", json.dumps(keys)
        self._do(
            f"UPDATE items SET state = CASE WHEN key IN ({made}) THEN 'done' ELSE 'open' END WHERE key IN ({made})"
            f" OR (state = 'done' AND stem IN (SELECT stem FROM items WHERE key IN ({made})))",
            said, said, said,
        )  # fmt: skip

    def restamp(self, key: str, stamp: str) -> None:
        """The sources of a stem have other times, and are the same."""
        self._do("UPDATE items SET stamp = ? WHERE key = ?", stamp, key)

    def failed(self, key: str, content: str, failure: Failed) -> None:
        """There is no stem, and why; an older one stays on the disk."""
        self._part_with(key)
        self._do(
            "INSERT OR REPLACE INTO items (key, state, content, code, message) VALUES (?, 'failed', ?, ?, ?)",
            key, in_text(content), failure.code, in_text(failure.message),
        )  # fmt: skip

    def report(self, key: str) -> dict[str, Any]:
        """The report of a stem."""
        text = next((text for (text,) in self._do("SELECT report FROM items WHERE key = ?", key)), "")
        values: dict[str, Any] = json.loads(text) if text else {}
        return values

    def write_reports(self, file: Path) -> None:
        """The reports of all stems that are done, a line each, in place of what the file held."""
        part = file.with_name(f".{file.name}.part")
        try:
            with part.open("w", encoding="utf-8") as stream:
                for stem, report in self._do("SELECT stem, report FROM items WHERE state = 'done'"):
                    stream.write(json.dumps({"stem": stem, **json.loads(report)}, ensure_ascii=False) + "\n")
            part.replace(file)
        except OSError as error:
            if means_full(error):
                raise DiskFull(f"no room left for {file}") from error
            raise NotAllowed(f"{file} cannot be written: {error.strerror}") from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)


@contextmanager
def _said(file: Path) -> Iterator[None]:
    """What SQLite says of a ledger, in our words."""
    try:
        yield
    except sqlite3.OperationalError as error:
        match error.sqlite_errorcode & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                raise Busy(f"another run is at work on this batch ({file}); wait for it, or end it") from None
            case sqlite3.SQLITE_FULL:
                raise DiskFull(f"no room left for {file}") from None
        raise NotAllowed(f"{file} cannot be written: {error}") from None
    except sqlite3.DatabaseError as error:
        raise NotAllowed(f"{file} is no ledger of a batch: {error}") from None


@contextmanager
def open_ledger(file: Path) -> Iterator[Ledger]:
    """The ledger in a file. A new one that no stem has come into goes again, and what was made to hold it.

    Raises as `Ledger` does.
    """
    made = list(takewhile(lambda folder: not folder.is_dir(), file.parents))
    spare = not file.exists()
    try:
        try:
            ledger = Ledger(file)
        except Busy:
            # It is another run's.
            spare = False
            raise
        with ledger:
            try:
                yield ledger
            finally:
                spare = spare and not ledger.placed()
    finally:
        if spare:
            for part in file.parent.glob(f"{file.name}*"):
                part.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
