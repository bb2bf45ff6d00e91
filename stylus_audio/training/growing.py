"""Training data made by several processes into one file, group after group; a stopped run goes on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import BadRequest, DiskFull, NotFound
from ..files import means_full

Made = NDArray[Any]


def grow(file: Path, made: DTypeLike, groups: int, make: Callable[[int], Made], workers: int = 2) -> None:
    """Make groups up to `groups`, in order of their seeds; `made` is the type of one, shape and all.

    `index.json` beside the file holds how many groups there are. Raises `BadRequest` for a number of groups or workers
    that cannot be, and `DiskFull`; what is there stays.
    """
    if groups < 1:
        raise BadRequest(f"--groups: {groups} is less than 1")
    index = file.parent / "index.json"
    done = _count(file) if index.is_file() else 0
    kind = np.dtype(made)
    _check(file, done * kind.itemsize)
    try:
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent)
    except ValueError as error:
        raise BadRequest(f"--workers: {workers} cannot be: {error}") from None
    more = groups * kind.itemsize - (file.stat().st_size if file.is_file() else 0)
    if shutil.disk_usage(next(folder for folder in file.parents if folder.is_dir())).free < more:
        raise _full(file.parent, more)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    with pool:
        seeds = range(done, groups)
        for seed, group in zip(seeds, pool.map(make, seeds), strict=True):
            # Not through a memory map: where the disk is full, that ends the process.
            with _room(file.parent, (groups - seed) * kind.itemsize), file.open("r+b") as stream:
                stream.seek(seed * kind.itemsize)
                stream.write(np.asarray(group, kind.base).tobytes())
                if seed % 10 == 9 or seed == groups - 1:
                    stream.flush()
                    os.fsync(stream.fileno())
                    # A training that runs meanwhile reads it: never half written.
                    part = index.with_suffix(".part")
                    part.write_text(json.dumps({"groups": seed + 1}), "utf-8")
                    part.replace(index)
                    print(f"{seed + 1} of {groups} groups", flush=True)


@contextmanager
def _room(folder: Path, more: int) -> Iterator[None]:
    """Say that a full disk is one, and how many bytes `more` there are to write."""
    try:
        yield
    except OSError as error:
        if means_full(error):
            (folder / "index.part").unlink(missing_ok=True)
            raise _full(folder, more) from error
        raise


def _full(folder: Path, more: int) -> DiskFull:
    return DiskFull(f"{folder} has no room for the groups that are missing, {more / 1e6:.0f} MB")


def _end_with_parent() -> None:
    """In a worker: what kills the run ends its workers too, who would wait for work for ever."""
    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def grown(file: Path, made: DTypeLike) -> Made:
    """What is there so far, `[group, ...]`; `NotFound` where there is nothing."""
    if not (file.parent / "index.json").is_file():
        raise NotFound(f"no training data in {file.parent}; see docs/training.md")
    kind = np.dtype(made)
    _check(file, _count(file) * kind.itemsize)
    return np.memmap(file, kind.base, "r", shape=(_count(file), *kind.shape))


def _check(file: Path, size: int) -> None:
    if size and (not file.is_file() or file.stat().st_size < size):
        raise BadRequest(f"{file.parent} holds other training data than {file.name}; take a folder of its own")


def _count(file: Path) -> int:
    return int(json.loads((file.parent / "index.json").read_text("utf-8"))["groups"])
