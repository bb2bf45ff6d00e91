"""The folders that the daemon may read and write, and getting at a file in them without being led out of them.

A path is judged twice: when a request comes, in words for its sender, and when a worker opens it. Between the two
anything may have been put in its place, so the worker goes into the folder, asks the system where it is, and uses bare
names from there.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stylus_audio import store
from stylus_audio.errors import BadRequest, DiskFull, NotAllowed, NotFound
from stylus_audio.files import means_full, same_file, working_folder
from stylus_audio.places import user_audio, user_data, user_output

log = logging.getLogger(__name__)

LONGEST = 3000
"""Bytes of a path; it has to fit in a packet of ours."""

REMEMBERED = 5.0
"""Seconds for which it is believed where folders lead."""


def kept_roots() -> list[Path]:
    """Folders that `stylus root add` has kept; none where their file is damaged."""
    try:
        return [Path(path) for path in sorted(_kept())]
    except BadRequest as error:
        log.warning("%s", error)
        return []


def _kept() -> set[str]:
    """What the file says; `BadRequest` where that is no list of folders."""
    kept = store.load_whole(_file()).get("roots", [])
    if isinstance(kept, list) and all(isinstance(one, str) and Path(one).is_absolute() for one in kept):
        return set(kept)
    raise store.damaged(_file(), "no list of folders")


def keep_roots(folders: Sequence[Path]) -> list[Path]:
    """Allow folders from now on, or none of them: `NotFound` where one is not there, `BadRequest` for a whole disk."""
    roots = []
    for folder in folders:
        if not folder.is_dir():
            raise NotFound(f"root: {folder} is not a folder")
        root = folder.resolve()
        if root == Path(root.anchor):
            raise BadRequest(f"root: {root} is all there is; give a folder in it")
        roots.append(root)
    with store.held(_file()):
        store.save(_file(), {"roots": sorted(_kept() | set(map(str, roots)))})
    return roots


def forget_root(folder: Path) -> None:
    """No longer allow a kept folder; `NotFound` names those that are kept."""
    with store.held(_file()):
        kept = _kept()
        gone = {str(folder), str(folder.resolve())} & kept
        if not gone:
            raise NotFound(f"root: {folder} is not kept; kept are {', '.join(sorted(kept)) or 'none'}")
        store.save(_file(), {"roots": sorted(kept - gone)})


def _file() -> Path:
    return user_data() / "roots.json"


def uploads_folder() -> Path:
    """Files dropped on the page."""
    return user_data() / "daemon" / "uploads"


class Roots:
    """The allowed folders: the user's audio, the style library, dropped files, our output, kept and given ones."""

    def __init__(self, given: Sequence[Path] = ()) -> None:
        self.given = tuple(folder.resolve() for folder in given)
        self._kept = _file()
        self._known: tuple[list[Path], object, float] = ([], None, 0.0)
        self._beginnings: tuple[str, ...] = ()

    @property
    def uploads(self) -> Path:
        """Where copies of dropped files lie; it is made when it is needed."""
        return uploads_folder().resolve()

    @property
    def own_output(self) -> Path:
        """Where stems go whose content's folder cannot be written; it is made when it is needed."""
        return user_output().resolve()

    def folders(self) -> list[Path]:
        """All of them, resolved; a change of the kept list counts at once, one of links in seconds.

        Every path of every request is held against them, and to resolve them takes half a millisecond.
        """
        folders, kept, until = self._known
        if kept != (kept := _state(self._kept)) or time.monotonic() > until:
            own = [user_data() / "styles", uploads_folder(), user_output()]
            folders = [folder.resolve() for folder in (*user_audio(), *own, *kept_roots())] + list(self.given)
            self._known = (folders, kept, time.monotonic() + REMEMBERED)
            self._beginnings = tuple(_beginning(folder) for folder in folders)
        return folders

    def holds(self, path: Path) -> bool:
        """Whether a path that has no links in it lies in one of them."""
        folders = self.folders()
        if _beginning(path).startswith(self._beginnings):
            return True
        # There the same folder may be typed in another case or with accents in parts; only the system knows.
        return sys.platform == "darwin" and any(
            same_file(one, folder) for one in (path, *path.parents) for folder in folders
        )

    def resolved(self, text: str) -> Path:
        """What a client's path means, without links; `BadRequest` for what is no absolute path, `NotAllowed` outside.

        It need not be there.
        """
        try:
            if "\0" in text or len(text.encode()) > LONGEST or not text.strip():
                raise BadRequest(f"path: {_short(text)} is no path")
            typed = Path(text).expanduser()
            if not typed.is_absolute():
                raise BadRequest(f"path: {_short(text)} is not absolute; the daemon has no folder of its own")
            path = typed.resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise BadRequest(f"path: {_short(text)} leads nowhere") from error
        if not self.holds(path):
            # What holds a folder holds more than was asked for.
            folder = path if os.path.isdir(path) else path.parent  # noqa: PTH112  # pathlib may raise
            raise NotAllowed(_outside(_short(text), folder))
        return path

    def file(self, text: str) -> Path:
        """A client's path of a file that is there to be read; `NotFound`, or as `resolved`."""
        path = self.resolved(text)
        try:
            mode = path.stat().st_mode
        except OSError:
            raise NotFound(f"{_short(text)} does not exist") from None
        if not stat.S_ISREG(mode):
            raise BadRequest(f"{_short(text)} is not a file")
        return path

    @contextmanager
    def standing_in(self, folder: Path) -> Iterator[None]:
        """Make an allowed folder the working one, so that a bare name means a file in it whatever its path becomes.

        For a process that does one thing at a time. Raises `NotFound` and `NotAllowed`.
        """
        before = Path.cwd()
        try:
            os.chdir(folder)
        except OSError as error:
            raise NotFound(f"the folder {folder} cannot be entered: {os.strerror(error.errno or 0)}") from error
        try:
            # Where the system says that we are, not where a path says that it leads.
            try:
                here = working_folder()
            except OSError as error:
                raise NotFound(f"the folder {folder} was taken away") from error
            if not self.holds(here):
                # Nobody is asked to allow what a link that came in between leads to.
                led = f"{folder} leads out of the folders that the daemon may use"
                raise NotAllowed(_outside(str(folder), folder) if here == folder else led)
            yield
        finally:
            os.chdir(before)

    def copied(self, path: Path, into: Path) -> Path:
        """A private copy of an allowed file, by the same name: what is rendered cannot change meanwhile.

        Raises `NotFound`, `NotAllowed` where the file is a link or outside by now, and `DiskFull`.
        """
        copy = into.resolve() / path.name
        with self.standing_in(path.parent):
            try:
                # A pipe by that name must not hold us up.
                flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
                descriptor = os.open(path.name, flags)
            except FileNotFoundError:
                raise NotFound(f"{path} does not exist") from None
            except OSError as error:
                raise NotAllowed(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error
            with os.fdopen(descriptor, "rb") as source:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode) or Path(path.name).is_symlink():
                    raise NotAllowed(f"{path} is not a file")
                try:
                    with copy.open("wb") as target:
                        shutil.copyfileobj(source, target, 2**20)
                except OSError as error:
                    if means_full(error):
                        raise DiskFull(f"{copy.parent} has no room for a copy of {path.name}") from error
                    raise NotAllowed(f"{path} cannot be copied: {os.strerror(error.errno or 0)}") from error
        return copy


def _beginning(folder: Path) -> str:
    """What the paths of everything in a folder begin with, in the one form in which they can be compared as text."""
    return os.path.join(os.path.normcase(folder), "")  # noqa: PTH118  # pathlib takes ten times as long


def _state(file: Path) -> object:
    """What changes when a file is written; None where there is none."""
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino


def _short(text: str) -> str:
    shown = f"'{text}'" if text.isprintable() else repr(text)
    return shown if len(shown) <= 200 else f"{shown[:190]}…'"


def _outside(shown: str, folder: Path) -> str:
    return f"{shown} is outside of the folders that the daemon may use; {adding([folder])} allows it"


def adding(folders: Sequence[Path]) -> str:
    """The command that allows folders, as it is typed."""
    return f"`stylus root add {' '.join(map(_quoted, folders))}`"


def _quoted(path: Path) -> str:
    text = str(path)
    if os.name == "posix":
        return shlex.quote(text)
    # No file's name has a double quote there.
    return text if re.fullmatch(r"[\w.:\\-]+", text) else f'"{text}"'
