"""What a stem says that it was made of: the files as they were when they were read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stylus_audio.batch.packs import Pack, Place
from stylus_audio.batch.renderer import Renderer
from stylus_audio.engine import Engine
from stylus_audio.errors import UnsupportedAudio
from stylus_audio.job import render_file
from stylus_audio.target import Target
from tests.sounds import tone


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    content, style = tmp_path / "riff.wav", tmp_path / "glass.wav"
    soundfile.write(content, tone(440.0, 0.6).T, 44100)
    soundfile.write(style, tone(1250.0, 0.6).T, 44100)
    return content, style


def test_a_clip_that_goes_away_while_it_is_rendered_has_its_stem(files: tuple[Path, Path], told: Engine) -> None:
    content, style = files
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def gone(fraction: float, stage: str) -> None:
        if stage == "diffusion" and content.exists():
            content.unlink()
            style.unlink()

    result = render_file(told, content, [(style, "glass")], told.settings(), Target(), progress=gone)
    said = json.loads(result.path.with_suffix(".json").read_text("utf-8"))
    assert not content.exists()
    assert said["content"]["sha256"] == digests["riff.wav"]
    assert said["styles"][0]["sha256"] == digests["glass.wav"]


def test_a_clip_that_is_replaced_while_it_is_rendered_is_not_what_the_stem_is_made_of(
    files: tuple[Path, Path], told: Engine
) -> None:
    content, style = files
    digest = hashlib.sha256(content.read_bytes()).hexdigest()

    def replaced(fraction: float, stage: str) -> None:
        if stage == "diffusion":
            soundfile.write(content, np.zeros(100), 44100)

    result = render_file(told, content, [(style, "glass")], told.settings(), Target(), progress=replaced)
    assert result.report["content"]["sha256"] == digest
    assert result.render.audio.shape[1] == round(0.6 * 44100)


def test_a_folder_as_the_style_is_said_as_ever(files: tuple[Path, Path], told: Engine, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedAudio, match="is a folder"):
        render_file(told, files[0], [(tmp_path, "folder")], told.settings(), Target())
    renderer = Renderer(Place("cpu", 1))
    pack = Pack(0, (str(files[0]), str(tmp_path)), (".wav", ".wav"), ((str(files[1]), "glass"),))
    found = renderer.render(pack, {})
    assert [type(one).__name__ for one in found] == ["Made", "Failed"]
