"""What a worker does on a node of a cluster: it lays the files that it is sent, renders, and counts its deaths."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from ..errors import DiskFull, Internal, NotFound
from ..files import means_full, remove_old_folders
from .packs import Failed, Outcome, Pack, Place, failures

TRIES = 3
"""How often a pack may end its worker, or its node, before it counts as failed."""

_PREFIX = "stylus-batch-"
_OLD = 7 * 24 * 3600.0
"""Seconds after which a run's files on a node are nobody's: its planning machine was lost before it could say so."""

_PACKAGE = Path(__file__).parents[1]
_LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "scipy", "soxr", "pedalboard")


class Renders(Protocol):
    """What a worker renders with."""

    def render(self, pack: Pack, origins: Mapping[str, str]) -> list[Outcome]:
        """One outcome for each content, in order; `origins` says which path a path that is read is a copy of."""


MakeRenderer = Callable[[Place], Renders]


def make_renderer(place: Place) -> Renders:
    """What renders for real; only a worker loads PyTorch."""
    from .renderer import Renderer

    return Renderer(place)


@dataclass(frozen=True)
class Node:
    """A machine of the cluster as a worker on it sees it."""

    name: str
    authenticated: bool
    versions: dict[str, str]


def this_node() -> Node:
    """The machine that runs this: its name, whether Ray asks for a token, the versions that a stem depends on."""
    return Node(platform.node(), os.environ.get("RAY_AUTH_MODE", "").lower() == "token", versions())


@cache
def versions() -> dict[str, str]:
    """Everything by which the same render could differ on another machine of the same kind."""
    # The machine that plans needs no build of PyTorch for GPUs ("+cu126").
    libraries = {name: version(name).partition("+")[0] for name in _LIBRARIES}
    return {"stylus-audio": f"{version('stylus-audio')} ({_digest()[:12]})", **libraries}


def folder_of(run: str) -> Path:
    """Where the workers of a run lay their files on this node."""
    return Path(tempfile.gettempdir()) / f"{_PREFIX}{run}"


def clear(run: str) -> None:
    """Remove what the workers of a run have left on this node."""
    shutil.rmtree(folder_of(run), ignore_errors=True)


class Worker:
    """One process of a node, for one GPU or one CPU; `name` stays the same when it is started again after its death."""

    def __init__(self, make: MakeRenderer, place: Place, run: str, name: str) -> None:
        remove_old_folders(Path(tempfile.gettempdir()), _OLD, f"{_PREFIX}*")
        self._folder = folder_of(run) / name
        self._renderer = make(place)

    def ready(self) -> Node:
        """Answers as soon as the worker has started."""
        return this_node()

    def render(self, pack: Pack, shared: bool, *data: bytes | None) -> tuple[int, list[Outcome], float]:
        """The pack's number, an outcome for each of its contents, and the seconds that they took.

        `data` has the bytes of each of the pack's files (nothing for one that cannot be read where the batch was
        planned), unless they are `shared` and opened where they are.
        """
        begun = time.monotonic()
        try:
            self._folder.parent.mkdir(mode=0o700, exist_ok=True)
            self._folder.mkdir(exist_ok=True)
            os.utime(self._folder.parent)
            tries = self._folder / f"{pack.number}.tries"
            if _count(tries) > TRIES:
                tries.unlink()
                died = f"its worker died {TRIES} times while rendering it"
                return pack.number, failures(pack, Internal.code, died), 0.0
            outcomes = self._shared(pack) if shared else self._sent(pack, data)
            tries.unlink()
        except Exception as error:
            code = DiskFull.code if isinstance(error, OSError) and means_full(error) else Internal.code
            outcomes = failures(pack, code, f"{type(error).__name__} on node {platform.node()}: {last_line(error)}")
        return pack.number, outcomes, time.monotonic() - begun

    def _shared(self, pack: Pack) -> list[Outcome]:
        return [
            replace(outcome, message=f"{outcome.message} (on node {platform.node()}; --inputs store sends files there)")
            if isinstance(outcome, Failed) and outcome.code == NotFound.code
            else outcome
            for outcome in self._renderer.render(pack, {})
        ]

    def _sent(self, pack: Pack, data: Sequence[bytes | None]) -> list[Outcome]:
        contents, styles = data[: len(pack.contents)], data[len(pack.contents) :]
        own = self._folder / str(pack.number)
        # One of that number, during which the worker died, had other clips.
        shutil.rmtree(own, ignore_errors=True)
        try:
            laid = replace(
                pack,
                contents=tuple(
                    _lay(own / str(index), path, bytes_)
                    for index, (path, bytes_) in enumerate(zip(pack.contents, contents, strict=True))
                ),
                styles=tuple(
                    (_lay(self._folder / "styles" / _short(path), path, bytes_), name)
                    for (path, name), bytes_ in zip(pack.styles, styles, strict=True)
                ),
            )
            origins = dict(zip(laid.files, pack.files, strict=True))
            return [_of_origins(outcome, origins) for outcome in self._renderer.render(laid, origins)]
        finally:
            shutil.rmtree(own, ignore_errors=True)


def last_line(error: BaseException) -> str:
    """The last line of what an error says, which is where Ray has the cause."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _count(tries: Path) -> int:
    """How often this was called for the file, over the deaths of the process too."""
    with tries.open("ab") as file:
        file.write(b".")
    return tries.stat().st_size


def _lay(folder: Path, path: str, data: bytes | None) -> str:
    """A copy of a file under its own name, unless it lies there already; without data only its name."""
    copy = folder / Path(path).name
    if data is not None and not copy.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / ".part"
        part.write_bytes(data)
        part.replace(copy)
    return str(copy)


def _of_origins(outcome: Outcome, origins: Mapping[str, str]) -> Outcome:
    if isinstance(outcome, Failed):
        for copy, origin in origins.items():
            outcome = replace(outcome, message=outcome.message.replace(copy, origin))
    return outcome


def _short(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:16]


def _digest() -> str:
    """Of our code and of the models that come with it: two checkouts of one version may differ."""
    digest = hashlib.sha256()
    for path in sorted([*_PACKAGE.rglob("*.py"), *(_PACKAGE / "assets").rglob("*")]):
        if path.is_file():
            digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
