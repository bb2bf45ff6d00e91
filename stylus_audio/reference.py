"""A clip as the model sees it: mel-spectrograms of contents and references, and the windows of a reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .audio import resample
from .errors import UnsupportedAudio
from .match_eq import long_term_level, mean_power, smoothed_level
from .scratch import blocks, zeros
from .spectrogram import BANDS, Profile, highest, mel_spectrogram, silent_frames, to_image
from .windows import cut

Floats = NDArray[np.floating[Any]]

Transform = Callable[[Floats, Profile], NDArray[np.float32]]
"""`mel_spectrogram`, or what does the same elsewhere."""

VARIATION_FLOOR_DB = -20.0
"""Windows this far under the loudest one are no variation of the style."""


@dataclass(frozen=True)
class Picture:
    """A mel-spectrogram `[channel, mel, frame]` with its one scale, and which frames `[frame]` are silence."""

    mel: NDArray[np.float32]
    maximum: float
    silent: NDArray[np.bool_]
    profile: Profile

    @property
    def floor(self) -> float:
        """The magnitude of black, under which the model sees nothing; 0 for pictures that have no such end."""
        return self.maximum * 10 ** (-self.profile.range_db / 20) if self.profile.compression == "log" else 0.0

    def windows(self, starts: list[int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Pictures `[start, channel, mel, window]` in [0, 1] and the frames that count `[start, window]`."""
        counts = cut((~self.silent)[None, None].astype(np.float32), starts, self.profile.frames, 0.0)[:, 0, 0] > 0
        return to_image(cut(self.mel, starts, self.profile.frames, 0.0), self.profile, self.maximum), counts

    @property
    def level(self) -> NDArray[np.float32]:
        """Long-term level per band in dB under the maximum, over all channels and all but silence."""
        means, sounding = [], ~self.silent
        for bands in blocks(self.profile.bands, BANDS):
            power = (self.mel[:, bands][..., sounding] / (self.maximum or 1.0)) ** 2
            means.append(mean_power(power.swapaxes(0, 1).reshape(power.shape[1], -1), self.profile))
        return smoothed_level(np.concatenate(means), self.profile)


@dataclass(frozen=True)
class Shared:
    """What several clips have in common that are the sounds of one instrument.

    `maximum` is the scale of all of their pictures; `level` the long-term level per band over all of them, in dB under
    the maximum, `[mel]`.
    """

    maximum: float
    level: NDArray[np.float32]

    @classmethod
    def of(cls, pictures: Iterable[Picture], profile: Profile) -> Shared:
        """Of pictures that come one by one; silent ones do not count."""
        maximum, frames, power = 0.0, 0, np.zeros(profile.bands)
        for picture in pictures:
            maximum = max(maximum, picture.maximum)
            sounding = ~picture.silent
            for bands in blocks(profile.bands, BANDS):
                power[bands] += (picture.mel[:, bands][..., sounding].astype(np.float64) ** 2).sum((0, 2))
            frames += len(picture.mel) * int(sounding.sum())
        mean = power / max(frames, 1) / (maximum or 1.0) ** 2
        return cls(maximum, long_term_level(mean[:, None], profile))


def picture_of(
    audio: Floats,
    sample_rate: int,
    profile: Profile,
    linked: bool = True,
    shared: Shared | None = None,
    transform: Transform = mel_spectrogram,
) -> Picture:
    """The picture of audio `[channel, sample]` at any rate; linked channels give one mel, the root of their mean power.

    The power, unlike a sum of the channels, loses nothing where they are out of phase. Its scale is its own maximum or
    the `shared` one; what is silence in it does not depend on others.
    """
    mels = (transform(resample(one[None], sample_rate, profile.sample_rate), profile) for one in audio)
    mel = _root_mean_square(mels, len(audio)) if linked else _side_by_side(mels, len(audio))
    maximum = highest(mel)
    scale = shared.maximum if shared else maximum
    return Picture(mel, scale, silent_frames(mel, maximum), profile)


def _root_mean_square(mels: Iterable[NDArray[np.float32]], count: int) -> NDArray[np.float32]:
    """Of each value over so many, the first of which becomes the result."""
    power: NDArray[np.float32] | None = None
    for mel in mels:
        for bands in blocks(mel.shape[1], BANDS):
            squared = np.square(mel[:, bands], out=mel[:, bands])
            if power is not None:
                power[:, bands] += squared
        power = mel if power is None else power
    assert power is not None
    for bands in blocks(power.shape[1], BANDS):
        mean = np.divide(power[:, bands], count, out=power[:, bands])
        np.sqrt(mean, out=mean)
    return power


def _side_by_side(mels: Iterable[NDArray[np.float32]], count: int) -> NDArray[np.float32]:
    """Of so many channels as one array."""
    if count == 1:
        return next(iter(mels))
    result: NDArray[np.float32] | None = None
    for channel, mel in enumerate(mels):
        result = zeros((count, *mel.shape[1:])) if result is None else result
        for bands in blocks(mel.shape[1], BANDS):
            result[channel, bands] = mel[0, bands]
    assert result is not None
    return result


def reference_windows(picture: Picture, count: int, variation: int) -> list[int]:
    """First frames of the windows that stand for a style: the loudest, or with `variation` others, in time's order.

    Raises `UnsupportedAudio` for a reference that is silent throughout.
    """
    if picture.silent.all():
        raise UnsupportedAudio("the style reference is silent; it needs some sound")
    window, frames = picture.profile.frames, picture.mel.shape[-1]
    if frames <= window:
        return [0]
    starts = np.unique(np.append(np.arange(0, frames - window + 1, window // 4), frames - window))
    power = [(picture.mel[..., here] ** 2).sum((0, 1), dtype=np.float64) for here in blocks(frames, 4096)]
    energy = np.cumsum(np.concatenate([[0.0], *power]))
    level = energy[starts + window] - energy[starts]
    order = np.argsort(-level, kind="stable")
    if variation:
        loud = starts[level >= level.max() * 10 ** (VARIATION_FLOOR_DB / 10)]
        candidates = np.random.default_rng(variation).permutation(loud)
    else:
        candidates = starts[order]
    chosen: list[int] = []
    for start in candidates:
        if len(chosen) < count and all(abs(int(start) - other) >= window for other in chosen):
            chosen.append(int(start))
    return sorted(chosen)
