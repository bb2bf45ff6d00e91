"""Prepared styles, kept: on the device, in the host's memory, and on disk.

Knows nothing of what it keeps: an entry is named tensors under a key that says all that they depend on.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import NotAllowed
from .files import flush_file, flush_folder, publish, writable_folder
from .scratch import SPARE_BYTES

Tensors = dict[str, Tensor]

FORMAT = "2"
"""Of keys and files; raised whenever the same settings begin to prepare something else."""

DEVICE_BYTES = 2 * 2**30
"""Default budget of the device's memory; where the device is the CPU, of the only memory that there is."""

HOST_BYTES = 4 * 2**30
"""Default budget of the host's memory beside a device that has its own."""

DISK_BYTES = 16 * 2**30
"""Default budget of the folder."""

ABANDONED_SECONDS = 3600
"""An unfinished file older than this is of a process that is gone."""

_SUFFIX = ".style.safetensors"
_PARTS = f".{'[0-9a-f]' * 64}.*.part"
"""Unfinished entries: a folder that the user has named may hold hidden files of others."""


@dataclass(frozen=True)
class Held:
    """What one tier holds."""

    entries: int
    bytes: int


@dataclass(frozen=True)
class Statistics:
    """What a cache has done since it was made, and what it holds.

    `prepared` styles had to be inverted or read by the network, `hits` did not. `entries` counts a style once in
    whatever tiers it is; `bytes` are of all tiers together.
    """

    prepared: int
    hits: int
    entries: int
    bytes: int
    device: Held
    host: Held
    disk: Held


def style_key(about: Mapping[str, object], arrays: Sequence[NDArray[Any] | None]) -> str:
    """SHA-256, in hexadecimal, over everything that a prepared style depends on; `about` is plain JSON.

    >>> style_key({"steps": 2}, [None]) == style_key({"steps": 3}, [None])
    False
    """
    digest = hashlib.sha256(json.dumps({"format": FORMAT, **about}, sort_keys=True).encode())
    for array in arrays:
        digest.update(b"none" if array is None else f"{array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


class StyleCache:
    """Three tiers, each with a budget in bytes out of which the least recently used goes first.

    What leaves the device goes to the host, in pinned memory for CUDA; what leaves the host stays on disk. A CPU has
    no second memory to go to. Without `folder` there is no disk; a folder that cannot be written, or has no room, is no
    error. Processes may share a folder. One cache is for one thread at a time, as an engine is.
    """

    def __init__(
        self,
        folder: Path | None = None,
        device_bytes: int = DEVICE_BYTES,
        host_bytes: int = HOST_BYTES,
        disk_bytes: int = DISK_BYTES,
    ) -> None:
        self._device_bytes = device_bytes
        self._device = _Memory(device_bytes)
        self._host = _Memory(host_bytes)
        self._disk = _Disk(folder, disk_bytes) if folder else None
        self._prepared = 0
        self._hits = 0

    def has(self, key: str) -> bool:
        """Whether an entry is there; that its file is whole shows when it is read."""
        held = key in self._device.entries or key in self._host.entries
        return held or (self._disk is not None and self._disk.has(key))

    def get(self, key: str, device: torch.device) -> Tensors | None:
        """An entry, on `device`; it is now the most recently used."""
        found = self._device.take(key)
        if found is None:
            found = self._host.take(key)
        if found is not None:
            tensors = {name: tensor.to(device) for name, tensor in found.items()}
        elif self._disk is not None and (mapped := self._disk.get(key)) is not None:
            # Always a copy: a mapped file is aligned otherwise than memory is, and kernels may round by alignment.
            tensors = {name: tensor.to(device, copy=True) for name, tensor in mapped.items()}
        else:
            return None
        self._hits += 1
        if self._disk:
            self._disk.touch(key)
        self._keep(key, tensors)
        return tensors

    def put(self, key: str, tensors: Tensors) -> None:
        """Keep what has just been prepared."""
        self._prepared += 1
        if self._disk:
            self._disk.put(key, tensors)
        self._keep(key, tensors)

    def limit(self, most: float) -> None:
        """Keep no more than `most` bytes in the device's memory until it is said again; what is over goes to the host.

        More than the budget is the budget.
        """
        self._device.budget = int(min(self._device_bytes, most))
        self._to_host(self._device.trim())

    def statistics(self) -> Statistics:
        """Counters and sizes as they are now."""
        files = self._disk.files() if self._disk else []
        disk = Held(len(files), sum(file.size for file in files))
        keys = {*self._device.entries, *self._host.entries, *(file.key for file in files)}
        device, host = self._device.held(), self._host.held()
        total = device.bytes + host.bytes + disk.bytes
        return Statistics(self._prepared, self._hits, len(keys), total, device, host, disk)

    def _keep(self, key: str, tensors: Tensors) -> None:
        self._to_host(self._device.put(key, tensors))

    def _to_host(self, entries: list[tuple[str, Tensors]]) -> None:
        for name, left in entries:
            if next(iter(left.values())).device.type != "cpu":
                self._host.put(name, {part: _on_host(tensor) for part, tensor in left.items()})


def _on_host(tensor: Tensor) -> Tensor:
    if tensor.is_cuda:
        # Memory that may not be locked is only slower to copy from.
        with suppress(RuntimeError):
            return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor)
    return tensor.cpu()


def _bytes(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


class _Memory:
    """Entries in the order of their use."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.entries: OrderedDict[str, Tensors] = OrderedDict()

    def take(self, key: str) -> Tensors | None:
        return self.entries.pop(key, None)

    def put(self, key: str, tensors: Tensors) -> list[tuple[str, Tensors]]:
        """Add an entry; returns those that have no room, which may be itself."""
        self.take(key)
        if _bytes(tensors) > self.budget:
            return [(key, tensors)]
        self.entries[key] = tensors
        return self.trim()

    def trim(self) -> list[tuple[str, Tensors]]:
        """Take out what is over the budget."""
        left = []
        while self.held().bytes > self.budget:
            left.append(self.entries.popitem(last=False))
        return left

    def held(self) -> Held:
        return Held(len(self.entries), sum(map(_bytes, self.entries.values())))


@dataclass(frozen=True)
class _File:
    used: int
    """Nanoseconds of its last use."""
    size: int
    path: Path

    @property
    def key(self) -> str:
        return self.path.name.removesuffix(_SUFFIX)


class _Disk:
    """A safetensors file for each entry, whose time is that of its last use."""

    def __init__(self, folder: Path, budget: int) -> None:
        self.folder = folder
        self.budget = budget

    def has(self, key: str) -> bool:
        try:
            return self._path(key).is_file()
        except OSError:
            return False

    def get(self, key: str) -> Tensors | None:
        """An entry as its mapped file; a file that is not whole, or not of this key, is deleted."""
        path = self._path(key)
        try:
            return _read(path, key)
        except OSError:
            return None
        except (SafetensorError, ValueError, RuntimeError):
            with suppress(OSError):
                path.unlink()
            return None

    def put(self, key: str, tensors: Tensors) -> None:
        size = _bytes(tensors)
        if size > self.budget:
            return
        part = self.folder / f".{key}.{secrets.token_hex(4)}.part"
        try:
            writable_folder(self.folder)
            if shutil.disk_usage(self.folder).free < size + SPARE_BYTES:
                return
            plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(plain, part, {"format": FORMAT, "key": key, "crc32": _checksum(plain)})
            flush_file(part)
            publish(part, self._path(key), overwrite=True)
            flush_folder(self.folder)
            self.touch(key)
            self._trim()
        except (OSError, SafetensorError, NotAllowed):
            # A render does not fail for a cache: this style is only prepared again next time.
            pass
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def touch(self, key: str) -> None:
        # The clock of the file system is too coarse for the order of quick uses.
        now = time.time_ns()
        with suppress(OSError):
            os.utime(self._path(key), ns=(now, now))

    def files(self) -> list[_File]:
        """Finished entries, the least recently used first."""
        return sorted(self._listed(f"*{_SUFFIX}"), key=lambda file: file.used)

    def _trim(self) -> None:
        files = self.files()
        total = sum(file.size for file in files)
        for file in files:
            if total <= self.budget:
                break
            with suppress(OSError):
                file.path.unlink(missing_ok=True)
                total -= file.size
        for file in self._listed(_PARTS):
            if time.time_ns() - file.used > ABANDONED_SECONDS * 10**9:
                with suppress(OSError):
                    file.path.unlink(missing_ok=True)

    def _listed(self, pattern: str) -> list[_File]:
        found = []
        # Another process may take a file, or the folder, away at any time.
        with suppress(OSError):
            for path in self.folder.glob(pattern):
                with suppress(OSError):
                    about = path.stat()
                    found.append(_File(about.st_mtime_ns, about.st_size, path))
        return found

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"


def _read(path: Path, key: str) -> Tensors:
    """`ValueError` or safetensors' own errors for a file that is not what was written under this key."""
    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    if (about.get("format"), about.get("key"), about.get("crc32")) != (FORMAT, key, _checksum(tensors)):
        raise ValueError("damaged, or of something else")
    return tensors


def _checksum(tensors: Tensors) -> str:
    """CRC-32 over names, types, shapes and values: against accidents, at the speed of reading."""
    total = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode(), total)
        total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"
