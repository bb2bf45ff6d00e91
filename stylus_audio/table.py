"""Numbers with names, for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest


def table(rows: Mapping[str, Mapping[str, float | None]]) -> str:
    """Aligned rows under their columns' names, which are set one word above the other; `-` is what has no value.

    All rows have the same columns.

    >>> print(table({"a.wav": {"onset_f1": 0.5, "si_sdr_db": -12.25}, "mean": {"onset_f1": None, "si_sdr_db": 3.0}}))
                       si
           onset      sdr
              f1       db
    a.wav  0.500  -12.250
    mean       -    3.000
    """
    names = list(next(iter(rows.values())))
    heads = [name.split("_") for name in names]
    cells = [["-" if row[name] is None else f"{row[name]:.3f}" for name in names] for row in rows.values()]
    widths = [max(map(len, (*head, *column))) for head, column in zip(heads, zip(*cells, strict=True), strict=True)]
    first = max(map(len, rows))
    # From the last word upwards, so that short names stand on the numbers.
    above = reversed(list(zip_longest(*(reversed(head) for head in heads), fillvalue="")))
    lines = [("", words) for words in above] + list(zip(rows, cells, strict=True))
    return "\n".join(
        f"{title:<{first}}  {'  '.join(f'{cell:>{width}}' for cell, width in zip(line, widths, strict=True))}".rstrip()
        for title, line in lines
    )
