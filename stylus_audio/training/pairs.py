"""Batches to train on, drawn from the groups of `dataset.py`: contents, their match-EQ, true answers and references.

A sound is an instrument of a group, or two of them in layers, that rings longer, is noisier or has another range, and
goes through an equaliser, all drawn anew: more sounds than a soundfont has. All of it runs on the training's device.
Pictures are `[..., mel, frame]` in [0, 1], as `to_image` has them: 0 is silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..match_eq import KNOWN_SLOPE, LIMIT_DB, kernel
from ..spectrogram import MINI
from .dataset import LEVELS, SOUNDS
from .run import sent

CONTENTS, REFERENCES = 4, 2
"""Windows of each in one style: the references are read once for all of the contents."""

OWN = 0.05
"""Share of contents that are in the style already, and are to stay as they are."""
LAYERED = 0.2
EQUALISED = 0.5
LAYER_DB = (-12.0, 6.0)
TILT_DB, BELL_DB, BELLS = 8.0, 7.0, 4
"""Deviations of an equaliser's tilt, from end to end, and of its bells."""
RINGING, NOISY, RANGED = 0.2, 0.2, 0.2
RING_SECONDS = (0.2, 6.0)
"""In which a sound that rings falls by 60 dB."""
NOISE_DB = (-65.0, -25.0)
"""Of the noise under the loudest band of its frame."""
RANGES = (0.7, 1.3)
"""What dB under the maximum are multiplied with."""
SOUNDING = 0.3
"""A window of which no frame reaches this is drawn again, a few times."""
TRIES = 4
_PER_DB = 1 / MINI.range_db
NEPER = MINI.range_db / 10 * float(np.log(10))
"""Of a picture's value, in logarithms of power."""


@dataclass(frozen=True)
class Pairs:
    """A batch of windows `[window, mel, frame]`, `CONTENTS` and `REFERENCES` of one style after the other."""

    content: Tensor
    guide: Tensor
    answer: Tensor
    reference: Tensor


def draw(
    groups: NDArray[np.uint8] | Tensor, rng: np.random.Generator, styles: int, frames: int = MINI.frames,
    device: torch.device | str = "cpu", varied: bool = True,
) -> Pairs:  # fmt: skip
    """Pairs in `styles` styles of `groups` `[group, sound, piece, mel, frame]`, on `device`.

    Without `varied` a sound is what a group has, with no layer and no equaliser.
    """
    chosen = np.sort(rng.integers(len(groups), size=styles))
    there = groups[sent(chosen, device)] if isinstance(groups, Tensor) else sent(np.asarray(groups[chosen]), device)
    clips = there.float() / LEVELS
    rows = torch.arange(styles, device=device)
    sounds = sent(np.argsort(rng.random((styles, SOUNDS)), 1), device)
    piece = sent(rng.integers(2, size=styles), device)
    # [style, answer or reference, mel, frame]
    style = torch.stack([clips[rows, sounds[:, 0], piece], clips[rows, sounds[:, 0], 1 - piece]], 1)
    if varied:
        layer = torch.stack([clips[rows, sounds[:, 1], piece], clips[rows, sounds[:, 1], 1 - piece]], 1)
        gain = sent(rng.uniform(*LAYER_DB, styles).astype(np.float32), device)
        both = sent(rng.random(styles) < LAYERED, device)
        style = torch.where(_over(both, style), layered(style, layer, _over(gain, style)), style)
        style = _varied(style, rng)
    answer, reference = style[:, 0], style[:, 1]
    contents = torch.stack([clips[rows, sounds[:, 1], piece], clips[rows, sounds[:, 2], piece]], 1)
    if varied:
        contents = _varied(contents.flatten(0, 1)[:, None], rng).reshape(contents.shape)
    contents = contents.repeat_interleave(CONTENTS // 2, 1)
    own = sent(rng.random((styles, CONTENTS)) < OWN, device)
    contents = torch.where(own[..., None, None], answer[:, None], contents)
    gains = (level(reference)[:, None] - level(contents)).clamp(-LIMIT_DB, LIMIT_DB)

    answers, references = (
        clip[:, None].expand(-1, count, -1, -1) for clip, count in ((answer, CONTENTS), (reference, REFERENCES))
    )
    here, there = _starts(rng, contents, frames), _starts(rng, references, frames)
    content = _windows(contents, here, frames)
    guide = equalised(content, gains)
    wanted, read = _windows(answers, here, frames), _windows(references, there, frames)
    return Pairs(*(one.flatten(0, 1) for one in (content, guide, wanted, read)))


def level(picture: Tensor) -> Tensor:
    """`long_term_level` of each picture's frames but the silent ones, `[..., mel]` in dB under its maximum."""
    power = 10 ** ((picture - 1) * (MINI.range_db / 10))
    counts = (picture.amax(-2, keepdim=True) > 0).float()
    mean = (power * counts).sum(-1) / counts.sum(-1).clamp_min(1)
    weights = sent(kernel(MINI).astype(np.float32), picture.device)
    reach = len(weights) // 2
    flat = F.pad(mean.reshape(-1, 1, mean.shape[-1]), (reach, reach), mode="replicate")
    return 10 * F.conv1d(flat, weights[None, None]).reshape(mean.shape).clamp_min(1e-12).log10()


def equalised(picture: Tensor, gain: Tensor) -> Tensor:
    """A picture with a gain in dB per band `[..., mel]`, as the function of `match_eq.py`."""
    return (picture + _known(picture) * (gain[..., None] * _PER_DB)).clamp(0, 1)


def _known(picture: Tensor) -> Tensor:
    return (picture * KNOWN_SLOPE).clamp(0, 1)


def layered(one: Tensor, other: Tensor, gain: Tensor) -> Tensor:
    """Two sounds of the same music at once, the second with a gain in dB: their powers add up."""
    floor = 10 ** (-MINI.range_db / 10)
    powers = [10 ** ((picture - 1) * (MINI.range_db / 10)) - floor for picture in (one, other)]
    power = powers[0] + powers[1] * 10 ** (gain / 10)
    power = power / power.amax((-2, -1), keepdim=True).clamp_min(floor)
    return (1 + power.clamp_min(floor).log10() * (10 * _PER_DB)).clamp(0, 1)


def ringing(pictures: Tensor, seconds: Tensor) -> Tensor:
    """Sounds that fall by no more than 60 dB in so many seconds; one value a sound, for all of its bands."""
    fall = 60 / (seconds * MINI.frame_rate) * _PER_DB
    fallen = _over(fall, pictures) * torch.arange(pictures.shape[-1], device=pictures.device)
    # What falls evenly is a maximum of all that came before, once the fall is taken off.
    return ((pictures + fallen).cummax(-1).values - fallen).clamp_min(0)


def noisy(pictures: Tensor, level: Tensor, generator: torch.Generator) -> Tensor:
    """Sounds with noise at `level` `[sound, mel]`, in dB over the loudest band of each frame, wherever they sound."""
    loudest = pictures.amax(-2, keepdim=True)
    # The power of a few bins, as a band adds it up.
    drawn = torch.rand(2, *pictures.shape, device=pictures.device, generator=generator)
    speckle = -drawn.clamp_min(1e-6).log().mean(0)
    noise = loudest + level[:, None, :, None] * _PER_DB + speckle.log() / NEPER
    both = torch.logaddexp(pictures * NEPER, noise * NEPER) / NEPER
    # Silence has neither.
    return torch.where(loudest > 0, torch.where(pictures > 0, both, noise).clamp(0, 1), pictures)


def _varied(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Each sound `[sound, picture, mel, frame]` changed in its own way, or as it is; then with its own maximum."""
    sounds, device = len(pictures), pictures.device

    def sometimes(share: float, changed: Tensor) -> Tensor:
        return torch.where(_over(sent(rng.random(sounds) < share, device), pictures), changed, pictures)

    def drawn(values: NDArray[Any]) -> Tensor:
        return sent(values.astype(np.float32), device)

    pictures = sometimes(RINGING, ringing(pictures, drawn(_log_uniform(rng, *RING_SECONDS, sounds))))
    levels = drawn(rng.uniform(*NOISE_DB, (sounds, 1)) + _curve(rng, sounds))
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    pictures = sometimes(NOISY, noisy(pictures, levels, generator))
    kept = _over(drawn(rng.uniform(*RANGES, sounds)), pictures)
    ranged = (1 - (1 - pictures) * kept).clamp_min(0)
    pictures = sometimes(RANGED, pictures + _known(pictures) * (ranged - pictures))
    gain = drawn(_curve(rng, sounds))[:, None, :, None] * _PER_DB
    known = _known(pictures)
    changed = sometimes(EQUALISED, pictures + known * gain)
    return (changed + known * (1 - changed.amax((-2, -1), keepdim=True))).clamp(0, 1)


def _log_uniform(rng: np.random.Generator, low: float, high: float, count: int) -> NDArray[np.float64]:
    return np.asarray(low * (high / low) ** rng.random(count))


def _curve(rng: np.random.Generator, sounds: int) -> NDArray[np.float64]:
    """An equaliser's gain in dB, `[sound, mel]`."""
    bands = np.linspace(-0.5, 0.5, MINI.bands)
    curve = rng.normal(0, TILT_DB, (sounds, 1)) * bands
    for _ in range(BELLS):
        centre, width = rng.uniform(-0.5, 0.5, (sounds, 1)), 10 ** rng.uniform(-1.7, -0.5, (sounds, 1))
        curve += rng.normal(0, BELL_DB, (sounds, 1)) * np.exp(-0.5 * ((bands - centre) / width) ** 2)
    return curve


def _starts(rng: np.random.Generator, clips: Tensor, frames: int) -> Tensor:
    """For each clip `[style, clip, mel, frame]` a start whose window is not all silence, if a few tries find one."""
    styles, count, _, length = clips.shape
    tries = sent(rng.integers(0, length - frames + 1, (styles, count, TRIES)), clips.device)
    sounding = F.pad((clips.amax(-2) > SOUNDING).long().cumsum(-1), (1, 0))
    heard = sounding.gather(-1, tries + frames) > sounding.gather(-1, tries)
    # The first that is heard, or the first.
    best = heard.long().argmax(-1, keepdim=True)
    return tries.gather(-1, best)[..., 0]


def _windows(clips: Tensor, starts: Tensor, frames: int) -> Tensor:
    places = starts[..., None, None] + torch.arange(frames, device=clips.device)
    return clips.gather(-1, places.expand(-1, -1, clips.shape[-2], -1))


def _over(values: Tensor, pictures: Tensor) -> Tensor:
    """One value a style over all of its pictures."""
    return values.reshape(-1, *(1 for _ in pictures.shape[1:]))
