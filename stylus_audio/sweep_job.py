"""One sweep from files to a folder: a stem for every combination, a contact sheet, and a table of the metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import store
from .audio import SUFFIXES
from .contact_sheet import COLUMNS, contact_sheet
from .engine import Engine
from .errors import BadRequest, NotAllowed, NotFound
from .files import can_write, name_endings, write_files
from .job import FileRender, Result, render_file
from .plot import MelPanel, mel_panel
from .progress import Progress, part
from .stem import made_folder
from .sweep import Axis, combinations, in_file_name, in_words
from .target import Target, stem_path, without_suffix

SCHEMA = 1
"""Of sweep.json."""


@dataclass(frozen=True)
class Sweep:
    """What came of a sweep: its folder, a row for each stem, and what the user should know about them.

    A row has the `stem`'s file name, its swept `values` by name, and its `metrics`.
    """

    folder: Path
    rows: list[dict[str, Any]]
    notes: list[str]


def sweep_folder(content: Path, styles: Sequence[str], target: Target) -> Path:
    """The folder of a sweep: the target's own, or else a new one beside the content, `NAME_sweep`.

    Makes nothing. Raises `BadRequest` for a file's name or a bad pattern, `NotFound` and `NotAllowed` for a place where
    no folder can be made.
    """
    beside = stem_path(content, styles, replace(target, output=None))
    folder = target.output
    if folder is None:
        names = (beside.with_name(f"{beside.stem}_sweep{ending}") for ending in name_endings())
        folder = next(name for name in names if target.overwrite or not name.exists())
    if not folder.is_dir():
        if folder.exists() or folder.suffix.lower() in SUFFIXES:
            raise BadRequest(f"output: {folder.name} is a file's name; a sweep of several stems needs a folder")
        if not folder.parent.is_dir():
            raise NotFound(f"the folder {folder.parent} does not exist")
    if not can_write(folder if folder.is_dir() else folder.parent):
        raise NotAllowed(f"{folder} cannot be written")
    return folder


def render_sweep(
    engine: Engine,
    content: Path,
    styles: Sequence[tuple[Path, str]],
    fixed: Mapping[str, Any],
    axes: Sequence[Axis],
    target: Target,
    model: str = "mini",
    progress: Progress | None = None,
) -> Sweep:
    """Render every combination of `axes` over the settings that are `fixed` into the target's folder (`sweep_folder`).

    Everything is checked before the first render. What is finished stays when a later one fails; a folder made here
    that would stay empty goes. Raises what `render_file` does.
    """
    planned = [(one, engine.settings(**{**fixed, **one})) for one in combinations(axes)]
    for _, settings in planned:
        engine.check(content, [file for file, _ in styles], settings)
    panels: list[MelPanel] = []
    rows: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    with made_folder(sweep_folder(content, [name for _, name in styles], target)) as folder:
        name = without_suffix(target.name)
        places = [replace(target, output=folder, name=f"{name}_{in_file_name(one)}") for one, _ in planned]
        for place in places:
            FileRender(content, styles, place).check()
        overwrite = target.overwrite and _is_ours(folder)
        for number, ((combination, settings), place) in enumerate(zip(planned, places, strict=True)):
            result = render_file(
                engine, content, styles, settings, place, model,
                part(progress, number / len(planned), (number + 1) / len(planned), f"{number + 1}/{len(planned)} {{}}"),
            )  # fmt: skip
            if not panels:
                panels.append(_content_panel(result, content))
            panels.append(mel_panel(in_words(combination), result.render.audio, result.render.sample_rate, COLUMNS))
            values = {axis.name: settings.to_dict()[axis.setting] for axis in axes}
            rows.append({"stem": result.path.name, "values": values, "metrics": result.report["metrics"]})
            notes |= dict.fromkeys(result.report["notes"])
        title = f"{content.stem} in the style of {' + '.join(name for _, name in styles)}"
        sheet = contact_sheet(title, panels[0], panels[1:], [len(axis.values) for axis in axes])
        about = {"schema": SCHEMA, "swept": [axis.name for axis in axes], "stems": rows}
        _write_summary(folder, sheet, json.dumps(about, indent=1, ensure_ascii=False) + "\n", overwrite)
    return Sweep(folder, rows, list(notes))


def _is_ours(folder: Path) -> bool:
    """Whether the summary that lies in a folder is a sweep's, or none does."""
    table = folder / "sweep.json"
    if not table.exists():
        return not (folder / "contact_sheet.png").exists()
    return {"schema", "swept", "stems"} <= store.load(table).keys()


def _content_panel(result: Result, content: Path) -> MelPanel:
    """The content where the stem lies in it."""
    passage = result.render.passage
    dry = passage.dry[:, passage.first : passage.last]
    return mel_panel(f"content: {content.name}", dry, passage.sample_rate, COLUMNS)


def _write_summary(folder: Path, sheet: bytes, table: str, overwrite: bool) -> None:
    """The contact sheet and the table, under names that go together and that are free."""
    for end in name_endings():
        files = {folder / f"contact_sheet{end}.png": sheet, folder / f"sweep{end}.json": table.encode("utf-8")}
        if write_files(files, overwrite):
            return
