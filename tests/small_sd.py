"""Stable Diffusion in small: real classes and files, an autoencoder of factor 8, CLIP with a tiny vocabulary."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel


def save_small_sd(folder: Path, size: int = 64) -> Path:
    """A diffusers folder of random weights, whose latents are `size` high and wide."""
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=size, block_out_channels=(32, 32, 32, 32), layers_per_block=2, cross_attention_dim=32,
        attention_head_dim=4, norm_num_groups=8,
    ).save_pretrained(folder / "unet")  # fmt: skip
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, sample_size=512,
    ).save_pretrained(folder / "vae")  # fmt: skip
    PNDMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(
        folder / "scheduler"
    )
    config = CLIPTextConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    vocabulary = OrderedDict((f"filler{n}", n) for n in range(49406))
    for number, token in enumerate(["b", "e", "l", "s</w>", "g", "o", "n</w>"]):
        del vocabulary[f"filler{number}"]
        vocabulary[token] = number
    vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"] = 49406, 49407
    (tokenizer / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (tokenizer / "merges.txt").write_text("#version: 0.2\n", "utf-8")
    about = {"model_max_length": 77, "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
             "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}  # fmt: skip
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(about), "utf-8")
    return folder
