"""What reads whole files is answered beside the daemon's loop."""

from __future__ import annotations

import threading

import pytest
from stylus_daemon.aside import Aside, Reply
from stylus_daemon.osc_messages import Argument, Message, Peer

HERE = Peer("udp", "127.0.0.1", 1)


def message(address: str, *arguments: Argument) -> Message:
    return Message(HERE, address, arguments)


class Slow:
    """Answers once it may."""

    def __init__(self) -> None:
        self.may, self.woken = threading.Event(), threading.Event()
        self.aside = Aside(self.answer, self.woken.set)

    def answer(self, asked: Message) -> Reply:
        self.may.wait()
        return asked.peer, "/stylus/reply", asked.arguments


@pytest.fixture
def slow() -> Slow:
    return Slow()


def test_only_who_names_the_style_waits_and_is_asked_anew(slow: Slow) -> None:
    remove = message("/stylus/style/remove", 2, "bells")
    assert slow.aside.takes(message("/stylus/style/add", 1, "bells", "/a.wav"))
    assert slow.aside.takes(remove)
    assert not slow.aside.takes(message("/stylus/style/remove", 3, "glass"))
    assert slow.aside.late() == []
    assert slow.aside.held() == [remove]
    # Still being kept.
    assert slow.aside.takes(remove)
    slow.may.set()
    assert slow.woken.wait(60)
    assert slow.aside.late() == [(HERE, "/stylus/reply", (1, "bells", "/a.wav"))]
    (waiting,) = slow.aside.held()
    assert not slow.aside.takes(waiting)
    assert slow.aside.close() == []


def test_what_is_answered_while_it_closes_is_not_lost(slow: Slow) -> None:
    for number in (1, 2):
        slow.aside.takes(message("/stylus/style/add", number, f"bells {number}", "/a.wav"))
    threading.Timer(0.2, slow.may.set).start()
    # The one that it is at; the other has not begun.
    assert [arguments[0] for _, _, arguments in slow.aside.close()] == [1]
