"""Attention in bf16 on CPUs without AMX, whose fused kernel in PyTorch 2.13 takes twice as long (docs/performance.md).

Products of whole matrices keep these CPUs busy; scores are taken a chunk of queries at a time, so that they stay in the
cache.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

SCORES = 2**21
"""Of one chunk: 4 MB."""
FEWEST_KEYS = 256
"""With fewer the fused kernel is as quick."""
LARGEST_HEAD = 32
"""The embedded models'. Scores grow with it, and here they are rounded to bf16, which the fused kernel's are not."""


def is_quicker(query: Tensor, key: Tensor) -> bool:
    """Whether `chunked` is the quicker one for `[window, head, token, channel]`; never where gradients are wanted."""
    return (
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and key.shape[-2] >= FEWEST_KEYS
        and key.shape[-1] <= LARGEST_HEAD
        and not (torch.is_grad_enabled() and (query.requires_grad or key.requires_grad))
        and _has("avx512_bf16")
        and not _has("amx_tile")
    )


def chunked(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """`softmax(scale · Q Kᵀ) V` of `[window, head, token, channel]`; `mask` `[window, token]` says which keys count.

    Softmax adds up in float32, as PyTorch does for bf16.
    """
    windows, heads, tokens, size = query.shape
    # The memory of `[window, token, head, channel]`, as the caller wants it next.
    output = query.new_empty(windows, tokens, heads, size).transpose(1, 2)
    counts = [None] * windows if mask is None else mask.expand(windows, -1)
    for window, counted in enumerate(counts):
        keys, values = key[window], value[window]
        if counted is not None:
            keys, values = keys[:, counted], values[:, counted]
        rows = max(1, SCORES // max(1, keys.shape[1]))
        for asked, scaled, told, out in zip(query[window], keys * scale, values, output[window], strict=True):
            for queries, place in zip(asked.split(rows), out.split(rows), strict=True):
                place.copy_(torch.softmax(queries @ scaled.T, -1) @ told)
    return output


@cache
def _has(instructions: str) -> bool:
    # Private in PyTorch; without it none is known of.
    check = getattr(torch.cpu, f"_is_{instructions}_supported", None)
    return check is not None and bool(check())
