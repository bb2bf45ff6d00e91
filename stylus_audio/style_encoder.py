"""From windows of a reference to style tokens for cross-attention (Huang et al., arXiv 2404.14771, section 3)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pretrained import Pretrained


class StyleEncoder(Pretrained):
    """One token for each `stride` rows of the latent: what the reference sounds like in that part of the spectrum.

    Statistics over time (mean, deviation, and a mean with learned weights) of convolutional features, so that neither
    the order nor the number of the reference's frames counts, only what occurs in them.
    """

    def __init__(
        self, channels: int = 64, rows: int = 64, width: int = 128, context: int = 128, depth: int = 3, stride: int = 1
    ) -> None:
        super().__init__(channels=channels, rows=rows, width=width, context=context, depth=depth, stride=stride)
        self.enter = nn.Conv2d(channels, width, stride, stride)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.weigh = nn.Conv2d(width, 1, 1)
        self.leave = nn.Linear(3 * width, context)
        # Deviation 0.02. Normal values on the meta device would bring PyTorch's compiler, which takes seconds.
        self.position = nn.Parameter(torch.empty(rows, context).uniform_(-0.02 * 3**0.5, 0.02 * 3**0.5))
        self.norm = nn.LayerNorm(context)

    def forward(self, latent: Tensor, columns: Tensor | None = None) -> Tensor:
        """Tokens `[style, row, context]` of `latent` `[style, window, channel, row, column]`.

        `columns` `[style, window, column]` marks what counts: padding and silence do not.
        """
        styles, windows = latent.shape[:2]
        features = self.enter(latent.flatten(0, 1))
        for block in self.blocks:
            features = block(features)
        logits = self.weigh(features)
        # [style, channel, row, every column of every window]
        features, logits = (
            value.unflatten(0, (styles, windows)).permute(0, 2, 3, 1, 4).flatten(3) for value in (features, logits)
        )
        counts = torch.ones_like(logits[:, :, :1])
        if columns is not None:
            reduced = F.max_pool1d(columns.to(logits), self.config.stride, ceil_mode=True)
            counts = reduced.reshape(styles, 1, 1, -1)
        logits = logits.float().masked_fill(counts == 0, -1e4)
        share = counts / counts.sum(-1, keepdim=True).clamp_min(1)
        mean = (features * share).sum(-1)
        deviation = ((features - mean[..., None]).square() * share).sum(-1).add(1e-6).sqrt()
        weighted = (features * logits.softmax(-1).to(features)).sum(-1)
        pooled = torch.cat([mean, deviation, weighted], 1).transpose(1, 2)
        result: Tensor = self.norm(self.leave(pooled) + self.position)
        return result


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(16, width) for _ in range(2))
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, features: Tensor) -> Tensor:
        change: Any = features
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            change = convolution(F.silu(norm(change)))
        result: Tensor = features + change
        return result
