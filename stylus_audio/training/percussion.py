"""Drum kits that no soundfont has, from drawn numbers: skins and cymbals, or one material for all that is struck.

Soundfonts have a handful of kits, which hardly differ; here each seed is one, so that only who listens to the reference
can know how it sounds: a drum loop in breaking glass, in wood, in stones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .additive import heard
from .compose import Note, Piece
from .synthesise import SAMPLE_RATE

Audio = NDArray[np.float32]

LOW, HIGH = frozenset({35, 36, 41, 43}), frozenset({42, 44, 46, 49, 51, 52, 53, 55, 57, 59})
"""General MIDI keys of the drums that sound lowest and highest; all others are in between."""
OPEN = frozenset({46, 49, 51, 52, 53, 55, 57, 59})
"""Those that ring."""
HIGHEST = 16_000.0
LONGEST = 1.5
"""Seconds of a hit, at most."""
VARIANTS = 2
"""Hits of one drum, which take turns."""
MATERIAL = 0.5
"""Share of the kits that are of one material."""


@dataclass(frozen=True)
class Percussion:
    """One kit."""

    seed: int

    def play(self, pieces: list[Piece], cents: float) -> list[Audio]:
        """Each piece's drums in this kit, `[2, sample]` and exactly as long as it says; detuned by `cents`."""
        return heard([self._piece(piece, cents) for piece in pieces], self._kit.room)

    def _piece(self, piece: Piece, cents: float) -> Audio:
        audio = np.zeros(round(piece.seconds * SAMPLE_RATE), np.float32)
        made: dict[tuple[int, int], Audio] = {}
        for number, note in enumerate(piece.notes):
            drum = (note.key, number % VARIANTS)
            if drum not in made:
                made[drum] = self._kit.hit(note.key, cents, drum[1])
            first = round(note.start * SAMPLE_RATE)
            sound = made[drum][: max(0, len(audio) - first)]
            audio[first : first + len(sound)] += sound * np.float32(self._kit.loudness(note))
        return audio

    @cached_property
    def _kit(self) -> _Kit:
        return _Kit(self.seed)


@dataclass(frozen=True)
class _Drum:
    """Modes `[mode]`: Hz, linear levels and seconds to fall to 1/e. Noise: centre in Hz, width in nepers, level, decay.

    A mode sounds `sweep` times as high at first and comes down in `settling` seconds; `shards` follow, and are smaller.
    """

    frequencies: NDArray[np.float64]
    levels: NDArray[np.float64]
    decays: NDArray[np.float64]
    noise: tuple[float, float, float, float]
    sweep: float = 1.0
    settling: float = 0.01
    shards: int = 0
    scatter: float = 0.1

    def struck(self, cents: float, rng: np.random.Generator) -> Audio:
        """One hit, `[sample]`."""
        length = min(LONGEST, 7 * max(float(self.decays.max(initial=0.0)), self.noise[3]) + 5 * self.scatter)
        time = np.arange(round(length * SAMPLE_RATE)) / SAMPLE_RATE
        sound = self._noise(time, rng)
        # The phase of a frequency that falls to its end.
        turned = time + (self.sweep - 1) * self.settling * (1 - np.exp(-time / self.settling))
        for frequency, level, decay in zip(self.frequencies, self.levels, self.decays, strict=True):
            hertz = frequency * 2 ** (cents / 1200)
            if hertz < HIGHEST:
                phase = rng.uniform(0, 2 * np.pi)
                sound += level * np.sin(2 * np.pi * hertz * turned + phase) * np.exp(-time / decay)
        for _ in range(self.shards):
            self._shard(sound, rng)
        # What begins at once clicks in every band.
        return np.asarray(sound * np.minimum(time / 0.0005, 1), np.float32)

    def _shard(self, sound: NDArray[np.float64], rng: np.random.Generator) -> None:
        first = round(rng.exponential(self.scatter) * SAMPLE_RATE)
        time = np.arange(max(0, min(len(sound) - first, SAMPLE_RATE // 5))) / SAMPLE_RATE
        number = int(rng.integers(len(self.frequencies)))
        hertz = min(HIGHEST, self.frequencies[number] * rng.uniform(0.7, 2))
        level = rng.uniform(0.1, 0.7) * np.exp(-first / SAMPLE_RATE / (2 * self.scatter))
        sound[first : first + len(time)] += (
            level * np.sin(2 * np.pi * hertz * time) * np.exp(-time / min(0.03, 0.5 * self.decays[number]))
        )

    def _noise(self, time: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        centre, width, level, decay = self.noise
        octaves = np.log(np.fft.rfftfreq(len(time), 1 / SAMPLE_RATE).clip(1) / centre)
        spectrum = np.fft.rfft(rng.standard_normal(len(time))) * np.exp(-0.5 * (octaves / width) ** 2)
        noise = np.fft.irfft(spectrum, len(time))
        return np.asarray(noise * level / max(float(np.abs(noise).max()), 1e-9) * np.exp(-time / decay))


class _Kit:
    """What a kit's drums have in common."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([8, seed])
        self.seed = seed
        self.material = bool(rng.random() < MATERIAL)
        self.lowest = 10 ** rng.uniform(2.0, 3.5)
        self.octaves = rng.uniform(1.0, 4.0)
        self.tracking = rng.uniform(0, 1.5)
        """Octaves between the modes of low and of high drums in one material."""
        self.modes = int(rng.integers(4, 40))
        self.decay = 10 ** rng.uniform(-1.8, -0.2)
        self.damping = rng.uniform(0, 1)
        self.noise = (10 ** (rng.uniform(-30, 3) / 20), 10 ** rng.uniform(-2.3, -0.8))
        self.shards = int(rng.integers(4, 40)) if rng.random() < 0.5 else 0
        self.scatter = 10 ** rng.uniform(-1.7, -0.7)
        self.brightness = rng.uniform(-0.2, 0.2)
        """Decades that the noises of skins and cymbals are moved by."""
        self.length = 10 ** rng.uniform(-0.4, 0.3)
        self.touch = rng.uniform(10, 35)
        """dB between the softest and the loudest hit."""
        self.room = (float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.05, 0.5))) if rng.random() < 0.4 else None

    def loudness(self, note: Note) -> float:
        """Of a hit, linear."""
        return float(10 ** (-self.touch * (1 - note.velocity / 127) / 20))

    def hit(self, key: int, cents: float, variant: int) -> Audio:
        """One of the `VARIANTS` hits of a General MIDI drum."""
        rng = np.random.default_rng([9, self.seed, key])
        register = -1 if key in LOW else 1 if key in HIGH else 0
        if self.material:
            drum = self._of_material(register, rng)
        else:
            drum = (self._low, self._middle, self._high)[register + 1](key in OPEN, rng)
        balance = 10 ** (rng.uniform(-10, 0) / 20)
        sound = drum.struck(cents, np.random.default_rng([10, self.seed, key, variant]))
        return np.asarray(sound * (balance / max(float(np.abs(sound).max()), 1e-9)), np.float32)

    def _of_material(self, register: int, rng: np.random.Generator) -> _Drum:
        octaves = rng.uniform(0, self.octaves, self.modes)
        frequencies = np.minimum(self.lowest * 2 ** (octaves + self.tracking * register / 2), HIGHEST)
        decays = self.decay * (frequencies / self.lowest).clip(0.5) ** -self.damping * rng.uniform(0.3, 1, self.modes)
        level, decay = self.noise
        noise = (float(np.exp(np.log(frequencies).mean())) * rng.uniform(0.7, 3), 0.8, 3 * level, decay)
        levels = rng.uniform(0.1, 1, self.modes) / np.sqrt(self.modes)
        return _Drum(frequencies, levels, decays, noise, shards=self.shards, scatter=self.scatter)

    def _low(self, ringing: bool, rng: np.random.Generator) -> _Drum:
        del ringing
        click = (10 ** rng.uniform(2.7, 3.6), 0.8, 10 ** (rng.uniform(-35, -6) / 20), 0.006)
        decay = np.array([10 ** rng.uniform(-1.3, -0.4)]) * self.length
        return _Drum(
            np.array([10 ** rng.uniform(1.6, 2.05)]), np.ones(1), decay, click,
            rng.uniform(1, 6), 10 ** rng.uniform(-2.2, -1.4),
        )  # fmt: skip

    def _middle(self, ringing: bool, rng: np.random.Generator) -> _Drum:
        del ringing
        skins = int(rng.integers(1, 4))
        noise = self._hiss(rng.uniform(2.8, 3.8), rng.uniform(-25, 3), 10 ** rng.uniform(-1.5, -0.6), rng)
        frequencies = 10 ** rng.uniform(1.9, 2.6) * np.cumsum(np.r_[1.0, rng.uniform(0.3, 0.9, skins - 1)])
        decays = 10 ** rng.uniform(-1.5, -0.7, skins) * self.length
        return _Drum(frequencies, rng.uniform(0.2, 1, skins), decays, noise, rng.uniform(1, 2), 0.02)

    def _high(self, ringing: bool, rng: np.random.Generator) -> _Drum:
        metal = int(rng.integers(0, 25))
        decay = 10 ** (rng.uniform(-1.2, -0.4) if ringing else rng.uniform(-1.9, -1.1))
        noise = self._hiss(rng.uniform(3.5, 4.1), rng.uniform(-12, 3), decay, rng)
        frequencies = 10 ** rng.uniform(3.3, 4.15, metal)
        return _Drum(frequencies, rng.uniform(0.05, 0.3, metal), np.full(metal, decay * self.length), noise)

    def _hiss(
        self, centre: float, decibels: float, decay: float, rng: np.random.Generator
    ) -> tuple[float, float, float, float]:
        level = 10 ** (decibels / 20)
        return 10 ** (centre + self.brightness), rng.uniform(0.3, 1), level, decay * self.length
