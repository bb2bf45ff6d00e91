"""Our UNet and noise schedule against diffusers' own, and networks in folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from stylus_audio import Settings, stylize_latents
from stylus_audio.model import load_model
from stylus_audio.noise_schedule import NoiseSchedule
from stylus_audio.places import CONFIGS, MODELS
from stylus_audio.pretrained import Config
from stylus_audio.style_encoder import StyleEncoder
from stylus_audio.unet import UNet

SMALL: dict[str, Any] = {
    "sample_size": (16, 8), "in_channels": 12, "out_channels": 4, "layers_per_block": 1, "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 24, "attention_head_dim": 2, "norm_num_groups": 8,
}  # fmt: skip

SHAPES: dict[str, dict[str, Any]] = {
    "one layer": {},
    "two layers": {"layers_per_block": 2},
    "layers and depth by level": {"layers_per_block": [1, 2], "transformer_layers_per_block": [2, 1],
                                  "attention_head_dim": [1, 4]},
    "three levels": {
        "block_out_channels": (16, 24, 40), "attention_head_dim": (1, 3, 5),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    },
    "one level": {"block_out_channels": (16,), "down_block_types": ("CrossAttnDownBlock2D",),
                  "up_block_types": ("CrossAttnUpBlock2D",)},
    "time": {"flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-3},
    "no context below": {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D",) * 2},
}  # fmt: skip


@pytest.fixture(params=SHAPES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, UNet]:
    """A UNet of diffusers with random weights, and ours of the folder that it was saved to."""
    torch.manual_seed(3)
    theirs = UNet2DConditionModel(**{**SMALL, **SHAPES[request.param]}).eval()
    theirs.save_pretrained(tmp_path)
    return theirs, UNet.from_pretrained(tmp_path)


def inputs(windows: int = 3, height: int = 16, width: int = 8) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(4)
    return torch.randn(windows, 12, height, width, generator=random), torch.randn(windows, 5, 24, generator=random)


def channels_last(unet: Any) -> Any:
    """As the engine has a UNet on a CPU."""
    return unet.to(memory_format=torch.channels_last)


@torch.no_grad()
def test_as_the_engine_has_it_on_a_cpu_it_is_diffusers_to_the_bit(pair: tuple[Any, UNet]) -> None:
    latents, context = inputs()
    theirs, ours = map(channels_last, pair)
    for time in (0, 37, 999, torch.tensor([1, 500, 998])):
        expected = theirs(latents, time, encoder_hidden_states=context, return_dict=False)[0]
        assert torch.equal(ours(latents, time, encoder_hidden_states=context, return_dict=False)[0], expected)


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 8), (15, 7), (9, 30)])
def test_in_any_layout_and_size_it_is_diffusers(pair: tuple[Any, UNet], size: tuple[int, int]) -> None:
    theirs, ours = pair
    latents, context = inputs(2, *size)
    expected = theirs(latents, 500, encoder_hidden_states=context).sample
    assert torch.allclose(ours(latents, 500, encoder_hidden_states=context).sample, expected, rtol=0, atol=2e-6)


@torch.no_grad()
def test_in_half_precision_it_is_as_far_from_the_truth_as_diffusers(pair: tuple[Any, UNet]) -> None:
    theirs, ours = pair
    latents, context = inputs()
    true = theirs(latents, 500, encoder_hidden_states=context).sample
    latents, context = latents.bfloat16(), context.bfloat16()
    errors = [
        (unet.to(torch.bfloat16)(latents, 500, encoder_hidden_states=context).sample.float() - true).square().mean()
        for unet in (theirs, ours)
    ]
    assert errors[1] == pytest.approx(float(errors[0]), rel=0.3)


@pytest.mark.parametrize("name", ["mini", "mini-injection"])
@torch.no_grad()
def test_the_embedded_models_are_what_diffusers_reads_of_them(name: str) -> None:
    theirs = UNet2DConditionModel.from_pretrained(MODELS / name, subfolder="unet", torch_dtype=torch.float32).eval()
    channels_last(theirs)
    ours = load_model(name, "cpu", "float32").unet
    assert isinstance(ours, UNet)
    assert set(ours.attn_processors) == set(theirs.attn_processors)
    latents = torch.randn(1, ours.config.in_channels, 32, 16)
    context = torch.randn(1, 7, ours.config.cross_attention_dim)
    expected = theirs(latents, 300, encoder_hidden_states=context, return_dict=False)[0]
    assert torch.equal(ours(latents, 300, encoder_hidden_states=context, return_dict=False)[0], expected)


def test_a_style_is_injected_alike(tmp_path: Path) -> None:
    torch.manual_seed(5)
    theirs = UNet2DConditionModel(**{**SMALL, "in_channels": 4}).eval()
    theirs.save_pretrained(tmp_path)
    ours = UNet.from_pretrained(tmp_path)
    schedule = {"beta_schedule": "linear", "prediction_type": "v_prediction"}
    fixed = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    content, style, context = torch.randn(2, 4, 16, 8), torch.randn(1, 4, 16, 8), torch.randn(1, 5, 24)
    settings = Settings(steps=3, alpha=0.8, gamma=0.5)
    results = [
        stylize_latents(channels_last(unet), scheduler, content, [style], context, settings)
        for unet, scheduler in (
            (theirs, DDIMScheduler(**schedule, **fixed)), (ours, NoiseSchedule(**schedule))
        )
    ]  # fmt: skip
    assert torch.equal(*results)


CHANGED: dict[str, Any] = {
    "act_fn": "gelu", "use_linear_projection": True, "mid_block_type": None, "upcast_attention": True,
    "class_embed_type": "timestep", "time_embedding_type": "fourier", "dual_cross_attention": True,
    "resnet_time_scale_shift": "scale_shift", "cross_attention_dim": [24, 24], "conv_in_kernel": 1,
    "down_block_types": ["AttnDownBlock2D", "DownBlock2D"], "norm_num_groups": None, "something_new": None,
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_what_it_does_not_have_is_refused(name: str, tmp_path: Path) -> None:
    UNet2DConditionModel(**SMALL).save_pretrained(tmp_path)
    config = Config.read(tmp_path)
    assert UNet.covers(config)
    config[name] = CHANGED[name]
    assert not UNet.covers(config)
    with pytest.raises(ValueError, match="UNet2DConditionModel"):
        UNet(**config)


def test_a_model_of_another_kind_is_left_to_diffusers(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "linear")
    config = {**Config.read(folder / "unet"), "use_linear_projection": True}
    UNet2DConditionModel(**config).save_pretrained(folder / "unet")
    assert isinstance(load_model(str(folder), "cpu").unet, UNet2DConditionModel)


@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2", None])
@pytest.mark.parametrize("total", [1000, 300])
def test_noise_is_that_of_ddim(betas: str | None, total: int) -> None:
    config: dict[str, Any] = {"num_train_timesteps": total, "beta_start": 0.0009, "beta_end": 0.013}
    config |= {"beta_schedule": betas} if betas else {"trained_betas": torch.linspace(1e-3, 0.02, total).tolist()}
    theirs = DDIMScheduler(**config, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    ours = NoiseSchedule(**config)
    assert torch.equal(ours.alphas_cumprod, theirs.alphas_cumprod)
    for steps in (1, 7, 20, 50, 299):
        ours.set_timesteps(steps)
        theirs.set_timesteps(steps)
        assert torch.equal(ours.timesteps, theirs.timesteps)


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_noise_of_stable_diffusion(name: str) -> None:
    config = Config.read(CONFIGS / name / "scheduler", "scheduler_config.json")
    ours, theirs = NoiseSchedule(**config), DDIMScheduler(**config)
    assert torch.equal(ours.alphas_cumprod, theirs.alphas_cumprod)
    assert ours.config.prediction_type == theirs.config.prediction_type


def test_unknown_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="beta_schedule"):
        NoiseSchedule(beta_schedule="sigmoid")


def test_a_network_is_saved_and_read(tmp_path: Path) -> None:
    torch.manual_seed(6)
    encoder = StyleEncoder(4, 8, 32, 16, depth=1, stride=2).half()
    state = torch.get_rng_state()
    encoder.save_pretrained(tmp_path)
    read = StyleEncoder.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert not read.training
    assert read.dtype == torch.float16
    assert read.config == encoder.config
    assert read.config.stride == 2
    assert all(torch.equal(read.state_dict()[name], tensor) for name, tensor in encoder.state_dict().items())
    assert StyleEncoder.from_pretrained(tmp_path, torch.float32).dtype == torch.float32
    with pytest.raises(ValueError, match="safetensors"):
        encoder.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(AttributeError):
        _ = read.config.colour


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    StyleEncoder(4, 8, 32, 16, depth=1).save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for changed in (
        {name: tensor for name, tensor in weights.items() if name != "position"},
        {**weights, "more": torch.zeros(1)},
        {**weights, "position": torch.zeros(3, 16)},
    ):
        save_file(changed, file)
        with pytest.raises(RuntimeError, match=r"position|more"):
            StyleEncoder.from_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"colour": 1}), "utf-8")
    with pytest.raises(TypeError):
        StyleEncoder.from_pretrained(tmp_path)
