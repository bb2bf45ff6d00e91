"""When to look at watched folders: as soon as the system tells of a change, and from time to time anyway."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .watcher import RESCAN, Watcher

log = logging.getLogger(__name__)


class _Deaf(Exception):
    """The system tells nothing of changes."""


def run(watchers: Sequence[Watcher], stop: threading.Event) -> None:
    """Scan all folders until `stop` is set, in the thread that made the watchers' `Jobs`.

    One folder with `polling` on is enough to poll all of them, as is a system that cannot tell of changes.
    """
    asked = {watcher.watch.polling for watcher in watchers}
    polling = True if True in asked else None if None in asked else False
    while not stop.is_set():
        due = _scan(watchers)
        places = _places(watchers)
        if not places:
            stop.wait(max(0.0, due - time.monotonic()))
            continue
        try:
            # Nothing tells of a change between that scan and the first event.
            due = time.monotonic()
            for changed in _changes(list(places), polling, stop):
                if changed or time.monotonic() >= due:
                    due = _scan(watchers)
                    if _places(watchers) != places:
                        break
        except _Deaf as error:
            if polling is not True and _places(watchers) == places:
                log.warning("the system tells nothing of changes (%s); folders are polled", error)
                polling = True
            stop.wait(1)


def _scan(watchers: Sequence[Watcher]) -> float:
    """Scan all; returns when, by the monotonic clock, it is time again."""
    waits = [_scanned(watcher) for watcher in watchers]
    return time.monotonic() + min([RESCAN, *waits])


def _scanned(watcher: Watcher) -> float:
    try:
        return watcher.scan()
    except Exception:  # a fault of ours in one folder must not end the watching of all
        log.exception("watching %r", str(watcher.watch.root))
        return RESCAN


def _places(watchers: Sequence[Watcher]) -> dict[Path, tuple[int, int]]:
    """The folders that are there, and which they are: events of a folder end where another takes its name."""
    places = {}
    for watcher in watchers:
        try:
            about = watcher.watch.root.stat()
        except OSError:
            continue
        places[watcher.watch.root] = (about.st_dev, about.st_ino)
    return places


def _changes(roots: Sequence[Path], polling: bool | None, stop: threading.Event) -> Iterator[bool]:
    """Whether something has changed, about twice a second, until `stop`. Raises `_Deaf`."""
    from watchfiles import watch

    try:
        for changes in watch(
            *roots, watch_filter=None, debounce=1000, rust_timeout=500, yield_on_timeout=True, stop_event=stop,
            force_polling=polling, poll_delay_ms=2000, ignore_permission_denied=True,
        ):  # fmt: skip
            yield bool(changes)
    except (OSError, RuntimeError) as error:
        raise _Deaf(str(error)) from error
