"""RIFF chunks that a DAW reads: loops, tempo, timestamps, cue points. They come along with the stem.

Layouts: Microsoft's RIFF/WAVE, EBU Tech 3285 (bext) and 3306 (RF64), RFC 9639 (FLAC's metadata blocks).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

KEPT = (b"smpl", b"acid", b"bext", b"iXML", b"cue ", b"LIST", b"inst")
_LISTS = (b"adtl", b"INFO")
_MOST = 16 * 2**20
"""A metadata chunk over this size is no metadata."""
_APPLICATION = 2
"""FLAC's number for a block of somebody else's."""

_SMPL_HEAD, _SMPL_LOOP = 36, 24
_CUE_POINT = 24
_ACID = 24
_BPM = (20.0, 400.0)
"""What is believed of a tempo."""
_TIME_REFERENCE = 338
"""Offset of bext's TimeReference: after description, originator, reference, date and time."""
_EXTENSIBLE, _MASK = 40, 20
"""Size of an extensible `fmt `, and where it has the mask of its speakers."""


@dataclass(frozen=True)
class Chunk:
    """One chunk: its four-character id and its data."""

    id: bytes
    data: bytes


@dataclass(frozen=True)
class Loop:
    """Samples `[start, end)` that repeat."""

    start: int
    end: int


@dataclass(frozen=True)
class Tempo:
    """Beats a minute, and beats in a bar."""

    bpm: float
    beats: int


@dataclass(frozen=True)
class _Place:
    id: bytes
    start: int
    size: int


def _places(stream: BinaryIO) -> Iterator[_Place]:
    """Every chunk of a RIFF or RF64 file, by its declared size; ends quietly where the structure does."""
    head = stream.read(12)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        return
    long_data = 0
    while len(header := stream.read(8)) == 8:
        name, size = header[:4], struct.unpack("<I", header[4:])[0]
        start = stream.tell()
        if name == b"ds64" and size >= 24:
            long_data = int.from_bytes(stream.read(24)[8:16], "little")
        if name == b"data" and size == 0xFFFFFFFF and head[:4] == b"RF64":
            size = long_data
        yield _Place(name, start, size)
        stream.seek(start + size + size % 2)


def _foreign_places(stream: BinaryIO) -> Iterator[_Place]:
    """The chunks that FLAC's own encoder has kept of a WAV, each in an application block `riff`."""
    last = stream.read(4) != b"fLaC"
    while not last and len(header := stream.read(4)) == 4:
        last, kind, size = header[0] >= 0x80, header[0] & 0x7F, int.from_bytes(header[1:], "big")
        start = stream.tell()
        if kind == _APPLICATION and (block := stream.read(12))[:4] == b"riff" and len(block) == 12:
            chunk = int.from_bytes(block[8:], "little")
            if chunk <= size - 12:
                yield _Place(block[4:8], start + 12, chunk)
        stream.seek(start + size)


def read_chunks(path: Path, wanted: Sequence[bytes] = KEPT) -> tuple[Chunk, ...]:
    """The metadata chunks of a RIFF/WAVE or RF64 file, or those that a FLAC file has kept of one.

    A damaged one is left out; another container has none.
    """
    chunks = []
    with path.open("rb") as stream:
        flac = stream.read(4) == b"fLaC"
        stream.seek(0)
        for place in _foreign_places(stream) if flac else _places(stream):
            if place.id not in wanted or place.size > _MOST:
                continue
            stream.seek(place.start)
            data = stream.read(place.size)
            if len(data) == place.size and (place.id != b"LIST" or data[:4] in _LISTS):
                chunks.append(Chunk(place.id, data))
    return tuple(chunks)


def speakers(chunks: Sequence[Chunk]) -> int:
    """Which speakers the channels are for, as the mask of WAVE_FORMAT_EXTENSIBLE; 0 where no `fmt ` says so."""
    data = next((chunk.data for chunk in chunks if chunk.id == b"fmt "), b"")
    if len(data) < _EXTENSIBLE or data[:2] != b"\xfe\xff":
        return 0
    return int.from_bytes(data[_MASK : _MASK + 4], "little")


def set_speakers(path: Path, mask: int) -> None:
    """Say in a finished file whose `fmt ` is an extensible one which speakers its channels are for."""
    with path.open("r+b") as stream:
        (start,) = [place.start for place in _places(stream) if place.id == b"fmt "]
        stream.seek(start + _MASK)
        stream.write(struct.pack("<I", mask))


def read_chunk(path: Path, name: bytes) -> bytes | None:
    """The data of the first chunk of that name."""
    found = read_chunks(path, (name,))
    return found[0].data if found else None


def loop_of(chunks: Sequence[Chunk], samples: int) -> Loop | None:
    """The loop that a file asks for: its first forward `smpl` loop, or all of it by an `acid` chunk of a loop.

    None where there is none, or where it does not lie in the file.
    """
    for chunk in chunks:
        if chunk.id == b"smpl":
            for _, kind, start, end in _sampler_loops(chunk.data, samples):
                if kind == 0 and 0 <= start < end < samples:
                    return Loop(start, end + 1)
    for chunk in chunks:
        # Bit 0 of acid's flags marks a one-shot.
        if chunk.id == b"acid" and len(chunk.data) >= 4 and not struct.unpack("<I", chunk.data[:4])[0] & 1:
            return Loop(0, samples)
    return None


def loop_chunk(loop: Loop) -> Chunk:
    """A `smpl` chunk of one forward loop.

    >>> loop_of([loop_chunk(Loop(10, 20))], 30)
    Loop(start=10, end=20)
    """
    head = struct.pack("<9I", 0, 0, 0, 60, 0, 0, 0, 1, 0)
    return Chunk(b"smpl", head + struct.pack("<6I", 0, 0, loop.start, loop.end - 1, 0, 0))


def tempo_of(chunks: Sequence[Chunk], seconds: float) -> Tempo | None:
    """The tempo of a loop's `acid` chunk, or its beats over the file's length; None for a one-shot, and without one."""
    for chunk in chunks:
        if chunk.id != b"acid" or len(chunk.data) < _ACID:
            continue
        flags, beats, _, per_bar, bpm = struct.unpack("<I8xI2Hf", chunk.data[:_ACID])
        if flags & 1:
            return None
        if not _BPM[0] <= bpm <= _BPM[1]:
            bpm = 60 * beats / seconds
        return Tempo(round(bpm, 3), per_bar if 1 <= per_bar <= 16 else 4) if _BPM[0] <= bpm <= _BPM[1] else None
    return None


def _sampler_loops(data: bytes, samples: int) -> list[tuple[int, int, int, int]]:
    """`(offset in data, type, start, end inclusive)` of each loop of a `smpl` chunk in a file of so many samples.

    Of an end that is one behind the last sample, as some programs write it, the last one.
    """
    if len(data) < _SMPL_HEAD:
        return []
    count = struct.unpack("<I", data[28:32])[0]
    loops = []
    for number in range(min(count, (len(data) - _SMPL_HEAD) // _SMPL_LOOP)):
        at = _SMPL_HEAD + number * _SMPL_LOOP
        _, kind, start, end = struct.unpack("<4I", data[at : at + 16])
        loops.append((at, kind, start, end - 1 if end == samples else end))
    return loops


def shifted(chunks: Sequence[Chunk], offset: int, samples: int, total: int) -> tuple[Chunk, ...]:
    """The chunks for a stem that is samples `[offset, offset + samples)` of a file of `total`.

    Loops and cue points move along, those outside are left out with their labels, the timestamp advances; tempo and
    beats (`acid`) hold for exactly the whole file only: a tail adds to it.
    """
    if (offset, samples) == (0, total):
        return tuple(chunks)
    kept_cues = _cues_inside(chunks, offset, samples)
    result: list[Chunk] = []
    for chunk in chunks:
        if chunk.id == b"smpl":
            moved = _moved_loops(chunk.data, offset, samples, total)
        elif chunk.id == b"cue ":
            moved = _moved_cues(chunk.data, offset, samples)
        elif chunk.id == b"LIST" and chunk.data[:4] == b"adtl":
            moved = _labels_of(chunk.data, kept_cues)
        elif chunk.id == b"bext" and len(chunk.data) >= _TIME_REFERENCE + 8:
            time = struct.unpack("<Q", chunk.data[_TIME_REFERENCE : _TIME_REFERENCE + 8])[0] + offset
            # All ones are some programs' word for a time that is not known.
            time = min(time, 2**64 - 1)
            moved = chunk.data[:_TIME_REFERENCE] + struct.pack("<Q", time) + chunk.data[_TIME_REFERENCE + 8 :]
        elif chunk.id == b"iXML":
            moved = _later(chunk.data, offset)
        elif chunk.id == b"acid":
            moved = None
        else:
            moved = chunk.data
        if moved is not None:
            result.append(Chunk(chunk.id, moved))
    return tuple(result)


def _later(xml: bytes, offset: int) -> bytes:
    """An iXML chunk whose timestamps, each in a low and a high half, are later by so many samples."""
    for name, low, high in (
        (b"BWF_TIME_REFERENCE", b"_LOW", b"_HIGH"),
        (b"TIMESTAMP_SAMPLES_SINCE_MIDNIGHT", b"_LO", b"_HI"),
    ):
        halves = [re.search(rb"(<%b>\s*)(\d{1,20})(\s*</%b>)" % (name + end, name + end), xml) for end in (high, low)]
        if halves[1] is None:
            continue
        time = offset + sum(int(half[2]) << shift for half, shift in zip(halves, (32, 0), strict=True) if half)
        for half, value in zip(halves, (time >> 32, time & 0xFFFFFFFF), strict=True):
            if half is not None:
                xml = xml.replace(half[0], b"%b%d%b" % (half[1], value, half[3]))
    return xml


def _moved_loops(data: bytes, offset: int, samples: int, total: int) -> bytes | None:
    if len(data) < _SMPL_HEAD:
        return None
    loops = b""
    count = 0
    for at, _, start, end in _sampler_loops(data, total):
        if offset <= start < end < offset + samples:
            place = struct.pack("<2I", start - offset, end - offset)
            loops += data[at : at + 8] + place + data[at + 16 : at + _SMPL_LOOP]
            count += 1
    return data[:28] + struct.pack("<2I", count, 0) + loops


def _cues(data: bytes) -> list[tuple[int, int, bytes]]:
    """`(id, sample, point)` of each cue point."""
    if len(data) < 4:
        return []
    count = min(struct.unpack("<I", data[:4])[0], (len(data) - 4) // _CUE_POINT)
    points = [data[4 + n * _CUE_POINT : 4 + (n + 1) * _CUE_POINT] for n in range(count)]
    return [(struct.unpack("<I", point[:4])[0], struct.unpack("<I", point[20:24])[0], point) for point in points]


def _cues_inside(chunks: Sequence[Chunk], offset: int, samples: int) -> set[int]:
    return {
        name
        for chunk in chunks
        if chunk.id == b"cue "
        for name, sample, _ in _cues(chunk.data)
        if offset <= sample < offset + samples
    }


def _moved_cues(data: bytes, offset: int, samples: int) -> bytes | None:
    points = []
    for _, sample, point in _cues(data):
        if offset <= sample < offset + samples:
            position = max(0, struct.unpack("<I", point[4:8])[0] - offset)
            points.append(point[:4] + struct.pack("<I", position) + point[8:20] + struct.pack("<I", sample - offset))
    return struct.pack("<I", len(points)) + b"".join(points) if points else None


def _labels_of(data: bytes, cues: set[int]) -> bytes | None:
    """An `adtl` list with only the entries (`labl`, `note`, `ltxt`) of the cue points that are left."""
    result, at = data[:4], 4
    while at + 8 <= len(data):
        size = struct.unpack("<I", data[at + 4 : at + 8])[0]
        entry = data[at : at + 8 + size + size % 2]
        if len(entry) >= 12 and struct.unpack("<I", entry[8:12])[0] in cues:
            result += entry
        at += 8 + size + size % 2
    return result if len(result) > 4 else None


def append_chunks(path: Path, chunks: Sequence[Chunk]) -> None:
    """Add chunks behind the data of a finished RIFF or RF64 file, and correct its size."""
    chunks = [chunk for chunk in chunks if chunk.id != b"fmt "]  # which it has
    if not chunks:
        return
    with path.open("r+b") as stream:
        kind = stream.read(4)
        end = stream.seek(0, 2)
        if end % 2:
            stream.write(b"\0")
        for chunk in chunks:
            stream.write(chunk.id + struct.pack("<I", len(chunk.data)) + chunk.data + b"\0" * (len(chunk.data) % 2))
        size = stream.tell() - 8
        if kind == b"RF64":
            # ds64 is the first chunk of an RF64 file; its first value is the size of the whole.
            stream.seek(20)
            stream.write(struct.pack("<Q", size))
        else:
            stream.seek(4)
            stream.write(struct.pack("<I", size))


def declared_data(path: Path) -> tuple[int, int] | None:
    """Bytes that the data chunk declares, and bytes that the file has for it; None where there is no data chunk.

    What was written to a pipe declares all that a header can, and means all that comes.
    """
    whole = path.stat().st_size
    with path.open("rb") as stream:
        for place in _places(stream):
            if place.id == b"data":
                there = max(0, whole - place.start)
                return there if _is_open(place.size) else place.size, there
    return None


def is_open(path: Path) -> bool:
    """Whether a WAV's header leaves the end of its audio open, as that of one that is written to a pipe does."""
    with path.open("rb") as stream:
        return any(place.id == b"data" and _is_open(place.size) for place in _places(stream))


def _is_open(size: int) -> bool:
    return 0x7FFFF000 <= size <= 0x7FFFFFFF or 0xFFFFF000 <= size <= 0xFFFFFFFF
