"""When a worker is started again, and who is blamed for its end, with processes that only seem to be there; real ones
that are stuck, or die of a model.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest
from stylus_daemon.supervisor import Supervisor
from stylus_daemon.worker_messages import Condition, News, Plan, Progress

from tests.daemons import until

PLAN = Plan("w", Path(), "mini", "cpu", ())


def being(state: str, model: str = "mini") -> Condition:
    return Condition(state, model, "cpu", (), 0, 0, 0)


class Process:
    """Says a word, or none, and is dead; or cannot be started."""

    pid, exitcode = 1, -9

    def __init__(self, plan: Plan, pipe: Connection, life: News | OSError | None) -> None:
        self.plan, self._pipe, self._life = plan, pipe, life

    def start(self) -> None:
        if isinstance(self._life, OSError):
            raise self._life
        if self._life:
            self._pipe.send(self._life)

    def is_alive(self) -> bool:
        return False


class Context:
    """Makes such processes, and keeps what each was told."""

    Pipe = staticmethod(multiprocessing.Pipe)

    def __init__(self, lives: Iterable[News | OSError | None]) -> None:
        self._lives, self.told = iter(lives), list[bool]()

    def Process(  # noqa: N802  # multiprocessing's name
        self, target: Callable[..., None], args: tuple[Plan, Connection], **_: object
    ) -> Process:
        self.told.append(args[0].blamed)
        return Process(*args, next(self._lives))


@pytest.mark.parametrize(
    ("speaks", "told"),
    [([True, True, True], [False, True, True]), ([False, False, True, False], [False, False, False, True])],
)
def test_only_a_worker_that_has_spoken_is_blamed(
    monkeypatch: pytest.MonkeyPatch, speaks: list[bool], told: list[bool]
) -> None:
    context = Context(being("idle") if one else None for one in speaks)
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)
    hours = iter(range(0, 10**6, 3600))
    supervisor = Supervisor([PLAN], clock=lambda: next(hours))
    for _ in range(2 * len(speaks)):
        supervisor.tick()
    assert context.told == told


@pytest.mark.parametrize(
    ("life", "starts"),
    [
        (being("idle"), [0, 2, 4, 6, 8, 10, 12, 14]),
        (Progress(1, 0.1, "diffusion", None), [0, 2, 4, 6, 8, 10, 12, 14]),
        (being("loading"), [0, 2, 4, 10, 41, 72]),
        (Progress(1, 0.0, "reading", None), [0, 2, 4, 10, 41, 72]),
        (None, [0, 2, 4, 10, 41, 72]),
        (OSError(errno.EAGAIN, "no more processes"), [0, 1, 2, 7, 37, 67]),
    ],
)
def test_who_comes_neither_to_work_nor_to_rest_is_started_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, life: News | OSError | None, starts: list[int]
) -> None:
    context = Context([life] * len(starts))
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)
    now = [0]
    supervisor = Supervisor([PLAN], clock=lambda: now[0])
    started = []
    for second in range(starts[-1] + 1):
        now[0] = second
        before = len(context.told)
        supervisor.tick()
        started += [second] * (len(context.told) - before)
    assert started == starts


def test_what_could_not_be_started_needs_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: Context([OSError(errno.ENOMEM, "no memory")]))
    supervisor = Supervisor([PLAN])
    assert supervisor.tick() == []
    assert supervisor.processes == []
    supervisor.stop(0)


def loader(plan: Plan, pipe: Connection) -> None:
    """A worker that loads what it is told to; one model is damaged, and of one it dies."""
    if plan.at_once:
        pipe.send(being("loading", plan.model))
    pipe.send(being("idle", plan.model))
    while (word := pipe.recv()) != "end":
        pipe.send(being("loading", word))
        if word == "fatal":
            os._exit(1)
        pipe.send(being("idle", plan.model if word == "damaged" else word))


def test_a_worker_is_started_with_what_has_been_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylus_daemon.supervisor._live", loader)
    supervisor = Supervisor([PLAN])
    said: list[tuple[str, str]] = []

    def heard(number: int) -> bool:
        said.extend((word.state, word.model) for word in supervisor.tick() if isinstance(word, Condition))
        return len(said) == number

    try:
        # Nobody is there yet to be told.
        supervisor.choose("good")
        until(lambda: heard(4))
        psutil.Process(*supervisor.processes).kill()
        until(lambda: heard(6))
        supervisor.choose("damaged")
        until(lambda: heard(8))
        supervisor.choose("fatal")
        until(lambda: heard(10))
    finally:
        supervisor.stop(0)
    models = ["mini", "mini", "good", "good", "good", "good", "damaged", "good", "fatal", "good"]
    assert [model for _, model in said] == models
    # One that may have died of a model does not begin with one.
    assert [state for state, _ in said] == ["loading", "idle"] * 5


def stuck(plan: Plan, pipe: Connection) -> None:
    """A worker that says what it is, by its plan's name, and nothing from then on but when it is told something."""
    while True:
        pipe.send(being(plan.name))
        pipe.recv()


@pytest.mark.parametrize(("state", "again"), [("rendering", True), ("loading", True), ("idle", False)])
def test_a_worker_that_does_not_move_is_started_again(monkeypatch: pytest.MonkeyPatch, state: str, again: bool) -> None:
    monkeypatch.setattr("stylus_daemon.supervisor._live", stuck)
    now = [0.0]
    supervisor = Supervisor([replace(PLAN, name=state)], stall=600, clock=lambda: now[0])

    def wait(seconds: int) -> None:
        for _ in range(seconds):
            now[0] += 1
            supervisor.tick()

    try:
        until(lambda: bool(supervisor.tick()))
        (first,) = supervisor.processes
        # What it is told it answers if it still lives; a new one speaks by itself.
        wait(599)
        supervisor.choose("mini")
        until(lambda: bool(supervisor.tick()))
        assert supervisor.processes == [first]
        # The machine sleeps for a night.
        now[0] += 30_000
        wait(600)
        supervisor.choose("mini")
        until(lambda: bool(supervisor.tick()))
        assert supervisor.processes == [first]
        wait(601)
        if not again:
            supervisor.choose("mini")
        until(lambda: bool(supervisor.tick()))
        (second,) = supervisor.processes
        assert (second != first) == again
        assert psutil.pid_exists(first) != again
    finally:
        supervisor.stop(0)
    assert not psutil.pid_exists(second)
