"""The page of `stylus evaluate --html`: what it says, shows and plays is what was measured, and it asks for nothing."""

from __future__ import annotations

import base64
import errno
import gc
import hashlib
import io
import json
import weakref
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from stylus_audio.audio import Clip, read_clip, resample
from stylus_audio.evaluate_folder import similarities
from stylus_audio.evaluation_report import EvaluationReport
from stylus_audio.listening import CEILING, LOUDNESS, QUIETEST, SECONDS, loudest_seconds, matched, mp3, sound
from stylus_audio.loudness import integrated, true_peak
from stylus_audio.metric_words import OF_SETS, OF_STEM
from tests.sounds import RATE, Audio, noise, plucks, tone
from tests.test_cli import Shell, shell
from tests.test_evaluate_folder import cache, named, save

__all__ = ["cache", "named", "shell"]

Attributes = dict[str, str | None]


@dataclass
class Section:
    """A part of the page: its heading, its metrics by row, its players' files by label, its pictures, its text."""

    title: str = ""
    rows: list[dict[str, float | None]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    players: dict[str, bytes] = field(default_factory=dict)
    pictures: list[tuple[bytes, Attributes]] = field(default_factory=list)
    text: str = ""


class Page(HTMLParser):
    """A report as a browser reads it."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, Attributes]] = []
        self.inline: dict[str, str] = {}
        self.text = self.page_title = ""
        self.sections = [Section()]
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        if tag not in ("meta", "img"):
            self._open.append(tag)
        if tag == "section":
            self.sections.append(Section())
        section = self.sections[-1]
        if tag == "tr":
            section.rows.append({})
        elif tag == "audio":
            section.players[str(values["aria-label"])] = decoded(values["src"], "audio/mpeg")
        elif tag == "img":
            section.pictures.append((decoded(values["src"], "image/webp"), values))
        elif tag == "td" and values.get("class") == "missing":
            section.rows[-1][f"missing {len(section.rows[-1])}"] = None
        elif tag == "data":
            section.rows[-1][str(values["data-metric"])] = json.loads(str(values["value"]))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        inside = self._open[-1] if self._open else ""
        if inside in ("style", "script"):
            self.inline[inside] = self.inline.get(inside, "") + data
        if inside == "title":
            self.page_title += data
        section = self.sections[-1]
        section.text += data
        if "h2" in self._open:
            section.title += data
        if "th" in self._open and inside == "code":
            section.heads.append(data)


def decoded(source: str | None, kind: str) -> bytes:
    head, _, data = str(source).partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(data, validate=True)


def page_of(file: Path) -> Page:
    return Page(file.read_text("utf-8"))


def known(values: dict[str, float | None]) -> dict[str, float | None]:
    return {name: value for name, value in values.items() if value is not None}


def sounds_like(data: bytes, file: Audio, rate: int) -> tuple[Audio, int]:
    """What an MP3 plays, which is this audio but for its level."""
    played, own = soundfile.read(io.BytesIO(data), always_2d=True)
    wanted = resample(file, rate, own)
    assert played.T.shape == wanted.shape
    scale = float((played.T * wanted).sum() / (wanted**2).sum())
    assert np.mean((played.T - scale * wanted) ** 2) < 0.05 * np.mean(played**2)
    return played.T.astype(np.float32), own


def test_a_folders_page_says_what_json_says(shell: Shell, named: Path) -> None:
    save(named / "stems" / "riff_b_silence.wav", np.zeros((1, RATE), np.float32))
    words = ("evaluate", named / "stems", "--content", named / "clips", "--style", named / "refs", "--json")
    file = named / "report.html"
    said = shell(*words, "--html", file)
    assert said[0] == 0, said
    assert said == shell(*words)
    report = json.loads(said[1])
    page = page_of(file)
    assert page.page_title == "stems: evaluation"
    _, stems, sets, *sections = page.sections
    assert [section.title for section in (stems, sets)] == ["All stems", "The stems as a set"]
    assert [section.title for section in sections] == list(report["stems"])
    rows = [row for row in stems.rows if row]
    assert [known(row) for row in rows] == [known(row) for row in (*report["stems"].values(), report["mean"])]
    assert [len(row) for row in rows] == [len(report["mean"])] * (len(sections) + 1)
    assert stems.heads == list(report["mean"])
    for section, values in zip(sections, report["stems"].values(), strict=True):
        assert section.heads == list(values)
        assert [known(row) for row in section.rows[1:]] == [
            {} if value is None else {name: value} for name, value in values.items()
        ]
    assert {name: value for row in sets.rows for name, value in row.items()} == report["sets"]
    # Every metric that there is has words for people.
    ones = np.ones((1, 2))
    assert set(OF_STEM) == {*report["mean"], *similarities(ones, ones, ones)}
    assert set(OF_SETS) == {name.replace("mel", kind) for name in report["sets"] for kind in ("mel", "clap")}


def test_it_plays_and_draws_the_files(shell: Shell, named: Path) -> None:
    files = {"Content": named / "clips" / "riff_b.wav", "Style": named / "refs" / "hum.flac.wav",
             "Stem": named / "stems" / "riff_b_hum.flac.wav"}  # fmt: skip
    save(files["Stem"], 0.05 * read_clip(files["Stem"]).audio)
    report = named / "one.html"
    words = ("evaluate", files["Stem"], "-c", files["Content"], "-s", files["Style"])
    plain = shell(*words)
    assert shell(*words, "--html", report) == plain
    (section,) = page_of(report).sections[1:]
    assert list(section.players) == [f"{what}: {file.name}" for what, file in files.items()]
    assert "the same loudness, −18.0 LUFS" in section.text
    for data, file in zip(section.players.values(), files.values(), strict=True):
        audio, rate = sounds_like(data, read_clip(file).audio, RATE)
        assert integrated(audio, rate) == pytest.approx(LOUDNESS, abs=0.2)
    ((data, attributes),) = section.pictures
    picture = Image.open(io.BytesIO(data))
    assert (picture.format, *picture.size) == ("WEBP", int(attributes["width"] or 0), int(attributes["height"] or 0))
    assert "content, style (" in str(attributes["alt"])
    assert str(attributes["alt"]).endswith("s), stem")
    # Something bright in each third.
    thirds = np.array_split(np.asarray(picture.convert("RGB"))[:, :1000, 0], 3)
    assert all((third > 200).mean() > 0.01 for third in thirds)
    lines = dict(line.rsplit(maxsplit=1) for line in plain[1].splitlines())
    shown = {name: value for row in section.rows for name, value in row.items() if value is not None}
    assert {name.strip(): value for name, value in lines.items() if value != "-"} == {
        name: f"{value:.4f}" for name, value in shown.items()
    }
    first = report.read_bytes()
    assert shell(*words, "--html", report) == plain
    assert report.read_bytes() == first


def clip_of(audio: Audio, name: str = "a.wav", rate: int = RATE, offset: int = 0, total: int = 0) -> Clip:
    return Clip(audio, rate, "FLOAT", "WAV", offset, total or audio.shape[1], path=Path(name))


def page_with(folder: Path, name: str, *clips: Clip) -> Page:
    stem, content, style = (*clips, None)[:3]
    assert stem
    assert content
    report = EvaluationReport(folder / "page.html", Path(name.replace("\0", "")))
    report.add(name, {"onset_f1": 0.5, "new_metric": 1e-06}, stem, content, style)
    report.write()
    return page_of(folder / "page.html")


HOSTILE = "</bdi></h2><script>alert(1)</script>\" onplay='x' &amp; 音.wav"


def test_names_are_only_names(tmp_path: Path) -> None:
    sound = clip_of(plucks(0.3), Path(HOSTILE).name)
    page = page_with(tmp_path, HOSTILE, sound, sound, sound)
    assert page.sections[1].title == HOSTILE
    assert page.text.count(Path(HOSTILE).name) == 5
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert f"Style: {Path(HOSTILE).name}" in page.sections[1].players
    assert {name for _, attributes in page.tags for name in attributes if name.startswith("on")} == set()
    strange = page_with(tmp_path, "a\udcff\u202e\0\n.wav", sound, sound)
    assert strange.sections[1].title == "a\ufffd\ufffd\ufffd\ufffd.wav"
    assert {"onset_f1": 0.5} in strange.sections[1].rows
    assert {"new_metric": 1e-06} in strange.sections[1].rows


def test_it_asks_for_nothing_and_can_be_read_by_all(shell: Shell, named: Path) -> None:
    file = named / "report.html"
    assert shell("evaluate", named / "stems", "-c", named / "clips", "-s", named / "refs", "--html", file)[0] == 0
    page = page_of(file)
    links = [value for _, attributes in page.tags for name, value in attributes.items()
             if name in ("src", "href", "srcset", "action", "data", "poster", "style")]  # fmt: skip
    ids = [str(attributes["id"]) for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for link in links:
        assert str(link).startswith(("data:", "#")), link
        assert not str(link).startswith("#") or str(link)[1:] in ids
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "form", "base"}
    assert not any(word in page.inline["style"] for word in ("url(", "@import"))
    (policy,) = (str(values["content"]) for tag, values in page.tags if "http-equiv" in values)
    parts = {name: sources for name, *sources in (part.split() for part in policy.split(";"))}
    assert parts["default-src"] == ["'none'"]
    assert parts["img-src"] == parts["media-src"] == ["data:"]
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.inline[kind].encode()).digest()).decode()
        assert parts[f"{kind}-src"] == [f"'sha256-{digest}'"]
    assert ("html", {"lang": "en"}) in page.tags
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert levels == [1, *[2] * (len(levels) - 1)]
    assert all(values.get("scope") in ("col", "row") for tag, values in page.tags if tag == "th")
    assert all(values.get("alt") for tag, values in page.tags if tag == "img")
    assert all("controls" in values and values.get("aria-label") for tag, values in page.tags if tag == "audio")
    assert all(values.get("aria-labelledby") in ids for tag, values in page.tags if tag == "section")


def test_of_long_sounds_the_loudest_part_at_the_same_place(tmp_path: Path) -> None:
    rate, quiet = 8000, 0.02
    envelope = np.where(np.arange(50 * rate) // rate < 12, quiet, 1.0)
    stem, content = (
        clip_of(
            np.tile(resample(made, RATE, rate), 25) * envelope.astype(np.float32), name, rate, start, start + 60 * rate
        )
        for name, made, start in (("stem.wav", plucks(2.0), 0), ("content.wav", plucks(2.0, 0.3), 2 * rate))
    )
    (section,) = page_with(tmp_path, "stem.wav", stem, content).sections[1:]
    (of_content, of_stem) = section.players.values()
    first, last = loudest_seconds(stem)
    assert last - first == SECONDS
    assert 11 < first <= 20
    assert f"Of what is longer than {SECONDS:g} s it is the loudest part." in section.text
    assert f"{first:.1f}–{last:.1f} s of 60.0 s" in section.text
    assert f"{first + 2:.1f}–{last + 2:.1f} s of 62.0 s" in section.text
    passage = slice(round(first * rate), round(last * rate))
    sounds_like(of_stem, stem.audio[:, passage], rate)
    sounds_like(of_content, content.audio[:, passage], rate)


def test_what_an_mp3_cannot_hold_is_made_to_fit(tmp_path: Path) -> None:
    six = clip_of(np.repeat(plucks(0.4), 6, axis=0), rate=96000)
    one = sound(six, 0.0, 1.0)
    assert one
    assert one.whole
    assert (one.sample_rate, one.audio.shape) == (48000, (1, round(0.2 * RATE)))
    sounds_like(mp3(one), six.audio[:1], 96000)
    tiny = sound(clip_of(np.ones((2, 1), np.float32), rate=384000), 0.0, 1.0)
    assert tiny
    assert soundfile.info(io.BytesIO(mp3(tiny))).frames == 1
    assert sound(six, 5.0, 6.0) is None
    # A content that has ended where the stem is loudest is played from elsewhere.
    late = clip_of(np.concatenate([np.zeros((1, 40 * 8000), np.float32), tone(440, 3.0)], axis=1), rate=8000)
    page = page_with(tmp_path, "a.wav", late, clip_of(plucks(1.0)))
    sounds_like(next(iter(page.sections[1].players.values())), plucks(1.0), RATE)


def test_loudness_is_matched_as_far_as_peaks_allow() -> None:
    click = np.zeros((1, RATE), np.float32)
    click[0, RATE // 2] = 1.0
    sharp = click + noise(1.0, 0.05)

    def levels(*audio: Audio) -> tuple[list[float], float, list[bool]]:
        made = [one for each in audio if (one := sound(clip_of(each), 0.0, 1.0))]
        turned, loudness = matched(made)
        assert all(true_peak(one.audio, RATE) <= CEILING + 0.01 for one in turned)
        return [integrated(one.audio, RATE) for one in turned], loudness, [one.quieter for one in turned]

    both, loudness, quieter = levels(tone(1000, 1.0, 0.01), noise(1.0))
    assert both == pytest.approx([LOUDNESS] * 2, abs=0.01)
    assert (loudness, quieter) == (LOUDNESS, [False] * 2)
    both, loudness, quieter = levels(sharp.astype(np.float32), tone(1000, 1.0))
    assert QUIETEST < loudness < LOUDNESS
    assert both == pytest.approx([loudness] * 2, abs=0.01)
    assert quieter == [False, False]
    both, loudness, quieter = levels(click, tone(1000, 1.0))
    assert (loudness, quieter) == (QUIETEST, [True, False])
    assert both[0] < both[1] == pytest.approx(QUIETEST)
    silent, loudness, quieter = levels(np.zeros((1, RATE), np.float32), tone(1000, 1.0))
    assert silent == pytest.approx([-np.inf, LOUDNESS])
    assert quieter == [False, False]


def test_the_page_keeps_no_sound(tmp_path: Path) -> None:
    report = EvaluationReport(tmp_path / "page.html", tmp_path)
    clips = [clip_of(plucks(0.3)) for _ in range(3)]
    kept = [weakref.ref(clip.audio) for clip in clips]
    report.add("a.wav", {"onset_f1": None}, *clips)
    clips.clear()
    gc.collect()
    assert [one() for one in kept] == [None] * 3


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() if file.is_file() else b"" for file in folder.rglob("*")}


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("report.txt", "does not end in .html"),
        ("no/report.html", "does not exist"),
        ("folder.html", "is a folder"),
        ("mine.html", "is not replaced"),
        ("riff.html", "is not replaced"),
        ("empty.html", "is not replaced"),
        (f"{'x' * 300}.html", "cannot be written"),
        ("locked/report.html", "cannot be written"),
    ],
)
@pytest.mark.parametrize("json_too", [False, True])
def test_a_bad_place_leaves_everything_as_it_was(
    shell: Shell, place: str, says: str, json_too: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A stem by the name of a page.
    stem = shell.clip.rename(shell.folder / "riff.html")
    (shell.folder / "folder.html").mkdir()
    (shell.folder / "locked").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "locked")
    (shell.folder / "mine.html").write_text("<!DOCTYPE html><p>mine", "utf-8")
    (shell.folder / "empty.html").touch()
    before = contents(shell.folder)
    words = ("evaluate", stem, "-c", stem, "--html", shell.folder / place)
    code, out, err = shell(*words, *(["--json"] if json_too else []))
    assert code == 2
    assert says in err
    assert err.count("\n") == 1
    assert says in json.loads(out)["error"]["message"] if json_too else out == ""
    assert contents(shell.folder) == before


def test_a_report_is_replaced_whole_or_not_at_all(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    report = shell.folder / "report.html"
    assert shell("evaluate", shell.clip, "-c", shell.clip, "--html", report)[0] == 0
    first, files = report.read_bytes(), shell.files()
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "full")

        patch.setattr(Path, "replace", full)
        code, out, err = shell("evaluate", shell.clip, "-c", shell.style, "--html", report)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "no room" in err
    assert report.read_bytes() == first
    assert shell("evaluate", shell.clip, "-c", shell.style, "--html", report)[0] == 0
    assert report.read_bytes() != first
    assert shell.files() == files


def test_nothing_is_written_where_nothing_could_be_measured(shell: Shell, named: Path) -> None:
    assert shell("evaluate", named / "stems", "--html", named / "report.html")[0] == 2
    assert not (named / "report.html").exists()


def test_help_knows_it(shell: Shell) -> None:
    assert "--html" in shell("evaluate", "--help")[1]
