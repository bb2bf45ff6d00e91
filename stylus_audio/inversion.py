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


def _asked(schedule: Schedule, step: int, convention: str) -> tuple[int, int, float]:
    """Whence the features of a sampling step are: number in the trajectory, time that labels the pass, ᾱ there.

    Labelled with the next time, the pass that goes up to where the sampling step starts; labelled with the current one,
    that from there, which for the noisiest step is one that goes nowhere.
    """
    steps = len(schedule)
    if convention == "next":
        return steps - 1 - step, schedule.times[step], schedule.previous_signal[step]
    if step == 0:
        return steps, schedule.times[0], schedule.signal[0]
    return steps - step, schedule.previous[step - 1], schedule.previous_signal[step - 1]


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
    code) or comes from ("current", Stylus's). What is recorded is for the sampling step of the same label, as in both.
    `columns` `[window, width]` marks what is neither padding nor silence.
    """
    parts = tuple(record)
    recorder, steps = Recorder(parts, columns, (latent.shape[-2], latent.shape[-1])), len(schedule)
    z = latent.float()
    trajectory = [z]
    recorded: dict[int, Step] = {}
    back: dict[int, Tensor] = {}
    for step in reversed(range(steps)):
        time = schedule.times[step]
        # With the current time, the clean latent's pass is of no sampling step.
        served, label = (step, time) if convention == "next" else (step + 1, schedule.previous[step])
        hand = Hand(layers, recorder, observer(trace, "inversion", step, time))
        x0, epsilon = denoiser(z, label, schedule.previous_signal[step], hand)
        features = recorder.take()
        if parts and served < steps:
            recorded[served] = features
        # The next sampling step starts from this latent; where it would ask at the same time, this is its answer.
        if step + 1 < steps and schedule.times[step + 1] == label:
            back[step + 1] = schedule.down(step + 1, x0, epsilon)
        z = schedule.up(step, x0, epsilon)
        trajectory.append(z)
        if trace:
            trace(Trace("inversion", step, time, None, z))
        if tick:
            tick()
    if parts and convention == "current":
        _, label, signal = _asked(schedule, 0, convention)
        back[0] = schedule.down(0, *denoiser(z, label, signal, Hand(layers, recorder)))
        recorded[0] = recorder.take()
        if tick:
            tick()
    return Inversion(trajectory, [recorded[step] for step in sorted(recorded)], back)


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
        number, label, signal = _asked(schedule, step, convention)
        denoiser(inversion.trajectory[number], label, signal, Hand(layers, recorder))
        if tick:
            tick()
        return recorder.take()

    return features
