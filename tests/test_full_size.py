"""Stable Diffusion 1.5 in its full size with random weights, from a folder and from a single file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from stylus_audio import Engine
from stylus_audio.places import CONFIGS
from tests.original_layout import text_to_original, unet_to_original, vae_to_original

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A diffusers folder and a single file with the same weights, removed afterwards: they are large."""
    place = tmp_path_factory.mktemp("sd15")
    folder, file = place / "folder", place / "single.safetensors"
    torch.manual_seed(0)
    unet_config = json.loads((CONFIGS / "sd1" / "unet" / "config.json").read_text("utf-8"))
    vae_config = json.loads((CONFIGS / "sd1" / "vae" / "config.json").read_text("utf-8"))
    torch.set_default_dtype(torch.float16)
    try:
        unet = UNet2DConditionModel.from_config(unet_config)
        vae = AutoencoderKL.from_config(vae_config)
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(CONFIGS / "sd1" / "text_encoder"))
    finally:
        torch.set_default_dtype(torch.float32)
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    text.save_pretrained(folder / "text_encoder")
    shutil.copytree(CONFIGS / "sd1" / "scheduler", folder / "scheduler")
    weights = {
        **unet_to_original(unet.state_dict()),
        **vae_to_original(vae.state_dict()),
        **text_to_original(text.state_dict()),
    }
    save_file({name: value.contiguous() for name, value in weights.items()}, file)
    del unet, vae, text, weights
    yield folder, file
    shutil.rmtree(place)


def test_folder_and_file_render_the_same_window(folders: tuple[Path, Path]) -> None:
    rng = np.random.default_rng(0)
    time = np.arange(44100) / 44100
    content = (0.3 * np.sin(2 * np.pi * 440 * time) * np.exp(-3 * time), 44100)
    style = (0.1 * rng.standard_normal(44100), 44100)
    stems = []
    for place in folders:
        engine = Engine(str(place), device="cpu")
        assert engine.model.embedding().shape == (1, 77, 768)
        settings = engine.settings(steps=2)
        render = engine.render(content, style, settings)
        assert render.gains is not None
        assert np.isfinite(render.audio).all()
        assert render.audio.shape == (1, 44100)
        stems.append((render.audio, engine.model.embedding()))
        del engine
    (from_folder, text_of_folder), (from_file, text_of_file) = stems
    assert torch.allclose(text_of_folder, text_of_file, atol=1e-4)
    assert np.abs(from_folder - from_file).max() <= 1e-4 * np.abs(from_folder).max()
    assert np.abs(from_folder - content[0]).max() > 0.01
