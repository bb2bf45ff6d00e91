"""Playing a stem: the only use of PortAudio, which need not be there."""

from __future__ import annotations

import math
import queue
import sys
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .interruption import interruption

MARGIN = 1.2
"""Later windows may take so many times as long as the earlier."""


def portaudio() -> tuple[bool, str]:
    """Whether sound can be played here, and by what or why not."""
    try:
        import sounddevice
    except OSError:
        return False, "PortAudio is not installed (Debian, Ubuntu: libportaudio2); only --play needs it"
    except Exception as error:
        # It starts with the import, and says in its own way that it cannot.
        return False, f"PortAudio is here, but does not start: {error}"
    try:
        device = sounddevice.query_devices(kind="output")
    except (sounddevice.PortAudioError, ValueError):
        return False, "PortAudio is here, but no output device is"
    return True, f"PortAudio, {device['name']}"


def open_player() -> Player | None:
    """A player; without PortAudio or a device a line says so."""
    works, detail = portaudio()
    if not works:
        print(f"stylus: not played: {detail}", file=sys.stderr)
    return Player() if works else None


class Player:
    """Plays a stem whose pieces come while it is rendered, as soon as it can go on to the end without a gap.

    To be closed, as a context manager does it. A Ctrl-C that comes when all is rendered ends the playing only.
    """

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._pieces: queue.Queue[NDArray[np.float32] | None] = queue.Queue()
        self._waiting: list[NDArray[np.float32]] = []
        self._made = 0
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def __enter__(self) -> Player:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._stopped.set()
        self._pieces.put(None)
        # In short waits, between which a Ctrl-C arrives on every system.
        try:
            while self._thread and self._thread.is_alive():
                self._thread.join(0.1)
        except KeyboardInterrupt:
            if kind is not None:
                raise
            interruption.clear()
        finally:
            self._stopped.set()

    def hear(self, piece: NDArray[np.floating[Any]], sample_rate: int, total: int) -> None:
        """The next samples `[channel, sample]` of `total`; what comes behind the second channel is not played."""
        self._waiting.append(np.ascontiguousarray(piece[:2].T, np.float32))
        self._made += piece.shape[1]
        if self._thread is None:
            if self._left(total) * MARGIN > total / sample_rate:
                return
            channels = self._waiting[0].shape[1]
            self._thread = threading.Thread(target=self._play, args=(sample_rate, channels))
            self._thread.daemon = True
            self._thread.start()
        for waiting in self._waiting:
            self._pieces.put(waiting)
        self._waiting = []

    def _left(self, total: int) -> float:
        """Seconds until the last samples come, at the rate at which they have come since the first."""
        now = time.monotonic()
        if self._made == total:
            return 0.0
        if self._first is None:
            self._first = now, self._made
        begun, made = self._first
        return (total - self._made) * (now - begun) / (self._made - made) if self._made > made else math.inf

    def _drop(self) -> None:
        while self._pieces.get() is not None:
            pass

    def _play(self, sample_rate: int, channels: int) -> None:
        import sounddevice

        try:
            with sounddevice.OutputStream(sample_rate, channels=channels, dtype="float32") as stream:
                while (piece := self._pieces.get()) is not None:
                    # In short blocks, so that it can be ended.
                    for first in range(0, len(piece), sample_rate // 10):
                        if self._stopped.is_set():
                            stream.abort()
                            return
                        stream.write(piece[first : first + sample_rate // 10])
        except sounddevice.PortAudioError as error:
            print(f"stylus: not played: {error}", file=sys.stderr)
            self._drop()
