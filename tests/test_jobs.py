"""The queue: states, leases, what is the same request, and what a crash leaves."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from stylus_daemon.jobs import Job, Jobs, LostLease, State

from stylus_audio.errors import BadRequest, Busy, NotAllowed, NotFound

REQUEST = {"content": "a.wav"}


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(tmp_path: Path, clock: Clock) -> Jobs:
    return Jobs(tmp_path / "jobs.sqlite", limit=4, clock=clock)


def claimed(jobs: Jobs, worker: str = "w") -> Job:
    job = jobs.claim(worker, 30)
    assert job is not None
    return job


def never(_: Job) -> bool:
    return False


def test_a_job_goes_through_its_states(jobs: Jobs) -> None:
    taken = jobs.submit(REQUEST)
    assert (taken.state, taken.request, taken.attempts) == ("queued", REQUEST, 0)
    running = claimed(jobs)
    assert (running.id, running.state, running.attempts) == (taken.id, "running", 1)
    jobs.heartbeat(running, 30, 0.5, "diffusion")
    assert (jobs.get(taken.id).fraction, jobs.get(taken.id).stage) == (0.5, "diffusion")
    jobs.done(running, "x.wav", "abc", ["a note"])
    ended = jobs.get(taken.id)
    assert (ended.state, ended.path, ended.digest, ended.notes) == ("done", "x.wav", "abc", ("a note",))
    assert ended.fraction == 1.0
    assert jobs.claim("w", 30) is None


def test_everything_is_on_the_disk_and_safe_against_loss_of_power(tmp_path: Path, jobs: Jobs) -> None:
    number = jobs.submit(REQUEST).id
    assert Jobs(tmp_path / "jobs.sqlite").get(number).request == REQUEST
    connection = jobs._connection
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_higher_priority_goes_first_and_then_the_older(jobs: Jobs) -> None:
    first, second, third = (jobs.submit(REQUEST, priority=p).id for p in (0, 5, 0))
    jobs.prioritise(third, 9)
    assert [claimed(jobs).id for _ in range(3)] == [third, second, first]
    with pytest.raises(BadRequest, match="priority: 1001 is not"):
        jobs.prioritise(first, 1001)


def test_the_same_request_id_of_a_client_is_the_same_job(jobs: Jobs) -> None:
    one = jobs.submit(REQUEST, "a", "7")
    assert jobs.submit({"content": "other"}, "a", "7").id == one.id
    assert jobs.submit(REQUEST, "b", "7").id != one.id
    assert len({jobs.submit(REQUEST, "a", rid).id for rid in ("0", "")}) == 2


def test_the_same_work_is_done_once_until_it_has_failed(jobs: Jobs) -> None:
    one = jobs.submit(REQUEST, once="hash")
    assert jobs.submit(REQUEST, once="hash").id == one.id
    jobs.done(claimed(jobs), "x.wav")
    assert jobs.submit(REQUEST, once="hash").id == one.id
    other = jobs.submit(REQUEST, once="other")
    jobs.failed(claimed(jobs), "disk-full", "no room")
    assert jobs.submit(REQUEST, once="other").id != other.id


def test_a_full_queue_says_so_and_takes_nothing(jobs: Jobs) -> None:
    numbers = [jobs.submit(REQUEST).id for _ in range(4)]
    with pytest.raises(Busy, match="4 jobs are waiting"):
        jobs.submit(REQUEST, "a", "1")
    claimed(jobs)
    assert jobs.submit(REQUEST, "a", "1").id not in numbers


def test_cancel_pause_and_resume(jobs: Jobs) -> None:
    waiting, running = jobs.submit(REQUEST).id, jobs.submit(REQUEST, priority=1).id
    job = claimed(jobs)
    assert jobs.pause(waiting).state == "paused"
    assert jobs.claim("w", 30) is None
    assert jobs.resume(waiting).state == "queued"
    assert jobs.cancel(waiting).state == "cancelled"
    assert jobs.resume(waiting).state == "cancelled"
    assert jobs.pause(running).state == "running"
    assert jobs.wish(job) == "pause"
    jobs.stopped(job)
    assert jobs.get(running).state == "paused"
    jobs.resume(running)
    again = claimed(jobs)
    # To have been paused is no attempt that came to nothing.
    assert (jobs.wish(again), again.attempts) == ("", 1)
    jobs.cancel(running)
    jobs.stopped(again)
    assert jobs.get(running).state == "cancelled"
    with pytest.raises(NotFound, match="there is no job 99"):
        jobs.cancel(99)


def test_whose_lease_ran_out_has_no_say_any_more(jobs: Jobs, clock: Clock) -> None:
    jobs.submit(REQUEST)
    late = claimed(jobs, "late")
    clock.now += 31
    assert [job.state for job in jobs.recover(never)] == ["queued"]
    new = claimed(jobs, "new")
    for act in (lambda: jobs.done(late, "x"), lambda: jobs.heartbeat(late, 30, 0.1, ""), lambda: jobs.wish(late),
                lambda: jobs.aim(late, "x", "d")):  # fmt: skip
        with pytest.raises(LostLease):
            act()
    jobs.done(new, "y")
    assert jobs.get(new.id).path == "y"


def test_a_heartbeat_keeps_the_lease(jobs: Jobs, clock: Clock) -> None:
    jobs.submit(REQUEST)
    job = claimed(jobs)
    clock.now += 29
    jobs.heartbeat(job, 30, 0.2, "")
    clock.now += 29
    assert jobs.recover(never) == []


def test_a_worker_that_dies_twice_under_a_job_fails_it(jobs: Jobs) -> None:
    jobs.submit(REQUEST)
    for expected in ("queued", "failed"):
        claimed(jobs)
        jobs.expire("w")
        assert [job.state for job in jobs.recover(never)] == [expected]
    job = jobs.get(1)
    assert (job.code, job.message) == ("internal", "the worker died 2 times under this job")


def test_the_end_of_the_daemon_is_no_fault_of_the_job(jobs: Jobs) -> None:
    jobs.submit(REQUEST)
    for _ in range(5):
        claimed(jobs)
        jobs.expire()
        assert [job.state for job in jobs.recover(never, blame=False)] == ["queued"]
    jobs.released(claimed(jobs))
    assert (jobs.get(1).state, jobs.get(1).attempts) == ("queued", 0)


@pytest.mark.parametrize(("there", "state"), [(True, "done"), (False, "queued")])
def test_after_a_crash_a_finished_stem_is_found(jobs: Jobs, there: bool, state: str) -> None:
    jobs.submit(REQUEST)
    jobs.aim(claimed(jobs), "x.wav", "digest")
    jobs.expire("w")
    assert [job.state for job in jobs.recover(lambda job: there and job.path == "x.wav")] == [state]


def test_a_wish_is_granted_after_a_crash(jobs: Jobs) -> None:
    number = jobs.submit(REQUEST).id
    claimed(jobs)
    jobs.cancel(number)
    jobs.expire("w")
    jobs.recover(never)
    assert jobs.get(number).state == "cancelled"


def test_jobs_are_counted_as_they_change(jobs: Jobs, clock: Clock, tmp_path: Path) -> None:
    numbers = [jobs.submit(REQUEST, "a client").id for _ in range(4)]
    jobs.done(claimed(jobs), "x")
    claimed(jobs)
    jobs.pause(numbers[2])
    jobs.cancel(numbers[3])
    jobs.submit(REQUEST)
    expected: dict[State, int] = {"queued": 1, "running": 1, "paused": 1, "done": 1, "failed": 0, "cancelled": 1}
    assert {state: jobs.count(state) for state in expected} == expected
    assert jobs.count("queued", "paused") == 2
    clock.now += 100
    jobs.prune(50)
    assert jobs.count("done", "cancelled") == 0
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)) as old:
        for statement in ("DROP TRIGGER job_comes", "DROP TABLE counts", "PRAGMA user_version = 1"):
            old.execute(statement)
    assert Jobs(tmp_path / "jobs.sqlite").count("queued", "running", "paused") == 3


def test_that_work_is_done_outlives_its_job(jobs: Jobs, clock: Clock, tmp_path: Path) -> None:
    first = jobs.submit(REQUEST, once="key")
    jobs.done(claimed(jobs), "x.wav")
    ended = clock.now
    clock.now += 100
    assert jobs.prune(50) == 1
    assert jobs.listed() == []
    with pytest.raises(NotFound):
        jobs.get(first.id)
    known = Jobs(tmp_path / "jobs.sqlite").submit(REQUEST, once="key")
    assert (known.id, known.state, known.path, known.changed) == (first.id, "done", "x.wav", ended)
    assert jobs.listed() == []
    # Let go of by who has seen another job of it, or another's work, it stays.
    jobs.release("key", first.id + 1)
    jobs.release("other", first.id)
    assert jobs.submit(REQUEST, once="key").id == first.id
    jobs.release("key", first.id)
    again = jobs.submit(REQUEST, once="key")
    assert (again.id, again.state) == (first.id + 1, "queued")
    # Done and pruned a second time, the second counts.
    jobs.done(claimed(jobs), "y.wav")
    clock.now += 100
    jobs.prune(50)
    assert jobs.submit(REQUEST, once="key").path == "y.wav"


def test_a_queue_of_an_earlier_version_goes_on(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "jobs.sqlite"
    with closing(Jobs(file, clock=clock)) as jobs:
        first = jobs.submit(REQUEST, once="key")
        jobs.done(claimed(jobs), "x.wav")
        second = jobs.submit(REQUEST)
    with closing(sqlite3.connect(file, isolation_level=None)) as old:
        for statement in ("DROP TABLE works", "DROP INDEX jobs_by_place", "DROP INDEX jobs_by_end"):
            old.execute(statement)
        old.execute("PRAGMA user_version = 2")
    with closing(Jobs(file, clock=clock)) as jobs:
        assert jobs.page(0, 9) == (2, [(first.id, "done"), (second.id, "queued")])
        assert [job.id for job in jobs.ended(9)] == [first.id]
        clock.now += 100
        assert jobs.prune(50) == 1
        assert jobs.submit(REQUEST, once="key").id == first.id


def test_what_has_ended_keeps_its_priority_and_tells_nothing(jobs: Jobs) -> None:
    number = jobs.submit(REQUEST, priority=1).id
    jobs.done(claimed(jobs), "x")
    before = jobs.version()
    assert jobs.prioritise(number, 5).priority == 1
    assert jobs.since(before) == []
    with pytest.raises(NotFound):
        jobs.prioritise(99, 1)


def test_what_is_to_be_cancelled_is_neither_paused_nor_resumed(jobs: Jobs) -> None:
    number = jobs.submit(REQUEST).id
    job = claimed(jobs)
    jobs.cancel(number)
    for change in (jobs.pause, jobs.resume):
        change(number)
        assert jobs.wish(job) == "cancel"
    jobs.stopped(job)
    assert jobs.get(number).state == "cancelled"


def test_a_page_of_jobs_and_the_last_that_ended(jobs: Jobs, clock: Clock) -> None:
    for _ in range(4):
        jobs.submit(REQUEST)
    jobs.prioritise(3, 1)
    jobs.cancel(4)
    clock.now += 1
    jobs.cancel(2)
    assert [job.id for job in jobs.listed()] == [3, 1, 2, 4]
    assert jobs.page(0, 2) == (4, [(3, "queued"), (1, "queued")])
    assert jobs.page(2, 5) == (4, [(2, "cancelled"), (4, "cancelled")])
    assert jobs.page(4, 5) == (4, [])
    assert [job.id for job in jobs.ended(9)] == [2, 4]
    assert [job.id for job in jobs.ended(1)] == [2]


def test_changes_are_numbered_for_ever(jobs: Jobs, clock: Clock) -> None:
    jobs.submit(REQUEST)
    before = jobs.version()
    job = claimed(jobs)
    assert [one.id for one in jobs.since(before)] == [job.id]
    jobs.done(job, "x")
    clock.now += 100
    assert jobs.prune(50) == 1
    last = jobs.version()
    new = jobs.submit(REQUEST)
    assert new.version > last
    assert new.id > job.id


def test_what_was_cancelled_in_a_watched_folder_is_not_forgotten(jobs: Jobs, clock: Clock) -> None:
    """A folder's clip would be rendered at the next start; what a client asked for does not come again."""
    for client, once in (("", "clip"), ("a client", None)):
        jobs.cancel(jobs.submit(REQUEST, client, once=once).id)
    clock.now += 100
    assert jobs.prune(50) == 1
    assert [job.client for job in jobs.listed("cancelled")] == [""]


def test_a_batch_stands_whatever_one_of_it_says(jobs: Jobs, tmp_path: Path) -> None:
    other = Jobs(tmp_path / "jobs.sqlite")
    with jobs.together():
        for _ in range(4):
            jobs.submit(REQUEST)
        assert other.listed() == []
        with pytest.raises(Busy):
            jobs.submit(REQUEST)
    assert len(other.listed("queued")) == 4


def test_two_doors_never_claim_the_same_job(tmp_path: Path, jobs: Jobs) -> None:
    for _ in range(4):
        jobs.submit(REQUEST)
    other = Jobs(tmp_path / "jobs.sqlite")
    numbers = [claimed(door, name).id for door, name in ((jobs, "a"), (other, "b"), (jobs, "a"), (other, "b"))]
    assert len(set(numbers)) == 4


def test_a_file_that_is_no_queue_is_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite"
    file.write_bytes(b"something else" * 100)
    with pytest.raises(NotAllowed, match="cannot be used"):
        Jobs(file)
    assert file.read_bytes() == b"something else" * 100
