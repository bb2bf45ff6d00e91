"""OSC clients that users have, each of which renders a clip through a daemon process."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import soundfile
from stylus_daemon.client import Client
from stylus_daemon.osc_messages import Message
from stylus_daemon.osc_server import Server

from tests.daemons import DEADLINE, Daemon, until
from tests.programs import need_liblo, need_node_module, need_program

pytestmark = pytest.mark.slow

SENDERS = Path(__file__).parents[1] / "max_for_live" / "senders"


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


def stem_of(clip: Path) -> Path:
    """Where the stem of a clip has to be; it must be there, and whole, and no other."""
    stem = clip.with_name("Größe 1_style.wav")
    assert [path for path in clip.parent.glob("*.wav") if path != clip] == [stem]
    assert soundfile.info(stem).frames == soundfile.info(clip).frames
    return stem


def free_port() -> int:
    with closing(Server("127.0.0.1", 0)) as free:
        return free.port


def node() -> list[str]:
    need_node_module("node-osc")
    return ["node", str(SENDERS / "stylus_render.js")]


def python() -> list[str]:
    return [sys.executable, str(SENDERS / "stylus_render.py")]


def liblo() -> list[str]:
    need_liblo()
    return ["sh", str(SENDERS / "stylus_render.sh")]


Script = Callable[[], list[str]]


def run(script: Script, content: str, style: str, port: int) -> subprocess.CompletedProcess[str]:
    words = [*script(), content, style, str(port), *([str(free_port())] if script is liblo else [])]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=DEADLINE)


@pytest.mark.parametrize("script", [node, python, liblo])
def test_a_script_prints_the_path_of_the_stem(daemon: Daemon, clip: Path, script: Script) -> None:
    done = run(script, str(clip), daemon.style, daemon.port)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{stem_of(clip)}\n"


@pytest.mark.parametrize("script", [node, python, liblo])
def test_a_script_says_why_there_is_none(daemon: Daemon, script: Script) -> None:
    damaged = daemon.folder / "damaged.wav"
    damaged.write_bytes(b"RIFF")
    for port, content, reason in (
        (daemon.port, "/etc/passwd", "not-allowed"),
        (daemon.port, str(damaged), "unsupported-audio"),
        (free_port(), daemon.clip, "no daemon answers on port"),
    ):
        done = run(script, content, daemon.style, port)
        assert done.returncode == 1
        assert done.stdout == ""
        assert reason in done.stderr


def pure_data(daemon: Daemon, content: str) -> str:
    """What the patch prints of a render before it ends Pd; a space within a word is escaped in Pd's messages."""
    need_program("pd", "puredata-core")
    messages = [
        f"stylus-port {daemon.port}", "stylus-quit 1", f"stylus-style symbol {daemon.style}",
        "stylus-content symbol " + content.replace(" ", "\\ "), "stylus-render bang",
    ]  # fmt: skip
    words = ["pd", "-nogui", "-noaudio", "-nomidi", "-open", str(SENDERS / "stylus_render.pd")]
    for message in messages:
        words += ["-send", message]
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True, check=True, timeout=DEADLINE)
    return done.stderr.strip().replace("\\ ", " ")


def test_pure_data(daemon: Daemon, clip: Path) -> None:
    said = re.fullmatch(r"stylus-result: (\d+) 0 (.*)", pure_data(daemon, str(clip)))
    assert said
    assert said[2] == str(stem_of(clip))
    assert pure_data(daemon, "/etc/passwd").startswith("stylus-error: /stylus/render 0 not-allowed '/etc/passwd'")


@pytest.mark.parametrize("url", ["osc.udp", "osc.tcp"])
def test_liblo_sends_one_request_three_times(daemon: Daemon, clip: Path, url: str) -> None:
    need_liblo()
    heard: list[Message] = []

    def of(address: str) -> list[Message]:
        return [message for message in heard if message.address == address]

    with closing(Server("127.0.0.1", 0)) as ear:
        words = ["/stylus/render", "isssi", "7", str(clip), daemon.style, "reply_port", str(ear.port)]
        for _ in range(3):
            subprocess.run(["oscsend", f"{url}://127.0.0.1:{daemon.port}", *words], check=True)

        def result() -> bool:
            heard.extend(message for message in ear.receive(0.1) if isinstance(message, Message))
            return bool(of("/stylus/job/result"))

        until(result)
    assert [message.arguments[2] for message in of("/stylus/job/result")] == [str(stem_of(clip))]
    job = of("/stylus/job/result")[0].arguments[0]
    assert [message.arguments[:3] for message in of("/stylus/reply")] == [("/stylus/render", 7, job)] * 3


def test_oscdump_hears_of_everybodys_jobs(daemon: Daemon, clip: Path, tmp_path: Path) -> None:
    need_liblo()
    port, heard = free_port(), tmp_path / "heard"
    with heard.open("w") as file, subprocess.Popen(["oscdump", "-L", str(port)], stdout=file) as dump:
        try:
            until(lambda: bool(psutil.Process(dump.pid).net_connections("udp")))
            notify = ["/stylus/notify", "iii", "1", "1", str(port)]
            subprocess.run(["oscsend", f"osc.udp://127.0.0.1:{daemon.port}", *notify], check=True)
            with Client(daemon.port) as client:
                job = client.ask("/stylus/render", str(clip), daemon.style)[0]
            until(lambda: "/stylus/job/result" in heard.read_text("utf-8"))
        finally:
            dump.kill()
    lines = [line.split(" ", 1)[1].strip() for line in heard.read_text("utf-8").splitlines()]
    assert lines[-2:] == [f'/stylus/job/state is {job!r} "done"', f'/stylus/job/result iis {job!r} 0 "{stem_of(clip)}"']
    assert f'/stylus/job/state is {job!r} "running"' in lines
    progress = [line for line in lines if line.startswith("/stylus/job/progress")]
    assert progress
    assert all(re.fullmatch(rf'\S+ ifsf {job!r} [01]\.\d+ "\w+" -?\d+\.\d+', line) for line in progress)
