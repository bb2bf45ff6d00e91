"""Reading clips: every format and rate that a DAW bounces, checked before anything is believed.

Audio is `[channel, sample]`: float32, or float64 where the file holds more than float32 can.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from .errors import BadRequest, NotAllowed, NotFound, UnsupportedAudio
from .files import in_text
from .riff import KEPT, Chunk, declared_data, read_chunks
from .scratch import as_type, blocks, let_go, zeros

Floats = NDArray[np.floating[Any]]

RATES = (8000, 384000)
CHANNELS = 32
HIGHEST = 1e6
"""A sample beyond it, 120 dB over full scale, is a damaged file's."""
FORMATS = ("WAV", "WAVEX", "AIFF", "FLAC", "RF64", "W64", "CAF", "OGG", "MP3")
SUFFIXES = frozenset(
    (".wav", ".wave", ".bwf", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".flac", ".caf", ".ogg", ".oga", ".opus",
     ".mp3")
)  # fmt: skip
"""How names of clips end, in lower case; what a folder holds besides is no audio."""
ALLOWED = "WAV, AIFF, FLAC, RF64, W64, CAF, Ogg, MP3, and PNG spectrograms are read"
_WIDE = ("PCM_32", "DOUBLE", "ALAC_32")
_SEEKS_BADLY = ("OGG", "MP3")
_BLOCK = 2**18


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says; `samples` is checked against the file where the format allows it."""

    sample_rate: int
    channels: int
    samples: int
    subtype: str
    format: str
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Clip:
    """Audio with what a stem of it takes over: rate, sample format and the DAW's chunks.

    `audio` starts at sample `offset` of a file of `total` samples. `subtype` is libsndfile's name.
    """

    audio: Floats
    sample_rate: int
    subtype: str
    format: str
    offset: int = 0
    total: int = 0
    chunks: tuple[Chunk, ...] = ()
    path: Path | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_array(cls, audio: Floats, sample_rate: int) -> Clip:
        """A clip from memory, `[sample]` or `[channel, sample]`, held to the same limits as files."""
        values = np.atleast_2d(np.asarray(audio))
        if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
            raise UnsupportedAudio("an array is [sample] or [channel, sample] of floats in -1 to 1")
        _check("the array", int(sample_rate), values.shape[0], values.shape[1])
        kept: Floats = values.astype(np.float64 if values.dtype == np.float64 else np.float32)
        lost = _silence_what_is_no_sound(kept)
        subtype = "DOUBLE" if kept.dtype == np.float64 else "FLOAT"
        return cls(kept, int(sample_rate), subtype, "WAV", 0, kept.shape[1], warnings=_warned("the array", lost))


UNKNOWN = 2**62
"""Samples of a file, or more, that are libsndfile's word for a length that is not known."""


def _check(name: str, sample_rate: int, channels: int, samples: int) -> None:
    if samples == 0:
        raise UnsupportedAudio(f"{name} holds no samples")
    if not RATES[0] <= sample_rate <= RATES[1]:
        raise UnsupportedAudio(f"{name} has {sample_rate} Hz; {RATES[0]} to {RATES[1]} Hz are read")
    if not 1 <= channels <= CHANNELS:
        raise UnsupportedAudio(f"{name} has {channels} channels; 1 to {CHANNELS} are read")


def probe(path: Path) -> AudioInfo:
    """Read a file's header; a PNG picture is a spectrogram, and as long as the sound that it becomes.

    Raises `NotFound` and `NotAllowed` for what cannot be opened, `UnsupportedAudio` for what is not audio, is cut
    short, or lies outside 8–384 kHz and 1–32 channels.
    """
    _openable(path)
    if _is_png(path):
        from .spectrogram_image import read_image

        picture = read_image(path)
        rate, channels = picture.profile.sample_rate, len(picture.mel)
        return AudioInfo(rate, channels, picture.samples, "PCM_24", "PNG", ())
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, RuntimeError):
        raise UnsupportedAudio(f"{path.name} is not audio that can be read; {ALLOWED}") from None
    if info.format not in FORMATS:
        raise UnsupportedAudio(f"{path.name} is {info.format}; {ALLOWED}")
    if info.frames >= UNKNOWN:
        raise UnsupportedAudio(f"{path.name} does not say how long it is, as if written to a pipe; export it again")
    _not_cut_short(path, info.format)
    _check(path.name, info.samplerate, info.channels, info.frames)
    # Of two channels everybody knows which speakers they are for.
    chunks = read_chunks(path, (*KEPT, b"fmt ") if info.channels > 2 else KEPT)
    return AudioInfo(info.samplerate, info.channels, info.frames, info.subtype, info.format, chunks)


def is_audio(path: Path) -> bool:
    """Whether a file is called as clips are, and is not hidden: what counts of a folder."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _is_png(path: Path) -> bool:
    """Whether a file is a PNG picture, by its first bytes."""
    with path.open("rb") as stream:
        return stream.read(8) == b"\x89PNG\r\n\x1a\n"


def _openable(path: Path) -> None:
    if in_text(str(path)) != str(path):
        # No sidecar could say what it was made from.
        raise UnsupportedAudio(f"the name of {in_text(str(path))} is not UTF-8; rename it")
    try:
        if path.is_dir():
            raise UnsupportedAudio(f"{path} is a folder; one audio file is wanted")
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist") from None
    except PermissionError:
        raise NotAllowed(f"{path} may not be read") from None
    except (OSError, ValueError) as error:
        raise NotFound(f"{str(path)!r} cannot be opened: {error}") from None
    if empty:
        raise UnsupportedAudio(f"{path.name} is empty; {ALLOWED}")


def _not_cut_short(path: Path, format: str) -> None:
    """Libsndfile silently takes what is there of a file that declares more."""
    sizes = declared_data(path) if format in ("WAV", "WAVEX", "RF64") else _declared_elsewhere(path, format)
    if sizes and sizes[0] > sizes[1]:
        raise UnsupportedAudio(
            f"{path.name} is cut short: it declares {sizes[0]} bytes of audio and has {sizes[1]}; export it again"
        )


def _declared_elsewhere(path: Path, format: str) -> tuple[int, int] | None:
    """Declared and present bytes of the sound data of AIFF, W64 and CAF."""
    whole = path.stat().st_size
    with path.open("rb") as stream:
        if format == "AIFF":
            at, order, wanted = 12, ">4sI", b"SSND"
        elif format == "W64":
            at, order, wanted = 40, "<16sQ", b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0O\x8e\xdb\x8a"
        elif format == "CAF":
            at, order, wanted = 8, ">4sq", b"data"
        else:
            return None
        head = struct.calcsize(order)
        while at + head <= whole:
            stream.seek(at)
            name, size = struct.unpack(order, stream.read(head))
            if format == "W64":
                size -= head
            if name == wanted:
                # CAF's -1 means: up to the end of the file.
                return (size, whole - at - head) if size >= 0 else None
            if size < 0:
                return None
            padding = {"AIFF": size % 2, "W64": -size % 8, "CAF": 0}[format]
            at += head + size + padding
    return None


def read_clip(path: Path, start: int = 0, end: int | None = None) -> Clip:
    """Read samples `[start, end)` of a file in blocks; values that are not finite become silence, with a warning.

    Raises what `probe` raises, `UnsupportedAudio` for a file that ends before it should, and `BadRequest` for a
    segment that holds nothing.
    """
    info = probe(path)
    end = info.samples if end is None else min(end, info.samples)
    if not 0 <= start < end:
        raise BadRequest(f"samples {start} to {end} hold nothing of {path.name}, which has {info.samples}")
    audio = zeros((info.channels, end - start), _dtype(info))
    position = 0
    for block in _blocks(path, info, start, end):
        audio[:, position : position + block.shape[1]] = block
        position += block.shape[1]
        let_go()
    lost = _silence_what_is_no_sound(audio)
    return Clip(
        audio, info.sample_rate, info.subtype, info.format, start, info.samples, info.chunks, path,
        _warned(path.name, lost),
    )  # fmt: skip


def read_blocks(path: Path) -> Iterator[Floats]:
    """A file's samples block by block, `[channel, sample]`, for those who need not have it all at once.

    Values that are not finite are silence. Raises what `read_clip` does.
    """
    info = probe(path)
    for block in _blocks(path, info, 0, info.samples):
        _silence_what_is_no_sound(block)
        yield block


def _dtype(info: AudioInfo) -> Any:
    return np.dtype(np.float64 if info.subtype in _WIDE else np.float32)


def _blocks(path: Path, info: AudioInfo, start: int, end: int) -> Iterator[Floats]:
    if info.format == "PNG":
        from .spectrogram_image import read_sound

        yield read_sound(path)[:, start:end].copy()
        return
    try:
        with soundfile.SoundFile(str(path)) as file:
            position = 0
            if start and info.format not in _SEEKS_BADLY:
                position = file.seek(start)
            while position < end:
                block = file.read(min(_BLOCK, end - position), dtype=_dtype(info).name, always_2d=True)
                if not len(block):
                    raise UnsupportedAudio(f"{path.name} is cut short: it ends at {position} of {info.samples} samples")
                skipped = max(0, start - position)
                position += len(block)
                if skipped < len(block):
                    yield block[skipped:].T
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise UnsupportedAudio(f"{path.name} is damaged: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0].strip()


def _silence_what_is_no_sound(audio: Floats) -> int:
    lost = 0
    for channel in audio:
        for here in blocks(len(channel), _BLOCK):
            block = channel[here]
            bad = ~(np.abs(block) <= HIGHEST)
            lost += int(bad.sum())
            block[bad] = 0
    return lost


def _warned(name: str, lost: int) -> tuple[str, ...]:
    return (
        (f"{lost} samples of {name} were not finite, or over {20 * math.log10(HIGHEST):.0f} dBFS, and are silent now",)
        if lost
        else ()
    )


def resample(audio: Floats, from_rate: int, to_rate: int) -> NDArray[np.float32]:
    """Audio at another rate, aligned in time: `[channel, sample]` → `[channel, round(sample · to / from)]`."""
    if from_rate == to_rate:
        return as_type(audio, np.float32)
    channels, samples = audio.shape
    result = zeros((channels, round(samples * to_rate / from_rate)))
    stream = soxr.ResampleStream(from_rate, to_rate, channels, dtype="float32", quality="HQ")
    position = 0
    for here in blocks(samples, _BLOCK):
        piece = np.ascontiguousarray(audio[:, here].T, np.float32)
        made = stream.resample_chunk(piece, last=here.stop == samples)
        made = made.reshape(-1, channels)[: result.shape[1] - position]
        result[:, position : position + len(made)] = made.T
        position += len(made)
    return result


def sha256(path: Path) -> str:
    """A file's SHA-256, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
