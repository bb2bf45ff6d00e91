"""Who is blamed for the end of a worker, with processes that only seem to be there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from stylus_daemon.supervisor import Supervisor
from stylus_daemon.worker_messages import Condition, Plan

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
