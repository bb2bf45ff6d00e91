"""Picture to latent and back: the autoencoder of Stable Diffusion, or an exact patchify.

Pictures are `[window, mel, frame]` in [0, 1], band 0 first; latents `[window, channel, height, width]`, float32.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .memory import all_bytes

TOGETHER = 4
"""Windows in one pass of the autoencoder on a GPU: in a trial on an H100 decoded in 7 ms each, one alone in 29."""
HELD = 1000
"""Values that Stable Diffusion's holds at once for a pixel: 970 to decode and 640 to encode, counted by a profiler."""
MEMORY_SHARE = 1 / 8
"""Of the device's memory, at most, for these: by what is free just then the last bits would differ between renders."""


class Latent(Protocol):
    """A codec between pictures and latents."""

    factor: int
    """Frames (and bands) under one latent column (and row)."""

    def encode(self, picture: Tensor) -> Tensor:
        """Picture to latent."""
        ...

    def decode(self, latent: Tensor) -> Tensor:
        """Latent to picture, in [0, 1]."""
        ...


class Patchify:
    """Exact: squares of `factor` × `factor` values become channels, normalised by `shift` and `scale`.

    >>> codec = Patchify(8, 0.25, 0.2)
    >>> picture = torch.rand(1, 64, 32)
    >>> codec.encode(picture).shape, bool(torch.allclose(codec.decode(codec.encode(picture)), picture, atol=1e-6))
    (torch.Size([1, 64, 8, 4]), True)
    """

    def __init__(self, factor: int, shift: float, scale: float) -> None:
        self.factor = factor
        self.shift = shift
        self.scale = scale

    def encode(self, picture: Tensor) -> Tensor:
        """Picture to latent, without loss."""
        return F.pixel_unshuffle((picture[:, None] - self.shift) / self.scale, self.factor)

    def decode(self, latent: Tensor) -> Tensor:
        """Latent to picture."""
        return (F.pixel_shuffle(latent, self.factor)[:, 0] * self.scale + self.shift).clamp(0, 1)


class Autoencoder:
    """Stable Diffusion's AutoencoderKL on the picture as RGB, low frequencies at the bottom as Riffusion draws it.

    Encodes to the mode of the posterior, so that nothing is random. Its activations are large: on a GPU a few windows
    go at once where there is room for them, elsewhere one.
    """

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)

    def encode(self, picture: Tensor) -> Tensor:
        """Picture to latent, scaled by the autoencoder's `scaling_factor`."""
        return self.encode_colours(picture.flip(1)[:, None].expand(-1, 3, -1, -1))

    def decode(self, latent: Tensor) -> Tensor:
        """Latent to picture, the mean of the three colours."""
        return self._decoded(latent).mean(1).clamp(0, 1).flip(1)

    @torch.no_grad()
    def encode_colours(self, pictures: Tensor) -> Tensor:
        """Any pictures, `[picture, colour, row, column]` in [0, 1] from the top down, to latents."""
        few = torch.split(pictures * 2 - 1, self._together(pictures[0, 0].numel()))
        modes = [self.vae.encode(self._in(one)).latent_dist.mode() for one in few]
        return torch.cat(modes).float() * float(self.vae.config.scaling_factor)

    def decode_colours(self, latent: Tensor) -> Tensor:
        """Latents to pictures as `encode_colours` takes them."""
        return self._decoded(latent).clamp(0, 1)

    @torch.no_grad()
    def _decoded(self, latent: Tensor) -> Tensor:
        scaled = latent / self.vae.config.scaling_factor
        few = torch.split(scaled, self._together(latent[0, 0].numel() * self.factor**2))
        return torch.cat([self.vae.decode(self._in(one)).sample.float() / 2 + 0.5 for one in few])

    def _together(self, pixels: int) -> int:
        """How many windows of so many pixels go through at once."""
        device = self.vae.device
        if device.type == "cpu":
            return 1
        fit = MEMORY_SHARE * all_bytes(device) / (HELD * pixels * self.vae.dtype.itemsize)
        return max(1, min(TOGETHER, int(fit)))

    def _in(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.vae.device, self.vae.dtype)
