"""Processes of this machine that render packs: one for each GPU, or some that share the CPU's cores."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from ..errors import BadRequest, Internal
from ..files import undisturbed_children, uninterrupted
from .packs import Done, Pack, Place, failures

DEATHS = 2
"""After so many deaths of workers over a pack it is the pack's fault."""

WORKER_BYTES = {"mini": 3 * 2**29, "mini-injection": 3 * 2**29}
"""Memory of a worker on the CPU, by model; `LARGE` for others."""
LARGE = 8 * 2**30

Warm = tuple[str, str, tuple[tuple[str, str], ...]]
"""What a worker has warm: a model, its dtype, and styles."""


def places(device: str, workers: int | None, models: Collection[str], cache: Path | None) -> list[Place]:
    """Where the workers of this machine compute; raises `BadRequest` for more of them than there are GPUs.

    On a CPU a worker has its share of the cores, however many there are: one, but for models too large for so many.
    """
    cores = psutil.cpu_count(logical=False) or 1
    kind, count = _devices() if device in ("auto", "cuda") else (device, 1)
    if kind == "cpu":
        need = max((WORKER_BYTES.get(model or "mini", LARGE) for model in models), default=1)
        memory = psutil.virtual_memory()
        # Of the machine and not of the moment: stems may differ in their last bits with the number of threads.
        most = max(1, min(cores, memory.total // need))
        number = workers or max(1, min(most, memory.available // need))
        return [Place("cpu", cores // most, cache)] * number
    if workers is not None and workers > count:
        raise BadRequest(f"workers: {workers} is more than one for each GPU, of which there are {count}")
    chosen = workers or count
    names = [f"cuda:{number}" for number in range(chosen)] if kind == "cuda" else [kind]
    return [Place(name, max(1, cores // chosen), cache) for name in names]


_TOOLS = ("nvidia-smi", "rocm-smi", "amd-smi", "tegrastats")
"""What comes with the driver of a GPU that PyTorch calls CUDA."""


def _devices() -> tuple[str, int]:
    """What "auto" means here, and how many there are; asked in a process of its own, as PyTorch is large."""
    if sys.platform != "darwin" and not any(map(shutil.which, _TOOLS)):
        return "cpu", 1
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with undisturbed_children():
            found = pool.submit(_found)
        return found.result()


def _found() -> tuple[str, int]:
    import torch

    if torch.cuda.is_available():
        return "cuda", torch.cuda.device_count()
    return ("mps" if torch.backends.mps.is_available() else "cpu"), 1


class Processes:
    """A `Crew` of processes, started when there is work and again when one dies."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._seats = [_Seat(place) for place in places]

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self._seats)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            for seat in self._seats:
                seat.end()

    def work(self, packs: Iterable[Pack]) -> Iterator[Done]:
        """Every pack once; a worker goes on with the styles that it has warm while there is work with them.

        Raises `Internal` where workers do nothing but die.
        """
        waiting = Waiting(packs)
        deaths: dict[int, int] = {}
        in_a_row = 0
        while True:
            for seat in self._seats:
                self._give(seat, waiting)
            busy = [seat for seat in self._seats if seat.pack]
            if not busy:
                return
            ready = set(wait([seat.pipe for seat in busy if seat.pipe]))
            for seat in [one for one in busy if one.pipe in ready]:
                done = seat.finished()
                if done is not None:
                    in_a_row = 0
                    # Work goes on while its stems are written.
                    self._give(seat, waiting)
                    yield done
                elif pack := seat.bereave():
                    in_a_row += 1
                    if in_a_row > DEATHS * (1 + len(self._seats)):
                        raise Internal("workers die one after the other; what they said stands above")
                    deaths[pack.number] = deaths.get(pack.number, 0) + 1
                    if deaths[pack.number] < DEATHS:
                        waiting.give_back(pack)
                    else:
                        message = f"the worker died {DEATHS} times over this clip"
                        yield Done(pack, failures(pack, Internal.code, message), 0.0)

    def _give(self, seat: _Seat, waiting: Waiting) -> None:
        """The next pack, where it has none and there is one."""
        if seat.pack is None and (pack := waiting.take(seat.warm, [one.warm for one in self._seats if one.pack])):
            seat.begin(pack)


class Waiting:
    """Packs that nobody has begun, by what they need warm."""

    def __init__(self, packs: Iterable[Pack]) -> None:
        self._by: OrderedDict[Warm, deque[Pack]] = OrderedDict()
        for pack in packs:
            self._by.setdefault(warm(pack), deque()).append(pack)

    def take(self, own: Warm | None, others: Collection[Warm | None]) -> Pack | None:
        """The next with what a worker has warm; else of what nobody has; else of what most is left of."""
        if not self._by:
            return None
        free = next((key for key in self._by if key not in others), None)
        key = own if own in self._by else free or max(self._by, key=lambda one: len(self._by[one]))
        assert key is not None
        pack = self._by[key].popleft()
        if not self._by[key]:
            del self._by[key]
        return pack

    def give_back(self, pack: Pack) -> None:
        self._by.setdefault(warm(pack), deque()).appendleft(pack)


def warm(pack: Pack) -> Warm:
    """What a pack is quick with where it is there already."""
    return pack.model, pack.dtype, pack.styles


class _Seat:
    """One worker's place, and the process that is in it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.pack: Pack | None = None
        self.warm: Warm | None = None
        self.pipe: Connection | None = None
        self._process: BaseProcess | None = None
        self._begun = 0.0

    def begin(self, pack: Pack) -> None:
        if self._process is None or self.pipe is None:
            self._start()
        assert self.pipe is not None
        self.pack, self.warm, self._begun = pack, warm(pack), time.monotonic()
        # A worker that is just dying shows when it is listened to.
        with suppress(OSError):
            self.pipe.send(pack)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(self.place, other), daemon=True)
        with _environment(self.place.environment), undisturbed_children():
            self._process.start()
        other.close()

    def finished(self) -> Done | None:
        """What the worker says of its pack; None where it has died."""
        assert self.pipe is not None
        try:
            outcomes = self.pipe.recv()
        except (EOFError, OSError):
            return None
        pack, self.pack = self.pack, None
        assert pack is not None
        return Done(pack, outcomes, time.monotonic() - self._begun)

    def bereave(self) -> Pack | None:
        """Take a dead worker's pack, and leave its place empty."""
        pack, self.pack, self.warm = self.pack, None, None
        self.end()
        return pack

    def end(self) -> None:
        if self._process is not None:
            # It has nothing that is not done again.
            self._process.kill()
            self._process.join()
        if self.pipe is not None:
            self.pipe.close()
        self.pipe = self._process = None


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _serve(place: Place, pipe: Connection) -> None:
    """In the new process: render what comes until nobody asks any more."""
    from .renderer import Renderer

    renderer = Renderer(place)
    with suppress(EOFError, OSError):
        while True:
            pack: Pack = pipe.recv()
            pipe.send(renderer.render(pack, {}))
