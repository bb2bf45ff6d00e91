"""The command line as a user meets it: one line for a mistake, the right exit code, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from stylus_audio import library
from stylus_audio.batch.ledger import Ledger
from stylus_audio.cli import main
from stylus_audio.places import DEMO_CONTENT, user_data
from tests.daemons import until
from tests.sounds import RATE, noise, plucks


class Shell:
    """Runs `stylus` in this process; a folder to work in, a clip, a style and a small model."""

    def __init__(self, folder: Path, model: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self.model, self.capture = folder, model, capture
        self.clip, self.style = folder / "riff.wav", folder / "hiss.wav"
        soundfile.write(self.clip, plucks(0.6, channels=2).T, RATE, subtype="PCM_16")
        soundfile.write(self.style, noise(0.8).T, RATE, subtype="PCM_24")

    def __call__(self, *words: object) -> tuple[int, str, str]:
        self.capture.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(word) for word in words])
        out, err = self.capture.readouterr()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, out, err

    def render(self, *words: object) -> tuple[int, str, str]:
        return self("render", self.clip, "--style", self.style, "--model", self.model, "--quality", "fast", *words)

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}


@pytest.fixture
def shell(tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, tiny_folder, capsys)


def test_render_writes_a_stem_beside_the_content(shell: Shell) -> None:
    code, out, err = shell.render()
    stem = shell.folder / "riff_hiss.wav"
    assert (code, out, err) == (0, f"{stem}\n", "")
    assert shell.files() == {"riff.wav", "hiss.wav", "riff_hiss.wav", "riff_hiss.json"}
    info, source = soundfile.info(stem), soundfile.info(shell.clip)
    assert (info.samplerate, info.channels, info.frames, info.subtype) == (
        source.samplerate, source.channels, source.frames, source.subtype,
    )  # fmt: skip
    report = json.loads(stem.with_suffix(".json").read_text("utf-8"))
    assert report["schema"] == 1
    assert report["settings"]["gamma"] == 0.75
    assert report["metrics"]["onset_f1"] is not None
    assert len(report["content"]["sha256"]) == 64


def test_an_existing_stem_is_kept(shell: Shell) -> None:
    shell.render("--mix", 0)
    first = (shell.folder / "riff_hiss.wav").read_bytes()
    assert shell.render()[1].endswith("riff_hiss_2.wav\n")
    assert (shell.folder / "riff_hiss.wav").read_bytes() == first
    assert shell.render("--overwrite")[1].endswith("riff_hiss.wav\n")
    assert (shell.folder / "riff_hiss.wav").read_bytes() != first


def test_features_are_kept_and_found_again(shell: Shell) -> None:
    cache = shell.folder / "features"
    stems = [shell.folder / f"{name}.wav" for name in ("first", "second", "without")]
    assert shell.render("--cache", cache, "-o", stems[0])[0] == 0
    (kept,) = cache.iterdir()
    assert kept.name.endswith(".style.safetensors")
    os.utime(kept, (0, 0))
    number = kept.stat().st_ino
    assert shell.render("--cache", cache, "-o", stems[1])[0] == 0
    # Marked as used, and not written again.
    assert kept.stat().st_mtime > 0
    assert kept.stat().st_ino == number
    assert shell.render("-o", stems[2])[0] == 0
    assert stems[0].read_bytes() == stems[1].read_bytes() == stems[2].read_bytes()
    assert shell.render("--cache", shell.clip)[0] == 2


def test_mix_zero_is_bit_exact(shell: Shell) -> None:
    shell.render("--mix", 0, "-o", shell.folder / "dry.wav")
    assert np.array_equal(*(soundfile.read(shell.folder / name, dtype="int16")[0] for name in ("dry.wav", "riff.wav")))


def test_from_renders_the_same_bytes_also_when_files_have_moved(shell: Shell) -> None:
    shell.render("--keep", "0.3:0.6", "--seed", 7, "-o", shell.folder / "one.wav", "--sidecar", "embed")
    place = shell.folder / "elsewhere"
    place.mkdir()
    for file in (shell.clip, shell.style):
        file.rename(place / f"moved-{file.name}")
    code, _, err = shell(
        "render", "--from", shell.folder / "one.wav", "-o", shell.folder / "two.wav", "--sidecar", "embed"
    )
    assert (code, err) == (0, "")
    one, two = (soundfile.read(shell.folder / name, dtype="int16")[0] for name in ("one.wav", "two.wav"))
    assert np.array_equal(one, two)
    assert not (shell.folder / "one.json").exists()


def test_json(shell: Shell) -> None:
    code, out, _ = shell.render("--json")
    assert code == 0
    assert Path(json.loads(out)["stem"]).is_file()
    code, out, err = shell.render("--json", "--keep", 7)
    assert code == 2
    assert json.loads(out)["error"]["code"] == "bad-request"
    assert err.count("\n") == 1


def test_styles_of_the_library_and_presets(shell: Shell) -> None:
    assert shell("style", "add", "hiss", shell.style, "--start", 0.1, "--end", 0.5)[0] == 0
    assert "hiss" in shell("style", "list")[1]
    assert shell("preset", "save", "soft", "--keep", 0.9, "--mix", 0.5)[0] == 0
    assert [line.split() for line in shell("preset", "list")[1].splitlines()] == [
        ["soft", "keep=0.9", "mix=0.5"], ["fast", "quality=fast", "(built", "in)"],
    ]  # fmt: skip
    assert json.loads(shell("preset", "list", "--json")[1])["soft"] == {"keep": "0.9", "mix": "0.5"}
    code, out, err = shell(
        "render", shell.clip, "--style", "hiss", "--model", shell.model, "--preset", "soft", "--mix", 0.7
    )
    assert (code, err) == (0, "")
    settings = json.loads(Path(out.strip()).with_suffix(".json").read_text("utf-8"))["settings"]
    assert (settings["gamma"], settings["mix"]) == (0.9, 0.7)
    assert shell("style", "remove", "hiss")[0] == 0
    assert shell.style.is_file()
    assert shell("render", shell.clip, "--style", "hiss")[0] == 2


def test_a_second_run_of_a_batch_is_no_fault_of_ours(shell: Shell) -> None:
    records = shell.folder / "stylus-batch"
    records.mkdir()
    with Ledger(records / "ledger.sqlite"):
        code, out, err = shell("batch", shell.clip, "--style", shell.style, "--model", shell.model)
    assert (code, out) == (2, "")
    assert "another run is at work on this batch" in err
    assert not (shell.folder / "riff_hiss.wav").exists()


@pytest.mark.parametrize(("first", "second"), [("Bells", "bells"), ("Übung", "U\u0308bung")])
def test_names_that_some_disks_take_for_the_same_replace_no_style(shell: Shell, first: str, second: str) -> None:
    assert shell("style", "add", first, shell.style)[0] == 0
    kept = Path(library.style(first).path).read_bytes()
    code, _, err = shell("style", "add", second, shell.clip)
    assert code == 2
    assert "is there already" in err or "letters, digits" in err
    assert Path(library.style(first).path).read_bytes() == kept


@pytest.mark.parametrize("name", ["aux", "CON", "nul.1", "com1", "prn "])
def test_a_style_has_no_name_that_is_a_device_on_windows(shell: Shell, name: str) -> None:
    code, _, err = shell("style", "add", name, shell.style)
    assert (code, "a device on Windows" in err) == (2, True)
    assert library.styles() == []


def test_a_preset_is_replaced_only_when_that_is_asked_for(shell: Shell) -> None:
    def held() -> Any:
        return json.loads(shell("preset", "list", "--json")[1])

    assert shell("preset", "save", "soft", "--keep", 0.9)[0] == 0
    code, out, err = shell("preset", "save", "soft", "--keep", 0.1)
    assert (code, out, err) == (2, "", "stylus: preset: 'soft' is there already; --overwrite replaces it\n")
    assert held()["soft"] == {"keep": "0.9"}
    assert shell("preset", "save", "soft", "--keep", 0.1, "--overwrite")[0] == 0
    code, _, err = shell("preset", "save", "fast", "--keep", 0.1, "--overwrite")
    assert (code, err) == (2, "stylus: preset: 'fast' is built in; give yours another name\n")
    assert held() == {"soft": {"keep": "0.1"}, "fast": {"quality": "fast"}}


def test_fast_is_a_preset_unless_the_user_has_another_of_before(shell: Shell) -> None:
    def quality(*words: object) -> str:
        code, out, err = shell(
            "render", shell.clip, "--style", shell.style, "--model", shell.model, "--preset", "fast", "--mix", 0, *words
        )
        assert (code, err) == (0, "")
        settings = json.loads(Path(out.strip()).with_suffix(".json").read_text("utf-8"))["settings"]
        return str(settings["quality"])

    assert shell("preset", "list")[1].split() == ["fast", "quality=fast", "(built", "in)"]
    assert quality() == "fast"
    assert quality("--quality", "best") == "best"
    assert shell("preset", "remove", "fast")[0] == 2
    (user_data() / "presets.json").write_text('{"fast": {"steps": 3}}', "utf-8")
    assert shell("preset", "list")[1].split() == ["fast", "steps=3"]
    assert quality() == "balanced"
    assert shell("preset", "remove", "fast")[0] == 0
    assert quality() == "fast"


def test_recipe_sets_the_published_values(shell: Shell) -> None:
    out = shell.render("--recipe", "styleid", "--layers", "0,1", "--steps", 2, "--refine", 1)[1]
    report = json.loads(Path(out.strip()).with_suffix(".json").read_text("utf-8"))
    assert (report["settings"]["tau"], report["settings"]["alpha"]) == (1.5, 1.0)
    assert report["settings"]["reconstruction"] == "griffin-lim"
    assert report["dtype"] == "float32"


def test_steps_of_a_sidecar_or_a_recipe_give_way_to_a_quality(shell: Shell) -> None:
    def steps(*words: object) -> int:
        code, out, err = shell("render", *words, "--json")
        assert code == 0, err
        return int(json.loads(out)["settings"]["steps"])

    fast = steps(shell.clip, "--style", shell.style, "--model", shell.model, "--quality", "fast")
    sidecar = ("--from", shell.folder / "riff_hiss.json")
    assert steps(*sidecar) == fast
    assert steps(*sidecar, "--quality", "best") > fast
    assert steps(*sidecar, "--quality", "best", "--steps", 2) == 2
    recipe = (shell.clip, "--style", shell.style, "--model", shell.model, "--recipe", "styleid", "--layers", "0,1")
    assert steps(*recipe, "--refine", 0, "--quality", "fast") == fast


def test_another_method_than_a_sidecars_has_its_own_defaults(shell: Shell) -> None:
    shell("render", shell.clip, "--style", shell.style, "--mix", 0.5)
    words = ["--method", "injection", "--quality", "fast", "--json"]
    code, out, err = shell("render", "--from", shell.folder / "riff_hiss.json", *words)
    assert code == 0, err
    found = json.loads(out)["settings"]
    assert (found["gamma"], found["alpha"], found["overlap"], found["mix"]) == (0.75, 0.9, 0.25, 0.5)
    assert found["steps"] > 1


def test_a_sidecar_of_before_may_say_what_had_no_effect(shell: Shell) -> None:
    assert shell("render", shell.clip, "--style", shell.style)[0] == 0
    sidecar, stem = shell.folder / "riff_hiss.json", shell.folder / "riff_hiss.wav"
    about = json.loads(sidecar.read_text("utf-8"))
    about["settings"] |= {"guidance": 7.0, "prompt_mix": 0.3, "denoise": 0.5, "init": "efdm", "start_step": 0}
    about["settings"]["inversion"] = "current"
    sidecar.write_text(json.dumps(about), "utf-8")
    code, out, err = shell("render", "--from", sidecar)
    assert code == 0, err
    assert Path(out.strip()).read_bytes() == stem.read_bytes()


def test_a_preset_of_a_stem_with_another_quality_has_its_steps(shell: Shell) -> None:
    shell.render()
    assert shell("preset", "save", "finer", "--from", shell.folder / "riff_hiss.json", "--quality", "best")[0] == 0
    held = json.loads((user_data() / "presets.json").read_text("utf-8"))["finer"]
    assert held["quality"] == "best"
    assert "steps" not in held


def test_a_preset_needs_no_more_of_a_stem_than_its_sidecar(shell: Shell) -> None:
    shell.render("--keep", 0.3)
    shell.clip.unlink()
    assert shell("preset", "save", "kept", "--from", shell.folder / "riff_hiss.json")[0] == 0
    assert json.loads((user_data() / "presets.json").read_text("utf-8"))["kept"]["gamma"] == 0.3


def test_a_preset_of_a_stem_holds_nothing_of_its_clip_and_its_styles(shell: Shell) -> None:
    def kept(*words: object, **rendered: object) -> Any:
        options = [word for name, value in rendered.items() for word in (f"--{name.replace('_', '-')}", value)]
        assert shell.render("--style", shell.clip, *options, "-o", shell.folder / "one.wav", "--overwrite")[0] == 0
        assert shell("preset", "save", "one", "--from", shell.folder / "one.json", *words, "--overwrite")[0] == 0
        return json.loads((user_data() / "presets.json").read_text("utf-8"))["one"]

    assert kept(preview=0.3, style_weight="1,2", mix=0.5) == {"quality": "fast", "mix": 0.5}
    assert kept(start=0.1, end=0.5) == {"quality": "fast"}
    assert kept("--preview", 0.2, "--mix", 0, start=0.1, mix=0.5) == {"quality": "fast", "preview": "0.2", "mix": "0"}


def test_a_preset_of_a_stem_serves_other_models(shell: Shell) -> None:
    sidecar = shell.folder / "riff_hiss.json"
    assert shell("render", shell.clip, "--style", shell.style, "--mix", 0.5, "--keep", 0.25)[0] == 0
    assert json.loads(sidecar.read_text("utf-8"))["settings"]["method"] == "conditional"
    assert shell("preset", "save", "half", "--from", sidecar)[0] == 0
    presets = user_data() / "presets.json"
    assert json.loads(presets.read_text("utf-8"))["half"] == {"gamma": 0.25, "mix": 0.5}
    code, out, err = shell.render("--preset", "half", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)["settings"]
    assert (found["method"], found["gamma"], found["mix"]) == ("injection", 0.25, 0.5)
    # Of a model that is not there any more nobody knows what it had by itself.
    sidecar.write_text(sidecar.read_text("utf-8").replace('"asked_model": "mini"', '"asked_model": "gone"'), "utf-8")
    assert shell("preset", "save", "gone", "--from", sidecar, "--amount", 0.5)[0] == 0
    assert json.loads(presets.read_text("utf-8"))["gone"] == {"mix": 0.5, "amount": "0.5"}


def test_another_model_than_a_sidecars_has_its_own_method(shell: Shell) -> None:
    shell("render", shell.clip, "--style", shell.style, "--mix", 0.5)
    sidecar = shell.folder / "riff_hiss.json"
    code, out, err = shell("render", "--from", sidecar, "--model", shell.model, "--json")
    assert code == 0, err
    found = json.loads(out)["settings"]
    assert (found["method"], found["gamma"], found["overlap"], found["mix"]) == ("injection", 0.75, 0.25, 0.5)
    # The same one by name changes nothing.
    code, out, err = shell("render", "--from", sidecar, "--model", "mini", "--json")
    assert code == 0, err
    assert json.loads(out)["settings"] == json.loads(sidecar.read_text("utf-8"))["settings"]


def test_what_is_typed_beside_a_sidecar_or_a_preset_wins_where_two_exclude_each_other(shell: Shell) -> None:
    def settings(*words: object) -> Any:
        code, out, err = shell("render", *words, "--json")
        assert code == 0, err
        return json.loads(out)["settings"]

    two = shell.folder / "two.json"
    weighed = ("--style", shell.clip, "--style-weight", "1,2", "--preview", 0.3, "--mix", 0)
    assert shell.render(*weighed, "-o", two.with_suffix(".wav"))[0] == 0
    found = settings("--from", two, "--style", shell.style, "--end", 0.4)
    assert (found["style_weight"], found["preview"], found["end"]) == (None, None, 0.4)
    assert shell("preset", "save", "loop", "--loop", "on", "--start", 0.1)[0] == 0
    found = settings("--from", two, "--preset", "loop", "--tail", 0.1)
    assert (found["style_weight"], found["preview"], found["start"]) == ([1.0, 2.0], None, 0.1)
    assert (found["loop"], found["tail"]) == ("auto", 0.1)


def test_a_recipe_over_a_sidecar_computes_as_published(shell: Shell) -> None:
    shell.render("--mix", 0)
    sidecar = shell.folder / "riff_hiss.json"
    written = json.loads(sidecar.read_text("utf-8"))
    sidecar.write_text(json.dumps({**written, "dtype": "bfloat16"}), "utf-8")
    words = ("render", "--from", sidecar, "--recipe", "stylus", "--layers", "0,1", "--steps", 2, "--mix", 0, "--json")
    assert json.loads(shell(*words)[1])["dtype"] == "float32"


@pytest.mark.parametrize(("typed", "named"), [("stems/", "stems"), ("stems", "stems"), ("Song v1.2/", "Song v1.2")])
def test_a_folder_that_is_not_there_is_made(shell: Shell, typed: str, named: str) -> None:
    words = ("--mix", 0, "--sidecar", "embed", "-o", f"{shell.folder}/{typed}")
    code, out, err = shell.render(*words)
    assert (code, out, err) == (0, f"{shell.folder / named / 'riff_hiss.wav'}\n", "")
    # And is the same one the next time.
    assert shell.render(*words)[1] == f"{shell.folder / named / 'riff_hiss_2.wav'}\n"


def test_a_folder_of_no_stem_is_not_left_behind(shell: Shell) -> None:
    before = shell.files()
    for words, said in (
        (("-o", f"{shell.folder}/stems/", "--prompt", "bells"), "no text encoder"),
        (("-o", f"{shell.folder}/no/stems/"), "no does not exist"),
        (("-o", f"{shell.clip}/"), "riff.wav is a file, not a folder"),
        (("-o", shell.folder / "Song v1.2"), "a stem is one of .wav"),
    ):
        code, out, err = shell.render(*words)
        assert (code, out, said in err, err.count("\n")) == (2, "", True, 1), err
        assert shell.files() == before


def test_a_sidecar_is_embedded_in_a_folder_with_a_dot(shell: Shell) -> None:
    folder = shell.folder / "Song v1.2"
    folder.mkdir()
    code, out, _ = shell.render("--mix", 0, "--sidecar", "embed", "-o", folder)
    assert (code, out) == (0, f"{folder / 'riff_hiss.wav'}\n")


def test_a_models_folder_is_found_again_from_elsewhere(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shell.model.parent)
    words = ("render", shell.clip, "--style", shell.style, "--model", shell.model.name, "--mix", 0)
    assert shell(*words)[0] == 0
    monkeypatch.chdir(shell.folder)
    assert shell("render", "--from", shell.folder / "riff_hiss.json")[0] == 0


def test_what_no_file_can_be_called_is_a_mistake(shell: Shell) -> None:
    for words in (("x" * 300, "--style", shell.style), (shell.clip, "--style", "x" * 300)):
        code, _, err = shell("render", *words)
        assert (code, err.count("\n")) == (2, 1)


def test_what_a_file_without_floats_would_clip_is_lowered_and_said(shell: Shell) -> None:
    stem = shell.folder / "loud.flac"
    code, _, err = shell.render("--bits", "32f", "--loudness", 0, "-o", stem)
    assert code == 0
    assert "lower than rendered, to stay under full scale" in err
    audio, _ = soundfile.read(stem)
    assert (np.abs(audio) > 0.999).mean() < 1e-3
    assert np.abs(audio).max() > 0.99
    assert "lower" in json.loads(stem.with_suffix(".json").read_text("utf-8"))["notes"][0]
    # A WAV of floats holds it.
    assert "lower" not in shell.render("--bits", "32f", "--loudness", 0, "-o", shell.folder / "floats.wav")[2]
    assert np.abs(soundfile.read(shell.folder / "floats.wav")[0]).max() > 1


def test_plot_and_evaluate(shell: Shell) -> None:
    picture = shell.folder / "p.png"
    stem = shell.render("--plot", picture)[1].strip()
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, out, _ = shell("evaluate", stem, "--content", shell.clip, "--style", shell.style, "--json")
    assert code == 0
    assert set(json.loads(out)) >= {"chroma_similarity", "onset_f1", "log_mel_distance_content", "loudness_lufs"}


@pytest.mark.slow
def test_a_plot_replaces_neither_a_picture_nor_what_is_rendered(shell: Shell) -> None:
    picture = shell.folder / "cover.png"
    shell("image", "from-audio", shell.clip, "-o", picture)
    kept = picture.read_bytes()
    code, out, err = shell.render("--plot", picture)
    assert (code, Path(out.strip()).is_file()) == (0, True)
    assert "the picture is " in err
    assert (picture.read_bytes(), picture.with_name("cover_2.png").is_file()) == (kept, True)
    before = shell.files()
    words = ["--style", shell.style, "--model", shell.model, "--quality", "fast", "--overwrite", "--plot", picture]
    code, out, err = shell("render", picture, *words)
    assert (code, "never replaced" in err) == (2, True)
    assert picture.read_bytes() == kept
    assert shell.files() - before == {"cover_hiss.wav", "cover_hiss.json"}
    (shell.folder / "folder.png").mkdir()
    for name, said in (("none/p.png", "not exist"), ("folder.png", "a folder"), (f"{'x' * 300}.png", "plot: xxx")):
        code, out, err = shell.render("--plot", shell.folder / name)
        assert (code, out, said in err) == (2, "", True)


def test_a_plot_that_fails_after_all_leaves_one_document(shell: Shell) -> None:
    picture = shell.folder / "cover.png"
    shell("image", "from-audio", shell.clip, "-o", picture)
    words = ["--style", shell.style, "--model", shell.model, "--mix", 0, "--overwrite", "--plot", picture, "--json"]
    code, out, _ = shell("render", picture, *words)
    assert (code, json.loads(out)["error"]["code"]) == (2, "not-allowed")


@pytest.mark.skipif(os.name == "nt", reason="folders there are closed in other ways")
def test_a_plot_in_a_closed_folder_is_known_before_the_render(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = shell.folder / "closed"
    closed.mkdir(mode=0o555)
    # Nothing is closed to root.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != closed)
    before = shell.files()
    code, out, err = shell.render("--plot", closed / "p.png")
    assert (code, out, err) == (2, "", f"stylus: plot: {closed} cannot be written\n")
    assert shell.files() == before


@pytest.mark.parametrize(
    ("pattern", "named"),
    [("a.wav", "a.wav"), ("{style}.WAV", "hiss_2.wav"), ("{content} v1.2", "riff v1.2.wav"), ("a.png", "a.png.wav")],
)
def test_a_name_may_have_its_suffix(shell: Shell, pattern: str, named: str) -> None:
    assert shell.render("--mix", 0, "--name", pattern)[1] == f"{shell.folder / named}\n"


def test_a_name_that_only_looks_like_another_container_is_the_clips(shell: Shell) -> None:
    clip = shell.clip.rename(shell.folder / "riff.flac.wav")
    words = ("render", clip, "--style", shell.style, "--model", shell.model, "--mix", 0, "--name", "{style} {content}")
    assert shell(*words)[1] == f"{shell.folder / 'hiss riff.flac.wav'}\n"


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ("folder", "is no sidecar of ours"),
        ('{"my": "project"}', "is no sidecar of ours"),
        ("other", "belongs to p.flac"),
    ],
)
def test_overwrite_replaces_a_stem_and_its_sidecar_and_nothing_else(shell: Shell, beside: str, said: str) -> None:
    stem = shell.folder / "p.wav"
    if beside == "other":
        assert shell.render("-o", shell.folder / "p.flac")[0] == 0
    elif beside == "folder":
        shutil.copy(shell.clip, stem)
        stem.with_suffix(".json").mkdir()
    else:
        stem.with_suffix(".json").write_text(beside)
    before = {path: path.read_bytes() for path in shell.folder.iterdir() if path.is_file()}
    code, out, err = shell.render("-o", stem, "--overwrite")
    assert (code, out, said in err) == (2, "", True)
    assert {path: path.read_bytes() for path in shell.folder.iterdir() if path.is_file()} == before
    assert shell.render("-o", stem, "--overwrite", "--sidecar", "none")[0] == 0
    after = {path: path.read_bytes() for path in shell.folder.iterdir() if path.is_file() and path != stem}
    assert after == {path: data for path, data in before.items() if path != stem}


def test_a_sidecar_that_another_stem_has_by_now_stays(shell: Shell) -> None:
    assert shell.render("-o", shell.folder / "o.wav", "--sidecar", "none")[0] == 0
    assert shell.render("-o", shell.folder / "o.FLAC")[0] == 0
    kept = (shell.folder / "o.json").read_bytes()
    code, _, err = shell.render("-o", shell.folder / "o.wav", "--overwrite")
    assert (code, "belongs to o.FLAC" in err) == (2, True)
    assert (shell.folder / "o.json").read_bytes() == kept
    assert shell.render("-o", shell.folder / "o.FLAC", "--overwrite")[0] == 0


def test_a_sweep_is_checked_whole_and_replaces_no_other_summary(shell: Shell) -> None:
    out = shell.folder / "out"
    out.mkdir()
    (out / "riff_hiss_mix-1.json").write_text('{"my": "project"}')
    before = shell.files()
    words = ("-o", out, "--mix", "0.5,1", "--overwrite")
    code, _, err = shell.render(*words)
    assert (code, "no sidecar of ours" in err) == (2, True)
    assert shell.files() == before
    (out / "riff_hiss_mix-1.json").unlink()
    (out / "sweep.json").write_text('{"camera": "mine"}')
    (out / "contact_sheet.png").write_text("photo")
    assert shell.render(*words)[0] == 0
    assert ((out / "sweep.json").read_text(), (out / "contact_sheet.png").read_text()) == (
        '{"camera": "mine"}',
        "photo",
    )
    assert (out / "sweep_2.json").is_file()


def test_the_demo_replaces_only_an_earlier_demo(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    short = shell.clip.rename(shell.folder / DEMO_CONTENT.name)
    monkeypatch.setattr("stylus_audio.commands.DEMO_CONTENT", short)
    out = shell.folder / "demo"
    out.mkdir()
    mine = out / "piano_riff_accordion.wav"
    mine.write_text("mine")
    assert shell("demo", "-o", out)[0] == 0
    assert mine.read_text() == "mine"
    mine.unlink()
    assert shell("demo", "-o", out)[1].split() == [str(mine), str(mine.with_suffix(".png"))]
    files = shell.files()
    assert shell("demo", "-o", out)[0] == 0
    assert shell.files() == files


def test_a_picture_does_not_replace_the_sound_that_it_was_made_of(shell: Shell) -> None:
    picture = shell.folder / "riff.png"
    assert shell("image", "from-audio", shell.clip)[1].strip() == str(picture)
    kept = shell.clip.read_bytes()
    code, _, err = shell("image", "to-audio", picture, "--overwrite", "--refine", 1)
    assert (code, "-o" in err) == (2, True)
    assert shell.clip.read_bytes() == kept
    assert shell("image", "to-audio", picture, "--refine", 1)[1].strip() == str(shell.folder / "riff_2.wav")


def test_a_damaged_style_of_the_library_is_not_replaced(shell: Shell) -> None:
    assert shell("style", "add", "bells", shell.style)[0] == 0
    kept = Path(library.style("bells").path)
    before = kept.read_bytes()
    kept.with_suffix(".json").write_text("{")
    code, _, err = shell("style", "add", "Bells", shell.clip)
    assert (code, "without a readable entry" in err) == (2, True)
    assert kept.read_bytes() == before


def test_overwrite_replaces_what_it_made(shell: Shell) -> None:
    stem = shell.folder / "p.wav"
    assert shell.render("-o", stem)[0] == 0
    before, files = stem.read_bytes(), shell.files()
    assert shell.render("-o", stem, "--overwrite", "--mix", 0.2)[0] == 0
    assert stem.read_bytes() != before
    assert shell.files() == files
    # A sidecar left beside it would tell of the stem before.
    assert shell.render("-o", stem, "--overwrite", "--sidecar", "none")[0] == 0
    assert shell.files() == files - {"p.json"}


def test_damaged_presets_are_said_and_not_lost(shell: Shell) -> None:
    assert shell("preset", "save", "soft", "--keep", 0.9)[0] == 0
    file = user_data() / "presets.json"
    file.write_text(file.read_text() + ",")
    kept = file.read_bytes()
    for words in (["list"], ["save", "hard", "--keep", 0], ["remove", "soft"]):
        code, _, err = shell("preset", *words)
        assert (code, "presets.json is damaged" in err) == (2, True)
    assert file.read_bytes() == kept


@pytest.mark.parametrize("level", [1e-38, 1e-30, 1e20, float("inf")])
def test_what_no_sound_has_is_silence(shell: Shell, level: float) -> None:
    soundfile.write(shell.clip, np.full(RATE // 2, level, np.float32), RATE, subtype="FLOAT")
    code, out, err = shell.render()
    assert code == 0
    assert ("are silent now" in err) == (level > 1)
    assert np.abs(soundfile.read(out.strip())[0]).max() <= 1e-29


def test_a_style_of_the_library_is_found_beside_a_folder_of_its_name(shell: Shell, monkeypatch: Any) -> None:
    monkeypatch.chdir(shell.folder)
    assert shell("style", "add", "bells", shell.style)[0] == 0
    (shell.folder / "bells").mkdir()
    assert shell("render", shell.clip, "--style", "bells", "--model", shell.model, "--quality", "fast")[0] == 0


def test_every_style_is_drawn_on_the_axis_of_the_stem(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []

    def save(path: Path, panels: list[Any], *_: object) -> Path:
        drawn.extend(panels)
        return path

    monkeypatch.setattr("stylus_audio.plot.save_plot", save)
    short = shell.folder / "short.wav"
    soundfile.write(short, noise(0.3).T, RATE)
    code, _, err = shell.render("--style", short, "--tail", 0.1, "--plot", "p.png")
    assert (code, err) == (0, "")
    content, long, brief, stem, gain = drawn
    assert (content.title, brief.title, stem.title, gain.title) == ("content", "style: short", "stem", "gain")
    assert long.title.startswith("style (0.")
    assert long.title.endswith(" s): hiss")
    seconds = [panel.audio.shape[1] / panel.sample_rate for panel in (content, long, brief, stem)]
    assert seconds == pytest.approx([0.7, 0.7, 0.3, 0.7])
    assert gain.gain_db.shape[1] / gain.frame_rate == pytest.approx(0.7, abs=0.02)


def test_models_and_doctor(shell: Shell) -> None:
    assert shell("models", "list")[1].split()[0] == "mini"
    assert shell("models", "verify", "mini")[0] == 0
    code, out, _ = shell("doctor", "--json")
    assert code == 0
    assert {check["name"] for check in json.loads(out)} >= {
        "device", "model", "playing", "executable", "may use",
    }  # fmt: skip


def test_chunks_of_the_daw_come_along(shell: Shell) -> None:
    from stylus_audio.riff import Chunk, append_chunks, read_chunks

    chunks = (Chunk(b"acid", struct.pack("<IHHfIHHf", 1, 60, 0, 0.0, 4, 4, 4, 120.0)), Chunk(b"bext", bytes(602)))
    append_chunks(shell.clip, chunks)
    stem = Path(shell.render()[1].strip())
    assert read_chunks(stem) == chunks


@pytest.mark.parametrize("mask", [0x3F, 0x60F])
def test_channels_stay_for_the_speakers_that_they_are_for(shell: Shell, mask: int) -> None:
    from stylus_audio.riff import read_chunk, set_speakers

    clip = shell.folder / "surround.wav"
    soundfile.write(clip, np.repeat(plucks(0.4), 6, axis=0).T, RATE, subtype="PCM_24", format="WAVEX")
    set_speakers(clip, mask)
    code, out, err = shell("render", clip, "--style", shell.style, "--model", shell.model, "--mix", 0)
    assert code == 0, err
    assert read_chunk(Path(out.strip()), b"fmt ") == read_chunk(clip, b"fmt ")
    assert np.array_equal(soundfile.read(out.strip())[0], soundfile.read(clip)[0])


def bad_files(folder: Path) -> dict[str, Path]:
    """Files that cannot be rendered, by what is wrong with them."""
    good = folder / "good.wav"
    soundfile.write(good, noise(0.5).T, RATE)
    data = good.read_bytes()
    made = {
        name: folder / f"{name}.wav" for name in ("empty", "text", "truncated", "oversized", "nothing", "wide", "slow")
    }
    made["empty"].write_bytes(b"")
    made["text"].write_text("hello", "utf-8")
    made["truncated"].write_bytes(data[: len(data) // 2])
    made["oversized"].write_bytes(data[:40] + struct.pack("<I", 2**31) + data[44:])
    soundfile.write(made["nothing"], np.zeros((0, 2)), RATE)
    soundfile.write(made["wide"], np.zeros((100, 1024)), RATE)
    soundfile.write(made["slow"], np.zeros(100), 4000)
    flac = folder / "cut.flac"
    soundfile.write(flac, noise(2).T, RATE)
    flac.write_bytes(flac.read_bytes()[:20000])
    good.unlink()
    return {**made, "cut": flac, "missing": folder / "missing.wav", "folder": folder}


BAD_FILES = {
    "empty": "is empty", "text": "WAV, AIFF, FLAC", "truncated": "cut short", "oversized": "cut short",
    "nothing": "no samples", "wide": "1 to 32", "slow": "8000 to 384000", "cut": "cut", "missing": "does not exist",
    "folder": "is a folder",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("role", ["content", "style"])
def test_bad_files_get_one_line(shell: Shell, name: str, role: str) -> None:
    bad = bad_files(shell.folder)[name]
    before = shell.files()
    content, style = (bad, shell.style) if role == "content" else (shell.clip, bad)
    code, out, err = shell("render", content, "--style", style, "--model", shell.model)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert BAD_FILES[name] in err
    assert shell.files() == before


BAD_OPTIONS: list[tuple[list[Any], int, str]] = [
    (["--keep", 2], 2, "from 0 to 1"),
    (["--keep", "x:y"], 2, "FIRST:LAST"),
    (["--steps", 0], 2, "whole number from 1 to 1000"),
    (["--steps", 2.5], 2, "whole number"),
    (["--seed", -1], 2, "from 0 to 4294967295"),
    (["--layers", "99"], 2, "it has 0, 1"),
    (["--reconstruction", "magic"], 2, "gain, phase, griffin-lim"),
    (["--bits", 12], 2, "16, 24, 32f"),
    (["--start", 5], 2, "hold nothing"),
    (["--start", "0.2", "--end", "0.1"], 2, "hold nothing"),
    (["--loudness", "loud"], 2, "keep, match"),
    (["--prompt", "bells"], 2, "no text encoder"),
    (["--guidance", 7], 2, "guidance: tiny has no text encoder"),
    (["--prompt-mix", 0.3], 2, "prompt_mix: tiny has no text encoder"),
    (["--model", "mini", "--denoise", 0.5], 2, "denoise: mini answers at once"),
    (["--style-weight", "1,2"], 2, "2 weights for 1 styles"),
    (["--style", "no-such-style"], 2, "not in the library"),
    (["--model", "no-such-model"], 2, "mini, mini-injection, sd15, sd20-base, sd21-base, sd21, riffusion"),
    (["--model", "weights.ckpt"], 2, "pickle"),
    (["--device", "abacus"], 2, "auto, cuda"),
    (["--device", "cuda:99"], 2, "not available"),
    (["--dtype", "int8"], 2, "float32"),
    (["--recipe", "soup"], 2, "stylus, styleid"),
    (["--preset", "none"], 2, "preset save"),
    (["--sidecar", "paper"], 2, "file, embed, none"),
    (["--name", "{tempo}"], 2, "{content}"),
    (["--name", "{content}.flac"], 2, "use -o FILE"),
    (["--name", "a.MP3"], 2, "use -o FILE"),
    (["--name", "."], 2, "no file's name"),
    (["--name", ".."], 2, "no file's name"),
    (["--name", ".wav"], 2, "no file's name"),
    (["--plot", "x.txt"], 2, ".png"),
    (["-o", "stem.mp3"], 2, ".wav, .flac"),
    (["-o", "no/such/folder/stem.wav"], 2, "does not exist"),
    (["--stereo", "5.1"], 2, "linked"),
    (["--bogus"], 2, "No such option"),
]


@pytest.mark.parametrize(("words", "expected", "says"), BAD_OPTIONS)
def test_bad_options_get_one_line(shell: Shell, words: list[Any], expected: int, says: str) -> None:
    before = shell.files()
    code, out, err = shell.render(*words)
    assert (code, out) == (expected, "")
    assert says in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert shell.files() == before


@pytest.mark.parametrize("name", ["gamma", "keep"])
def test_a_mistake_is_told_by_the_name_that_was_typed(shell: Shell, name: str) -> None:
    clip = ("{clip}", "--style", "{style}")
    for command in (("render", *clip), ("batch", *clip), ("watch", "{folder}"), ("preset", "save", "x")):
        words = [word.format(clip=shell.clip, style=shell.style, folder=shell.folder) for word in command]
        code, out, err = shell(*words, f"--{name}", 7, "--mix", 0.5)
        assert (code, out) == (2, "")
        assert f"stylus: {name}: '7' is not a number from 0 to 1" in err
    # The last time counts.
    err = shell.render("--keep", 0.5, "--gamma=7")[2]
    assert "gamma: '7'" in err
    # By whatever name it is the same that is kept.
    assert shell("preset", "save", "x", f"--{name}", 0.2)[0] == 0
    assert json.loads(shell("preset", "list", "--json")[1])["x"] == {"keep": "0.2"}


def test_a_stem_never_replaces_its_sources(shell: Shell) -> None:
    before = shell.clip.read_bytes()
    assert shell.render("-o", shell.clip, "--overwrite")[0] == 2
    assert shell.render("-o", shell.style, "--overwrite")[0] == 2
    assert shell.clip.read_bytes() == before


def test_samples_that_are_not_finite_are_silenced_and_said(shell: Shell) -> None:
    audio = plucks(0.5)[0]
    audio[[100, 200]] = np.nan, np.inf
    broken = shell.folder / "broken.wav"
    soundfile.write(broken, audio, RATE, subtype="FLOAT")
    code, out, err = shell("render", broken, "--style", shell.style, "--model", shell.model, "--quality", "fast")
    assert code == 0
    assert "2 samples" in err
    assert np.isfinite(soundfile.read(out.strip())[0]).all()


def test_help_names_every_setting(shell: Shell) -> None:
    from stylus_audio.settings import OPTIONS

    code, out, _ = shell("render", "--help")
    assert code == 0
    for name, option in OPTIONS.items():
        assert f"--{'no-' * (option.kind == 'switch')}{name.replace('_', '-')}" in out


@pytest.mark.parametrize("name", ["mini", "mini-injection"])
def test_help_says_what_the_embedded_models_begin_with(name: str) -> None:
    from stylus_audio import Engine
    from stylus_audio.settings import OPTIONS

    settings = Engine(name).settings()
    for option in ("gamma", "alpha", "method", "inversion", "overlap"):
        own = dict(one.split(" ", 1) for one in OPTIONS[option].by_model.replace("by ", "").split(", "))
        value = own.get(name) or own.get(settings.method) or own["others"]
        assert value == f"{getattr(settings, option)}".removesuffix(".0"), option


def test_help_for_pictures_names_the_recipe_that_they_have(shell: Shell) -> None:
    code, out, _ = shell("image", "transfer", "--help")
    assert code == 0
    words = " ".join(out.split())
    assert "α: how much style; 0 is none, over 1 extrapolates [1.0]" in words
    assert "[7-11]" in words


def test_a_pipe_that_lacks_a_letter_fails_nothing(tmp_path: Path) -> None:
    style = tmp_path / "Ωμέγα.wav"
    soundfile.write(style, plucks(0.5)[0], RATE)
    narrow = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    process = stylus("style", "add", "Ωμέγα", style, env=narrow)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    process = stylus("style", "list", env=narrow)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "\\u03a9" in out


def stylus(*words: object, **how: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stylus_audio", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how,
    )  # fmt: skip


def _until_it_heeds(process: subprocess.Popen[str]) -> None:
    """Wait until Ctrl-C is acted on; only Linux says so, of SIGTERM, which is taken up with it."""
    status = Path(f"/proc/{process.pid}/status")

    def heeds() -> bool:
        (caught,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)

    if sys.platform == "linux":
        until(heeds)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C reaches a child process in another way on Windows")
@pytest.mark.parametrize("after", [0.4, 1.5, 3.0, 4.5, 6.0])
def test_ctrl_c_leaves_nothing_and_exits_130(shell: Shell, after: float) -> None:
    before = shell.files()
    process = stylus("render", shell.clip, "--style", shell.style, "--model", shell.model, "--steps", 900)
    _until_it_heeds(process)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert shell.files() == before


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C reaches a child process in another way on Windows")
def test_ctrl_c_waits_for_the_import_of_torch_whose_code_would_end_the_process(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nsum(range(1000))\nprint('to the end')\n", "utf-8"
    )
    code = (
        "from stylus_audio.interruption import heed_signals, interruption\nheed_signals()\nimport torch\n"
        "print(interruption.is_set())\nimport os, signal\nos.kill(os.getpid(), signal.SIGINT)\nsum(range(1000))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.stdout == "to the end\nTrue\n", done.stderr


# Ctrl-C while an object of the first import of torch is thrown away, where Python cannot raise anything.
CTRL_C_IN_A_FINALISER = """
import os, signal, sys

class Thrown:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(1000))

def hook(event, arguments):
    if event == "import" and arguments[0] == "torch" and not seen:
        seen.append(Thrown())
        seen[0] = None

seen = []
sys.addaudithook(hook)
from stylus_audio.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C reaches a child process in another way on Windows")
def test_ctrl_c_where_nothing_can_be_raised(shell: Shell) -> None:
    before = shell.files()
    words = ("render", shell.clip, "--style", shell.style, "--model", shell.model)
    command = [sys.executable, "-c", CTRL_C_IN_A_FINALISER, *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stylus: cancelled\n")
    assert shell.files() == before


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes(shell: Shell) -> None:
    for name in ("a.wav", "b.wav"):
        places = ("--style", shell.style, "--model", shell.model, "-o", shell.folder / name)
        process = stylus("render", shell.clip, *places, "--sidecar", "none")
        assert process.wait(120) == 0
        process.communicate()
    assert (shell.folder / "a.wav").read_bytes() == (shell.folder / "b.wav").read_bytes()
