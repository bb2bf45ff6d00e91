"""What the holder of the daemon's lock says of itself, for who meets the lock, which says only that it is held."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stylus_audio import store
from stylus_audio.errors import NotAllowed
from stylus_audio.files import in_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """A daemon's OSC port, 0 where it is not known, and the folders that it was given, without links."""

    port: int = 0
    roots: tuple[Path, ...] = ()


def say_holder(home: Path, port: int, roots: Sequence[Path]) -> None:
    """Write it to the daemon's home; a daemon that cannot is one all the same."""
    try:
        # A name that is no text is written out, and so is no folder that anybody asks for.
        store.save(_file(home), {"port": port, "roots": [in_text(str(root)) for root in roots]})
    except NotAllowed as error:
        log.warning("%s", error)


def said_of_holder(home: Path) -> Holder:
    """What the last holder has said; nothing is known where that cannot be read."""
    said = store.load(_file(home))
    port, roots = said.get("port"), said.get("roots")
    if not isinstance(port, int) or not isinstance(roots, list) or not all(isinstance(one, str) for one in roots):
        return Holder()
    return Holder(port, tuple(map(Path, roots)))


def _file(home: Path) -> Path:
    return home / "daemon.json"
