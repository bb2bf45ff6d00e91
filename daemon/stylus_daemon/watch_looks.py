"""Looking at a watched folder: which files are clips, and which have been left alone long enough to be believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stylus_audio.audio import SUFFIXES, probe, read_clip, sha256
from stylus_audio.provenance import stem_of
from stylus_audio.unchanged import WhileUnchanged

from .watch_settings import SIDECAR

STEADY = 2.0
"""Seconds without a change after which a file is no longer being written."""

_OTHERS = frozenset((".tmp", ".part", ".partial", ".crdownload", ".asd", ".reapeaks", ".json", ".toml"))
"""Unfinished downloads, what DAWs put beside audio, and settings: nobody expects a stem of them."""

Signature = tuple[int, int, int, int]


@dataclass(frozen=True)
class Clip:
    """A clip in the folder, with its own settings file where it has one."""

    path: Path
    sidecar: Path | None
    shares: bool
    """Another clip has the same settings file."""


def clips_in(root: Path, refused: Callable[[OSError], None]) -> tuple[list[Clip], int, list[Path]]:
    """Every clip under a folder, how many files there are nothing to us, and stems of ours with their sidecars.

    Links, hidden names and what other programs keep beside audio count as neither. A subfolder that cannot be read goes
    to `refused`; raises `OSError` for the folder itself.
    """
    clips: list[Clip] = []
    foreign, stems = 0, list[Path]()
    folders = [root]
    while folders:
        folder = folders.pop()
        names: set[str] = set()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith((".", "~")):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        names.add(entry.name)
        except OSError as error:
            if folder == root:
                raise
            refused(error)
        audio = [name for name in sorted(names) if _suffix(name) in SUFFIXES]
        made = {name for name in audio if f"{Path(name).stem}.json" in names and _is_stem(folder / name)}
        clips += [_clip(folder, name, names, audio) for name in audio if name not in made]
        stems += [folder / name for name in sorted(made)]
        foreign += sum(_suffix(name) not in SUFFIXES | _OTHERS for name in names)
    return clips, foreign, stems


def _is_stem(file: Path) -> bool:
    """Whether a sidecar beside a file says that it is a stem of ours; not of one that was saved over the stem."""
    beside = file.with_suffix(".json")
    try:
        return _named_by(beside) == file.name and file.stat().st_mtime <= beside.stat().st_mtime + STEADY
    except OSError:
        return False


_named_by = WhileUnchanged(stem_of, 2**20)
"""Looked at in every scan; a name takes no room to speak of."""


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _clip(folder: Path, name: str, names: set[str], audio: list[str]) -> Clip:
    """`riff.wav.stylus.json` is of riff.wav alone, `riff.stylus.json` of every riff."""
    if name + SIDECAR in names:
        return Clip(folder / name, folder / (name + SIDECAR), False)
    stem = Path(name).stem
    if stem + SIDECAR in names:
        return Clip(folder / name, folder / (stem + SIDECAR), sum(Path(other).stem == stem for other in audio) > 1)
    return Clip(folder / name, None, False)


def signature_of(path: Path) -> Signature:
    """What changes with a file's content: size, modification time, inode and device. Raises `OSError`."""
    about = path.stat(follow_symlinks=False)
    return about.st_size, about.st_mtime_ns, about.st_ino, about.st_dev


@dataclass
class Look:
    """How a file was last seen, and since when it has been so; `digest` is "" until the file has been hashed."""

    signature: Signature
    since: float
    digest: str = ""
    given_up: bool = False
    """It has been reported that it cannot be read."""
    fresh: bool = True

    @property
    def size(self) -> int:
        """Bytes."""
        return self.signature[0]


class Looks:
    """Memory of what files looked like, so that one is hashed only when it is new or has changed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._looks: dict[Path, Look] = {}

    def at(self, path: Path) -> Look:
        """Look at a file, once until `forget_the_unseen`. Raises `OSError`."""
        look = self._looks.get(path)
        if look is not None and look.fresh:
            return look
        now, signature = self._clock(), signature_of(path)
        if look is None or look.signature != signature:
            look = self._looks[path] = Look(signature, now)
        # A clock that was set back must not make anybody wait for it.
        look.since = min(look.since, now)
        look.fresh = True
        return look

    def age(self, look: Look) -> float:
        """Seconds since the file was first seen as it is."""
        return self._clock() - look.since

    def left(self, path: Path) -> float:
        """Look, and say how many seconds a file has to stay as it is to be believed. Raises `OSError`."""
        return max(0.0, STEADY - self.age(self.at(path)))

    def digest(self, path: Path) -> str:
        """SHA-256 of a file that was looked at; "" if it has changed since. Raises `OSError`."""
        look = self._looks[path]
        if not look.digest:
            digest = sha256(path)
            if signature_of(path) != look.signature:
                return ""
            look.digest = digest
        return look.digest

    def forget_the_unseen(self) -> None:
        """Drop what has not been looked at since the last call."""
        self._looks = {path: look for path, look in self._looks.items() if look.fresh}
        for look in self._looks.values():
            look.fresh = False


def check_clip(path: Path) -> None:
    """Raise what `probe` raises, and `UnsupportedAudio` for a FLAC whose end is not there yet."""
    info = probe(path)
    if info.format == "FLAC":
        # Its header does not say how many bytes there have to be; the last sample is there only if all are.
        read_clip(path, info.samples - 1, info.samples)
