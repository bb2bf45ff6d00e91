"""OSC over UDP and TCP on one port, in one thread that waits nowhere but in `Server.receive`.

What an address means is the caller's affair.
"""

from __future__ import annotations

import errno
import selectors
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial

from .osc_framing import MESSAGE, Framing, NotOsc, TooLong
from .osc_messages import Argument, Malformed, Message, Peer, Unreadable, decode, encode

PACKET = 4_000
"""The largest packet that is sent, bytes: every known client takes it."""
CONNECTIONS = 64
"""How many TCP connections there may be. For one more the one that was silent for longest goes: a client that leaks
connections then harms itself first, and a new client, which may want to cancel something, always gets in."""
UNSENT = 1 << 20
"""How much may wait for a TCP client that does not read, bytes, before the connection is closed."""

_CHUNK = 1 << 16
_BURST = 256
_TURN = 0.05
"""How long one call of `receive` goes on reading what is there, seconds."""
_NO_HANDLE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@dataclass(eq=False)
class _Connection:
    peer: Peer
    socket: socket.socket
    framing: Framing = field(default_factory=Framing)
    unsent: bytearray = field(default_factory=bytearray)
    ended: bool = False
    """The client sends no more; it may still read."""
    watched: int = 0
    active: float = field(default_factory=time.monotonic)


_Found = list[Message | Malformed]
_Serve = Callable[[int, _Found, float], None]


class Server:
    """One port for UDP and TCP. For one thread, but for `wake`."""

    def __init__(self, host: str, port: int) -> None:
        """Listen on `port`, or for 0 on one that is free for both; `OSError` where it is taken."""
        self._connections: dict[Peer, _Connection] = {}
        self._woken = False
        with ExitStack() as opened:
            self._udp, self._listener = _bound(host, port)
            opened.enter_context(self._udp)
            opened.enter_context(self._listener)
            self._bell, self._rope = socket.socketpair()
            opened.enter_context(self._bell)
            opened.enter_context(self._rope)
            self._selector = selectors.DefaultSelector()
            opened.callback(self._selector.close)
            handlers: list[tuple[socket.socket, _Serve]] = [
                (self._udp, self._take_datagrams),
                (self._listener, self._accept),
                (self._bell, self._answer_bell),
            ]
            for one, handler in handlers:
                one.setblocking(False)
                self._selector.register(one, selectors.EVENT_READ, handler)
            self._rope.setblocking(False)
            self.port: int = self._udp.getsockname()[1]
            self._opened = opened.pop_all()

    def receive(self, timeout: float) -> list[Message | Malformed]:
        """What has come, once something has; nothing after `timeout` seconds or `wake`.

        Reads no more than some hundred packets or for about 50 ms, from each sender in its turn; the rest comes with
        the next call. What waits for slow clients is sent meanwhile.
        """
        until = time.monotonic() + timeout
        found: _Found = []
        while True:
            left = any(connection.framing.more for connection in self._connections.values())
            events = self._selector.select(0 if left else max(0.0, until - time.monotonic()))
            stop = time.monotonic() + _TURN
            for key, mask in events:
                key.data(mask, found, stop)
            self._take_packets(found, stop)
            if found or self._woken or time.monotonic() >= until:
                self._woken = False
                return found

    def send(self, peer: Peer, address: str, *arguments: Argument) -> bool:
        """Send a message, without waiting; false where the peer is gone, has stopped reading, or cannot be reached.

        Raises `ValueError` for what `encode` refuses, and for a packet of over `PACKET` bytes.
        """
        packet = encode(address, *arguments)
        if len(packet) > PACKET:
            raise ValueError(f"a packet of {len(packet)} bytes; at most {PACKET} are sent")
        if peer.transport == "udp":
            try:
                self._udp.sendto(packet, (peer.host, peer.port))
            except (OSError, OverflowError):
                return False
            return True
        connection = self._connections.get(peer)
        if connection is None:
            return False
        connection.unsent += connection.framing.wrap(packet)
        self._flush(connection)
        if len(connection.unsent) > UNSENT:
            self._drop(connection)
        return peer in self._connections

    def wake(self) -> None:
        """End the `receive` that is waiting, or the next one. From any thread, at any time."""
        # Where the pair is full it rings already; where it is closed nobody waits.
        with suppress(OSError):
            self._rope.send(b"\0")

    def close(self) -> None:
        """Let the port and all connections go; what a client has not read yet may be lost."""
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._opened.close()

    def _answer_bell(self, _mask: int, _found: _Found, _stop: float) -> None:
        with suppress(OSError):
            self._bell.recv(_CHUNK)
        self._woken = True

    def _take_datagrams(self, _mask: int, found: _Found, stop: float) -> None:
        for _ in range(_BURST):
            try:
                packet, sender = self._udp.recvfrom(_CHUNK)
            except ConnectionResetError:
                # Windows says so here when an answer of ours found nobody.
                continue
            except OSError:
                return
            _read(Peer("udp", sender[0], sender[1]), packet, found)
            if time.monotonic() > stop:
                return

    def _accept(self, _mask: int, _found: _Found, _stop: float) -> None:
        for _ in range(CONNECTIONS):
            try:
                accepted, sender = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_HANDLE:
                    self._make_room()
                return
            # On macOS a connection may be gone already, and with it the sender.
            if not sender:
                accepted.close()
                continue
            peer = Peer("tcp", sender[0], sender[1])
            if peer in self._connections:
                self._drop(self._connections[peer])
            if len(self._connections) >= CONNECTIONS:
                self._make_room()
            accepted.setblocking(False)
            with suppress(OSError):
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[peer] = _Connection(peer, accepted)
            self._watch(self._connections[peer])

    def _make_room(self) -> None:
        """Close the connection that needs it least: one whose client has ended it, else the longest silent one."""
        if self._connections:
            self._drop(min(self._connections.values(), key=lambda one: (not one.ended, one.active)))

    def _serve(self, connection: _Connection, mask: int, _found: _Found, _stop: float) -> None:
        if mask & selectors.EVENT_WRITE:
            self._flush(connection)
        # Unread packets wait in the system, where they slow their sender down.
        if mask & selectors.EVENT_READ and not connection.ended and not connection.framing.more:
            try:
                data = connection.socket.recv(_CHUNK)
            except BlockingIOError:
                return
            except OSError:
                self._drop(connection)
                return
            connection.active = time.monotonic()
            if data:
                connection.framing.feed(data)
            else:
                connection.ended = connection.framing.more = True
                self._watch(connection)

    def _take_packets(self, found: _Found, stop: float) -> None:
        """One packet of every connection in turn, so that none has to wait for another's flood."""
        for _ in range(_BURST):
            ready = [connection for connection in self._connections.values() if connection.framing.more]
            for connection in ready:
                self._take_packet(connection, found)
            if not ready or len(found) > _BURST or time.monotonic() > stop:
                return

    def _take_packet(self, connection: _Connection, found: _Found) -> None:
        try:
            packet = connection.framing.next()
        except NotOsc:
            found.append(Malformed(connection.peer, "a stream that is no OSC"))
            self._drop(connection)
            return
        except TooLong:
            found.append(Malformed(connection.peer, f"a packet of over {MESSAGE} bytes"))
            self._drop(connection)
            return
        except Unreadable as error:
            found.append(Malformed(connection.peer, str(error)))
            return
        if packet is not None:
            _read(connection.peer, packet, found)
        elif connection.ended and connection.framing.cut():
            found.append(Malformed(connection.peer, "the connection ended within a packet"))

    def _flush(self, connection: _Connection) -> None:
        try:
            sent = connection.socket.send(connection.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return
        if sent:
            connection.active = time.monotonic()
            del connection.unsent[:sent]
        self._watch(connection)

    def _watch(self, connection: _Connection) -> None:
        """Wait for what can happen now; a socket that has ended would be readable for ever."""
        wanted = 0 if connection.ended else selectors.EVENT_READ
        if connection.unsent:
            wanted |= selectors.EVENT_WRITE
        if wanted == connection.watched:
            return
        handler = partial(self._serve, connection)
        if not connection.watched:
            self._selector.register(connection.socket, wanted, handler)
        elif wanted:
            self._selector.modify(connection.socket, wanted, handler)
        else:
            self._selector.unregister(connection.socket)
        connection.watched = wanted

    def _drop(self, connection: _Connection) -> None:
        """Close a connection, also one that is closed already: events of it may still be at hand then."""
        if self._connections.get(connection.peer) is connection:
            del self._connections[connection.peer]
        if connection.watched:
            self._selector.unregister(connection.socket)
            connection.watched = 0
        connection.socket.close()


def _read(peer: Peer, packet: bytes, found: _Found) -> None:
    try:
        found += [Message(peer, *message) for message in decode(packet)]
    except Unreadable as error:
        found.append(Malformed(peer, str(error)))


def _bound(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Sockets for UDP and TCP on one port."""
    family, _, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)[0]
    # A free port of one kind is seldom taken for the other.
    tries = 16 if port == 0 else 1
    while True:
        tries -= 1
        with ExitStack() as opened:
            tcp = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
            udp = opened.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            if sys.platform == "win32":
                for one in (tcp, udp):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tcp.bind((address[0], port))
                udp.bind((address[0], tcp.getsockname()[1]))
                tcp.listen(CONNECTIONS)
            except OSError:
                if tries:
                    continue
                raise
            _enlarge(udp)
            opened.pop_all()
            return udp, tcp


def _enlarge(udp: socket.socket) -> None:
    """Let the system keep a burst of datagrams while we are busy, as far as it allows."""
    for size in (1 << 22, 1 << 21, 1 << 20, 1 << 19):
        try:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        except OSError:
            continue
        return
