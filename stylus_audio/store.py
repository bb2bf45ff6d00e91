"""Small JSON files of the user's, written atomically: presets, and what is known of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import NotAllowed


def load(file: Path) -> dict[str, Any]:
    """The file's object; an absent or damaged file is an empty one."""
    try:
        values = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def save(file: Path, values: dict[str, Any]) -> None:
    """Replace the file's object; `NotAllowed` where the place cannot be written."""
    part = file.with_name(f".{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(values, indent=1, ensure_ascii=False), "utf-8")
        part.replace(file)
    except OSError as error:
        raise NotAllowed(f"{file} cannot be written: {error.strerror}") from error
