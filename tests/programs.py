"""Programs and soundfonts that some tests need: each is named where it is missing, and the test skipped."""

from __future__ import annotations

import shutil

import pytest

from stylus_audio.errors import NotFound
from stylus_audio.training.synthesise import soundfont


def need_program(name: str) -> None:
    """Skip where the program is not installed; Debian's package has its name."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed (Debian: {name})")


def need_font(name: str = "FluidR3_GM.sf2") -> None:
    """Skip where FluidSynth or the soundfont is not installed."""
    need_program("fluidsynth")
    try:
        soundfont(name)
    except NotFound as missing:
        pytest.skip(str(missing))
