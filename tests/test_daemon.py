"""The daemon as it is run: a process of its own, real clients, and real kills."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from stylus_daemon.check import run_check
from stylus_daemon.client import Client, Refused
from stylus_daemon.jobs import ENDED
from stylus_daemon.osc_messages import Argument, decode, encode
from stylus_daemon.osc_server import Server
from stylus_daemon.service import PAGE_PORT, Options, home_folder

from stylus_audio.audio import sha256
from stylus_audio.errors import BadRequest, NotAllowed, NotFound
from stylus_audio.lock import Lock
from tests.daemons import DEADLINE, Daemon, until
from tests.sounds import RATE, plucks


@pytest.fixture
def daemon(tmp_path: Path, tiny_folder: Path) -> Iterator[Daemon]:
    one = Daemon(tmp_path, tiny_folder)
    yield one
    one.end()


def stylus(*words: str) -> subprocess.CompletedProcess[str]:
    """A command, as it is typed, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "stylus_audio", *words], capture_output=True, text=True, check=False, timeout=DEADLINE
    )


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


def test_nobody_waits_while_a_long_style_is_read_but_who_asks_for_it(daemon: Daemon) -> None:
    soundfile.write(daemon.folder / "long.wav", plucks(60.0, channels=2).T, RATE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.settimeout(DEADLINE)
        for packet in (
            encode("/stylus/style/add", 1, "long", str(daemon.folder / "long.wav")),
            encode("/stylus/style/remove", 2, "long"),
            encode("/stylus/ping", 3),
        ):
            line.sendto(packet, ("127.0.0.1", daemon.port))
        answered = [decode(line.recv(65536))[0] for _ in range(3)]
    said = {arguments[0]: (kind, arguments[1]) for kind, arguments in answered}
    assert next(iter(said)) == "/stylus/ping"
    assert said == {
        "/stylus/ping": ("/stylus/reply", 3),
        "/stylus/style/add": ("/stylus/reply", 1),
        "/stylus/style/remove": ("/stylus/reply", 2),
    }


@pytest.mark.slow
def test_the_command_line_sends_and_waits(daemon: Daemon) -> None:
    words = ["send", daemon.clip, "--style", daemon.style, "--osc-port", str(daemon.port), "--steps", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "stylus_audio", *words], capture_output=True, text=True, check=True, timeout=DEADLINE
    )
    assert done.stdout.strip() == str(daemon.folder / "clip_style.wav")


@pytest.mark.slow
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
    # A program that waits for a report waits for that of a mistake too.
    for words in (["--kep=0.6"], ["--keep"]):
        assert send(report, *words) == 2
        told = json.loads(report.read_text("utf-8"))
        assert (told["error"], words[0].split("=")[0] in told["message"]) == ("bad-request", True)
        report.unlink()
    assert send(clip, "--kep=0.6") == 2
    assert clip.read_bytes() == kept


@pytest.mark.slow
def test_killed_at_any_moment_every_job_ends_once_with_the_same_samples(daemon: Daemon) -> None:
    with Client(daemon.port) as client:
        words = ("/stylus/render", daemon.clip, daemon.style, "steps", 40, "name")
        client.wait(int(str(client.ask(*words, "clip_style_first")[0])), ignore)
        for number in range(4):
            client.ask(*words, f"clip_style_{number}")
    for moment in (0, 0.2, 0.5):
        daemon.until_midway()
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
    assert all(stem.with_suffix(".json").is_file() for stem in daemon.stems())
    assert not daemon.unfinished()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to be heeded")
def test_a_request_to_end_puts_the_running_job_back_in_the_queue(daemon: Daemon) -> None:
    with Client(daemon.port) as client:
        asked = client.ask("/stylus/render", daemon.clip, daemon.style, "steps", 200)
        number = int(str(asked[0]))
    daemon.until_midway()
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(DEADLINE) == 0
    jobs = daemon.jobs()
    job = jobs.get(number)
    jobs.close()
    assert (job.state, job.attempts) == ("queued", 0)
    assert not daemon.stems()
    assert not daemon.unfinished()
    daemon.start()
    with Client(daemon.port) as client:
        assert client.wait(number, ignore) == str(daemon.folder / "clip_style.wav")
    assert [stem.name for stem in daemon.stems()] == ["clip_style.wav"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups to send a signal to")
def test_ctrl_c_in_a_terminal_puts_the_running_job_back_in_the_queue(daemon: Daemon, tmp_path: Path) -> None:
    """A terminal sends it to the workers too."""
    daemon.end()
    with (tmp_path / "log").open("wb") as log:
        daemon.start(stderr=log, start_new_session=True)
    with Client(daemon.port) as client:
        client.ask("/stylus/render", daemon.clip, daemon.style, "steps", 200)
    daemon.until_midway()
    os.killpg(daemon.process.pid, signal.SIGINT)
    assert daemon.process.wait(DEADLINE) == 0
    jobs = daemon.jobs()
    assert [(job.state, job.attempts) for job in jobs.listed()] == [("queued", 0)]
    jobs.close()
    assert not daemon.unfinished()
    assert "Traceback" not in (tmp_path / "log").read_text("utf-8")


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


@pytest.mark.slow
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


def test_an_answer_that_is_too_long_is_told(daemon: Daemon) -> None:
    jobs = daemon.jobs()
    # In one transaction, so that the daemon's worker finds nothing to do.
    with jobs.together():
        jobs.submit({"content": "a.wav"})
        job = jobs.claim("nobody", 30)
        assert job is not None
        jobs.done(job, "/" + "x" * 5000)
    jobs.close()
    with Client(daemon.port) as client, pytest.raises(Refused, match="the answer is too long") as refused:
        client.ask("/stylus/job/status", job.id)
    assert refused.value.code == "internal"
    # An id that is none is not repeated, before the desk either.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.settimeout(DEADLINE)
        for address in ("/stylus/token", "/stylus/ping"):
            other.sendto(encode(address, "x" * 5000), ("127.0.0.1", daemon.port))
            ((kind, arguments),) = decode(other.recv(65536))
            assert (kind, arguments[:2]) == ("/stylus/error", (address, 0))


@pytest.mark.slow
def test_a_folder_that_a_daemon_watches_is_rendered_with_the_daemons_model(tmp_path: Path, tiny_folder: Path) -> None:
    root, folder = tmp_path / "root", tmp_path / "in"
    root.mkdir()
    folder.mkdir()
    (folder / "stylus.toml").write_text('style = "../root/style.wav"', "utf-8")
    # The folder lies in no other that the daemon may use.
    daemon = Daemon(root, tiny_folder, "--watch", str(folder))
    shutil.copy(daemon.clip, folder / "riff.wav")
    jobs = daemon.jobs()
    try:
        until(lambda: any(job.state in ENDED for job in jobs.listed()))
        (job,) = jobs.listed()
        assert (job.state, job.message) == ("done", "")
        assert Path(job.path) == tmp_path.resolve() / "in-stylus" / "riff_style.wav"
        assert job.request["model"] == str(tiny_folder.resolve())
    finally:
        jobs.close()
        daemon.end()


@pytest.mark.slow
def test_a_second_daemon_says_who_has_the_port(daemon: Daemon) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stylus_audio", "daemon", "--osc-port", str(daemon.port)],
        capture_output=True, text=True, check=False, timeout=DEADLINE,
    )  # fmt: skip
    assert done.returncode == 2
    said = f"another daemon of yours is running, on OSC port {daemon.port}; there is one for each user"
    assert done.stderr.strip() == f"stylus: {said}"


@pytest.mark.slow
def test_another_users_daemon_has_the_port(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLUS_HOME", str(tmp_path / "another user's"))
    done = stylus("daemon", "--osc-port", str(daemon.port))
    assert done.returncode == 2
    assert f"port {daemon.port} on 127.0.0.1 is taken by another Stylus daemon" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_on_another_port_too_there_is_one_daemon_for_each_user(daemon: Daemon, tiny_folder: Path) -> None:
    free = Server("127.0.0.1", 0)
    other = ["--osc-port", str(free.port), "--no-page"]
    free.close()
    said = f"another daemon of yours is running, on OSC port {daemon.port}; there is one for each user"
    done = stylus("daemon", *other)
    assert (done.returncode, done.stderr.strip()) == (2, f"stylus: {said}")
    checked = stylus("daemon", *other, "--check", "--model", str(tiny_folder))
    assert checked.returncode == 1
    assert [line for line in checked.stdout.splitlines() if line.startswith("no ")] == [f"no   daemon       {said}"]
    # Where its page's port is taken too, another one of that would not help.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = stylus("daemon", *other[:2], "--http-port", str(taken.getsockname()[1]))
    assert (done.returncode, done.stderr.strip()) == (2, f"stylus: {said}")
    checked = stylus("daemon", "--osc-port", str(daemon.port), "--no-page", "--check", "--model", str(tiny_folder))
    assert checked.returncode == 1
    (refused,) = [line for line in checked.stdout.splitlines() if line.startswith("no ")]
    assert f"runs on port {daemon.port}" in refused
    assert stylus("send", daemon.clip, "--style", daemon.style, *other[:2]).stderr.strip() == (
        f"stylus: no daemon answers on port {free.port}; yours runs on port {daemon.port}: --osc-port {daemon.port}"
    )


def test_a_check_looks_at_the_pages_port(tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(page: int | None, port: int = 0) -> list[str]:
        try:
            run_check(Options(port, roots=(tmp_path,), model=str(tiny_folder), page=page))
            code = 0
        except SystemExit as ended:
            code = int(str(ended.code))
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("no ")]
        assert code == bool(lines)
        return lines

    free = Server("127.0.0.1", 0)
    free.close()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (said,) = refused(number := taken.getsockname()[1])
        assert f"port {number} for the page is taken" in said
    assert [refused(page) for page in (None, 0, PAGE_PORT, free.port)] == [[]] * 4
    # The daemon itself would have it.
    (said,) = refused(free.port, free.port)
    assert f"port {free.port} for the page is taken" in said


def test_without_a_daemon_a_client_says_what_starts_one() -> None:
    free = Server("127.0.0.1", 0)
    free.close()
    with Client(free.port) as client, pytest.raises(NotFound, match=r"; `stylus daemon` starts one$"):
        client.ask("/stylus/ping", patience=0.3)
    # One that has just begun, or is at something.
    folder = home_folder()
    folder.mkdir(parents=True)
    lock = Lock(folder / "daemon.lock")
    with Client(free.port) as client, pytest.raises(NotFound, match="; one of yours is running"):
        client.ask("/stylus/ping", patience=0.3)
    lock.release()


def test_several_styles_are_sent_and_a_stem_that_cannot_be_is_told_at_once(daemon: Daemon) -> None:
    words = ["send", daemon.clip, "-s", daemon.style, "-s", daemon.clip, "--style-weight", "0.3,0.7"]
    words += ["--osc-port", str(daemon.port), "--no-wait"]
    sent = stylus(*words)
    assert sent.returncode == 0, sent.stderr
    jobs = daemon.jobs()
    request = jobs.get(int(sent.stdout)).request
    jobs.close()
    assert [path for path, _ in request["styles"]] == [daemon.style, daemon.clip]
    assert request["settings"] == {"style_weight": "0.3,0.7"}
    refused = stylus(*words, "-o", str(daemon.folder / "x.mp3"))
    assert refused.returncode == 2
    assert "x.mp3: a stem is one of .wav" in refused.stderr


@pytest.mark.slow
def test_a_folder_is_watched_beside_a_daemon_once_it_is_allowed(
    daemon: Daemon, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where the daemon may use nothing.
    home = tmp_path_factory.mktemp("elsewhere").resolve() / "the home"
    bounces, sounds = home / "Bounces", home / "Sounds"
    for folder in (bounces, sounds):
        folder.mkdir(parents=True)
    for folder in (home, sounds):
        shutil.copy(daemon.style, folder / "glass.wav")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    # One reference does not open the home folder.
    near = stylus("watch", str(bounces), "--style", str(home / "glass.wav"))
    assert near.returncode == 2
    assert f"`stylus root add {shlex.join([str(bounces), f'{bounces}-stylus'])}` allows it" in near.stderr
    assert "`stylus style add NAME FILE`" in near.stderr
    words = ["watch", str(bounces), "--style", str(sounds / "glass.wav"), "--model", str(daemon.model)]
    refused = stylus(*words)
    (command,) = re.findall("`(stylus root add [^`]*)`", refused.stderr)
    assert shlex.split(command)[3:] == [str(bounces), f"{bounces}-stylus", str(sounds)]
    added = stylus(*shlex.split(command)[1:])
    assert added.returncode == 0, added.stderr
    watching = subprocess.Popen([sys.executable, "-m", "stylus_audio", *words], stderr=subprocess.DEVNULL)
    try:
        shutil.copy(daemon.clip, bounces / "riff.wav")
        until((home / "Bounces-stylus" / "riff_glass.wav").is_file)
    finally:
        watching.send_signal(signal.SIGINT)
        watching.wait(DEADLINE)


@pytest.mark.slow
def test_who_watches_beside_a_daemon_in_its_folders_takes_its_place_when_it_ends(
    daemon: Daemon, tmp_path: Path
) -> None:
    """Of two, one after the other: the first may not use the second's folder."""
    logs = {daemon.folder / name: tmp_path / f"{name}.log" for name in ("Bounces", "Loops")}
    # In a folder of its own: who may use a style's may use what lies beside it.
    style = daemon.folder / "sounds" / "style.wav"
    style.parent.mkdir()
    shutil.copy(daemon.style, style)
    watching: dict[Path, subprocess.Popen[bytes]] = {}
    for folder, log in logs.items():
        folder.mkdir()
        words = ["watch", str(folder), "--style", str(style), "--model", str(daemon.model)]
        with log.open("wb") as stream:
            watching[folder] = subprocess.Popen([sys.executable, "-m", "stylus_audio", *words], stderr=stream)

    def rendered(folder: Path, name: str) -> bool:
        assert watching[folder].poll() is None, logs[folder].read_text("utf-8")
        return (folder.with_name(f"{folder.name}-stylus") / f"{name}_style.wav").is_file()

    try:
        for folder in logs:
            shutil.copy(daemon.clip, folder / "one.wav")
        until(lambda: all(rendered(folder, "one") for folder in logs))
        daemon.end()
        for folder in logs:
            shutil.copy(daemon.clip, folder / "two.wav")
        until(lambda: any(rendered(folder, "two") for folder in logs))
        (first,) = [folder for folder in logs if rendered(folder, "two")]
        said = "the daemon that rendered has ended; what appears is rendered here from now on"
        assert said in logs[first].read_text("utf-8")
        watching[first].send_signal(signal.SIGINT)
        assert watching[first].wait(DEADLINE) == 0
        (second,) = set(logs) - {first}
        until(lambda: rendered(second, "two"))
    finally:
        for one in watching.values():
            one.send_signal(signal.SIGINT)
    assert [one.wait(DEADLINE) for one in watching.values()] == [0, 0]


@pytest.mark.parametrize(
    ("file", "said"), [("none.txt", "does not exist"), (".", "cannot be read"), ("bytes.txt", "is not text")]
)
def test_a_token_file_that_holds_none_is_the_users_mistake(tmp_path: Path, file: str, said: str) -> None:
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xfd")
    done = stylus("daemon", "--token-file", str(tmp_path / file), "--check")
    assert done.returncode == 2
    assert done.stderr.startswith(f"stylus: token-file: {tmp_path / file} {said}")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Errno" not in done.stderr


def test_outside_of_loopback_it_wants_a_token_and_a_list() -> None:
    with pytest.raises(BadRequest, match="needs --token-file and --allow"):
        Options(host="0.0.0.0")
    with pytest.raises(BadRequest, match="can be guessed"):
        Options(host="0.0.0.0", token="short", allowed=("10.0.0.2",))
    assert Options(host="0.0.0.0", token="x" * 16, allowed=("10.0.0.2",)).port == 9109


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127/8")
def test_outside_of_loopback_it_hears_the_list_once_the_token_is_said_and_nobody_else(
    tmp_path: Path, tiny_folder: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n", "utf-8")
    outside = ["--host", "0.0.0.0", "--token-file", str(token), "--allow", "127.0.0.2"]
    daemon = Daemon(tmp_path, tiny_folder, *outside)
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listed,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unlisted,
            Client(daemon.port) as near,
        ):
            listed.bind(("127.0.0.2", 0))
            listed.settimeout(DEADLINE)
            unlisted.bind(("127.0.0.3", 0))
            unlisted.setblocking(False)

            def ask(address: str, *arguments: Argument) -> tuple[str, tuple[Argument, ...]]:
                listed.sendto(encode(address, *arguments), ("127.0.0.1", daemon.port))
                (answer,) = decode(listed.recv(65536))
                return answer

            render = ("/stylus/render", 1, daemon.clip, daemon.style)
            refused, said = ask(*render)
            assert (refused, said[:3]) == ("/stylus/error", ("/stylus/render", 1, "not-allowed"))
            refused, said = ask("/stylus/token", 2, "0123456789abcdeX")
            assert (refused, said[:3]) == ("/stylus/error", ("/stylus/token", 2, "not-allowed"))
            for packet in (encode("/stylus/token", 3, "0123456789abcdef"), encode(*render)):
                unlisted.sendto(packet, ("127.0.0.1", daemon.port))
            # Who is on this machine needs no token. Nothing of the above has come to the queue.
            assert near.ask("/stylus/job/list")[0] == 0
            with pytest.raises(BlockingIOError):
                unlisted.recv(65536)
            assert ask("/stylus/token", 4, "0123456789abcdef") == ("/stylus/reply", ("/stylus/token", 4))
            answer, said = ask("/stylus/ping", 5)
            assert (answer, said[:2]) == ("/stylus/reply", ("/stylus/ping", 5))
    finally:
        daemon.end()
