"""A file at a glance: its waveform, its mel-spectrogram and its loudness, in as many columns as a screen has."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .audio import read_clip
from .loudness import integrated
from .passage import loudest
from .reference import picture_of
from .spectrogram import Profile

Floats = NDArray[np.floating[Any]]

COLUMNS = 1200
BANDS = 128
RANGE_DB = 80.0
LOW, HIGH = 20.0, 20000.0
"""Hz."""

_FRAMES_A_COLUMN = 4
"""The loudest of them is shown, so that a long file keeps its attacks."""

_COLOURS = ((0, 0, 4), (40, 17, 89), (101, 26, 128), (159, 47, 127), (212, 72, 106), (245, 125, 92), (254, 187, 129),
            (252, 253, 191))  # fmt: skip
"""From silence to the loudest, evenly spaced; they grow lighter all the way, so that they tell levels apart in grey."""


@dataclass(frozen=True)
class Overview:
    """What is drawn of a file.

    `peaks` `[column]` are the highest absolute samples, `levels` `[band, column]` in dB under the loudest band, bands
    from `LOW` to `HIGH` Hz evenly spaced on the mel scale. `lufs` is None for silence. `loudest` is where its loudest
    four seconds begin, in seconds.
    """

    seconds: float
    sample_rate: int
    channels: int
    samples: int
    lufs: float | None
    peaks: NDArray[np.float32]
    levels: NDArray[np.float32]
    loudest: float


def overview(path: Path) -> Overview:
    """Read a file and sum it up; raises what `read_clip` does."""
    clip = read_clip(path)
    audio, rate = clip.audio, clip.sample_rate
    samples = audio.shape[1]
    lufs = integrated(audio, rate)
    return Overview(
        samples / rate, rate, len(audio), samples, round(lufs, 2) if np.isfinite(lufs) else None, _peaks(audio),
        _levels(audio, rate), loudest(audio, 4 * rate)[0] / rate,
    )  # fmt: skip


def _peaks(audio: Floats) -> NDArray[np.float32]:
    columns = min(COLUMNS, audio.shape[1])
    starts = np.arange(columns) * audio.shape[1] // columns
    highest: NDArray[np.float32] = np.zeros(columns, np.float32)
    for channel in audio:
        # Twice without a copy of all samples that are negative.
        highest = np.maximum(highest, np.maximum.reduceat(channel, starts))
        highest = np.maximum(highest, -np.minimum.reduceat(channel, starts))
    return np.asarray(highest, np.float32)


def _levels(audio: Floats, rate: int) -> NDArray[np.float32]:
    hop = max(rate // 200, audio.shape[1] // (COLUMNS * _FRAMES_A_COLUMN))
    window = 2 * round(0.0464 * rate)
    profile = Profile(rate, hop, window, 2 * window, BANDS, LOW, HIGH, 1, "log", range_db=RANGE_DB)
    picture = picture_of(audio, rate, profile)
    step = -(-picture.mel.shape[-1] // COLUMNS)
    mel = np.maximum.reduceat(picture.mel[0], np.arange(0, picture.mel.shape[-1], step), axis=1)
    relative = np.maximum(mel / (picture.maximum or 1.0), 10 ** (-RANGE_DB / 20))
    return np.asarray(20 * np.log10(relative), np.float32)


def picture(levels: NDArray[np.float32]) -> bytes:
    """A PNG of `Overview.levels`, a pixel for each column and band, low bands at the bottom."""
    from PIL import Image

    shade = np.round(np.clip(1 + levels[::-1] / RANGE_DB, 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(shade, "L")
    image = image.convert("P") if image.mode != "P" else image
    image.putpalette(_palette())
    png = io.BytesIO()
    image.save(png, "PNG")
    return png.getvalue()


def _palette() -> bytes:
    stops = np.linspace(0, 255, len(_COLOURS))
    colours = [np.interp(np.arange(256), stops, np.array(_COLOURS)[:, part]) for part in range(3)]
    return np.stack(colours, axis=1).round().astype(np.uint8).tobytes()
