"""Stable Diffusion 1.5 in full size with random weights, made where they are used: speed does not depend on them.

Random weights are scaled so that a comparison of precisions means something: a prediction is about as large as noise,
injection shows, and pictures and latents have the spread that real ones have.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stylus_audio.places import CONFIGS

PREDICTED = 0.7
"""Deviation of a prediction for a latent of deviation 1; over 1 every error grows from step to step."""

PICTURE = 0.4
"""Deviation of a decoded picture, which lies in [-1, 1]."""


def _config(part: str, name: str = "config.json") -> dict[str, Any]:
    config: dict[str, Any] = json.loads((CONFIGS / "sd1" / part / name).read_text("utf-8"))
    return config


def scheduler() -> Any:
    """Its noise schedule."""
    return DDIMScheduler.from_config(_config("scheduler", "scheduler_config.json"))


@torch.no_grad()
def unet(device: torch.device, size: int = 64, **changes: Any) -> Any:
    """The UNet in float32, for latents of `size`; `changes` of its configuration make a smaller one."""
    torch.manual_seed(0)
    with device:
        made = UNet2DConditionModel.from_config({**_config("unet"), **changes}).eval().requires_grad_(False)
    for name, weight in made.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight")):
            weight.mul_(2)
        if name.endswith("attn1.to_v.weight"):
            weight.mul_(8)
    width = made.config.cross_attention_dim
    with device:
        predicted = made(torch.randn(1, 4, size, size), 500, encoder_hidden_states=torch.randn(1, 77, width)).sample
    _scaled(made.conv_out, predicted, PREDICTED)
    return made


@torch.no_grad()
def autoencoder(device: torch.device, size: int = 64, **changes: Any) -> Any:
    """The autoencoder in float32; latents of pictures and pictures of latents have the spread of real ones."""
    torch.manual_seed(1)
    with device:
        made = AutoencoderKL.from_config({**_config("vae"), **changes}).eval().requires_grad_(False)
        latent, picture = torch.randn(1, 4, size, size), torch.rand(1, 3, 8 * size, 8 * size) * 2 - 1
    scale = made.config.scaling_factor
    _scaled(made.quant_conv, made.encode(picture).latent_dist.mode(), 1 / scale)
    _scaled(made.decoder.conv_out, made.decode(latent / scale).sample, PICTURE)
    return made


@torch.no_grad()
def flops(unet: Any, size: int) -> int:
    """Of a pass over one window's latent of `size`; a multiplication and an addition are two."""
    latent = torch.zeros(1, 4, size, size, device=unet.device, dtype=unet.dtype)
    embedding = torch.zeros(1, 77, unet.config.cross_attention_dim, device=unet.device, dtype=unet.dtype)
    # Attention as products: of the call that fuses it on a CPU the counter knows nothing.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        unet(latent, 1, encoder_hidden_states=embedding)
    return int(counter.get_total_flops())


def _scaled(layer: Any, output: Tensor, deviation: float) -> None:
    """Make a last layer, which gave `output`, give this deviation around zero."""
    layer.weight.mul_(deviation / output.std())
    layer.bias.zero_()
