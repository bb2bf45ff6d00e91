"""The embedded model's network and noise schedule, in diffusers' own classes."""

from __future__ import annotations

from typing import Any

from diffusers import DDIMScheduler, UNet2DConditionModel

from ..spectrogram import MINI

FACTOR = 8
"""The latent is the picture in squares of 8 × 8: exact, nothing to train."""

WIDTHS = (96, 160, 224)
HEADS = (2, 4, 4)
CONTEXT = 128


def build_unet() -> Any:
    """A UNet with self-attention at the two finest levels of its decoder, where texture is (StyleID's useful layers).

    Latents `[window, 64, 64, 32]`: 512 bands by 256 frames.
    """
    return UNet2DConditionModel(
        sample_size=(MINI.bands // FACTOR, MINI.frames // FACTOR),
        in_channels=FACTOR**2,
        out_channels=FACTOR**2,
        layers_per_block=1,
        block_out_channels=WIDTHS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=CONTEXT,
        # diffusers takes this for the number of heads.
        attention_head_dim=HEADS,
        norm_num_groups=32,
    )


def build_scheduler() -> Any:
    """Linear noise, v-prediction: squares of a picture repeat each other and need more noise than SD's latents."""
    return DDIMScheduler(
        beta_schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )
