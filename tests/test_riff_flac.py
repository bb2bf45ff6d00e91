"""Chunks that FLAC's own encoder keeps of a WAV: read like the WAV's, and never a reason to fail."""

from __future__ import annotations

import tempfile
from pathlib import Path

import soundfile
from hypothesis import given
from hypothesis import strategies as st

from stylus_audio.riff import read_chunks
from tests.instruments_sfz import loop_chunk, save_flac


@given(st.binary(max_size=400))
def test_any_flac_has_chunks_or_none(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.flac"
        path.write_bytes(b"fLaC" + data)
        read_chunks(path)


def test_chunks_of_a_flac(tmp_path: Path) -> None:
    chunk = loop_chunk((100, 199))
    path = save_flac(tmp_path / "x.flac", chunk)
    assert read_chunks(path) == (chunk,)
    assert soundfile.read(path)[0].shape == (4410,)
    # A chunk that is said to be longer than its block is no chunk.
    path.write_bytes(path.read_bytes().replace(b"smpl\x3c", b"smpl\x3d"))
    assert read_chunks(path) == ()
