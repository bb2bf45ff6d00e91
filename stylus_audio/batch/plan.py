"""From rows to items and packs: what is asked for, where it goes, and in which order it is rendered."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from .. import library
from ..audio import is_audio
from ..errors import BadRequest, NotFound
from ..files import name_endings, typed_path
from ..options import Options
from ..settings import Settings
from ..stem import check_carrier, check_container
from ..target import stem_name
from ..weights import KNOWN
from .manifest import Row
from .packs import Pack

PACK_CLIPS = 16
PACK_BYTES = 8 * 2**20
"""Of short clips that go through the network together; a longer clip goes alone."""

Styles = tuple[tuple[str, str], ...]
"""Files, and the names that they go by."""


@dataclass(frozen=True)
class Wish:
    """What is asked for on the command line, for all rows.

    `styles` are references as typed; `each_style` renders every one apart, those of a folder, or without any those of
    the library. `output` is the folder of all stems.
    """

    styles: tuple[str, ...] = ()
    each_style: bool = False
    output: Path | None = None
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Sound:
    """What a clip is to become: items that share one are rendered together."""

    styles: Styles
    options: Options
    text: str
    """All of it, as text that is the same in every run."""


@dataclass(slots=True)
class Item:
    """One stem to be made. `key` is its own among all, and the same in every run.

    `bytes` are the clip's, -1 where it is not there; `stamp` holds them and its time.
    """

    number: int
    content: str
    sound: Sound
    output: str
    bytes: int
    stamp: str
    found: bool = False
    """Whether it was in a folder, or typed as a clip, and no manifest's row names it."""
    key: str = field(init=False)

    def __post_init__(self) -> None:
        text = "\0".join((self.content, self.output, self.sound.text))
        self.key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class Planner:
    """Makes items of rows; what rows have in common is resolved once and kept once."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self._typed = _each(wish.styles) if wish.each_style else wish.styles
        self._known: dict[tuple[str, tuple[str, ...], str], list[Sound]] = {}
        self._folders = Folders()
        self._names: dict[str, int] = {}
        self._targets: dict[tuple[str, str], str] = {}
        for style in self._typed:
            self._style("", style)

    def items(self, rows: Iterable[Row]) -> Iterator[Item]:
        """The items of rows, in order; a clip or style that is not there shows when it is rendered.

        Raises `BadRequest` for options, in words that name the row, and `NotFound` for a style of the command line.
        """
        number = 0
        for row in rows:
            content = _absolute(row.base, row.content)
            for sound in self.sounds(row):
                output = self._output(row, content, sound)
                yield Item(number, content, sound, output, *self._folders.about(content), found=not row.base)
                number += 1

    def sounds(self, row: Row) -> list[Sound]:
        """What a row's clip is to become: one blend, or each style apart; raises as `items` does."""
        typed = row.styles or self._typed
        if not typed:
            raise BadRequest(f"{row.where}: no style; give it in the row, or --style for all")
        key = (row.base, typed, json.dumps(row.options, sort_keys=True, default=str))
        if key not in self._known:
            try:
                options = Options.parse({**(self.wish.options or {}), **_beside(row)}, sidecar="none")
                if options.sidecar == "file":
                    raise BadRequest("sidecar: a batch has one reports.jsonl for all; embed or none")
                base = row.base if row.styles else ""
                each = _each(typed, base) if row.styles and self.wish.each_style else typed
                styles = [self._style(base, style) for style in each]
            except BadRequest as error:
                raise BadRequest(f"{row.where}: {error}") from None
            apart = [(style,) for style in styles] if self.wish.each_style else [tuple(styles)]
            self._known[key] = [_sound(one, options) for one in apart]
        return self._known[key]

    def _style(self, base: str, typed: str) -> tuple[str, str]:
        """A reference as a file and its name; paths of a row count from `base`, others from here."""
        beside = Path(_absolute(base or str(Path.cwd()), typed))
        if not beside.is_file():
            try:
                # A folder of that name may be the one that this style's stems go to.
                kept = library.style(typed)
                return _absolute("", kept.path), kept.name
            except NotFound:
                if beside.is_dir():
                    raise BadRequest(
                        f"style: {typed} is a folder; --each-style renders every clip in it apart"
                    ) from None
                # One row's: the others are rendered.
                if not base and not beside.exists():
                    raise
        return str(beside), beside.stem

    def _output(self, row: Row, content: str, sound: Sound) -> str:
        """The stem's path, told apart from those of other items."""
        if row.output:
            path = _absolute(str(self.wish.output or row.base), row.output)
            try:
                check_container(Path(path))
            except BadRequest as error:
                raise BadRequest(f"{row.where}: output: {error}") from None
            if sound.options.sidecar == "embed":
                try:
                    check_carrier(Path(path))
                except BadRequest as error:
                    raise BadRequest(f"{row.where}: {error}") from None
        else:
            name = os.path.split(content)[1]
            styles = [style for _, style in sound.styles]
            named = stem_name(name.rpartition(".")[0] or name, styles, sound.options.name)
            path = _absolute(self._target(row, content), named)
        # Whatever the file system thinks of case, two stems are told apart.
        taken = self._names.setdefault(path.casefold(), 0)
        self._names[path.casefold()] += 1
        if not taken:
            return path
        first = Path(path)
        for ending in name_endings():
            named = str(first.with_name(f"{first.stem}{ending}{first.suffix}"))
            if self._names.setdefault(named.casefold(), 0) == 0:
                self._names[named.casefold()] = 1
                return named
        raise AssertionError("numbers do not run out")

    def _target(self, row: Row, content: str) -> str:
        """The folder of a clip's stem: its own, or the same place in the mirrored tree."""
        folder, tree = os.path.split(content)[0], row.tree
        output = str(self.wish.output or row.folder)
        if not output:
            return folder
        key = (tree, folder)
        if key not in self._targets:
            inside = folder == tree or folder.startswith(tree.rstrip(os.sep) + os.sep)
            below = os.path.relpath(folder, tree) if inside else ""
            self._targets[key] = _folder(output, below)
        return self._targets[key]


class Folders:
    """What is known of clips from one look at each of their folders."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, tuple[int, int]]] = {}

    def about(self, content: str) -> tuple[int, str]:
        """Bytes of a clip, and its stamp: these and its time; -1 and "" where it is not there."""
        folder, name = os.path.split(content)
        if folder not in self._folders:
            self._folders[folder] = _files(folder)
        size, time = self._folders[folder].get(name, (-1, 0))
        return size, f"{size}:{time}" if size >= 0 else ""


def _each(styles: Sequence[str], base: str = "") -> tuple[str, ...]:
    """Folders, as seen from `base`, as the clips in them, and nothing as all of the library."""
    if not styles:
        return tuple(style.path for style in library.styles())
    kept = {style.name for style in library.styles()}
    return tuple(one for style in styles for one in ([style] if style in kept else _inside(style, base)))


def _inside(style: str, base: str) -> list[str]:
    folder = base / typed_path(style)
    if not folder.is_dir():
        return [style]
    found = [str(one) for one in sorted(folder.iterdir()) if is_audio(one)]
    if not found:
        raise BadRequest(f"style: {style} holds no audio files")
    return found


def _beside(row: Row) -> Mapping[str, Any]:
    """A row's options; a model that lies beside the manifest is that one, wherever the command is given."""
    model = row.options.get("model")
    if not isinstance(model, str) or not model or model in KNOWN:
        return row.options
    beside = _absolute(row.base, model)
    return {**row.options, "model": beside} if Path(beside).exists() else row.options


def _absolute(base: str, typed: str) -> str:
    """Without `..`, and without asking the disk, which 100,000 rows would wait for."""
    folder, name = os.path.split(typed)
    if name in ("", ".", ".."):
        return _folder(base, typed)
    return _folder(base, folder).rstrip(os.sep) + os.sep + name


@lru_cache(maxsize=4096)
def _folder(base: str, typed: str) -> str:
    return os.path.normpath(Path(base, typed_path(typed)).absolute())


def _files(folder: str) -> dict[str, tuple[int, int]]:
    """Bytes and times of a folder's files by name: one look at the folder for all of its clips."""
    files = {}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                about = entry.stat()
                files[entry.name] = (about.st_size, about.st_mtime_ns)
    return files


def _sound(styles: Styles, options: Options) -> Sound:
    about = [styles, Settings.parse(options.settings).to_dict(), sorted(options.settings), options.model,
             options.dtype, options.sidecar]  # fmt: skip
    return Sound(styles, options, json.dumps(about))


def in_packs(items: Sequence[Item]) -> list[list[Item]]:
    """Items in the order of their rendering, those of a sound together: each style is read once and stays warm.

    The same items give the same packs, whatever of them is done already: windows that go through the network with
    others may come out otherwise in the last bits.
    """
    packs: list[list[Item]] = []
    # In the order in which the sounds come, so that the first rows are done first.
    order = {sound: number for number, sound in enumerate(dict.fromkeys(item.sound.text for item in items))}
    sounds = sorted(items, key=lambda item: (order[item.sound.text], item.number))
    for _, group in groupby(sounds, key=lambda item: item.sound.text):
        pack: list[Item] = []
        taken = 0
        for item in group:
            if pack and (len(pack) == PACK_CLIPS or taken + item.bytes > PACK_BYTES):
                packs.append(pack)
                pack, taken = [], 0
            pack.append(item)
            taken += item.bytes
        packs.append(pack)
    return packs


def shard(packs: Sequence[list[Item]], number: int, count: int) -> list[list[Item]]:
    """The packs of shard `number` of `count`, from 1: neighbours, so that a shard meets few styles; about equal bytes.

    >>> [len(shard([[]] * 5, number, 2)) for number in (1, 2)]
    [2, 3]
    """
    weights = [1 + sum(max(0, item.bytes) for item in pack) for pack in packs]
    total, before, mine = sum(weights), 0, []
    for pack, weight in zip(packs, weights, strict=True):
        # By where its middle lies.
        if min(count - 1, int((before + weight / 2) / total * count)) == number - 1:
            mine.append(pack)
        before += weight
    return mine


def as_pack(number: int, items: Sequence[Item]) -> Pack:
    """What goes to a worker."""
    sound = items[0].sound
    options = sound.options
    return Pack(
        number, tuple(item.content for item in items), tuple(Path(item.output).suffix for item in items), sound.styles,
        options.settings, options.model, options.dtype, options.sidecar == "embed",
    )  # fmt: skip


def alone(items: Iterable[Item]) -> list[list[Item]]:
    """Each item as a pack of its own."""
    return [[item] for item in items]
