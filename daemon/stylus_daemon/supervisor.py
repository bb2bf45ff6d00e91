"""Keeps the worker processes alive: one for each device, started again when it dies or stalls."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from stylus_audio.files import undisturbed_children

from .worker_messages import Condition, News, Plan, Progress

log = logging.getLogger(__name__)

STALL = 600.0
"""Seconds without a word from a rendering worker after which it is taken for stuck; one pass of a large model on a CPU
can take a minute."""
PATIENCE = (0.0, 1.0, 5.0, 30.0)
"""Seconds to wait before a worker is started again for the first, second, … time in a row without having come to work
or to rest."""
ASLEEP = 10.0
"""Seconds between two looks after which the machine has slept, or this process was held up: silence before that says
nothing."""


class Supervisor:
    """The workers of one daemon. `tick` looks after them and returns their news."""

    def __init__(
        self, plans: Sequence[Plan], stall: float = STALL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seats = [_Seat(plan, stall, clock) for plan in plans]

    @property
    def conditions(self) -> list[Condition]:
        """What each worker last said that it is."""
        return [seat.condition for seat in self._seats]

    @property
    def processes(self) -> list[int]:
        """Process numbers of the workers that live."""
        return [seat.process.pid for seat in self._seats if seat.process and seat.process.pid]

    def tick(self) -> list[News]:
        """Start what is missing, end what is stuck, and take what they have said since."""
        return [word for seat in self._seats for word in seat.tick()]

    def choose(self, model: str) -> None:
        """Have every worker load a model for the jobs that name none; one that cannot goes on with its own."""
        for seat in self._seats:
            seat.choose(model)

    def stop(self, seconds: float) -> None:
        """Ask all to end after their present step, and end those that have not after so long."""
        for seat in self._seats:
            seat.say("end")
        until = time.monotonic() + seconds
        for seat in self._seats:
            seat.end(max(0.0, until - time.monotonic()))


class _Seat:
    """One worker's place: the process that is in it now, and how to fill it again."""

    def __init__(self, plan: Plan, stall: float, clock: Callable[[], float]) -> None:
        self.plan, self._stall, self._clock = plan, stall, clock
        self.process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self.condition = Condition("starting", plan.model, plan.device, (), 0, 0, 0)
        self._chosen = ""
        """A model that no worker has begun to load yet."""
        self._failures = 0
        self._spoke = False
        self._due = self._heard = self._looked = clock()

    def tick(self) -> list[News]:
        news = self._listen()
        now = self._clock()
        if news or now - self._looked > ASLEEP:
            self._heard = now
        self._looked = now
        if self.process is None:
            if now >= self._due:
                self._start(now)
        elif not self.process.is_alive():
            log.error("worker %s ended with code %s", self.plan.name, self.process.exitcode)
            # Its last words say what it died of.
            news += self._listen()
            self._vacate(now)
        elif self.condition.state != "idle" and now - self._heard > self._stall:
            log.error("worker %s has not moved for %.0f s", self.plan.name, now - self._heard)
            self.process.kill()
        return news

    def _listen(self) -> list[News]:
        news: list[News] = []
        try:
            while self._pipe is not None and self._pipe.poll():
                news.append(self._pipe.recv())
        except (EOFError, OSError):
            pass  # it is dead, and the process says so
        for word in news:
            self._spoke = True
            if isinstance(word, Progress):
                moved = word.fraction > 0
            else:
                moved = word.state == "idle"
                self._heed(word)
            if moved:
                self._failures = 0
        return news

    def _heed(self, condition: Condition) -> None:
        """Take over what a worker is; a model is one for the next worker only when it has been loaded."""
        if condition.state == "loading" and condition.model == self._chosen:
            self._chosen = ""
        if condition.state == "idle" and self.condition.state == "loading":
            self.plan = replace(self.plan, model=condition.model, at_once=True)
        self.condition = condition

    def _start(self, now: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._heard, self._spoke = now, False
        try:
            self._pipe, other = context.Pipe()
            with other:
                process = context.Process(target=_live, args=(self.plan, other), name=self.plan.name, daemon=True)
                # A terminal's Ctrl-C is ours, who say when to end.
                with undisturbed_children():
                    process.start()
        except OSError as error:
            log.error("worker %s cannot be started: %s", self.plan.name, error)
            self._vacate(now)
            return
        self.process = process
        self.condition = replace(self.condition, state="starting")
        if self._chosen:
            self.say(self._chosen)

    def _vacate(self, now: float) -> None:
        if self._pipe is not None:
            self._pipe.close()
        self.process, self._pipe = None, None
        self._due = now + PATIENCE[min(self._failures, len(PATIENCE) - 1)]
        self._failures += 1
        # A worker that dies by itself has its job to answer for. One that we never had a word of has not begun one, nor
        # settled what was left to it: it may be the end of a daemon that a job was left by.
        self.plan = replace(self.plan, blamed=self.plan.blamed or self._spoke)
        if self.condition.state == "loading":
            # It may have died of that; the next one is there for jobs with another model.
            self.plan = replace(self.plan, at_once=False)
        self.condition = replace(self.condition, state="starting")

    def choose(self, model: str) -> None:
        self._chosen = model
        self.say(model)

    def say(self, word: str) -> None:
        try:
            if self._pipe is not None:
                self._pipe.send(word)
        except OSError:
            log.debug("worker %s does not listen", self.plan.name)

    def end(self, seconds: float) -> None:
        if self.process is None:
            return
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(5)
        self._listen()


def _live(plan: Plan, pipe: Connection) -> None:
    """In the new process: the engine's libraries are loaded there and not here."""
    # Threads that wait for another must sleep and not spin: a DAW or a browser wants the core. Read when the libraries
    # are loaded. Beside one busy process on two cores renders take half as long so, and a tenth longer alone.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from .worker import main

    main(plan, pipe)
