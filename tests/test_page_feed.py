"""The stream that a page listens to: the whole picture first, and nothing lost between it and the news."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

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
