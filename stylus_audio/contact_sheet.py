"""The contact sheet of a sweep: the content and every stem as small mel-spectrograms on common axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import fill
from typing import Any

from .plot import DPI, MelPanel, draw_mels, png_of

CELL_WIDTH, CELL_HEIGHT = 2.5, 1.5
_GAP_WIDTH, _GAP_HEIGHT = 0.3, 0.5
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.65, 0.85, 0.7, 0.5
"""Inches."""

COLUMNS = 300
"""Of a cell's spectrogram, about as many as it has pixels."""

WIDEST = 12
"""Cells in a row; a longer axis is wrapped as one of a single option is."""

_LETTERS = 42
"""Of a title in a line."""


def layout(lengths: Sequence[int]) -> tuple[list[tuple[int, int]], int, int]:
    """Row and column of the content and of every stem, and how many rows and columns there are.

    `lengths` are those of the swept options. Of several, the last goes along the rows, under a row for the content; one
    alone follows the content and is wrapped.

    >>> layout([2, 3])
    ([(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)], 3, 3)
    >>> layout([4])
    ([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)], 2, 3)
    """
    count = math.prod(lengths)
    if len(lengths) > 1 and lengths[-1] <= WIDEST:
        columns = lengths[-1]
        places = [(0, 0), *((1 + number // columns, number % columns) for number in range(count))]
    else:
        columns = min(WIDEST, math.ceil(math.sqrt(1 + count)))
        places = [(number // columns, number % columns) for number in range(1 + count)]
    return places, places[-1][0] + 1, columns


def contact_sheet(title: str, content: MelPanel, stems: Sequence[MelPanel], lengths: Sequence[int]) -> bytes:
    """A PNG of the content and all stems, in the order of their combinations, laid out as `layout` says.

    All share the axes and one scale in dB under the loudest.
    """
    from matplotlib.figure import Figure

    panels = [content, *stems]
    places, rows, columns = layout(lengths)
    # Placed by hand: matplotlib's own layout takes minutes for hundreds of cells.
    width = _LEFT + columns * (CELL_WIDTH + _GAP_WIDTH) - _GAP_WIDTH + _RIGHT
    height = _TOP + rows * (CELL_HEIGHT + _GAP_HEIGHT) - _GAP_HEIGHT + _BOTTOM
    figure = Figure(figsize=(width, height), dpi=DPI)

    def box(row: int, left: float, wide: float) -> Any:
        bottom = height - _TOP - row * (CELL_HEIGHT + _GAP_HEIGHT) - CELL_HEIGHT
        return figure.add_axes((left / width, bottom / height, wide / width, CELL_HEIGHT / height))

    cells = [box(row, _LEFT + column * (CELL_WIDTH + _GAP_WIDTH), CELL_WIDTH) for row, column in places]
    image = draw_mels(list(zip(cells, panels, strict=True)))
    seconds = max(panel.mel.shape[1] / panel.frame_rate for panel in panels)
    for axes, panel, (row, column) in zip(cells, panels, places, strict=True):
        axes.set_xlim(0.0, seconds)
        axes.set_title(_title(panel.title), loc="left", fontsize=8, parse_math=False)
        axes.tick_params(labelsize=7, labelleft=column == 0, labelbottom=(row + 1, column) not in places)
        axes.set_ylabel("Hz" if column == 0 else "", fontsize=8)
        axes.set_xlabel("" if (row + 1, column) in places else "seconds", fontsize=8)
    bar = figure.colorbar(image, cax=box(0, width - _RIGHT + 0.12, 0.1))
    bar.set_label("level in dB", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    figure.text(_LEFT / width, 1 - 0.12 / height, title, va="top", fontsize=10, parse_math=False)
    return png_of(figure)


def _title(text: str) -> str:
    """Three lines at most: there is no room for more between two rows."""
    return fill(text, _LETTERS, max_lines=3, placeholder=" …", break_on_hyphens=False)
