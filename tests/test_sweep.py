"""A sweep renders what single renders would, every combination once, into a folder that says what is what."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread
from numpy.typing import NDArray

from stylus_audio import Engine, Settings
from stylus_audio.contact_sheet import contact_sheet, layout
from stylus_audio.errors import BadRequest
from stylus_audio.plot import DPI, mel_panel
from stylus_audio.sweep import MOST, combinations, swept
from stylus_audio.sweep_job import render_sweep
from stylus_audio.target import Target
from tests.sounds import RATE, noise, plucks
from tests.test_cli import Shell


@pytest.fixture
def shell(tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, tiny_folder, capsys)


def settings_of(stem: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(stem.with_suffix(".json").read_text("utf-8"))["settings"]
    return settings


def test_every_combination_is_what_a_single_render_gives(shell: Shell) -> None:
    code, out, err = shell.render("--amount", "0.3,0.9", "--gamma=0.2:0.8,0.5")
    folder = shell.folder / "riff_hiss_sweep"
    assert (code, out, err) == (0, f"{folder}\n", "")
    stems = [f"riff_hiss_amount-{alpha}_gamma-{gamma}" for alpha in ("0.3", "0.9") for gamma in ("0.2to0.8", "0.5")]
    assert {file.name for file in folder.iterdir()} == {
        "contact_sheet.png", "sweep.json", *(f"{stem}.{end}" for stem in stems for end in ("wav", "json")),
    }  # fmt: skip
    assert shell.files() - {str(Path(folder.name) / file.name) for file in folder.iterdir()} == {
        "riff.wav", "hiss.wav", folder.name,
    }  # fmt: skip
    got = [(settings["alpha"], settings["gamma"]) for settings in (settings_of(folder / f"{s}.wav") for s in stems)]
    assert got == [(0.3, [0.2, 0.8]), (0.3, 0.5), (0.9, [0.2, 0.8]), (0.9, 0.5)]
    shell.render("--gamma", "0.2:0.8", "--alpha", 0.9, "-o", shell.folder / "single.wav")
    assert (folder / f"{stems[2]}.wav").read_bytes() == (shell.folder / "single.wav").read_bytes()
    table = json.loads((folder / "sweep.json").read_text("utf-8"))
    assert table["swept"] == ["amount", "gamma"]
    assert [row["stem"] for row in table["stems"]] == [f"{stem}.wav" for stem in stems]
    assert table["stems"][2]["values"] == {"amount": 0.9, "gamma": [0.2, 0.8]}
    for row in table["stems"]:
        assert row["metrics"] == json.loads((folder / row["stem"]).with_suffix(".json").read_text("utf-8"))["metrics"]


def test_evenly_spaced_values_and_json(shell: Shell) -> None:
    code, out, err = shell.render("--mix", "0..0.2/3", "--sidecar", "none", "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert [row["values"] for row in rows] == [{"mix": 0.0}, {"mix": 0.1}, {"mix": 0.2}]
    stems = [soundfile.read(row["stem"])[0] for row in rows]
    assert np.array_equal(stems[0], soundfile.read(shell.clip)[0])
    # Twice the mix is twice the way from the content, but for 16 bits and their dither.
    np.testing.assert_allclose(stems[2] - stems[0], 2 * (stems[1] - stems[0]), atol=8 / 2**15)
    assert np.abs(stems[2] - stems[0]).max() > 100 / 2**15


def test_vectors_are_separated_by_semicolons(shell: Shell) -> None:
    other = shell.folder / "other.wav"
    soundfile.write(other, plucks(0.7).T, RATE)
    words = ("--style", other, "--style-weight", "0.1, 0.9; 0.5,0.5", "--layers", "0;0-1", "-o", shell.folder / "out")
    code, out, err = shell.render(*words)
    assert (code, out, err) == (0, f"{shell.folder / 'out'}\n", "")
    rows = json.loads((shell.folder / "out" / "sweep.json").read_text("utf-8"))["stems"]
    assert [(row["values"]["style-weight"], row["values"]["layers"]) for row in rows] == [
        ([0.1, 0.9], [0]), ([0.1, 0.9], [0, 1]), ([0.5, 0.5], [0]), ([0.5, 0.5], [0, 1]),
    ]  # fmt: skip
    assert rows[1]["stem"] == "riff_hiss+other_style-weight-0.1,0.9_layers-0-1.wav"


def test_nothing_is_replaced_unless_asked(shell: Shell) -> None:
    shell.render("--mix", "0,0.5")
    first = {file: file.read_bytes() for file in (shell.folder / "riff_hiss_sweep").iterdir()}
    assert shell.render("--mix", "0,0.5")[1] == f"{shell.folder / 'riff_hiss_sweep_2'}\n"
    folder = shell.folder / "riff_hiss_sweep"
    assert shell.render("--mix", "0,1", "-o", folder)[1] == f"{folder}\n"
    assert {file: file.read_bytes() for file in first} == first
    added = {file.name for file in folder.iterdir()} - {file.name for file in first}
    assert added == {
        "contact_sheet_2.png", "sweep_2.json", "riff_hiss_mix-0_2.wav", "riff_hiss_mix-0_2.json",
        "riff_hiss_mix-1.wav", "riff_hiss_mix-1.json",
    }  # fmt: skip
    assert json.loads((folder / "sweep_2.json").read_text("utf-8"))["stems"][0]["stem"] == "riff_hiss_mix-0_2.wav"
    names = {file.name for file in folder.iterdir()}
    assert shell.render("--mix", "0,1", "--overwrite")[1] == f"{folder}\n"
    assert {file.name for file in folder.iterdir()} == names
    assert [row["values"]["mix"] for row in json.loads((folder / "sweep.json").read_text("utf-8"))["stems"]] == [0, 1]


def test_a_name_with_its_suffix_names_every_stem(shell: Shell) -> None:
    folder = shell.folder / "mine_sweep"
    assert shell.render("--mix", "0,0.5", "--name", "mine.wav")[1] == f"{folder}\n"
    assert {file.name for file in folder.glob("*.wav")} == {"mine_mix-0.wav", "mine_mix-0.5.wav"}


def test_swept_options_win_over_preset_recipe_and_sidecar(shell: Shell) -> None:
    shell("preset", "save", "soft", "--keep", 0.9, "--tau", 2)
    shell.render("--mix", 0, "--seed", 3, "-o", shell.folder / "one.wav")
    words = ("--from", shell.folder / "one.json", "--recipe", "styleid", "--preset", "soft", "--gamma", "0.1,0.2")
    code, out, err = shell.render(*words, "--layers", "0,1")
    assert (code, err) == (0, "")
    got = [settings_of(stem) for stem in sorted(Path(out.strip()).glob("*.wav"))]
    assert [(one["gamma"], one["tau"], one["seed"], one["mix"]) for one in got] == [(0.1, 2, 3, 0), (0.2, 2, 3, 0)]


BAD: list[tuple[list[Any], str]] = [
    (["--gamma", "0.2,7"], "gamma: '7' is not a number from 0 to 1"),
    (["--keep", "0.2,"], "keep: '' is not"),
    (["--keep", "0.2,0.20"], "keep: 0.20 is there twice"),
    (["--alpha", "0.1..0.9"], "FIRST..LAST/COUNT"),
    (["--alpha", "0.1..0.9/1"], "from 2 to 200"),
    (["--alpha", "0.1..0.9/999999999"], "from 2 to 200"),
    (["--alpha", "0.1..nan/3"], "alpha: 'nan' is not"),
    (["--alpha", "0..1/20", "--tau", "1..2/11"], "at most 200 combinations; these are 220"),
    (["--steps", "2,2.5"], "steps: '2.5' is not a whole number"),
    (["--quality", "fast,finest"], "'finest' is not one of fast, balanced, best"),
    (["--method", "injection,conditional"], "has no 'conditional'"),
    (["--layers", "0,1;99"], "it has 0, 1"),
    (["--style-weight", "1;0.5,0.5"], "2 weights for 1 styles"),
    (["--keep", "0.2,0.5", "--prompt", "bells"], "no text encoder"),
    (["--keep", "0.2,0.5", "--prompt-end", "bells"], "needs a prompt"),
    (["--keep", "0.2,0.5", "--start", 5], "hold nothing"),
    (["--seed", "1,2", "--play"], "leave --play out"),
    (["--seed", "1,2", "--plot", "x.png"], "leave --plot out"),
    (["--seed", "1,2", "--name", "{tempo}"], "name: '{tempo}' may hold"),
    (["--seed", "1,2", "--name", "{style}.aiff"], "use -o FILE"),
    (["--seed", "1,2", "-o", "stem.wav"], "needs a folder"),
    (["--seed", "1,2", "-o", "no/such"], "does not exist"),
]


@pytest.mark.parametrize(("words", "says"), BAD)
def test_a_bad_value_anywhere_is_refused_before_anything_is_made(shell: Shell, words: list[Any], says: str) -> None:
    before = shell.files()
    code, out, err = shell.render(*words)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert shell.files() == before


def test_as_many_combinations_as_allowed() -> None:
    assert len(combinations(swept({"alpha": f"0..4/{MOST}"}))) == MOST
    assert (
        swept({"alpha": "0.5:0.9", "layers": "6,7", "style_weight": "1,2", "prompt": "a, b", "no_injection": True})
        == []
    )


def test_what_cannot_be_written_is_known_before_the_first_render(shell: Shell) -> None:
    folder = shell.folder / "out"
    (folder / "riff_hiss_mix-1.wav").mkdir(parents=True)
    code, out, err = shell.render("--mix", "0,1", "-o", folder, "--overwrite")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert {file.name for file in folder.iterdir()} == {"riff_hiss_mix-1.wav"}


def test_what_is_finished_before_a_failure_stays(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    usage, asked = shutil.disk_usage, []

    def filling(folder: Path) -> Any:
        asked.append(folder)
        return usage(folder)._replace(free=0) if len(asked) > 1 else usage(folder)

    monkeypatch.setattr("stylus_audio.stem.shutil.disk_usage", filling)
    folder = shell.folder / "out"
    code, out, err = shell.render("--mix", "0,1", "-o", folder)
    assert (code, out, "no room" in err) == (1, "", True)
    assert {file.name for file in folder.iterdir()} == {"riff_hiss_mix-0.wav", "riff_hiss_mix-0.json"}


def test_a_folder_that_would_stay_empty_goes(shell: Shell) -> None:
    soundfile.write(shell.style, np.zeros(RATE), RATE)
    before = shell.files()
    code, _, err = shell.render("--gamma", "0.2,0.5")
    assert (code, err.count("\n")) == (2, 1)
    assert "silent" in err
    assert shell.files() == before


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C reaches a child process in another way on Windows")
def test_ctrl_c_keeps_complete_stems_alone_and_exits_130(shell: Shell) -> None:
    folder = shell.folder / "out"
    words = ["render", shell.clip, "--style", shell.style, "--model", shell.model, "--gamma", "0..1/200", "-o", folder]
    process = subprocess.Popen(
        [sys.executable, "-m", "stylus_audio", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and len(list(folder.glob("*.json"))) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.endswith("stylus: cancelled\n")
    assert "Traceback" not in err
    names = {file.name for file in folder.iterdir()}
    stems = {name.removesuffix(".wav") for name in names if name.endswith(".wav")}
    assert 2 <= len(stems) < 200
    assert names == {f"{stem}.{end}" for stem in stems for end in ("wav", "json")}
    for stem in stems:
        assert soundfile.info(folder / f"{stem}.wav").frames == soundfile.info(shell.clip).frames


def test_progress_runs_over_the_whole_sweep(tiny: Engine, shell: Shell) -> None:
    said: list[tuple[float, str]] = []
    (shell.folder / "out").mkdir()
    render_sweep(
        tiny, shell.clip, [(shell.style, "hiss")], {"quality": "fast"}, swept({"gamma": "0.2,0.5"}),
        Target(shell.folder / "out"), progress=lambda fraction, stage: said.append((fraction, stage)),
    )  # fmt: skip
    fractions = [fraction for fraction, _ in said]
    assert fractions == sorted(fractions)
    assert (fractions[0], said[-1]) == (0.0, (1.0, "2/2 done"))
    assert {stage.split()[0] for fraction, stage in said if 0 < fraction < 0.5} == {"1/2"}
    assert {stage.split()[0] for fraction, stage in said if fraction > 0.5} == {"2/2"}


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": "0,99"}, {"style_weight": "1,2"}, {"stereo": "mid-side"}, {"start": 9}, {"prompt": "bells"},
        {"method": "conditional"},
    ],
)  # fmt: skip
def test_a_check_raises_what_a_render_would(tiny: Engine, changes: dict[str, object]) -> None:
    content, style = (plucks(0.3), RATE), (noise(0.8), RATE)
    said = []
    for act in (tiny.check, tiny.render):
        with pytest.raises(BadRequest) as error:
            act(content, style, Settings.parse({"quality": "fast", **changes}))
        said.append(str(error.value))
    assert said[0] == said[1]
    tiny.check(content, style)


def sheet(loud: int, lengths: list[int]) -> NDArray[np.floating[Any]]:
    """A contact sheet's pixels, silent but for one cell, the colour bar left out."""
    count = int(np.prod(lengths)) + 1
    panels = [
        mel_panel(f"gamma {number}", noise(0.5) if number == loud else np.zeros((1, RATE // 2), np.float32), RATE, 50)
        for number in range(count)
    ]
    pixels = imread(io.BytesIO(contact_sheet("$one in the style of 音", panels[0], panels[1:], lengths)))
    return np.asarray(pixels)[:, : -round(0.85 * DPI), :3]


@pytest.mark.parametrize(
    ("lengths", "loud"), [([2, 3], 0), ([2, 3], 3), ([2, 3], 4), ([2, 2, 2], 8), ([4], 2), ([4], 4)]
)
def test_each_stem_is_drawn_in_its_cell(lengths: list[int], loud: int) -> None:
    pixels = sheet(loud, lengths)
    places, rows, columns = layout(lengths)
    found = np.argwhere((pixels[:, :, 0] > 0.6) & (pixels[:, :, 2] < 0.75) & (pixels[:, :, 1] < pixels[:, :, 0] - 0.1))
    low, high = found.min(axis=0), found.max(axis=0)
    middle = (low + high) / 2 / pixels.shape[:2]
    assert (int(middle[0] * rows), int(middle[1] * columns)) == places[loud]
    assert np.all((high - low) / pixels.shape[:2] < 1 / np.array([rows, columns]))


def test_a_long_axis_is_wrapped() -> None:
    for lengths in ([200], [2, 100], [100, 2]):
        places, rows, columns = layout(lengths)
        assert len(set(places)) == 201
        assert columns <= 12
        assert {row for row, _ in places} == set(range(rows))
