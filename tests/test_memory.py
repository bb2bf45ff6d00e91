"""Budgets of memory: what a machine has, and no more than is of use."""

from __future__ import annotations

import psutil
import pytest
import torch

from stylus_audio import memory

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
