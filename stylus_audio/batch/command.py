"""`stylus batch`: from what was typed to a run, and from its end to words, JSON and an exit code."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from ..errors import BadRequest, DiskFull
from ..files import in_text, typed_path
from ..places import user_data
from ..reports import RECORDS
from .crew import Processes, places
from .estimate import Estimate, estimate, learn
from .instrument import reskin
from .ledger import open_ledger
from .manifest import Row, holds, home, rows, whole_path
from .packs import Crew, Pack
from .plan import Item, Planner, Wish, in_packs, shard
from .run import Batch, Standing
from .sfz import read_instrument
from .sources import Sources
from .standing import plan_in_json, plan_in_words, shown_standing, size, summary, summary_in_words

SOME_FAILED = 3
"""Exit code."""


@dataclass(frozen=True)
class BatchRequest:
    """`stylus batch` as it was typed; empty text means that an option was not given."""

    sources: tuple[str, ...]
    styles: tuple[str, ...]
    each_style: bool
    output: Path | None
    device: str
    workers: int | None
    cluster: str
    inputs: str
    shard: str
    plan_only: bool
    as_json: bool
    asked: dict[str, Any]
    """Settings, and model, recipe, preset, dtype, name, sidecar and overwrite where they were given."""


def run_batch(request: BatchRequest) -> int:
    """Plan, say so, render, and print a summary; returns the exit code.

    Raises `BadRequest` and `NotFound` for what was typed and for the manifest, `DiskFull` before the start where the
    stems will not fit, `Busy` where another run is at work on the same batch.
    """
    output = whole_path(typed_path(str(request.output))) if request.output else None
    if output is not None and output.exists() and not output.is_dir():
        raise BadRequest(f"output: {output} is a file; a batch needs a folder")
    if output is not None and in_text(str(output)) != str(output):
        # No ledger could say where the stems lie.
        raise BadRequest(f"output: the name of {in_text(str(output))} is not UTF-8; a batch needs one that is")
    planner = Planner(Wish(request.styles, request.each_style, output, request.asked))
    instruments = [source for source in request.sources if source.lower().endswith(".sfz")]
    if not instruments:
        return _render_clips(request, planner, output)
    if len(instruments) < len(request.sources) or request.shard:
        raise BadRequest("an SFZ instrument is one batch for one run: no clips beside it, and no shard")
    made: set[str] = set()  # where this run's instruments lie, which are not what it may replace
    paths = [whole_path(typed_path(source)) for source in instruments]
    return max(_render_instrument(request, planner, path, output, made) for path in paths)


def _render_clips(request: BatchRequest, planner: Planner, output: Path | None) -> int:
    number, count = _shard(request.shard)
    items = list(planner.items(rows(request.sources)))
    if not items:
        raise BadRequest(f"{' and '.join(map(in_text, request.sources))}: no row names a clip")
    for source in request.sources:
        if count > 1 and holds(source, output or home(source)):
            raise BadRequest("shard: stems among the clips would be clips of the other parts; -o a folder elsewhere")
    records = (output or home(request.sources[0])) / RECORDS
    ending = f"-{number}-of-{count}" if count > 1 else ""
    with open_ledger(records / f"ledger{ending}.sqlite") as ledger:
        # A folder that is rendered into itself holds stems of an earlier run, which are no clips.
        stems = ledger.placed()
        clips = [item for item in items if not (item.found and item.content in stems)]
        if not clips:
            raise BadRequest(f"{in_text(items[0].content)} is a stem of this batch; -o a folder elsewhere renders it")
        packs = in_packs(clips)
        batch = Batch(shard(packs, number, count) if count > 1 else packs, ledger, Sources(), kept=clips)
        reports = records / f"reports{ending}.jsonl"
        with _crew(request, batch) as crew:
            if not _rendered(request, batch, crew, reports):
                return 0
    said = summary(batch.standing, reports)
    print(json.dumps(said) if request.as_json else summary_in_words(batch.standing, reports))
    return SOME_FAILED if batch.standing.failures else 0


def _render_instrument(request: BatchRequest, planner: Planner, path: Path, output: Path | None, made: set[str]) -> int:
    instrument = read_instrument(path)
    for missing in instrument.missing:
        print(f"stylus: {path.name} plays {missing}, which is not there", file=sys.stderr)
    code = 0
    for sound in planner.sounds(Row(str(path), (), "", {}, "", "", "", path.name)):
        new = reskin(instrument, sound, output, made)
        records = new.folder / RECORDS
        reports = records / "reports.jsonl"
        with open_ledger(records / "ledger.sqlite") as ledger:
            batch = Batch(new.packs, ledger, Sources())
            with _crew(request, batch) as crew:
                if not _rendered(request, batch, crew, reports, partial(new.dress, crew, ledger)):
                    continue
            sfz, silent = new.write(ledger)
        for sample in silent:
            print(f"stylus: {sfz.name} cannot reach {sample}: its regions are silent", file=sys.stderr)
        said = {"sfz": str(sfz), **summary(batch.standing, reports)}
        print(json.dumps(said) if request.as_json else sfz)
        code = SOME_FAILED if batch.standing.failures else code
    return code


def _rendered(
    request: BatchRequest,
    batch: Batch,
    crew: Crew,
    reports: Path,
    dress: Callable[[], Callable[[Pack], Pack]] = lambda: lambda pack: pack,
) -> bool:
    """Say the plan, and do it; false where only the plan was asked for."""
    waiting, standing = list(batch.open.values()), batch.standing
    device = request.device if not request.cluster else "cluster"
    expected = estimate(waiting, device)
    styles = len({style for pack in batch.packs for item in pack for style in item.sound.styles})
    if request.plan_only:
        print(json.dumps(plan_in_json(standing, expected, styles, crew.size)) if request.as_json
              else plan_in_words(standing, expected, styles, crew.size))  # fmt: skip
        _say_failures(standing)
        return False
    print(plan_in_words(standing, expected, styles, crew.size), file=sys.stderr)
    _check_room(waiting, expected)
    try:
        if waiting:
            with shown_standing() as tell:
                batch.run(crew, tell, dress())
            learn(waiting, device, expected, standing.worked)
    finally:
        if standing.left:
            print(f"stylus: {standing.left:,} stems are left; the same command goes on with them", file=sys.stderr)
        if standing.before + standing.made:
            batch.ledger.write_reports(reports)
    _say_failures(standing)
    return True


def _say_failures(standing: Standing) -> None:
    for item, failed in standing.failures.values():
        print(f"stylus: {in_text(item.content)}: {failed.message}", file=sys.stderr)


def _crew(request: BatchRequest, batch: Batch) -> Crew:
    if request.cluster:
        from .cluster import Cluster, Inputs

        if request.inputs not in ("store", "shared"):
            raise BadRequest(f"inputs: {request.inputs!r} is neither store nor shared")
        return Cluster(request.cluster, cast(Inputs, request.inputs), cache=_cache())
    models = {item.sound.options.model for item in batch.open.values()}
    return Processes(places(request.device, request.workers, models, _cache()))


def _cache() -> Path:
    return user_data() / "styles-cache"


def _shard(text: str) -> tuple[int, int]:
    if not text:
        return 1, 1
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise BadRequest(f"shard: {text!r} is not I/N, such as 3/16")
    return int(number), int(count)


def _check_room(items: Sequence[Item], expected: Estimate) -> None:
    """Where all stems go to one disk, which is nearly always, it must have room for them."""
    if not items:
        return
    there = next(folder for folder in Path(items[0].output).parents if folder.exists())
    free = shutil.disk_usage(there).free
    if expected.bytes > free:
        raise DiskFull(f"{there} has {size(free)} free; the stems will take {size(expected.bytes)}")
