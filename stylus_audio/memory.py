"""How much of a device's memory a render may take, found when a model is loaded."""

from __future__ import annotations

import psutil
import torch

WINDOWS = {"cpu": 4, "mps": 8}
"""Windows of a pass, where more gain little: on two cores 8 took 12% less for each than 4, and 16 more than either
(`mini-injection`). On other devices `MANY`, and fewer where they do not fit."""
MANY = 16


def free_bytes(device: torch.device) -> int:
    """What is free of the device's memory now."""
    if device.type == "cuda":
        # What PyTorch has taken and does not use at the moment is ours as well.
        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + spare
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return int(psutil.virtual_memory().available)


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
