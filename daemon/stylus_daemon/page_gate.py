"""Who may speak to the page: a browser of this user on this machine, by a token, and nothing that lures it.

A page of somebody else's in the same browser can send requests to this machine. It cannot read our cookie, nor set a
`Host` or an `Origin` of its own choice, nor send JSON or bytes without asking first; so each of these is asked for.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stylus_audio.errors import BadRequest
from stylus_audio.files import writable_folder

BODY = 64 * 1024
"""Bytes of a request that is no upload."""

UPLOAD = 4 * 2**30
"""Bytes of a dropped file."""

UPLOADS = "/api/uploads"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Nothing is loaded from elsewhere, and nobody shows the page in a frame."""


class TooLarge(BadRequest):
    """A body of more bytes than are taken."""


def kept_token(file: Path) -> str:
    """The token of this user's page; made once, so that an open page outlives a start of the daemon."""
    try:
        token = file.read_text("ascii").strip()
    except (OSError, ValueError):
        token = ""
    if len(token) < 32:
        token = secrets.token_urlsafe(32)
        writable_folder(file.parent)
        file.unlink(missing_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(token)
    return token


class PageGate:
    """Lets requests through to `app` that may be answered; answers the others itself."""

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self._app, self._token = app, token
        # Cookies know no ports: another daemon's must not take this one's place.
        self._cookie = f"stylus-{port}"
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, _guarded(send))
            return
        limit = UPLOAD if scope["path"] == UPLOADS else BODY
        await self._app(scope, _bounded(receive, limit), _guarded(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host not in self._hosts:
            return _said(421, "not-allowed", "this address is not ours; the page is at 127.0.0.1")
        origin = headers.get("origin", f"http://{host}")
        if origin != f"http://{host}" or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return _said(403, "not-allowed", "requests of other sites are not taken")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return _said(405, "bad-request", "GET and POST are taken")
        if scope["path"] == "/" and (said := parse_qs(scope["query_string"].decode("latin-1")).get("token")):
            return self._entered(said[0])
        if not self._matches(self._said_token(headers)):
            return PlainTextResponse(
                "This is a Stylus daemon. Open the address that it prints when it starts, or that `stylus page` "
                "prints: it ends in ?token=…\n", 401,
            )  # fmt: skip
        return self._refused_body(scope, headers) if scope["method"] == "POST" else None

    def _refused_body(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        upload = scope["path"] == UPLOADS
        wanted = "application/octet-stream" if upload else "application/json"
        if headers.get("content-type", "").split(";")[0].strip().lower() != wanted:
            return _said(415, "bad-request", f"{wanted} is taken here")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > (UPLOAD if upload else BODY):
            return _said(413, "bad-request", f"more than {UPLOAD if upload else BODY} bytes")
        return None

    def _entered(self, token: str) -> Response:
        """The token goes from the address into a cookie that no script can read."""
        if not self._matches(token):
            return _said(
                401, "not-allowed", "this address is of another installation; `stylus page` prints the right one"
            )
        response = RedirectResponse("/", 303)
        response.set_cookie(self._cookie, token, max_age=365 * 86400, httponly=True, samesite="strict", path="/")
        return response

    def _said_token(self, headers: Headers) -> str:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return token.strip()
        # Other programs' cookies come along, since cookies know no ports, and need not be as the standard has them.
        cookies = [cookie_parser(line) for line in headers.getlist("cookie")]
        return next((found[self._cookie] for found in cookies if self._cookie in found), "")

    def _matches(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(errors="replace"), self._token.encode())


def _said(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": code, "message": message}, status)


def _bounded(receive: Receive, limit: int) -> Receive:
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise TooLarge(f"more than {limit} bytes")
        return message

    return bounded


def _guarded(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return guarded
