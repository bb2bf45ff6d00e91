"""Weights of diffusers' Stable Diffusion under the names of the original (CompVis) layout, to test single files with.

The names follow the layout of the original repository: blocks are numbered through, a UNet level being three of them.
"""

from __future__ import annotations

import re

from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
_UNET_PLAIN = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2", "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
}  # fmt: skip
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def _unet_place(name: str) -> tuple[str, str, bool]:
    """`(place, rest, whether it is a resnet)` of a UNet parameter."""
    for known, place in _UNET_PLAIN.items():
        if name.startswith(known + "."):
            return place, name[len(known) + 1 :], "resnets" in known
    found = re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.*)", name)
    if found:
        way, block, kind, number, rest = found.groups()
        index = 3 * int(block) + int(number) + (way == "down")
        return (
            f"{'input' if way == 'down' else 'output'}_blocks.{index}.{int(kind == 'attentions')}",
            rest,
            kind == "resnets",
        )
    found = re.match(r"(down|up)_blocks\.(\d)\.(?:down|up)samplers\.0\.conv\.(.*)", name)
    assert found, name
    way, number, rest = found.groups()
    if way == "down":
        return f"input_blocks.{3 * (int(number) + 1)}.0.op", rest, False
    return f"output_blocks.{3 * int(number) + 2}.{1 if number == '0' else 2}.conv", rest, False


def unet_to_original(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The UNet's weights as `model.diffusion_model.…`."""
    result = {}
    for name, value in weights.items():
        place, rest, resnet = _unet_place(name)
        if resnet:
            part, _, end = rest.rpartition(".")
            rest = f"{_RESNET[part]}.{end}"
        result[f"model.diffusion_model.{place}.{rest}"] = value
    return result


def vae_to_original(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The autoencoder's weights as `first_stage_model.…`; its attention's matrices are 1 × 1 convolutions there."""
    result = {}
    for name, value in weights.items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", new)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{3 - int(m[1])}.block", new)
        new = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", new)
        found = re.match(r"(.*)mid_block\.attentions\.0\.(.*)\.(weight|bias)", new)
        if found:
            before, part, end = found.groups()
            new = f"{before}mid.attn_1.{_ATTENTION[part]}.{end}"
            if part != "group_norm" and end == "weight":
                value = value[:, :, None, None]  # noqa: PLW2901
        result[f"first_stage_model.{new}"] = value
    return result


def text_to_original(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text encoder's weights as `cond_stage_model.transformer.text_model.…`."""
    plain = {name.removeprefix("text_model."): value for name, value in weights.items()}
    return {f"cond_stage_model.transformer.text_model.{name}": value for name, value in plain.items()}
