"""`stylus daemon --check`: what a daemon would find here, without starting one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stylus_audio.engine import Engine
from stylus_audio.errors import NotFound, StylusError
from stylus_audio.files import writable_folder

from .jobs import Jobs
from .osc import Server
from .roots import Roots
from .service import Options, home_folder, ping


@dataclass(frozen=True)
class Check:
    """One line."""

    ok: bool
    name: str
    detail: str


def checks(options: Options) -> Iterator[Check]:
    """Every check, as it is made."""
    answer = ping(options.port, 0.5)
    if answer is not None:
        yield Check(True, "daemon", f"runs on port {options.port}, version {answer[0]}")
    else:
        yield _tried("port", f"{options.host}:{options.port} is free for UDP and TCP", lambda: _port(options))
    yield _tried("queue", f"in {home_folder()}", _queue)
    yield _tried("model", f"{options.model} loads", lambda: Engine(options.model, options.device))
    for root in Roots(options.roots).folders():
        yield Check(True, "may use", str(root) if root.is_dir() else f"{root} (not there yet)")


def _tried(name: str, detail: str, work: Callable[[], object]) -> Check:
    try:
        work()
    except StylusError as error:
        return Check(False, name, str(error))
    return Check(True, name, detail)


def _port(options: Options) -> None:
    try:
        Server(options.host, options.port).close()
    except OSError as error:
        raise NotFound(f"port {options.port} is taken by another program: {error.strerror}") from error


def _queue() -> None:
    writable_folder(home_folder())
    Jobs(home_folder() / "jobs.sqlite").close()


def run_check(options: Options) -> None:
    """Print every check; the exit code is 1 where one has failed."""
    failed = False
    for check in checks(options):
        print(f"{'ok  ' if check.ok else 'no  '} {check.name:<12} {check.detail}", flush=True)
        failed |= not check.ok
    if failed:
        raise SystemExit(1)
