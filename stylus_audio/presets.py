"""The user's own presets: one store for command line, device and page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import store
from .errors import BadRequest, NotFound
from .places import user_data
from .settings import Settings


def _file() -> Path:
    return user_data() / "presets.json"


def presets() -> dict[str, dict[str, Any]]:
    """Every preset's name and values."""
    return store.load(_file())


def preset(name: str) -> dict[str, Any]:
    """The values of one preset; `NotFound` names those that there are."""
    known = presets()
    if name not in known:
        there = ", ".join(sorted(known)) or "none yet; `stylus preset save NAME` makes one"
        raise NotFound(f"preset: {name!r} is not there; there are {there}")
    return dict(known[name])


def save_preset(name: str, values: dict[str, Any]) -> None:
    """Keep values under a name; `BadRequest` for values that are no settings."""
    if not name.strip():
        raise BadRequest("preset: a name has at least one letter")
    Settings.parse(values)
    store.save(_file(), {**presets(), name: values})


def remove_preset(name: str) -> None:
    """Forget a preset; `NotFound` where there is none."""
    preset(name)
    store.save(_file(), {key: value for key, value in presets().items() if key != name})
