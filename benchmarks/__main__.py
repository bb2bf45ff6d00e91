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

import torch

from . import batch, clips, latents
from .table import Row, printed

Part = Callable[[], Row | list[Row]]


def quick() -> Iterable[Part]:
    """Small sizes, which show that the benchmark runs and roughly where things stand."""
    yield lambda: latents.small(3, 4)
    yield lambda: latents.mini(1, 2, 2)
    yield lambda: clips.real_time(2.0, 1)
    yield lambda: clips.warm(1, 2)
    yield lambda: clips.first_step(1)
    yield lambda: batch.throughput(16, 2)
    yield lambda: batch.planning(10_000)


def whole() -> Iterable[Part]:
    """Everything that this machine can measure."""
    cuda = torch.cuda.is_available()
    yield lambda: latents.small(5, 10)
    yield lambda: latents.mini(3, 10, 4)
    yield lambda: latents.stable_diffusion(3 if cuda else 1, 50 if cuda else 2)
    yield lambda: latents.end_to_end(3 if cuda else 1, 50 if cuda else 2)
    yield lambda: clips.real_time(60.0, 1)
    yield lambda: clips.warm(3, 20)
    yield lambda: clips.length(60.0, 600.0)
    yield lambda: clips.first_step(5)
    yield lambda: batch.throughput(200, 8)
    yield lambda: batch.planning(100_000)
    for name, limit in (
        ("picture to picture: SD 1.5, 60 s, style warm, equal output", 20.0),
        ("latents: SD 1.5, 60 s, style warm, equal output", 10.0),
        ("real-time factor: SD 1.5, 60 s", -0.08),
        ("16 short clips in the queue over one at a time", 2.0),
    ):
        yield partial(Row, name, limit=limit, missing="not written yet" if cuda else "needs a CUDA device")


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed, side by side in one run.")
    parser.add_argument("--quick", action="store_true", help="small sizes, two minutes")
    parser.add_argument("--json", action="store_true", help="the rows as JSON")
    chosen = parser.parse_args()
    rows: list[Row] = []
    for part in quick() if chosen.quick else whole():
        made = part()
        rows += made if isinstance(made, list) else [made]
        print(f"{len(rows)} rows", end="\r", file=sys.stderr)
    if chosen.json:
        print(json.dumps([row.to_dict() for row in rows], indent=1))
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} cores"
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}, {device}\n")
    print(printed(rows))


if __name__ == "__main__":
    main()
