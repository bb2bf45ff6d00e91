"""What each OSC address asks for and answers: the one table, and the desk that serves it.

A request is read, checked, put in the queue and answered; nothing here waits for the model.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from stylus_audio import library
from stylus_audio.errors import BadRequest, Busy, NoModel, NotAllowed, StylusError
from stylus_audio.files import can_write
from stylus_audio.presets import presets
from stylus_audio.settings import Option
from stylus_audio.stem import check_carrier, check_container
from stylus_audio.target import Target, stem_path
from stylus_audio.weights import KNOWN, is_offline, located, named

from .events import SAID, Listeners, to_text
from .jobs import Job, Jobs
from .osc_messages import Answer, Argument, Message, Peer, cut
from .request import RenderJob, with_options
from .roots import Roots
from .worker_messages import Condition, Progress, identity

PROTOCOL = 1
"""Grows when an address changes its meaning; new addresses and longer replies leave it."""

VERSION = version("stylus-audio")
"""Read once, as it takes half a millisecond."""

REMEMBERED = 20_000
"""Replies kept, so that a repeated request gets the same one."""

REMEMBERED_BYTES = 8 * 2**20
"""What the arguments of those may take in memory."""

AUDITION = 100
"""Priority of an audition."""

ROOM = 3_500
"""Bytes of a list in one reply, under the 4,000 of a packet."""

LARGEST_FILE = 2**20
"""Bytes of a request in a file."""


@dataclass(frozen=True)
class Address:
    """One line of the table: what follows the request id, and what serves it."""

    takes: str
    serve: Callable[[Desk, Call], list[Argument]]


class Unknown(StylusError):
    """An address that is not in the table."""

    code = "unknown-address"


class Workers(Protocol):
    """What the desk needs of the workers."""

    @property
    def conditions(self) -> list[Condition]: ...

    def choose(self, model: str) -> None: ...


class Call:
    """A request's arguments behind its id, taken one after the other."""

    def __init__(self, peer: Peer, address: str, rid: Argument, arguments: tuple[Argument, ...]) -> None:
        self.peer, self._left = peer, list(arguments)
        self.request = f"{address} {rid!r}" if rid not in (0, "") else ""
        """What a repeat of the request is known by; "" where none is."""

    @property
    def more(self) -> bool:
        """Whether arguments are left."""
        return bool(self._left)

    def take(self, name: str) -> Argument:
        """The next one, whatever it is."""
        if not self._left:
            raise BadRequest(f"{name} is missing")
        return self._left.pop(0)

    def text(self, name: str) -> str:
        """The next one as text."""
        value = self.take(name)
        if not isinstance(value, str) or "\0" in value:
            raise BadRequest(f"{name}: {value!r} is not text")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        """The next one as a whole number; a float or a boolean that is one is taken for it."""
        value = self.take(name)
        if isinstance(value, str | bytes) or value is None or not low <= value <= high:
            raise BadRequest(f"{name}: {value!r} is not a whole number from {low} to {high}")
        if value != int(value):
            raise BadRequest(f"{name}: {value!r} is not a whole number")
        return int(value)

    def end(self) -> None:
        """`BadRequest` where there is more than the address takes."""
        if self._left:
            raise BadRequest(f"{self._left[0]!r} is more than this address takes")

    def options(self) -> dict[str, Any]:
        """The rest as names and values; `style` may come again and again, and is a list."""
        if len(self._left) % 2:
            raise BadRequest(f"options come as names and values; {self._left[-1]!r} has none")
        values: dict[str, Any] = {}
        while self._left:
            name = self.text("option")
            if name == "style":
                values.setdefault("style", []).append(self.text("style"))
            else:
                values[name] = self.take("value")
        return values


class Desk:
    """Serves requests. `progress` is how far running jobs are, as the workers last said."""

    def __init__(self, jobs: Jobs, roots: Roots, workers: Workers, listeners: Listeners) -> None:
        self.jobs, self.roots, self.workers, self.listeners = jobs, roots, workers, listeners
        self.progress: dict[int, Progress] = {}
        self.page_url = ""
        self._answered: OrderedDict[tuple[str, str, str], Answer] = OrderedDict()
        self._answered_bytes = 0

    def answer(self, message: Message) -> Answer | None:
        """The one answer to a message; None for what is not meant for us."""
        if not message.address.startswith("/stylus"):
            return None
        rid = message.arguments[0] if message.arguments else None
        if isinstance(rid, float) and rid.is_integer():
            rid = int(rid)
        call = Call(self._home(message), message.address, rid, message.arguments[1:])
        key = (to_text(call.peer), message.address, repr(rid))
        repeats = rid not in (0, "", None) and echoed(rid) == rid
        if repeats and key in self._answered:
            self._answered.move_to_end(key)
            return self._answered[key]
        try:
            if message.address not in ADDRESSES:
                raise Unknown(f"{message.address[:100]} is none of our addresses")
            if echoed(rid) != rid:
                raise BadRequest("the first argument is a request id: a whole number, or text of up to 200 letters")
            reply = ADDRESSES[message.address].serve(self, call)
            answer = Answer(call.peer, "/stylus/reply", (message.address, rid, *reply))
        except StylusError as error:
            text = cut(" ".join(str(error).split()), SAID)
            answer = Answer(call.peer, "/stylus/error", (message.address[:200], echoed(rid), error.code, text))
            # What there was no room for may be asked again under the same id.
            repeats = repeats and not isinstance(error, Busy)
        if repeats:
            self._remember(key, answer)
        return answer

    def _remember(self, key: tuple[str, str, str], answer: Answer) -> None:
        self._answered[key] = answer
        self._answered_bytes += answer.size
        while len(self._answered) > REMEMBERED or self._answered_bytes > REMEMBERED_BYTES:
            _, oldest = self._answered.popitem(last=False)
            self._answered_bytes -= oldest.size

    def forget(self) -> None:
        """Forget what was answered: what was promised could not be kept."""
        self._answered.clear()
        self._answered_bytes = 0

    def _home(self, message: Message) -> Peer:
        """Where a client hears from us: its `reply_port`, the port of its `/stylus/notify`, or where it sent from."""
        if message.address in ("/stylus/render", "/stylus/render/file"):
            for name, value in pairwise(message.arguments):
                if name == "reply_port":
                    # What is no port is told when the options are read.
                    with suppress(BadRequest):
                        return _reply_port(message.peer, value)
        return self.listeners.home(message.peer)

    def ping(self, call: Call) -> list[Argument]:
        call.end()
        return [VERSION, PROTOCOL]

    def page(self, call: Call) -> list[Argument]:
        call.end()
        return [self.page_url]

    def status(self, call: Call) -> list[Argument]:
        call.end()
        conditions = self.workers.conditions
        first = conditions[0]
        busy = next((one.state for one in conditions if one.state != "idle"), "idle")
        return [
            ",".join(one.device for one in conditions), first.model, busy, self.jobs.count("queued"),
            self.jobs.count("running"), max(one.cached for one in conditions),
            max(one.cache_bytes for one in conditions), sum(one.inversions for one in conditions),
        ]  # fmt: skip

    def notify(self, call: Call) -> list[Argument]:
        wanted = call.integer("1 to be notified, 0 not to be", 0, 1)
        port = call.integer("port", 0, 65535) if call.more else 0
        seconds = call.integer("seconds", 1, 86400) if call.more else 3600
        call.end()
        if not wanted:
            self.listeners.remove(call.peer)
            return [0]
        target = Peer("udp", call.peer.host, port) if port else call.peer
        self.listeners.add(call.peer, target, seconds)
        return [seconds]

    def style_add(self, call: Call) -> list[Argument]:
        name, file = call.text("name"), self.roots.file(call.text("path"))
        start, end = (str(call.take(part)) if call.more else None for part in ("start", "end"))
        call.end()
        library.add(name, file, start, end)
        return [name, False]

    def style_list(self, call: Call) -> list[Argument]:
        first = call.integer("offset", 0, 10**6) if call.more else 0
        call.end()
        styles = library.styles()
        return _page(len(styles), first, ([style.name, self._is_warm(style)] for style in styles[first:]))

    def style_remove(self, call: Call) -> list[Argument]:
        name = call.text("name")
        call.end()
        library.remove(name)
        return [name]

    def style_warm(self, call: Call) -> list[Argument]:
        style = library.style(call.text("name"))
        values = call.options()
        if self._is_warm(style) and not values:
            return [style.name, True, 0]
        request = with_options(Path(style.path), [(Path(style.path), style.name)], values)
        self._model(request.model)
        job = self._submit(call, replace(request, kind="warm", folder=str(Path(style.path).parent)))
        return [style.name, False, job.id]

    def _is_warm(self, style: library.Style) -> bool:
        return any(identity(Path(style.path)) in one.warm_styles for one in self.workers.conditions)

    def render(self, call: Call) -> list[Argument]:
        content, style = call.text("content"), call.text("style")
        values = call.options()
        return self._render(call, content, [style, *values.pop("style", [])], values)

    def audition(self, call: Call) -> list[Argument]:
        content = self.roots.file(call.text("content"))
        segment = {"start": call.take("start"), "end": call.take("end")}
        values = call.options()
        names = values.pop("style", None) or [style.name for style in library.styles()]
        if not names:
            raise BadRequest("audition: the library has no styles yet; `stylus style add NAME FILE` adds one")
        request = with_options(content, [self._style(name) for name in names], {**values, **segment})
        self._model(request.model)
        request = replace(request, kind="audition", folder=str(self.roots.own_output))
        # Somebody listens and waits.
        job = self.jobs.submit(request.to_dict(), to_text(call.peer), call.request, priority=AUDITION)
        return [job.id, len(names)]

    def render_file(self, call: Call) -> list[Argument]:
        file = self.roots.file(call.text("path"))
        values = call.options()
        try:
            with file.open("rb") as stream:
                text = stream.read(LARGEST_FILE + 1)
            if len(text) > LARGEST_FILE:
                raise BadRequest(f"{file.name} is over 1 MiB, which is the most that a request in a file may have")
            given = json.loads(text.decode())
            content = given.pop("content")
            styles = given.pop("styles", None) or [given.pop("style")]
            if not isinstance(content, str) or not all(isinstance(style, str) for style in styles):
                raise TypeError
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BadRequest(
                f'{file.name} is no JSON object with "content", "style" or "styles", and options'
            ) from None
        return self._render(call, content, styles, {**given, **values})

    def _render(self, call: Call, content: str, styles: list[str], values: dict[str, Any]) -> list[Argument]:
        values = dict(values)
        if "reply_port" in values:
            # A file may say it too.
            call.peer = _reply_port(call.peer, values.pop("reply_port"))
        output = values.pop("output", "")
        clip = self.roots.file(content)
        known = [self._style(style) for style in styles]
        request = with_options(clip, known, values)
        self._model(request.model)
        request, note = self._aimed(request, clip, output)
        job = self._submit(call, request)
        return [job.id, note] if note else [job.id]

    def _style(self, reference: str) -> tuple[Path, str]:
        """A library name, or an allowed file."""
        if "/" in reference or "\\" in reference:
            file = self.roots.file(reference)
            return file, file.stem
        style = library.style(reference)
        return self.roots.file(style.path), style.name

    def _aimed(self, request: RenderJob, clip: Path, output: object) -> tuple[RenderJob, str]:
        """The request with the place of its stem, and what to say where that is not where one would look."""
        # A pattern that makes no name is told now.
        stem_path(clip, [name for _, name in request.styles], Target(None, request.name))
        if output:
            place = self.roots.resolved(str(output))
            if place.is_dir():
                return replace(request, folder=str(place)), ""
            if not self.roots.holds(place.parent) or not place.parent.is_dir():
                raise BadRequest(f"output: the folder {place.parent} is not there")
            if not place.suffix:
                raise BadRequest(f"output: the folder {place} is not there")
            check_container(place)
            if request.sidecar == "embed":
                check_carrier(place)
            return replace(request, folder=str(place.parent), file=place.name), ""
        folder = self.roots.own_output
        if clip.is_relative_to(self.roots.uploads):
            return replace(request, folder=str(folder)), f"the stem goes to {folder}"
        if can_write(clip.parent):
            return replace(request, folder=str(clip.parent)), ""
        return replace(request, folder=str(folder)), f"{clip.parent} cannot be written; the stem goes to {folder}"

    def _submit(self, call: Call, request: RenderJob) -> Job:
        return self.jobs.submit(request.to_dict(), to_text(call.peer), call.request)

    def job_status(self, call: Call) -> list[Argument]:
        job = self._job(call)
        call.end()
        now = self.progress.get(job.id) if job.state == "running" else None
        fraction, stage = (now.fraction, now.stage) if now else (job.fraction, job.stage)
        said = job.path if job.state == "done" else f"{job.code}: {cut(job.message, SAID)}" if job.code else ""
        return [job.id, job.state, float(fraction), stage, said]

    def job_list(self, call: Call) -> list[Argument]:
        first = call.integer("offset", 0, 10**6) if call.more else 0
        call.end()
        total, jobs = self.jobs.page(first, ROOM // 16)
        return _page(total, first, ([number, state] for number, state in jobs))

    def job_cancel(self, call: Call) -> list[Argument]:
        return self._changed(call, self.jobs.cancel)

    def job_pause(self, call: Call) -> list[Argument]:
        return self._changed(call, self.jobs.pause)

    def job_resume(self, call: Call) -> list[Argument]:
        return self._changed(call, self.jobs.resume)

    def job_priority(self, call: Call) -> list[Argument]:
        number = call.integer("job", 0, 2**31)
        job = self.jobs.prioritise(number, call.integer("priority", -1000, 1000))
        call.end()
        return [job.id, job.state, job.priority]

    def _changed(self, call: Call, change: Callable[[int], Job]) -> list[Argument]:
        number = call.integer("job", 0, 2**31)
        call.end()
        job = change(number)
        return [job.id, job.state]

    def _job(self, call: Call) -> Job:
        return self.jobs.get(call.integer("job", 0, 2**31))

    def presets(self, call: Call) -> list[Argument]:
        first = call.integer("offset", 0, 10**6) if call.more else 0
        call.end()
        names = sorted(presets())
        return _page(len(names), first, ([name] for name in names[first:]))

    def models(self, call: Call) -> list[Argument]:
        call.end()
        return list(KNOWN)

    def model(self, call: Call) -> list[Argument]:
        if call.more:
            name = call.text("name")
            call.end()
            self._model(name)
            self.workers.choose(name)
            return [name]
        return [self.workers.conditions[0].model]

    def _model(self, name: str) -> None:
        """Raise what can be said of a model at once: `BadRequest` or `NotAllowed` for what is neither a known one nor
        in an allowed folder, `NoModel` for what is not there and will not come.
        """
        if name in KNOWN:
            # Where it may be downloaded it is, by a worker.
            if is_offline():
                located(KNOWN[name])
        elif name:
            try:
                path = self.roots.resolved(name)
            except BadRequest:
                raise BadRequest(f"model: {name[:100]!r} is none of {', '.join(KNOWN)}, nor a path") from None
            except NotAllowed as error:
                raise NotAllowed(f"model: {error}") from None
            try:
                named(str(path))
            except OSError as error:
                raise NoModel(f"model: {name[:100]!r} cannot be read: {error.strerror}") from error


ADDRESSES: dict[str, Address] = {
    "/stylus/ping": Address("", Desk.ping),
    "/stylus/status": Address("", Desk.status),
    "/stylus/notify": Address("1|0 [port] [seconds]", Desk.notify),
    "/stylus/style/add": Address("name path [start end]", Desk.style_add),
    "/stylus/style/list": Address("[offset]", Desk.style_list),
    "/stylus/style/remove": Address("name", Desk.style_remove),
    "/stylus/style/warm": Address("name [key value …]", Desk.style_warm),
    "/stylus/render": Address("content style [key value …]", Desk.render),
    "/stylus/render/file": Address("path.json [key value …]", Desk.render_file),
    "/stylus/audition": Address("content start end [style name]… [key value …]", Desk.audition),
    "/stylus/page": Address("", Desk.page),
    "/stylus/job/status": Address("job", Desk.job_status),
    "/stylus/job/list": Address("[offset]", Desk.job_list),
    "/stylus/job/cancel": Address("job", Desk.job_cancel),
    "/stylus/job/pause": Address("job", Desk.job_pause),
    "/stylus/job/resume": Address("job", Desk.job_resume),
    "/stylus/job/priority": Address("job n", Desk.job_priority),
    "/stylus/presets": Address("[offset]", Desk.presets),
    "/stylus/models": Address("", Desk.models),
    "/stylus/model": Address("[name]", Desk.model),
}
"""Everything that can be asked. Tests hold docs/osc.md, which says what replies carry, and the device against it."""


def _reply_port(peer: Peer, value: object) -> Peer:
    """Where a client on that host hears from us; numbers are taken as text too, as from a file or a shell."""
    return Peer("udp", peer.host, Option("integer", "", low=1, high=65535).check("reply_port", value))


def echoed(rid: object) -> str | int:
    """A request id as answers repeat it; 0 for what is none."""
    return rid if isinstance(rid, str | int) and len(str(rid)) <= 200 else 0


def _page(total: int, first: int, rows: Iterable[list[Argument]]) -> list[Argument]:
    """Total, offset, and as many of the rows from there on as a packet holds."""
    page: list[Argument] = [total, first]
    room = ROOM
    for row in rows:
        room -= sum(len(value.encode()) + 8 if isinstance(value, str) else 8 for value in row)
        if room < 0:
            break
        page += row
    return page
