"""Match-EQ: a reference's average spectrum imposed on a clip by one gain per band.

What a producer would use without a model; the embedded model starts from it, and is measured against it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .spectrogram import Profile, hz_to_mel

Floats = NDArray[np.floating[Any]]

SMOOTHING_MEL = 150.0
"""Width (σ) in mel: a reference's timbre, not its notes. Among 20, 60, 150 and 300 it brought the training data's clips
nearest to their answers, 300 being equal."""

LIMIT_DB = 24.0

TOLERATED_DB = 14.0
"""How far an answer's long-term level may be from its reference's: what plays other notes has another one. Of 4, 6, 8,
10, 12, 14, 17 and no limit at all, 14 and 17 brought 48 stems nearest to the truth, by 0.5%. The less it is, the more
of the match-EQ is left to what training has no answers for, a drum loop in breaking glass."""

KNOWN_SLOPE = 10
"""What lies within a tenth of the range over silence takes only a part of a gain, silence itself none."""


def long_term_level(power: Floats, profile: Profile) -> NDArray[np.float32]:
    """Level in dB per band of a mel power spectrogram `[mel, frame]` relative to its maximum, down to the range's end.

    The mean over time, smoothed over bands.
    """
    return smoothed_level(mean_power(power, profile), profile)


def mean_power(power: Floats, profile: Profile) -> NDArray[np.float32]:
    """Mean over time `[mel]` of a mel power spectrogram relative to its maximum, down to the range's end."""
    return np.asarray(np.maximum(power, 10 ** (-profile.range_db / 10)).mean(-1))


def smoothed_level(mean: Floats, profile: Profile) -> NDArray[np.float32]:
    """A mean power `[mel]` smoothed over bands, in dB."""
    return np.asarray(10 * np.log10(smoothed(mean, profile)), np.float32)


def smoothed(values: Floats, profile: Profile) -> Floats:
    """Any values of bands `[mel]` smoothed over them."""
    weights = kernel(profile)
    # Beyond the ends the last value holds.
    return np.convolve(np.pad(values, len(weights) // 2, mode="edge"), weights, "valid")


def kernel(profile: Profile) -> Floats:
    """The Gaussian over bands that levels are smoothed with, `[2 * reach + 1]`; its sum is 1."""
    sigma = SMOOTHING_MEL * (profile.bands + 1) / float(hz_to_mel(profile.high) - hz_to_mel(profile.low))
    reach = round(4 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum())


def match_eq(content: Floats, reference: Floats) -> NDArray[np.float32]:
    """Gain in dB per band that gives the content's long-term levels the reference's, within ±`LIMIT_DB`."""
    return np.asarray(np.clip(reference - content, -LIMIT_DB, LIMIT_DB), np.float32)


def equalised(image: Floats, gain: Floats, profile: Profile) -> NDArray[np.float32]:
    """A log picture `[mel, frame]` with a gain in dB per band; what is at its floor is silence and stays there."""
    known = np.clip(np.asarray(image, np.float32) * KNOWN_SLOPE, 0, 1)
    return np.asarray(np.clip(image + known * (gain[:, None] / np.float32(profile.range_db)), 0, 1), np.float32)


def releveled(images: Floats, guides: Floats, share: float, profile: Profile) -> NDArray[np.float32]:
    """Log pictures `[window, mel, frame]` with a match-EQ to those of `guides`.

    Of what its gain is over `TOLERATED_DB` all is taken, of the rest a `share`.
    """

    def level(image: Floats) -> NDArray[np.float32]:
        return long_term_level(10 ** ((image - 1) * (profile.range_db / 10)), profile)

    def gain(image: Floats, guide: Floats) -> Floats:
        whole = match_eq(level(image), level(guide))
        tolerated = np.clip(whole, -TOLERATED_DB, TOLERATED_DB)
        return whole - (1 - share) * tolerated

    return np.stack([equalised(one, gain(one, guide), profile) for one, guide in zip(images, guides, strict=True)])
