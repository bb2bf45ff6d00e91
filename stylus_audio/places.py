"""Where things lie: what the package ships, the user's own data, and temporary files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
MODELS = ASSETS / "models"
CONFIGS = ASSETS / "configs"
DEMO_CONTENT = ASSETS / "audio" / "piano_riff.flac"
DEMO_STYLE = ASSETS / "audio" / "accordion.flac"

DAW_FOLDERS = ("Ableton", "REAPER Media", "REAPER Projects", "Bitwig Studio")
"""Folders in a user's documents that DAWs make for projects."""


def user_data() -> Path:
    """The user's presets, style library and weight hashes; `STYLUS_HOME` moves it."""
    import platformdirs

    moved = os.environ.get("STYLUS_HOME")
    return Path(moved) if moved else Path(platformdirs.user_data_dir("stylus-audio", appauthor=False))


def user_output() -> Path:
    """Where a stem goes that may not lie beside its content."""
    import platformdirs

    moved = os.environ.get("STYLUS_HOME")
    return Path(moved) / "output" if moved else Path(platformdirs.user_music_dir()) / "Stylus"


def user_audio() -> list[Path]:
    """Where a producer's audio lies unless told otherwise: the music folder, and what DAWs keep among documents."""
    import platformdirs

    documents = Path(platformdirs.user_documents_dir())
    return [Path(platformdirs.user_music_dir()), *(documents / name for name in DAW_FOLDERS)]


def roomy_folder() -> Path:
    """Where large temporary files go: `/var/tmp` where there is one, since `/tmp` may be memory; `TMPDIR` overrides."""
    elsewhere = Path("/var/tmp")
    if not os.environ.get("TMPDIR") and os.access(elsewhere, os.W_OK):
        return elsewhere
    return Path(tempfile.gettempdir())
