"""The built device, read back by a parser of its own: what Max and Live would stumble over."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from stylus_daemon.desk import ADDRESSES

FOLDER = Path(__file__).parent.parent / "max_for_live"
HEIGHT = 169
"""What Live shows of a device, pixels."""

# Inlets and outlets of objects, by Max's reference.
PORTS = {
    "plugin~": (2, 2), "plugout~": (2, 2), "node.script": (1, 2), "js": (1, 2), "prepend": (1, 1),
    "live.thisdevice": (1, 3), "freebang": (1, 1), "pattr": (1, 3), "live.drop": (1, 2), "live.comment": (1, 0),
    "umenu": (1, 3), "live.menu": (1, 3), "live.text": (1, 2), "live.dial": (1, 2), "live.slider": (1, 2),
    "pcontrol": (1, 1), "jweb": (1, 1), "textbutton": (1, 3), "comment": (1, 0), "message": (2, 1), "inlet": (0, 1),
    "outlet": (1, 0), "closebang": (1, 1), "loadbang": (1, 1), "thispatcher": (1, 2),
}  # fmt: skip


def chunks(data: bytes) -> list[tuple[str, bytes]]:
    found, at = [], 0
    while at < len(data):
        size = struct.unpack_from("<I", data, at + 4)[0]
        assert at + 8 + size <= len(data)
        found.append((data[at : at + 4].decode(), data[at + 8 : at + 8 + size]))
        at += 8 + size
    return found


DATA = (FOLDER / "Stylus.amxd").read_bytes()
CHUNKS = chunks(DATA)
PATCHER: dict[str, Any] = json.loads(CHUNKS[2][1][:-1])["patcher"]


def boxes(patcher: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["box"]["id"]: entry["box"] for entry in patcher["boxes"]}


BOXES = boxes(PATCHER)
WINDOW: dict[str, Any] = BOXES["page_window"]["patcher"]
SEEN = [box for box in BOXES.values() if box.get("presentation")]
SCRIPTS = {path.name: path.read_text("utf-8") for path in FOLDER.glob("stylus_*.js")}


def parameters() -> dict[str, dict[str, Any]]:
    return {
        id: box["saved_attribute_attributes"]["valueof"] for id, box in BOXES.items() if box.get("parameter_enable")
    }


def ports(box: dict[str, Any]) -> tuple[int, int]:
    words = box.get("text", "").split() if box["maxclass"] == "newobj" else [box["maxclass"]]
    if words[0] == "route":
        return 1, len(words)
    if words[0] == "t":
        return 1, len(words) - 1
    if words[0] == "p":
        kinds = Counter(inner["maxclass"] for inner in boxes(box["patcher"]).values())
        return kinds["inlet"], kinds["outlet"]
    return PORTS[words[0]]


def test_the_chunks() -> None:
    assert [(name, len(data)) for name, data in CHUNKS[:2]] == [("ampf", 4), ("meta", 4)]
    assert CHUNKS[0][1] == b"aaaa"
    assert CHUNKS[1][1] == bytes(4)
    assert [name for name, _ in CHUNKS[2:]] == ["ptch"]
    assert CHUNKS[2][1].endswith(b"}\n\0")
    assert CHUNKS[2][1].count(b"\0") == 1


def test_what_live_wants_of_a_device() -> None:
    assert PATCHER["openinpresentation"] == 1
    assert PATCHER["latency"] == 0
    assert PATCHER["project"]["amxdtype"] == int.from_bytes(b"aaaa", "big")
    for key in ("fileversion", "appversion", "classnamespace", "devicewidth", "minimum_live_version"):
        assert PATCHER[key]


def test_ids_and_names_are_unique() -> None:
    assert len(BOXES) == len(PATCHER["boxes"])
    names = [value["parameter_longname"] for value in parameters().values()]
    assert max(Counter(names).values()) == 1


@pytest.mark.parametrize("patcher", [PATCHER, WINDOW], ids=["device", "window"])
def test_every_cord_joins_an_outlet_and_an_inlet(patcher: dict[str, Any]) -> None:
    there = boxes(patcher)
    assert len(there) == len(patcher["boxes"])
    for entry in patcher["lines"]:
        (source, outlet), (target, inlet) = entry["patchline"]["source"], entry["patchline"]["destination"]
        assert outlet < ports(there[source])[1] == there[source]["numoutlets"], entry
        assert inlet < ports(there[target])[0] <= there[target]["numinlets"], entry


def reached(patcher: dict[str, Any], source: str) -> list[str]:
    """What an object's outlets end in, in the order in which Max sends: the rightmost outlet first."""
    cords = [entry["patchline"] for entry in patcher["lines"] if entry["patchline"]["source"][0] == source]
    cords.sort(key=lambda cord: -cord["source"][1])
    return [cord["destination"][0] for cord in cords]


def test_the_pages_window() -> None:
    """Opened, then told the address; emptied when it closes, so that nothing is heard without a window."""
    route = next(id for id, box in BOXES.items() if box.get("text", "").startswith("route "))
    assert "page_shown" in reached(PATCHER, route)
    assert BOXES["page_shown"]["text"] == "t l open"
    assert reached(PATCHER, "page_shown") == ["page_opening", "page_window"]
    assert reached(PATCHER, "page_opening") == ["page_window"]
    inner = boxes(WINDOW)
    (web,) = (id for id, box in inner.items() if box["maxclass"] == "jweb")
    assert inner[web]["url"] == "about:blank"
    said = {box["text"]: reached(WINDOW, id) for id, box in inner.items() if "text" in box}
    assert said["prepend url"] == said["url about:blank"] == [web]
    assert reached(WINDOW, "closed") == ["leave"]
    assert WINDOW["openinpresentation"] == 1
    assert WINDOW["appversion"] == PATCHER["appversion"]
    *_, width, height = WINDOW["rect"]
    shown = [box["presentation_rect"] for box in inner.values() if box.get("presentation")]
    assert len(shown) == 3
    for x, y, w, h in shown:
        assert 0 <= x < x + w <= width
        assert 0 <= y < y + h <= height
    for (x, y, w, h), (a, b, c, d) in combinations(shown, 2):
        assert x + w <= a or a + c <= x or y + h <= b or b + d <= y
    # A page in the strip would be a page that nobody can use.
    assert not [box for box in SEEN if box["maxclass"] == "jweb"]


def test_audio_passes() -> None:
    cords = {(*entry["patchline"]["source"], *entry["patchline"]["destination"]) for entry in PATCHER["lines"]}
    by_text = {box.get("text"): id for id, box in BOXES.items()}
    for channel in (0, 1):
        assert (by_text["plugin~"], channel, by_text["plugout~"], channel) in cords


def test_every_parameter_is_listed_and_initialised() -> None:
    listed = {key: value for key, value in PATCHER["parameters"].items() if isinstance(value, list)}
    assert listed == {
        id: [about["parameter_longname"], about["parameter_shortname"], 0] for id, about in parameters().items()
    }
    for about in parameters().values():
        if about["parameter_type"] == 3:
            continue  # what the Set keeps of us begins with nothing
        assert about["parameter_initial_enable"] == 1
        low, high = about.get("parameter_mmin", 0), about["parameter_mmax"]
        assert low <= about["parameter_initial"][0] <= high


def test_only_what_a_user_automates_is_automated() -> None:
    automated = {about["parameter_longname"] for about in parameters().values() if not about["parameter_invisible"]}
    assert automated == {"Keep", "Amount", "Mix"}
    for bank in PATCHER["parameters"]["parameterbanks"].values():
        known = {about["parameter_longname"] for about in parameters().values()} | {"-"}
        assert len(bank["parameters"]) == 8
        assert set(bank["parameters"]) <= known
        assert automated <= set(bank["parameters"])


def test_the_layout() -> None:
    for box in SEEN:
        x, y, width, height = box["presentation_rect"]
        assert 0 <= x < x + width <= PATCHER["devicewidth"]
        assert 0 <= y < y + height <= HEIGHT
        if box["maxclass"] != "live.comment":
            assert box["annotation"], box["id"]
    for one, other in combinations(SEEN, 2):
        (x, y, width, height), (a, b, c, d) = one["presentation_rect"], other["presentation_rect"]
        assert x + width <= a or a + c <= x or y + height <= b or b + d <= y, (one["id"], other["id"])


def test_no_path_is_of_one_machine() -> None:
    text = CHUNKS[2][1].decode()
    assert not re.search(r'"[^"]*(/Users/|/home/|/work/|/tmp/|[A-Z]:[/\\])', text)
    assert {entry["name"] for entry in PATCHER["dependency_cache"]} == set(SCRIPTS)
    assert {entry["bootpath"] for entry in PATCHER["dependency_cache"]} == {"."}


def test_every_address_is_the_daemons() -> None:
    events = {"/stylus/job/state", "/stylus/job/progress", "/stylus/job/result", "/stylus/job/error"}
    replies = {"/stylus/reply", "/stylus/error"}
    said = {address for script in SCRIPTS.values() for address in re.findall(r"/stylus/[\w/]+", script)}
    assert "/stylus/render" in said
    assert said <= {*ADDRESSES, *events, *replies}


def test_js_and_the_patch_understand_each_other() -> None:
    words = {
        box["text"].split()[1]
        for id, box in BOXES.items()
        if box.get("text", "").startswith(("prepend ", "t ")) and not id.endswith(("_hears", "_shown"))
    }
    handlers = set(re.findall(r"^function (\w+)\(", SCRIPTS["stylus_device.js"], re.MULTILINE))
    assert words <= handlers
    route = next(box["text"].split()[1:] for box in BOXES.values() if box.get("text", "").startswith("route "))
    spoken = set(re.findall(r"\b(?:say|outlet\(1,) ?\(?\"(\w+)\"", SCRIPTS["stylus_device.js"]))
    assert spoken <= set(route)


@pytest.mark.slow
def test_the_device_is_what_its_sources_make(tmp_path: Path) -> None:
    picture = tmp_path / "layout.png"
    words = ["--output", str(tmp_path / "Stylus.amxd"), "--picture", str(picture)]
    subprocess.run([sys.executable, str(FOLDER / "build.py"), *words], check=True, timeout=300)
    assert (tmp_path / "Stylus.amxd").read_bytes() == DATA
    assert picture.read_bytes().startswith(b"\x89PNG")
