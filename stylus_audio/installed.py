"""Where `stylus` lies, written down for programs that do not have the shell's PATH: the device in Live."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import store
from .errors import NotAllowed
from .places import user_data


def record() -> tuple[bool, str]:
    """Write down where the executable and its Python lie; whether that was done, and the former or why not."""
    program = executable()
    if program is None:
        return False, "no `stylus` beside this Python; the device in Live cannot start the daemon"
    try:
        store.save(user_data() / "installed.json", {"executable": str(program), "python": str(_python())})
    except (NotAllowed, UnicodeError) as error:
        return False, f"{program}, but {error}"
    return True, str(program)


def _python() -> Path:
    """The Python that runs `stylus`; on Windows the one without a console."""
    python = Path(sys.executable).absolute()
    windowless = python.with_name("pythonw.exe")
    return windowless if os.name == "nt" and windowless.is_file() else python


def executable() -> Path | None:
    """The `stylus` of this installation; None where it was installed without one."""
    name = "stylus.exe" if os.name == "nt" else "stylus"
    # Python's own link is not followed: in an environment `stylus` lies beside the link.
    folders = (Path(sys.executable).absolute().parent, Path(sys.argv[0]).resolve().parent)
    return next((folder / name for folder in folders if (folder / name).is_file()), None)
