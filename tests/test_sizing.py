"""The simulation of a batch: known answers, what no number of workers changes, and a real batch that is measured."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulation import Conditions, Figures, Load, ceiling, simulate
from benchmarks.sizing import FIGURES, WORKERS, batch, compared, figures_of, outcomes, table, words
from stylus_audio.batch.packs import Place
from stylus_audio.batch.plan import PACK_CLIPS

EVEN = Figures((8.0,), start=5.0, style=2.0, publish=0.0)
MANY = st.builds(Load, clips=st.integers(1, 400), styles=st.integers(1, 6))
CONDITIONS = st.builds(
    Conditions, in_order=st.booleans(), bandwidth=st.sampled_from([1e5, 1e8, float("inf")]),
    deaths=st.sampled_from([0.0, 40.0]), slow=st.sampled_from([0.0, 0.2]), seed=st.integers(0, 9),
)  # fmt: skip
FIGURES_OF_ANY = st.builds(
    Figures, packs=st.lists(st.floats(0.5, 20), min_size=1, max_size=5).map(tuple), start=st.floats(0, 30),
    style=st.floats(0, 20), publish=st.floats(0, 0.5), clip_bytes=st.just(80_000), stem_bytes=st.just(80_000),
)  # fmt: skip


def packs(count: int) -> int:
    """Clips of so many full packs."""
    return count * PACK_CLIPS


def test_one_worker_takes_the_sum() -> None:
    figures = Figures((3.0, 8.0, 21.0), start=5.0, style=2.0, publish=0.0)
    conditions = Conditions(seed=4)
    found = simulate(figures, Load(packs(10), 3), 1, conditions)
    expected = float(np.random.default_rng(4).choice(figures.packs, 30).sum())
    assert found.seconds == pytest.approx(5 + 3 * 2 + expected)
    assert found.spent.work == pytest.approx(expected)
    assert found.prepared == 3


@pytest.mark.parametrize(("workers", "seconds"), [(1, 5 + 2 + 24 * 8), (4, 5 + 2 + 6 * 8), (24, 15), (100, 15)])
def test_equal_packs_are_shared_out(workers: int, seconds: float) -> None:
    found = simulate(EVEN, Load(packs(24), 1), workers)
    assert found.seconds == seconds
    assert found.efficiency == pytest.approx(24 * 8 / (workers * seconds))


def test_a_part_of_a_pack_takes_its_share() -> None:
    assert simulate(EVEN, Load(PACK_CLIPS + PACK_CLIPS // 4, 1), 1).seconds == 5 + 2 + 8 + 2


@pytest.mark.parametrize(("styles", "workers", "prepared"), [(6, 3, 6), (6, 6, 6), (2, 6, 6), (1, 4, 4)])
def test_a_style_is_prepared_once_by_each_worker_that_has_it(styles: int, workers: int, prepared: int) -> None:
    assert simulate(EVEN, Load(packs(12), styles), workers).prepared == prepared


def test_in_order_every_worker_prepares_what_comes() -> None:
    """Of three packs of each of twelve styles: three workers have all packs of a style at once."""
    assert simulate(EVEN, Load(packs(3), 12), 3, Conditions(in_order=True)).prepared == 36
    assert simulate(EVEN, Load(packs(3), 12), 3).prepared == 12
    assert simulate(EVEN, Load(packs(3), 12), 1, Conditions(in_order=True)).prepared == 12


def test_the_coordinator_is_the_ceiling() -> None:
    figures = Figures((8.0,), start=5.0, style=2.0, publish=0.05)
    load = Load(packs(400), 1)
    fastest = [simulate(figures, load, workers).stems_an_hour for workers in (100, 400)]
    most = ceiling(figures, Conditions())
    assert most == pytest.approx(3600 / 0.05)
    assert all(0.9 * most < rate <= most for rate in fastest)
    # Ten workers make no more than they can.
    few = simulate(figures, load, 10).stems_an_hour
    assert few < 10 * 3600 * PACK_CLIPS / 8


def test_a_narrow_link_is_a_ceiling_too() -> None:
    figures = Figures((8.0,), 0.0, 0.0, 0.0, clip_bytes=100_000, stem_bytes=150_000)
    conditions = Conditions(bandwidth=25e6)
    assert ceiling(figures, conditions) == pytest.approx(360_000)
    assert simulate(figures, Load(packs(400), 1), 400, conditions).stems_an_hour <= 360_000
    alone = simulate(figures, Load(packs(1), 1), 1, conditions)
    # To the worker, and through the coordinator.
    assert alone.seconds == pytest.approx(8 + 2 * PACK_CLIPS * 0.01)


def test_a_worker_that_dies_starts_again_and_its_pack_is_done_again() -> None:
    whole = simulate(EVEN, Load(packs(50), 2), 4)
    broken = simulate(EVEN, Load(packs(50), 2), 4, Conditions(deaths=60, seed=1))
    assert broken.deaths > 3
    assert broken.seconds > whole.seconds
    assert broken.spent.work == pytest.approx(whole.spent.work)
    assert broken.spent.start > whole.spent.start
    assert broken.spent.lost > 0


def test_stragglers_are_felt_at_the_end() -> None:
    load = Load(packs(400), 1)
    even, late = simulate(EVEN, load, 200), simulate(EVEN, load, 200, Conditions(slow=0.02, seed=3))
    assert late.seconds > even.seconds + 8
    assert late.spent.idle > even.spent.idle


@given(FIGURES_OF_ANY, MANY, st.integers(1, 40), CONDITIONS)
@settings(max_examples=60)
def test_every_pack_is_written_once_and_all_time_is_accounted_for(
    figures: Figures, load: Load, workers: int, conditions: Conditions
) -> None:
    found = simulate(figures, load, workers, conditions)
    assert set(found.written) == set(range(load.styles * -(-load.clips // PACK_CLIPS)))
    assert set(found.written.values()) == {1}
    assert found.spent.total == pytest.approx(workers * found.seconds)
    assert 0 < found.efficiency <= 1
    assert found.stems_an_hour <= ceiling(figures, conditions) * (1 + 1e-9)


@given(st.lists(st.floats(0.5, 20), min_size=1, max_size=5), st.integers(1, 400), st.integers(0, 9))
@settings(max_examples=40)
def test_more_workers_are_never_slower(seconds: list[float], clips: int, seed: int) -> None:
    """With one style, where nobody has to choose."""
    figures = Figures(tuple(seconds), 5.0, 2.0, 0.0)
    taken = [simulate(figures, Load(clips, 1), workers, Conditions(seed=seed)).seconds for workers in (1, 2, 3, 8, 30)]
    assert all(more <= fewer + 1e-9 for fewer, more in pairwise(taken))


def test_the_kept_figures_make_the_page() -> None:
    told = json.loads(FIGURES.read_text("utf-8"))
    conditions = Conditions(False, 1.25e9, 0.01, 0.01)
    found = outcomes(figures_of(told), Load(10_000, 20), conditions)
    assert [one.workers for one in found] == list(WORKERS)
    rates = [one.stems_an_hour for one in found]
    assert rates == sorted(rates)
    assert rates[-1] < ceiling(figures_of(told), conditions)
    assert len(table(found).splitlines()) == 1 + len(WORKERS)
    assert len(compared(told).splitlines()) == 1 + len(told["runs"])
    assert "stems an hour" in words(told, conditions)


@pytest.mark.slow
def test_a_real_batch_is_watched(told_folder: Path) -> None:
    ran = batch([Place("cpu", 1, None)], Load(4, 2), str(told_folder))
    assert [len(pack.contents) for pack, _ in ran.packs] == [4, 4]
    assert 0 < 8 * ran.publish < ran.seconds
    assert sum(seconds for _, seconds in ran.packs) <= ran.seconds
    assert min(ran.clip_bytes, ran.stem_bytes, ran.record_bytes, ran.style_bytes) > 1000
