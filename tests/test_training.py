"""Composer, synthesis, data and trainer of the embedded model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mido
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from stylus_audio.errors import Internal, NotFound
from stylus_audio.latent import Patchify
from stylus_audio.model import load_model
from stylus_audio.spectrogram import MINI, band_centres
from stylus_audio.training.architecture import CONTEXT
from stylus_audio.training.compose import DRUM_CHANNEL, KINDS, Note, Piece, compose, to_midi
from stylus_audio.training.dataset import FRAMES, Pictures, build, picture, texture
from stylus_audio.training.synthesise import SAMPLE_RATE, soundfont, synthesise
from stylus_audio.training.train import Trainer


def _small() -> UNet2DConditionModel:
    """A network of the embedded one's form, quick to train."""
    return UNet2DConditionModel(
        sample_size=(64, 32),
        in_channels=64,
        out_channels=64,
        layers_per_block=1,
        block_out_channels=(32, 32),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=CONTEXT,
        attention_head_dim=1,
        norm_num_groups=8,
    )


def _font() -> Path:
    """The training soundfont, or a skip that says what is missing."""
    if shutil.which("fluidsynth") is None:
        pytest.skip("fluidsynth is not installed (Debian: fluidsynth)")
    try:
        return soundfont()
    except NotFound as missing:
        pytest.skip(str(missing))


def _sounding(midi: mido.MidiFile) -> list[tuple[int, int, int, int]]:
    """Every note-on as (tick, channel, key, velocity)."""
    now, notes = 0, []
    for message in midi.tracks[0]:
        now += message.time
        if message.type == "note_on":
            notes.append((now, message.channel, message.note, message.velocity))
    return notes


@pytest.mark.parametrize("kind", KINDS)
def test_a_piece_is_the_same_for_the_same_seed_and_playable(kind: str) -> None:
    piece = compose(11, kind, 8.0)
    assert piece == compose(11, kind, 8.0)
    assert piece.notes != compose(12, kind, 8.0).notes
    assert piece.notes == tuple(sorted(piece.notes, key=lambda note: (note.start, note.part, note.key)))
    for note in piece.notes:
        assert 0 <= note.start < piece.seconds
        assert note.length > 0
        assert 24 <= note.key <= 103
        assert 25 <= note.velocity <= 127
        assert (note.part == DRUM_CHANNEL) == (kind == "drums") or kind == "ensemble"


def test_pieces_come_in_every_key_and_at_many_tempi() -> None:
    pieces = [compose(seed, "chords", 8.0) for seed in range(60)]
    assert {note.key % 12 for piece in pieces for note in piece.notes} == set(range(12))
    first_steps = {round(min(n.start for n in piece.notes if n.start > 0), 2) for piece in pieces}
    assert len(first_steps) > 30


def test_the_same_music_on_two_programs_has_the_same_notes_at_the_same_times() -> None:
    piece = compose(4, "melody and chords", 6.0)
    piano, organ = to_midi(piece, (0, 0)), to_midi(piece, (19, 48))
    assert _sounding(piano) == _sounding(organ)
    assert len(_sounding(piano)) == len(piece.notes)
    programs = [m.program for m in organ.tracks[0] if m.type == "program_change"]
    assert programs == [19, 48, 0]


def test_midi_keeps_the_seconds_of_a_piece() -> None:
    piece = Piece("two notes", (Note(0.25, 0.5, 60, 90), Note(1.5, 0.25, 64, 80)), 2.0)
    now, times = 0.0, []
    for message in to_midi(piece):
        now += message.time
        if message.type in ("note_on", "note_off"):
            times.append(now)
    assert times == pytest.approx([0.25, 0.75, 1.5, 1.75], abs=1e-3)


def test_synthesis_is_exactly_as_long_as_asked_repeatable_and_in_tune() -> None:
    font = _font()
    flute = to_midi(Piece("a", (Note(0.0, 1.0, 81, 100),), 1.0), (73, 73))
    audio = synthesise(flute, 1.0, font, reverb=False)
    assert audio.shape == (2, SAMPLE_RATE)
    assert np.array_equal(audio, synthesise(flute, 1.0, font, reverb=False))
    middle = audio.mean(0)[SAMPLE_RATE // 4 :][: SAMPLE_RATE // 2]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(middle) == pytest.approx(880.0, abs=8.0)


def test_a_soundfont_that_is_not_there_or_not_one_is_said(tmp_path: Path) -> None:
    _font()
    with pytest.raises(NotFound, match=r"nowhere\.sf2 is not here"):
        soundfont("nowhere.sf2")
    broken = tmp_path / "broken.sf2"
    broken.write_bytes(b"no soundfont" * 20)
    with pytest.raises(Internal, match=r"broken\.sf2"):
        synthesise(to_midi(compose(0, "melody", 1.0)), 1.0, broken)


def test_a_picture_shows_the_note_that_sounds() -> None:
    time = np.arange(8 * SAMPLE_RATE) / SAMPLE_RATE
    tone = (0.2 * np.sin(2 * np.pi * 880 * time)).astype(np.float32)
    seen = picture(np.stack([tone, tone]))
    assert seen.shape == (MINI.bands, FRAMES)
    assert seen.max() == 1.0
    loudest = np.bincount(seen.astype(np.float32)[:, 50:-50].argmax(0)).argmax()
    assert band_centres(MINI)[loudest] == pytest.approx(880.0, rel=0.01)


def test_data_is_continued_where_it_stopped(tmp_path: Path) -> None:
    font = _font()
    build(tmp_path / "once", 3, font, workers=1)
    build(tmp_path / "twice", 2, font, workers=1)
    build(tmp_path / "twice", 3, font, workers=1)
    once, twice = Pictures(tmp_path / "once"), Pictures(tmp_path / "twice")
    assert len(once.pictures) == 3
    assert np.array_equal(once.pictures, twice.pictures)
    assert all(float(clip.max()) == 1.0 for clip in once.pictures)


@pytest.fixture
def data(tmp_path: Path) -> Pictures:
    """Two noise textures, which need no synthesiser."""
    folder = tmp_path / "data"
    folder.mkdir()
    made = np.stack([picture(texture(np.random.default_rng(seed))) for seed in (1, 2)])
    (folder / "pictures.f16").write_bytes(made.tobytes())
    (folder / "index.json").write_text(json.dumps({"clips": 2}), "utf-8")
    return Pictures(folder)


def test_windows_are_seeded_and_partly_quiet_or_silent(data: Pictures) -> None:
    windows = data.batch(np.random.default_rng(3), 64)
    assert windows.shape == (64, MINI.bands, MINI.frames)
    assert np.array_equal(windows, data.batch(np.random.default_rng(3), 64))
    assert windows.min() >= 0
    assert windows.max() <= 1
    silent_ends = (windows[:, :, -1].max(1) == 0).sum()
    assert 1 <= silent_ends <= 20
    assert np.ptp(windows.max((1, 2))) > 0.1


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(data: Pictures, tmp_path: Path) -> None:
    whole = Trainer(tmp_path / "whole", data, batch=1, build=_small)
    for _ in range(4):
        whole.step()
    first = Trainer(tmp_path / "parts", data, batch=1, build=_small)
    for _ in range(2):
        first.step()
    first.checkpoint()
    second = Trainer(tmp_path / "parts", data, batch=1, build=_small)
    assert second.progress == first.progress
    for _ in range(2):
        second.step()
    assert second.progress.step == 4
    assert second.progress.loss == pytest.approx(whole.progress.loss, abs=1e-6)
    for name, value in whole.unet.state_dict().items():
        torch.testing.assert_close(second.unet.state_dict()[name], value, rtol=0, atol=1e-6)
        torch.testing.assert_close(second.ema[name], whole.ema[name], rtol=0, atol=1e-6)
    second.checkpoint()
    kept = sorted(file.name for file in (tmp_path / "parts").iterdir())
    assert kept == ["checkpoint-4", "progress.json"]


def test_the_exported_folder_is_the_average_and_loads(data: Pictures, tmp_path: Path) -> None:
    trainer = Trainer(tmp_path / "run", data, batch=1, build=_small)
    trainer.step()
    folder = tmp_path / "mini"
    trainer.export(folder)
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 40e6
    weights = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, trainer.ema[name].half()) for name, value in weights.items())
    model = load_model(str(folder), "cpu", "float32")
    assert model.profile == MINI
    assert isinstance(model.latent, Patchify)
    assert model.scheduler.config.prediction_type == "v_prediction"
    clean = model.latent.encode(torch.from_numpy(data.batch(np.random.default_rng(0), 1)))
    assert model.unet(clean, 1, encoder_hidden_states=model.embedding()).sample.shape == clean.shape
    card = (folder / "MODEL_CARD.md").read_text("utf-8")
    assert "1 steps of 1 windows" in card
