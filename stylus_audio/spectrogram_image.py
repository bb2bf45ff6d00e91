"""Spectrogram pictures as PNG files, as Riffusion writes and reads them.

Low frequencies at the bottom, dark is loud: a pixel is `255 (1 − (mel / max)^power)`. Mono in all three colours, left
and right in green and blue. How to read a picture stands in its EXIF tags, `max` for samples in the range of 16 bits.
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .audio import RATES, resample
from .errors import UnsupportedAudio
from .gains import Gains
from .phase import griffin_lim
from .spectrogram import RIFFUSION, Profile, from_image, mel_spectrogram, to_image

Floats = NDArray[np.floating[Any]]

SAMPLE_RATE, STEREO, TRIPLE = 11000, 11005, 11007
HOP_MS, WINDOW_MS, PADDED_MS = 11010, 11020, 11030
BANDS, LOW, HIGH, POWER, MAXIMUM = 11040, 11050, 11060, 11070, 11080
"""EXIF tags. `TRIPLE` says that each pixel's red, green and blue are three bands of one channel."""

FULL_SCALE = 32768.0
"""Riffusion's samples are those of 16 bits, ours of ±1."""

PIXELS = 100_000_000
"""A larger picture is refused."""

PEAK = 10 ** (-1 / 20)
"""What a picture that does not say how loud it is comes to."""


@dataclass(frozen=True)
class SpectrogramImage:
    """Magnitudes `[channel, mel, frame]` of one or two channels; `scaled` says that their level is known."""

    mel: NDArray[np.float32]
    profile: Profile
    scaled: bool = True

    @property
    def samples(self) -> int:
        """Of the sound that has these frames."""
        return int(self.mel.shape[-1] - 1) * self.profile.hop


def drawn(audio: Floats, sample_rate: int) -> SpectrogramImage:
    """The picture of audio `[channel, sample]` in Riffusion's own parameters.

    One or two channels stay what they are; more become one, the root of their mean power.
    """
    profile = RIFFUSION
    mel = np.concatenate(
        [mel_spectrogram(resample(channel[None], sample_rate, profile.sample_rate), profile) for channel in audio]
    )
    if len(mel) > 2:
        mel = np.sqrt(np.mean(np.square(mel), axis=0, keepdims=True))
    return SpectrogramImage(mel, profile)


def encoded(picture: SpectrogramImage) -> bytes:
    """As a PNG file with Riffusion's tags."""
    from PIL import Image

    profile, mel = picture.profile, picture.mel
    maximum = float(mel.max(initial=0.0))
    levels = np.round(255 * to_image(mel, profile, maximum)[:, ::-1]).astype(np.uint8)
    left, right = levels[0], levels[-1]
    colours = [np.zeros_like(left), left, right] if len(levels) == 2 else [left, left, left]
    image = Image.fromarray(np.stack(colours, axis=-1), "RGB")
    rate = profile.sample_rate
    exif = image.getexif()
    exif.update({
        SAMPLE_RATE: rate, STEREO: len(levels) == 2, TRIPLE: False, HOP_MS: round(1000 * profile.hop / rate),
        WINDOW_MS: round(1000 * profile.window / rate), PADDED_MS: round(1000 * profile.n_fft / rate),
        BANDS: profile.bands, LOW: round(profile.low), HIGH: round(profile.high), POWER: profile.exponent,
        MAXIMUM: maximum * FULL_SCALE,
    })  # fmt: skip
    stream = io.BytesIO()
    image.save(stream, "PNG", exif=exif)
    return stream.getvalue()


def decoded(data: bytes, name: str) -> SpectrogramImage:
    """A picture from a PNG file's bytes; without tags, any picture in Riffusion's parameters, by its lightness.

    Raises `UnsupportedAudio`, with `name`, for what is damaged, too large, or has tags that cannot be.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=["PNG"])
            if image.width * image.height > PIXELS or image.width < 2:
                raise UnsupportedAudio(
                    f"{name} has {image.width} × {image.height} pixels; 2 columns to {PIXELS // 10**6} million are read"
                )
            tags = dict(image.getexif())
            image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise UnsupportedAudio(f"{name} is no picture that can be read: {error}") from None
    if SAMPLE_RATE not in tags:
        plain = opaque(image).convert("L").resize((image.width, RIFFUSION.bands), Image.Resampling.BOX)
        levels = np.asarray(plain, np.float32)[None]
        return SpectrogramImage(from_image(levels[:, ::-1] / 255, RIFFUSION, 1.0), RIFFUSION, scaled=False)
    colours = np.asarray(opaque(image).convert("RGB"), np.float32)[::-1]
    if tags.get(TRIPLE):
        levels = colours.transpose(0, 2, 1).reshape(1, -1, image.width)
    else:
        levels = colours.transpose(2, 0, 1)[[1, 2] if tags.get(STEREO) else [0]]
    profile = _profile(tags, levels.shape[1], name)
    maximum = float(tags.get(MAXIMUM) or 0.0)
    if not 0 <= maximum < math.inf:
        raise UnsupportedAudio(f"{name}: its tags say a maximum of {maximum}")
    mel = from_image(levels / 255, profile, maximum / FULL_SCALE or 1.0)
    return SpectrogramImage(mel, profile, scaled=maximum > 0)


def opaque(image: Any) -> Any:
    """A Pillow image as it is seen on white paper, in 8 bits: what is transparent hides any colour."""
    from PIL import Image

    if image.mode.startswith("I"):
        # Pillow would clip 16 bits, not scale them.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    shown = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)


def _profile(tags: dict[int, Any], bands: int, name: str) -> Profile:
    """What the tags say; what they do not say is Riffusion's own."""
    try:
        rate = int(tags[SAMPLE_RATE])
        hop, window, padded = (
            int(float(tags.get(tag, default)) * rate / 1000)
            for tag, default in ((HOP_MS, 10), (WINDOW_MS, 100), (PADDED_MS, 400))
        )
        low, high = float(tags.get(LOW, RIFFUSION.low)), float(tags.get(HIGH, RIFFUSION.high))
        declared, power = int(tags.get(BANDS, bands)), float(tags.get(POWER, RIFFUSION.exponent))
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        raise UnsupportedAudio(f"{name}: its tags are no numbers") from None
    possible = (
        RATES[0] <= rate <= RATES[1] and 16 <= hop <= window <= padded <= 2 * rate and declared == bands
        and 2 <= bands <= 4096 and 0 <= low < high <= rate / 2 and 0.01 <= power <= 4
    )  # fmt: skip
    if not possible:
        raise UnsupportedAudio(
            f"{name}: its tags do not fit: {rate} Hz, hop {hop}, window {window} of {padded}, {declared} bands in "
            f"{bands} rows from {low:g} to {high:g} Hz, power {power:g}"
        )
    return replace(
        RIFFUSION, sample_rate=rate, hop=hop, window=window, n_fft=padded, bands=bands, low=low, high=high,
        exponent=power,
    )  # fmt: skip


def sounded(picture: SpectrogramImage, iterations: int = 32, seed: int = 0) -> NDArray[np.float32]:
    """The picture as sound, `[channel, sample]` at its profile's rate, by Griffin and Lim's iterations from noise."""
    carrier = np.zeros((len(picture.mel), picture.samples), np.float32)
    gains = Gains(picture.mel, picture.mel, picture.profile)
    audio = griffin_lim(carrier, picture.profile.sample_rate, gains, iterations, seed)
    peak = float(np.abs(audio).max(initial=0.0))
    return audio if picture.scaled or not peak else audio * np.float32(PEAK / peak)


def read_image(path: Path) -> SpectrogramImage:
    """A PNG file; raises as `decoded`."""
    return decoded(path.read_bytes(), path.name)


def read_sound(path: Path) -> NDArray[np.float32]:
    """A PNG file as sound, `[channel, sample]`; the last few are remembered, as a render reads its style twice."""
    return _remembered(path.read_bytes(), path.name)


@lru_cache(maxsize=2)
def _remembered(data: bytes, name: str) -> NDArray[np.float32]:
    audio = sounded(decoded(data, name))
    audio.setflags(write=False)
    return audio
