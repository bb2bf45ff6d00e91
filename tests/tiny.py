"""A small model of random weights, in the embedded format."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from stylus_audio.spectrogram import Profile

TINY = Profile(44100, 441, 4096, 16384, 64, 20.0, 20000.0, 64, "log")
"""Windows of 0.64 s."""

STEPS = {"fast": 2, "balanced": 4, "best": 8}


def save_tiny(folder: Path, maps: int, methods: dict[str, object]) -> Path:
    """A model folder in the embedded format; its random weights change the sound a lot, and are the same every time."""
    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        sample_size=(8, 8),
        in_channels=64 * (1 + maps),
        out_channels=64,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=8,
    )
    with torch.no_grad():
        unet.conv_out.weight *= 3
    unet.save_pretrained(folder / "unet")
    scheduler = DDIMScheduler(
        beta_schedule="linear", beta_start=1e-4, beta_end=0.02, prediction_type="v_prediction", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading",
    )  # fmt: skip
    scheduler.save_pretrained(folder / "scheduler")
    about = {
        "format": 2, "name": "tiny", "profile": TINY.to_dict(), "spread": 0.8,
        "latent": {"kind": "patchify", "factor": 8, "shift": 0.3, "scale": 0.25},
        "methods": methods, "style_windows": 2,
    }  # fmt: skip
    (folder / "stylus.json").write_text(json.dumps(about), "utf-8")
    return folder


def save_injection(folder: Path) -> Path:
    """One for injection alone."""
    return save_tiny(folder, 0, {"injection": {"steps": STEPS, "settings": {}}})


def save_clap(folder: Path, fused: bool = False) -> Path:
    """A small CLAP of random weights with windows of 1 s, as transformers saves one."""
    from transformers import ClapAudioConfig, ClapConfig, ClapFeatureExtractor, ClapModel, ClapTextConfig

    torch.manual_seed(2)
    text = ClapTextConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    fusion = {"enable_fusion": True, "fusion_type": "aff_2d", "patch_embed_input_channels": 1} if fused else {}
    audio = ClapAudioConfig(
        hidden_size=32, patch_embeds_hidden_size=16, depths=[1, 1], num_attention_heads=[2, 2], num_hidden_layers=2,
        spec_size=64, num_mel_bins=16, window_size=4, **fusion,
    )  # fmt: skip
    config = ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=12)
    ClapModel(config).save_pretrained(folder, safe_serialization=True)
    truncation = "fusion" if fused else "rand_trunc"
    ClapFeatureExtractor(feature_size=16, max_length_s=1, truncation=truncation).save_pretrained(folder)
    return folder
