"""A batch in words: its plan, how far it is, and what came of it."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import Cancelled
from ..files import in_text
from ..interruption import interruption
from .estimate import Estimate
from .run import Standing, Tell

EVERY_SECONDS = 30.0
"""Between two lines where nobody watches a bar."""


def duration(seconds: float) -> str:
    """As people say it.

    >>> duration(42), duration(600), duration(7500), duration(200_000)
    ('42 s', '10 min', '2 h 5 min', '2 d 7 h')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def size(count: float) -> str:
    """Bytes as people say them.

    >>> size(512), size(3.2e6), size(1.5e10)
    ('1 kB', '3.2 MB', '15.0 GB')
    """
    if count < 1e6:
        return f"{math.ceil(count / 1e3)} kB"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def plan_in_words(standing: Standing, expected: Estimate, styles: int, workers: int) -> str:
    """What is about to be done."""
    there = f", of which {standing.before:,} are there already" if standing.before else ""
    stems = "1 stem" if standing.total == 1 else f"{standing.total:,} stems"
    lines = [f"{stems} in {styles:,} {'style' if styles == 1 else 'styles'}{there}"]
    if expected.stems:
        room = f"{duration(expected.audio)} of sound, {size(expected.bytes)} of stems"
        lines.append(f"{expected.stems:,} to render: {room}; {_time(expected, workers)}")
    return "\n".join(lines)


def _time(expected: Estimate, workers: int) -> str:
    by = f"on {workers} {'worker' if workers == 1 else 'workers'}"
    if expected.work is None:
        return f"how long it takes {by} shows with the first of them"
    return f"about {duration(expected.work / max(1, workers))} {by}"


def plan_in_json(standing: Standing, expected: Estimate, styles: int, workers: int) -> dict[str, Any]:
    """The same for programs; `seconds` is None where nothing is known of the speed."""
    seconds = None if expected.work is None else round(expected.work / max(1, workers), 1)
    return {
        "stems": standing.total, "there": standing.before, "styles": styles, "workers": workers,
        "audio_seconds": round(expected.audio, 1), "bytes": expected.bytes, "seconds": seconds,
    }  # fmt: skip


@contextmanager
def shown_standing() -> Iterator[Tell]:
    """Progress on stderr: a bar for who watches, else a line now and then. Raises `Cancelled` after a Ctrl-C."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    said = time.monotonic()
    columns = (BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=1.0)

        def tell(standing: Standing) -> None:
            nonlocal said
            if interruption.is_set():
                raise Cancelled("cancelled")
            line = _line(standing)
            bar.update(task, total=standing.total, completed=standing.total - standing.left, description=line)
            if not console.is_terminal and time.monotonic() - said > EVERY_SECONDS:
                said = time.monotonic()
                console.print(line, highlight=False)

        yield tell


def _line(standing: Standing) -> str:
    done = standing.total - standing.left
    words = [f"{done:,} of {standing.total:,}"]
    if standing.made:
        rate = standing.rate
        words.append(f"{rate:.1f}/s" if rate >= 0.95 else f"{rate * 60:.1f}/min")
        words.append(f"{duration(standing.left / rate)} left")
    if standing.failures:
        words.append(f"{len(standing.failures):,} failed")
    return " · ".join(words)


def summary(standing: Standing, reports: Path) -> dict[str, Any]:
    """What came of a batch, for programs."""
    return {
        "stems": standing.total, "there": standing.before, "made": standing.made, "failed": len(standing.failures),
        "seconds": round(standing.seconds, 2), "worker_seconds": round(standing.worked, 2),
        "reports": in_text(str(reports)) if reports.exists() else None,
        "failures": [
            {"content": in_text(item.content), "styles": [in_text(path) for path, _ in item.sound.styles],
             "code": failed.code, "message": failed.message}
            for item, failed in standing.failures.values()
        ],
    }  # fmt: skip


def summary_in_words(standing: Standing, reports: Path) -> str:
    """The same as a table."""
    rows = [("made", f"{standing.made:,}")]
    if standing.before:
        rows.append(("there before", f"{standing.before:,}"))
    codes = Counter(failed.code for _, failed in standing.failures.values())
    rows += [("failed", f"{count:,}  {code}") for code, count in codes.most_common()]
    if standing.made:
        rows.append(("took", f"{duration(standing.seconds)}, {standing.rate * 3600:,.0f} stems an hour"))
    if reports.exists():
        rows.append(("reports", in_text(str(reports))))
    return "\n".join(f"{name:<14}{value}" for name, value in rows)
