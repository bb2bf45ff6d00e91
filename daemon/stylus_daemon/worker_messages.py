"""What a worker process is told, and what it tells: nothing here loads the engine's libraries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Plan:
    """What a worker needs to know; it goes to a new process."""

    name: str
    home: Path
    """The daemon's: the queue, the workers' locks, their private copies, the cache of styles."""
    model: str
    device: str
    given_roots: tuple[Path, ...]
    blamed: bool = False
    """The worker before this one died by itself."""
    batch_size: int | None = None
    """Short clips that are rendered together, at most; None decides by the device."""
    workers: int = 1
    """How many take from the queue: one shall not leave the others idle."""
    at_once: bool = True
    """Load the model before there is a job; not where a worker has died of that."""


@dataclass(frozen=True)
class Progress:
    """How far a job is; `eta` in seconds."""

    job: int
    fraction: float
    stage: str
    eta: float | None


@dataclass(frozen=True)
class Condition:
    """What a worker is: loading, idle or rendering, with which model where, and what it keeps of styles."""

    state: str
    model: str
    """That it has, or loading is about to have. Idle after that, it is the one for jobs that name none."""
    device: str
    warm_styles: tuple[str, ...]
    """By `identity`: references that need no inversion with the model's default settings."""
    cached: int
    cache_bytes: int
    inversions: int
    """Styles that had to be inverted since the worker started."""
    device_bytes: int = 0
    """Taken of the memory of a device that has its own."""
    trouble: str = ""
    """Why the model that was chosen last is not there."""


News = Progress | Condition


def identity(reference: Path) -> str:
    """A reference as it is now; another file by the same name is another."""
    try:
        return f"{reference} {reference.stat().st_mtime_ns}"
    except OSError:
        return ""
