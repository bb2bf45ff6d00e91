"""Where notes and hits begin: spectral flux finds them, the waveform's attack says when.

After Böck and Widmer, "Maximum filter vibrato suppression for onset detection" (DAFx 2013). Their window is as long as
low notes need and blurs the time, so where an attack stands out in the waveform, its step in level is the onset.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scratch import blocks, padded
from .spectrogram import Profile, mel_spectrogram

Floats = NDArray[np.floating[Any]]

_HOP = 0.01
"""Seconds between frames."""

_LAG = 2
"""Frames over which a rise is measured."""

_LEAD = 10
"""Frames of silence put before the clip, so that one which starts at once has an onset there."""

_FLOOR_DB = -60.0
"""Under the clip's loudest band nothing is heard as a rise."""

_RISE_DB = 0.8
"""Mean rise of a band that an onset has over the median of its surroundings."""

_APART = 0.04
"""Seconds between two onsets at least."""

_REACH = 0.025
"""Seconds around a peak of the flux in which the waveform's attack is looked for."""

_FRAMES, _MILLISECONDS = 4096, 10_000
"""That are worked on at once."""

_ATTACK = 8.0
"""Power of the 3 ms after an attack over the 10 ms before it, at least; less is no attack but a swell."""


def onset_times(audio: Floats, sample_rate: int) -> NDArray[np.float64]:
    """Onsets of `[channel, sample]` in seconds, ascending, `[onset]`; they do not depend on the level.

    Within ±10 ms for clicks, drums and plucked notes; a swelling note is placed where it rises fastest.

    >>> click = np.zeros((1, 44100), np.float32)
    >>> click[0, 11025] = 1.0
    >>> onset_times(click, 44100).round(3).tolist()
    [0.25]
    """
    from scipy.ndimage import median_filter
    from scipy.signal import find_peaks

    flux = _flux(audio, sample_rate)
    threshold = _RISE_DB + median_filter(flux, round(0.3 / _HOP) | 1)
    peaks, _ = find_peaks(flux, height=threshold, distance=round(_APART / _HOP))
    if not len(peaks):
        return np.zeros(0)
    # The rise is from the frame before to the one behind, but on a log scale most of it comes early in the window.
    # Frames are whole samples apart, which at some rates is not `_HOP`.
    coarse = (peaks - 0.5 - _LEAD) * (round(_HOP * sample_rate) / sample_rate)
    rise = _attack_rise(audio, sample_rate)
    return np.unique([_sharpened(time, rise) for time in coarse])


def _flux(audio: Floats, sample_rate: int) -> NDArray[np.float64]:
    """Mean rise of the mel bands in dB, `[frame]`; channels count by their mean power."""
    from scipy.ndimage import maximum_filter1d

    window = round(0.046 * sample_rate)
    profile = Profile(
        sample_rate, round(_HOP * sample_rate), window, window, 80, 30.0, min(16000.0, sample_rate / 2), 1, "log"
    )
    mels = [mel_spectrogram(padded(channel[None], _LEAD * profile.hop, 0), profile)[0] for channel in audio]
    frames = mels[0].shape[1]

    def power(here: slice) -> NDArray[np.float64]:
        return np.asarray(sum(np.square(mel[:, here], dtype=np.float64) for mel in mels))

    maximum = max(float(power(here).max()) for here in blocks(frames, _FRAMES))
    if maximum <= 0:
        return np.zeros(1)
    flux = np.zeros(frames)
    for here in blocks(frames - _LAG, _FRAMES):
        db = 10 * np.log10(np.maximum(power(slice(here.start, here.stop + _LAG)) / maximum, 10 ** (_FLOOR_DB / 10)))
        # A partial that only moves to the next band, as in a vibrato, is no rise.
        before = maximum_filter1d(db, 3, axis=0)[:, :-_LAG]
        flux[here.start + _LAG : here.stop + _LAG] = np.maximum(0.0, db[:, _LAG:] - before).mean(0)
    return flux


def _attack_rise(audio: Floats, sample_rate: int) -> NDArray[np.float64]:
    """Power after over power before each millisecond, `[millisecond]`.

    Of the differences between neighbouring samples, as an attack is brighter than what it stands on.
    """
    count = max(1, int(1000 * audio.shape[1] / sample_rate))
    edges = np.rint(np.arange(count) * sample_rate / 1000).astype(int)
    power = np.zeros(count)
    for these in blocks(count, _MILLISECONDS):
        here = edges[these]
        low, high = here[0], edges[these.stop] if these.stop < count else audio.shape[1]
        # With the sample before, which the first one differs from: silence before the clip.
        piece = audio[:, max(0, low - 1) : high]
        differences = np.diff(piece, prepend=audio.dtype.type(0)) if low == 0 else np.diff(piece)
        squares = differences.astype(np.float64) ** 2
        power[these] = np.add.reduceat(squares, here - low, axis=1).sum(0)
    # Weights that fall off, so that a single click counts most in the millisecond that it lies in.
    after = np.correlate(np.pad(power, (0, 2)), np.array([3, 2, 1]) / 6, "valid")
    before = np.convolve(np.pad(power, (10, 0)), np.full(10, 0.1), "valid")[:count]
    floor = 1e-9 * after.max()
    return np.asarray((after + floor) / (before + floor))


def _sharpened(time: float, rise: NDArray[np.float64]) -> float:
    low, high = (min(len(rise) - 1, max(0, round(1000 * (time + reach)))) for reach in (-_REACH, _REACH))
    best = low + int(np.argmax(rise[low : high + 1]))
    return best / 1000 if rise[best] >= _ATTACK else max(0.0, time)
