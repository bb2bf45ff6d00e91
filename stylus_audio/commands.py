"""What the larger commands of the command line do, once their options are parsed."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import library
from .audio import read_clip
from .engine import Engine, Render
from .errors import BadRequest, Cancelled, NoModel, NotAllowed, NotFound
from .files import can_write, exists, writable_folder
from .interruption import interruption
from .job import FileRender, Result, render_file
from .near_live import NearLive
from .places import DEMO_CONTENT, DEMO_STYLE
from .playback import open_player
from .presets import preset as preset_values
from .provenance import is_sidecar, read_recipe, read_sources
from .settings import RECIPE_DTYPE, RECIPES, Settings, typed_over
from .stem import check_carrier, made_folder
from .style_cache import StyleCache
from .sweep import Axis, combinations, swept, unswept
from .target import DEFAULT_NAME, Sidecar, Target
from .weights import CLAP, KNOWN, fingerprint, from_anywhere, is_offline, listed, located, verify

if TYPE_CHECKING:
    from .evaluation_report import EvaluationReport

SAYS_HOW_LONG = 60.0
"""A render that will take more seconds than this says so."""
KNOWS_AFTER = 3.0
"""Seconds before that is guessed: the first steps of a short one take longer than the others."""


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


@dataclass(frozen=True)
class EvaluateRequest:
    """`stylus evaluate` as it was typed."""

    output: Path
    content: Path | None
    style: Path | None
    clap: Path | None
    html: Path | None
    as_json: bool


def run_evaluate(request: EvaluateRequest) -> None:
    """Print the metrics of a stem, or of a folder of them, and write them as a page where that is asked for."""
    page = None
    if request.html is not None:
        from .evaluation_report import EvaluationReport

        page = EvaluationReport(request.html, request.output)
    if request.output.is_dir():
        _evaluate_folder(request, page)
    else:
        _evaluate_file(request, page)


def _evaluate_file(request: EvaluateRequest, page: EvaluationReport | None) -> None:
    from .evaluate_folder import passage_under
    from .instruments import instrument_match
    from .metrics import evaluate_clips

    places = [path.parent for path in (request.content, request.output) if path]
    stem, said = read_clip(request.output), read_sources(request.output, places)
    content, style = request.content or said.content, request.style or next(iter(said.styles), None)
    if content is None:
        raise BadRequest("neither a sidecar nor a batch's report has the clip that it was made from: --content CLIP")
    clip, _ = passage_under(request.output, content)
    reference = read_clip(style) if style else None
    metrics = evaluate_clips(stem, clip, reference, said.seams)
    metrics["instrument_match"] = instrument_match(stem, reference)
    if request.clap is not None:
        from .clap import Clap
        from .evaluate_folder import similarities

        listen = Clap.of_folder(request.clap)
        ours, theirs = (listen(one.audio, one.sample_rate) for one in (stem, clip))
        metrics |= similarities(ours, theirs, listen(reference.audio, reference.sample_rate) if reference else None)
    if page is not None:
        page.add(request.output.name, metrics, stem, clip, reference)
        page.write()
    print(json.dumps(metrics) if request.as_json else _lines(metrics))


def _evaluate_folder(request: EvaluateRequest, page: EvaluationReport | None) -> None:
    from .evaluate_folder import audio_files, evaluate_items, find_items
    from .table import table

    def leave_out(line: str) -> None:
        print(f"stylus: {line}", file=sys.stderr)

    items = find_items(request.output, request.content, request.style, leave_out)
    styles = audio_files(request.style) if request.style else []
    clap = _clap(request.clap) if items else None
    with shown_progress() as progress:
        report = evaluate_items(items, styles, clap, progress, leave_out, page.add if page else None)
    if page is not None:
        page.write(report)
    if request.as_json:
        print(json.dumps(report, ensure_ascii=False))
        return
    print(table({**report["stems"], "mean": report["mean"]}))
    print(f"\n{_lines(report['sets'])}")


def _clap(folder: Path | None) -> Callable[..., Any] | None:
    """CLAP from the folder that was named, or from the Hugging Face cache, or none and a line that says how to get it.

    Weights that were named and cannot be used are an error; those in the cache are the hub's affair.
    """
    try:
        place = folder or located(CLAP, download=False)
        from .clap import Clap

        return Clap.of_folder(place)
    except NoModel as error:
        if folder is not None:
            raise
        print(f"stylus: CLAP's metrics are left out: {error}, or --clap FOLDER", file=sys.stderr)
        return None


def _lines(values: Mapping[str, float | None]) -> str:
    """A line for every value; whole numbers count something."""

    def shown(value: float | None) -> str:
        return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"

    return "\n".join(f"{name:<28} {shown(value)}" for name, value in values.items())


def run_models_list(as_json: bool) -> None:
    """Print every model: where it comes from, whether it is here, its SHA-256 where that is known."""
    rows = []
    for weights in (*KNOWN.values(), CLAP):
        try:
            path: Path | None = located(weights, download=False)
        except Exception:  # absent, in whatever way the hub's cache says it
            path = None
        digest = fingerprint(weights, path) if path else None
        rows.append(
            {"name": weights.name, "kind": weights.kind, "source": weights.source, "size": weights.size,
             "here": path is not None, "sha256": digest, "note": weights.note}
        )  # fmt: skip
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        state = (
            f"here  {str(row['sha256'])[:12]}" if row["here"] else "not here" + (" (offline)" if is_offline() else "")
        )
        source = "in the package" if row["kind"] == "embedded" else row["source"]
        print(f"{row['name']:<15} {row['size']:>6}  {state:<20}  {row['note']} ({source})")


def run_models_verify(name: str) -> None:
    """Compare a model's weights with the SHA-256 that was kept when they were first used."""
    digest, same = verify(listed(name))
    print(f"sha256 {digest}")
    if not same:
        raise NoModel(f"{name}: the weights are not those that were there before; delete them and pull again")


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


@contextmanager
def shown_progress() -> Iterator[Callable[[float, str], None]]:
    """A progress bar on stderr, and a word beforehand where it will take minutes."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    begun = time.monotonic()
    said = False
    with Progress(
        TextColumn("{task.description:<18}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"),
        TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=1.0)

        def progress(fraction: float, stage: str) -> None:
            nonlocal said, begun
            if interruption.is_set():
                raise Cancelled("cancelled")
            bar.update(task, completed=fraction, description=stage)
            if fraction == 0.0:
                begun = time.monotonic()
            elif not said and fraction > 0.005 and (passed := time.monotonic() - begun) > KNOWS_AFTER:
                said = True
                left = passed * (1 / fraction - 1)
                if left > SAYS_HOW_LONG:
                    minutes = max(1, round(left / 60))
                    console.print(f"this will take about {minutes} minute{'s' * (minutes > 1)}")

        yield progress
