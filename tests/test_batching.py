"""Which waiting jobs go together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stylus_daemon import batching
from stylus_daemon.jobs import Jobs
from stylus_daemon.request import RenderJob, with_options

SECONDS = {"a": 1.0, "a.wav": 1.0, "b": 1.0, "c": 1.0, "tall": 9.0, "long": 600.0, "unreadable": None}


class Queue:
    """A queue of which the first job is claimed by one of some workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs = Jobs(folder / "jobs.sqlite")

    def ask(self, clip: str = "a", *, style: str = "style", priority: int = 0, **options: Any) -> int:
        request = with_options(self.folder / clip, [(self.folder / style, style)], options)
        return self.jobs.submit(replace(request, folder=str(self.folder)).to_dict(), priority=priority).id

    def company(self, size: int = 16, workers: int = 1) -> list[int]:
        """Claims the next; what goes with it."""
        first = self.jobs.claim("w", 30)
        assert first is not None
        if not batching.can_share(first):
            return []
        waiting = self.jobs.untried(first.priority)
        numbers = batching.companions(first, waiting, size, workers, _seconds)
        return [job.id for job in self.jobs.join(first, numbers, 30)]


def _seconds(request: RenderJob) -> float | None:
    return SECONDS[Path(request.content).name]


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    one = Queue(tmp_path)
    yield one
    one.jobs.close()


def test_jobs_that_differ_in_clip_and_stem_alone_go_together(queue: Queue) -> None:
    queue.ask(keep=0.2)
    alike = [queue.ask("b", keep=0.2), queue.ask("c", keep=0.2, name="other", sidecar="none", overwrite=True)]
    for other in ({"keep": 0.3}, {"keep": 0.2, "model": "mini"}, {"keep": 0.2, "dtype": "float32"}):
        queue.ask("b", **other)
    queue.ask("b", style="another", keep=0.2)
    queue.ask("b", keep=0.2, priority=-1)
    assert queue.company() == alike
    assert queue.jobs.count("running") == 3


def test_a_batch_is_bounded_in_clips_and_seconds(queue: Queue) -> None:
    queue.ask("tall")
    alike = [queue.ask("tall") for _ in range(8)]
    assert queue.company() == alike[:5]
    assert queue.company(2) == alike[6:7]


def test_of_several_workers_each_takes_its_share(queue: Queue) -> None:
    numbers = [queue.ask() for _ in range(8)]
    assert queue.company(workers=2) == numbers[1:4]
    assert queue.company(workers=2) == numbers[5:6]


@pytest.mark.parametrize("clip", ["long", "unreadable"])
def test_long_clips_and_unreadable_ones_go_alone(queue: Queue, clip: str) -> None:
    queue.ask("a")
    queue.ask(clip)
    last = queue.ask("b")
    assert queue.company() == [last]
    queue.ask("c")
    assert queue.company() == []


@pytest.mark.parametrize("options", [{"preview": 2}, {"auto": 0.9}])
def test_what_depends_on_the_clip_goes_alone(queue: Queue, options: dict[str, Any]) -> None:
    for _ in range(2):
        queue.ask(**options)
    assert queue.company() == []


@pytest.mark.parametrize("kind", ["warm", "audition"])
def test_only_renders_go_together(queue: Queue, kind: Any) -> None:
    for _ in range(2):
        request = with_options(queue.folder / "a", [(queue.folder / "style", "style")], {})
        queue.jobs.submit(replace(request, kind=kind).to_dict())
    assert queue.company() == []


def test_under_which_a_worker_has_died_goes_alone(queue: Queue) -> None:
    struck = [queue.ask() for _ in range(3)]
    assert queue.company() == struck[1:]
    queue.jobs.expire("w")
    queue.jobs.recover(lambda _: False)
    queue.ask("b")
    for _ in struck:
        assert queue.company() == []
    assert [job.attempts for job in queue.jobs.listed("running")] == [2, 2, 2]


def test_a_clip_that_the_one_before_replaces_waits_for_it(queue: Queue) -> None:
    queue.ask("b", name="a", overwrite=True)
    queue.ask("a.wav")
    last = queue.ask("c")
    assert queue.company() == []
    assert queue.company() == [last]


def test_what_is_taken_or_turned_meanwhile_does_not_join(queue: Queue) -> None:
    queue.ask()
    numbers = [queue.ask("b") for _ in range(4)]
    first = queue.jobs.claim("w", 30)
    assert first is not None
    queue.jobs.cancel(numbers[0])
    queue.jobs.prioritise(numbers[1], 3)
    assert queue.jobs.claim("other", 30) is not None
    assert [job.id for job in queue.jobs.join(first, numbers, 30)] == numbers[2:]
    assert {job.worker for job in queue.jobs.listed("running") if job.id in numbers[2:]} == {"w"}
