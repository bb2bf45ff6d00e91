"""A UNet as a function from a noisy latent to the clean one and the noise, whatever it predicts (METHOD 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .attention import Hand, attending
from .errors import BadRequest
from .graphs import Graphs


@dataclass(frozen=True)
class Schedule:
    """Times of one run from noisy to clean, and the signal share ᾱ at both ends of each step.

    Step `k` goes from `times[k]` down to `previous[k]`; ᾱ are `signal[k]` and `previous_signal[k]`.
    """

    times: tuple[int, ...]
    previous: tuple[int, ...]
    signal: tuple[float, ...]
    previous_signal: tuple[float, ...]

    @classmethod
    def of(cls, scheduler: Any, steps: int, denoise: float = 1.0) -> Schedule:
        """The scheduler's own times for `steps` steps; `denoise` under 1 keeps only the last, cleaner ones.

        Raises `BadRequest` for more steps than there are times.
        """
        total = _total(scheduler, steps)
        scheduler.set_timesteps(steps)
        times = [int(t) for t in scheduler.timesteps]
        if times[0] >= total:
            raise BadRequest(f"steps: {steps} do not fit in the model's {total} times")
        times = times[len(times) - max(1, round(steps * denoise)) :]
        return cls._along(scheduler, times, [max(0, t - total // steps) for t in times])

    @classmethod
    def at_once(cls, scheduler: Any) -> Schedule:
        """One step from the last time, where nothing of the answer is left, to the clean latent."""
        return cls._along(scheduler, [_total(scheduler, 1) - 1], [0])

    @classmethod
    def _along(cls, scheduler: Any, times: list[int], previous: list[int]) -> Schedule:
        alphas = scheduler.alphas_cumprod.double()
        return cls(
            tuple(times),
            tuple(previous),
            tuple(float(alphas[t]) for t in times),
            tuple(float(alphas[t]) for t in previous),
        )

    def __len__(self) -> int:
        return len(self.times)

    def up(self, step: int, x0: Tensor, epsilon: Tensor) -> Tensor:
        """The latent at the noisier end of a step, from what was predicted at its other end (METHOD 2)."""
        return _mixed(self.signal[step], x0, epsilon)

    def down(self, step: int, x0: Tensor, epsilon: Tensor) -> Tensor:
        """The latent at the cleaner end of a step; behind the last one that is x0 itself (METHOD 4)."""
        if step == len(self) - 1:
            return x0
        return _mixed(self.previous_signal[step], x0, epsilon)


def _mixed(signal: float, x0: Tensor, epsilon: Tensor) -> Tensor:
    """`√ᾱ x0 + √(1−ᾱ) ε`."""
    return math.sqrt(signal) * x0 + math.sqrt(1 - signal) * epsilon


def _total(scheduler: Any, steps: int) -> int:
    """The times that the scheduler was trained on; `BadRequest` for more steps than that, or none."""
    total = int(scheduler.config.num_train_timesteps)
    if not 1 <= steps <= total:
        raise BadRequest(f"steps: {steps} is not a whole number from 1 to {total}")
    return total


def _from_epsilon(z: Tensor, output: Tensor, signal: float) -> tuple[Tensor, Tensor]:
    return (z - (1 - signal) ** 0.5 * output) / signal**0.5, output


def _from_v(z: Tensor, output: Tensor, signal: float) -> tuple[Tensor, Tensor]:
    a, b = signal**0.5, (1 - signal) ** 0.5
    return a * z - b * output, a * output + b * z


_PREDICTIONS: dict[str, Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]] = {
    "epsilon": _from_epsilon,
    "v_prediction": _from_v,
}


class Denoiser:
    """`(z, time, ᾱ of z) → (x0, ε)`: hides what the UNet predicts, its precision, and guidance.

    Latents are float32 `[window, channel, height, width]`; the UNet runs in its own dtype. `embedding`
    `[1, token, channel]` conditions it; with `guidance` other than 1 a second pass with `negative` is extrapolated from
    (classifier-free guidance). `maps` `[window, map, height, width]` fill the input channels that a conditional
    UNet has beside the latent's; without them they are zero, as in training where it was told nothing. `graphs` are
    of this UNet.
    """

    def __init__(
        self,
        unet: Any,
        scheduler: Any,
        embedding: Tensor,
        negative: Tensor | None = None,
        guidance: float = 1.0,
        maps: Tensor | None = None,
        graphs: Graphs | None = None,
    ) -> None:
        kind = scheduler.config.prediction_type
        if kind not in _PREDICTIONS:
            raise BadRequest(f"a model that predicts {kind!r} is not supported; epsilon and v_prediction are")
        self.unet = unet
        self.scheduler = scheduler
        self._split = _PREDICTIONS[kind]
        self.embedding = embedding.to(unet.device, unet.dtype)
        self.negative = None if negative is None else negative.to(unet.device, unet.dtype)
        self.guidance = guidance
        self.maps = maps
        self.graphs = graphs

    def told(self, embedding: Tensor, maps: Tensor) -> Denoiser:
        """The same network, told of something: cross-attention tokens, and latents beside the noisy one."""
        return Denoiser(self.unet, self.scheduler, embedding, maps=maps, graphs=self.graphs)

    @torch.no_grad()
    def __call__(self, z: Tensor, time: int, signal: float, hand: Hand | None = None) -> tuple[Tensor, Tensor]:
        """One prediction, with a hand in the self-attention; `time` only labels the noise level, `signal` is what `z`
        really has.
        """
        output = self._predict(z, time, self.embedding, hand)
        if self.negative is not None and self.guidance != 1.0:
            without = self._predict(z, time, self.negative, hand)
            output = without + self.guidance * (output - without)
        return self._split(z, output, signal)

    def _predict(self, z: Tensor, time: int, embedding: Tensor, hand: Hand | None) -> Tensor:
        told = self.unet.config.in_channels - z.shape[1]
        if told:
            maps = z.new_zeros(z.shape[0], told, *z.shape[2:]) if self.maps is None else self.maps
            z = torch.cat([z, maps], 1)
        tensors = {
            "latent": z.to(self.unet.dtype),
            # Filled on the device: a number from here would have to wait for it.
            "time": torch.full((), time, dtype=torch.int64, device=z.device),
            "context": embedding.expand(z.shape[0], -1, -1),
        }
        if hand is None:
            return self._output(tensors).float()
        attend = hand.attend

        def work(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            own = attend.reading(tensors)
            with attending(self.unet, replace(hand, attend=own)):
                output = self._output(tensors)
            return {"output": output, **own.recorded()}

        tensors |= attend.tensors()
        # A graph has no watchers.
        if self.graphs is None or hand.observe is not None or attend.constants is None:
            made = dict(work(tensors))
        else:
            made = dict(self.graphs((tuple(hand.layers), attend.constants), work, tensors))
        output = made.pop("output")
        attend.keep(made)
        return output.float()

    def _output(self, tensors: Mapping[str, Tensor]) -> Tensor:
        output: Tensor = self.unet(
            tensors["latent"], tensors["time"], encoder_hidden_states=tensors["context"], return_dict=False
        )[0]
        return output
