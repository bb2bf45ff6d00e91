"""Manifests, plans and shards: what is asked for becomes items, each with a place of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylus_audio import library
from stylus_audio.batch.command import BatchRequest, run_batch
from stylus_audio.batch.estimate import estimate, learn
from stylus_audio.batch.instrument import reskin
from stylus_audio.batch.ledger import Ledger
from stylus_audio.batch.manifest import home, rows
from stylus_audio.batch.packs import Failed
from stylus_audio.batch.plan import PACK_CLIPS, Item, Planner, Sound, Wish, alone, as_pack, in_packs, shard
from stylus_audio.batch.sfz import read_instrument
from stylus_audio.errors import BadRequest, NotFound
from stylus_audio.options import Options
from stylus_audio.reports import RECORDS
from stylus_audio.stem import publish_stem, write_stem
from tests.sounds import RATE, plucks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tree of clips, with a style beside it."""
    for name in (
        "kit/kick.wav",
        "kit/deep/Snare.WAV",
        "kit/deep/.hidden.wav",
        "kit/notes.txt",
        "glass.wav",
        "choir.wav",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"RIFF" + b"\0" * 200)
    return tmp_path


def planned(folder: Path, *sources: str, **wish: object) -> list[Item]:
    """The items of sources in a folder, with the style that lies there."""
    styles = wish.pop("styles", (str(folder / "glass.wav"),))
    made = Wish(tuple(styles), **wish)  # type: ignore[arg-type]
    return list(Planner(made).items(rows([str(folder / source) for source in sources])))


def stems(items: list[Item], folder: Path) -> list[str]:
    return [Path(item.output).relative_to(folder).as_posix() for item in items]


def test_a_folder_is_mirrored_beside_itself(folder: Path) -> None:
    assert stems(planned(folder, "kit"), folder) == [
        "kit-stylus/deep/Snare_glass.wav", "kit-stylus/kick_glass.wav",
    ]  # fmt: skip
    assert home(str(folder / "kit")) == folder / "kit-stylus"


def test_stems_of_another_batch_among_the_clips_are_none(folder: Path) -> None:
    clips = planned(folder, "kit")
    other = folder / "kit" / "other"
    (other / RECORDS).mkdir(parents=True)
    (other / "kick_glass.wav").write_bytes(b"RIFF" + b"\0" * 200)
    (other / RECORDS / "reports.jsonl").write_text(json.dumps({"stem": str(other / "kick_glass.wav")}) + "\n")
    assert planned(folder, "kit") == clips == planned(folder, "kit/**/*.[wW][aA][vV]")
    # An original of a stem's name elsewhere is none.
    (other / "Snare_glass.wav").write_bytes(b"RIFF" + b"\0" * 200)
    with (other / RECORDS / "reports.jsonl").open("a") as stream:
        stream.write(json.dumps({"stem": "/elsewhere/other/Snare_glass.wav"}) + "\n")
    assert len(planned(folder, "kit")) == len(clips) + 1
    (other / "Snare_glass.wav").unlink()
    # They are clips for who asks for them, and what lies beside them is one.
    assert [Path(item.content).name for item in planned(folder, "kit/other")] == ["kick_glass.wav"]
    (other / "kick.wav").write_bytes(b"RIFF" + b"\0" * 200)
    assert len(planned(folder, "kit")) == len(clips) + 1


def test_a_pattern_is_mirrored_from_its_fixed_part(folder: Path) -> None:
    pattern = "kit/**/*.[wW][aA][vV]"
    assert stems(planned(folder, pattern, output=folder / "out"), folder) == [
        "out/deep/Snare_glass.wav", "out/kick_glass.wav",
    ]  # fmt: skip
    assert home(str(folder / pattern)) == folder / "kit-stylus"


def test_clips_themselves_have_their_stems_beside_them(folder: Path) -> None:
    assert stems(planned(folder, "kit/kick.wav", "kit/deep/Snare.WAV"), folder) == [
        "kit/kick_glass.wav", "kit/deep/Snare_glass.wav",
    ]  # fmt: skip


@pytest.mark.parametrize("source", ["", "**/*.wav", "kick.wav", "../jobs.csv", "../jobs.jsonl"])
@pytest.mark.parametrize("output", [None, "out"])
def test_two_dots_are_another_name_of_the_same_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, output: str | None
) -> None:
    (folder / "jobs.csv").write_text("content\nkit/kick.wav\nkit/deep/Snare.WAV\n", "utf-8")
    (folder / "jobs.jsonl").write_text('{"content": "kit/kick.wav"}\n{"content": "kit/deep/Snare.WAV"}\n', "utf-8")
    plain = str(folder / source[3:] if source.startswith("../") else folder / "kit" / source)
    out = folder / output if output else None
    monkeypatch.chdir(folder / "kit" / "deep")
    dotted = str(Path("..", source))
    expected = planned(folder, plain, output=out)
    found = list(Planner(Wish((str(folder / "glass.wav"),), output=out)).items(rows([dotted])))
    assert [(item.key, item.content, item.output) for item in found] == [
        (item.key, item.content, item.output) for item in expected
    ]
    assert home(dotted) == home(plain)


def test_a_clip_of_several_inputs_is_rendered_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    items = planned(folder, "kit/kick.wav", "kit/kick.wav", "kit/../kit/kick.wav", "kit", "kit/*.wav")
    assert stems(items, folder) == ["kit/kick_glass.wav", "kit-stylus/deep/Snare_glass.wav"]
    # A row that is there twice is meant.
    (folder / "jobs.csv").write_text("content,,\n" + "kit/kick.wav,,\n" * 2, "utf-8")
    assert stems(planned(folder, "jobs.csv", "kit/kick.wav"), folder) == [
        f"kit/kick_glass{ending}.wav" for ending in ("", "_2", "_3")
    ]


def test_two_dots_behind_a_link_are_where_it_leads(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "kit" / "deep", target_is_directory=True)
    assert stems(planned(folder, "link/.."), folder) == stems(planned(folder, "kit"), folder)


def test_an_instrument_is_skinned_beside_itself_whatever_it_is_seen_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Main.sfz").write_text("<region> sample=a.wav", "utf-8")
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    typed, plain = (reskin(read_instrument(path), SOUNDS[0], None) for path in (
        Path("../Main.sfz"), tmp_path / "Main.sfz"))  # fmt: skip
    assert typed.sfz == plain.sfz == tmp_path / "Main_glass" / "Main_glass.sfz"
    assert [item.key for item in typed.packs[0]] == [item.key for item in plain.packs[0]]


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="which takes it for *")
def test_two_stars_beside_letters_are_said(folder: Path) -> None:
    with pytest.raises(BadRequest, match=r"\*\* stands for whole folders"):
        planned(folder, "kit/**.wav")


def test_what_is_not_there_or_holds_no_audio_is_said(folder: Path) -> None:
    with pytest.raises(NotFound, match="nothing"):
        planned(folder, "nothing")
    (folder / "empty").mkdir()
    with pytest.raises(BadRequest, match="no audio"):
        planned(folder, "empty")
    with pytest.raises(NotFound, match="absent"):
        planned(folder, "kit", styles=(str(folder / "absent.wav"),))


@pytest.mark.parametrize(("name", "text"), [("jobs.jsonl", ""), ("jobs.csv", "content,style\n")])
def test_a_manifest_without_rows_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    (folder / name).write_text(text)
    with pytest.raises(BadRequest, match="no row names a clip"):
        said(capsys, folder / name, styles=(str(folder / "glass.wav"),))


@pytest.mark.parametrize("style", ["--style", "row"])
def test_every_style_apart_or_one_blend(folder: Path, style: str) -> None:
    both = (str(folder / "glass.wav"), str(folder / "choir.wav"))
    source = "kit/kick.wav"
    if style == "row":
        source, table = "two.csv", "content,style\nkit/kick.wav,glass.wav | choir.wav\n"
        (folder / source).write_text(table, "utf-8")
    styles = () if style == "row" else both
    assert stems(planned(folder, source, styles=styles), folder) == ["kit/kick_glass+choir.wav"]
    apart = planned(folder, source, styles=styles, each_style=True)
    assert stems(apart, folder) == ["kit/kick_glass.wav", "kit/kick_choir.wav"]
    assert [item.sound.styles[0][0] for item in apart] == list(both)


def test_every_style_of_a_folder_or_of_the_library(folder: Path) -> None:
    (folder / "styles").mkdir()
    for name in ("b.wav", "a.wav"):
        (folder / "styles" / name).write_bytes(b"RIFF")
    found = planned(folder, "kit/kick.wav", styles=(str(folder / "styles"),), each_style=True)
    assert stems(found, folder) == ["kit/kick_a.wav", "kit/kick_b.wav"]
    (folder / "jobs.csv").write_text("content,style\nkit/kick.wav,./styles\n", "utf-8")
    assert stems(planned(folder, "jobs.csv", styles=(), each_style=True), folder) == [
        "kit/kick_a.wav", "kit/kick_b.wav",
    ]  # fmt: skip
    with pytest.raises(BadRequest, match="each-style"):
        planned(folder, "kit/kick.wav", styles=(str(folder / "styles"),))
    with pytest.raises(BadRequest, match="no style"):
        planned(folder, "kit/kick.wav", styles=(), each_style=True)
    audio = folder / "bells.wav"
    write_stem(plucks(0.5), RATE, audio, subtype="FLOAT")
    library.add("bells", audio)
    assert stems(planned(folder, "kit/kick.wav", styles=(), each_style=True), folder) == ["kit/kick_bells.wav"]


def test_a_folder_of_its_name_does_not_hide_a_style_of_the_library(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as that of the stems."""
    monkeypatch.chdir(folder)
    audio = folder / "audio.wav"
    write_stem(plucks(0.5), RATE, audio, subtype="FLOAT")
    library.add("bells", audio)
    (folder / "jobs.csv").write_text("content,style\nkit/kick.wav,bells\n", "utf-8")
    before = [planned(folder, "jobs.csv", styles=())[0].key]
    wishes: list[dict[str, Any]] = [
        {"styles": ("bells",)}, {"styles": ("bells",), "each_style": True}, {"styles": (), "each_style": True},
    ]  # fmt: skip
    before += [planned(folder, "kit/kick.wav", **wish)[0].key for wish in wishes]
    (folder / "bells").mkdir()
    (folder / "bells" / "kick_bells.wav").write_bytes(b"RIFF")
    assert [library.is_path(one) for one in ("bells", "./bells", "kit", "audio.wav", "gone.wav")] == [
        False, True, True, True, False,
    ]  # fmt: skip
    after = [planned(folder, "jobs.csv", styles=())[0].key]
    after += [planned(folder, "kit/kick.wav", **wish)[0].key for wish in wishes]
    assert after == before
    # The folder is still to be had.
    assert stems(planned(folder, "kit/kick.wav", styles=("./bells",), each_style=True), folder) == [
        "kit/kick_kick_bells.wav"
    ]
    with pytest.raises(BadRequest, match="is a folder"):
        planned(folder, "kit/kick.wav", styles=("./bells",))


def test_null_is_an_empty_cell(folder: Path) -> None:
    row = {"content": "kit/kick.wav", "style": None, "styles": None, "output": None, "mix": None, "model": None}
    (folder / "jobs.jsonl").write_text(json.dumps(row), "utf-8")
    (item,) = planned(folder, "jobs.jsonl", options={"mix": "0.8"})
    assert stems([item], folder) == ["kit/kick_glass.wav"]
    assert item.sound.options.settings == {"mix": "0.8"}
    (folder / "jobs.jsonl").write_text('{"content": null}', "utf-8")
    with pytest.raises(BadRequest, match="line 1: content is a path"):
        planned(folder, "jobs.jsonl")


def test_a_rows_model_counts_from_the_manifest_where_it_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("models/mine", "mini", "kit/models/other"):
        (folder / place).mkdir(parents=True)
    monkeypatch.chdir(folder / "kit")
    models = ["models/mine", "mini", "", "models/other", "sd15"]
    (folder / "jobs.csv").write_text("content,model\n" + "".join(f"a.wav,{model}\n" for model in models), "utf-8")
    found = [item.sound.options.model for item in planned(folder, "jobs.csv", options={"model": "mini-injection"})]
    assert found == [str(folder / "models" / "mine"), "mini", "mini-injection", "models/other", "sd15"]


@pytest.mark.parametrize("text", [
    "content,style,output,keep,no-injection\nkit/kick.wav,glass.wav,out/a.flac,0.3,1\n",
    "\ufeffcontent;style;output;keep;no-injection\r\nkit/kick.wav;glass.wav;out/a.flac;0.3;1\r\n",
    '{"content": "kit/kick.wav", "style": "glass.wav", "output": "out/a.flac", "keep": 0.3, "no_injection": true}\n\n',
])  # fmt: skip
def test_a_row_says_all_of_a_render(folder: Path, text: str) -> None:
    file = folder / ("jobs.jsonl" if text.startswith("{") else "jobs.csv")
    file.write_text(text, "utf-8", newline="")
    (item,) = planned(folder, file.name, styles=())
    assert Path(item.content) == folder / "kit" / "kick.wav"
    assert Path(item.output) == folder / "out" / "a.flac"
    assert item.sound.styles == ((str(folder / "glass.wav"), "glass"),)
    pack = as_pack(7, [item])
    assert (pack.number, pack.suffixes) == (7, (".flac",))
    settings = {name.replace("-", "_"): value for name, value in pack.settings.items()}
    assert float(settings["keep"]) == 0.3
    assert item.bytes == 204


def test_a_row_goes_over_the_command_line_and_a_name_of_the_library_is_a_style(folder: Path) -> None:
    audio = folder / "bells.wav"
    write_stem(plucks(0.5), RATE, audio, subtype="FLOAT")
    library.add("bells", audio)
    (folder / "jobs.csv").write_text("content,style,mix\nkit/kick.wav,bells,\nkit/kick.wav,,0.5\n", "utf-8")
    first, second = planned(folder, "jobs.csv", options={"mix": "0.8", "model": "mini"})
    assert [item.sound.options.settings["mix"] for item in (first, second)] == ["0.8", "0.5"]
    assert first.sound.styles == ((library.style("bells").path, "bells"),)
    assert Path(second.output).name == "kick_glass.wav"


@pytest.mark.parametrize(("text", "words"), [
    ("clip,style\na.wav,glass.wav\n", "one of them is content"),
    ("content,style\na.wav,glass.wav\nb.wav\n", "line 3"),
    ("content,style,keep,style\na.wav,glass.wav,1,choir.wav\n", "names style twice"),
    ("content,style,gamma\na.wav,glass.wav,7\n", "line 2: gamma"),
    ("content,style,colour\na.wav,glass.wav,7\n", "line 2: colour is not an option"),
    ("content,style,sidecar\na.wav,glass.wav,file\n", "reports.jsonl"),
    ("content,style\na.wav,\n", "line 2: no style"),
    ("content,style\na.wav,kit\n", "line 2: style: kit is a folder"),
    ("content,style,output\na.wav,glass.wav,a.mp3\n", "line 2: output: a.mp3: a stem is one of .wav"),
    ("content,style,output,sidecar\na.wav,glass.wav,a.flac,embed\n", "line 2: sidecar: embed needs a .wav"),
    ('{"content": 3}\n', "line 1: content is a path"),
    ('{"content": "a\\ud800.wav"}\n', "line 1: content is a path"),
    ('{"content": "a.wav"}\n[]\n', "line 2: an object"),
    ('{"content": "a.wav"\n', "line 1: not JSON"),
    ("content,style\n\xff,a\n", "not CSV in UTF-8"),
])  # fmt: skip
def test_a_mistake_in_a_manifest_names_its_line(folder: Path, text: str, words: str) -> None:
    file = folder / ("jobs.jsonl" if text.startswith("{") else "jobs.csv")
    file.write_bytes(text.encode("latin-1"))
    styles = (str(folder / "glass.wav"),) if text.startswith("{") else ()
    with pytest.raises(BadRequest, match=words) as caught:
        planned(folder, file.name, styles=styles)
    assert file.name in str(caught.value)


@pytest.mark.parametrize("name", ["device", "from", "cache", "plot", "play", "json"])
def test_what_is_the_command_lines_own_is_no_column(folder: Path, name: str) -> None:
    (folder / "jobs.csv").write_text(f"content,style,{name}\na.wav,glass.wav,x\n", "utf-8")
    with pytest.raises(BadRequest, match=f"line 2: {name} is not an option"):
        planned(folder, "jobs.csv", styles=())


def test_a_list_of_values_is_no_sweep_in_a_manifest(folder: Path) -> None:
    (folder / "jobs.csv").write_text('content,style,keep\na.wav,glass.wav,"0.2,0.5"\n', "utf-8")
    with pytest.raises(BadRequest, match=r"line 2: keep: '0\.2,0\.5' is not a number"):
        planned(folder, "jobs.csv", styles=())


def test_a_clip_or_style_that_is_gone_stops_nobody_else(folder: Path) -> None:
    (folder / "jobs.csv").write_text("content,style\ngone.wav,glass.wav\nkit/kick.wav,gone.wav\n", "utf-8")
    first, second = planned(folder, "jobs.csv", styles=())
    assert (first.bytes, first.stamp) == (-1, "")
    assert second.sound.styles == ((str(folder / "gone.wav"), "gone"),)


def test_stems_of_one_name_are_told_apart_in_the_manifests_order(folder: Path) -> None:
    rows_ = ["content,style,output", *["kit/kick.wav,glass.wav,same.wav"] * 2, "kit/kick.wav,glass.wav,SAME.wav"]
    (folder / "jobs.csv").write_text("\n".join(rows_), "utf-8")
    names = stems(planned(folder, "jobs.csv", styles=()), folder)
    assert names == ["same.wav", "same_2.wav", "SAME_3.wav"]
    assert names == stems(planned(folder, "jobs.csv", styles=()), folder)


def test_a_tilde_is_the_home_folder_or_a_letter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("USERPROFILE", str(folder / "home"))
    monkeypatch.chdir(folder)
    odd = folder / "~nobody.wav"
    odd.write_bytes(b"RIFF")
    (item,) = Planner(Wish((odd.name,))).items(rows([odd.name]))
    assert (Path(item.content), item.sound.styles) == (odd, ((str(odd), "~nobody"),))
    (folder / "jobs.csv").write_text("content,style,output\nkit/kick.wav,glass.wav,~/new.wav\n", "utf-8")
    assert stems(planned(folder, "jobs.csv", styles=()), folder) == ["home/new.wav"]


# --- What is rendered of what is planned


def said(capsys: pytest.CaptureFixture[str], *sources: Path, **more: Any) -> dict[str, Any]:
    """What `--plan --json` says."""
    about: dict[str, Any] = {"styles": (), "output": None, "shard": "", **more}
    request = BatchRequest(
        tuple(map(str, sources)), each_style=False, device="cpu", workers=1, cluster="", inputs="store",
        plan_only=True, as_json=True, asked={}, **about,
    )  # fmt: skip
    assert run_batch(request) == 0
    plan: dict[str, Any] = json.loads(capsys.readouterr().out)
    return plan


def placed(ledger: Ledger, clip: Path, stem: Path, data: bytes) -> None:
    """Put a stem of a clip where a run would have put it."""
    publish_stem(data, stem, journal=ledger.journal("key of the clip", str(clip), "", 1.0, 0.0, {}))
    ledger.done(["key of the clip"])


def test_stems_are_no_clips_unless_a_manifest_names_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also those whose clip has another stem by now, or none that could be made."""
    kit, style = folder / "kit", str(folder / "glass.wav")
    with Ledger(kit / "stylus-batch" / "ledger.sqlite") as ledger:
        for data in (b"first", b"second"):
            placed(ledger, kit / "kick.wav", kit / "kick_glass.wav", data)
        ledger.failed("key of the clip", str(kit / "kick.wav"), Failed("internal", "no luck"))
    assert (kit / "kick_glass_2.wav").is_file()
    assert said(capsys, kit, styles=(style,), output=kit)["stems"] == 2
    assert said(capsys, kit / "kick.wav", kit / "kick_glass.wav", styles=(style,))["stems"] == 1
    with pytest.raises(BadRequest, match=r"kick_glass\.wav is a stem of this batch; -o"):
        said(capsys, kit / "kick_glass.wav", styles=(style,))
    (folder / "jobs.csv").write_text(f"content,style\nkit/kick_glass.wav,{style}\n", "utf-8")
    assert said(capsys, folder / "jobs.csv", output=kit)["stems"] == 1


def test_shards_do_not_meet_stems_of_each_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit, style = folder / "kit", str(folder / "glass.wav")
    for sources, output in (((kit,), kit), ((kit,), kit / "out"), ((kit / "kick.wav",), None)):
        with pytest.raises(BadRequest, match="shard: stems among the clips"):
            said(capsys, *sources, output=output, styles=(style,), shard="1/2")
    assert sum(said(capsys, kit, styles=(style,), shard=f"{n}/2")["stems"] for n in (1, 2)) == 2
    (kit / "jobs.csv").write_text(f"content,style\nkick.wav,{style}\n", "utf-8")
    assert sum(said(capsys, kit / "jobs.csv", output=kit, shard=f"{n}/2")["stems"] for n in (1, 2)) == 1


def test_stems_go_among_the_clips_by_whatever_name(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "kit" / "deep")
    with pytest.raises(BadRequest, match="shard: stems among the clips"):
        said(capsys, folder / "kit" / "kick.wav", output=Path(".."), styles=(str(folder / "glass.wav"),), shard="1/2")


def test_a_folder_of_stems_that_has_to_be_utf8_is_said_before(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadRequest, match="not UTF-8"):
        said(capsys, folder / "kit", styles=(str(folder / "glass.wav"),), output=folder / "out\udcff")


def test_an_estimate_counts_what_is_asked_for(tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    write_stem(plucks(4.0), RATE, clip, subtype="PCM_16")
    (tmp_path / "glass.wav").write_bytes(b"RIFF")
    asked = {"": 4.0, "start": 3.0, "end": 1.0, "preview": 0.5, "tail": 6.0}
    for name, seconds in asked.items():
        options = {"start": {"start": "1"}, "end": {"end": "1"}, "preview": {"preview": "0.5"}, "tail": {"tail": "2"}}
        expected = estimate(planned(tmp_path, "clip.wav", options=options.get(name)), "cpu")
        assert expected.audio == pytest.approx(seconds, rel=0.01)
        assert expected.bytes == pytest.approx(seconds * RATE * 2, rel=0.02)


def test_what_a_quality_takes_is_learned_for_that_quality(tmp_path: Path) -> None:
    write_stem(plucks(4.0), RATE, tmp_path / "clip.wav", subtype="PCM_16")
    (tmp_path / "glass.wav").write_bytes(b"RIFF")
    items = {
        quality: list(planned(tmp_path, "clip.wav", options={"quality": quality} if quality else {})) * 8
        for quality in ("", "balanced", "best")
    }
    before = {quality: estimate(some, "cpu") for quality, some in items.items()}
    learn([*items["balanced"], *items["best"]], "cpu", before["best"], 999.0)
    learn(items["best"], "cpu", before["best"], 80.0)
    after = {quality: estimate(some, "cpu").work for quality, some in items.items()}
    assert after["best"] == pytest.approx(80.0, rel=0.01)
    assert after["balanced"] == after[""] == before["balanced"].work


def test_an_error_is_json_whatever_stdout_can_hold(tmp_path: Path) -> None:
    name = "\N{DRUM WITH DRUMSTICKS}"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(
        [sys.executable, "-m", "stylus_audio", "batch", name, "--style", name, "--json"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 2
    assert name in json.loads(ended.stdout)["error"]["message"]
    assert len(ended.stderr.splitlines()) == 1


# --- Instruments


def test_each_instrument_and_each_sound_has_an_sfz_of_its_own(tmp_path: Path) -> None:
    """Of one name, in one folder; the same again replaces its own."""
    for name in ("grand", "upright"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Main.sfz").write_text(f"// {name}\n<region> sample=a.wav", "utf-8")
        (tmp_path / name / "a.wav").write_bytes(b"RIFF")
    grand, upright = (read_instrument(tmp_path / name / "Main.sfz") for name in ("grand", "upright"))
    keep = replace(SOUNDS[0], text="with other settings")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        (tmp_path / "out" / "Main_glass").mkdir(parents=True)
        for _ in range(2):
            written = [
                reskin(instrument, sound, tmp_path / "out").write(ledger)[0]
                for instrument, sound in ((grand, SOUNDS[0]), (upright, SOUNDS[0]), (grand, keep))
            ]
            assert [path.name for path in written] == ["Main_glass.sfz", "Main_glass_2.sfz", "Main_glass_3.sfz"]
    assert [path.read_text("utf-8").split()[1] for path in written] == ["grand", "upright", "grand"]


def test_instruments_of_one_run_and_name_do_not_replace_each_other(tmp_path: Path) -> None:
    sound = replace(SOUNDS[0], options=replace(SOUNDS[0].options, overwrite=True))
    (tmp_path / "out" / "Main_glass").mkdir(parents=True)
    made: set[str] = set()
    for name in ("grand", "upright"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Main.sfz").write_text(f"// {name}\n<region> sample=a.wav", "utf-8")
        (tmp_path / name / "a.wav").write_bytes(b"RIFF")
        with Ledger(tmp_path / f"{name}.sqlite") as ledger:
            reskin(read_instrument(tmp_path / name / "Main.sfz"), sound, tmp_path / "out", made).write(ledger)
    written = sorted((tmp_path / "out" / "Main_glass").glob("*.sfz"))
    assert [path.read_text("utf-8").split()[1] for path in written] == ["grand", "upright"]


def test_an_instrument_is_rendered_whole_and_keeps_its_samples_names(tmp_path: Path) -> None:
    (tmp_path / "Main.sfz").write_text("<region> sample=a.wav", "utf-8")
    with pytest.raises(BadRequest, match="name is for clips"):
        reskin(read_instrument(tmp_path / "Main.sfz"), Sound((), Options({}, name="{style}"), ""), None)
    for name, value in (("start", "1"), ("end", "1"), ("preview", "1")):
        with pytest.raises(BadRequest, match="whole"):
            reskin(read_instrument(tmp_path / "Main.sfz"), Sound((), Options({name: value}), ""), None)


def test_the_same_rows_are_the_same_items_and_other_wishes_are_others(folder: Path) -> None:
    first, again = ([item.key for item in planned(folder, "kit")] for _ in range(2))
    assert first == again
    other = [item.key for item in planned(folder, "kit", options={"keep": "0.5"})]
    default = [item.key for item in planned(folder, "kit", options={"mix": "1.0"})]
    assert not set(first) & set(other)
    # Asked for is not the same as left to the model.
    assert not set(first) & set(default)
    assert len(set(first)) == 2


SOUNDS = [Sound(((f"{name}.wav", name),), Options({}), name) for name in ("glass", "choir", "rain")]
ITEMS = st.lists(st.tuples(st.sampled_from(SOUNDS), st.integers(-1, 3 * 2**22)), max_size=80).map(
    lambda drawn: [Item(n, f"{n}.wav", sound, f"{n}_s.wav", size, "") for n, (sound, size) in enumerate(drawn)]
)


@given(ITEMS)
def test_packs_hold_every_item_once_in_one_sound_and_a_sound_comes_once(items: list[Item]) -> None:
    packs = in_packs(items)
    assert sorted(item.number for pack in packs for item in pack) == list(range(len(items)))
    assert all(len({item.sound.text for item in pack}) == 1 and len(pack) <= PACK_CLIPS for pack in packs)
    order = [pack[0].sound.text for pack in packs]
    assert len([text for n, text in enumerate(order) if n == 0 or order[n - 1] != text]) == len(set(order))
    assert [len(pack) for pack in alone(items)] == [1] * len(items)


@given(ITEMS, st.integers(1, 9))
def test_shards_share_the_packs_out(items: list[Item], count: int) -> None:
    packs = in_packs(items)
    parts = [shard(packs, number, count) for number in range(1, count + 1)]
    assert [pack for part in parts for pack in part] == packs


@pytest.mark.slow
def test_a_plan_of_100_000_rows_takes_no_pytorch_and_little_memory(tmp_path: Path) -> None:
    """Half a gigabyte is the limit; the time is a benchmark's."""
    lines = (f"pack {n // 100}/shot {n}.wav,style {n % 20}.wav,0.{n % 3}\n" for n in range(100_000))
    (tmp_path / "big.csv").write_text("content,style,mix\n" + "".join(lines), "utf-8")
    words = [sys.executable, "-m", "stylus_audio", "batch", "big.csv", "--plan", "--json", "--device", "cpu"]
    code = (
        "import runpy, sys, psutil; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_module('stylus_audio', run_name='__main__')\n"
        "finally: print(psutil.Process().memory_info().rss, 'torch' in sys.modules, file=sys.stderr)"
    )
    environment = {**os.environ, "STYLUS_HOME": str(tmp_path / "home")}
    ended = subprocess.run(
        [sys.executable, "-c", code, *words[2:]],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert json.loads(ended.stdout)["stems"] == 100_000
    memory, torch = ended.stderr.split()[-2:]
    assert int(memory) < 500e6
    assert torch == "False"
    # Only looked at: nothing is left behind.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.csv"]
