"""Data and trainer of the embedded model."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from stylus_audio.attention import decoder_layers
from stylus_audio.conditional import Conditional, without_grid
from stylus_audio.denoiser import Denoiser
from stylus_audio.errors import BadRequest, DiskFull
from stylus_audio.graphs import Captured, Graphs, Work
from stylus_audio.latent import Patchify
from stylus_audio.match_eq import equalised, long_term_level, match_eq
from stylus_audio.model import load_model
from stylus_audio.places import MODELS
from stylus_audio.settings import Settings
from stylus_audio.spectrogram import MINI, band_centres
from stylus_audio.style_encoder import StyleEncoder
from stylus_audio.training import train
from stylus_audio.training.architecture import CHANNELS, CONTEXT, ROWS, build_scheduler, build_unet
from stylus_audio.training.card import card
from stylus_audio.training.dataset import FRAMES, LEVELS, SECONDS, SHAPE, Pictures, build, picture
from stylus_audio.training.deepening import deepened
from stylus_audio.training.growing import grow, grown
from stylus_audio.training.muon import Muon, orthogonal
from stylus_audio.training.objective import Latents, Regression, Transfer, contrast, error, transferred
from stylus_audio.training.pairs import CONTENTS, REFERENCES, draw, layered, noisy, ringing
from stylus_audio.training.run import UNCAPTURED, WARM_UP, Plan, sent
from stylus_audio.training.sounds import HELD_OUT_FONT, draw_effects, with_effects
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


@pytest.fixture(scope="module")
def noises() -> bytes:
    """Pictures of two groups of noise that comes and goes, in three colours; they need no synthesiser."""
    groups = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        samples = round(SECONDS * SAMPLE_RATE)
        swells = [np.interp(np.arange(samples), np.linspace(0, samples, 20), rng.random(20) ** 3) for _ in range(2)]
        clips = [np.asarray(0.3 * swell * rng.standard_normal((2, samples)), np.float32) for swell in swells]
        colours = [draw_effects(rng) for _ in range(3)]
        groups.append(np.stack([np.stack([picture(with_effects(clip, one)) for clip in clips]) for one in colours]))
    return np.stack(groups).tobytes()


@pytest.fixture
def data(noises: bytes, tmp_path: Path) -> Pictures:
    """Their folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "pictures.u8").write_bytes(noises)
    (folder / "index.json").write_text(json.dumps({"groups": 2}), "utf-8")
    return Pictures(folder)


def test_pairs_are_the_same_music_in_two_sounds_with_references_of_other_music(data: Pictures) -> None:
    pairs = draw(data.pictures, np.random.default_rng(3), 6, 64, varied=False)
    again = draw(data.pictures, np.random.default_rng(3), 6, 64, varied=False)
    assert pairs.content.shape == (6 * CONTENTS, MINI.bands, 64)
    assert pairs.reference.shape == (6 * REFERENCES, MINI.bands, 64)
    assert torch.equal(pairs.answer, again.answer)
    floats = data.pictures.astype(np.float32) / LEVELS

    def place(window: np.ndarray) -> tuple[int, int, int, int]:
        """Group, sound, piece and frame of a window."""
        for group, sound, piece in np.ndindex(2, 3, 2):
            clip = floats[group, sound, piece]
            for start in np.flatnonzero((np.abs(clip[:, :-63] - window[:, :1]) < 1e-6).all(0)):
                if np.allclose(clip[:, start : start + 64], window, rtol=0, atol=1e-6):
                    return group, sound, piece, int(start)
        raise AssertionError("a window that is in no clip")

    same = 0
    for number, (content, answer) in enumerate(zip(pairs.content.numpy(), pairs.answer.numpy(), strict=True)):
        one, other = place(content), place(answer)
        assert (one[0], one[2], one[3]) == (other[0], other[2], other[3])
        for reference in pairs.reference.reshape(6, REFERENCES, MINI.bands, 64)[number // CONTENTS].numpy():
            third = place(reference)
            assert (third[0], third[1]) == (other[0], other[1])
            assert third[2] != one[2]
        same += one[1] == other[1]
    assert same < 6


def test_a_guide_is_the_match_eq_of_a_render(data: Pictures) -> None:
    whole = draw(data.pictures, np.random.default_rng(4), 4, FRAMES, varied=False)
    references = whole.reference[::REFERENCES].repeat_interleave(CONTENTS, 0)
    for content, reference, guide in zip(whole.content, references, whole.guide, strict=True):
        levels = []
        for clip in (content.numpy(), reference.numpy()):
            power = 10 ** ((clip[:, clip.max(0) > 0] - 1) * (MINI.range_db / 10))
            levels.append(long_term_level(power, MINI))
        expected = equalised(content.numpy(), match_eq(*levels), MINI)
        np.testing.assert_allclose(guide.numpy(), expected, atol=1e-4)
    distances = [float((one - whole.answer).square().mean().sqrt()) for one in (whole.content, whole.guide)]
    assert distances[1] < 0.8 * distances[0]


@pytest.mark.slow
def test_drawn_sounds_differ_from_the_groups_and_stay_pictures(data: Pictures) -> None:
    varied = draw(data.pictures, np.random.default_rng(5), 16, FRAMES)
    plain = draw(data.pictures, np.random.default_rng(5), 16, FRAMES, varied=False)
    for name in ("content", "answer", "reference"):
        picture = getattr(varied, name)
        assert not torch.equal(picture, getattr(plain, name))
        torch.testing.assert_close(picture.amax((1, 2)), torch.ones(len(picture)))
        assert float(picture.min()) >= 0


def test_layers_add_up_in_power() -> None:
    one, other = torch.full((1, 4, 3), 0.5), torch.full((1, 4, 3), 0.25)
    one[0, 0, 0] = 1.0
    other[0, 0, 1] = other[0, 3] = one[0, 3] = 0.0
    both = layered(one, other, torch.zeros(1))
    assert float(both.max()) == 1.0
    powers = [10 ** ((picture - 1) * 8) - 1e-8 for picture in (one, other)]
    expected = (powers[0] + powers[1]) / (powers[0] + powers[1]).max()
    torch.testing.assert_close(both, (1 + expected.clamp_min(1e-8).log10() / 8).clamp(0, 1))
    assert not both[0, 3].any()


def test_a_ringing_sound_falls_by_60_db_in_its_time_and_never_under_itself() -> None:
    picture = torch.zeros(2, 1, 3, 400)
    picture[:, 0, 1, 100] = 1.0
    picture[:, 0, 2, 100:300] = 0.5
    rung = ringing(picture, torch.tensor([1.0, 4.0]))
    assert (rung >= picture - 1e-5).all()
    assert not rung[:, :, 0].any()
    assert not rung[:, :, :, :100].any()
    for sound, seconds in enumerate((1.0, 4.0)):
        later = 100 + round(0.5 * MINI.frame_rate)
        assert float(rung[sound, 0, 1, later]) == pytest.approx(1 - 30 / seconds / MINI.range_db, abs=1e-4)
    torch.testing.assert_close(rung[0, 0, 2, 100:300], picture[0, 0, 2, 100:300])


def test_noise_lies_at_its_level_under_what_sounds_and_nowhere_else() -> None:
    picture = torch.zeros(1, 1, MINI.bands, 300)
    picture[..., 7, 50:250] = 0.9
    heard = noisy(picture, torch.full((1, MINI.bands), -20.0), torch.Generator().manual_seed(0))
    assert not heard[..., :50].any()
    assert not heard[..., 250:].any()
    power = 10 ** ((heard[0, 0, 20:, 50:250] - 1) * 8)
    assert 10 * float(power.mean().log10()) == pytest.approx(-8 - 20, abs=0.2)
    assert float(heard[0, 0, 7, 50:250].mean()) == pytest.approx(0.9, abs=0.002)


def test_an_answer_counts_at_the_level_of_the_truth() -> None:
    """6 dB too loud is no error, and of 18 dB it is the 6 over what is heard as right."""
    latents = _latents(1)
    true = latents.answer - latents.guide
    assert float(error(true, latents)) == pytest.approx(0, abs=2e-4)
    assert float(error(true + 1.4, latents)) == pytest.approx(0, abs=2e-4)
    assert float(error(true + 4.2, latents)) == pytest.approx(1.4, rel=1e-4)


def test_silence_has_no_level_and_nothing_is_softer() -> None:
    latents = _latents(1)
    silence = torch.full_like(latents.answer[:, :, :64], latents.silence)
    answer = torch.cat([silence, latents.answer[:, :, 64:]], 2)
    latents = replace(latents, answer=answer)
    true = answer - latents.guide
    softer = torch.cat([true[:, :, :64] - 3, true[:, :, 64:]], 2)
    fainter = torch.cat([true[:, :, :64], true[:, :, 64:] - 1.4], 2)
    for one in (true, softer, fainter):
        assert float(error(one, latents) - error(true, latents)) == pytest.approx(0, abs=2e-4)
    heard = torch.cat([true[:, :, :64] + 3, true[:, :, 64:]], 2)
    assert float(error(heard, latents)) == pytest.approx(3 / 2**0.5, rel=1e-2)


def _unet(layers: tuple[int, int]) -> Any:
    return build_unet(
        block_out_channels=(16, 32),
        layers_per_block=layers,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=1,
        norm_num_groups=8,
    )


class Small(Transfer):
    """Networks of the embedded one's form, quick to train."""

    def build(self) -> nn.ModuleDict:
        encoder = StyleEncoder(CHANNELS, ROWS // 2, 16, CONTEXT, depth=1, stride=2)
        return nn.ModuleDict({"unet": _unet((1, 1)), "encoder": encoder})


def _trainer(run: Path, data: Pictures) -> Trainer:
    return Trainer(run, data, Small(), Plan(batch=4), frames=32)


@pytest.mark.slow
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
    assert (second.progress.step, second.progress.examples) == (4, 16)
    assert float(second.smoothed) == pytest.approx(float(whole.smoothed), abs=1e-6)
    for name, value in whole.networks.state_dict().items():
        torch.testing.assert_close(second.networks.state_dict()[name], value, rtol=0, atol=1e-6)
        torch.testing.assert_close(second.ema[name], whole.ema[name], rtol=0, atol=1e-6)
    second.checkpoint()
    kept = sorted(file.name for file in (tmp_path / "parts").iterdir())
    assert kept == ["checkpoint-4", "progress.json"]


@pytest.mark.slow
def test_a_step_that_goes_through_graphs_is_the_same(data: Pictures, tmp_path: Path) -> None:
    """All that changes from step to step reaches it as a tensor: what is captured reads nothing else anew."""
    plain, captured = (_trainer(tmp_path / name, data) for name in ("plain", "captured"))
    told: list[set[str]] = []

    def capture(work: Work, tensors: Mapping[str, torch.Tensor]) -> Captured:
        inputs = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}

        def replay(tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
            told.append({name for name, tensor in tensors.items() if not torch.equal(inputs[name], tensor)})
            for name, tensor in tensors.items():
                inputs[name].copy_(tensor)
            return work(inputs)

        return replay

    captured.graphs = Graphs(capture, captured.plan.batch)
    losses = [[float(trainer.step()) for _ in range(UNCAPTURED + 4)] for trainer in (plain, captured)]
    assert losses[0] == losses[1]
    assert told == [{"0", "1", "2", "3", "told"}] * 3
    for name, value in plain.ema.items():
        assert torch.equal(captured.ema[name], value)


def test_groups_on_the_device_give_the_same_batches(data: Pictures) -> None:
    there = torch.from_numpy(np.array(data.pictures))
    one, other = (draw(groups, np.random.default_rng(6), 6, 64) for groups in (data.pictures, there))
    for name in ("content", "guide", "answer", "reference"):
        assert torch.equal(getattr(one, name), getattr(other, name))


@pytest.mark.slow
def test_training_brings_the_loss_down(data: Pictures, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path / "run", data)
    losses = [float(trainer.step()) for _ in range(60)]
    assert np.mean(losses[-15:]) < 0.9 * np.mean(losses[:5])


def _latents(seed: int) -> Latents:
    generator = torch.Generator().manual_seed(seed)
    content, guide, answer = (torch.randn(4, CHANNELS, ROWS, 8, generator=generator) for _ in range(3))
    return Latents(content, guide, answer, torch.randn(4, CHANNELS, ROWS, 8, generator=generator), 2, 1.0, 1.0, -9.0)


def _networks() -> nn.ModuleDict:
    torch.manual_seed(0)
    return Small().build().eval()


@torch.no_grad()
def test_what_is_trained_is_what_renders() -> None:
    """The answer of a training's batch is that of the engine, told of the same two references for each style."""
    networks, latents = _networks(), _latents(1)
    found = transferred(networks, latents)
    unet = Small().build()["unet"]
    settings = Settings(gamma=0.0, alpha=1.0, steps=1, method="conditional", layers=tuple(decoder_layers(unet)))
    unet.load_state_dict(networks["unet"].state_dict())
    base = Denoiser(unet.eval(), build_scheduler(), torch.zeros(1, 1, CONTEXT))
    engine = Conditional(base, networks["encoder"], latents.spread, settings)
    for style in range(2):
        here = slice(2 * style, 2 * style + 2)
        read = engine.prepare(latents.reference[here])
        styled = engine.run(latents.content[here], latents.guide[here], [read])
        expected = latents.guide[here] + latents.spread * without_grid(found[here])
        torch.testing.assert_close(styled[:1], expected[:1], rtol=1e-3, atol=1e-3)
        # The second is asked for a smooth answer.
        assert not torch.allclose(styled[1:], expected[1:], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_the_answer_depends_on_content_guide_and_own_reference() -> None:
    networks, base, other = _networks(), _latents(1), _latents(2)
    found = transferred(networks, base)
    for name in ("content", "guide", "reference"):
        changed = getattr(base, name).clone()
        changed[:2] = getattr(other, name)[:2]
        moved = transferred(networks, replace(base, **{name: changed}))
        assert not torch.allclose(moved[:2], found[:2])
        torch.testing.assert_close(moved[2:], found[2:])


@torch.no_grad()
def test_a_deeper_network_begins_with_what_a_shallower_one_says() -> None:
    torch.manual_seed(1)
    shallow, deep = (_unet((2, 1)).eval(), _unet((4, 2)).eval())
    for weight in shallow.parameters():
        weight.add_(0.02 * torch.randn_like(weight))
    deep.load_state_dict(deepened(shallow.state_dict(), deep))
    x, tokens = torch.randn(2, 3 * CHANNELS, ROWS, 8), torch.randn(2, 5, CONTEXT)
    said, same = (unet(x, torch.tensor([999, 3]), encoder_hidden_states=tokens).sample for unet in (shallow, deep))
    torch.testing.assert_close(same, said, rtol=1e-4, atol=1e-4)
    assert len(deep.up_blocks[0].attentions) == len(shallow.up_blocks[0].attentions) + 1
    with pytest.raises(BadRequest, match="deeper"):
        deepened(deep.state_dict(), shallow)


def test_what_a_deeper_network_has_more_learns() -> None:
    torch.manual_seed(1)
    shallow, deep = _unet((1, 1)), _unet((2, 2))
    deep.load_state_dict(deepened(shallow.state_dict(), deep))
    output = deep(torch.randn(2, 3 * CHANNELS, ROWS, 8), 3, encoder_hidden_states=torch.randn(2, 5, CONTEXT)).sample
    torch.autograd.backward(output.square().mean())
    for block in (deep.down_blocks[0], deep.down_blocks[1], deep.up_blocks[0], deep.up_blocks[1]):
        assert float(block.resnets[1].conv2.weight.grad.abs().max()) > 0


def test_a_blur_of_the_truth_is_worse_than_the_truth_moved_a_little() -> None:
    """Both are as far off; only one has the truth's contrast."""
    latents = _latents(1)
    true = (latents.answer - latents.guide) / latents.spread
    blurred = true + (latents.guide / latents.spread + true) * -0.5
    moved = true + (blurred - true).abs()
    assert float(error(true, latents)) == pytest.approx(0, abs=2e-4)
    assert float((contrast(latents.answer) - contrast(latents.answer * 0.5)).min()) > 0
    assert float(error(blurred, latents)) > float(error(moved, latents))


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


@pytest.mark.slow
def test_a_cooled_training_ends_at_a_rate_of_nothing(data: Pictures, tmp_path: Path) -> None:
    plan = Plan(batch=4, total=2.0, cool=0.5)
    rates = [plan.rate_at(WARM_UP, seconds) / plan.rate for seconds in (0, 90, 105, 120, 130)]
    assert rates == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0])
    trainer = Trainer(tmp_path / "run", data, Small(), replace(plan, total=1e-3), frames=32)
    trainer.train(minutes=15)
    assert trainer.progress.step >= 1
    assert trainer.progress.seconds >= 0.06


def test_keys_of_the_reference_learn() -> None:
    networks = _networks()
    latents = _latents(1)
    torch.autograd.backward(error(transferred(networks, latents), latents))
    for module in decoder_layers(networks["unet"]).values():
        assert float(module.to_k.weight.grad.abs().max()) > 0


def test_a_batch_is_whole_styles(data: Pictures, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no multiple of 4"):
        Trainer(tmp_path / "run", data, Small(), Plan(batch=6), frames=32)


@pytest.mark.parametrize("frames", [0, 6, 30, 604, 1000])
def test_windows_are_no_longer_than_a_clip(data: Pictures, tmp_path: Path, frames: int) -> None:
    with pytest.raises(BadRequest, match=f"--frames: {frames} is no multiple of 4 from 8 to the 600 of a clip"):
        Trainer(tmp_path / "run", data, Small(), Plan(batch=4), frames=frames)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": -1}, "--seed: -1 is less than 0"),
        ({"batch": 0}, "--batch: 0 is less than 1"),
        ({"slow_down": 0}, "--slow-down: 0 is less than 1"),
        ({"cool": -5.0, "total": 60.0}, "--cool: -5.0 is less than 0"),
        ({"cool": 5.0}, "--cool needs --total"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        Plan(**changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_a_device_that_is_not_there_is_said(data: Pictures, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cuda is not available"):
        Trainer(tmp_path / "run", data, Small(), Plan(device="cuda", batch=4), frames=32)


def test_what_is_sent_to_a_device_arrives_there() -> None:
    # Any but the CPU and CUDA, as Apple's GPU.
    assert sent(np.zeros(3, np.float32), "meta").device.type == "meta"


@pytest.mark.slow
def test_a_disk_without_room_for_a_checkpoint_is_said_and_keeps_the_one_before(
    data: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _trainer(tmp_path / "run", data)
    run.step()
    run.checkpoint()
    run.step()

    def full(tensors: dict[str, torch.Tensor], file: Path) -> None:
        if file.stem == "ema":
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, file)

    with monkeypatch.context() as patch:
        patch.setattr("stylus_audio.training.run.save_file", full)
        with pytest.raises(DiskFull, match="checkpoint-2 cannot be written"):
            run.checkpoint()
    assert sorted(file.name for file in run.folder.iterdir()) == ["checkpoint-1", "progress.json"]
    assert _trainer(tmp_path / "run", data).progress.step == 1


@pytest.mark.slow
def test_a_run_of_other_networks_or_a_damaged_one_is_said(data: Pictures, tmp_path: Path) -> None:
    _trainer(tmp_path / "run", data).checkpoint()
    with pytest.raises(BadRequest, match="is a run of other networks"):
        Trainer(tmp_path / "run", data, Regression(), Plan(batch=4), frames=32)
    (tmp_path / "run" / "checkpoint-0" / "ema.safetensors").write_bytes(b"no weights")
    with pytest.raises(BadRequest, match="holds a damaged run"):
        _trainer(tmp_path / "run", data)


def test_weights_to_begin_with_that_are_none_are_said(data: Pictures, tmp_path: Path) -> None:
    def begin(init: Path) -> None:
        Trainer(tmp_path / "run", data, Small(), Plan(batch=4), frames=32, init=init)

    with pytest.raises(BadRequest, match=r"--init: .*NOWHERE is no model that this training exports"):
        begin(tmp_path / "NOWHERE")
    with pytest.raises(BadRequest, match="'training' is missing"):
        begin(MODELS / "mini-injection")
    with pytest.raises(BadRequest, match=r"other networks|other or deeper levels"):
        begin(MODELS / "mini")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["train", "train_instruments"])
def test_a_run_that_is_not_there_is_not_exported(data: Pictures, tmp_path: Path, trainer: str) -> None:
    command = [sys.executable, "-m", f"stylus_audio.training.{trainer}", "--data", str(data.folder)]
    command += ["--run", str(tmp_path / "mistyped"), "--minutes", "0", "--export", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == BadRequest.exit_code
    assert ended.stderr.strip() == f"nothing has been trained in {tmp_path / 'mistyped'}"
    assert not (tmp_path / "mistyped").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_comparator_is_validated_too(
    data: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need_font(HELD_OUT_FONT)
    monkeypatch.setattr(train, "VALIDATION_PAIRS", 1)
    Trainer(tmp_path / "run", data, Regression(), Plan(batch=4), frames=64).validate()
    assert "| regression | 1 |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_comparator_is_trained_on_the_same_pairs(data: Pictures, tmp_path: Path) -> None:
    # In bfloat16 oneDNN with AMX gets convolutions with a stride over two columns wrong: 32 frames would lead there.
    trainer = Trainer(tmp_path / "run", data, Regression(), Plan(batch=4), frames=64)
    assert float(trainer.step()) > 0
    assert set(dict(trainer.networks)) == {"unet"}


@pytest.mark.slow
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
    # What it has not learned it does not offer.
    assert list(model.methods) == ["conditional"]
    with pytest.raises(BadRequest, match="mini answers at once"):
        model.with_steps(model.settings(steps=2))
    trainer.export(tmp_path / "left", injection="mini-injection")
    assert list(load_model(str(tmp_path / "left"), "cpu").methods) == ["conditional", "injection"]
    assert json.loads((folder / "stylus.json").read_text("utf-8"))["training"]["examples"] == 4
    later = Trainer(tmp_path / "later", data, Small(), Plan(batch=4), frames=32, init=folder)
    assert (later.progress.step, later.progress.examples) == (0, 0)
    assert later.progress.spread == trainer.progress.spread
    for name, value in later.networks.state_dict().items():
        assert torch.equal(value, trainer.ema[name].half().float())
    later.step()
    later.export(tmp_path / "longer")
    about = json.loads((tmp_path / "longer" / "stylus.json").read_text("utf-8"))
    assert about["training"]["before"] == json.loads((folder / "stylus.json").read_text("utf-8"))["training"]
    said = card(tmp_path / "longer", tmp_path, "")
    assert said.count("- 4 examples of 2 groups, 0 minutes on CPU") == 2


@pytest.mark.slow
def test_halfway_is_the_mean_of_before_and_after(data: Pictures, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path / "run", data)
    trainer.export(tmp_path / "before")
    with pytest.raises(BadRequest, match="did not begin with exported weights"):
        trainer.export(tmp_path / "nothing", halfway=True)
    assert not (tmp_path / "nothing").exists()
    later = Trainer(tmp_path / "later", data, Small(), Plan(batch=4, rate=0.1), frames=32, init=tmp_path / "before")
    for _ in range(3):
        later.step()
    later.export(tmp_path / "after")
    later.export(tmp_path / "halfway", halfway=True)
    before, after, halfway = (
        load_file(tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors")
        for name in ("before", "after", "halfway")
    )
    assert any(not torch.allclose(before[name], after[name], atol=1e-3) for name in before)
    for name, value in halfway.items():
        torch.testing.assert_close(value.float(), (before[name].float() + after[name]) / 2, rtol=2e-3, atol=1e-4)


NUMBERED = np.dtype((np.uint8, (1000,)))
_numbered = partial(np.full, 1000)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_is_said_and_what_is_there_stays(tmp_path: Path) -> None:
    import resource

    file = tmp_path / "data" / "file"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system refuses the write in the midst of the file.
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_500, limits[1]))
    try:
        with pytest.raises(DiskFull, match=r"no room for the groups that are missing, 2 MB"):
            grow(file, NUMBERED, 2000, _numbered, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert np.array_equal(grown(file, NUMBERED)[:, 0], np.arange(10))
    grow(file, NUMBERED, 15, _numbered, workers=1)
    assert np.array_equal(grown(file, NUMBERED), np.repeat(np.arange(15)[:, None], 1000, 1))
    assert sorted(one.name for one in file.parent.iterdir()) == ["file", "index.json"]


def test_groups_that_no_disk_has_room_for_are_not_begun(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="no room for the groups that are missing, 1000000000000 MB"):
        grow(tmp_path / "data" / "file", NUMBERED, 10**15, _numbered)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("groups", "workers"), [(0, 2), (-1, 2), (10, 0), (10, -1)])
def test_a_number_of_groups_or_workers_that_cannot_be_leaves_nothing(tmp_path: Path, groups: int, workers: int) -> None:
    with pytest.raises(BadRequest, match="--workers" if groups > 0 else "--groups"):
        grow(tmp_path / "data" / "file", NUMBERED, groups, _numbered, workers)
    assert not list(tmp_path.iterdir())


def test_a_killed_run_leaves_no_workers(tmp_path: Path) -> None:
    script = tmp_path / "growing_slowly.py"
    script.write_text(
        """
import time
from pathlib import Path

import numpy as np

from stylus_audio.training.growing import grow


def make(seed):
    Path(f"made-{seed}").touch()
    time.sleep(0.2)
    return np.zeros(4, np.uint8)


if __name__ == "__main__":
    grow(Path("data") / "file", (np.uint8, (4,)), 1000, make)
""",
        "utf-8",
    )
    run = psutil.Popen([sys.executable, str(script)], cwd=tmp_path)
    while not list(tmp_path.glob("made-*")):
        assert run.poll() is None
        time.sleep(0.05)
    workers = run.children(recursive=True)
    assert len(workers) >= 2
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
