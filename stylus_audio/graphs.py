"""CUDA graphs: work on tensors of fixed shapes, recorded once and launched as one, where launching takes the time."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from .memory import MANY, free_bytes

log = logging.getLogger(__name__)

Work = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Named tensors in, named tensors out; nothing in between may wait for the device."""

KEPT = 12
"""Graphs to keep, each with its inputs and outputs: some sizes of a batch, inverted, sampled and led back."""
KEPT_BYTES = 4 * 2**30
"""What these may take together: with 16 windows' queries, keys and values one has 0.6 GB."""

MOST_ROWS = MANY
"""Windows of a pass up to which it is captured: with as many as there are its launches still take longer than its
arithmetic (docs/performance.md)."""

ROOM = 8
"""So many times what a graph's inputs and outputs take has to be free, for those and what is in between."""


class Captured(Protocol):
    """Work that can be done again on other tensors of the same shapes; its results hold until the next time."""

    def __call__(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]: ...


@dataclass
class _Kept:
    """Bytes of inputs and outputs of some work, and its graph once it is captured."""

    size: int
    captured: Captured | None = None


class Graphs:
    """Does work, and the second time that it comes with the same key and shapes, captures it (`capture`).

    The first time warms up what may not happen in a capture. While there is no room for one, work is done plainly;
    where a capture fails otherwise, all work from then on. For one thread at a time, and for as long as the weights
    that the work uses stay in place.
    """

    def __init__(self, capture: Callable[[Work, Mapping[str, Tensor]], Captured], most_rows: int = MOST_ROWS) -> None:
        self._capture, self.most_rows = capture, most_rows
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._room = ROOM

    def __call__(self, key: Hashable, work: Work, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What `work(tensors)` gives, in tensors of the caller's own.

        `key` says all that the work depends on beside the tensors, whose first has a row for each window.
        """
        if len(next(iter(tensors.values()))) > self.most_rows:
            return work(tensors)
        whole = (key, tuple((name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()))
        if whole not in self._kept:
            made = work(tensors)
            size = sum(tensor.nbytes for tensor in (*tensors.values(), *made.values()))
            self._kept[whole] = _Kept(size)
            self._bound()
            return made
        self._kept.move_to_end(whole)
        kept = self._kept[whole]
        if kept.captured is None:
            device = next(iter(tensors.values())).device
            if self._room * kept.size <= free_bytes(device):
                kept.captured = self._captured(work, tensors)
            if kept.captured is None:
                return work(tensors)
            self._bound()
        return {name: tensor.clone() for name, tensor in kept.captured(tensors).items()}

    def _captured(self, work: Work, tensors: Mapping[str, Tensor]) -> Captured | None:
        try:
            return self._capture(work, tensors)
        except torch.OutOfMemoryError:
            # Those that there are take what the work itself may need.
            self._room *= 2
            reason = f"no room for a graph of {len(next(iter(tensors.values())))} windows"
        except RuntimeError as error:
            self.most_rows = 0
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        log.warning("no CUDA graphs: %s", reason)
        self.clear()
        return None

    def _bound(self) -> None:
        """Let go of the least recently used, where there are too many or too large ones; the last one stays."""
        while len(self._kept) > KEPT or (self._bytes() > KEPT_BYTES and len(self._kept) > 1):
            self._kept.popitem(last=False)

    def _bytes(self) -> int:
        return sum(kept.size for kept in self._kept.values() if kept.captured is not None)

    def clear(self) -> None:
        """Give the memory of all of them back."""
        self._kept.clear()


def cuda_graphs(most_rows: int = MOST_ROWS) -> Graphs:
    """Of one CUDA device.

    They share the memory of what is in between: one at a time runs, and its results are copied before the next.
    """
    return Graphs(partial(CudaGraph, pool=torch.cuda.graph_pool_handle()), most_rows)


class CudaGraph:
    """Work captured on the CUDA device of its tensors."""

    def __init__(self, work: Work, tensors: Mapping[str, Tensor], pool: Any) -> None:
        self._inputs = {name: tensor.clone() for name, tensor in tensors.items()}
        self._graph = torch.cuda.CUDAGraph()
        self._device = next(iter(tensors.values())).device
        self._done: torch.cuda.Event | None = None
        with torch.cuda.device(self._device):
            # A capture that fails may leave its own stream behind as the current one.
            here = torch.cuda.stream(torch.cuda.current_stream())
            # Other threads may use the device meanwhile.
            with here, torch.cuda.graph(self._graph, pool, capture_error_mode="thread_local"):
                self._outputs = work(self._inputs)

    def __call__(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Copy in, launch; one launch may wait behind the one that runs, so that who counts passes is not far ahead."""
        before, self._done = self._done, torch.cuda.Event()  # type: ignore[no-untyped-call]
        for name, tensor in tensors.items():
            self._inputs[name].copy_(tensor, non_blocking=True)
        with torch.cuda.device(self._device):
            self._graph.replay()
            self._done.record()
        if before is not None:
            before.synchronize()
        return self._outputs
