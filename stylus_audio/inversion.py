"""Deterministic DDIM inversion: from a clean latent up to noise, recording features on the way (METHOD 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .attention import Hand, Observer
from .denoiser import Denoiser, Schedule
from .features import Inversion, Part, Recorder, Source, Step


@dataclass(frozen=True)
class Trace:
    """One thing that a `trace` callback sees: a latent after a step, or the attention output of a layer in it."""

    stage: Literal["inversion", "sampling"]
    step: int
    """Of sampling, counted from 0 at the noisiest; inversion runs through the same numbers backwards."""
    time: int
    layer: int | None
    """None for the latent."""
    tensor: Tensor


Tracer = Callable[[Trace], None]


def observer(trace: Tracer | None, stage: Literal["inversion", "sampling"], step: int, time: int) -> Observer | None:
    """Shows the tracer every attention output of one step."""
    if trace is None:
        return None
    return lambda layer, output: trace(Trace(stage, step, time, layer, output))


Tick = Callable[[], None]
"""Called after every pass of the UNet; raising in it ends the run."""


def _label(schedule: Schedule, step: int, convention: str) -> int:
    return schedule.times[step] if convention == "next" else schedule.previous[step]


@torch.no_grad()
def invert(
    denoiser: Denoiser,
    latent: Tensor,
    schedule: Schedule,
    layers: Sequence[int],
    record: Iterable[Part] = (),
    convention: str = "next",
    columns: Tensor | None = None,
    trace: Tracer | None = None,
    tick: Tick | None = None,
) -> Inversion:
    """Invert `latent` `[window, channel, height, width]` along `schedule`, recording `record` in `layers`.

    ε is predicted on the current latent, labelled with the time it goes to (`convention` "next", StyleID's diffusers
    code) or comes from ("current", Stylus's). `columns` `[window, width]` marks what is neither padding nor silence.
    """
    parts = tuple(record)
    recorder = Recorder(parts, columns, (latent.shape[-2], latent.shape[-1]))
    z = latent.float()
    trajectory = [z]
    recorded: list[Step] = []
    back: dict[int, Tensor] = {}
    for step in reversed(range(len(schedule))):
        time, label = schedule.times[step], _label(schedule, step, convention)
        hand = Hand(layers, recorder, observer(trace, "inversion", step, time))
        x0, epsilon = denoiser(z, label, schedule.previous_signal[step], hand)
        # The next sampling step starts from this latent; where it would ask at the same time, this is its answer.
        if step + 1 < len(schedule) and schedule.times[step + 1] == label:
            back[step + 1] = schedule.down(step + 1, x0, epsilon)
        z = schedule.up(step, x0, epsilon)
        trajectory.append(z)
        features = recorder.take()
        if parts:
            recorded.insert(0, features)
        if trace:
            trace(Trace("inversion", step, time, None, z))
        if tick:
            tick()
    return Inversion(trajectory, recorded, back)


def replay(
    denoiser: Denoiser,
    inversion: Inversion,
    schedule: Schedule,
    layers: Sequence[int],
    record: Iterable[Part],
    convention: str = "next",
    columns: Tensor | None = None,
    tick: Tick | None = None,
) -> Source:
    """The features of an inversion of which only the trajectory was kept, computed again for one step at a time.

    The same passes over the same latents give the same features; memory does not grow with the number of steps.
    """
    latent = inversion.trajectory[0]
    parts = tuple(record)

    def features(step: int) -> Step:
        recorder = Recorder(parts, columns, (latent.shape[-2], latent.shape[-1]))
        before = inversion.trajectory[len(schedule) - 1 - step]
        denoiser(before, _label(schedule, step, convention), schedule.previous_signal[step], Hand(layers, recorder))
        if tick:
            tick()
        return recorder.take()

    return features
