"""The device's scripts in a Set: Max, the controls, `node.script` and the daemon, as a test plays them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from stylus_audio.settings import Settings
from tests.programs import need_program

Json = dict[str, Any]

RUNNER = Path(__file__).parent / "run_device.js"

CHORDS = "/Users/zoë/Music/Größe Project/Samples/Imported/Chords 1.wav"
STEM = "/Users/zoë/Music/Größe Project/Samples/Imported/Chords 1_bells.wav"


class Max:
    """Node.js with any number of devices."""

    def __init__(self) -> None:
        need_program("node", "nodejs")
        self._process = subprocess.Popen(
            ["node", str(RUNNER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )

    def ask(self, **line: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


class Device:
    """The scripts in a Set of `tracks`; `shown` and `said` is what the controls got, `requests` what the daemon did.

    `browsed` are the addresses that the browser was to open.
    """

    def __init__(self, max: Max, *tracks: Json, **spec: Any) -> None:
        self._max = max
        self._number = max.ask(open={"tracks": tracks, **spec})
        self.shown: Json = {}
        self.said: list[str] = []
        self.requests: list[tuple[str, str, list[Any]]] = []
        self.sent: list[list[Any]] = []
        self.browsed: list[str] = []
        self.complaints: list[str] = []
        self.overwritten: list[str] = []

    def _do(self, **command: Any) -> Json:
        answer: Json = self._max.ask(device=self._number, **command)
        assert answer["error"] is None
        self.complaints, self.overwritten = answer["complaints"], answer["overwritten"]
        for number, word, *rest in answer["out"]:
            if number == 1:
                self._show(word, rest)
            elif number == "max":
                assert word == "launchbrowser"
                self.browsed += rest
            elif word == "request":
                body = json.loads(rest[1])
                self.requests.append((rest[0], body["address"], body["arguments"]))
            else:
                self.sent.append([word, *rest])
        return answer

    def _show(self, word: str, rest: list[Any]) -> None:
        if word in ("styles", "presets", "models", "takes"):
            self._tell_menu(word, *rest)
            return
        (self.shown[word],) = rest
        if word == "status":
            self.said.append(rest[0])

    def _tell_menu(self, word: str, does: str, *rest: Any) -> None:
        """What a umenu understands."""
        if does == "clear":
            self.shown[word] = []
        elif does == "append":
            self.shown[word] += rest
        else:
            assert does == "set"
            (self.shown[f"choose {word[:-1]}"],) = rest

    def send(self, *words: Any) -> None:
        self._do(send=words)

    def live(self, *words: Any) -> None:
        """Changes the Set, as its user would."""
        self._do(live=words)

    def wait(self, milliseconds: int = 5000) -> None:
        self._do(advance=milliseconds)

    def tracks(self) -> list[Json]:
        return list(self._do(dump=True)["tracks"])

    def slots(self, track: int = 0) -> list[Json | None]:
        return list(self.tracks()[track]["slots"])

    def clip(self, slot: int, track: int = 0) -> Json:
        found = self.slots(track)[slot]
        assert found
        return found

    def start(self, select: str | None = "Chords") -> None:
        """Loaded, with a clip selected, a reference and a daemon."""
        self.send("loaded")
        if select:
            self.live("select", select)
        self.send("node", "connected", '{"version": "0.1.0"}')
        self.send("style_dropped", "Macintosh HD:/Users/zoë/bells.wav")
        self.wait(50)
        self.requests.clear()

    def answer(self, *arguments: Any, key: str = "") -> None:
        """The daemon's reply to the last request, or to one."""
        self.send("node", "reply", key or self.requests[-1][0], json.dumps({"ok": True, "arguments": arguments}))

    def refuse(self, code: str, message: str, key: str = "") -> None:
        answer = {"ok": False, "code": code, "message": message}
        self.send("node", "reply", key or self.requests[-1][0], json.dumps(answer))

    def event(self, name: str, *arguments: Any) -> None:
        self.send("node", "event", json.dumps({"address": f"/stylus/job/{name}", "arguments": arguments}))

    def request(self) -> Json:
        """The last render that was asked for: content, style and options."""
        _, address, arguments = self.requests[-1]
        assert address == "/stylus/render"
        options = dict(zip(arguments[2::2], arguments[3::2], strict=True))
        # What the daemon refuses raises here.
        Settings.parse({name: value for name, value in options.items() if name not in ("preset", "model", "output")})
        return {"content": arguments[0], "style": arguments[1], **options}

    def render(self, word: str = "render", job: int = 7, stem: str = STEM) -> Json:
        """A render from the button to the stem in the Set, of which the file is as long as what was asked for."""
        self.send(word)
        asked = self.request()
        self.answer(job)
        self.finish(job, stem, asked)
        return asked

    def finish(self, job: int, stem: str = STEM, asked: Json | None = None) -> None:
        asked = asked or self.request()
        first, last = (int(str(asked.get(end, default)).split()[0]) for end, default in (("start", 0), ("end", 120000)))
        self.live("file", stem, 48000, last - first)
        self.event("state", job, "done")
        self.event("result", job, 0, stem)
        self.wait()


def clips_of(tracks: list[Json]) -> list[Json]:
    return [clip for track in tracks for clip in [*track["slots"], *track["arrangement"]] if clip]


def seconds_at(clip: Json, beat: float) -> float:
    """Where a warped clip plays a beat."""
    markers = clip["markers"]
    at = max(1, min(len(markers) - 1, sum(marker[1] <= beat for marker in markers)))
    (s0, b0), (s1, b1) = markers[at - 1], markers[at]
    return float(s0 + (beat - b0) / (b1 - b0) * (s1 - s0))
