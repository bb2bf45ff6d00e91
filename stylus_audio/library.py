"""The style library: references by name.

A style is a copy of its own, so that it outlives the file that it came from.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from .audio import probe, read_clip, sha256
from .errors import BadRequest, NotFound
from .files import alike, exists, typed_path, writable_folder
from .places import user_data
from .settings import Settings
from .stem import write_stem


@dataclass(frozen=True)
class Style:
    """One entry of the library: its audio, and the file (with its SHA-256) that it came from."""

    name: str
    path: str
    seconds: float
    sample_rate: int
    channels: int
    sha256: str
    origin: str


def _folder() -> Path:
    return user_data() / "styles"


def _checked(name: str) -> str:
    if not re.fullmatch(r"[\w][\w .\-]{0,63}", name):
        raise BadRequest(f"style name: {name!r} is not 1 to 64 letters, digits, spaces, dots, - or _")
    if re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d) *(\..*)?", name):
        raise BadRequest(f"style name: {name!r} is a device on Windows, not a file; give another")
    return name


def styles() -> list[Style]:
    """All styles by name; an entry whose audio is gone is left out."""
    found = []
    for file in sorted(_folder().glob("*.json")):
        try:
            entry = json.loads(file.read_text("utf-8"))
            style = Style(path=str(file.with_suffix(".wav")), **entry["style"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if Path(style.path).is_file():
            found.append(style)
    return found


def style(name: str) -> Style:
    """One style; `NotFound` names those that there are."""
    for entry in styles():
        if entry.name == name:
            return entry
    there = ", ".join(entry.name for entry in styles()) or "none yet; `stylus style add NAME FILE` adds one"
    raise NotFound(f"style: {name!r} is no file and not in the library; the library has {there}")


def is_path(reference: str) -> bool:
    """Whether a reference as the user gives it is a path: a file, or what the library has no name for."""
    path = typed_path(reference)
    if (exists(path) and path.is_file()) or len(path.parts) > 1:
        return True
    return exists(path) and all(entry.name != reference for entry in styles())


def resolve(reference: str) -> tuple[Path, str]:
    """A reference as the user gives it, a file or a name, as its audio and its name."""
    if is_path(reference):
        path = typed_path(reference)
        return path, path.stem
    entry = style(reference)
    return Path(entry.path), entry.name


def add(name: str, file: Path, start: str | None = None, end: str | None = None) -> Style:
    """Copy a file, or a part of it (times as in `Settings`), to the library; an existing name is refused."""
    from .passage import segment_of

    _checked(name)
    # Where case does not matter "Bells" would take the place of "bells".
    there = next((entry.name for entry in styles() if alike(entry.name) == alike(name)), None)
    if there is not None:
        raise BadRequest(f"style: {there!r} is there already; `stylus style remove` frees the name")
    for other in _folder().glob("*"):
        if alike(other.stem) == alike(name) and other.suffix in (".wav", ".json"):
            raise BadRequest(f"style: {other} lies there without a readable entry; mend it, or move it away")
    info = probe(file)
    first, last = segment_of(Settings.parse({"start": start, "end": end}), info.samples, info.sample_rate)
    clip = read_clip(file, first, last)
    target = _folder() / f"{name}.wav"
    writable_folder(target.parent)

    def entry(stem: Path) -> bytes:
        made = Style(
            name, str(stem), clip.audio.shape[1] / clip.sample_rate, clip.sample_rate, clip.audio.shape[0],
            sha256(file), str(file.resolve()),
        )  # fmt: skip
        return json.dumps({"style": {k: v for k, v in asdict(made).items() if k != "path"}}, indent=1).encode()

    subtype = "DOUBLE" if clip.audio.dtype == "float64" else "FLOAT"
    write_stem(clip.audio, clip.sample_rate, target, subtype=subtype, sidecar=entry, overwrite=True)
    return style(name)


def remove(name: str) -> None:
    """Take a style out of the library; the file that it came from is not touched."""
    entry = style(name)
    Path(entry.path).with_suffix(".json").unlink()
    Path(entry.path).unlink()
