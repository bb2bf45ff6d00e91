"""Training data made by several processes into one memory map, group after group; a stopped run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import BadRequest, NotFound

Made = NDArray[Any]


def grow(file: Path, made: DTypeLike, groups: int, make: Callable[[int], Made], workers: int = 2) -> None:
    """Make groups up to `groups`, in order of their seeds; `made` is the type of one, shape and all.

    `index.json` beside the file holds how many groups there are.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    index = file.parent / "index.json"
    done = _count(file) if index.is_file() else 0
    kind = np.dtype(made)
    _check(file, done * kind.itemsize)
    with file.open("ab") as stream:
        stream.truncate(max(stream.tell(), groups * kind.itemsize))
    array = np.memmap(file, kind.base, "r+", shape=(groups, *kind.shape))
    with ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent) as pool:
        seeds = range(done, groups)
        for seed, group in zip(seeds, pool.map(make, seeds), strict=True):
            array[seed] = group
            if seed % 10 == 9 or seed == groups - 1:
                array.flush()
                # A training that runs meanwhile reads it: never half written.
                part = index.with_suffix(".part")
                part.write_text(json.dumps({"groups": seed + 1}), "utf-8")
                part.replace(index)
                print(f"{seed + 1} of {groups} groups", flush=True)


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
