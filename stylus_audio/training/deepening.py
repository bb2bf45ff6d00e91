"""A deeper UNet that starts where a shallower one has come to: what is added passes on what it gets.

Net2DeeperNet (Chen et al., arXiv 1511.05641) for diffusers' UNets, whose decoder takes what the encoder leaves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ..errors import BadRequest

_LAYER = re.compile(r"(?P<level>(?:down|up)_blocks\.\d+)\.(?P<kind>resnets|attentions)\.(?P<number>\d+)\.(?P<rest>.+)")

_LAST = ("conv2", "proj_out")
"""The last of a residual block, and of a transformer: where it is zero nothing is added to what went in."""


def deepened(weights: Mapping[str, Tensor], unet: nn.Module) -> dict[str, Tensor]:
    """Weights of a UNet with fewer layers in some levels, as those of `unet`, which then says the same.

    In the encoder new layers come behind the old ones of their level; in the decoder, which takes what these leave last
    to first, behind its first. They have `unet`'s own weights where these do not count yet. Raises `BadRequest` where
    a level of `unet` has fewer layers.
    """
    own = unet.state_dict()
    before, now = _layers(weights), _layers(own)
    if before.keys() != now.keys() or any(now[level] < layers for level, layers in before.items()):
        raise BadRequest("these weights are of a UNet with other or deeper levels than the one that is to be trained")
    made = {}
    for name, value in own.items():
        place = _LAYER.fullmatch(name)
        if place is None:
            made[name] = weights[name]
            continue
        level, number = place["level"], int(place["number"])
        added = now[level] - before[level]
        first = 1 if level.startswith("up") else before[level]
        if first <= number < first + added:
            made[name] = _idle(place["rest"], value)
        else:
            old = number if number < first else number - added
            made[name] = weights[f"{level}.{place['kind']}.{old}.{place['rest']}"]
    return made


def _layers(names: Iterable[str]) -> dict[str, int]:
    """How many layers each level has on its way down and on its way up."""
    counts: dict[str, int] = {}
    for name in names:
        if place := _LAYER.fullmatch(name):
            counts[place["level"]] = max(counts.get(place["level"], 0), int(place["number"]) + 1)
    return counts


def _idle(name: str, value: Tensor) -> Tensor:
    """Of a layer that passes on what it gets; in the decoder that is the first of its channels, from below."""
    if name.startswith(_LAST) or name == "conv_shortcut.bias":
        return torch.zeros_like(value)
    if name == "conv_shortcut.weight":
        return torch.eye(*value.shape[:2]).to(value)[:, :, None, None]
    return value
