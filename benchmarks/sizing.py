"""How many workers a batch can use: `python -m benchmarks.sizing [--measure FILE] [--figures FILE]`.

`--measure` runs small batches on this machine and writes what they took; without it the figures of a file, by default
those of two CPU cores in `sizing_cpu.json`, go into the simulation.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import soundfile

from stylus_audio.batch.crew import Processes, places
from stylus_audio.batch.ledger import Ledger
from stylus_audio.batch.manifest import rows
from stylus_audio.batch.packs import Crew, Done, Pack, Place
from stylus_audio.batch.plan import PACK_CLIPS, Planner, Wish, in_packs
from stylus_audio.batch.run import Batch
from stylus_audio.batch.sources import Sources
from tests.sounds import RATE, plucks

from .batch import one_shots
from .simulation import Conditions, Figures, Load, Outcome, ceiling, simulate

FIGURES = Path(__file__).parent / "sizing_cpu.json"
WORKERS = (1, 8, 64, 1000)
STYLE_SECONDS = 7.5


@dataclass(frozen=True)
class Ran:
    """A real batch: its load and workers, the seconds of it, of every pack in the order of their ends, and of writing
    a stem with nobody else at work.
    """

    workers: int
    load: Load
    seconds: float
    packs: list[tuple[Pack, float]]
    publish: float
    clip_bytes: float
    stem_bytes: float
    record_bytes: float
    style_bytes: float


class _Watched:
    """A crew of which is told what its packs took and what came of them."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.done: list[Done] = []

    @property
    def size(self) -> int:
        return self.crew.size

    def work(self, packs: Iterable[Pack]) -> Iterator[Done]:
        for done in self.crew.work(packs):
            self.done.append(done)
            yield done

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *error: object) -> None:
        self.crew.__exit__(*error)


class _Known:
    """A crew that knows what comes of every pack."""

    size = 1

    def __init__(self, done: Sequence[Done]) -> None:
        self.outcomes = {one.pack.number: one.outcomes for one in done}

    def work(self, packs: Iterable[Pack]) -> Iterator[Done]:
        for pack in packs:
            yield Done(pack, self.outcomes[pack.number], 0.0)

    def __enter__(self) -> _Known:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def batch(seats: Sequence[Place], load: Load, model: str) -> Ran:
    """Render one-shots of 0.3 to 1.5 s in styles that nobody has prepared, and look at it."""
    with TemporaryDirectory() as made:
        folder = Path(made)
        one_shots(folder / "clips", load.clips)
        styles = [str(folder / f"style {number}.wav") for number in range(load.styles)]
        for number, style in enumerate(styles):
            soundfile.write(style, plucks(STYLE_SECONDS, 0.25 + 0.05 * number).T, RATE)
        cold = [Place(seat.device, seat.threads, folder / "styles-cache") for seat in seats]
        with _Watched(Processes(cold)) as crew:
            seconds, records = _run(crew, folder, "out", styles, model, load)
        publish, _ = _run(_Known(crew.done), folder, "again", styles, model, load)
        return Ran(
            len(seats), load, seconds, [(done.pack, done.seconds) for done in crew.done], publish / load.stems,
            _bytes(folder / "clips") / load.clips, _bytes(folder / "out") / load.stems,
            records / load.stems, _bytes(folder / "styles-cache") / load.styles,
        )  # fmt: skip


def _run(crew: Crew, folder: Path, out: str, styles: Sequence[str], model: str, load: Load) -> tuple[float, int]:
    """Seconds of a batch, and the bytes of its ledger and reports."""
    records = folder / f"{out} records"
    planner = Planner(Wish(tuple(styles), True, folder / out, {"model": model}))
    items = list(planner.items(rows([str(folder / "clips")])))
    with Ledger(records / "ledger.sqlite") as ledger:
        run = Batch(in_packs(items), ledger, Sources())
        begun = time.perf_counter()
        run.run(crew)
        seconds = time.perf_counter() - begun
        assert run.standing.made == load.stems
        ledger.write_reports(records / "reports.jsonl")
    return seconds, _bytes(records)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measured(device: str, model: str, clips: int) -> dict[str, Any]:
    """Figures of this machine, as JSON: from a batch on all of its workers in one style, and two others in three.

    The simulation is compared with all of them.
    """
    seats = places(device, None, {model}, None)
    load = psutil.getloadavg()[0]
    several = Load(3 * PACK_CLIPS, 3)
    full, alone = batch(seats, Load(clips, 1), model), batch(seats[:1], several, model)
    runs = [full, alone, *([batch(seats, several, model)] if len(seats) > 1 else [])]
    # In one style every worker's first pack is one of the first ones; all others find it warm.
    first = [seconds for pack, seconds in full.packs if pack.number < len(seats)]
    packs = [seconds for pack, seconds in full.packs if pack.number >= len(seats) and len(pack.contents) == PACK_CLIPS]
    style = _preparation(alone)
    return {
        "machine": f"{platform.platform()}, {psutil.cpu_count(logical=False)} cores, torch {version('torch')}",
        "command": " ".join(["python -m benchmarks.sizing", *sys.argv[1:]]),
        "device": seats[0].device, "model": model or "mini", "workers": len(seats), "threads": seats[0].threads,
        "load_before": round(load, 2),
        "packs": [round(one, 3) for one in packs],
        "start": round(max(0.0, median(first) - median(packs) - style), 3),
        "style": round(style, 3),
        "publish": round(median(run.publish for run in runs), 5),
        "clip_bytes": round(full.clip_bytes), "stem_bytes": round(full.stem_bytes),
        "record_bytes": round(full.record_bytes), "style_bytes": round(full.style_bytes),
        "runs": [{"workers": run.workers, **asdict(run.load), "seconds": round(run.seconds, 2)} for run in runs],
    }  # fmt: skip


def _preparation(run: Ran) -> float:
    """By how many seconds one worker's packs are longer that are the first of their style, but for its very first."""
    begun = {run.packs[0][0].styles}
    taken: dict[bool, list[float]] = {True: [], False: []}
    for pack, seconds in run.packs[1:]:
        taken[pack.styles in begun].append(seconds)
        begun.add(pack.styles)
    return max(0.0, mean(taken[False]) - mean(taken[True]))


def figures_of(told: dict[str, Any]) -> Figures:
    """Those that the simulation takes."""
    names = ("start", "style", "publish", "clip_bytes", "stem_bytes")
    return Figures(tuple(told["packs"]), **{name: told[name] for name in names})


def outcomes(figures: Figures, load: Load, conditions: Conditions, workers: Sequence[int] = WORKERS) -> list[Outcome]:
    """The same batch on more and more workers."""
    return [simulate(figures, load, count, conditions) for count in workers]


def table(found: Sequence[Outcome]) -> str:
    """Stems an hour, and what the workers' time went into, in per cent."""
    names = list(asdict(found[0].spent))
    head = f"{'workers':>8}{'hours':>9}{'stems/h':>10}{'prepared':>10}" + "".join(f"{name:>13}" for name in names)
    lines = [head]
    for one in found:
        shares = "".join(f"{100 * seconds / one.spent.total:>12.1f}%" for seconds in asdict(one.spent).values())
        hours = one.seconds / 3600
        lines.append(f"{one.workers:>8,}{hours:>9.2f}{one.stems_an_hour:>10,.0f}{one.prepared:>10,}{shares}")
    return "\n".join(lines)


def compared(told: dict[str, Any]) -> str:
    """The real batches beside the simulated ones."""
    lines = [f"{'workers':>8}{'styles':>8}{'stems':>8}{'real s':>9}{'simulated s':>13}{'apart':>8}"]
    for real in told["runs"]:
        load = Load(real["clips"], real["styles"])
        seconds = mean(
            simulate(figures_of(told), load, real["workers"], Conditions(seed=seed)).seconds for seed in range(20)
        )
        apart = seconds / real["seconds"] - 1
        lines.append(
            f"{real['workers']:>8}{real['styles']:>8}{load.stems:>8}{real['seconds']:>9.1f}{seconds:>13.1f}{apart:>8.0%}"
        )
    return "\n".join(lines)


def words(told: dict[str, Any], conditions: Conditions) -> str:
    """What a worker and a disk do, and where more workers stop to help."""
    figures = figures_of(told)
    per_stem = mean(figures.packs) / PACK_CLIPS
    most = ceiling(figures, conditions)
    return "\n".join([
        f"a worker: {3600 / per_stem:,.0f} stems an hour; starts in {figures.start:.1f} s, prepares a style in"
        f" {figures.style:.1f} s",
        f"the coordinator: {1000 * 3600 / most:.1f} ms a stem, so no more than {most:,.0f} stems an hour, which"
        f" {most * per_stem / 3600:,.0f} workers make",
        f"disk: {told['stem_bytes'] / 1e3:,.0f} kB a stem, {told['record_bytes'] / 1e3:,.1f} kB of ledger and reports,"
        f" {told['style_bytes'] / 1e6:,.1f} MB a style",
    ])  # fmt: skip


def main() -> None:
    """Measure, or simulate and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sizing", description="How many workers a batch can use."
    )
    parser.add_argument("--measure", type=Path, metavar="FILE", help="run batches here, and write what they took")
    parser.add_argument("--device", default="auto", help="for --measure: as of stylus batch")
    parser.add_argument("--model", default="", help="for --measure: as of stylus batch [mini]")
    parser.add_argument("--figures", type=Path, default=FIGURES, metavar="FILE", help="of --measure [two CPU cores]")
    parser.add_argument("--clips", type=int, help="in each style [--measure: 160, else 10000]")
    parser.add_argument("--styles", type=int, default=20, help="for the simulation [20]")
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS, metavar="N", help="[1 8 64 1000]")
    parser.add_argument("--gbit", type=float, default=10.0, help="of a link a second; 0: a disk that all share [10]")
    parser.add_argument("--deaths", type=float, default=0.01, help="of a worker in an hour [0.01]")
    parser.add_argument(
        "--slow", type=float, default=0.01, help="share of packs that take about 4 times as long [0.01]"
    )
    chosen = parser.parse_args()
    if chosen.measure:
        told = measured(chosen.device, chosen.model, chosen.clips or 10 * PACK_CLIPS)
        chosen.measure.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
        chosen.figures = chosen.measure
    told = json.loads(chosen.figures.read_text("utf-8"))
    load = Load(chosen.clips if chosen.clips and not chosen.measure else 10_000, chosen.styles)
    conditions = Conditions(False, chosen.gbit * 1e9 / 8 or float("inf"), chosen.deaths, chosen.slow)
    print(f"{told['model']} on {told['workers']} × {told['device']}: {told['machine']}\n{told['command']}\n")
    print(f"{compared(told)}\n\n{words(told, conditions)}\n")
    print(f"{load.clips:,} clips in each of {load.styles} styles")
    for queue, in_order in (("a worker goes on with its style", False), ("a cluster's queue, in order", True)):
        found = outcomes(figures_of(told), load, replace(conditions, in_order=in_order), chosen.workers)
        print(f"\n{queue}\n{table(found)}")


if __name__ == "__main__":
    main()
