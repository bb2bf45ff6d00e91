"""What stands in for a renderer where only the giving out of work is tested: quick, and its answer can be foretold."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

from stylus_audio.batch.packs import Failed, Made, Outcome, Pack, Place


class Hashing:
    """A stem is the hash of content and styles.

    Of a pack's settings `seconds` are how long it takes, `deadly` ends the process, `broken` raises, and nothing under
    `unseen` exists for it.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    def render(self, pack: Pack, origins: Mapping[str, str]) -> list[Outcome]:
        """One outcome for each content."""
        time.sleep(pack.settings.get("seconds", 0))
        if pack.settings.get("deadly"):
            os._exit(1)
        if pack.settings.get("broken"):
            raise ValueError("too much of it")
        return [self._one(pack, content, origins) for content in pack.contents]

    def _one(self, pack: Pack, content: str, origins: Mapping[str, str]) -> Outcome:
        hash_ = hashlib.sha256()
        for path in (content, *(path for path, _ in pack.styles)):
            unseen = pack.settings.get("unseen")
            if not Path(path).is_file() or (unseen and Path(path).is_relative_to(unseen)):
                return Failed("not-found", f"{path} does not exist")
            hash_.update(Path(path).read_bytes())
        read = [origins.get(path, path) for path in pack.files]
        report = {"content": origins.get(content, content), "files": read, "process": os.getpid()}
        place = {"threads": self._place.threads, "device": self._place.device}
        return Made(hash_.digest(), {**report, **place, "visible": os.environ.get("CUDA_VISIBLE_DEVICES")})
