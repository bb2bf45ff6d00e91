"""A row of the table, and how two ways of doing the same are timed."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import psutil
import torch


@dataclass(frozen=True)
class Row:
    """One comparison.

    `ratio` is how many times as much the first takes as the second, or what `name` says; `difference` how far their
    outputs are apart (the largest difference over the largest value), None where there is nothing to compare.
    `peak_bytes` is the process's or the device's memory at its highest in the second. `limit` is what `ratio` should
    be at least, or with a negative sign at most. A row that cannot be measured here has a `missing`, and no ratio.
    """

    name: str
    ratio: float | None = None
    difference: float | None = None
    peak_bytes: int | None = None
    limit: float | None = None
    seconds: tuple[float, ...] = ()
    missing: str = ""
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """Whether the limit is kept, in a word."""
        if self.limit is None or self.ratio is None:
            return ""
        kept = self.ratio >= self.limit if self.limit > 0 else self.ratio <= -self.limit
        return "kept" if kept else "MISSED"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name, "ratio": self.ratio, "difference": self.difference, "peak_bytes": self.peak_bytes,
            "limit": self.limit, "verdict": self.verdict, "seconds": list(self.seconds), "missing": self.missing,
            **self.notes,
        }  # fmt: skip


def printed(rows: Sequence[Row]) -> str:
    """The table, for people."""
    lines = [f"{'':66}{'ratio':>9}{'limit':>9}{'':>8}{'difference':>12}{'peak MiB':>10}  seconds"]
    for row in rows:
        if row.missing:
            lines.append(f"{row.name:66}  not here: {row.missing}")
            continue
        limit = "" if row.limit is None else f"{'≥' if row.limit > 0 else '≤'} {abs(row.limit):g}"
        apart = "" if row.difference is None else f"{row.difference:.1e}"
        peak = "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f}"
        seconds = " ".join(f"{one:.3g}" for one in row.seconds)
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        lines.append(f"{row.name:66}{ratio:>9}{limit:>9}{row.verdict:>8}{apart:>12}{peak:>10}  {seconds}")
    return "\n".join(lines)


def side_by_side(ways: Sequence[Callable[[], Any]], rounds: int) -> tuple[list[Any], list[float], list[int]]:
    """Each way's result, its median seconds and its peak of memory; in turns, so that all meet the same machine.

    The first turn of each, which loads, compiles and finds the device's memory, does not count; on a CPU, where it may
    take minutes, it does if it is the only one.
    """
    results: list[Any] = [None] * len(ways)
    seconds: list[list[float]] = [[] for _ in ways]
    peaks = [0] * len(ways)
    for _ in range(rounds + (rounds > 1 or torch.cuda.is_available())):
        for number, way in enumerate(ways):
            results[number] = None
            gc.collect()
            with Peak() as peak:
                begun = time.perf_counter()
                results[number] = way()
                settle()
                seconds[number].append(time.perf_counter() - begun)
            peaks[number] = max(peaks[number], peak.bytes)
    return results, [median(one[1:] or one) for one in seconds], peaks


def settle() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Peak:
    """Memory at its highest within the block: of the CUDA device where there is one, else of this process."""

    def __enter__(self) -> Peak:
        self.bytes = 0
        self._ended = threading.Event()
        self._cuda = torch.cuda.is_available()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._cuda:
            self.bytes = torch.cuda.max_memory_allocated()
        else:
            self._ended.set()
            self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.bytes = max(self.bytes, process.memory_info().rss)
            if self._ended.wait(0.02):
                return


def apart(one: Any, other: Any) -> float:
    """The largest difference over the largest value of the first."""
    first, second = (torch.as_tensor(tensor).double().cpu() for tensor in (one, other))
    return float((first - second).abs().max() / first.abs().max())
