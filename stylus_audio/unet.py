"""The embedded models' UNet: of diffusers' `UNet2DConditionModel` what they use, on the same weights and configuration.

Importing diffusers' class takes longer than a short render: it brings PyTorch's compiler and every transformer that
diffusers and transformers have. Modules have the names of diffusers' weights. Features are
`[window, channel, height, width]`, tokens `[window, token, channel]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import attention, projected_out
from .pretrained import Config, Pretrained

_ATTENDS = {"DownBlock2D": False, "CrossAttnDownBlock2D": True, "UpBlock2D": False, "CrossAttnUpBlock2D": True}

_FREE = {
    "attention_head_dim", "block_out_channels", "cross_attention_dim", "down_block_types", "flip_sin_to_cos",
    "freq_shift", "in_channels", "layers_per_block", "norm_eps", "norm_num_groups", "out_channels",
    "transformer_layers_per_block", "up_block_types",
}  # fmt: skip
"""What a configuration chooses."""

_FIXED = {
    "act_fn": "silu", "addition_embed_type": None, "attention_type": "default", "center_input_sample": False,
    "class_embed_type": None, "conv_in_kernel": 3, "conv_out_kernel": 3, "cross_attention_norm": None,
    "downsample_padding": 1, "dropout": 0.0, "dual_cross_attention": False, "encoder_hid_dim": None,
    "encoder_hid_dim_type": None, "mid_block_only_cross_attention": None, "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn", "num_attention_heads": None, "num_class_embeds": None,
    "only_cross_attention": False, "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default", "reverse_transformer_layers_per_block": None, "time_cond_proj_dim": None,
    "time_embedding_act_fn": None, "time_embedding_dim": None, "time_embedding_type": "positional",
    "timestep_post_act": None, "upcast_attention": False, "use_linear_projection": False,
}  # fmt: skip
"""What it must leave as Stable Diffusion 1 has it."""

_IDLE = {
    "addition_embed_type_num_heads", "addition_time_embed_dim", "class_embeddings_concat",
    "projection_class_embeddings_input_dim", "sample_size",
}  # fmt: skip
"""What has no effect then."""


class Output(NamedTuple):
    """What the network returns, by diffusers' name."""

    sample: Tensor


class UNet(Pretrained):
    """Predicts from noisy latents, a time and tokens. Each attention's `processor` may be replaced, as in diffusers.

    Raises `ValueError` for a configuration of `UNet2DConditionModel` that it does not cover.
    """

    def __init__(self, **config: Any) -> None:
        if not self.covers(config):
            raise ValueError("this configuration asks for what only diffusers' UNet2DConditionModel has")
        super().__init__(**config)
        own = self.config
        widths: Sequence[int] = own.block_out_channels
        levels, width = len(widths), widths[0]
        depths = _each(own.transformer_layers_per_block, levels)
        layers = _each(own.layers_per_block, levels)
        # Their number, whatever it is called.
        heads = _each(own.attention_head_dim, levels)
        embedding = 4 * width

        def resnet(inner: int, outer: int) -> _Resnet:
            return _Resnet(inner, outer, embedding, own)

        def attention(level: int) -> _Transformer:
            return _Transformer(widths[level], heads[level], depths[level], own)

        self.conv_in = nn.Conv2d(own.in_channels, width, 3, padding=1)
        self.time_embedding = _TimeEmbedding(width, embedding)
        # Widths of what the decoder takes beside what comes from below.
        skips = [width]
        self.down_blocks = nn.ModuleList()
        for level, kind in enumerate(own.down_block_types):
            block = _Down()
            for _ in range(layers[level]):
                block.resnets.append(resnet(width, widths[level]))
                if _ATTENDS[kind]:
                    block.attentions.append(attention(level))
                width = widths[level]
                skips.append(width)
            if level < levels - 1:
                block.downsamplers.append(_Resample(width, stride=2))
                skips.append(width)
            self.down_blocks.append(block)
        self.mid_block = _Middle()
        self.mid_block.resnets.extend(resnet(width, width) for _ in range(2))
        self.mid_block.attentions.append(attention(levels - 1))
        self.up_blocks = nn.ModuleList()
        for level, kind in zip(reversed(range(levels)), own.up_block_types, strict=True):
            up = _Up()
            for _ in range(layers[level] + 1):
                up.resnets.append(resnet(width + skips.pop(), widths[level]))
                if _ATTENDS[kind]:
                    up.attentions.append(attention(level))
                width = widths[level]
            if level:
                up.upsamplers.append(_Resample(width))
            self.up_blocks.append(up)
        self.conv_norm_out = ActivatedNorm(own.norm_num_groups, width, own.norm_eps)
        self.conv_out = nn.Conv2d(width, own.out_channels, 3, padding=1)

    @staticmethod
    def covers(config: Mapping[str, Any]) -> bool:
        """Whether a configuration of `UNet2DConditionModel` asks for nothing that this module does not have."""
        return (
            config.keys() >= _FREE
            and config.keys() <= _FREE | _FIXED.keys() | _IDLE
            and all(config.get(name, value) == value for name, value in _FIXED.items())
            and all(kind in _ATTENDS for kind in (*config["down_block_types"], *config["up_block_types"]))
            and all(isinstance(config[name], int) for name in ("cross_attention_dim", "norm_num_groups"))
        )

    @property
    def attn_processors(self) -> dict[str, Any]:
        """Every attention's processor, by its place."""
        return {f"{name}.processor": one.processor for name, one in self.named_modules() if isinstance(one, _Attention)}

    def forward(
        self, sample: Tensor, timestep: int | Tensor, encoder_hidden_states: Tensor, return_dict: bool = True
    ) -> Output:
        """The prediction `[window, channel, height, width]` for latents at a time, or each at its own, and tokens.

        `return_dict` is diffusers': the result is a tuple with names whatever it says.
        """
        emb = F.silu(self.time_embedding(self._time(timestep, sample)))
        hidden = self.conv_in(sample)
        skips = [hidden]
        for down in self.down_blocks:
            hidden = down(hidden, emb, encoder_hidden_states, skips)
        hidden = self.mid_block(hidden, emb, encoder_hidden_states)
        for up in self.up_blocks:
            hidden = up(hidden, emb, encoder_hidden_states, skips)
        return Output(self.conv_out(self.conv_norm_out(hidden)))

    def _time(self, timestep: int | Tensor, sample: Tensor) -> Tensor:
        """Cosines and sines of the times, `[window, channel]`."""
        times = torch.as_tensor(timestep, device=sample.device).expand(len(sample)).float()
        half = self.config.block_out_channels[0] // 2
        order = torch.arange(half, dtype=torch.float32, device=sample.device)
        phase = times[:, None] * torch.exp(-math.log(10000) * order / (half - self.config.freq_shift))
        pair = (phase.cos(), phase.sin()) if self.config.flip_sin_to_cos else (phase.sin(), phase.cos())
        return torch.cat(pair, -1).to(sample.dtype)


def _each(value: Any, levels: int) -> Sequence[Any]:
    """The value of every level, which may be one for all."""
    return value if isinstance(value, list | tuple) else [value] * levels


class ActivatedNorm(nn.GroupNorm):
    """GroupNorm with the SiLU behind it."""

    def forward(self, features: Tensor) -> Tensor:
        """Normalise, and activate."""
        return F.silu(super().forward(features))


class _TimeEmbedding(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inner, outer)
        self.linear_2 = nn.Linear(outer, outer)

    def forward(self, time: Tensor) -> Tensor:
        result: Tensor = self.linear_2(F.silu(self.linear_1(time)))
        return result


class _Block(nn.Module):
    """A level: residual blocks, behind each a transformer or behind none."""

    def __init__(self) -> None:
        super().__init__()
        self.resnets, self.attentions = nn.ModuleList(), nn.ModuleList()

    def layer(self, number: int, hidden: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        """One residual block and its transformer."""
        hidden = self.resnets[number](hidden, emb)
        if self.attentions:
            hidden = self.attentions[number](hidden, context)
        return hidden


class _Down(_Block):
    def __init__(self) -> None:
        super().__init__()
        self.downsamplers = nn.ModuleList()

    def forward(self, hidden: Tensor, emb: Tensor, context: Tensor, skips: list[Tensor]) -> Tensor:
        for number in range(len(self.resnets)):
            hidden = self.layer(number, hidden, emb, context)
            skips.append(hidden)
        for sampler in self.downsamplers:
            hidden = sampler(hidden)
            skips.append(hidden)
        return hidden


class _Middle(_Block):
    def forward(self, hidden: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        hidden = self.layer(0, hidden, emb, context)
        result: Tensor = self.resnets[1](hidden, emb)
        return result


class _Up(_Block):
    def __init__(self) -> None:
        super().__init__()
        self.upsamplers = nn.ModuleList()

    def forward(self, hidden: Tensor, emb: Tensor, context: Tensor, skips: list[Tensor]) -> Tensor:
        for number in range(len(self.resnets)):
            hidden = self.layer(number, torch.cat([hidden, skips.pop()], 1), emb, context)
        for sampler in self.upsamplers:
            # A height or width that was odd comes back as it was.
            hidden = sampler(F.interpolate(hidden, skips[-1].shape[-2:]))
        return hidden


class _Resample(nn.Module):
    def __init__(self, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.conv(hidden)
        return result


class _Resnet(nn.Module):
    def __init__(self, inner: int, outer: int, embedding: int, config: Config) -> None:
        super().__init__()
        self.norm1 = ActivatedNorm(config.norm_num_groups, inner, config.norm_eps)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, outer)
        self.norm2 = ActivatedNorm(config.norm_num_groups, outer, config.norm_eps)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        if inner != outer:
            self.conv_shortcut: nn.Module = nn.Conv2d(inner, outer, 1)
        else:
            self.conv_shortcut = nn.Identity()

    def forward(self, hidden: Tensor, emb: Tensor) -> Tensor:
        change = self.conv1(self.norm1(hidden)) + self.time_emb_proj(emb)[:, :, None, None]
        change = self.conv2(self.norm2(change))
        result: Tensor = self.conv_shortcut(hidden) + change
        return result


class _Transformer(nn.Module):
    """Features as tokens through some transformer blocks, and back."""

    def __init__(self, width: int, heads: int, depth: int, config: Config) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.norm_num_groups, width, 1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList(
            _TransformerBlock(width, heads, config.cross_attention_dim) for _ in range(depth)
        )
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, hidden: Tensor, context: Tensor) -> Tensor:
        inner = self.proj_in(self.norm(hidden))
        tokens = inner.permute(0, 2, 3, 1).flatten(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        inner = tokens.unflatten(1, hidden.shape[-2:]).permute(0, 3, 1, 2)
        result: Tensor = self.proj_out(inner) + hidden
        return result


class _TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1 = _Attention(width, heads, width)
        self.attn2 = _Attention(width, heads, context)
        self.ff = _FeedForward(width)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        tokens = self.attn1(self.norm1(tokens)) + tokens
        tokens = self.attn2(self.norm2(tokens), context) + tokens
        result: Tensor = self.ff(self.norm3(tokens)) + tokens
        return result


class _Attention(nn.Module):
    """Of tokens to themselves, or to a context; what it does is its processor's."""

    rescale_output_factor = 1.0

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k, self.to_v = (nn.Linear(context, width, bias=False) for _ in range(2))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.processor: Callable[..., Tensor] = _attended

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return self.processor(self, tokens, context)


def _attended(attn: Any, tokens: Tensor, context: Tensor | None) -> Tensor:
    """The processor that is there unless another is put in its place."""
    told = tokens if context is None else context
    return projected_out(attn, attention(attn.to_q(tokens), attn.to_k(told), attn.to_v(told), attn.heads))


class _FeedForward(nn.Module):
    """Twice the inner width, one half of which gates the other (Shazeer, arXiv 2002.05202)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([_Gated(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, tokens: Tensor) -> Tensor:
        for layer in self.net:
            tokens = layer(tokens)
        return tokens


class _Gated(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inner, 2 * outer)

    def forward(self, tokens: Tensor) -> Tensor:
        value, gate = self.proj(tokens).chunk(2, -1)
        result: Tensor = value * F.gelu(gate)
        return result
