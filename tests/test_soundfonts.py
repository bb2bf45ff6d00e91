"""Soundfonts cut for a machine that they are sent to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stylus_audio.errors import BadRequest
from stylus_audio.training.compose import Note, Piece, to_midi
from stylus_audio.training.dataset import LEVELS, picture
from stylus_audio.training.soundfonts import cut
from stylus_audio.training.sounds import HELD_OUT_FONT, HELD_OUT_PROGRAMS, KITS
from stylus_audio.training.synthesise import soundfont, synthesise
from tests.programs import need_font

KALIMBA = 108

SCALE = Piece("scale", tuple(Note(0.5 * n, 0.45, 60 + n, 90) for n in range(8)), 6.0)


@pytest.mark.slow
def test_what_is_played_sounds_the_same_from_a_cut_soundfont_and_what_is_held_out_is_not_in_it(tmp_path: Path) -> None:
    need_font(HELD_OUT_FONT)
    whole, small = soundfont(HELD_OUT_FONT), tmp_path / "cut" / "small.sf3"
    cut(whole, small, quality=0.5)
    assert small.stat().st_size < 0.7 * whole.stat().st_size
    for program in (0, 19, 40, 61, 105):
        midi = to_midi(SCALE, (program, program))
        pictures = [picture(synthesise(midi, 6.0, font)).astype(float) for font in (whole, small)]
        loud = pictures[0] > 0.6 * LEVELS
        off = np.abs(pictures[0] - pictures[1])[loud] * 80 / LEVELS
        assert off.mean() < 2.0, program
    drums = to_midi(
        Piece("drums", tuple(Note(0.5 * n, 0.1, key, 90, 9) for n, key in enumerate((36, 38, 42, 46))), 3.0),
        drum_kit=KITS[0],
    )
    levels = [float(np.sqrt((synthesise(drums, 3.0, font) ** 2).mean())) for font in (whole, small)]
    assert levels[1] == pytest.approx(levels[0], rel=0.1)
    # Others share samples with what is played.
    assert KALIMBA in HELD_OUT_PROGRAMS
    held_out = to_midi(SCALE, (KALIMBA, KALIMBA))
    assert [float(np.abs(synthesise(held_out, 6.0, font)).max()) > 1e-3 for font in (whole, small)] == [True, False]


def test_what_is_no_soundfont_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no soundfont", "utf-8")
    with pytest.raises(BadRequest, match=r"notes\.txt is not a soundfont"):
        cut(tmp_path / "notes.txt", tmp_path / "out.sf3")
    assert not (tmp_path / "out.sf3").exists()
