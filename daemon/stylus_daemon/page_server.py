"""Serves the page from a thread of the daemon's process, on this machine only."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

HOST = "127.0.0.1"


def bound(port: int) -> socket.socket:
    """A socket on a port of this machine, or for 0 on a free one; `OSError` where it is taken."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((HOST, port))
        # From now on nobody is turned away, though answers wait for `start`.
        opened.listen()
    except OSError:
        opened.close()
        raise
    return opened


class PageServer:
    """One application on one socket, from `start` to `stop`."""

    def __init__(self, app: ASGIApp, opened: socket.socket, closing: Callable[[], None]) -> None:
        """`closing` ends what would go on for ever; it is called in the server's thread."""
        config = uvicorn.Config(
            app, log_config=None, log_level="warning", access_log=False, server_header=False, ws="none",
            timeout_graceful_shutdown=2, lifespan="off",
        )  # fmt: skip
        self._server, self._socket, self._closing = uvicorn.Server(config), opened, closing
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)

    def start(self) -> None:
        """Begin to answer; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End streams and answers, within seconds."""
        self._server.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._closing)
        self._thread.join(5)
        self._socket.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._socket])
