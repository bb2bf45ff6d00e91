"""What the page is made of: all of it is here, what is vendored is what npm has, and the dials are the device's."""

from __future__ import annotations

import json
import mimetypes
import os
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import FileResponse
from stylus_daemon.page_app import Page
from stylus_daemon.roots import Roots

from tests.programs import need_node_module, need_program

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "daemon" / "stylus_daemon" / "page"
OWN = [
    path for path in PAGE.rglob("*") if path.suffix in (".html", ".css", ".js", ".svg") and path.parent.name != "vendor"
]


def test_nothing_is_loaded_from_elsewhere() -> None:
    assert len(OWN) > 10
    for path in OWN:
        text = path.read_text("utf-8").replace("http://www.w3.org", "")
        assert "https://" not in text, path
        assert "http://" not in text, path


def test_what_the_page_names_is_there() -> None:
    named: set[str] = set()

    class Names(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            named.update(value for name, value in attrs if name in ("src", "href") and value and value.startswith("/"))

    Names().feed((PAGE / "index.html").read_text("utf-8"))
    assert len(named) >= 3
    assert all((PAGE / name.removeprefix("/page/")).is_file() for name in named)


def test_scripts_are_scripts_whatever_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mimetypes, "_db", mimetypes.MimeTypes())
    # As Windows' registry may have it.
    mimetypes.add_type("text/plain", ".js")
    anything: Any = None
    Page(anything, anything, Roots(), tmp_path, anything).app()
    response = FileResponse(PAGE / "main.js")
    assert response.media_type == "text/javascript"


def test_what_is_vendored_is_what_npm_has() -> None:
    need_node_module("wavesurfer.js")
    package = Path(os.environ["NODE_PATH"]) / "wavesurfer.js"
    for ours, theirs in (
        ("wavesurfer.js", "dist/wavesurfer.esm.js"),
        ("regions.js", "dist/plugins/regions.esm.js"),
        ("LICENSE", "LICENSE"),
    ):
        assert (PAGE / "vendor" / ours).read_bytes() == (package / theirs).read_bytes()


def test_the_dials_are_the_devices() -> None:
    need_program("node", "nodejs")
    code = f"import('{(PAGE / 'dials.js').as_uri()}').then(({{ DIALS }}) => console.log(JSON.stringify(DIALS)))"
    flags = ["--experimental-default-type=module", "--no-warnings"]
    said = subprocess.run(["node", *flags, "--eval", code], capture_output=True, check=True, text=True, timeout=60)
    page: dict[str, dict[str, Any]] = {dial["name"]: dial for dial in json.loads(said.stdout)}
    controls = json.loads((ROOT / "max_for_live" / "controls.json").read_text("utf-8"))["controls"]
    device = {control["name"]: control for control in controls if control["kind"] == "dial"}
    assert device.keys() <= page.keys()
    for name, control in device.items():
        dial = page[name]
        assert [dial["low"], dial["high"]] == control["range"]
        assert dial["initial"] == control["initial"]
        assert dial["setting"] == control["says"]
