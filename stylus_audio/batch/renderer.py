"""Renders packs in one process: files in, the bytes of stems out. Nothing is written but into folders of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..engine import Engine, Render
from ..errors import Internal, StylusError
from ..job import fitting, report_of, write_render
from ..provenance import identities
from ..riff import loop_chunk
from ..style_cache import StyleCache
from .packs import Failed, Made, Outcome, Pack, Place, Surveyed, failures

MEMORY_BYTES = 2**29
"""Of kept styles, on the device: several renderers may share a machine's memory."""


class Renderer:
    """One model at a time, warm, with the styles that it has read.

    The stems of a pack depend on nothing but its files and the pack, on one kind of machine at one number of threads.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        torch.set_num_threads(place.threads)
        self._cache = StyleCache(place.cache, MEMORY_BYTES)
        self._engine: Engine | None = None
        self._loaded = ("", "")

    def render(self, pack: Pack, origins: Mapping[str, str]) -> list[Outcome]:
        """What came of each clip, in order, or of a survey the one thing that was found.

        `origins` says of private copies what they are copies of, which is what the reports name.
        """
        try:
            return self._rendered(pack, {Path(copy): Path(origin) for copy, origin in origins.items()})
        except StylusError as error:
            failed = Failed.of(error)
        except Exception as error:  # a fault of ours in one pack must not end the batch
            failed = Failed(Internal.code, f"{type(error).__name__}: {error}")
        return failures(pack, failed.code, failed.message)

    def _rendered(self, pack: Pack, origins: Mapping[Path, Path]) -> list[Outcome]:
        engine = self._on(pack.model or "mini", pack.dtype)
        settings = engine.settings(**pack.settings)
        contents = [Path(content) for content in pack.contents]
        styles = [(Path(path), name) for path, name in pack.styles]
        if pack.survey:
            return [Surveyed(engine.shared(contents, settings))]
        told = [[] if loop is None else [loop_chunk(loop)] for loop in pack.loops]
        # Before they are rendered: a clip that is replaced meanwhile is not what the stem is made of.
        made_of = [_identities(content, styles, origins) for content in contents]
        found = engine.render_several(contents, [path for path, _ in styles], settings, shared=pack.shared, told=told)
        return [
            Failed.of(one) if isinstance(one, StylusError) else self._made(pack, number, one, made_of[number], styles)
            for number, one in enumerate(found)
        ]

    def _made(
        self,
        pack: Pack,
        number: int,
        render: Render,
        made_of: dict[str, Any] | StylusError,
        styles: Sequence[tuple[Path, str]],
    ) -> Outcome:
        try:
            if isinstance(made_of, StylusError):
                raise made_of
            with tempfile.TemporaryDirectory(prefix="stylus-") as folder:
                file = Path(folder) / f"stem{pack.suffixes[number]}"
                render = fitting(render, file)
                report = report_of(render, made_of, styles, pack.model or "mini")
                write_render(render, report, file, "embed" if pack.embed else "none")
                return Made(file.read_bytes(), report, render.lowered_db)
        except StylusError as error:
            return Failed.of(error)

    def _on(self, model: str, dtype: str) -> Engine:
        if self._engine is None or self._loaded != (model, dtype):
            # The old one first: two may not fit into memory.
            self._engine = None
            self._engine = Engine(model, self.place.device, dtype, self._cache)
            self._loaded = (model, dtype)
        return self._engine


def _identities(
    content: Path, styles: Sequence[tuple[Path, str]], origins: Mapping[Path, Path]
) -> dict[str, Any] | StylusError:
    try:
        return identities(content, styles, origins)
    except StylusError as error:
        # Rendering fails of it too, or the file came back meanwhile.
        return error
