"""How much of the content a stem has kept, how near it is to the style, and its level. No weights are needed.

Audio is `[channel, sample]` in float. Channels count by their mean power. Level is a metric of its own and counts in no
other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .audio import CHANNELS, RATES, Clip, resample
from .errors import UnsupportedAudio
from .loudness import integrated, sample_peak, true_peak
from .onsets import onset_times
from .reference import Picture, picture_of
from .scratch import SAMPLES, blocks, let_go
from .spectrogram import MINI, zero_padded

Floats = NDArray[np.floating[Any]]

ONSET_TOLERANCE = 0.05
"""Seconds; mir_eval's."""

RANGE_DB = 80.0
"""Log-mels end so far under the maximum."""

SI_SDR_LIMIT = 200.0
"""dB; what the same signal has in place of infinity, which JSON does not know."""

ROUNDING = 1e-20
"""Of DC's power: less beside it is rounding."""

_CHROMA_SIZE, _CHROMA_HOP = 8192, 2048
"""Samples at `MINI.sample_rate`: 186 ms, which tells the semitones apart from about 200 Hz on."""

_SEAM_SECONDS = 0.05

_FRAMES = 1024
"""That are worked on at once."""


@dataclass(frozen=True, eq=False)
class Timbre:
    """All that counts of a style: its mean log-mel in decades over what is no silence, `[mel]`, and their `floor`.

    Both are NaN where the style is silent.
    """

    mean: NDArray[np.float64]
    floor: float

    @classmethod
    def of(cls, style: Picture) -> Timbre:
        """That of a style's picture."""
        if style.silent.all():
            return cls(np.full(style.mel.shape[1], np.nan), math.nan)
        floor = _floor(style)
        return cls(_mean_logs(style, floor), floor)

    @classmethod
    def heard(cls, style: Floats, sample_rate: int) -> Timbre:
        """That of audio; raises `UnsupportedAudio` for what `validate` refuses."""
        validate(style, sample_rate, "the style")
        return cls.of(picture_of(style, sample_rate, MINI))


def evaluate(
    output: Floats,
    content: Floats,
    style: Floats | Timbre | None = None,
    *,
    sample_rate: int,
    content_rate: int | None = None,
    style_rate: int | None = None,
    seams: Sequence[float] = (),
) -> dict[str, float | None]:
    """All metrics of a stem against its content and, where given, the style; rates are those of the stem by default.

    A style that many stems are measured against is given as its `Timbre`, which has no rate. Stem and content are
    compared from their starts on, as long as both last; only the levels are of the whole stem. `seams` are the places
    in seconds where windows meet. A value is None where it does not exist: the level of silence, a distance from
    silence or from a style that was not given, a step without seams. All others are finite. Raises `UnsupportedAudio`
    for what `validate` refuses.
    """
    content_rate, style_rate = content_rate or sample_rate, style_rate or sample_rate
    validate(output, sample_rate, "the stem")
    validate(content, content_rate, "the content")
    rate = MINI.sample_rate
    stem, clip = _common(resample(output, sample_rate, rate), resample(content, content_rate, rate))
    timbre = style if isinstance(style, Timbre | None) else Timbre.heard(style, style_rate)
    lufs = integrated(output, sample_rate)
    values = {
        "chroma_similarity": chroma_similarity(chroma(stem), chroma(clip)),
        "onset_f1": onset_f1(onset_times(stem, rate), onset_times(clip, rate)),
        **_log_mel_distances(stem, clip, timbre),
        "si_sdr_db": si_sdr(*_common(output, content)) if sample_rate == content_rate else si_sdr(stem, clip),
        "seam_step_db": seam_step(stem, rate, seams, clip),
        "peak_db": sample_peak(output),
        "true_peak_db": true_peak(output, sample_rate),
        "loudness_lufs": lufs,
        "loudness_change_lu": lufs - integrated(content, content_rate) if math.isfinite(lufs) else math.nan,
    }
    return {name: round(value, 6) if math.isfinite(value) else None for name, value in values.items()}


def _log_mel_distances(stem: Floats, clip: Floats, timbre: Timbre | None) -> dict[str, float]:
    """Those of `evaluate`, at `MINI.sample_rate`; of a long clip the pictures are large, and are let go again."""
    ours, theirs = picture_of(stem, MINI.sample_rate, MINI), picture_of(clip, MINI.sample_rate, MINI)
    return {
        "log_mel_distance_content": log_mel_distance(ours, theirs),
        "log_mel_distance_style": timbre_distance(ours, timbre) if timbre else math.nan,
        "log_mel_distance_content_style": timbre_distance(theirs, timbre) if timbre else math.nan,
    }


def evaluate_clips(
    stem: Clip, content: Clip, style: Clip | None = None, seams: Sequence[float] = ()
) -> dict[str, float | None]:
    """`evaluate` for clips, each at its own rate."""
    return evaluate(
        stem.audio,
        content.audio,
        style.audio if style else None,
        sample_rate=stem.sample_rate,
        content_rate=content.sample_rate,
        style_rate=style.sample_rate if style else None,
        seams=seams,
    )


def _common(one: Floats, other: Floats) -> tuple[Floats, Floats]:
    samples = min(one.shape[1], other.shape[1])
    return one[:, :samples], other[:, :samples]


def validate(audio: Floats, sample_rate: int, name: str) -> None:
    """Raise `UnsupportedAudio` for what cannot be measured; `name` is what the message calls it."""
    if audio.ndim != 2 or not 1 <= audio.shape[0] <= CHANNELS or not audio.shape[1]:
        raise UnsupportedAudio(f"{name} is [channel, sample] with 1 to {CHANNELS} channels and at least one sample")
    if not RATES[0] <= sample_rate <= RATES[1]:
        raise UnsupportedAudio(f"{name} has {sample_rate} Hz; {RATES[0]} to {RATES[1]} Hz are measured")
    if not all(np.isfinite(audio[:, here]).all() for here in blocks(audio.shape[1], SAMPLES)):
        raise UnsupportedAudio(f"{name} holds values that are not finite")


def log_mel_distance(output: Picture, content: Picture) -> float:
    """RMSE of the log-mels of two equally long sounds in decades (20 dB), on the grid of `MINI`.

    Both at the same mean power; what lies `RANGE_DB` under the content's maximum counts as that. All frames count,
    also those that are silent in both, so that rests make the distance smaller. NaN where the content is silent.
    """
    floor = _floor(content)
    pairs = zip(_logs(output, floor), _logs(content, floor), strict=True)
    total = sum(float(np.square(ours - theirs).sum(dtype=np.float64)) for ours, theirs in pairs)
    return math.sqrt(total / content.mel[0].size)


def timbre_distance(output: Picture, style: Picture | Timbre) -> float:
    """RMSE in decades between the mean log-mels of two sounds that are not aligned; NaN where the style is silent.

    The means are over the frames that are no silence; for the rest as `log_mel_distance`.
    """
    timbre = style if isinstance(style, Timbre) else Timbre.of(style)
    if output.silent.all() or math.isnan(timbre.floor):
        return math.nan
    return float(np.sqrt(np.mean((_mean_logs(output, timbre.floor) - timbre.mean) ** 2)))


def _mean_logs(picture: Picture, floor: float) -> NDArray[np.float64]:
    """Mean over the frames that are no silence, `[mel]`."""
    sounding = [~picture.silent[here] for here in blocks(picture.mel.shape[-1], _FRAMES)]
    total = sum(
        logs[:, heard].sum(1, dtype=np.float64) for logs, heard in zip(_logs(picture, floor), sounding, strict=True)
    )
    return np.asarray(total / np.count_nonzero(~picture.silent))


def log_mels(picture: Picture, reference: Picture) -> NDArray[np.float32]:
    """Log10 of the mel `[mel, frame]` over its own level, at least `RANGE_DB` under the maximum of `reference`.

    That maximum, too, is taken over its picture's level; all are NaN where the reference is silent.
    """
    return np.concatenate(list(_logs(picture, _floor(reference))), axis=1)


def _floor(reference: Picture) -> float:
    level = _level(reference)
    return reference.maximum / level * 10 ** (-RANGE_DB / 20) if level > 0 else math.nan


def _logs(picture: Picture, floor: float) -> Iterator[NDArray[np.float32]]:
    """`log_mels` some frames at a time: of a long clip every copy counts."""
    level = np.float32(_level(picture) or 1.0)
    for here in blocks(picture.mel.shape[-1], _FRAMES):
        # A floor that is no number makes all of them none.
        logs = np.maximum(picture.mel[0, :, here] / level, np.float32(floor))
        yield np.asarray(np.log10(logs, out=logs))


def _level(picture: Picture) -> float:
    """Root of the mean power of the frames that are no silence."""
    if picture.silent.all():
        return 0.0
    power = np.empty(picture.mel.shape[-1])
    for here in blocks(len(power), _FRAMES):
        power[here] = np.einsum("mf,mf->f", picture.mel[0, :, here], picture.mel[0, :, here], dtype=np.float64)
    return math.sqrt(float(power[~picture.silent].mean()))


def chroma(audio: Floats, block_frames: int = 128) -> NDArray[np.float64]:
    """Power of the 12 pitch classes, C first, `[12, frame]`; `audio` is at `MINI.sample_rate`.

    Less the weakest class of each frame: what all twelve share is noise and no note.

    >>> tone = np.sin(2 * np.pi * 440 * np.arange(44100) / 44100)[None]
    >>> int(chroma(tone).sum(1).argmax())
    9
    """
    import scipy.fft

    size, hop = _CHROMA_SIZE, _CHROMA_HOP
    shape = np.hanning(size).astype(np.float32)
    filters = _chroma_filters()
    frames = 1 + audio.shape[1] // hop
    result = np.zeros((12, frames))
    for here in blocks(frames, block_frames):
        low = here.start * hop - size // 2
        piece = zero_padded(audio, low, low + (here.stop - here.start - 1) * hop + size)
        for cut in np.lib.stride_tricks.sliding_window_view(piece, size, axis=1)[:, ::hop]:
            result[:, here] += filters @ (np.abs(scipy.fft.rfft(cut * shape)) ** 2).T
    return np.asarray(result - result.min(0))


@lru_cache(maxsize=1)
def _chroma_filters() -> NDArray[np.float32]:
    """From bins of the STFT to notes C to B, `[note, bin]` (Ellis, "Chroma feature analysis and synthesis", 2007).

    A bin counts for a note by a bell around it, half a semitone or half a bin wide, whichever is more, and by another
    over the octaves, two of them wide and five above 27.5 Hz.
    """
    bins = np.fft.rfftfreq(_CHROMA_SIZE, 1 / MINI.sample_rate)[1:]
    semitones = 12 * np.log2(bins / 27.5)
    width = np.maximum(np.diff(semitones, append=semitones[-1]), 1.0)
    # From A upwards; 27.5 Hz is one.
    away = (semitones - np.arange(12)[:, None] + 6) % 12 - 6
    bells = np.exp(-0.5 * (2 * away / width) ** 2)
    bells /= np.linalg.norm(bells, axis=0)
    bells *= np.exp(-0.5 * ((semitones / 12 - 5) / 2) ** 2)
    return np.roll(np.pad(bells, ((0, 0), (1, 0))), -3, axis=0).astype(np.float32)


def chroma_similarity(output: Floats, content: Floats) -> float:
    """Mean cosine of chroma frames `[12, frame]`, weighted by the content's energy: 1 for the same notes, 0 to 1.

    Noise has something of every note, so that two unlike ones have about 0.8: of drums and noise it says nothing.
    NaN where the content has no notes.
    """
    energy = np.linalg.norm(content, axis=0)
    if energy.sum() <= 0:
        return math.nan
    norms = np.linalg.norm(output, axis=0)
    shared = np.divide((output * content).sum(0), norms, out=np.zeros_like(norms), where=norms > 0)
    return float(shared.sum() / energy.sum())


def onset_f1(output: Sequence[float] | Floats, content: Sequence[float] | Floats) -> float:
    """F-measure of onsets in seconds, matched one to one within `ONSET_TOLERANCE`, as mir_eval defines it.

    NaN where neither has any.

    >>> onset_f1([0.02, 2.0], [0.0, 1.0])
    0.5
    """
    ours, theirs = np.sort(np.asarray(output)), np.sort(np.asarray(content))
    if not len(ours) and not len(theirs):
        return math.nan
    matched = at = 0
    # Both sorted and one tolerance for all: taking the earliest that fits is a largest matching.
    for time in ours:
        while at < len(theirs) and theirs[at] < time - ONSET_TOLERANCE:
            at += 1
        if at < len(theirs) and theirs[at] <= time + ONSET_TOLERANCE:
            matched += 1
            at += 1
    return 2 * matched / (len(ours) + len(theirs))


def si_sdr(output: Floats, content: Floats) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, within ±`SI_SDR_LIMIT` (Le Roux et al., ICASSP 2019).

    Both equally long, each channel without its mean (DC is nothing that is heard), with one scale for all channels.
    NaN where the content is silent or has other channels.

    >>> si_sdr(np.array([[0.5, 1.0]]), np.array([[1.0, 2.0]]))
    200.0
    """
    if len(output) != len(content):
        return math.nan
    pairs = [(_Centred(ours), _Centred(theirs)) for ours, theirs in zip(output, content, strict=True)]
    energy = sum(_dot(theirs, theirs) for _, theirs in pairs)
    # What is left of DC is rounding.
    if energy <= ROUNDING * sum(theirs.mean**2 * len(theirs.channel) for _, theirs in pairs):
        return math.nan
    scale = sum(_dot(ours, theirs) for ours, theirs in pairs) / energy
    errors = (piece - scale * wanted for ours, theirs in pairs for piece, wanted in zip(ours, theirs, strict=True))
    noise = sum(float(error @ error) for error in errors)
    target = scale**2 * energy
    if target <= 0:
        return -SI_SDR_LIMIT
    least = target * 10 ** (-SI_SDR_LIMIT / 10)
    return max(-SI_SDR_LIMIT, 10 * math.log10(target / max(noise, least)))


class _Centred:
    """A channel without its mean, some samples at a time."""

    def __init__(self, channel: Floats) -> None:
        self.channel = channel
        total = sum(float(channel[here].sum(dtype=np.float64)) for here in blocks(len(channel), SAMPLES))
        self.mean = total / max(1, len(channel))

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        for here in blocks(len(self.channel), SAMPLES):
            yield self.channel[here].astype(np.float64) - self.mean


def _dot(one: _Centred, other: _Centred) -> float:
    return sum(float(ours @ theirs) for ours, theirs in zip(one, other, strict=True))


def seam_step(output: Floats, sample_rate: int, seams: Sequence[float], content: Floats | None = None) -> float:
    """Largest difference in dB between the level at a seam (50 ms, seconds) and midway to the seams around it.

    The clip's ends count as seams there. Music changes its level by itself: with `content`, equally long, the
    difference that it has at the same place is taken off. NaN without seams inside the clip.
    """
    inside = sorted(seam for seam in seams if 0 < seam < output.shape[1] / sample_rate)
    if not inside:
        return math.nan
    steps = level_steps(output, sample_rate, inside)
    if content is not None:
        steps = steps - level_steps(content, sample_rate, inside)
    return float(np.abs(steps).max())


def level_steps(audio: Floats, sample_rate: int, seams: Sequence[float]) -> NDArray[np.float64]:
    """Level in dB at each seam (50 ms, seconds, inside the clip) over that midway to the seams around it, `[seam]`."""
    ends = np.array([0.0, *seams, audio.shape[1] / sample_rate])
    middles = np.array([_power_at(audio, sample_rate, time) for time in (ends[1:] + ends[:-1]) / 2])
    at_seams = np.array([_power_at(audio, sample_rate, time) for time in seams])
    return np.asarray(10 * np.log10(at_seams / ((middles[1:] + middles[:-1]) / 2)))


def _power_at(audio: Floats, sample_rate: int, time: float) -> float:
    """Mean power of the 50 ms around a time, at least -120 dB."""
    first = max(0, round((time - _SEAM_SECONDS / 2) * sample_rate))
    around = audio[:, first : first + round(_SEAM_SECONDS * sample_rate)].astype(np.float64)
    let_go()
    return max(1e-12, float(np.mean(around**2))) if around.size else 1e-12
