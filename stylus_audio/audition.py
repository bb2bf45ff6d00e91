"""Gains as somebody auditions them: few bytes for each style, which a player turns into sound by itself.

Mix, amount, kept bands and attacks act behind the gains, so a player that has them needs no model, and no second
render, to answer a dial at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .finish import attacks
from .gains import LIMIT_DB, Gains
from .passage import Passage
from .spectrogram import Profile, band_centres

UNITS_PER_DB = 500
"""Of the stored whole numbers: ±60 dB in steps far finer than anybody hears."""

DEPTH_DB = 40.0
"""Bands so far under the loudest say little of what a clip is."""


def score_of(gains: Gains, passage: Passage) -> NDArray[np.int16]:
    """The gains on a passage's body, `[channel, frame, band]`, `UNITS_PER_DB` to a dB, a frame on every hop of it."""
    rate, profile = passage.sample_rate, gains.profile
    frames = frames_of((passage.last - passage.first) / rate, profile)
    times = passage.first / rate + np.arange(frames) / profile.frame_rate
    db = gains.db_at(times, band_centres(profile)).swapaxes(1, 2)
    return np.round(np.clip(db, -LIMIT_DB, LIMIT_DB) * UNITS_PER_DB).astype("<i2")


def frames_of(seconds: float, profile: Profile) -> int:
    """How many frames lie on a passage of so many seconds."""
    return max(1, int(np.ceil(seconds * profile.frame_rate)))


def about(passage: Passage, profile: Profile, channels: int) -> dict[str, Any]:
    """What a player has to know of the scores of a passage, as plain JSON. `samples` are at `sample_rate`."""
    samples = passage.last - passage.first
    return {
        "sample_rate": passage.sample_rate,
        "samples": samples,
        "gain_channels": channels,
        "frames": frames_of(samples / passage.sample_rate, profile),
        "frame_rate": profile.frame_rate,
        "bands": profile.bands,
        "low": profile.low,
        "high": profile.high,
        "units_per_db": UNITS_PER_DB,
    }


def attack_envelope(passage: Passage) -> NDArray[np.float32]:
    """1 at the attacks of the passage's body and 0 away from them, `[sample]`."""
    return attacks(passage.dry, passage.sample_rate)[passage.first : passage.last]


def likeness(content: NDArray[np.float32], style: NDArray[np.float32]) -> float:
    """How near two long-term levels per band (dB, `[mel]`) are: minus their root mean square difference in dB.

    Bands count that lie within `DEPTH_DB` of the loudest in either. A style whose spectrum is near to a clip's needs
    the smallest gains, and is the safest guess of what will sound well.
    """
    one, other = content - content.max(), style - style.max()
    counts = np.maximum(one, other) > -DEPTH_DB
    return -float(np.sqrt(np.mean(np.square(one - other)[counts])))
