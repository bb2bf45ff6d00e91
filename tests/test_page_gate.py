"""Requests that no page of ours sends, at a real daemon: all are refused, and change nothing."""

from __future__ import annotations

import http.client
import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from stylus_daemon.client import Client
from stylus_daemon.page_gate import BODY, UPLOAD

from tests.daemons import Daemon, scratch

ASK = json.dumps({"address": "/stylus/ping", "arguments": []}).encode()
JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
FILE_FORM = {"Content-Type": "multipart/form-data; boundary=x"}
EVIL = {"Host": "evil.example"}


class Door:
    """A daemon's page, as any program on this machine finds it."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        with Client(daemon.port) as client:
            (url,) = client.ask("/stylus/page")
        place = urlsplit(str(url))
        self.port = place.port or 0
        self.token = place.query.removeprefix("token=")
        self.host = f"127.0.0.1:{self.port}"

    def send(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        token: bool = True,
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of an answer; `headers` may say another Host."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        said = {"Host": self.host, **({"Authorization": f"Bearer {self.token}"} if token else {}), **(headers or {})}
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in said.items():
                connection.putheader(name, value)
            if body is not None and not {"Content-Length", "Transfer-Encoding"} & said.keys():
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders()
            if body:
                # It may have been refused meanwhile.
                with suppress(OSError):
                    connection.send(body)
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with scratch(None, "--http-port", "0") as daemon:
        yield Door(daemon)


def hostile(door: Door) -> dict[str, tuple[str, str, dict[str, str], bytes | None, bool]]:
    """What is sent, by what is wrong with it: method, path, headers, body, and whether the token is said."""
    secret = quote("/etc/passwd")
    inside = quote(str(door.daemon.home / "jobs.sqlite"))
    up = quote(f"{door.daemon.folder}/../../etc/passwd")
    render = json.dumps({"address": "/stylus/render", "arguments": [door.daemon.clip, door.daemon.style]}).encode()
    return {
        "foreign host": ("GET", "/api/library", EVIL, None, True),
        "foreign host with our port": ("GET", "/api/library", {"Host": f"evil.example:{door.port}"}, None, True),
        "our host with another port": ("GET", "/api/library", {"Host": "127.0.0.1:80"}, None, True),
        "no host's name": ("GET", "/api/library", {"Host": ""}, None, True),
        "address of the start with a foreign host": ("GET", f"/?token={door.token}", EVIL, None, False),
        "foreign origin": ("POST", "/api/ask", {**JSON, "Origin": "http://evil.example"}, render, True),
        "null origin": ("POST", "/api/ask", {**JSON, "Origin": "null"}, render, True),
        "origin with another port": ("POST", "/api/ask", {**JSON, "Origin": "http://127.0.0.1:1"}, render, True),
        "secure origin": ("POST", "/api/ask", {**JSON, "Origin": f"https://{door.host}"}, render, True),
        "another site's request": ("GET", "/api/library", {"Sec-Fetch-Site": "cross-site"}, None, True),
        "a neighbour's request": ("GET", "/api/library", {"Sec-Fetch-Site": "same-site"}, None, True),
        "form": ("POST", "/api/ask", FORM, b"address=%2Fstylus%2Fping", True),
        "form with a file": ("POST", "/api/uploads?name=a.wav", FILE_FORM, b"--x--", True),
        "text that is JSON": ("POST", "/api/ask", {"Content-Type": "text/plain"}, ASK, True),
        "no type": ("POST", "/api/ask", {}, ASK, True),
        "no token": ("GET", "/api/library", {}, None, False),
        "no token, page": ("GET", "/", {}, None, False),
        "no token, script": ("GET", "/page/main.js", {}, None, False),
        "no token, command": ("POST", "/api/ask", JSON, render, False),
        "no token, events": ("GET", "/api/events", {}, None, False),
        "wrong token": ("GET", "/api/library", {"Authorization": "Bearer " + "x" * 43}, None, False),
        "empty token": ("GET", "/api/library", {"Authorization": "Bearer "}, None, False),
        "wrong cookie": ("GET", "/api/library", {"Cookie": f"stylus-{door.port}=guess"}, None, False),
        "wrong start": ("GET", "/?token=guess", {}, None, False),
        "start's token elsewhere": ("GET", f"/api/library?token={door.token}", {}, None, False),
        "file outside": ("GET", f"/api/file?path={secret}", {}, None, True),
        "sound outside": ("GET", f"/api/sound?path={secret}", {}, None, True),
        "glance outside": ("GET", f"/api/overview?path={secret}", {}, None, True),
        "picture outside": ("GET", f"/api/spectrogram?path={secret}", {}, None, True),
        "the queue's file": ("GET", f"/api/file?path={inside}", {}, None, True),
        "up and out": ("GET", f"/api/file?path={up}", {}, None, True),
        "relative": ("GET", "/api/file?path=clip.wav", {}, None, True),
        "no path": ("GET", "/api/file", {}, None, True),
        "null in a path": ("GET", "/api/file?path=%2Ftmp%00", {}, None, True),
        "traversal of the scripts": ("GET", "/page/../page_gate.py", {}, None, True),
        "hidden traversal": ("GET", "/page/..%2f..%2fpage_gate.py", {}, None, True),
        "traversal of auditions": ("GET", "/api/auditions/..%2f..%2f/attack", {}, None, True),
        "giant body": ("POST", "/api/ask", JSON, b" " * (BODY + 1), True),
        "giant body, said": ("POST", "/api/ask", {**JSON, "Content-Length": str(10**12)}, b"{}", True),
        "giant upload, said": (
            "POST", "/api/uploads?name=a.wav", {**BYTES, "Content-Length": str(UPLOAD + 1)}, b"", True
        ),
        "giant body in pieces": ("POST", "/api/ask", {**JSON, "Transfer-Encoding": "chunked"},
                                 (b"8000\r\n" + b" " * 0x8000 + b"\r\n") * 3 + b"0\r\n\r\n", True),
        "length that is none": ("POST", "/api/ask", {**JSON, "Content-Length": "-1"}, b"", True),
        "put": ("PUT", "/api/uploads?name=a.wav", BYTES, b"x", True),
        "delete": ("DELETE", "/api/library", {}, None, True),
        "options": ("OPTIONS", "/api/ask", {"Origin": "http://evil.example"}, None, True),
        "command by GET": ("GET", "/api/ask", {}, None, True),
        "not JSON": ("POST", "/api/ask", JSON, b"{", True),
        "JSON of another shape": ("POST", "/api/ask", JSON, b"[1]", True),
        "nested arguments": ("POST", "/api/ask", JSON, b'{"address": "/stylus/ping", "arguments": [[1]]}', True),
        "no audio": ("POST", "/api/uploads?name=a.wav", BYTES, b"<script>", True),
        "name of no audio": ("POST", "/api/uploads?name=a.html", BYTES, b"x", True),
        "no name": ("POST", "/api/uploads", BYTES, b"x", True),
    }  # fmt: skip


def test_hostile_requests_are_refused_and_change_nothing(door: Door) -> None:
    uploads = door.daemon.home / "uploads"
    answered = {}
    for name, (method, path, headers, body, token) in hostile(door).items():
        status, said, _ = door.send(method, path, headers, body, token)
        answered[name] = status
        assert 400 <= status < 500, (name, status, said)
        assert b"root:" not in said
        assert b"class PageGate" not in said
    assert len(answered) > 50
    jobs = door.daemon.jobs()
    assert jobs.listed() == []
    jobs.close()
    assert not [path for path in uploads.rglob("*") if path.is_file()]
    assert door.send("POST", "/api/ask", JSON, ASK)[0] == 200


def test_the_token_becomes_a_cookie_that_scripts_cannot_read(door: Door) -> None:
    status, _, headers = door.send("GET", f"/?token={door.token}", token=False)
    assert (status, headers["location"]) == (303, "/")
    cookie, *marks = headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(marks)
    status, page, headers = door.send("GET", "/", {"Cookie": cookie}, token=False)
    assert status == 200
    assert b"<h1>Stylus</h1>" in page
    assert "default-src 'none'" in headers["content-security-policy"]
    # Cookies of whatever else runs on this machine, as browsers send them.
    for other in ('state={"a": 1, "b": [2]}', "a{b}=1", "lonely", "name=é ü"):
        status, _, _ = door.send("GET", "/", {"Cookie": f"{other}; {cookie}"}, token=False)
        assert status == 200, other
    assert headers["x-content-type-options"] == "nosniff"
    file = door.daemon.home / "page-token"
    assert file.read_text() == door.token
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_link_in_an_allowed_folder_leads_nowhere_else(door: Door, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(Path(door.daemon.clip).read_bytes())
    link = door.daemon.folder / "link.wav"
    link.symlink_to(tmp_path / "secret.wav")
    try:
        status, said, _ = door.send("GET", f"/api/file?path={quote(str(link))}")
    finally:
        link.unlink()
    assert (status, json.loads(said)["error"]) == (403, "not-allowed")
