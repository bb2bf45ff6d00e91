"""The method on latents: ours against the published loop, written plainly from METHOD (`tests/plain.py`)."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from stylus_audio import Settings, stylize_latents
from stylus_audio.latent import Autoencoder
from stylus_audio.model import choose_device, choose_dtype
from stylus_audio.places import MODELS
from tests import plain

from . import sd15
from .table import Row, apart, side_by_side

LAYERS = (6, 7, 8, 9, 10, 11)


def small(rounds: int, steps: int) -> Row:
    """Stable Diffusion's layout in small, two windows of content."""
    unet, scheduler = plain.small_unet()
    return _compared(f"latents: small UNet, 2 windows, {steps} steps", unet, unet, scheduler, 2, (16, 16), steps,
                     rounds, None)  # fmt: skip


def mini(rounds: int, steps: int, windows: int) -> Row:
    """The embedded model for injection."""
    unet = UNet2DConditionModel.from_pretrained(MODELS / "mini-injection", subfolder="unet").eval()
    scheduler = DDIMScheduler.from_pretrained(MODELS / "mini-injection", subfolder="scheduler")
    name = f"latents: mini-injection, {windows} windows, {steps} steps"
    return _compared(
        name, unet, _ours(unet, "float32"), scheduler, windows, (64, 32), steps, rounds, None, layers=(6, 7)
    )


def stable_diffusion(rounds: int, steps: int) -> list[Row]:
    """Stable Diffusion 1.5 in full size with random weights, one window; and our pass beside the floor."""
    unet, scheduler = sd15.unet(choose_device()), sd15.scheduler()
    ours = _ours(unet)
    name = f"latents: SD 1.5, 1 window, {steps} steps, ours in {str(ours.dtype).removeprefix('torch.')}"
    row = _compared(f"{name} on {unet.device.type}", unet, ours, scheduler, 1, (64, 64), steps, rounds, 5.0)
    return [row, _above_floor(ours, rounds)]


def _compared(
    name: str,
    unet: Any,
    ours: Any,
    scheduler: Any,
    windows: int,
    size: tuple[int, int],
    steps: int,
    rounds: int,
    limit: float | None,
    layers: tuple[int, ...] = LAYERS,
) -> Row:
    channels, device = unet.config.out_channels, unet.device
    random = torch.Generator().manual_seed(1)
    content = torch.randn(windows, channels, *size, generator=random).to(device)
    style = torch.randn(1, channels, *size, generator=random).to(device)
    embedding = torch.randn(1, 77, unet.config.cross_attention_dim, generator=random).to(device)
    settings = Settings(steps=steps, layers=layers, alpha=0.9)

    def published() -> Tensor:
        return plain.stylize(unet, scheduler, content, [style], embedding, steps=steps, layers=layers, alpha=0.9)

    def engine() -> Tensor:
        return stylize_latents(ours, scheduler, content, [style], embedding, settings)

    results, seconds, peaks = side_by_side([published, engine], rounds)
    return Row(name, seconds[0] / seconds[1], apart(*results), peaks[1], limit, tuple(seconds))


def _ours(module: Any, dtype: str = "auto") -> Any:
    """The same weights as the engine has them: in its precision, and channels last on a CPU."""
    layout = torch.channels_last if module.device.type == "cpu" else torch.preserve_format
    return deepcopy(module).to(choose_dtype(dtype, module.device)).to(memory_format=layout)


@torch.no_grad()
def _above_floor(unet: Any, rounds: int) -> Row:
    """A pass's seconds over its floating-point operations at the rate of this machine's matrix products."""
    device, dtype = unet.device, unet.dtype
    size = unet.config.sample_size
    latent = torch.randn(1, 4, size, size, device=device, dtype=dtype)
    embedding = torch.randn(1, 77, unet.config.cross_attention_dim, device=device, dtype=dtype)
    operations = sd15.flops(unet, size)
    side = 2048
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    _, (product, taken), _ = side_by_side(
        [lambda: one @ other, lambda: unet(latent, 1, encoder_hidden_states=embedding)], max(3, rounds)
    )
    rate = 2 * side**3 / product
    notes = {"flops": operations, "matrix_flops_per_second": rate}
    return Row("SD 1.5, one pass over the floor of its FLOPs", taken * rate / operations, limit=-2.5,
               seconds=(operations / rate, taken), notes=notes)  # fmt: skip


def end_to_end(rounds: int, steps: int) -> Row:
    """Picture to picture at Stable Diffusion's size: the published code decodes every latent of its inversions."""
    unet, scheduler = sd15.unet(choose_device()), sd15.scheduler()
    vae, device = sd15.autoencoder(choose_device()), unet.device
    ours, codec = _ours(unet), Autoencoder(_ours(vae))
    random = torch.Generator().manual_seed(1)
    content, style = (torch.rand(1, 512, 512, generator=random).to(device) for _ in range(2))
    embedding = torch.randn(1, 77, 768, generator=random).to(device)
    settings = Settings(steps=steps, layers=LAYERS, alpha=0.9)

    @torch.no_grad()
    def published() -> Tensor:
        plainly = Autoencoder(vae)
        latents = [plainly.encode(one) for one in (content, style)]
        result = plain.stylize(
            unet, scheduler, latents[0], latents[1:], embedding, steps=steps, layers=LAYERS, alpha=0.9
        )
        # Of every latent of both inversions; their values do not matter for the time.
        for latent in latents * steps:
            plainly.decode(latent)
        return plainly.decode(result)

    def engine() -> Tensor:
        latents = [codec.encode(one) for one in (content, style)]
        return codec.decode(stylize_latents(ours, scheduler, latents[0], latents[1:], embedding, settings))

    results, seconds, peaks = side_by_side([published, engine], rounds)
    return Row(f"picture to picture: SD 1.5, 1 window, {steps} steps", seconds[0] / seconds[1], apart(*results),
               peaks[1], None, tuple(seconds))  # fmt: skip
