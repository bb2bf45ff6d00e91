"""Chunks that a DAW reads: kept byte for byte, moved with a segment, and never a reason to fail."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from stylus_audio.riff import KEPT, Chunk, Loop, Tempo, append_chunks, loop_of, read_chunks, shifted, tempo_of
from tests.sounds import RATE, noise


def smpl(*loops: tuple[int, int], kind: int = 0) -> Chunk:
    head = struct.pack("<7I2I", 0, 0, 22675, 60, 0, 0, 0, len(loops), 0)
    return Chunk(b"smpl", head + b"".join(struct.pack("<6I", n, kind, a, b, 0, 0) for n, (a, b) in enumerate(loops)))


def acid(one_shot: bool, beats: int = 8, per_bar: int = 4, bpm: float = 112.0) -> Chunk:
    return Chunk(b"acid", struct.pack("<IHHfIHHf", int(one_shot), 60, 0, 0.0, beats, 4, per_bar, bpm))


def cue(*points: tuple[int, int]) -> Chunk:
    data = b"".join(struct.pack("<2I4s3I", name, at, b"data", 0, 0, at) for name, at in points)
    return Chunk(b"cue ", struct.pack("<I", len(points)) + data)


def labels(*names: int) -> Chunk:
    return Chunk(b"LIST", b"adtl" + b"".join(b"labl" + struct.pack("<2I", 6, n) + b"x\0" for n in names))


ALL = (smpl((100, 199)), acid(False), Chunk(b"bext", bytes(602)), Chunk(b"iXML", b"<x/>"), cue((1, 5)), labels(1),
       Chunk(b"LIST", b"INFOIART\4\0\0\0abc\0"), Chunk(b"inst", bytes(7)))  # fmt: skip


@pytest.mark.parametrize("format", ["WAV", "RF64"])
@pytest.mark.parametrize("samples", [441, 440])
def test_chunks_survive_and_the_audio_too(tmp_path: Path, format: str, samples: int) -> None:
    path = tmp_path / "clip.wav"
    audio = noise(0.1)[0, :samples]
    soundfile.write(path, audio, RATE, subtype="PCM_U8", format=format)
    before = soundfile.read(path)[0]
    append_chunks(path, ALL)
    assert tuple(chunk for chunk in read_chunks(path) if chunk in ALL) == ALL
    assert np.array_equal(soundfile.read(path)[0], before)
    size = struct.unpack("<I", path.read_bytes()[4:8])[0] if format == "WAV" else None
    assert size in (None, path.stat().st_size - 8)


@pytest.mark.parametrize(
    ("chunk", "tempo"),
    [
        (acid(False), Tempo(112.0, 4)),
        (acid(False, per_bar=3), Tempo(112.0, 3)),
        (acid(True), None),
        # Some write no tempo, and some no beats either.
        (acid(False, bpm=0.0), Tempo(96.0, 4)),
        (acid(False, beats=0, bpm=0.0), None),
        (acid(False, bpm=float("nan"), per_bar=0), Tempo(96.0, 4)),
        (Chunk(b"acid", bytes(8)), None),
        (smpl((100, 199)), None),
    ],
)
def test_a_tempo(chunk: Chunk, tempo: Tempo | None) -> None:
    assert tempo_of((chunk,), 5.0) == tempo


def test_a_time_that_is_not_known_stays_one() -> None:
    chunk = Chunk(b"bext", b"\0" * 338 + b"\xff" * 8 + b"\0" * 256)
    assert shifted([chunk], 10, 100, 1000) == (chunk,)


@given(st.binary(max_size=400))
def test_any_bytes_are_only_chunks_or_none(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.wav"
        path.write_bytes(b"RIFF\0\0\0\0WAVE" + data)
        chunks = read_chunks(path)
    loop_of(chunks, 1000)
    shifted(chunks, 10, 100, 1000)


@given(st.sampled_from(KEPT), st.binary(max_size=300))
def test_any_chunk_can_be_moved(name: bytes, data: bytes) -> None:
    shifted((Chunk(name, data),), 10, 100, 1000)
    loop_of((Chunk(name, data),), 1000)


def test_loops() -> None:
    assert loop_of((smpl((100, 199)),), 1000) == Loop(100, 200)
    assert loop_of((smpl((0, 999)),), 1000) == Loop(0, 1000)
    assert loop_of((smpl((0, 999), kind=1),), 1000) is None
    # The end is the last sample that is played, but not for all who write it.
    assert loop_of((smpl((0, 1000)),), 1000) == Loop(0, 1000)
    assert loop_of((smpl((0, 1001)),), 1000) is None
    assert loop_of((acid(False),), 1000) == Loop(0, 1000)
    assert loop_of((acid(True),), 1000) is None
    assert loop_of((), 1000) is None


def test_a_segment_is_later_in_every_timestamp() -> None:
    low, high = 2**32 - 5, 3
    xml = (
        f"<BWFXML><SPEED><TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_LO>{low}</TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_LO>"
        f"<TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_HI> {high}\n</TIMESTAMP_SAMPLES_SINCE_MIDNIGHT_HI></SPEED>"
        "<BEXT><BWF_TIME_REFERENCE_LOW>1000</BWF_TIME_REFERENCE_LOW></BEXT><NOTE>1000</NOTE></BWFXML>"
    )
    (chunk,) = shifted([Chunk(b"iXML", xml.encode())], 90, 200, 1000)
    later = xml.replace(f">{low}<", ">85<").replace(f"> {high}\n<", f"> {high + 1}\n<")
    assert chunk.data.decode() == later.replace("LOW>1000<", "LOW>1090<")


def test_a_segment_takes_its_loops_and_cues() -> None:
    bext = Chunk(b"bext", bytes(338) + struct.pack("<Q", 1000) + bytes(256))
    chunks = (smpl((100, 199), (500, 599)), acid(False), bext, cue((1, 120), (2, 700)), labels(1, 2))
    moved = {chunk.id: chunk.data for chunk in shifted(chunks, 90, 200, 1000)}
    assert loop_of(tuple(Chunk(k, v) for k, v in moved.items()), 200) == Loop(10, 110)
    assert struct.unpack("<Q", moved[b"bext"][338:346])[0] == 1090
    assert moved[b"cue "] == cue((1, 30)).data
    assert moved[b"LIST"] == labels(1).data
    assert b"acid" not in moved
    assert shifted(chunks, 0, 1000, 1000) == chunks
    (loop,) = shifted([smpl((500, 1000))], 200, 800, 1000)
    assert loop == smpl((300, 799))


def test_a_tail_adds_to_the_beats_and_to_nothing_else() -> None:
    chunks = (smpl((100, 199)), acid(False), cue((1, 120)), labels(1))
    assert shifted(chunks, 0, 1200, 1000) == (chunks[0], *chunks[2:])
