"""From gains to the wet sound, in the way that is asked for (METHOD 5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .bursts import limit_bursts, standing_out
from .gains import Gains
from .passage import Passage
from .phase import CPU, Stft, apply_gain, apply_phase, griffin_lim
from .pre_echo import without_pre_echo
from .scratch import SAMPLES, blocks, zeros
from .settings import Settings
from .spectrogram import Profile

Floats = NDArray[np.floating[Any]]

OF_CONTENT = ("gain", "phase")
"""Reconstructions that have the content's phase."""


def reconstruct(
    passage: Passage,
    gains: Gains,
    settings: Settings,
    done: Callable[[float], None] = lambda fraction: None,
    device: torch.device = CPU,
) -> Floats:
    """The wet sound on the passage's carrier, `[channel, sample]`; needs no model but GuideDiff, where that is asked.

    `done` is called with the fraction that is, where it takes long. The transforms run on `device`.
    """
    # Of a preview the carrier is the whole clip, for its statistics; the sound is wanted of the passage alone.
    whole = settings.reconstruction in OF_CONTENT and settings.preview is None
    wet = (_reconstructed if whole else _around_body)(passage, gains, settings, done, device)
    if settings.reconstruction == "gain":
        without_pre_echo(wet, passage.carrier, passage.sample_rate)
    if math.isfinite(gains.standing_out):
        own = standing_out(passage.carrier, passage.sample_rate)
        limit_bursts(wet, passage.sample_rate, max(own, gains.standing_out))
    return wet


def _around_body(
    passage: Passage, gains: Gains, settings: Settings, done: Callable[[float], None], device: torch.device
) -> Floats:
    """As `_reconstructed`, of the stem and a second around it: long work is not done for all of a long carrier."""
    rate, frame_rate = passage.sample_rate, gains.profile.frame_rate
    step = _common_step(gains.profile, rate)
    low, high = max(0, passage.first - rate) // step * step, passage.last + rate
    here = slice(low, high)
    frames = slice(round(low / rate * frame_rate), round(high / rate * frame_rate) + 2)
    piece = replace(passage, carrier=passage.carrier[:, here], dry=passage.dry[:, here])
    part = replace(gains, styled=gains.styled[..., frames], reference=gains.reference[..., frames])
    wet = zeros(passage.carrier.shape, passage.carrier.dtype)
    wet[:, here] = _reconstructed(piece, part, settings, done, device)
    return wet


def _common_step(profile: Profile, sample_rate: int) -> int:
    """Samples from one place where a frame of the profile and one of the clip's STFT lie together to the next.

    A piece that begins there has its frames where the whole carrier has them.

    >>> from stylus_audio.spectrogram import MINI
    >>> [_common_step(MINI, rate) for rate in (44100, 22050, 48000)]
    [441, 97020, 480]
    """
    frame = Fraction(profile.hop * sample_rate, profile.sample_rate)
    return lcm(Stft.like(profile, sample_rate).hop, frame.numerator)


def _reconstructed(
    passage: Passage, gains: Gains, settings: Settings, done: Callable[[float], None], device: torch.device
) -> Floats:
    carrier = mid_side(passage.carrier) if settings.stereo == "mid-side" else passage.carrier
    rate, seed = passage.sample_rate, settings.seed
    iterations = settings.refine
    if iterations is None:
        iterations = 8 if settings.reconstruction in OF_CONTENT else 32
    if settings.reconstruction == "guidediff":
        # Only here is diffusers needed for sound.
        from .vocoder import decoded

        wet = decoded(carrier, rate, gains, iterations, seed, done=done)
    elif settings.reconstruction == "griffin-lim":
        wet = griffin_lim(carrier, rate, gains, iterations, seed)
    else:
        apply = apply_gain if settings.reconstruction == "gain" else apply_phase
        wet = apply(carrier, rate, gains, iterations, device)
    return mid_side(wet) if settings.stereo == "mid-side" else wet


def mid_side(audio: Floats) -> Floats:
    """Left and right to mid and side and back: its own inverse.

    >>> mid_side(mid_side(np.array([[1.0], [0.5]]))).round(6).tolist()
    [[1.0], [0.5]]
    """
    result, half = zeros(audio.shape, audio.dtype), audio.dtype.type(0.5**0.5)
    for here in blocks(audio.shape[1], SAMPLES):
        left, right = audio[:, here]
        result[:, here] = (left + right) * half, (left - right) * half
    return result
