"""Which options of a command line are lists, and every combination of their values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from .errors import BadRequest
from .settings import OPTIONS, setting_of

MOST = 200
"""Combinations that one command renders."""

_RANGES = ("line", "number")
_SEPARATORS = {**dict.fromkeys((*_RANGES, "integer", "choice"), ","), "weights": ";", "layers": ";"}
"""Between the values of a list, by the option's kind; weights and layers have commas of their own."""


@dataclass(frozen=True)
class Axis:
    """A swept option: its name as it was typed, the setting that it stands for, and its values as text."""

    name: str
    setting: str
    values: tuple[str, ...]


def swept(asked: Mapping[str, Any], words: Sequence[str] = ()) -> list[Axis]:
    """The options that are lists, by the names and in the order that they have in `words`, the command line.

    `asked` are options by any of their names, with their text. Every value is checked: raises `BadRequest` for one that
    the option does not allow or that is there twice, and for more than `MOST` combinations.

    >>> swept({"keep": "0.2,0.5", "mix": "0.5"}, ["--gamma", "0.2,0.5", "--mix=0.5"])
    [Axis(name='gamma', setting='gamma', values=('0.2', '0.5'))]
    >>> [axis.values for axis in swept({"alpha": "0..1/5", "style-weight": "1,0;0,1"})]
    [('0', '0.25', '0.5', '0.75', '1'), ('1,0', '0,1')]
    """
    axes = []
    for given, text in asked.items():
        setting = setting_of(given)
        if setting in OPTIONS and isinstance(text, str) and _is_list(OPTIONS[setting].kind, text):
            place, name = typed(setting, words)
            axes.append((place, Axis(name or given, setting, _values(name or given, setting, text))))
    ordered = [axis for _, axis in sorted(axes, key=lambda one: one[0])]
    count = math.prod(len(axis.values) for axis in ordered)
    if count > MOST:
        raise BadRequest(f"a sweep has at most {MOST} combinations; these are {count}")
    return ordered


def combinations(axes: Sequence[Axis]) -> list[dict[str, str]]:
    """Every combination of the values, by the axes' names; the last axis runs fastest.

    >>> combinations(swept({"keep": "0,1", "init": "adain,none"}))[1]
    {'keep': '0', 'init': 'none'}
    """
    return [
        dict(zip((axis.name for axis in axes), values, strict=True)) for values in product(*(a.values for a in axes))
    ]


def unswept(values: Mapping[str, Any], axes: Sequence[Axis]) -> dict[str, Any]:
    """Settings without those that are swept, whatever name they go by.

    >>> unswept({"gamma": 0.75, "keep": "0.2,0.5", "mix": "0.5"}, swept({"keep": "0.2,0.5"}))
    {'mix': '0.5'}
    """
    settings = {axis.setting for axis in axes}
    return {name: value for name, value in values.items() if setting_of(name) not in settings}


def in_file_name(combination: Mapping[str, str]) -> str:
    """A combination as a part of a file's name.

    >>> in_file_name({"gamma": "0.2:0.8", "style-weight": "0.1,0.9"})
    'gamma-0.2to0.8_style-weight-0.1,0.9'
    """
    return "_".join(f"{name}-{value.replace(':', 'to')}" for name, value in combination.items())


def in_words(combination: Mapping[str, str]) -> str:
    r"""A combination as a reader sees it; no line ends between a name and its value.

    >>> in_words({"gamma": "0.2", "alpha": "0.9"})
    'gamma\xa00.2, alpha\xa00.9'
    """
    return ", ".join(f"{name}\N{NO-BREAK SPACE}{value}" for name, value in combination.items())


def typed(setting: str, words: Sequence[str]) -> tuple[int, str]:
    """Where an option stands in a command line and by which name: the last time counts, as it does for its value.

    >>> typed("gamma", ["--keep=0.2", "--gamma", "0.5"]), typed("alpha", [])
    ((1, 'gamma'), (0, ''))
    """
    flags = {f"--{name.replace('_', '-')}" for name in (setting, *OPTIONS[setting].names)}
    found = [(place, word.partition("=")[0]) for place, word in enumerate(words)]
    place, flag = next((one for one in reversed(found) if one[1] in flags), (len(words), ""))
    return place, flag.removeprefix("--")


def _is_list(kind: str, text: str) -> bool:
    return (kind in _SEPARATORS and _SEPARATORS[kind] in text) or (kind in _RANGES and ".." in text)


def _values(name: str, setting: str, text: str) -> tuple[str, ...]:
    option = OPTIONS[setting]
    values: list[str] = []
    for part in text.split(_SEPARATORS[option.kind]):
        value = "".join(part.split())
        values += _spread(name, value) if option.kind in _RANGES and ".." in value else [value]
    checked = [option.check(name, value) for value in values]
    for number, value in enumerate(checked):
        if value in checked[:number]:
            raise BadRequest(f"{name}: {values[number]} is there twice")
    return tuple(values)


def _spread(name: str, text: str) -> list[str]:
    """`FIRST..LAST/COUNT` as evenly spaced numbers, both ends among them."""
    parts = re.fullmatch(r"(.+?)\.\.(.+)/(\d{1,9})", text)
    try:
        if parts is None:
            raise ValueError
        first, last, count = float(parts[1]), float(parts[2]), int(parts[3])
        if not 2 <= count <= MOST:
            raise ValueError
    except ValueError:
        raise BadRequest(
            f"{name}: {text!r} is not FIRST..LAST/COUNT, such as 0.1..0.9/9, with a COUNT from 2 to {MOST}"
        ) from None
    # Ten digits, so that 0.1..0.9/9 has 0.3 and not 0.30000000000000004.
    return [f"{first + (last - first) * number / (count - 1):.10g}" for number in range(count)]
