"""Jobs in one SQLite file: what was asked, what is running, what came of it. Nothing that was taken is lost.

Every change is one transaction that is on the disk before it is told to anybody (WAL, synchronous FULL). Any process
may open the same file: the daemon takes requests, workers claim jobs under a lease that they keep alive.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from stylus_audio.audio import sha256
from stylus_audio.errors import BadRequest, Busy, NotAllowed, NotFound

log = logging.getLogger(__name__)

State = Literal["queued", "running", "paused", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
_HAS_ENDED = "state IN ('done', 'failed', 'cancelled')"
# SQLite takes the index by state otherwise, and sorts the whole history for its last lines.
_OF_ENDED = f"FROM jobs INDEXED BY jobs_by_end WHERE {_HAS_ENDED}"

ATTEMPTS = 2
"""A job whose worker died under it is tried once more."""

VERSION = 3
"""Of the tables."""

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    state TEXT NOT NULL DEFAULT 'queued',
    wish TEXT NOT NULL DEFAULT '',
    priority INTEGER NOT NULL DEFAULT 0,
    request TEXT NOT NULL,
    client TEXT NOT NULL DEFAULT '',
    once TEXT UNIQUE,
    created REAL NOT NULL,
    changed REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    worker TEXT NOT NULL DEFAULT '',
    lease REAL NOT NULL DEFAULT 0,
    fraction REAL NOT NULL DEFAULT 0,
    stage TEXT NOT NULL DEFAULT '',
    eta REAL, -- only earlier versions, which may open the file again, write and read it
    path TEXT NOT NULL DEFAULT '',
    digest TEXT NOT NULL DEFAULT '',
    notes TEXT NOT NULL DEFAULT '[]',
    code TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    version INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, priority DESC, id);
CREATE INDEX IF NOT EXISTS jobs_by_version ON jobs (version);
CREATE INDEX IF NOT EXISTS jobs_by_place ON jobs (priority DESC, id);
CREATE INDEX IF NOT EXISTS jobs_by_end ON jobs (changed, id) WHERE {_HAS_ENDED};
CREATE TABLE IF NOT EXISTS works (
    once TEXT PRIMARY KEY, job INTEGER NOT NULL, path TEXT NOT NULL, changed REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS requests (
    client TEXT NOT NULL, rid TEXT NOT NULL, job INTEGER NOT NULL, created REAL NOT NULL, PRIMARY KEY (client, rid)
);
CREATE TABLE IF NOT EXISTS counts (state TEXT PRIMARY KEY, jobs INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR REPLACE INTO counts SELECT state, COUNT(*) FROM jobs GROUP BY state;
CREATE TRIGGER IF NOT EXISTS job_comes AFTER INSERT ON jobs BEGIN
    INSERT INTO counts VALUES (NEW.state, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER IF NOT EXISTS job_turns AFTER UPDATE OF state ON jobs BEGIN
    UPDATE counts SET jobs = jobs - 1 WHERE state = OLD.state;
    INSERT INTO counts VALUES (NEW.state, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER IF NOT EXISTS job_goes AFTER DELETE ON jobs BEGIN
    UPDATE counts SET jobs = jobs - 1 WHERE state = OLD.state;
END;
CREATE TABLE IF NOT EXISTS counter (version INTEGER NOT NULL);
INSERT INTO counter SELECT 0 WHERE NOT EXISTS (SELECT * FROM counter);
"""

_UNTRIED = "state = 'queued' AND priority = ? AND attempts = 0"


@dataclass(frozen=True)
class Job:
    """One job as it stands. Times are seconds since the epoch."""

    id: int
    state: State
    wish: str
    """What a running job is asked to do between two steps: "", "cancel" or "pause"."""
    priority: int
    request: dict[str, Any]
    client: str
    """Who asked, and gets its events; "" for a watched folder."""
    once: str | None
    """The name of the work that it is, where that is done once (`RenderJob.work`)."""
    created: float
    changed: float
    attempts: int
    worker: str
    fraction: float
    stage: str
    path: str
    """Where the stem is, or is going to be once that is decided."""
    digest: str
    """SHA-256 of that stem."""
    notes: tuple[str, ...]
    """What the user should know of a render that is done."""
    code: str
    message: str
    version: int
    """Grows with every change of any job, so that a listener can ask for what is new."""


_FIELDS = tuple(item.name for item in fields(Job))


def queue_file(home: Path) -> Path:
    """Where a daemon with this home has its jobs."""
    return home / "jobs.sqlite"


class LostLease(Exception):
    """The job is no longer this worker's: its lease ran out, and somebody else may be at it."""


class Jobs:
    """The queue and its history. Safe to use from several processes; from several threads, one object for each."""

    def __init__(
        self, file: Path, limit: int = 1000, clock: Callable[[], float] = time.time, durable: bool = True
    ) -> None:
        """`durable` false is for what may be lost with the power, and shall not hold up others that write.

        Raises `NotAllowed` for a file that cannot be opened or is damaged.
        """
        self.limit = limit
        self._clock = clock
        self._together = False
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(file, timeout=30, isolation_level=None)
            self._open("FULL" if durable else "NORMAL")
        except sqlite3.DatabaseError as error:
            raise NotAllowed(f"the queue {file} cannot be used: {error}") from error

    def _open(self, synchronous: str) -> None:
        self._connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode = WAL", f"synchronous = {synchronous}", "busy_timeout = 30000"):
            self._connection.execute(f"PRAGMA {pragma}")
        if self._connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            self._connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Several changes in one transaction: they are on the disk, all at once, when the block ends."""
        self._together = True
        try:
            yield
        finally:
            # Whatever came of the rest, what was changed and told stands.
            self._together = False
            if self._connection.in_transaction:
                self._committed()

    def _committed(self) -> None:
        """End the transaction; where it cannot be, on a full disk, as if it had not been, and the next can begin."""
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction that holds the only right to write from its start on.

        Nothing in a block raises behind its first write, so that of several together the others' changes stand.
        """
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            # A full disk may have undone it already.
            if not self._together and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        if not self._together:
            self._committed()

    def submit(
        self, request: Mapping[str, Any], client: str = "", rid: str = "", priority: int = 0, once: str | None = None
    ) -> Job:
        """Take a request; the same `rid` of the same client again gives the job that it has already started.

        `once` names the work itself (content, style and settings by their hashes): what is queued, running, paused or
        done under it is that job; of one that is pruned only number, end and stem are known. A `rid` of "" or "0" is
        never taken for a repeat. Raises `Busy` where `limit` jobs wait.
        """
        now = self._clock()
        with self._change() as connection:
            known = None
            if rid not in ("", "0"):
                known = connection.execute(
                    "SELECT job FROM requests WHERE client = ? AND rid = ?", (client, rid)
                ).fetchone()
            if known is None and once is not None:
                known = connection.execute("SELECT id AS job FROM jobs WHERE once = ?", (once,)).fetchone()
                work = connection.execute("SELECT * FROM works WHERE once = ?", (once,)).fetchone()
                if known is None and work is not None:
                    return _forgotten(work, request)
            number = known["job"] if known else self._insert(connection, request, client, priority, once, now)
            if rid not in ("", "0"):
                connection.execute("INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?)", (client, rid, number, now))
        return self.get(number)

    def _insert(
        self,
        connection: sqlite3.Connection,
        request: Mapping[str, Any],
        client: str,
        priority: int,
        once: str | None,
        now: float,
    ) -> int:
        waiting = self.count("queued", "paused")
        if waiting >= self.limit:
            raise Busy(f"{waiting} jobs are waiting; try again when some are done")
        connection.execute("UPDATE counter SET version = version + 1")
        number = connection.execute(
            "INSERT INTO jobs (request, client, priority, once, created, changed, version)"
            " VALUES (?, ?, ?, ?, ?, ?, (SELECT version FROM counter))",
            (json.dumps(dict(request)), client, priority, once, now, now),
        ).lastrowid
        assert number is not None
        return number

    def release(self, once: str, number: int) -> None:
        """Let the work of this name (`once` in `submit`) be asked for again, where it is that job's."""
        with self._change() as connection:
            connection.execute("UPDATE jobs SET once = NULL WHERE once = ? AND id = ?", (once, number))
            connection.execute("DELETE FROM works WHERE once = ? AND job = ?", (once, number))

    def get(self, number: int) -> Job:
        """A job by its number; `NotFound` where there is none."""
        row = self._connection.execute("SELECT * FROM jobs WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise NotFound(f"there is no job {number}")
        return _job(row)

    def listed(self, *states: State) -> list[Job]:
        """Jobs in these states, or all, in the order in which they are claimed."""
        marks = ", ".join("?" * len(states))
        where = f"WHERE state IN ({marks})" if states else ""
        rows = self._connection.execute(f"SELECT * FROM jobs {where} ORDER BY priority DESC, id", states)
        return [_job(row) for row in rows]

    def page(self, first: int, most: int) -> tuple[int, list[tuple[int, State]]]:
        """How many jobs there are, and number and state of up to `most` of them from `first` on, as `listed`."""
        total = int(self._connection.execute("SELECT TOTAL(jobs) FROM counts").fetchone()[0])
        rows = self._connection.execute(
            "SELECT id, state FROM jobs ORDER BY priority DESC, id LIMIT ? OFFSET ?", (most, first)
        )
        return total, [(row["id"], row["state"]) for row in rows]

    def ended(self, most: int) -> list[Job]:
        """The last jobs that have ended, the latest first."""
        rows = self._connection.execute(f"SELECT * {_OF_ENDED} ORDER BY changed DESC, id DESC LIMIT ?", (most,))
        return [_job(row) for row in rows]

    def count(self, *states: State) -> int:
        """How many jobs are in these states; kept as they change, since counting a long queue takes milliseconds."""
        marks = ", ".join("?" * len(states))
        row = self._connection.execute(f"SELECT TOTAL(jobs) FROM counts WHERE state IN ({marks})", states).fetchone()
        return int(row[0])

    def version(self) -> int:
        """The number of changes so far, for `since`."""
        return int(self._connection.execute("SELECT version FROM counter").fetchone()[0])

    def since(self, version: int) -> list[Job]:
        """Jobs that have changed after `version`, oldest change first."""
        rows = self._connection.execute("SELECT * FROM jobs WHERE version > ? ORDER BY version", (version,))
        return [_job(row) for row in rows]

    def claim(self, worker: str, lease: float) -> Job | None:
        """The next queued job, now this worker's for `lease` seconds; None where nothing waits."""
        with self._change() as connection:
            row = connection.execute(
                "SELECT id FROM jobs WHERE state = 'queued' ORDER BY priority DESC, id LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            self._give(connection, row["id"], worker, lease)
        return self.get(row["id"])

    def untried(self, priority: int) -> list[Job]:
        """Queued jobs of a priority under which no worker has died, in the order in which they are claimed."""
        rows = self._connection.execute(f"SELECT * FROM jobs WHERE {_UNTRIED} ORDER BY id", (priority,))
        return [_job(row) for row in rows]

    def join(self, first: Job, numbers: Sequence[int], lease: float) -> list[Job]:
        """Give the worker of a job that it has claimed those of these that are still `untried` at its priority."""
        marks = ", ".join("?" * len(numbers))
        with self._change() as connection:
            rows = connection.execute(
                f"SELECT id FROM jobs WHERE {_UNTRIED} AND id IN ({marks}) ORDER BY id", (first.priority, *numbers)
            ).fetchall()
            for row in rows:
                self._give(connection, row["id"], first.worker, lease)
        return [self.get(row["id"]) for row in rows]

    def _give(self, connection: sqlite3.Connection, number: int, worker: str, lease: float) -> None:
        connection.execute(
            "UPDATE jobs SET state = 'running', wish = '', worker = ?, lease = ?, attempts = attempts + 1,"
            " fraction = 0, stage = '', path = '', digest = '' WHERE id = ?",
            (worker, self._clock() + lease, number),
        )
        self._touch(connection, number)

    def _uncounted(self, connection: sqlite3.Connection, number: int) -> None:
        """A claim that ended by nobody's fault was no attempt."""
        connection.execute("UPDATE jobs SET attempts = attempts - 1 WHERE id = ?", (number,))

    def heartbeat(self, job: Job, lease: float, fraction: float, stage: str) -> None:
        """Keep the lease, and tell how far the job is; that is no change for `since`. Raises `LostLease`.

        One statement, so that the right to write is not held while a busy worker waits for the interpreter's lock
        between two: the daemon would wait with it.
        """
        kept = self._connection.execute(
            "UPDATE jobs SET lease = ?, fraction = ?, stage = ?"
            " WHERE id = ? AND state = 'running' AND worker = ? AND attempts = ?",
            (self._clock() + lease, fraction, stage, job.id, job.worker, job.attempts),
        )
        if not kept.rowcount:
            raise LostLease(f"job {job.id} is no longer {job.worker}'s")

    def wish(self, job: Job) -> str:
        """What a running job is asked to do: "", "cancel" or "pause". Raises `LostLease`; writes nothing."""
        return str(self._own(self._connection, job)["wish"])

    def aim(self, job: Job, path: str, digest: str) -> None:
        """Write down where a stem of which SHA-256 is about to appear: after a crash it is looked for there."""
        with self._change() as connection:
            self._own(connection, job)
            connection.execute("UPDATE jobs SET path = ?, digest = ? WHERE id = ?", (path, digest, job.id))

    def done(self, job: Job, path: str, digest: str = "", notes: Sequence[str] = ()) -> None:
        """The stem is on the disk under its final name."""
        self._end(job, "done", path, digest, notes)

    def failed(self, job: Job, code: str, message: str) -> None:
        """The job cannot be done, and why."""
        self._end(job, "failed", code=code, message=message)

    def released(self, job: Job, tried: bool = False) -> None:
        """The worker gives the job up before it is done; it waits again. An attempt is counted where it was `tried`."""
        with self._change() as connection:
            self._own(connection, job)
            if not tried:
                self._uncounted(connection, job.id)
            self._set(connection, job.id, "queued")

    def stopped(self, job: Job) -> None:
        """The worker has done what it was asked to: cancel or pause."""
        with self._change() as connection:
            paused = self._own(connection, job)["wish"] == "pause"
            if paused:
                self._uncounted(connection, job.id)
            self._set(connection, job.id, "paused" if paused else "cancelled")

    def _end(
        self, job: Job, state: State, path: str = "", digest: str = "", notes: Sequence[str] = (),
        code: str = "", message: str = "",
    ) -> None:  # fmt: skip
        with self._change() as connection:
            own = self._own(connection, job)
            fraction = 1.0 if state == "done" else own["fraction"]
            connection.execute(
                "UPDATE jobs SET path = ?, digest = ?, notes = ?, code = ?, message = ?, fraction = ? WHERE id = ?",
                (path, digest, json.dumps(list(notes)), code, message, fraction, job.id),
            )
            self._set(connection, job.id, state)

    def cancel(self, number: int) -> Job:
        """Cancel: at once while it waits, between two steps while it runs. What has ended stays as it is."""
        return self._wish(number, "cancel", {"queued": "cancelled", "paused": "cancelled"})

    def pause(self, number: int) -> Job:
        """Hold a job until it is resumed; a running one starts anew then."""
        return self._wish(number, "pause", {"queued": "paused"})

    def resume(self, number: int) -> Job:
        """Put a paused job back where it was in the queue."""
        return self._wish(number, "", {"paused": "queued"})

    def _wish(self, number: int, wish: str, at_once: dict[str, State]) -> Job:
        with self._change() as connection:
            job = self.get(number)
            if job.state in at_once:
                self._set(connection, number, at_once[job.state])
            elif job.state == "running" and job.wish != "cancel":
                connection.execute("UPDATE jobs SET wish = ? WHERE id = ?", (wish, number))
                self._touch(connection, number)
        return self.get(number)

    def prioritise(self, number: int, priority: int) -> Job:
        """Of two waiting jobs the one of higher priority is claimed first. What has ended stays as it is."""
        if not -1000 <= priority <= 1000:
            raise BadRequest(f"priority: {priority} is not a whole number from -1000 to 1000")
        with self._change() as connection:
            if self.get(number).state not in ENDED:
                connection.execute("UPDATE jobs SET priority = ? WHERE id = ?", (priority, number))
                self._touch(connection, number)
        return self.get(number)

    def recover(self, finished: Callable[[Job], bool], blame: bool = True) -> list[Job]:
        """Settle running jobs whose lease has run out; returns them as they stand then.

        One whose stem is there is done; a wish is fulfilled; the others go back in the queue, or fail where `blame`
        says that a worker died under them and it was not the first.
        """
        late = "SELECT * FROM jobs WHERE state = 'running' AND lease < ?"
        now = self._clock()
        # Outside of the transaction: looking at a stem takes its time.
        there = {
            (job.id, job.attempts)
            for job in map(_job, self._connection.execute(late, (now,)).fetchall())
            if job.digest and finished(job)
        }
        settled = []
        with self._change() as connection:
            for job in map(_job, connection.execute(late, (now,)).fetchall()):
                if (job.id, job.attempts) in there:
                    connection.execute("UPDATE jobs SET fraction = 1 WHERE id = ?", (job.id,))
                    self._set(connection, job.id, "done")
                elif job.wish:
                    self._set(connection, job.id, "paused" if job.wish == "pause" else "cancelled")
                elif blame and job.attempts >= ATTEMPTS:
                    connection.execute(
                        "UPDATE jobs SET code = 'internal', message = ? WHERE id = ?",
                        (f"the worker died {job.attempts} times under this job", job.id),
                    )
                    self._set(connection, job.id, "failed")
                else:
                    if not blame:
                        self._uncounted(connection, job.id)
                    self._set(connection, job.id, "queued")
                settled.append(job.id)
        return [self.get(number) for number in settled]

    def expire(self, worker: str | None = None) -> None:
        """End the leases of a worker that is known to be dead, or of all."""
        with self._change() as connection:
            connection.execute(
                "UPDATE jobs SET lease = 0 WHERE state = 'running' AND (? IS NULL OR worker = ?)", (worker, worker)
            )

    def prune(self, seconds: float) -> int:
        """Forget jobs that ended so long ago, with their requests; returns how many.

        Of work that is done once for all it is kept that it is done: a watched folder would have all of it done again,
        and what was cancelled there, which no client asked for, is not forgotten either.
        """
        before = self._clock() - seconds
        with self._change() as connection:
            connection.execute(
                f"INSERT OR REPLACE INTO works SELECT once, id, path, changed {_OF_ENDED}"
                " AND changed < ? AND state = 'done' AND once IS NOT NULL",
                (before,),
            )
            kept = "NOT (state = 'cancelled' AND client = '')"
            gone = connection.execute(f"DELETE {_OF_ENDED} AND changed < ? AND {kept}", (before,))
            if gone.rowcount:
                connection.execute("DELETE FROM requests WHERE job NOT IN (SELECT id FROM jobs)")
        return gone.rowcount

    def _own(self, connection: sqlite3.Connection, job: Job) -> sqlite3.Row:
        row: sqlite3.Row | None = connection.execute("SELECT * FROM jobs WHERE id = ?", (job.id,)).fetchone()
        if row is None or (row["state"], row["worker"], row["attempts"]) != ("running", job.worker, job.attempts):
            raise LostLease(f"job {job.id} is no longer {job.worker}'s")
        return row

    def _set(self, connection: sqlite3.Connection, number: int, state: State) -> None:
        # What failed or was cancelled may be asked for again.
        once = ", once = NULL" if state in ("failed", "cancelled") else ""
        connection.execute(
            f"UPDATE jobs SET state = ?, wish = '', worker = '', lease = 0{once} WHERE id = ?",
            (state, number),
        )
        self._touch(connection, number)

    def _touch(self, connection: sqlite3.Connection, number: int) -> None:
        connection.execute("UPDATE counter SET version = version + 1")
        connection.execute(
            "UPDATE jobs SET changed = ?, version = (SELECT version FROM counter) WHERE id = ?", (self._clock(), number)
        )


def _job(row: sqlite3.Row) -> Job:
    values = {name: row[name] for name in _FIELDS}
    return Job(**{**values, "request": json.loads(row["request"]), "notes": tuple(json.loads(row["notes"]))})


def _forgotten(work: sqlite3.Row, request: Mapping[str, Any]) -> Job:
    """A job that is done and pruned: who asked for it, and how it went, is gone."""
    return Job(
        id=work["job"], state="done", wish="", priority=0, request=dict(request), client="", once=work["once"],
        created=work["changed"], changed=work["changed"], attempts=0, worker="", fraction=1.0, stage="",
        path=work["path"], digest="", notes=(), code="", message="", version=0,
    )  # fmt: skip


def is_finished(job: Job) -> bool:
    """Whether the stem that a job was about to publish is there, whole; not where its folder cannot be reached."""
    path = Path(job.path)
    try:
        return bool(job.digest) and path.is_file() and sha256(path) == job.digest
    except OSError as error:
        log.warning("job %d: whether its stem is there cannot be known: %s", job.id, error)
        return False
