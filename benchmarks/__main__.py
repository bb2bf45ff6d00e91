"""The benchmark table: `python -m benchmarks`; `--quick` takes two minutes on two cores, all of it hours.

What needs a GPU is named where there is none.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch

from stylus_audio.errors import BadRequest, StylusError
from stylus_audio.model import choose_device

from . import batch, clips, latents, queued
from .table import Row, printed

Part = Callable[[], Row | list[Row]]

SECONDS = 140.0


def quick() -> Iterable[Part]:
    """Small sizes, which show that the benchmark runs and roughly where things stand."""
    yield lambda: latents.small(3, 4)
    yield lambda: latents.mini(1, 2, 2)
    yield lambda: clips.real_time(2.0, 1)
    yield lambda: clips.warm(1, 20, 1.0, 1.45)
    yield lambda: clips.fast(1)
    yield lambda: clips.first_step(1)
    yield lambda: batch.throughput(16, 2)
    yield lambda: queued.embedded("mini", 8, 1)
    yield lambda: batch.planning(10_000)


def whole() -> Iterable[Part]:
    """Everything that this machine can measure."""
    cuda = torch.cuda.is_available()
    yield lambda: latents.small(5, 10)
    yield lambda: latents.mini(3, 10, 4)
    if not cuda:
        yield lambda: latents.stable_diffusion(3, 2)
        yield lambda: latents.end_to_end(1, 2)
    yield lambda: clips.real_time(60.0, 1)
    yield lambda: clips.warm(3, 20, 1.0, 1.45)
    yield lambda: clips.warm(3, 20, 0.9, None)
    yield lambda: clips.fast(3)
    yield lambda: clips.length(60.0, 600.0)
    yield lambda: clips.first_step(5)
    yield lambda: batch.throughput(200, 8)
    yield lambda: queued.embedded("mini", 16, 5)
    yield lambda: queued.embedded("mini-injection", 16, 3 if cuda else 1)
    yield lambda: batch.planning(100_000)
    if cuda:
        yield partial(on_gpu, 3600.0, None)
    else:
        yield partial(Row, "Stable Diffusion 1.5 on a GPU", missing="needs a CUDA device")


def on_gpu(seconds: float, file: Path | None, only: str = "", tiny: bool = False) -> list[Row]:
    """What `--gpu` measures, as it says; `only` names sections.

    Raises `BadRequest` for a section that is none, and where there is no GPU.
    """
    from . import gpu
    from .gpu_bench import TINY, Bench

    named = {one.__name__: (one, estimate) for one, estimate in (*gpu.SECTIONS, *gpu.ON_DEMAND)}
    names = only.split(",") if only else []
    for name in names:
        if name not in named:
            raise BadRequest(f"--only: {name!r} is no section; there are {', '.join(named)}")
    chosen = [named[name] for name in names] or gpu.SECTIONS
    bench = Bench(choose_device(), TINY) if tiny else Bench(choose_device("cuda"))
    return gpu.measure(seconds, file, bench, chosen)


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed, side by side in one run.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--quick", action="store_true", help="small sizes, two minutes")
    what.add_argument("--gpu", action="store_true", help="Stable Diffusion 1.5 on a GPU, in as much time as is given")
    parser.add_argument("--seconds", type=float, help=f"with --gpu: what would take longer is left out [{SECONDS:g}]")
    parser.add_argument("--only", default="", metavar="NAME,...", help="with --gpu: these sections, in this order")
    parser.add_argument("--tiny", action="store_true", help="with --gpu: tiny networks, to try it out on any device")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="the rows as JSON, into a file or here")
    chosen = parser.parse_args()
    rows: list[Row] = []
    if chosen.gpu:
        file = None if chosen.json in (None, "-") else Path(chosen.json)
        seconds = SECONDS if chosen.seconds is None else chosen.seconds
        try:
            rows = on_gpu(seconds, file, chosen.only, chosen.tiny)
        except StylusError as error:
            parser.exit(error.exit_code, f"{error}\n")
    else:
        for name in ("seconds", "only", "tiny"):
            if getattr(chosen, name) != parser.get_default(name):
                parser.error(f"--{name} is for --gpu")
        for part in quick() if chosen.quick else whole():
            made = part()
            rows += made if isinstance(made, list) else [made]
            print(f"{len(rows)} rows", end="\r", file=sys.stderr)
    if chosen.json:
        text = json.dumps([row.to_dict() for row in rows], indent=1)
        if chosen.json != "-":
            Path(chosen.json).write_text(text, "utf-8")
            return
        print(text)
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} cores"
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, {device}\n")
    print(printed(rows))


if __name__ == "__main__":
    main()
