"""A small sampled instrument in the SFZ format, of synthesised tones, and a player that makes sound of it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from stylus_audio.riff import Chunk, append_chunks
from tests.sounds import RATE

Floats = NDArray[np.floating[Any]]

_UNREADABLE = {"loop_mode", "count", "loop_count"}

ROOTS = {48: "C3", 60: "C4", 72: "C5"}
LAYERS = {"soft": 0.05, "loud": 0.4}
"""Peak levels, from velocity 1 and from 64."""
PAD = 84
"""The root of a looped sample in a folder of its own."""
PAD_LOOP = (4410, 13229)
"""Its loop's first and last sample: 100 ms from the start, whole periods."""
RELEASE_HZ = 3000.0
"""What is heard when a key is let go."""

_TEXT = r"""// A small instrument: three roots, two layers, releases, and a pad that is held.
<control>
hint_ram_based=1 default_path=Samples\
#define $SOFT 63
#define $LOUD 64

<global> ampeg_release=0.05 amp_veltrack=0 loop_mode=no_loop

<group> // soft
hivel=$SOFT volume=-1
<region> sample=C3 soft.wav lokey=36 hikey=54 pitch_keycenter=48
<region> sample=C4 soft.wav lokey=55 hikey=66 pitch_keycenter=60 tune=20
<region> sample=C5 soft.wav lokey=67 hikey=78 pitch_keycenter=72

<group> // loud
lovel=$LOUD
<region> sample=C3 loud.wav lokey=36 hikey=54 pitch_keycenter=48
<region> sample=C4 loud.wav lokey=55 hikey=66 pitch_keycenter=60 tune=20 volume=-2.5
<region> sample=C5 loud.wav lokey=67 hikey=78 pitch_keycenter=72

/* let go:
   the same for all layers */
<group> trigger=release loop_mode=one_shot volume=-6
<region> sample=C3 release.wav lokey=36 hikey=54 pitch_keycenter=48
<region> sample=C4 release.wav lokey=55 hikey=66 pitch_keycenter=60
<region> sample=C5 release.wav lokey=67 hikey=78 pitch_keycenter=72

<group> lokey=79 loop_mode=loop_continuous
<region> sample=held\Pad.wav pitch_keycenter=84 loop_start=4410 loop_end=13229
"""


def frequency(key: float) -> float:
    """Hz of a MIDI key."""
    return 440 * 2 ** float((key - 69) / 12)


def save_instrument(folder: Path) -> Path:
    """Write an instrument, and return its SFZ file.

    Roots C3, C4 (20 cents up) and C5 in two layers that decay, of 0.5 s, with a click of a release each; from key 79
    on a pad of 0.4 s that loops, by opcodes. Mono, 44.1 kHz, 16 bits.
    """
    samples = folder / "Samples"
    (samples / "held").mkdir(parents=True)
    for key, name in ROOTS.items():
        for layer, level in LAYERS.items():
            _save(samples / f"{name} {layer}.wav", _tone(key, 0.5, level) * np.exp(-4 * _time(0.5)))
        click = 0.2 * np.sin(2 * np.pi * RELEASE_HZ * _time(0.2)) * np.exp(-20 * _time(0.2))
        _save(samples / f"{name} release.wav", click)
    pad = _tone(PAD, 0.4, 0.2, frequency=1050.0)
    pad[:2205] *= np.linspace(0, 1, 2205)
    _save(samples / "held" / "Pad.wav", pad)
    path = folder / "Piano.sfz"
    path.write_text(_TEXT, "utf-8")
    return path


def loop_chunk(*loops: tuple[int, int]) -> Chunk:
    """A `smpl` chunk with loops of first and last sample."""
    head = struct.pack("<7I2I", 0, 0, 22675, 60, 0, 0, 0, len(loops), 0)
    return Chunk(b"smpl", head + b"".join(struct.pack("<6I", n, 0, a, b, 0, 0) for n, (a, b) in enumerate(loops)))


def save_tone(path: Path, hertz: float = 441.0, seconds: float = 0.1, loop: tuple[int, int] | None = None) -> Path:
    """A sine as a file, with a loop chunk if asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(path, 0.3 * np.sin(2 * np.pi * hertz * _time(seconds)))
    if loop:
        append_chunks(path, [loop_chunk(loop)])
    return path


def save_flac(path: Path, chunk: Chunk) -> Path:
    """A tone as FLAC that keeps a chunk of the WAV that it came from."""
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 441 * _time(0.1)), RATE)
    data = path.read_bytes()
    # Behind the first block, STREAMINFO, of 34 bytes and its header of 4.
    block = b"riff" + chunk.id + struct.pack("<I", len(chunk.data)) + chunk.data
    path.write_bytes(data[:42] + bytes([2]) + len(block).to_bytes(3, "big") + block + data[42:])
    return path


def _time(seconds: float) -> Floats:
    return np.arange(round(seconds * RATE)) / RATE


def _tone(key: int, seconds: float, level: float, frequency: float | None = None) -> Floats:
    hertz = frequency or 440 * 2 ** ((key - 69) / 12)
    partials = [np.sin(2 * np.pi * hertz * number * _time(seconds)) / number**2 for number in range(1, 4)]
    return np.asarray(level * sum(partials) / 1.3)


def _save(path: Path, audio: Floats) -> None:
    soundfile.write(path, audio, RATE, subtype="PCM_16")


class Player:
    """Sfizz with one instrument.

    It streams what is longer than 8192 samples from the disk, too late where it plays faster than time goes;
    `hint_ram_based=1` in the instrument's control header keeps it from that.
    """

    def __init__(self, path: Path) -> None:
        pysfizz = pytest.importorskip("pysfizz")
        self._synth = pysfizz.Synth(RATE, 441)
        assert self._synth.load_sfz_file(path, quiet=False)

    def play(self, key: int, velocity: int, held: float, seconds: float) -> Floats:
        """The left channel of one note, held for so long and heard for so long."""
        self._synth._synth.all_sound_off()
        return np.array(self._synth.render_note(key, velocity, held, seconds)[0])

    def regions(self) -> Sequence[dict[str, Any]]:
        """What the player has read of each region whose sample it has found."""
        raw = self._synth._synth
        regions = [raw.get_region_data(number) for number in range(raw.get_num_regions())]
        # The bindings read optional values from the wrong place.
        return [{name: region[name] for name in region.keys() - _UNREADABLE} for region in regions]
