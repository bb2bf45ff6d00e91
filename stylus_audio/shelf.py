"""Where tensors wait until they are read again: in memory up to a budget, beyond it in files that go with the shelf."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .places import roomy_folder
from .scratch import SPARE_BYTES

Tensors = Mapping[str, Tensor]


class Shelf:
    """Keeps named tensors for one run; a context manager, at whose end the files are gone.

    `left` is what is left of the bytes that may stay in memory, of whatever device the tensors are on. What goes to the
    disk may take up to `hands` bytes until it is put there; 0 where nothing shall go there.
    """

    def __init__(self, left: int, hands: int) -> None:
        self.left, self.hands = left, hands
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def __enter__(self) -> Shelf:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def takes(self, size: int) -> bool:
        """Whether so many bytes, made at once, find room."""
        return size <= self.left or (size <= self.hands and self._free() >= size + SPARE_BYTES)

    def _free(self) -> int:
        return shutil.disk_usage(self._folder.name if self._folder else roomy_folder()).free

    def put(self, tensors: Tensors) -> Callable[[], Tensors]:
        """Keep tensors; the result gives them back, equal to the bit and on their device, while the shelf lasts."""
        size = sum(tensor.nbytes for tensor in tensors.values())
        if self.hands and size > self.left:
            # A disk that has filled up meanwhile costs memory, not the render.
            with suppress(OSError, SafetensorError):
                return self._filed(tensors)
        self.left -= size
        return lambda: tensors

    def _filed(self, tensors: Tensors) -> Callable[[], Tensors]:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="stylus-", dir=roomy_folder(), ignore_cleanup_errors=True)
        self._files += 1
        file = Path(self._folder.name) / f"{self._files}.safetensors"
        device = next(iter(tensors.values())).device if tensors else torch.device("cpu")
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
        except (OSError, SafetensorError):
            # What there is of it takes room that the stem may need.
            file.unlink(missing_ok=True)
            raise
        return partial(load_file, file, device=str(device))
