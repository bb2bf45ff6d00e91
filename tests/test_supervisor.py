"""Who is blamed for the end of a worker, with processes that only seem to be there; a real one that is stuck."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest
from stylus_daemon.supervisor import Supervisor
from stylus_daemon.worker_messages import Condition, Plan

from tests.daemons import until

PLAN = Plan("w", Path("jobs"), Path(), "mini", "cpu", ())


class Process:
    """Says a word, or none, and is dead."""

    pid, exitcode = 1, -9

    def __init__(self, plan: Plan, pipe: Connection, speaks: bool) -> None:
        self.plan, self._pipe, self._speaks = plan, pipe, speaks

    def start(self) -> None:
        if self._speaks:
            self._pipe.send(Condition("idle", "mini", "cpu", (), 0, 0, 0))

    def is_alive(self) -> bool:
        return False


class Context:
    """Makes such processes, and keeps what each was told."""

    Pipe = staticmethod(multiprocessing.Pipe)

    def __init__(self, speaks: list[bool]) -> None:
        self._speaks, self.told = iter(speaks), list[bool]()

    def Process(  # noqa: N802  # multiprocessing's name
        self, target: Callable[..., None], args: tuple[Plan, Connection], **_: object
    ) -> Process:
        self.told.append(args[0].blamed)
        return Process(*args, next(self._speaks))


@pytest.mark.parametrize(
    ("speaks", "told"),
    [([True, True, True], [False, True, True]), ([False, False, True, False], [False, False, False, True])],
)
def test_only_a_worker_that_has_spoken_is_blamed(
    monkeypatch: pytest.MonkeyPatch, speaks: list[bool], told: list[bool]
) -> None:
    context = Context(speaks)
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)
    hours = iter(range(0, 10**6, 3600))
    supervisor = Supervisor([PLAN], clock=lambda: next(hours))
    for _ in range(2 * len(speaks)):
        supervisor.tick()
    assert context.told == told


def stuck(plan: Plan, pipe: Connection) -> None:
    """A worker that says what it is, by its plan's name, and nothing from then on but when it is told something."""
    while True:
        pipe.send(Condition(plan.name, plan.model, plan.device, (), 0, 0, 0))
        pipe.recv()


@pytest.mark.parametrize(("state", "again"), [("rendering", True), ("loading", True), ("idle", False)])
def test_a_worker_that_does_not_move_is_started_again(monkeypatch: pytest.MonkeyPatch, state: str, again: bool) -> None:
    monkeypatch.setattr("stylus_daemon.supervisor._live", stuck)
    now = [0.0]
    supervisor = Supervisor([replace(PLAN, name=state)], stall=600, clock=lambda: now[0])
    try:
        until(lambda: bool(supervisor.tick()))
        (first,) = supervisor.processes
        # What it is told it answers if it still lives; a new one speaks by itself.
        now[0] = 599
        supervisor.tick()
        supervisor.choose("mini")
        until(lambda: bool(supervisor.tick()))
        assert supervisor.processes == [first]
        now[0] += 601
        supervisor.tick()
        if not again:
            supervisor.choose("mini")
        until(lambda: bool(supervisor.tick()))
        (second,) = supervisor.processes
        assert (second != first) == again
        assert psutil.pid_exists(first) != again
    finally:
        supervisor.stop(0)
    assert not psutil.pid_exists(second)
