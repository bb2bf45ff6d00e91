"""Arrays of long clips: in files of the disk in place of memory, of which only what is worked on is there.

They are arrays like any other. What reads or writes all of a long one does so in `blocks`.
"""

from __future__ import annotations

import math
import mmap
import shutil
import tempfile
import threading
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from .files import let_go_of, reserve
from .places import roomy_folder

LARGE_BYTES = 2**26
"""An array over this lies in a file: a channel of six minutes."""

SPARE_BYTES = 2 * 2**30
"""A disk with less room than this is left to the user's stems."""

SAMPLES = 2**18
"""Of a clip that are worked on at once."""

_mapped: WeakSet[mmap.mmap] = WeakSet()
_one_at_a_time = threading.Lock()


def zeros(shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray[Any]:
    """An array of zeros; a large one in a temporary file, which goes with it, where the disk has room."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > LARGE_BYTES and (found := _mapping(size)) is not None:
        with _one_at_a_time:
            _mapped.add(found)
        return np.frombuffer(found, dtype).reshape(shape)
    return np.zeros(shape, dtype)


def _mapping(size: int) -> mmap.mmap | None:
    try:
        folder = roomy_folder()
        if shutil.disk_usage(folder).free < size + SPARE_BYTES:
            return None
        with tempfile.TemporaryFile(prefix="stylus-", dir=folder) as file:
            reserve(file, size)
            return mmap.mmap(file.fileno(), size)
    except OSError:
        # Then it is memory after all.
        return None


def let_go() -> None:
    """Let go of the memory that files of arrays have taken; it is read again where it is wanted."""
    with _one_at_a_time:
        mapped = list(_mapped)
    for one in mapped:
        let_go_of(one)


def blocks(count: int, size: int) -> Iterator[slice]:
    """Slices of `size` at most over `count`; after each its memory is let go.

    >>> list(blocks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))
        let_go()


def as_type(audio: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """`[channel, sample]` as another type; the same array where it is of it already."""
    if audio.dtype == dtype:
        return audio
    result = zeros(audio.shape, dtype)
    for here in blocks(audio.shape[1], SAMPLES):
        result[:, here] = audio[:, here]
    return result


def padded(audio: NDArray[Any], before: int, after: int) -> NDArray[Any]:
    """A copy of `[channel, sample]` with so many zeros around it."""
    channels, samples = audio.shape
    result = zeros((channels, before + samples + after), audio.dtype)
    for here in blocks(samples, SAMPLES):
        result[:, before + here.start : before + here.stop] = audio[:, here]
    return result
