"""Data and trainer of the embedded model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from stylus_audio.attention import decoder_layers
from stylus_audio.errors import BadRequest
from stylus_audio.latent import Patchify
from stylus_audio.model import load_model
from stylus_audio.spectrogram import MINI, band_centres
from stylus_audio.style_encoder import StyleEncoder
from stylus_audio.training.architecture import CHANNELS, CONTEXT, ROWS, build_unet
from stylus_audio.training.dataset import FRAMES, LEVELS, SECONDS, SHAPE, Pictures, build, picture
from stylus_audio.training.muon import Muon, orthogonal
from stylus_audio.training.objective import Diffusion, Latents, Regression
from stylus_audio.training.run import WARM_UP, Plan
from stylus_audio.training.sounds import (
    draw_effects,
    with_effects,
)
from stylus_audio.training.synthesise import SAMPLE_RATE
from stylus_audio.training.train import Trainer
from tests.programs import need_font, need_program


def test_a_picture_shows_the_note_that_sounds() -> None:
    time = np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    tone = (0.2 * np.sin(2 * np.pi * 880 * time)).astype(np.float32)
    seen = picture(np.stack([tone, tone]))
    assert seen.shape == (MINI.bands, FRAMES)
    assert seen.max() == LEVELS
    loudest = np.bincount(seen[:, 50:-50].argmax(0)).argmax()
    assert band_centres(MINI)[loudest] == pytest.approx(880.0, rel=0.01)


@pytest.mark.slow
def test_data_is_continued_where_it_stopped(tmp_path: Path) -> None:
    need_font()
    need_font("MuseScore_General_Full.sf3")
    need_program("espeak-ng")
    build(tmp_path / "once", 3, workers=1)
    build(tmp_path / "twice", 2, workers=1)
    build(tmp_path / "twice", 3, workers=1)
    once, twice = Pictures(tmp_path / "once"), Pictures(tmp_path / "twice")
    assert once.pictures.shape == (3, *SHAPE)
    assert np.array_equal(once.pictures, twice.pictures)
    assert (once.pictures.max((3, 4)) == LEVELS).all()


@pytest.fixture
def data(tmp_path: Path) -> Pictures:
    """Two groups of noise that comes and goes, in three colours; it needs no synthesiser."""
    folder = tmp_path / "data"
    folder.mkdir()
    groups = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        samples = round(SECONDS * SAMPLE_RATE)
        swells = [np.interp(np.arange(samples), np.linspace(0, samples, 20), rng.random(20) ** 3) for _ in range(2)]
        clips = [np.asarray(0.3 * swell * rng.standard_normal((2, samples)), np.float32) for swell in swells]
        colours = [draw_effects(rng) for _ in range(3)]
        groups.append(np.stack([np.stack([picture(with_effects(clip, one)) for clip in clips]) for one in colours]))
    (folder / "pictures.u8").write_bytes(np.stack(groups).tobytes())
    (folder / "index.json").write_text(json.dumps({"groups": 2}), "utf-8")
    return Pictures(folder)


def test_pairs_are_the_same_music_in_two_sounds_with_a_reference_of_other_music(data: Pictures) -> None:
    pairs = data.batch(np.random.default_rng(3), 24, 64)
    again = data.batch(np.random.default_rng(3), 24, 64)
    assert pairs.content.shape == (24, MINI.bands, 64)
    assert np.array_equal(pairs.answer, again.answer)
    floats = data.pictures.astype(np.float32) / LEVELS

    def place(window: np.ndarray) -> tuple[int, int, int, int]:
        """Group, sound, piece and frame of a window."""
        for group, sound, piece in np.ndindex(2, 3, 2):
            clip = floats[group, sound, piece]
            for start in np.flatnonzero((clip[:, :-63] == window[:, :1]).all(0)):
                if np.array_equal(clip[:, start : start + 64], window):
                    return group, sound, piece, int(start)
        raise AssertionError("a window that is in no clip")

    same = 0
    for content, answer, reference in zip(pairs.content, pairs.answer, pairs.reference, strict=True):
        if not reference.any() or not content.any():
            continue
        one, other, third = place(content), place(answer), place(reference)
        assert (one[0], one[2], one[3]) == (other[0], other[2], other[3])
        assert (third[0], third[1]) == (other[0], other[1])
        assert third[2] != one[2]
        same += one[1] == other[1]
    assert same < 8


def test_a_guide_takes_the_references_colour(data: Pictures) -> None:
    pairs = data.batch(np.random.default_rng(4), 64)
    distances = [np.sqrt(((one - pairs.answer) ** 2).mean()) for one in (pairs.content, pairs.guide)]
    assert distances[1] < 0.8 * distances[0]


class Small(Diffusion):
    """Networks of the embedded one's form, quick to train."""

    def build(self) -> nn.ModuleDict:
        unet = build_unet(
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=1,
            norm_num_groups=8,
        )
        return nn.ModuleDict(
            {"unet": unet, "encoder": StyleEncoder(CHANNELS, ROWS // 2, 16, CONTEXT, depth=1, stride=2)}
        )


def _trainer(run: Path, data: Pictures) -> Trainer:
    return Trainer(run, data, Small(), Plan(batch=2), frames=32)


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(data: Pictures, tmp_path: Path) -> None:
    whole = _trainer(tmp_path / "whole", data)
    for _ in range(4):
        whole.step()
    first = _trainer(tmp_path / "parts", data)
    for _ in range(2):
        first.step()
    first.checkpoint()
    second = _trainer(tmp_path / "parts", data)
    assert second.progress == first.progress
    for _ in range(2):
        second.step()
    assert (second.progress.step, second.progress.examples) == (4, 8)
    assert second.progress.loss == pytest.approx(whole.progress.loss, abs=1e-6)
    for name, value in whole.networks.state_dict().items():
        torch.testing.assert_close(second.networks.state_dict()[name], value, rtol=0, atol=1e-6)
        torch.testing.assert_close(second.ema[name], whole.ema[name], rtol=0, atol=1e-6)
    second.checkpoint()
    kept = sorted(file.name for file in (tmp_path / "parts").iterdir())
    assert kept == ["checkpoint-4", "progress.json"]


def test_training_brings_the_loss_down(data: Pictures, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path / "run", data)
    losses = [trainer.step() for _ in range(60)]
    assert np.mean(losses[-15:]) < 0.9 * np.mean(losses[:5])


def _latents(seed: int) -> Latents:
    generator = torch.Generator().manual_seed(seed)
    content, guide, answer, reference = (torch.randn(2, CHANNELS, ROWS, 8, generator=generator) for _ in range(4))
    return Latents(content, guide, answer, reference, 1.0)


class _Drawn:
    """A generator whose `random()` without a shape is given, so that a mode of the objective is chosen."""

    def __init__(self, *values: float) -> None:
        self._values, self._rng = list(values), np.random.default_rng(0)

    def random(self, size: int | None = None) -> object:
        return self._values.pop(0) if size is None else self._rng.random(size)

    def __getattr__(self, name: str) -> object:
        return getattr(self._rng, name)


@pytest.mark.parametrize(
    ("draws", "by_reference", "by_content"),
    [((0.9, 0.0), True, True), ((0.9, 0.9), True, True), ((0.0, 0.9), False, False), ((0.0, 0.0), True, False)],
    ids=["told and injected", "told", "unconditional", "unconditional and injected"],
)
def test_what_the_loss_depends_on_later(draws: tuple[float, float], by_reference: bool, by_content: bool) -> None:
    objective = Small()
    torch.manual_seed(0)
    networks = objective.build().eval()
    base = _latents(1)

    def loss(latents: Latents) -> float:
        with torch.no_grad():
            return float(objective.loss(networks, latents, _Drawn(*draws), 10**6))  # type: ignore[arg-type]

    assert loss(base) == loss(base)
    changed = _latents(2)
    assert (loss(replace(base, reference=changed.reference)) != loss(base)) is by_reference
    assert (loss(replace(base, content=changed.content)) != loss(base)) is by_content


def test_at_first_the_answer_is_asked_for_at_once() -> None:
    """Whatever is drawn, the style comes by tokens, and nothing but content and guide is there to start from."""
    objective = Small()
    torch.manual_seed(0)
    networks = objective.build().eval()
    seen: list[tuple[Any, ...]] = []
    hook = networks["unet"].register_forward_hook(lambda _, given, __: seen.append(given))
    objective.loss(networks, _latents(1), _Drawn(0.0, 0.0), 0)  # type: ignore[arg-type]
    hook.remove()
    (((inputs, labels),),) = (seen,)
    assert set(labels.tolist()) == {999}
    assert not inputs[:, : inputs.shape[1] // 3].any()


def test_updates_of_matrices_are_orthogonal() -> None:
    for shape in ((32, 90), (90, 32), (64, 64)):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        u, values, v = torch.linalg.svd(matrix, full_matrices=False)
        made = orthogonal(matrix)
        assert made.shape == matrix.shape
        # The same directions, all of about the same strength; the weakest are only on their way there.
        strengths = torch.einsum("ik,ij,kj->k", u, made, v)
        assert float(strengths[values > 0.2 * values.max()].min()) > 0.6
        assert float(strengths.max()) < 1.3


def test_muon_finds_a_known_convolution() -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    wanted, learned = (torch.nn.Conv2d(16, 16, 3) for _ in range(2))
    optimiser = Muon(learned.parameters(), 0.02)
    for step in range(150):
        optimiser.param_groups[0]["lr"] = 0.02 * (1 - step / 150)
        x = torch.randn(8, 16, 6, 6, generator=generator)
        loss = (learned(x) - wanted(x).detach()).square().mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    assert float(loss.detach()) < 1e-3


def test_a_cooled_training_ends_at_a_rate_of_nothing(data: Pictures, tmp_path: Path) -> None:
    trainer = Trainer(tmp_path / "run", data, Small(), Plan(batch=1, cooling=(2, 4)), frames=32)
    trainer.train(minutes=15)
    assert trainer.progress.step == 4
    rates = [trainer.plan.rate_at(step) / (step / WARM_UP * trainer.plan.rate) for step in (1, 2, 3, 4, 5)]
    assert rates == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0])


def test_keys_of_the_reference_learn_and_processors_are_put_back() -> None:
    objective = Small()
    networks = objective.build()
    unet: Any = networks["unet"]
    before = dict(unet.attn_processors)
    torch.autograd.backward(objective.loss(networks, _latents(1), _Drawn(0.9, 0.0), 10**6))  # type: ignore[arg-type]
    assert unet.attn_processors == before
    for module in decoder_layers(unet).values():
        assert float(module.to_k.weight.grad.abs().max()) > 0


def test_the_comparator_is_trained_on_the_same_pairs(data: Pictures, tmp_path: Path) -> None:
    trainer = Trainer(tmp_path / "run", data, Regression(), Plan(batch=1), frames=32)
    assert trainer.step() > 0
    assert set(dict(trainer.networks)) == {"unet"}


def test_the_exported_folder_is_the_average_and_loads(data: Pictures, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path / "run", data)
    trainer.step()
    folder = tmp_path / "mini"
    trainer.export(folder)
    weights = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, trainer.ema[f"unet.{name}"].half()) for name, value in weights.items())
    model = load_model(str(folder), "cpu", "float32")
    assert model.profile == MINI
    assert isinstance(model.latent, Patchify)
    assert model.scheduler.config.prediction_type == "v_prediction"
    assert model.encoder is not None
    assert model.spread == pytest.approx(trainer.progress.spread)
    # What it has not learned yet it does not offer.
    assert list(model.methods) == ["conditional"]
    with pytest.raises(BadRequest, match="at most 1"):
        model.with_steps(model.settings(steps=2))
    trainer.export(tmp_path / "left", injection="mini-injection")
    assert list(load_model(str(tmp_path / "left"), "cpu").methods) == ["conditional", "injection"]
    learned = Trainer(tmp_path / "run", data, Small(refining_from=0), Plan(batch=2), frames=32)
    learned.step()
    learned.export(tmp_path / "learned")
    assert list(load_model(str(tmp_path / "learned"), "cpu").methods) == ["conditional", "injection"]
    assert json.loads((folder / "stylus.json").read_text("utf-8"))["training"]["examples"] == 2
    later = Trainer(tmp_path / "later", data, Small(), Plan(batch=2), frames=32, init=folder)
    assert (later.progress.step, later.progress.examples) == (0, 2)
    assert later.progress.spread == trainer.progress.spread
    for name, value in later.networks.state_dict().items():
        assert torch.equal(value, trainer.ema[name].half().float())
