"""Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon): momentum whose matrices are made orthogonal.

It learns about twice as much from an example as AdamW does here (docs/training.md). PyTorch's own, since 2.9, takes
matrices only; convolutions are most of this network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
BETAS = (0.9, 0.99)
"""Of Adam, for what is no matrix: biases, norms, and layers too thin for it."""
DECAY = 0.01
THINNEST = 16


class Muon(torch.optim.Optimizer):
    """Muon for matrices and convolutions, AdamW for all else, at one rate, a number or a tensor.

    Updates of matrices are scaled to the root mean square of Adam's (Liu et al., arXiv 2502.16982, equation 4), so
    that rates and decay carry over. A step never waits for the device, and can be captured as a CUDA graph.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(list(parameters), {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients that are there."""
        del closure
        for group in self.param_groups:
            rate = torch.as_tensor(group["lr"])
            # Matrices of one shape go together: on a GPU many small products cost more than their arithmetic.
            shapes: dict[tuple[int, ...], list[nn.Parameter]] = {}
            rest: list[nn.Parameter] = []
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                matrix = min(len(parameter), parameter.numel() // len(parameter)) >= THINNEST
                (shapes.setdefault(tuple(parameter.shape), []) if matrix else rest).append(parameter)
            for alike in shapes.values():
                _apply(alike, self._muon(alike), rate)
            if rest:
                _apply(rest, self._adam(rest), rate)

    def _muon(self, parameters: list[nn.Parameter]) -> list[Tensor]:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        moments = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(moments, gradients, 1 - MOMENTUM)
        matrices = torch.stack(torch._foreach_lerp(gradients, moments, MOMENTUM)).flatten(2)
        updates = orthogonal(matrices) * (0.2 * max(matrices.shape[1:]) ** 0.5)
        return list(updates.reshape(-1, *parameters[0].shape))

    def _adam(self, parameters: list[nn.Parameter]) -> list[Tensor]:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter].update(
                    mean=torch.zeros_like(parameter),
                    square=torch.zeros_like(parameter),
                    count=torch.zeros((), dtype=torch.float32, device=parameter.device),
                )
        states = [self.state[parameter] for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        means, squares = ([state[name] for state in states] for name in ("mean", "square"))
        counts = [state["count"] for state in states]
        torch._foreach_add_(counts, 1)
        count = counts[0]
        torch._foreach_lerp_(means, gradients, 1 - BETAS[0])
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - BETAS[1])
        roots = torch._foreach_sqrt(torch._foreach_div(squares, 1 - BETAS[1] ** count))
        torch._foreach_add_(roots, 1e-8)
        updates = torch._foreach_div(torch._foreach_div(means, 1 - BETAS[0] ** count), roots)
        return list(updates)


def _apply(parameters: Sequence[nn.Parameter], updates: list[Tensor], rate: Tensor) -> None:
    values: list[Tensor] = list(parameters)
    torch._foreach_mul_(values, 1 - rate * DECAY)
    torch._foreach_sub_(values, torch._foreach_mul(updates, rate))


def orthogonal(matrices: Tensor) -> Tensor:
    """About the nearest matrices whose singular values are 1, `[..., row, column]`, by five Newton–Schulz iterations.

    Their quintic brings the values between 0.7 and 1.2, which serves as well and is quicker than 1 itself.
    """
    x: Tensor = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if wide := x.shape[-2] > x.shape[-1]:
        x = x.mT
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if wide else x
