"""What the page is told as it happens: jobs, how far they are, and what the daemon is, as server-sent events.

A browser that comes back, after a reload or a new start of the daemon, gets the whole picture first.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil

from .jobs import Job, Jobs
from .request import RenderJob
from .worker_messages import Condition, Progress

LOOK = 0.1
"""Seconds between two looks at the queue."""
GAUGES = 2.0
"""Seconds between two readings of memory and cache."""
UNREAD = 10_000
"""Events that wait for a page at most, some MB."""
REMEMBERED = 200
"""Jobs that have ended and are listed at first."""


def shown(job: Job, now: Progress | None) -> dict[str, Any]:
    """A job as the page shows it."""
    request = RenderJob.from_dict(job.request)
    running = job.state == "running"
    return {
        "id": job.id,
        "kind": request.kind,
        "state": job.state,
        "wish": job.wish if running else "",
        "priority": job.priority,
        "content": request.content,
        "name": Path(request.content).name,
        "styles": [name for _, name in request.styles][:8],
        "fraction": now.fraction if now and running else job.fraction if running else float(job.state == "done"),
        "stage": now.stage if now and running else job.stage if running else "",
        "eta": now.eta if now and running else None,
        "path": job.path if job.state == "done" else "",
        "error": f"{job.code}: {job.message}" if job.code and job.state == "failed" else "",
        "notes": list(job.notes),
        "created": job.created,
        "changed": job.changed,
    }


class Feed:
    """Looks at the queue while somebody listens, and tells everybody the same."""

    def __init__(
        self,
        jobs: Callable[[], Jobs],
        progress: Callable[[], Mapping[int, Progress]],
        conditions: Callable[[], Sequence[Condition]],
        processes: Callable[[], Sequence[int]],
    ) -> None:
        self._open, self._progress, self._conditions, self._processes = jobs, progress, conditions, processes
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def events(self) -> AsyncIterator[str]:
        """The stream of one page, in the form of `text/event-stream`, until it goes or the daemon ends.

        One that does not read ends, too: its page comes back and gets the whole picture.
        """
        mail: asyncio.Queue[str | None] = asyncio.Queue(UNREAD)
        # Before the whole picture is taken, so that nothing falls between it and the first news.
        self._listeners.add(mail)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch(self._version()))
        try:
            yield _event("all", self._all())
            while not self._closed:
                try:
                    said = await asyncio.wait_for(mail.get(), 15)
                except TimeoutError:
                    said = ": still here\n\n"
                if said is None:
                    return
                yield said
        finally:
            self._listeners.discard(mail)

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        self._tell(None)

    def _tell(self, event: str | None) -> None:
        for mail in list(self._listeners):
            if not mail.full():
                mail.put_nowait(event)
                continue
            # All at once and for good: an event left out would leave its page with a wrong picture.
            self._listeners.discard(mail)
            while not mail.empty():
                mail.get_nowait()
            mail.put_nowait(None)

    def _version(self) -> int:
        with closing(self._open()) as jobs:
            return jobs.version()

    def _all(self) -> dict[str, Any]:
        with closing(self._open()) as jobs:
            listed, ended = jobs.listed("queued", "running", "paused"), jobs.ended(REMEMBERED)
        now = self._progress()
        return {"jobs": [shown(job, now.get(job.id)) for job in [*listed, *ended]], "daemon": self._gauges()}

    def _gauges(self) -> dict[str, Any]:
        conditions = list(self._conditions())
        resident = 0
        for process in self._processes():
            with suppress(psutil.Error):
                resident += psutil.Process(process).memory_info().rss
        memory = psutil.virtual_memory()
        return {
            "state": next((one.state for one in conditions if one.state != "idle"), "idle"),
            "device": ", ".join(one.device for one in conditions),
            "model": conditions[0].model,
            "trouble": next((one.trouble for one in conditions if one.trouble), ""),
            "warm": sorted({style for one in conditions for style in one.warm_styles}),
            "cached_styles": max(one.cached for one in conditions),
            "cache_bytes": max(one.cache_bytes for one in conditions),
            "device_bytes": sum(one.device_bytes for one in conditions),
            "resident_bytes": resident,
            "memory_bytes": memory.total,
            "memory_used_bytes": memory.total - memory.available,
        }

    async def _watch(self, version: int) -> None:
        """Tell what has changed since `version`, while somebody listens."""
        with closing(self._open()) as jobs:
            told, gauges, due = dict(self._progress()), self._gauges(), 0.0
            while self._listeners and not self._closed:
                await asyncio.sleep(LOOK)
                now = dict(self._progress())
                if jobs.version() != version:
                    changed = jobs.since(version)
                    version = max([version, *(job.version for job in changed)])
                    for job in changed:
                        self._tell(_event("job", shown(job, now.get(job.id))))
                for number, word in now.items():
                    if told.get(number) != word:
                        self._tell(_event("progress", vars(word)))
                told = now
                due -= LOOK
                if due <= 0:
                    due, before = GAUGES, gauges
                    gauges = self._gauges()
                    if gauges != before:
                        self._tell(_event("daemon", gauges))


def _event(kind: str, values: Mapping[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(dict(values), ensure_ascii=False)}\n\n"
