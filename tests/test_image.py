"""Spectrogram pictures against Riffusion's documented format, and the method on plain pictures."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray
from PIL import Image

from stylus_audio import Engine
from stylus_audio.errors import UnsupportedAudio
from stylus_audio.metrics import evaluate
from stylus_audio.model import load_model
from stylus_audio.spectrogram import RIFFUSION, mel_spectrogram
from stylus_audio.spectrogram_image import SpectrogramImage, decoded, drawn, encoded, sounded
from tests import plain
from tests.small_sd import save_small_sd
from tests.sounds import RATE, decibels, noise, plucks
from tests.test_cli import Shell

TAGS = {11000: 44100, 11005: False, 11010: 10, 11020: 100, 11030: 400, 11040: 512, 11050: 0, 11060: 10000, 11070: 0.25}


@pytest.fixture
def shell(tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, tiny_folder, capsys)


def by_hand(mel: NDArray[np.float32], tags: dict[int, float | bool]) -> bytes:
    """A file as Riffusion's documentation says: 255 (1 − (mel / max)^0.25), cut to whole numbers, low bands last."""
    levels = (255 - 255 * (mel / mel.max()) ** 0.25).astype(np.uint8)
    if tags.get(11007):
        bands, frames = levels.shape[1:]
        colours = levels[0].reshape(bands // 3, 3, frames).transpose(0, 2, 1)
    elif len(levels) == 2:
        colours = np.stack([np.zeros_like(levels[0]), levels[0], levels[1]], -1)
    else:
        colours = np.stack([levels[0]] * 3, -1)
    image = Image.fromarray(np.ascontiguousarray(colours[::-1]))
    exif = image.getexif()
    exif.update(tags)
    stream = io.BytesIO()
    image.save(stream, "PNG", exif=exif)
    return stream.getvalue()


def mel_of_16_bits(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """What Riffusion computes: the samples as integers."""
    return mel_spectrogram(audio * 32768, RIFFUSION)


def within_a_level(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two mels are the same but for the picture's 8 bits."""
    return bool(np.abs((one / one.max()) ** 0.25 - (other / one.max()) ** 0.25).max() < 1.01 / 255)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_picture_of_theirs_is_read(channels: int) -> None:
    mel = mel_of_16_bits(plucks(1.0, channels=channels))
    picture = decoded(by_hand(mel, {**TAGS, 11005: channels == 2, 11080: float(mel.max())}), "theirs.png")
    assert picture.scaled
    assert picture.profile == RIFFUSION
    assert within_a_level(mel / 32768, picture.mel)
    assert picture.mel.max() == pytest.approx(mel.max() / 32768, rel=1e-5)


def test_three_bands_in_a_pixel_are_read() -> None:
    mel = np.random.default_rng(0).uniform(1, 1e6, (1, 96, 20)).astype(np.float32)
    picture = decoded(by_hand(mel, {**TAGS, 11007: True, 11040: 96, 11080: float(mel.max())}), "triple.png")
    assert within_a_level(mel / 32768, picture.mel)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_picture_of_ours_says_the_same_to_them(channels: int) -> None:
    audio = plucks(1.0, channels=channels)
    image = Image.open(io.BytesIO(encoded(drawn(audio, RATE))))
    exif = dict(image.getexif())
    assert {tag: exif[tag] for tag in TAGS} == {**TAGS, 11005: channels == 2}
    assert image.mode == "RGB"
    colours = np.asarray(image, np.float32)[::-1].transpose(2, 0, 1)
    assert channels == 2 or (colours == colours[0]).all()
    mel = ((255 - colours[[1, 2] if channels == 2 else [0]]) / 255) ** 4 * exif[11080]
    assert within_a_level(mel_of_16_bits(audio), mel)


def test_many_channels_become_one() -> None:
    audio = plucks(0.3)
    together = drawn(np.repeat(audio, 6, axis=0), RATE)
    assert np.allclose(together.mel, drawn(audio, RATE).mel, rtol=1e-4, atol=1e-6)


def test_a_picture_becomes_the_sound_that_it_was_drawn_of() -> None:
    audio = plucks(1.5, channels=2)
    back = sounded(decoded(encoded(drawn(audio, RATE)), "ours.png"))
    assert back.shape == (2, audio.shape[1] // 441 * 441)
    assert decibels(back) == pytest.approx(decibels(audio), abs=1.5)
    # The second channel is twice the first.
    assert decibels(back[1]) - decibels(back[0]) == pytest.approx(6.0, abs=1.0)
    metrics = evaluate(back, audio, sample_rate=RATE)
    assert (metrics["chroma_similarity"] or 0) > 0.95
    assert (metrics["onset_f1"] or 0) > 0.8


def test_any_picture_has_a_sound() -> None:
    stream = io.BytesIO()
    drawing = np.full((40, 60), 255, np.uint8)
    drawing[10, 10:50] = 0
    Image.fromarray(drawing).save(stream, "PNG")
    picture = decoded(stream.getvalue(), "drawing.png")
    assert not picture.scaled
    assert picture.mel.shape == (1, 512, 60)
    audio = sounded(picture, iterations=4)
    assert np.abs(audio).max() == pytest.approx(10 ** (-1 / 20), rel=1e-5)


def test_what_is_transparent_is_paper_and_16_bits_are_as_light_as_8() -> None:
    levels = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (512, 1))
    plain = decoded(saved(Image.fromarray(levels)), "plain").mel
    # Black where nothing is to be seen, as painting programs leave it.
    clear = Image.new("RGBA", (64, 512), (0, 0, 0, 0))
    paper = decoded(saved(Image.new("L", (64, 512), 255)), "paper").mel
    assert np.array_equal(decoded(saved(clear), "clear").mel, paper)
    palette = Image.new("P", (64, 512), 0)
    palette.info["transparency"] = 0
    assert np.array_equal(decoded(saved(palette), "palette").mel, paper)
    deep = Image.fromarray(levels.astype(np.uint16) * 257)
    assert np.array_equal(decoded(saved(deep), "deep").mel, plain)


def saved(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_the_quiet_is_a_picture_too() -> None:
    picture = decoded(encoded(SpectrogramImage(np.zeros((1, 512, 5), np.float32), RIFFUSION)), "quiet.png")
    assert not sounded(picture, iterations=1).any()


MEL = np.ones((1, 512, 4), np.float32)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({**TAGS, 11040: 256}, "256 bands in 512 rows"),
        ({**TAGS, 11000: 10}, "10 Hz"),
        ({**TAGS, 11010: 0}, "hop 0"),
        ({**TAGS, 11060: 30000}, "30000 Hz"),
        ({**TAGS, 11070: -1.0}, "power -1"),
        ({**TAGS, 11080: float("nan")}, "maximum of nan"),
        ({**TAGS, 11080: -5.0}, "maximum of -5.0"),
    ],
)
def test_tags_that_cannot_be_are_refused(tags: dict[int, float | bool], words: str) -> None:
    with pytest.raises(UnsupportedAudio, match=words):
        decoded(by_hand(MEL, tags), "wrong.png")


def test_damage_is_refused() -> None:
    whole = by_hand(MEL, TAGS)
    for data in (whole[:60], whole[: len(whole) - 40], b"\x89PNG\r\n\x1a\n", b""):
        with pytest.raises(UnsupportedAudio, match="no picture"):
            decoded(data, "damaged.png")


def test_a_giant_is_refused_before_it_is_unpacked() -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    end = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(UnsupportedAudio, match=r"60000 × 60000|no picture"):
        decoded(data + end, "giant.png")


def test_pictures_are_clips_and_styles_of_a_render(tmp_path: Path, tiny: Engine) -> None:
    content, style = tmp_path / "riff.png", tmp_path / "hiss.png"
    content.write_bytes(encoded(drawn(plucks(0.5, channels=2), RATE)))
    style.write_bytes(encoded(drawn(noise(0.8), RATE)))
    render = tiny.render(content, style, tiny.settings(steps=2))
    assert render.audio.shape == (2, 50 * 441)
    assert (render.sample_rate, render.subtype) == (44100, "PCM_24")
    part = tiny.render(content, style, tiny.settings(steps=2, start=0.2, end=0.4))
    assert part.audio.shape == (2, round(0.2 * 44100))


def test_the_command_line_draws_and_sounds(shell: Shell) -> None:
    picture, sound = shell.folder / "riff.png", shell.folder / "riff_2.wav"
    before = shell.clip.read_bytes()
    assert shell("image", "from-audio", shell.clip) == (0, f"{picture}\n", "")
    assert shell("image", "to-audio", picture, "--refine", 2) == (0, f"{sound}\n", "")
    assert shell("image", "from-audio", shell.clip)[1] == f"{shell.folder / 'riff_2.png'}\n"
    assert shell.clip.read_bytes() == before
    assert soundfile.info(sound).subtype == "PCM_24"
    assert shell.files() == {"riff.wav", "hiss.wav", "riff.png", "riff_2.png", "riff_2.wav"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("from-audio", "{clip}", "-o", "{folder}/x.jpg"), "x.jpg: the picture is a .png file"),
        (("from-audio", "{folder}/none.wav"), "does not exist"),
        (("to-audio", "{clip}"), "riff.wav is no PNG picture"),
        (("to-audio", "{folder}/none.png"), "does not exist"),
        (("from-audio", "{clip}", "-o", "{folder}/none/x.png"), "the folder"),
        (("transfer", "{clip}"), "image transfer needs a style"),
        (("transfer", "{clip}", "--style", "{clip}"), "riff.wav is no picture"),
        (("transfer", "{folder}/none.png", "--style", "{clip}"), "does not exist"),
        (("transfer", "{clip}", "--style", "{clip}", "--gamma", "7"), "gamma: '7' is not"),
    ],
)
def test_mistakes_get_one_line(shell: Shell, words: tuple[str, ...], says: str) -> None:
    code, out, err = shell("image", *(word.format(clip=shell.clip, folder=shell.folder) for word in words))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert shell.files() == {"riff.wav", "hiss.wav"}


@pytest.fixture(scope="module")
def small_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_sd(tmp_path_factory.mktemp("sd"), 16)


def painted(folder: Path, name: str, seed: int, size: tuple[int, int]) -> Path:
    random = np.random.default_rng(seed).integers(0, 255, (size[1] // 8, size[0] // 8, 3)).astype(np.uint8)
    path = folder / name
    Image.fromarray(random).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def colours_of(path: Path) -> NDArray[np.float32]:
    with Image.open(path) as image:
        return np.asarray(image, np.float32)


def test_a_picture_in_another_manner_is_the_published_method(shell: Shell, small_sd: Path) -> None:
    content, style = painted(shell.folder, "house.png", 1, (128, 128)), painted(shell.folder, "oil.png", 2, (128, 128))
    code, out, err = shell("image", "transfer", content, "--style", style, "--model", small_sd, "--steps", 3)
    assert (code, out, err) == (0, f"{shell.folder / 'house_oil.png'}\n", "")
    model = load_model(str(small_sd), "cpu", "float32")
    latents = []
    for path in (content, style):
        pixels = torch.from_numpy(colours_of(path)).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            latents.append(model.latent.vae.encode(pixels).latent_dist.mode() * 0.18215)  # type: ignore[attr-defined]
    noise = DDIMScheduler.from_pretrained(small_sd, subfolder="scheduler", set_alpha_to_one=False, steps_offset=1)
    expected = plain.stylize(
        model.unet, noise, latents[0], [latents[1]], model.embedding(), gamma=0.75, alpha=1.0, tau=1.5,
        steps=3, layers=range(7, 12), inversion="next",
    )  # fmt: skip
    with torch.no_grad():
        picture = model.latent.vae.decode(expected / 0.18215).sample[0].permute(1, 2, 0)  # type: ignore[attr-defined]
    assert np.abs(colours_of(shell.folder / "house_oil.png") - (picture.clamp(-1, 1).numpy() + 1) * 127.5).max() <= 1.0


def test_a_picture_keeps_its_size(shell: Shell, small_sd: Path) -> None:
    content, style = painted(shell.folder, "wide.png", 1, (200, 90)), painted(shell.folder, "oil.png", 2, (70, 130))
    words = ("image", "transfer", content, "--style", style, "--model", small_sd, "--steps", 2, "-o")
    assert shell(*words, shell.folder / "made.png")[0] == 0
    with Image.open(shell.folder / "made.png") as made:
        assert made.size == (200, 90)
    assert shell(*words, content, "--overwrite")[0] == 2


def test_a_model_of_spectrograms_takes_no_pictures(shell: Shell) -> None:
    picture = painted(shell.folder, "house.png", 1, (64, 64))
    code, _, err = shell("image", "transfer", picture, "--style", picture, "--model", "mini")
    assert code == 2
    assert "knows spectrograms only" in err
