"""What `stylus image` does: sound to Riffusion's pictures and back, and the method on plain pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .audio import probe, read_clip
from .errors import BadRequest, NotFound, UnsupportedAudio
from .files import write_new
from .progress_bar import shown_progress
from .settings import RECIPE_DTYPE, RECIPES, Settings
from .stem import write_stem

ASPECT = 8
"""A picture longer than so many times its height is refused: its attention would not fit in memory."""


def run_from_audio(clip: Path, output: Path | None, overwrite: bool) -> None:
    """Draw a clip as a PNG that Riffusion reads, and print its path."""
    from .spectrogram_image import drawn, encoded

    target = output or clip.with_suffix(".png")
    _check_png(target)
    sound = read_clip(clip)
    print(write_new(target, encoded(drawn(sound.audio, sound.sample_rate)), overwrite, protect=[clip]))


def run_to_audio(picture: Path, output: Path | None, iterations: int, seed: int, overwrite: bool) -> None:
    """Turn a PNG of Riffusion's or of ours into sound, and print its path."""
    from .loudness import sample_peak
    from .spectrogram_image import read_image, sounded

    if probe(picture).format != "PNG":
        raise UnsupportedAudio(f"{picture.name} is no PNG picture")
    target = output or picture.with_suffix(".wav")
    if overwrite and output is None and target.exists():
        raise BadRequest(f"{target} may be what the picture was made of; say by -o that it is to be replaced")
    audio = sounded(image := read_image(picture), iterations, seed)
    # The file holds integers; a picture may be louder than they can be.
    audio = audio * np.float32(min(1.0, 10 ** (-sample_peak(audio) / 20)))
    print(
        write_stem(
            audio, image.profile.sample_rate, target, subtype="PCM_24",
            overwrite=overwrite, seed=seed, protect=[picture],
        )
    )  # fmt: skip


def run_transfer(
    content: Path,
    styles: tuple[Path, ...],
    output: Path | None,
    model: str,
    device: str,
    overwrite: bool,
    asked: Mapping[str, object],
) -> None:
    """Give one picture the manner of others, and print its path."""
    if not styles:
        raise BadRequest("image transfer needs a style: stylus image transfer PICTURE --style REFERENCE")
    target = output or content.with_name(f"{content.stem}_{'+'.join(style.stem for style in styles)}.png")
    _check_png(target)
    settings = Settings.parse({**RECIPES["styleid"], **asked})
    pixels = [_pixels(path) for path in (content, *styles)]
    from .image_transfer import transfer
    from .model import load_model

    with shown_progress() as progress:
        progress(0.0, "loading the model")
        loaded = load_model(model, device, RECIPE_DTYPE)
        passes, done = (settings.steps or 1) * (2 + len(styles)), 0

        def tick() -> None:
            nonlocal done
            done += 1
            progress(min(0.95, 0.95 * done / passes), "diffusion")

        made = transfer(loaded, pixels[0], pixels[1:], settings, tick)
    print(write_new(target, _png(made), overwrite, protect=[content, *styles]))


def _check_png(path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise BadRequest(f"{path.name}: the picture is a .png file")


def _pixels(path: Path) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    from .spectrogram_image import opaque

    try:
        with Image.open(path) as image:
            width, height = image.size
            if max(width, height) > ASPECT * min(width, height):
                raise UnsupportedAudio(f"{path.name} is {width} × {height}; at most {ASPECT} to 1 is taken")
            return np.asarray(opaque(ImageOps.exif_transpose(image)).convert("RGB"))
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise UnsupportedAudio(f"{path.name} is no picture that can be read: {error}") from None


def _png(pixels: NDArray[np.uint8]) -> bytes:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
