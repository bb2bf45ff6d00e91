"""Log lines of one kind are counted when they are too many, and told of later."""

from __future__ import annotations

import logging

import pytest
from stylus_daemon.log import MOST, SPAN, Limit


def passes(limit: Limit, text: str, *arguments: object) -> str | None:
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, text, arguments, None)
    return record.getMessage() if limit.filter(record) else None


def test_a_flood_of_one_kind_is_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("stylus_daemon.log.time.monotonic", lambda: now[0])
    limit = Limit()
    assert [passes(limit, "packet %d", n) is not None for n in range(MOST + 30)] == [True] * MOST + [False] * 30
    assert passes(limit, "another") == "another"
    now[0] += SPAN + 1
    assert passes(limit, "packet %d", 7) == "packet 7 (and 30 more like it)"
    assert passes(limit, "packet %d", 8) == "packet 8"
    now[0] += SPAN + 1
    assert passes(limit, "packet %d", 9) == "packet 9"
