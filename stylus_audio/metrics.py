"""How much of the content a stem has kept, how near it is to the style, and its level. No weights are needed.

Audio is `[channel, sample]` in float. Every value is finite or None, so that it goes into JSON.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .audio import resample
from .loudness import integrated, sample_peak, true_peak
from .onsets import onset_times
from .spectrogram import MINI, mel_spectrogram, silent_frames

Floats = NDArray[np.floating[Any]]

ONSET_TOLERANCE = 0.05
"""Seconds; mir_eval's."""

LOG_RANGE_DB = 80.0


def evaluate(
    output: Floats,
    content: Floats,
    style: Floats | None = None,
    *,
    sample_rate: int,
    content_rate: int | None = None,
    style_rate: int | None = None,
) -> dict[str, float | None]:
    """All metrics of a stem against its content and, where given, the style; rates are those of the stem by default."""
    stem = _mono(output, sample_rate)
    clip = _mono(content, content_rate or sample_rate)
    mels = [mel_spectrogram(audio, MINI)[0] for audio in (stem, clip)]
    lufs = integrated(output, sample_rate)
    clip_lufs = integrated(content, content_rate or sample_rate)
    values: dict[str, float | None] = {
        "chroma_similarity": chroma_similarity(stem, clip, MINI.sample_rate),
        "onset_f1": onset_f1(onset_times(clip, MINI.sample_rate), onset_times(stem, MINI.sample_rate)),
        "log_mel_distance_content": log_mel_distance(*mels),
        "log_mel_distance_style": None,
        "log_mel_distance_content_style": None,
        "peak_db": _finite(sample_peak(output)),
        "true_peak_db": _finite(true_peak(output, sample_rate)),
        "loudness_lufs": _finite(lufs),
        "loudness_change_lu": _finite(lufs - clip_lufs) if math.isfinite(clip_lufs) else None,
    }
    if style is not None:
        reference = mel_spectrogram(_mono(style, style_rate or sample_rate), MINI)[0]
        values["log_mel_distance_style"] = spectrum_distance(mels[0], reference)
        values["log_mel_distance_content_style"] = spectrum_distance(mels[1], reference)
    return {name: None if value is None else round(value, 6) for name, value in values.items()}


def _mono(audio: Floats, sample_rate: int) -> NDArray[np.float32]:
    return resample(np.asarray(audio).mean(0, keepdims=True), sample_rate, MINI.sample_rate)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _log(mel: Floats) -> NDArray[np.float32]:
    """Decades under the maximum, floored at `LOG_RANGE_DB`: level does not count."""
    maximum = float(mel.max(initial=0.0))
    floor = 10 ** (-LOG_RANGE_DB / 20)
    return np.asarray(np.log10(np.maximum(mel / maximum if maximum > 0 else mel, floor)), np.float32)


def log_mel_distance(one: Floats, other: Floats) -> float:
    """RMSE of the log-mels `[mel, frame]` frame by frame, in decades (20 dB), each relative to its own maximum."""
    frames = min(one.shape[1], other.shape[1])
    return float(np.sqrt(((_log(one)[:, :frames] - _log(other)[:, :frames]) ** 2).mean()))


def spectrum_distance(one: Floats, other: Floats) -> float:
    """RMSE in decades between the average spectra of two sounds that are not aligned.

    The averages are of power, over the frames that are no silence, each relative to its own mean level.
    """
    return float(np.sqrt(((_average(one) - _average(other)) ** 2).mean()))


def _average(mel: Floats) -> NDArray[np.float64]:
    counted = ~silent_frames(mel[None], float(mel.max(initial=0.0)))
    if not counted.any():
        return np.full(mel.shape[0], -LOG_RANGE_DB / 20)
    mean = np.sqrt((mel[:, counted].astype(np.float64) ** 2).mean(1))
    logs = np.log10(np.maximum(mean / mean.max(), 10 ** (-LOG_RANGE_DB / 20)))
    return np.asarray(logs - logs.mean())


def chroma_similarity(one: Floats, other: Floats, sample_rate: int) -> float:
    """Mean cosine of the chroma frames, weighted by the energy of `other`; 1 for the same notes."""
    a, b = chroma(one, sample_rate), chroma(other, sample_rate)
    frames = min(a.shape[1], b.shape[1])
    a, b = a[:, :frames], b[:, :frames]
    weights = np.linalg.norm(b, axis=0)
    if weights.sum() <= 0:
        return 1.0 if np.linalg.norm(a) <= 0 else 0.0
    cosine = (a * b).sum(0) / np.maximum(np.linalg.norm(a, axis=0) * weights, 1e-12)
    return float((cosine * weights).sum() / weights.sum())


def chroma(audio: Floats, sample_rate: int) -> NDArray[np.float64]:
    """Energy of the 12 pitch classes from 55 to 4000 Hz, less what is in all, `[12, frame]` every 50 ms."""
    size, hop = 2 * round(0.1 * sample_rate), round(0.05 * sample_rate)
    mono = np.pad(np.asarray(audio).mean(0), (size // 2, size))
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[::hop]
    frequencies = np.fft.rfftfreq(size, 1 / sample_rate)
    used = (frequencies >= 55) & (frequencies <= 4000)
    pitch = 12 * np.log2(frequencies[used] / 440.0) + 9
    classes = np.arange(12)[:, None]
    distance = (pitch - classes + 6) % 12 - 6
    filters = np.exp(-0.5 * (distance / 0.5) ** 2)
    result = np.empty((12, len(frames)))
    for first in range(0, len(frames), 512):
        spectrum = np.abs(np.fft.rfft(frames[first : first + 512] * np.hanning(size), axis=1))[:, used] ** 2
        result[:, first : first + 512] = filters @ spectrum.T
    return np.asarray(np.sqrt(result - result.min(0, keepdims=True)))


def onset_f1(expected: Sequence[float] | Floats, found: Sequence[float] | Floats) -> float:
    """F-measure of onsets in seconds, matched one to one within `ONSET_TOLERANCE`; two silent clips agree.

    >>> onset_f1([0.0, 1.0], [0.02, 2.0])
    0.5
    """
    expected, found = sorted(float(t) for t in expected), sorted(float(t) for t in found)
    if not expected and not found:
        return 1.0
    matched, at = 0, 0
    # Both sorted and one tolerance for all: taking the earliest that fits is a largest matching.
    for time in expected:
        while at < len(found) and found[at] < time - ONSET_TOLERANCE:
            at += 1
        if at < len(found) and found[at] <= time + ONSET_TOLERANCE:
            matched += 1
            at += 1
    return 2 * matched / (len(expected) + len(found))


def si_sdr(output: Floats, content: Floats) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019); inf for the same signal.

    >>> si_sdr(np.array([[0.5, 1.0]]), np.array([[1.0, 2.0]]))
    inf
    """
    a, b = np.asarray(output, np.float64).ravel(), np.asarray(content, np.float64).ravel()
    energy = float(b @ b)
    if energy <= 0:
        return math.inf if not a.any() else -math.inf
    target = (a @ b) / energy * b
    noise = float(((a - target) ** 2).sum())
    return 10 * math.log10(float(target @ target) / noise) if noise > 0 else math.inf


def seam_step(output: Floats, sample_rate: int, seams: Sequence[float]) -> float | None:
    """Largest difference in dB between the level around a seam (±25 ms, seconds) and 200 ms before and after it."""
    power = (np.asarray(output, np.float64) ** 2).mean(0)
    steps = []
    for seam in seams:
        at = round(seam * sample_rate)
        near, far = round(0.025 * sample_rate), round(0.2 * sample_rate)
        if at - far < 0 or at + far > len(power):
            continue
        inside = power[at - near : at + near].mean()
        outside = np.concatenate([power[at - far : at - near], power[at + near : at + far]]).mean()
        if inside > 0 and outside > 0:
            steps.append(abs(10 * math.log10(inside / outside)))
    return max(steps) if steps else None
