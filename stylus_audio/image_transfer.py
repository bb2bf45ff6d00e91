"""The method on plain pictures, which is what StyleID was published for (Chung et al., CVPR 2024).

Pictures are `[row, column, colour]` in 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .errors import BadRequest
from .latent import Autoencoder
from .model import Model
from .settings import Settings
from .stylize import stylize_latents

Pixels = NDArray[np.uint8]

_MULTIPLE = 64
"""Sides are multiples of this: eight pixels to a column of the latent, and three halvings in the UNet."""


def transfer(
    model: Model,
    content: Pixels,
    styles: Sequence[Pixels],
    settings: Settings,
    tick: Callable[[], None] | None = None,
) -> Pixels:
    """The content's picture in the styles' manner, in the content's size.

    All are scaled so that their shorter side is what the model was trained on. `tick` is called after every pass.
    Raises `BadRequest` for a model that is not one of Stable Diffusion's, and for settings that do not fit.
    """
    codec = model.latent
    if not isinstance(codec, Autoencoder):
        raise BadRequest(f"model: {model.name} knows spectrograms only; sd15 and sd21 take pictures")
    side = max(_MULTIPLE, model.unet.config.sample_size * codec.factor)
    latents = [codec.encode_colours(_scaled(pixels, side)).to(model.device) for pixels in (content, *styles)]
    styled = stylize_latents(
        model.unet, model.scheduler, latents[0], latents[1:], model.embedding(), settings, tick=tick,
        graphs=model.graphs,
    )  # fmt: skip
    made = codec.decode_colours(styled)[0].permute(1, 2, 0).cpu().numpy()
    height, width = content.shape[:2]
    image = Image.fromarray(np.round(made * 255).astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def _scaled(pixels: Pixels, side: int) -> Tensor:
    """`[1, colour, row, column]` in [0, 1], whose shorter side is about `side`."""
    height, width = pixels.shape[:2]
    scale = side / min(height, width)
    size = [max(1, round(length * scale / _MULTIPLE)) * _MULTIPLE for length in (width, height)]
    image = Image.fromarray(pixels).resize((size[0], size[1]), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1)[None]
