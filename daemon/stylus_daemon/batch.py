"""Jobs that a worker has at the same time, from their claim until each of them has ended."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from stylus_audio.errors import Cancelled, StylusError

from .jobs import Job, Jobs, LostLease
from .worker_messages import News, Progress

log = logging.getLogger(__name__)

LEASE = 30.0
"""Seconds that a job stays a worker's without a heartbeat."""
SAYS = 0.1
"""Seconds between two words on how far the jobs are."""

Tell = Callable[[News], None]


class Leaving(Exception):
    """The daemon is gone or wants the worker to end; its jobs go back in the queue."""


class Batch:
    """Claimed jobs that are done together, or one by itself.

    Each has an end of its own: done, failed, stopped as it was asked to, or gone to another worker. `left` are those
    that have not ended, in the order of the queue.
    """

    def __init__(
        self, claimed: Sequence[Job], jobs: Jobs, database: Path, tell: Tell, leaving: Callable[[], bool]
    ) -> None:
        self.left = tuple(claimed)
        self._alone = len(claimed) == 1
        self._jobs, self._database, self._tell, self._leaving = jobs, database, tell, leaving
        self._now = (0.0, "")
        self._said = -SAYS
        self._begun: float | None = None

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Keep the leases within; behind it every job has ended or is back in the queue.

        An exception is the end of a job that is alone. Of several it may be the fault of one, or of their number: each
        is tried again by itself. The queue's own, `sqlite3.Error`, is raised: it is no job's fault, and those that have
        not ended stay this worker's until `Jobs.recover`.
        """
        with self._leased():
            try:
                yield
            except Leaving:
                for job in self.left:
                    log.info("job %d goes back in the queue", job.id)
                    self._end(job, self._jobs.released)
            except sqlite3.Error:
                raise
            except Exception as error:
                for job in self.left:
                    if self._alone:
                        self._fail(job, error)
                    else:
                        log.warning("job %d is tried again alone, after: %s", job.id, error)
                        self._end(job, lambda one: self._jobs.released(one, tried=True))

    @contextmanager
    def fate_of(self, job: Job) -> Iterator[None]:
        """What goes wrong within is this job's failure alone, but for what is the queue's."""
        try:
            yield
        except LostLease as lost:
            self._lose(job, lost)
        except sqlite3.Error:
            raise
        except Exception as error:
            self._fail(job, error)

    def progress(self, fraction: float, stage: str) -> None:
        """Tell how far all of them are, and stop those that are asked to.

        Raises `Leaving`, and `Cancelled` where none is left.
        """
        now = time.monotonic()
        if self._leaving():
            raise Leaving
        if now - self._said < SAYS and fraction not in (0.0, 1.0):
            return
        self._said = now
        for job in self.left:
            self._heed(job)
        if not self.left:
            raise Cancelled("cancelled")
        if fraction > 0 and self._begun is None:
            self._begun = now
        spent = 0.0 if self._begun is None else now - self._begun
        eta = spent * (1 / fraction - 1) if spent and fraction else None
        self._now = fraction, stage
        for job in self.left:
            self._tell(Progress(job.id, fraction, stage, eta))

    def wants(self, job: Job) -> bool:
        """Whether a job is still to be done; raises `Leaving`."""
        if self._leaving():
            raise Leaving
        if job in self.left:
            self._heed(job)
        return job in self.left

    def done(self, job: Job, path: str = "", digest: str = "", notes: Sequence[str] = ()) -> None:
        """A job is done, and its stem, where it makes one, is on the disk."""
        log.info("job %d is done: %r", job.id, path)
        self._end(job, lambda one: self._jobs.done(one, path, digest, notes))

    def _heed(self, job: Job) -> None:
        try:
            wish = self._jobs.wish(job)
        except LostLease as lost:
            self._lose(job, lost)
            return
        if wish:
            log.info("job %d stops, as it was asked to", job.id)
            self._end(job, self._jobs.stopped)

    def _fail(self, job: Job, error: Exception) -> None:
        if isinstance(error, StylusError):
            code, message = error.code, str(error)
        else:
            log.error("job %d: a fault of ours", job.id, exc_info=error)
            code, message = "internal", f"{type(error).__name__}: {error}"
        said = " ".join(message.split())
        log.warning("job %d failed: %s: %s", job.id, code, said)
        self._end(job, lambda one: self._jobs.failed(one, code, said))

    def _end(self, job: Job, end: Callable[[Job], None]) -> None:
        try:
            end(job)
        except LostLease as lost:
            self._lose(job, lost)
        self._drop(job)

    def _lose(self, job: Job, lost: LostLease) -> None:
        log.warning("%s", lost)
        self._drop(job)

    def _drop(self, job: Job) -> None:
        self.left = tuple(one for one in self.left if one.id != job.id)

    @contextmanager
    def _leased(self) -> Iterator[None]:
        """Leases are kept from a thread of its own, so that one long pass of the network does not lose them."""
        ended = threading.Event()

        def keep() -> None:
            jobs = Jobs(self._database, durable=False)
            try:
                while not ended.wait(LEASE / 10):
                    for job in self.left:
                        # Who lost one, has just ended it, or cannot write meets the same at its next step.
                        with suppress(LostLease, sqlite3.Error):
                            jobs.heartbeat(job, LEASE, *self._now)
            finally:
                jobs.close()

        thread = threading.Thread(target=keep, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
