"""The sounds that music is put into: instruments of a soundfont, drum kits, and chains of effects on what has no notes.

Everything is drawn from a generator that the caller seeds.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from ..audio import resample
from ..errors import Internal, NotFound
from .compose import Piece, in_a_row, to_midi
from .synthesise import SAMPLE_RATE, soundfont, synthesise

Audio = NDArray[np.float32]

TRAINING_FONTS = ("FluidR3_GM.sf2", "MuseScore_General_Full.sf3")
"""Both under the MIT licence."""
FONT_SHARES = (0.6, 0.4)
HELD_OUT_FONT = "TimGM6mb.sf2"
"""For evaluation only: GPL, and no part of what is trained on."""
HELD_OUT_PROGRAMS = (4, 11, 21, 24, 42, 56, 66, 73, 81, 89, 108)
"""General MIDI programs that no training clip plays: for evaluation only."""
TRAINING_PROGRAMS = tuple(program for program in range(120) if program not in HELD_OUT_PROGRAMS)
KITS, HELD_OUT_KIT = (0, 8, 16, 24, 32, 40), 25

FILTER_CUTOFF, FILTER_RESONANCE, DECAY, SUSTAIN, RELEASE = 8, 9, 36, 37, 38
"""SoundFont generators; a step of NRPN is 2 cents of cutoff or of time, 0.1 dB of resonance or of sustain."""

GAP_SECONDS = 1.0
"""Between two pieces in one run of the synthesiser."""

VOICES = ("en-us", "en-gb", "de", "fr-fr", "es", "it", "pt", "nl", "sv", "pl")
VARIANTS = ("", "+f1", "+f2", "+f3", "+f4", "+m1", "+m2", "+m3", "+m4", "+m7")
HELD_OUT_VOICE = "en-gb-scotland+f5"
_WORDS = """
river stone amber window quiet morning engine paper silver under garden seven orange letter winter market sailor
button yellow forest mirror little hammer open ocean candle travel corner bridge finger autumn simple
"""


@dataclass(frozen=True)
class Sound:
    """An instrumentation: programs for lead and accompaniment, a drum kit, a soundfont, its level and its room."""

    font: str
    programs: tuple[int, int]
    kit: int = 0
    gain: float = 0.5
    reverb: bool = False
    generators: tuple[tuple[int, int], ...] = ()
    """Offsets to what the soundfont says of filter and envelope; see `to_midi`."""

    def play(self, pieces: list[Piece], cents: float) -> list[Audio]:
        """Each piece in this sound, `[2, sample]` and exactly as long as it says."""
        midi = to_midi(in_a_row(pieces, GAP_SECONDS), self.programs, cents, self.kit, self.generators)
        total = sum(piece.seconds + GAP_SECONDS for piece in pieces)
        audio = synthesise(midi, total, soundfont(self.font), self.gain, self.reverb)
        result, at = [], 0.0
        for piece in pieces:
            first = round(at * SAMPLE_RATE)
            result.append(audio[:, first : first + round(piece.seconds * SAMPLE_RATE)])
            at += piece.seconds + GAP_SECONDS
        return result


def draw_sound(rng: np.random.Generator, duo: bool = False) -> Sound:
    """An instrumentation of the training soundfonts: one instrument that plays all, or one for each part."""
    lead = int(rng.choice(TRAINING_PROGRAMS))
    other = int(rng.choice(TRAINING_PROGRAMS)) if duo else lead
    return Sound(
        str(rng.choice(TRAINING_FONTS, p=FONT_SHARES)),
        (lead, other),
        int(rng.choice(KITS)),
        float(rng.uniform(0.3, 0.8)),
        bool(rng.random() < 0.5),
        _draw_generators(rng) if rng.random() < 0.5 else (),
    )


def _draw_generators(rng: np.random.Generator) -> tuple[tuple[int, int], ...]:
    """Other instruments than those of the soundfont: duller, resonant, plucked, long or short in their end."""
    drawn = []
    if rng.random() < 0.5:
        drawn.append((FILTER_CUTOFF, -int(rng.integers(0, 2700))))
    if rng.random() < 0.2:
        drawn.append((FILTER_RESONANCE, int(rng.integers(0, 200))))
    if rng.random() < 0.5:
        # From the soundfont's usual millisecond, which none without sustain could live with, to half a second.
        drawn.append((DECAY, int(rng.integers(4000, 6500))))
        drawn.append((SUSTAIN, int(rng.integers(0, 600))))
    if rng.random() < 0.5:
        drawn.append((RELEASE, int(rng.integers(-900, 900))))
    return tuple(drawn)


def texture(rng: np.random.Generator, seconds: float) -> Audio:
    """Noise with a drawn spectrum and envelope, `[2, sample]`: wind, crackle, filtered pads."""
    samples = round(seconds * SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequencies = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE) + 1
    shape = frequencies ** rng.uniform(-1.2, 0.2)
    for _ in range(int(rng.integers(0, 4))):
        centre, width = 10 ** rng.uniform(2, 4), rng.uniform(0.02, 0.5)
        shape = shape * (1 + 10 * np.exp(-0.5 * (np.log(frequencies / centre) / width) ** 2))
    sound = np.fft.irfft(spectrum * shape, samples)
    points = rng.uniform(0, 1, int(rng.integers(3, 40))) ** rng.uniform(0.5, 4)
    envelope = np.interp(np.linspace(0, len(points) - 1, samples), np.arange(len(points)), points)
    sound = sound * envelope
    sound = 0.5 * sound / np.abs(sound).max()
    return np.stack([sound, sound]).astype(np.float32)


def speech(rng: np.random.Generator, seconds: float, voice: str | None = None) -> Audio:
    """A voice of espeak-ng saying words at random, `[2, sample]`; `NotFound` where espeak-ng is not installed."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise NotFound("espeak-ng is not installed; it makes the speech to train on and to evaluate with")
    voice = voice or str(rng.choice(VOICES)) + str(rng.choice(VARIANTS))
    speed, pitch = int(rng.integers(110, 200)), int(rng.integers(20, 80))
    words = " ".join(rng.choice(_WORDS.split(), 4 * round(seconds)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speech.wav"
        ended = subprocess.run(
            [program, "-v", voice, "-s", str(speed), "-p", str(pitch), "-w", str(file), words],
            check=False, capture_output=True, text=True, errors="replace",
        )  # fmt: skip
        if ended.returncode != 0 or not file.is_file():
            raise Internal(f"espeak-ng could not speak as {voice}: {ended.stderr.strip()[:200]}")
        audio, rate = soundfile.read(file, dtype="float32")
    spoken = resample(audio[None], rate, SAMPLE_RATE)[0]
    samples = round(seconds * SAMPLE_RATE)
    spoken = np.pad(spoken, (0, max(0, samples - len(spoken))))[:samples]
    return np.stack([spoken, spoken]).astype(np.float32)


def draw_effects(rng: np.random.Generator) -> list[object]:
    """A chain of pedalboard effects that moves no event in time: equaliser, drive, crush, chorus, room."""
    import pedalboard

    chain: list[object] = []
    for _ in range(int(rng.integers(1, 5))):
        chain.append(
            pedalboard.PeakFilter(10 ** rng.uniform(1.9, 4.1), float(rng.uniform(-24, 24)), 10 ** rng.uniform(-0.5, 1))
        )
    if rng.random() < 0.3:
        chain.append(pedalboard.LowpassFilter(10 ** rng.uniform(2.6, 4)))
    if rng.random() < 0.3:
        chain.append(pedalboard.HighpassFilter(10 ** rng.uniform(1.9, 3.3)))
    if rng.random() < 0.25:
        chain.append(pedalboard.Distortion(float(rng.uniform(5, 35))))
    if rng.random() < 0.12:
        chain.append(pedalboard.Bitcrush(float(rng.uniform(4, 10))))
    if rng.random() < 0.2:
        chain.append(pedalboard.Chorus(float(rng.uniform(0.3, 3)), float(rng.uniform(0.1, 0.6))))
    if rng.random() < 0.35:
        chain.append(pedalboard.Reverb(float(rng.uniform(0.2, 0.95)), wet_level=float(rng.uniform(0.1, 0.6))))
    return chain


def with_effects(audio: Audio, chain: list[object]) -> Audio:
    """`[2, sample]` through a chain, equally long."""
    import pedalboard

    board = pedalboard.Pedalboard(chain)
    return np.asarray(board(audio, SAMPLE_RATE), np.float32)
