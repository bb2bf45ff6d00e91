"""Runs a batch: what is not there yet goes to a crew, and what comes back to the disk, once, whatever happens.

This process alone writes stems and the ledger; workers only answer. So whatever dies, and however often a pack is
rendered, the first answer counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..errors import BadRequest, DiskFull, NotAllowed, StylusError
from ..files import can_write, file_id, writable_folder
from ..stem import longest_name, publish_stem
from .ledger import Ledger, Stem
from .packs import Crew, Done, Failed, Made, Pack
from .plan import Item, alone, as_pack
from .sources import Sources

RETRIED = ("internal", "out-of-memory")
"""Failures that may go away when a clip is rendered alone."""

NAME_BYTES = 255
"""That file systems take for a name; some count letters, so that more may fit."""


@dataclass
class Standing:
    """How far a run is: stems wanted, there before it, made and failed by it."""

    total: int
    before: int = 0
    made: int = 0
    failures: dict[str, tuple[Item, Failed]] = field(default_factory=dict)
    """By the items' keys."""
    barred: int = 0
    """Failures that were known before the work."""
    begun: float = field(default_factory=time.monotonic)
    worked: float = 0.0
    """Seconds of all workers together."""

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.begun

    @property
    def left(self) -> int:
        """Stems that nothing has come of yet."""
        return self.total - self.before - self.made - len(self.failures)

    @property
    def rate(self) -> float:
        """Stems a second; 0 at first."""
        return (self.made + len(self.failures) - self.barred) / max(self.seconds, 1e-9)


Tell = Callable[[Standing], None]
"""Called whenever a pack is done; raising in it ends the run."""


class Batch:
    """The items of one run, in packs, and which of them have no stem yet."""

    def __init__(
        self, packs: Sequence[Sequence[Item]], ledger: Ledger, sources: Sources, kept: Sequence[Item] = ()
    ) -> None:
        """`kept` are items of others, whose clips and styles no stem replaces either."""
        self.packs, self.ledger, self._sources, self._others = packs, ledger, sources, kept
        self.stamps = {item.key: sources.stamp(item) for pack in packs for item in pack}
        stems = ledger.stems()
        self.open = {item.key: item for pack in packs for item in pack if not self._is_there(item, stems.get(item.key))}
        self.standing = Standing(len(self.stamps), len(self.stamps) - len(self.open))
        # Not in the ledger, as nothing was tried: they are rendered in their packs once they can be written.
        self.standing.failures = _barred(self.open.values())
        self.standing.barred = len(self.standing.failures)
        for key in self.standing.failures:
            del self.open[key]

    def run(
        self, crew: Crew, tell: Tell = lambda standing: None, dress: Callable[[Pack], Pack] = lambda pack: pack
    ) -> None:
        """Render what is open; failures that may be the company's are tried again alone.

        `dress` gives a pack what all have in common. Raises `DiskFull` where there is no room for a stem, and what
        `tell` and the crew raise; what is done then is done.
        """
        self.standing.begun = time.monotonic()
        self.ledger.sweep({Path(item.output).parent for item in self.open.values()})
        failed = self.ledger.failures()
        fresh = {key for key in self.open if key not in failed}
        # Whole, though a part may be done: the same windows in the same company come out the same.
        packs: list[Sequence[Item]] = [pack for pack in self.packs if any(item.key in fresh for item in pack)]
        met = {item.key for pack in packs for item in pack}
        packs += alone(item for key, item in self.open.items() if key not in met)
        self._through(packs, crew, tell, dress)
        again = [item for item, failed in self.standing.failures.values() if failed.code in RETRIED]
        for item in again:
            del self.standing.failures[item.key]
            self.open[item.key] = item
        if again:
            self._through(alone(again), crew, tell, dress)

    def _through(self, packs: Sequence[Sequence[Item]], crew: Crew, tell: Tell, dress: Callable[[Pack], Pack]) -> None:
        work = [dress(as_pack(number, pack)) for number, pack in enumerate(packs)]
        tell(self.standing)
        for done in crew.work(work):
            self._take(packs[done.pack.number], done)
            tell(self.standing)

    def _take(self, items: Sequence[Item], done: Done) -> None:
        self.standing.worked += done.seconds
        published: list[str] = []
        try:
            for item, outcome in zip(items, done.outcomes, strict=True):
                if item.key not in self.open:
                    continue
                if isinstance(outcome, Made):
                    outcome = self._published(item, outcome, done.seconds / len(items))  # noqa: PLW2901
                if isinstance(outcome, Failed):
                    self.ledger.failed(item.key, item.content, outcome)
                    self.standing.failures[item.key] = (item, outcome)
                else:
                    published.append(item.key)
                del self.open[item.key]
        finally:
            # After a crash before it the next run finds them, as they were aimed at.
            self.ledger.done(published)

    def _published(self, item: Item, made: Made, seconds: float) -> Made | Failed:
        target = Path(item.output)
        overwrite = item.sound.options.overwrite
        journal = self.ledger.journal(
            item.key, item.content, self.stamps[item.key], seconds, made.lowered_db, made.report
        )
        try:
            writable_folder(target.parent)
            if overwrite and file_id(target) in self._kept:
                raise NotAllowed(f"{target.name} is a clip or a style of this batch; a stem never replaces it")
            publish_stem(made.stem, target, overwrite=overwrite, journal=journal)
        except DiskFull:
            # The next stem would meet the same.
            raise
        except StylusError as error:
            return Failed.of(error)
        self.standing.made += 1
        return made

    @cached_property
    def _kept(self) -> set[tuple[int, int]]:
        """Every clip and style, not only those of the stem itself, as files: by whatever name they go."""
        items = [*self._others, *(item for pack in self.packs for item in pack)]
        paths = {item.content for item in items} | {path for item in items for path, _ in item.sound.styles}
        return {found for path in paths if (found := file_id(Path(path)))}

    def _is_there(self, item: Item, stem: Stem | None) -> bool:
        """Whether a stem of these very sources lies where it was put."""
        if stem is None or not _has_size(Path(stem.path), stem.bytes):
            return False
        stamp = self.stamps[item.key]
        if stem.stamp == stamp:
            return True
        if not stamp or not self._sources.same(item, stem.stamp, self.ledger.report(item.key)):
            return False
        self.ledger.restamp(item.key, stamp)
        return True


def _barred(items: Iterable[Item]) -> dict[str, tuple[Item, Failed]]:
    """Items whose stems cannot be written, as far as that shows before they are rendered, and why."""
    barred = {}
    folders: dict[str, tuple[Path, bool]] = {}
    for item in items:
        folder, name = os.path.split(item.output)
        if folder not in folders:
            there = next(filter(os.path.lexists, (Path(folder), *Path(folder).parents)), Path(folder))
            # Path.is_dir raises where a link leads to what may not be looked at.
            folders[folder] = there, os.path.isdir(there) and can_write(there)  # noqa: PTH112
        there, writable = folders[folder]
        try:
            if not writable:
                raise NotAllowed(f"{folder} cannot be written")
            _check_name(there, name)
        except StylusError as error:
            barred[item.key] = item, Failed.of(error)
    return barred


def _check_name(folder: Path, name: str) -> None:
    """Raises `BadRequest` for a name that is too long; only of one that may be is the disk asked."""
    longest = longest_name(name)
    if len(os.fsencode(longest)) <= NAME_BYTES:
        return
    try:
        (folder / longest).lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise BadRequest(f"{name}: {error.strerror}; give the stem another name") from error


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
