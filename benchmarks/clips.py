"""The whole of a render on the embedded model: from a clip to its stem."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from stylus_audio import Engine
from stylus_audio.places import DEMO_CONTENT, DEMO_STYLE
from stylus_audio.reference import picture_of
from stylus_audio.spectrogram import to_image
from stylus_audio.style_cache import StyleCache
from tests.sounds import RATE, Audio, plucks

from .table import Peak, Row, apart, side_by_side

ONE_WINDOW = 2.3
"""Seconds that fit into a window of the embedded models with what their analysis reaches around them."""


def _clip(seconds: float) -> tuple[Audio, int]:
    return plucks(seconds, channels=2), RATE


def _written(path: Path, seconds: float) -> None:
    audio, rate = _clip(seconds)
    soundfile.write(path, audio.T, rate)


def real_time(seconds: float, rounds: int) -> list[Row]:
    """Seconds of rendering for a second of a stereo clip, with the style's features kept from before and without."""
    content, style = _clip(seconds), _clip(7.5)
    with tempfile.TemporaryDirectory() as folder:
        kept, bare = Engine("mini", cache=StyleCache(Path(folder))), Engine("mini")
        kept.warm(style)
        ways = [lambda engine=engine: engine.render(content, style).audio for engine in (kept, bare)]
        results, taken, peaks = side_by_side(ways, rounds)
    name = f"real-time factor: mini, {seconds:g} s stereo, style"
    return [
        Row(f"{name} {state}", time_ / seconds, apart(results[1], results[0]), peak, limit, (time_,))
        for state, time_, peak, limit in zip(("warm", "cold"), taken, peaks, (-0.5, -1.0), strict=True)
    ]


def warm(rounds: int, steps: int, alpha: float, limit: float | None) -> Row:
    """Injection on a clip of the style's length, each of one window, with the style cold and warm.

    Of n steps that is `(3n + 1) / (2n + 1)` at most, and less where α is not 1: then every step of the sampling
    attends to the content too.
    """
    content, style = _clip(ONE_WINDOW), _clip(ONE_WINDOW)
    with tempfile.TemporaryDirectory() as folder:
        engines = [Engine("mini-injection"), Engine("mini-injection", cache=StyleCache(Path(folder)))]
        settings = engines[0].settings(steps=steps, alpha=alpha)
        engines[1].warm(style, settings)
        ways = [lambda engine=engine: engine.render(content, style, settings).audio for engine in engines]
        results, taken, peaks = side_by_side(ways, rounds)
    name = f"cold over warm style: mini-injection, 1 window, {steps} steps, α {alpha:g}"
    return Row(name, taken[0] / taken[1], apart(*results), peaks[1], limit, tuple(taken))


def fast(rounds: int) -> list[Row]:
    """What `--quality fast` takes of injection's time, and how far its stem is from the one of all steps."""
    engine = Engine("mini-injection")
    ways = [
        lambda quality=quality: engine.render(DEMO_CONTENT, DEMO_STYLE, engine.settings(quality=quality))
        for quality in ("balanced", "fast")
    ]
    renders, taken, peaks = side_by_side(ways, rounds)
    profile = engine.model.profile
    pictures = [picture_of(render.audio, render.sample_rate, profile) for render in renders]
    scale = max(picture.maximum for picture in pictures)
    exact, near = (to_image(picture.mel, profile, scale) * profile.range_db for picture in pictures)
    name = "fast: mini-injection, the demo's clip and style"
    return [
        Row(f"balanced over {name}", taken[0] / taken[1], None, peaks[1], 1.4, tuple(taken)),
        Row(f"{name}, dB RMS from balanced", float(np.sqrt(np.square(exact - near).mean())), limit=-3.0),
    ]


def length(short: float, long: float) -> list[Row]:
    """Memory and time of a long clip over those of a short one, each in a process of its own."""
    taken, peaks = zip(*(_alone(seconds) for seconds in (short, long)), strict=True)
    name = f"{long:g} s over {short:g} s: mini, stereo"
    return [
        Row(f"{name}, time", taken[1] / taken[0], None, peaks[1], -1.05 * long / short, tuple(taken)),
        Row(f"{name}, peak memory", peaks[1] / peaks[0], None, peaks[1], -1.2, notes={"short_peak_bytes": peaks[0]}),
    ]


def _alone(seconds: float) -> tuple[float, int]:
    words = [sys.executable, "-m", "benchmarks.clips", str(seconds)]
    said = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return float(said["seconds"]), int(said["peak"])


_FIRST_STEP = """
import os, sys
from stylus_audio.__main__ import run
from stylus_audio.progress import Watch
Watch.tick = lambda self: os._exit(0)
sys.argv = ["stylus", "render", "clip.wav", "--style", "style.wav"]
run()
"""
"""`stylus render` until the first pass of the network is done."""


def first_step(rounds: int) -> Row:
    """Seconds from a process's start to a render's first step, beside those of a Python that imports PyTorch alone."""
    with tempfile.TemporaryDirectory() as folder:
        _written(Path(folder) / "clip.wav", 2.0)
        _written(Path(folder) / "style.wav", 6.0)

        def run(code: str) -> None:
            subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)

        _, seconds, _ = side_by_side([lambda: run(_FIRST_STEP), lambda: run("import torch")], rounds)
    return Row(
        "start to first step, seconds, beside `import torch`: mini", seconds[0], None, None, -3.0, tuple(seconds)
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        content = Path(made) / "clip.wav"
        _written(content, float(sys.argv[1]))
        with Peak() as peak:
            begun = time.perf_counter()
            Engine("mini").render(content, _clip(7.5))
            spent = time.perf_counter() - begun
    print(json.dumps({"seconds": spent, "peak": peak.bytes}))
