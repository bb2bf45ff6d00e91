"""Who may speak, and what a wrong token costs."""

from __future__ import annotations

import pytest
from stylus_daemon.gate import WRONG, Gate
from stylus_daemon.osc_messages import Argument, Message, Peer

TOKEN = "0123456789abcdef"
LISTED, STRANGER, HERE = (Peer("udp", host, 5000) for host in ("10.0.0.2", "10.0.0.3", "127.0.0.1"))


@pytest.fixture
def gate() -> Gate:
    return Gate("0.0.0.0", TOKEN, ["10.0.0.2"])


def asked(gate: Gate, peer: Peer, address: str = "/stylus/ping", *arguments: Argument) -> object:
    said = gate.refuses(Message(peer, address, (1, *arguments)))
    return said and (said[0], *said[1])


def test_a_listed_host_says_the_token_first(gate: Gate) -> None:
    assert asked(gate, LISTED) == (
        "/stylus/error", "/stylus/ping", 1, "not-allowed", "say /stylus/token rid TOKEN first",
    )  # fmt: skip
    assert asked(gate, LISTED, "/stylus/token", TOKEN) == ("/stylus/reply", "/stylus/token", 1)
    assert asked(gate, LISTED) is None
    # The port is another program's.
    assert asked(gate, Peer("udp", LISTED.host, 5001)) is not None


def test_a_host_that_is_not_listed_hears_nothing(gate: Gate) -> None:
    assert asked(gate, STRANGER) == ()
    assert asked(gate, STRANGER, "/stylus/token", TOKEN) == ()


def test_a_token_cannot_be_guessed_at_leisure(gate: Gate) -> None:
    for number in range(WRONG):
        assert asked(gate, LISTED, "/stylus/token", f"guess {number}") is not None
    assert asked(gate, LISTED, "/stylus/token", TOKEN) == ()


def test_this_machine_needs_no_token(gate: Gate) -> None:
    assert asked(gate, HERE) is None
    assert asked(gate, HERE, "/stylus/token", "any") == ("/stylus/reply", "/stylus/token", 1)
    assert asked(Gate("127.0.0.1", "", []), HERE) is None
