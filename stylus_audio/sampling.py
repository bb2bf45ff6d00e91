"""Deterministic DDIM sampling with style injection in the decoder's self-attention (METHOD 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import Attend, Plain, Projection, attending, attention, joined
from .denoiser import Denoiser, Schedule
from .features import Features, Inversion, Source, Step
from .inversion import Tick, Trace, Tracer, observer
from .settings import Settings, at_step


@dataclass
class Injector:
    """An `Attend` that asks with the content's queries and answers with the styles' keys and values."""

    content: Step
    styles: Sequence[Step]
    weights: Sequence[float]
    blend: str
    gamma: float
    alpha: float
    tau: float

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
        features = [style[layer] for style in self.styles]
        if self.blend == "features" and len(features) > 1:
            features = [_mixed(features, self.weights)]
            weights: Sequence[float] = [1.0]
        else:
            weights = self.weights
        outputs = []
        for one, weight in zip(features, weights, strict=True):
            key, value = _pair(one)
            outputs.append(weight * attention(query, joined(key, one.mask), joined(value, one.mask), heads, self.tau))
        return torch.stack(outputs).sum(0) if len(outputs) > 1 else outputs[0]


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
    "current" it takes one pass, since all others have been made; with "next" one for each step.
    """
    steps = len(schedule)
    plain = Plain(columns, (inversion.noisy.shape[-2], inversion.noisy.shape[-1]))
    missed = []
    for step in range(steps):
        reached = inversion.back.get(step)
        if reached is None:
            with attending(denoiser.unet, layers, plain):
                predicted = denoiser(inversion.trajectory[steps - step], schedule.times[step], schedule.signal[step])
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
    z = noisy.float()
    for step, time in enumerate(schedule.times):
        left = steps - 1 - step
        attend: Attend = Plain(columns, (noisy.shape[-2], noisy.shape[-1]))
        if settings.injection and styles and (settings.start_step is None or left <= settings.start_step):
            attend = Injector(
                content(step),
                [source(step) for source in styles],
                weights,
                settings.blend,
                at_step(settings.gamma, step, steps),
                at_step(settings.alpha, step, steps),
                at_step(settings.tau, step, steps),
            )
        with attending(denoiser.unet, layers, attend, observer(trace, "sampling", step, time)):
            z = schedule.down(step, *denoiser(z, time, schedule.signal[step]))
        if missed is not None:
            z = z + missed(step)
        if trace:
            trace(Trace("sampling", step, time, None, z))
        if tick:
            tick()
    return z
