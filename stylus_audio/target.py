"""Where a stem goes, and how it is called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Literal

from .audio import SUFFIXES
from .errors import BadRequest

Sidecar = Literal["file", "embed", "none"]

DEFAULT_NAME = "{content}_{style}"
SUFFIX = ".wav"
"""Of a stem that is named by a pattern."""


@dataclass(frozen=True)
class Target:
    """Where a stem goes and what comes with it. Without `output` it lies beside the content, by `name`."""

    output: Path | None = None
    name: str = DEFAULT_NAME
    overwrite: bool = False
    sidecar: Sidecar = "file"


def stem_path(content: Path, styles: Sequence[str], target: Target) -> Path:
    """The stem's path before a free name is looked for.

    >>> stem_path(Path("a/riff.flac"), ["bells"], Target()).as_posix()
    'a/riff_bells.wav'
    >>> stem_path(Path("a/riff.flac"), ["bells"], Target(Path("x.aiff"))).as_posix()
    'x.aiff'
    """
    if target.output is not None and not target.output.is_dir():
        return target.output
    return (target.output or content.parent) / stem_name(content.stem, styles, target.name)


def stem_name(content: str, styles: Sequence[str], pattern: str = DEFAULT_NAME) -> str:
    """The stem's file name by the names of clip and styles; what no file system likes in a name becomes `_`.

    >>> stem_name("riff", ["glass/1"])
    'riff_glass_1.wav'
    """
    name = _filled(without_suffix(pattern), {"content": content, "style": "+".join(styles)})
    if not name.strip(". "):
        raise BadRequest(f"name: {pattern!r} leaves {name!r}, which is no file's name")
    return re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", name) + SUFFIX


def without_suffix(pattern: str) -> str:
    """A pattern without the suffix that stems get anyway; `BadRequest` for that of another container.

    >>> without_suffix("{content}.WAV"), without_suffix("{content} v1.2")
    ('{content}', '{content} v1.2')
    """
    plain, dot, ending = pattern.rpartition(".")
    suffix = (dot + ending).lower()
    if suffix == SUFFIX:
        return plain
    if suffix in SUFFIXES:
        raise BadRequest(f"name: {pattern!r} ends in {suffix}, and stems named by it are {SUFFIX}; use -o FILE")
    return pattern


def _filled(pattern: str, values: dict[str, str]) -> str:
    """A pattern with its names filled in, and nothing else of Python's formats: a width could ask for gigabytes."""
    text = ""
    try:
        for literal, name, form, conversion in Formatter().parse(pattern):
            if form or conversion:
                raise ValueError
            text += literal + ("" if name is None else values[name])
    except (KeyError, ValueError):
        raise BadRequest(f"name: {pattern!r} may hold {{content}} and {{style}} and nothing else in braces") from None
    return text
