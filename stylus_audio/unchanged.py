"""What was made of a file, kept for as long as the file stays the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from threading import Lock
from typing import Concatenate, Generic, ParamSpec, TypeVar

Asked = ParamSpec("Asked")
Made = TypeVar("Made")

_Identity = tuple[int, int, int, int]


def _identity(path: Path) -> _Identity | None:
    """What is another when a file was changed or replaced: its place on the disk, size and time; None without one."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


class WhileUnchanged(Generic[Asked, Made]):
    """A function of a file, and of what else can be a key, that is not called again while the file is the same.

    What it returns is shared, so nobody changes it. `size` says how much of the `budget` it takes; the least recently
    asked goes first, and what is larger is not kept. What the function raises is raised each time.
    """

    def __init__(
        self,
        function: Callable[Concatenate[Path, Asked], Made],
        budget: int,
        size: Callable[[Made], int] = lambda made: 1,
    ) -> None:
        self._function, self._budget, self._size = function, budget, size
        self._kept: OrderedDict[Hashable, tuple[_Identity, Made]] = OrderedDict()
        self._taken = 0
        self._lock = Lock()

    def __call__(self, path: Path, *args: Asked.args, **others: Asked.kwargs) -> Made:
        """What the function returns for the file as it is now."""
        # Before it is read: what is written meanwhile shows the next time.
        now = _identity(path)
        key = (path.absolute(), args, tuple(sorted(others.items())))
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and kept[0] == now:
                self._kept.move_to_end(key)
                return kept[1]
        made = self._function(path, *args, **others)
        if now is not None:
            self._keep(key, (now, made))
        return made

    def _keep(self, key: Hashable, entry: tuple[_Identity, Made]) -> None:
        with self._lock:
            if before := self._kept.pop(key, None):
                self._taken -= self._size(before[1])
            self._kept[key] = entry
            self._taken += self._size(entry[1])
            while self._taken > self._budget:
                _, (_, left) = self._kept.popitem(last=False)
                self._taken -= self._size(left)
