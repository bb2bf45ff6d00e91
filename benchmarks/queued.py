"""Short clips in the daemon's queue: a worker that renders them together beside one that takes one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import soundfile
from stylus_daemon.jobs import Jobs, queue_file
from stylus_daemon.request import with_options
from stylus_daemon.worker import Worker
from stylus_daemon.worker_messages import Plan

from stylus_audio import Engine
from stylus_audio.model import choose_device
from stylus_audio.options import Options
from stylus_audio.style_cache import StyleCache
from tests.sounds import RATE, Audio, plucks

from .batch import one_shots
from .table import Row, apart, side_by_side


class _Ready(Worker):
    """A worker with a queue of its own and an engine that is there already; its stems go to a folder of its own."""

    def __init__(self, engine: Engine, folder: Path, batch_size: int) -> None:
        home, self.stems = folder / f"home {batch_size}", folder / f"stems {batch_size}"
        self.stems.mkdir()
        plan = Plan("worker-0", home, "", str(engine.model.device), (folder,), batch_size=batch_size)
        super().__init__(plan, Jobs(queue_file(home)), lambda _: None, lambda: False)
        self._ready = engine

    def engine(self, model: str, progress: Callable[[float, str], None], dtype: str = "auto") -> Engine:
        return self._ready

    def render(self, clips: list[Path], style: Path, options: dict[str, Any]) -> list[Audio]:
        """Ask for all, then do all that was asked; the stems."""
        for clip in clips:
            request = with_options(clip, [(style, style.stem)], {"bits": "32f", **options})
            asked = replace(request, folder=str(self.stems), file=clip.name, overwrite=True)
            self.jobs.submit(asked.to_dict())
        while self.loop():
            pass
        failed = [job.message for job in self.jobs.listed("failed")]
        assert not failed, failed[0]
        return [soundfile.read(self.stems / clip.name, dtype="float32")[0] for clip in clips]


def queued(engine: Engine, name: str, clips: int, rounds: int, **options: Any) -> Row:
    """Seconds of one-shots in the queue taken one at a time over those of them taken together, from files to files.

    The style's features are there in both; `options` are those of a render.
    """
    with TemporaryDirectory() as made:
        folder = Path(made).resolve()
        shots = one_shots(folder / "clips", clips)
        soundfile.write(folder / "style.wav", plucks(7.5).T, RATE)
        engine.warm(folder / "style.wav", engine.settings(**Options.parse(options).settings))
        workers = [_Ready(engine, folder, size) for size in (1, clips)]
        ways = [partial(worker.render, shots, folder / "style.wav", options) for worker in workers]
        results, taken, peaks = side_by_side(ways, rounds)
        for worker in workers:
            worker.jobs.close()
    difference = max(apart(one, other) for one, other in zip(*results, strict=True))
    limit = 2.0 if engine.model.device.type == "cuda" else None
    row = f"{clips} one-shots in the queue, one at a time over together: {name}"
    return Row(row, taken[0] / taken[1], difference, peaks[1], limit, tuple(taken))


def embedded(name: str, clips: int, rounds: int, **options: Any) -> Row:
    """`queued` on an embedded model; on a CPU in float32, where both ways give the same."""
    device = choose_device().type
    engine = Engine(name, device, "float32" if device == "cpu" else "auto", StyleCache())
    return queued(engine, name, clips, rounds, **options)
