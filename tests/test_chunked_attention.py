"""Attention by chunks against softmax written out in float32, and where it may stand in for the fused kernel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stylus_audio import chunked_attention
from stylus_audio.chunked_attention import FEWEST_KEYS, LARGEST_HEAD, chunked, is_quicker

HEADS, SIZE = 3, 8


def drawn(windows: int, tokens: int) -> Tensor:
    """`[window, head, token, channel]` in bf16, with the memory of a projection."""
    generator = torch.Generator().manual_seed(tokens)
    tensor = torch.randn(windows, tokens, HEADS, SIZE, generator=generator)
    return 2 * tensor.bfloat16().transpose(1, 2)


def written_out(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    scores = scale * query.float() @ key.float().transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], -torch.inf)
    return torch.softmax(scores, -1) @ value.float()


@pytest.mark.parametrize("scores", [2**21, 40 * 100, 40 * 33, 1], ids=["one", "whole", "rest", "single"])
@pytest.mark.parametrize("masks", [0, 1, 2])
def test_it_is_softmax_attention_however_the_queries_are_cut(
    scores: int, masks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_attention, "SCORES", scores)
    query, key, value = drawn(2, 100), drawn(2, 40), drawn(2, 41)[:, :, 1:]
    mask = torch.rand(masks, 40, generator=torch.Generator().manual_seed(1)) > 0.4 if masks else None
    found = chunked(query, key, value, 0.3, mask)
    expected = written_out(query, key, value, 0.3, mask)
    # Of bf16, with eight bits, in the scores and in the weights.
    assert (found.float() - expected).norm() < 0.01 * expected.norm()
    assert found.shape == query.shape
    assert found.transpose(1, 2).is_contiguous()


def test_one_window_of_keys_answers_all_queries() -> None:
    query, key, value = drawn(3, 50), drawn(1, 40), drawn(1, 40)
    keys, values = key.expand(3, -1, -1, -1), value.expand(3, -1, -1, -1)
    assert torch.equal(chunked(query, keys, values, 0.3), torch.cat([chunked(q[None], key, value, 0.3) for q in query]))


def test_without_keys_there_is_nothing() -> None:
    nothing = torch.zeros(1, 40, dtype=torch.bool)
    assert not chunked(drawn(1, 5), drawn(1, 40), drawn(1, 40), 0.3, nothing).any()


def test_it_stands_in_only_where_it_is_quicker_and_no_gradient_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_attention, "_has", lambda instructions: instructions == "avx512_bf16")
    query, key = drawn(1, 4), drawn(1, FEWEST_KEYS)
    assert is_quicker(query, key)
    assert not is_quicker(query, drawn(1, FEWEST_KEYS - 1))
    assert not is_quicker(query.float(), key.float())
    assert not is_quicker(query.clone().requires_grad_(), key)
    with torch.no_grad():
        assert is_quicker(query.clone().requires_grad_(), key)
    large = torch.zeros(1, 1, FEWEST_KEYS, LARGEST_HEAD + 1, dtype=torch.bfloat16)
    assert not is_quicker(large, large)
    for there in (True, False):
        # With AMX, and without bf16.
        monkeypatch.setattr(chunked_attention, "_has", lambda _, there=there: there)
        assert not is_quicker(query, key)
