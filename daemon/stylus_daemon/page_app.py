"""The page's addresses: a JSON form of the OSC desk, events, and the sounds and pictures of allowed files.

Every command goes to the same desk as OSC (`/api/ask`); what is here besides only reads, but for dropped files.
"""

from __future__ import annotations

import asyncio
import mimetypes
import secrets
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from stylus_audio import library
from stylus_audio.audio import probe, read_clip
from stylus_audio.errors import BadRequest, NotFound, StylusError
from stylus_audio.metric_words import words_of
from stylus_audio.overview import Overview, overview, picture
from stylus_audio.presets import presets
from stylus_audio.provenance import read_sidecar
from stylus_audio.weights import KNOWN

from . import uploads
from .auditions import Audition
from .jobs import Jobs
from .osc_messages import Argument, Message, Peer
from .page_feed import Feed
from .page_gate import UPLOADS, TooLarge
from .request import RenderJob, as_command, as_message
from .roots import Roots
from .worker_messages import identity

STATIC = Path(__file__).parent / "page"

PIECE = 30.0
"""Seconds of sound in one answer."""

STATUS = {
    "bad-request": 400, "unknown-address": 404, "not-found": 404, "not-allowed": 403, "unsupported-audio": 415,
    "busy": 503, "no-model": 409, "out-of-memory": 507, "disk-full": 507, "cancelled": 409, "internal": 500,
}  # fmt: skip
"""HTTP's codes for ours."""

KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""What the page's files are, whatever Windows' registry says: a browser runs no script that is called plain text."""

Asked = Future[tuple[str, tuple[Argument, ...]]]
"""What will be the desk's answer: its address and arguments."""

Ask = Callable[[Message], Asked]
"""Has the desk answer a message, in the daemon's own thread."""


class Page:
    """What the addresses serve. Lives in the thread of the page's server."""

    def __init__(self, ask: Ask, jobs: Callable[[], Jobs], roots: Roots, home: Path, feed: Feed) -> None:
        self._ask, self._open, self._roots, self._home, self.feed = ask, jobs, roots, home, feed

    def app(self) -> Starlette:
        """The application; the gate is around it."""
        for ending, kind in KINDS.items():
            mimetypes.add_type(kind, ending)
        routes = [
            Route("/", self.start),
            Route("/api/ask", self.ask, methods=["POST"]),
            Route("/api/events", self.events),
            Route(UPLOADS, self.upload, methods=["POST"]),
            Route("/api/library", self.library),
            Route("/api/overview", self.overview),
            Route("/api/spectrogram", self.spectrogram),
            Route("/api/sound", self.sound),
            Route("/api/file", self.file),
            Route("/api/jobs/{job:int}", self.job),
            Route("/api/auditions/{job:int}", self.audition),
            Route("/api/auditions/{job:int}/attack", self.attack),
            Route("/api/auditions/{job:int}/{style:int}", self.score),
            Mount("/page", StaticFiles(directory=STATIC)),
        ]
        return Starlette(routes=routes, exception_handlers={StylusError: _refused})

    async def start(self, _: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def ask(self, request: Request) -> Response:
        """`{"address", "arguments", "rid"?}` to what the desk replies; without a `rid` every request is a new one."""
        try:
            asked = await request.json()
            address, arguments = asked["address"], asked.get("arguments", [])
            rid = asked.get("rid") or secrets.token_hex(8)
            if not (isinstance(address, str) and isinstance(arguments, list) and isinstance(rid, str)):
                raise TypeError
            if not all(isinstance(one, str | int | float | bool | None) for one in arguments):
                raise TypeError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadRequest('an object {"address": "/stylus/…", "arguments": [texts and numbers]} is wanted') from None
        message = Message(Peer("http", "127.0.0.1", 0), address, (rid, *arguments))
        kind, answer = await asyncio.wrap_future(self._ask(message))
        if kind == "/stylus/reply":
            return JSONResponse({"reply": answer[2:]})
        code, said = str(answer[2]), str(answer[3])
        return JSONResponse({"error": code, "message": said}, STATUS.get(code, 500))

    async def events(self, _: Request) -> Response:
        return StreamingResponse(self.feed.events(), media_type="text/event-stream")

    async def upload(self, request: Request) -> Response:
        name = request.query_params.get("name", "")
        path = await uploads.keep(self._roots.uploads, name, request.stream())
        return JSONResponse({"path": str(path), "name": path.name}, 201)

    async def library(self, _: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._library))

    def _library(self) -> dict[str, Any]:
        styles = [
            {"name": one.name, "path": one.path, "seconds": one.seconds, "identity": identity(Path(one.path))}
            for one in library.styles()
        ]
        return {"styles": styles, "presets": sorted(presets()), "models": list(KNOWN)}

    async def overview(self, request: Request) -> Response:
        about = await run_in_threadpool(self._overview, request)
        return JSONResponse(
            {
                "seconds": about.seconds, "sample_rate": about.sample_rate, "channels": about.channels,
                "samples": about.samples, "lufs": about.lufs, "loudest": about.loudest, "loop": about.loop,
                "tempo": {"bpm": about.tempo.bpm, "beats": about.tempo.beats} if about.tempo else None,
                "peaks": [round(float(peak), 4) for peak in about.peaks],
            }
        )  # fmt: skip

    async def spectrogram(self, request: Request) -> Response:
        about = await run_in_threadpool(self._overview, request)
        return Response(await run_in_threadpool(picture, about.levels), media_type="image/png")

    def _overview(self, request: Request) -> Overview:
        path = self._path(request)
        return _overview(str(path), identity(path))

    async def sound(self, request: Request) -> Response:
        """Samples `[start, start + samples)` as interleaved float32, little-endian; at most `PIECE` seconds."""
        return await run_in_threadpool(self._sound, request)

    def _sound(self, request: Request) -> Response:
        path = self._path(request)
        rate = probe(path).sample_rate
        start, samples = _whole(request, "start", 0), _whole(request, "samples", round(PIECE * rate))
        clip = read_clip(path, start, start + min(samples, round(PIECE * rate)))
        headers = {"X-Sample-Rate": str(rate), "X-Channels": str(len(clip.audio)), "X-Total": str(clip.total)}
        return Response(clip.audio.T.astype("<f4").tobytes(), headers=headers, media_type="application/octet-stream")

    async def file(self, request: Request) -> Response:
        path = await run_in_threadpool(self._path, request)
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.name)}"}
        return FileResponse(path, headers=headers, media_type="application/octet-stream")

    async def job(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._job, request.path_params["job"]))

    def _job(self, number: int) -> dict[str, Any]:
        with closing(self._open()) as jobs:
            job = jobs.get(number)
        asked = RenderJob.from_dict(job.request)
        report: dict[str, Any] = {}
        if job.state == "done" and job.path:
            try:
                report = read_sidecar(Path(job.path))
            except StylusError:
                report = {}
        return {
            "id": job.id, "state": job.state, "content": asked.content, "path": job.path if job.state == "done" else "",
            "styles": [{"path": path, "name": name} for path, name in asked.styles],
            "asked": {**asked.settings, **({"model": asked.model} if asked.model else {})},
            "command": as_command(asked), "message": as_message(asked), "notes": list(job.notes),
            "metrics": _in_words(report.get("metrics", {})), "settings": report.get("settings", {}),
            "timings": report.get("timings", {}), "start_sample": report.get("start_sample", 0),
            "device": report.get("device", ""), "model": report.get("asked_model", asked.model),
        }  # fmt: skip

    async def audition(self, request: Request) -> Response:
        """What there is of an audition so far; of one that has not begun, nothing."""
        try:
            return JSONResponse(await run_in_threadpool(self._audition(request).index))
        except NotFound:
            return JSONResponse({"styles": None})

    async def score(self, request: Request) -> Response:
        return Response(await run_in_threadpool(self._audition(request).score, request.path_params["style"]))

    async def attack(self, request: Request) -> Response:
        return Response(await run_in_threadpool(self._audition(request).attack))

    def _audition(self, request: Request) -> Audition:
        return Audition(self._home, request.path_params["job"])

    def _path(self, request: Request) -> Path:
        return self._roots.file(request.query_params.get("path", ""))


def _in_words(metrics: dict[str, float | None]) -> list[dict[str, Any]]:
    """The metrics that exist, each with its name, title, unit and value."""
    known = {name: value for name, value in metrics.items() if value is not None}
    return [
        {"name": name, "value": value, "title": words_of(name).title, "unit": words_of(name).unit}
        for name, value in known.items()
    ]


@lru_cache(maxsize=128)
def _overview(path: str, _: str) -> Overview:
    return overview(Path(path))


def _whole(request: Request, name: str, default: int) -> int:
    said = request.query_params.get(name)
    if said is None:
        return default
    if not said.isdecimal() or len(said) > 12:
        raise BadRequest(f"{name}: {said[:40]!r} is not a whole number")
    return int(said)


async def _refused(_: Request, error: Exception) -> Response:
    code = error.code if isinstance(error, StylusError) else "internal"
    said = " ".join(str(error).split())[:1000]
    status = 413 if isinstance(error, TooLarge) else STATUS.get(code, 500)
    return JSONResponse({"error": code, "message": said}, status)
