"""What needs a GPU: `python -m benchmarks --gpu`. Stable Diffusion 1.5 in full size, ours against the published loop.

The published loop runs in its published precision: it inverts in float32, with PyTorch's own settings, and samples in
fp16. It takes one window after the other, so that a clip takes as long as its windows do; it is measured on one.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from .gpu_bench import Bench
from .gpu_clips import clip, features, long, mini, queue, render, several, styles, warmth, window
from .gpu_unet import attention_kernels, compiled, compiled_parts, floor, kernels, passes, tuned
from .table import Row

Section = Callable[[Bench], Iterator[Row]]

SECTIONS: Sequence[tuple[Section, float]] = (
    (floor, 6), (tuned, 10), (passes, 20), (window, 50), (clip, 18), (render, 60), (warmth, 14), (several, 34),
    (queue, 56), (kernels, 5), (attention_kernels, 3), (features, 18), (styles, 20), (mini, 34), (long, 58),
)  # fmt: skip
"""With about how many seconds each takes on an H100: it is left out where less is left."""

ON_DEMAND: Sequence[tuple[Section, float]] = ((compiled_parts, 60), (compiled, 120))
"""What takes long for one row."""


def measure(seconds: float, file: Path | None, bench: Bench, sections: Sequence[tuple[Section, float]]) -> list[Row]:
    """Section after section while there is time; every row is said, and written to `file`, as soon as it is there."""
    begun = time.perf_counter()
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        left = seconds - (time.perf_counter() - begun)
        shown = row.missing or f"{row.ratio:.4g} {row.verdict} {' '.join(f'{one:.4g}' for one in row.seconds)}"
        print(f"[{left:5.1f} s left] {row.name}: {shown}", file=sys.stderr, flush=True)
        if file is not None:
            file.write_text(json.dumps([one.to_dict() for one in rows], indent=1), "utf-8")

    for section, estimate in sections:
        name = section.__name__
        left = seconds - (time.perf_counter() - begun)
        if left < estimate:
            add(Row(name, missing=f"{estimate:g} s needed, {left:.0f} left"))
            continue
        try:
            for row in section(bench):
                add(row)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-4:]
            steps = " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(where))
            add(Row(name, missing=f"failed: {type(error).__name__}: {str(error)[:300]} at {steps}"))
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    return rows
