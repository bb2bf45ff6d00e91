"""OSC 1.0 and 1.1 messages: what they carry, and their form as packets.

An address is plain text here: it is never matched as a pattern. Time tags are not looked at: everything is due now. No
packet, however it is built, costs more than 10 ms of processor time; so messages are not read with python-osc's
`OscMessage`, which takes as long for 64 KB and nine times that for 1 MiB. Nor are they written with its builder, which
reads each one again and takes three times as long.
"""

from __future__ import annotations

import math
import struct
import sys
from dataclasses import dataclass
from typing import Literal

Argument = int | float | str | bool | bytes | None
"""What a message carries. Of the rarer types a time tag and a colour are read as int, MIDI as 4 bytes, a character and
a symbol as str, and "infinitum" as an infinite float."""

ADDRESS = 255
"""The longest address that is taken, bytes: an answer has room to repeat it."""
DEPTH = 8
"""How many bundles may be around a message."""
ELEMENTS = 256
"""How many messages and bundles a packet may have."""
ARGUMENTS = 1_000
"""How many arguments the messages of a packet may have together."""

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


@dataclass(frozen=True)
class Peer:
    """Who sent something, and where an answer goes: for UDP an address, for TCP a connection; the page asks by HTTP."""

    transport: Literal["udp", "tcp", "http"]
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
class Answer:
    """One message to send."""

    peer: Peer
    address: str
    arguments: tuple[Argument, ...]

    @property
    def size(self) -> int:
        """Bytes of memory that the arguments take."""
        return sum(map(sys.getsizeof, self.arguments))


@dataclass(frozen=True)
class Malformed:
    """What somebody has sent and could not be read; a bundle is read whole or not at all."""

    peer: Peer
    reason: str
    """One line of plain ASCII."""


def cut(text: str, most: int) -> str:
    """The beginning of a text that has at most `most` bytes as UTF-8, in whole characters.

    >>> cut("größer", 4)
    'grö'
    """
    return text.encode(errors="replace")[:most].decode(errors="ignore")


def encode(address: str, *arguments: Argument) -> bytes:
    """One message as a packet; `ValueError` for what OSC has no form for.

    Whole numbers take 32 bits where they fit, else 64; other numbers 32 bits, and 64 only where they are too large.
    A text or an address with a NUL and an empty blob cannot be sent.
    """
    if not address.startswith("/") or "\0" in address:
        raise ValueError(f"{address!r} is no OSC address")
    written = [_written(argument) for argument in arguments]
    tags = "," + "".join(tag for tag, _ in written)
    return _padded(address) + _padded(tags) + b"".join(data for _, data in written)


def _written(argument: Argument) -> tuple[str, bytes]:
    """The type tag of a value, and the value itself."""
    if argument is None or isinstance(argument, bool):
        return {None: "N", True: "T", False: "F"}[argument], b""
    if isinstance(argument, str) and "\0" not in argument:
        return "s", _padded(argument)
    if isinstance(argument, float):
        try:
            return "f", _NUMBERS["f"].pack(argument)
        except OverflowError:
            return "d", _NUMBERS["d"].pack(argument)
    if isinstance(argument, int):
        bits = (argument if argument >= 0 else ~argument).bit_length()
        if bits < 64:
            tag = "i" if bits < 32 else "h"
            return tag, _NUMBERS[tag].pack(argument)
    if isinstance(argument, bytes) and argument:
        return "b", _INTEGER.pack(len(argument)) + argument + bytes(-len(argument) % 4)
    raise ValueError(f"a value of type {type(argument).__name__} that cannot be sent over OSC")


def _padded(text: str) -> bytes:
    raw = text.encode()
    return raw + bytes(4 - len(raw) % 4)


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
    tags, at = _text(packet, at, end)
    if not tags.startswith(b","):
        raise Unreadable("no type tags behind the address")
    if len(tags) - 1 > most:
        raise Unreadable(f"more than {ARGUMENTS} arguments in one packet")
    return address, _arguments(packet, at, end, _utf8(tags[1:]))


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
