"""What workers are given and what they give back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pack:
    """A unit of work: some short clips in one style, or one long clip."""

    number: int
    contents: tuple[str, ...]
    styles: tuple[tuple[str, str], ...]
    settings: dict[str, Any]
    model: str
    dtype: str

    def files(self) -> list[str]:
        """Every file that it reads."""
        return [*self.contents, *(path for path, _ in self.styles)]


@dataclass(frozen=True)
class Made:
    """Of one clip: the finished stem's bytes and its report."""

    stem: bytes
    report: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """Why one clip has no stem; the code is one of `errors`."""

    code: str
    message: str


Outcome = Made | Failed
