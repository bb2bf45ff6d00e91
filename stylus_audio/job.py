"""One render from files to files: what command line, batch and daemon have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .audio import read_clip
from .engine import Engine, Render
from .metrics import evaluate
from .near_live import NearLive
from .progress import Progress
from .provenance import CHUNK, sidecar
from .riff import Chunk, shifted
from .settings import Settings
from .stem import Journal, check_target, write_stem
from .target import Target, stem_path


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
    report = sidecar(render.report, content, styles, _metrics(render, styles), model, origins)
    samples = render.audio.shape[1]
    chunks = shifted(render.clip.chunks, render.passage.offset, samples, render.clip.total)
    if target.sidecar == "embed":
        chunks = (*chunks, Chunk(CHUNK, _json(report)))
    written = write_stem(
        render.audio,
        render.sample_rate,
        path,
        subtype=render.subtype,
        chunks=chunks,
        overwrite=target.overwrite,
        seed=settings.seed,
        sidecar=(lambda _: _json(report)) if target.sidecar == "file" else None,
        protect=sources,
        journal=journal,
    )
    return Result(written, render, report)


def _json(report: dict[str, Any]) -> bytes:
    return (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode("utf-8")


def _metrics(render: Render, styles: Sequence[tuple[Path, str]]) -> dict[str, Any]:
    """The metrics of a stem against the same passage of its content."""
    passage = render.passage
    style = read_clip(styles[0][0])
    return evaluate(
        render.audio,
        passage.dry[:, passage.first : passage.last],
        style.audio,
        sample_rate=render.sample_rate,
        style_rate=style.sample_rate,
        seams=render.report["seams"],
    )
