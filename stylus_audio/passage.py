"""What of a clip is rendered, and in which surroundings: segment, preview, loop, tail.

Audio is `[channel, sample]` at the clip's own sample rate; positions are samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .audio import Clip
from .errors import BadRequest
from .riff import Loop, loop_of
from .scratch import SAMPLES, blocks, padded, zeros
from .settings import Settings, to_samples

Floats = NDArray[np.floating[Any]]

TAIL_DECAY_DB = -60.0
"""What a tail fades to."""
NOTHING = 1e-20
"""A sample under it is silence, as floats leave it that have decayed: its power is no float any more."""


@dataclass(frozen=True)
class Passage:
    """The body to render and the carrier that it is rendered on.

    `carrier` is the body with its surroundings: context, the loop's other turns, the tail ringing out, silence. `dry`
    is what the clip itself has there: the same, but silence in the tail, the last `tail` samples of the stem. The stem
    is `[first, last)` of it. `loop` is in samples of the stem; `wraps` says that the carrier goes round it.
    """

    carrier: Floats
    dry: Floats
    sample_rate: int
    first: int
    last: int
    offset: int
    """Where the body starts in the clip's file."""
    loop: Loop | None = None
    wraps: bool = False
    tail: int = 0


def segment_of(settings: Settings, total: int, sample_rate: int) -> tuple[int, int]:
    """The asked segment in samples; `BadRequest` where it is empty or outside the clip."""
    start = to_samples(settings.start, sample_rate) if settings.start is not None else 0
    end = min(total, to_samples(settings.end, sample_rate)) if settings.end is not None else total
    if not 0 <= start < end:
        raise BadRequest(
            f"start {start / sample_rate:g} s and end {end / sample_rate:g} s hold nothing of a clip of "
            f"{total / sample_rate:g} s"
        )
    return start, end


def is_segment(settings: Settings) -> bool:
    """Whether ends of the clip are asked for, which may be its own."""
    return settings.start is not None or settings.end is not None


def passage_of(clip: Clip, settings: Settings, start: int, end: int, context: int, margin: int) -> Passage:
    """The passage for `[start, end)`, in samples of the clip's file, of which `clip` has read enough surroundings.

    A loop is surrounded by `context` samples of its other turns; anything else by `margin` samples of silence, so that
    a clip is rendered alike whether silence follows it in the file or not.
    """
    audio, rate = clip.audio, clip.sample_rate
    first, last = start - clip.offset, end - clip.offset
    if settings.preview is not None:
        first, last = loudest(audio, to_samples(settings.preview, rate))
        start = clip.offset + first
    loop = _inside(loop_of(clip.chunks, clip.total), start, last - first)
    if settings.loop == "off":
        loop = None
    elif settings.loop == "on":
        loop = Loop(0, last - first)
    whole = loop == Loop(0, last - first)
    if whole and settings.tail:
        # What goes round has no end that could ring out.
        loop = None
    elif whole and last - first > 1:
        carrier = _turns(audio[:, first:last], context)
        return Passage(carrier, carrier, rate, context, context + last - first, start, loop, wraps=True)
    tail = to_samples(settings.tail, rate)
    if tail:
        body = audio[:, :last]
        carrier, dry = (padded(body, margin, tail + margin) for _ in range(2))
        ringing = rung_out(body, tail, rate)
        # They agree in what they ring of, and where they do not, as in a vibrato, a step would be heard as an attack.
        shared = ringing.shape[1] - tail
        in_ = np.linspace(0, 1, shared, endpoint=False, dtype=carrier.dtype)
        join = slice(margin + last - shared, margin + last)
        carrier[:, join] += in_ * (ringing[:, :shared] - carrier[:, join])
        carrier[:, margin + last : margin + last + tail] = ringing[:, shared:]
    else:
        carrier = dry = padded(audio, margin, margin)
    return Passage(carrier, dry, rate, margin + first, margin + last + tail, start, loop, tail=tail)


def _inside(loop: Loop | None, start: int, samples: int) -> Loop | None:
    """A loop of the file in samples of a passage of it; None where that does not hold all of it."""
    if loop is None or not start <= loop.start < loop.end <= start + samples:
        return None
    return Loop(loop.start - start, loop.end - start)


def _turns(loop: Floats, context: int) -> Floats:
    """A loop with so many samples of its other turns before and behind it."""
    length = loop.shape[1]
    result = zeros((len(loop), length + 2 * context), loop.dtype)
    for here in blocks(result.shape[1], SAMPLES):
        result[:, here] = loop[:, np.mod(np.arange(here.start, here.stop) - context, length)]
    return result


def is_silent(audio: Floats) -> bool:
    """Whether there is nothing in `[channel, sample]` that can be told from nothing."""
    return not any((np.abs(audio[:, here]) > NOTHING).any() for here in blocks(audio.shape[1], SAMPLES))


def loudest(audio: Floats, length: int) -> tuple[int, int]:
    """The loudest passage of `length` samples, to a hundredth of its length.

    >>> loudest(np.concatenate([np.zeros((1, 500)), np.ones((1, 100)), np.zeros((1, 400))], axis=1), 100)
    (500, 600)
    """
    samples = audio.shape[1]
    if length >= samples:
        return 0, samples
    power = zeros((samples + 1,), np.float64)
    for here in blocks(samples, SAMPLES):
        piece = power[here.start + 1 : here.stop + 1]
        for channel in audio[:, here]:
            piece += np.square(channel, dtype=np.float64)
        piece[0] += power[here.start]
        np.cumsum(piece, out=piece)
    starts = np.arange(0, samples - length + 1, max(1, length // 100))
    best = int(starts[np.argmax(power[starts + length] - power[starts])])
    return best, best + length


def rung_out(audio: Floats, tail: int, sample_rate: int) -> Floats:
    """The clip's last moment frozen and fading over `tail` samples: what its end would do in a room of its own.

    The spectrum of the last 100 ms, of a shorter clip four fifths, with the phases that its partials would have run on
    to (a phase vocoder). In front of the tail's samples are those of the clip's last 25 ms, or a fifth of it, as it has
    them, to be joined with the clip.
    """
    # A quarter of it more is for the frame before.
    size = min(audio.shape[1] * 4 // 5, 2 * round(0.05 * sample_rate))
    size -= size % 2
    if size < 32:
        return np.zeros((audio.shape[0], tail), audio.dtype)
    hop = size // 4
    window = np.hanning(size + 1)[:-1]
    # Two frames a hop apart tell how far each partial's phase runs in a hop.
    later, earlier = (
        np.fft.rfft(audio[:, end - size : end] * window) for end in (audio.shape[1], audio.shape[1] - hop)
    )
    expected = 2 * np.pi * np.arange(later.shape[-1]) / size * hop
    advance = expected + _wrapped(np.angle(later) - np.angle(earlier) - expected)
    result = np.zeros((audio.shape[0], tail + 2 * size))
    for number in range((tail + size) // hop + 1):
        # Frame 0 is the last one of the clip: it starts `size` before the tail.
        phase = np.angle(later) + advance * number
        frame = np.fft.irfft(np.abs(later) * np.exp(1j * phase), size)
        at = number * hop
        if at + size <= result.shape[1]:
            result[:, at : at + size] += frame * window * (2 / 3)
    ringing = result[:, size - hop : size + tail]
    fade = np.ones(hop + tail)
    fade[hop:] = 10 ** (np.linspace(0, TAIL_DECAY_DB, tail) / 20)
    fade[-min(tail, round(0.01 * sample_rate)) :] *= np.linspace(1, 0, min(tail, round(0.01 * sample_rate)))
    return np.asarray(ringing * fade, audio.dtype)


def _wrapped(phase: Floats) -> Floats:
    return np.asarray((phase + np.pi) % (2 * np.pi) - np.pi)
