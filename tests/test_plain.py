"""The plain method against numbers worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import plain


class Constant(torch.nn.Module):
    """Stands in for a UNet: predicts the same number everywhere, and remembers the times it was asked for."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.asked: list[int] = []

    def forward(self, z: Tensor, time: int, encoder_hidden_states: Tensor) -> Any:
        self.asked.append(int(time))
        return SimpleNamespace(sample=torch.full_like(z, self.value))


def alphas() -> list[float]:
    """ᾱ of Stable Diffusion's schedule, in plain Python."""
    low, high = math.sqrt(0.00085), math.sqrt(0.012)
    result, product = [], 1.0
    for step in range(1000):
        product *= 1 - (low + (high - low) * step / 999) ** 2
        result.append(product)
    return result


EMBEDDING = torch.zeros(1, 1, 1)


def run(unet: Any, prediction: str, z: float, **settings: Any) -> float:
    scheduler = plain.small_unet(prediction)[1]
    latent = torch.full((1, 1, 1, 2), z)
    result = plain.stylize(
        unet, scheduler, latent, [latent], EMBEDDING, steps=2, init="none", injection=False, layers=(), **settings
    )
    return float(result[0, 0, 0, 0])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_two_steps_by_hand(prediction: str) -> None:
    a, z, out = alphas(), 0.8, 0.25
    # Two steps of a thousand: times 501 and 1; up from ᾱ_0.
    level = a[0]
    for t in (1, 501):
        s, n = math.sqrt(level), math.sqrt(1 - level)
        clean, noise = ((z - n * out) / s, out) if prediction == "epsilon" else (s * z - n * out, s * out + n * z)
        z = math.sqrt(a[t]) * clean + math.sqrt(1 - a[t]) * noise
        level = a[t]
    clean = z
    for t, before in ((501, 1), (1, 0)):
        s, n = math.sqrt(a[t]), math.sqrt(1 - a[t])
        clean, noise = ((z - n * out) / s, out) if prediction == "epsilon" else (s * z - n * out, s * out + n * z)
        z = math.sqrt(a[before]) * clean + math.sqrt(1 - a[before]) * noise
    assert run(Constant(out), prediction, 0.8) == pytest.approx(clean, rel=1e-5)


@pytest.mark.parametrize(("inversion", "labels"), [("next", [1, 501]), ("current", [0, 1, 501])])
def test_labels_of_the_inversion(inversion: str, labels: list[int]) -> None:
    unet = Constant(0.1)
    run(unet, "epsilon", 0.5, inversion=inversion)
    # Content and style are inverted, then one is sampled.
    assert unet.asked == [*labels, *labels, 501, 1]


def test_attention_by_hand() -> None:
    # One head of two channels, two keys: scores 1/√2 and 0.
    q = torch.tensor([[[1.0, 0.0]]])
    k = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    v = torch.tensor([[[10.0, 0.0], [0.0, 20.0]]])
    for tau in (1.0, 1.5):
        first = math.exp(tau / math.sqrt(2))
        share = first / (first + 1)
        expected = [10 * share, 20 * (1 - share)]
        assert plain.softmax_attention(q, k, v, 1, tau)[0, 0].tolist() == pytest.approx(expected, rel=1e-5)


def test_two_heads_do_not_mix() -> None:
    q, k, v = torch.randn(3, 1, 5, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
    both = plain.softmax_attention(q, k, v, 2)
    assert torch.allclose(both[..., 2:], plain.softmax_attention(q[..., 2:], k[..., 2:], v[..., 2:], 1))


def test_adain_by_hand() -> None:
    content = torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2)
    style = torch.tensor([10.0, 14.0]).reshape(1, 1, 1, 2)
    # Unbiased deviations √2 and 2√2, means 2 and 12.
    scale = 2 * math.sqrt(2) / (math.sqrt(2) + 1e-4)
    moved = plain.first_latent(content, [style], [1.0], "adain").flatten().tolist()
    assert moved == pytest.approx([12 - scale, 12 + scale], rel=1e-6)
    other = torch.tensor([0.0, 0.0]).reshape(1, 1, 1, 2)
    half = plain.first_latent(content, [style, other], [0.5, 0.5], "adain").flatten().tolist()
    assert half == pytest.approx([6 - scale / 2, 6 + scale / 2], rel=1e-6)


def test_efdm_by_hand() -> None:
    values = torch.tensor([5.0, -1.0, 2.0])
    assert plain.matched(values, torch.tensor([30.0, 10.0, 20.0])).tolist() == [30.0, 10.0, 20.0]
    # Two style values for three ranks: the middle one lies between them.
    assert plain.matched(values, torch.tensor([10.0, 20.0])).tolist() == [20.0, 10.0, 15.0]


def test_injection_in_one_layer_by_hand() -> None:
    """γ, α and two styles on a UNet that is nothing but one attention layer with identity projections."""

    class Attention(torch.nn.Module):
        heads = 1

        def __init__(self) -> None:
            super().__init__()
            self.to_q, self.to_k, self.to_v = torch.nn.Identity(), torch.nn.Identity(), torch.nn.Identity()
            self.to_out = torch.nn.ModuleList([torch.nn.Identity()])

        def forward(self, hidden_states: Tensor) -> Tensor:
            q, k, v = self.to_q(hidden_states), self.to_k(hidden_states), self.to_v(hidden_states)
            return plain.softmax_attention(q, k, v, 1)

    class Unet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Attention()
            transformer = SimpleNamespace(transformer_blocks=[SimpleNamespace(attn1=self.attention)])
            self.up_blocks = [SimpleNamespace(attentions=[transformer])]

        def forward(self, z: Tensor, time: int, encoder_hidden_states: Tensor) -> Any:
            # The attention's output is what is predicted; tokens are the columns, with one channel.
            return SimpleNamespace(sample=self.attention(z[:, :, 0].transpose(1, 2)).transpose(1, 2)[:, :, None])

    def attend(q: float, keys: list[float], tau: float = 1.0) -> float:
        weights = [math.exp(tau * q * k) for k in keys]
        return sum(w * k for w, k in zip(weights, keys, strict=True)) / sum(weights)

    a = alphas()
    content, styles = [0.5, -0.25], [[1.0, 0.0], [-1.0, 2.0]]
    gamma, alpha, tau, shares = 0.6, 0.8, 1.3, [0.75, 0.25]
    # One step: up from ᾱ_0 to ᾱ_1, recording at ᾱ_0, and back.
    up = []
    for z in content:
        noise = attend(z, content)
        clean = (z - math.sqrt(1 - a[0]) * noise) / math.sqrt(a[0])
        up.append(math.sqrt(a[1]) * clean + math.sqrt(1 - a[1]) * noise)
    expected = []
    for z, query in zip(up, content, strict=True):
        q = gamma * query + (1 - gamma) * z
        styled = sum(share * attend(q, style, tau) for share, style in zip(shares, styles, strict=True))
        own = attend(q, content)
        noise = own + alpha * (styled - own)
        expected.append((z - math.sqrt(1 - a[1]) * noise) / math.sqrt(a[1]))

    def latent(values: list[float]) -> Tensor:
        return torch.tensor(values).reshape(1, 1, 1, 2)

    scheduler = plain.small_unet("epsilon")[1]
    result = plain.stylize(
        Unet(), scheduler, latent(content), [latent(s) for s in styles], EMBEDDING, steps=1, layers=(0,), init="none",
        gamma=gamma, alpha=alpha, tau=tau, style_weight=shares,
    )  # fmt: skip
    assert result.flatten().tolist() == pytest.approx(expected, rel=1e-5)
