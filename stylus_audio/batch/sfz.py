"""Instruments in the SFZ format: which samples one plays, and the same instrument on other samples.

Opcodes mean what they do in ARIA and sfizz; https://sfzformat.com lists them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BadRequest
from ..riff import Chunk, Loop, loop_of
from .any_case import Disk
from .sfz_text import Header, Opcode, Script, can_stand, read_script, replaced

_ALIASES = {"gain": "volume", "loopmode": "loop_mode", "loopstart": "loop_start", "loopend": "loop_end"}

_LEVELS = ("global", "master", "group", "region")
"""From what holds for all to what holds for one; a header ends what those behind it said."""

_LOOP_MODES = ("no_loop", "one_shot", "loop_continuous", "loop_sustain")


@dataclass(frozen=True)
class LoopOpcodes:
    """What a region says of its loop, None where it says nothing. Positions in samples of the file."""

    mode: str | None = None
    start: int | None = None
    end: int | None = None
    """The loop's last sample."""
    last: int | None = None
    """The last sample that is played at all."""

    def loop(self, chunks: Sequence[Chunk], samples: int) -> Loop | None:
        """The loop that sounds, in a file of so many samples with these chunks; opcodes come before its `smpl`."""
        own = loop_of([chunk for chunk in chunks if chunk.id == b"smpl"], samples)
        if self.mode not in ("loop_continuous", "loop_sustain") and (self.mode is not None or own is None):
            return None
        last = samples - 1 if self.last is None else min(self.last, samples - 1)
        start = self.start if self.start is not None else own.start if own else 0
        end = self.end if self.end is not None else own.end - 1 if own else last
        return Loop(start, min(end, last) + 1) if 0 <= start < min(end, last) else None


@dataclass(frozen=True)
class Sample:
    """A file that an instrument plays, and the different things that its regions say of its loop, in their order."""

    path: Path
    loops: tuple[LoopOpcodes, ...]

    def loop(self, chunks: Sequence[Chunk], samples: int) -> Loop | None:
        """The loop of the first region that has one, as `LoopOpcodes.loop`; None where all play it once."""
        return next((loop for asked in self.loops if (loop := asked.loop(chunks, samples)) is not None), None)


@dataclass(frozen=True)
class Rewritten:
    """An instrument on other samples."""

    data: bytes
    """The new SFZ file."""
    unreachable: tuple[str, ...]
    """Samples without a stem whose original cannot be named from the new place; their regions are silent."""


@dataclass(frozen=True)
class _Region:
    """A region that plays a file: where in the text it begins, and what the new one depends on."""

    start: int
    sample: Opcode
    volume: Opcode | None
    own_volume: bool
    """Whether `volume` stands under its own header; else it is inherited."""
    path: Path
    """The sample, or where it would be."""


@dataclass(frozen=True)
class Instrument:
    """An SFZ file, read."""

    path: Path
    samples: tuple[Sample, ...]
    """Every sample that is there, once, in the order of first use."""
    missing: tuple[str, ...]
    """Samples that are named, seen from the SFZ file's folder, but not there."""
    _text: str = field(repr=False)
    _regions: tuple[_Region, ...] = field(repr=False)
    _default_paths: tuple[Opcode, ...] = field(repr=False)

    def rewritten(
        self, folder: Path, stems: Mapping[Path, str], lowered: Mapping[Path, float] | None = None
    ) -> Rewritten:
        """The instrument as an SFZ file in `folder` that plays stems; all else stays to the letter.

        `stems` gives a sample's stem by the sample's path: a name seen from `folder`, with forward slashes. A sample
        without one keeps its original. `lowered` gives by how many dB a stem was lowered when it was written, so that
        it does not clip; its regions play louder by as much. Raises `BadRequest` for a name that SFZ cannot hold.
        """
        lowered = lowered or {}
        for stem in stems.values():
            if not can_stand(stem):
                raise BadRequest(
                    f"{stem!r} cannot name a sample in an SFZ: it has $, <, //, ' word=' or a space at an end"
                )
        changes = {(opcode.start, opcode.end): "" for opcode in self._default_paths}
        unreachable: dict[str, None] = {}
        for region in self._regions:
            name = stems.get(region.path) or _seen_from(folder, region.path)
            added = ""
            if not can_stand(name):
                unreachable[name] = None
            elif changes.setdefault((region.sample.at, region.sample.end), name) != name:
                # Regions inherit this opcode, and `default_path` changed between them.
                added += f" sample={name}"
            if region.path in stems and (louder := lowered.get(region.path)):
                volume = _decibels(_number(region.volume) + louder)
                if region.volume and region.own_volume:
                    changes[region.volume.at, region.volume.end] = volume
                else:
                    added += f" volume={volume}"
            if added:
                changes[region.start, region.start] = added + " " * (not self._text[region.start :][:1].isspace())
        text = replaced(self._text, ((*place, new) for place, new in changes.items()))
        return Rewritten(text.encode("utf-8"), tuple(unreachable))


def read_instrument(path: Path) -> Instrument:
    """Read an SFZ file.

    Raises `NotFound`, `NotAllowed` or `BadRequest` where it, or a file that it includes, is not there or is no SFZ.
    """
    disk = Disk()
    script = read_script(path, disk)
    found = _Samples(path.absolute().parent, disk)
    blocks = _blocks(script)
    embedded = {opcodes["name"].value for header, opcodes in blocks if header.name == "sample" and "name" in opcodes}
    levels: dict[str, dict[str, Opcode]] = {}
    default_path = ""
    regions = []
    for header, opcodes in blocks:
        if header.name == "control":
            # Each control header sets it anew, to nothing where it does not name one.
            default_path = opcodes["default_path"].value if "default_path" in opcodes else ""
        if header.name not in _LEVELS:
            continue
        outer = _LEVELS[: _LEVELS.index(header.name)]
        levels = {level: levels[level] for level in outer if level in levels} | {header.name: opcodes}
        if header.name != "region":
            continue
        heard = {name: opcode for level in levels.values() for name, opcode in level.items()}
        sample = heard.get("sample")
        if sample and not sample.value.startswith("*") and sample.value not in embedded:
            place = found.add(default_path + sample.value, _loop_opcodes(heard))
            regions.append(_Region(header.end, sample, heard.get("volume"), "volume" in opcodes, place))
    if not any(header.name == "region" for header, _ in blocks):
        raise BadRequest(f"{path} has no <region>: it is no SFZ instrument")
    default_paths = tuple(
        token for token in script.tokens if isinstance(token, Opcode) and token.name == "default_path"
    )
    return Instrument(path, found.samples, tuple(found.missing), script.text, tuple(regions), default_paths)


def _blocks(script: Script) -> list[tuple[Header, dict[str, Opcode]]]:
    """Each header with its opcodes, of which the last of a name counts."""
    blocks: list[tuple[Header, dict[str, Opcode]]] = []
    for token in script.tokens:
        if isinstance(token, Header):
            blocks.append((token, {}))
        elif blocks and (token.value or token.name != "sample"):
            blocks[-1][1][_ALIASES.get(token.name, token.name)] = token
    return blocks


class _Samples:
    """The samples of an instrument, as they are met."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._named: dict[str, Path | None] = {}
        self._paths: dict[Path, Path] = {}
        self._loops: dict[Path, dict[LoopOpcodes, None]] = {}
        self.missing: dict[str, None] = {}

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Those that are there."""
        return tuple(Sample(path, tuple(loops)) for path, loops in self._loops.items())

    def add(self, name: str, asked: LoopOpcodes) -> Path:
        """Where the sample of that name is, or would be."""
        if name not in self._named:
            found = self._disk.find(self._folder, name)
            self._named[name] = self._paths.setdefault(found.resolve(), _plain(found)) if found else None
        path = self._named[name]
        if path is None:
            name = name.replace("\\", "/")
            self.missing[name] = None
            return self._folder / name
        self._loops.setdefault(path, {})[asked] = None
        return path


def _loop_opcodes(opcodes: Mapping[str, Opcode]) -> LoopOpcodes:
    mode = opcodes["loop_mode"].value if "loop_mode" in opcodes else None
    if mode not in _LOOP_MODES:
        mode = "one_shot" if "count" in opcodes else None
    return LoopOpcodes(mode, *(_integer(opcodes.get(name)) for name in ("loop_start", "loop_end", "end")))


def _integer(opcode: Opcode | None) -> int | None:
    found = re.match(r"[+-]?\d{1,15}", opcode.value) if opcode else None
    return int(found[0]) if found else None


def _number(opcode: Opcode | None) -> float:
    """What a player reads of a value; units and words behind it do not count."""
    found = re.match(r"[+-]?(\d{1,15}\.?\d*|\.\d+)", opcode.value) if opcode else None
    return float(found[0]) if found else 0.0


def _decibels(value: float) -> str:
    """Without an exponent, which players do not read.

    >>> _decibels(-3.0), _decibels(6.0206), _decibels(-0.00001)
    ('-3', '6.0206', '0')
    """
    return f"{round(value, 4) + 0.0:.4f}".rstrip("0").rstrip(".")


def _plain(path: Path) -> Path:
    """Without `..`, unless a link stands before it."""
    plain = Path(os.path.normpath(path))
    return plain if plain.resolve() == path.resolve() else path


def _seen_from(folder: Path, path: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        # On another drive.
        return path.as_posix()
