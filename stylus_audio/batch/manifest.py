"""What is to be rendered: rows of a CSV or JSONL file, or the audio files of folders and patterns."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..audio import is_audio
from ..errors import BadRequest, NotAllowed, NotFound
from ..files import in_text, typed_path
from ..reports import RECORDS, is_reported

SEPARATOR = "|"
"""Between several styles in one cell, as no file of Windows has it in its name."""

MANIFESTS = (".csv", ".jsonl", ".ndjson")

_MAGIC = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Row:
    """A clip and what it is to become.

    `content` and `output` are paths as typed, relative to `base`; `tree` is the folder whose tree is mirrored. Options
    are as typed.
    """

    content: str
    styles: tuple[str, ...]
    output: str
    options: Mapping[str, Any]
    base: str
    tree: str
    folder: str
    """Where the tree is mirrored unless told otherwise; "": the stem lies beside its clip."""
    where: str
    """Of the row, for messages."""


def whole_path(path: Path) -> Path:
    """Absolute and without `..`: from whatever folder a batch is named, it is the same one."""
    path = path.absolute()
    if ".." not in path.parts:
        return path
    plain, real = os.path.normpath(path), os.path.realpath(path)
    # Behind a link `..` is elsewhere than it reads.
    return Path(plain if os.path.realpath(plain) == real else real)


def rows(sources: Sequence[str]) -> Iterator[Row]:
    """The rows of manifests, audio files, folders and patterns, in order; those of a folder by name.

    What a manifest has twice is meant twice; a clip that two folders, patterns or names have in common comes once.
    Raises `NotFound` and `BadRequest` in words that name the line.
    """
    seen: set[Path] = set()
    for source in sources:
        path = typed_path(source)
        if _is_manifest(source, path):
            yield from (_csv(path) if path.suffix.lower() == ".csv" else _jsonl(path))
            continue
        for row in _files(source):
            # As paths, which know whether case counts.
            if (clip := Path(row.content)) not in seen:
                seen.add(clip)
                yield row


def _is_pattern(source: str) -> bool:
    return any(letter in _MAGIC for letter in source) and not Path(source).exists()


def _is_manifest(source: str, path: Path) -> bool:
    return path.suffix.lower() in MANIFESTS and not _is_pattern(source)


def home(source: str) -> Path:
    """The folder of what is known of a batch, unless told otherwise: where the stems of a folder or of clips go, or
    one beside the manifest.
    """
    path = _whole(source)
    if path.is_dir() or _is_pattern(source):
        return _mirror(_root(source, path))
    return path.with_name(f"{path.stem}-stylus") if _is_manifest(source, path) else path.parent


def holds(source: str, output: Path) -> bool:
    """Whether stems in a folder would be clips of a source when it is looked at again."""
    path = _whole(source)
    if _is_manifest(source, path):
        return False
    if path.is_file():
        return output == path.parent
    return output.is_relative_to(_root(source, path))


def _whole(source: str) -> Path:
    """A source's whole path; `..` behind a `*` is the pattern's own."""
    path = typed_path(source).absolute()
    fixed = _root(source, path)
    return whole_path(fixed) / path.relative_to(fixed)


def _root(source: str, path: Path) -> Path:
    return _fixed_part(path) if _is_pattern(source) else path


def _mirror(root: Path) -> Path:
    return root.parent / f"{root.name}-stylus"


def _files(source: str) -> Iterator[Row]:
    path = _whole(source)
    if path.is_file():
        yield _file(path, path.parent, "")
        return
    root = _root(source, path)
    if path.is_dir():
        found = sorted(path.rglob("*"))
    elif _is_pattern(source):
        try:
            found = sorted(root.glob(str(path.relative_to(root))))
        except ValueError:
            raise BadRequest(f"{source}: ** stands for whole folders, as in 'drums/**/*.wav'") from None
    else:
        raise NotFound(f"{source} does not exist")
    # A batch whose stems lie among these clips has left them there for others to use, not to be restyled once more.
    audio = list(filter(is_audio, found))
    others = [folder for folder in _between(root, audio) if (folder / RECORDS).is_dir()]
    clips = [file for file in audio if not (_is_in(file, others) and is_reported(file))]
    if not clips:
        raise BadRequest(f"{source} holds no audio files" + " but stems of a batch" * bool(audio))
    yield from (_file(clip, root, str(_mirror(root))) for clip in clips)


def _between(root: Path, files: Iterable[Path]) -> set[Path]:
    """The folders below a root that files lie in."""
    return {folder for parent in {file.parent for file in files} for folder in (parent, *parent.parents)
            if folder != root and folder.is_relative_to(root)}  # fmt: skip


def _is_in(file: Path, folders: Sequence[Path]) -> bool:
    return any(file.is_relative_to(folder) for folder in folders)


def _file(path: Path, tree: Path, folder: str) -> Row:
    return Row(str(path), (), "", {}, "", str(tree), folder, path.name)


def _fixed_part(pattern: Path) -> Path:
    """The folder that a pattern starts from."""
    fixed = []
    for part in pattern.parts[:-1]:
        if any(letter in _MAGIC for letter in part):
            break
        fixed.append(part)
    return Path(*fixed)


def _csv(path: Path) -> Iterator[Row]:
    with _opened(path) as stream:
        try:
            head = stream.readline()
            # Spreadsheets of many countries write semicolons.
            delimiter = ";" if head.count(";") > head.count(",") else ","
            stream.seek(0)
            base = str(whole_path(path).parent)
            reader = csv.DictReader(stream, delimiter=delimiter, skipinitialspace=True)
            names = list(reader.fieldnames or ())
            if "content" not in names:
                raise BadRequest(f"{path.name}: the first line names the columns, and one of them is content")
            # Spreadsheets leave columns without a name at the end.
            if twice := [name for name in dict.fromkeys(names) if name and names.count(name) > 1]:
                raise BadRequest(f"{path.name}: the first line names {', '.join(twice)} twice; a column has one name")
            for values in reader:
                where = f"{path.name}, line {reader.line_num}"
                if None in values or None in values.values():
                    raise BadRequest(f"{where}: {len(names)} columns are named, the line has others")
                yield _row(base, {key: value.strip() for key, value in values.items() if value.strip()}, where)
        except (csv.Error, UnicodeDecodeError) as error:
            raise BadRequest(f"{path.name} is not CSV in UTF-8: {error}") from None


def _jsonl(path: Path) -> Iterator[Row]:
    with _opened(path) as stream:
        number, base = 0, str(whole_path(path).parent)
        try:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    values = json.loads(line)
                    where = f"{path.name}, line {number}"
                    if not isinstance(values, dict):
                        raise BadRequest(f'{where}: an object such as {{"content": "riff.wav"}} is wanted')
                    yield _row(base, values, where)
        except (ValueError, UnicodeDecodeError) as error:
            raise BadRequest(f"{path.name}, line {number or 1}: not JSON: {error}") from None


def _opened(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist") from None
    except OSError as error:
        raise NotAllowed(f"{path} cannot be read: {error.strerror}") from None


def _row(base: str, values: dict[str, Any], where: str) -> Row:
    # What pandas and jq write for an empty cell.
    values = {name: value for name, value in values.items() if value is not None}
    content, output = values.pop("content", ""), values.pop("output", "")
    asked = values.pop("styles", None) or values.pop("style", ())
    values.pop("style", None)
    styles = asked.split(SEPARATOR) if isinstance(asked, str) else asked
    texts = [content, output, *styles] if isinstance(styles, list | tuple) else [None]
    if not all(isinstance(text, str) and "\0" not in text and in_text(text) == text for text in texts) or not content:
        raise BadRequest(f"{where}: content is a path; style is a path or a name, or several; output is a path")
    return Row(content, tuple(style.strip() for style in styles), output, values, base, base, "", where)
