"""Pictures of sound: mel-spectrograms on one time axis, and the gain between them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .files import write_new
from .passage import loudest
from .reference import picture_of
from .spectrogram import MINI, band_centres, hz_to_mel

Floats = NDArray[np.floating[Any]]

DPI = 120
WIDTH, PANEL_HEIGHT, MARGIN = 10.0, 2.2, 0.4
"""Inches."""

_LABELLED = (200, 500, 1000, 2000, 5000, 10000, 20000)
_MARKED = (50, 100)
"""Hz; these two would stand in one another's way with labels."""

RANGE_DB = 80.0
_COLUMNS = 1000
"""At most in a panel, about as many as it has pixels."""


@dataclass(frozen=True)
class Panel:
    """A sound, `[channel, sample]`."""

    title: str
    audio: Floats
    sample_rate: int


@dataclass(frozen=True)
class MelPanel:
    """A sound as it is drawn: `mel` `[mel, frame]`, linear, in `MINI`'s bands, `frame_rate` frames a second."""

    title: str
    mel: Floats
    frame_rate: float


@dataclass(frozen=True)
class GainPanel:
    """Gains in dB `[mel, frame]`; the bands' centres in Hz `[mel]` are evenly spaced on the mel scale."""

    title: str
    gain_db: Floats
    band_hz: Floats
    frame_rate: float


def excerpt(title: str, name: str, audio: Floats, sample_rate: int, seconds: float) -> Panel:
    """A sound's loudest passage of so many seconds, with where it lies in the title; all of a sound that is shorter."""
    first, last = loudest(audio, max(1, round(seconds * sample_rate)))
    if last - first < audio.shape[1]:
        title += f" ({first / sample_rate:.1f}–{last / sample_rate:.1f} s)"
    return Panel(f"{title}: {name}" if name else title, audio[:, first:last], sample_rate)


def save_plot(
    path: Path, panels: Sequence[Panel | GainPanel], overwrite: bool = False, protect: Sequence[Path] = ()
) -> Path:
    """Draw one or more panels under each other to a PNG, and return its path: the next free `_2` but for `overwrite`.

    Sounds share one scale in dB under the loudest of them. Files in `protect` are never replaced. Raises what
    `write_new` does.
    """
    return write_new(path, _png(panels), overwrite, protect)


def _png(panels: Sequence[Panel | GainPanel]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, PANEL_HEIGHT * len(panels) + MARGIN), dpi=DPI, layout="constrained")
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    placed = list(zip(rows, panels, strict=True))
    _draw_sounds(figure, [(axes, panel) for axes, panel in placed if isinstance(panel, Panel)])
    _draw_gains(figure, [(axes, panel) for axes, panel in placed if isinstance(panel, GainPanel)])
    rows[-1].set_xlim(0.0, max(_seconds(panel) for panel in panels))
    rows[-1].set_xlabel("seconds", fontsize=8)
    return png_of(figure)


def png_of(figure: Any) -> bytes:
    """A figure as a PNG, whatever script its titles are in."""
    png = io.BytesIO()
    with warnings.catch_warnings():
        # A title in a script that the font has no letters for is drawn with boxes; no reason to trouble the user.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(png, format="png", dpi=DPI)
    return png.getvalue()


def _seconds(panel: Panel | GainPanel) -> float:
    if isinstance(panel, Panel):
        return float(panel.audio.shape[1] / panel.sample_rate)
    return float(panel.gain_db.shape[1] / panel.frame_rate)


def mel_panel(title: str, audio: Floats, sample_rate: int, columns: int = _COLUMNS) -> MelPanel:
    """The mel-spectrogram of audio `[channel, sample]` in at most so many columns."""
    mel = picture_of(audio, sample_rate, MINI).mel[0]
    step = _step(mel, columns)
    # The loudest frame of each column, so that no attack is lost.
    reduced = np.maximum.reduceat(mel, np.arange(0, mel.shape[-1], step), axis=1)
    return MelPanel(title, reduced, MINI.frame_rate / step)


def draw_mels(placed: Sequence[tuple[Any, MelPanel]]) -> Any:
    """Draw each on its axes, all on one scale in dB under the loudest; returns the last image, for a colour bar."""
    loudest = max((float(panel.mel.max(initial=0.0)) for _, panel in placed), default=0.0) or 1.0
    image = None
    for axes, panel in placed:
        db = 20 * np.log10(np.maximum(panel.mel / loudest, 10 ** (-RANGE_DB / 20)))
        image = _show(axes, panel.title, db, band_centres(MINI), panel.frame_rate, (-RANGE_DB, 0.0), "magma")
    return image


def _draw_sounds(figure: Any, placed: Sequence[tuple[Any, Panel]]) -> None:
    panels = [(axes, mel_panel(panel.title, panel.audio, panel.sample_rate)) for axes, panel in placed]
    _scale(figure, draw_mels(panels), [axes for axes, _ in placed], "level in dB")


def _draw_gains(figure: Any, placed: Sequence[tuple[Any, GainPanel]]) -> None:
    highest = max((float(np.abs(panel.gain_db).max(initial=0.0)) for _, panel in placed), default=0.0)
    limit = max(10.0, 10 * float(np.ceil(highest / 10)))
    image = None
    for axes, panel in placed:
        step = _step(panel.gain_db)
        gain, rate = panel.gain_db[:, ::step], panel.frame_rate / step
        image = _show(axes, panel.title, gain, panel.band_hz, rate, (-limit, limit), "RdBu_r")
    _scale(figure, image, [axes for axes, _ in placed], "gain in dB")


def _step(values: Floats, columns: int = _COLUMNS) -> int:
    return -(-int(values.shape[-1]) // columns)


def _show(
    axes: Any, title: str, db: Floats, band_hz: Floats, frame_rate: float, limits: tuple[float, float], colours: str
) -> Any:
    """Values `[mel, frame]` where their bands and frames lie."""
    mel = hz_to_mel(band_hz)
    half = (mel[-1] - mel[0]) / max(1, len(mel) - 1) / 2
    right = (db.shape[1] - 0.5) / frame_rate
    image = axes.imshow(
        db, origin="lower", aspect="auto", vmin=limits[0], vmax=limits[1], cmap=colours,
        extent=(-0.5 / frame_rate, right, float(mel[0] - half), float(mel[-1] + half)),
    )  # fmt: skip
    axes.set_ylim(float(hz_to_mel(MINI.low)), float(hz_to_mel(MINI.high)))
    axes.set_yticks(
        [float(hz_to_mel(hz)) for hz in _LABELLED],
        [f"{hz // 1000}k" if hz >= 1000 else str(hz) for hz in _LABELLED],
    )
    axes.set_yticks([float(hz_to_mel(hz)) for hz in _MARKED], minor=True)
    axes.tick_params(labelsize=8)
    axes.set_ylabel("Hz", fontsize=8)
    axes.set_title(" ".join(title.split())[:100], loc="left", fontsize=10, parse_math=False)
    axes.set_facecolor("0.93")
    axes.spines[:].set_visible(False)
    return image


def _scale(figure: Any, image: Any, axes: Sequence[Any], label: str) -> None:
    if image is None:
        return
    bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.03, aspect=14 * len(axes))
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
