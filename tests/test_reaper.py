"""The REAPER script, run by Lua against a model of what it uses of REAPER, with a real daemon."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from stylus_audio.places import user_data
from tests.daemons import DEADLINE, Daemon
from tests.programs import need_program
from tests.sounds import RATE, noise

SCRIPT = Path(__file__).parents[1] / "max_for_live" / "senders" / "Stylus_render_selected_items.lua"
MODEL = Path(__file__).parent / "reaper" / "model.lua"


def run(
    file: Path,
    *,
    offset: float,
    rate: float,
    length: float,
    reference: str,
    options: str,
    looped: bool = False,
    items: int = 1,
    gone: str = "",
    markers: int = 0,
) -> list[list[str]]:
    seconds = soundfile.info(file).duration if file.suffix == ".wav" else 1.0
    words = [SCRIPT, file, seconds, offset, rate, length, reference, options, file.parent, int(looped), items, gone]
    words.append(markers)
    done = subprocess.run(
        ["lua5.4", str(MODEL), *map(str, words)], capture_output=True, text=True, check=True, timeout=DEADLINE
    )
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.fixture
def recorded(tmp_path: Path) -> None:
    """An executable, recorded as `stylus doctor` does it; a wrapper, as the tests' Python may have none."""
    need_program("lua5.4")
    wrapper = tmp_path / "stylus here"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m stylus_audio "$@"\n')
    wrapper.chmod(0o755)
    home = user_data()
    home.mkdir(parents=True, exist_ok=True)
    (home / "installed.json").write_text(json.dumps({"executable": str(wrapper)}), "utf-8")


@pytest.fixture
def daemon(tmp_path: Path, tiny_folder: Path) -> Iterator[Daemon]:
    one = Daemon(tmp_path, tiny_folder)
    yield one
    one.end()


@pytest.mark.slow
def test_the_played_segment_becomes_a_take(recorded: None, daemon: Daemon) -> None:
    clip = daemon.folder / "Größe 'one'.wav"
    shutil.copy(daemon.clip, clip)
    before = clip.read_bytes()
    port = f"steps=2 osc={daemon.port}"
    first, second = run(
        clip, offset=0.1, rate=2.0, length=0.2, reference=daemon.style, options=port.replace("osc=", "osc-port=")
    )
    stem = clip.with_name("Größe 'one'_style.wav")
    assert first == ["take", "1", str(clip), "0.1", "2.0", "-2", "0.5", "false"]
    assert second[:3] == ["take", "2", str(stem)]
    assert [float(value) for value in second[3:7]] == [0.0, 2.0, -2.0, 0.5]
    assert second[7] == "true"
    assert soundfile.info(stem).frames == round(0.4 * RATE)
    assert clip.read_bytes() == before
    assert not list(daemon.folder.glob("stylus-*.json"))


@pytest.mark.slow
def test_options_arrive_as_typed(recorded: None, daemon: Daemon) -> None:
    options = (
        f"steps=2 ceiling=-1 loudness=-14 reconstruction=griffin-lim keep_below=90 layers=1,3 osc-port={daemon.port}"
    )
    lines = run(Path(daemon.clip), offset=0, rate=1, length=0.8, reference=daemon.style, options=options)
    assert [line[0] for line in lines] == ["take", "take"], lines
    settings = json.loads(Path(lines[1][2]).with_suffix(".json").read_text("utf-8"))["settings"]
    assert (settings["steps"], settings["ceiling"], settings["loudness"]) == (2, -1, -14)
    assert (settings["reconstruction"], settings["keep_below"], settings["layers"]) == ("griffin-lim", 90, [1, 3])


def test_what_is_no_option_is_told_before_anything_is_sent(recorded: None, tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, noise(0.8).T, RATE)
    lines = run(clip, offset=0, rate=1, length=0.8, reference="", options="steps=2 keep 0.5")
    assert lines[0] == ["message", '"keep" is no option: they are NAME=VALUE, such as keep=0.6.']
    assert [line[0] for line in lines] == ["message", "take"]


@pytest.mark.slow
@pytest.mark.parametrize(("offset", "length"), [(0.3, 2.0), (-0.2, 0.5)])
def test_a_loop_that_goes_over_its_end_plays_on_as_before(
    recorded: None, daemon: Daemon, offset: float, length: float
) -> None:
    options = f"steps=2 osc-port={daemon.port}"
    first, second = run(
        Path(daemon.clip), offset=offset, rate=1, length=length, reference=daemon.style, options=options, looped=True
    )
    assert soundfile.info(second[2]).frames == soundfile.info(daemon.clip).frames
    assert float(second[3]) == float(first[3]) == offset


@pytest.mark.slow
def test_a_loop_that_stays_within_its_file_is_rendered_as_far_as_it_plays(recorded: None, daemon: Daemon) -> None:
    options = f"steps=2 osc-port={daemon.port}"
    _, second = run(
        Path(daemon.clip), offset=0.3, rate=1, length=0.5, reference=daemon.style, options=options, looped=True
    )
    assert soundfile.info(second[2]).frames == round(0.5 * RATE)
    assert float(second[3]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["item", "take"])
def test_what_is_gone_holds_up_no_other_stem(recorded: None, daemon: Daemon, gone: str) -> None:
    options = f"steps=2 osc-port={daemon.port}"
    lines = run(
        Path(daemon.clip), offset=0, rate=1, length=0.8, reference=daemon.style, options=options, items=2, gone=gone
    )
    messages = [text for kind, text, *_ in lines if kind == "message"]
    stems = [file for kind, _, file, *_ in (line for line in lines if line[0] == "take") if file != daemon.clip]
    assert len(stems) == 1
    (lost,) = {str(path) for path in daemon.stems()} - set(stems)
    assert messages == [f"The item is gone. Its stem is {lost}"]


@pytest.mark.slow
def test_what_the_daemon_refuses_is_shown(recorded: None, daemon: Daemon) -> None:
    lines = run(
        Path(daemon.clip), offset=0, rate=1, length=0.5, reference="/etc/passwd", options=f"osc-port={daemon.port}"
    )
    assert lines[0][0] == "message"
    assert "outside of the folders that the daemon may use" in lines[0][1]
    assert [line[0] for line in lines] == ["message", "take"]


def test_without_a_record_it_says_what_to_do(tmp_path: Path) -> None:
    need_program("lua5.4")
    lines = run(tmp_path / "clip.mid", offset=0, rate=1, length=1, reference="", options="")
    assert lines[0] == ["message", "Run `stylus doctor` once in a terminal, so that REAPER can find Stylus."]


def test_a_midi_item_is_left_out(recorded: None, tmp_path: Path) -> None:
    assert os.environ["STYLUS_HOME"]
    lines = run(tmp_path / "clip.mid", offset=0, rate=1, length=1, reference="", options="")
    assert lines[0] == ["message", "Left out: a MIDI item: render it to audio first"]


def test_an_item_with_stretch_markers_is_left_out(recorded: None, tmp_path: Path) -> None:
    """Its length does not say what it plays of its file."""
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, noise(0.8).T, RATE)
    lines = run(clip, offset=0, rate=1, length=0.8, reference="", options="", markers=2)
    assert lines[0] == ["message", "Left out: an item with stretch markers: glue it first"]
    assert [line[0] for line in lines] == ["message", "take"]
