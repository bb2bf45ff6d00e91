"""What `stylus render` and `stylus demo` do, once their options are parsed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from . import library
from .audio import read_clip
from .engine import Engine, Render
from .errors import BadRequest, NotAllowed, NotFound
from .files import can_write, exists, writable_folder
from .job import FileRender, Result, render_file
from .near_live import NearLive
from .places import DEMO_CONTENT, DEMO_STYLE
from .playback import open_player
from .presets import preset as preset_values
from .progress_bar import shown_progress
from .provenance import is_sidecar, read_recipe
from .settings import RECIPE_DTYPE, RECIPES, Settings, typed_over
from .stem import check_carrier, made_folder
from .style_cache import StyleCache
from .sweep import Axis, combinations, swept, unswept
from .target import DEFAULT_NAME, Sidecar, Target
from .weights import from_anywhere


@dataclass(frozen=True)
class RenderRequest:
    """`stylus render` as it was typed; empty text means that an option was not given."""

    content: Path | None
    styles: tuple[str, ...]
    output: str
    origin: Path | None
    model: str
    recipe: str
    preset: str
    device: str
    dtype: str
    name: str
    sidecar: str
    cache: Path | None
    plot: Path | None
    overwrite: bool
    play: bool
    as_json: bool
    asked: dict[str, Any]
    words: tuple[str, ...] = ()
    """The command line, which says by which names and in which order the options came."""

    @property
    def target(self) -> Target:
        """Where its stem goes, or the folder of its sweep."""
        output = Path(self.output) if self.output else None
        return Target(output, self.name or DEFAULT_NAME, self.overwrite, cast(Sidecar, self.sidecar))


def run_render(request: RenderRequest) -> None:
    """Resolve what was asked, render, and print the stem's path, or JSON; with lists of values, the sweep's."""
    if request.sidecar not in ("file", "embed", "none"):
        raise BadRequest(f"sidecar: {request.sidecar!r} is none of file, embed, none")
    if request.plot is not None:
        _check_plot(request.plot)
    if request.cache is not None and request.cache.exists() and not request.cache.is_dir():
        raise BadRequest(f"cache: {request.cache} is a file; the prepared styles need a folder")
    if request.recipe and request.recipe not in RECIPES:
        raise BadRequest(f"recipe: {request.recipe!r} is none of {', '.join(RECIPES)}")
    content, styles, values, model, dtype = _resolved(request)
    if not exists(content):
        raise NotFound(f"{content} does not exist")
    for path, _ in styles:
        if not exists(path):
            raise NotFound(f"style: {path} does not exist")
    if axes := swept(request.asked, request.words):
        _run_sweep(request, axes, content, styles, unswept(values, axes), model, dtype)
        return
    Settings.parse(values)
    target = request.target
    into = target.output if _is_folder(request.output) else None
    if target.sidecar == "embed" and target.output and not into:
        check_carrier(target.output)
    with ExitStack() as stack:
        if into:
            stack.enter_context(made_folder(into))
        player = open_player() if request.play else None
        near_live = NearLive(stack.enter_context(player).hear) if player else None
        with shown_progress() as progress:
            progress(0.0, "loading the model")
            engine = Engine(model, request.device, dtype, StyleCache(request.cache) if request.cache else None)
            result = render_file(
                engine,
                content,
                styles,
                engine.settings(**values),
                target,
                model,
                progress,
                near_live=near_live,
            )
        _say(request, result, content, styles)


def _is_folder(output: str) -> bool:
    """Whether a stem's place is a folder, there or to be made: no stem's name ends in a slash or has no suffix."""
    path = Path(output)
    return bool(output) and (output.endswith(("/", os.sep)) or not path.suffix or (exists(path) and path.is_dir()))


def _check_plot(picture: Path) -> None:
    """Raise what would only be known when the stem is there."""
    if picture.suffix.lower() != ".png":
        raise BadRequest(f"plot: {picture.name} does not end in .png")
    if not picture.parent.is_dir():
        raise NotFound(f"plot: the folder {picture.parent} does not exist")
    try:
        is_folder = picture.is_dir()
    except OSError as error:
        # A name that no file can have.
        raise BadRequest(f"plot: {picture.name}: {error.strerror}") from error
    if is_folder:
        raise BadRequest(f"plot: {picture} is a folder; the picture needs a file name")
    if not can_write(picture.parent):
        raise NotAllowed(f"plot: {picture.parent} cannot be written")


def _say(request: RenderRequest, result: Result, content: Path, styles: list[tuple[Path, str]]) -> None:
    """What was rendered, as it was asked for."""
    for note in result.report["notes"]:
        print(f"stylus: {note}", file=sys.stderr)
    if request.plot:
        # Before the stem is said: of one that fails, `--json` prints the error alone.
        protect = [content, *(path for path, _ in styles)]
        drawn = draw(request.plot, result.render, styles, request.overwrite, protect)
        if drawn != request.plot:
            print(f"stylus: {request.plot.name} is there already; the picture is {drawn}", file=sys.stderr)
    print(json.dumps({"stem": str(result.path), **result.report}, ensure_ascii=False) if request.as_json
          else result.path, flush=True)  # fmt: skip


def _run_sweep(
    request: RenderRequest,
    axes: Sequence[Axis],
    content: Path,
    styles: list[tuple[Path, str]],
    fixed: dict[str, Any],
    model: str,
    dtype: str,
) -> None:
    """Render every combination of the swept options, and print the folder's path, or JSON: a row for each stem."""
    from .sweep_job import render_sweep, sweep_folder

    if request.play:
        raise BadRequest("play: a sweep has several stems; leave --play out")
    if request.plot is not None:
        raise BadRequest("plot: a sweep draws a contact sheet in its folder; leave --plot out")
    for combination in combinations(axes):
        Settings.parse({**fixed, **combination})
    target = request.target
    target = replace(target, output=sweep_folder(content, [name for _, name in styles], target))
    with shown_progress() as progress:
        progress(0.0, "loading the model")
        # All stems have the same style.
        engine = Engine(model, request.device, dtype, StyleCache(request.cache))
        sweep = render_sweep(engine, content, styles, fixed, axes, target, model, progress)
    for note in sweep.notes:
        print(f"stylus: {note}", file=sys.stderr)
    rows = [{**row, "stem": str(sweep.folder / row["stem"])} for row in sweep.rows]
    print(json.dumps(rows, ensure_ascii=False) if request.as_json else sweep.folder)


def _resolved(request: RenderRequest) -> tuple[Path, list[tuple[Path, str]], dict[str, Any], str, str]:
    """Content, styles with their names, settings, model and dtype: what was typed over preset, recipe and `--from`."""
    values: dict[str, Any] = dict(RECIPES.get(request.recipe, {}))
    model, dtype = request.model or "mini", request.dtype or (RECIPE_DTYPE if request.recipe else "auto")
    content = request.content
    styles = [library.resolve(reference) for reference in request.styles]
    if request.preset:
        values = typed_over(values, preset_values(request.preset))
    if request.origin:
        recipe = read_recipe(request.origin)
        content = content or recipe.content
        styles = styles or list(zip(recipe.styles, recipe.style_names, strict=True))
        inherited = recipe.settings.to_dict()
        if request.styles:
            # Weights belong to the styles beside which they stand.
            del inherited["style_weight"]
        model = request.model or recipe.model
        values = typed_over(inherited, values, from_anywhere(model) != from_anywhere(recipe.model))
        # A recipe's precision is one of its values.
        dtype = dtype if request.dtype or request.recipe else recipe.dtype
    if content is None or not styles:
        raise BadRequest("render needs a clip and a style: stylus render CLIP --style REFERENCE")
    return content, styles, typed_over(values, request.asked), from_anywhere(model), dtype


def run_demo(folder: Path) -> None:
    """Render the shipped clip in the shipped style and draw both with the result."""
    writable_folder(folder)
    with shown_progress() as progress:
        progress(0.0, "loading the model")
        engine = Engine("mini")
        styles = [(DEMO_STYLE, DEMO_STYLE.stem)]
        target = Target(folder)
        # An earlier demo makes room for this one, and nothing else does.
        again = is_sidecar(FileRender(DEMO_CONTENT, styles, target).path.with_suffix(".json"))
        target = replace(target, overwrite=again)
        result = render_file(engine, DEMO_CONTENT, styles, engine.settings(), target, "mini", progress)
    print(f"{result.path}\n{draw(result.path.with_suffix('.png'), result.render, styles, overwrite=again)}")


def draw(
    picture: Path,
    render: Render,
    styles: list[tuple[Path, str]],
    overwrite: bool = False,
    protect: Sequence[Path] = (),
) -> Path:
    """Content, every style, stem and gain on one picture, as long as the stem: of a longer style its loudest part.

    Returns where it is, as `save_plot` does.
    """
    from .plot import GainPanel, Panel, excerpt, save_plot
    from .spectrogram import band_centres

    passage = render.passage
    seconds = render.audio.shape[1] / render.sample_rate
    references = [(name, read_clip(path)) for path, name in styles]
    panels: list[Panel | GainPanel] = [
        Panel("content", passage.dry[:, passage.first : passage.last], render.sample_rate),
        *(excerpt("style", name, style.audio, style.sample_rate, seconds) for name, style in references),
        Panel("stem", render.audio, render.sample_rate),
    ]
    if render.gains is not None:
        profile = render.gains.profile
        low, high = (round(at / render.sample_rate * profile.frame_rate) for at in (passage.first, passage.last))
        gain = render.gains.db[0, :, low : max(low + 1, high)]
        panels.append(GainPanel("gain", gain, band_centres(profile), profile.frame_rate))
    return save_plot(picture, panels, overwrite, protect)
