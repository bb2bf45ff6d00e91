"""What each dial does: style distance over γ, α, τ and mix, `python -m stylus_audio.training.dials --out DIR`.

The distance is that of the stem's long-term spectrum to the reference's, over the content's own: 1 is the untouched
clip. Means over held-out pairs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from ..engine import Engine
from ..metrics import timbre_distance
from ..reference import picture_of
from ..spectrogram import MINI
from .evaluation import DRAWN_OF, first, one_line, weights_of
from .heldout import Pair, make, names
from .synthesise import SAMPLE_RATE

VALUES: dict[str, tuple[float, ...]] = {
    "gamma": (0.0, 0.25, 0.5, 0.75, 1.0),
    "alpha": (0.0, 0.25, 0.5, 0.75, 1.0, 1.25),
    "tau": (0.25, 0.5, 1.0, 2.0, 4.0),
    "mix": (0.0, 0.25, 0.5, 0.75, 1.0),
}


def relative_distance(engine: Engine, pair: Pair, dial: str, value: float, method: str) -> float:
    """Style distance of one stem over that of its content."""
    settings = engine.settings(method=method, **{dial: value})
    stem = engine.render((pair.content, SAMPLE_RATE), (pair.reference, SAMPLE_RATE), settings).audio
    ours, theirs = (picture_of(one, SAMPLE_RATE, MINI) for one in (stem, pair.content))
    return timbre_distance(ours, pair.reference_picture) / timbre_distance(theirs, pair.reference_picture)


def sweep(engine: Engine, pairs: list[Pair], method: str) -> dict[str, list[float]]:
    """Mean relative distance for each value of each dial, the others at their defaults."""
    found = {}
    for dial, values in VALUES.items():
        found[dial] = [
            round(float(np.mean([relative_distance(engine, pair, dial, value, method) for pair in pairs])), 4)
            for value in values
        ]
        steps = np.diff(found[dial])
        shape = "monotone" if (steps > 0).all() or (steps < 0).all() else "not monotone"
        print(f"{method} {dial} {dict(zip(values, found[dial], strict=True))}: {shape}", flush=True)
    return found


def draw(path: Path, found: dict[str, list[float]], weights: str | None = None) -> None:
    """One small plot for each dial; the file says of which weights."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(found), figsize=(3 * len(found), 2.6), sharey=True)
    for axis, (dial, distances) in zip(axes, found.items(), strict=True):
        axis.plot(VALUES[dial], distances, "o-")
        axis.set_xlabel(dial)
        axis.grid(alpha=0.3)
        if dial == "tau":
            axis.set_xscale("log", base=2)
    axes[0].set_ylabel("style distance / content's")
    figure.tight_layout()
    figure.savefig(path, dpi=80, metadata={DRAWN_OF: weights or ""})
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Plot the style distance over each dial.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--method", default="conditional")
    parser.add_argument("--pairs", type=int, help="only the first so many")
    asked = parser.parse_args()
    with one_line(parser):
        chosen, engine = first(names(), asked.pairs), Engine(asked.model)
        engine.settings(method=asked.method)
        # All that was asked fits.
        asked.out.mkdir(parents=True, exist_ok=True)
        result = sweep(engine, [make(name) for name in chosen], asked.method)
        (asked.out / f"dials-{asked.method}.json").write_text(json.dumps(result), "utf-8")
        draw(asked.out / f"dials-{asked.method}.png", result, weights_of(engine)["default"])
