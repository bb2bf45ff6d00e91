"""Metrics for evaluating a model where more is known than a user knows: the true answer, the notes, the voice.

Audio is `[channel, sample]` at `MINI.sample_rate`; pictures are mono (linked) on `MINI`'s grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import chroma
from .reference import Picture
from .spectrogram import MINI, to_image

Floats = NDArray[np.floating[Any]]

PATCH = 8
SOUNDING_DB = -60.0
"""Patches and frames of the true answer under this count in no measure of sharpness."""

COEFFICIENTS = 20

_WINDOW, _HOP = 8192, 1024
_HARMONICS = 5
_SALIENCE_DB = 6.0
"""A note is heard where its harmonics are on average so far over what lies half a semitone beside them."""


@dataclass(frozen=True)
class Played:
    """A note that is known to be in a clip: seconds and MIDI key."""

    start: float
    length: float
    key: int


def _decibels(picture: Picture) -> NDArray[np.float32]:
    """Mel levels under the clip's maximum `[mel, frame]`, 0 to -80 dB."""
    return np.asarray((to_image(picture.mel, MINI, picture.maximum)[0] - 1) * MINI.range_db, np.float32)


def mfcc_distance(output: Picture, oracle: Picture) -> float:
    """Root mean square distance in dB of mel cepstra 1–20 (DCT-II, orthonormal): timbre without pitch or level."""
    from scipy.fft import dct

    frames = min(output.mel.shape[-1], oracle.mel.shape[-1])
    ours, theirs = (
        dct(_decibels(one)[:, :frames], axis=0, norm="ortho")[1 : COEFFICIENTS + 1] / math.sqrt(MINI.bands)
        for one in (output, oracle)
    )
    return float(np.sqrt(((ours - theirs) ** 2).sum(0).mean()))


def local_contrast(picture: Picture, oracle: Picture) -> NDArray[np.float32]:
    """Standard deviation in dB of each patch of 8 × 8 of the log-mel where the oracle sounds, `[patch]`."""
    ours, theirs = (_patches(_decibels(one), min(picture.mel.shape[-1], oracle.mel.shape[-1]))
                    for one in (picture, oracle))  # fmt: skip
    return np.asarray(ours[theirs.mean(1) > SOUNDING_DB].std(1))


def _patches(levels: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    bands, frames = levels.shape[0] // PATCH, frames // PATCH
    cut = levels[: bands * PATCH, : frames * PATCH].reshape(bands, PATCH, frames, PATCH)
    return np.asarray(cut.transpose(0, 2, 1, 3).reshape(bands * frames, PATCH * PATCH))


def flatness(picture: Picture, oracle: Picture) -> NDArray[np.float32]:
    """Spectral flatness in dB (geometric over arithmetic mean of power) of each frame where the oracle sounds."""
    frames = min(picture.mel.shape[-1], oracle.mel.shape[-1])
    power = 10 ** (_decibels(picture)[:, :frames] / 10)
    here = ~oracle.silent[:frames] & ~picture.silent[:frames]
    return np.asarray(10 * (np.log10(power).mean(0) - np.log10(power.mean(0)))[here])


def note_f1(audio: Floats, notes: Sequence[Played]) -> float:
    """F-measure of known notes by the energy at their harmonics; NaN without notes.

    Each note is looked for while it sounds (its first 0.4 s at most); for each, a key a semitone or two away that does
    not sound then is looked for too, and hearing that one is a mistake.
    """
    import scipy.fft

    if not notes:
        return math.nan
    mono = np.asarray(audio, np.float32).mean(0)
    padded = np.pad(mono, (_WINDOW // 2, _WINDOW))
    every = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    magnitude = np.abs(scipy.fft.rfft(every * np.hanning(_WINDOW).astype(np.float32), axis=1)) + 1e-7
    hits = mistakes = 0
    for note in notes:
        first = round((note.start + 0.05) * MINI.sample_rate / _HOP)
        last = max(first + 1, round((note.start + min(0.4, max(note.length, 0.15))) * MINI.sample_rate / _HOP))
        frames = magnitude[first:last]
        if not len(frames):
            continue
        hits += _heard(frames, note.key)
        sounding = {
            one.key for one in notes if one.start < note.start + 0.4 and one.start + one.length + 0.3 > note.start
        }
        decoy = next((note.key + step for step in (1, -1, 2, -2) if note.key + step not in sounding), None)
        mistakes += decoy is not None and _heard(frames, decoy)
    return 2 * hits / (len(notes) + hits + mistakes)


def _heard(frames: NDArray[np.float32], key: int) -> bool:
    fundamental = 440.0 * 2 ** ((key - 69) / 12)
    saliences = []
    for harmonic in range(1, _HARMONICS + 1):
        frequency = fundamental * harmonic
        if frequency > 10_000:
            break
        at, below, above = (_level_at(frames, frequency * ratio) for ratio in (1.0, 2 ** (-0.5 / 12), 2 ** (0.5 / 12)))
        if frequency * (2 ** (0.5 / 12) - 1) < 8:
            # Half a semitone is less than the window can tell: look a whole one away.
            below, above = (_level_at(frames, frequency * ratio) for ratio in (2 ** (-1 / 12), 2 ** (1 / 12)))
        saliences.append(at - max(below, above))
    return len(saliences) > 0 and float(np.sort(saliences)[-3:].mean()) > _SALIENCE_DB


def _level_at(frames: NDArray[np.float32], frequency: float) -> float:
    place = frequency * _WINDOW / MINI.sample_rate
    low = int(place)
    return float(20 * np.log10(frames[:, low : low + 2].max(1)).mean())


def pitch_leakage(audio: Floats, notes: Sequence[Played], reference_notes: Sequence[Played]) -> float:
    """Share of chroma energy at pitch classes that only the reference plays; NaN where it has none of its own."""
    own = {note.key % 12 for note in notes}
    foreign = sorted({note.key % 12 for note in reference_notes} - own)
    if not foreign or not own:
        return math.nan
    energy = chroma(audio).sum(1)
    return float(energy[foreign].sum() / max(energy.sum(), 1e-12))


def formants(audio: Floats, count: int = 3) -> NDArray[np.float64]:
    """Median frequencies in Hz of a voice's first formants, by linear prediction (order 12 at 11,025 Hz)."""
    import librosa
    from scipy.signal import lfilter

    voice = librosa.resample(np.asarray(audio, np.float32).mean(0), orig_sr=MINI.sample_rate, target_sr=11025)
    voice = lfilter([1.0, -0.63], [1.0], voice)
    size, hop = 400, 200
    starts = np.arange(0, len(voice) - size, hop)
    energies = np.array([float((voice[start : start + size] ** 2).sum()) for start in starts])
    found = []
    for start in starts[energies > np.quantile(energies, 0.6)]:
        coefficients = librosa.lpc(voice[start : start + size] * np.hamming(size), order=12)
        roots = [root for root in np.roots(coefficients) if root.imag > 0.01 and abs(root) > 0.8]
        frequencies = sorted(float(np.angle(root)) * 11025 / (2 * np.pi) for root in roots)
        frequencies = [frequency for frequency in frequencies if frequency > 150]
        if len(frequencies) >= count:
            found.append(frequencies[:count])
    return np.median(found, axis=0) if found else np.full(count, np.nan)


def formant_drift(output: Floats, content: Floats) -> float:
    """Mean relative shift of a voice's first three formants; 0 where they stay."""
    ours, theirs = formants(output), formants(content)
    return float(np.abs(ours / theirs - 1).mean())
