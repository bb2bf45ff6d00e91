"""Where things lie: what the package ships, and the user's own data and cache."""

from __future__ import annotations

import os
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
MINI_FOLDER = ASSETS / "models" / "mini"
CONFIGS = ASSETS / "configs"
DEMO_CONTENT = ASSETS / "audio" / "piano_riff.flac"
DEMO_STYLE = ASSETS / "audio" / "accordion.flac"


def user_data() -> Path:
    """The user's presets, style library and weight hashes; `STYLUS_HOME` moves it."""
    import platformdirs

    moved = os.environ.get("STYLUS_HOME")
    return Path(moved) if moved else Path(platformdirs.user_data_dir("stylus-audio", appauthor=False))
