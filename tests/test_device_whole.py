"""The device's three parts together: the scripts in a model of Live, the line to the daemon, and a real daemon."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import HTTPCookieProcessor, build_opener

import pytest
import soundfile

from tests.daemons import Daemon, until
from tests.device.max import Device, Max
from tests.sounds import RATE
from tests.test_device_node import Device as Line


class Patch:
    """The cords between `js` and `node.script`."""

    def __init__(self, live: Device, line: Line) -> None:
        self.live, self.line = live, line
        self._asked = self._sent = self._heard = 0

    def pass_on(self) -> None:
        """Everything that one has said and the other has not heard."""
        for key, address, arguments in self.live.requests[self._asked :]:
            self._asked += 1
            self.line.say("request", key, json.dumps({"address": address, "arguments": arguments}))
        for words in self.live.sent[self._sent :]:
            self._sent += 1
            self.line.say(*words)
        for words in self.line.heard[self._heard :]:
            self._heard += 1
            self._tell_of_the_file(words)
            self.live.send("node", *words)

    def _tell_of_the_file(self, words: list[Any]) -> None:
        """Live reads a file by itself; the model is told how long it is."""
        event = json.loads(words[1]) if words[0] == "event" else {}
        if event.get("address") == "/stylus/job/result":
            path = event["arguments"][2]
            self.live.live("file", path, RATE, soundfile.info(path).frames)


@pytest.fixture
def daemon(tmp_path: Path, tiny_folder: Path) -> Iterator[Daemon]:
    one = Daemon(tmp_path, tiny_folder, "--http-port", "0")
    yield one
    one.end()


@pytest.fixture
def max_() -> Iterator[Max]:
    one = Max()
    yield one
    one.end()


@pytest.fixture
def line(daemon: Daemon) -> Iterator[Line]:
    with closing(Line(daemon.port)) as one:
        yield one


@pytest.mark.slow
def test_from_the_button_to_the_clip_in_the_next_slot(daemon: Daemon, max_: Max, line: Line) -> None:
    values = {
        "name": "Riff", "file_path": daemon.clip, "sample_rate": RATE, "gain": 0.3,
        "sample_length": soundfile.info(daemon.clip).frames, "start_marker": 0.1, "end_marker": 0.6,
    }  # fmt: skip
    before = Path(daemon.clip).read_bytes()
    live = Device(max_, {"name": "Keys", "slots": {"0": {"values": values}}, "arrangement": []})
    patch = Patch(live, line)

    def shows(word: str) -> bool:
        patch.pass_on()
        return word in str(live.shown.get("status", ""))

    live.send("loaded")
    live.live("select", "Riff")
    live.wait(50)
    until(lambda: shows("is ready"))
    live.send("style_dropped", daemon.style)
    live.send("render")
    until(lambda: shows("Riff (style) is in"))
    live.wait()
    (stem,) = daemon.stems()
    made = live.clip(1)
    assert made["file_path"] == str(stem)
    assert made["gain"] == 0.3
    assert soundfile.info(stem).frames == round(0.5 * RATE)
    assert live.overwritten == []
    assert Path(daemon.clip).read_bytes() == before

    def opens() -> bool:
        patch.pass_on()
        return "page" in live.shown

    live.send("page")
    until(opens)
    url = live.shown["page"]
    assert re.match(r"http://127\.0\.0\.1:\d+/\?token=[\w-]+#clip=", url)
    # Browsers keep for themselves what stands behind the number sign.
    assert "<title>Stylus</title>" in build_opener(HTTPCookieProcessor()).open(url.split("#")[0]).read().decode()

    live.send("style_dropped", "/etc/passwd")
    live.send("render")
    until(lambda: shows("stylus root add /etc"))
