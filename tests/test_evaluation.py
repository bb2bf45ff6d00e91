"""The held-out pairs, and the table that is made of their scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stylus_audio.training import evaluation
from stylus_audio.training.heldout import Pair, make, names, validation
from stylus_audio.training.sounds import HELD_OUT_FONT, HELD_OUT_PROGRAMS, TRAINING_FONTS
from stylus_audio.training.synthesise import SAMPLE_RATE
from tests.programs import need_font


def test_there_are_enough_pairs_with_a_true_answer() -> None:
    assert len(set(names())) == len(names())
    assert sum("voice" not in name for name in names()) >= 60
    assert any("voice" in name for name in names())


def test_choices_are_made_on_other_pairs() -> None:
    for font in (HELD_OUT_FONT, *TRAINING_FONTS):
        need_font(font)
    assert len(set(validation())) == len(validation()) == 48
    assert not set(validation()) & set(names())
    unheard, heard = make("0-unheard"), make("0-heard")
    assert {unheard.program, heard.program} <= set(HELD_OUT_PROGRAMS)
    assert not np.array_equal(unheard.content, heard.content)


def test_a_pair_is_the_same_every_time_and_its_parts_fit() -> None:
    need_font(HELD_OUT_FONT)
    pair = make("0-21")
    assert pair.oracle is not None
    assert pair.content.shape == pair.oracle.shape == (2, 4 * SAMPLE_RATE)
    assert pair.reference.shape == (2, 6 * SAMPLE_RATE)
    assert np.array_equal(pair.content, make("0-21").content)
    assert not np.array_equal(pair.content, pair.oracle)
    assert all(note.start < 4 for note in pair.notes)
    scores = evaluation.score(pair, pair.oracle)
    assert scores["log_mel"] == scores["mfcc"] == scores["flatness"] == 0
    assert scores["contrast"] == 1
    assert evaluation.score(pair, pair.content)["log_mel"] > 0.2


@pytest.mark.slow
def test_a_run_scores_draws_and_keeps_stems_once(tmp_path: Path) -> None:
    need_font(HELD_OUT_FONT)
    rendered: list[str] = []

    def untouched(pair: Pair) -> np.ndarray:
        rendered.append(pair.name)
        return pair.content

    for _ in range(2):
        evaluation.run(tmp_path, ["0-21"], {"content": untouched}, audio=True)
    assert len(rendered) == 1
    assert [(row["pair"], row["system"]) for row in evaluation.read(tmp_path)] == [("0-21", "content")]
    assert (tmp_path / "0-21.png").stat().st_size > 10_000
    kept, rate = soundfile.read(tmp_path / "0-21 content.flac", dtype="float32")
    assert rate == SAMPLE_RATE
    assert np.abs(kept.T - make("0-21").content).max() < 2**-14


def test_the_table_has_ratios_and_wins_over_the_same_pairs(tmp_path: Path) -> None:
    rows = [
        {"pair": pair, "system": system, "log_mel": value, "style": 0.5}
        for system, values in {"content": (0.8, 0.6), "match-EQ": (0.5, 0.4), "default": (0.2, 0.5)}.items()
        for pair, value in zip(("a", "b"), values, strict=True)
    ]
    rows.append({"pair": "c", "system": "default", "formants": 0.25})
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    table = evaluation.table(evaluation.read(tmp_path)).splitlines()
    titles, default = ([cell.strip() for cell in table[row].split("|")[1:-1]] for row in (0, 4))
    cells = dict(zip(titles, default, strict=True))
    assert cells["system"] == "default"
    assert cells["pairs"] == "3"
    assert float(cells["× content"]) == pytest.approx(0.7 / 1.4, abs=0.005)
    assert float(cells["× match-EQ"]) == pytest.approx(0.7 / 0.9, abs=0.005)
    assert cells["wins"] == "50%"
    assert cells["log-mel to oracle"] == "0.350"
    assert cells["formant drift"] == "0.250"
    # Of some systems alone there is a table too.
    alone = evaluation.table([row for row in rows if row["system"] == "default"]).splitlines()
    assert [cell.strip() for cell in alone[2].split("|")[1:5]] == ["default", "3", "", ""]
