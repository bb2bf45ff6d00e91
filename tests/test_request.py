"""A job in words: the command line and the OSC message mean the same job when they are read again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import soundfile
from stylus_daemon.desk import Desk
from stylus_daemon.events import Listeners
from stylus_daemon.jobs import Jobs
from stylus_daemon.osc_messages import Message, Peer
from stylus_daemon.request import RenderJob, as_command, as_message
from stylus_daemon.roots import Roots
from typer.testing import CliRunner

from stylus_audio import library
from stylus_audio.cli import app
from stylus_audio.commands import RenderRequest
from stylus_audio.settings import Settings
from tests.sounds import RATE, noise, plucks
from tests.test_desk import Idle

ASKED: list[dict[str, Any]] = [
    {},
    {"keep": 0.5, "amount": "0:1.5", "mix": 0.25, "keep_below": 120, "transients": 1},
    {"style_weight": [0.3, 0.7], "layers": "6-7", "no_injection": True, "init": "none"},
    {"injection": False, "loudness": "match", "ceiling": -1, "bits": "24", "start": "100 samples", "end": 1.5},
    {"prompt": 'a "bell", it\'s $HOME `x`', "seed": 7, "stereo": "mid-side"},
]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    for name, audio in (("clip é", plucks(0.3)), ("style $x", noise(0.3))):
        soundfile.write(tmp_path / f"{name}.wav", audio.T, RATE)
    library.add("bells 2", tmp_path / "style $x.wav")
    jobs = Jobs(tmp_path / "jobs.sqlite")
    return Desk(jobs, Roots([tmp_path]), Idle(), Listeners())


def submitted(desk: Desk, words: list[Any]) -> RenderJob:
    answer = desk.answer(Message(Peer("udp", "127.0.0.1", 1), "/stylus/render", tuple(words)))
    assert answer is not None
    assert answer.address == "/stylus/reply", answer.arguments
    return RenderJob.from_dict(desk.jobs.get(int(str(answer.arguments[2]))).request)


def words_of(message: str) -> list[Any]:
    """A message's arguments behind its request id."""
    _, _, rest = message.split(" ", 2)
    words, decoder = [], json.JSONDecoder()
    while rest:
        word, end = decoder.raw_decode(rest)
        words.append(word)
        rest = rest[end:].lstrip()
    return words


@pytest.mark.parametrize("values", ASKED, ids=lambda values: ",".join(values) or "none")
def test_an_osc_message_asks_for_the_same_job(desk: Desk, tmp_path: Path, values: dict[str, Any]) -> None:
    flat = [",".join(map(str, one)) if isinstance(one, list) else one for pair in values.items() for one in pair]
    first = submitted(
        desk, [0, str(tmp_path / "clip é.wav"), "bells 2", "style", str(tmp_path / "style $x.wav"), *flat]
    )
    assert [name for _, name in first.styles] == ["bells 2", "style $x"]
    address, rid, _ = as_message(first).split(" ", 2)
    # Sent twice it is to be rendered twice.
    assert (address, rid) == ("/stylus/render", "0")
    again = submitted(desk, [0, *words_of(as_message(first))])
    assert (again.content, again.styles, again.folder) == (first.content, first.styles, first.folder)
    assert Settings.parse(again.settings) == Settings.parse(first.settings)


def test_an_osc_message_says_where_the_stem_goes_and_what_comes_with_it(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "out é").mkdir()
    asked = ["recipe", "styleid", "name", "{style} of {content}", "sidecar", "none", "overwrite", True]
    for output in ("out é", "out é/stem.flac"):
        first = submitted(desk, [0, str(tmp_path / "clip é.wav"), "bells 2", *asked, "output", str(tmp_path / output)])
        assert submitted(desk, [0, *words_of(as_message(first))]) == first
    # What was not asked for is not said.
    plain = submitted(desk, [0, str(tmp_path / "clip é.wav"), "bells 2"])
    assert len(words_of(as_message(plain))) == 2


def test_lines_from_a_file_are_said_as_lines(tmp_path: Path) -> None:
    job = RenderJob(str(tmp_path / "clip.wav"), ((str(tmp_path / "a.wav"), "a"),), {"keep": [0.2, 0.8], "alpha": 1})
    assert "--keep 0.2:0.8 --alpha 1" in as_command(job)
    assert '"keep" "0.2:0.8" "alpha" 1' in as_message(job)


@pytest.mark.parametrize("values", ASKED, ids=lambda values: ",".join(values) or "none")
def test_a_command_line_means_the_same_settings(
    desk: Desk, tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[RenderRequest] = []
    flat = [",".join(map(str, one)) if isinstance(one, list) else one for pair in values.items() for one in pair]
    job = submitted(desk, [0, str(tmp_path / "clip é.wav"), "bells 2", *flat, "model", "mini"])
    words = shlex.split(as_command(job))
    assert words[:2] == ["stylus", "render"]
    monkeypatch.setattr("stylus_audio.commands.run_render", taken.append)
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    (request,) = taken
    assert (request.content, request.styles, request.model) == (Path(job.content), ("bells 2",), "mini")
    assert Settings.parse(request.asked) == Settings.parse(job.settings)
