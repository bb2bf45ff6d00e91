"""OSC 1.0 and 1.1 over UDP and TCP, in one thread that waits nowhere but in `Server.receive`.

What an address means is the caller's affair. An address is plain text here: it is never matched as a pattern. Time tags
are not looked at: everything is due now. No packet, however it is built, costs more than 10 ms of processor time; so
messages are not read with python-osc's `OscMessage`, which takes as long for 64 KB and nine times that for 1 MiB.
"""

from __future__ import annotations

import errno
import math
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from pythonosc import slip
from pythonosc.osc_message_builder import BuildError, OscMessageBuilder

Argument = int | float | str | bool | bytes | None
"""What a message carries. Of the rarer types a time tag and a colour are read as int, MIDI as 4 bytes, a character and
a symbol as str, and "infinitum" as an infinite float."""

PACKET = 4_000
"""The largest packet that is sent, bytes: every known client takes it."""
MESSAGE = 1 << 20
"""The largest packet that is taken over TCP, bytes; over UDP it is the 64 KB that a datagram can have."""
ADDRESS = 255
"""The longest address that is taken, bytes: an answer has room to repeat it."""
DEPTH = 8
"""How many bundles may be around a message."""
ELEMENTS = 256
"""How many messages and bundles a packet may have."""
ARGUMENTS = 1_000
"""How many arguments the messages of a packet may have together."""
CONNECTIONS = 64
"""How many TCP connections there may be. For one more the one that was silent for longest goes: a client that leaks
connections then harms itself first, and a new client, which may want to cancel something, always gets in."""
UNSENT = 1 << 20
"""How much may wait for a TCP client that does not read, bytes, before the connection is closed."""

_ESCAPES = 1 << 16
"""How many bytes of a SLIP packet may be escaped: 1 MiB of nothing else takes 40 ms. Random data has 8,000 in 1 MiB."""
_CHUNK = 1 << 16
_BURST = 256
_TURN = 0.05
"""How long one call of `receive` goes on reading what is there, seconds."""
_NO_HANDLE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_INTEGER = struct.Struct(">I")
_NUMBERS = {
    "i": struct.Struct(">i"),
    "h": struct.Struct(">q"),
    "f": struct.Struct(">f"),
    "d": struct.Struct(">d"),
    "t": struct.Struct(">Q"),
    "r": _INTEGER,
}
_CONSTANTS: dict[str, Argument] = {"T": True, "F": False, "N": None, "I": math.inf}
_TAGS = frozenset([*_NUMBERS, *_CONSTANTS, *"sSbcm"])


class Unreadable(ValueError):
    """A packet that is not OSC, or more than is taken; says why in one line of plain ASCII."""

    def __init__(self, reason: str, address: str = "") -> None:
        super().__init__(reason)
        self.address = address
        """Of the message that is wrong, where that much can be read."""


@dataclass(frozen=True)
class Peer:
    """Who sent something, and where an answer goes: for UDP an address, for TCP a connection."""

    transport: Literal["udp", "tcp"]
    host: str
    port: int


@dataclass(frozen=True)
class Message:
    """What somebody has sent."""

    peer: Peer
    address: str
    """Printable, with a leading slash, at most `ADDRESS` bytes."""
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Malformed:
    """What somebody has sent and could not be read; a bundle is read whole or not at all."""

    peer: Peer
    reason: str
    """One line of plain ASCII."""
    address: str = ""
    """Of the message that is wrong, where that much can be read."""


def encode(address: str, *arguments: Argument) -> bytes:
    """One message as a packet; `ValueError` for what OSC has no form for.

    Whole numbers take 32 bits where they fit, else 64; other numbers 32 bits, and 64 only where they are too large.
    A text or an address with a NUL and an empty blob cannot be sent.
    """
    if not address.startswith("/") or "\0" in address:
        raise ValueError(f"{address!r} is no OSC address")
    builder = OscMessageBuilder(address)
    for argument in arguments:
        builder.add_arg(argument, _tag(argument))
    try:
        return builder.build().dgram
    except BuildError as error:
        raise ValueError(str(error)) from error


def _tag(argument: Argument) -> str:
    tag = ""
    if argument is None:
        tag = "N"
    elif isinstance(argument, bool):
        tag = "T" if argument else "F"
    elif isinstance(argument, int):
        bits = (argument if argument >= 0 else ~argument).bit_length()
        tag = "i" if bits < 32 else "h" if bits < 64 else ""
    elif isinstance(argument, float):
        try:
            _NUMBERS["f"].pack(argument)
            tag = "f"
        except OverflowError:
            tag = "d"
    elif isinstance(argument, bytes):
        tag = "b"
    elif isinstance(argument, str) and "\0" not in argument:
        tag = "s"
    if not tag:
        raise ValueError(f"a value of type {type(argument).__name__} that cannot be sent over OSC")
    return tag


def decode(packet: bytes) -> list[tuple[str, tuple[Argument, ...]]]:
    """The messages of a packet, in their order: address and arguments. Raises `Unreadable`, and nothing else."""
    if not packet or len(packet) % 4:
        raise Unreadable(f"a packet of {len(packet)} bytes; it has to be a multiple of 4")
    messages = []
    arguments = elements = 0
    waiting = [(0, len(packet), 0)]
    while waiting:
        start, end, depth = waiting.pop()
        if not packet.startswith(b"#bundle\0", start, end):
            messages.append(_message(packet, start, end, ARGUMENTS - arguments))
            arguments += len(messages[-1][1])
            continue
        if depth == DEPTH:
            raise Unreadable(f"bundles more than {DEPTH} deep")
        inside = _elements(packet, start, end, ELEMENTS - elements)
        elements += len(inside)
        waiting += [(*element, depth + 1) for element in reversed(inside)]
    return messages


def _elements(packet: bytes, start: int, end: int, most: int) -> list[tuple[int, int]]:
    at = start + 16
    if at > end:
        raise Unreadable("a bundle without its time tag")
    found: list[tuple[int, int]] = []
    while at < end:
        (size,) = _INTEGER.unpack_from(packet, at)
        at += 4
        if not 0 < size <= end - at or size % 4:
            raise Unreadable(f"an element of {size} bytes where {end - at} are left of the bundle")
        if len(found) == most:
            raise Unreadable(f"more than {ELEMENTS} messages and bundles in one packet")
        found.append((at, at + size))
        at += size
    return found


def _message(packet: bytes, start: int, end: int, most: int) -> tuple[str, tuple[Argument, ...]]:
    raw, at = _text(packet, start, end)
    if not raw.startswith(b"/") or len(raw) > ADDRESS:
        raise Unreadable(f"no address: it begins with a slash and has at most {ADDRESS} bytes")
    address = _utf8(raw)
    if not address.isprintable():
        raise Unreadable("an address with characters that cannot be printed")
    # Senders from before OSC 1.0 leave the type tags out.
    if at == end:
        return address, ()
    try:
        tags, at = _text(packet, at, end)
        if not tags.startswith(b","):
            raise Unreadable("no type tags behind the address")
        if len(tags) - 1 > most:
            raise Unreadable(f"more than {ARGUMENTS} arguments in one packet")
        return address, _arguments(packet, at, end, _utf8(tags[1:]))
    except Unreadable as error:
        error.address = address
        raise


def _arguments(packet: bytes, at: int, end: int, tags: str) -> tuple[Argument, ...]:
    unknown = set(tags) - _TAGS
    if unknown:
        raise Unreadable(f"type tag {min(unknown)!a}; {''.join(sorted(_TAGS))} are taken")
    arguments: list[Argument] = []
    for tag in tags:
        if tag in _CONSTANTS:
            arguments.append(_CONSTANTS[tag])
        elif tag in _NUMBERS:
            form = _NUMBERS[tag]
            arguments.append(form.unpack(_data(packet, at, end, form.size))[0])
            at += form.size
        elif tag in "sS":
            raw, at = _text(packet, at, end)
            arguments.append(_utf8(raw))
        elif tag == "m":
            arguments.append(_data(packet, at, end, 4))
            at += 4
        else:
            (number,) = _INTEGER.unpack(_data(packet, at, end, 4))
            at += 4
            if tag == "c":
                if not 0 < number < 128:
                    raise Unreadable("a character that is not ASCII")
                arguments.append(chr(number))
            else:
                arguments.append(_data(packet, at, end, number))
                at += number + -number % 4
    if at != end:
        raise Unreadable("the packet does not end with the last argument")
    return tuple(arguments)


def _data(packet: bytes, at: int, end: int, size: int) -> bytes:
    if size > end - at:
        raise Unreadable(f"an argument of {size} bytes where {max(end - at, 0)} are left")
    return packet[at : at + size]


def _text(packet: bytes, at: int, end: int) -> tuple[bytes, int]:
    """A string as it is, and what comes behind its padding."""
    stop = packet.find(0, at, end)
    if stop < 0:
        raise Unreadable("a string without an end")
    return packet[at:stop], stop + 4 - stop % 4


def _utf8(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable("a string that is not UTF-8") from error


class _TooLong(Exception):
    """A packet over `MESSAGE`: it is not waited for, and so where the next one begins is not known."""


class _Framing:
    """A TCP stream cut into packets: its first byte tells whether by a length before each, or by SLIP."""

    def __init__(self) -> None:
        self.more = False
        """Whether another packet may be there already."""
        self._stream = bytearray()
        self._searched = 0
        self._prefixed: bool | None = None

    def feed(self, data: bytes) -> None:
        """Take what has been read."""
        if self._prefixed is None:
            # A length that is taken begins with 0; SLIP with END, or, without it, with "/" or "#".
            self._prefixed = data[0] == 0
        self._stream += data
        self.more = True

    def next(self) -> bytes | None:
        """The next packet; None where it is not there as a whole. Raises `_TooLong` and `Unreadable`."""
        packet = self._prefixed_packet() if self._prefixed else self._slip_packet()
        self.more = packet is not None
        return packet

    def cut(self) -> bool:
        """Whether the stream ends here within a packet."""
        return bool(self._stream)

    def _prefixed_packet(self) -> bytes | None:
        if len(self._stream) < 4:
            return None
        (size,) = _INTEGER.unpack_from(self._stream)
        if size > MESSAGE:
            raise _TooLong
        if len(self._stream) < 4 + size:
            return None
        packet = bytes(self._stream[4 : 4 + size])
        del self._stream[: 4 + size]
        return packet

    def _slip_packet(self) -> bytes | None:
        # OSC 1.1 has an END on both sides of each packet.
        if self._stream.startswith(slip.END):
            del self._stream[: len(self._stream) - len(self._stream.lstrip(slip.END))]
            self._searched = 0
        end = self._stream.find(slip.END, self._searched)
        if (len(self._stream) if end < 0 else end) > MESSAGE + _ESCAPES:
            raise _TooLong
        if end < 0:
            self._searched = len(self._stream)
            return None
        raw = bytes(self._stream[:end])
        del self._stream[: end + 1]
        self._searched = 0
        if raw.count(slip.ESC) > _ESCAPES:
            raise Unreadable(f"more than {_ESCAPES} bytes of one packet are escaped")
        try:
            packet: bytes = slip.decode(raw)
        except slip.ProtocolError as error:
            raise Unreadable("a SLIP escape that is none") from error
        if len(packet) > MESSAGE:
            raise _TooLong
        return packet

    def wrap(self, packet: bytes) -> bytes:
        """A packet in the form in which the client's come."""
        if self._prefixed:
            return _INTEGER.pack(len(packet)) + packet
        return slip.encode(packet)


@dataclass(eq=False)
class _Connection:
    peer: Peer
    socket: socket.socket
    framing: _Framing = field(default_factory=_Framing)
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
        except _TooLong:
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
        found.append(Malformed(peer, str(error), error.address))


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
