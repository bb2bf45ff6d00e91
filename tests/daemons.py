"""A daemon in a process of its own, for tests and soaks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import psutil
import soundfile
from stylus_daemon.client import Client, ping
from stylus_daemon.jobs import Jobs
from stylus_daemon.osc_server import Server

from tests.sounds import RATE, noise, plucks

DEADLINE = 300.0


def until(happens: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Wait for something; generous, as a test machine may be busy."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.05)


class Daemon:
    """A daemon process on a small model, with a folder of clips that it may use."""

    def __init__(self, folder: Path, model: Path, *words: str) -> None:
        """Starts it, with more words for its command line; its home is `STYLUS_HOME`."""
        self.folder, self.model, self.words = folder, model, words
        self.home = Path(os.environ["STYLUS_HOME"]) / "daemon"
        for name, audio in (("clip", plucks(0.8)), ("style", noise(0.8))):
            soundfile.write(folder / f"{name}.wav", audio.T, RATE)
        free = Server("127.0.0.1", 0)
        self.port = free.port
        free.close()
        self.start()

    def start(self, **how: Any) -> None:
        """Start it, with `how` beside it for `Popen`."""
        words = ["daemon", "--osc-port", str(self.port), "--root", str(self.folder), "--model", str(self.model)]
        words += self.words if "--http-port" in self.words else ("--no-page", *self.words)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stylus_audio", *words],
            env={**os.environ, "STYLUS_HOME": str(self.home.parent)},
            **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **how},
        )
        until(lambda: ping(self.port, 0.5) is not None)

    def jobs(self) -> Jobs:
        return Jobs(self.home / "jobs.sqlite")

    def workers(self) -> list[psutil.Process]:
        """Its worker processes: children that are no resource tracker of Python's."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if any("spawn_main" in word for word in child.cmdline()):
                    found.append(child)
        return found

    def until_midway(self) -> None:
        """Wait until a job is in the midst of its render."""
        jobs = self.jobs()
        with Client(self.port) as client:

            def moves(number: int) -> bool:
                # The queue learns of it every three seconds only.
                _, state, fraction, *_ = client.ask("/stylus/job/status", number, patience=30)
                return state == "running" and isinstance(fraction, float) and fraction > 0

            def midway() -> bool:
                # What is running before that was left by the daemon before.
                ours = client.ask("/stylus/status", patience=30)[2] == "rendering"
                return ours and any(moves(job.id) for job in jobs.listed("running"))

            until(midway)
        jobs.close()

    def end(self) -> None:
        """Ask it to end, as Ctrl-C does; its exit code must be 0."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(DEADLINE) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def clip(self) -> str:
        return str(self.folder / "clip.wav")

    @property
    def style(self) -> str:
        return str(self.folder / "style.wav")

    def stems(self) -> list[Path]:
        return sorted(self.folder.glob("clip_style*.wav"))

    def unfinished(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.name.endswith(".part")]


@contextmanager
def scratch(model: Path | None, *words: str) -> Iterator[Daemon]:
    """A daemon with a home, a folder and, where none is given, a small model of its own; all gone afterwards."""
    # PyTorch, which a process that only needs `until` does not.
    from tests.tiny import save_injection

    with TemporaryDirectory() as name, patch.dict(os.environ, STYLUS_HOME=str(Path(name) / "home")):
        folder = Path(name).resolve() / "clips"
        folder.mkdir()
        daemon = Daemon(folder, model or save_injection(Path(name) / "tiny"), *words)
        try:
            yield daemon
        finally:
            daemon.end()
