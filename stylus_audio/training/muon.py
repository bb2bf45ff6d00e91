"""Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon): momentum whose matrices are made orthogonal.

It learns about twice as much from an example as AdamW does here (docs/training.md). PyTorch's own, since 2.9, takes
matrices only; convolutions are most of this network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
BETAS = (0.9, 0.99)
"""Of Adam, for what is no matrix: biases, norms, and layers too thin for it."""
DECAY = 0.01
THINNEST = 16


class Muon(torch.optim.Optimizer):
    """Muon for matrices and convolutions, AdamW for all else, at one rate.

    Updates of matrices are scaled to the root mean square of Adam's (Liu et al., arXiv 2502.16982, equation 4), so
    that rates and decay carry over.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(list(parameters), {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients that are there."""
        del closure
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state, rate = self.state[parameter], group["lr"]
                matrix = min(len(parameter), parameter.numel() // len(parameter)) >= THINNEST
                update = _muon(parameter, state) if matrix else _adam(parameter, state)
                parameter.mul_(1 - rate * DECAY).add_(update, alpha=-rate)


def _muon(parameter: Tensor, state: dict[str, Any]) -> Tensor:
    gradient = parameter.grad
    assert gradient is not None
    if not state:
        state["momentum"] = torch.zeros_like(parameter)
    momentum: Tensor = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
    matrix = gradient.lerp(momentum, MOMENTUM).reshape(len(parameter), -1)
    update: Tensor = orthogonal(matrix) * (0.2 * max(matrix.shape) ** 0.5)
    return update.reshape(parameter.shape)


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix whose singular values are 1, by five steps of a Newton–Schulz iteration.

    Its quintic brings them between 0.7 and 1.2, which serves as well and is quicker than 1 itself.
    """
    x: Tensor = matrix / (matrix.norm() + 1e-7)
    if wide := x.shape[0] > x.shape[1]:
        x = x.T
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if wide else x


def _adam(parameter: Tensor, state: dict[str, Any]) -> Tensor:
    gradient = parameter.grad
    assert gradient is not None
    if not state:
        state.update(
            mean=torch.zeros_like(parameter),
            square=torch.zeros_like(parameter),
            step=torch.zeros((), dtype=torch.float32),
        )
    state["step"] += 1
    mean: Tensor = state["mean"].lerp_(gradient, 1 - BETAS[0])
    square: Tensor = state["square"].lerp_(gradient.square(), 1 - BETAS[1])
    count = float(state["step"])
    corrected: Tensor = (square / (1 - BETAS[1] ** count)).sqrt_().add_(1e-8)
    update: Tensor = mean / (1 - BETAS[0] ** count) / corrected
    return update
