"""Instruments that no soundfont has, from drawn numbers: partials, their decay, and noise.

A soundfont has some hundred sounds, which a network can learn by heart; of these there are as many as there are seeds,
so that only who listens to the reference can know how one sounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .compose import Note, Piece
from .synthesise import SAMPLE_RATE

Audio = NDArray[np.float32]

HIGHEST, LOWEST = 18_000.0, 30.0
"""Hz between which there are partials."""
PARTIALS = 48
PEAK = 0.5
ENOUGH_DB = -70.0
"""A note is played until it has decayed to this."""


@dataclass(frozen=True)
class Additive:
    """One instrument; what is drawn is in its own units, seconds, Hz and dB."""

    seed: int

    def play(self, pieces: list[Piece], cents: float) -> list[Audio]:
        """Each piece in this sound, `[2, sample]` and exactly as long as it says; detuned by `cents`."""
        return heard([self._piece(piece, cents) for piece in pieces], self._drawn.room)

    def _piece(self, piece: Piece, cents: float) -> Audio:
        audio = np.zeros(round(piece.seconds * SAMPLE_RATE), np.float32)
        for number, note in enumerate(piece.notes):
            first = round(note.start * SAMPLE_RATE)
            sound = self._drawn.note(note, cents, np.random.default_rng([self.seed, number]))
            sound = sound[: max(0, len(audio) - first)]
            audio[first : first + len(sound)] += sound
        return audio

    @cached_property
    def _drawn(self) -> _Voice:
        return _Voice(np.random.default_rng([7, self.seed]))


def heard(pieces: list[Audio], room: tuple[float, float] | None) -> list[Audio]:
    """Mono pieces `[sample]` as `[2, sample]` at one level, in a room of a size and wet level (0–1 each) or in none."""
    if room is not None:
        import pedalboard

        size, wet = room
        pieces = [
            np.asarray(pedalboard.Reverb(size, wet_level=wet)(audio, SAMPLE_RATE), np.float32) for audio in pieces
        ]
    loudest = max(float(np.abs(audio).max()) for audio in pieces)
    return [np.tile(audio * np.float32(PEAK / max(loudest, 1e-9)), (2, 1)) for audio in pieces]


class _Voice:
    """What an instrument's notes have in common."""

    def __init__(self, rng: np.random.Generator) -> None:
        numbers = np.arange(1, PARTIALS + 1)
        stretch = 10 ** rng.uniform(-5, -2.6) if rng.random() < 0.5 else 0.0
        self.ratios = numbers * np.sqrt(1 + stretch * numbers**2)
        if rng.random() < 0.15:
            # Bars, bells and plates.
            self.ratios = np.cumsum(np.concatenate([[1.0], rng.uniform(0.2, 1.8, PARTIALS - 1)]))
        levels = -rng.uniform(3, 15) * np.log2(numbers) + rng.normal(0, rng.uniform(0, 8), PARTIALS)
        if rng.random() < 0.25:
            levels[1::2] -= rng.uniform(6, 30)
        self.levels = levels - levels.max()
        self.formants = [
            (10 ** rng.uniform(2.3, 3.8), rng.uniform(0.1, 0.6), rng.uniform(-12, 20))
            for _ in range(rng.integers(0, 5))
        ]
        self.cutoff = 10 ** rng.uniform(3, 4.3) if rng.random() < 0.5 else HIGHEST
        plucked = rng.random() < 0.5
        self.attack = 10 ** (rng.uniform(-3, -1.7) if plucked else rng.uniform(-2.5, -0.4))
        self.decay = 10 ** (rng.uniform(-1.2, 0.6) if plucked else rng.uniform(-0.5, 0.8))
        self.damping = rng.uniform(0, 1.2)
        """Partial n decays in the `damping`th root of n less."""
        self.sustain = 0.0 if plucked else rng.uniform(0.1, 1)
        self.release = 10 ** rng.uniform(-2, -0.2)
        self.voices = int(rng.integers(1, 4)) if rng.random() < 0.4 else 1
        self.spread = rng.uniform(2, 14)
        self.vibrato = (rng.uniform(4, 7), rng.uniform(3, 30) if rng.random() < 0.3 else 0.0)
        self.tremolo = (rng.uniform(3, 8), rng.uniform(0.1, 0.6) if rng.random() < 0.2 else 0.0)
        self.touch = rng.uniform(0, 12)
        """dB that the highest partials lose in a note that is played softly."""
        self.breath = rng.uniform(-60, -22) if rng.random() < 0.4 else None
        self.knock = (rng.uniform(-35, 0), 10 ** rng.uniform(-2.3, -1)) if rng.random() < 0.5 else None
        self.colour = (10 ** rng.uniform(2, 4), rng.uniform(0.3, 1.5))
        self.room = (float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.05, 0.5))) if rng.random() < 0.4 else None

    def note(self, note: Note, cents: float, rng: np.random.Generator) -> Audio:
        """One note from its beginning to the end of its release, `[sample]`."""
        ending = note.length + self.release * -ENOUGH_DB / 20 / np.log10(np.e) / 3
        time = np.asarray(np.arange(round(ending * SAMPLE_RATE)) / SAMPLE_RATE, np.float32)
        soft = 1 - note.velocity / 127
        pitch = 440.0 * 2 ** ((note.key - 69 + cents / 100) / 12)
        held = np.minimum(time / self.attack, 1) * np.exp(-np.maximum(time - note.length, 0) * (3 / self.release))
        depth = 1 - self.tremolo[1] * (0.5 + 0.5 * np.sin(2 * np.pi * self.tremolo[0] * time))
        sound = self._noises(time, rng)
        for voice in self._voices(time, pitch, soft, rng):
            sound += voice * depth
        return np.asarray(sound * held * 10 ** (-30 * soft / 20), np.float32)

    def _voices(self, time: Audio, pitch: float, soft: float, rng: np.random.Generator) -> Iterator[Audio]:
        """Each voice's partials, added up."""
        rate, cents = self.vibrato
        bend = np.cos(2 * np.pi * rate * time) * (cents / 1200 * np.log(2) / (2 * np.pi * rate))
        for voice in range(self.voices):
            off = 2 ** ((voice - (self.voices - 1) / 2) * self.spread / 1200)
            total = np.zeros_like(time)
            for number, (ratio, level) in enumerate(zip(self.ratios, self.levels, strict=True), 1):
                frequency = pitch * off * ratio
                if not LOWEST < frequency < HIGHEST:
                    continue
                decibels = level + self._coloured(frequency) - self.touch * soft * np.log2(number)
                if decibels < -80:
                    continue
                phase = np.float32(rng.uniform(0, 2 * np.pi))
                fading = np.exp(time * np.float32(-(number**self.damping) / self.decay))
                shape = self.sustain + (1 - self.sustain) * fading
                wave = np.sin(np.float32(2 * np.pi * frequency) * (time - bend) + phase)
                total += np.float32(10 ** (decibels / 20)) * shape * wave
            yield total

    def _coloured(self, frequency: float) -> float:
        """What the body adds, in dB."""
        bells = sum(
            gain * np.exp(-0.5 * (np.log(frequency / centre) / width) ** 2) for centre, width, gain in self.formants
        )
        return float(bells - 24 * max(0.0, np.log2(frequency / self.cutoff)))

    def _noises(self, time: Audio, rng: np.random.Generator) -> Audio:
        """Breath for as long as a note is held, and the knock of its beginning."""
        if self.breath is None and self.knock is None:
            return np.zeros_like(time)
        spectrum = np.fft.rfft(rng.standard_normal(len(time)))
        octaves = np.log(np.fft.rfftfreq(len(time), 1 / SAMPLE_RATE).clip(1) / self.colour[0])
        noise = np.fft.irfft(spectrum * np.exp(-0.5 * (octaves / self.colour[1]) ** 2), len(time))
        noise = noise / max(float(np.sqrt(np.square(noise).mean())), 1e-9)
        envelope = np.zeros_like(time)
        if self.breath is not None:
            envelope += np.float32(10 ** (self.breath / 20))
        if self.knock is not None:
            envelope += np.float32(10 ** (self.knock[0] / 20)) * np.exp(-time / self.knock[1])
        return np.asarray(noise * envelope, np.float32)
