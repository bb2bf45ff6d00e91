"""METHOD 2–4 written as plainly as can be, to hold the fast code against.

One window at a time, softmax materialised, every Q, K and V kept, nothing shared with the package. Checked by hand in
`test_plain.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

Line = float | tuple[float, float]
Kept = dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]]
"""(time, layer) → Q, K, V of one window, `[1, token, channel]`."""


def small_unet(prediction: str = "epsilon", seed: int = 0) -> tuple[Any, Any]:
    """Stable Diffusion's layout in small, well-conditioned: default initialisation, q and k doubled, output × 0.7.

    The self-attention's values are larger, so that injection shows.
    """
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(32, 64, 64, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32, attention_head_dim=4, norm_num_groups=8,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if name.endswith(("to_q.weight", "to_k.weight")):
                weight.mul_(2)
            if name.endswith("attn1.to_v.weight"):
                weight.mul_(8)
        unet.conv_out.weight *= 0.7
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, set_alpha_to_one=False,
        clip_sample=False, prediction_type=prediction, timestep_spacing="leading",
    )  # fmt: skip
    return unet, scheduler


def attention_module(unet: Any, layer: int) -> Any:
    return unet.up_blocks[layer // 3].attentions[layer % 3].transformer_blocks[0].attn1


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, tau: float = 1.0) -> Tensor:
    """Each head by itself: softmax(τ q kᵀ / √d) v, written out."""
    size = q.shape[-1] // heads
    outputs = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = tau * (q[..., part] @ k[..., part].transpose(-1, -2)) / math.sqrt(size)
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        outputs.append((weights / weights.sum(-1, keepdim=True)) @ v[..., part])
    return torch.cat(outputs, dim=-1)


def line(value: Line, step: int, steps: int) -> float:
    if isinstance(value, tuple):
        return value[0] + (value[1] - value[0]) * step / (steps - 1)
    return value


class Prediction:
    """The scheduler's numbers and what a UNet output means."""

    def __init__(self, scheduler: Any, steps: int) -> None:
        scheduler.set_timesteps(steps)
        self.times = [int(t) for t in scheduler.timesteps]
        self.jump = scheduler.config.num_train_timesteps // steps
        self.alphas = scheduler.alphas_cumprod
        self.kind = scheduler.config.prediction_type

    def clean_and_noise(self, z: Tensor, output: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        if self.kind == "epsilon":
            return (z - (1 - alpha).sqrt() * output) / alpha.sqrt(), output
        assert self.kind == "v_prediction"
        return alpha.sqrt() * z - (1 - alpha).sqrt() * output, alpha.sqrt() * output + (1 - alpha).sqrt() * z


@torch.no_grad()
def invert_window(
    unet: Any, numbers: Prediction, z: Tensor, embedding: Tensor, layers: Sequence[int], inversion: str
) -> tuple[Tensor, Kept]:
    """One window `[1, channel, height, width]` up to noise, with all Q, K, V by hooks, under their pass's label.

    Labelled with the current time, the last pass goes nowhere: it is the noisiest sampling step's.
    """
    kept: Kept = {}
    steps = [(max(0, t - numbers.jump), t) for t in reversed(numbers.times)]
    if inversion == "current":
        steps.append((numbers.times[0], numbers.times[0]))
    for before, t in steps:
        label = t if inversion == "next" else before
        caught: dict[tuple[int, str], Tensor] = {}
        hooks = []
        for layer in layers:
            module = attention_module(unet, layer)
            for name in ("to_q", "to_k", "to_v"):

                def catch(
                    _m: Any, _i: Any, out: Tensor, key: tuple[int, str] = (layer, name), into: Any = caught
                ) -> None:
                    into[key] = out.clone()

                hooks.append(getattr(module, name).register_forward_hook(catch))
        output = unet(z, label, encoder_hidden_states=embedding).sample
        for hook in hooks:
            hook.remove()
        for layer in layers:
            kept[label, layer] = (caught[layer, "to_q"], caught[layer, "to_k"], caught[layer, "to_v"])
        x0, noise = numbers.clean_and_noise(z, output, numbers.alphas[before])
        z = numbers.alphas[t].sqrt() * x0 + (1 - numbers.alphas[t]).sqrt() * noise
    return z, kept


def first_latent(content: Tensor, styles: Sequence[Tensor], weights: Sequence[float], init: str) -> Tensor:
    """Over all windows of the clip, channel by channel."""
    if init == "none":
        return content
    result = torch.zeros_like(content)
    for weight, style in zip(weights, styles, strict=True):
        for channel in range(content.shape[1]):
            c, s = content[:, channel], style[:, channel]
            if init == "adain":
                moved = s.std() * (c - c.mean()) / (c.std() + 1e-4) + s.mean()
            else:
                moved = matched(c.flatten(), s.flatten()).reshape(c.shape)
            result[:, channel] += weight * moved
    return result


def matched(values: Tensor, style: Tensor) -> Tensor:
    """The style's sorted values in the places of the content's, interpolated where there are more or fewer."""
    ordered = sorted(style.tolist())
    ranks = sorted(range(len(values)), key=lambda i: float(values[i]))
    result = torch.empty_like(values)
    for rank, place in enumerate(ranks):
        position = rank * (len(ordered) - 1) / (len(values) - 1)
        low = min(int(position), len(ordered) - 1)
        high = min(low + 1, len(ordered) - 1)
        result[place] = ordered[low] + (position - low) * (ordered[high] - ordered[low])
    return result


@torch.no_grad()
def stylize(
    unet: Any,
    scheduler: Any,
    content: Tensor,
    styles: Sequence[Tensor],
    embedding: Tensor,
    *,
    gamma: Line = 0.75,
    alpha: Line = 0.9,
    tau: Line = 1.0,
    steps: int = 50,
    layers: Sequence[int] = (6, 7, 8, 9, 10, 11),
    init: str = "adain",
    injection: bool = True,
    inversion: str = "next",
    start_step: int | None = None,
    style_weight: Sequence[float] | None = None,
    blend: str = "outputs",
    sampler: Any = None,
) -> Tensor:
    """The stylised latents of all windows of `content`; `sampler` samples, the same UNet in another precision."""
    dtype = content.dtype if sampler is None else sampler.dtype
    sampler = sampler or unet
    numbers = Prediction(scheduler, steps)
    weights = [w / sum(style_weight) for w in style_weight] if style_weight else [1 / len(styles)] * len(styles)

    def inverted(clip: Tensor) -> tuple[Tensor, list[Kept]]:
        pairs = [invert_window(unet, numbers, clip[w : w + 1], embedding, layers, inversion) for w in range(len(clip))]
        return torch.cat([z for z, _ in pairs]), [kept for _, kept in pairs]

    noisy, content_kept = inverted(content)
    style_pairs = [inverted(style) for style in styles]
    start = first_latent(noisy, [z for z, _ in style_pairs], weights, init)

    def style_features(number: int, t: int, layer: int) -> tuple[Tensor, Tensor]:
        windows = style_pairs[number][1]
        return (
            torch.cat([kept[t, layer][1] for kept in windows], dim=1),
            torch.cat([kept[t, layer][2] for kept in windows], dim=1),
        )

    results = []
    embedding = embedding.to(dtype)
    for window in range(len(content)):
        z = start[window : window + 1].to(dtype)
        x0 = z
        for step, t in enumerate(numbers.times):
            number = len(numbers.times) - 1 - step
            active = injection and (start_step is None or number <= start_step)
            originals = {}
            for layer in layers if active else ():
                module = attention_module(sampler, layer)
                originals[layer] = module.forward
                q_c, k_c, v_c = (kept.to(dtype) for kept in content_kept[window][t, layer])
                pairs = [[kept.to(dtype) for kept in style_features(n, t, layer)] for n in range(len(styles))]
                g, a, sharp = (line(value, step, steps) for value in (gamma, alpha, tau))

                def forward(
                    hidden_states: Tensor, *_a: Any, module: Any = module, q_c: Tensor = q_c, k_c: Tensor = k_c,
                    v_c: Tensor = v_c, pairs: Any = pairs, g: float = g, a: float = a, sharp: float = sharp,
                    **_k: Any,
                ) -> Tensor:  # fmt: skip
                    q = g * q_c + (1 - g) * module.to_q(hidden_states)
                    if blend == "outputs":
                        styled = sum(
                            w * softmax_attention(q, k, v, module.heads, sharp)
                            for w, (k, v) in zip(weights, pairs, strict=True)
                        )
                    else:
                        k = sum(w * k for w, (k, _) in zip(weights, pairs, strict=True))
                        v = sum(w * v for w, (_, v) in zip(weights, pairs, strict=True))
                        styled = softmax_attention(q, k, v, module.heads, sharp)
                    own = softmax_attention(q, k_c, v_c, module.heads)
                    output: Tensor = module.to_out[0](own + a * (styled - own))
                    return output

                module.forward = forward
            output = sampler(z, t, encoder_hidden_states=embedding).sample
            for layer, original in originals.items():
                attention_module(sampler, layer).forward = original
            x0, noise = numbers.clean_and_noise(z, output, numbers.alphas[t])
            before = t - numbers.jump
            alpha_before = numbers.alphas[before] if before >= 0 else scheduler.final_alpha_cumprod
            z = alpha_before.sqrt() * x0 + (1 - alpha_before).sqrt() * noise
        results.append(x0)
    return torch.cat(results)
