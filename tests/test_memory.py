"""Budgets of memory: what a machine has, and no more than is of use."""

from __future__ import annotations

import psutil
import pytest
import torch

from stylus_audio import memory
from stylus_audio.memory import Budget

CPU = torch.device("cpu")


def test_a_budget_is_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < memory.feature_budget(CPU) <= psutil.virtual_memory().total // 4
    monkeypatch.setattr(memory, "free_bytes", lambda _: 2**30)
    assert memory.feature_budget(CPU) == 2**28
    assert memory.feature_budget(torch.device("cuda")) == 2**29


def test_windows_of_a_pass_are_a_power_of_two_that_can_be_halved() -> None:
    for kind in ("cpu", "mps", "cuda", "xpu"):
        windows = memory.windows_per_pass(torch.device(kind))
        assert windows & (windows - 1) == 0


def test_what_pytorch_keeps_for_itself_on_apples_gpu_is_free_and_what_others_have_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 2**50)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 2**49)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 2**49 - 1000)
    machine = psutil.virtual_memory().total
    assert 1000 < memory.free_bytes(torch.device("mps")) <= machine + 1000
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 2**49 + 10)
    assert memory.free_bytes(torch.device("mps")) == 1010
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 2**48)
    assert memory.free_bytes(torch.device("mps")) == 0


def test_a_budget_that_did_not_fit_is_lowered_to_what_is_free_and_comes_back_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = 60
    monkeypatch.setattr(memory, "free_bytes", lambda _: free)
    budget = Budget(torch.device("cuda"))

    def sizes() -> tuple[int, int]:
        return budget.windows_per_pass, budget.features

    assert sizes() == (16, 30)
    free = 20
    budget.begin()
    assert sizes() == (16, 10)
    lowered = []
    while not budget.is_least:
        budget.lower()
        lowered.append(sizes())
    assert lowered == [(8, 5), (4, 2), (2, 1), (1, 0)]
    # A little more may be any other program's doing.
    free = 24
    budget.begin()
    assert sizes() == (1, 0)
    free = 60
    budget.begin()
    assert sizes() == (16, 30)
    # Taken by another while it renders.
    free = 20
    budget.lower()
    assert sizes() == (8, 10)
    # What fits is kept, and no more taken than is free.
    budget.begin()
    assert sizes() == (8, 10)
    free = 12
    budget.begin()
    assert sizes() == (8, 6)


def test_a_single_window_without_room_keeps_no_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 10**6)
    budget = Budget(CPU)
    lowered = []
    while not budget.is_least:
        budget.lower()
        lowered.append((budget.windows_per_pass, budget.features))
    assert lowered == [(2, 125_000), (1, 62_500), (1, 0)]
