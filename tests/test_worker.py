"""What the worker does with a job when memory, files or styles fail it, with a real engine and a real queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from stylus_daemon.jobs import Job, Jobs
from stylus_daemon.request import with_options
from stylus_daemon.worker import Worker
from stylus_daemon.worker_messages import Condition, News, Plan, identity

from stylus_audio import library
from tests.sounds import RATE, noise, plucks

WINDOWS = 5
"""More than a pass may have in some tests."""


class Shop:
    """A worker of this process, and a folder with a clip and a style."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        soundfile.write(folder / "clip.wav", plucks(0.64 * WINDOWS / 2).T, RATE, subtype="FLOAT")
        soundfile.write(folder / "style.wav", noise(0.8).T, RATE)
        self.home = folder / "home"
        self.home.mkdir()
        self.jobs = Jobs(self.home / "jobs.sqlite")
        self.news: list[News] = []
        plan = Plan("worker-0", self.home / "jobs.sqlite", self.home, str(model), "cpu", (folder,))
        self.worker = Worker(plan, self.jobs, self.news.append, lambda: False)
        self.engine = self.worker.engine(str(model), lambda *_: None)
        self._asked = 0

    def submit(self, **options: Any) -> int:
        """Ask for the clip in the style."""
        self._asked += 1
        request = with_options(self.folder / "clip.wav", [(self.folder / "style.wav", "style")], options)
        return self.jobs.submit(replace(request, folder=str(self.folder)).to_dict(), "test", str(self._asked)).id

    def do(self, **options: Any) -> Job:
        """Submit and render; the job as it has ended."""
        number = self.submit(**options)
        assert self.worker.loop()
        return self.jobs.get(number)

    def is_warm(self, reference: Path | str) -> bool:
        """As last told."""
        told = [one for one in self.news if isinstance(one, Condition)][-1]
        return identity(Path(reference)) in told.warm_styles


@pytest.fixture
def shop(tmp_path: Path, tiny_folder: Path) -> Iterator[Shop]:
    one = Shop(tmp_path, tiny_folder)
    yield one
    one.jobs.close()


@contextmanager
def room_for(shop: Shop, fits: Callable[[int], bool]) -> Iterator[None]:
    """A device on which only some numbers of windows fit."""

    def check(_: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        sample = arguments[0] if arguments else named["sample"]
        if not fits(len(sample)):
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = shop.engine.model.unet.register_forward_pre_hook(check, with_kwargs=True)
    yield
    hook.remove()


def test_where_memory_does_not_suffice_fewer_windows_are_rendered_at_a_time(shop: Shop) -> None:
    plain = shop.do(name="plain")
    with room_for(shop, lambda windows: windows <= 2):
        job = shop.do(name="narrow")
    assert (job.state, job.attempts) == ("done", 1)
    assert "memory did not suffice; 2 windows at a time" in job.notes
    one, other = (soundfile.read(path)[0] for path in (plain.path, job.path))
    # Sums over other batches round otherwise.
    assert np.abs(one - other).max() < 1e-4


def test_where_no_number_of_windows_fits_the_job_fails_and_the_next_is_done(shop: Shop) -> None:
    with room_for(shop, lambda _: False):
        job = shop.do()
    assert (job.state, job.code) == ("failed", "out-of-memory")
    assert shop.engine.windows_per_pass == 1
    assert shop.engine.feature_budget == 0
    assert sorted(path.name for path in shop.folder.iterdir()) == ["clip.wav", "home", "style.wav"]
    assert shop.do().state == "done"


def test_a_style_is_warm_once_it_was_read_with_the_default_settings(shop: Shop) -> None:
    style = shop.folder / "style.wav"
    shop.do(steps=2)
    assert not shop.is_warm(style)
    shop.do()
    assert shop.is_warm(style)
    soundfile.write(style, noise(0.5, seed=4).T, RATE)
    assert not shop.is_warm(style)


def test_a_worker_finds_the_warm_styles_of_the_library_and_minds_no_damaged_one(shop: Shop, tiny_folder: Path) -> None:
    warm, cold, damaged = (library.add(name, shop.folder / "style.wav") for name in ("warm", "cold", "damaged"))
    soundfile.write(cold.path, noise(0.5, seed=4).T, RATE)
    Path(damaged.path).write_bytes(b"not audio")
    shop.engine.warm(Path(warm.path), shop.engine.settings())
    again = Worker(shop.worker.plan, shop.jobs, shop.news.append, lambda: False)
    again.engine(str(tiny_folder), lambda *_: None)
    assert not again.loop()
    while again.look():
        pass
    assert [shop.is_warm(one.path) for one in (warm, cold, damaged)] == [True, False, False]
