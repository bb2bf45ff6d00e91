"""What a watched folder's clips leave in the output beside stems: a line on what failed, and originals put away."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from stylus_audio.audio import sha256
from stylus_audio.files import flush_file, flush_folder, name_endings, publish, same_file

from .watch_looks import Signature, signature_of
from .watch_settings import SIDECAR

_OURS = b"stylus: "
_LONGEST = 200
"""Bytes of a file name; systems allow 255, and a `_2`, a `.json` or a temporary name has to fit."""


def short(name: str, ending: str = "") -> str:
    """A file name that every system takes; of a longer one the beginning is left, with a hash of the whole.

    >>> short("riff", ".wav"), short("x" * 300, ".wav")[180:]
    ('riff.wav', 'xxxxxxx-0d4e2ca9.wav')
    """
    data = os.fsencode(name)
    if len(data) + len(ending) <= _LONGEST:
        return name + ending
    mark = "-" + hashlib.sha256(data).hexdigest()[:8] + ending
    return data[: _LONGEST - len(mark)].decode("utf-8", "ignore") + mark


class Failures:
    """`NAME.error.txt` files of one line in a folder. A file there that is not ours is left alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def say(self, clip: Path, line: str) -> None:
        """Write why a clip (by its path in the watched folder) failed. Raises `OSError`."""
        file = self._file(clip)
        text = _OURS + " ".join(line.split()).encode("utf-8", "replace") + b"\n"
        if file.exists():
            if file.read_bytes() == text:
                return
            file.unlink()
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as stream:
            stream.write(text)

    def take_back(self, clip: Path) -> None:
        """Remove what was said of a clip. Raises `OSError`."""
        self._file(clip).unlink(missing_ok=True)

    def _file(self, clip: Path) -> Path:
        for ending in name_endings():
            file = self._folder / clip.parent / short(clip.name, f".error{ending}.txt")
            if not os.path.lexists(file) or _is_ours(file):
                return file
        raise AssertionError("numbers do not run out")


def _is_ours(file: Path) -> bool:
    if file.is_symlink() or not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(len(_OURS)) == _OURS


def put_away(clip: Path, sidecar: Path | None, folder: Path, seen: tuple[Signature, str]) -> bool:
    """Move an original with its settings file to a folder, under a name that is free for both.

    `seen` is the signature and the SHA-256 of what was rendered; false, with everything as it was, where the clip is no
    longer that. Raises `OSError`; the original stays then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    signature, digest = seen
    for target in _names(folder, clip.name):
        beside = None
        if sidecar is not None:
            alone = sidecar.name == clip.name + SIDECAR
            beside = folder / ((target.name if alone else target.stem) + SIDECAR)
        if os.path.lexists(target) or (beside is not None and os.path.lexists(beside)):
            continue
        if signature_of(clip) != signature:
            return False
        if not _move(clip, target, digest):
            continue
        if sidecar is not None and beside is not None:
            _move(sidecar, beside, sha256(sidecar))
        return True
    raise AssertionError("numbers do not run out")


def _names(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    stem, suffix = Path(name).stem, Path(name).suffix
    for number in count(2):
        yield folder / short(stem, f"_{number}{suffix}")


def _move(source: Path, target: Path, digest: str) -> bool:
    """Move a file to a name; false where it is taken."""
    try:
        return publish(source, target, overwrite=False)
    except OSError as error:
        # It has its new name already where only the old one cannot be taken away.
        if same_file(source, target):
            target.unlink()
        if error.errno != errno.EXDEV:
            raise
    if not _copy(source, target, digest):
        return False
    try:
        source.unlink()
    except OSError:
        target.unlink()
        raise
    return True


def _copy(source: Path, target: Path, digest: str) -> bool:
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        before = signature_of(source)
        shutil.copyfile(source, part)
        flush_file(part)
        shutil.copystat(source, part)
        if sha256(part) != digest or signature_of(source) != before:
            raise OSError(errno.EBUSY, "changed while it was copied", str(source))
        if not publish(part, target, overwrite=False):
            return False
    finally:
        part.unlink(missing_ok=True)
    flush_folder(target.parent)
    return True
