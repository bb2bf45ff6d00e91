"""The stem piece by piece while later windows are still rendered, to be listened to meanwhile.

What is sent differs from the stem that will be written in one thing: its level is that of what is known so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bursts import limit_bursts, standing_out
from .finish import finish
from .gains import Gains, limit_edges, see_under_floor
from .passage import Passage
from .reconstruction import reconstruct
from .reference import Picture
from .scratch import zeros
from .settings import Settings
from .spectrogram import Profile
from .windows import Blend

Floats = NDArray[np.floating[Any]]
Send = Callable[[Floats, int, int], None]
"""Called with the next piece `[channel, sample]`, the sample rate, and the samples of the whole stem."""

CONTEXT_SECONDS = 1
LEVEL_SECONDS = 30
"""The level is measured over so much of what has been made, at most."""
SHORTEST_SECONDS = 0.25
FADE_SECONDS = 0.05
"""From what one piece says of a moment to what the next one says."""


class NearLive:
    """Sends a render's stem in order and without gaps; `sent` counts the samples."""

    def __init__(self, send: Send) -> None:
        self._send, self.sent = send, 0
        self._held: Floats = np.zeros((0, 0))

    def begin(self, passage: Passage, settings: Settings, profile: Profile, integer: bool,
        style: float | None, style_out: float,
    ) -> None:  # fmt: skip
        """A render begins, or begins again with less memory.

        `style` is the reference's loudness in LUFS, `style_out` how far that stands out (`bursts`).
        """
        self._passage, self._settings, self._profile = passage, settings, profile
        self._integer, self._style = integer, style
        self._allowed = max(style_out, standing_out(passage.carrier, passage.sample_rate))
        self._wet = zeros(passage.carrier.shape, passage.carrier.dtype)
        self._made = max(0, passage.first - CONTEXT_SECONDS * passage.sample_rate)

    def window(self, blended: Blend, picture: Picture, sounding: int) -> None:
        """Another window of the clip's picture is in the blend; `sounding` is the first frame whose STFT lies wholly in
        the sound.
        """
        passage, rate, settled = self._passage, self._passage.sample_rate, blended.settled
        high = min(round(settled / self._profile.frame_rate * rate), passage.carrier.shape[1])
        # The STFT around here still hears what is not settled.
        until = min(high - round(self._profile.window / self._profile.sample_rate * rate), passage.last)
        if until - max(self._made, passage.first) < SHORTEST_SECONDS * rate:
            return
        # On a whole second, where at every rate a frame begins.
        low = max(0, self._made // rate - CONTEXT_SECONDS) * rate
        first = round(low / rate * self._profile.frame_rate)
        styled = reference = blended.part(first, settled)
        if self._settings.reconstruction == "gain":
            styled, reference = np.split(styled, 2)
            see_under_floor(styled, reference, picture.mel[..., first:settled], picture.floor)
            limit_edges(styled, reference, sounding - first, settled - first - 1)
        piece = replace(
            passage,
            carrier=passage.carrier[:, low:high],
            dry=passage.dry[:, low:high],
            first=max(0, passage.first - low),
            last=min(high, passage.last) - low,
        )
        wet = reconstruct(piece, Gains(styled, reference, self._profile), self._settings)
        self._wet[:, self._made : until] = wet[:, self._made - low : until - low]
        self._made = until
        self._emit(self._finished(until), until - passage.first, passage.last - passage.first)

    def end(self, stem: Floats, sample_rate: int) -> None:
        """The render is done: the rest."""
        rest = stem[:, self.sent :]
        if self._held.size:
            rest = _crossfaded(self._held, rest)
        self._send(rest, sample_rate, stem.shape[1])
        self.sent = stem.shape[1]

    def _finished(self, until: int) -> Floats:
        """The stem up to `until`, of the last `LEVEL_SECONDS` seconds."""
        passage = self._passage
        # All that has not been sent, however much became settled at once.
        low = max(0, min(until - LEVEL_SECONDS * passage.sample_rate, passage.first + self.sent))
        part = replace(
            passage,
            carrier=passage.carrier[:, low:until],
            dry=passage.dry[:, low:until],
            first=max(0, passage.first - low),
            last=until - low,
            loop=None,
            wraps=False,
            tail=max(0, until - (passage.last - passage.tail)),
        )
        wet = self._wet[:, low:until].copy()
        limit_bursts(wet, passage.sample_rate, self._allowed)
        return finish(part, wet, self._settings, self._integer, self._style)[0]

    def _emit(self, finished: Floats, until: int, total: int) -> None:
        rate = self._passage.sample_rate
        fade = round(FADE_SECONDS * rate)
        if until - fade <= self.sent:
            # Heard before the render began again.
            return
        new = finished[:, finished.shape[1] - (until - self.sent) :]
        if self._held.size:
            new = _crossfaded(self._held, new)
        self._held = new[:, -fade:]
        self._send(new[:, :-fade], rate, total)
        self.sent = until - fade


def _crossfaded(before: Floats, after: Floats) -> Floats:
    """`after`, begun as `before`."""
    length = min(before.shape[1], after.shape[1])
    fade = np.linspace(0, 1, length, dtype=after.dtype)
    result = after.copy()
    result[:, :length] = before[:, :length] + fade * (after[:, :length] - before[:, :length])
    return result
