"""How long a batch will take, and how much room its stems, before anything is rendered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .. import store
from ..audio import probe
from ..errors import NotAllowed, StylusError
from ..places import user_data
from ..settings import Settings, to_samples
from ..stem import stem_bytes
from .plan import Item

LOOKED_AT = 48
"""Clips whose headers are read; the others are judged by their size."""

_WORK = (0.35, 0.15)
"""Seconds of one worker for a second of sound, and for a clip: `mini` on one core of the machine that it was made on.

Others are so many times that, which is known once they have been timed.
"""

_FEW = 8
"""So many stems say nothing of the speed yet."""


@dataclass(frozen=True)
class Estimate:
    """Of the stems that are still to be made.

    `audio` is in seconds of sound, `work` in seconds of one worker: None where this model was never timed here.
    """

    stems: int
    audio: float
    bytes: int
    work: float | None


def estimate(items: Sequence[Item], device: str) -> Estimate:
    """From the sizes of all clips and the headers of a few; clips that are not there, or no audio, count nothing."""
    there = [item for item in items if item.bytes > 0]
    looked = there[:: max(1, len(there) // LOOKED_AT)]
    by_suffix: dict[str, list[tuple[int, float, int]]] = {}
    for item in looked:
        with suppress(StylusError):
            info = probe(Path(item.content))
            stem = stem_bytes(info, item.sound.options.settings.get("bits"))
            by_suffix.setdefault(_suffix(item), []).append((item.bytes, info.samples / info.sample_rate, stem))
    known = {suffix: [sum(column) for column in zip(*rows, strict=True)] for suffix, rows in by_suffix.items()}
    factors = {name: _factor(name) for name in _names(items, device)}
    sounds = {item.sound.text: item.sound for item in items}
    settings = {text: Settings.parse(sound.options.settings) for text, sound in sounds.items()}
    audio = stems = work = 0.0
    for item in there:
        if (one := known.get(_suffix(item))) is None:
            continue
        whole = item.bytes / one[0] * one[1]
        asked = _asked(settings[item.sound.text], whole)
        audio += asked
        stems += asked * one[2] / one[1] if one[1] else 0.0
        work += (factors[_name(item, device)] or 0.0) * (_WORK[0] * asked + _WORK[1])
    return Estimate(len(items), audio, round(stems), None if None in factors.values() else work)


def _asked(settings: Settings, whole: float) -> float:
    """Seconds of a stem of a clip of so many; a time in samples counts as at 48 kHz."""
    start, end = (
        None if time is None else to_samples(time, 48_000) / 48_000 for time in (settings.start, settings.end)
    )
    part = max(0.0, (whole if end is None else min(end, whole)) - (start or 0.0))
    return (part if settings.preview is None else min(settings.preview, part)) + settings.tail


def learn(items: Sequence[Item], device: str, estimated: Estimate, worked: float) -> None:
    """Remember how long the work on items took; few of them, or several models or qualities, teach nothing."""
    names = _names(items, device)
    if len(names) != 1 or len(items) < _FEW or estimated.audio <= 0:
        return
    factor = worked / (_WORK[0] * estimated.audio + _WORK[1] * estimated.stems)
    with suppress(NotAllowed):
        store.save(_file(), {**store.load(_file()), names.pop(): round(factor, 4)})


def _suffix(item: Item) -> str:
    return os.path.splitext(item.content)[1]  # noqa: PTH122  (a Path for each of 100,000 takes a second)


def _factor(name: str) -> float | None:
    known = store.load(_file()).get(name, 1.0 if name.startswith("mini on ") else None)
    return float(known) if isinstance(known, int | float) else None


def _names(items: Sequence[Item], device: str) -> set[str]:
    """All that the speed of some stems is known by."""
    sounds = {item.sound.text: item for item in items}
    return {_name(item, device) for item in sounds.values()}


def _name(item: Item, device: str) -> str:
    """What the speed of a stem is known by."""
    options = item.sound.options
    return f"{options.model or 'mini'} on {device}, {options.settings.get('quality', Settings.quality)}"


def _file() -> Path:
    return user_data() / "speeds.json"
