"""What depends on the system: durable files and their names, not being interrupted meanwhile, and priority."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .errors import DiskFull, NotAllowed, NotFound

_NO_ROOM = {errno.ENOSPC, errno.EFBIG, *({errno.EDQUOT} if hasattr(errno, "EDQUOT") else set())}
ASIDE = ".old"
"""End of the second name that a replaced file has until all is done."""

# EINVAL is what Windows says on FAT.
_NO_LINKS = {errno.EINVAL, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES, errno.ENOSYS}
_NO_FLUSH = {errno.EINVAL, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES, errno.ENOSYS}


def means_full(error: OSError) -> bool:
    """Whether an error says that there is no room left."""
    return error.errno in _NO_ROOM


def in_text(name: str) -> str:
    r"""A file's name to be said; what of it is no text, such as bytes that are no UTF-8, is written out.

    >>> in_text("Gr\udcfc\udcdfe.wav")
    'Gr\\udcfc\\udcdfe.wav'
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def alike(name: str) -> str:
    """What names have in common that macOS and Windows take for the same: case, and how accents are composed."""
    return unicodedata.normalize("NFC", name).casefold()


def typed_path(text: str) -> Path:
    """A path as a user types it, `~` for the home folder; a `~` that is nobody's home is a letter like others.

    >>> typed_path("~nobody of that name.wav").name
    '~nobody of that name.wav'
    """
    # Path.expanduser raises where os.path.expanduser leaves the name alone.
    return Path(os.path.expanduser(text))  # noqa: PTH111


def exists(path: Path) -> bool:
    """Whether something is at a path; `NotAllowed` where that may not be known, as in another user's folder."""
    try:
        return path.exists()
    except PermissionError:
        raise NotAllowed(f"{path} may not be read") from None
    except OSError:
        # A name that no file can have.
        return False


def file_id(path: Path) -> tuple[int, int] | None:
    """What two names of one file have in common; None where there is no file."""
    try:
        about = path.stat()
    except (OSError, ValueError):
        return None
    return about.st_dev, about.st_ino


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths are one file."""
    found = file_id(one)
    return found is not None and found == file_id(other)


def flush_file(path: Path) -> None:
    """Wait until a file's data is on the disk."""
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Wait until a folder's names are on the disk; Windows has no such call and does it by itself.

    Where a file system or a permission forbids it the names are there all the same: what is done is not taken for
    failed, since whoever did it would do it again.
    """
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise


def publish(part: Path, target: Path, overwrite: bool) -> bool:
    """Give a finished file its name in one step; false, with everything as it was, where the name is taken.

    A hard link fails on an existing name, in whatever process made it; so does a rename on Windows. File systems
    without hard links leave a moment between looking and renaming.
    """
    if overwrite:
        part.replace(target)
        return True
    try:
        if os.name == "nt":
            part.rename(target)
            return True
        os.link(part, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if target.exists():
            return False
        part.rename(target)
        return True
    part.unlink()
    return True


def publish_all(pairs: Sequence[tuple[Path, Path]], overwrite: bool) -> bool:
    """Publish several files together, or none of them; must not be interrupted (see `uninterrupted`)."""
    published: list[tuple[Path, Path]] = []
    replaced: dict[Path, Path] = {}
    whole = False
    try:
        if overwrite and len(pairs) > 1:
            for part, target in pairs:
                _keep_aside(target, part.with_name(part.name + ASIDE), replaced)
        for part, target in pairs:
            if not publish(part, target, overwrite):
                break
            published.append((part, target))
        else:
            whole = True
    finally:
        lost = [] if whole else _take_back(published, replaced)
        for target, aside in replaced.items():
            if target not in lost:
                with suppress(OSError):
                    aside.unlink(missing_ok=True)
    return whole


def _keep_aside(target: Path, aside: Path, replaced: dict[Path, Path]) -> None:
    """Give what is about to be replaced a second name, or a copy where there are no hard links."""
    if not os.path.lexists(target):
        return
    try:
        os.link(target, aside)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copy2(target, aside)
    replaced[target] = aside


def hidden(target: Path, token: str, end: str) -> Path:
    """A hidden name beside a file, for what is to take its place."""
    # Names have 255 bytes at most, and a character may have four of them.
    return target.with_name(f".{target.name[:50]}.{token}{end}")


def write_files(contents: Mapping[Path, bytes], overwrite: bool) -> bool:
    """Write several small files, all of them whole or none; false where a name is taken, but for `overwrite`.

    Raises `DiskFull` and `NotAllowed`.
    """
    token = secrets.token_hex(4)
    parts = [(hidden(path, token, ".part"), path) for path in contents]
    try:
        for part, path in parts:
            with part.open("xb") as stream:
                stream.write(contents[path])
        with uninterrupted():
            return publish_all(parts, overwrite)
    except OSError as error:
        names = " and ".join(str(path) for path in contents)
        if means_full(error):
            raise DiskFull(f"no room left for {names}") from error
        raise NotAllowed(f"{names} cannot be written: {error.strerror}") from error
    finally:
        for part, _ in parts:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def name_endings() -> Iterator[str]:
    """What tells names apart where the first is taken: nothing, `_2`, `_3` and so on, without an end."""
    yield ""
    yield from (f"_{number}" for number in itertools.count(2))


def write_new(target: Path, data: bytes, overwrite: bool, protect: Sequence[Path] = ()) -> Path:
    """Write a whole file or nothing; returns its path, without `overwrite` the next free `_2` where the name is taken.

    Files in `protect` are never replaced. Raises `NotFound` for a missing folder, `NotAllowed`, and `DiskFull`.
    """
    folder = target.parent
    if not folder.is_dir():
        raise NotFound(f"the folder {folder} does not exist")
    if target.is_dir():
        raise NotAllowed(f"{target} is a folder; give the file a name in it")
    if overwrite and any(same_file(target, kept) for kept in protect):
        raise NotAllowed(f"{target.name} is what is being read; it is never replaced")
    for ending in name_endings():
        named = target.with_name(f"{target.stem}{ending}{target.suffix}")
        if write_files({named: data}, overwrite):
            return named
    raise AssertionError("numbers do not run out")


def can_write(folder: Path) -> bool:
    """Whether files can be made in a folder, as far as it can be known."""
    if sys.platform not in ("win32", "darwin"):
        return os.access(folder, os.W_OK)
    # Windows looks at an attribute that folders do not heed, macOS does not ask whether the user allowed us there.
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def writable_folder(folder: Path) -> None:
    """Make a folder of ours with its parents; `NotAllowed` where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotAllowed(f"{folder} cannot be made: {error.strerror}") from error


def remove_old_folders(parent: Path, seconds: float, pattern: str = "*") -> None:
    """Remove folders of ours, those in `parent` that match, that were last changed so long ago."""
    for folder in parent.glob(pattern):
        with suppress(OSError):
            if folder.is_dir() and time.time() - folder.stat().st_mtime > seconds:
                shutil.rmtree(folder)


def working_folder() -> Path:
    """Where the system says that we are, without links; may raise OSError.

    POSIX says it so. To resolve that once more would walk a path that may have become another's meanwhile. Windows
    says what was typed.
    """
    return Path.cwd().resolve() if os.name == "nt" else Path.cwd()


def reserve(file: IO[bytes], size: int) -> None:
    """Make an empty file so large, in zeros, and take the disk's room for it now; raises `OSError` where there is none.

    A write through a mapping of the file could not say so.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    piece = bytes(2**20)
    for first in range(0, size, len(piece)):
        file.write(piece[: size - first])
    file.flush()


def let_go_of(mapping: mmap.mmap) -> None:
    """Let go of the memory that a mapped file has taken; it is read again where it is wanted.

    Windows has no such advice, and takes such memory away by itself where it runs short.
    """
    if hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def lower_priority() -> None:
    """Let everything else on the machine go first: a DAW that plays, and the daemon's answers."""
    if os.name == "nt":
        import psutil

        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)  # type: ignore[attr-defined]
    else:
        os.nice(10)


def _take_back(published: Sequence[tuple[Path, Path]], replaced: Mapping[Path, Path]) -> list[Path]:
    """Put back what was there; returns targets where that cannot be, of which the second name has to stay."""
    lost = []
    for part, target in published:
        try:
            if target in replaced:
                replaced[target].replace(target)
            else:
                target.replace(part)
        except OSError:
            lost.append(target)
    return lost


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C, SIGTERM and a closed terminal to the end of the block.

    Outside the main thread they do not arrive anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [signal.signal(number, lambda got, _: waiting.append(got)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        for number in waiting:
            signal.raise_signal(number)


@contextmanager
def undisturbed_children() -> Iterator[None]:
    """Processes that are started in the block hear no Ctrl-C, which a terminal sends to all: who starts them ends them.

    Nor does it arrive here before the block ends, so that whoever was started is known.
    """
    with uninterrupted():
        if os.name == "nt":
            import ctypes

            kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
            kernel.SetConsoleCtrlHandler(None, True)
            try:
                yield
            finally:
                kernel.SetConsoleCtrlHandler(None, False)
        else:
            from multiprocessing import resource_tracker

            # Started with the first process otherwise, and unblocks what is blocked.
            resource_tracker.ensure_running()
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                yield
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
