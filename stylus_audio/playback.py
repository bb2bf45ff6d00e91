"""Playing a stem: the only use of PortAudio, which need not be there."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray


def portaudio() -> tuple[bool, str]:
    """Whether sound can be played here, and by what or why not."""
    try:
        import sounddevice
    except OSError:
        return False, "PortAudio is not installed (Debian, Ubuntu: libportaudio2); only --play needs it"
    try:
        device = sounddevice.query_devices(kind="output")
    except (sounddevice.PortAudioError, ValueError):
        return False, "PortAudio is here, but no output device is"
    return True, f"PortAudio, {device['name']}"


def play(audio: NDArray[np.floating[Any]], sample_rate: int) -> None:
    """Play `[channel, sample]` to its end; without PortAudio or a device a line says so, and the stem is there."""
    works, detail = portaudio()
    if not works:
        print(f"stylus: not played: {detail}", file=sys.stderr)
        return
    import sounddevice

    try:
        sounddevice.play(np.ascontiguousarray(audio[:2].T, np.float32), sample_rate, blocking=True)
    except sounddevice.PortAudioError as error:
        print(f"stylus: not played: {error}", file=sys.stderr)
