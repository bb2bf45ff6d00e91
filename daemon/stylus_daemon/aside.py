"""Requests that read and write whole files: answered beside the loop, so that nobody else waits for them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from .osc_messages import Answer, Argument, Message

Told = Future[tuple[str, tuple[Argument, ...]]] | None
"""Who is told in this process, as the page is; None where the answer is sent to the peer."""

WHOLE_FILES = {"/stylus/style/add"}
"""What may take seconds."""


class Aside:
    """A thread that answers such requests one after the other; all but `answer` is for the loop's thread.

    What names a style that is being kept, be it another of its name, waits, and is asked anew in the order in which it
    came.
    """

    def __init__(self, answer: Callable[[Message], Answer | None], wake: Callable[[], None]) -> None:
        """`answer` is called in the thread, and so is `wake` when it has answered."""
        self._answer, self._wake = answer, wake
        self._thread = ThreadPoolExecutor(1, "aside")
        self._late: SimpleQueue[tuple[Message, Told, Answer | None]] = SimpleQueue()
        self._kept: set[object] = set()
        """Names of the styles that are being kept."""
        self._held: list[tuple[Message, Told]] = []

    def concerns(self, message: Message) -> bool:
        """Whether the answer to a message is to come later."""
        return message.address in WHOLE_FILES or self._waits(message)

    def take(self, message: Message, told: Told) -> None:
        """Answer later what it concerns."""
        if self._waits(message):
            self._held.append((message, told))
            return
        self._kept.update(message.arguments[1:2])
        self._thread.submit(self._answer_late, message, told)

    def late(self) -> list[tuple[Told, Answer | None]]:
        """Answers that have come since."""
        late = [self._late.get() for _ in range(self._late.qsize())]
        for message, _, _ in late:
            self._kept.difference_update(message.arguments[1:2])
        return [(told, answer) for _, told, answer in late]

    def held(self) -> list[tuple[Message, Told]]:
        """What has waited, to be asked anew."""
        held, self._held = self._held, []
        return held

    def close(self) -> None:
        """End the thread when it has answered what it is at."""
        self._thread.shutdown(cancel_futures=True)

    def _waits(self, message: Message) -> bool:
        return any(argument in self._kept for argument in message.arguments[1:])

    def _answer_late(self, message: Message, told: Told) -> None:
        self._late.put((message, told, self._answer(message)))
        self._wake()
