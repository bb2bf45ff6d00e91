"""What the worker does with a job when memory, files or styles fail it, with a real engine and a real queue."""

from __future__ import annotations

import json
import shutil
import sqlite3
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
import torch
from stylus_daemon import batch
from stylus_daemon.jobs import Job, Jobs, queue_file
from stylus_daemon.request import RenderJob, with_options
from stylus_daemon.worker import Worker
from stylus_daemon.worker_messages import Condition, News, Plan, Progress, identity

from stylus_audio import library
from stylus_audio.audio import sha256
from stylus_audio.engine import Engine, Render
from stylus_audio.errors import NotAllowed, OutOfMemory
from stylus_audio.gains import Gains
from stylus_audio.passage import Passage
from tests.sounds import RATE, Audio, noise, plucks, tone

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
        self.jobs = Jobs(queue_file(self.home))
        self.news: list[News] = []
        plan = Plan("worker-0", self.home, str(model), "cpu", (folder,), batch_size=16)
        self.worker = Worker(plan, self.jobs, self.news.append, lambda: False)
        self.engine = self.worker.engine(str(model), lambda *_: None)
        self._asked = 0

    def submit(self, clip: str = "clip.wav", **options: Any) -> int:
        """Ask for a clip in the style."""
        self._asked += 1
        request = with_options(self.folder / clip, [(self.folder / "style.wav", "style")], options)
        return self.jobs.submit(replace(request, folder=str(self.folder)).to_dict(), "test", str(self._asked)).id

    def do(self, **options: Any) -> Job:
        """Submit and render; the job as it has ended."""
        number = self.submit(**options)
        assert self.worker.loop()
        return self.jobs.get(number)

    def save(self, *clips: Audio) -> list[str]:
        """The names of files with these sounds."""
        names = [f"clip {number}.wav" for number in range(len(clips))]
        for name, audio in zip(names, clips, strict=True):
            soundfile.write(self.folder / name, audio.T, RATE, subtype="FLOAT")
        return names

    def is_warm(self, reference: Path | str) -> bool:
        """As last told."""
        told = [one for one in self.news if isinstance(one, Condition)][-1]
        return identity(Path(reference)) in told.warm_styles


@pytest.fixture
def shop(tmp_path: Path, tiny_folder: Path) -> Iterator[Shop]:
    one = Shop(tmp_path, tiny_folder)
    yield one
    one.jobs.close()


FULL = (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("MPS backend out of memory (MPS allocated: 5 GiB)"))


@contextmanager
def room_for(shop: Shop, fits: Callable[[int], bool], full: Exception = FULL[0]) -> Iterator[None]:
    """A device on which only some numbers of windows fit."""

    def check(_: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        sample = arguments[0] if arguments else named["sample"]
        if not fits(len(sample)):
            raise full

    hook = shop.engine.model.unet.register_forward_pre_hook(check, with_kwargs=True)
    yield
    hook.remove()


@pytest.mark.parametrize("full", FULL)
def test_where_memory_does_not_suffice_fewer_windows_are_rendered_at_a_time(shop: Shop, full: Exception) -> None:
    plain = shop.do(name="plain")
    with room_for(shop, lambda windows: windows <= 2, full):
        job = shop.do(name="narrow")
    assert (job.state, job.attempts) == ("done", 1)
    assert "memory did not suffice; 2 windows at a time" in job.notes
    one, other = (soundfile.read(path)[0] for path in (plain.path, job.path))
    # Sums over other batches round otherwise.
    assert np.abs(one - other).max() < 1e-4


@pytest.mark.parametrize("changed", ["clip.wav", "style.wav"])
def test_a_job_of_a_file_that_has_changed_since_is_not_done(shop: Shop, changed: str) -> None:
    files = [shop.folder / "clip.wav", shop.folder / "style.wav"]
    request = with_options(files[0], [(files[1], "style")], {"name": "stem"})
    meant = replace(request, folder=str(shop.folder), file="stem.wav")
    work = meant.work([sha256(file) for file in files])
    shop.jobs.submit(meant.to_dict(), once=work)
    assert shop.worker.loop()
    shop.jobs.release(work, 1)
    soundfile.write(shop.folder / changed, noise(1.0, seed=7).T, RATE)
    number = shop.jobs.submit(meant.to_dict(), once=work).id
    assert shop.worker.loop()
    job = shop.jobs.get(number)
    assert (number, job.state, job.code) == (2, "failed", "not-found")
    assert "changed" in job.message
    assert sorted(path.stem for path in shop.folder.glob("*.wav")) == ["clip", "stem", "style"]


def test_where_no_number_of_windows_fits_the_job_fails_and_the_next_is_done(shop: Shop) -> None:
    with room_for(shop, lambda _: False):
        job = shop.do()
    assert (job.state, job.code) == ("failed", "out-of-memory")
    assert sorted(path.name for path in shop.folder.iterdir()) == ["clip.wav", "home", "style.wav"]
    after = shop.do()
    assert (after.state, after.notes) == ("done", ())
    # Styles are kept in memory as before.
    assert shop.worker.cache.statistics().device.entries == 1


def test_after_a_job_that_the_cpu_took_over_the_next_is_tried_on_the_device(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = shop.worker._load

    def noted(what: tuple[str, str], device: str, progress: Callable[[float, str], None]) -> Engine:
        loaded.append(device)
        return load(what, device, progress)

    def full(*_: object) -> None:
        raise OutOfMemory("not enough memory on the device for this render")

    shop.worker.plan = replace(shop.worker.plan, device="auto")
    monkeypatch.setattr(shop.worker, "_load", noted)
    # An engine on some device that is full.
    shop.engine.model.unet.to("meta")
    monkeypatch.setattr(shop.engine, "render_several", full)
    assert shop.do(name="large").notes == ("the CPU took over: the device's memory did not suffice",)
    assert loaded == ["cpu"]
    assert shop.do(name="small").notes == ()
    assert loaded == ["cpu", "auto"]


def test_an_audition_that_the_cpu_takes_over_begins_anew(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    styles = [(shop.folder / f"{name}.wav", name) for name in ("style", "clip")]
    request = with_options(shop.folder / "clip.wav", styles, {"steps": 1})
    number = shop.jobs.submit(replace(request, kind="audition", folder=str(shop.folder)).to_dict()).id

    def full(_: Passage, copies: Iterator[Path], *__: object) -> Iterator[Gains]:
        next(copies)
        raise OutOfMemory("not enough memory on the device for this render")
        yield

    shop.worker.plan = replace(shop.worker.plan, device="auto")
    shop.engine.model.unet.to("meta")
    monkeypatch.setattr(shop.engine, "audition", full)
    assert shop.worker.loop()
    assert (shop.jobs.get(number).state, shop.jobs.get(number).message) == ("done", "")


def test_the_model_of_one_job_is_not_what_others_take(shop: Shop, tmp_path: Path, tiny_folder: Path) -> None:
    other = shutil.copytree(tiny_folder, tmp_path / "other")
    assert shop.do(model=str(other)).state == "done"
    assert [one for one in shop.news if isinstance(one, Condition)][-1].model == shop.worker.plan.model


def test_when_the_cpu_takes_over_nothing_is_left_of_the_attempt_on_the_device(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    had: list[weakref.ref[Any]] = [weakref.ref(shop.engine), weakref.ref(shop.engine.model.unet)]
    left: list[list[bool]] = []
    load = shop.worker._load

    def noted(what: tuple[str, str], device: str, progress: Callable[[float, str], None]) -> Engine:
        left.append([ref() is not None for ref in had])
        return load(what, device, progress)

    def full(*_: object) -> None:
        latent = torch.zeros(1)
        had.append(weakref.ref(latent))
        raise OutOfMemory("not enough memory on the device for this render")

    monkeypatch.setattr(shop.worker, "_load", noted)
    shop.engine.model.unet.to("meta")
    # By no patch, which would hold the engine.
    vars(shop.engine)["render_several"] = full
    del shop.engine
    assert shop.do().state == "done"
    assert left == [[False, False, False]]


def test_where_the_model_does_not_fit_the_device_the_cpu_takes_over(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = shop.worker._load

    def full(what: tuple[str, str], device: str, progress: Callable[[float, str], None]) -> Engine:
        if device != "cpu":
            raise OutOfMemory("not enough memory on cuda for tiny")
        return load(what, device, progress)

    shop.worker.plan = replace(shop.worker.plan, device="cuda")
    shop.worker._drop()
    monkeypatch.setattr(shop.worker, "_load", full)
    monkeypatch.setattr("stylus_daemon.worker.choose_device", lambda _: torch.device("meta"))
    assert shop.do(steps=1).notes == ("the CPU took over: the device's memory did not suffice",)


def test_a_model_that_cannot_be_loaded_leaves_the_former(shop: Shop, tiny_folder: Path) -> None:
    former, damaged = str(tiny_folder), str(shutil.copytree(tiny_folder, shop.folder / "damaged"))
    Path(damaged, "scheduler", "scheduler_config.json").write_text("[]", "utf-8")
    shop.worker.choose(damaged)
    said = [one for one in shop.news if isinstance(one, Condition)]
    assert [(one.state, one.model) for one in said] == [("loading", damaged), ("loading", former), ("idle", former)]
    assert "cannot be loaded" in said[-1].trouble
    assert shop.do(steps=1).state == "done"
    shop.worker.choose(former)
    last = shop.news[-1]
    assert isinstance(last, Condition)
    assert (last.state, last.model, last.trouble) == ("idle", former, "")


@pytest.mark.parametrize("kind", ["warm", "audition"])
def test_a_style_that_is_being_read_can_be_cancelled(shop: Shop, kind: Literal["warm", "audition"]) -> None:
    style = shop.folder / "style.wav"
    request = with_options(style, [(style, "style")], {"steps": 9})
    number = shop.jobs.submit(replace(request, kind=kind, folder=str(shop.folder)).to_dict()).id
    passes = []

    def turn(*_: object) -> None:
        passes.append(1)
        shop.jobs.cancel(number)

    hook = shop.engine.model.unet.register_forward_pre_hook(turn)
    with patch.object(batch, "SAYS", 0):
        assert shop.worker.loop()
    hook.remove()
    assert (shop.jobs.get(number).state, len(passes)) == ("cancelled", 1)


# --- The queue and the folders of stems


def test_a_queue_that_cannot_be_written_is_no_jobs_fault(shop: Shop) -> None:
    numbers = [shop.submit(name=f"stem {number}", steps=2) for number in range(2)]

    def no_room(*_: object) -> None:
        shop.jobs._connection.execute("PRAGMA query_only = ON")

    hook = shop.engine.model.unet.register_forward_pre_hook(no_room)
    # In the midst of a render, and before the next.
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError):
            shop.worker.loop()
    hook.remove()
    assert [job.id for job in shop.jobs.listed("running")] == numbers
    assert sorted(path.name for path in shop.folder.iterdir()) == ["clip.wav", "home", "style.wav"]
    shop.jobs._connection.execute("PRAGMA query_only = OFF")
    assert shop.worker.loop()
    assert [(job.state, job.attempts) for job in map(shop.jobs.get, numbers)] == [("done", 1)] * 2


def test_a_stem_of_which_the_queue_could_not_be_told_is_rendered_once(shop: Shop) -> None:
    number = shop.submit(steps=1)
    full = "BEFORE UPDATE OF state ON jobs WHEN NEW.state = 'done' BEGIN SELECT RAISE(ABORT, 'full'); END"
    shop.jobs._connection.execute(f"CREATE TEMP TRIGGER full {full}")
    with pytest.raises(sqlite3.Error, match="full"):
        shop.worker.loop()
    shop.jobs._connection.execute("DROP TRIGGER full")
    assert not shop.worker.loop()
    job = shop.jobs.get(number)
    assert (job.state, job.attempts) == ("done", 1)
    names = sorted(path.name for path in shop.folder.iterdir() if path.is_file())
    assert names == ["clip.wav", "clip_style.json", "clip_style.wav", "style.wav"]


def test_a_workshop_that_cannot_be_made_is_no_jobs_fault(shop: Shop) -> None:
    number = shop.submit(steps=1)
    shop.worker.workshop.parent.write_bytes(b"in its place")
    with pytest.raises(NotAllowed):
        shop.worker.loop()
    told = shop.news[-1]
    assert isinstance(told, Condition)
    assert told.state == "idle"
    shop.worker.workshop.parent.unlink()
    assert shop.worker.loop()
    assert (shop.jobs.get(number).state, shop.jobs.get(number).attempts) == ("done", 1)


def test_a_folder_that_cannot_be_reached_is_no_matter_of_the_other_jobs(shop: Shop) -> None:
    number = shop.submit(steps=1)
    # No system has room for such a name, and says so in place of that nothing is there.
    away = shop.folder / ("x" * 300)
    lost = shop.jobs.submit({**shop.jobs.get(number).request, "folder": str(away)}).id
    shop.jobs.claim("worker-0", 30)
    aimed = shop.jobs.claim("worker-0", 30)
    assert aimed is not None
    shop.jobs.aim(aimed, str(away / "stem.wav"), "digest")
    assert [(one.id, one.state) for one in shop.worker.recover()] == [(number, "queued"), (lost, "queued")]
    while shop.worker.loop():
        pass
    assert [(job.state, job.code) for job in map(shop.jobs.get, (number, lost))] == [
        ("done", ""),
        ("failed", "not-found"),
    ]


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


# --- Several jobs together


def stem(job: Job) -> Audio:
    audio: Audio = soundfile.read(job.path, dtype="float32")[0]
    return audio


def test_stems_of_jobs_that_are_rendered_together_are_those_of_each_alone(shop: Shop) -> None:
    asked: dict[str, Any] = {"steps": 2, "dtype": "float32", "sidecar": "file"}
    names = shop.save(plucks(0.5), tone(330, 1.5), np.zeros((1, 3000), np.float32), plucks(0.3, channels=2))
    alone = [shop.do(clip=name, name="{content} alone", **asked) for name in names]
    together = [shop.submit(clip=name, **asked) for name in names]
    assert shop.worker.loop()
    jobs = [shop.jobs.get(number) for number in together]
    assert [job.state for job in jobs] == ["done"] * 4
    assert not shop.worker.loop()
    for one, other, name in zip(alone, jobs, names, strict=True):
        # Sums over other batches round otherwise.
        np.testing.assert_allclose(stem(other), stem(one), atol=1e-4)
        report = json.loads(Path(other.path).with_suffix(".json").read_text("utf-8"))
        assert report["content"]["path"] == str(shop.folder / name)
    engine = shop.worker.engine(shop.worker.model, lambda *_: None, "float32")
    made = engine.render_several(
        [shop.folder / name for name in names], shop.folder / "style.wav", engine.settings(steps=2)
    )
    for job, render in zip(jobs, made, strict=True):
        assert isinstance(render, Render)
        np.testing.assert_array_equal(stem(job).T, np.squeeze(render.audio))
    told = {word.job for word in shop.news if isinstance(word, Progress) and word.fraction == 1}
    assert told >= set(together)


def test_what_is_wrong_with_one_job_is_no_matter_of_the_others(shop: Shop) -> None:
    """One has too few channels for what is asked, one no folder for its stem any more; one can be read half alone."""
    names = shop.save(*(plucks(0.4, channels=channels) for channels in (2, 1, 2, 2)))
    soundfile.write(shop.folder / "half.flac", noise(0.4, seed=1).T.repeat(2, 1), RATE)
    whole = (shop.folder / "half.flac").read_bytes()
    (shop.folder / "half.flac").write_bytes(whole[: len(whole) // 2])
    numbers = [shop.submit(clip=name, stereo="mid-side", steps=1) for name in (*names[:2], "half.flac", *names[2:])]
    lost = RenderJob.from_dict(shop.jobs.get(numbers[-1]).request)
    gone = shop.jobs.submit(replace(lost, folder=str(shop.folder / "gone")).to_dict()).id
    assert shop.worker.loop()
    jobs = [shop.jobs.get(number) for number in (*numbers, gone)]
    assert [job.code for job in jobs] == ["", "bad-request", "unsupported-audio", "", "", "not-found"]
    assert [job.state for job in jobs] == ["done", "failed", "failed", "done", "done", "failed"]


def test_what_fails_together_is_tried_alone(shop: Shop) -> None:
    numbers = [shop.submit(name=f"stem {number}", steps=1) for number in range(3)]
    with room_for(shop, lambda _: False):
        assert shop.worker.loop()
    assert [(job.state, job.attempts) for job in shop.jobs.listed("queued")] == [("queued", 1)] * 3
    for done in range(1, 4):
        assert shop.worker.loop()
        assert [shop.jobs.get(number).state for number in numbers[:done]] == ["done"] * done
        assert shop.jobs.count("queued") == 3 - done


def test_one_that_is_cancelled_leaves_the_others_be(shop: Shop) -> None:
    numbers = [shop.submit(name=f"stem {number}", steps=2) for number in range(3)]
    paused = shop.submit(name="later", steps=2)

    def turn(*_: object) -> None:
        shop.jobs.cancel(numbers[1])
        shop.jobs.pause(paused)

    hook = shop.engine.model.unet.register_forward_pre_hook(turn)
    assert shop.worker.loop()
    hook.remove()
    assert [shop.jobs.get(number).state for number in (*numbers, paused)] == ["done", "cancelled", "done", "paused"]
    assert sorted(path.name for path in shop.folder.glob("*.wav")) == [
        "clip.wav", "stem 0.wav", "stem 2.wav", "style.wav",
    ]  # fmt: skip
    shop.jobs.resume(paused)
    assert shop.worker.loop()
    assert shop.jobs.get(paused).state == "done"


def test_when_all_are_cancelled_nothing_more_is_rendered(shop: Shop) -> None:
    numbers = [shop.submit(name=f"stem {number}", steps=9) for number in range(3)]
    passes = []

    def turn(*_: object) -> None:
        passes.append(1)
        for number in numbers:
            shop.jobs.cancel(number)

    hook = shop.engine.model.unet.register_forward_pre_hook(turn)
    with patch.object(batch, "SAYS", 0):
        assert shop.worker.loop()
    hook.remove()
    assert [shop.jobs.get(number).state for number in numbers] == ["cancelled"] * 3
    assert len(passes) == 1


def test_when_the_worker_leaves_all_wait_again(shop: Shop) -> None:
    numbers = [shop.submit(name=f"stem {number}", steps=2) for number in range(3)]
    leaving: list[int] = []
    shop.worker._leaving = lambda: bool(leaving)
    hook = shop.engine.model.unet.register_forward_pre_hook(lambda *_: leaving.append(1))
    assert shop.worker.loop()
    hook.remove()
    assert [(job.id, job.attempts) for job in shop.jobs.listed("queued")] == [(number, 0) for number in numbers]
