"""Statistics of the first latent: AdaIN and EFDM (METHOD 3).

Latents are `[window, channel, height, width]`. A clip has one set of statistics over all its windows; `columns`
`[window, width]` marks what counts: padding and silence do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def _counted(latent: Tensor, columns: Tensor | None) -> Tensor:
    """Values that count, `[channel, value]`."""
    values = latent.permute(1, 2, 0, 3)
    if columns is None:
        return values.reshape(latent.shape[1], -1)
    return values[:, :, columns].reshape(latent.shape[1], -1)


def _moments(latent: Tensor, columns: Tensor | None) -> tuple[Tensor, Tensor]:
    values = _counted(latent, columns)
    return values.mean(1)[None, :, None, None], values.std(1)[None, :, None, None]


def adain(content: Tensor, style: Tensor, columns: Tensor | None = None, style_columns: Tensor | None = None) -> Tensor:
    """`σ_s (z_c − μ_c) / (σ_c + 1e-4) + μ_s` for each latent channel (StyleID, eq. 8).

    >>> content, style = torch.randn(2, 4, 8, 8), 3 + 2 * torch.randn(1, 4, 8, 8)
    >>> bool((adain(content, style).mean((0, 2, 3)) - style.mean((0, 2, 3))).abs().max() < 1e-4)
    True
    """
    mean, std = _moments(content, columns)
    style_mean, style_std = _moments(style, style_columns)
    return style_std * (content - mean) / (std + 1e-4) + style_mean


def efdm(content: Tensor, style: Tensor, columns: Tensor | None = None, style_columns: Tensor | None = None) -> Tensor:
    """Exact feature distribution matching: the content's values by rank become the style's (Stylus).

    Where the two have different numbers of values, the style's sorted values are interpolated linearly.
    """
    values, targets = _counted(content, columns), _counted(style, style_columns).sort(1).values
    n, m = values.shape[1], targets.shape[1]
    # On the CPU: Apple's GPU has no double precision.
    position = torch.linspace(0, m - 1, n, dtype=torch.float64)
    below = position.floor().long().clamp(max=m - 1)
    share, low = (position - below).to(values), below.to(values.device)
    high = (low + 1).clamp(max=m - 1)
    by_rank = targets[:, low] * (1 - share) + targets[:, high] * share
    matched = torch.empty_like(values).scatter_(1, values.argsort(dim=1, stable=True), by_rank)
    result = content.permute(1, 2, 0, 3).clone()
    if columns is None:
        result = matched.reshape(result.shape)
    else:
        result[:, :, columns] = matched.reshape(*result.shape[:2], -1)
    return result.permute(2, 0, 1, 3)


def normalised(weights: Sequence[float] | None, count: int) -> list[float]:
    """Style weights that sum to one; equal where none are given.

    >>> normalised((3, 1), 2)
    [0.75, 0.25]
    """
    given = list(weights) if weights is not None else [1.0] * count
    return [weight / sum(given) for weight in given]
