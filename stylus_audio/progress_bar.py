"""How far a command is, on the terminal; and that it will take minutes, where it will."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import Cancelled
from .interruption import interruption

SAYS_HOW_LONG = 60.0
"""A render that will take more seconds than this says so."""
KNOWS_AFTER = 3.0
"""Seconds before that is guessed: the first steps of a short one take longer than the others."""


@contextmanager
def shown_progress() -> Iterator[Callable[[float, str], None]]:
    """A progress bar on stderr, and a word beforehand where it will take minutes."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    begun = time.monotonic()
    said = False
    with Progress(
        TextColumn("{task.description:<18}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"),
        TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=1.0)

        def progress(fraction: float, stage: str) -> None:
            nonlocal said, begun
            if interruption.is_set():
                raise Cancelled("cancelled")
            bar.update(task, completed=fraction, description=stage)
            if fraction == 0.0:
                begun = time.monotonic()
            elif not said and fraction > 0.005 and (passed := time.monotonic() - begun) > KNOWS_AFTER:
                said = True
                left = passed * (1 / fraction - 1)
                if left > SAYS_HOW_LONG:
                    minutes = max(1, round(left / 60))
                    console.print(f"this will take about {minutes} minute{'s' * (minutes > 1)}")

        yield progress
