"""A file at a glance: its waveform, its mel-spectrogram and its loudness, in as many columns as a screen has."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .audio import probe, read_blocks
from .loudness import Meter
from .reference import picture_of
from .riff import Tempo, loop_of, tempo_of
from .spectrogram import Profile, frame_count

Floats = NDArray[np.floating[Any]]

COLUMNS = 1200
BANDS = 128
RANGE_DB = 80.0
LOW, HIGH = 20.0, 20000.0
"""Hz."""

_FRAMES_A_COLUMN = 4
"""At least, of a file that is not short; the loudest of them is shown, so that a long file keeps its attacks."""

_COLOURS = ((0, 0, 4), (40, 17, 89), (101, 26, 128), (159, 47, 127), (212, 72, 106), (245, 125, 92), (254, 187, 129),
            (252, 253, 191))  # fmt: skip
"""From silence to the loudest, evenly spaced; they grow lighter all the way, so that they tell levels apart in grey."""


@dataclass(frozen=True)
class Overview:
    """What is drawn of a file.

    `peaks` `[column]` are the highest absolute samples, `levels` `[band, column]` in dB under the loudest band, bands
    from `LOW` to `HIGH` Hz evenly spaced on the mel scale. `lufs` is None for silence. `loudest` is where its loudest
    four seconds begin, in seconds. `loop` and `tempo` are what the file says of itself.
    """

    seconds: float
    sample_rate: int
    channels: int
    samples: int
    lufs: float | None
    peaks: NDArray[np.float32]
    levels: NDArray[np.float32]
    loudest: float
    loop: tuple[float, float] | None
    """What the file says that repeats: its beginning and its length, in seconds."""
    tempo: Tempo | None


def overview(path: Path) -> Overview:
    """Sum a file up, block by block, so that a long one takes no more memory; raises what `read_clip` does."""
    info = probe(path)
    rate, samples = info.sample_rate, info.samples
    peaks, levels, power = _Peaks(samples), _Levels(rate, samples), _Power(max(1, rate // 25))
    meter = Meter(rate, info.channels, samples)
    for block in read_blocks(path):
        for each in (peaks, levels, power, meter):
            each.add(block)
    lufs, loop = meter.integrated(), loop_of(info.chunks, samples)
    return Overview(
        samples / rate, rate, info.channels, samples, round(lufs, 2) if np.isfinite(lufs) else None, peaks.highest,
        levels.relative(), power.loudest(100) / rate,
        (loop.start / rate, (loop.end - loop.start) / rate) if loop else None, tempo_of(info.chunks, samples / rate),
    )  # fmt: skip


class _Peaks:
    """The highest absolute sample of each column."""

    def __init__(self, samples: int) -> None:
        columns = min(COLUMNS, samples)
        self._starts = np.arange(columns) * samples // columns
        self._at = 0
        self.highest = np.zeros(columns, np.float32)

    def add(self, block: Floats) -> None:
        last = self._at + block.shape[1]
        first_column, behind = np.searchsorted(self._starts, [self._at, last - 1], "right") - [1, 0]
        starts = np.maximum(self._starts[first_column:behind] - self._at, 0)
        here = self.highest[first_column:behind]
        for channel in block:
            # Twice without a copy of all samples that are negative.
            np.maximum(here, np.maximum.reduceat(channel, starts), out=here, casting="same_kind")
            np.maximum(here, -np.minimum.reduceat(channel, starts), out=here, casting="same_kind")
        self._at = last


class _Levels:
    """The mel-spectrogram of what comes, of all channels together, the loudest of some frames a column."""

    def __init__(self, rate: int, samples: int) -> None:
        window = 2 * round(0.0464 * rate)
        # Up to half a window, so that no sample lies between two frames.
        hop = max(rate // 200, min(window // 2, samples // (COLUMNS * _FRAMES_A_COLUMN)))
        self._profile = Profile(rate, hop, window, 2 * window, BANDS, LOW, HIGH, 1, "log", range_db=RANGE_DB)
        self._margin = -(-window // (2 * hop))
        """Frames before one whose samples it needs."""
        self._waiting: Floats | None = None
        self._before, self._at, self._frames = 0, 0, frame_count(samples, hop)
        self._a_column = -(-self._frames // COLUMNS)
        self._highest = np.zeros((BANDS, -(-self._frames // self._a_column)), np.float32)

    def add(self, block: Floats) -> None:
        hop = self._profile.hop
        waiting = block if self._waiting is None else np.concatenate([self._waiting, block], axis=1)
        # Of a piece's frames those are right whose windows lie in it.
        ready = waiting.shape[1] // hop - self._margin - self._before
        if ready < 1:
            self._waiting = waiting
            return
        self._take(waiting, ready)
        kept = min(self._before + ready, self._margin)
        self._waiting = waiting[:, (self._before + ready - kept) * hop :]
        self._before = kept

    def _take(self, audio: Floats, count: int) -> None:
        mel = picture_of(audio, self._profile.sample_rate, self._profile).mel[0]
        # A column that the last piece has begun goes on in this one.
        first, behind = self._at // self._a_column, -(-(self._at + count) // self._a_column)
        starts = np.maximum(np.arange(first, behind) * self._a_column - self._at, 0) + self._before
        loudest = np.maximum.reduceat(mel[:, : self._before + count], starts, axis=1)
        here = self._highest[:, first:behind]
        np.maximum(here, loudest, out=here)
        self._at += count

    def relative(self) -> NDArray[np.float32]:
        """`[band, column]` in dB under the highest of all."""
        if self._at < self._frames and self._waiting is not None:
            self._take(self._waiting, self._frames - self._at)
        relative = np.maximum(self._highest / (self._highest.max() or 1.0), 10 ** (-RANGE_DB / 20))
        return np.asarray(20 * np.log10(relative), np.float32)


class _Power:
    """The power of every `step` samples."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._rest = np.zeros(0)
        self._powers: list[Floats] = []

    def add(self, block: Floats) -> None:
        power = np.concatenate([self._rest, np.square(block, dtype=np.float64).sum(0)])
        whole = len(power) // self._step * self._step
        self._powers.append(power[:whole].reshape(-1, self._step).sum(1))
        self._rest = power[whole:]

    def loudest(self, steps: int) -> int:
        """The sample where the loudest so many steps begin; 0 where there are no more than that."""
        sums = np.cumsum(np.concatenate([np.zeros(1), *self._powers]))
        return int(np.argmax(sums[steps:] - sums[:-steps])) * self._step if len(sums) > steps else 0


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
