"""Which waiting jobs are rendered together with the one that is next: short clips in one style and settings.

Their windows go through the network in the same passes (`Engine.render_several`). A batch stays short, since a job of
higher priority that comes meanwhile waits until it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from stylus_audio.errors import BadRequest
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
    """How many clips go together on a type of device ("cpu", "cuda", "mps") where nobody says it.

    One on a CPU: there the windows of a single clip are work enough.
    """
    return 1 if device == "cpu" else CLIPS


def can_share(job: Job) -> bool:
    """Whether a claimed job may go with others at all: a render of the whole clip whose settings are the user's.

    Not one under which a worker has died: tried alone, it cannot take its company down twice.
    """
    request = RenderJob.from_dict(job.request)
    if request.kind != "render" or job.attempts > 1:
        return False
    try:
        settings = Settings.parse(request.settings)
    except BadRequest:
        return False  # it hears by itself what is wrong with it
    return settings.preview is None and settings.auto is None


def companions(
    first: Job, waiting: Iterable[Job], size: int, workers: int, seconds: Callable[[RenderJob], float | None]
) -> list[int]:
    """The numbers of the waiting jobs that go with a claimed one that can share, so that all are `size` at most.

    Of what could go together, each of so many `workers` takes its share. `seconds` says how long a job's clip is, None
    where that cannot be told.
    """
    lead = RenderJob.from_dict(first.request)
    alike = [(job.id, request) for job in waiting if _alike(lead, request := RenderJob.from_dict(job.request))]
    room = min(size, -(-(1 + len(alike)) // workers)) - 1
    length = _short(seconds(lead)) if room else None
    if length is None:
        return []
    chosen: list[int] = []
    replaced = _replaced(lead)
    for number, request in alike:
        # Every clip is read before the first stem is written.
        if len(chosen) == room or Path(request.content) in replaced:
            break
        more = _short(seconds(request))
        if more is None:
            continue
        if length + more > SECONDS:
            break
        chosen.append(number)
        length += more
        replaced |= _replaced(request)
    return chosen


def _short(seconds: float | None) -> float | None:
    return None if seconds is None or seconds > LONGEST else seconds


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
