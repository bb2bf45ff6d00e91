"""Every content in every style by every system: the grid of the Stylus paper (Wang et al., arXiv 2411.15913).

`python -m stylus_audio.paper_grid CONTENTS STYLES --out DIR --model sd15` renders it over two folders (the paper has 13
contents and 18 styles) and prints two tables: systems, as the paper's first, and what each part of Stylus does, as its
third. Stopped at any moment, it goes on. The systems are those that this project has, and in the place of the paper's
listeners there are measures (docs/evaluation.md).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import store
from .clap import Clap
from .engine import Engine
from .errors import BadRequest, Cancelled, DiskFull, NotAllowed, StylusError
from .evaluate_folder import Embed, Item, Values, audio_files, evaluate_items
from .files import write_files
from .interruption import heed_signals, leave
from .job import render_file
from .progress import Progress, part
from .progress_bar import shown_progress
from .provenance import identity, read_sources
from .settings import RECIPE_DTYPE, RECIPES, Settings, setting_of
from .style_cache import StyleCache
from .target import Target

Say = Callable[[str], None]


@dataclass(frozen=True)
class System:
    """A row: settings over the model's own, of the asked model or of the embedded one."""

    name: str
    settings: Mapping[str, object]
    embedded: bool = False


_STYLUS = RECIPES["stylus"]
METHODS = (
    System("content", {"mix": 0.0}),
    System("match-EQ", {"method": "conditional", "gamma": 1.0}, embedded=True),
    System("mini", {}, embedded=True),
    System("StyleID", RECIPES["styleid"]),
    System("Stylus", _STYLUS),
)
"""The first table."""

PARTS = (
    System("Stylus", _STYLUS),
    System("no query preservation", {**_STYLUS, "gamma": 0.0}),
    System("no guidance", {**_STYLUS, "alpha": 1.0}),
    System("no AdaIN", {**_STYLUS, "init": "none"}),
    System("no injection", {**_STYLUS, "injection": False}),
    System("Griffin-Lim for phase", {**_STYLUS, "reconstruction": "griffin-lim", "refine": 32}),
    System("gains for phase", {**_STYLUS, "reconstruction": "gain", "refine": None}),
)
"""The third table: the method less one of its parts each, or with another in its place."""

COLUMNS = {
    "content: chroma": "chroma_similarity",
    "content: onsets": "onset_f1",
    "content: CLAP": "clap_content_similarity",
    "style: log-mel ↓": "log_mel_distance_style",
    "style: instrument": "instrument_match",
    "style: CLAP": "clap_style_similarity",
    "FAD mel ↓": "fad_mel",
    "FAD CLAP ↓": "fad_clap",
}
"""Of the tables, with the metric that each has."""


@dataclass(frozen=True)
class Grid:
    """Contents, styles, and where everything about them lies: a folder of stems for each system, `grid.json`.

    `plan` is what `grid.json` holds: what another grid in the same folder is known by.
    """

    contents: Sequence[Path]
    styles: Sequence[Path]
    out: Path
    plan: Mapping[str, object]

    def begin(self) -> None:
        """Make the folder this grid's; raises `NotAllowed` where it cannot be written."""
        store.save(self.out / "grid.json", dict(self.plan))

    def stem(self, system: System, row: int, column: int) -> Path:
        """Where the stem of a content in a style lies; numbers keep names apart."""
        name = f"{row:02}-{column:02} {self.contents[row].stem} {self.styles[column].stem}.wav"
        return self.out / system.name / name

    def missing(self, system: System) -> list[tuple[int, int]]:
        """What is to be rendered, a style's at a time."""
        cells = [(row, column) for column in range(len(self.styles)) for row in range(len(self.contents))]
        return [(row, column) for row, column in cells if not self.stem(system, row, column).exists()]


def planned(contents: Path, styles: Path, out: Path, model: str, settings: Mapping[str, str]) -> Grid:
    """The grid of two folders, of which nothing is written yet.

    `BadRequest` for empty ones, and where `out` has another grid, or tables that are none's.
    """
    files = audio_files(contents), audio_files(styles)
    if not all(files):
        raise BadRequest(f"{styles if files[0] else contents} holds no audio files")
    plan = {
        "model": model,
        "settings": dict(settings),
        "contents": [identity(file) for file in files[0]],
        "styles": [identity(file) for file in files[1]],
    }
    begun = store.load_whole(out / "grid.json")
    if begun and begun != json.loads(json.dumps(plan)):
        raise BadRequest(f"{out} holds another grid, of other files, model or settings; take a new folder")
    if not begun and (out / "tables.md").exists():
        raise BadRequest(f"{out} holds a tables.md that is no grid's, and would be replaced; take a new folder")
    return Grid(*files, out, plan)


def render(grid: Grid, engine: Engine, system: System, values: Settings, progress: Progress | None, say: Say) -> None:
    """Make a system's missing stems; what fails is told to `say`, and tried again by the next run."""
    missing = grid.missing(system)
    (grid.out / system.name).mkdir(exist_ok=True)
    for number, (row, column) in enumerate(missing):
        if number == 0 or missing[number - 1][1] != column:
            # One style's features at a time: those of Stable Diffusion are 1.2 GB a window.
            engine.cache = StyleCache()
        content, style = grid.contents[row], grid.styles[column]
        watch = part(progress, number / len(missing), (number + 1) / len(missing), f"{number + 1}/{len(missing)} {{}}")
        # The folder is the grid's own: what is there without its stem is a sidecar that was left.
        target = Target(grid.stem(system, row, column), overwrite=True)
        try:
            render_file(engine, content, [(style, style.stem)], values, target, engine.model.name, watch)
        except StylusError as error:
            if isinstance(error, Cancelled | DiskFull | NotAllowed):
                raise
            say(f"{system.name}, {content.name} in {style.name}: {error}")


def measured(
    grid: Grid, system: System, clap: Embed | None, listener: str, progress: Progress | None, say: Say
) -> Values:
    """The means of a system's metrics and its distances; kept in its folder for these stems and this `listener`."""
    stems = [
        (grid.stem(system, row, column), grid.contents[row], grid.styles[column])
        for row in range(len(grid.contents))
        for column in range(len(grid.styles))
        if grid.stem(system, row, column).exists()
    ]
    if not stems:
        return {"stems": 0}
    kept_in = grid.out / system.name / "measured.json"
    states = [(stem.name, stem.stat()) for stem, _, _ in stems]
    of = {"clap": listener, "stems": [[name, state.st_mtime_ns, state.st_size] for name, state in states]}
    kept = store.load(kept_in)
    if kept.get("of") == of:
        return dict(kept["values"])
    items = [Item(stem, content, (style,), seams=read_sources(stem, []).seams) for stem, content, style in stems]
    try:
        report = evaluate_items(items, grid.styles, clap, progress or (lambda fraction, stage: None), say)
    except BadRequest:
        # None can be read; each has been told.
        return {"stems": 0}
    values: Values = {**report["mean"], **report["sets"]}
    if values["stems"] == len(stems):
        store.save(kept_in, {"of": of, "values": values})
    return values


def markdown(rows: Mapping[str, Values]) -> str:
    """A table in Markdown; columns without any value are left out."""
    columns = {title: key for title, key in COLUMNS.items() if any(row.get(key) is not None for row in rows.values())}
    lines = ["| " + " | ".join(["", "stems", *columns]) + " |", "|---" * (len(columns) + 2) + "|"]
    for name, row in rows.items():
        shown = (row.get(key) for key in columns.values())
        cells = ["" if value is None else f"{value:.3f}" for value in shown]
        lines.append("| " + " | ".join([name, str(row["stems"]), *cells]) + " |")
    return "\n".join(lines)


def run(
    grid: Grid,
    model: str,
    device: str,
    settings: Mapping[str, str],
    clap: Embed | None,
    progress: Progress | None,
    say: Say,
    listener: str = "",
) -> str:
    """Render and measure everything that is missing; both tables, in Markdown."""
    systems = {system.name: system for system in (*METHODS, *PARTS)}
    engines: dict[bool, Engine] = {}
    unfinished: dict[str, tuple[Engine, Settings]] = {}
    # Everything that is asked has to fit before anything is rendered.
    for name, system in systems.items():
        if grid.missing(system):
            if system.embedded not in engines:
                engines[system.embedded] = Engine(*(("mini",) if system.embedded else (model, device, RECIPE_DTYPE)))
            engine = engines[system.embedded]
            unfinished[name] = engine, engine.settings(**asked_of(system, settings))
            for content in grid.contents:
                engine.check(content, grid.styles[0], unfinished[name][1])
    # Only now is the folder taken: a mistake in the command leaves it free for the right one.
    grid.begin()
    rows: dict[str, Values] = {}
    for number, system in enumerate(systems.values()):
        here = part(progress, number / len(systems), (number + 1) / len(systems), f"{system.name} {{}}")
        if system.name in unfinished:
            engine, values = unfinished[system.name]
            render(grid, engine, system, values, part(here, 0, 0.9), say)
        rows[system.name] = measured(grid, system, clap, listener, part(here, 0.9, 1), say)
    first, third = ({system.name: rows[system.name] for system in table} for table in (METHODS, PARTS))
    return f"Systems\n\n{markdown(first)}\n\nParts of Stylus\n\n{markdown(third)}\n"


def asked_of(system: System, settings: Mapping[str, str]) -> dict[str, object]:
    """A row's settings and, over those of a published method, what was asked; but what a row is named after stays."""
    if system.settings.get("method") != "injection":
        return dict(system.settings)
    own = {name for name, value in system.settings.items() if system in PARTS and value != _STYLUS.get(name)}
    return {**system.settings, **{name: value for name, value in settings.items() if setting_of(name) not in own}}


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Render and measure every content in every style by every system.")
    parser.add_argument("contents", type=Path)
    parser.add_argument("styles", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="stems and measures; a stopped grid goes on there")
    parser.add_argument("--model", default="sd15", help="of the published methods")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", type=_pair, action="append", default=[], metavar="NAME=VALUE",
                        help="a setting of the published methods, such as layers=6-7")  # fmt: skip
    parser.add_argument("--clap", type=Path, help="a folder with CLAP's weights, for what CLAP hears")
    asked = parser.parse_args()
    settings = dict(asked.set)

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    heed_signals()
    try:
        clap = Clap.of_folder(asked.clap) if asked.clap else None
        grid = planned(asked.contents, asked.styles, asked.out, asked.model, settings)
        with shown_progress() as progress:
            listener = str(asked.clap.resolve()) if asked.clap else ""
            tables = run(grid, asked.model, asked.device, settings, clap, progress, say, listener)
        write_files({grid.out / "tables.md": tables.encode("utf-8")}, overwrite=True)
    except (KeyboardInterrupt, Cancelled):
        say("stopped; the same command goes on")
        leave(130)
    except StylusError as error:
        parser.exit(error.exit_code, f"{error}\n")
    print(tables)


if __name__ == "__main__":
    main()
