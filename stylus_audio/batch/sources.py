"""Whether the files that a stem was made from are still the same: by size and time, else by SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..audio import sha256
from ..errors import StylusError
from ..weights import fingerprint, located, named
from .plan import Item


class Sources:
    """Looks at each file once."""

    def __init__(self) -> None:
        self._stamps: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._weights: dict[str, str] = {}

    def stamp(self, item: Item) -> str:
        """Sizes and times of the clip and its styles, and the model's SHA-256; "" where a file is not there."""
        files = [item.stamp, *(self._stamp(path) for path, _ in item.sound.styles)]
        if not all(files):
            return ""
        return " ".join((*files, self.weights(item.sound.options.model)))

    def same(self, item: Item, stamp: str, report: Mapping[str, Any]) -> bool:
        """Whether a stem of another stamp, with its report, is of these very files and weights, by their contents."""
        files, _, weights = stamp.rpartition(" ")
        try:
            # A model that was not there when its run began: the run has downloaded it, and the report says which.
            if self.weights(item.sound.options.model) not in (weights, weights or report["model"]["sha256"]):
                return False
            if files == self.stamp(item).rpartition(" ")[0]:
                return True
            told = [report["content"]["sha256"], *(style["sha256"] for style in report["styles"])]
            paths = [item.content, *(path for path, _ in item.sound.styles)]
            return told == [self._digest(path) for path in paths]
        except (KeyError, TypeError, OSError):
            return False

    def weights(self, model: str) -> str:
        """SHA-256 of a model's weights; "" where they are not on this machine."""
        model = model or "mini"
        if model not in self._weights:
            self._weights[model] = ""
            with suppress(StylusError, OSError):
                known = named(model)
                self._weights[model] = fingerprint(known, located(known, download=False))
        return self._weights[model]

    def _stamp(self, path: str) -> str:
        if path not in self._stamps:
            try:
                about = Path(path).stat()
                self._stamps[path] = f"{about.st_size}:{about.st_mtime_ns}"
            except OSError:
                self._stamps[path] = ""
        return self._stamps[path]

    def _digest(self, path: str) -> str:
        if path not in self._digests:
            self._digests[path] = sha256(Path(path))
        return self._digests[path]
