"""Procedural music: seeded pieces that can be put on any General MIDI instrument.

A piece is a list of notes in seconds; the same piece on two instruments has the same notes at the same times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import mido
import numpy as np

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 4, 3), (1, 4, 0, 5), (0, 2, 3, 4))
DRUM_CHANNEL = 9
TICKS_PER_SECOND = 960


@dataclass(frozen=True)
class Note:
    """One note: seconds, MIDI key and velocity; `part` 0 is the lead, 1 the accompaniment, `DRUM_CHANNEL` drums."""

    start: float
    length: float
    key: int
    velocity: int
    part: int = 0


@dataclass(frozen=True)
class Piece:
    """Notes of `seconds` of music, with the kind of music that they are."""

    kind: str
    notes: tuple[Note, ...]
    seconds: float


@dataclass(frozen=True)
class _Bars:
    """The harmony and metre that a piece is made on."""

    rng: np.random.Generator
    root: int
    scale: tuple[int, ...]
    chords: tuple[int, ...]
    beat: float
    seconds: float

    def degree(self, degree: int, octave: int) -> int:
        key = self.root + 12 * octave + 12 * (degree // 7) + self.scale[degree % 7]
        return int(np.clip(key, 24, 103))

    def chord_at(self, time: float) -> int:
        return self.chords[int(time / (4 * self.beat)) % len(self.chords)]

    def velocity(self, loud: int = 88) -> int:
        return int(np.clip(self.rng.normal(loud, 14), 25, 127))

    def steps(self, length: float) -> list[float]:
        return [float(time) for time in np.arange(0, self.seconds - 0.05, length * self.beat)]


def _melody(bars: _Bars) -> list[Note]:
    notes: list[Note] = []
    degree, time = int(bars.rng.integers(0, 7)), 0.0
    hold = float(bars.rng.choice([0.3, 0.7, 1.0, 1.15]))
    while time < bars.seconds - 0.1:
        length = float(bars.rng.choice([0.25, 0.5, 0.5, 1.0, 1.0, 2.0])) * bars.beat
        degree = int(np.clip(degree + bars.rng.integers(-2, 3), -3, 10))
        if bars.rng.random() > 0.15:
            notes.append(Note(time, length * hold, bars.degree(degree, 5), bars.velocity(95)))
        time += length
    return notes


def _chords(bars: _Bars) -> list[Note]:
    every = float(bars.rng.choice([1.0, 2.0, 4.0]))
    hold = float(bars.rng.choice([0.4, 0.95]))
    tones = (0, 2, 4, 6) if bars.rng.random() < 0.3 else (0, 2, 4)
    return [
        Note(time, every * bars.beat * hold, bars.degree(bars.chord_at(time) + tone, 4), bars.velocity(78), 1)
        for time in bars.steps(every)
        for tone in tones
    ]


def _arpeggio(bars: _Bars) -> list[Note]:
    every = float(bars.rng.choice([0.25, 0.5]))
    pattern = bars.rng.permutation([0, 2, 4, 7, 9][: int(bars.rng.integers(3, 6))])
    return [
        Note(time, every * bars.beat, bars.degree(bars.chord_at(time) + int(pattern[n % len(pattern)]), 4),
             bars.velocity())
        for n, time in enumerate(bars.steps(every))
    ]  # fmt: skip


def _bass(bars: _Bars, part: int = 1) -> list[Note]:
    every = float(bars.rng.choice([0.5, 1.0]))
    return [
        Note(time, every * bars.beat * 0.85, bars.degree(bars.chord_at(time), 2), bars.velocity(95), part)
        for time in bars.steps(every)
        if bars.rng.random() > 0.1
    ]


def _drums(bars: _Bars) -> list[Note]:
    notes = []
    swing = float(bars.rng.choice([0.0, 0.0, 0.12]))
    cymbal = int(bars.rng.choice([42, 42, 46, 51]))
    for number, time in enumerate(bars.steps(0.25)):
        place = number % 16
        hits = []
        if place in (0, 8) or bars.rng.random() < 0.08:
            hits.append(36)
        if place in (4, 12) or bars.rng.random() < 0.03:
            hits.append(38)
        if number % 2 == 0 and bars.rng.random() < 0.9:
            hits.append(cymbal)
        if bars.rng.random() < 0.04:
            hits.append(int(bars.rng.choice([41, 45, 48, 49, 56, 39])))
        late = swing * bars.beat * 0.5 * (number % 4 == 2)
        notes += [Note(time + late, 0.1, key, bars.velocity(92), DRUM_CHANNEL) for key in hits]
    # What swings may come behind the end.
    return [note for note in notes if note.start < bars.seconds]


KINDS: dict[str, Callable[[_Bars], list[Note]]] = {
    "melody": _melody,
    "chords": _chords,
    "arpeggio": _arpeggio,
    "bass": lambda bars: _bass(bars, 0),
    "bass and melody": lambda bars: _melody(bars) + _bass(bars),
    "melody and chords": lambda bars: _melody(bars) + _chords(bars),
    "drums": _drums,
    "ensemble": lambda bars: _melody(bars) + _chords(bars) + _drums(bars),
}
"""Every kind of music; parts 0 and 1 can be on different instruments."""


def compose(seed: int, kind: str, seconds: float = 8.0) -> Piece:
    """A piece of one of `KINDS`, the same for the same seed: any key, 60–180 beats a minute."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    bars = _Bars(
        rng,
        root=int(rng.integers(0, 12)),
        scale=MAJOR if rng.random() < 0.5 else MINOR,
        chords=PROGRESSIONS[int(rng.integers(len(PROGRESSIONS)))],
        beat=60.0 / float(rng.uniform(60, 180)),
        seconds=seconds,
    )
    return Piece(kind, _released(KINDS[kind](bars), seconds), seconds)


def _released(notes: Sequence[Note], seconds: float) -> tuple[Note, ...]:
    """In order, each note over by the end of the piece, and a tick before its part strikes its key again.

    A synthesiser's note-off ends all that sounds on its key, the new note too.
    """
    struck: dict[tuple[int, int], float] = {}
    released: list[Note] = []
    for note in sorted(notes, key=lambda note: (note.start, note.part, note.key), reverse=True):
        end = min(seconds, struck.get((note.part, note.key), math.inf) - 1 / TICKS_PER_SECOND)
        released.append(replace(note, length=min(note.length, end - note.start)))
        struck[note.part, note.key] = note.start
    return tuple(reversed(released))


def in_a_row(pieces: Sequence[Piece], gap: float) -> Piece:
    """The pieces one after the other, `gap` seconds of silence between them."""
    notes, at = [], 0.0
    for piece in pieces:
        notes += [replace(note, start=note.start + at) for note in piece.notes]
        at += piece.seconds + gap
    return Piece("row", tuple(notes), at)


def to_midi(
    piece: Piece,
    programs: tuple[int, int] = (0, 0),
    cents: float = 0.0,
    drum_kit: int = 0,
    generators: Sequence[tuple[int, int]] = (),
) -> mido.MidiFile:
    """A piece on General MIDI programs (0–127) for lead and accompaniment, all detuned by up to ±100 cents.

    `generators` are numbers of SoundFont generators and offsets to them, in steps of NRPN (SoundFont 2.01, 9.6).
    """
    file = mido.MidiFile(ticks_per_beat=TICKS_PER_SECOND // 2)
    track = mido.MidiTrack()
    file.tracks.append(track)
    bend = round(cents / 200 * 8192)
    events: list[tuple[float, int, mido.Message]] = []
    for channel, program in ((0, programs[0]), (1, programs[1]), (DRUM_CHANNEL, drum_kit)):
        events.append((0.0, 0, mido.Message("program_change", channel=channel, program=program)))
        events.append((0.0, 0, mido.Message("pitchwheel", channel=channel, pitch=bend)))
        for generator, offset in generators:
            high, low = divmod(offset + 8192, 128)
            for control, value in ((99, 120), (98, generator), (38, low), (6, high)):
                events.append((0.0, 0, mido.Message("control_change", channel=channel, control=control, value=value)))
    for note in piece.notes:
        on = mido.Message("note_on", channel=note.part, note=note.key, velocity=note.velocity)
        off = mido.Message("note_off", channel=note.part, note=note.key)
        events += [(note.start, 2, on), (note.start + note.length, 1, off)]
    now = 0
    for time, _, message in sorted(events, key=lambda event: event[:2]):
        tick = round(time * TICKS_PER_SECOND)
        track.append(message.copy(time=tick - now))
        now = tick
    return file
