"""Log lines: one form for daemon and workers, and never a flood."""

from __future__ import annotations

import logging
import time

MOST = 20
"""Lines of one kind in `SPAN` seconds; what is over that is counted."""
SPAN = 60.0


class Limit(logging.Filter):
    """Lets so many lines of one kind pass in a span of time, and says how many it has left out."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Lines are of one kind by their text before anything is put into it."""
        now = time.monotonic()
        kind = str(record.msg)
        since, count = self._seen.get(kind, (now, 0))
        if now - since > SPAN:
            if count > MOST:
                record.msg = f"{kind} (and {count - MOST} more like it)"
            since, count = now, 0
        self._seen[kind] = (since, count + 1)
        return count < MOST


def to_stderr() -> None:
    """Log to stderr, as a service manager expects: time, level, where, what."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    handler.addFilter(Limit())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("stylus_daemon").setLevel(logging.INFO)
