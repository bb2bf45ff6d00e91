"""Files dropped on the page: copies of the daemon's own, each in a folder of its own so that it keeps its name."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import AsyncIterable
from pathlib import Path, PurePosixPath

from starlette.concurrency import run_in_threadpool

from stylus_audio.audio import SUFFIXES, probe
from stylus_audio.errors import DiskFull, StylusError, UnsupportedAudio
from stylus_audio.files import means_full, writable_folder

SPARE = 2**30
"""Bytes of the disk that are left to stems."""

LONGEST_NAME = 200
"""Bytes; file systems take 255, and stems get longer names."""


def cleaned(name: str) -> str:
    """A file's name as it can lie on any system; `UnsupportedAudio` for one that does not end as audio does.

    >>> cleaned("../a/Übung: 1.wav")
    'Übung_ 1.wav'
    """
    bare = PurePosixPath(name.replace("\\", "/")).name
    bare = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "_", bare).strip(" .")
    stem, dot, suffix = bare.rpartition(".")
    if not stem or f".{suffix.lower()}" not in SUFFIXES | {".png"}:
        raise UnsupportedAudio(f"{name[:100]!r} has no name of an audio file, such as clip.wav")
    short = stem.encode(errors="replace")[:LONGEST_NAME].decode(errors="ignore")
    return f"{short}{dot}{suffix}"


async def keep(folder: Path, name: str, body: AsyncIterable[bytes]) -> Path:
    """Write a dropped file whole, or nothing; raises `DiskFull` and `UnsupportedAudio`."""
    own = folder / secrets.token_hex(6)
    path = own / cleaned(name)
    await run_in_threadpool(writable_folder, own)
    whole = False
    try:
        with path.open("xb") as file:
            async for piece in body:
                await run_in_threadpool(file.write, piece)
                if shutil.disk_usage(own).free < SPARE:
                    raise DiskFull("the disk is nearly full; the file is not taken")
        await run_in_threadpool(probe, path)
        whole = True
    except OSError as error:
        if means_full(error):
            raise DiskFull("the disk is full; the file is not taken") from error
        raise StylusError(f"the file cannot be kept: {error.strerror}") from error
    finally:
        if not whole:
            shutil.rmtree(own, ignore_errors=True)
    return path
