"""The noise that a model was trained under, and which of its times a run takes: DDIM as StyleID and Stylus use it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .pretrained import Config


class NoiseSchedule:
    """ᾱ of every time, `alphas_cumprod`, and after `set_timesteps` a run's times, `timesteps`, noisiest first.

    By the names of diffusers' `DDIMScheduler`, whose configuration it takes; `prediction_type` is what the model says.
    Times are spaced "leading" with an offset of 1. Raises `ValueError` for a `beta_schedule` that is not known,
    and for one that is rescaled to end without any signal.
    """

    def __init__(self, **config: Any) -> None:
        self.config = Config(
            {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear",
             "trained_betas": None, "prediction_type": "epsilon", **config}
        )  # fmt: skip
        if self.config.get("rescale_betas_zero_snr"):
            raise ValueError("rescale_betas_zero_snr: a schedule that ends in pure noise has nothing to invert from")
        self.alphas_cumprod: Tensor = torch.cumprod(1 - self._betas(), 0)
        self.timesteps: Tensor = torch.arange(self.config.num_train_timesteps).flip(0)

    def _betas(self) -> Tensor:
        own = self.config
        if own.trained_betas is not None:
            return torch.tensor(own.trained_betas, dtype=torch.float32)
        if own.beta_schedule not in _BETAS:
            raise ValueError(f"beta_schedule: {own.beta_schedule!r} is none of {', '.join(_BETAS)}")
        return _BETAS[own.beta_schedule](own.beta_start, own.beta_end, own.num_train_timesteps)

    def set_timesteps(self, steps: int) -> None:
        """Take `steps` times, evenly spaced, of those that there are."""
        self.timesteps = torch.arange(steps).flip(0) * (self.config.num_train_timesteps // steps) + 1


def _linear(start: float, end: float, times: int) -> Tensor:
    return torch.linspace(start, end, times, dtype=torch.float32)


def _scaled_linear(start: float, end: float, times: int) -> Tensor:
    """Linear in the square root: Stable Diffusion's."""
    return torch.linspace(start**0.5, end**0.5, times, dtype=torch.float32) ** 2


def _cosine(_start: float, _end: float, times: int) -> Tensor:
    """Nichol & Dhariwal, arXiv 2102.09672."""
    signal = [math.cos((time / times + 0.008) / 1.008 * math.pi / 2) ** 2 for time in range(times + 1)]
    betas = [1 - after / before for before, after in pairwise(signal)]
    return torch.tensor(betas, dtype=torch.float32).clamp_max(0.999)


_BETAS: dict[str, Callable[[float, float, int], Tensor]] = {
    "linear": _linear,
    "scaled_linear": _scaled_linear,
    "squaredcos_cap_v2": _cosine,
}
