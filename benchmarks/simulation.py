"""A batch on many workers, simulated from measured seconds: a queue of packs, workers, and the one who writes stems.

The coordinator does what `run.Batch` does with its crew: it hears of one finished pack after the other, gives that
worker the next one, and writes the stems. The queue is that of the processes of a machine, or that of a cluster.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Generator, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import simpy

from stylus_audio.batch.crew import Waiting, Warm, warm
from stylus_audio.batch.packs import Pack
from stylus_audio.batch.plan import PACK_CLIPS

Steps = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Figures:
    """What was measured, in seconds and bytes.

    `packs` are those of a worker for each full pack whose style is warm. `start` is a worker's process until it could
    begin, `style` the preparation of one, `publish` the coordinator's for a stem.
    """

    packs: tuple[float, ...]
    start: float
    style: float
    publish: float
    clip_bytes: int = 0
    stem_bytes: int = 0


@dataclass(frozen=True)
class Load:
    """So many clips in each of so many styles."""

    clips: int
    styles: int

    @property
    def stems(self) -> int:
        """All that are wanted."""
        return self.clips * self.styles

    def packs(self) -> list[Pack]:
        """As the plan has them: those of a style together."""
        made: list[Pack] = []
        for style in range(self.styles):
            for first in range(0, self.clips, PACK_CLIPS):
                count = min(PACK_CLIPS, self.clips - first)
                made.append(Pack(len(made), ("clip",) * count, (".wav",) * count, ((f"style {style}", "style"),)))
        return made


SLOW_TIMES = 4.0
"""How many times as long as others a slow pack takes, in the middle."""


@dataclass(frozen=True)
class Conditions:
    """What goes wrong, and the network.

    `deaths` are those of a worker in an hour of work. A share `slow` of packs takes longer, lognormal: half of them
    over four times as long, and a sixth over 1.65 times that. A link carries `bandwidth` bytes a second; infinite: a
    disk that all share. `in_order` is the queue of a cluster, where a worker's next pack may be of any style.
    """

    in_order: bool = False
    bandwidth: float = float("inf")
    deaths: float = 0.0
    slow: float = 0.0
    seed: int = 0


@dataclass
class Spent:
    """Seconds of all workers together, by what they were spent on."""

    work: float = 0.0
    start: float = 0.0
    style: float = 0.0
    transfer: float = 0.0
    lost: float = 0.0
    """What workers that died had begun."""
    coordinator: float = 0.0
    """Waiting until it had time to hear of a pack."""
    idle: float = 0.0
    """There was no pack left."""

    @property
    def total(self) -> float:
        """All of it."""
        return float(sum(asdict(self).values()))


@dataclass(frozen=True)
class Outcome:
    """What came of a simulated batch: its seconds, and how often each pack's stems were written."""

    workers: int
    stems: int
    seconds: float
    spent: Spent
    prepared: int
    """Styles, by all workers together."""
    deaths: int
    written: Counter[int]

    @property
    def stems_an_hour(self) -> float:
        """Over the whole run."""
        return 3600 * self.stems / self.seconds

    @property
    def efficiency(self) -> float:
        """The share of the workers' time in which stems were rendered."""
        return self.spent.work / self.spent.total


class InOrder:
    """As `crew.Waiting`, for who takes the next pack whatever it is, as `cluster.Cluster` has it."""

    def __init__(self, packs: Iterable[Pack]) -> None:
        self._packs = deque(packs)

    def take(self, own: Warm | None, others: Collection[Warm | None]) -> Pack | None:
        """The next."""
        return self._packs.popleft() if self._packs else None

    def give_back(self, pack: Pack) -> None:
        """It is the next one again."""
        self._packs.appendleft(pack)


@dataclass(eq=False)
class _Worker:
    started: bool = False
    warm: Warm | None = None
    needs: Warm | None = None
    free_since: float = 0.0


@dataclass
class _Run:
    figures: Figures
    conditions: Conditions
    packs: list[Pack]
    workers: list[_Worker]
    env: simpy.Environment = field(default_factory=simpy.Environment)
    spent: Spent = field(default_factory=Spent)
    prepared: int = 0
    deaths: int = 0
    written: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.waiting = (InOrder if self.conditions.in_order else Waiting)(self.packs)
        self.link = _seconds_of_a_link(self.figures, self.conditions)
        self.done = simpy.Store(self.env)
        self.busy: Counter[Warm | None] = Counter()
        self.rng = np.random.default_rng(self.conditions.seed)
        # Of each pack, whoever renders it and however often.
        self.seconds = self.rng.choice(self.figures.packs, len(self.packs))
        late = self.rng.random(len(self.packs)) < self.conditions.slow
        factors = SLOW_TIMES * self.rng.lognormal(0, 0.5, len(self.packs))
        self.seconds = np.where(late, self.seconds * np.maximum(1.0, factors), self.seconds)

    def coordinate(self) -> Steps:
        free = list(self.workers)
        while True:
            free = [worker for worker in free if not self.give(worker)]
            if len(free) == len(self.workers):
                return
            ready = [(yield self.done.get()), *self.done.items]
            self.done.items.clear()
            for worker, pack, died in ready:
                self.hear(worker)
                if died:
                    self.waiting.give_back(pack)
                if not self.give(worker):
                    free.append(worker)
                if not died:
                    yield self.env.timeout(len(pack.contents) * (self.figures.publish + self.link))
                    self.written[pack.number] += 1

    def hear(self, worker: _Worker) -> None:
        self.busy[worker.needs] -= 1
        if not self.busy[worker.needs]:
            del self.busy[worker.needs]
        self.spent.coordinator += self.env.now - worker.free_since
        worker.free_since = self.env.now

    def give(self, worker: _Worker) -> bool:
        pack = self.waiting.take(worker.warm, self.busy.keys())
        if pack is None:
            return False
        self.spent.idle += self.env.now - worker.free_since
        worker.needs = warm(pack)
        self.busy[worker.needs] += 1
        self.env.process(self.render(worker, pack))
        return True

    def render(self, worker: _Worker, pack: Pack) -> Steps:
        figures, needs = self.figures, worker.needs
        share = len(pack.contents) / PACK_CLIPS
        steps = {
            "start": 0.0 if worker.started else figures.start,
            "style": 0.0 if worker.warm == needs else figures.style,
            "transfer": len(pack.contents) * self.link,
            "work": float(self.seconds[pack.number]) * share,
        }
        lives = float(self.rng.exponential(3600 / self.conditions.deaths)) if self.conditions.deaths else float("inf")
        seconds = sum(steps.values())
        died = lives < seconds
        yield self.env.timeout(min(lives, seconds))
        if died:
            self.deaths += 1
            self.spent.lost += lives
            worker.started, worker.warm = False, None
        else:
            self.prepared += steps["style"] > 0
            for what, taken in steps.items():
                setattr(self.spent, what, getattr(self.spent, what) + taken)
            worker.started, worker.warm = True, needs
        worker.free_since = self.env.now
        self.done.put((worker, pack, died))


def simulate(figures: Figures, load: Load, workers: int, conditions: Conditions | None = None) -> Outcome:
    """A batch on so many workers; the same seed gives the same packs the same seconds, however many workers there are.

    >>> even = Figures((16.0,), start=4.0, style=1.0, publish=0.0)
    >>> simulate(even, Load(clips=64, styles=1), 2).seconds
    37.0
    """
    run = _Run(figures, conditions or Conditions(), load.packs(), [_Worker() for _ in range(workers)])
    run.env.process(run.coordinate())
    run.env.run()
    seconds = run.env.now
    run.spent.idle += sum(seconds - worker.free_since for worker in run.workers)
    return Outcome(workers, load.stems, seconds, run.spent, run.prepared, run.deaths, run.written)


def ceiling(figures: Figures, conditions: Conditions) -> float:
    """Stems an hour that no number of workers exceeds: the coordinator takes so long for each.

    >>> round(ceiling(Figures((1.0,), 0.0, 0.0, publish=0.01), Conditions()))
    360000
    """
    taken = figures.publish + _seconds_of_a_link(figures, conditions)
    return 3600 / taken if taken else float("inf")


def _seconds_of_a_link(figures: Figures, conditions: Conditions) -> float:
    """For a clip and its stem."""
    return (figures.clip_bytes + figures.stem_bytes) / conditions.bandwidth
