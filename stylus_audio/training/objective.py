"""What the networks are trained to do: the losses of the embedded model and of the regression that it is compared with.

A conditional diffusion of the *residual* over the match-EQ, with the content as a map (Huang et al., arXiv 2404.14771),
style tokens in cross-attention and the reference's keys and values in the decoder's self-attention; each is dropped at
random, so the same weights also run unconditionally, on pictures themselves, which is what injection needs.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import attention, decoder_layers, installed, projected_out
from .architecture import CONTEXT, LAST_TIME, ROWS, build_encoder, build_scheduler, build_unet

UNCONDITIONAL = 0.15
"""Share of steps without content and style."""
INJECTION = 0.7
"""Share of the other steps with the reference's keys and values; half of the unconditional ones have them."""
NO_TOKENS = 0.1
AT_ONCE = 0.6
"""Share of the examples that are asked for the answer at once, with nothing of it to start from: what counts most."""
NOISIEST = 600
"""The others start from the answer under noise of a time up to this, which is what refining starts from."""

REFERENCES_FROM, REFINING_FROM = 8_000, 24_000
"""Examples before references are read, and before anything but the answer at once is learned: the harder on top."""

Rng = np.random.Generator


@dataclass(frozen=True)
class Latents:
    """A batch of pairs as latents `[window, channel, row, column]`; `spread` is the residual's deviation."""

    content: Tensor
    guide: Tensor
    answer: Tensor
    reference: Tensor
    spread: float


class Objective(Protocol):
    """Networks and their loss on one batch."""

    def build(self) -> nn.ModuleDict: ...

    def loss(self, networks: nn.ModuleDict, latents: Latents, rng: Rng, seen: int) -> Tensor: ...

    def refines(self, seen: int) -> bool: ...


class Diffusion:
    """The embedded model: the answer at once, and v-prediction over random times (Salimans and Ho, 2022)."""

    def __init__(self, refining_from: int = REFINING_FROM) -> None:
        self.scheduler = build_scheduler()
        self.refining_from = refining_from

    def build(self) -> nn.ModuleDict:
        """UNet and style encoder."""
        return nn.ModuleDict({"unet": build_unet(), "encoder": build_encoder()})

    def refines(self, seen: int) -> bool:
        """Whether after so many examples more is learned than the answer at once."""
        return seen >= self.refining_from

    def loss(self, networks: nn.ModuleDict, latents: Latents, rng: Rng, seen: int) -> Tensor:
        """Error of v; `seen` is how many examples there were.

        Where the answer is asked for at once the network is given zeros for the noise, which would tell it nothing,
        and the error is absolute: its answer is a median, a partial that is there or not. The square's is a mean, all
        partials at half their level in a haze.
        """
        unet, size = networks["unet"], len(latents.content)
        refining = self.refines(seen)
        unconditional = refining and rng.random() < UNCONDITIONAL
        injected = seen >= REFERENCES_FROM and rng.random() < (0.5 if unconditional else INJECTION)
        # One time from each of `size` equal parts: uniform still, with less variance (Kingma et al., 2021).
        times = (rng.permutation(size) + rng.random(size)) * (1000 if unconditional else NOISIEST) / size
        at_once = rng.random(size) < (0.0 if unconditional else AT_ONCE if refining else 1.0)
        times = np.where(at_once, LAST_TIME, times)
        labels = torch.from_numpy(times.astype(np.int64)).to(latents.content.device)
        noise = _noise(rng, latents.answer)
        empty = torch.zeros(size, ROWS, CONTEXT, device=noise.device)
        if unconditional:
            clean, maps, tokens = latents.answer, torch.zeros_like(latents.answer).repeat(1, 2, 1, 1), empty
        else:
            clean = (latents.answer - latents.guide) / latents.spread
            maps = torch.cat([latents.content, latents.guide], 1)
            kept = torch.from_numpy(rng.random(size) >= NO_TOKENS).to(noise.device)
            tokens = networks["encoder"](latents.reference[:, None]) * kept[:, None, None]
        exchange = Exchange(unet)
        if injected:
            with torch.no_grad(), exchange.keeping():
                if unconditional:
                    # Injection reads the reference at the time that it samples at.
                    there = self.scheduler.add_noise(latents.reference, _noise(rng, noise), labels)
                    unet(torch.cat([there, maps], 1), labels, encoder_hidden_states=empty)
                else:
                    own = torch.cat([torch.zeros_like(noise), latents.reference, latents.reference], 1)
                    unet(own, torch.zeros_like(labels), encoder_hidden_states=tokens.detach())
        whole = torch.from_numpy(at_once).to(noise.device)[:, None, None, None]
        noisy = self.scheduler.add_noise(clean, noise, labels).masked_fill(whole, 0.0)
        target = torch.where(whole, -clean, self.scheduler.get_velocity(clean, noise, labels))
        with exchange.answering(injected):
            inputs = torch.cat([noisy, maps], 1).contiguous(memory_format=torch.channels_last)
            output = unet(inputs, labels, encoder_hidden_states=tokens).sample
        error = output.float() - target
        return torch.where(whole, error.abs(), error.square()).mean()


class Regression:
    """The honest comparator: the same network in one pass from content and match-EQ to the residual, by its L1 error.

    It sees the reference by the match-EQ alone.
    """

    def build(self) -> nn.ModuleDict:
        """A UNet without noise or tokens."""
        return nn.ModuleDict({"unet": build_unet(maps=1)})

    def refines(self, seen: int) -> bool:
        """Never: it has one pass."""
        del seen
        return False

    def loss(self, networks: nn.ModuleDict, latents: Latents, rng: Rng, seen: int) -> Tensor:
        """Mean absolute error of the residual."""
        del rng, seen
        output = regress(networks["unet"], latents.content, latents.guide)
        return F.l1_loss(output, (latents.answer - latents.guide) / latents.spread)


def regress(unet: Any, content: Tensor, guide: Tensor) -> Tensor:
    """The comparator's residual `[window, channel, row, column]`, in units of the residual's deviation."""
    inputs = torch.cat([content, guide], 1).contiguous(memory_format=torch.channels_last)
    empty = torch.zeros(len(content), 1, CONTEXT, device=content.device, dtype=content.dtype)
    output: Tensor = unet(inputs, 0, encoder_hidden_states=empty).sample
    return output.float()


def _noise(rng: Rng, like: Tensor) -> Tensor:
    return torch.from_numpy(rng.standard_normal(like.shape, np.float32)).to(like.device)


class Exchange:
    """The reference's place in the decoder's self-attention while training.

    What goes into each layer is kept without its gradient, and projected again with it: keys and values learn to serve
    another clip's queries at a third of the price of going back through the reference's pass.
    """

    def __init__(self, unet: Any) -> None:
        self._unet = unet
        self._kept: dict[int, Tensor] = {}

    def keeping(self) -> AbstractContextManager[None]:
        """The pass of the reference."""
        return installed(self._unet, decoder_layers(self._unet), lambda layer: _Keep(layer, self._kept))

    def answering(self, injected: bool) -> AbstractContextManager[None]:
        """The pass that the loss is of; without `injected` attention is as it is."""
        if not injected:
            return nullcontext()
        return installed(self._unet, self._kept, lambda layer: _Answer(self._kept[layer]))


class _Keep:
    def __init__(self, layer: int, kept: dict[int, Tensor]) -> None:
        self.layer, self.kept = layer, kept

    def __call__(self, module: Any, hidden: Tensor, *_: object, **__: object) -> Tensor:
        self.kept[self.layer] = hidden.detach()
        return _attended(module, hidden, hidden)


class _Answer:
    def __init__(self, reference: Tensor) -> None:
        self.reference = reference

    def __call__(self, module: Any, hidden: Tensor, *_: object, **__: object) -> Tensor:
        return _attended(module, hidden, self.reference)


def _attended(module: Any, asking: Tensor, answering: Tensor) -> Tensor:
    output = attention(module.to_q(asking), module.to_k(answering), module.to_v(answering), module.heads)
    return projected_out(module, output)
