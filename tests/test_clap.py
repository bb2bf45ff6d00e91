"""CLAP is loaded from a folder, and hears as transformers' own classes do; its weights here are small and random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stylus_audio.audio import resample
from stylus_audio.clap import Clap
from stylus_audio.errors import NoModel
from tests.sounds import RATE, noise, plucks, tone
from tests.tiny import save_clap


def test_it_is_transformers_embedding_of_the_clip_at_48_khz(clap_folder: Path) -> None:
    from transformers import ClapFeatureExtractor, ClapModel

    clip = plucks(1.0, channels=2)
    mono = resample(clip.mean(0, keepdims=True), RATE, 48000)[0]
    inputs = ClapFeatureExtractor.from_pretrained(clap_folder)(mono, sampling_rate=48000, return_tensors="pt")
    with torch.no_grad():
        expected = ClapModel.from_pretrained(clap_folder).eval().get_audio_features(**inputs)
    expected = getattr(expected, "pooler_output", expected).numpy()
    found = Clap.of_folder(clap_folder)(clip, RATE)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0)


def test_a_long_clip_is_heard_in_windows_the_same_every_time(clap_folder: Path) -> None:
    clap = Clap.of_folder(clap_folder)
    # The small model's windows are of 1 s: these two begin at 0 and 0.5 s.
    clip = np.concatenate([tone(300, 0.5), noise(0.5), plucks(0.5)], axis=1)
    rows = clap(clip, RATE)
    assert len(rows) == 2
    for row, start in zip(rows, (0, RATE // 2), strict=True):
        np.testing.assert_allclose(row, clap(clip[:, start : start + RATE], RATE)[0], atol=0.02)
    assert np.array_equal(rows, clap(clip, RATE))
    assert np.array_equal(rows, Clap.of_folder(clap_folder)(clip, RATE))


def test_a_fused_model_hears_the_same_every_time(tmp_path: Path) -> None:
    clap = Clap.of_folder(save_clap(tmp_path, fused=True))
    clip = np.concatenate([noise(1.0), plucks(1.0), tone(500, 1.0)], axis=1)
    rows = clap(clip, RATE)
    assert len(rows) == 3
    assert all(np.array_equal(rows, clap(clip, RATE)) for _ in range(3))


def test_what_is_no_clap_is_refused(clap_folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NoModel, match=r"no \.safetensors"):
        Clap.of_folder(tmp_path)
    with pytest.raises(NoModel, match="cannot be loaded"):
        Clap.of_folder(tiny_folder / "unet")
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((clap_folder / name).read_bytes())
    torch.save(load_file(clap_folder / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(NoModel, match="pickled weights are not opened"):
        Clap.of_folder(tmp_path)
    # Layers that a file lacks would be random ones.
    whole = load_file(clap_folder / "model.safetensors")
    kept = {name: value for name, value in whole.items() if "projection" not in name}
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(NoModel, match="are missing"):
        Clap.of_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(NoModel, match="cannot be loaded"):
        Clap.of_folder(tmp_path)
