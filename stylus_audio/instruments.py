"""Which family of instruments is heard: a small classifier of our own, for the share of stems that are taken for their
style's instrument (the accuracy metric of Huang et al., arXiv 2404.14771).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from .audio import Clip
from .places import MODELS
from .reference import picture_of
from .spectrogram import MINI, to_image
from .windows import cut, window_starts

Floats = NDArray[np.floating[Any]]

FAMILIES = (
    "piano", "chromatic percussion", "organ", "guitar", "bass", "strings", "ensemble", "brass", "reed", "pipe",
    "synth lead", "synth pad", "synth effects", "ethnic", "percussive", "drums",
)  # fmt: skip
"""General MIDI's of eight programs each, without its sound effects, and drum kits."""

FRAMES = 128
"""What is heard at once: 1.28 s."""
WEIGHTS = "model.safetensors"
_WIDTHS = (32, 48, 64, 96)
_POOLED = 4
"""Bands that count as one: pitch is no matter here."""


class InstrumentNet(nn.Module):
    """Pictures on `MINI`'s grid, `[window, mel, frame]` in [0, 1], to logits `[window, family]`."""

    def __init__(self) -> None:
        super().__init__()
        # The picture, and where in the spectrum it is.
        inputs = (2, *_WIDTHS[:-1])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3 if number else 5, 2, 1 if number else 2)
            for number, (before, after) in enumerate(zip(inputs, _WIDTHS, strict=True))
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in _WIDTHS)
        self.drop = nn.Dropout(0.2)
        self.leave = nn.Linear(3 * _WIDTHS[-1], len(FAMILIES))

    def forward(self, picture: Tensor) -> Tensor:
        """Statistics over all places of convolutional features, weighed."""
        pooled = F.avg_pool2d(picture[:, None], (_POOLED, 1))
        ramp = torch.linspace(-1, 1, pooled.shape[2], device=picture.device)[:, None].expand_as(pooled)
        features = torch.cat([4 * pooled - 2, ramp], 1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            features = F.silu(norm(convolution(features)))
        places = features.flatten(2)
        logits: Tensor = self.leave(self.drop(torch.cat([places.mean(2), places.std(2), places.amax(2)], 1)))
        return logits


@lru_cache(maxsize=1)
def load(folder: Path = MODELS / "instruments") -> InstrumentNet:
    """The embedded classifier, or one that our trainer has exported."""
    network = InstrumentNet()
    network.load_state_dict(load_file(folder / WEIGHTS))
    return network.eval()


@torch.no_grad()
def family_probabilities(
    audio: Floats, sample_rate: int, network: InstrumentNet | None = None
) -> NDArray[np.float64] | None:
    """How probable each of `FAMILIES` is, `[family]`, for a clip `[channel, sample]`; None for silence.

    The mean over windows of what each is heard as, without silent ones; level does not count.
    """
    seen = picture_of(audio, sample_rate, MINI)
    if seen.silent.all():
        return None
    image = to_image(seen.mel, MINI, seen.maximum)
    starts = window_starts(image.shape[-1], FRAMES, 0.5)
    windows = cut(image, starts, FRAMES, 0.0)[:, 0]
    sounding = [row for row, start in enumerate(starts) if not seen.silent[start : start + FRAMES].all()]
    logits = (network or load())(torch.from_numpy(windows[sounding]))
    return np.asarray(logits.double().softmax(1).mean(0).numpy())


def instrument_match(stem: Clip, style: Clip | None) -> float | None:
    """1 where a stem and its style are heard as one family, else 0; None without a style, and for silence.

    The mean over many stems is the accuracy.
    """
    if style is None:
        return None
    ours, theirs = (family_probabilities(one.audio, one.sample_rate) for one in (stem, style))
    return None if ours is None or theirs is None else float(ours.argmax() == theirs.argmax())
