"""Requests that read and write whole files: answered beside the loop, so that nobody else waits for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from .osc_messages import Message, Peer

Reply = tuple[Peer, str, tuple[Any, ...]]
"""Whom to tell, at which address, what."""

WHOLE_FILES = {"/stylus/style/add"}
"""What may take seconds."""


class Aside:
    """A thread that answers such requests one after the other; all but `answer` is for the loop's thread."""

    def __init__(self, answer: Callable[[Message], Reply | None], wake: Callable[[], None]) -> None:
        """`answer` is called in the thread, and so is `wake` when it has answered."""
        self._answer, self._wake = answer, wake
        self._thread = ThreadPoolExecutor(1, "aside")
        self._late: SimpleQueue[tuple[object, Reply | None]] = SimpleQueue()
        self._kept: Counter[object] = Counter()
        """Names of styles that are being kept: who asks for one of them waits for it."""
        self._held: list[Message] = []

    def takes(self, message: Message) -> bool:
        """Whether the answer comes later: of what reads a whole file, and of what names a style that is being kept."""
        if message.address in WHOLE_FILES:
            name = message.arguments[1] if len(message.arguments) > 1 else None
            self._kept[name] += 1
            self._thread.submit(self._answer_late, name, message)
            return True
        if any(argument in self._kept for argument in message.arguments[1:]):
            self._held.append(message)
            return True
        return False

    def ask(self, message: Message) -> Future[Reply | None]:
        """The answer, for another thread than the loop's."""
        return self._thread.submit(self._answer, message)

    def late(self) -> list[Reply]:
        """Answers that have come since."""
        late = [self._late.get() for _ in range(self._late.qsize())]
        self._kept -= Counter(name for name, _ in late)
        return [reply for _, reply in late if reply]

    def held(self) -> list[Message]:
        """What has waited, to be asked anew."""
        held, self._held = self._held, []
        return held

    def close(self) -> list[Reply]:
        """End the thread when it has answered what it is at; returns the last answers."""
        self._thread.shutdown(cancel_futures=True)
        return self.late()

    def _answer_late(self, name: object, message: Message) -> None:
        self._late.put((name, self._answer(message)))
        self._wake()
