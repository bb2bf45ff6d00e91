"""The benchmark runs, says what it promises to say, and compares what gives the same output."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_bench import TINY, Bench
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


def test_a_section_that_fails_or_has_no_time_is_named_and_the_next_goes_on(tmp_path: Path) -> None:
    def fails(bench: Bench) -> Iterator[Row]:
        yield Row("before", 1.0)
        raise RuntimeError("out of luck")

    def works(bench: Bench) -> Iterator[Row]:
        yield Row("after", 2.0)

    file = tmp_path / "rows.json"
    rows = gpu.measure(10.0, file, Bench(torch.device("cpu"), TINY), [(fails, 1), (works, 11), (works, 1)])
    assert [row.name for row in rows] == ["before", "fails", "works", "after"]
    assert rows[1].missing.startswith("failed: RuntimeError: out of luck at test_benchmarks.py:")
    assert "11 s needed" in rows[2].missing
    assert [row["name"] for row in json.loads(file.read_text("utf-8"))] == [row.name for row in rows]


@pytest.mark.slow
def test_every_section_for_a_gpu_runs_on_tiny_networks() -> None:
    bench = Bench(torch.device("cpu"), TINY)
    rows = gpu.measure(1e9, None, bench, gpu.SECTIONS)
    assert not [row for row in rows if row.missing.startswith("failed")]
    by_name = {row.name: row for row in rows}
    # The published loop and ours agree, and float32 is nearer to itself than bf16 is.
    published, ours, coarse = (
        by_name[f"dB of PSNR to float32, 1 window, 3 steps: {name}"].ratio or 0.0
        for name in ("published", "ours in fp16", "ours in bf16")
    )
    assert min(published, ours) > 80
    assert coarse < min(published, ours)


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
