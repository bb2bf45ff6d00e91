"""Programs and soundfonts that some tests need: each is named where it is missing, and the test skipped."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from stylus_audio.errors import NotFound
from stylus_audio.training.synthesise import soundfont


def need_program(name: str, package: str = "") -> None:
    """Skip where the program is not installed; without `package` Debian's has its name."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed (Debian: {package or name})")


def need_liblo() -> None:
    """Skip where liblo's tools are not installed."""
    for name in ("oscsend", "oscdump"):
        need_program(name, "liblo-tools")


def need_node_module(name: str) -> None:
    """Skip where Node.js is not installed, or does not find the module; it looks in `NODE_PATH`."""
    need_program("node", "nodejs")
    if subprocess.run(["node", "--eval", f"require.resolve('{name}')"], capture_output=True, check=False).returncode:
        pytest.skip(f"{name} is not in NODE_PATH (npm install --prefix DIR {name}; NODE_PATH=DIR/node_modules)")


def need_font(name: str = "FluidR3_GM.sf2") -> None:
    """Skip where FluidSynth or the soundfont is not installed."""
    need_program("fluidsynth")
    try:
        soundfont(name)
    except NotFound as missing:
        pytest.skip(str(missing))
