"""Sounds with known properties, `[channel, sample]` at 44.1 kHz."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE = 44100
Audio = NDArray[np.float32]


def tone(frequency: float, seconds: float, level: float = 0.3) -> Audio:
    """A steady sine."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * frequency * time))[None].astype(np.float32)


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> Audio:
    """White noise."""
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal((1, round(seconds * RATE)))).astype(np.float32)


def plucks(seconds: float, every: float = 0.25, channels: int = 1) -> Audio:
    """Decaying tones of several pitches."""
    result = np.zeros((channels, round(seconds * RATE)), np.float32)
    for number, start in enumerate(np.arange(0, seconds, every)):
        at = round(start * RATE)
        # After four seconds there is nothing left of one.
        time = np.arange(min(4 * RATE, result.shape[1] - at)) / RATE
        frequency = 220 * 2 ** (number * 3 % 12 / 12)
        for channel in range(channels):
            partials = sum(np.sin(2 * np.pi * frequency * k * time) / k**1.5 for k in range(1, 8))
            result[channel, at : at + len(time)] += 0.1 * (1 + channel) * partials * np.exp(-6 * time)
    return result


def decibels(audio: Audio | NDArray[np.floating]) -> float:
    """RMS level."""
    return float(10 * np.log10(np.mean(np.asarray(audio, np.float64) ** 2) + 1e-20))
