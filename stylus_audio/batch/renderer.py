"""Renders packs one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .packs import Outcome, Pack


@dataclass(frozen=True)
class Place:
    """Where a renderer works: the device, its CPU threads, and the folder that styles are cached in."""

    device: str
    threads: int
    cache: Path | None


class Renderer:
    """Renders packs one after the other in one process."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def render(self, pack: Pack, origins: Mapping[str, str] | None = None) -> list[Outcome]:
        """One outcome for each content, in order."""
        raise NotImplementedError
