"""The classifier of instruments: its labels, its training, its weights on what they have not heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stylus_audio.audio import Clip
from stylus_audio.errors import NotFound
from stylus_audio.instruments import FAMILIES, family_probabilities, instrument_match, load
from stylus_audio.spectrogram import MINI
from stylus_audio.training import synthesise, train_instruments
from stylus_audio.training.additive import Additive
from stylus_audio.training.dataset import DRUMS, GROUP, Pictures, group_instruments
from stylus_audio.training.heldout import make
from stylus_audio.training.run import Plan
from stylus_audio.training.sounds import HELD_OUT_PROGRAMS, TRAINING_PROGRAMS, Sound
from stylus_audio.training.train_instruments import InstrumentTrainer, family_of
from tests.programs import need_font
from tests.sounds import RATE, noise, plucks


def test_families_are_general_midis() -> None:
    names = {0: "piano", 21: "organ", 24: "guitar", 56: "brass", 73: "pipe", 81: "synth lead", DRUMS: "drums"}
    assert {program: FAMILIES[family_of(program)] for program in names} == names


def test_labels_are_drawn_as_the_audio_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What plays in a group is what its seed says, without a synthesiser."""
    from stylus_audio.training import dataset

    played: list[tuple[int | None, int | None]] = []

    def play(self: Sound | Additive, pieces: list[object], cents: float) -> list[np.ndarray]:
        played.append(self.programs if isinstance(self, Sound) else (None, None))
        return [np.zeros((2, 10), np.float32) for _ in pieces]

    monkeypatch.setattr(Sound, "play", play)
    monkeypatch.setattr(Additive, "play", play)
    heard: set[int | None] = set()
    for seed in range(40):
        labels = group_instruments(seed)
        assert len(labels) == 3
        heard |= set(labels)
        if labels == [None] * 3 or DRUMS in labels:
            assert len(set(labels)) == 1
            continue
        played.clear()
        dataset.group_audio(seed)
        assert labels == [lead for lead, _ in played] == [other for _, other in played]
    assert {None, DRUMS} < heard < {None, DRUMS, *TRAINING_PROGRAMS}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pictures:
    """Three groups: low bands sound for a piano, high ones for a kit; the third has no label."""
    folder = tmp_path / "data"
    folder.mkdir()
    pictures = np.zeros((3, *GROUP.shape), np.uint8)
    pictures[0, ..., 40:80, :] = 250
    pictures[1, ..., 400:440, :] = 250
    (folder / "pictures.u8").write_bytes(pictures.tobytes())
    (folder / "index.json").write_text('{"groups": 3}', "utf-8")
    labels: dict[int, list[int | None]] = {0: [0, 1, 2], 1: [DRUMS] * 3, 2: [None] * 3}
    monkeypatch.setattr(train_instruments, "group_instruments", lambda group: labels[group])
    return Pictures(folder)


def test_training_tells_apart_what_is_different(
    data: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = InstrumentTrainer(tmp_path / "run", data, Plan(batch=8))
    assert set(trainer.clips) == {0, 15}
    for _ in range(60):
        trainer.step()
    pictures, families = trainer.batch(np.random.default_rng(0))
    assert {family: int(pictures[row].mean(1).argmax()) > 256 for row, family in enumerate(families.tolist())} == {
        0: False,
        15: True,
    }
    monkeypatch.setattr(train_instruments, "names", lambda: [])
    trainer.export(tmp_path / "out")
    low, high = (noise_between(*band) for band in ((150, 400), (9000, 14000)))
    network = load(tmp_path / "out")
    for sound, family in ((low, 0), (high, 15)):
        probable = family_probabilities(sound, RATE, network)
        assert probable is not None
        assert probable.sum() == pytest.approx(1)
        assert probable.argmax() == family


def test_a_picture_that_is_moved_in_pitch_has_silence_where_nothing_was(data: Pictures, tmp_path: Path) -> None:
    pictures = np.zeros((3, *GROUP.shape), np.uint8)
    pictures[:2, ..., -40:, :] = 250
    (data.folder / "pictures.u8").write_bytes(pictures.tobytes())
    trainer = InstrumentTrainer(tmp_path / "run", Pictures(data.folder), Plan(batch=64))
    windows = trainer.batch(np.random.default_rng(0))[0].numpy()
    lowest = {int(np.flatnonzero(window.any(1))[0]) for window in windows}
    assert len(lowest) > 15
    assert {abs(row - (MINI.bands - 40)) <= 12 for row in lowest} == {True}


def test_only_groups_that_are_new_are_labelled(data: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = InstrumentTrainer(tmp_path / "run", data, Plan(batch=8))
    labelled: list[int] = []

    def label(group: int) -> list[int | None]:
        labelled.append(group)
        return [8, None, 0]

    monkeypatch.setattr(train_instruments, "group_instruments", label)
    trainer.refresh()
    with (data.folder / "pictures.u8").open("ab") as stream:
        stream.write(bytes(GROUP.itemsize))
    (data.folder / "index.json").write_text('{"groups": 4}', "utf-8")
    trainer.refresh()
    assert labelled == [3]
    assert trainer.clips[0] == [(0, 0), (0, 1), (0, 2), (3, 2)]
    assert trainer.clips[1] == [(3, 0)]


def test_a_resumed_training_drops_what_it_would_have_dropped(data: Pictures, tmp_path: Path) -> None:
    whole, first = (InstrumentTrainer(tmp_path / name, data, Plan(batch=4)) for name in ("whole", "parts"))
    for _ in range(4):
        whole.step()
    for _ in range(2):
        first.step()
    first.checkpoint()
    second = InstrumentTrainer(tmp_path / "parts", data, Plan(batch=4))
    for _ in range(2):
        second.step()
    for name, value in whole.networks.state_dict().items():
        torch.testing.assert_close(second.networks.state_dict()[name], value, rtol=0, atol=1e-6)


def test_without_the_held_out_sounds_training_goes_on_and_exports_its_weights(
    data: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(synthesise, "_FOLDERS", ())
    monkeypatch.setenv("SOUNDFONTS", str(tmp_path))
    trainer = InstrumentTrainer(tmp_path / "run", data, Plan(batch=4))
    trainer.train(minutes=0.02, validate=0.0)
    assert trainer.progress.step >= 1
    assert "no validation: " in capsys.readouterr().out
    assert (tmp_path / "run" / "progress.json").is_file()
    with pytest.raises(NotFound, match=r"the weights are in .*, without a card"):
        trainer.export(tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["model.safetensors"]
    assert torch.equal(load(tmp_path / "out").leave.bias, trainer.network().leave.bias.half().float())


def noise_between(low: float, high: float) -> np.ndarray:
    spectrum = np.fft.rfft(noise(2.0))
    spectrum[:, : int(2 * low)] = spectrum[:, int(2 * high) :] = 0
    return np.fft.irfft(spectrum, 2 * RATE).astype(np.float32)


def test_the_same_sound_matches_whatever_its_level_and_rate() -> None:
    clip = Clip.from_array(plucks(2.0), RATE)
    assert instrument_match(clip, Clip.from_array(0.01 * clip.audio, RATE)) == 1.0
    assert instrument_match(clip, clip) == 1.0
    assert instrument_match(clip, None) is None
    assert instrument_match(clip, Clip.from_array(np.zeros((1, 9000)), RATE)) is None
    one, other = (family_probabilities(clip.audio, RATE) for _ in range(2))
    assert one is not None
    assert other is not None
    assert np.array_equal(one, other)


@pytest.mark.slow
def test_the_embedded_weights_know_more_than_chance() -> None:
    need_font("TimGM6mb.sf2")
    right = [
        int(probable.argmax()) == family_of(program)
        for name in ("0-21", "1-24", "2-56", "3-73", "0-drums", "1-drums", "4-81", "5-42")
        for _, audio, program in make(name).heard()
        if (probable := family_probabilities(audio, RATE)) is not None
    ]
    assert len(right) > 10
    assert np.mean(right) > 0.3
    assert make("0-voice").heard()[0][0] == "unheard programs"
    assert make("0-voice").program in HELD_OUT_PROGRAMS
