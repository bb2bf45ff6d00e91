"""The benchmark runs, says what it promises to say, and compares what gives the same output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.table import Row, printed, side_by_side


@pytest.mark.parametrize(
    ("ratio", "limit", "verdict"), [(5.1, 5, "kept"), (4.9, 5, "MISSED"), (0.4, -0.5, "kept"), (0.6, -0.5, "MISSED")]
)
def test_a_limit_is_the_least_or_with_a_sign_the_most(ratio: float, limit: float, verdict: str) -> None:
    row = Row("row", ratio, limit=limit)
    assert row.verdict == verdict
    assert verdict in printed([row])


def test_ways_take_turns_and_the_first_turn_does_not_count() -> None:
    turns: list[str] = []

    def way(name: str) -> str:
        turns.append(name)
        return name.upper()

    results, seconds, peaks = side_by_side([lambda: way("a"), lambda: way("b")], 2)
    assert turns == ["a", "b"] * 3
    assert results == ["A", "B"]
    assert all(one >= 0 for one in seconds)
    assert all(peak > 1 << 20 for peak in peaks)


@pytest.mark.slow
def test_the_quick_table() -> None:
    words = [sys.executable, "-m", "benchmarks", "--quick", "--json"]
    done = subprocess.run(words, cwd=Path(__file__).parents[1], check=True, stdout=subprocess.PIPE, text=True)
    rows = json.loads(done.stdout)
    assert all({"name", "ratio", "difference", "peak_bytes"} <= row.keys() for row in rows)
    assert all(row["ratio"] > 0 for row in rows)
    same = {row["name"]: row["difference"] for row in rows if row["difference"] is not None}
    assert len(same) >= 4
    # Equal within float32: the published loop and ours, a warm style and a cold one.
    assert max(same.values()) < 1e-3, same
