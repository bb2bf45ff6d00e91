"""Writing a stem: quantised once, complete under its name or not there at all, and never over the user's audio."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from .audio import AudioInfo
from .errors import BadRequest, DiskFull, NotAllowed, NotFound
from .files import (
    ASIDE,
    can_write,
    exists,
    flush_file,
    flush_folder,
    hidden,
    means_full,
    name_endings,
    publish,
    publish_all,
    same_file,
    uninterrupted,
)
from .provenance import is_sidecar
from .riff import Chunk, append_chunks, set_speakers, speakers
from .scratch import blocks

Floats = NDArray[np.floating[Any]]

BITS = {"16": "PCM_16", "24": "PCM_24", "32f": "FLOAT"}
_KEPT = ("PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
_UNPACKED = {"ALAC_16": "PCM_16", "ALAC_20": "PCM_24", "ALAC_24": "PCM_24", "ALAC_32": "PCM_32"}
"""Of what is packed without loss, as Apple's loops are."""
_LOSSY = ("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")
_DEPTH = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}
_CONTAINERS = {
    ".wav": "WAV", ".flac": "FLAC", ".aiff": "AIFF", ".aif": "AIFF", ".caf": "CAF", ".w64": "W64", ".rf64": "RF64",
}  # fmt: skip
_CARRIERS = ("WAV", "WAVEX", "RF64")
"""Containers that carry chunks, a sidecar's too."""
SUFFIXES = tuple(_CONTAINERS)
"""What a stem's name may end in."""

_WAV_LIMIT = 2**32 - 2**20
"""A WAV over this many bytes is written as RF64, which DAWs read by the same name."""

_BLOCK = 2**18

_ADD_PEAK_CHUNK = 0x1050
"""Libsndfile's command, which soundfile has no name for."""

PART, NOTE = ".part", ".json.part"
"""Ends of the hidden names of a stem and its sidecar while they are written."""


@dataclass(frozen=True)
class Journal:
    """What lets a crash be settled: a token of the job's own in hidden names, and a call before a stem appears.

    `aim` gets the name that the stem is about to have and the finished file that it has until then.
    """

    token: str
    aim: Callable[[Path, Path], None]


def stem_subtype(clip_subtype: str, bits: str | None) -> str:
    """Libsndfile's subtype of a stem: the asked bits, else the content's own; 24 bits for what was lossy.

    >>> stem_subtype("PCM_16", None), stem_subtype("PCM_16", "32f"), stem_subtype("MPEG_LAYER_III", None)
    ('PCM_16', 'FLOAT', 'PCM_24')
    """
    if bits is not None:
        return BITS[bits]
    if clip_subtype in _KEPT:
        return clip_subtype
    return _UNPACKED.get(clip_subtype, "PCM_24" if clip_subtype in _LOSSY else "PCM_16")


def stem_bytes(info: AudioInfo, bits: str | None) -> int:
    """About how large a WAV stem of a clip is."""
    return info.samples * info.channels * _DEPTH[stem_subtype(info.subtype, bits)] // 8 + 4096


def quantise(audio: Floats, bits: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Integers of `bits` bits in the upper bits of 32, `[channel, sample]`; TPDF dither of ±1 step for 16 bits or less.

    A sample that lies on the grid already is left alone, so that unchanged audio is written bit for bit and digital
    silence stays digital silence. Values over full scale are held there.
    """
    scaled = np.asarray(audio, np.float64) * 2.0 ** (bits - 1)
    whole = np.round(scaled)
    if bits <= 16:
        dither = rng.random(scaled.shape) - rng.random(scaled.shape)
        whole = np.where(scaled == whole, whole, np.round(scaled + dither))
    low, high = -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    return (np.clip(whole, low, high).astype(np.int64) << (32 - bits)).astype(np.int32)


def write_stem(
    audio: Floats,
    sample_rate: int,
    target: Path,
    *,
    subtype: str,
    chunks: Sequence[Chunk] = (),
    overwrite: bool = False,
    seed: int = 0,
    sidecar: Callable[[Path], bytes] | None = None,
    protect: Sequence[Path] = (),
    journal: Journal | None = None,
) -> Path:
    """Write `[channel, sample]` and return the path that it got: `target`, or without `overwrite` the next free `_2`.

    The container follows the suffix; `sidecar`, called with the path, gives what goes to the same name with `.json`.
    Both appear together. Files in `protect` are never replaced; `journal` is for whoever has to know after a crash.
    Raises `BadRequest` for a suffix, channels or depth that do not go together, `NotFound` for a missing folder,
    `NotAllowed`, and `DiskFull`.
    """
    check_target(target, overwrite, protect)
    mask = speakers(chunks)
    container = _container(target, audio, subtype, mask)

    def write(part: Path) -> None:
        _write(part, audio, sample_rate, container, subtype, seed)
        if container in _CARRIERS:
            append_chunks(part, chunks)
            if mask:
                set_speakers(part, mask)

    # Float and double hold what came in; integers are quantised here, since libsndfile's own scaling is not symmetric.
    size = audio.size * _DEPTH[subtype] // 8 + sum(len(chunk.data) for chunk in chunks) + 4096
    return _placed(write, size, target, overwrite, sidecar, journal)


def publish_stem(stem: bytes, target: Path, *, overwrite: bool = False, journal: Journal | None = None) -> Path:
    """Give a finished stem's bytes a name as `write_stem` does; returns it, and raises the same."""
    check_target(target, overwrite)

    def write(part: Path) -> None:
        part.write_bytes(stem)

    return _placed(write, len(stem), target, overwrite, None, journal)


def _placed(
    write: Callable[[Path], None],
    size: int,
    target: Path,
    overwrite: bool,
    sidecar: Callable[[Path], bytes] | None,
    journal: Journal | None,
) -> Path:
    folder = target.parent
    with _failures(folder, size):
        if shutil.disk_usage(folder).free < size:
            raise DiskFull(f"{folder} has no room for a stem of {size / 1e6:.1f} MB")
        token = journal.token if journal else secrets.token_hex(4)
        with _temporary(folder, target.name, token, PART) as part, _temporary(folder, target.name, token, NOTE) as note:
            write(part)
            flush_file(part)
            return _publish(part, note, target, overwrite, sidecar, journal)


def longest_name(name: str) -> str:
    """The longest name that may be made of a stem's, where that is taken."""
    return f"{Path(name).stem}_999.json"


def check_target(target: Path, overwrite: bool = False, protect: Sequence[Path] = ()) -> None:
    """What can be known of a target before there is anything to write; raises what `write_stem` would."""
    folder = target.parent
    if not folder.is_dir():
        raise NotFound(f"the folder {folder} does not exist")
    try:
        # A folder says of a name that is too long that it is.
        target.with_name(longest_name(target.name)).lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise BadRequest(f"{target.name}: {error.strerror}; give the stem another name") from error
    if target.is_dir():
        raise BadRequest(f"{target} is a folder; give the stem a name in it")
    check_container(target)
    if overwrite and any(same_file(target, kept) for kept in protect):
        raise NotAllowed(f"{target.name} is what is being rendered; a stem never replaces it")
    if not can_write(folder):
        raise NotAllowed(f"{folder} cannot be written")


@contextmanager
def made_folder(folder: Path) -> Iterator[Path]:
    """A folder for stems, made if it is not there; one made here goes again after a failure that leaves it empty.

    Its parent has to be there: one that is not is more likely a slip, or a disk that is not connected. Raises
    `BadRequest` for a file's name, `NotFound` and `NotAllowed`.
    """
    there = exists(folder)
    if there and not folder.is_dir():
        raise BadRequest(f"output: {folder} is a file, not a folder")
    if not there:
        if not folder.parent.is_dir():
            raise NotFound(f"the folder {folder.parent} does not exist")
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise NotAllowed(f"{folder} cannot be made: {error.strerror}") from error
    try:
        yield folder
    except BaseException:
        if not there:
            with suppress(OSError):
                folder.rmdir()
        raise


def check_container(target: Path) -> None:
    """Raises `BadRequest` where a target's suffix names no container that stems have."""
    if target.suffix.lower() not in _CONTAINERS:
        raise BadRequest(f"{target.name}: a stem is one of {', '.join(_CONTAINERS)}")


def check_carrier(target: Path) -> None:
    """Raises `BadRequest` where a target's suffix names no container that a sidecar can be embedded in."""
    if _CONTAINERS.get(target.suffix.lower()) not in _CARRIERS:
        raise BadRequest(f"sidecar: embed needs a .wav stem, not {target.suffix}")


def _publish(
    part: Path,
    note: Path,
    target: Path,
    overwrite: bool,
    sidecar: Callable[[Path], bytes] | None,
    journal: Journal | None,
) -> Path:
    for ending in name_endings():
        candidate = target.with_name(f"{target.stem}{ending}{target.suffix}")
        beside = candidate.with_suffix(".json")
        # A sidecar that another stem has left would be taken for that of one without.
        if not overwrite and (candidate.exists() or (beside.exists() and (sidecar or is_sidecar(beside)))):
            continue
        pairs = [(part, candidate)]
        if sidecar:
            note.write_bytes(sidecar(candidate))
            flush_file(note)
            pairs.append((note, beside))
        if journal:
            journal.aim(candidate, part)
        with uninterrupted():
            if publish_all(pairs, overwrite):
                flush_folder(candidate.parent)
                return candidate
    raise AssertionError("names do not run out")


def _container(target: Path, audio: Floats, subtype: str, mask: int) -> str:
    container = _CONTAINERS[target.suffix.lower()]
    if container == "FLAC" and audio.shape[0] > 8:
        raise BadRequest(f"{target.name}: FLAC has at most 8 channels, the clip has {audio.shape[0]}; use .wav")
    large = audio.size * _DEPTH[subtype] // 8 > _WAV_LIMIT
    if container == "AIFF" and large:
        raise BadRequest(f"{target.name}: an AIFF file holds 4 GiB at most; use .wav, .w64 or .caf")
    if container == "WAV" and large:
        return "RF64"
    # Only its extensible form says which speakers the channels are for.
    return "WAVEX" if container == "WAV" and mask else container


def _write(part: Path, audio: Floats, sample_rate: int, container: str, subtype: str, seed: int) -> None:
    subtype = _fitting(container, subtype)
    rng = np.random.default_rng(seed)
    with soundfile.SoundFile(str(part), "w", sample_rate, audio.shape[0], subtype, format=container) as file:
        # The chunk holds the time of writing: the same render twice would be two different files.
        soundfile._snd.sf_command(file._file, _ADD_PEAK_CHUNK, soundfile._ffi.NULL, 0)
        for here in blocks(audio.shape[1], _BLOCK):
            block = audio[:, here]
            block = np.where(np.isfinite(block), block, 0)
            if subtype in ("FLOAT", "DOUBLE"):
                file.write(np.ascontiguousarray(block.T, np.float32 if subtype == "FLOAT" else np.float64))
            else:
                file.write(np.ascontiguousarray(quantise(block, _DEPTH[subtype], rng).T))


def holds_floats(target: Path, subtype: str) -> bool:
    """Whether a stem of this subtype keeps what is over full scale in a file of this name."""
    return _fitting(_CONTAINERS.get(target.suffix.lower(), ""), subtype) in ("FLOAT", "DOUBLE")


def _fitting(container: str, subtype: str) -> str:
    """The subtype that a container has for the same depth: WAV's 8 bits are unsigned, FLAC ends at 24."""
    if subtype in ("PCM_U8", "PCM_S8"):
        return "PCM_U8" if container in ("WAV", "WAVEX", "RF64", "W64") else "PCM_S8"
    if container == "FLAC" and subtype in ("PCM_32", "FLOAT", "DOUBLE"):
        return "PCM_24"
    return subtype


def settle(folder: Path, token: str, stem: Path | None) -> None:
    """After a crash: give a finished `stem` the sidecar that was ready for it, and take away what else was begun."""
    for note in folder.glob(f".*.{token}{NOTE}"):
        if stem is not None:
            # Where the stem has replaced another, its sidecar was about to do the same.
            publish(note, stem.with_suffix(".json"), overwrite=True)
        note.unlink(missing_ok=True)
    for end in (PART, PART + ASIDE, NOTE + ASIDE):
        for part in folder.glob(f".*.{token}{end}"):
            part.unlink()


@contextmanager
def _temporary(folder: Path, name: str, token: str, suffix: str) -> Iterator[Path]:
    """A hidden name in the target's folder, free again at the end whatever happens."""
    path = hidden(folder / name, token, suffix)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _failures(folder: Path, size: int) -> Iterator[None]:
    """What the system says when writing fails, in our words."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        # libsndfile only says "System error"; a disk that has no room now is the reason.
        if shutil.disk_usage(folder).free < size:
            raise DiskFull(f"{folder} has no room for a stem of {size / 1e6:.1f} MB") from error
        raise NotAllowed(f"{folder} cannot be written: {error}") from error
    except OSError as error:
        if means_full(error):
            raise DiskFull(f"{folder} has no room for a stem of {size / 1e6:.1f} MB") from error
        # Our own hidden names say nothing to anybody.
        named = [Path(name) for name in (error.filename2, error.filename) if name and not str(name).endswith(PART)]
        raise NotAllowed(f"{(named or [folder])[0]} cannot be written: {os.strerror(error.errno or 0)}") from error
