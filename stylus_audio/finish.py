"""From the reconstructed wet sound to the stem: level, mix, kept bands, attacks, silence, loop, ceiling.

Nothing here needs the model. All of it works on the *difference* between wet and dry, so that where nothing is to
change, the stem is the content to the last bit. Audio is `[channel, sample]`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .loudness import integrated, sample_peak, true_peak
from .onsets import onset_times
from .passage import Passage
from .riff import Loop
from .scratch import SAMPLES, as_type, blocks, zeros
from .settings import Settings
from .spectrogram import zero_padded

Floats = NDArray[np.floating[Any]]

SILENT_RUN = 0.02
"""Exact zeros in all channels for so many seconds are digital silence, and stay it."""

LEVEL_LIMIT_DB = 40.0


def finish(
    passage: Passage, wet: Floats, settings: Settings, integer: bool, style_lufs: float | None = None
) -> tuple[Floats, float]:
    """The stem `[channel, last - first]`, and by how many dB it is lower than rendered, to stay under its ceiling.

    `wet` lies on `passage.carrier`, and is used up: what it holds afterwards is of no use. `integer` says that the file
    cannot hold samples over full scale; `style_lufs` is the reference's loudness, for `loudness="match"`.
    """
    dry, rate = passage.dry, passage.sample_rate
    body = slice(passage.first, passage.last)
    if settings.mix == 0.0:
        stem = dry[:, body]
    else:
        heard = Sounding(dry, rate, slice(passage.last - passage.tail, passage.last))
        # In place throughout: of a long clip every copy counts.
        wet = as_type(wet, np.result_type(wet, dry))
        # By the same envelope, whose ramp takes most of an attack that begins with the file.
        sounding = zeros(passage.carrier.shape, passage.carrier.dtype)
        for here in blocks(dry.shape[1], SAMPLES):
            envelope = heard[here]
            wet[:, here] *= envelope
            sounding[:, here] = passage.carrier[:, here] * envelope
        factor = wet.dtype.type(level_factor(level_of(wet[:, body], rate), level_of(sounding[:, body], rate)))
        del sounding
        kept = attacks(dry, rate) if settings.transients > 0 else None
        difference = wet
        for here in blocks(dry.shape[1], SAMPLES):
            difference[:, here] *= factor
            difference[:, here] -= dry[:, here] * heard[here]
            if kept is not None:
                difference[:, here] *= 1 - settings.transients * kept[here]
        whole = without_kept_bands(difference, rate, settings.keep_below, settings.keep_above)
        for here in blocks(dry.shape[1], SAMPLES):
            whole[:, here] *= settings.mix
            whole[:, here] += dry[:, here]
        stem = whole[:, body].astype(dry.dtype, copy=False)
        if passage.loop:
            _close_loop(stem, whole, passage)
    return _levelled(stem, rate, settings, integer, style_lufs)


def level_of(audio: Floats, sample_rate: int) -> float:
    """Loudness, that of a short clip as if silence followed it: the same whether the file has that silence or not."""
    missing = round(0.4 * sample_rate) - audio.shape[1]
    audio = np.pad(audio, ((0, 0), (0, missing))) if missing > 0 else audio
    # Near full scale, since BS.1770 hears nothing under -70 LUFS and a soft clip is to stay as soft; by a power of two,
    # which rounds nothing.
    peak, double = sample_peak(audio), 20 * math.log10(2)
    times = math.floor(peak / double) if math.isfinite(peak) else 0
    return integrated(audio, sample_rate, 2.0**-times) + times * double


def level_factor(measured: float, wanted: float) -> float:
    """Factor from one loudness (LUFS) to another; 1 where either is silence. At most ±`LEVEL_LIMIT_DB`."""
    if not (np.isfinite(measured) and np.isfinite(wanted)):
        return 1.0
    return float(10 ** (np.clip(wanted - measured, -LEVEL_LIMIT_DB, LEVEL_LIMIT_DB) / 20))


class Sounding:
    """Envelope of a sound, by slices: 0 in digital silence, 1 elsewhere, with short ramps inside the sound.

    A long analysis window would let the sound ring into the silence around it. The ramp into silence takes 5 ms, the
    one out of it 1 ms, since there an attack begins. The tail is no silence.
    """

    def __init__(self, dry: Floats, sample_rate: int, tail: slice = slice(0)) -> None:
        silent = np.empty(dry.shape[1], np.bool_)
        for here in blocks(dry.shape[1], SAMPLES):
            silent[here] = ~dry[:, here].any(axis=0)
        silent[tail] = False
        edges = np.flatnonzero(np.diff(silent, prepend=False, append=False)).reshape(-1, 2)
        self._silences = edges[np.diff(edges)[:, 0] >= SILENT_RUN * sample_rate]
        self._samples = dry.shape[1]
        self._out_of, self._into = round(0.001 * sample_rate), round(0.005 * sample_rate)

    def __getitem__(self, here: slice) -> NDArray[np.float32]:
        envelope = np.ones(here.stop - here.start, np.float32)

        def lower(at: int, values: Floats) -> None:
            low, high = max(at, here.start), min(at + len(values), here.stop)
            if low < high:
                there = envelope[low - here.start : high - here.start]
                np.minimum(there, values[low - at : high - at], out=there)

        # In order and apart: of a long clip's thousands few reach into a block.
        first = np.searchsorted(self._silences[:, 1] + self._out_of, here.start, "right")
        last = np.searchsorted(self._silences[:, 0] - self._into, here.stop)
        for start, end in self._silences[first:last]:
            envelope[max(0, start - here.start) : max(0, end - here.start)] = 0
            low, high = max(0, start - self._into), min(self._samples, end + self._out_of)
            lower(low, np.linspace(1, 0, start - low, endpoint=False))
            lower(end, np.linspace(0, 1, high - end, endpoint=False))
        return envelope


def attacks(audio: Floats, sample_rate: int) -> NDArray[np.float32]:
    """Envelope `[sample]`: 1 at the attacks of the content, 0 away from them; 3 ms in, 12 ms at 1, 40 ms out."""
    rise, hold, fall = (round(seconds * sample_rate) for seconds in (0.003, 0.012, 0.04))
    shape = np.concatenate(
        [np.linspace(0, 1, rise, endpoint=False), np.ones(hold), 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, fall))]
    )
    envelope = np.zeros(audio.shape[1], np.float32)
    for time in onset_times(audio, sample_rate):
        at = round(float(time) * sample_rate) - rise - hold // 3
        low, high = max(0, at), min(len(envelope), at + len(shape))
        if low < high:
            np.maximum(envelope[low:high], shape[low - at : high - at], out=envelope[low:high])
    return envelope


def without_kept_bands(
    difference: Floats, sample_rate: int, keep_below: float | None, keep_above: float | None
) -> Floats:
    """The difference with nothing left (−80 dB) under `keep_below` and over `keep_above`, both in Hz.

    Linear-phase filters without delay; the transitions lie wholly in the styled band. What is given is used up.
    """
    nyquist = sample_rate / 2
    if keep_below is not None:
        low = _low_passed(difference, keep_below, keep_below * 1.5, nyquist)
        for here in blocks(difference.shape[1], SAMPLES):
            difference[:, here] -= low[:, here]
    if keep_above is not None and keep_above < nyquist:
        difference = _low_passed(difference, keep_above / 1.25, keep_above, nyquist)
    return difference


def _low_passed(audio: Floats, through: float, stop: float, nyquist: float) -> Floats:
    """Passes up to `through` Hz, stops from `stop` Hz on."""
    from scipy.signal import firwin, kaiserord, oaconvolve

    if through >= nyquist:
        return audio
    stop = min(stop, max(nyquist * 0.999, (through + nyquist) / 2))
    taps, beta = kaiserord(85.0, (stop - through) / nyquist)
    kernel = firwin(taps | 1, (through + stop) / 2, window=("kaiser", beta), fs=2 * nyquist)
    half = len(kernel) // 2
    result = zeros(audio.shape, audio.dtype)
    for here in blocks(audio.shape[1], SAMPLES):
        piece = zero_padded(audio, here.start - half, here.stop + half, np.float64)
        result[:, here] = oaconvolve(piece, kernel[None], "valid", axes=1)
    return result


def _close_loop(stem: Floats, whole: Floats, passage: Passage) -> None:
    """Fade the end of the loop into what precedes its start, in place, so that it repeats without a seam.

    Both have the same phase, that of the content, so nothing cancels.
    """
    loop: Loop | None = passage.loop
    if loop is None:
        return
    start, end = passage.first + loop.start, passage.first + loop.end
    # Before the clip there is silence, but where the carrier has other turns of the loop; before a segment, the clip.
    there = start if passage.wraps else loop.start + min(passage.offset, passage.first)
    length = min(end - start, round(0.1 * passage.sample_rate), there)
    if length < 2:
        return
    fade = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, length + 1) / length)
    before = whole[:, start - length : start]
    ending = whole[:, end - length : end]
    stem[:, loop.end - length : loop.end] = ending + fade * (before - ending)


def _levelled(
    stem: Floats, sample_rate: int, settings: Settings, integer: bool, style_lufs: float | None
) -> tuple[Floats, float]:
    target = style_lufs if settings.loudness == "match" else settings.loudness
    if isinstance(target, float):
        stem = _scaled(stem, level_factor(level_of(stem, sample_rate), target))
    if settings.ceiling is None:
        return within_full_scale(stem) if integer else (stem, 0.0)
    return _lowered(stem, true_peak(stem, sample_rate) - settings.ceiling)


def within_full_scale(stem: Floats) -> tuple[Floats, float]:
    """A stem as a file of integers can hold it, and by how many dB it is lower for that."""
    return _lowered(stem, sample_peak(stem))


def _lowered(stem: Floats, over: float) -> tuple[Floats, float]:
    # What was lowered once may be over by a rounding.
    return (stem, 0.0) if over < 1e-9 else (_scaled(stem, 10 ** (-over / 20)), over)


def _scaled(audio: Floats, factor: float) -> Floats:
    """A copy: what is mixed by nothing is the content itself."""
    result = zeros(audio.shape, audio.dtype)
    for here in blocks(audio.shape[1], SAMPLES):
        result[:, here] = audio[:, here] * factor
    return result


def lowered(decibels: float, ceiling: float | None = None) -> list[str]:
    """What the user should know of a stem that was lowered by so much, to stay under a ceiling or full scale."""
    if decibels <= 0:
        return []
    what = "full scale" if ceiling is None else f"the ceiling of {ceiling:g} dBTP"
    return [f"the stem is {decibels:.1f} dB lower than rendered, to stay under {what}"]
