"""Presets by name: the user's own, in one store for command line, device and page, and those that are always there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import store
from .errors import BadRequest, NotFound
from .places import user_data
from .settings import Settings

BUILT_IN: dict[str, dict[str, Any]] = {"fast": {"quality": "fast"}}
"""Where the user has none of the name."""


def _file() -> Path:
    return user_data() / "presets.json"


def presets() -> dict[str, dict[str, Any]]:
    """Every preset of the user's: name and values; `BadRequest` where their file is damaged."""
    kept = store.load_whole(_file())
    if not all(isinstance(values, dict) for values in kept.values()):
        raise store.damaged(_file(), "a preset is an object")
    return kept


def preset(name: str) -> dict[str, Any]:
    """The values of one preset; `NotFound` names those that there are."""
    known = {**BUILT_IN, **presets()}
    if name not in known:
        raise NotFound(
            f"preset: {name!r} is not there; there are {', '.join(sorted(known))}; `stylus preset save NAME` makes one"
        )
    return dict(known[name])


def save_preset(name: str, values: dict[str, Any]) -> None:
    """Keep values under a name; `BadRequest` for values that are no settings."""
    if not name.strip():
        raise BadRequest("preset: a name has at least one letter")
    Settings.parse(values)
    store.save(_file(), {**presets(), name: values})


def remove_preset(name: str) -> None:
    """Forget a preset of the user's; `NotFound` where there is none."""
    if name not in presets():
        raise NotFound(f"preset: {name!r} is none of your own; `stylus preset list` shows them")
    store.save(_file(), {key: value for key, value in presets().items() if key != name})
