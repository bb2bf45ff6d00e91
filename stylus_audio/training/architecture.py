"""The embedded model's networks and noise schedule, in diffusers' own classes."""

from __future__ import annotations

from typing import Any

from diffusers import DDIMScheduler, UNet2DConditionModel

from ..spectrogram import MINI
from ..style_encoder import StyleEncoder

FACTOR = 4
"""The latent is the picture in squares of 4 × 4: exact, nothing to train, and fine enough to tell partials apart."""

CHANNELS = FACTOR**2
WIDTHS = (80, 128, 192, 192)
"""The finest holds all that goes in: 16 values of each of three latents."""
HEADS = (1, 4, 6, 6)
LAYERS = (2, 2, 1, 1)
"""Residual blocks of each level, and one more in the decoder: fine levels cost time, coarse ones weights."""
CONTEXT = 128
ROWS = MINI.bands // FACTOR
LAST_TIME, SMOOTH_TIME = 999, 500
"""Labels of the answer at once: as sharp as the truth, or as near to it as can be, which is smoother."""


def build_unet(maps: int = 2, **changes: Any) -> Any:
    """A UNet whose decoder attends at 1/8, 1/16 and 1/32 of the picture: texture is in the finest of them.

    Latents `[window, 16, 128, 64]`: 512 bands by 256 frames. `maps` more latents are given beside the noisy one: the
    content, and the content with the reference's average spectrum.
    """
    shape: dict[str, Any] = {
        "sample_size": (ROWS, MINI.frames // FACTOR),
        "in_channels": CHANNELS * (1 + maps),
        "out_channels": CHANNELS,
        "layers_per_block": LAYERS,
        "block_out_channels": WIDTHS,
        "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": CONTEXT,
        # diffusers takes this for the number of heads.
        "attention_head_dim": HEADS,
        "norm_num_groups": 16,
    }
    return UNet2DConditionModel(**{**shape, **changes})


def build_encoder() -> Any:
    """The style encoder: a token for every two of the latent's rows."""
    return StyleEncoder(CHANNELS, ROWS // 2, 128, CONTEXT, depth=2, stride=2)


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
