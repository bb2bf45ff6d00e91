"""How much of a device's memory a render may take, and giving it back."""

from __future__ import annotations

import gc
from math import inf

import psutil
import torch

WINDOWS = {"cpu": 4, "mps": 8}
"""Windows of a pass, where more gain little: on two cores 8 took 12% less for each than 4, and 16 more than either
(`mini-injection`). On other devices `MANY`, and fewer where they do not fit."""
MANY = 16

GROWN = 1.25
"""So many times what was free when a render did not fit is clearly more."""


def free_bytes(device: torch.device) -> int:
    """What is free of the device's memory now."""
    if device.type == "cuda":
        # What PyTorch has taken and does not use at the moment is ours as well.
        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + spare
    if device.type == "mps":
        taken = torch.mps.driver_allocated_memory()
        # What Metal would let us have may be others': it is the machine's memory.
        rest = min(torch.mps.recommended_max_memory() - taken, psutil.virtual_memory().available)
        return max(0, int(rest + taken - torch.mps.current_allocated_memory()))
    return int(psutil.virtual_memory().available)


def all_bytes(device: torch.device) -> int:
    """All that there is of the device's memory for us, whoever has it now."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    return int(psutil.virtual_memory().total)


def taken_bytes(device: torch.device) -> int:
    """What we have taken of the memory of a device that has its own; 0 for a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.memory_reserved(device))
    return int(torch.mps.driver_allocated_memory()) if device.type == "mps" else 0


def feature_budget(device: torch.device) -> int:
    """Bytes that recorded features may take on the device; less where everything else needs the same memory."""
    return free_bytes(device) // (4 if device.type == "cpu" else 2)


def windows_per_pass(device: torch.device) -> int:
    """How many windows go through the network at once, to begin with."""
    return WINDOWS.get(device.type, MANY)


class Budget:
    """What a render may take of a device's memory: `windows_per_pass`, and `features`, bytes of recorded features.

    The bytes are a share of what is free when the render begins. One that does not fit lowers both, and what then
    fits is kept for the next ones, which would fail as well on a device that is too small; the first sizes come back
    once clearly more is free than at that time: another program had taken it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.reset()
        self.begin()

    def reset(self) -> None:
        """The first sizes again."""
        self.windows_per_pass = windows_per_pass(self.device)
        self.most: float = inf
        """Bytes that features may take, however much is free."""
        self._free: float = inf
        """Bytes that were free when it was lowered."""

    def begin(self) -> None:
        """A render begins."""
        if free_bytes(self.device) > GROWN * self._free:
            self.reset()
        self.features = int(min(self.most, feature_budget(self.device)))

    @property
    def is_least(self) -> bool:
        """Whether it cannot be lowered any more."""
        return self.windows_per_pass == 1 and self.most == 0

    def lower(self) -> None:
        """Half of both, and no more features than find room now; none where a pass has one window already.

        To be called when what did not fit is gone from the memory, so that what is free can be told.
        """
        self._free = free_bytes(self.device)
        if self.windows_per_pass > 1:
            self.windows_per_pass //= 2
            self.features = min(self.features // 2, feature_budget(self.device))
        else:
            self.features = 0
        self.most = self.features


def give_back(device: torch.device) -> None:
    """Leave to others what PyTorch has taken of the device's memory and does not use any more."""
    # What only a cycle holds is used no more either.
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
