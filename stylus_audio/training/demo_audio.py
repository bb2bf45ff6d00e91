"""The short clips that come with the project: `python -m stylus_audio.training.demo_audio`.

The demo's go to the package's assets, the tests' to `tests/data`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import StylusError
from ..places import DEMO_CONTENT, DEMO_STYLE
from ..stem import write_stem
from .compose import DRUM_CHANNEL, Note, Piece, compose, to_midi
from .synthesise import SAMPLE_RATE, soundfont, synthesise

TESTS = Path(__file__).parents[2] / "tests" / "data"
PIANO, ACCORDION, BASS, BELLS, GLASS = 0, 21, 33, 14, 92

_BEAT = 60 / 112
_RIFF = ((0.0, 57), (0.75, 60), (1.5, 64), (2.0, 67), (2.5, 65), (3.0, 64), (3.5, 60),
         (4.0, 62), (4.75, 65), (5.5, 69), (6.0, 67), (6.5, 64), (7.0, 60))  # fmt: skip
_BASS = ((0.0, 45), (2.0, 45), (4.0, 50), (6.0, 43))


def riff() -> Piece:
    """Two bars for piano: a line over low roots."""
    notes = [Note(at * _BEAT, 0.6 * _BEAT, key, 96 - 6 * (n % 3)) for n, (at, key) in enumerate(_RIFF)]
    notes += [Note(at * _BEAT, 1.6 * _BEAT, key, 84) for at, key in _BASS]
    return Piece("riff", tuple(sorted(notes, key=lambda note: note.start)), 8 * _BEAT + 0.4)


def drum_loop() -> Piece:
    """Two bars of drums, to be cut to exactly two bars."""
    notes = []
    for step in range(32):
        keys = [42] if step % 2 == 0 else []
        if step % 16 in (0, 6, 10):
            keys.append(36)
        if step % 16 in (4, 12):
            keys.append(38)
        notes += [Note(step * _BEAT / 4, 0.1, key, 104 if step % 4 == 0 else 80, DRUM_CHANNEL) for key in keys]
    return Piece("drum loop", tuple(notes), 8 * _BEAT)


def main() -> None:
    """Make every clip anew; the same FluidSynth and soundfont give the same files."""
    font = soundfont()
    _save(DEMO_CONTENT, synthesise(to_midi(riff(), (PIANO, PIANO)), riff().seconds, font, reverb=False))
    chords = compose(7, "melody and chords", 6.0)
    _save(DEMO_STYLE, synthesise(to_midi(chords, (ACCORDION, ACCORDION)), 6.0, font))
    _save(TESTS / "drum_loop.flac", synthesise(to_midi(drum_loop()), drum_loop().seconds, font, reverb=False))
    bells = compose(3, "arpeggio", 3.0)
    _save(TESTS / "bells.flac", synthesise(to_midi(bells, (BELLS, BELLS)), 3.0, font))
    pad = compose(9, "chords", 3.0)
    _save(TESTS / "glass_pad.flac", synthesise(to_midi(pad, (GLASS, GLASS)), 3.0, font)[:1])
    bass = compose(5, "bass", 3.0)
    _save(TESTS / "bass.flac", synthesise(to_midi(bass, (BASS, BASS)), 3.0, font, reverb=False)[:1])


def _save(path: Path, audio: NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_stem(audio / np.abs(audio).max() * 0.7, SAMPLE_RATE, path, subtype="PCM_16", overwrite=True)


if __name__ == "__main__":
    try:
        main()
    except StylusError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
