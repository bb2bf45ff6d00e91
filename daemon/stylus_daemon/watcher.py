"""Watched folders: every clip that appears in one, and is whole, becomes a job once.

`Watcher.scan` compares the folder with the queue and settles the difference; it alone decides. `watch_events` says
when to call it.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylus_audio.errors import BadRequest, Busy, DiskFull, NotAllowed, StylusError, UnsupportedAudio
from stylus_audio.files import means_full
from stylus_audio.riff import is_open
from stylus_audio.target import Target, stem_path

from .jobs import ENDED, Job, Jobs
from .request import RenderJob
from .watch_looks import Clip, Look, Looks, check_clip, clips_in
from .watch_results import Failures, put_away, short
from .watch_settings import Watch, Wish, Wishes

log = logging.getLogger(__name__)

RESCAN = 60.0
"""Seconds between two scans where nothing happens."""
SOON = 5.0
"""Seconds to the next scan while jobs are under way, the queue is full, or the folder is gone."""
PATIENCE = 60.0
"""Seconds that a file may lie there unreadable, as one does whose copy has stalled, before it has failed."""
HASHED = 2**30
"""Bytes that one scan hashes before it lets others have a turn."""
PRIORITY = -1
"""Of a clip in the queue: whoever waits for a stem comes first."""
MOST_SAID = 10_000
"""Warnings that are remembered so as not to be repeated."""

_TRY_AGAIN = "save the clip again to try again"
_ADVICE = {
    "bad-request": "correct its .stylus.json, stylus.toml or the options of the watch",
    "unsupported-audio": "export it again",
    "disk-full": f"make room, and {_TRY_AGAIN}",
    "not-found": "",
}


_Asked = tuple[Wish, list[str]]
"""A wish, and the SHA-256 of the clip and of each style."""


@dataclass
class _Entry:
    """A clip that has a job."""

    key: str
    look: Look
    asked: _Asked
    job: int
    state: str = ""
    line: str = ""
    """Why it failed."""
    put_away_at: float = 0.0
    """When an original that could not be moved is tried again."""


class Watcher:
    """One watched folder. To be used from the thread that made `jobs`, as that has it."""

    def __init__(self, watch: Watch, jobs: Jobs, clock: Callable[[], float] = time.time) -> None:
        self.watch = watch
        self.paused = False
        """The folder, or the place of its output, is not there."""
        self._jobs, self._clock = jobs, clock
        self._looks = Looks(clock)
        self._entries: dict[Path, _Entry] = {}
        self._waiting: dict[int, Path] = {}
        self._failures = Failures(watch.output / "failed")
        self._told: dict[Path, str] = {}
        self._said: set[str] = set()
        self._version = jobs.version()
        # What a user has cancelled does not come back with the next start.
        self._cancelled = {_text(job.request): job.created for job in jobs.listed("cancelled") if not job.client}
        self._full = False
        self._budget = 0

    def scan(self) -> float:
        """Look once at queue and folder, and do what follows; returns the seconds until the next call at the latest."""
        self._budget = HASHED
        self._full = False
        try:
            self._hear()
        except (OSError, sqlite3.OperationalError) as error:
            self._say("the queue", error)
        if not self._is_there():
            return SOON
        try:
            clips, foreign, stems = clips_in(self.watch.root, lambda error: self._say(str(error.filename), error))
            wishes = Wishes(self.watch)
        except OSError as error:
            self._pause(self.watch.root, error)
            return SOON
        if foreign:
            self._once("foreign", f"{foreign} files in {str(self.watch.root)!r} are no audio and are left alone")
        for stem in stems:
            self._once(f"stem\0{stem}", f"{str(stem)!r} is a stem, as its sidecar says, and is left alone")
        wait = min((self._safely(clip, wishes) for clip in clips), default=RESCAN)
        self._forget({clip.path for clip in clips})
        return min(wait, SOON) if self._waiting or self._full else wait

    def _hear(self) -> None:
        """Take note of jobs that have ended."""
        for job in self._jobs.since(self._version):
            path = self._waiting.get(job.id)
            if path is not None and job.state in ENDED:
                del self._waiting[job.id]
                entry = self._entries.get(path)
                if entry is not None and entry.job == job.id:
                    self._settle(path, entry, job)
            self._version = job.version

    def _settle(self, path: Path, entry: _Entry, job: Job) -> None:
        entry.state = job.state
        try:
            if job.state == "done":
                self._failures.take_back(self._relative(path))
                self._told.pop(path, None)
            elif job.state == "cancelled":
                self._cancelled[_text(job.request)] = job.created
            elif job.state == "failed":
                entry.line = _line(job.code, job.message, _ADVICE.get(job.code, _TRY_AGAIN))
                self._tell(path, entry.line)
        except OSError as error:
            self._say(str(path), error)

    def _is_there(self) -> bool:
        place = self.watch.root
        try:
            if not place.is_dir():
                raise FileNotFoundError("it is not there")
            place = self.watch.output
            if not place.is_dir():
                place.mkdir()
        except OSError as error:
            self._pause(place, error)
            return False
        if self.paused:
            log.info("%r is there again", str(self.watch.root))
        self.paused = False
        return True

    def _pause(self, place: Path, error: OSError) -> None:
        if not self.paused:
            log.warning("watching %r waits for %r: %s", str(self.watch.root), str(place), error)
        self.paused = True

    def _safely(self, clip: Clip, wishes: Wishes) -> float:
        try:
            return self._tend(clip, wishes)
        except FileNotFoundError:
            return SOON  # moved or deleted while we looked
        except (OSError, sqlite3.OperationalError) as error:
            self._say(str(clip.path), error)
            return RESCAN

    def _tend(self, clip: Clip, wishes: Wishes) -> float:
        """Do for a clip what its state asks for; returns the seconds until it has to be looked at again."""
        look = self._looks.at(clip.path)
        if look.size == 0:
            return RESCAN
        problem, wish = None, Wish((), {}, "")
        try:
            wish = wishes.of(clip.sidecar)
        except StylusError as error:
            problem = error
        styles = [path for path, _ in wish.styles]
        left = max(self._looks.left(path) for path in (clip.path, *wishes.sources(clip.sidecar), *styles))
        if left > 0 or look.given_up:
            return left or RESCAN
        if not look.digest and (wait := self._read(clip.path, look)) is not None:
            return wait
        try:
            if problem is not None:
                raise problem
            digests = [look.digest, *map(self._digest, styles)]
            return self._wanted(clip, look, wish, digests) if all(digests) else 0.0
        except StylusError as error:
            # Looked at anew in each scan: the remedy need not be a change of the clip.
            self._tell(clip.path, _line(error.code, str(error), _ADVICE.get(error.code, "")))
            return RESCAN

    def _read(self, path: Path, look: Look) -> float | None:
        """Check and hash a clip; returns the seconds until that is to be tried again, None when it is done."""
        if self._budget <= 0:
            return 0.0
        try:
            _check(path)
            if is_open(path) and (left := PATIENCE - self._looks.age(look)) > 0:
                # Its header does not say whether more is to come.
                return left
            digest = self._digest(path)
        except StylusError as error:
            return self._unreadable(path, look, error)
        self._budget -= look.size
        return None if digest else 0.0

    def _digest(self, path: Path) -> str:
        """SHA-256, or "" where the file is changing. Raises `NotAllowed`, and `FileNotFoundError`."""
        try:
            return self._looks.digest(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise NotAllowed(f"{path.name} cannot be read: {error.strerror}") from error

    def _unreadable(self, path: Path, look: Look, error: StylusError) -> float:
        left = PATIENCE - self._looks.age(look)
        if left > 0:
            return left
        self._tell(path, _line(error.code, str(error), _ADVICE.get(error.code, _TRY_AGAIN)))
        # A lock or a right can go without a trace in the file itself.
        look.given_up = error.code not in ("not-allowed", "not-found")
        return RESCAN

    def _wanted(self, clip: Clip, look: Look, wish: Wish, digests: list[str]) -> float:
        """A clip that is whole, with all that it needs: hand it in, or go on with what came of it."""
        entry = self._entries.get(clip.path)
        # In a folder of thousands of clips nearly all are as they were at the last look.
        if entry is None or entry.look is not look or entry.asked != (wish, digests):
            stem = self._stem(clip.path, wish)
            request = _request(clip.path, wish, stem)
            key = request.work(digests)
            if entry is None or entry.key != key or entry.state in ENDED:
                return self._submit(clip, look, (wish, digests), request, key)
            entry.look, entry.asked = look, (wish, digests)
        if entry.state == "failed":
            self._tell(clip.path, entry.line)
        if entry.state == "done":
            if clip.path in self._told:
                # Its settings were wrong for a while, and are again what it was rendered with.
                self._failures.take_back(self._relative(clip.path))
                del self._told[clip.path]
            if self.watch.move and self._clock() >= entry.put_away_at:
                self._put_away(clip, entry, look)
        return RESCAN

    def _stem(self, path: Path, wish: Wish) -> Path:
        name = stem_path(path, [name for _, name in wish.styles], Target())
        return self.watch.output / self._relative(path).parent / short(name.stem, name.suffix)

    def _submit(self, clip: Clip, look: Look, asked: _Asked, wanted: RenderJob, key: str) -> float:
        if self._full:
            return SOON
        request = wanted.to_dict()
        about = clip.path.stat()
        if self._cancelled.get(_text(request), 0.0) >= max(about.st_mtime, about.st_ctime):
            self._entries[clip.path] = _Entry(key, look, asked, 0, "cancelled")
            return RESCAN
        # Before the job is there: a worker may be quick.
        made = _make(wanted.target)
        try:
            job = self._jobs.submit(request, once=key, priority=PRIORITY)
            put_here = max(about.st_mtime, about.st_ctime)
            if job.state == "done" and put_here > job.changed and not Path(job.path).exists():
                # Put here again since, and what came of it the last time is gone.
                self._jobs.release(key, job.id)
                job = self._jobs.submit(request, once=key, priority=PRIORITY)
        except Busy as error:
            self._full = True
            self._once("busy", f"{str(self.watch.root)!r}: {error}; the clips wait")
            return SOON
        entry = self._entries[clip.path] = _Entry(key, look, asked, job.id, job.state)
        if job.state in ENDED:
            with suppress(OSError):
                for folder in made:
                    folder.rmdir()
            self._settle(clip.path, entry, job)
            return 0.0 if self.watch.move else RESCAN
        self._waiting[job.id] = clip.path
        return SOON

    def _put_away(self, clip: Clip, entry: _Entry, look: Look) -> None:
        day = time.strftime("%Y-%m-%d", time.localtime(self._clock()))
        folder = self.watch.output / "originals" / day / self._relative(clip.path).parent
        entry.put_away_at = self._clock() + RESCAN
        sidecar = None if clip.shares else clip.sidecar
        if put_away(clip.path, sidecar, folder, (look.signature, look.digest)):
            log.info("%r is rendered and moved to %r", str(clip.path), str(folder))
            del self._entries[clip.path]

    def _tell(self, path: Path, line: str) -> None:
        if self._told.get(path) != line:
            self._once(f"{path}\0{line}", f"{str(path)!r}: {line}")
            self._failures.say(self._relative(path), line)
            self._told[path] = line

    def _relative(self, path: Path) -> Path:
        return path.relative_to(self.watch.root)

    def _forget(self, there: set[Path]) -> None:
        """Keep in mind what is in the folder, and what has a job."""
        self._looks.forget_the_unseen()
        kept = there | set(self._waiting.values())
        self._entries = {path: entry for path, entry in self._entries.items() if path in kept}
        self._told = {path: line for path, line in self._told.items() if path in kept}

    def _say(self, place: str, error: Exception) -> None:
        self._once(f"{place}\0{type(error).__name__}", f"{place!r}: {error}")

    def _once(self, kind: str, text: str) -> None:
        if kind not in self._said:
            if len(self._said) >= MOST_SAID:
                self._said.clear()
            self._said.add(kind)
            log.warning("%s", text)


def _check(path: Path) -> None:
    """Raise a `StylusError` for a clip that cannot be rendered as it is; `FileNotFoundError`."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{path.name!a} is not text: rename it") from None
    try:
        check_clip(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NotAllowed(f"{path.name} cannot be read: {error.strerror}") from error
    except (ValueError, OverflowError, struct.error) as error:
        # A file that shrinks while its header is read.
        raise UnsupportedAudio(f"{path.name} is damaged: {error}") from error


def _make(folder: Path) -> list[Path]:
    """Make a folder; returns it with those above it that were not there. Raises `NotAllowed` and `DiskFull`."""
    try:
        made = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        kind = DiskFull if means_full(error) else NotAllowed
        raise kind(f"{folder} cannot be made: {error.strerror}") from error
    return made


def _request(clip: Path, wish: Wish, stem: Path) -> RenderJob:
    styles = tuple((str(path), name) for path, name in wish.styles)
    return RenderJob(str(clip), styles, wish.settings, wish.model, wish.dtype, str(stem.parent), stem.name)


def _text(request: Mapping[str, Any]) -> str:
    return json.dumps(request, sort_keys=True)


def _line(code: str, message: str, advice: str) -> str:
    return f"{code}: {message}" + (f"; {advice}" if advice else "")
