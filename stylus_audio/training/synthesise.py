"""MIDI to audio by FluidSynth and a General MIDI soundfont."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import mido
import numpy as np
import soundfile
from numpy.typing import NDArray

from ..errors import Internal, NotFound

SAMPLE_RATE = 44100
_FOLDERS = (
    "/usr/share/sounds/sf2",
    "/usr/share/sounds/sf3",
    "/usr/share/soundfonts",
    "/usr/local/share/soundfonts",
    "/opt/homebrew/share",
)
_PACKAGES = {
    "FluidR3_GM.sf2": "fluid-soundfont-gm",
    "MuseScore_General_Full.sf3": "musescore-general-soundfont",
    "TimGM6mb.sf2": "timgm6mb-soundfont",
}


def soundfont(name: str = "FluidR3_GM.sf2") -> Path:
    """The soundfont of that name in the usual places, or the file itself; `NotFound` says which package has it."""
    for place in (Path(name), *(Path(folder) / name for folder in _FOLDERS)):
        if place.is_file():
            return place
    package = _PACKAGES.get(name)
    raise NotFound(f"the soundfont {name} is not here" + (f" (Debian: {package})" if package else ""))


def synthesise(
    midi: mido.MidiFile, seconds: float, font: Path, gain: float = 0.5, reverb: bool = True
) -> NDArray[np.float32]:
    """`[2, sample]` at 44.1 kHz, exactly `seconds` long.

    Raises `NotFound` where FluidSynth is not installed, `Internal` with its last words where it fails.
    """
    program = shutil.which("fluidsynth")
    if program is None:
        raise NotFound("fluidsynth is not installed; it makes the training and demo audio")
    with tempfile.TemporaryDirectory() as folder:
        score, sound = Path(folder) / "piece.mid", Path(folder) / "piece.wav"
        midi.save(score)
        room = "1" if reverb else "0"
        ended = subprocess.run(
            [program, "-ni", "-q", "-o", "synth.dynamic-sample-loading=1", "-g", f"{gain:.3f}",
             "-r", str(SAMPLE_RATE), "-R", room, "-C", "0",
             "-O", "float", "-T", "wav", "-F", str(sound), str(font), str(score)],
            check=False, capture_output=True, text=True, errors="replace",
        )  # fmt: skip
        # With a soundfont that it cannot read, FluidSynth says so, takes the system's default and ends with 0.
        errors = [line for line in ended.stderr.splitlines() if "error" in line]
        if ended.returncode != 0 or errors or not sound.is_file():
            reason = errors[0] if errors else f"exit code {ended.returncode}"
            raise Internal(f"fluidsynth could not render with {font}: {reason}")
        audio = soundfile.read(sound, dtype="float32", always_2d=True)[0].T
    wanted = round(seconds * SAMPLE_RATE)
    result = np.zeros((2, wanted), np.float32)
    length = min(wanted, audio.shape[1])
    result[:, :length] = audio[:, :length]
    return result
