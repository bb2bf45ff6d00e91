"""OSC packets in a TCP stream: a length before each, as OSC 1.0 has it, or SLIP, as OSC 1.1 has it."""

from __future__ import annotations

import struct

from pythonosc import slip

from .osc_messages import Unreadable

MESSAGE = 1 << 20
"""The largest packet that is taken over TCP, bytes; over UDP it is the 64 KB that a datagram can have."""

_ESCAPES = 1 << 16
"""How many bytes of a SLIP packet may be escaped: 1 MiB of nothing else takes 40 ms. Random data has 8,000 in 1 MiB."""
_LENGTH = struct.Struct(">I")


class TooLong(Exception):
    """A packet over `MESSAGE`: it is not waited for, and so where the next one begins is not known."""


class NotOsc(Exception):
    """A stream that begins as no OSC does: HTTP, which any web page can have a browser send here, or TLS."""


class Framing:
    """A TCP stream cut into packets: its first byte tells whether by a length before each, or by SLIP."""

    def __init__(self) -> None:
        self.more = False
        """Whether another packet may be there already."""
        self._stream = bytearray()
        self._searched = 0
        self._prefixed: bool | None = None
        self._is_osc = True

    def feed(self, data: bytes) -> None:
        """Take what has been read."""
        if self._prefixed is None:
            # A length that is taken begins with 0; SLIP with END, or, without it, with "/" or "#".
            self._prefixed = data[0] == 0
            self._is_osc = self._prefixed or data[:1] in (slip.END, b"/", b"#")
        self._stream += data
        self.more = True

    def next(self) -> bytes | None:
        """The next packet; None where it is not there as a whole. Raises `NotOsc`, `TooLong` and `Unreadable`."""
        if not self._is_osc:
            raise NotOsc
        packet = self._prefixed_packet() if self._prefixed else self._slip_packet()
        self.more = packet is not None
        return packet

    def cut(self) -> bool:
        """Whether the stream ends here within a packet."""
        return bool(self._stream)

    def _prefixed_packet(self) -> bytes | None:
        if len(self._stream) < 4:
            return None
        (size,) = _LENGTH.unpack_from(self._stream)
        if size > MESSAGE:
            raise TooLong
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
            raise TooLong
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
            raise TooLong
        return packet

    def wrap(self, packet: bytes) -> bytes:
        """A packet in the form in which the client's come."""
        if self._prefixed:
            return _LENGTH.pack(len(packet)) + packet
        return slip.encode(packet)
