"""A client for scripts: sends one request, and waits for what comes of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from stylus_audio.errors import BadRequest, Cancelled, NotFound, StylusError
from stylus_audio.files import in_text

from .osc_messages import Argument, Message, Peer
from .osc_server import Server

PATIENCE = 2.0
"""Seconds to wait for a reply; a request is sent three times in that, under the same id."""
SILENT = 5
"""Questions after a job, one after the other, of which one has to be answered."""


class Refused(StylusError):
    """The daemon's own error, with its code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = 1 if code in ("internal", "out-of-memory", "disk-full") else 2


class Client:
    """A client of the daemon on this machine; use it as a context manager."""

    def __init__(self, port: int) -> None:
        self._daemon = Peer("udp", "127.0.0.1", port)
        self._server = Server("127.0.0.1", 0)
        self._events: list[Message] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    def ask(self, address: str, *arguments: Argument, patience: float = PATIENCE) -> tuple[Argument, ...]:
        """What the reply carries. Raises `Refused`, and `NotFound` where no daemon answers."""
        carried = self._carried(address, arguments, patience)
        if carried is None:
            port = self._daemon.port
            raise NotFound(f"no daemon answers on port {port}; {_instead(port)}")
        return carried

    def answers(self, seconds: float) -> tuple[Argument, ...] | None:
        """What the daemon says to a ping; None where there is none."""
        try:
            return self._carried("/stylus/ping", (), seconds)
        except StylusError:
            return None

    def _carried(self, address: str, arguments: tuple[Argument, ...], patience: float) -> tuple[Argument, ...] | None:
        rid = secrets.token_hex(8)
        for _ in range(3):
            try:
                self._server.send(self._daemon, address, rid, *arguments)
            except ValueError as error:
                raise BadRequest(f"the request cannot be sent: {in_text(str(error))}") from error
            for message in self._received(patience / 3):
                if message.arguments[:2] != (address, rid):
                    self._events.append(message)
                elif message.address == "/stylus/error":
                    raise Refused(str(message.arguments[2]), str(message.arguments[3]))
                else:
                    return message.arguments[2:]
        return None

    def wait(self, job: int, progress: Callable[[float, str, float], None]) -> str:
        """The path of a job's stem, when it is there; `progress` gets fraction, stage and seconds left.

        Events may be lost, so the job is asked for as well. Raises `Refused` with the job's error, `Cancelled`, and
        `NotFound` where no daemon has answered for a while: the job outlives one that is started anew.
        """
        silent = 0
        while True:
            for message in [*self._taken(), *self._received(1.0)]:
                if message.address == "/stylus/job/progress" and message.arguments[0] == job:
                    fraction, stage, eta = message.arguments[1:4]
                    progress(float(fraction or 0), str(stage), float(eta or -1))
                if message.address == "/stylus/job/state" and message.arguments[0] == job:
                    break
            try:
                _, state, fraction, stage, said = self.ask("/stylus/job/status", job)
            except NotFound:
                silent += 1
                if silent == SILENT:
                    raise
                continue
            silent = 0
            if state == "done":
                return str(said)
            if state == "cancelled":
                raise Cancelled(f"job {job} was cancelled")
            if state == "failed":
                code, _, words = str(said).partition(": ")
                raise Refused(code, words)
            progress(float(fraction or 0), str(stage or state), -1.0)

    def _taken(self) -> list[Message]:
        events, self._events = self._events, []
        return events

    def _received(self, seconds: float) -> Iterator[Message]:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for message in self._server.receive(left):
                if isinstance(message, Message):
                    yield message


def ping(port: int, seconds: float) -> tuple[Argument, ...] | None:
    """What a daemon on this machine answers to a ping; None where there is none."""
    with Client(port) as client:
        return client.answers(seconds)


def _instead(port: int) -> str:
    """What to do where no daemon answers on a port."""
    # The service asks others by this module.
    from .service import others_port

    try:
        other = others_port()
    except StylusError:
        # A lock of no use is held by nobody.
        other = None
    if other is None:
        return "`stylus daemon` starts one"
    if other in (0, port):
        return "one of yours is running, and may answer in a moment"
    return f"yours runs on port {other}: --osc-port {other}"
