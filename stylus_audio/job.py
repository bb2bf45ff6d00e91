"""One render from files to files: what command line, batch and daemon have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .audio import read_clip
from .engine import Engine, Render
from .metrics import Timbre, evaluate
from .near_live import NearLive
from .progress import Progress
from .provenance import CHUNK, sidecar
from .riff import Chunk, shifted
from .settings import Settings
from .stem import Journal, check_target, write_stem
from .target import Sidecar, Target, stem_path
from .unchanged import WhileUnchanged


@dataclass(frozen=True)
class Result:
    """A stem on disk."""

    path: Path
    render: Render
    report: dict[str, Any]


def render_file(
    engine: Engine,
    content: Path,
    styles: Sequence[tuple[Path, str]],
    settings: Settings,
    target: Target,
    model: str = "mini",
    progress: Progress | None = None,
    origins: Mapping[Path, Path] | None = None,
    journal: Journal | None = None,
    near_live: NearLive | None = None,
) -> Result:
    """Render one file and write its stem and sidecar, both or neither.

    `styles` are files with the names that they go by; `origins` says of private copies what they are copies of, which
    is what the sidecar names and what is never replaced. Raises what `Engine.render` and `write_stem` raise.
    """
    path = stem_path(content, [name for _, name in styles], target)
    origins = origins or {}
    sources = [origins.get(file, file) for file in (content, *(file for file, _ in styles))]
    check_target(path, target.overwrite, sources)
    render = engine.render(content, [file for file, _ in styles], settings, progress, near_live)
    report = report_of(render, content, styles, model, origins)
    written = write_render(
        render, report, path, target.sidecar, overwrite=target.overwrite, protect=sources, journal=journal
    )
    return Result(written, render, report)


def report_of(
    render: Render,
    content: Path,
    styles: Sequence[tuple[Path, str]],
    model: str = "mini",
    origins: Mapping[Path, Path] | None = None,
) -> dict[str, Any]:
    """The sidecar's content; arguments are those of `render_file`."""
    return sidecar(render.report, content, styles, _metrics(render, styles), model, origins)


def write_render(
    render: Render,
    report: dict[str, Any],
    path: Path,
    sidecar: Sidecar = "file",
    *,
    overwrite: bool = False,
    protect: Sequence[Path] = (),
    journal: Journal | None = None,
) -> Path:
    """Write a stem with the chunks of its clip, and its report where it is wanted; returns and raises what `write_stem`
    does.
    """
    chunks = shifted(render.clip.chunks, render.passage.offset, render.audio.shape[1], render.clip.total)
    if sidecar == "embed":
        chunks = (*chunks, Chunk(CHUNK, _json(report)))
    return write_stem(
        render.audio,
        render.sample_rate,
        path,
        subtype=render.subtype,
        chunks=chunks,
        overwrite=overwrite,
        seed=int(report["settings"]["seed"]),
        sidecar=(lambda _: _json(report)) if sidecar == "file" else None,
        protect=protect,
        journal=journal,
    )


def _json(report: dict[str, Any]) -> bytes:
    return (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode("utf-8")


def _metrics(render: Render, styles: Sequence[tuple[Path, str]]) -> dict[str, Any]:
    """The metrics of a stem against the same passage of its content."""
    passage = render.passage
    return evaluate(
        render.audio,
        passage.dry[:, passage.first : passage.last],
        _timbre(styles[0][0]),
        sample_rate=render.sample_rate,
        seams=render.report["seams"],
    )


def _heard(path: Path) -> Timbre:
    clip = read_clip(path)
    return Timbre.heard(clip.audio, clip.sample_rate)


_timbre = WhileUnchanged(_heard, 64)
"""Of a style, which many stems have in common."""
