"""Which waiting jobs are rendered together with the one that is next: short clips in one style and settings.

Their windows go through the network in the same passes (`Engine.render_several`). A batch stays short, since a job of
higher priority that comes meanwhile waits until it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from stylus_audio.settings import Settings
from stylus_audio.target import Target, stem_path

from .jobs import Job
from .request import RenderJob

CLIPS = 16
"""The most clips of a batch: as many windows as a pass on a GPU has."""
SECONDS = 60.0
"""The most audio of a batch."""
LONGEST = 10.0
"""Seconds of the longest clip that is batched; the windows of a longer one fill passes by themselves."""


def default_size(device: str) -> int:
    """How many clips go together on a type of device, "cpu", "cuda" or "mps", where nobody says it.

    One at a time on a CPU, which is busy with the windows of one clip.
    """
    return 1 if device == "cpu" else CLIPS


def can_share(job: Job) -> bool:
    """Whether a job may go with others at all: a render, under which no worker has died before, of the whole stem and
    with settings that hold for any clip.

    After a death each is tried alone, so that one clip that no worker survives does not take its company down twice.
    """
    request = RenderJob.from_dict(job.request)
    if request.kind != "render" or job.attempts > (job.state == "running"):
        return False
    settings = Settings.parse(request.settings)
    return settings.preview is None and settings.auto is None


def companions(
    first: Job, waiting: Iterable[Job], size: int, seconds: Callable[[RenderJob], float | None]
) -> list[int]:
    """Which of the waiting jobs are rendered with one that may be shared, by their numbers: at most `size` - 1.

    `seconds` says how long a job's clip is, None where that cannot be told.
    """
    lead = RenderJob.from_dict(first.request)
    length = seconds(lead)
    if length is None or length > LONGEST:
        return []
    chosen: list[int] = []
    replaced = _replaced(lead)
    for job in waiting:
        if len(chosen) >= size - 1:
            break
        request = RenderJob.from_dict(job.request)
        # Every clip is read before the first stem is written.
        if not _alike(lead, request) or Path(request.content) in replaced:
            continue
        more = seconds(request)
        if more is None or more > LONGEST:
            continue
        if length + more > SECONDS:
            break
        chosen.append(job.id)
        length += more
        replaced |= _replaced(request)
    return chosen


def _alike(one: RenderJob, other: RenderJob) -> bool:
    """Whether two jobs differ in no more than clip and stem."""
    return (one.kind, one.styles, one.settings, one.model, one.dtype) == (
        other.kind, other.styles, other.settings, other.model, other.dtype,
    )  # fmt: skip


def _replaced(request: RenderJob) -> set[Path]:
    """The file that a job may replace."""
    if not request.overwrite:
        return set()
    names = [name for _, name in request.styles]
    return {request.target / stem_path(Path(request.content), names, Target(Path(request.file), request.name))}
