"""Units of work and what comes of them, as they go to another process or machine and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..errors import StylusError
from ..reference import Shared
from ..riff import Loop


@dataclass(frozen=True)
class Pack:
    """Some short clips, or a long one, in one sound: their windows go through the network together.

    Paths are absolute; `settings` are as typed, over the model's own. `shared` says that the clips are sounds of one
    instrument. With `survey` nothing is rendered: what the clips have in common is found. `loops`, where there are
    any, hold every clip's, in place of what its file says.
    """

    number: int
    contents: tuple[str, ...]
    suffixes: tuple[str, ...]
    """Of the stems' names: they say the container."""
    styles: tuple[tuple[str, str], ...]
    """Files, and the names that they go by."""
    settings: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    dtype: str = "auto"
    embed: bool = False
    """Whether the stems carry their reports."""
    shared: Shared | None = None
    survey: bool = False
    loops: tuple[Loop | None, ...] = ()

    @property
    def files(self) -> list[str]:
        """Every file that it reads."""
        return [*self.contents, *(path for path, _ in self.styles)]


@dataclass(frozen=True)
class Made:
    """A finished stem, as the bytes of its file, and its report; `lowered_db` is what kept it from clipping."""

    stem: bytes
    report: dict[str, Any]
    lowered_db: float = 0.0


@dataclass(frozen=True)
class Surveyed:
    """What the clips of a pack have in common."""

    shared: Shared


@dataclass(frozen=True)
class Failed:
    """Why there is no stem, with the codes of `errors`."""

    code: str
    message: str

    @classmethod
    def of(cls, error: StylusError) -> Failed:
        """An error in one line."""
        return cls(error.code, " ".join(str(error).split()))


Outcome = Made | Surveyed | Failed


def failures(pack: Pack, code: str, message: str) -> list[Outcome]:
    """The same failure for each of a pack's clips."""
    return [Failed(code, message) for _ in pack.contents]


@dataclass(frozen=True)
class Place:
    """Where a worker computes: a device, so many threads, and a folder of kept styles."""

    device: str
    threads: int
    cache: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a worker's process needs to be started with: the libraries read it when they are loaded."""
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
        return dict.fromkeys(names, str(self.threads))


@dataclass(frozen=True)
class Done:
    """A pack and what came of each of its clips, in order, with the seconds that it took."""

    pack: Pack
    outcomes: list[Outcome]
    seconds: float


class Crew(Protocol):
    """Whoever renders packs: processes here, or actors of a cluster."""

    @property
    def size(self) -> int:
        """How many of them work at once."""
        ...

    def work(self, packs: Iterable[Pack]) -> Iterator[Done]:
        """Every pack once, as they get done, in any order; those in one sound follow one another."""
        ...

    def __enter__(self) -> Crew: ...

    def __exit__(self, *_: object) -> None: ...
