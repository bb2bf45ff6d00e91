"""GroupNorm, with the SiLU behind it, on tensors whose channels come last: one kernel reads once and writes once.

PyTorch's own would turn them around and back. Needs Triton, which comes with PyTorch for CUDA on Linux.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn

from .unet import ActivatedNorm, UNet

_BLOCK = 4096
"""Values that a program works on at once."""


@triton.jit  # type: ignore[untyped-decorator]
def _normalise(  # type: ignore[no-untyped-def]
    x, out, weight, bias, pixels, channels, eps, PER: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
    SILU: tl.constexpr,
):  # fmt: skip
    """One group of one sample; `PER` channels are in it, `WIDTH` is the power of two over it."""
    group = tl.program_id(1)
    column = group * PER + tl.arange(0, WIDTH)
    inside = tl.arange(0, WIDTH) < PER
    start = tl.program_id(0).to(tl.int64) * pixels * channels
    count = pixels * PER
    total = tl.zeros([ROWS, WIDTH], tl.float32)
    for first in range(0, pixels, ROWS):
        row = first + tl.arange(0, ROWS)
        mask = (row[:, None] < pixels) & inside[None, :]
        total += tl.load(x + start + row[:, None] * channels + column[None, :], mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(tl.sum(total, 1), 0) / count
    squares = tl.zeros([ROWS, WIDTH], tl.float32)
    for first in range(0, pixels, ROWS):
        row = first + tl.arange(0, ROWS)
        mask = (row[:, None] < pixels) & inside[None, :]
        value = tl.load(x + start + row[:, None] * channels + column[None, :], mask=mask, other=0.0).to(tl.float32)
        apart = tl.where(mask, value - mean, 0.0)
        squares += apart * apart
    scale = 1.0 / tl.sqrt(tl.sum(tl.sum(squares, 1), 0) / count + eps)
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32) * scale
    shift = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32) - mean * gain
    for first in range(0, pixels, ROWS):
        row = first + tl.arange(0, ROWS)
        mask = (row[:, None] < pixels) & inside[None, :]
        at = start + row[:, None] * channels + column[None, :]
        value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) * gain[None, :] + shift[None, :]
        if SILU:
            value = value * tl.sigmoid(value)
        tl.store(out + at, value.to(out.dtype.element_ty), mask=mask)


class ChannelsLastGroupNorm(nn.Module):
    """A `GroupNorm` `[sample, channel, row, column]` → the same, channels last; with `silu` the activation too."""

    def __init__(self, norm: Any, silu: bool) -> None:
        super().__init__()
        self.norm, self.silu = norm, silu

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, and activate."""
        norm, channels = self.norm, x.shape[1]
        x = x.contiguous(memory_format=torch.channels_last)
        out = torch.empty_like(x)
        per = channels // norm.num_groups
        width = triton.next_power_of_2(per)
        # Triton launches on the current device, wherever the tensors are.
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            _normalise[(len(x), norm.num_groups)](
                x, out, norm.weight, norm.bias, x.shape[2] * x.shape[3], channels, norm.eps, PER=per, WIDTH=width,
                ROWS=max(1, _BLOCK // width), SILU=self.silu, num_warps=8,
            )  # fmt: skip
        return out


def check(device: torch.device, dtype: torch.dtype) -> None:
    """Raise `RuntimeError` where the kernel does not give what PyTorch gives."""
    norm = nn.GroupNorm(32, 320).to(device, dtype)
    x = torch.randn(2, 320, 9, 7, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    made, expected = ChannelsLastGroupNorm(norm, True)(x), F.silu(norm(x))
    if not torch.allclose(made, expected, atol=1e-2, rtol=1e-2):
        raise RuntimeError("the kernel of GroupNorm is wrong here")


def install(unet: Any) -> None:
    """Give our UNet, or diffusers', these in the place of its own, wherever they do what it does."""
    if isinstance(unet, UNet):
        for module in list(unet.modules()):
            for name, norm in list(module.named_children()):
                if isinstance(norm, nn.GroupNorm):
                    setattr(module, name, ChannelsLastGroupNorm(norm, isinstance(norm, ActivatedNorm)))
        return
    for module in list(unet.modules()):
        kind = type(module).__name__
        if kind == "ResnetBlock2D" and module.time_embedding_norm == "default" and not module.skip_time_act:
            _in_resnet(module)
        elif kind == "Transformer2DModel" and isinstance(module.norm, nn.GroupNorm):
            module.norm = ChannelsLastGroupNorm(module.norm, False)
    if isinstance(unet.conv_norm_out, nn.GroupNorm) and isinstance(unet.conv_act, nn.SiLU):
        unet.conv_norm_out = ChannelsLastGroupNorm(unet.conv_norm_out, True)
        unet.conv_act = nn.Identity()


def _in_resnet(resnet: Any) -> None:
    if not isinstance(resnet.nonlinearity, nn.SiLU) or resnet.time_emb_proj is None:
        return
    resnet.norm1 = ChannelsLastGroupNorm(resnet.norm1, True)
    resnet.norm2 = ChannelsLastGroupNorm(resnet.norm2, True)
    # The block's one activation also serves the time embedding.
    resnet.time_emb_proj = nn.Sequential(resnet.nonlinearity, resnet.time_emb_proj)
    resnet.nonlinearity = nn.Identity()
