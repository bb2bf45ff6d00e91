"""A folder of stems, measured one by one and as a set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .audio import Clip, is_audio, read_clip
from .errors import BadRequest, NotAllowed, NotFound, UnsupportedAudio
from .files import in_text, same_file
from .frechet import frechet_distance, mel_embeddings
from .instruments import instrument_match
from .metrics import SI_SDR_LIMIT, evaluate_clips
from .provenance import Given, read_given, read_sources
from .scratch import padded

Floats = NDArray[np.floating[Any]]
Values = dict[str, float | None]
Embed = Callable[[Floats, int], NDArray[np.float64]]
"""Audio `[channel, sample]` and its rate in Hz to embeddings `[window, dimension]`."""
See = Callable[[str, Values, Clip, Clip, Clip | None], None]
"""Called with a stem's file name and metrics, the stem, what it was made from, and its style."""
Heard = dict[str, NDArray[np.float64]]
"""A file's embeddings by the name of what made them."""
Passage = tuple[Path, Given | None]
"""A file, and what of it; None: all."""

_UNREADABLE = (UnsupportedAudio, NotFound, NotAllowed, BadRequest)


@dataclass(frozen=True)
class Item:
    """A stem, the content that it was made from, and its own style where that is known.

    `styles` are all that its sidecar or report names; the first is the one that it is compared with. `seams` are the
    seconds of it where windows meet.
    """

    stem: Path
    content: Path
    styles: tuple[Path, ...] = ()
    seams: tuple[float, ...] = ()


def audio_files(place: Path) -> list[Path]:
    """The audio files of a folder by name, without those in its subfolders; of a file itself.

    Raises `NotFound` where there is neither, `NotAllowed` for a folder that may not be read.
    """
    if not place.exists():
        raise NotFound(f"{place} does not exist")
    if not place.is_dir():
        return [place.resolve()]
    try:
        return sorted(file for file in place.resolve().iterdir() if is_audio(file))
    except OSError as error:
        raise NotAllowed(f"{place} cannot be read: {error.strerror}") from None


def find_items(folder: Path, content: Path | None, style: Path | None, leave_out: Callable[[str], None]) -> list[Item]:
    """The stems of a folder by name, with what they were made from.

    A sidecar or a batch's report says it, also of files that were moved to the stem's folder or to those given. A stem
    without one has the content whose name it bears or begins with before a `_`, and the style that it ends with behind
    a `_`, the longest names first; a file given instead of a folder counts for all. What others were made from is no
    stem; a stem whose content is not found is told to `leave_out`, in words. Raises what `audio_files` raises, and
    `BadRequest` for a folder without audio.
    """
    contents, styles = ([] if place is None else audio_files(place) for place in (content, style))
    places = [place for place in (content, style) if place is not None and place.is_dir()]
    stems = audio_files(folder)
    if not stems:
        raise BadRequest(f"{folder} holds no audio files")
    known = {stem: read_sources(stem, [*places, folder]) for stem in stems}
    used = [file for one in known.values() for file in (one.content, *one.styles) if file is not None]
    used += [place for place in (content, style) if place is not None and not place.is_dir()]
    sources = {file.resolve() for file in used}
    items = []
    for stem, said in known.items():
        if stem.resolve() in sources:
            continue
        origin = said.content or _named(contents, stem, content, lambda name, own: f"{own}_".startswith(f"{name}_"))
        if origin is None:
            leave_out(
                f"{in_text(stem.name)} is left out: neither a sidecar, a batch's report nor --content has the clip that"
                " it was made from"
            )
            continue
        own = _named(styles, stem, style, lambda name, own: f"_{own}".endswith(f"_{name}"))
        items.append(Item(stem, origin, said.styles or ((own,) if own else ()), seams=said.seams))
    return items


def _named(files: Sequence[Path], stem: Path, place: Path | None, fits: Callable[[str, str], bool]) -> Path | None:
    if place is not None and not place.is_dir():
        return place.resolve()
    fitting = [file for file in files if fits(file.stem, stem.stem) and not same_file(file, stem)]
    return max(fitting, key=lambda file: len(file.stem), default=None)


def evaluate_items(
    items: Sequence[Item],
    style_set: Sequence[Path] = (),
    clap: Embed | None = None,
    progress: Callable[[float, str], None] = lambda fraction, stage: None,
    leave_out: Callable[[str], None] = lambda line: None,
    see: See | None = None,
) -> dict[str, Any]:
    """Metrics of every stem, their means, and the distances between the sets.

    `stems` has for every stem's file name what `metrics.evaluate` says and, with `clap`, its similarities; `mean` the
    means of the values that exist; `sets` the numbers of files and the Fréchet distances from the stems to the styles
    (`fad_mel`, `fad_clap`), from the stems to the contents (`…_content`) and from the contents to the styles
    (`…_content_style`). The styles are those of `style_set`, or else all that the items name. None is what does not
    exist; all others are finite. A file that cannot be read is told to `leave_out`; `see` gets every stem with its
    sounds once it is measured.

    Raises `BadRequest` where no stem is left.
    """
    own = {item.styles[0] for item in items if item.styles}
    chosen = set(style_set) or {style for item in items for style in item.styles}
    embeds: dict[str, Embed] = {"mel": mel_embeddings} | ({"clap": clap} if clap else {})

    def hear(clip: Clip) -> Heard:
        return {name: embed(clip.audio, clip.sample_rate) for name, embed in embeds.items()}

    steps = len(own | chosen) + len(items)
    styles: dict[Path, Heard] = {}
    for number, path in enumerate(sorted(own | chosen)):
        progress(number / steps, path.name)
        try:
            styles[path] = hear(read_clip(path))
        except _UNREADABLE as error:
            leave_out(f"the style {in_text(path.name)} is left out: {error}")
    rows: dict[str, Values] = {}
    stems: list[Heard] = []
    contents: dict[Passage, Heard] = {}
    for number, item in enumerate(items, len(own | chosen)):
        progress(number / steps, item.stem.name)
        style = next((path for path in item.styles[:1] if path in styles), None)
        try:
            stem = read_clip(item.stem)
            content, passage = passage_under(item.stem, item.content)
        except _UNREADABLE as error:
            leave_out(f"{in_text(item.stem.name)} is left out: {error}")
            continue
        reference = read_clip(style) if style else None
        values = evaluate_clips(stem, content, reference, item.seams)
        values["instrument_match"] = instrument_match(stem, reference)
        stems.append(hear(stem))
        if passage not in contents:
            contents[passage] = hear(content)
        if clap:
            heard = styles[style]["clap"] if style else None
            values |= similarities(stems[-1]["clap"], contents[passage]["clap"], heard)
        rows[item.stem.name] = values
        if see:
            see(item.stem.name, values, stem, content, reference)
    if not rows:
        raise BadRequest("no stem to measure; --content DIR says where the clips are that the stems were made from")
    progress(1.0, "done")
    sets = {
        "stems": stems,
        "contents": list(contents.values()),
        "styles": [one for path, one in styles.items() if path in chosen],
    }
    return {"stems": rows, "mean": _means(list(rows.values())), "sets": _distances(sets, list(embeds))}


def passage_under(stem: Path, content: Path) -> tuple[Clip, Passage]:
    """What of a content a stem's render was given, as the stem's own sidecar says, and which passage that is.

    Under a tail there is silence, as for the sidecar's metrics. Without a sidecar of this content it is all of the
    clip. Raises what `read_clip` does.
    """
    given = read_given(stem, content)
    if given is None:
        return read_clip(content), (content, None)
    clip = read_clip(content, given.start, given.end)
    return replace(clip, audio=padded(clip.audio, 0, given.tail)), (content, given)


def similarities(stem: Floats, content: Floats, style: Floats | None) -> Values:
    """Cosines, -1 to 1, between the mean CLAP embeddings `[window, dimension]` of a stem, its content and its style."""
    return {
        "clap_content_similarity": _cosine(stem, content),
        "clap_style_similarity": None if style is None else _cosine(stem, style),
        "clap_content_style_similarity": None if style is None else _cosine(content, style),
    }


def _cosine(one: Floats, other: Floats) -> float | None:
    ours, theirs = one.mean(0), other.mean(0)
    return _finite(float(ours @ theirs / (np.linalg.norm(ours) * np.linalg.norm(theirs))))


def _means(rows: Sequence[Values]) -> Values:
    """Of every metric the mean of the values that exist."""
    known = {name: [value for row in rows if (value := row[name]) is not None] for name in rows[0]}
    known["si_sdr_db"] = _within_limits(known["si_sdr_db"])
    return {name: _finite(float(np.mean(values))) if values else None for name, values in known.items()}


def _within_limits(decibels: Sequence[float]) -> list[float]:
    """What a mean can be taken of: not what stands for infinity, unless all are the same one."""
    within = [value for value in decibels if abs(value) < SI_SDR_LIMIT]
    return within or (list(decibels) if len(set(decibels)) == 1 else [])


def _distances(sets: Mapping[str, Sequence[Heard]], names: Sequence[str]) -> Values:
    values: Values = {kind: len(files) for kind, files in sets.items()}
    for name in names:
        rows = {kind: [row for one in files for row in one[name]] for kind, files in sets.items()}
        for end, one, other in (
            ("", "stems", "styles"),
            ("_content", "stems", "contents"),
            ("_content_style", "contents", "styles"),
        ):
            values[f"fad_{name}{end}"] = _finite(frechet_distance(np.array(rows[one]), np.array(rows[other])))
    return values


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
