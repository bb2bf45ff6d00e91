"""Who hears of what: clients by lease, and the owner of each job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from .jobs import ENDED, Job, Jobs
from .osc_messages import Argument, Peer, cut
from .worker_messages import Progress

SAID = 1_000
"""Bytes of an error's message, of the 4,000 of a packet."""

MOST = 64
"""Clients that may be registered at a time; the one whose lease ends first makes room."""

Event = tuple[Peer, str, tuple[Argument, ...]]


def to_text(peer: Peer) -> str:
    """A peer as a job keeps its owner."""
    return f"{peer.transport} {peer.host} {peer.port}"


def from_text(text: str) -> Peer | None:
    """The owner of a job, who is told of it; None where there is none, or it is the page, which looks for itself."""
    transport, _, place = text.partition(" ")
    host, _, port = place.rpartition(" ")
    if not host or transport == "http":
        return None
    return Peer("tcp" if transport == "tcp" else "udp", host, int(port))


class Listeners:
    """Registered clients: where each is to be reached, and until when. For several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._leases: dict[Peer, tuple[Peer, float]] = {}
        self._lock = threading.Lock()

    def add(self, peer: Peer, target: Peer, seconds: float) -> None:
        """Lease events to `target` for the client at `peer`."""
        with self._lock:
            self._leases[peer] = (target, self._clock() + seconds)
            if len(self._leases) > MOST:
                del self._leases[min(self._leases, key=lambda one: self._leases[one][1])]

    def remove(self, peer: Peer) -> None:
        """End a client's lease; by whichever of its ports it is known."""
        with self._lock:
            for one in [one for one, (target, _) in self._leases.items() if peer in (one, target)]:
                del self._leases[one]

    def home(self, peer: Peer) -> Peer:
        """Where a client wants its answers."""
        return self._current().get(peer, peer)

    def targets(self) -> set[Peer]:
        """Where all events go."""
        return set(self._current().values())

    def _current(self) -> dict[Peer, Peer]:
        with self._lock:
            now = self._clock()
            self._leases = {peer: lease for peer, lease in self._leases.items() if lease[1] > now}
            return {peer: target for peer, (target, _) in self._leases.items()}


class Events:
    """Turns changes in the queue and words of the workers into messages."""

    def __init__(self, jobs: Jobs, listeners: Listeners) -> None:
        self._jobs, self._listeners = jobs, listeners
        self._version = jobs.version()
        self._known: dict[int, str] = {job.id: job.state for job in jobs.listed("queued", "running", "paused")}
        self._owners: dict[int, str] = {job.id: job.client for job in jobs.listed("running")}

    def of_changes(self) -> Iterator[Event]:
        """What has happened since the last call."""
        if self._jobs.version() == self._version:
            return
        for job in self._jobs.since(self._version):
            self._version = max(self._version, job.version)
            if self._known.get(job.id) == job.state:
                continue
            self._known[job.id] = job.state
            self._owners[job.id] = job.client
            if job.state in ENDED:
                del self._known[job.id], self._owners[job.id]
            for peer in self._hearing(job.client):
                yield peer, "/stylus/job/state", (job.id, job.state)
                yield from ((peer, address, arguments) for address, arguments in _outcome(job))

    def of_progress(self, news: Iterable[Progress]) -> Iterator[Event]:
        """How far jobs are; of several words on one the last counts."""
        for word in {word.job: word for word in news}.values():
            for peer in self._hearing(self._owners.get(word.job, "")):
                eta = -1.0 if word.eta is None else float(word.eta)
                yield peer, "/stylus/job/progress", (word.job, float(word.fraction), word.stage, eta)

    def _hearing(self, owner: str) -> set[Peer]:
        own = from_text(owner)
        return self._listeners.targets() | ({own} if own else set())


def _outcome(job: Job) -> list[tuple[str, tuple[Argument, ...]]]:
    if job.state == "done" and job.path:
        return [("/stylus/job/result", (job.id, 0, job.path))]
    if job.state == "failed":
        return [("/stylus/job/error", (job.id, job.code, cut(job.message, SAID)))]
    return []
