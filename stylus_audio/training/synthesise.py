"""MIDI to audio by FluidSynth and a General MIDI soundfont."""

from __future__ import annotations

import os
from ctypes import c_int, c_void_p
from pathlib import Path
from typing import Any

import mido
import numpy as np
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
    """The soundfont of that name in `SOUNDFONTS` or the usual places, or the file itself.

    `NotFound` says which package has it.
    """
    folders = (os.environ.get("SOUNDFONTS", "."), *_FOLDERS)
    for place in (Path(name), *(Path(folder) / name for folder in folders)):
        if place.is_file():
            return place
    package = _PACKAGES.get(name)
    raise NotFound(f"the soundfont {name} is not here" + (f" (Debian: {package})" if package else ""))


def synthesise(
    midi: mido.MidiFile, seconds: float, font: Path, gain: float = 0.5, reverb: bool = True
) -> NDArray[np.float32]:
    """`[2, sample]` at 44.1 kHz, exactly `seconds` long; what plays longer is cut.

    Raises `NotFound` where FluidSynth is not installed, `Internal` where it cannot read the soundfont.
    """
    try:
        import fluidsynth
    except ImportError as error:
        raise NotFound("fluidsynth is not installed; it makes the training and demo audio") from error
    # A new one each time: voices and rooms of the last sound would be heard in the next.
    synth = fluidsynth.Synth(
        gain, SAMPLE_RATE, channels=16,
        **{"synth.dynamic-sample-loading": 1, "synth.chorus.active": 0, "synth.reverb.active": int(reverb)},
    )  # fmt: skip
    try:
        if synth.sfload(str(font)) < 0:
            raise Internal(f"fluidsynth could not render with {font}")
        return _played(midi, round(seconds * SAMPLE_RATE), synth)
    finally:
        synth.delete()


def _played(midi: mido.MidiFile, samples: int, synth: Any) -> NDArray[np.float32]:
    audio = np.zeros((2, samples), np.float32)
    write = _float_writer()
    done, now = 0, 0.0
    for message in midi:
        now += message.time
        at = min(samples, round(now * SAMPLE_RATE))
        write(synth.synth, at - done, audio[0, done:].ctypes, 0, 1, audio[1, done:].ctypes, 0, 1)
        done = at
        _send(synth, message)
    write(synth.synth, samples - done, audio[0, done:].ctypes, 0, 1, audio[1, done:].ctypes, 0, 1)
    return audio


def _send(synth: Any, message: mido.Message) -> None:
    match message.type:
        case "note_on":
            synth.noteon(message.channel, message.note, message.velocity)
        case "note_off":
            synth.noteoff(message.channel, message.note)
        case "control_change":
            synth.cc(message.channel, message.control, message.value)
        case "pitchwheel":
            synth.pitch_bend(message.channel, message.pitch)
        case "program_change":
            synth.program_change(message.channel, message.program)


def _float_writer() -> Any:
    """`fluid_synth_write_float`: the binding's own call gives 16 bits, in which the end of a quiet note is lost."""
    import fluidsynth

    names = ("synth", "len", "left", "left_offset", "left_step", "right", "right_offset", "right_step")
    kinds = (c_void_p, c_int, c_void_p, c_int, c_int, c_void_p, c_int, c_int)
    return fluidsynth.cfunc("fluid_synth_write_float", c_int, *((*one, 1) for one in zip(names, kinds, strict=True)))
