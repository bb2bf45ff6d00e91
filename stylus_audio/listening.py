"""Sounds to compare by ear: passages at one loudness, as MP3, which every browser plays.

Audio is `[channel, sample]`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from .audio import Clip, resample
from .loudness import integrated, true_peak
from .passage import loudest

Floats = NDArray[np.floating[Any]]

SECONDS = 30.0
"""At most in a passage."""

LOUDNESS, QUIETEST = -18.0, -30.0
"""LUFS of passages that are compared (ReplayGain 2's); how far under it all go for the peaks of one."""

CEILING = -1.0
"""DBTP; MP3 may add a little to it."""


@dataclass(frozen=True)
class Sound:
    """A passage: one or two channels at a rate that MP3 has, the seconds `[first, last)` of a file of `total`.

    `gain_db` is what it has been turned up by, `quieter` that this is less than was wanted.
    """

    audio: NDArray[np.float32]
    sample_rate: int
    first: float
    last: float
    total: float
    gain_db: float = 0.0
    quieter: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is all of its file."""
        return self.last - self.first >= self.total


def loudest_seconds(clip: Clip) -> tuple[float, float]:
    """Where in a clip's audio its loudest `SECONDS` are."""
    first, last = loudest(clip.audio, max(1, round(SECONDS * clip.sample_rate)))
    return first / clip.sample_rate, last / clip.sample_rate


def sound(clip: Clip, first: float, last: float) -> Sound | None:
    """Seconds `[first, last)` of a clip's audio, more than two channels as their mean; None where it has none there."""
    rate, shift = clip.sample_rate, clip.offset
    begin, end = round(first * rate), min(round(last * rate), clip.audio.shape[1])
    if begin >= end:
        return None
    audio = clip.audio[:, begin:end]
    if len(audio) > 2:
        audio = audio.mean(0, keepdims=True)
    own = 48000 if rate % 8000 == 0 else 44100
    # A sample or two of a high rate are less than one.
    audio = np.pad(audio, ((0, 0), (0, max(0, rate // own - audio.shape[1]))))
    total = clip.total or clip.audio.shape[1]
    return Sound(resample(audio, rate, own), own, (shift + begin) / rate, (shift + end) / rate, total / rate)


def matched(sounds: Sequence[Sound]) -> tuple[list[Sound], float]:
    """The sounds at one loudness, and which (LUFS): `LOUDNESS`, or less where the peaks of one would not allow it.

    Silence stays as it is. One whose peaks do not even allow `QUIETEST` is quieter than the others.
    """
    measured = [(integrated(one.audio, one.sample_rate), true_peak(one.audio, one.sample_rate)) for one in sounds]
    allowed = [loud + CEILING - peak for loud, peak in measured if math.isfinite(loud)]
    target = max(QUIETEST, min([LOUDNESS, *allowed]))
    turned = []
    for one, (loud, peak) in zip(sounds, measured, strict=True):
        wanted = target - loud if math.isfinite(loud) else 0.0
        gain = min(wanted, CEILING - peak)
        audio = one.audio * np.float32(10 ** (gain / 20))
        turned.append(replace(one, audio=audio, gain_db=gain, quieter=gain < wanted - 0.01))
    return turned, target


def mp3(sound: Sound) -> bytes:
    """A sound as an MP3 file of the same length, to the sample."""
    stream = io.BytesIO()
    soundfile.write(stream, sound.audio.T, sound.sample_rate, format="MP3")
    return stream.getvalue()
