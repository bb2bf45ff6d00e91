"""A soundfont cut to what the training plays and compressed, for a machine that it has to be sent to.

`python -m stylus_audio.training.soundfonts --out DIR` writes both of the training's; `SOUNDFONTS=DIR` makes the
synthesiser look there first. Samples become Vorbis as in MuseScore's SF3, which FluidSynth reads.
"""

from __future__ import annotations

import argparse
import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from ..errors import BadRequest, StylusError
from .sounds import KITS, TRAINING_FONTS, TRAINING_PROGRAMS
from .synthesise import soundfont

RIGHT, VORBIS = 0x02, 0x10
"""In a sample's type. With the latter its bytes are an Ogg Vorbis file, and its loop counts from its own start."""
DRUM_BANK = 128
_INSTRUMENT, _SAMPLE = 41, 53
"""Generators that point on."""
_PRESET, _BAG, _GENERATOR, _ZONE, _HEADER = 38, 4, 4, 22, 46
"""Sizes of records: a preset, a bag, a generator, an instrument, a sample's header."""


def cut(source: Path, target: Path, quality: float = 0.3) -> None:
    """Write `source` (SF2 or SF3) with the samples of training programs and kits only, at Vorbis `quality` 0–1.

    The others stay as names without sound. What is in stereo sounds on the right as on the left: a picture has one
    channel. Raises `BadRequest` for what is no soundfont.
    """
    data = source.read_bytes()
    if data[:4] != b"RIFF" or data[8:12] != b"sfbk":
        raise BadRequest(f"{source} is not a soundfont")
    lists = {bytes(body[:4]): bytes(body[4:]) for name, body in _chunks(data[12:]) if name == b"LIST"}
    samples = dict(_chunks(lists[b"sdta"]))[b"smpl"]
    tables = dict(_chunks(lists[b"pdta"]))
    used = _used(tables)
    headers = bytearray(tables[b"shdr"])
    halves = {right: left for right, left in _halves(tables[b"shdr"]).items() if {right, left} <= used}
    packed = bytearray()
    places: dict[int, tuple[int, ...]] = {}
    for number in range(len(headers) // _HEADER - 1):
        at = number * _HEADER + 20
        first, last, loop, end, rate = struct.unpack_from("<5I", headers, at)
        (kind,) = struct.unpack_from("<H", headers, at + 24)
        sound: NDArray[np.float32]
        if number not in used or number in halves:
            sound = np.zeros(8, np.float32)
        elif kind & VORBIS:
            sound = _decoded(samples[first:last])
        else:
            loop, end = loop - first, end - first
            sound = np.frombuffer(samples, "<i2", last - first, 2 * first).astype(np.float32) / np.float32(32768)
        begin = len(packed)
        packed += _encoded(sound, rate, quality)
        places[number] = (begin, len(packed), loop, end, rate)
        struct.pack_into("<H", headers, at + 24, kind | VORBIS)
    for number in places:
        struct.pack_into("<5I", headers, number * _HEADER + 20, *places[halves.get(number, number)])
    tables[b"shdr"] = bytes(headers)
    info = [(name, part) for name, part in _chunks(lists[b"INFO"]) if name != b"ifil"]
    body = b"sfbk" + _list(b"INFO", [(b"ifil", struct.pack("<2H", 3, 0)), *info])
    body += _list(b"sdta", [(b"smpl", bytes(packed))]) + _list(b"pdta", list(tables.items()))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        name, size = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        yield name, data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _list(name: bytes, chunks: list[tuple[bytes, bytes]]) -> bytes:
    body = name + b"".join(tag + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for tag, part in chunks)
    return b"LIST" + struct.pack("<I", len(body)) + body


def _used(tables: dict[bytes, bytes]) -> set[int]:
    """Numbers of the samples that the training's programs and kits play."""
    instruments: set[int] = set()
    presets = tables[b"phdr"]
    for at in range(0, len(presets) - _PRESET, _PRESET):
        program, bank, first = struct.unpack_from("<3H", presets, at + 20)
        (last,) = struct.unpack_from("<H", presets, at + _PRESET + 24)
        if (bank == 0 and program in TRAINING_PROGRAMS) or (bank == DRUM_BANK and program in KITS):
            instruments |= set(_pointed(tables[b"pbag"], tables[b"pgen"], first, last, _INSTRUMENT))
    samples: set[int] = set()
    for number in instruments:
        first, last = (struct.unpack_from("<H", tables[b"inst"], (number + n) * _ZONE + 20)[0] for n in (0, 1))
        samples |= set(_pointed(tables[b"ibag"], tables[b"igen"], first, last, _SAMPLE))
    return samples


def _halves(headers: bytes) -> dict[int, int]:
    """Left samples of right ones, by their names: links between them are wrong in both of the training's fonts."""
    names = {headers[at : at + 20].split(b"\0")[0]: at // _HEADER for at in range(0, len(headers), _HEADER)}
    pairs = {}
    for name, number in names.items():
        first, right, last = name.rpartition(b"R")
        left = names.get(first + b"L" + last)
        if right and left is not None and struct.unpack_from("<H", headers, number * _HEADER + 44)[0] & RIGHT:
            pairs[number] = left
    return pairs


def _pointed(bags: bytes, generators: bytes, first: int, last: int, kind: int) -> Iterator[int]:
    begin, end = (struct.unpack_from("<H", bags, bag * _BAG)[0] for bag in (first, last))
    for number in range(begin, end):
        generator, amount = struct.unpack_from("<2H", generators, number * _GENERATOR)
        if generator == kind:
            yield amount


def _decoded(vorbis: bytes) -> NDArray[np.float32]:
    return np.asarray(soundfile.read(io.BytesIO(vorbis), dtype="float32")[0], np.float32)


def _encoded(sound: NDArray[np.float32], rate: int, quality: float) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, sound, rate, format="OGG", subtype="VORBIS", compression_level=1 - quality)
    return stream.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Cut the training's soundfonts for a machine to be sent to.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quality", type=float, default=0.3)
    chosen = parser.parse_args()
    try:
        for name in TRAINING_FONTS:
            cut(soundfont(name), chosen.out / name, chosen.quality)
    except StylusError as error:
        parser.exit(error.exit_code, f"{error}\n")
