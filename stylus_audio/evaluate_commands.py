"""What `stylus evaluate` does, once its options are parsed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .audio import read_clip
from .errors import BadRequest, NoModel
from .progress_bar import shown_progress
from .provenance import read_sources
from .weights import CLAP, located

if TYPE_CHECKING:
    from .evaluation_report import EvaluationReport


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
