"""A batch's reports: a line for each of its stems in reports.jsonl, in place of the sidecars that they lack."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from .files import same_file
from .unchanged import WhileUnchanged

RECORDS = "stylus-batch"
"""The folder of a batch's ledger and reports, in the folder of its stems."""


def report_of(stem: Path) -> str:
    """The line of a stem in the reports of the batch in whose folder it lies, or above it; "" where it has none.

    A batch's folder may have been moved: then its stems are known by their places in it. Raises `OSError` for reports
    that cannot be read.
    """
    stem = stem.resolve()
    for folder in stem.parents:
        inside = stem.relative_to(folder).parts
        for file in sorted(folder.glob(f"{RECORDS}/reports*.jsonl")):
            places = _places(file).get(stem.name, {})
            own = [said for said in places if same_file(said, stem)]
            moved = [said for said in places if said.parts[-len(inside) :] == inside and folder not in said.parents]
            found = own or moved
            if len(found) == 1:
                with file.open("rb") as stream:
                    stream.seek(places[found[0]])
                    return stream.readline().decode("utf-8")
    return ""


def is_reported(stem: Path) -> bool:
    """Whether the reports of a batch in whose folder a file lies, or above it, name that very file.

    Raises `OSError`.
    """
    files = (file for folder in stem.resolve().parents for file in folder.glob(f"{RECORDS}/reports*.jsonl"))
    return any(same_file(said, stem) for file in files for said in _places(file).get(stem.name, {}))


def _index(file: Path) -> dict[str, dict[Path, int]]:
    """By the names of stems: where the reports say that they lie, and where in the file their last lines begin."""
    index: dict[str, dict[Path, int]] = defaultdict(dict)
    at = 0
    with file.open("rb") as stream:
        for line in stream:
            with suppress(ValueError, KeyError, TypeError):
                stem = Path(json.loads(line)["stem"])
                index[stem.name][stem] = at
            at += len(line)
    return dict(index)


_places = WhileUnchanged(_index, 1024)
"""A folder's stems are asked for one by one; a batch may have 100,000, and each of its shards a file."""
