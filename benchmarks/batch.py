"""`stylus batch` as whole processes: beside a shell loop over `stylus render`, and planning a large manifest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import soundfile

from tests.sounds import RATE, Audio, noise, plucks, tone

from .table import Row, apart

FOLDER_CLIPS = 100
"""Clips of a folder in the large manifest; few enough for the hard links that a file system allows."""

STYLES = 20


@dataclass(frozen=True)
class Ran:
    """A process that has ended: seconds from its start to its end, its memory with its children's at its highest, and
    what it said.
    """

    seconds: float
    peak: int
    said: str


def stylus(words: Sequence[str], folder: Path, every: float = 0.2, threads: int | None = None) -> Ran:
    """`stylus` in a folder that is its home too; memory is looked at every so many seconds.

    `threads` are those of a render, where that is not left to PyTorch.

    Raises `subprocess.CalledProcessError` where it fails.
    """
    command = [sys.executable, "-m", "stylus_audio", *words]
    home = {**os.environ, "STYLUS_HOME": str(folder / "home")}
    if threads:
        home["OMP_NUM_THREADS"] = str(threads)
    peak, begun = 0, time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=home, stdout=subprocess.PIPE, text=True) as process:
        watched = psutil.Process(process.pid)
        while True:
            peak = max(peak, _memory(watched))
            try:
                said, _ = process.communicate(timeout=every)
            except subprocess.TimeoutExpired:
                continue
            break
    seconds = time.perf_counter() - begun
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Ran(seconds, peak, said)


def _memory(process: psutil.Process) -> int:
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.Error:  # it has just ended
        pass
    return total


def one_shots(folder: Path, count: int) -> list[Path]:
    """So many clips of 0.3 to 1.5 s: plucks, hits of noise and tones that decay; the same every time."""
    folder.mkdir()
    rng = np.random.default_rng(9)
    paths = []
    for number in range(count):
        seconds = float(rng.uniform(0.3, 1.5))
        sounds = (plucks(seconds, 2.0), noise(seconds, seed=number), tone(float(rng.uniform(60, 2000)), seconds))
        sound: Audio = sounds[number % 3]
        decay = np.exp(-rng.uniform(2, 12) * np.arange(sound.shape[1]) / RATE)
        paths.append(folder / f"shot {number:03}.wav")
        soundfile.write(paths[-1], (sound * decay).T, RATE)
    return paths


def throughput(clips: int, looped: int) -> Row:
    """Seconds a clip of a shell loop over `stylus render` over those of one `stylus batch`; starts are included.

    The processes of the loop are like one another: `looped` of its clips, spread over all, are timed, half of them
    before the batch and half after, so that both meet the same machine. Both find the style's features on the disk.
    """
    with TemporaryDirectory() as made:
        folder = Path(made)
        paths = one_shots(folder / "clips", clips)
        soundfile.write(folder / "style.wav", plucks(7.5).T, RATE)
        (folder / "loop").mkdir()

        def render(path: Path, output: str, *more: str, threads: int | None = None) -> float:
            words = ["--style", "style.wav", "--cache", "home/styles-cache", "-o", output, *more]
            return stylus(["render", str(path), *words], folder, threads=threads).seconds

        render(paths[0], "warm.wav")
        chosen = [paths[number] for number in np.linspace(0, clips - 1, looped).astype(int)]
        seconds = [render(path, "loop") for path in chosen[::2]]
        batch = stylus(["batch", "clips", "--style", "style.wav", "-o", "batch", "--json"], folder)
        seconds += [render(path, "loop") for path in chosen[1::2]]
        said = json.loads(batch.said)
        assert said["made"] == clips
        # On as many threads as the batch's workers have: the last bits depend on it, and Griffin and Lim enlarge them.
        # In float32: with AMX a pass in bf16 rounds otherwise for more clips at once, by half a percent of the peak.
        exact = ("--dtype", "float32")
        for made_in in ("chosen", "alone"):
            (folder / made_in).mkdir()
        for path in chosen:
            (folder / "chosen" / path.name).hardlink_to(path)
            render(path, "alone", *exact, threads=1)
        stylus(["batch", "chosen", "--style", "style.wav", "-o", "together", *exact], folder)
        difference = max(_apart(folder, path) for path in chosen)
    name = f"shell loop over `stylus batch`: mini, {clips} one-shots, a clip"
    notes = {
        "loop": f"{looped} of its {clips} processes were timed, half of them before the batch and half after",
        "worker_seconds_a_clip": said["worker_seconds"] / clips,
    }
    return Row(
        name, mean(seconds) / (batch.seconds / clips), difference, batch.peak, 1.5,
        (mean(seconds), batch.seconds / clips), notes=notes,
    )  # fmt: skip


def _apart(folder: Path, clip: Path) -> float:
    one, other = (soundfile.read(folder / ran / f"{clip.stem}_style.wav")[0] for ran in ("alone", "together"))
    return apart(one, other)


def planning(count: int) -> list[Row]:
    """Seconds and memory of `stylus batch --plan` for a manifest of so many rows, whose clips are all there."""
    with TemporaryDirectory() as made:
        folder = Path(made)
        (first,) = one_shots(folder / "clips", 1)
        for number in range(STYLES):
            (folder / f"style {number}.wav").write_bytes(first.read_bytes())
        lines = ["content,style,mix\n"]
        for number in range(0, count, FOLDER_CLIPS):
            pack = folder / f"pack {number // FOLDER_CLIPS}"
            pack.mkdir()
            (pack / "shot 0.wav").write_bytes(first.read_bytes())
            for shot in range(1, FOLDER_CLIPS):
                (pack / f"shot {shot}.wav").hardlink_to(pack / "shot 0.wav")
            lines += [f"{pack.name}/shot {shot}.wav,style {shot % STYLES}.wav,1\n" for shot in range(FOLDER_CLIPS)]
        (folder / "big.csv").write_text("".join(lines), "utf-8")
        ran = stylus(["batch", "big.csv", "--plan", "--json", "--device", "cpu"], folder, every=0.02)
        assert json.loads(ran.said)["stems"] == count
    name = f"{count:,} manifest rows planned"
    return [
        Row(f"{name}, seconds", ran.seconds, None, ran.peak, -10.0, (ran.seconds,)),
        Row(f"{name}, MB at the peak", ran.peak / 1e6, None, ran.peak, -500.0),
    ]
