"""A folder of stems through the command line: what is found, what is left out, and what the sets say."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from stylus_audio.audio import read_clip
from stylus_audio.clap import Clap
from stylus_audio.evaluate_folder import Values, _means, find_items, passage_under
from stylus_audio.frechet import frechet_distance, mel_embeddings
from stylus_audio.instruments import instrument_match
from stylus_audio.metrics import evaluate
from tests.sounds import RATE, Audio, noise, plucks, tone
from tests.test_cli import Shell, shell

__all__ = ["shell"]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No weights of the user's: where Hugging Face's cache would be."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


def save(file: Path, audio: Audio) -> Path:
    file.parent.mkdir(exist_ok=True)
    soundfile.write(file, audio.T, RATE, subtype="FLOAT")
    return file


@pytest.fixture
def named(shell: Shell) -> Path:
    """Stems, contents and styles whose names say what belongs together."""
    place = shell.folder / "named"
    place.mkdir()
    save(place / "clips" / "riff.wav", plucks(1.0))
    save(place / "clips" / "riff_b.wav", plucks(1.5, 0.2))
    save(place / "refs" / "hiss.wav", noise(1.6))
    save(place / "refs" / "hum.flac.wav", tone(90, 1.6))
    save(place / "stems" / "riff_hiss.wav", plucks(1.0) + noise(1.0, 0.02))
    save(place / "stems" / "riff_b_hum.flac.wav", plucks(1.5, 0.2) + tone(90, 1.5))
    return place


def report_of(said: tuple[int, str, str]) -> dict[str, Any]:
    assert said[0] == 0, said
    values: dict[str, Any] = json.loads(said[1])
    json.dumps(values, allow_nan=False)
    return values


def test_names_say_what_belongs_together(shell: Shell, named: Path) -> None:
    words = ("evaluate", named / "stems", "--content", named / "clips", "--style", named / "refs", "--json")
    said = shell(*words)
    assert said[2].splitlines() == [
        "stylus: CLAP's metrics are left out: clap is not on this machine; "
        "`stylus models pull clap` (0.6 GB), or --clap FOLDER"
    ]
    report = report_of(said)
    assert set(report) == {"stems", "mean", "sets"}
    assert list(report["stems"]) == ["riff_b_hum.flac.wav", "riff_hiss.wav"]
    clips = {file.name: read_clip(file) for file in named.rglob("*.wav")}
    expected = {
        name: {
            **evaluate(clips[name].audio, clips[content].audio, clips[style].audio, sample_rate=RATE),
            "instrument_match": instrument_match(clips[name], clips[style]),
        }
        for name, content, style in (
            ("riff_b_hum.flac.wav", "riff_b.wav", "hum.flac.wav"), ("riff_hiss.wav", "riff.wav", "hiss.wav"),
        )
    }  # fmt: skip
    assert report["stems"] == expected
    both = [value for row in expected.values() if (value := row["log_mel_distance_style"]) is not None]
    assert report["mean"]["log_mel_distance_style"] == pytest.approx(sum(both) / 2, abs=1e-6)
    # Without a seam in any stem there is nothing to take a mean of.
    assert report["mean"]["seam_step_db"] is None

    def rows(*names: str) -> Any:
        return np.concatenate([mel_embeddings(clips[name].audio, RATE) for name in names])

    stems, contents, styles = rows(*expected), rows("riff.wav", "riff_b.wav"), rows("hiss.wav", "hum.flac.wav")
    assert report["sets"] == {
        "stems": 2, "contents": 2, "styles": 2,
        "fad_mel": pytest.approx(frechet_distance(stems, styles), abs=1e-5),
        "fad_mel_content": pytest.approx(frechet_distance(stems, contents), abs=1e-5),
        "fad_mel_content_style": pytest.approx(frechet_distance(contents, styles), abs=1e-5),
    }  # fmt: skip
    assert shell(*words) == said


def test_the_stems_of_a_set_are_no_distance_from_themselves(shell: Shell, named: Path) -> None:
    shutil.copytree(named / "stems", named / "same")
    report = report_of(shell("evaluate", named / "stems", "-c", named / "same", "-s", named / "same", "--json"))
    assert report["sets"]["fad_mel"] == report["sets"]["fad_mel_content"] == 0.0
    assert report["mean"]["log_mel_distance_content"] == 0.0


def test_what_the_stems_beside_it_were_made_from_is_none_of_them(shell: Shell) -> None:
    stem = save(shell.folder / "riff_hiss.wav", plucks(0.6))
    assert [item.stem for item in find_items(shell.folder, shell.clip, shell.style, pytest.fail)] == [stem]


def test_a_stems_sidecar_says_what_it_was_made_from(shell: Shell) -> None:
    assert shell.render("--mix", 0)[0] == 0
    stem = shell.folder / "riff_hiss.wav"
    row = json.loads(shell("evaluate", stem, "--json")[1])
    assert row == json.loads(shell("evaluate", stem, "--content", shell.clip, "--style", shell.style, "--json")[1])
    assert row["log_mel_distance_style"] > 0
    code, _, err = shell("evaluate", shell.clip)
    assert (code, "--content CLIP" in err) == (2, True)


def test_sidecars_say_it_also_of_moved_files_and_segments(shell: Shell) -> None:
    save(shell.clip, np.concatenate([noise(0.4), plucks(0.6)], axis=1))
    stems = shell.folder / "stems"
    stems.mkdir()
    for sidecar, name in (("file", "one.wav"), ("embed", "two.wav")):
        # The dry sound from a place in the middle of the clip.
        words = ("--mix", 0, "--start", 0.4, "--end", 0.9, "-o", stems / name, "--sidecar", sidecar)
        assert shell.render(*words)[0] == 0
    report = report_of(shell("evaluate", stems, "--json"))
    assert list(report["stems"]) == ["one.wav", "two.wav"]
    for row in report["stems"].values():
        assert row["si_sdr_db"] == 200.0
        assert row["log_mel_distance_content"] == 0.0
        assert row["log_mel_distance_style"] == row["log_mel_distance_content_style"] > 0
    # Both were made from the same passage, which counts once.
    assert {kind: report["sets"][kind] for kind in ("stems", "contents", "styles")} == {
        "stems": 2, "contents": 1, "styles": 1,
    }  # fmt: skip
    moved = shell.folder / "moved"
    moved.mkdir()
    shell.clip.rename(moved / "a.wav")
    assert shell("evaluate", stems, "--json")[0] == 2
    again = report_of(shell("evaluate", stems, "--content", moved, "--json"))
    assert again["stems"] == report["stems"]


def test_a_segment_is_measured_against_its_passage(shell: Shell) -> None:
    for words in ((), ("--sidecar", "embed")):
        stem = shell.folder / f"part{len(words)}.wav"
        assert shell.render("--start", 0.3, "--end", 0.6, "--mix", 0, "-o", stem, *words)[0] == 0
        code, out, err = shell("evaluate", stem, "--content", shell.clip, "--json")
        assert code == 0, err
        values = json.loads(out)
        assert (values["si_sdr_db"], values["log_mel_distance_content"]) == (200.0, 0.0)
    # Of another clip it says nothing.
    other = shell.folder / "other.wav"
    soundfile.write(other, noise(0.6, seed=5).T, RATE)
    assert json.loads(shell("evaluate", stem, "--content", other, "--json")[1])["log_mel_distance_content"] > 0.1


@pytest.mark.parametrize(
    "words",
    [
        ("--start", 0.1, "--end", 0.35, "--tail", 0.2),
        ("--start", 0.1, "--end", 0.35, "--tail", 0.2, "--mix", 0),
        ("--end", 0.2),
        ("--preview", 0.2, "--tail", 0.1),
        ("--tail", 0.3),
    ],
)
def test_the_metrics_of_a_sidecar_come_out_again(shell: Shell, words: tuple[object, ...]) -> None:
    # Loud at first, so that the clip is louder than most of its parts.
    sound = np.concatenate([plucks(0.25), 0.2 * plucks(0.75, 0.1)], axis=1)
    save(shell.clip, sound)
    stems = shell.folder / "stems"
    stems.mkdir()
    assert shell.render(*words, "--bits", "32f", "-o", stems / "one.wav")[0] == 0
    expected = json.loads((stems / "one.json").read_text("utf-8"))["metrics"]
    row = report_of(shell("evaluate", stems, "--json"))["stems"]["one.wav"]
    assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    said = shell("evaluate", stems / "one.wav", "--content", shell.clip, "--style", shell.style, "--json")
    alone = json.loads(said[1])
    assert {name: alone[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_a_stem_at_another_rate_lies_over_the_same_passage(shell: Shell) -> None:
    stem = shell.folder / "part.wav"
    assert shell.render("--start", 0.2, "--end", 0.5, "--mix", 0, "-o", stem)[0] == 0
    before = passage_under(stem, shell.clip)
    audio, _ = soundfile.read(stem, always_2d=True)
    soundfile.write(stem, audio[::2], RATE // 2)
    clip, given = passage_under(stem, shell.clip)
    assert given == before[1]
    assert np.array_equal(clip.audio, read_clip(shell.clip).audio[:, round(0.2 * RATE) : round(0.5 * RATE)])


def test_what_stands_for_infinity_is_no_part_of_a_mean() -> None:
    def mean(*values: float | None) -> float | None:
        rows: list[Values] = [{"si_sdr_db": value, "peak_db": 200.0} for value in values]
        assert _means(rows)["peak_db"] == 200.0
        return _means(rows)["si_sdr_db"]

    assert mean(200.0, 10.0, -200.0, None, 20.0) == 15.0
    assert mean(200.0, 200.0) == 200.0
    assert mean(200.0, -200.0) is None


def test_what_lies_beside_its_stem_is_no_stem(shell: Shell) -> None:
    assert shell.render("--mix", 0.5)[0] == 0
    report = report_of(shell("evaluate", shell.folder, "--json"))
    assert list(report["stems"]) == ["riff_hiss.wav"]


@pytest.mark.slow
def test_a_batchs_own_folder_is_known_by_its_reports(shell: Shell) -> None:
    save(shell.folder / "kit" / "a.wav", np.concatenate([noise(0.4), plucks(0.6)], axis=1))
    other = save(shell.folder / "kit" / "deep" / "b.wav", plucks(0.5, 0.2))
    out = shell.folder / "out"
    words = ("--model", shell.model, "--quality", "fast", "--end", 0.4, "--mix", 0, "--workers", 1, "--device", "cpu")
    code, _, err = shell("batch", shell.folder / "kit", "--style", shell.style, "-o", out, *words)
    assert code == 0, err
    for folder in (out, out / "deep", shell.folder / "moved", shell.folder / "moved" / "deep"):
        if not folder.exists():
            shutil.move(out, shell.folder / "moved")
        (row,) = report_of(shell("evaluate", folder, "--json"))["stems"].values()
        # Of the segment that it was made from, which is dry.
        assert (row["si_sdr_db"], row["log_mel_distance_content"]) == (200.0, 0.0)
        assert row["log_mel_distance_style"] > 0
    # What else lies there is none of the batch's, whatever its name is.
    shutil.copy(other, shell.folder / "moved" / "deep" / "c.wav")
    shutil.copy(other, shell.folder / "b_hiss.wav")
    said = shell("evaluate", shell.folder / "moved" / "deep", "--json")
    assert list(report_of(said)["stems"]) == ["b_hiss.wav"]
    assert "c.wav is left out: neither a sidecar, a batch's report nor --content has the clip" in said[2]
    assert shell("evaluate", shell.folder, "--json")[0] == 2


def test_a_stem_that_cannot_be_measured_is_named_and_left_out(shell: Shell, named: Path) -> None:
    save(named / "stems" / "stranger.wav", noise(0.5))
    (named / "stems" / "riff_broken.wav").write_text("hello", "utf-8")
    (named / "stems" / "notes.txt").write_text("hello", "utf-8")
    (named / "refs" / "empty.wav").write_bytes(b"")
    said = shell("evaluate", named / "stems", "-c", named / "clips", "-s", named / "refs", "--json")
    assert list(report_of(said)["stems"]) == ["riff_b_hum.flac.wav", "riff_hiss.wav"]
    named_lines = [line.split()[1:6] for line in said[2].splitlines() if "CLAP" not in line]
    assert named_lines == [
        ["stranger.wav", "is", "left", "out:", "neither"],
        ["the", "style", "empty.wav", "is", "left"],
        ["riff_broken.wav", "is", "left", "out:", "riff_broken.wav"],
    ]
    code, out, err = shell("evaluate", named / "stems", "--style", named / "refs")
    assert (code, out) == (2, "")
    assert "--content" in err.splitlines()[-1]


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_not_utf8_is_left_out_in_words(shell: Shell, named: Path) -> None:
    stem = named / "stems" / "riff_hiss.wav"
    odd = Path(os.fsdecode(os.fsencode(named) + b"/stems/riff_\xff.wav"))
    shutil.copy(stem, odd)
    said = shell("evaluate", named / "stems", "-c", named / "clips", "--json")
    assert list(report_of(said)["stems"]) == ["riff_b_hum.flac.wav", "riff_hiss.wav"]
    assert [line.endswith(r"riff_\udcff.wav is not UTF-8; rename it") for line in said[2].splitlines()].count(True) == 1
    code, out, _ = shell("evaluate", odd, "-c", named / "clips" / "riff.wav", "--json")
    assert code == 2
    assert json.loads(out)["error"]["code"] == "unsupported-audio"


def test_a_file_for_all_and_a_table_for_people(shell: Shell, named: Path) -> None:
    clip, style = named / "clips" / "riff.wav", named / "refs" / "hiss.wav"
    code, out, _ = shell("evaluate", named / "stems", "--content", clip, "--style", style)
    assert code == 0
    table, sets = (part.splitlines() for part in out.split("\n\n"))
    words = [line.split() for line in table if line[0] != " "]
    assert [row[0] for row in words] == ["riff_b_hum.flac.wav", "riff_hiss.wav", "mean"]
    assert len({len(row) for row in words}) == 1
    assert len({len(line) for line in table if line[0] != " "}) == 1
    assert [line.split()[0] for line in sets][:4] == ["stems", "contents", "styles", "fad_mel"]
    single = json.loads(shell("evaluate", named / "stems" / "riff_hiss.wav", "-c", clip, "-s", style, "--json")[1])
    assert [f"{value:.3f}" if value is not None else "-" for value in single.values()] == words[1][1:]


def test_clap_where_its_weights_are(shell: Shell, named: Path, clap_folder: Path, cache: Path) -> None:
    words = ("evaluate", named / "stems", "--content", named / "clips", "--style", named / "refs", "--json")
    said = shell(*words, "--clap", clap_folder)
    assert said[2] == ""
    report = report_of(said)
    listen = Clap.of_folder(clap_folder)

    def mean(name: str) -> Any:
        return listen(read_clip(named / name).audio, RATE).mean(0)

    stem, content, style = mean("stems/riff_b_hum.flac.wav"), mean("clips/riff_b.wav"), mean("refs/hum.flac.wav")
    row = report["stems"]["riff_b_hum.flac.wav"]
    for key, one, other in (
        ("content", stem, content), ("style", stem, style), ("content_style", content, style),
    ):  # fmt: skip
        cosine = one @ other / np.sqrt((one @ one) * (other @ other))
        assert row[f"clap_{key}_similarity"] == pytest.approx(cosine, abs=1e-6)
    assert report["sets"]["fad_clap"] > 0
    assert report["sets"]["fad_mel"] == report_of(shell(*words))["sets"]["fad_mel"]
    # The same folder as the hub's cache has it is found without being named.
    cached = cache / "models--laion--clap-htsat-unfused"
    shutil.copytree(clap_folder, cached / "snapshots" / "0123")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123", "utf-8")
    assert shell(*words) == said
    assert shell("models", "verify", "clap")[0] == 0
    file = (named / "stems" / "riff_hiss.wav", "-c", named / "clips" / "riff.wav")
    assert "clap_content_similarity" not in json.loads(shell("evaluate", *file, "--json")[1])
    single = json.loads(shell("evaluate", *file, "--clap", clap_folder, "--json")[1])
    assert single["clap_content_similarity"] == report["stems"]["riff_hiss.wav"]["clap_content_similarity"]
    assert single["clap_style_similarity"] is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["stems", "-c", "nowhere"], "nowhere does not exist"),
        (["stems", "-c", "clips", "-s", "nowhere"], "nowhere does not exist"),
        (["stems", "-c", "clips", "--clap", "refs"], "no .safetensors"),
        (["stems/riff_hiss.wav"], "--content CLIP"),
        (["stems/riff_hiss.wav", "-c", "clips"], "is a folder"),
        (["nowhere", "-c", "clips"], "nowhere does not exist"),
        ([".", "-c", "clips"], "holds no audio"),
    ],
)
def test_mistakes_get_one_line(
    shell: Shell, named: Path, words: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(named)
    code, out, err = shell("evaluate", *words)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_clap_renders_nothing(shell: Shell) -> None:
    assert "none of mini" in shell("render", shell.clip, "--style", shell.style, "--model", "clap")[2]
