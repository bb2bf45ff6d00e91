"""The device's script under plain Node, with a stand-in for Max's module, beside real daemons."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any, cast

import psutil
import pytest
import soundfile
from platformdirs.macos import MacOS
from platformdirs.unix import Unix
from stylus_daemon.osc_messages import Argument, decode, encode
from stylus_daemon.osc_server import Server

from stylus_audio import installed
from stylus_audio.places import user_data
from tests.daemons import DEADLINE, Daemon, until
from tests.programs import need_program

HOST = "127.0.0.1"
SCRIPT = Path(__file__).parents[1] / "max_for_live" / "stylus_node.js"
STAND_IN = Path(__file__).parent / "device"


# The machine


def evaluated(code: str, **environment: str) -> Any:
    """What an expression of the script's functions gives, under another environment."""
    need_program("node", "nodejs")
    program = f"const node = require(process.argv[1]); console.log(JSON.stringify({code}))"
    done = subprocess.run(
        ["node", "--eval", program, str(SCRIPT)], capture_output=True, text=True, check=True, encoding="utf-8",
        env={"PATH": os.environ["PATH"], **environment},
    )  # fmt: skip
    return json.loads(done.stdout)


def test_the_data_folder_is_the_one_of_stylus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = str(tmp_path / "Jörg")
    monkeypatch.setenv("HOME", home)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    unix, mac = Unix("stylus-audio", appauthor=False), MacOS("stylus-audio", appauthor=False)
    assert evaluated('node.dataFolder("linux")', HOME=home) == unix.user_data_dir
    assert evaluated('node.dataFolder("darwin")', HOME=home) == mac.user_data_dir
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert evaluated('node.dataFolder("linux")', HOME=home, XDG_DATA_HOME=str(tmp_path / "data")) == unix.user_data_dir
    local = r"C:\Users\Jörg\AppData\Local"
    assert evaluated('node.dataFolder("win32")', LOCALAPPDATA=local) == local + r"\stylus-audio"
    assert evaluated("node.dataFolder()", STYLUS_HOME=os.environ["STYLUS_HOME"]) == str(user_data())


@pytest.mark.parametrize(
    ("platform", "file", "words"),
    [
        ("darwin", "/Users/j/Größe 1.wav", ["open", ["-R", "/Users/j/Größe 1.wav"]]),
        ("win32", "C:/Users/j/a, b.wav", ["explorer.exe", ["/select,", r"C:\Users\j\a, b.wav"]]),
        ("linux", "/home/j/Größe 1.wav", ["xdg-open", ["/home/j"]]),
    ],
)
def test_showing_a_file(platform: str, file: str, words: list[Any]) -> None:
    assert evaluated(f"node.revealing({json.dumps(file)}, {json.dumps(platform)})") == words


@pytest.mark.parametrize(
    ("platform", "python", "translated", "words"),
    [
        ("linux", "/v/bin/python", False, ["/v/bin/stylus", []]),
        ("darwin", "/v/bin/python", False, ["/v/bin/stylus", []]),
        ("darwin", "/v/bin/python", True, ["/usr/bin/arch", ["-arm64", "/v/bin/python", "-m", "stylus_audio"]]),
        ("win32", "C:\\v\\pythonw.exe", False, ["C:\\v\\pythonw.exe", ["-m", "stylus_audio"]]),
        # Recorded by a version that did not write Python down.
        ("win32", "", False, ["/v/bin/stylus", []]),
    ],
)
def test_what_is_started(platform: str, python: str, translated: bool, words: list[Any]) -> None:
    asked = ", ".join(json.dumps(one) for one in ("/v/bin/stylus", python, platform, translated))
    assert evaluated(f"node.launching({asked})") == words


# The script as Max runs it


class Device:
    """One device's script: `say` is what `js` sends, `heard` what comes back."""

    def __init__(self, port: int) -> None:
        need_program("node", "nodejs")
        self.heard: list[list[Any]] = []
        self._posts = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            ["node", str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._posts, text=True,
            encoding="utf-8", env={**os.environ, "NODE_PATH": str(STAND_IN)}, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._asked = 0
        self.say("port", port)

    def _read(self) -> None:
        self.heard.extend(json.loads(line) for line in cast(IO[str], self.process.stdout))

    def say(self, *words: object) -> None:
        stdin = cast(IO[str], self.process.stdin)
        stdin.write(json.dumps(words) + "\n")
        stdin.flush()

    def send(self, address: str, *arguments: object) -> str:
        """Send a request; its key, for `answer`."""
        self._asked += 1
        key = f"key {self._asked}"
        self.say("request", key, json.dumps({"address": address, "arguments": arguments}))
        return key

    def answer(self, key: object) -> dict[str, Any]:
        until(lambda: bool(self._answers(key)))
        (found,) = self._answers(key)
        return found

    def _answers(self, key: object) -> list[dict[str, Any]]:
        return [json.loads(words[2]) for words in list(self.heard) if words[:2] == ["reply", key]]

    def ask(self, address: str, *arguments: object) -> dict[str, Any]:
        return self.answer(self.send(address, *arguments))

    def render(self, content: str, style: str, *options: object) -> int:
        answer = self.ask("/stylus/render", content, style, *options)
        assert answer["ok"], answer
        return int(answer["arguments"][0])

    def events(self, name: str) -> list[list[Any]]:
        """The arguments of every event of one kind."""
        events = [json.loads(words[1]) for words in list(self.heard) if words[0] == "event"]
        return [event["arguments"] for event in events if event["address"] == f"/stylus/job/{name}"]

    def states(self, job: int) -> list[str]:
        return [state for number, state in self.events("state") if number == job]

    def result(self, job: int) -> Path:
        """The stem's path, once the device is told."""
        until(lambda: any(number == job for number, *_ in self.events("result")) or "failed" in self.states(job))
        ((_, index, path),) = [event for event in self.events("result") if event[0] == job]
        assert index == 0
        return Path(path)

    def said(self, word: str) -> list[dict[str, Any]]:
        """Every `connected` or `disconnected`."""
        return [json.loads(words[1]) for words in list(self.heard) if words[0] == word]

    def until_said(self, word: str, count: int = 1) -> dict[str, Any]:
        until(lambda: len(self.said(word)) >= count)
        return self.said(word)[count - 1]

    def posts(self) -> str:
        self._posts.seek(0)
        return self._posts.read()

    def close(self) -> None:
        """End it as Max does."""
        with suppress(BrokenPipeError):
            cast(IO[str], self.process.stdin).close()
        self.process.wait(DEADLINE)
        self._reader.join()
        cast(IO[str], self.process.stdout).close()
        self._posts.close()


Start = Callable[[int], Device]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts devices. At the end all must still be there, and nothing may have been posted that was not looked at."""
    started: list[Device] = []

    def one(port: int) -> Device:
        started.append(Device(port))
        return started[-1]

    yield one
    alive, posts = [device.process.poll() for device in started], [device.posts() for device in started]
    for device in started:
        device.close()
    assert alive == [None] * len(started)
    assert not "".join(posts)


@pytest.fixture
def free_port() -> int:
    with closing(Server(HOST, 0)) as server:
        return server.port


@pytest.fixture
def ear() -> Iterator[socket.socket]:
    """A socket where the device looks for the daemon."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind((HOST, 0))
        bound.settimeout(DEADLINE)
        yield bound


def port_of(ear: socket.socket) -> int:
    return int(ear.getsockname()[1])


def received(ear: socket.socket, address: str) -> tuple[tuple[Argument, ...], tuple[str, int], bytes]:
    """The next message to an address: its arguments, from where, and as it came."""
    while True:
        packet, sender = ear.recvfrom(65536)
        ((found, arguments),) = decode(packet)
        if found == address:
            return arguments, sender, packet


def test_a_request_is_sent_four_times_under_one_id_and_then_given_up(start: Start, ear: socket.socket) -> None:
    device = start(port_of(ear))
    key = device.send("/stylus/job/cancel", 7)
    copies = []
    for _ in range(4):
        (rid, job), _, packet = received(ear, "/stylus/job/cancel")
        assert (type(rid), job) == (str, 7)
        copies.append(packet)
    assert len(set(copies)) == 1
    answer = device.answer(key)
    assert (answer["ok"], answer["code"]) == (False, "no-daemon")
    assert str(port_of(ear)) in answer["message"]
    # Behind the fourth copy came pings alone.
    ear.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            ((address, _),) = decode(ear.recvfrom(65536)[0])
            assert address == "/stylus/ping"
    assert evaluated("node.WAITS") == [300, 600, 1200, 2400]


def test_ids_are_never_the_same(start: Start, ear: socket.socket) -> None:
    rids = set()
    for device in (start(port_of(ear)), start(port_of(ear))):
        for job in range(2):
            device.send("/stylus/job/cancel", job)
            while True:
                (rid, number), sender, _ = received(ear, "/stylus/job/cancel")
                if number == job and rid not in rids:
                    break
            rids.add(rid)
            ear.sendto(encode("/stylus/reply", "/stylus/job/cancel", rid, job, "cancelled"), sender)
    assert len(rids) == 4


def test_only_what_is_sound_and_the_daemons_is_heard(start: Start, ear: socket.socket) -> None:
    device = start(port_of(ear))
    (rid,), sender, _ = received(ear, "/stylus/ping")
    assert sender[0] == HOST
    rng = random.Random(0)
    reply = encode("/stylus/reply", "/stylus/ping", rid, "0.1.0", 1)
    # Few enough for the system to keep them all.
    for _ in range(60):
        ear.sendto(rng.randbytes(rng.randrange(200)), sender)
        damaged = bytearray(reply)
        damaged[rng.randrange(12)] = 0
        ear.sendto(damaged, sender)
    for packet in (
        encode("/stylus/reply"),
        encode("/stylus/reply", "/stylus/ping", "another", "9.9.9", 1),
        encode("/stylus/reply", "/stylus/render", rid, 1),
        encode("/stylus/error", None, None),
    ):
        ear.sendto(packet, sender)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(encode("/stylus/reply", "/stylus/ping", rid, "9.9.9", 1), sender)
        stranger.sendto(encode("/stylus/job/state", 1, "done"), sender)
    ear.sendto(reply, sender)
    ear.sendto(encode("/stylus/job/progress", 3, 0.5, "rendering", -1.0), sender)
    until(lambda: bool(device.events("progress")))
    assert device.heard == [
        ["connected", '{"version":"0.1.0"}'],
        ["event", '{"address":"/stylus/job/progress","arguments":[3,0.5,"rendering",-1]}'],
    ]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "[]", "7", "{}", '{"address": 7}', '{"address": "stylus"}',
        '{"address": "/stylus/ping", "arguments": 7}', '{"address": "/stylus/ping", "arguments": "abc"}',
        '{"address": "/stylus/ping", "arguments": [{}]}', '{"address": "/stylus/ping", "arguments": ["\\u0000"]}',
    ],
)  # fmt: skip
def test_a_bad_request_is_answered(start: Start, free_port: int, text: str) -> None:
    device = start(free_port)
    device.say("request", 5, text)
    answer = device.answer(5)
    assert (answer["ok"], answer["code"]) == (False, "bad-request")
    assert answer["message"].startswith("the request cannot be sent: ")


def test_what_cannot_be_done_and_not_be_answered_is_posted(free_port: int) -> None:
    device = Device(free_port)
    for words in (("port", 0), ("port", "x"), ("port", 70_000), ("reveal", "a.wav"), ("reveal",), ("request",)):
        device.say(*words)
    until(lambda: device.posts().count("\n") == 6)
    posts = device.posts().splitlines()
    device.close()
    assert all(post.startswith("Stylus: ") for post in posts)


def test_without_a_daemon_it_says_what_to_do(start: Start, free_port: int) -> None:
    device = start(free_port)
    said = device.until_said("disconnected")
    assert said["canStart"] is False
    assert f"no daemon answers on port {free_port}" in said["reason"]
    assert "`stylus doctor`" in said["reason"]
    device.say("start")
    assert device.until_said("disconnected", 2) == said
    # Recorded by now: the button appears without a click.
    record(sys.executable)
    assert device.until_said("disconnected", 3) == {
        "reason": f"no daemon answers on port {free_port}; Start starts one",
        "canStart": True,
    }


def record(program: str | Path) -> None:
    user_data().mkdir(exist_ok=True)
    (user_data() / "installed.json").write_text(json.dumps({"executable": str(program)}), "utf-8")


def script(folder: Path, *lines: str) -> Path:
    """A program of a few lines of shell, recorded as `stylus`."""
    if os.name == "nt":
        pytest.skip("shell scripts need a shell")
    program = folder / "Jörgs Ordner" / "stylus"
    program.parent.mkdir()
    program.write_text("\n".join(["#!/bin/sh", *lines, ""]), "utf-8")
    program.chmod(0o755)
    record(program)
    return program


def test_what_it_starts_outlives_it(start: Start, free_port: int, tmp_path: Path) -> None:
    program = script(
        tmp_path, 'cd "$(dirname "$0")"', 'printf "%s" "$*" > words', "echo said",
        "while [ -e words ]; do sleep 0.1; done", "touch outlived",
    )  # fmt: skip
    words, outlived = program.with_name("words"), program.with_name("outlived")
    device = Device(free_port)
    device.say("start")
    assert device.until_said("disconnected") == {"reason": "the daemon is starting", "canStart": False}
    device.say("start")
    until(lambda: words.exists() and words.read_text() != "")
    os.killpg(device.process.pid, signal.SIGKILL)
    device.close()
    assert words.read_text() == f"daemon --osc-port {free_port}"
    assert not outlived.exists()
    words.unlink()
    until(outlived.exists)
    assert (user_data() / "daemon.log").read_text() == "said\n"


def test_why_a_daemon_did_not_start(start: Start, free_port: int, tmp_path: Path) -> None:
    (user_data() / "daemon.log").write_text("of an earlier one\n")
    program = script(tmp_path, "echo first >&2", "echo 'stylus: größer' >&2", "exit 1")
    device = start(free_port)
    device.say("start")
    assert device.until_said("disconnected", 2) == {
        "reason": "the daemon did not start: stylus: größer", "canStart": True,
    }  # fmt: skip
    program.write_text("#!/bin/sh\n")
    device.say("start")
    assert device.until_said("disconnected", 4)["reason"] == "the daemon did not start: it said nothing"
    program.write_text("#!/no/such/shell\n")
    device.say("start")
    assert "ENOENT" in device.until_said("disconnected", 6)["reason"]
    (user_data() / "daemon.log").unlink()
    (user_data() / "daemon.log").mkdir()
    device.say("start")
    assert "EISDIR" in device.until_said("disconnected", 8)["reason"]
    program.unlink()
    device.say("start")
    assert device.until_said("disconnected", 9)["canStart"] is False


@pytest.mark.skipif(sys.platform != "linux", reason="xdg-open is Linux's")
def test_a_file_is_shown_without_a_shell(
    start: Start, free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener, shown = tmp_path / "xdg-open", tmp_path / "shown"
    opener.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {shown}.part\nmv {shown}.part {shown}\n')
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    start(free_port).say("reveal", "/home/j/$(touch hacked) `x`; 'Größe'/a.wav")
    until(shown.exists)
    assert shown.read_text("utf-8") == "/home/j/$(touch hacked) `x`; 'Größe'\n"


# With a daemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Daemon]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLUS_HOME", str(tmp_path_factory.mktemp("home")))
        one = Daemon(tmp_path_factory.mktemp("clips"), tiny_folder)
    yield one
    one.end()


@pytest.fixture
def clip(daemon: Daemon) -> Path:
    """A clip in a folder of its own, with a name that is not plain ASCII."""
    made = Path(tempfile.mkdtemp(dir=daemon.folder)) / "Größe 1.wav"
    shutil.copy(daemon.clip, made)
    return made


@pytest.mark.slow
def test_a_render_is_answered_followed_and_heard_of(start: Start, daemon: Daemon, clip: Path) -> None:
    device = start(daemon.port)
    assert device.until_said("connected").keys() == {"version"}
    job = device.render(str(clip), daemon.style, "keep", 0.7, "overwrite", False)
    stem = device.result(job)
    assert stem == clip.with_name("Größe 1_style.wav")
    assert soundfile.info(stem).frames == soundfile.info(clip).frames
    assert device.states(job)[-2:] == ["running", "done"]
    progress = [(fraction, stage) for number, fraction, stage, _ in device.events("progress") if number == job]
    assert progress
    assert all(0 <= fraction <= 1 and stage for fraction, stage in progress)
    job_now, state, fraction, _, path = device.ask("/stylus/job/status", job)["arguments"]
    assert (job_now, state, fraction, path) == (job, "done", 1, str(stem))


@pytest.mark.slow
def test_jobs_are_cancelled(start: Start, daemon: Daemon, clip: Path) -> None:
    device = start(daemon.port)
    jobs = [device.render(str(clip), daemon.style, "steps", 200, "seed", number) for number in range(4)]
    until(lambda: bool(device.events("progress")))
    for job in reversed(jobs):
        assert device.ask("/stylus/job/cancel", job)["ok"]
    until(lambda: all("cancelled" in device.states(job) for job in jobs))
    assert not device.events("result")
    assert sorted(path.name for path in clip.parent.iterdir()) == [clip.name]


@pytest.mark.slow
def test_two_devices_hear_of_their_own_jobs_alone(start: Start, daemon: Daemon, clip: Path) -> None:
    devices = [start(daemon.port), start(daemon.port)]
    owned: list[set[int]] = [set(), set()]
    for number in range(4):
        owned[number % 2].add(devices[number % 2].render(str(clip), daemon.style, "seed", number))
    for device, jobs in zip(devices, owned, strict=True):
        for job in jobs:
            assert device.result(job).is_file()
        heard = {event[0] for name in ("state", "progress", "result") for event in device.events(name)}
        assert heard == jobs
    assert not owned[0] & owned[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [r"C:\Users\Jörg\Größe 1.wav", r"\\server\share\new\t.wav", "/Volumes/Audio Ⅱ/Größe 1 Project/Samples/a.wav"],
)
def test_paths_of_other_systems_are_refused_as_they_were_typed(
    start: Start, daemon: Daemon, clip: Path, path: str
) -> None:
    device = start(daemon.port)
    for words in ((path, daemon.style), (str(clip), path)):
        answer = device.ask("/stylus/render", *words)
        assert answer["ok"] is False
        assert answer["code"] in ("bad-request", "not-allowed", "not-found")
        assert f"'{path}'" in answer["message"]


@pytest.mark.slow
def test_a_long_request_and_the_events_of_its_job(start: Start, daemon: Daemon) -> None:
    folder = daemon.folder
    while len(str(folder)) < 2600:
        folder /= "x" * 200
    folder.mkdir(parents=True)
    content, style = (Path(shutil.copy(path, folder)) for path in (daemon.clip, daemon.style))
    device = start(daemon.port)
    assert len(str(content)) + len(str(style)) > 4000
    job = device.render(str(content), str(style), "steps", 2)
    assert device.result(job) == folder / "clip_style.wav"
    assert (folder / "clip_style.wav").is_file()
    assert device.states(job)[-1] == "done"
    # What is no render is answered over the connection itself.
    answer = device.ask("/stylus/style/add", "bells", "/" + "ü" * 30_000)
    assert (answer["code"], answer["message"][:6]) == ("bad-request", "path: ")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGSTOP")
def test_a_slow_daemon_takes_a_request_once(start: Start, daemon: Daemon, clip: Path) -> None:
    device = start(daemon.port)
    device.until_said("connected")
    jobs = daemon.jobs()
    before = len(jobs.listed())
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        short = device.send("/stylus/render", str(clip), daemon.style, "steps", 2)
        long = device.send("/stylus/render", str(clip), daemon.style, "steps", 2, "prompt", "x" * 5000)
        time.sleep(1.5)
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    numbers = [device.answer(key)["arguments"][0] for key in (short, long)]
    assert device.result(numbers[0]).is_file()
    until(lambda: bool(device.events("error")))
    assert device.events("error")[0][:2] == [numbers[1], "bad-request"]
    assert len(jobs.listed()) == before + 2
    jobs.close()


@pytest.fixture
def mortal(tmp_path: Path, tiny_folder: Path) -> Iterator[Daemon]:
    one = Daemon(tmp_path, tiny_folder)
    yield one
    one.end()


@pytest.mark.slow
def test_a_killed_daemon_comes_back_and_its_jobs_report(start: Start, mortal: Daemon) -> None:
    device = start(mortal.port)
    device.until_said("connected")
    jobs = [device.render(mortal.clip, mortal.style, "steps", 30, "name", f"stem {number}") for number in range(2)]
    until(lambda: bool(device.events("progress")))
    mortal.kill()
    said = device.until_said("disconnected")
    assert said["reason"].startswith(f"no daemon answers on port {mortal.port}; ")
    # The daemon itself has recorded where it lies.
    assert said["canStart"] == (installed.executable() is not None)
    answer = device.ask("/stylus/job/status", jobs[0])
    assert answer == {"ok": False, "code": "no-daemon", "message": said["reason"]}
    mortal.start()
    assert device.until_said("connected", 2) == device.said("connected")[0]
    for number, job in enumerate(jobs):
        assert device.ask("/stylus/job/status", job)["ok"]
        assert device.result(job) == mortal.folder / f"stem {number}.wav"
        assert device.states(job)[-1] == "done"


@pytest.mark.slow
def test_start_starts_the_daemon_itself(start: Start, free_port: int) -> None:
    if not installed.record()[0]:
        pytest.skip("stylus is not installed as a program here")
    device = start(free_port)
    assert device.until_said("disconnected") == {
        "reason": f"no daemon answers on port {free_port}; Start starts one",
        "canStart": True,
    }
    device.say("start")
    until(lambda: bool(psutil.Process(device.process.pid).children()))
    (daemon,) = psutil.Process(device.process.pid).children()
    try:
        assert device.until_said("connected").keys() == {"version"}
        assert os.getsid(daemon.pid) == daemon.pid
    finally:
        daemon.send_signal(signal.SIGINT)
        daemon.wait(DEADLINE)
    assert f"OSC on {HOST}:{free_port}" in (user_data() / "daemon.log").read_text("utf-8")
