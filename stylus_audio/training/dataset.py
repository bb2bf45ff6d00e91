"""Pictures to train on: composed, synthesised, and kept as mel-spectrograms in one memory map.

`python -m stylus_audio.training.dataset --out DIR --clips N` adds clips up to N; a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import NotFound, StylusError
from ..spectrogram import MINI, mel_spectrogram, to_image
from .compose import KINDS, compose, to_midi
from .synthesise import SAMPLE_RATE, soundfont, synthesise

SECONDS = 8.0
FRAMES = 800
TEXTURE_SHARE = 0.08


def clip_audio(seed: int, font: Path) -> NDArray[np.float32]:
    """Audio of training clip `seed`, `[2, sample]`: a random piece on random instruments, or a noise texture."""
    rng = np.random.default_rng([1, seed])
    if rng.random() < TEXTURE_SHARE:
        return texture(rng)
    kind = str(rng.choice(list(KINDS)))
    programs = (int(rng.integers(0, 120)), int(rng.integers(0, 120)))
    midi = to_midi(compose(seed, kind, SECONDS), programs, float(rng.uniform(-30, 30)), int(rng.choice([0, 8, 16, 25])))
    return synthesise(midi, SECONDS, font, float(rng.uniform(0.3, 0.8)), bool(rng.random() < 0.6))


def texture(rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise with a drawn spectrum and envelope: wind, crackle, filtered pads."""
    samples = round(SECONDS * SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequencies = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE) + 1
    shape = frequencies ** rng.uniform(-1.2, 0.2)
    for _ in range(int(rng.integers(0, 4))):
        centre, width = 10 ** rng.uniform(2, 4), rng.uniform(0.02, 0.5)
        shape = shape * (1 + 10 * np.exp(-0.5 * (np.log(frequencies / centre) / width) ** 2))
    sound = np.fft.irfft(spectrum * shape, samples)
    points = rng.uniform(0, 1, int(rng.integers(3, 40))) ** rng.uniform(0.5, 4)
    envelope = np.interp(np.linspace(0, len(points) - 1, samples), np.arange(len(points)), points)
    sound = sound * envelope
    sound = 0.5 * sound / np.abs(sound).max()
    return np.stack([sound, sound]).astype(np.float32)


def picture(audio: NDArray[np.float32]) -> NDArray[np.float16]:
    """The clip as the model sees it, `[mel, frame]` in [0, 1]; channels by the root of their mean power."""
    mel = np.sqrt((mel_spectrogram(audio, MINI) ** 2).mean(0))
    return to_image(mel, MINI, float(mel.max()))[:, :FRAMES].astype(np.float16)


def _make(job: tuple[int, str]) -> NDArray[np.float16]:
    seed, font = job
    return picture(clip_audio(seed, Path(font)))


def build(folder: Path, clips: int, font: Path, workers: int = 2) -> None:
    """Make pictures up to `clips`, in order of their seeds.

    `pictures.f16` holds them as float16 `[clip, mel, frame]`, `index.json` beside it how many there are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "index.json"
    done = int(json.loads(index.read_text("utf-8"))["clips"]) if index.is_file() else 0
    file = folder / "pictures.f16"
    shape = (clips, MINI.bands, FRAMES)
    with file.open("ab") as stream:
        stream.truncate(max(stream.tell(), int(np.prod(shape)) * 2))
    pictures = np.memmap(file, np.float16, "r+", shape=shape)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [(seed, str(font)) for seed in range(done, clips)]
        for seed, made in zip(range(done, clips), pool.map(_make, jobs, chunksize=4), strict=True):
            pictures[seed] = made
            if seed % 50 == 49 or seed == clips - 1:
                pictures.flush()
                # A training that runs meanwhile reads it: never half written.
                part = index.with_suffix(".part")
                part.write_text(json.dumps({"clips": seed + 1, "seconds": SECONDS, "font": font.name}), "utf-8")
                part.replace(index)
                print(f"{seed + 1} of {clips} clips", flush=True)


class Pictures:
    """Random windows of the pictures made so far; `NotFound` where there are none."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "index.json").is_file():
            raise NotFound(f"no pictures in {folder}; `python -m stylus_audio.training.dataset --out` makes them")
        self.folder = folder
        self.refresh()

    def refresh(self) -> None:
        """Takes in what another process has added since."""
        clips = int(json.loads((self.folder / "index.json").read_text("utf-8"))["clips"])
        self.pictures = np.memmap(self.folder / "pictures.f16", np.float16, "r", shape=(clips, MINI.bands, FRAMES))

    def batch(self, rng: np.random.Generator, size: int) -> NDArray[np.float32]:
        """`[window, mel, frame]` in [0, 1]: quiet and partly silent passages occur, as they do in use."""
        result = np.empty((size, MINI.bands, MINI.frames), np.float32)
        for row in range(size):
            clip = int(rng.integers(len(self.pictures)))
            start = int(rng.integers(0, FRAMES - MINI.frames + 1))
            window = self.pictures[clip, :, start : start + MINI.frames].astype(np.float32)
            if rng.random() < 0.3:
                window = np.clip(window - rng.uniform(0, 0.25), 0, 1)
            if rng.random() < 0.1:
                window[:, int(rng.integers(8, MINI.frames)) :] = 0
            result[row] = window
        return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compose and synthesise the pictures that mini is trained on.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=1200)
    parser.add_argument("--soundfont", default="FluidR3_GM.sf2")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    try:
        build(chosen.out, chosen.clips, soundfont(chosen.soundfont), chosen.workers)
    except StylusError as error:
        parser.exit(error.exit_code, f"{error}\n")
