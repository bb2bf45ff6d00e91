"""Throw packets of every bad kind at the OSC reader and server; fails where one costs over 10 ms or anything raises.

    python -m tests.soak.packets [--packets 1000000] [--seed 0]

Every packet goes to `decode`. One in 20 also goes to a server in this process: over UDP, over TCP in both framings, and
without framing on a connection of its own, where it may fall into thousands of packets and is not timed. What it costs
elsewhere is all of `receive` until a small message sent behind it has come. Packets have up to 60 KB, one in 1,000 up
to 1 MiB.
"""

from __future__ import annotations

import argparse
import random
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass

from pythonosc import slip
from stylus_daemon.osc_framing import MESSAGE
from stylus_daemon.osc_messages import Argument, Malformed, Message, Unreadable, decode, encode
from stylus_daemon.osc_server import Server

ALLOWED = 10.0
"""Processor time that a packet may cost, ms."""
HOST = "127.0.0.1"
LETTERS = "aü\u06c0€𝄞*?[{"
MARKER = encode("/marker")


def padded(raw: bytes) -> bytes:
    """An OSC string."""
    return raw + bytes(4 - len(raw) % 4)


def bundle(elements: list[bytes], time_tag: int) -> bytes:
    """A bundle of packets."""
    return struct.pack(">8sQ", b"#bundle", time_tag) + b"".join(struct.pack(">I", len(one)) + one for one in elements)


def text(rng: random.Random, size: int) -> bytes:
    """UTF-8 of about so many bytes, of one letter or of several."""
    piece = "".join(rng.choices(LETTERS, k=rng.choice([1, 1, 8]))).encode()
    return piece * (size // len(piece))


def valid(rng: random.Random, size: int) -> bytes:
    """A message with a few arguments."""
    choices: list[Argument] = [1, -(2**40), 0.5, 1e300, "text", True, None, rng.randbytes(9), text(rng, 40).decode()]
    return encode("/stylus/render", *rng.choices(choices, k=min(size // 10, rng.randrange(12))))


def noise(rng: random.Random, size: int) -> bytes:
    """Random bytes, half of them behind something that begins well."""
    head = rng.choice([b"", b"", b"/a\0\0", b"/a\0\0,s\0\0", b"#bundle\0"])
    return head + rng.randbytes(size - size % rng.choice([1, 4]))


def mutated(rng: random.Random, size: int) -> bytes:
    """A message or a bundle with some bytes changed, lost or added."""
    packet = bytearray(rng.choice([valid, nested, arguments])(rng, min(size, 4000)))
    for _ in range(rng.choice([1, 1, 2, 6])):
        at = rng.randrange(len(packet))
        match rng.randrange(6):
            case 0:
                packet[at] = rng.randrange(256)
            case 1 | 2 | 3:
                packet[at] ^= 1 << rng.randrange(8)
            case 4:
                del packet[at : at + rng.choice([1, 4])]
            case _:
                packet[at:at] = rng.randbytes(rng.choice([1, 4]))
        packet = packet or bytearray(4)
    return bytes(packet)


def nested(rng: random.Random, size: int) -> bytes:
    """Bundles in bundles, deep or wide, with messages or without."""
    inner = rng.choice([b"", valid(rng, size), padded(b"/" + b"a" * 254), encode("/" + "ü" * 127, *"abc")])
    packet = inner or bundle([], 0)
    for _ in range(rng.choice([1, 2, 8, 9, 100, 2000])):
        many = rng.choice([1, 1, 1, 3, 10, 64, 256])
        if (len(packet) + 4) * many + 16 > size:
            many = 1
        if len(packet) + 20 > size:
            break
        packet = bundle([packet] * many, rng.choice([0, 1, 2**64 - 1]))
    return packet


def patterns(rng: random.Random, size: int) -> bytes:
    """Addresses that would be slow as regular expressions."""
    piece = rng.choice([b"*", b"?*", b"{a,b}", b"[!a-z]", b"(a+)+", b"//", b"{" * 5])
    return padded((b"/" + piece * rng.choice([10, 30, size]))[: rng.choice([60, 255, 256, size])]) + b",\0\0\0"


def strings(rng: random.Random, size: int) -> bytes:
    """One text or several that fill the packet."""
    many = rng.choice([1, 1, 2, 100])
    return padded(b"/a") + padded(b"," + b"s" * many) + padded(text(rng, size // many)) * many


def arguments(rng: random.Random, size: int) -> bytes:
    """As many arguments as may be, or some more."""
    tag, data = rng.choice(
        [(b"i", bytes(4)), (b"h", bytes(8)), (b"d", bytes(8)), (b"t", b"\xff" * 8), (b"T", b""), (b"s", b"abc\0"),
         (b"s", bytes(4)), (b"b", bytes(4)), (b"c", b"\0\0\0a"), (b"m", bytes(4)), (b"N", b""), (b"sibc", bytes(16))]
    )  # fmt: skip
    many = min(rng.choice([10, 999, 1000, 1001]) // len(tag), size // (len(data) + len(tag)))
    return padded(b"/a") + padded(b"," + tag * many) + data * many


def tags(rng: random.Random, size: int) -> bytes:
    """Type tags that fill the packet, known and unknown."""
    piece = rng.choice([b"T", b"x", b"[", b"[]", b"i", b"s", b",", b"\xc3\xa4", b"\xff", rng.randbytes(7)])
    return padded(b"/a") + padded(b"," + piece * (size // len(piece)))


def not_utf8(rng: random.Random, size: int) -> bytes:
    """Texts that go wrong in their last bytes, or everywhere."""
    raw = rng.choice([text(rng, size) + b"\xff", text(rng, size) + b"\xf0\x9d", b"\xff" * size, b"\x80" * size])
    return rng.choice([padded(b"/a") + padded(b",s") + padded(raw), padded(b"/" + raw)])


def escapes(rng: random.Random, size: int) -> bytes:
    """Blobs of bytes that SLIP has to escape."""
    blob = rng.choice([b"\xc0", b"\xdb", b"\xc0a", b"\xdb\xdc"]) * (size // 2)
    return padded(b"/a") + padded(b",b") + struct.pack(">I", len(blob)) + blob + bytes(-len(blob) % 4)


KINDS: list[Callable[[random.Random, int], bytes]] = [
    valid, noise, mutated, nested, patterns, strings, arguments, tags, not_utf8, escapes,
]  # fmt: skip


@dataclass
class Row:
    """What became of the packets of one kind; times in ms."""

    packets: int = 0
    refused: int = 0
    decode: float = 0.0
    udp: float = 0.0
    length: float = 0.0
    slip: float = 0.0


class Sender:
    """A server, and clients that send to it from the same thread."""

    def __init__(self) -> None:
        with ExitStack() as opened:
            self.server = opened.enter_context(closing(Server(HOST, 0)))
            self.udp = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            self.udp.connect((HOST, self.server.port))
            self.close = opened.pop_all().close
        self.streams: dict[bool, socket.socket] = {}

    def datagram(self, packet: bytes) -> float:
        """Processor time that a packet costs over UDP, ms."""
        self.udp.send(packet)
        self.udp.send(MARKER)
        spent, _ = self._receive()
        return spent

    def framed(self, packet: bytes, slipped: bool) -> float:
        """Processor time that a packet costs over TCP, ms."""
        stream = self.streams.pop(slipped, None) or self._connected()
        both = b"".join(slip.encode(one) if slipped else struct.pack(">I", len(one)) + one for one in (packet, MARKER))
        spent, closed = self._receive(stream, both)
        if closed:
            stream.close()
        else:
            self.streams[slipped] = stream
        return spent

    def torn(self, packet: bytes) -> None:
        """Send bytes without framing, or as many as go at once, on a connection that ends behind them."""
        with self._connected() as stream, suppress(OSError):
            stream.sendall(packet)
        while self.server.receive(0.001):
            pass

    def _connected(self) -> socket.socket:
        stream = socket.create_connection((HOST, self.server.port))
        stream.setblocking(False)
        self._drain()
        return stream

    def _drain(self, timeout: float = 0) -> tuple[float, list[Message | Malformed]]:
        before = time.thread_time()
        found = self.server.receive(timeout)
        return (time.thread_time() - before) * 1000, found

    def _receive(self, stream: socket.socket | None = None, data: bytes = b"") -> tuple[float, bool]:
        """Send on the stream and receive in turn until the marker has come, or the connection was closed."""
        spent, at, until = 0.0, 0, time.monotonic() + 30
        while time.monotonic() < until:
            moves = False
            if stream and at < len(data):
                try:
                    at += stream.send(data[at : at + 65536])
                    moves = True
                except BlockingIOError:
                    pass
                except OSError:
                    return spent, True
            # Where the system keeps the data back, asking again and again would be counted.
            more, found = self._drain(0 if moves else 0.001)
            spent += more
            if any(isinstance(one, Message) and one.address == "/marker" for one in found):
                return spent, False
            if any(isinstance(one, Malformed) and one.reason.startswith("a packet of over") for one in found):
                return spent, True
        raise RuntimeError("the server has stopped")


def least(measure: Callable[[], float]) -> float:
    """A time, the least of up to four where it is long: a busy machine adds some milliseconds now and then."""
    spent = measure()
    for _ in range(3):
        if spent <= ALLOWED / 4:
            break
        spent = min(spent, measure())
    return spent


def reading(packet: bytes) -> tuple[float, bool]:
    """Processor time of `decode` in ms, and whether it refused."""
    before = time.thread_time()
    try:
        decode(packet)
        refused = False
    except Unreadable:
        refused = True
    return (time.thread_time() - before) * 1000, refused


def memory() -> int:
    """The most memory that this process has had, KiB; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def soak(packets: int, seed: int) -> bool:
    """Send, and print the table; whether everything kept to its time."""
    rng = random.Random(seed)
    rows = {kind.__name__: Row() for kind in KINDS}
    begun, settled = time.monotonic(), 0
    with closing(Sender()) as sender:
        for number in range(packets):
            kind = KINDS[number % len(KINDS)]
            row = rows[kind.__name__]
            large = rng.random() < 0.001
            size = rng.randint(60_000, MESSAGE - 100) if large else int(4 * 15_000 ** rng.random())
            packet = kind(rng, size)[:MESSAGE]
            row.packets += 1
            row.refused += reading(packet)[1]
            row.decode = max(row.decode, least(lambda: reading(packet)[0]))  # noqa: B023  # called at once
            if large or rng.random() < 0.05:
                if len(packet) <= 60_000:
                    row.udp = max(row.udp, least(lambda: sender.datagram(packet)))  # noqa: B023
                    sender.torn(packet)
                row.length = max(row.length, least(lambda: sender.framed(packet, False)))  # noqa: B023
                row.slip = max(row.slip, least(lambda: sender.framed(packet, True)))  # noqa: B023
            if number == packets // 5:
                settled = memory()
    grown = memory() - settled
    print(f"{'kind':10}{'packets':>10}{'read':>10}{'refused':>10}   slowest, ms of processor time")
    print(f"{'':40}{'decode':>8}{'UDP':>8}{'length':>8}{'SLIP':>8}")
    slowest = 0.0
    for name, row in rows.items():
        times = (row.decode, row.udp, row.length, row.slip)
        slowest = max(slowest, *times)
        counts = f"{row.packets:10}{row.packets - row.refused:10}{row.refused:10}"
        print(f"{name:10}{counts}{''.join(f'{one:8.2f}' for one in times)}")
    print(f"slowest {slowest:.2f} ms, {ALLOWED:.0f} allowed; {grown} KiB more memory since the first fifth of packets")
    print(f"{time.monotonic() - begun:.0f} s for {packets} packets, seed {seed}")
    return slowest <= ALLOWED


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Throw bad packets at the OSC reader and server.")
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    sys.exit(0 if soak(chosen.packets, chosen.seed) else 1)
