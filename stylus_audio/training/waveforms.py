"""What GuideDiff is trained on: clips as waveforms, with the mel pictures that they are to be found from.

`python -m stylus_audio.training.waveforms --out DIR --groups N`; the clips are those of the groups of `dataset`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import StylusError
from ..reference import picture_of
from ..spectrogram import MINI, to_image
from .dataset import FRAMES, LEVELS, PIECES, SECONDS, SOUNDS, group_audio
from .growing import grow, grown
from .sounds import Audio
from .synthesise import SAMPLE_RATE

SAMPLES = round(SECONDS * SAMPLE_RATE)
CLIP = np.dtype([("audio", "<i2", SAMPLES), ("picture", "u1", (MINI.bands, FRAMES)), ("maximum", "<f4")])
"""One channel; the picture in `LEVELS` steps, and the mel that its brightest stands for, at the audio's level."""

GROUP = np.dtype((CLIP, (SOUNDS * PIECES,)))
FULL = 32000
"""Sample value of the peak."""


def clip(audio: Audio) -> NDArray[np.void]:
    """The left channel of a clip as it is kept: a sum of both would cancel what a mean of powers does not."""
    left = _over(audio[0], MINI.low)
    left /= max(1e-9, float(np.abs(left).max()))
    seen = picture_of(left[None], SAMPLE_RATE, MINI)
    made = np.zeros((), CLIP)
    made["audio"] = np.round(left * FULL)
    made["picture"] = np.round(to_image(seen.mel[0], MINI, seen.maximum)[:, :FRAMES] * LEVELS)
    made["maximum"] = seen.maximum
    return made


def _over(audio: Audio, low: float) -> Audio:
    """Without what lies under `low` Hz, of which a picture knows nothing."""
    spectrum = np.fft.rfft(audio)
    spectrum[: round(low * len(audio) / SAMPLE_RATE)] = 0
    return np.asarray(np.fft.irfft(spectrum, len(audio)), np.float32)


def _make(seed: int) -> NDArray[np.void]:
    return np.stack([clip(audio) for sound in group_audio(seed) for audio in sound])


class Waveforms:
    """Random windows of the clips made so far; `NotFound` where there are none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refresh()

    def refresh(self) -> None:
        """Takes in what another process has added since."""
        self.clips = grown(self.folder / "waveforms.bin", GROUP)

    def batch(
        self, rng: np.random.Generator, size: int, frames: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Audio `[window, sample]`, pictures `[window, mel, frame]`, and the mel of their brightest, `[window]`."""
        samples = (frames - 1) * MINI.hop
        audio = np.empty((size, samples), np.float32)
        pictures = np.empty((size, MINI.bands, frames), np.float32)
        maximum = np.empty(size, np.float32)
        for row in range(size):
            for _ in range(4):
                drawn = self.clips[int(rng.integers(len(self.clips))), int(rng.integers(SOUNDS * PIECES))]
                first = int(rng.integers(0, FRAMES - frames + 1))
                picture = drawn["picture"][:, first : first + frames]
                if picture.max() > 0.3 * LEVELS:
                    break
            audio[row] = drawn["audio"][first * MINI.hop :][:samples] / np.float32(FULL)
            pictures[row] = picture / np.float32(LEVELS)
            maximum[row] = drawn["maximum"]
        return audio, pictures, maximum


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compose and synthesise the clips that GuideDiff is trained on.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--groups", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    try:
        grow(chosen.out / "waveforms.bin", GROUP, chosen.groups, _make, chosen.workers)
    except StylusError as error:
        parser.exit(error.exit_code, f"{error}\n")
