"""How far a render is, and how long its parts took."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[float, str], None]
"""Called with the fraction done and the stage; raising in it (`Cancelled`) ends the render."""


def part(progress: Progress | None, first: float, last: float, stage: str = "{}") -> Progress | None:
    """The progress of a part, which runs from `first` to `last` of the whole; `stage` has `{}` for the part's own."""
    if progress is None:
        return None
    return lambda fraction, own: progress(first + fraction * (last - first), stage.format(own))


_PASSES = 0.95
"""The share of a render that its passes count for."""


class Watch:
    """Turns passes of the UNet into progress, and stages into timings."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._passes = 1
        self._done = 0
        self._stage = ""
        self._since = time.perf_counter()
        self._timings: dict[str, float] = {}

    def expect(self, passes: int) -> None:
        """So many passes are all of the work."""
        self._passes = max(1, passes)

    def stage(self, name: str, fraction: float | None = None) -> None:
        """A stage begins; `fraction` where it is not what the passes say."""
        now = time.perf_counter()
        if self._stage:
            self._timings[self._stage] = self._timings.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = name, now
        self._say(self._fraction() if fraction is None else fraction)

    def tick(self) -> None:
        """A pass is done."""
        self._done += 1
        self._say(self._fraction())

    def nearly(self, fraction: float) -> None:
        """How far what comes behind the passes is."""
        self._say(_PASSES + (1 - _PASSES) * 0.9 * fraction)

    def timings(self) -> dict[str, float]:
        """Seconds of each stage that has ended, by its name."""
        return {name: round(seconds, 3) for name, seconds in self._timings.items()}

    def _fraction(self) -> float:
        # The passes are nearly all of the work; the rest is reading before and sound after.
        return _PASSES * min(1.0, self._done / self._passes)

    def _say(self, fraction: float) -> None:
        if self._progress:
            self._progress(fraction, self._stage)
