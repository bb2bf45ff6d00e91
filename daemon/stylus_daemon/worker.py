"""The process that owns the engine and the device: claims a job, renders it, and tells how far it is."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import inf
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylus_audio import library
from stylus_audio.audio import probe, read_clip, sha256
from stylus_audio.audition import about as audition_of
from stylus_audio.audition import attack_envelope, likeness, score_of
from stylus_audio.engine import Engine
from stylus_audio.errors import BadRequest, Cancelled, NotAllowed, NotFound, OutOfMemory, StylusError
from stylus_audio.files import lower_priority, writable_folder
from stylus_audio.job import render_file
from stylus_audio.memory import taken_bytes
from stylus_audio.passage import segment_of
from stylus_audio.stem import Journal, settle
from stylus_audio.style_cache import StyleCache
from stylus_audio.target import Target

from .auditions import Audition
from .jobs import Job, Jobs, LostLease, is_finished
from .lock import Lock
from .log import to_stderr
from .request import RenderJob
from .roots import Roots
from .worker_messages import Condition, News, Plan, Progress, identity

log = logging.getLogger(__name__)

LEASE = 30.0
"""Seconds that a job stays a worker's without a heartbeat."""
SAYS = 0.1
"""Seconds between two words on how far a job is."""
LONGEST_AUDITION = 30
"""Seconds of a clip that are auditioned in many styles."""
IDLE = 0.2
"""Seconds between two looks at an empty queue."""


class Leaving(Exception):
    """The daemon is gone or wants the worker to end; the job goes back in the queue."""


Tell = Callable[[News], None]


class Worker:
    """Does one job after the other. `loop` does one unit of work, and tests call it."""

    def __init__(self, plan: Plan, jobs: Jobs, tell: Tell, leaving: Callable[[], bool]) -> None:
        self.plan, self.jobs, self.tell, self._leaving = plan, jobs, tell, leaving
        self.roots = Roots(plan.given_roots)
        self.model = plan.model
        self.workshop = plan.home / "workshop" / plan.name
        self.cache = StyleCache(plan.home / "styles-cache")
        self._engine: Engine | None = None
        self._loaded: tuple[str, str] | None = None
        """Model and dtype of the engine."""
        self._warm: set[str] = set()
        self._unknown: list[tuple[Path, bool]] = []
        """Styles of the library that are to be looked at, and whether their levels are known."""
        self._levels: dict[str, NDArray[np.float32]] = {}
        """Long-term level per band of the library's styles, by `identity`."""
        self.progress = Progress(0, 0.0, "", None)

    def recover(self) -> list[Job]:
        """Settle what the worker before this one left behind; the lock says that it is dead."""
        shutil.rmtree(self.workshop, ignore_errors=True)
        for job in self.jobs.listed("running"):
            if job.worker == self.plan.name:
                request = RenderJob.from_dict(job.request)
                if request.target.is_dir():
                    settle(request.target, token(job), Path(job.path) if is_finished(job) else None)
        self.jobs.expire(self.plan.name)
        return self.jobs.recover(is_finished, self.plan.blamed)

    def loop(self) -> bool:
        """Claim a job and do it; false where none waits."""
        job = self.jobs.claim(self.plan.name, LEASE)
        if job is None:
            return False
        self.progress = Progress(job.id, 0.0, "", None)
        self.say("rendering")
        log.info("job %d: %s", job.id, _named(job))
        shutil.rmtree(self.workshop, ignore_errors=True)
        writable_folder(self.workshop)
        with _Lease(self.plan.database, job, self):
            try:
                self._do(job, RenderJob.from_dict(job.request))
            except Cancelled:
                log.info("job %d stopped, as it was asked to", job.id)
                self.jobs.stopped(job)
            except Leaving:
                log.info("job %d goes back in the queue", job.id)
                self.jobs.released(job)
            except LostLease:
                log.warning("job %d went to somebody else", job.id)
            except StylusError as error:
                self._failed(job, error.code, str(error))
            except Exception as error:
                log.exception("job %d failed for a fault of ours", job.id)
                self._failed(job, "internal", f"{type(error).__name__}: {error}")
            finally:
                shutil.rmtree(self.workshop, ignore_errors=True)
                self.say("idle")
        return True

    def _failed(self, job: Job, code: str, message: str) -> None:
        try:
            said = " ".join(message.split())
            log.warning("job %d failed: %s: %s", job.id, code, said)
            self.jobs.failed(job, code, said)
        except LostLease:
            log.warning("job %d went to somebody else", job.id)

    def _do(self, job: Job, request: RenderJob) -> None:
        progress = self._progress(job)
        progress(0.0, "reading")
        if request.kind == "audition":
            self._on(request, progress, lambda engine: self._audition(engine, job, request, progress))
            self._done(job)
            return
        styles, origins = [], {}
        for number, (path, name) in enumerate(request.styles):
            own = self.workshop / f"style-{number}"
            own.mkdir()
            copy = self.roots.copied(Path(path), own)
            styles.append((copy, name))
            origins[copy] = Path(path)
        if request.kind == "warm":
            self._on(request, progress, lambda engine: engine.warm(styles[0][0], engine.settings(**request.settings)))
            self._remember(origins)
            self._done(job)
            return
        content = self.roots.copied(Path(request.content), self.workshop)
        origins[content] = Path(request.content)
        if request.target == self.roots.own_output:
            writable_folder(request.target)
        with self.roots.standing_in(request.target):
            target = Target(Path(request.file or "."), request.name, request.overwrite, request.sidecar)
            digests: list[str] = []

            def aim(candidate: Path, part: Path) -> None:
                digests.append(sha256(part))
                self.jobs.aim(job, str(request.target / candidate.name), digests[-1])

            def render(engine: Engine) -> Any:
                settings = engine.settings(**request.settings)
                return render_file(
                    engine, content, styles, settings, target, request.model or self.model, progress, origins,
                    Journal(token(job), aim),
                )  # fmt: skip

            result, said = self._on(request, progress, render)
        self._remember({copy: origins[copy] for copy, _ in styles})
        stem = request.target / result.path.name
        self.jobs.done(job, str(stem), digests[-1], [*result.report["notes"], *said])
        log.info("job %d is done: %r", job.id, str(stem))

    def _done(self, job: Job) -> None:
        """A job that makes no stem."""
        self.jobs.done(job, "")
        log.info("job %d is done", job.id)

    def _audition(self, engine: Engine, job: Job, request: RenderJob, progress: Callable[[float, str], None]) -> None:
        """Find the gains of a passage in one style after the other, best guess first; each can be heard at once."""
        # Linked gains serve mid and side too, and whatever makes sound of a picture is the page's affair here.
        asked = {**request.settings, "stereo": "linked", "reconstruction": "gain", "loop": "off"}
        settings = engine.settings(**asked)
        copy = self.roots.copied(Path(request.content), self.workshop)
        info = probe(copy)
        first, last = segment_of(settings, info.samples, info.sample_rate)
        if last - first > LONGEST_AUDITION * info.sample_rate:
            raise BadRequest(f"audition: at most {LONGEST_AUDITION} s of a clip are auditioned")
        clip = read_clip(copy, first, last)
        # Without its surroundings it takes fewer windows, and repeats when it is heard.
        settings = replace(settings, start=None, end=None)
        _, passage = engine.passage((clip.audio, clip.sample_rate), settings)
        body = passage.dry[:, passage.first : passage.last]
        level = engine.level((body, passage.sample_rate))
        guesses = {path: self._levels.get(identity(Path(path))) for path, _ in request.styles}
        # One that is not known yet comes last.
        near = {path: -inf if one is None else likeness(level, one) for path, one in guesses.items()}
        styles = sorted(request.styles, key=lambda style: -near[style[0]])
        audition = Audition(self.plan.home, job.id)
        about = audition_of(passage, engine.model.profile, 1)
        audition.begin(
            {**about, "content": request.content, "start": first},
            styles,
            attack_envelope(passage).astype("<f4").tobytes(),
        )

        def copies() -> Iterator[Path]:
            for number, (path, _) in enumerate(styles):
                own = self.workshop / f"style-{number}"
                own.mkdir()
                try:
                    yield self.roots.copied(Path(path), own)
                except (NotFound, NotAllowed):
                    # The engine says of a file that is not there what is wrong.
                    yield own / Path(path).name
                shutil.rmtree(own, ignore_errors=True)

        for number, found in enumerate(engine.audition(passage, copies(), settings)):
            if isinstance(found, StylusError):
                audition.fail(number, str(found))
            else:
                audition.put(number, score_of(found, passage).tobytes())
            progress((number + 1) / len(styles), f"{number + 1} of {len(styles)} styles")

    def _remember(self, references: Mapping[Path, Path]) -> None:
        """Note which of these, by the files that they are copies of, are warm.

        A render with other settings leaves a style cold for the defaults.
        """
        if engine := self._engine:
            self._warm |= {
                identity(origin) for copy, origin in references.items() if engine.is_warm(copy, engine.settings())
            }

    def look(self) -> bool:
        """Find the level of one more style of the library, or whether it is warm, which takes reading it; false where
        all are known.
        """
        if not self._unknown or not self._engine:
            return False
        path, levels_known = self._unknown.pop(0)
        try:
            if levels_known:
                self._remember({path: path})
            else:
                self._levels[identity(path)] = self._engine.level(path)
                # Whether it is warm can wait until the order of the others is known.
                self._unknown.append((path, True))
        except (StylusError, OSError) as error:
            log.warning("a style of the library: %s", error)
        if not self._unknown:
            self.say("idle")
        return True

    def _progress(self, job: Job) -> Callable[[float, str], None]:
        begun: list[float] = []
        said = -SAYS

        def progress(fraction: float, stage: str) -> None:
            nonlocal said
            now = time.monotonic()
            if self._leaving():
                raise Leaving
            if now - said < SAYS and fraction not in (0.0, 1.0):
                return
            said = now
            if self.jobs.wish(job):
                raise Cancelled("cancelled")
            if fraction > 0 and not begun:
                begun.append(now)
            spent = now - begun[0] if begun else 0.0
            eta = spent * (1 / fraction - 1) if spent and fraction else None
            self.progress = Progress(job.id, fraction, stage, eta)
            self.tell(self.progress)

        return progress

    def _on(self, request: RenderJob, progress: Callable[[float, str], None], work: Callable[[Engine], Any]) -> Any:
        """Work with the engine, on the CPU where the device's memory does not suffice; says so then."""
        model = request.model or self.model
        engine = self.engine(model, progress, request.dtype)
        try:
            return work(engine), []
        except OutOfMemory:
            if engine.model.device.type == "cpu":
                raise
            log.warning("out of memory: the CPU takes over")
            work_on_cpu = self._load((model, request.dtype), "cpu", progress)
            return work(work_on_cpu), ["the CPU took over: the device's memory did not suffice"]

    def engine(self, model: str, progress: Callable[[float, str], None], dtype: str = "auto") -> Engine:
        """The engine with a model, loaded where it is another than before."""
        if self._engine is None or self._loaded != (model, dtype):
            return self._load((model, dtype), self.plan.device, progress)
        return self._engine

    def _load(self, what: tuple[str, str], device: str, progress: Callable[[float, str], None]) -> Engine:
        progress(0.0, "loading the model")
        self._engine, self._loaded = None, None
        model, dtype = what
        engine = Engine(model, device, dtype, cache=self.cache)
        self._engine, self._loaded = engine, what
        log.info("%r is loaded on %s, %s", model, engine.model.device, str(engine.model.dtype).removeprefix("torch."))
        self._warm, self._levels, self._unknown = set(), {}, [(Path(style.path), False) for style in library.styles()]
        return engine

    def say(self, state: str) -> None:
        """Tell the daemon what this worker is."""
        about = self.cache.statistics()
        device = str(self._engine.model.device) if self._engine else self.plan.device
        taken = taken_bytes(self._engine.model.device) if self._engine else 0
        model = self._loaded[0] if self._loaded else self.model
        self.tell(
            Condition(
                state, model, device, tuple(sorted(self._warm)), about.entries, about.bytes, about.prepared, taken
            )
        )


def token(job: Job) -> str:
    """What hidden names of a job's unfinished files carry."""
    return f"stylus-{job.id}-{int(job.created * 1000):x}"


def _named(job: Job) -> str:
    """A job in words, for the log."""
    request = RenderJob.from_dict(job.request)
    styles = " and ".join(repr(name) for _, name in request.styles)
    if request.kind == "audition":
        return f"auditioning {Path(request.content).name!r} in {len(request.styles)} styles"
    return f"warming {styles}" if request.kind == "warm" else f"{Path(request.content).name!r} in the sound of {styles}"


class _Lease:
    """Keeps a job's lease from a thread of its own, so that one long pass of the network does not lose it."""

    def __init__(self, database: Path, job: Job, worker: Worker) -> None:
        self._database, self._job, self._worker = database, job, worker
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        jobs = Jobs(self._database, durable=False)
        try:
            while not self._ended.wait(LEASE / 10):
                now = self._worker.progress
                jobs.heartbeat(self._job, LEASE, now.fraction, now.stage, now.eta)
        except LostLease:
            pass  # the job's own thread meets the same at its next step
        finally:
            jobs.close()


def main(plan: Plan, pipe: Connection) -> None:
    """The life of a worker process: until the daemon asks it to end, or is gone."""
    to_stderr()
    lower_priority()
    ending = threading.Event()
    wanted: list[str] = []
    lock = Lock(plan.home / f"{plan.name}.lock", wait=600)
    parent = multiprocessing.parent_process()

    def listen() -> None:
        """The daemon says "end" or the name of a model; its end is the end of the pipe."""
        while not ending.is_set():
            try:
                word = pipe.recv()
            except (EOFError, OSError):
                ending.set()
                return
            if word == "end":
                ending.set()
            else:
                wanted.append(word)

    def leaving() -> bool:
        return ending.is_set() or (parent is not None and not parent.is_alive())

    def tell(news: News) -> None:
        try:
            pipe.send(news)
        except OSError:
            ending.set()

    threading.Thread(target=listen, daemon=True).start()
    jobs = Jobs(plan.database)
    worker = Worker(plan, jobs, tell, leaving)
    os.chdir(plan.home)
    worker.recover()
    worker.say("loading")
    try:
        worker.engine(plan.model, lambda *_: None)
    except StylusError as error:
        log.error("%s", error)
    worker.say("idle")
    while not leaving():
        if wanted:
            worker.model = wanted.pop()
            try:
                worker.engine(worker.model, lambda *_: None)
            except StylusError as error:
                log.error("%s", error)
            worker.say("idle")
        if not worker.loop() and not worker.look():
            ending.wait(IDLE)
    jobs.close()
    lock.release()
    # Threads of libraries must not hold up the end.
    logging.shutdown()
    os._exit(0)
