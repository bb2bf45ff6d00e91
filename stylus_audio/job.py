"""One render from files to files: what command line, batch and daemon have in common."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .audio import read_clip
from .engine import Engine, Render
from .errors import NotAllowed, StylusError
from .files import alike
from .finish import lowered, within_full_scale
from .metrics import Timbre, evaluate
from .near_live import NearLive
from .progress import Progress
from .provenance import CHUNK, identities, identity, is_sidecar, sidecar, stem_of
from .riff import Chunk, shifted
from .settings import Settings
from .stem import SUFFIXES, Journal, check_target, holds_floats, write_stem
from .target import Sidecar, Target, stem_path
from .unchanged import WhileUnchanged


@dataclass(frozen=True)
class Result:
    """A stem on disk."""

    path: Path
    render: Render
    report: dict[str, Any]


@dataclass(frozen=True)
class FileRender:
    """A render from files to files: what is looked at before it, and what it leaves on the disk.

    `styles` are files with the names that they go by; `origins` says of private copies what they are copies of, which
    is what the sidecar names and what is never replaced.
    """

    content: Path
    styles: Sequence[tuple[Path, str]]
    target: Target
    model: str = "mini"
    origins: Mapping[Path, Path] = field(default_factory=dict)

    @cached_property
    def path(self) -> Path:
        """The stem's, before a free name is looked for, as what is there at first says: a folder may go meanwhile."""
        return stem_path(self.content, [name for _, name in self.styles], self.target)

    @cached_property
    def made_of(self) -> dict[str, Any]:
        """What the stem is made of; asked for before the render, after which the files may be others, or gone."""
        return identities(self.content, self.styles, self.origins)

    @property
    def sources(self) -> list[Path]:
        """What is never replaced."""
        return [self.origins.get(file, file) for file in (self.content, *(file for file, _ in self.styles))]

    def check(self) -> None:
        """Raise what `write` would, as far as that can be known before there is a render."""
        check_target(self.path, self.target.overwrite, self.sources)
        self._check_sidecar()

    def _check_sidecar(self) -> None:
        """`NotAllowed` where the stem's sidecar would replace something else, or another stem's."""
        beside = self.path.with_suffix(".json")
        if self.target.sidecar != "file" or not self.target.overwrite or not os.path.lexists(beside):
            return
        others = [one for one in beside.parent.iterdir() if alike(one.stem) == alike(self.path.stem)]
        others = [one for one in others if one.suffix.lower() in SUFFIXES and one.name != self.path.name]
        if not is_sidecar(beside):
            why = "is no sidecar of ours"
        elif others and not self._has(stem_of(beside)):
            why = f"belongs to {stem_of(beside) or others[0].name}"
        else:
            return
        raise NotAllowed(f"{beside} {why}; give the stem another name, or --sidecar none")

    def _has(self, stem: str | None) -> bool:
        """Whether a sidecar that names this stem is ours; where it names none, the stem that is there has it."""
        return self.path.exists() if stem is None else stem == self.path.name

    def write(self, render: Render, journal: Journal | None = None) -> Result:
        """Put the stem and its sidecar on the disk, both or neither; raises what `write_stem` does."""
        # Much may have come there since the render began, and gone: a stem is not lost with its folder.
        with suppress(OSError):
            self.path.parent.mkdir(exist_ok=True)
        self._check_sidecar()
        render = fitting(render, self.path)
        report = report_of(render, self.made_of, self.styles, self.model)
        written = write_render(
            render, report, self.path, self.target.sidecar,
            overwrite=self.target.overwrite, protect=self.sources, journal=journal,
        )  # fmt: skip
        self._drop_old_sidecar()
        return Result(written, render, report)

    def _drop_old_sidecar(self) -> None:
        """Take away what told of the stem that has been replaced, where the new one has no file beside it."""
        beside = self.path.with_suffix(".json")
        if self.target.overwrite and self.target.sidecar != "file":
            # One that cannot be removed is no reason to lose a render.
            with suppress(OSError):
                if stem_of(beside) == self.path.name:
                    beside.unlink()


def render_file(
    engine: Engine,
    content: Path,
    styles: Sequence[tuple[Path, str]],
    settings: Settings,
    target: Target,
    model: str = "mini",
    progress: Progress | None = None,
    near_live: NearLive | None = None,
) -> Result:
    """Render one file and write its stem and sidecar, both or neither; files as in `FileRender`.

    Raises what `Engine.render` and `write_stem` raise.
    """
    files = FileRender(content, styles, target, model)
    files.check()
    engine.check(content, [file for file, _ in styles], settings)
    # The sidecar tells of the files as they are now.
    _ = files.made_of
    return files.write(engine.render(content, [file for file, _ in styles], settings, progress, near_live))


def fitting(render: Render, path: Path) -> Render:
    """The render as a file of this name holds it: FLAC has no floats, and would clip what is over full scale."""
    if holds_floats(path, render.subtype):
        return render
    audio, over = within_full_scale(render.audio)
    if over == 0:
        return render
    report = {**render.report, "notes": [*render.report["notes"], *lowered(over)]}
    return replace(render, audio=audio, report=report, lowered_db=render.lowered_db + over)


def report_of(
    render: Render, made_of: dict[str, Any], styles: Sequence[tuple[Path, str]], model: str = "mini"
) -> dict[str, Any]:
    """The sidecar's content; `made_of` are the `identities` of clip and styles from before the render."""
    return sidecar(render.report, made_of, _metrics(render, styles[0][0], made_of["styles"][0]["sha256"]), model)


def write_render(
    render: Render,
    report: dict[str, Any],
    path: Path,
    sidecar: Sidecar = "file",
    *,
    overwrite: bool = False,
    protect: Sequence[Path] = (),
    journal: Journal | None = None,
) -> Path:
    """Write a stem with the chunks of its clip, and its report where it is wanted; returns and raises what `write_stem`
    does.
    """
    chunks = shifted(render.clip.chunks, render.passage.offset, render.audio.shape[1], render.clip.total)
    if sidecar == "embed":
        chunks = (*chunks, Chunk(CHUNK, _json(report)))
    return write_stem(
        render.audio,
        render.sample_rate,
        path,
        subtype=render.subtype,
        chunks=chunks,
        overwrite=overwrite,
        seed=int(report["settings"]["seed"]),
        sidecar=(lambda stem: _json({"stem": stem.name, **report})) if sidecar == "file" else None,
        protect=protect,
        journal=journal,
    )


def _json(report: dict[str, Any]) -> bytes:
    return (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode("utf-8")


def _metrics(render: Render, style: Path, digest: str) -> dict[str, Any]:
    """The metrics of a stem against the same passage of its content, and the style, while that is what it was."""
    passage = render.passage
    timbre = None
    # A stem is not lost with a file that has been moved since.
    with suppress(StylusError, OSError):
        timbre = _timbre(style) if identity(style)["sha256"] == digest else None
    return evaluate(
        render.audio,
        passage.dry[:, passage.first : passage.last],
        timbre,
        sample_rate=render.sample_rate,
        seams=render.report["seams"],
    )


def _timbre_of(path: Path) -> Timbre:
    clip = read_clip(path)
    return Timbre.heard(clip.audio, clip.sample_rate)


_timbre = WhileUnchanged(_timbre_of, 64)
"""Of a style, which many stems have in common."""
