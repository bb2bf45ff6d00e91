"""Prompts to embeddings, once for each prompt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import BadRequest
from .quiet import quiet

_START, _END, _LENGTH = 49406, 49407, 77
"""CLIP's tokens of the empty prompt: start, then the end or padding token up to the length."""


class TextEncoder:
    """CLIP's text encoder, loaded when it is first needed; keeps the embedding of every prompt it has met.

    Without a tokenizer only the empty prompt is possible, whose tokens are known.
    """

    def __init__(self, load: Callable[[], Any], tokenizer: Callable[[], Any] | None, padding: int) -> None:
        self._load = load
        self._tokenizer = tokenizer
        self._padding = padding
        self._known: dict[str, Tensor] = {}

    def __call__(self, prompt: str) -> Tensor:
        """Embedding `[1, 77, channel]`, float32."""
        if prompt not in self._known:
            tokens = self._tokens(prompt)
            with quiet():
                encoder = self._load()
            with torch.no_grad():
                self._known[prompt] = encoder(tokens)[0].float()
        return self._known[prompt]

    def _tokens(self, prompt: str) -> Tensor:
        if not prompt:
            return torch.tensor([[_START, _END] + [self._padding] * (_LENGTH - 2)])
        if self._tokenizer is None:
            raise BadRequest("prompt: a single .safetensors file has no tokenizer; use a diffusers folder for prompts")
        encoded = self._tokenizer()(
            prompt, padding="max_length", max_length=_LENGTH, truncation=True, return_tensors="pt"
        )
        tokens: Tensor = encoded.input_ids
        return tokens

    @classmethod
    def of_folder(cls, folder: Path) -> TextEncoder:
        """From `text_encoder/` and `tokenizer/` of a diffusers folder."""
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

        place = folder / "text_encoder"
        config = CLIPTextConfig.from_pretrained(place)

        def load() -> Any:
            return CLIPTextModel.from_pretrained(place, use_safetensors=True, dtype=torch.float32).eval()

        def tokenizer() -> Any:
            return CLIPTokenizer.from_pretrained(folder / "tokenizer")

        padding = 0 if config.hidden_size == 1024 else _END
        return cls(load, tokenizer if (folder / "tokenizer").is_dir() else None, padding)

    @classmethod
    def of_file(cls, file: Path, config: Path) -> TextEncoder:
        """From a single file in Stable Diffusion's original layout."""
        from diffusers import StableDiffusionPipeline

        def load() -> Any:
            pipeline = StableDiffusionPipeline.from_single_file(
                str(file), config=str(config), local_files_only=True, tokenizer=None, unet=None, vae=None,
                safety_checker=None, feature_extractor=None, scheduler=None,
            )  # fmt: skip
            return pipeline.text_encoder.float().eval()

        return cls(load, None, 0 if config.name == "sd2" else _END)
