"""Pairs that no training has heard: another soundfont, other instruments, other music, other voices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..oracle_metrics import Played
from ..reference import Picture, picture_of
from ..spectrogram import MINI
from .compose import Piece, compose
from .dataset import DRUMS, TONAL
from .sounds import (
    HELD_OUT_FONT,
    HELD_OUT_KIT,
    HELD_OUT_PROGRAMS,
    HELD_OUT_VOICE,
    KITS,
    TRAINING_FONTS,
    Audio,
    Sound,
    speech,
)
from .synthesise import SAMPLE_RATE

SECONDS, REFERENCE_SECONDS = 4.0, 6.0
EACH = 6
"""Pairs for each held-out instrument."""
VALIDATION = {"unheard": (HELD_OUT_FONT,), "heard": TRAINING_FONTS}
"""Soundfonts of each half of the validation."""
VALIDATION_EACH = 24


@dataclass(frozen=True)
class Pair:
    """A content, a reference, and where there is one the true answer, all `[2, sample]` at 44.1 kHz."""

    name: str
    content: Audio
    reference: Audio
    oracle: Audio | None
    notes: tuple[Played, ...]
    reference_notes: tuple[Played, ...]
    program: int
    """General MIDI program of the reference and the answer, or `DRUMS`."""
    content_program: int | None
    """That of the content, where it is an instrument's."""

    def heard(self) -> list[tuple[str, Audio, int]]:
        """Clips in which one instrument plays: whether training knows it, the sound, and the program."""
        clips = [(self.reference, self.program)]
        if self.content_program is not None:
            clips.append((self.content, self.content_program))
        kinds = dict.fromkeys(HELD_OUT_PROGRAMS, "unheard programs")
        return [(kinds.get(program, "heard programs"), audio, program) for audio, program in clips]

    @cached_property
    def reference_picture(self) -> Picture:
        """Of the reference, on `MINI`'s grid."""
        return picture_of(self.reference, SAMPLE_RATE, MINI)

    @cached_property
    def oracle_picture(self) -> Picture | None:
        """Of the true answer, where there is one."""
        return None if self.oracle is None else picture_of(self.oracle, SAMPLE_RATE, MINI)


def names() -> list[str]:
    """Every pair, in an order in which each part of the list has some of all: instruments, drums, voice."""
    result = [f"{number}-{program}" for number in range(EACH) for program in HELD_OUT_PROGRAMS]
    drums = [f"{number}-drums" for number in range(4)]
    voices = [f"{number}-voice" for number in range(4)]
    for number, name in enumerate(drums + voices):
        result.insert(8 * (number + 1), name)
    return result


def validation() -> list[str]:
    """Other pairs, on which choices are made: half in the held-out soundfont, half in those of the training."""
    return [f"{number}-{where}" for number in range(VALIDATION_EACH) for where in VALIDATION]


def make(name: str) -> Pair:
    """One pair by its name, of `names` or of `validation`."""
    number, _, what = name.partition("-")
    rng = np.random.default_rng([3, int(number), *map(ord, what)])
    # Far from any training seed.
    seed = int(rng.integers(2**40, 2**41))
    if what == "drums":
        pieces = [compose(seed, "drums", SECONDS), compose(seed + 1, "drums", REFERENCE_SECONDS)]
        sound, style = Sound(HELD_OUT_FONT, (0, 0), int(rng.choice(KITS))), Sound(HELD_OUT_FONT, (0, 0), HELD_OUT_KIT)
        return _pair(f"{name}: kit {sound.kit} as kit {style.kit}", sound, style, pieces)
    program = int(rng.choice(HELD_OUT_PROGRAMS)) if what == "voice" or what in VALIDATION else int(what)
    font = str(rng.choice(VALIDATION[what])) if what in VALIDATION else HELD_OUT_FONT
    style = Sound(font, (program, program), reverb=bool(rng.random() < 0.3))
    kinds = [str(rng.choice(TONAL)) for _ in range(2)]
    pieces = [compose(seed, kinds[0], SECONDS), compose(seed + 1, kinds[1], REFERENCE_SECONDS)]
    if what == "voice":
        reference = style.play(pieces[1:], 0.0)[0]
        voice = speech(rng, SECONDS, HELD_OUT_VOICE)
        return Pair(f"{name}: voice as {program}", voice, reference, None, (), _played(pieces[1]), program, None)
    other = int(rng.choice([one for one in range(112) if one != program]))
    sound = Sound(font, (other, other), reverb=bool(rng.random() < 0.3))
    return _pair(f"{name}: {kinds[0]}, {other} as {program}", sound, style, pieces)


def _pair(name: str, sound: Sound, style: Sound, pieces: list[Piece]) -> Pair:
    content = sound.play(pieces[:1], 0.0)[0]
    oracle, reference = style.play(pieces, 0.0)
    ours, theirs = (DRUMS if pieces[0].kind == "drums" else one.programs[0] for one in (sound, style))
    return Pair(name, content, reference, oracle, _played(pieces[0]), _played(pieces[1]), theirs, ours)


def _played(piece: Piece) -> tuple[Played, ...]:
    if piece.kind == "drums":
        return ()
    return tuple(Played(note.start, note.length, note.key) for note in piece.notes)
