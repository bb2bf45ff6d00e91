"""What is trained on: the same music in several sounds, kept as mel pictures in one memory map.

`python -m stylus_audio.training.dataset --out DIR --groups N` adds groups up to N; a stopped run goes on. A group is
two pieces in each of three sounds, so each clip has a true answer in two other sounds, and a reference for each of
these that plays something else.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import StylusError
from ..reference import picture_of
from ..spectrogram import MINI, to_image
from .additive import Additive
from .compose import KINDS, Piece, compose
from .growing import grow, grown
from .percussion import Percussion
from .sounds import Audio, Sound, draw_effects, draw_sound, speech, texture, with_effects
from .synthesise import SAMPLE_RATE

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SOUNDS, PIECES = 3, 2
FRAMES = 600
SECONDS = FRAMES * MINI.hop / MINI.sample_rate
SHAPE = (SOUNDS, PIECES, MINI.bands, FRAMES)
GROUP = np.dtype((np.uint8, SHAPE))
FILE = "pictures.u8"
LEVELS = 255
"""Pictures are kept in bytes: steps of 0.3 dB."""
COPIED = 0.25
"""Of a GPU's memory, at most, for a copy of the groups."""

DRUMS = 128
"""In the place of a program."""

TONAL = tuple(kind for kind in KINDS if kind not in ("drums", "ensemble"))
DUO = ("bass and melody", "melody and chords")
SHARES = {"tonal": 0.5, "duo": 0.07, "drums": 0.23, "ensemble": 0.06, "effects": 0.14}
ADDITIVE, DRAWN_KITS = 0.4, 0.6
"""Shares of the tonal sounds and of the kits that no soundfont has."""

Instrument = Sound | Additive | Percussion


def group_audio(seed: int) -> list[list[Audio]]:
    """Audio of training group `seed`, `[sound][piece]` of `[2, sample]`."""
    rng, share = _drawn(seed)
    if share == "effects":
        sources = [_source(rng) for _ in range(PIECES)]
        chains = [draw_effects(rng) for _ in range(SOUNDS)]
        return [[with_effects(audio, chain) for audio in sources] for chain in chains]
    pieces, cents, sounds = _music(rng, share, seed)
    return [sound.play(pieces, cents) for sound in sounds]


def group_instruments(seed: int) -> list[int | None]:
    """General MIDI program of each sound of a group; `DRUMS` for a kit, None where more than one thing plays."""
    rng, share = _drawn(seed)
    if share == "drums":
        return [DRUMS] * SOUNDS
    if share != "tonal":
        return [None] * SOUNDS
    return [sound.programs[0] if isinstance(sound, Sound) else None for sound in _music(rng, share, seed)[2]]


def _drawn(seed: int) -> tuple[np.random.Generator, str]:
    rng = np.random.default_rng([2, seed])
    return rng, str(rng.choice(list(SHARES), p=list(SHARES.values())))


def _music(rng: np.random.Generator, share: str, seed: int) -> tuple[list[Piece], float, list[Instrument]]:
    """Pieces, their detuning in cents, and the sounds that play them."""
    kinds = {"tonal": TONAL, "duo": DUO}.get(share, (share,))
    pieces = [compose(PIECES * seed + number, str(rng.choice(kinds)), SECONDS) for number in range(PIECES)]
    cents = float(rng.uniform(-30, 30))
    sounds: list[Instrument] = []
    for _ in range(SOUNDS):
        if share in ("tonal", "duo") and rng.random() < ADDITIVE:
            sounds.append(Additive(int(rng.integers(2**31))))
        elif share == "drums" and rng.random() < DRAWN_KITS:
            sounds.append(Percussion(int(rng.integers(2**31))))
        else:
            sounds.append(draw_sound(rng, duo=share in ("duo", "ensemble")))
    return pieces, cents, sounds


def _source(rng: np.random.Generator) -> Audio:
    """Something without notes to be put through effects, or music where these are the only difference."""
    chance = rng.random()
    if chance < 0.4:
        return speech(rng, SECONDS)
    if chance < 0.6:
        return texture(rng, SECONDS)
    kind = str(rng.choice(list(KINDS)))
    return draw_sound(rng).play([compose(int(rng.integers(2**31)), kind, SECONDS)], 0.0)[0]


def picture(audio: Audio) -> NDArray[np.uint8]:
    """The clip as the model sees it, `[mel, frame]` in `LEVELS` steps; channels by the root of their mean power."""
    seen = picture_of(audio, SAMPLE_RATE, MINI)
    image = to_image(seen.mel[0], MINI, seen.maximum)[:, :FRAMES]
    return np.asarray(np.round(image * LEVELS), np.uint8)


def _make(seed: int) -> NDArray[np.uint8]:
    return np.stack([np.stack([picture(audio) for audio in pieces]) for pieces in group_audio(seed)])


def build(folder: Path, groups: int, workers: int = 2) -> None:
    """Make groups up to `groups`; `pictures.u8` holds `[group, sound, piece, mel, frame]`."""
    grow(folder / FILE, GROUP, groups, _make, workers)


class Pictures:
    """The groups made so far; `NotFound` where there are none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._copied: Tensor | None = None
        self.refresh()

    def refresh(self) -> None:
        """Takes in what another process has added since."""
        self.pictures = grown(self.folder / FILE, GROUP)

    def on(self, device: torch.device) -> NDArray[np.uint8] | Tensor:
        """The groups to draw from on that device: a GPU has a copy of its own, if that leaves most of it free."""
        if device.type != "cuda":
            return self.pictures
        # Not for the workers that make groups, who do without.
        import torch

        there = 0 if self._copied is None else len(self._copied)
        if there < len(self.pictures):
            if self.pictures.nbytes > COPIED * torch.cuda.mem_get_info(device)[1]:
                self._copied = None
                return self.pictures
            added = torch.from_numpy(np.array(self.pictures[there:])).to(device)
            self._copied = added if self._copied is None else torch.cat([self._copied, added])
        assert self._copied is not None
        return self._copied


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compose and synthesise the pictures that mini is trained on.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--groups", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    try:
        build(chosen.out, chosen.groups, chosen.workers)
    except StylusError as error:
        parser.exit(error.exit_code, f"{error}\n")
