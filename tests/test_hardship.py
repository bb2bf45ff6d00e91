"""What may happen to files and processes while a daemon works: it says so, leaves nothing partial, and goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import soundfile
from stylus_daemon.client import Client, Refused

from stylus_audio.audio import sha256
from tests.daemons import Daemon, until

pytestmark = pytest.mark.slow


def ignore(*_: object) -> None:
    pass


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own in a folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs Linux and root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def daemon(tmp_path: Path, tiny_folder: Path) -> Iterator[Daemon]:
    one = Daemon(tmp_path, tiny_folder)
    yield one
    one.end()


class Asking:
    """A client that knows the daemon's clip and style."""

    def __init__(self, client: Client, daemon: Daemon) -> None:
        self._client, self._daemon = client, daemon

    def send(self, content: str = "", style: str = "", **options: object) -> int:
        words = [one for name, value in options.items() for one in (name, str(value))]
        answer = self._client.ask("/stylus/render", content or self._daemon.clip, style or self._daemon.style, *words)
        return int(str(answer[0]))

    def wait(self, job: int) -> Path:
        return Path(self._client.wait(job, ignore))


@pytest.fixture
def asking(daemon: Daemon) -> Iterator[Asking]:
    with Client(daemon.port) as client:
        yield Asking(client, daemon)


def test_a_full_disk_fails_the_job_and_the_queue_goes_on(daemon: Daemon, asking: Asking, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "16m"):
        (disk / "ballast").write_bytes(bytes(2**24 - 2**15))
        full, next_one = asking.send(output=disk), asking.send()
        with pytest.raises(Refused, match="has no room for a stem") as refused:
            asking.wait(full)
        assert refused.value.code == "disk-full"
        assert asking.wait(next_one).is_file()
        assert [path.name for path in disk.iterdir()] == ["ballast"]
        (disk / "ballast").unlink()
        assert asking.wait(asking.send(output=disk)).parent == disk


def test_a_folder_that_cannot_be_written(daemon: Daemon, asking: Asking, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "16m"):
        clip = disk / "clip.wav"
        clip.write_bytes(Path(daemon.clip).read_bytes())
        waiting = asking.send(str(clip))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        try:
            with pytest.raises(Refused, match="cannot be written") as refused:
                asking.wait(waiting)
            assert refused.value.code == "not-allowed"
            stem = asking.wait(asking.send(str(clip)))
            assert stem.parent == daemon.home.parent / "output"
            assert soundfile.info(stem).frames == soundfile.info(clip).frames
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert [path.name for path in disk.iterdir()] == ["clip.wav"]


def test_clips_and_styles_that_go_away_or_are_none(daemon: Daemon, asking: Asking, tmp_path: Path) -> None:
    audio = Path(daemon.clip).read_bytes()
    for name in ("gone.wav", "headless.wav"):
        (tmp_path / name).write_bytes(audio)
    jobs = {
        "not-found": asking.send(str(tmp_path / "gone.wav"), name="a"),
        "unsupported-audio": asking.send(style=str(tmp_path / "headless.wav"), name="b"),
    }
    last = asking.send(name="after")
    (tmp_path / "gone.wav").unlink()
    (tmp_path / "headless.wav").write_bytes(b"no header at all")
    for code, job in jobs.items():
        with pytest.raises(Refused) as refused:
            asking.wait(job)
        assert (refused.value.code, str(refused.value).count("\n")) == (code, 0)
    assert asking.wait(last).name == "after.wav"
    assert not daemon.unfinished()
    assert Path(daemon.clip).read_bytes() == audio


def test_a_worker_that_is_killed_is_replaced_and_its_job_tried_once_more(daemon: Daemon, asking: Asking) -> None:
    jobs = daemon.jobs()

    def killed(job: int, attempt: int) -> None:
        until(lambda: (jobs.get(job).state, jobs.get(job).attempts) == ("running", attempt))
        (worker,) = daemon.workers()
        worker.kill()

    plain = asking.wait(asking.send(steps=4, name="plain"))
    once, next_one = asking.send(steps=400, name="once"), asking.send(steps=4, name="next")
    killed(once, 1)
    assert asking.wait(once).is_file()
    assert jobs.get(once).attempts == 2
    assert sha256(asking.wait(next_one)) == sha256(plain)
    twice = asking.send(steps=401, name="twice")
    killed(twice, 1)
    killed(twice, 2)
    with pytest.raises(Refused, match="worker") as refused:
        asking.wait(twice)
    assert refused.value.code == "internal"
    assert asking.wait(asking.send(steps=4, name="last")).is_file()
    jobs.close()
    assert not daemon.unfinished()
    assert not list(daemon.folder.glob("twice*"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to be heeded")
def test_a_worker_that_is_asked_to_end_gives_its_job_back(daemon: Daemon, asking: Asking) -> None:
    job = asking.send(steps=200)
    daemon.until_midway()
    (worker,) = daemon.workers()
    worker.terminate()
    assert asking.wait(job).is_file()
    jobs = daemon.jobs()
    assert jobs.get(job).attempts == 1
    jobs.close()
    assert not daemon.unfinished()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
def test_where_the_queue_has_no_room_the_worker_waits(daemon: Daemon, asking: Asking) -> None:
    import resource

    numbers = [asking.send(steps=100, name=name) for name in ("one", "two")]
    daemon.until_midway()
    (worker,) = daemon.workers()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (1, limit[1]))
    with Client(daemon.port) as client:
        until(lambda: client.ask("/stylus/status", patience=30)[2] == "idle")
    jobs = daemon.jobs()
    assert [jobs.get(number).state for number in numbers] == ["running", "queued"]
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, limit)
    assert [asking.wait(number).name for number in numbers] == ["one.wav", "two.wav"]
    assert [jobs.get(number).attempts for number in numbers] == [1, 1]
    jobs.close()
    assert daemon.workers() == [worker]


def test_after_a_model_that_cannot_be_loaded_jobs_go_on_with_the_former(
    daemon: Daemon, asking: Asking, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(daemon.model, damaged)
    (damaged / "scheduler" / "scheduler_config.json").write_text("[]", "utf-8")
    workers = daemon.workers()
    with Client(daemon.port) as client:
        client.ask("/stylus/model", str(damaged))
        assert asking.wait(asking.send(steps=2)).is_file()
        until(lambda: client.ask("/stylus/status", patience=30)[1:3] == (str(daemon.model), "idle"))
    assert daemon.workers() == workers
