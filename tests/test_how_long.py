"""Whoever will wait for minutes is told so beforehand, once; whoever will not, is not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from stylus_audio import progress_bar
from stylus_audio.progress_bar import SAYS_HOW_LONG, shown_progress


@pytest.mark.parametrize(
    ("seconds", "fraction", "said"),
    [
        (10.0, 0.05, "this will take about 3 minutes\n"),
        (10.0, 0.14, "this will take about 1 minute\n"),
        # Short enough: 57 seconds.
        (10.0, 0.15, ""),
        # Too early to know, by the clock and by the work.
        (2.0, 0.01, ""),
        (10.0, 0.005, ""),
        (3600.0, 0.5, "this will take about 60 minutes\n"),
    ],
)
def test_minutes_are_said_once_they_are_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: float, fraction: float, said: str
) -> None:
    now = 1000.0
    monkeypatch.setattr(progress_bar, "SAYS_HOW_LONG", SAYS_HOW_LONG)
    monkeypatch.setattr(progress_bar, "time", SimpleNamespace(monotonic=lambda: now))
    with shown_progress() as progress:
        # What came before the first step, such as loading a model, is no part of it.
        now += 500
        progress(0.0, "a")
        now += min(seconds, 2)
        progress(0.01, "a")
        now += seconds - min(seconds, 2)
        progress(fraction, "a")
        assert capsys.readouterr() == ("", said)
        progress(fraction + 0.01 if said else fraction, "a")
    assert capsys.readouterr() == ("", "")
