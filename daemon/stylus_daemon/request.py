"""What a job asks for, as it lies in the queue: checked once when it comes, and read by the worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from stylus_audio.errors import BadRequest
from stylus_audio.presets import preset
from stylus_audio.settings import DTYPES, RECIPE_DTYPE, RECIPES, Option, Settings
from stylus_audio.target import DEFAULT_NAME, Sidecar


@dataclass(frozen=True)
class RenderJob:
    """One render, or with `kind` "warm" the reading of its styles alone. Paths are absolute and without links."""

    content: str
    styles: tuple[tuple[str, str], ...]
    """Files, and the names that they go by."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What was asked for, over the model's own defaults; checked, and kept as typed."""
    model: str = ""
    """"" is the daemon's."""
    dtype: str = "auto"
    folder: str = ""
    """Where the stem goes."""
    file: str = ""
    """The stem's name; "" makes it by `name`."""
    name: str = DEFAULT_NAME
    overwrite: bool = False
    sidecar: Sidecar = "file"
    kind: Literal["render", "warm"] = "render"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RenderJob:
        """As the queue keeps it."""
        styles = tuple((str(path), str(name)) for path, name in values["styles"])
        return cls(**{**values, "styles": styles})

    @property
    def target(self) -> Path:
        """The folder of the stem."""
        return Path(self.folder)


def with_options(content: Path, styles: list[tuple[Path, str]], values: Mapping[str, Any]) -> RenderJob:
    """A render of which `values` are options as typed: settings, and what is about the stem.

    `output` is not among them: its place is checked by who knows what is allowed. Raises `BadRequest`.
    """
    rest = dict(values)
    name = _text(rest, "name", DEFAULT_NAME)
    sidecar = _text(rest, "sidecar", "file")
    if sidecar not in ("file", "embed", "none"):
        raise BadRequest(f"sidecar: {sidecar!r} is none of file, embed, none")
    overwrite = bool(Option("switch", "").check("overwrite", rest.pop("overwrite", False)))
    model = _text(rest, "model", "")
    recipe, known = _text(rest, "recipe", ""), _text(rest, "preset", "")
    if recipe and recipe not in RECIPES:
        raise BadRequest(f"recipe: {recipe!r} is none of {', '.join(RECIPES)}")
    dtype = _text(rest, "dtype", RECIPE_DTYPE if recipe else "auto")
    if dtype not in DTYPES:
        raise BadRequest(f"dtype: {dtype!r} is none of {', '.join(DTYPES)}")
    # Read now: what a preset means later is no longer what was asked for.
    rest = {**RECIPES.get(recipe, {}), **(preset(known) if known else {}), **rest}
    Settings.parse(rest)
    return RenderJob(
        str(content), tuple((str(path), known) for path, known in styles), rest, model, dtype, name=name,
        overwrite=overwrite, sidecar=cast(Sidecar, sidecar),
    )  # fmt: skip


def _text(values: dict[str, Any], key: str, default: str) -> str:
    value = values.pop(key, default)
    if not isinstance(value, str) or "\0" in value:
        raise BadRequest(f"{key}: {value!r} is not text")
    return value
