"""What `stylus evaluate` has measured as a page to look at and to listen to: one HTML file that needs nothing else."""

from __future__ import annotations

import html
import io
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .audio import Clip
from .errors import BadRequest, NotAllowed, NotFound
from .files import can_write, write_files
from .listening import SECONDS, Sound, loudest_seconds, matched, mp3, sound
from .metric_words import words_of
from .places import ASSETS
from .plot import DPI, MelPanel, Panel, draw_mels, excerpt, mel_panel

Values = Mapping[str, float | None]

MARK = '<meta name="generator" content="stylus evaluate">'
"""At the beginning of every report; only a file that has it is replaced by another."""

_MARKED = 300
"""Bytes that the mark lies in."""

_WIDTH, _PANEL_HEIGHT, _MARGIN = 10.0, 1.7, 0.4
"""Inches."""

_QUALITY = 80
"""Of a picture in WebP: a tenth of a PNG's size, and no difference to be seen."""

_DARK, _LIGHT, _NOTHING = "#16171c", "#e0e2e8", "#2b2d35"
"""A picture's ground, its letters, and what is beyond a sound's end: in place on a light page and on a dark one."""

# What nobody sees in a file's name, or what turns the letters behind it; half a surrogate is a byte that was no UTF-8.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _check_place(target: Path) -> None:
    if target.suffix.lower() not in (".html", ".htm"):
        raise BadRequest(f"html: {target.name} does not end in .html")
    try:
        if not target.parent.is_dir():
            raise NotFound(f"the folder {target.parent} does not exist")
        if target.is_dir():
            raise NotAllowed(f"{target} is a folder; the report needs a file name")
        if target.exists() and not _is_report(target):
            raise NotAllowed(f"{target} is no report of `stylus evaluate`; it is not replaced")
    except OSError as error:
        raise NotAllowed(f"{target} cannot be written: {error.strerror}") from None
    if not can_write(target.parent):
        raise NotAllowed(f"{target.parent} cannot be written")


def _is_report(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return MARK.encode() in stream.read(_MARKED)


class EvaluationReport:
    """A page that grows by a section with every stem; of the sounds it keeps nothing but what the page shows.

    `target` is its file, `of` the stem or the folder. An earlier report is replaced. Raises `BadRequest`, `NotFound`
    and `NotAllowed` for a place where it cannot be.
    """

    def __init__(self, target: Path, of: Path) -> None:
        _check_place(target)
        self._target = target
        self._of = of.resolve().name
        self._sections: list[bytes] = []

    def add(self, name: str, values: Values, stem: Clip, content: Clip, style: Clip | None) -> None:
        """A stem by its file's name, its metrics, and what it was made from."""
        number = len(self._sections) + 1
        clips = {"content": content, **({"style": style} if style else {}), "stem": stem}
        sources = f"Made from {_name(_name_of(content))}"
        if style:
            sources += f"; its style is {_name(_name_of(style))}"
        sounds, loudness = _sounds(clips)
        section = f"""<section aria-labelledby="stem-{number}">
<h2 id="stem-{number}">{_name(name)}</h2>
<p>{sources}.</p>
{_players(clips, sounds, loudness)}
{_picture(clips, sounds)}
<table>
<caption>What was measured of this stem</caption>
{_rows(values)}
</table>
</section>
"""
        self._sections.append(section.encode("utf-8"))

    def write(self, report: Mapping[str, Any] | None = None) -> None:
        """Write the page, all or nothing; with a folder's `report` (of `evaluate_items`) its tables come first.

        Raises what making it does, and `DiskFull`.
        """
        _check_place(self._target)
        tables = _table(report["stems"], report["mean"]) + _sets(report["sets"]) if report else ""
        page = [self._head(tables).encode("utf-8"), *self._sections, _foot().encode("utf-8")]
        write_files({self._target: b"".join(page)}, overwrite=True)

    def _head(self, tables: str) -> str:
        style, script = (_asset(name) for name in ("report.css", "report.js"))
        policy = (
            f"default-src 'none'; img-src data:; media-src data:; style-src {_hash(style)}; "
            f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
        )
        return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{MARK}
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(self._of)}: evaluation</title>
<style>{style}</style>
<script type="module">{script}</script>
</head>
<body>
<main>
<h1>Evaluation of {_name(self._of)}</h1>
<p class="quiet">Under each metric is its researchers' name; “–” stands for a value that does not exist.</p>
{tables}"""


def _foot() -> str:
    return f"""</main>
<footer class="quiet"><p>Stylus Audio {_text(version("stylus-audio"))}</p></footer>
</body>
</html>
"""


def _asset(name: str) -> str:
    return (ASSETS / "report" / name).read_text("utf-8")


def _hash(text: str) -> str:
    """What allows this inline text and no other."""
    return f"'sha256-{b64encode(sha256(text.encode('utf-8')).digest()).decode()}'"


def _text(text: str) -> str:
    """Any text as HTML, also in quotes."""
    return html.escape(_UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text))


def _name(text: str) -> str:
    """A file's name; in a script from right to left it does not turn what is around it."""
    return f"<bdi>{_text(text)}</bdi>"


def _name_of(clip: Clip) -> str:
    return clip.path.name if clip.path else ""


def _cell(name: str, value: float | None) -> str:
    """A number for people, with the exact one beside it."""
    if value is None:
        return '<td class="missing">–</td>'
    shown = str(value) if isinstance(value, int) else f"{value:.3f}"
    exact = f'<data value="{value!r}" data-metric="{_text(name)}">'
    return f'<td class="number">{exact}{shown.replace("-", "−")}</data></td>'


def _rows(values: Values) -> str:
    """A metric a row: what it is called, its value, what that says."""

    def row(name: str, value: float | None) -> str:
        words = words_of(name)
        head = f'<th scope="row">{_text(words.title)} <code>{_text(name)}</code></th>'
        unit = "" if value is None else _text(words.unit)
        return f'<tr>{head}{_cell(name, value)}<td class="unit">{unit}</td><td>{_text(words.says)}</td></tr>'

    heads = ("Metric", ""), ("Value", ' colspan="2"'), ("What it says", "")
    cells = "".join(f'<th scope="col"{span}>{title}</th>' for title, span in heads)
    rows = "\n".join(row(*item) for item in values.items())
    return f"<thead><tr>{cells}</tr></thead>\n<tbody>\n{rows}\n</tbody>"


def _table(stems: Mapping[str, Values], mean: Values) -> str:
    """All stems, a row for each, in the order of their sections."""

    def cells(values: Values) -> str:
        return "".join(_cell(name, value) for name, value in values.items())

    def head(name: str) -> str:
        words = words_of(name)
        unit = f" ({words.unit})" if words.unit else ""
        return f'<th scope="col">{_text(words.title + unit)} <code>{_text(name)}</code></th>'

    rows = "\n".join(
        f'<tr><th scope="row"><a href="#stem-{number}">{_name(name)}</a></th>{cells(values)}</tr>'
        for number, (name, values) in enumerate(stems.items(), 1)
    )
    # A box that scrolls must be reachable without a mouse.
    return f"""<section aria-labelledby="stems">
<h2 id="stems">All stems</h2>
<div class="wide" role="region" aria-labelledby="stems" tabindex="0">
<table class="sorted">
<caption>A click on a column's head sorts by it</caption>
<thead><tr><th scope="col">Stem</th>{"".join(map(head, mean))}</tr></thead>
<tbody>
{rows}
</tbody>
<tfoot><tr><th scope="row">Mean</th>{cells(mean)}</tr></tfoot>
</table>
</div>
</section>
"""


def _sets(sets: Values) -> str:
    return f"""<section aria-labelledby="sets">
<h2 id="sets">The stems as a set</h2>
<table>
<caption>What can be said of many files only; few files make every distance too large</caption>
{_rows(sets)}
</table>
</section>
"""


def _sounds(clips: Mapping[str, Clip]) -> tuple[dict[str, Sound], float]:
    """What of the clips is played, and how loud (LUFS); the content where the stem is, so that one can be compared."""
    first, last = loudest_seconds(clips["stem"])
    # A content that ends before that is not this stem's, and can be heard all the same.
    found = {
        what: (sound(clip, first, last) if what != "style" else None) or sound(clip, *loudest_seconds(clip))
        for what, clip in clips.items()
    }
    turned, loudness = matched([one for one in found.values() if one])
    return dict(zip(found, turned, strict=True)), loudness


def _players(clips: Mapping[str, Clip], sounds: Mapping[str, Sound], loudness: float) -> str:
    said = [f"All play at the same loudness, −{-loudness:.1f} LUFS."]
    said += [f"The {what} is quieter: its peaks allow no more." for what, one in sounds.items() if one.quieter]
    if any(not one.whole and one.last - one.first >= SECONDS for one in sounds.values()):
        said.append(f"Of what is longer than {SECONDS:g} s it is the loudest part.")
    players = "\n".join(_player(what.capitalize(), _name_of(clips[what]), one) for what, one in sounds.items())
    return f'<p class="quiet">{" ".join(said)}</p>\n<div class="players">\n{players}\n</div>'


def _player(title: str, name: str, sound: Sound) -> str:
    heard = f"{sound.total:.1f} s" if sound.whole else f"{sound.first:.1f}–{sound.last:.1f} s of {sound.total:.1f} s"
    return (
        f"<figure><figcaption>{title} <span>{heard}</span></figcaption>"
        f'<audio controls preload="none" aria-label="{title}: {_text(name)}" src="{_data("audio/mpeg", mp3(sound))}">'
        "</audio></figure>"
    )


def _data(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{b64encode(data).decode('ascii')}"


def _picture(clips: Mapping[str, Clip], sounds: Mapping[str, Sound]) -> str:
    """Mel-spectrograms of the whole stem and what is beside it, as loud as they are played."""
    stem = clips["stem"]
    seconds = stem.audio.shape[1] / stem.sample_rate
    panels = []
    for what, clip in clips.items():
        rate = clip.sample_rate
        drawn = (
            excerpt(what, "", clip.audio, rate, seconds)
            if what == "style"
            else Panel(what, clip.audio[:, : max(1, round(seconds * rate))], rate)
        )
        panel = mel_panel(drawn.title, drawn.audio, rate)
        panels.append(replace(panel, mel=panel.mel * np.float32(10 ** (sounds[what].gain_db / 20))))
    webp, width, height = _webp(panels, seconds)
    shown = f"Mel-spectrograms from 20 Hz to 20 kHz over {seconds:.1f} s: {', '.join(panel.title for panel in panels)}"
    return (
        f'<img alt="{_text(shown)}" width="{width}" height="{height}" loading="lazy" decoding="async" '
        f'src="{_data("image/webp", webp)}">'
    )


def _webp(panels: Sequence[MelPanel], seconds: float) -> tuple[bytes, int, int]:
    """Panels under each other, with the picture's width and height in pixels."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    letters = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _LIGHT)
    picture = io.BytesIO()
    with mpl.rc_context(letters):
        size = (_WIDTH, _PANEL_HEIGHT * len(panels) + _MARGIN)
        figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor=_DARK)
        rows: Iterable[Any] = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        placed = list(zip(rows, panels, strict=True))
        image = draw_mels(placed)
        for axes, _ in placed:
            axes.set_facecolor(_NOTHING)
        placed[-1][0].set_xlim(0.0, seconds)
        placed[-1][0].set_xlabel("seconds", fontsize=8)
        bar = figure.colorbar(image, ax=[axes for axes, _ in placed], pad=0.01, fraction=0.03, aspect=14 * len(panels))
        bar.set_label("level in dB", fontsize=8)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
        figure.savefig(picture, format="webp", dpi=DPI, pil_kwargs={"quality": _QUALITY})
    return picture.getvalue(), round(size[0] * DPI), round(size[1] * DPI)
