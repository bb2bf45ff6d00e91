"""GuideDiff on a clip: from the stylised mel to sound, without the content's phase (`--reconstruction guidediff`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .audio import resample
from .gains import Gains
from .guidediff import GuideDiff
from .phase import Stft, inverted_mel, refined, shared_out
from .places import MODELS
from .quiet import quiet
from .spectrogram import MINI, frame_count, from_image, mel_spectrogram, to_image

Floats = NDArray[np.floating[Any]]

BLOCK_FRAMES, OVERLAP_FRAMES = 1000, 100
"""Long clips are decoded in blocks; where two overlap both start from the same noise, and they are crossfaded."""


@lru_cache(maxsize=1)
def load(folder: Path = MODELS / "guidediff") -> GuideDiff:
    """The embedded decoder, or one that our trainer has exported."""
    with quiet():
        decoder: GuideDiff = GuideDiff.from_pretrained(folder, use_safetensors=True).float().eval()
    return decoder


def decoded(
    audio: Floats,
    sample_rate: int,
    gains: Gains,
    iterations: int = 32,
    seed: int = 0,
    decoder: GuideDiff | None = None,
    done: Callable[[float], None] = lambda fraction: None,
) -> NDArray[np.float32]:
    """The stylised mel as sound; the content `[channel, sample]` only gives its channels' levels.

    `gains` are on `MINI`'s grid, on whose pictures GuideDiff was trained. `iterations` of Griffin and Lim start from
    the phase that it has found. All channels start from one noise, so that what they share stays in the middle. `done`
    is called with the fraction that is.
    """
    decoder = decoder or load()
    stft = Stft.like(MINI, MINI.sample_rate, padded=True)
    content = resample(audio, sample_rate, MINI.sample_rate)
    samples = content.shape[1]
    # Of an excerpt they reach further.
    mel = torch.from_numpy(gains.styled)[..., : frame_count(samples, MINI.hop)]
    if mel.shape[0] < len(content):
        mel = shared_out(mel, torch.from_numpy(mel_spectrogram(content, MINI)))
    maximum = float(mel.max())
    if maximum <= 0:
        return np.zeros(audio.shape, np.float32)
    # As the picture says it: no deeper than its range.
    picture = to_image(mel.numpy(), MINI, maximum)
    shown = from_image(picture, MINI, maximum)
    white = torch.randn(1, samples, generator=torch.Generator().manual_seed(seed))
    result = np.zeros(content.shape, np.float32)
    starts = range(0, max(1, picture.shape[-1] - OVERLAP_FRAMES), BLOCK_FRAMES)
    for start in starts:
        low, end = start * MINI.hop, min(samples, (start + BLOCK_FRAMES + OVERLAP_FRAMES) * MINI.hop)
        here = slice(start, start + 1 + (end - low) // MINI.hop)
        for channel in range(len(content)):
            done((starts.index(start) + channel / len(content)) / len(starts))
            # A picture has a floor, and silence would become hiss.
            if not mel[channel, :, here].any():
                continue
            part = torch.from_numpy(shown[channel : channel + 1, :, here])
            made = decoder.decode(torch.from_numpy(picture[channel : channel + 1, :, here]), part, white[:, low:end])
            made = refined(stft, inverted_mel(part, MINI, stft), stft.forward(made), end - low, iterations)
            length = OVERLAP_FRAMES * MINI.hop if start else 0
            fade = np.clip((np.arange(end - low) + 1) / (length + 1), 0, 1)
            result[channel, low:end] += fade * (made[0].numpy() - result[channel, low:end])
    done(1.0)
    back = resample(result, MINI.sample_rate, sample_rate)[:, : audio.shape[1]]
    return np.pad(back, ((0, 0), (0, audio.shape[1] - back.shape[1])))
