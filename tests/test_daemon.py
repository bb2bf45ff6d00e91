"""The daemon as it is run: a process of its own, real clients, and real kills."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from stylus_daemon.check import run_check
from stylus_daemon.client import Client, Refused
from stylus_daemon.lock import Lock
from stylus_daemon.service import Options, home_folder

from stylus_audio.audio import sha256
from stylus_audio.errors import BadRequest, NotAllowed
from tests.daemons import DEADLINE, Daemon, until


@pytest.fixture
def daemon(tmp_path: Path, tiny_folder: Path) -> Iterator[Daemon]:
    one = Daemon(tmp_path, tiny_folder)
    yield one
    one.end()


def ignore(*_: object) -> None:
    pass


@pytest.mark.slow
def test_a_clip_is_rendered_and_the_style_is_inverted_once(daemon: Daemon) -> None:
    with Client(daemon.port) as client:
        seen: list[float] = []
        numbers = [client.ask("/stylus/render", daemon.clip, daemon.style, "keep", keep)[0] for keep in (0.7, 0.2)]
        paths = [client.wait(int(str(n)), lambda fraction, *_: seen.append(fraction)) for n in numbers]
        assert [Path(path) for path in paths] == [daemon.folder / f"clip_style{end}.wav" for end in ("", "_2")]
        assert all(Path(path).with_suffix(".json").is_file() for path in paths)
        assert client.ask("/stylus/status")[-1] == 1
        with pytest.raises(Refused, match="outside of the folders"):
            client.ask("/stylus/render", "/etc/passwd", daemon.style)
    assert max(seen) > 0
    assert not daemon.unfinished()


@pytest.mark.slow
def test_the_command_line_sends_and_waits(daemon: Daemon) -> None:
    words = ["send", daemon.clip, "--style", daemon.style, "--osc-port", str(daemon.port), "--steps", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "stylus_audio", *words], capture_output=True, text=True, check=True, timeout=DEADLINE
    )
    assert done.stdout.strip() == str(daemon.folder / "clip_style.wav")


def test_a_report_replaces_nothing_but_a_report(daemon: Daemon, tmp_path: Path) -> None:
    def send(report: Path, *words: str) -> int:
        asked = ["send", daemon.clip, "--style", daemon.style, "--osc-port", str(daemon.port), "--report", str(report)]
        command = [sys.executable, "-m", "stylus_audio", *asked, *words]
        return subprocess.run(command, check=False, timeout=DEADLINE).returncode

    clip, mine, report = Path(daemon.clip), tmp_path / "mine.json", tmp_path / "report.json"
    kept = clip.read_bytes()
    mine.write_text('{"my": "project"}')
    assert send(clip) == 2
    assert send(mine) == 2
    assert (clip.read_bytes(), mine.read_text()) == (kept, '{"my": "project"}')
    for words in (["--no-wait"], ["--recipe", "none such"], ["--no-wait"]):
        send(report, *words)
    assert json.loads(report.read_text("utf-8")).keys() == {"job"}


@pytest.mark.slow
def test_killed_at_any_moment_every_job_ends_once_with_the_same_samples(daemon: Daemon) -> None:
    with Client(daemon.port) as client:
        client.wait(
            int(str(client.ask("/stylus/render", daemon.clip, daemon.style, "name", "clip_style_first")[0])), ignore
        )
        for number in range(4):
            client.ask("/stylus/render", daemon.clip, daemon.style, "name", f"clip_style_{number}")
    for moment in (0.3, 1.1, 2.3):
        time.sleep(moment)
        daemon.kill()
        assert all(soundfile.info(stem).frames == soundfile.info(daemon.clip).frames for stem in daemon.stems())
        daemon.start()
    jobs = daemon.jobs()
    until(lambda: {job.state for job in jobs.listed()} == {"done"})
    jobs.close()
    assert [stem.stem for stem in daemon.stems()] == [
        *(f"clip_style_{number}" for number in range(4)), "clip_style_first",
    ]  # fmt: skip
    assert len({sha256(stem) for stem in daemon.stems()}) == 1
    assert not daemon.unfinished()


@pytest.mark.slow
def test_a_damaged_queue_is_said_and_the_rest_is_looked_at(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = home_folder()
    home.mkdir(parents=True, exist_ok=True)
    (home / "jobs.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(SystemExit):
        run_check(Options(0, roots=(tmp_path,), model=str(tiny_folder)))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("no ") and "cannot be used: file is not a database" in line for line in lines)
    assert any("loads" in line for line in lines)
    # A lock that cannot be used is held by nobody.
    (home / "some.lock").write_bytes(b"no database" * 1000)
    with pytest.raises(NotAllowed, match="not a database"):
        Lock(home / "some.lock")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
def test_a_full_disk_is_said_and_outlived(daemon: Daemon) -> None:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Client(daemon.port) as client:
        assert client.ask("/stylus/ping")
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (1, limit[1]))
        for _ in range(2):
            with pytest.raises(Refused, match="the queue cannot be written") as refused:
                client.ask("/stylus/render", daemon.clip, daemon.style)
            assert refused.value.code == "disk-full"
        # What needs no room is answered.
        assert client.ask("/stylus/status")[3] == 0
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, limit)
        (job,) = client.ask("/stylus/render", daemon.clip, daemon.style, "mix", 0)
        assert Path(client.wait(int(str(job)), ignore)).is_file()


@pytest.mark.slow
def test_a_second_daemon_says_who_has_the_port(daemon: Daemon) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stylus_audio", "daemon", "--osc-port", str(daemon.port)],
        capture_output=True, text=True, check=False, timeout=DEADLINE,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"port {daemon.port} on 127.0.0.1 is taken by another Stylus daemon" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_outside_of_loopback_it_wants_a_token_and_a_list() -> None:
    with pytest.raises(BadRequest, match="needs --token-file and --allow"):
        Options(host="0.0.0.0")
    with pytest.raises(BadRequest, match="can be guessed"):
        Options(host="0.0.0.0", token="short", allowed=("10.0.0.2",))
    assert Options(host="0.0.0.0", token="x" * 16, allowed=("10.0.0.2",)).port == 9109
