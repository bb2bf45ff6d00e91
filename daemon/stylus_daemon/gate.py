"""Who may speak to a daemon that listens outside of this machine."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from .osc_messages import Argument, Message, Peer

LOOPBACK = ("127.0.0.1", "::1", "localhost")
WRONG = 5
"""After so many wrong tokens a host is not listened to any more."""


class Gate:
    """Everybody on this machine may; elsewhere hosts of the list, when they have said the token."""

    def __init__(self, host: str, token: str, allowed: Sequence[str]) -> None:
        self._outside = host not in LOOPBACK
        self._token, self._allowed = token, set(allowed)
        self._known: set[Peer] = set()
        self._wrong: dict[str, int] = {}

    def refuses(self, message: Message) -> tuple[str, tuple[Argument, ...]] | tuple[()] | None:
        """None for who may speak; for who may not, what to answer, of which () is nothing."""
        peer = message.peer
        # The device in the user's own DAW needs no token, wherever else we listen.
        trusted = not self._outside or peer.host in LOOPBACK
        if not trusted and (peer.host not in self._allowed or self._wrong.get(peer.host, 0) >= WRONG):
            return ()
        rid = message.arguments[0] if message.arguments else 0
        if message.address == "/stylus/token":
            said = str(message.arguments[1]) if len(message.arguments) > 1 else ""
            if trusted or secrets.compare_digest(said.encode(errors="replace"), self._token.encode()):
                self._known.add(peer)
                return "/stylus/reply", (message.address, rid)
            self._wrong[peer.host] = self._wrong.get(peer.host, 0) + 1
        if trusted or peer in self._known:
            return None
        return "/stylus/error", (message.address[:200], rid, "not-allowed", "say /stylus/token rid TOKEN first")
