"""That the user has asked to stop, and how a command ends then.

A KeyboardInterrupt can be lost: Python drops one that is raised in a finaliser or in a library's callback. The flag
stays, and long work looks at it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import NoReturn

interruption = threading.Event()

AGAIN_SECONDS = 2.0
"""A Ctrl-C so soon after another is the same: what the first has begun to put away is put away."""

_heeded = 0.0
"""When one was last acted on."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def heed_signals() -> None:
    """From now on a Ctrl-C or a request to end sets the flag and raises KeyboardInterrupt."""
    interruption.clear()
    for number in _SIGNALS:
        signal.signal(number, _interrupt)


def leave(code: int) -> NoReturn:
    """Exit; a signal while the interpreter shuts down must not turn into another exit code."""
    sys.stdout.flush()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if interruption.is_set():
        # A Ctrl-C that went through C code on its way (an import of torch) makes Python end itself by the signal,
        # whatever the exit code.
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


def _unraisable(ignored: sys.UnraisableHookArgs) -> None:
    if not issubclass(ignored.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(ignored)


def _interrupt(*_: object) -> None:
    global _heeded  # noqa: PLW0603
    now = time.monotonic()
    if interruption.is_set() and now - _heeded < AGAIN_SECONDS:
        return
    _heeded = now
    # Where nothing can be raised (in a weak reference's callback during an import) Python would print a traceback
    # and go on: the event ends the work then.
    sys.unraisablehook = _unraisable
    interruption.set()
    # PyTorch's C++ ends the process by itself where an exception goes through it while it is imported.
    if not _is_being_imported("torch"):
        raise KeyboardInterrupt


def _is_being_imported(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))
