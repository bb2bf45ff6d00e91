"""Pictures of sound: mel-spectrograms on one time axis, and the gain between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import NotAllowed, NotFound
from .reference import picture_of
from .spectrogram import MINI, band_centres, hz_to_mel

Floats = NDArray[np.floating[Any]]

_TICKS = (200, 500, 1000, 2000, 5000, 10000, 20000)
_DEPTH_DB = 80
_GAIN_DB = 40


@dataclass(frozen=True)
class Panel:
    """A sound, `[channel, sample]`."""

    title: str
    audio: Floats
    sample_rate: int


@dataclass(frozen=True)
class GainPanel:
    """Gains in dB, `[mel, frame]`, at the bands' centres in Hz."""

    title: str
    gain_db: Floats
    band_hz: Floats
    frame_rate: float


def save_plot(path: Path, panels: Sequence[Panel | GainPanel]) -> None:
    """Draw the panels under each other to a PNG, which replaces what is there.

    Raises `NotFound` for a folder that does not exist and `NotAllowed` for one that cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not path.parent.is_dir():
        raise NotFound(f"the folder {path.parent} does not exist")
    longest = max(_seconds(panel) for panel in panels)
    figure = Figure(figsize=(11, 2.4 * len(panels) + 0.4), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    sounds, gains = None, None
    for axes, panel in zip(rows, panels, strict=True):
        if isinstance(panel, Panel):
            sounds = _draw(axes, *_decibels(panel), (-_DEPTH_DB, 0), "magma")
        else:
            gains = _draw(axes, panel.gain_db, panel.band_hz, panel.frame_rate, (-_GAIN_DB, _GAIN_DB), "RdBu_r")
        axes.set_title(panel.title, loc="left", fontsize=10)
        axes.set_xlim(0, longest)
        axes.set_ylabel("Hz")
    rows[-1].set_xlabel("seconds")
    drawn = [[axes for axes, panel in zip(rows, panels, strict=True) if isinstance(panel, kind)]
             for kind in (Panel, GainPanel)]  # fmt: skip
    for mesh, own, label in ((sounds, drawn[0], "dB under the maximum"), (gains, drawn[1], "gain, dB")):
        if mesh is not None:
            figure.colorbar(mesh, ax=own, label=label, pad=0.01, fraction=0.03)
    part = path.with_name(f".{path.name}.part")
    try:
        canvas.print_png(part)
        part.replace(path)
    except OSError as error:
        raise NotAllowed(f"{path} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def _seconds(panel: Panel | GainPanel) -> float:
    if isinstance(panel, Panel):
        return float(panel.audio.shape[1] / panel.sample_rate)
    return float(panel.gain_db.shape[1] / panel.frame_rate)


def _decibels(panel: Panel) -> tuple[Floats, Floats, float]:
    picture = picture_of(panel.audio, panel.sample_rate, MINI)
    floor = 10 ** (-_DEPTH_DB / 20)
    relative = picture.mel[0] / picture.maximum if picture.maximum > 0 else picture.mel[0]
    return 20 * np.log10(np.maximum(relative, floor)), band_centres(MINI), MINI.frame_rate


def _draw(
    axes: Any, values: Floats, band_hz: Floats, frame_rate: float, limits: tuple[float, float], colours: str
) -> Any:
    """One panel, bands at their places on the mel scale; long clips are drawn in at most 4,000 columns."""
    step = -(-values.shape[1] // 4000)
    values = values[:, ::step]
    mel = hz_to_mel(band_hz)
    extent = (0, values.shape[1] * step / frame_rate, float(mel[0]), float(mel[-1]))
    mesh = axes.imshow(
        values, origin="lower", aspect="auto", extent=extent, vmin=limits[0], vmax=limits[1], cmap=colours,
        interpolation="nearest",
    )  # fmt: skip
    ticks = [tick for tick in _TICKS if band_hz[0] <= tick <= band_hz[-1]]
    axes.set_yticks([float(hz_to_mel(tick)) for tick in ticks])
    axes.set_yticklabels([f"{tick // 1000}k" if tick >= 1000 else str(tick) for tick in ticks], fontsize=7)
    return mesh
