"""The entry point: `stylus`, and `python -m stylus_audio`."""

from __future__ import annotations

import gc
import os
import signal


def run() -> None:
    """Run the command line.

    Until its own handling of Ctrl-C stands there is nothing to clean up, so that one just ends the process.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    # Imports make objects that stay: looking through them for garbage every 700 takes a tenth of a render's start.
    gc.set_threshold(100_000)
    # OpenMP's threads sleep while they wait for one another: beside a DAW a render takes half the time so.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from .cli import main

    main()


if __name__ == "__main__":
    run()
