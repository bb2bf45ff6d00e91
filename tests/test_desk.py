"""What OSC requests are answered, over real sockets and a real queue, with no worker behind it."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import soundfile
from stylus_daemon import desk
from stylus_daemon.desk import ADDRESSES, Desk
from stylus_daemon.events import Events, Listeners
from stylus_daemon.jobs import Jobs
from stylus_daemon.osc_messages import Answer, Argument, Message, Peer, encode
from stylus_daemon.osc_server import PACKET
from stylus_daemon.roots import Roots
from stylus_daemon.worker_messages import Condition, Progress, identity

from stylus_audio import library
from stylus_audio.presets import save_preset
from stylus_audio.settings import Settings
from tests.sounds import RATE, noise, plucks

HERE, OTHER = Peer("udp", "127.0.0.1", 5001), Peer("udp", "127.0.0.1", 5002)


class Idle:
    """Workers that have nothing to do with it but what they say of themselves."""

    def __init__(self) -> None:
        self.conditions = [Condition("idle", "mini", "cpu", (), 2, 300, 1)]
        self.chosen: list[str] = []

    def choose(self, model: str) -> None:
        self.chosen.append(model)


class Bench:
    """A desk with what it needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        soundfile.write(folder / "clip.wav", plucks(0.3).T, RATE)
        soundfile.write(folder / "style.wav", noise(0.3).T, RATE)
        self.jobs = Jobs(folder / "jobs.sqlite", limit=3)
        self.listeners = Listeners()
        self.workers = Idle()
        self.desk = Desk(self.jobs, Roots([folder]), self.workers, self.listeners)
        self.events = Events(self.jobs, self.listeners)
        self._rid = 0

    def send(self, address: str, *arguments: Argument, peer: Peer = HERE) -> tuple[str, tuple[Argument, ...]]:
        answer = self.desk.answer(Message(peer, address, arguments))
        assert answer is not None
        return answer.address, answer.arguments

    def ask(self, address: str, *arguments: Argument, peer: Peer = HERE) -> list[Any]:
        self._rid += 1
        kind, (to, rid, *rest) = self.send(address, self._rid, *arguments, peer=peer)
        assert (kind, to, rid) == ("/stylus/reply", address, self._rid), rest
        return rest

    def refused(self, address: str, *arguments: Argument) -> tuple[str, str]:
        self._rid += 1
        kind, (to, rid, code, text) = self.send(address, self._rid, *arguments)
        assert (kind, to, rid) == ("/stylus/error", address, self._rid)
        return str(code), str(text)

    @property
    def clip(self) -> str:
        return str(self.folder / "clip.wav")

    @property
    def style(self) -> str:
        return str(self.folder / "style.wav")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    one = Bench(tmp_path)
    yield one
    one.jobs.close()


def test_ping_and_status(bench: Bench) -> None:
    version, protocol = bench.ask("/stylus/ping")
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", version)
    assert protocol == 1
    assert bench.ask("/stylus/status") == ["cpu", "mini", "idle", 0, 0, 2, 300, 1]


def test_a_render_is_taken_at_once_with_the_options_of_the_command_line(bench: Bench) -> None:
    (number,) = bench.ask("/stylus/render", bench.clip, bench.style, "keep", 0.5, "no_injection", True, "steps", 4.0)
    request = bench.jobs.get(number).request
    assert request["content"] == bench.clip
    assert request["styles"] == [[bench.style, "style"]]
    assert request["settings"] == {"keep": 0.5, "no_injection": True, "steps": 4.0}
    assert (request["folder"], request["file"]) == (str(bench.folder), "")


def test_presets_and_recipes_are_taken_as_they_are_when_they_are_asked_for(bench: Bench) -> None:
    save_preset("soft", {"keep": 0.9, "mix": 0.5})
    assert bench.ask("/stylus/presets") == [1, 0, "soft"]
    (number,) = bench.ask("/stylus/render", bench.clip, bench.style, "recipe", "styleid", "preset", "soft", "keep", 0.2)
    save_preset("soft", {"keep": 0.1}, overwrite=True)
    request = bench.jobs.get(number).request
    settings = Settings.parse(request["settings"])
    assert (settings.gamma, settings.mix, settings.tau) == (0.2, 0.5, 1.5)
    assert request["dtype"] == "float32"
    assert bench.refused("/stylus/render", bench.clip, bench.style, "recipe", "none")[0] == "bad-request"
    assert bench.refused("/stylus/render", bench.clip, bench.style, "preset", "none")[0] == "not-found"
    assert bench.refused("/stylus/render", bench.clip, bench.style, "dtype", "int8")[0] == "bad-request"


def test_a_place_for_the_stem(bench: Bench) -> None:
    (bench.folder / "out").mkdir()
    for output, folder, file in (("out", "out", ""), ("out/x.wav", "out", "x.wav"), ("y.flac", ".", "y.flac")):
        (number,) = bench.ask("/stylus/render", bench.clip, bench.style, "output", str(bench.folder / output))
        request = bench.jobs.get(number).request
        assert (Path(request["folder"]), request["file"]) == (bench.folder / folder, file)
        bench.jobs.cancel(number)
    code, text = bench.refused("/stylus/render", bench.clip, bench.style, "output", "/etc/x.wav")
    assert code == "not-allowed"
    assert "stylus root add /etc" in text
    assert (
        bench.refused("/stylus/render", bench.clip, bench.style, "output", f"{bench.folder}/no/x.wav")[0]
        == "bad-request"
    )
    for words, said in (
        (("output", f"{bench.folder}/x.mp3"), "x.mp3: a stem is one of .wav"),
        (("output", f"{bench.folder}/x.flac", "sidecar", "embed"), "embed needs a .wav stem"),
    ):
        code, text = bench.refused("/stylus/render", bench.clip, bench.style, *words)
        assert code == "bad-request"
        assert said in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), "bad-request", "content is missing"),
        (("{clip}",), "bad-request", "style is missing"),
        (("{clip}", "{style}", "keep"), "bad-request", "'keep' has none"),
        (("{clip}", "{style}", "keep", 3), "bad-request", "keep: 3 is not a number from 0 to 1"),
        (("{clip}", "{style}", "nonsense", 3), "bad-request", "nonsense is not an option"),
        (("{clip}", "{style}", 3, 3), "bad-request", "option: 3 is not text"),
        (("{clip}", "{style}", "name", "{nothing}"), "bad-request", "name:"),
        (("{clip}", "{style}", "name", "{content:99999999999}"), "bad-request", "name:"),
        (("{clip}", "{style}", "name", "{content.__class__}"), "bad-request", "name:"),
        (("{clip}", "{style}", "sidecar", "no"), "bad-request", "sidecar: 'no' is none of"),
        (("{clip}", "{style}", "model", "unheard-of"), "bad-request", "is none of mini"),
        (("{clip}", "{style}", "model", "/etc"), "not-allowed", "model: '/etc' is outside"),
        ((7, "{style}"), "bad-request", "content: 7 is not text"),
        (("{clip}x", "{style}"), "not-found", "does not exist"),
        (("{clip}", "bells"), "not-found", "the library has none yet"),
        (("{folder}", "{style}"), "bad-request", "is not a file"),
        (("clip.wav", "{style}"), "bad-request", "is not absolute"),
        (("{clip}", "/etc/passwd"), "not-allowed", "outside of the folders"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_words_and_starts_nothing(
    bench: Bench, arguments: tuple[Any, ...], code: str, words: str
) -> None:
    filled = {"{clip}": bench.clip, "{clip}x": bench.clip + "x", "{style}": bench.style, "{folder}": str(bench.folder)}
    said = bench.refused("/stylus/render", *(filled.get(one, one) for one in arguments))
    assert said[0] == code
    assert words in said[1]
    assert bench.jobs.listed() == []


def test_a_hundred_times_the_same_request_is_one_job_and_one_reply(bench: Bench) -> None:
    answers = {bench.send("/stylus/render", "r1", bench.clip, bench.style) for _ in range(100)}
    assert len(answers) == 1
    assert len(bench.jobs.listed()) == 1
    # Also where the daemon has been started anew in between.
    desk = Desk(bench.jobs, Roots([bench.folder]), bench.workers, Listeners())
    again = desk.answer(Message(HERE, "/stylus/render", ("r1", bench.clip, bench.style)))
    assert again is not None
    assert (again.address, again.arguments) in answers
    assert bench.send("/stylus/render", "r1", bench.clip, bench.style, peer=OTHER) not in answers


@pytest.mark.parametrize("rid", [0, ""])
def test_a_plain_button_works(bench: Bench, rid: Argument) -> None:
    for _ in range(2):
        kind, (_, echoed, _) = bench.send("/stylus/render", rid, bench.clip, bench.style)
        assert (kind, echoed) == ("/stylus/reply", rid)
    assert len(bench.jobs.listed()) == 2


def test_a_full_queue_is_busy_and_the_same_request_may_come_again(bench: Bench) -> None:
    numbers = [bench.ask("/stylus/render", bench.clip, bench.style)[0] for _ in range(3)]
    kind, arguments = bench.send("/stylus/render", "late", bench.clip, bench.style)
    assert (kind, arguments[2]) == ("/stylus/error", "busy")
    bench.jobs.cancel(numbers[0])
    assert bench.send("/stylus/render", "late", bench.clip, bench.style)[0] == "/stylus/reply"


def test_other_addresses_are_none_of_ours(bench: Bench) -> None:
    assert bench.desk.answer(Message(HERE, "/live/play", (1,))) is None
    for address in ("/stylus/nothing", "/stylus/*", "/stylus" + "*" * 30, "/stylus/ping/"):
        assert bench.refused(address)[0] == "unknown-address"


def test_the_same_id_at_another_address_is_another_request(bench: Bench) -> None:
    library.add("bells", bench.folder / "style.wav")
    warm = bench.send("/stylus/style/warm", 7, "bells")[1][-1]
    render = bench.send("/stylus/render", 7, bench.clip, "bells")[1][2]
    text = bench.send("/stylus/render", "7", bench.clip, "bells")[1][2]
    assert len({warm, render, text}) == 3
    # After a restart too it is known again.
    again = Desk(bench.jobs, Roots([bench.folder]), bench.workers, bench.listeners)
    answer = again.answer(Message(HERE, "/stylus/render", (7, bench.clip, "bells")))
    assert answer is not None
    assert answer.arguments[2] == render


def test_a_model_outside_of_the_folders_is_not_read_for_a_style_either(bench: Bench) -> None:
    library.add("bells", bench.folder / "style.wav")
    assert bench.refused("/stylus/style/warm", "bells", "model", "/outside/x.safetensors")[0] == "not-allowed"


@pytest.mark.parametrize("rid", [None, b"x", 1.5, "x" * 201])
def test_a_request_without_an_id_is_answered(bench: Bench, rid: Argument) -> None:
    kind, arguments = bench.send("/stylus/ping", rid)
    assert (kind, arguments[1], arguments[2]) == ("/stylus/error", 0, "bad-request")


def test_numbers_are_taken_for_one_another(bench: Bench) -> None:
    (number,) = bench.ask("/stylus/render", bench.clip, bench.style)
    assert bench.ask("/stylus/job/priority", float(number), True) == [number, "queued", 1]
    assert bench.refused("/stylus/job/priority", number, 0.5)[0] == "bad-request"
    assert bench.refused("/stylus/job/priority", number, float("nan"))[0] == "bad-request"


def test_jobs_are_listed_asked_for_and_changed(bench: Bench) -> None:
    (number,) = bench.ask("/stylus/render", bench.clip, bench.style)
    assert bench.ask("/stylus/job/status", number) == [number, "queued", 0.0, "", ""]
    assert bench.ask("/stylus/job/pause", number) == [number, "paused"]
    assert bench.ask("/stylus/job/resume", number) == [number, "queued"]
    job = bench.jobs.claim("w", 30)
    assert job is not None
    bench.desk.progress[number] = Progress(number, 0.25, "diffusion", 2.0)
    assert bench.ask("/stylus/job/status", number) == [number, "running", 0.25, "diffusion", ""]
    bench.jobs.failed(job, "disk-full", "no room")
    assert bench.ask("/stylus/job/status", number)[1:] == ["failed", 0.0, "", "disk-full: no room"]
    assert bench.ask("/stylus/job/list") == [1, 0, number, "failed"]
    assert bench.refused("/stylus/job/cancel", 99) == ("not-found", "there is no job 99")


def test_the_library_over_osc(bench: Bench) -> None:
    assert bench.ask("/stylus/style/add", "bells", bench.style, 0.1) == ["bells", False]
    assert library.style("bells").seconds == pytest.approx(0.2)
    assert bench.ask("/stylus/style/list") == [1, 0, "bells", False]
    bench.workers.conditions = [
        Condition("idle", "mini", "cpu", (identity(Path(library.style("bells").path)),), 1, 1, 1)
    ]
    assert bench.ask("/stylus/style/list") == [1, 0, "bells", True]
    assert bench.ask("/stylus/style/warm", "bells") == ["bells", True, 0]
    (number,) = bench.ask("/stylus/render", bench.clip, "bells")
    assert bench.jobs.get(number).request["styles"] == [[library.style("bells").path, "bells"]]
    assert bench.ask("/stylus/style/remove", "bells") == ["bells"]
    assert bench.refused("/stylus/style/warm", "bells")[0] == "not-found"


def test_a_long_library_comes_in_pages_that_fit_a_packet(bench: Bench) -> None:
    for number in range(90):
        library.add(f"{number:02d}" + "x" * 60, Path(bench.style))
    names: list[str] = []
    while len(names) < 90:
        total, offset, *rest = bench.ask("/stylus/style/list", len(names))
        assert (total, offset) == (90, len(names))
        assert sum(len(str(value)) + 8 for value in rest) < 4000
        names += rest[::2]
    assert len(set(names)) == 90


def test_models(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "mini" in bench.ask("/stylus/models")
    assert bench.ask("/stylus/model") == ["mini"]
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert bench.ask("/stylus/model", "sd15") == ["sd15"]
    assert bench.workers.chosen == ["sd15"]
    assert bench.refused("/stylus/model", "what")[0] == "bad-request"


def test_a_model_that_cannot_be_had_is_refused_at_once(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bench.folder / "model.ckpt").write_bytes(b"")
    for name in ("nowhere", "nowhere.safetensors", "model.ckpt", "clip.wav", "x" * 300):
        assert bench.refused("/stylus/model", str(bench.folder / name))[0] == "no-model"
        assert (
            bench.refused("/stylus/render", bench.clip, bench.style, "model", str(bench.folder / name))[0] == "no-model"
        )
    # Where it may be downloaded, it is.
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert bench.ask("/stylus/model", "sd15") == ["sd15"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    code, text = bench.refused("/stylus/model", "sd15")
    assert code == "no-model"
    assert "stylus models pull sd15" in text
    assert bench.ask("/stylus/model", "mini") == ["mini"]
    assert bench.workers.chosen == ["sd15", "mini"]


def test_a_long_queue_comes_in_pages_and_no_job_of_another_page_is_read(bench: Bench) -> None:
    bench.jobs.limit = 1000
    with bench.jobs.together():
        for _ in range(500):
            bench.jobs.submit({"content": "a.wav"})
    bench.jobs.prioritise(500, 1)
    with closing(sqlite3.connect(bench.folder / "jobs.sqlite", isolation_level=None)) as other:
        other.execute("UPDATE jobs SET request = 'no JSON'")
    found: list[Any] = []
    while len(found) < 1000:
        total, offset, *rest = bench.ask("/stylus/job/list", len(found) // 2)
        assert (total, offset) == (500, len(found) // 2)
        assert len(encode("/stylus/reply", "/stylus/job/list", "x" * 200, total, offset, *rest)) <= PACKET
        found += rest
    assert found[::2] == [500, *range(1, 500)]
    assert set(found[1::2]) == {"queued"}
    assert bench.ask("/stylus/job/list", 500) == [500, 500]


def test_long_messages_are_cut_to_what_a_packet_holds(bench: Bench) -> None:
    (number,) = bench.ask("/stylus/render", bench.clip, bench.style)
    job = bench.jobs.claim("w", 30)
    assert job is not None
    assert list(bench.events.of_changes())
    bench.jobs.failed(job, "internal", "🎹" * 5000)
    answers = [
        bench.send("/stylus/job/status", 1, number),
        bench.send("/stylus/ping", 2, "🎹" * 5000),
        *((event[1], event[2]) for event in bench.events.of_changes()),
    ]
    assert sum(("🎹" * 240) in str(arguments) for _, arguments in answers) == 3
    for address, arguments in answers:
        assert len(encode(address, *arguments)) <= PACKET


def test_replies_are_remembered_up_to_a_number_of_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "REMEMBERED_BYTES", 20_000)
    for number in range(40):
        library.add(f"{number:02d}" + "x" * 50, Path(bench.style))
    first = bench.send("/stylus/style/list", "first")
    bench.workers.conditions = [
        Condition("idle", "mini", "cpu", (identity(Path(library.styles()[0].path)),), 2, 300, 1)
    ]
    # The same request is answered as it was, while that is remembered.
    assert bench.send("/stylus/style/list", "first") == first
    for number in range(10):
        bench.send("/stylus/style/list", number)
    assert bench.send("/stylus/style/list", "first") != first


def test_what_is_no_id_is_not_remembered(bench: Bench) -> None:
    assert bench.send("/stylus/ping", "x" * 300)[0] == "/stylus/error"
    assert not bench.desk._answered


def test_a_request_in_a_file_that_is_too_large_is_refused_in_a_line(bench: Bench) -> None:
    file = bench.folder / "request.json"
    asked = json.dumps({"content": bench.clip, "style": bench.style})
    file.write_text(asked + " " * (2**20 - len(asked)), "utf-8")
    bench.ask("/stylus/render/file", str(file))
    file.write_text(asked + " " * (2**20 - len(asked) + 1), "utf-8")
    said = "request.json is over 1 MiB, which is the most that a request in a file may have"
    assert bench.refused("/stylus/render/file", str(file)) == ("bad-request", said)
    file.write_text("[" * 100_000, "utf-8")
    assert bench.refused("/stylus/render/file", str(file))[0] == "bad-request"


def test_a_request_from_a_file(bench: Bench) -> None:
    file = bench.folder / "request.json"
    file.write_text(json.dumps({"content": bench.clip, "styles": [bench.style, bench.style], "keep": 0.2}), "utf-8")
    (number,) = bench.ask("/stylus/render/file", str(file), "mix", 0.5)
    request = bench.jobs.get(number).request
    assert len(request["styles"]) == 2
    assert request["settings"] == {"keep": 0.2, "mix": 0.5}
    for wrong in ("", "[]", "{}", '{"content": 1, "style": "x"}', '{"content": "/etc/passwd", "styles": "ab"}'):
        file.write_text(wrong, "utf-8")
        assert bench.refused("/stylus/render/file", str(file))[0] in ("bad-request", "not-allowed")


def test_replies_go_to_the_port_that_was_asked_for_on_the_same_host(bench: Bench) -> None:
    asked = (bench.clip, bench.style, "reply_port", 7777)
    answer = bench.desk.answer(Message(HERE, "/stylus/render", ("a", *asked)))
    assert answer is not None
    assert answer.peer == Peer("udp", "127.0.0.1", 7777)
    # As a shell sends it.
    answer = bench.desk.answer(Message(HERE, "/stylus/render", ("text", *asked[:3], "7777")))
    assert answer is not None
    assert (answer.peer, answer.address) == (Peer("udp", "127.0.0.1", 7777), "/stylus/reply")
    bench.ask("/stylus/notify", 1, 8888)
    answer = bench.desk.answer(Message(HERE, "/stylus/ping", ("b",)))
    assert answer is not None
    assert answer.peer == Peer("udp", "127.0.0.1", 8888)
    bench.ask("/stylus/notify", 0)
    answer = bench.desk.answer(Message(HERE, "/stylus/ping", ("c",)))
    assert answer is not None
    assert answer.peer == HERE


@pytest.mark.parametrize("port", [0, 70000, -1, 1.5, "x", "", None, b"7777"])
def test_what_is_no_port_for_replies_is_told(bench: Bench, port: Argument) -> None:
    code, text = bench.refused("/stylus/render", bench.clip, bench.style, "reply_port", port)
    assert code == "bad-request"
    assert text.startswith("reply_port: ")
    assert text.endswith("is not a whole number from 1 to 65535")
    assert bench.jobs.listed() == []


def test_a_file_says_where_replies_go(bench: Bench) -> None:
    file, there = bench.folder / "request.json", Peer("udp", "127.0.0.1", 7777)
    asked: dict[str, object] = {"content": bench.clip, "style": bench.style, "reply_port": 7777}

    def answered(rid: str, *words: Argument) -> Answer:
        file.write_text(json.dumps(asked), "utf-8")
        answer = bench.desk.answer(Message(HERE, "/stylus/render/file", (rid, str(file), *words)))
        assert answer is not None
        return answer

    first = answered("a")
    assert (first.peer, first.address) == (there, "/stylus/reply")
    # Events too.
    assert {event[0] for event in bench.events.of_changes()} == {there}
    # Again it is the same request, also after a new start.
    assert answered("a") == first
    bench.desk.forget()
    assert answered("a") == first
    assert answered("b", "reply_port", 8888).peer == Peer("udp", "127.0.0.1", 8888)
    asked["keep"] = 7
    assert (answered("c").peer, answered("c").arguments[2]) == (there, "bad-request")
    asked["reply_port"] = 70000
    assert (answered("d").peer, answered("d").arguments[2]) == (HERE, "bad-request")


def test_owners_and_registered_clients_hear_what_happens(bench: Bench) -> None:
    bench.ask("/stylus/notify", 1, peer=OTHER)
    (number,) = bench.ask("/stylus/render", bench.clip, bench.style)
    assert set(bench.events.of_changes()) == {(peer, "/stylus/job/state", (number, "queued")) for peer in (HERE, OTHER)}
    job = bench.jobs.claim("w", 30)
    assert job is not None
    assert {event[2] for event in bench.events.of_changes()} == {(number, "running")}
    news = [Progress(number, 0.1, "style", None), Progress(number, 0.2, "diffusion", 3.0)]
    assert set(bench.events.of_progress(news)) == {
        (peer, "/stylus/job/progress", (number, 0.2, "diffusion", 3.0)) for peer in (HERE, OTHER)
    }
    bench.jobs.heartbeat(job, 30, 0.2, "diffusion")
    assert list(bench.events.of_changes()) == []
    bench.jobs.done(job, "/x/stem.wav")
    assert [event[1:] for event in bench.events.of_changes() if event[0] == HERE] == [
        ("/stylus/job/state", (number, "done")), ("/stylus/job/result", (number, 0, "/x/stem.wav")),
    ]  # fmt: skip


def test_leases_of_events_end(bench: Bench) -> None:
    time = [0.0]
    listeners = Listeners(lambda: time[0])
    listeners.add(HERE, OTHER, 10)
    assert listeners.targets() == {OTHER}
    time[0] = 11
    assert (listeners.targets(), listeners.home(HERE)) == (set(), HERE)
    for port in range(1, 101):
        listeners.add(Peer("udp", "127.0.0.1", port), HERE, port)
    assert listeners.home(Peer("udp", "127.0.0.1", 100)) == HERE
    assert listeners.home(Peer("udp", "127.0.0.1", 1)) == Peer("udp", "127.0.0.1", 1)


def test_the_reference_page_is_the_table() -> None:
    page = (Path(__file__).parents[1] / "docs" / "osc.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(/stylus/\S+) rid([^`\n]*)`", page, re.MULTILINE))
    # A table's cell ends at a bar that is not escaped.
    assert not [takes for takes in rows.values() if re.search(r"(?<!\\)\|", takes)]
    assert {address: takes.strip().replace("\\|", "|") for address, takes in rows.items()} == {
        **{address: one.takes for address, one in ADDRESSES.items()},
        # Before the desk.
        "/stylus/token": "TOKEN",
    }
