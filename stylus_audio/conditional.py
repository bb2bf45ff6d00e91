"""The conditional way: diffuse what a match-EQ misses, told of content and style (Huang et al., arXiv 2404.14771).

The network is given the content and its match-EQ as maps, the style as tokens in cross-attention, and the reference's
keys and values in the decoder's self-attention. It says the *residual* over the match-EQ at once, which is the answer
of a diffusion model at its last time. No inversion is needed. Latents are `[window, channel, height, width]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import Hand, choose_layers
from .denoiser import Denoiser, Schedule
from .errors import BadRequest
from .features import Part, Recorder, Step, prefixed, step_from_tensors, step_to_tensors, under
from .inversion import Tick, Tracer
from .sampling import sample
from .settings import Line, Settings, producers_name
from .style import normalised
from .stylize import WINDOWS_PER_PASS

SURROUNDINGS = 16.0
"""Bands (σ) that are the surroundings of one, of which `sharpened` takes the mean."""

STYLE_PARTS: tuple[Part, ...] = ("key", "value")
"""What is recorded of a style."""


@dataclass(frozen=True)
class ReadStyle:
    """A style as the network is told of it: tokens `[1, token, channel]`, and keys and values for every step."""

    tokens: Tensor
    features: Step

    def to_tensors(self) -> dict[str, Tensor]:
        """All of it, by name; `Conditional.restore` undoes it."""
        return {"tokens": self.tokens, **prefixed("features", step_to_tensors(self.features))}


class Conditional:
    """One model and one choice of settings, of which `gamma` and `alpha` act on the result (see `run`).

    `encoder` makes tokens `[style, token, channel]` of windows `[style, window, channel, height, width]` and their
    columns; `spread` is the residual's unit in latent units, `contrast` what its answers are `sharpened` by.
    """

    def __init__(
        self,
        base: Denoiser,
        encoder: Any,
        spread: float,
        settings: Settings,
        *,
        contrast: float = 1.0,
        trace: Tracer | None = None,
        tick: Tick | None = None,
        windows_per_pass: int = WINDOWS_PER_PASS,
    ) -> None:
        self.base, self.encoder, self.settings = base, encoder, settings
        self.spread, self.contrast = spread, contrast
        self.gamma, self.alpha = _number("gamma", settings.gamma), _number("alpha", settings.alpha)
        _number("tau", settings.tau)
        self.layers = choose_layers(base.unet, settings.layers)
        self.schedule = Schedule.at_once(base.scheduler)
        self.trace, self.tick = trace, tick
        self.windows_per_pass = windows_per_pass

    def depends(self) -> dict[str, object]:
        """What `prepare` depends on beside the model and the windows, as plain JSON."""
        return {"method": "conditional", "signal": self._clean, "layers": self.layers, "parts": STYLE_PARTS}

    def passes(self, content_windows: int, styles: int) -> int:
        """Passes of the UNet that a run takes, for progress; `styles` are those to be read."""
        return styles + -(-content_windows // self.windows_per_pass)

    @property
    def _clean(self) -> float:
        """ᾱ that a style is read at."""
        return float(self.base.scheduler.alphas_cumprod[0])

    def prepare(self, latent: Tensor, columns: Tensor | None = None) -> ReadStyle:
        """Read a style's windows: their tokens, and their keys and values as if they were content in their own style.

        `columns` `[window, width]` marks what is neither padding nor silence.
        """
        tokens = self._tokens(latent, columns)
        recorder = Recorder(STYLE_PARTS, columns, (latent.shape[-2], latent.shape[-1]))
        return ReadStyle(tokens, self._as_it_is(latent, tokens, recorder))

    def restore(self, tensors: Mapping[str, Tensor], columns: Tensor | None = None) -> ReadStyle:
        """The style that `prepare` read, from its `to_tensors`; no pass."""
        return ReadStyle(tensors["tokens"], step_from_tensors(under("features", tensors)))

    @torch.no_grad()
    def _tokens(self, latent: Tensor, columns: Tensor | None) -> Tensor:
        dtype = self.base.unet.dtype
        marks = None if columns is None else columns[None]
        tokens: Tensor = self.encoder(latent[None].to(dtype), marks)
        return tokens.float()

    def _as_it_is(self, latent: Tensor, tokens: Tensor, recorder: Recorder) -> Step:
        """One pass over clean latents with nothing to be changed, recording."""
        denoiser = self.base.told(tokens, torch.cat([latent, latent], 1))
        denoiser(torch.zeros_like(latent), 0, self._clean, Hand(self.layers, recorder))
        if self.tick:
            self.tick()
        return recorder.take()

    def run(
        self,
        content: Tensor,
        guide: Tensor,
        styles: Sequence[ReadStyle],
        columns: Tensor | None = None,
    ) -> Tensor:
        """The stylised latents; `guide` is the content with the styles' average spectrum.

        `styled = guide + (1 − γ) spread · residual`, sharpened: with γ 1 the content keeps all of its structure, and
        the styles give their average spectrum alone. α takes its share of that, `content + α (styled − content)`, and τ
        sharpens the attention to the style as in METHOD 4.
        """
        weights = normalised(self.settings.style_weight, len(styles))
        # Sharpening gives way last: with less of it alone a stem is nearer to a style's mean spectrum, not farther.
        contrast = 1 + (self.contrast - 1) * (1 - self.gamma**2)
        tokens = torch.stack([weight * style.tokens for weight, style in zip(weights, styles, strict=True)]).sum(0)
        # The network has the content as a map; nothing but the style is asked for in its attention.
        pure = replace(self.settings, gamma=0.0, alpha=1.0)
        styled = torch.empty_like(content)
        for group in torch.split(torch.arange(len(content)), self.windows_per_pass):
            here, guided = content[group], guide[group]
            marks = None if columns is None else columns[group]
            residual = sample(
                self.base.told(tokens, torch.cat([here, guided], 1)), torch.zeros_like(here), self.schedule, pure,
                self.layers, _always({}), [_always(style.features) for style in styles], weights,
                columns=marks, trace=self.trace, tick=self.tick,
            )  # fmt: skip
            answer = guided + (1 - self.gamma) * self.spread * without_grid(residual)
            styled[group] = here + self.alpha * (sharpened(answer, contrast) - here)
        return styled


def without_grid(residual: Tensor) -> Tensor:
    """Without what the columns of all squares (`Patchify`) have in common, row by row: a tremolo of a square's period.

    But for the slope that leads from square to square: then it belongs there.
    """
    windows, channels, height, width = residual.shape
    factor = math.isqrt(channels)
    squares = residual.reshape(windows, factor, factor, height, width)
    means = squares.mean(2, keepdim=True)
    common = (squares - means).mean(-1, keepdim=True)
    slope = (means[..., -1:] - means[..., :1]) / (max(1, width - 1) * factor)
    columns = torch.arange(factor, device=residual.device) - (factor - 1) / 2
    return (squares - common + slope * columns[:, None, None]).reshape(residual.shape)


def sharpened(latent: Tensor, contrast: float) -> Tensor:
    """What stands out of its surroundings in pitch, frame by frame, stands out `contrast` times as far.

    The latent is a picture in squares (`Patchify`). Of a sound that it does not know a network says something between
    what may be: partials too faint, and a haze between them.
    """
    if contrast == 1.0:
        return latent
    factor, reach = math.isqrt(latent.shape[1]), round(3 * SURROUNDINGS)
    picture = F.pixel_shuffle(latent, factor)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=latent.device) / SURROUNDINGS) ** 2)
    bands = F.pad(picture, (0, 0, reach, reach), mode="replicate")
    local = F.conv2d(bands, (weights / weights.sum())[None, None, :, None])
    return F.pixel_unshuffle(local + contrast * (picture - local), factor)


def _number(name: str, value: Line) -> float:
    if isinstance(value, tuple):
        option = producers_name(name)
        raise BadRequest(f"{option}: the conditional method takes one number; FIRST:LAST is for injection")
    return value


def _always(step: Step) -> Callable[[int], Step]:
    return lambda _: step
