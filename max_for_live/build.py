"""Make `Stylus.amxd` of `controls.json`, and draw its layout.

    python max_for_live/build.py [--picture FILE.png]

The device is one patcher: audio passes through, controls speak to `js`, `js` to `node.script`, and what `js` says goes
back to the controls by a `route`.
"""

from __future__ import annotations

import argparse
import json
import struct
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from py2max import Patcher
from py2max.core import Box
from py2max.core.common import Rect

HERE = Path(__file__).parent
STORED_ONLY, HIDDEN = 1, 2
"""Visibility of a parameter that is not automated: kept with the Set, or not even that and out of undo."""
FLOAT, ENUM, BLOB = 0, 2, 3
"""Kinds of parameters."""
UNITS = {"float": 1, "percent": 5}
CLASSES: dict[str, tuple[str, list[str]]] = {
    "drop": ("live.drop", ["", ""]),
    "text": ("live.comment", []),
    "label": ("live.comment", []),
    "menu": ("umenu", ["int", "", ""]),
    "stored_menu": ("live.menu", ["", "", "float"]),
    "button": ("live.text", ["", ""]),
    "dial": ("live.dial", ["", "float"]),
    "bar": ("live.slider", ["", "float"]),
}
"""Max's class of each kind of control, and what its outlets carry."""
APPLICATION = {"major": 8, "minor": 6, "revision": 0, "architecture": "x64", "modernui": 1}
"""The Max that the patchers are written for."""
AUDIO_EFFECT = b"aaaa"
WINDOW = (1000, 720)
"""The page's window, pixels: a device is too low for a page."""


@dataclass
class Device:
    """The patcher while it is made."""

    plan: dict[str, Any]
    patcher: Patcher = field(default_factory=lambda: Patcher(validate_connections=False))
    parameters: dict[str, list[Any]] = field(default_factory=dict)
    _row: int = 0

    def object(self, text: str, id: str, **more: Any) -> Box:
        """An object that is not seen, in a grid of its own."""
        return self.patcher.add_textbox(text, id=id, patching_rect=self._place(), **more)

    def subpatcher(self, text: str, id: str, inner: Patcher) -> Box:
        """A patcher within this one."""
        return self.patcher.add_subpatcher(text, id=id, patching_rect=self._place(), patcher=inner)

    def _place(self) -> Rect:
        self._row += 1
        return Rect(600 + 220 * (self._row // 30), 20 + 28 * (self._row % 30), 210, 22)

    def cord(self, source: Box, outlet: int, target: Box, inlet: int = 0) -> None:
        """A connection."""
        self.patcher.add_line(source, target, inlet=inlet, outlet=outlet)

    def parameter(self, id: str, name: str, short: str, kind: int, visible: int = 0, **more: Any) -> dict[str, Any]:
        """What Live knows of a parameter; it is listed with the others."""
        self.parameters[id] = [name, short, 0]
        value = {
            "parameter_longname": name, "parameter_shortname": short, "parameter_type": kind, "parameter_modmode": 0,
            "parameter_invisible": visible, **more,
        }  # fmt: skip
        return {"parameter_enable": 1, "saved_attribute_attributes": {"valueof": value}, "varname": name}


def control(device: Device, about: dict[str, Any]) -> Box:
    """One control, seen in the device."""
    kind, name = about["kind"], about.get("name", about["id"])
    more: dict[str, Any] = {}
    if "info" in about:
        more |= {"annotation": about["info"], "annotation_name": name, "hint": about["info"]}
    short = about.get("short", about.get("text", name))
    match kind:
        case "dial":
            low, high = about["range"]
            more |= device.parameter(
                about["id"], name, short, FLOAT, parameter_unitstyle=UNITS[about["unit"]], parameter_mmin=low,
                parameter_mmax=high, parameter_initial=[about["initial"]], parameter_initial_enable=1,
            )  # fmt: skip
        case "stored_menu":
            more |= device.parameter(
                about["id"], name, short, ENUM, STORED_ONLY, parameter_enum=about["items"],
                parameter_mmax=len(about["items"]) - 1, parameter_initial=[about["initial"]],
                parameter_initial_enable=1,
            )  # fmt: skip
        case "button":
            more |= {"mode": 0, "text": about["text"], "texton": about["text"]}
            more |= device.parameter(
                about["id"], name, short, ENUM, HIDDEN, parameter_enum=["off", "on"], parameter_mmax=1,
                parameter_initial=[0], parameter_initial_enable=1,
            )  # fmt: skip
        case "bar":
            more |= {"orientation": 1, "showname": 0, "shownumber": 0, "ignoreclick": 1}
            more |= device.parameter(
                about["id"], name, short, FLOAT, HIDDEN, parameter_mmin=0.0, parameter_mmax=1.0,
                parameter_unitstyle=1, parameter_initial=[0.0], parameter_initial_enable=1,
            )  # fmt: skip
        case "menu":
            more |= {"items": [word for item in about["items"] for word in (item, ",")][:-1]}
        case "drop":
            more |= {"legend": about["text"], "decodemode": 0}
        case _:
            more |= {"text": about["text"], "textjustification": 0}
    maxclass, outlets = CLASSES[kind]
    x, y, width, height = about["rect"]
    box = Box(
        maxclass, 1, len(outlets), about["id"], Rect(20 + x, 20 + y, width, height), outlettype=outlets,
        presentation=1, presentation_rect=about["rect"], **more,
    )  # fmt: skip
    return device.patcher.add_box(box)


def said(device: Device, js: Box, about: dict[str, Any], box: Box) -> None:
    """What a control says to `js`: a button its word alone, all others a word and a value."""
    word = about["says"]
    text = f"t {word}" if about["kind"] == "button" else f"prepend {word}"
    speaker = device.object(text, f"{about['id']}_says")
    device.cord(box, 0, speaker)
    device.cord(speaker, 0, js)


def heard(device: Device, route: Box, outlet: int, about: dict[str, Any], box: Box) -> None:
    """What a control hears from `js`. Menus are told what umenu understands, and texts and bars silently."""
    if about["kind"] == "menu":
        device.cord(route, outlet, box)
        return
    hearer = device.object(f"prepend {about.get('by', 'set')}", f"{about['id']}_hears")
    device.cord(route, outlet, hearer)
    device.cord(hearer, 0, box)


def page_window(device: Device, route: Box, outlet: int, js: Box) -> None:
    """A window with the daemon's page: it opens when it gets an address, and is empty while it is closed."""
    inner = Patcher(validate_connections=False, openinpresentation=1)
    inner.appversion = APPLICATION
    inner.rect = Rect(120, 120, *WINDOW)
    inner.toolbarvisible = inner.enablehscroll = inner.enablevscroll = 0
    rows = iter(range(WINDOW[1] + 60, WINDOW[1] + 400, 28))

    def box(maxclass: str, id: str, inlets: int, outlets: list[str], **more: Any) -> Box:
        x, y, width, height = more.get("presentation_rect", [0, next(rows), 280, 22])
        place = Rect(20 + x, 20 + y, width, height)
        return inner.add_box(Box(maxclass, inlets, len(outlets), id, place, outlettype=outlets, **more))

    def seen(maxclass: str, id: str, outlets: list[str], rect: list[int], **more: Any) -> Box:
        return box(maxclass, id, 1, outlets, presentation=1, presentation_rect=rect, **more)

    button = "Open in Browser"
    browser = seen("textbutton", "browser", ["", "", "int"], [6, 4, 120, 20], mode=0, text=button, texton=button)
    words = "The page is heard on your computer's own output, not on Live's."
    seen("comment", "output_note", [], [134, 5, WINDOW[0] - 140, 20], text=words)
    web = seen("jweb", "web", [""], [0, 28, WINDOW[0], WINDOW[1] - 28], rendermode=0, url="about:blank")
    address = box("inlet", "address", 0, [""], index=1, comment="the page's address")
    load = box("newobj", "load", 1, [""], text="prepend url")
    # Without a window the page must be heard no longer.
    closed = box("newobj", "closed", 1, ["bang"], text="closebang")
    leave = box("message", "leave", 2, [""], text="url about:blank")
    begun = box("newobj", "begun", 1, ["bang"], text="loadbang")
    float_ = box("message", "float", 2, [""], text="window flags float nogrow nozoom, window exec")
    frame = box("newobj", "frame", 1, ["", ""], text="thispatcher")
    wish = box("outlet", "wish", 1, [], index=1, comment="a bang: in the browser instead")
    for chain in ((address, load, web), (closed, leave, web), (begun, float_, frame), (browser, wish)):
        for source, target in pairwise(chain):
            inner.add_line(source, target)

    window = device.subpatcher("p Stylus", "page_window", inner)
    shown = device.object("t l open", "page_shown", numoutlets=2, outlettype=["", ""])
    opening = device.object("pcontrol", "page_opening")
    asked = device.object("t browse", "browser_says")
    device.cord(route, outlet, shown)
    # The window opens before it gets its address.
    device.cord(shown, 1, opening)
    device.cord(opening, 0, window)
    device.cord(shown, 0, window)
    device.cord(window, 0, asked)
    device.cord(asked, 0, js)


def patcher(plan: dict[str, Any]) -> dict[str, Any]:
    """The whole patcher as Max keeps it."""
    device = Device(plan)
    audio_in, audio_out = device.object("plugin~", "audio_in"), device.object("plugout~", "audio_out")
    for channel in (0, 1):
        device.cord(audio_in, channel, audio_out, channel)
    js = device.object(f"js {plan['scripts'][0]}", "js", numoutlets=2, outlettype=["", ""])
    node = device.object(
        f"node.script {plan['scripts'][-1]} @autostart 1 @watch 0", "node", numoutlets=2, outlettype=["", ""]
    )
    from_node = device.object("prepend node", "from_node")
    device.cord(js, 0, node)
    device.cord(node, 0, from_node)
    device.cord(from_node, 0, js)
    ready, loaded = device.object("live.thisdevice", "this_device"), device.object("t loaded", "loaded")
    device.cord(ready, 0, loaded)
    device.cord(loaded, 0, js)
    leaving, freed = device.object("freebang", "freebang"), device.object("t freed", "freed")
    device.cord(leaving, 0, freed)
    device.cord(freed, 0, js)

    words = [about["hears"] for about in plan["controls"] if "hears" in about] + ["keep_state", "page"]
    route = device.object(
        f"route {' '.join(words)}", "route", numoutlets=len(words) + 1, outlettype=[""] * (len(words) + 1)
    )
    device.cord(js, 1, route)
    kept = device.parameter("state", "State", "State", BLOB, STORED_ONLY)
    state = device.object("pattr Stylus_State @autorestore 1", "state", **kept)
    restored = device.object("prepend restore", "restored")
    device.cord(route, words.index("keep_state"), state)
    device.cord(state, 0, restored)
    device.cord(restored, 0, js)
    page_window(device, route, words.index("page"), js)
    for about in plan["controls"]:
        box = control(device, about)
        if "says" in about:
            said(device, js, about, box)
        if "hears" in about:
            heard(device, route, words.index(about["hears"]), about, box)

    made = device.patcher.to_dict()["patcher"]
    return {
        "patcher": {
            "fileversion": 1,
            "appversion": APPLICATION,
            "classnamespace": "box",
            "rect": [80.0, 100.0, 1100.0, 760.0],
            "openinpresentation": 1,
            "default_fontsize": 10.0,
            "default_fontname": "Arial",
            "devicewidth": float(plan["width"]),
            "description": "Gives a clip the sound of another, by the Stylus daemon on this machine",
            "boxes": [_ordered(box) for box in made["boxes"]],
            "lines": made["lines"],
            "parameters": {**device.parameters, "parameterbanks": _banks(plan), "inherited_shortname": 1},
            "dependency_cache": [
                {"name": name, "bootpath": ".", "patcherrelativepath": ".", "type": "TEXT", "implicit": 1}
                for name in plan["scripts"]
            ],
            "latency": 0,
            "is_mpe": 0,
            "minimum_live_version": "11.0",
            "minimum_max_version": "8.6",
            "platform_compatibility": 0,
            "project": {
                "version": 1, "creationdate": 0, "modificationdate": 0, "viewrect": [0.0, 0.0, 300.0, 500.0],
                "autoorganize": 1, "hideprojectwindow": 1, "showdependencies": 1, "autolocalize": 0,
                "contents": {"patchers": {}, "code": {name: {"kind": "javascript"} for name in plan["scripts"]}},
                "layout": {}, "searchpath": {}, "detailsvisible": 0,
                "amxdtype": int.from_bytes(AUDIO_EFFECT, "big"), "readonly": 0, "devpathtype": 0, "devpath": ".",
                "sortmode": 0, "viewmode": 0, "includepackages": 0,
            },
            "autosave": 0,
        }
    }  # fmt: skip


def _ordered(entry: dict[str, Any]) -> dict[str, Any]:
    box = dict(sorted(entry["box"].items()))
    if "patcher" in box:
        # Max has a patcher within another without its name.
        inner = box["patcher"]["patcher"]
        box["patcher"] = {**inner, "boxes": [_ordered(one) for one in inner["boxes"]]}
    return {"box": box}


def _banks(plan: dict[str, Any]) -> dict[str, Any]:
    """Eight knobs each, as Push shows them."""
    return {
        str(index): {
            "index": index, "name": bank["name"],
            "parameters": [*bank["parameters"], *["-"] * (8 - len(bank["parameters"]))],
        }
        for index, bank in enumerate(plan["banks"])
    }  # fmt: skip


def packed(patcher_json: dict[str, Any]) -> bytes:
    """An .amxd file: three chunks of a name, a little-endian size and the data."""
    text = json.dumps(patcher_json, indent=1, ensure_ascii=False).encode() + b"\n\0"
    chunks = ((b"ampf", AUDIO_EFFECT), (b"meta", bytes(4)), (b"ptch", text))
    return b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks)


def draw(plan: dict[str, Any], file: Path) -> None:
    """The layout as a picture, by its rectangles."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Circle, Rectangle

    width, height = plan["width"], plan["height"]
    figure, axes = plt.subplots(figsize=(width / 50, height / 50), dpi=150)
    axes.set(xlim=(0, width), ylim=(height, 0), facecolor="#a5a5a5", xticks=[], yticks=[])
    fills = {"drop": "#8c8c8c", "menu": "#1e1e1e", "stored_menu": "#1e1e1e", "button": "#d0d0d0", "bar": "#707070"}
    for about in plan["controls"]:
        x, y, w, h = about["rect"]
        kind, words = about["kind"], about.get("text", about.get("items", [about.get("name", "")])[0])
        if kind == "dial":
            axes.add_patch(Circle((x + w / 2, y + 24), 11, fill=False, lw=2.5, ec="#303030"))
            axes.text(x + w / 2, y + 6, about["name"], ha="center", va="center", fontsize=8)
            axes.text(x + w / 2, y + h - 5, f"{about['initial']:g}", ha="center", va="center", fontsize=8)
            continue
        if kind in fills:
            axes.add_patch(Rectangle((x, y), w, h, fc=fills[kind], ec="#505050", lw=0.6))
        middle = kind in ("drop", "button")
        colour = "#f0a030" if kind.endswith("menu") else "black"
        axes.text(
            x + (w / 2 if middle else 3), y + h / 2, "" if kind == "bar" else words, fontsize=7.5, color=colour,
            ha="center" if middle else "left", va="center",
        )  # fmt: skip
    figure.subplots_adjust(0, 0, 1, 1)
    figure.savefig(file)
    plt.close(figure)


def main() -> None:
    """Build the device beside this file, or where `--output` says."""
    parser = argparse.ArgumentParser(description="Make the Max for Live device.")
    parser.add_argument("--output", type=Path, default=HERE / "Stylus.amxd")
    parser.add_argument("--picture", type=Path, help="draw the layout too")
    chosen = parser.parse_args()
    plan = json.loads((HERE / "controls.json").read_text("utf-8"))
    chosen.output.write_bytes(packed(patcher(plan)))
    if chosen.picture:
        draw(plan, chosen.picture)


if __name__ == "__main__":
    main()
