"""Deterministic DDIM sampling with style injection in the decoder's self-attention (METHOD 4)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .attention import Attend, Hand, Plain, Projection, attention, joined
from .denoiser import Denoiser, Schedule
from .features import Features, Inversion, Source, Step, prefixed, step_from_tensors, step_to_tensors, under
from .inversion import Tick, Trace, Tracer, observer
from .settings import Settings, at_step


@dataclass
class Injector(Attend):
    """An `Attend` that asks with the content's queries and answers with the styles' keys and values.

    Of a style, `[1, token, channel]`, all tokens count (`answers`).
    """

    content: Step
    styles: Sequence[Step]
    weights: Sequence[float]
    gamma: float
    alpha: float
    tau: float
    fleeting: bool = False
    """Whether the next step has other numbers."""

    @property
    def constants(self) -> Hashable:
        """γ, α, τ and the weights."""
        return None if self.fleeting else ("injector", tuple(self.weights), self.gamma, self.alpha, self.tau)

    def tensors(self) -> dict[str, Tensor]:
        """The features of content and styles."""
        tensors = prefixed("content", step_to_tensors(self.content))
        for number, style in enumerate(self.styles):
            tensors |= prefixed(f"style{number}", step_to_tensors(style))
        return tensors

    def reading(self, tensors: Mapping[str, Tensor]) -> Injector:
        """The same with other features."""
        styles = [step_from_tensors(under(f"style{number}", tensors)) for number in range(len(self.styles))]
        return replace(self, content=step_from_tensors(under("content", tensors)), styles=styles)

    def __call__(self, projection: Projection) -> Tensor:
        """`A = A_c + α (A_s − A_c)`, with `Q̂ = γ Q_c + (1−γ) Q_cs`."""
        heads, query = projection.heads, projection.query
        if self.gamma == 0.0 and self.alpha == 1.0:
            return self._styled(query, projection.layer, heads)
        own = self.content[projection.layer]
        if self.gamma:
            if own.query is None:
                raise ValueError("the content's queries were not recorded")
            query = torch.lerp(query, own.query, self.gamma)
        if self.alpha == 0.0:
            return attention(query, *_pair(own), heads, mask=own.mask)
        styled = self._styled(query, projection.layer, heads)
        if self.alpha == 1.0:
            return styled
        return torch.lerp(attention(query, *_pair(own), heads, mask=own.mask), styled, self.alpha)

    def _styled(self, query: Tensor, layer: int, heads: int) -> Tensor:
        outputs = [
            weight * attention(query, *_pair(style[layer]), heads, self.tau)
            for style, weight in zip(self.styles, self.weights, strict=True)
        ]
        return torch.stack(outputs).sum(0) if len(outputs) > 1 else outputs[0]


def answers(styles: Sequence[Step], weights: Sequence[float], blend: str) -> tuple[list[Step], list[float]]:
    """What is asked of styles at one step: keys and values of all windows in one row, those that count.

    With `blend` "features" several styles are one, with the weight 1.
    """
    if blend == "features" and len(styles) > 1:
        mixed = {layer: _mixed([style[layer] for style in styles], weights) for layer in styles[0]}
        styles, weights = [mixed], [1.0]
    return [{layer: _row(features) for layer, features in style.items()} for style in styles], list(weights)


def _row(features: Features) -> Features:
    key, value = _pair(features)
    return Features(key=joined(key, features.mask), value=joined(value, features.mask))


def _pair(features: Features) -> tuple[Tensor, Tensor]:
    if features.key is None or features.value is None:
        raise ValueError("keys and values were not recorded")
    return features.key, features.value


def _mixed(features: Sequence[Features], weights: Sequence[float]) -> Features:
    """`K = Σ w_i K_i`, `V = Σ w_i V_i`; a token counts where it counts in every style."""
    pairs = [_pair(one) for one in features]
    masks = [one.mask for one in features if one.mask is not None]
    mask = torch.stack(masks).all(0) if masks else None
    if mask is not None and not mask.any():
        mask = None
    key = sum((w * k for w, (k, _) in zip(weights, pairs, strict=True)), start=torch.zeros_like(pairs[0][0]))
    value = sum((w * v for w, (_, v) in zip(weights, pairs, strict=True)), start=torch.zeros_like(pairs[0][1]))
    return Features(key=key, value=value, mask=mask)


@torch.no_grad()
def drift(
    denoiser: Denoiser,
    inversion: Inversion,
    schedule: Schedule,
    layers: Sequence[int],
    columns: Tensor | None = None,
    tick: Tick | None = None,
) -> list[Tensor]:
    """What each sampling step misses of the inversion's own way back, one latent for each step.

    Added to a sampling that starts at the same place, it makes the inversion exact: without style the content comes
    back whatever the model and the number of steps (Ju et al., "PnP Inversion", ICLR 2024). With the inversion
    "current" it takes no pass where features were recorded, else one; with "next" one for each step.
    """
    steps = len(schedule)
    plain = Plain(columns, (inversion.noisy.shape[-2], inversion.noisy.shape[-1]))
    missed = []
    for step in range(steps):
        reached = inversion.back.get(step)
        if reached is None:
            reached_from = inversion.trajectory[steps - step]
            predicted = denoiser(reached_from, schedule.times[step], schedule.signal[step], Hand(layers, plain))
            reached = schedule.down(step, *predicted)
            if tick:
                tick()
        missed.append(inversion.trajectory[steps - 1 - step] - reached)
    return missed


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    noisy: Tensor,
    schedule: Schedule,
    settings: Settings,
    layers: Sequence[int],
    content: Source,
    styles: Sequence[Source],
    weights: Sequence[float],
    columns: Tensor | None = None,
    trace: Tracer | None = None,
    tick: Tick | None = None,
    missed: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Sample from `noisy` `[window, channel, height, width]` down `schedule`; returns the last step's x0.

    `content` and `styles` give the recorded features of each step; without styles, or before the last
    `settings.start_step + 1` steps, nothing is injected. `columns` marks what is neither padding nor silence. `missed`
    gives the content's `drift` at each step.
    """
    steps = len(schedule)
    fleeting = any(isinstance(line, tuple) for line in (settings.gamma, settings.alpha, settings.tau))
    z = noisy.float()
    for step, time in enumerate(schedule.times):
        left = steps - 1 - step
        attend: Attend = Plain(columns, (noisy.shape[-2], noisy.shape[-1]))
        if settings.injection and styles and (settings.start_step is None or left <= settings.start_step):
            attend = Injector(
                content(step),
                *answers([source(step) for source in styles], weights, settings.blend),
                at_step(settings.gamma, step, steps),
                at_step(settings.alpha, step, steps),
                at_step(settings.tau, step, steps),
                fleeting,
            )
        hand = Hand(layers, attend, observer(trace, "sampling", step, time))
        z = schedule.down(step, *denoiser(z, time, schedule.signal[step], hand))
        if missed is not None:
            z = z + missed(step)
        if trace:
            trace(Trace("sampling", step, time, None, z))
        if tick:
            tick()
    return z
