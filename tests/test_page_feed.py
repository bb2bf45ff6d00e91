"""The stream that a page listens to: the whole picture first, and nothing lost between it and the news."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from stylus_daemon import page_feed
from stylus_daemon.jobs import Jobs
from stylus_daemon.page_feed import Feed
from stylus_daemon.request import with_options
from stylus_daemon.worker_messages import Condition


def read(event: str) -> tuple[str, dict[str, Any]]:
    kind, data = event.strip().split("\n")
    return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def test_what_happens_while_the_picture_is_sent_is_told(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite"
    jobs = Jobs(file)
    request = with_options(tmp_path / "clip.wav", [(tmp_path / "style.wav", "style")], {}).to_dict()
    first = jobs.submit(request).id
    feed = Feed(lambda: Jobs(file), dict, lambda: [Condition("idle", "mini", "cpu", (), 0, 0, 0)], list)

    async def listened() -> tuple[list[int], int]:
        events = feed.events()
        kind, said = read(await anext(events))
        assert kind == "all"
        # The browser has not read it yet.
        second = jobs.submit(request).id
        while kind != "job":
            kind, news = read(await asyncio.wait_for(anext(events), 30))
        assert news["id"] == second
        feed.close()
        assert [event async for event in events] == []
        return [job["id"] for job in said["jobs"]], second

    picture, second = asyncio.run(listened())
    assert (picture, second) == ([first], first + 1)
    jobs.close()


def test_a_page_that_does_not_read_ends_and_comes_back_for_the_whole_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_feed, "UNREAD", 3)
    file = tmp_path / "jobs.sqlite"
    jobs = Jobs(file)
    request = with_options(tmp_path / "clip.wav", [(tmp_path / "style.wav", "style")], {}).to_dict()
    feed = Feed(lambda: Jobs(file), dict, lambda: [Condition("idle", "mini", "cpu", (), 0, 0, 0)], list)

    async def listened() -> list[int]:
        idle, busy = feed.events(), feed.events()
        for events in (idle, busy):
            assert read(await anext(events))[0] == "all"
        numbers = []
        for _ in range(5):
            numbers.append(jobs.submit(request).id)
            kind = ""
            while kind != "job":
                kind, news = read(await asyncio.wait_for(anext(busy), 30))
            assert news["id"] == numbers[-1]
        # What it did not read is gone, too.
        assert [event async for event in idle] == []
        kind, picture = read(await anext(feed.events()))
        assert (kind, [job["id"] for job in picture["jobs"]]) == ("all", numbers)
        feed.close()
        assert [event async for event in busy] == []
        return numbers

    assert len(asyncio.run(listened())) == 5
    jobs.close()
