"""What a job asks for, as it lies in the queue: checked once when it comes, and read by the worker."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stylus_audio.options import Options
from stylus_audio.places import user_data
from stylus_audio.settings import OPTIONS, setting_of
from stylus_audio.target import DEFAULT_NAME, Sidecar


@dataclass(frozen=True)
class RenderJob:
    """One render, or with `kind` "warm" the reading of its styles alone, or with "audition" the gains of the content's
    passage in each of them. Paths are absolute and without links.
    """

    content: str
    styles: tuple[tuple[str, str], ...]
    """Files, and the names that they go by."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What was asked for, over the model's own defaults; checked, and kept as typed."""
    model: str = ""
    """"" is the daemon's."""
    dtype: str = "auto"
    folder: str = ""
    """Where the stem goes."""
    file: str = ""
    """The stem's name; "" makes it by `name`."""
    name: str = DEFAULT_NAME
    overwrite: bool = False
    sidecar: Sidecar = "file"
    kind: Literal["render", "warm", "audition"] = "render"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RenderJob:
        """As the queue keeps it."""
        styles = tuple((str(path), str(name)) for path, name in values["styles"])
        return cls(**{**values, "styles": styles})

    @property
    def target(self) -> Path:
        """The folder of the stem."""
        return Path(self.folder)

    def work(self, digests: Sequence[str]) -> str:
        """The name of a piece of work: the same clip, styles and settings to the same place are done once.

        `digests` are the SHA-256 of the clip and of each style.
        """
        asked = [list(digests), self.settings, self.model, str(self.target / self.file)]
        # Only where it is asked for: what was done before there was this choice stays done.
        asked += [self.dtype] if self.dtype != "auto" else []
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def with_options(content: Path, styles: list[tuple[Path, str]], values: Mapping[str, Any]) -> RenderJob:
    """A render of which `values` are options as typed: settings, and what is about the stem.

    `output` is not among them: its place is checked by who knows what is allowed. Raises `BadRequest`.
    """
    asked = Options.parse(values)
    return RenderJob(
        str(content), tuple((str(path), known) for path, known in styles), asked.settings, asked.model, asked.dtype,
        name=asked.name, overwrite=asked.overwrite, sidecar=asked.sidecar,
    )  # fmt: skip


def as_command(job: RenderJob) -> str:
    """The command line that renders the same."""
    words = ["stylus", "render", job.content]
    for style in job.styles:
        words += ["--style", _reference(style)]
    for name, value in {**job.settings, **_about(job)}.items():
        option = f"--{name.replace('_', '-')}"
        if name in ("injection", "no_injection"):
            words += ["--no-injection"] * (bool(value) == (name == "no_injection"))
        elif value not in ("", None):
            words += [option, _plain(value, name)]
    words += ["--overwrite"] * job.overwrite
    return shlex.join(words)


def as_message(job: RenderJob) -> str:
    """The OSC message that asks for the same, texts in quotation marks."""
    first, *more = [_reference(style) for style in job.styles]
    values = [
        word
        for name, value in job.settings.items()
        if value is not None
        for word in (name, _plain(value, name) if isinstance(value, list | tuple) else value)
    ]
    about = [word for pair in _about(job).items() for word in pair] + ["overwrite", True] * job.overwrite
    words = [job.content, first, *(word for style in more for word in ("style", style)), *values, *about]
    # Any other request id would have it rendered once, however often it is sent.
    return " ".join(["/stylus/render", "0", *(json.dumps(word, ensure_ascii=False) for word in words)])


def _about(job: RenderJob) -> dict[str, str]:
    """What was asked for beside the sound, where it is not the default."""
    about = {
        "model": job.model, "dtype": job.dtype if job.dtype != "auto" else "",
        "name": job.name if job.name != DEFAULT_NAME else "", "sidecar": job.sidecar if job.sidecar != "file" else "",
        "output": str(job.target / job.file) if job.target != Path(job.content).parent or job.file else "",
    }  # fmt: skip
    return {name: value for name, value in about.items() if value}


def _reference(style: tuple[str, str]) -> str:
    """A style as a user says it: by its name where it is the library's."""
    path, name = style
    return name if Path(path).parent == (user_data() / "styles").resolve() else path


def _plain(value: object, name: str) -> str:
    """A value as it is typed: of a list FIRST:LAST where a line over the steps is asked for."""
    if not isinstance(value, list | tuple):
        return str(value)
    known = OPTIONS.get(setting_of(name))
    return (":" if known and known.kind == "line" else ",").join(map(str, value))
