"""Short clips that the daemon renders together: real daemon, real worker processes, real kills."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import soundfile
from stylus_daemon.client import Client
from stylus_daemon.jobs import Job, Jobs
from stylus_daemon.osc_messages import Argument

from tests.daemons import Daemon, until
from tests.sounds import RATE, plucks

LONG = 400
"""Steps of a job that does not end while something is done to it."""


class Trial:
    """A daemon that batches, and its queue."""

    def __init__(self, daemon: Daemon, jobs: Jobs) -> None:
        self.daemon, self.jobs = daemon, jobs
        for number in range(4):
            soundfile.write(daemon.folder / f"riff {number}.wav", plucks(0.3 + 0.1 * number).T, RATE)

    def ask(self, clip: str, *options: Argument, steps: int = 2) -> int:
        with Client(self.daemon.port) as client:
            said = client.ask("/stylus/render", str(self.daemon.folder / clip), self.daemon.style, "steps", steps,
                              *options)  # fmt: skip
        return int(str(said[0]))

    def together(self, steps: int = 2) -> list[int]:
        """Jobs that all wait when the worker comes to them, and are claimed at once."""
        before = self.ask("clip.wav", "keep", 0.1, steps=1000)
        until(lambda: self.jobs.get(before).state == "running")
        numbers = [self.ask(f"riff {number}.wav", "bits", "32f", steps=steps) for number in range(4)]
        self.jobs.cancel(before)
        return numbers

    def states(self, numbers: list[int]) -> list[str]:
        return [self.jobs.get(number).state for number in numbers]

    def running(self) -> list[Job]:
        return self.jobs.listed("running")

    def stems(self) -> list[str]:
        return sorted(path.name for path in self.daemon.folder.glob("riff ?_*.wav"))


@pytest.fixture
def trial(tmp_path: Path, tiny_folder: Path) -> Iterator[Trial]:
    daemon = Daemon(tmp_path, tiny_folder, "--batch-size", "16")
    with closing(daemon.jobs()) as jobs:
        yield Trial(daemon, jobs)
    daemon.end()


@pytest.mark.slow
def test_a_more_urgent_job_is_rendered_next_and_a_cancelled_one_leaves_the_others_be(trial: Trial) -> None:
    numbers = trial.together(LONG)
    until(lambda: trial.states(numbers) == ["running"] * 4)
    later = [trial.ask(f"riff {number}.wav", "name", "later {content}", steps=40) for number in range(4)]
    urgent = trial.ask("clip.wav", "name", "urgent")
    with Client(trial.daemon.port) as client:
        client.ask("/stylus/job/priority", urgent, 5)
        client.ask("/stylus/job/cancel", numbers[1])
    until(lambda: trial.states(numbers) == ["done", "cancelled", "done", "done"])
    until(lambda: not trial.jobs.count("queued", "running"))
    assert trial.states([urgent, *later]) == ["done"] * 5
    ended = {number: trial.jobs.get(number).changed for number in (*numbers, urgent, *later)}
    assert max(ended[number] for number in numbers) < ended[urgent] < min(ended[number] for number in later)
    assert trial.stems() == [f"riff {number}_style.wav" for number in (0, 2, 3)]
    assert not trial.daemon.unfinished()


@pytest.mark.slow
def test_under_a_killed_worker_each_of_a_batch_is_struck_once_and_then_tried_alone(trial: Trial) -> None:
    numbers = trial.together(LONG)
    until(lambda: trial.states(numbers) == ["running"] * 4 and all(job.stage for job in trial.running()))
    for worker in trial.daemon.workers():
        worker.kill()
    assert trial.stems() == []
    # One of them alone, which it dies under again.
    until(lambda: [job.attempts for job in trial.running()] == [2])
    (doomed,) = (job.id for job in trial.running())
    assert doomed == numbers[0]
    for worker in trial.daemon.workers():
        worker.kill()
    until(lambda: trial.states(numbers) == ["failed", "done", "done", "done"])
    assert trial.jobs.get(doomed).message == "the worker died 2 times under this job"
    assert [trial.jobs.get(number).attempts for number in numbers] == [2] * 4
    assert trial.stems() == [f"riff {number}_style.wav" for number in (1, 2, 3)]
    for number in (1, 2, 3):
        stem, clip = (trial.daemon.folder / f"riff {number}{end}.wav" for end in ("_style", ""))
        assert soundfile.info(stem).frames == soundfile.info(clip).frames
        assert stem.with_suffix(".json").is_file()
    assert not trial.daemon.unfinished()


@pytest.mark.slow
def test_a_killed_daemon_goes_on_with_the_batch(trial: Trial) -> None:
    numbers = trial.together(40)
    until(lambda: trial.states(numbers) == ["running"] * 4)
    trial.daemon.kill()
    trial.daemon.start()
    until(lambda: trial.states(numbers) == ["done"] * 4)
    assert [trial.jobs.get(number).attempts for number in numbers] == [1] * 4
    assert trial.stems() == [f"riff {number}_style.wav" for number in range(4)]
    assert not trial.daemon.unfinished()
