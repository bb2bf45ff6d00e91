"""Self-attention with a hand in it: processors that hand Q, K and V of chosen layers to a function.

Tensors are `[window, token, channel]`, channels being all heads side by side, as diffusers projects them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .chunked_attention import chunked, is_quicker
from .errors import BadRequest

Observer = Callable[[int, Tensor], None]
"""Sees a layer's number and its attention output."""


@dataclass(frozen=True)
class Projection:
    """What one self-attention layer has just projected, `[window, token, channel]` each."""

    layer: int
    heads: int
    query: Tensor
    key: Tensor
    value: Tensor


class Attend(Protocol):
    """Turns a projection into the attention output `[window, token, channel]`, before the output projection.

    Its tensors stand apart from what else it is, so that a pass with it can be captured and replayed on others.
    """

    def __call__(self, projection: Projection) -> Tensor: ...

    @property
    def constants(self) -> Hashable:
        """All that it depends on beside its tensors; None where the next pass has others, so that none is captured."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What it reads, by name."""
        ...

    def reading(self, tensors: Mapping[str, Tensor]) -> Attend:
        """The same, reading these in place of its own `tensors`; others among them are not its."""
        ...

    def recorded(self) -> dict[str, Tensor]:
        """What it has recorded in a pass, by name."""
        return {}

    def keep(self, recorded: Mapping[str, Tensor]) -> None:
        """Take over what another one of its kind has `recorded`."""
        return


@dataclass(frozen=True)
class Hand:
    """Who attends in which layers, and who watches."""

    layers: Sequence[int]
    attend: Attend
    observe: Observer | None = None


def attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int, tau: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """`softmax(τ Q Kᵀ / √d) V` by the library's fused call, or on some CPUs `chunked` (METHOD 4).

    `key` and `value` may have one window for all of `query`'s; `mask` `[window, token]` is true for the keys to attend.
    """
    windows, tokens, channels = query.shape
    size = channels // heads

    def split(tensor: Tensor) -> Tensor:
        return tensor.view(tensor.shape[0], -1, heads, size).transpose(1, 2).expand(windows, -1, -1, -1)

    asked, keys, values, scale = split(query), split(key), split(value), tau * size**-0.5
    if is_quicker(asked, keys):
        output = chunked(asked, keys, values, scale, mask)
    else:
        told = None if mask is None else mask[:, None, None, :]
        output = F.scaled_dot_product_attention(asked, keys, values, attn_mask=told, scale=scale)
    return output.transpose(1, 2).reshape(windows, tokens, channels)


class Plain(Attend):
    """An `Attend` that leaves attention as it is, but for keys that are padding or silence (METHOD 3).

    `columns` `[window, width]` marks the columns of the latent `(height, width)` that count; None: all do.
    """

    def __init__(self, columns: Tensor | None, latent: tuple[int, int]) -> None:
        self.columns = columns
        self.latent = latent

    @property
    def constants(self) -> Hashable:
        """The latent's size."""
        return "plain", self.latent

    def tensors(self) -> dict[str, Tensor]:
        """The columns, where some do not count."""
        return {} if self.columns is None else {"columns": self.columns}

    def reading(self, tensors: Mapping[str, Tensor]) -> Plain:
        """The same with other columns."""
        return Plain(tensors.get("columns"), self.latent)

    def mask(self, projection: Projection) -> Tensor | None:
        """The tokens of this layer that count, `[window, token]`."""
        return token_mask(self.columns, self.latent, projection.key.shape[1])

    def __call__(self, projection: Projection) -> Tensor:
        """Self-attention over the tokens that count."""
        mask = self.mask(projection)
        return attention(projection.query, projection.key, projection.value, projection.heads, mask=mask)


class _Processor:
    """diffusers' attention processor of one layer, with `attend` in the place of the fused attention."""

    def __init__(self, layer: int, attend: Attend, observe: Observer | None) -> None:
        self.layer = layer
        self.attend = attend
        self.observe = observe

    def __call__(self, attn: Any, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        projection = Projection(
            self.layer, attn.heads, attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        )
        attended = self.attend(projection)
        if self.observe:
            self.observe(self.layer, attended)
        return projected_out(attn, attended.to(hidden_states.dtype))


def projected_out(attn: Any, attended: Tensor) -> Tensor:
    """What a diffusers attention module does behind the attention itself, but for dropout."""
    output: Tensor = attn.to_out[0](attended)
    # Nearly always 1, and dividing by it would pass over the whole tensor.
    return output if attn.rescale_output_factor == 1.0 else output / attn.rescale_output_factor


def feature_bytes(unet: Any, layers: Sequence[int], latent: tuple[int, int], itemsize: int) -> int:
    """Size of one recorded part (Q, K or V) of one window and step over the chosen layers (METHOD 7)."""
    modules = decoder_layers(unet)
    blocks = len(unet.up_blocks)
    height, width = latent
    values = 0
    for layer in layers:
        ratio = 2 ** (blocks - 1 - layer // 3)
        values += -(-height // ratio) * -(-width // ratio) * modules[layer].to_q.out_features
    return values * itemsize


def decoder_layers(unet: Any) -> dict[int, Any]:
    """The decoder's self-attention modules by StyleID's numbers: `i` is `up_blocks[i // 3].attentions[i % 3]`."""
    return {
        3 * block_number + number: transformer.transformer_blocks[0].attn1
        for block_number, block in enumerate(unet.up_blocks)
        for number, transformer in enumerate(getattr(block, "attentions", None) or [])
    }


def choose_layers(unet: Any, layers: Sequence[int] | None) -> tuple[int, ...]:
    """The asked layers, or the published 6–11 where the UNet has them; `BadRequest` names those that there are."""
    there = decoder_layers(unet)
    if layers is None:
        layers = [layer for layer in range(6, 12) if layer in there] or sorted(there)
    missing = [layer for layer in layers if layer not in there]
    if missing:
        raise BadRequest(
            f"layers: the model has no layer {missing[0]}; it has {', '.join(map(str, sorted(there)))}"
            " (a recipe's are those of --model sd15)"
        )
    return tuple(layers)


@contextmanager
def attending(unet: Any, hand: Hand) -> Iterator[None]:
    """Install a hand in its layers, as `installed` does."""
    with installed(unet, hand.layers, lambda layer: _Processor(layer, hand.attend, hand.observe)):
        yield


@contextmanager
def installed(unet: Any, layers: Iterable[int], make: Callable[[int], Any]) -> Iterator[None]:
    """A processor in each chosen layer; puts back exactly those that were there, also on error."""
    modules = decoder_layers(unet)
    before = {layer: modules[layer].processor for layer in layers}
    try:
        for layer in before:
            modules[layer].processor = make(layer)
        yield
    finally:
        for layer, processor in before.items():
            modules[layer].processor = processor


def token_mask(columns: Tensor | None, latent: tuple[int, int], tokens: int) -> Tensor | None:
    """Which tokens of a layer count, `[window, token]`, from which latent columns do, `[window, width]`.

    A layer works on the latent's `(height, width)` divided by a power of two; a token counts when any column under it
    does.
    """
    if columns is None:
        return None
    height, width = latent
    ratio = round((height * width / tokens) ** 0.5)
    rows = tokens // -(-width // ratio)
    coarse = F.max_pool1d(columns[:, None].float(), ratio, ceil_mode=True)[:, 0] > 0
    return coarse[:, None, :].expand(-1, rows, -1).reshape(columns.shape[0], -1)


def joined(tensor: Tensor, mask: Tensor | None) -> Tensor:
    """Tokens of all windows in one row `[1, token, channel]`, those out of the mask left out."""
    flat = tensor.reshape(1, -1, tensor.shape[-1])
    return flat if mask is None else flat[:, torch.as_tensor(mask).reshape(-1)]
