"""What reads whole files is answered beside the daemon's loop."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest
from stylus_daemon.aside import Aside
from stylus_daemon.osc_messages import Answer, Argument, Message, Peer

HERE = Peer("udp", "127.0.0.1", 1)


def message(address: str, *arguments: Argument) -> Message:
    return Message(HERE, address, arguments)


class Slow:
    """Answers once it may."""

    def __init__(self) -> None:
        self.may, self.woken = threading.Event(), threading.Event()
        self.aside = Aside(self.answer, self.woken.set)

    def answer(self, asked: Message) -> Answer:
        self.may.wait()
        return Answer(asked.peer, "/stylus/reply", asked.arguments)


@pytest.fixture
def slow() -> Slow:
    return Slow()


ADD = "/stylus/style/add"


def test_only_who_names_the_style_waits_and_is_asked_anew_in_order(slow: Slow) -> None:
    add, remove, again = message(ADD, 1, "bells"), message("/stylus/style/remove", 2, "bells"), message(ADD, 3, "bells")
    page: Future[tuple[str, tuple[Argument, ...]]] = Future()
    slow.aside.take(add, None)
    assert slow.aside.concerns(remove)
    assert not slow.aside.concerns(message("/stylus/style/remove", 4, "glass"))
    slow.aside.take(remove, page)
    slow.aside.take(again, None)
    assert slow.aside.late() == []
    slow.may.set()
    assert slow.woken.wait(60)
    assert slow.aside.late() == [(None, Answer(HERE, "/stylus/reply", (1, "bells")))]
    assert slow.aside.held() == [(remove, page), (again, None)]
    # What waited for the first comes before the second.
    assert not slow.aside.concerns(remove)
    slow.aside.close()


def test_what_is_answered_while_it_closes_is_not_lost(slow: Slow) -> None:
    for number in (1, 2):
        slow.aside.take(message(ADD, number, f"bells {number}"), None)
    threading.Timer(0.2, slow.may.set).start()
    slow.aside.close()
    # The one that it was at; the other had not begun.
    assert [answer and answer.arguments[0] for _, answer in slow.aside.late()] == [1]
