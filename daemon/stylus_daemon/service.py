"""The daemon itself: joins socket, desk, queue and workers, and turns in one loop."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from ctypes.util import find_library
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from stylus_audio.errors import BadRequest, NotAllowed, StylusError
from stylus_audio.files import exists, remove_old_folders, writable_folder
from stylus_audio.lock import Lock, Taken
from stylus_audio.places import user_data

from . import auditions
from .aside import Aside, Told
from .client import ping
from .desk import Desk, echoed
from .events import SAID, Events, Listeners
from .gate import LOOPBACK, Gate
from .holder import said_of_holder, say_holder
from .jobs import Jobs, is_finished, queue_file
from .log import to_stderr
from .osc_messages import Answer, Malformed, Message, Peer, cut
from .osc_server import Server
from .roots import Roots, adding
from .supervisor import STALL, Supervisor
from .watch_events import run
from .watch_settings import Watch, check_apart
from .watcher import Watcher
from .worker_messages import Plan, Progress

if TYPE_CHECKING:
    from .page_app import Asked
    from .page_server import PageServer

log = logging.getLogger(__name__)

PORT = 9109
PAGE_PORT = 9110
TURN = 0.05
"""Seconds that the loop waits for a packet before it looks after everything else."""
RETENTION = 30 * 86400.0
"""Seconds that a job which has ended is remembered."""
GRACE = 10.0
"""Seconds that a worker has to finish its present step when the daemon ends."""
LOOK = 0.5
"""Seconds within which who only looks whether there is a daemon has let go of its lock."""
LOOKS = 5.0
"""Seconds between two looks at the daemon beside which folders are watched."""


class PortTaken(StylusError):
    """Another program listens where the daemon should, or another daemon of the user's runs."""

    code = "busy"
    exit_code = 2
    """The user's to mend: another port, or the daemon that there is."""


@dataclass(frozen=True)
class Options:
    """How a daemon is started."""

    port: int = PORT
    host: str = "127.0.0.1"
    token: str = ""
    """Outside of loopback: what a client says first, by `/stylus/token rid TOKEN`."""
    allowed: tuple[str, ...] = ()
    """Outside of loopback: addresses of hosts that are listened to."""
    roots: tuple[Path, ...] = ()
    model: str = "mini"
    device: str = "auto"
    queue: int = 1000
    stall: float = STALL
    watches: tuple[Watch, ...] = ()
    page: int | None = None
    """The port of the page on this machine, 0 for a free one; None for no page."""
    batch_size: int | None = None
    """Short clips that are rendered together, at most; None decides by the device."""
    any_port: bool = False
    """Where the port is taken, listen on a free one."""

    @property
    def given_roots(self) -> tuple[Path, ...]:
        """Folders that may be used until the daemon ends: those it was given, and what its watches name."""
        return (*self.roots, *(folder for watch in self.watches for folder in watch.folders))

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and not (self.token and self.allowed):
            raise BadRequest(f"host: {self.host} can be reached from outside; that needs --token-file and --allow IP")
        check_apart(self.watches)
        if self.token and len(self.token) < 16:
            raise BadRequest("token: fewer than 16 letters can be guessed")


class Service:
    """One daemon. `turn` does one unit of its work; `run` turns until `stop`."""

    def __init__(self, options: Options) -> None:
        """Opens everything; raises `PortTaken`, also where another daemon uses the same home."""
        self.options = options
        home = home_folder()
        writable_folder(home)
        with ExitStack() as opened:
            self.server = _listening(options)
            opened.callback(self.server.close)
            try:
                self._lock = Lock(home / "daemon.lock", LOOK)
            except Taken:
                raise PortTaken(_said_of_other(said_of_holder(home).port)) from None
            opened.callback(self._lock.release)
            page = page_socket(options.page)
            if page:
                opened.enter_context(page)
            opened.pop_all()
        self.roots = Roots(options.given_roots)
        say_holder(home, self.server.port, self.roots.given)
        self.jobs = Jobs(queue_file(home), options.queue)
        self._plans = plans(options, home)
        self.supervisor = Supervisor(self._plans, options.stall)
        self.listeners = Listeners()
        self.desk = Desk(self.jobs, self.roots, self.supervisor, self.listeners)
        self.events = Events(self.jobs, self.listeners)
        self._asked: SimpleQueue[tuple[Message, Asked]] = SimpleQueue()
        # It has a desk of its own, which touches neither the queue nor what the loop's is at.
        beside = Desk(self.jobs, Roots(options.given_roots), self.supervisor, self.listeners)
        self._aside = Aside(partial(self._served, beside), self.server.wake)
        self._gate = Gate(options.host, options.token, options.allowed)
        self._stopping = threading.Event()
        self._watching = _start_watching(options.watches, home, options.queue, self._stopping)
        self._page = self._start_page(page, home) if page else None
        self._tended = 0.0

    def run(self) -> None:
        """Turn until `stop`; then end the workers, whose jobs go back in the queue."""
        # What has been imported stays; looking through all of it for garbage would hold up answers for 0.2 s.
        gc.collect()
        gc.freeze()
        try:
            while not self._stopping.is_set():
                self.turn(TURN)
        finally:
            self.close()

    def stop(self) -> None:
        """May be called from a signal handler or another thread."""
        self._stopping.set()

    def ask(self, message: Message) -> Asked:
        """Have the desk answer from another thread: what will be `(address, arguments)`, once it is on the disk."""
        future: Asked = Future()
        self._asked.put((message, future))
        self.server.wake()
        return future

    def turn(self, timeout: float) -> None:
        """Answer what has come, look after the workers, and tell what has changed."""
        received = self.server.receive(timeout)
        late = self._aside.late()
        asked = [self._asked.get() for _ in range(self._asked.qsize())]
        waiting: list[tuple[Message | Malformed, Told]] = [*self._aside.held(), *((one, None) for one in received)]
        waiting += asked
        now = [one for one in waiting if not self._is_for_later(*one)]
        try:
            with self.jobs.together():
                answers = [self._answer(one) for one, _ in now]
        except sqlite3.Error as error:
            # Nothing of it is on the disk.
            self.desk.forget()
            answers = [self._failed(one, error) if isinstance(one, Message) else None for one, _ in now]
        # Told only now that it is on the disk.
        for told, answer in (*late, *zip((told for _, told in now), answers, strict=True)):
            self._tell(told, answer)
        news = self.supervisor.tick()
        progress = [word for word in news if isinstance(word, Progress)]
        self.desk.progress.update({word.job: word for word in progress})
        for event in (*self.events.of_progress(progress), *self.events.of_changes()):
            self._send(*event)
        if time.monotonic() - self._tended > 5:
            self._tended = time.monotonic()
            try:
                self._tend()
            except (sqlite3.Error, OSError) as error:
                log.error("the queue cannot be tended: %s", error)

    def _tell(self, told: Told, answer: Answer | None) -> None:
        if told is None:
            if answer:
                self._send(answer.peer, answer.address, answer.arguments)
        # The page's user may be gone by now.
        elif told.set_running_or_notify_cancel():
            not_ours = "/stylus/error", ("", "", "unknown-address", "not ours")
            told.set_result((answer.address, answer.arguments) if answer else not_ours)

    def _is_for_later(self, received: Message | Malformed, told: Told) -> bool:
        """Whether the answer does not come in this turn, as others would wait for it."""
        if isinstance(received, Malformed) or not self._aside.concerns(received):
            return False
        if self._gate.refuses(received) is not None:
            return False
        self._aside.take(received, told)
        return True

    def _send(self, peer: Peer, address: str, arguments: tuple[Any, ...]) -> None:
        # A file's name need not be text; OSC has no form for such ones.
        spoken = [value.encode(errors="replace").decode() if isinstance(value, str) else value for value in arguments]
        try:
            self.server.send(peer, address, *spoken)
        except ValueError as error:
            log.error("%s cannot be sent: %s", address, error)
            if address in ("/stylus/reply", "/stylus/error"):
                # Who asked shall not wait for it.
                to, rid = spoken[0], echoed(spoken[1])
                self.server.send(peer, "/stylus/error", to, rid, "internal", "the answer is too long")

    def _answer(self, received: Message | Malformed) -> Answer | None:
        if isinstance(received, Malformed):
            log.info("unreadable packet: %s", received.reason)
            return None
        refused = self._gate.refuses(received)
        if refused is not None:
            return Answer(received.peer, *refused) if refused else None
        return self._served(self.desk, received)

    def _served(self, desk: Desk, message: Message) -> Answer | None:
        try:
            return desk.answer(message)
        except Exception as error:
            return self._failed(message, error)

    def _failed(self, received: Message, error: Exception) -> Answer:
        log.error("%s", received.address, exc_info=error)
        rid = echoed(received.arguments[0] if received.arguments else 0)
        # SQLite says of a full disk that it is full, or that it cannot be written.
        full = isinstance(error, sqlite3.OperationalError) and any(word in str(error) for word in ("full", "I/O"))
        code, said = ("disk-full", "the queue cannot be written") if full else ("internal", type(error).__name__)
        arguments = received.address[:200], rid, code, cut(f"{said}: {error}", SAID)
        return Answer(received.peer, "/stylus/error", arguments)

    def _tend(self) -> None:
        """Settle jobs of workers that are none of ours, and forget old ones."""
        ours = {plan.name for plan in self._plans}
        if any(job.worker not in ours for job in self.jobs.listed("running")):
            self.jobs.recover(is_finished, blame=False)
        self.jobs.prune(RETENTION)
        remove_old_folders(self.roots.uploads, RETENTION)
        remove_old_folders(auditions.folder_of(home_folder()), auditions.RETENTION)
        running = {job.id for job in self.jobs.listed("running")}
        self.desk.progress = {job: word for job, word in self.desk.progress.items() if job in running}

    def _start_page(self, opened: socket.socket, home: Path) -> PageServer:
        # Imported only where there is a page: its libraries take a third of a second.
        from .page_app import Page
        from .page_feed import Feed
        from .page_gate import PageGate, kept_token
        from .page_server import PageServer

        port, token = opened.getsockname()[1], kept_token(home / "page-token")

        def queue() -> Jobs:
            return Jobs(queue_file(home), self.options.queue)

        supervisor = self.supervisor
        feed = Feed(queue, lambda: self.desk.progress, lambda: supervisor.conditions, lambda: supervisor.processes)
        page = Page(self.ask, queue, Roots(self.options.given_roots), home, feed)
        self.desk.page_url = f"http://127.0.0.1:{port}/?token={token}"
        server = PageServer(PageGate(page.app(), port, token), opened, feed.close)
        server.start()
        return server

    @property
    def page_url(self) -> str:
        """Where the page is, with its token; "" where there is none."""
        return self.desk.page_url

    def close(self) -> None:
        """End everything in order; a job that is not done by then waits for the next start."""
        self._stopping.set()
        if self._page:
            self._page.stop()
        # A style that is being kept is kept whole.
        self._aside.close()
        left = [(told, self._served(self.desk, message)) for message, told in self._aside.held()]
        for told, answer in (*self._aside.late(), *left):
            self._tell(told, answer)
        self.supervisor.stop(GRACE)
        for event in self.events.of_changes():
            self._send(*event)
        for thread in self._watching:
            thread.join(5)
        self.jobs.close()
        self.server.close()
        self._lock.release()


def home_folder() -> Path:
    """Where the daemon keeps its queue, locks and cache."""
    return user_data() / "daemon"


def plans(options: Options, home: Path) -> list[Plan]:
    """One worker for each device: every CUDA device, or the one that was asked for."""
    devices = [options.device]
    if options.device == "auto" and (count := _cuda_devices()) > 1:
        devices = [f"cuda:{number}" for number in range(count)]
    roots, size, count = options.given_roots, options.batch_size, len(devices)
    return [
        Plan(f"worker-{number}", home, options.model, device, roots, batch_size=size, workers=count)
        for number, device in enumerate(devices)
    ]


def _cuda_devices() -> int:
    """How many there are; PyTorch, which takes seconds to load, is asked only where there is a driver."""
    if not (find_library("cuda") or find_library("nvcuda")):
        return 0
    import torch

    return torch.cuda.device_count()


def other_daemon() -> str:
    """Where a daemon of this user is running, in words; "" where none is."""
    port = others_port()
    return "" if port is None else _said_of_other(port)


def others_port() -> int | None:
    """The OSC port of a daemon of this user that is running, 0 where it is not known; None where none is."""
    lock = home_folder() / "daemon.lock"
    try:
        # Only to look must make no folders.
        if exists(lock):
            Lock(lock).release()
    except Taken:
        return said_of_holder(home_folder()).port
    return None


def _said_of_other(port: int) -> str:
    where = f"on OSC port {port}" if port else f"with {home_folder()}"
    return f"another daemon of yours is running, {where}; there is one for each user"


def on_signal(stop: Callable[[], None]) -> None:
    """What Ctrl-C and SIGTERM do from now on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop())


def watch_beside(options: Options, again: bool = False) -> bool:
    """Watch folders for a daemon that is running already, which renders; until it ends (true), or Ctrl-C (false).

    Raises `NotAllowed` for folders that it may not use, all at once; outputs are made first, so that they can be added.
    `again`, after one in whose folders they were, it is waited until it may, or ends.
    """
    interrupted, stopping = threading.Event(), threading.Event()
    if outside := _outside(options):
        for watch in options.watches:
            with suppress(OSError):
                watch.output.mkdir(exist_ok=True)
        said = _said_of_outside(outside, [one for watch in options.watches for one in (watch.root, watch.output)])
        if not again:
            raise NotAllowed(said)
        log.warning("%s; it is waited for that, or for its end", said)
        stopped: list[None] = []
        on_signal(lambda: stopped.append(None))
        missed = 0
        while _outside(options):
            until = time.monotonic() + LOOKS
            while not stopped and time.monotonic() < until:
                time.sleep(0.2)
            missed = 0 if other_daemon() else missed + 1
            # One that is started anew is gone for a moment.
            if stopped or missed == 2:
                return not stopped
    to_stderr()
    log.info("the daemon that is running renders what appears; Ctrl-C ends the watching")
    on_signal(interrupted.set)
    (thread,) = _start_watching(options.watches, home_folder(), options.queue, stopping)
    looked, missed = time.monotonic(), 0
    while thread.is_alive() and missed < 2 and not interrupted.is_set():
        thread.join(0.5)
        if time.monotonic() - looked > LOOKS:
            looked = time.monotonic()
            # One that is started anew is gone for a moment.
            missed = 0 if other_daemon() else missed + 1
    stopping.set()
    thread.join()
    if missed < 2 or interrupted.is_set():
        return False
    log.info("the daemon that rendered has ended; what appears is rendered here from now on")
    return True


def _outside(options: Options) -> list[Path]:
    """Which folders the daemon that is running may not use."""
    roots = Roots(said_of_holder(home_folder()).roots)
    return [folder for folder in dict.fromkeys(options.given_roots) if not roots.holds(folder)]


def _said_of_outside(outside: Sequence[Path], watched: Sequence[Path]) -> str:
    """What to do about folders that a daemon may not use: those that are watched, and those of styles."""
    # One reference is no reason to open everything of the user's.
    home = Path.home().resolve()
    wide = [
        folder
        for folder in outside
        if folder not in watched and (home.is_relative_to(folder) or folder == Path(folder.anchor))
    ]
    rest = [folder for folder in outside if folder not in wide]
    said = [f"the daemon that is running may not use {', '.join(repr(str(folder)) for folder in outside)}"]
    said += [f"{adding(rest)} allows it"] if rest else []
    said += [f"a style in {str(folder)!r} goes to the library by `stylus style add NAME FILE`" for folder in wide]
    return "; ".join(said)


def _listening(options: Options) -> Server:
    try:
        return Server(options.host, options.port)
    except OSError as error:
        if options.any_port:
            log.warning("port %d is taken; OSC is taken on another", options.port)
            return Server(options.host, 0)
        # Another port would not help then.
        if said := other_daemon():
            raise PortTaken(said) from error
        taker = "another Stylus daemon" if ping(options.port, 0.5) else "another program"
        raise PortTaken(
            f"port {options.port} on {options.host} is taken by {taker} ({error.strerror}); --osc-port takes another"
        ) from error


def page_socket(port: int | None) -> socket.socket | None:
    """A socket for the page; where the usual port is taken, on a free one, as clients are told where it is."""
    if port is None:
        return None
    from .page_server import bound

    try:
        return bound(port)
    except OSError as error:
        if port == PAGE_PORT:
            log.warning("port %d for the page is taken; it takes another", port)
            return bound(0)
        raise PortTaken(
            f"port {port} for the page is taken ({error.strerror}); --http-port takes another, --no-page does without"
        ) from error


def _start_watching(
    watches: Sequence[Watch], home: Path, limit: int, stopping: threading.Event
) -> list[threading.Thread]:
    """Watched folders have a thread and a door to the queue of their own: hashing a long file must not hold up OSC."""
    if not watches:
        return []

    def watch() -> None:
        # Who waits for something finds room, however much lies in a folder.
        jobs = Jobs(queue_file(home), max(1, limit - limit // 10))
        try:
            run([Watcher(one, jobs) for one in watches], stopping)
        finally:
            jobs.close()

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    return [thread]
