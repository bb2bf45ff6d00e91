"""`stylus daemon --check`: what a daemon would find here, without starting one; a part of it for `stylus doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

from stylus_audio.doctor import Check
from stylus_audio.engine import Engine
from stylus_audio.errors import NotFound, StylusError
from stylus_audio.files import writable_folder

from .client import ping
from .jobs import Jobs, queue_file
from .osc_server import Server
from .roots import Roots
from .service import PAGE_PORT, Options, home_folder, other_daemon, page_socket


def checks(options: Options) -> Iterator[Check]:
    """Every check, as it is made."""
    yield from _at_the_port(options, refused=True)
    yield from _page(options)
    yield _tried("queue", f"in {home_folder()}", _queue)
    yield _tried("model", f"{options.model} loads", lambda: Engine(options.model, options.device))
    yield from _folders(options)


def for_doctor() -> Iterator[Check]:
    """What needs no second look at the model: the port, or the daemon at it, and the folders."""
    options = Options()
    yield from _at_the_port(options, refused=False)
    yield from _folders(options)


def _at_the_port(options: Options, refused: bool) -> Iterator[Check]:
    """The daemon at the port, or the port, and a daemon elsewhere; beside either another one is `refused`."""
    answer = ping(options.port, 0.5)
    if answer is not None:
        said = f"runs on port {options.port}, version {answer[0]!s}"
        yield Check("daemon", not refused, f"{said}; a second one would end at once" if refused else said)
        return
    yield _tried("port", f"{options.host}:{options.port} is free for UDP and TCP", lambda: _port(options))
    try:
        other = other_daemon()
    except StylusError as error:
        yield Check("daemon", False, str(error))
    else:
        if other:
            yield Check("daemon", not refused, other)


def _page(options: Options) -> Iterator[Check]:
    """The port of the page; of a daemon that would serve none nothing."""
    if options.page in (0, PAGE_PORT):
        yield Check("page", True, f"takes port {PAGE_PORT}, or a free one" if options.page else "takes a free port")
    elif options.page is not None:
        yield _tried("page", f"127.0.0.1:{options.page} is free", lambda: _page_port(options))


def _folders(options: Options) -> Iterator[Check]:
    for root in Roots(options.given_roots).folders():
        yield Check("may use", True, str(root) if root.is_dir() else f"{root} (not there yet)")


def _tried(name: str, detail: str, work: Callable[[], object]) -> Check:
    try:
        work()
    except StylusError as error:
        return Check(name, False, str(error))
    return Check(name, True, detail)


def _port(options: Options) -> None:
    try:
        Server(options.host, options.port).close()
    except OSError as error:
        raise NotFound(f"port {options.port} is taken by another program: {error.strerror}") from error


def _page_port(options: Options) -> None:
    with ExitStack() as opened:
        # By then the daemon has its own; where it has not, that is another check's.
        with suppress(OSError):
            opened.callback(Server(options.host, options.port).close)
        if page := page_socket(options.page):
            page.close()


def _queue() -> None:
    writable_folder(home_folder())
    Jobs(queue_file(home_folder())).close()


def run_check(options: Options) -> None:
    """Print every check; the exit code is 1 where one has failed."""
    failed = False
    for check in checks(options):
        print(check.line, flush=True)
        failed |= not check.ok
    if failed:
        raise SystemExit(1)
