"""What a render's model part ends in: the stylised mel and what it is compared with, as a value of its own.

Mix, amount, kept bands, attacks and level are applied behind it, and can be changed without the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scratch import blocks
from .spectrogram import BANDS, Profile, band_centres, highest, hz_to_mel, loudest

Floats = NDArray[np.floating[Any]]

LIMIT_DB = 60.0
"""How far a gain may go, so that a decayed piano note can sustain like an organ (METHOD 5)."""

FLOOR_DB = -100.0
"""Both mels count as at least this much under their maximum, so that silence over silence is no gain."""

HEARD_DB = 8.0
"""What is so far over a picture's floor is no black of its model's."""
SOUNDING_DB = 40.0
"""A moment whose loudest band is so far over its picture's floor is no rest, and no end of a fade-out."""
SEEN_DB = -40.0
"""How far under its picture's floor a clip is seen: there is nothing but rounding beyond."""


@dataclass(frozen=True)
class Gains:
    """Gains of a clip per band and frame.

    `styled` and `reference` are magnitude mels `[channel, mel, frame]` at `profile`: what the model returned with and
    without style. One channel serves all channels of the clip.
    """

    styled: NDArray[np.float32]
    reference: NDArray[np.float32]
    profile: Profile
    seams: tuple[float, ...] = ()
    """Where the model's windows were joined, in seconds."""
    standing_out: float = math.inf
    """How far the styles' loudest moment lies over what is usual in them, in dB (`bursts`); what follows is bounded."""

    @cached_property
    def _floor(self) -> float:
        return max(highest(self.styled), highest(self.reference)) * 10 ** (FLOOR_DB / 20)

    @property
    def db(self) -> NDArray[np.float32]:
        """Gain in dB, `[channel, mel, frame]`, within ±`LIMIT_DB`."""
        return self._db(slice(None))

    def _db(self, frames: slice) -> NDArray[np.float32]:
        styled, reference = self.styled[..., frames], self.reference[..., frames]
        if self._floor <= 0:
            return np.zeros_like(styled)
        ratio = np.maximum(styled, self._floor) / np.maximum(reference, self._floor)
        return np.asarray(np.clip(20 * np.log10(ratio), -LIMIT_DB, LIMIT_DB), np.float32)

    def db_at(self, times: Floats, frequencies: Floats) -> NDArray[np.float32]:
        """Gain in dB at ascending `times` (s) and `frequencies` (Hz), `[channel, bin, time]`, as `spread` has it.

        Only the frames around these times are worked on.
        """
        rate, frames = self.profile.frame_rate, self.styled.shape[-1]
        first = min(int(times[0] * rate), frames - 1)
        last = int(times[-1] * rate) + 2
        return spread(self._db(slice(first, last)), self.profile, times - first / rate, frequencies)

    def channel(self, number: int) -> Gains:
        """The gains that one channel of the clip takes."""
        if self.styled.shape[0] == 1:
            return self
        here = slice(number, number + 1)
        return replace(self, styled=self.styled[here], reference=self.reference[here])


def see_under_floor(
    styled: NDArray[np.float32], reference: NDArray[np.float32], mel: NDArray[np.float32], floor: float
) -> None:
    """Change `reference`, which ends at its picture's `floor`, to the clip's own `mel` where that lies under it.

    Else what rises out of there would be lower by as much as the clip lies under the floor. Only as far as `styled` is
    over it, up to `HEARD_DB`: both black is no gain. And only as far as the clip sounds in that moment, up to
    `SOUNDING_DB`: in a rest or at the end of a fade-out it is dither that would rise. All are magnitudes
    `[channel, mel, frame]`.
    """
    if floor <= 0:
        return
    sounding = np.clip(20 / SOUNDING_DB * np.log10(np.maximum(loudest(mel) / floor, 1)), 0, 1)
    least = 10 ** (SEEN_DB / 20)
    for bands in blocks(mel.shape[1], BANDS):
        heard = np.clip(20 / HEARD_DB * np.log10(np.maximum(styled[:, bands] / floor, 1)), 0, 1)
        reference[:, bands] *= np.clip(mel[:, bands] / floor, least, 1) ** (heard * sounding)


def limit_edges(styled: NDArray[np.float32], reference: NDArray[np.float32], first: int, last: int) -> None:
    """Change `styled` so that before `first` and after `last` no gain is over those frames'; both are magnitudes.

    Where a clip begins or ends at once, the frames there are half silence, and what a model makes of them can be a
    burst. A gain there may well be lower: the content's own edge is a click, of bands in which it has nothing else.
    """
    if not 0 <= first < last < styled.shape[-1]:
        return
    floor = np.float32(highest(reference) * 10 ** (FLOOR_DB / 20))
    for frame, edge in ((first, slice(0, first)), (last, slice(last + 1, None))):
        ratio = (styled[..., frame] + floor) / (reference[..., frame] + floor + 1e-30)
        np.minimum(styled[..., edge], reference[..., edge] * ratio[..., None], out=styled[..., edge])


def spread(values: Floats, profile: Profile, times: Floats, frequencies: Floats) -> NDArray[np.float32]:
    """Values per band and frame `[channel, mel, frame]` at `times` (s) and `frequencies` (Hz): `[channel, bin, time]`.

    Linear between band centres on the mel scale and between frames; outside, the nearest band and frame hold, so bins
    over the model's range follow its highest band.
    """
    frames = values.shape[-1]
    along = _between(np.asarray(times) * profile.frame_rate, frames)
    return _interpolated(_interpolated(values, *along, axis=2), *across(profile, frequencies), axis=1)


def across(profile: Profile, frequencies: Floats) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """For each frequency (Hz) the band at or under it, and the share that the next one over it has, `[frequency]`."""
    centres = hz_to_mel(band_centres(profile))
    return _between(np.interp(hz_to_mel(frequencies), centres, np.arange(profile.bands)), profile.bands)


def _between(position: Floats, count: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    position = np.clip(position, 0, count - 1)
    # A position that is a whole number but for rounding must be exactly that frame.
    whole = np.round(position)
    position = np.where(np.abs(position - whole) < 1e-6, whole, position)
    low = np.floor(position).astype(np.intp)
    return low, (position - low).astype(np.float32)


def _interpolated(values: Floats, low: NDArray[np.intp], share: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    result = np.take(values, low, axis=axis)
    if share.any():
        shape = [1] * values.ndim
        shape[axis] = -1
        share = share.reshape(shape)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        result = result * (1 - share) + np.take(values, high, axis=axis) * share
    return np.asarray(result, np.float32)
