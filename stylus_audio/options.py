"""What a render is asked for beside its files, as names and values: from a preset, a message, a manifest's row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from .errors import BadRequest
from .presets import preset
from .settings import DTYPES, RECIPE_DTYPE, RECIPES, Option, Settings, typed_over
from .target import DEFAULT_NAME, Sidecar

BESIDES = ("recipe", "preset", "model", "dtype", "name", "overwrite", "sidecar", "style", "output")
"""What may be given beside settings. Style and output are taken out before, by who knows what a path is relative to."""


@dataclass(frozen=True)
class Options:
    """Settings as they were typed, checked, and what is about model and stem.

    `model` "" is the default one.
    """

    settings: dict[str, Any]
    model: str = ""
    dtype: str = "auto"
    name: str = DEFAULT_NAME
    overwrite: bool = False
    sidecar: Sidecar = "file"

    @classmethod
    def parse(cls, values: Mapping[str, Any], sidecar: Sidecar = "file") -> Options:
        """From options by their names, with `recipe` and `preset` resolved under what was typed; raises `BadRequest`.

        `sidecar` is the default.
        """
        rest = dict(values)
        name = _text(rest, "name", DEFAULT_NAME)
        chosen = _text(rest, "sidecar", sidecar)
        if chosen not in ("file", "embed", "none"):
            raise BadRequest(f"sidecar: {chosen!r} is none of file, embed, none")
        overwrite = bool(Option("switch", "").check("overwrite", rest.pop("overwrite", False)))
        model = _text(rest, "model", "")
        recipe, known = _text(rest, "recipe", ""), _text(rest, "preset", "")
        if recipe and recipe not in RECIPES:
            raise BadRequest(f"recipe: {recipe!r} is none of {', '.join(RECIPES)}")
        dtype = _text(rest, "dtype", RECIPE_DTYPE if recipe else "auto")
        if dtype not in DTYPES:
            raise BadRequest(f"dtype: {dtype!r} is none of {', '.join(DTYPES)}")
        # Read now: what a preset means later is no longer what was asked for.
        rest = typed_over(typed_over(RECIPES.get(recipe, {}), preset(known) if known else {}), rest)
        Settings.parse(rest, besides=BESIDES)
        # As numbers: a toggle's `mix True` is shown as the command that renders the same, and that has no booleans.
        rest = {key: _without_booleans(value) for key, value in rest.items()}
        return cls(rest, model, dtype, name, overwrite, cast(Sidecar, chosen))


def _without_booleans(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_without_booleans(one) for one in value]
    return int(value) if isinstance(value, bool) else value


def _text(values: dict[str, Any], key: str, default: str) -> str:
    value = values.pop(key, None)
    if value is None:
        return default
    if not isinstance(value, str) or "\0" in value:
        raise BadRequest(f"{key}: {value!r} is not text")
    return value
