"""STEM.json: everything that made a stem, so that it can be made again."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .audio import sha256
from .errors import BadRequest, NotAllowed, NotFound, UnsupportedAudio
from .reports import report_of
from .riff import read_chunk
from .settings import OF_INVERSION, OF_TEXT, Settings, to_samples
from .unchanged import WhileUnchanged

SCHEMA = 1

CHUNK = b"styl"
"""The RIFF chunk of a stem that carries its own sidecar."""

_SEARCHED = 20_000
"""Files looked at when a moved one is searched."""


@dataclass(frozen=True)
class Recipe:
    """What a sidecar asks for: the same files, model and settings."""

    content: Path
    styles: tuple[Path, ...]
    style_names: tuple[str, ...]
    model: str
    dtype: str
    settings: Settings


def identity(path: Path, origin: Path | None = None) -> dict[str, Any]:
    """A file by its place, its size and its SHA-256; the place of the `origin` that it is a copy of.

    Raises `NotFound`, `NotAllowed`, and `UnsupportedAudio` for a folder.
    """
    try:
        return {"path": str((origin or path).resolve()), **_contents(path)}
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist") from None
    except OSError as error:
        if path.is_dir():
            raise UnsupportedAudio(f"{path} is a folder; one audio file is wanted") from None
        raise NotAllowed(f"{path} cannot be read: {error.strerror}") from error


def _measured(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


_contents = WhileUnchanged(_measured, 1024)
"""A style's are asked for with every stem."""


@cache
def _versions() -> dict[str, str]:
    """Of what a stem depends on; looking one up takes milliseconds."""
    ours = {name: version(name) for name in ("stylus-audio", "torch", "diffusers", "numpy", "scipy", "soxr")}
    return {"python": platform.python_version(), **ours}


def identities(
    content: Path, styles: Sequence[tuple[Path, str]], origins: Mapping[Path, Path] | None = None
) -> dict[str, Any]:
    """What the sidecar says of the files that a stem is made of, as they are now; `origins` are what some copy."""
    origins = origins or {}
    return {
        "content": identity(content, origins.get(content)),
        "styles": [{"name": name, **identity(path, origins.get(path))} for path, name in styles],
    }


def sidecar(report: dict[str, Any], made_of: dict[str, Any], metrics: dict[str, Any], model: str) -> dict[str, Any]:
    """The sidecar's content; `made_of` are the `identities`, `model` what the user asked for by name or path."""
    return {
        "schema": SCHEMA,
        **made_of,
        "asked_model": model,
        **report,
        "metrics": metrics,
        "versions": dict(_versions()),
    }


def read_recipe(file: Path) -> Recipe:
    """What STEM.json, or a stem that carries it or lies beside it, asks for.

    Moved files are found by their hash, beside the sidecar and in the working folder. Raises `NotFound` for a file
    that is nowhere, `BadRequest` for a sidecar that is none.
    """
    values = read_sidecar(file)
    settings = _settings(file, values)
    try:
        places = (file.parent, Path.cwd())
        return Recipe(
            _found(values["content"], places),
            tuple(_found(style, places) for style in values["styles"]),
            tuple(str(style["name"]) for style in values["styles"]),
            str(values["asked_model"]),
            str(values["dtype"]),
            settings,
        )
    except (KeyError, TypeError, AttributeError):
        raise BadRequest(f"{file.name} is not a sidecar of a stem (STEM.json)") from None


def read_settings(file: Path) -> Settings:
    """The settings alone, whatever has become of clip and reference; raises `BadRequest` as `read_recipe` does."""
    return _settings(file, read_sidecar(file))


def _settings(file: Path, values: dict[str, Any]) -> Settings:
    try:
        if values["schema"] != SCHEMA:
            raise BadRequest(f"{file.name} has schema {values['schema']}; this version reads {SCHEMA}")
        return Settings.parse(_possible(values["settings"]))
    except (KeyError, TypeError, AttributeError):
        raise BadRequest(f"{file.name} is not a sidecar of a stem (STEM.json)") from None


def _possible(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a stem of an earlier version without those that it took no notice of: they are refused by now."""
    gone = {"tail"} if settings.get("loop") == "on" else set()
    if settings.get("method") == "conditional":
        # No model of this method has text.
        gone |= {*OF_INVERSION, *OF_TEXT}
    elif not settings.get("prompt"):
        gone |= set(OF_TEXT)
    return {name: value for name, value in settings.items() if name not in gone}


@dataclass(frozen=True)
class Sources:
    """What a stem was made from, as far as it is found.

    `seams` are the seconds of the stem where windows meet.
    """

    content: Path | None = None
    styles: tuple[Path, ...] = ()
    seams: tuple[float, ...] = ()


def read_sources(stem: Path, places: Sequence[Path]) -> Sources:
    """The files that a stem's sidecar names, embedded or beside it; moved ones are found by their hash in `places`.

    Nothing of a stem without a sidecar. Raises `NotFound` where there is no stem.
    """

    def found(identity: dict[str, Any]) -> Path | None:
        try:
            return _found(identity, places)
        except NotFound:
            return None

    try:
        values = read_sidecar(stem)
        styles = [found(style) for style in values["styles"]]
        return Sources(
            found(values["content"]),
            tuple(style for style in styles if style is not None),
            tuple(float(seam) for seam in values.get("seams", [])),
        )
    except (BadRequest, KeyError, TypeError, ValueError, AttributeError):
        return Sources()


@dataclass(frozen=True)
class Given:
    """What of a clip's file a render was given: samples `[start, end)`, and so many of silence behind for the tail."""

    start: int
    end: int
    tail: int


def read_given(stem: Path, content: Path) -> Given | None:
    """What of a content a stem was rendered from; None where no sidecar of the stem's says it of this content.

    In samples of the content, whatever rate the stem has been converted to since. Raises `NotFound` where there is no
    stem.
    """
    try:
        values = read_sidecar(stem)
        said = values["content"]
        if _contents(content) != {"bytes": said["bytes"], "sha256": said["sha256"]}:
            return None
        tail = to_samples(_settings(stem, values).tail, int(values["sample_rate"]))
        start = int(values["start_sample"])
        return Given(start, start + int(values["samples"]) - tail, tail)
    except (BadRequest, OSError, KeyError, TypeError, ValueError, AttributeError):
        # What cannot be read is said by who reads it.
        return None


def read_sidecar(file: Path) -> dict[str, Any]:
    """A sidecar, or that of a stem, which carries it or lies beside it, or its line in the reports of its batch.

    Raises `NotFound` and `BadRequest`.
    """
    if not file.is_file():
        raise NotFound(f"{file} does not exist")
    try:
        if file.suffix.lower() == ".json":
            text = file.read_text("utf-8")
        else:
            embedded = read_chunk(file, CHUNK)
            beside = file.with_suffix(".json")
            if embedded is not None:
                text = embedded.decode("utf-8")
            else:
                text = beside.read_text("utf-8") if beside.is_file() else report_of(file)
        values = json.loads(text)
    except (OSError, ValueError, RecursionError):
        raise BadRequest(f"{file.name} carries no sidecar, and there is none beside it") from None
    if not isinstance(values, dict):
        raise BadRequest(f"{file.name} is not a sidecar of a stem (STEM.json)")
    return values


def is_sidecar(file: Path) -> bool:
    """Whether a file is what `sidecar` wrote."""
    return _sidecar_in(file) is not None


def stem_of(file: Path) -> str | None:
    """The name of the stem that a sidecar in a file was written for; None where it does not say, or is none."""
    return (_sidecar_in(file) or {}).get("stem")


def _sidecar_in(file: Path) -> dict[str, Any] | None:
    try:
        values = read_sidecar(file)
    except (BadRequest, NotFound):
        return None
    return values if {"schema", "content", "styles"} <= values.keys() else None


def _found(identity: dict[str, Any], places: Iterable[Path]) -> Path:
    path, size, digest = Path(identity["path"]), int(identity["bytes"]), str(identity["sha256"])
    if _is(path, size, digest):
        return path
    looked = 0
    for place in places:
        for candidate in place.rglob("*"):
            looked += 1
            if looked > _SEARCHED:
                break
            if _is(candidate, size, digest):
                return candidate
    raise NotFound(f"{path.name} (SHA-256 {digest[:12]}…) is neither at {path} nor beside the sidecar")


def _is(path: Path, size: int, digest: str) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size and _contents(path)["sha256"] == digest
    except (NotAllowed, OSError):
        # Another user's, or gone meanwhile.
        return False
