"""What the networks are trained to do: the losses of the embedded model and of the regression that it is compared with.

The embedded model says the *residual* over the match-EQ at once, told of the content by a map (Huang et al., arXiv
2404.14771) and of the style by tokens in cross-attention and by the reference's keys and values in the decoder's
self-attention, as they are at render time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import attention, decoder_layers, projected_out
from .architecture import CONTEXT, LAST_TIME, SMOOTH_TIME, build_encoder, build_unet

CONTRAST = 0.6
"""Weight of the error of local contrast in sharp answers: the nearest is smoother where it does not know better."""
LEVEL_LIMIT = 2.8
"""Nepers of power, 12 dB: how far an answer's level may be off and be heard as right."""
SILENT = 0.05
"""Nepers over a picture's 0 that are silence all the same."""
TINY = 1e-8
"""Of a mean square, whose root has no slope at 0."""
SQUARE = 2
"""Contrast is that of squares of so many rows and columns of the latent: 8 × 8 of the picture."""


@dataclass(frozen=True)
class Latents:
    """A batch of pairs as latents `[window, channel, row, column]`, the windows of one style after the other.

    `spread` is the residual's deviation, `nepers` the logarithm of power that one is in a picture, `silence` a
    picture's 0.
    """

    content: Tensor
    guide: Tensor
    answer: Tensor
    reference: Tensor
    styles: int
    spread: float
    nepers: float
    silence: float


class Objective(Protocol):
    """Networks and their loss on one batch."""

    def build(self) -> nn.ModuleDict: ...

    def loss(self, networks: nn.ModuleDict, latents: Latents) -> Tensor: ...


class Transfer:
    """The embedded model's: the answer at once, which is that of a diffusion model at its last time."""

    def build(self) -> nn.ModuleDict:
        """UNet and style encoder."""
        return nn.ModuleDict({"unet": build_unet(), "encoder": build_encoder()})

    def loss(self, networks: nn.ModuleDict, latents: Latents) -> Tensor:
        """See `error`."""
        return error(transferred(networks, latents), latents)


class Regression:
    """The honest comparator: the same network in one pass from content and match-EQ to the residual.

    It sees the reference by the match-EQ alone.
    """

    def build(self) -> nn.ModuleDict:
        """A UNet without noise or tokens."""
        return nn.ModuleDict({"unet": build_unet(maps=1)})

    def loss(self, networks: nn.ModuleDict, latents: Latents) -> Tensor:
        """Mean absolute error of the residual: nothing keeps it from being a blur."""
        output = regress(networks["unet"], latents.content, latents.guide)
        return F.l1_loss(output, (latents.answer - latents.guide) / latents.spread)


def transferred(networks: nn.ModuleDict, latents: Latents) -> Tensor:
    """The embedded model's residual `[window, channel, row, column]`, in units of the residual's deviation.

    Every second is asked for a smooth answer. References and contents go through the network together: a reference as a
    content that is in its own style, at time 0; a content at the time that stands for the answer at once, with nothing
    to start from, its queries in the decoder answered by the references' keys and values (`read_by_contents`).
    """
    references, contents, styles = latents.reference, latents.content, latents.styles
    tokens = networks["encoder"](references.reshape(styles, -1, *references.shape[1:]))
    maps = torch.cat([references.repeat(1, 2, 1, 1), torch.cat([contents, latents.guide], 1)])
    noisy = maps.new_zeros(len(maps), references.shape[1], *maps.shape[2:])
    times = torch.zeros(len(maps), dtype=torch.long, device=maps.device)
    times[len(references) :: 2], times[len(references) + 1 :: 2] = LAST_TIME, SMOOTH_TIME
    told = torch.cat([tokens.repeat_interleave(len(one) // styles, 0) for one in (references, contents)])
    inputs = torch.cat([noisy, maps], 1).contiguous(memory_format=torch.channels_last)
    read_by_contents(networks["unet"], styles, len(references))
    output: Tensor = networks["unet"](inputs, times, encoder_hidden_states=told).sample
    # Of v-prediction with nothing of the answer in it.
    return -output[len(references) :].float()


def error(found: Tensor, latents: Latents) -> Tensor:
    """Each window's root mean square error, as stems are measured, and the error of the sharp answers' local contrast.

    Of answers at equal level, as a stem is heard at the level of its clip: one whose partials are too faint has too
    much of everything else. Silence has no level, and nothing is softer.
    """
    true = (latents.answer - latents.guide) / latents.spread
    ours, theirs = (latents.guide / latents.spread + one for one in (found, true))
    unit, silence = latents.nepers * latents.spread, latents.silence / latents.spread
    louder = ((level(theirs, unit) - level(ours, unit)) / unit).clamp(-LEVEL_LIMIT / unit, LEVEL_LIMIT / unit)
    heard = ((ours.detach() - silence) * unit).clamp(0, 1)
    leveled = ours + heard * louder[:, None, None, None]
    silent = (theirs <= silence + SILENT / unit) & (leveled <= theirs)
    off = torch.where(silent, 0.0, leveled - theirs)
    distance = (off.square().flatten(1).mean(1) + TINY).sqrt().mean()
    sharpness = (contrast(ours[::2]) - contrast(theirs[::2])).abs().mean()
    return distance + CONTRAST * sharpness


def level(latent: Tensor, nepers: float) -> Tensor:
    """Logarithm of the mean power of a picture, one of whose units is so many nepers of power, `[window]`."""
    values = latent.flatten(1) * nepers
    return values.logsumexp(1) - math.log(values.shape[1])


def contrast(latent: Tensor) -> Tensor:
    """Standard deviation of the picture's values in squares of `SQUARE` rows and columns, `[window, row, column]`."""
    mean, square = (F.avg_pool2d(one.mean(1), SQUARE) for one in (latent, latent.square()))
    return (square - mean.square()).clamp_min(0).add(1e-4).sqrt()


def regress(unet: Any, content: Tensor, guide: Tensor) -> Tensor:
    """The comparator's residual `[window, channel, row, column]`, in units of the residual's deviation."""
    inputs = torch.cat([content, guide], 1).contiguous(memory_format=torch.channels_last)
    empty = torch.zeros(len(content), 1, CONTEXT, device=content.device, dtype=content.dtype)
    times = torch.zeros(len(content), dtype=torch.long, device=content.device)
    output: Tensor = unet(inputs, times, encoder_hidden_states=empty).sample
    return output.float()


def read_by_contents(unet: Any, styles: int, references: int) -> None:
    """Make the decoder's self-attention what it is in a batch of `references` windows, and behind them contents.

    Each reference attends to itself; a content to all tokens of its style's references.
    """
    processor = _Read(styles, references)
    for module in decoder_layers(unet).values():
        # What is compiled is compiled anew for another object.
        if module.processor != processor:
            module.set_processor(processor)


@dataclass(frozen=True)
class _Read:
    styles: int
    references: int

    def __call__(self, attn: Any, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        query, key, value = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        own, asked = query[: self.references], query[self.references :]
        key, value = key[: self.references], value[: self.references]
        told = attention(own, key, value, attn.heads)
        # Contents of one style ask as one window of many tokens.
        asked, key, value = (one.reshape(self.styles, -1, one.shape[-1]) for one in (asked, key, value))
        read = attention(asked, key, value, attn.heads).reshape(-1, *query.shape[1:])
        return projected_out(attn, torch.cat([told, read]))
