"""The process that owns the engine and the device: claims jobs, renders them, and tells how far they are."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import shutil
import signal
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import inf
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stylus_audio import library, provenance
from stylus_audio.audio import probe, read_clip, sha256
from stylus_audio.audition import about as audition_of
from stylus_audio.audition import attack_envelope, likeness, score_of
from stylus_audio.engine import Engine, Render
from stylus_audio.errors import BadRequest, NotAllowed, NotFound, OutOfMemory, StylusError, UnsupportedAudio
from stylus_audio.files import lower_priority, writable_folder
from stylus_audio.job import FileRender
from stylus_audio.lock import Lock
from stylus_audio.memory import give_back, taken_bytes
from stylus_audio.model import choose_device
from stylus_audio.passage import is_silent, segment_of
from stylus_audio.places import roomy_folder
from stylus_audio.stem import Journal, settle
from stylus_audio.style_cache import StyleCache
from stylus_audio.target import Target
from stylus_audio.weights import located, named

from . import batching
from .auditions import Audition
from .batch import LEASE, Batch, Tell
from .jobs import Job, Jobs, is_finished, queue_file
from .log import to_stderr
from .request import RenderJob
from .roots import Roots
from .worker_messages import Condition, News, Plan, identity

log = logging.getLogger(__name__)

LONGEST_AUDITION = 30
"""Seconds of a clip that are auditioned in many styles."""
ALIVE = 30.0
"""Seconds between two words of a worker that downloads a model."""
IDLE = 0.2
"""Seconds between two looks at an empty queue."""
AGAIN = 5.0
"""Seconds until a queue that could not be written is tried again."""

Done = TypeVar("Done")


@dataclass(frozen=True)
class _Begun:
    """A render whose clip is here."""

    job: Job
    request: RenderJob
    files: FileRender


class Worker:
    """Does one batch of jobs after the other. `loop` does one unit of work, and tests call it."""

    def __init__(self, plan: Plan, jobs: Jobs, tell: Tell, leaving: Callable[[], bool]) -> None:
        self.plan, self.jobs, self.tell, self._leaving = plan, jobs, tell, leaving
        self.roots = Roots(plan.given_roots)
        self.model = plan.model
        self.workshop = plan.home / "workshop" / plan.name
        self.cache = StyleCache(plan.home / "styles-cache")
        self._engine: Engine | None = None
        self._loaded: tuple[str, str] | None = None
        """Model and dtype of the engine."""
        self._said = ("loading", "")
        """Its state, and the model that is being loaded."""
        self._trouble = ""
        self._warm: set[str] = set()
        self._unknown: list[tuple[Path, bool]] = []
        """Styles of the library that are to be looked at, and whether their levels are known."""
        self._levels: dict[str, NDArray[np.float32]] = {}
        """Long-term level per band of the library's styles, by `identity`."""
        self._blames = plan.blamed
        self.settled = False
        """Whether no job is this worker's."""

    def recover(self) -> list[Job]:
        """Settle what is left of the worker before this one, which the lock says is dead, or of this one's own when
        the queue failed it, for which no job is blamed. Raises `sqlite3.Error` where the queue cannot be written.
        """
        shutil.rmtree(self.workshop, ignore_errors=True)
        for job in self.jobs.listed("running"):
            if job.worker == self.plan.name:
                self._tidy(job)
        self.jobs.expire(self.plan.name)
        recovered = self.jobs.recover(is_finished, self._blames)
        self._blames, self.settled = False, True
        return recovered

    def _tidy(self, job: Job) -> None:
        """Take away what a job has begun in its stem's folder; where that cannot be reached it is left to the user."""
        folder = RenderJob.from_dict(job.request).target
        try:
            if folder.is_dir():
                settle(folder, token(job), Path(job.path) if is_finished(job) else None)
        except OSError as error:
            log.warning("job %d: what it left cannot be taken away: %s", job.id, error)

    def loop(self) -> bool:
        """Claim a job, with others that can be rendered together with it, and do them; false where none waits.

        Raises `sqlite3.Error` where the queue cannot be written and `NotAllowed` where the workshop cannot be made,
        which is no job's fault; those that it had then go back in the queue by the next call.
        """
        if not self.settled:
            self.recover()
        self.settled = False
        worked = self._work()
        self.settled = True
        return worked

    def _work(self) -> bool:
        first = self.jobs.claim(self.plan.name, LEASE)
        if first is None:
            return False
        self.say("rendering")
        try:
            claimed = [first, *self._company(first)]
            for job in claimed:
                log.info("job %d: %s", job.id, _named(job))
            batch = Batch(claimed, self.jobs, queue_file(self.plan.home), self.tell, self._leaving)
            shutil.rmtree(self.workshop, ignore_errors=True)
            writable_folder(self.workshop)
            with suppress(OSError):
                # Systems take away what lies there unused for weeks.
                Path(tempfile.gettempdir()).mkdir(mode=0o700, exist_ok=True)
            with batch.settled():
                self._do(batch, RenderJob.from_dict(first.request))
        finally:
            shutil.rmtree(self.workshop, ignore_errors=True)
            self.say("idle")
        return True

    def _company(self, first: Job) -> list[Job]:
        """More jobs, now this worker's too, that are to be rendered together with one that it has claimed."""
        # Before a model is loaded it is not known on what.
        size = self.plan.batch_size or (batching.default_size(self._engine.model.device.type) if self._engine else 1)
        if size == 1 or not batching.can_share(first):
            return []
        waiting = self.jobs.untried(first.priority)
        numbers = batching.companions(first, waiting, size, self.plan.workers, self._seconds)
        return self.jobs.join(first, numbers, LEASE) if numbers else []

    def _seconds(self, request: RenderJob) -> float | None:
        try:
            info = probe(self.roots.file(request.content))
        except (StylusError, OSError):
            return None
        return info.samples / info.sample_rate

    def _do(self, batch: Batch, shared: RenderJob) -> None:
        """All that is asked for; `shared` is the first, which the others differ from in clip and stem alone."""
        batch.progress(0.0, "reading")
        job = batch.left[0]
        if shared.kind == "audition":
            self._on(shared, batch, lambda engine: self._audition(engine, job, shared, batch.progress))
            batch.done(job)
        elif shared.kind == "warm":
            styles, origins = self._references(shared)
            self._on(
                shared, batch,
                lambda engine: engine.warm(styles[0][0], engine.settings(**shared.settings), batch.progress),
            )  # fmt: skip
            self._remember(origins)
            batch.done(job)
        else:
            self._render(batch, shared)

    def _references(self, request: RenderJob) -> tuple[list[tuple[Path, str]], dict[Path, Path]]:
        """Private copies of the styles with their names, and what they are copies of."""
        styles, origins = [], {}
        for number, (path, name) in enumerate(request.styles):
            copy = self._copied(Path(path), f"style-{number}")
            styles.append((copy, name))
            origins[copy] = Path(path)
        return styles, origins

    def _copied(self, path: Path, folder: str) -> Path:
        own = self.workshop / folder
        own.mkdir()
        return self.roots.copied(path, own)

    def _render(self, batch: Batch, shared: RenderJob) -> None:
        styles, origins = self._references(shared)
        begun: list[_Begun] = []
        for job in batch.left:
            with batch.fate_of(job):
                begun.append(self._begun(job, styles, origins))
        if not begun:
            return
        clips, references = [one.files.content for one in begun], [path for path, _ in styles]

        def render(engine: Engine) -> list[Render | StylusError]:
            return engine.render_several(clips, references, engine.settings(**shared.settings), batch.progress)

        renders, said = self._on(shared, batch, render)
        self._remember(origins)
        for one, found in zip(begun, renders, strict=True):
            if batch.wants(one.job):
                with batch.fate_of(one.job):
                    self._finish(batch, one, found, said)

    def _begun(self, job: Job, styles: Sequence[tuple[Path, str]], origins: Mapping[Path, Path]) -> _Begun:
        request = RenderJob.from_dict(job.request)
        content = self._copied(Path(request.content), f"content-{job.id}")
        if job.once is not None:
            digests = [provenance.identity(copy)["sha256"] for copy in (content, *(path for path, _ in styles))]
            if request.work(digests) != job.once:
                raise NotFound("the clip or its reference has changed since; as it is now it is another job")
        if request.target == self.roots.own_output:
            writable_folder(request.target)
        # From within the stem's folder.
        target = Target(Path(request.file or "."), request.name, request.overwrite, request.sidecar)
        files = FileRender(
            content, styles, target, request.model or self.model, {**origins, content: Path(request.content)}
        )
        with self.roots.standing_in(request.target):
            files.check()
        return _Begun(job, request, files)

    def _finish(self, batch: Batch, one: _Begun, found: Render | StylusError, said: Sequence[str]) -> None:
        """Put a stem on the disk; raises what there is in its place."""
        if isinstance(found, StylusError):
            raise found
        job, folder = one.job, one.request.target
        digests: list[str] = []

        def aim(candidate: Path, part: Path) -> None:
            digests.append(sha256(part))
            self.jobs.aim(job, str(folder / candidate.name), digests[-1])

        with self.roots.standing_in(folder):
            result = one.files.write(found, Journal(token(job), aim))
        batch.done(job, str(folder / result.path.name), digests[-1], [*result.report["notes"], *said])

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
        if is_silent(body):
            raise UnsupportedAudio("this passage is silent; choose one with some sound")
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
                    copy = self.roots.copied(Path(path), own)
                except (NotFound, NotAllowed):
                    # The engine says of a file that is not there what is wrong.
                    copy = own / Path(path).name
                try:
                    yield copy
                finally:
                    # Also where memory did not suffice: the CPU begins anew.
                    shutil.rmtree(own, ignore_errors=True)

        heard = 0

        def within(fraction: float, _: str) -> None:
            progress((heard + fraction) / len(styles), f"{heard} of {len(styles)} styles")

        for number, found in enumerate(engine.audition(passage, copies(), settings, within)):
            if isinstance(found, StylusError):
                audition.fail(number, str(found))
            else:
                audition.put(number, score_of(found, passage).tobytes())
            heard = number + 1
            within(0.0, "")

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

    def _on(self, request: RenderJob, batch: Batch, work: Callable[[Engine], Done]) -> tuple[Done, list[str]]:
        """Work with the engine, on the CPU where the device's memory does not suffice; says so then."""
        model = request.model or self.model
        try:
            return work(self.engine(model, batch.progress, request.dtype)), []
        except OutOfMemory:
            # It may be the model that did not fit.
            device = self._engine.model.device if self._engine else choose_device(self.plan.device)
            if device.type == "cpu":
                raise
        # Not sooner: the error's traceback holds what the attempt had on the device, whose memory may be the CPU's.
        log.warning("out of memory: the CPU takes over")
        self._drop()
        give_back(device)
        try:
            done = work(self._load((model, request.dtype), "cpu", batch.progress))
        finally:
            # The next job is tried on the device again.
            self._drop()
        return done, ["the CPU took over: the device's memory did not suffice"]

    def _drop(self) -> None:
        """Let go of the engine."""
        self._engine, self._loaded = None, None

    def choose(self, model: str) -> None:
        """Have a model for the jobs that name none, once it is loaded; where it cannot be, the former stays."""
        self._trouble = self._tried(model)
        if not self._trouble:
            self.model = model
        elif model != self.model:
            self._tried(self.model)
        self.say("idle")

    def _tried(self, model: str) -> str:
        """Load a model before a job needs it; what came in the way, or ""."""
        self.say("loading", model)
        try:
            self.engine(model, lambda *_: None)
        except Exception as error:  # whatever is wrong with a model or a device, jobs with another can be done
            log.error("the model %r cannot be loaded: %s", model, error, exc_info=not isinstance(error, StylusError))
            return str(error) or type(error).__name__
        return ""

    def engine(self, model: str, progress: Callable[[float, str], None], dtype: str = "auto") -> Engine:
        """The engine with a model, loaded where it is another than before."""
        if self._engine is None or self._loaded != (model, dtype):
            return self._load((model, dtype), self.plan.device, progress)
        return self._engine

    def _load(self, what: tuple[str, str], device: str, progress: Callable[[float, str], None]) -> Engine:
        progress(0.0, "loading the model")
        self._drop()
        model, dtype = what
        self._download(model)
        engine = Engine(model, device, dtype, cache=self.cache)
        self._engine, self._loaded = engine, what
        log.info("%r is loaded on %s, %s", model, engine.model.device, str(engine.model.dtype).removeprefix("torch."))
        self._warm, self._levels, self._unknown = set(), {}, [(Path(style.path), False) for style in library.styles()]
        return engine

    def _download(self, model: str) -> None:
        """Have the weights here; while they come, which may take an hour, the daemon hears that this worker lives."""
        try:
            located(named(model), download=False)
            return
        except StylusError:
            pass
        over = threading.Event()

        def tell() -> None:
            while not over.wait(ALIVE):
                self.say(*self._said)

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        try:
            located(named(model))
        finally:
            over.set()
            # The pipe is for one at a time.
            thread.join()

    def say(self, state: str, model: str = "") -> None:
        """Tell the daemon what this worker is, and a model that it is about to load."""
        self._said = state, model
        about = self.cache.statistics()
        device = str(self._engine.model.device) if self._engine else self.plan.device
        taken = taken_bytes(self._engine.model.device) if self._engine else 0
        # Not what the last job brought along: what those take that name none.
        model = model or self.model
        warm = tuple(sorted(self._warm))
        self.tell(
            Condition(state, model, device, warm, about.entries, about.bytes, about.prepared, taken, self._trouble)
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


class _Line:
    """What a worker is told: by the daemon "end" or the name of a model, by the end of the pipe that the daemon is
    gone, and by SIGTERM to end, too.
    """

    def __init__(self, pipe: Connection) -> None:
        self.models: list[str] = []
        """Chosen, and not loaded yet."""
        self._pipe, self._ending = pipe, threading.Event()
        self._parent = multiprocessing.parent_process()
        self._signals: list[int] = []
        # Not the event: a handler comes while its thread may hold the event's lock.
        signal.signal(signal.SIGTERM, lambda number, _: self._signals.append(number))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while not self._ending.is_set():
            try:
                word = self._pipe.recv()
            except (EOFError, OSError):
                word = "end"
            if word == "end":
                self._ending.set()
            else:
                self.models.append(word)

    def leaving(self) -> bool:
        """Whether the worker is to end."""
        gone = self._parent is not None and not self._parent.is_alive()
        return self._ending.is_set() or bool(self._signals) or gone

    def tell(self, news: News) -> None:
        try:
            self._pipe.send(news)
        except OSError:
            self._ending.set()

    def wait(self, seconds: float) -> None:
        """So long, or until the daemon says to end."""
        self._ending.wait(seconds)

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Wait where the queue or the workshop has no room, which is no job's fault."""
        try:
            yield
        except (sqlite3.Error, NotAllowed) as error:
            log.error("nothing can be done; tried again in %.0f s: %s", AGAIN, error)
            self.wait(AGAIN)


def _temporary_folder(plan: Plan) -> Path:
    """Have temporary files in a folder of the worker's own, without what one before it left when it was killed."""
    token = hashlib.sha256(str(plan.home).encode()).hexdigest()[:12]
    folder = roomy_folder() / f"stylus-{plan.name}-{token}"
    shutil.rmtree(folder, ignore_errors=True)
    # Where somebody else's lies by that name, they go where they always do.
    with suppress(OSError):
        folder.mkdir(mode=0o700)
        os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    return folder


def main(plan: Plan, pipe: Connection) -> None:
    """The life of a worker process: until the daemon asks it to end, or is gone."""
    to_stderr()
    lower_priority()
    line = _Line(pipe)
    lock = Lock(plan.home / f"{plan.name}.lock", wait=600)
    temporary = _temporary_folder(plan)
    jobs = Jobs(queue_file(plan.home))
    worker = Worker(plan, jobs, line.tell, line.leaving)
    os.chdir(plan.home)
    while not worker.settled and not line.leaving():
        with line.patience():
            worker.recover()
    if plan.at_once and not line.leaving():
        worker.choose(plan.model)
    else:
        worker.say("idle")
    while not line.leaving():
        while line.models:
            worker.choose(line.models.pop(0))
        with line.patience():
            if not worker.loop() and not worker.look():
                line.wait(IDLE)
    jobs.close()
    shutil.rmtree(temporary, ignore_errors=True)
    lock.release()
    # Threads of libraries must not hold up the end.
    logging.shutdown()
    os._exit(0)
