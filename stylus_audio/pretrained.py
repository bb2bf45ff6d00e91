"""A network in a folder, laid out as diffusers lays one out: `config.json` and `.safetensors` weights.

For networks of our own, which need not wait for diffusers: importing it takes longer than a short render.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import nn

_CONFIG = "config.json"
_WEIGHTS = "diffusion_pytorch_model.safetensors"


class Config(dict[str, Any]):
    """A network's configuration, also by attribute, as diffusers gives it.

    >>> Config(width=4).width
    4
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the configuration has no {name!r}") from None

    @classmethod
    def read(cls, folder: Path, name: str = _CONFIG) -> Config:
        """Of a folder, without what only says where it came from; raises `OSError` and `ValueError`."""
        values: dict[str, Any] = json.loads((folder / name).read_text("utf-8"))
        return cls({key: value for key, value in values.items() if not key.startswith("_")})


class Pretrained(nn.Module):
    """A network that is built from its configuration, whose values are its constructor's arguments."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = Config(config)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Their precision."""
        return next(self.parameters()).dtype

    @classmethod
    def from_pretrained(cls, folder: Path, dtype: torch.dtype | None = None) -> Self:
        """The network in `folder`, for inference, in `dtype` or as it was saved.

        Raises `OSError`, `ValueError` and `TypeError` for a configuration, `SafetensorError` and `RuntimeError` for
        weights, that are not there, damaged, or of another network.
        """
        # Without memory of its own at first: weights that are about to be replaced need no random values.
        with torch.device("meta"):
            network = cls(**Config.read(folder))
        weights = {name: tensor.to(dtype or tensor.dtype) for name, tensor in load_file(folder / _WEIGHTS).items()}
        network.load_state_dict(weights, assign=True)
        return network.eval()

    def save_pretrained(self, folder: Path, safe_serialization: bool = True) -> None:
        """Write the network into `folder`; by diffusers' signature, but never as a pickle (`ValueError`)."""
        if not safe_serialization:
            raise ValueError("weights are saved as .safetensors only")
        folder.mkdir(parents=True, exist_ok=True)
        named = {"_class_name": type(self).__name__, **self.config}
        (folder / _CONFIG).write_text(json.dumps(named, indent=2) + "\n", "utf-8")
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / _WEIGHTS)
