"""Presets by name: the user's own, in one store for command line, device and page, and those that are always there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import store
from .errors import BadRequest, NoModel, NotFound
from .places import user_data
from .provenance import read_settings, read_sidecar
from .settings import BY_METHOD, Settings, typed_over

BUILT_IN: dict[str, dict[str, Any]] = {"fast": {"quality": "fast"}}
"""Where the user has none of the name, as one of an earlier version may be."""

_OF_THE_CLIP = ("start", "end", "preview", "style_weight")
"""What of a stem's settings is about its clip and its styles, and says nothing about others."""


def _file() -> Path:
    return user_data() / "presets.json"


def presets() -> dict[str, dict[str, Any]]:
    """Every preset of the user's: name and values; `BadRequest` where their file is damaged."""
    kept = store.load_whole(_file())
    if not all(isinstance(values, dict) for values in kept.values()):
        raise store.damaged(_file(), "a preset is an object")
    return kept


def every_preset() -> dict[str, dict[str, Any]]:
    """The user's presets, and behind them the built-in ones; raises as `presets` does."""
    own = presets()
    return own | {name: values for name, values in BUILT_IN.items() if name not in own}


def preset(name: str) -> dict[str, Any]:
    """The values of one preset; `NotFound` names those that there are."""
    known = every_preset()
    if name not in known:
        raise NotFound(
            f"preset: {name!r} is not there; there are {', '.join(sorted(known))}; `stylus preset save NAME` makes one"
        )
    return dict(known[name])


def save_preset(name: str, values: dict[str, Any], overwrite: bool = False) -> None:
    """Keep values under a name; `BadRequest` for values that are no settings, and for a name that is taken."""
    if not name.strip():
        raise BadRequest("preset: a name has at least one letter")
    if name in BUILT_IN:
        raise BadRequest(f"preset: {name!r} is built in; give yours another name")
    Settings.parse(values)
    with store.held(_file()):
        known = presets()
        if name in known and not overwrite:
            raise BadRequest(f"preset: {name!r} is there already; --overwrite replaces it")
        store.save(_file(), {**known, name: values})


def of_stem(file: Path, typed: Mapping[str, Any]) -> dict[str, Any]:
    """What a preset keeps of a stem, under what is typed: what its model would not do by itself, so that the preset
    serves other models; nothing of the clip and the styles. Of a model that is not there any more nothing that is by
    method. Raises what `read_settings` does.
    """
    from .model import own_settings

    settings = read_settings(file)
    kept = typed_over(settings.to_dict(), typed)
    try:
        own = own_settings(str(read_sidecar(file).get("asked_model")), settings.method, settings.quality)
    except NoModel:
        # Then which of these it had by itself nobody knows.
        own = Settings().to_dict() | {name: kept.get(name) for name in BY_METHOD}
    return {
        name: value
        for name, value in kept.items()
        if name in typed or (name not in _OF_THE_CLIP and value != own[name])
    }


def remove_preset(name: str) -> None:
    """Forget a preset of the user's; `NotFound` where there is none."""
    with store.held(_file()):
        known = presets()
        if name not in known:
            raise NotFound(f"preset: {name!r} is none of your own; `stylus preset list` shows them")
        store.save(_file(), {key: value for key, value in known.items() if key != name})
