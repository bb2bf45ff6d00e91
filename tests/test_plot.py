"""The picture shows what is there, where it is; a bad target leaves nothing behind."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from stylus_audio.errors import DiskFull, NotAllowed, NotFound
from stylus_audio.plot import DPI, MARGIN, PANEL_HEIGHT, WIDTH, GainPanel, Panel, excerpt, save_plot
from stylus_audio.spectrogram import MINI, band_centres, hz_to_mel

Floats = NDArray[np.floating[Any]]

RATE = 22050


def tone(hz: float, seconds: float = 1.0) -> Floats:
    """A stereo sine, `[2, sample]`."""
    wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)
    return np.tile(wave.astype(np.float32), (2, 1))


def drawn(folder: Path, *panels: Panel | GainPanel) -> Floats:
    """The picture's pixels `[row, column, colour]` in 0 to 1."""
    save_plot(folder / "plot.png", panels, overwrite=True)
    return np.asarray(imread(folder / "plot.png"))[:, :, :3]


def loudest(pixels: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the yellow that stands for less than 20 dB under the loudest, the colour bar left out."""
    pixels = pixels[:, : round(0.9 * pixels.shape[1])]
    rows, columns = np.nonzero((pixels[:, :, 0] > 0.95) & (pixels[:, :, 1] > 0.5) & (pixels[:, :, 2] < 0.85))
    return rows, columns


def test_the_picture_has_its_size(tmp_path: Path) -> None:
    pixels = drawn(tmp_path, Panel("one", tone(440), RATE), Panel("two", tone(880), RATE))
    assert pixels.shape[:2] == (round((2 * PANEL_HEIGHT + MARGIN) * DPI), round(WIDTH * DPI))
    assert [file.name for file in tmp_path.iterdir()] == ["plot.png"]


def test_a_tone_lies_at_its_place_on_the_mel_scale(tmp_path: Path) -> None:
    hertz = (500.0, 2000.0, 8000.0)
    rows = [float(loudest(drawn(tmp_path, Panel("tone", tone(hz), RATE)))[0].mean()) for hz in hertz]
    low, middle, high = (float(hz_to_mel(hz)) for hz in hertz)
    assert rows[0] > rows[1] > rows[2]
    assert (rows[0] - rows[1]) / (rows[1] - rows[2]) == pytest.approx((middle - low) / (high - middle), rel=0.03)


def test_all_panels_share_one_time_axis(tmp_path: Path) -> None:
    whole, half = Panel("whole", tone(1000, 2.0), RATE), Panel("half", tone(1000, 1.0), RATE)
    rows, columns = loudest(drawn(tmp_path, whole, half))
    middle = (PANEL_HEIGHT + MARGIN / 2) * DPI
    long, short = columns[rows < middle], columns[rows > middle]
    assert np.ptp(short) / np.ptp(long) == pytest.approx(0.5, abs=0.03)


def test_all_sounds_share_one_scale(tmp_path: Path) -> None:
    rows, _ = loudest(drawn(tmp_path, Panel("loud", tone(1000), RATE), Panel("quiet", tone(1000) / 30, RATE)))
    assert rows.max() < (PANEL_HEIGHT + MARGIN / 2) * DPI


def test_a_gain_is_red_up_blue_down_and_white_at_zero(tmp_path: Path) -> None:
    gain = np.zeros((MINI.bands, 300))
    gain[:, :100], gain[:, 200:] = 20.0, -20.0
    row = drawn(tmp_path, GainPanel("gain", gain, band_centres(MINI), MINI.frame_rate))[round(PANEL_HEIGHT / 2 * DPI)]
    up, none, down = (row[round(share * len(row))] for share in (0.2, 0.48, 0.75))
    assert up[0] - up[2] > 0.2
    assert down[2] - down[0] > 0.2
    np.testing.assert_allclose(none, none.mean(), atol=0.02)
    assert none.mean() > 0.9


def test_silence_a_long_clip_and_any_title_are_drawn(tmp_path: Path) -> None:
    drawn(
        tmp_path,
        Panel("", np.zeros((1, 10), np.float32), 8000),
        Panel("$x_{", np.zeros((1, 8000 * 30), np.float32), 8000),
        Panel("音\nname " + "long " * 50, tone(440), RATE),
        GainPanel("one frame", np.zeros((MINI.bands, 1)), band_centres(MINI), MINI.frame_rate),
    )


def test_a_click_in_a_long_clip_is_not_lost(tmp_path: Path) -> None:
    audio = np.zeros((1, 8000 * 40), np.float32)
    audio[0, 8000 * 20 + 1234] = 1.0
    pixels = drawn(tmp_path, Panel("click", audio, 8000))
    _, columns = loudest(pixels)
    assert len(columns)
    assert np.ptp(columns) <= 4


def test_of_a_longer_sound_the_loudest_part_is_drawn() -> None:
    audio = np.concatenate([0.1 * tone(440, 3.0), tone(880, 2.0), 0.1 * tone(440, 1.0)], axis=1)
    panel = excerpt("style", "a.wav", audio, RATE, 2.0)
    assert panel.title == "style (3.0–5.0 s): a.wav"
    np.testing.assert_array_equal(panel.audio, tone(880, 2.0))
    whole = excerpt("style", "", audio, RATE, 7.0)
    assert whole.title == "style"
    assert whole.audio.shape == audio.shape
    assert excerpt("style", "", audio, RATE, 0.0).audio.shape[1] == 1


def test_what_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    picture = tmp_path / "plot.png"
    picture.write_text("old")
    panels = [Panel("tone", tone(440), RATE)]
    assert save_plot(picture, panels) == tmp_path / "plot_2.png"
    assert picture.read_text() == "old"
    with pytest.raises(NotAllowed, match="never replaced"):
        save_plot(picture, panels, overwrite=True, protect=[picture])
    assert picture.read_text() == "old"
    assert save_plot(picture, panels, overwrite=True) == picture
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        save_plot(tmp_path / "none" / "plot.png", [Panel("tone", tone(440), RATE)])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_pictures_place(tmp_path: Path) -> None:
    (tmp_path / "plot.png").mkdir()
    with pytest.raises(NotAllowed, match="is a folder"):
        save_plot(tmp_path / "plot.png", [Panel("tone", tone(440), RATE)])
    assert [file.name for file in tmp_path.iterdir()] == ["plot.png"]


@pytest.mark.parametrize(("number", "expected"), [(errno.EACCES, NotAllowed), (errno.ENOSPC, DiskFull)])
def test_a_place_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "refused")

    (tmp_path / "plot.png").write_text("old")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(expected, match=r"plot\.png"):
        save_plot(tmp_path / "plot.png", [Panel("tone", tone(440), RATE)], overwrite=True)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("plot.png", "old")]
