"""Watched folders: what is whole is rendered once, what is wrong is named, and nothing of the user's is harmed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import soundfile
from stylus_daemon import watcher
from stylus_daemon.jobs import Job, Jobs
from stylus_daemon.request import RenderJob
from stylus_daemon.watch_events import run
from stylus_daemon.watch_settings import Watch, check_apart
from stylus_daemon.watcher import PATIENCE, RESCAN, Watcher

from stylus_audio import files, library
from stylus_audio.audio import sha256
from stylus_audio.errors import BadRequest, NotFound
from stylus_audio.presets import save_preset
from tests.sounds import RATE, noise


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A watched folder with a queue, and a worker played by hand."""

    def __init__(self, folder: Path) -> None:
        self.base = folder
        self.root = folder / "in"
        self.out = folder / "in-stylus"
        self.root.mkdir()
        self.style = folder / "bells.wav"
        soundfile.write(self.style, noise(0.1, seed=9).T, RATE)
        self.clock = Clock()
        self.jobs = Jobs(folder / "home" / "jobs.db")
        self.watcher = self.start()

    def start(self, **changes: Any) -> Watcher:
        """A new watcher, as after a restart."""
        self.watcher = Watcher(Watch(self.root, **{"styles": (str(self.style),), **changes}), self.jobs, self.clock)
        return self.watcher

    def clip(self, name: str = "riff.wav", seed: int = 0) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise(0.05, seed=seed).T, RATE)
        return path

    def scan(self, times: int = 3, seconds: float = 3.0) -> float:
        """Look several times, with time between; returns the last wish for the next look."""
        wait = 0.0
        for _ in range(times):
            wait = self.watcher.scan()
            self.clock.now += seconds
        return wait

    def claim(self) -> Job:
        job = self.jobs.claim("worker", 60)
        assert job is not None
        return job

    def work(self) -> list[str]:
        """Do all that waits; returns the stems' paths below the output."""
        made = []
        while job := self.jobs.claim("worker", 60):
            request = RenderJob.from_dict(job.request)
            stem = request.target / request.file
            assert request.target.is_dir()
            stem.write_bytes(b"stem")
            self.jobs.done(job, str(stem))
            made.append(stem.relative_to(self.out).as_posix())
        return made

    def fail(self, code: str = "internal", message: str = "it broke") -> None:
        self.jobs.failed(self.claim(), code, message)

    def waiting(self) -> int:
        return self.jobs.count("queued")

    def error(self, name: str = "riff.wav") -> str:
        return (self.out / "failed" / f"{name}.error.txt").read_text("utf-8")

    def errors(self) -> list[str]:
        failed = self.out / "failed"
        return sorted(path.relative_to(failed).as_posix() for path in failed.rglob("*.txt"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.jobs.close()


def grow(path: Path) -> None:
    """Change a clip to another that is as good."""
    soundfile.write(path, noise(0.07, seed=path.stat().st_size).T, RATE)


def test_a_clip_becomes_one_job(bench: Bench) -> None:
    clip = bench.clip()
    assert 0 < bench.watcher.scan() <= 2
    assert bench.waiting() == 0
    bench.scan()
    job = bench.claim()
    assert job.client == ""
    assert RenderJob.from_dict(job.request) == RenderJob(
        str(clip), ((str(bench.style), "bells"),), {}, "mini", folder=str(bench.out), file="riff_bells.wav"
    )
    bench.jobs.done(job, str(bench.out / "riff_bells.wav"))
    assert bench.scan(5) == RESCAN
    assert bench.waiting() == 0
    assert clip.is_file()


def test_originals_are_only_read(bench: Bench) -> None:
    clip = bench.clip()
    clip.chmod(0o444)
    before = clip.read_bytes(), clip.stat().st_mtime_ns, clip.stat().st_ctime_ns
    bench.scan()
    bench.work()
    bench.scan()
    assert (clip.read_bytes(), clip.stat().st_mtime_ns, clip.stat().st_ctime_ns) == before


def test_a_file_that_grows_waits(bench: Bench) -> None:
    clip = bench.clip()
    for _ in range(5):
        bench.scan(1)
        grow(clip)
    assert bench.waiting() == 0
    bench.scan()
    assert bench.work() == ["riff_bells.wav"]


@pytest.mark.parametrize("declared", [0, 2**20, 2**32 - 1])
def test_a_header_that_promises_more_or_nothing_waits(bench: Bench, declared: int) -> None:
    clip = bench.clip()
    whole = clip.read_bytes()
    at = whole.index(b"data") + 4
    clip.write_bytes(whole[:at] + struct.pack("<I", declared) + whole[at + 4 :])
    bench.scan(5)
    assert (bench.waiting(), bench.errors()) == (0, [])
    clip.write_bytes(whole)
    bench.scan()
    assert bench.work() == ["riff_bells.wav"]


def test_a_stream_that_has_come_to_its_end_is_rendered(bench: Bench) -> None:
    clip = bench.clip()
    whole = clip.read_bytes()
    at = whole.index(b"data") + 4
    clip.write_bytes(whole[:at] + struct.pack("<I", 2**32 - 1) + whole[at + 4 :])
    bench.scan(5)
    bench.clock.now += PATIENCE
    bench.scan(2)
    assert (bench.work(), bench.errors()) == (["riff_bells.wav"], [])


@pytest.mark.parametrize("name", ["riff.wav", "riff.flac", "riff.aiff", "riff.w64", "riff.caf", "riff.rf64"])
def test_a_copy_that_stalled_waits_and_then_fails(bench: Bench, name: str) -> None:
    clip = bench.clip(name)
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) // 2])
    assert bench.scan(5) <= PATIENCE
    assert bench.errors() == []
    bench.clock.now += PATIENCE
    bench.scan(2)
    assert bench.error(name).startswith("stylus: unsupported-audio: riff.")
    assert bench.error(name).count("\n") == 1
    clip.write_bytes(whole)
    bench.scan()
    assert bench.work() == ["riff_bells.wav"]
    bench.scan(1)
    assert bench.errors() == []


def test_a_stem_that_was_rendered_into_the_folder_is_no_clip(bench: Bench) -> None:
    about = {"schema": 1, "content": {}, "styles": [], "stem": "riff_glass.wav"}
    bench.clip("riff_glass.wav", seed=1)
    (bench.root / "riff_glass.json").write_text(json.dumps(about), "utf-8")
    bench.clip("riff.wav")
    # Other files of its name, and of another program's.
    (bench.root / "riff.json").write_text("{}", "utf-8")
    bench.clip("riff_glass.flac", seed=2)
    (bench.root / "deep.json").write_text("[" * 200_000, "utf-8")
    bench.clip("deep.wav", seed=3)
    bench.scan()
    assert sorted(bench.work()) == ["deep_bells.wav", "riff_bells.wav", "riff_glass_bells.wav"]
    bench.scan()
    assert bench.work() == []
    # A clip that is bounced over it is one.
    later = time.time() + 60
    os.utime(bench.clip("riff_glass.wav", seed=4), (later, later))
    bench.scan()
    assert len(bench.work()) == 1


def test_what_is_no_audio_fails_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    (bench.root / "text.wav").write_text("no audio", "utf-8")
    bench.scan()
    bench.clock.now += PATIENCE
    bench.scan()
    assert "text.wav is not audio" in bench.error("text.wav")
    (bench.out / "failed" / "text.wav.error.txt").unlink()
    bench.scan()
    assert bench.errors() == []
    assert len([record for record in caplog.records if "text.wav" in record.getMessage()]) == 1


@pytest.fixture
def folder_of_a_user(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose owner we are, and home in it; not root, who may read everything."""
    with TemporaryDirectory() as name:
        user, folder = os.geteuid(), Path(name)
        monkeypatch.setenv("STYLUS_HOME", str(folder / "home"))
        if user == 0:
            os.chown(folder, 65534, -1)
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(user)


@pytest.mark.skipif(os.name == "nt", reason="no user ids")
def test_a_right_that_is_given_later(folder_of_a_user: Path) -> None:
    bench = Bench(folder_of_a_user)
    with closing(bench.jobs):
        clip = bench.clip()
        clip.chmod(0)
        bench.scan()
        bench.clock.now += PATIENCE
        bench.scan()
        assert "not-allowed" in bench.error()
        assert bench.waiting() == 0
        clip.chmod(0o644)
        bench.scan()
        assert bench.work() == ["riff_bells.wav"]


def test_a_file_that_is_renamed_into_place(bench: Bench) -> None:
    part = bench.clip().rename(bench.root / "riff.wav.part")
    bench.scan(5)
    assert bench.waiting() == 0
    part.rename(bench.root / "riff.wav")
    assert bench.scan(1) <= 2
    assert bench.waiting() == 0
    bench.scan()
    assert bench.work() == ["riff_bells.wav"]


def test_a_file_that_is_replaced_while_it_is_hashed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = bench.clip()
    real = sha256

    def replaced(path: Path) -> str:
        digest = real(path)
        if path == clip:
            grow(clip)
        return digest

    monkeypatch.setattr("stylus_daemon.watch_looks.sha256", replaced)
    bench.scan(6)
    assert bench.waiting() == 0
    monkeypatch.setattr("stylus_daemon.watch_looks.sha256", real)
    bench.scan()
    assert bench.work() == ["riff_bells.wav"]


def test_a_header_that_shrinks_under_the_reader(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def shrunk(_: Path) -> None:
        raise struct.error("unpack requires a buffer of 8 bytes")

    bench.clip()
    with monkeypatch.context() as patch:
        patch.setattr(watcher, "check_clip", shrunk)
        bench.scan(4)
    assert bench.waiting() == 0
    bench.scan(1)
    assert bench.waiting() == 1


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), PermissionError(errno.EACCES, "denied")])
def test_a_disk_that_fails_ends_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    bench.clip()

    def broken(_: Path) -> str:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("stylus_daemon.watch_looks.sha256", broken)
        bench.scan()
        bench.clock.now += PATIENCE
        bench.scan(2)
        assert "not-allowed: riff.wav cannot be read" in bench.error()
    bench.scan()
    assert bench.work() == ["riff_bells.wav"]


def test_a_file_that_vanishes_while_it_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = bench.clip()
    other = bench.clip("other.wav", 1)
    bench.scan(1)
    real = sha256

    def gone(path: Path) -> str:
        clip.unlink(missing_ok=True)
        return real(path)

    monkeypatch.setattr("stylus_daemon.watch_looks.sha256", gone)
    bench.scan()
    assert other.is_file()
    assert bench.work() == ["other_bells.wav"]


@pytest.mark.parametrize(
    "name",
    [".riff.wav", "~riff.wav", "~$riff.wav", "riff.wav.tmp", "riff.wav.part", "riff.wav.partial", "riff.wav.crdownload",
     "riff.wav.asd", "riff.wav.reapeaks", "riff.txt", "riff.mid", "riff", ".hidden/riff.wav"],
)  # fmt: skip
def test_names_that_are_left_alone(bench: Bench, name: str) -> None:
    source = bench.clip("source.wav")
    target = bench.root / name
    target.parent.mkdir(exist_ok=True)
    source.rename(target)
    bench.scan(2)
    bench.clock.now += PATIENCE
    bench.scan(2)
    assert (bench.waiting(), bench.errors()) == (0, [])


def test_what_is_no_clip_is_left_alone(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    (bench.root / "empty.wav").touch()
    (bench.root / "folder.wav").mkdir()
    (bench.root / "notes.txt").write_text("mine", "utf-8")
    elsewhere = bench.base / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(bench.style, elsewhere / "far.wav")
    (bench.root / "link.wav").symlink_to(bench.style)
    (bench.root / "broken.wav").symlink_to(bench.base / "none")
    (bench.root / "linked").symlink_to(elsewhere, target_is_directory=True)
    (bench.root / "round").symlink_to(bench.root, target_is_directory=True)
    if hasattr(os, "mkfifo"):
        os.mkfifo(bench.root / "pipe.wav")
    bench.scan()
    bench.clock.now += PATIENCE
    bench.scan()
    assert (bench.waiting(), bench.errors()) == (0, [])
    assert [record.getMessage() for record in caplog.records if "1 files" in record.getMessage()] != []
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("riff.mp3", "MPEG_LAYER_III"), ("riff.flac", "PCM_24"), ("RIFF.WAV", "FLOAT"), ("riff.ogg", "VORBIS"),
     ("riff.aif", "PCM_16")],
)  # fmt: skip
def test_every_format(bench: Bench, name: str, subtype: str) -> None:
    format = "AIFF" if name.endswith("aif") else None
    soundfile.write(bench.root / name, noise(0.5).T, RATE, subtype=subtype, format=format)
    bench.scan()
    assert bench.work() == [f"{Path(name).stem}_bells.wav"]


def test_deep_folders_are_mirrored(bench: Bench) -> None:
    deep = "/".join(["a", "b b", "ç", *"defghij"])
    bench.clip(f"{deep}/riff.wav")
    bench.clip("riff.wav", 1)
    (bench.root / "a" / "broken.wav").write_text("no audio", "utf-8")
    bench.scan()
    bench.clock.now += PATIENCE
    bench.scan(2)
    assert sorted(bench.work()) == [f"{deep}/riff_bells.wav", "riff_bells.wav"]
    assert bench.errors() == ["a/broken.wav.error.txt"]


def test_an_output_that_was_tidied_up_stays_so(bench: Bench) -> None:
    bench.clip("drums/riff.wav")
    bench.scan()
    bench.work()
    shutil.rmtree(bench.out / "drums")
    bench.scan()
    bench.start()
    bench.scan()
    assert bench.waiting() == 0
    assert not (bench.out / "drums").exists()


@pytest.mark.parametrize(
    "name", ["жёлтый 黄色 🎹.wav", "e\u0301.wav", "é" * 120 + ".wav", "x" * 251 + ".wav", "'\"$`.wav", "%s{}.wav"]
)
def test_unusual_names(bench: Bench, name: str) -> None:
    bench.clip(name)
    bench.scan()
    assert bench.waiting() == 1
    made = bench.work()[0]
    assert len(made.encode()) <= 200
    assert made.startswith(name[0])
    (bench.root / name).write_text("no audio", "utf-8")
    bench.scan()
    bench.clock.now += PATIENCE
    bench.scan(2)
    assert len(bench.errors()) == 1
    bench.clip(name, 5)
    bench.scan()
    bench.work()
    bench.scan(1)
    assert bench.errors() == []


def test_two_long_names_are_two_stems(bench: Bench) -> None:
    bench.clip("x" * 230 + "a.wav")
    bench.clip("x" * 230 + "b.wav")
    bench.scan()
    assert len(set(bench.work())) == 2


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_a_name_that_is_no_text(bench: Bench) -> None:
    (bench.root / os.fsdecode(b"riff\xff.wav")).write_bytes(bench.style.read_bytes())
    bench.scan()
    bench.clock.now += PATIENCE
    bench.scan(2)
    assert bench.waiting() == 0
    assert len(list((bench.out / "failed").iterdir())) == 1


def test_sidecar_over_folder_over_watch(bench: Bench) -> None:
    bench.start(values={"gamma": 0.1, "amount": "0.2", "seed": 1}, model="sd15")
    (bench.root / "stylus.toml").write_text('alpha = 0.3\nseed = 2\nmodel = "sd21"\nstyle = "../other.wav"\n', "utf-8")
    (bench.root / "one.stylus.json").write_text(
        '\ufeff{"seed": 3, "styles": ["../bells.wav", "../other.wav"]}', "utf-8"
    )
    (bench.root / "sub").mkdir()
    (bench.root / "sub" / "two.wav.stylus.json").write_text('{"no-injection": true, "layers": "6-8"}', "utf-8")
    shutil.copy(bench.style, bench.base / "other.wav")
    bench.clip("one.wav")
    bench.clip("sub/two.wav")
    bench.scan()
    one, two = (RenderJob.from_dict(job.request) for job in bench.jobs.listed())
    assert one.settings == {"gamma": 0.1, "alpha": 0.3, "seed": 3}
    assert [name for _, name in one.styles] == ["bells", "other"]
    assert one.model == "sd21"
    assert two.settings == {"gamma": 0.1, "alpha": 0.3, "seed": 2, "injection": False, "layers": [6, 7, 8]}
    assert two.styles == ((str(bench.base / "other.wav"), "other"),)
    assert (one.file, two.file) == ("one_bells+other.wav", "two_other.wav")


def test_weights_stay_with_their_styles(bench: Bench) -> None:
    bench.start(styles=(str(bench.style), str(bench.style)), values={"style_weight": "0.7,0.3"})
    (bench.root / "riff.stylus.json").write_text(json.dumps({"style": str(bench.style)}), "utf-8")
    bench.clip()
    bench.scan()
    assert RenderJob.from_dict(bench.claim().request).settings == {}


def test_a_style_of_the_library(bench: Bench) -> None:
    bench.start(styles=("gold",))
    bench.clip()
    bench.scan()
    assert bench.waiting() == 0
    assert "not-found: style: 'gold' is no file" in bench.error()
    library.add("gold", bench.style)
    bench.scan()
    assert bench.work() == ["riff_gold.wav"]
    bench.scan(1)
    assert bench.errors() == []


def test_a_style_that_is_still_being_written_is_waited_for(bench: Bench) -> None:
    bench.clip()
    for _ in range(4):
        bench.scan(1)
        grow(bench.style)
    assert bench.waiting() == 0
    bench.scan()
    assert bench.waiting() == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not an object"),
        ('{"gamma": 7}', "gamma: 7 is not a number from 0 to 1"),
        ('{"output": "/tmp/x.wav"}', "output is not an option"),
        ('{"name": "../../x"}', "name is not an option"),
        ('{"folder": "/tmp"}', "folder is not an option"),
        ('{"overwrite": true}', "overwrite is not an option"),
        ('{"sidecar": "none"}', "sidecar is not an option"),
        ('{"style": 7}', "style: a name or a file"),
        ('{"style": "a", "styles": ["b"]}', "not both"),
        ('{"style": "none/here.wav"}', "is not a file"),
        ('{"style": "~nobody-of-that-name/x.wav"}', "is not a file"),
        ('{"model": 3}', "model: a name is wanted"),
        ('{"seed": 1' + "0" * 400 + "}", "seed"),
        ("[" * 100_000, "is not JSON"),
        ("\x00\xff", "is not JSON"),
        ('{"preview": 1, "start": 1}', "preview chooses its own passage"),
    ],
)
def test_bad_settings_fail_in_one_line_and_heal(bench: Bench, text: str, said: str) -> None:
    sidecar = bench.root / "riff.stylus.json"
    sidecar.write_bytes(text.encode("latin-1"))
    bench.clip()
    bench.scan()
    assert bench.waiting() == 0
    assert said in bench.error()
    assert bench.error().count("\n") == 1
    sidecar.write_text("{}", "utf-8")
    bench.scan()
    assert bench.work() == ["riff_bells.wav"]
    bench.scan(1)
    assert bench.errors() == []


def test_a_bad_folder_file_heals(bench: Bench) -> None:
    bench.clip()
    bench.scan()
    bench.work()
    (bench.root / "stylus.toml").write_text("gamma = ", "utf-8")
    bench.scan()
    assert "stylus.toml is not TOML" in bench.error()
    (bench.root / "stylus.toml").unlink()
    bench.scan()
    assert (bench.waiting(), bench.errors()) == (0, [])
    (bench.root / "stylus.toml").write_text("gamma = 0.5", "utf-8")
    bench.scan()
    assert bench.waiting() == 1


def test_a_clip_without_a_style(bench: Bench) -> None:
    bench.start(styles=())
    bench.clip()
    bench.scan()
    assert bench.waiting() == 0
    assert "no style is given" in bench.error()
    assert "stylus.toml" in bench.error()
    (bench.root / "stylus.toml").write_text("style = '../bells.wav'", "utf-8")
    bench.scan()
    assert bench.work() == ["riff_bells.wav"]


def test_error_files_of_the_user_are_his(bench: Bench) -> None:
    bench.start(styles=())
    mine = bench.out / "failed" / "riff.wav.error.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine", "utf-8")
    bench.clip()
    bench.scan()
    assert bench.errors() == ["riff.wav.error.txt", "riff.wav.error_2.txt"]
    bench.start()
    bench.scan()
    bench.work()
    bench.scan(1)
    assert bench.errors() == ["riff.wav.error.txt"]
    assert mine.read_text("utf-8") == "mine"


def test_nothing_is_rendered_twice(bench: Bench) -> None:
    clip = bench.clip()
    bench.scan()
    assert bench.work() == ["riff_bells.wav"]
    os.utime(clip)
    bench.scan()
    clip.rename(bench.base / "away.wav")
    bench.scan(1)
    (bench.base / "away.wav").rename(clip)
    bench.scan()
    shutil.copy(clip, bench.base / "copy.wav")
    (bench.base / "copy.wav").replace(clip)
    bench.scan()
    assert bench.waiting() == 0
    shutil.copy(clip, bench.root / "other.wav")
    bench.scan()
    assert bench.work() == ["other_bells.wav"]
    grow(clip)
    bench.scan()
    assert bench.work() == ["riff_bells.wav"]


@pytest.mark.parametrize("state", ["queued", "running", "done"])
def test_a_restart_renders_nothing_again(bench: Bench, state: str) -> None:
    bench.clip()
    bench.scan()
    if state == "running":
        job = bench.claim()
    elif state == "done":
        bench.work()
        (bench.out / "riff_bells.wav").unlink()
    bench.start()
    bench.scan()
    assert len(bench.jobs.listed()) == 1
    if state == "running":
        bench.jobs.failed(job, "internal", "it broke")
        bench.scan(1)
        assert "internal: it broke" in bench.error()


def test_two_watchers_of_one_folder(bench: Bench) -> None:
    bench.clip()
    other = Watcher(bench.watcher.watch, Jobs(bench.base / "home" / "jobs.db"), bench.clock)
    for _ in range(3):
        bench.watcher.scan()
        other.scan()
        bench.clock.now += 3
    assert len(bench.jobs.listed()) == 1
    other._jobs.close()


def test_the_same_clip_in_two_watched_folders(bench: Bench) -> None:
    bench.clip()
    shutil.copytree(bench.root, bench.base / "second")
    bench.scan()
    bench.work()
    bench.watcher = Watcher(Watch(bench.base / "second", styles=(str(bench.style),)), bench.jobs, bench.clock)
    bench.scan()
    assert bench.waiting() == 1


def test_what_was_done_long_ago_is_not_done_again(bench: Bench) -> None:
    bench.clip()
    bench.scan()
    bench.work()
    bench.jobs.prune(-10)
    bench.start()
    bench.scan()
    assert bench.waiting() == 0


def test_a_settings_file_may_name_a_preset(bench: Bench) -> None:
    save_preset("soft", {"gamma": 0.25, "tau": 2})
    bench.clip()
    (bench.root / "riff.stylus.json").write_text(
        '{"preset": "soft", "model": null, "recipe": null, "keep": 0.5}', "utf-8"
    )
    bench.scan()
    assert RenderJob.from_dict(bench.claim().request).settings == {"gamma": 0.5, "tau": 2.0}
    bench.clip("other.wav", seed=1)
    (bench.root / "other.stylus.json").write_text('{"preset": "loud"}', "utf-8")
    bench.scan()
    assert "other.stylus.json: preset: 'loud' is not there" in bench.error("other.wav")


def test_a_settings_file_may_name_a_recipe_and_a_precision(bench: Bench) -> None:
    (bench.root / "stylus.toml").write_text('recipe = "styleid"\nkeep = 0.5', "utf-8")
    bench.clip()
    bench.clip("other.wav", seed=1)
    (bench.root / "other.stylus.json").write_text('{"mix": 0.25, "dtype": "bfloat16"}', "utf-8")
    bench.scan()
    found = {}
    for _ in range(2):
        request = RenderJob.from_dict(bench.claim().request)
        found[Path(request.content).name] = request
    assert {name: request.dtype for name, request in found.items()} == {"riff.wav": "float32", "other.wav": "bfloat16"}
    assert [found[name].settings["gamma"] for name in found] == [0.5, 0.5]
    assert [found[name].settings["tau"] for name in found] == [1.5, 1.5]
    assert found["other.wav"].settings["mix"] == 0.25


def test_whoever_waits_for_a_stem_comes_before_a_folder(bench: Bench) -> None:
    bench.clip()
    bench.scan()
    asked = bench.jobs.submit({"content": "x", "styles": []}, "somebody")
    assert bench.claim().id == asked.id


def test_a_failed_job_waits_for_a_change(bench: Bench) -> None:
    clip = bench.clip()
    bench.scan()
    bench.fail("disk-full", "no room\nleft")
    bench.scan()
    assert bench.error() == "stylus: disk-full: no room left; make room, and save the clip again to try again\n"
    assert bench.waiting() == 0
    os.utime(clip)
    bench.scan()
    assert bench.work() == ["riff_bells.wav"]
    bench.scan(1)
    assert bench.errors() == []


def test_a_cancelled_job_stays_so(bench: Bench) -> None:
    clip = bench.clip()
    bench.scan()
    bench.jobs.cancel(bench.jobs.listed()[0].id)
    bench.scan()
    bench.start()
    bench.scan()
    assert (bench.waiting(), bench.errors()) == (0, [])
    later = time.time() + 100
    os.utime(clip, (later, later))
    bench.scan()
    assert bench.waiting() == 1


def test_a_clip_that_changes_while_it_is_rendered(bench: Bench) -> None:
    bench.start(move=True)
    clip = bench.clip()
    bench.scan()
    job = bench.claim()
    grow(clip)
    bench.jobs.done(job, "x")
    bench.scan(1)
    assert clip.is_file()
    bench.scan()
    bench.work()
    bench.scan(1)
    assert not clip.exists()


def test_a_full_queue_is_waited_for(bench: Bench) -> None:
    bench.jobs.limit = 2
    for number in range(5):
        bench.clip(f"{number}.wav", number)
    assert bench.scan() < RESCAN
    made: list[str] = []
    for _ in range(3):
        made += bench.work()
        bench.scan(1)
    assert sorted(made) == [f"{number}_bells.wav" for number in range(5)]


def test_large_files_take_turns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "HASHED", 1)
    for number in range(3):
        bench.clip(f"{number}.wav", number)
    assert bench.scan(2) == 0
    assert bench.waiting() == 1
    bench.scan(2)
    assert bench.waiting() == 3


def day(bench: Bench) -> Path:
    return bench.out / "originals" / time.strftime("%Y-%m-%d", time.localtime(bench.clock()))


def test_originals_are_moved_when_they_are_done(bench: Bench) -> None:
    bench.start(move=True)
    for number, name in enumerate(["riff.wav", "sub/riff.wav"]):
        bench.clip(name, number)
    (bench.root / "riff.stylus.json").write_text('{"seed": 1}', "utf-8")
    bench.scan()
    assert (bench.root / "riff.wav").exists()
    content = (bench.root / "riff.wav").read_bytes()
    bench.work()
    bench.scan(1)
    assert (day(bench) / "riff.wav").read_bytes() == content
    assert sorted(path.name for path in day(bench).iterdir()) == ["riff.stylus.json", "riff.wav", "sub"]
    assert [path.name for path in bench.root.iterdir()] == ["sub"]
    assert list((bench.root / "sub").iterdir()) == []
    # The same again is known, and goes the same way.
    (bench.root / "riff.wav").write_bytes(content)
    (bench.root / "riff.stylus.json").write_text('{"seed": 1}', "utf-8")
    bench.scan(4)
    assert bench.waiting() == 0
    assert (day(bench) / "riff_2.wav").read_bytes() == content
    assert (day(bench) / "riff_2.stylus.json").exists()


def test_a_clip_that_comes_again_without_its_stem_is_rendered_again(bench: Bench) -> None:
    bench.start(move=True)
    bench.clip()
    bench.scan()
    assert bench.work() == ["riff_bells.wav"]
    bench.scan(5)
    assert not list(bench.root.iterdir())
    # While the stem is there it is the answer.
    bench.clip()
    bench.scan(5)
    assert bench.waiting() == 0
    assert not list(bench.root.iterdir())
    # Dragged into a project.
    (bench.out / "riff_bells.wav").unlink()
    clip = bench.clip()
    bench.scan()
    assert clip.is_file()
    assert bench.work() == ["riff_bells.wav"]
    bench.scan(5)
    assert not list(bench.root.iterdir())


def test_a_clip_that_is_saved_again_without_its_stem_is_rendered_again(bench: Bench) -> None:
    clip = bench.clip()
    bench.scan()
    assert bench.work() == ["riff_bells.wav"]
    clip.touch()
    bench.scan()
    assert bench.waiting() == 0
    (bench.out / "riff_bells.wav").unlink()
    bench.scan()
    assert bench.waiting() == 0
    bench.clip()
    bench.scan()
    assert bench.work() == ["riff_bells.wav"]


def test_originals_never_replace(bench: Bench) -> None:
    bench.start(move=True)
    day(bench).mkdir(parents=True)
    (day(bench) / "riff.wav").write_text("mine", "utf-8")
    (day(bench) / "riff_2.stylus.json").write_text("mine", "utf-8")
    bench.clip()
    (bench.root / "riff.stylus.json").write_text("{}", "utf-8")
    bench.scan()
    bench.work()
    bench.scan(1)
    assert (day(bench) / "riff.wav").read_text("utf-8") == "mine"
    assert (day(bench) / "riff_2.stylus.json").read_text("utf-8") == "mine"
    assert (day(bench) / "riff_3.wav").is_file()
    assert (day(bench) / "riff_3.stylus.json").is_file()


def test_a_shared_settings_file_stays_for_the_others(bench: Bench) -> None:
    bench.start(move=True)
    bench.clip("riff.wav")
    bench.clip("riff.flac")
    (bench.root / "riff.stylus.json").write_text("{}", "utf-8")
    bench.scan()
    job = bench.claim()
    bench.jobs.done(job, "x")
    bench.scan(2)
    assert (bench.root / "riff.stylus.json").exists()
    bench.work()
    bench.scan(2)
    assert list(bench.root.iterdir()) == []


def other_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.EXDEV, "Invalid cross-device link")


def test_originals_are_moved_to_another_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.start(move=True)
    clip = bench.clip()
    clip.chmod(0o444)
    content, modified = clip.read_bytes(), clip.stat().st_mtime_ns
    bench.scan()
    bench.work()
    real = files.publish

    def publish(part: Path, target: Path, overwrite: bool) -> bool:
        if part.parent != target.parent:
            other_disk()
        return real(part, target, overwrite)

    monkeypatch.setattr("stylus_daemon.watch_results.publish", publish)
    with monkeypatch.context() as patch:
        patch.setattr("stylus_daemon.watch_results.sha256", lambda _: "damaged")
        bench.scan(1)
        assert clip.read_bytes() == content
        assert list(day(bench).iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", in_use(clip))
        bench.clock.now += RESCAN
        bench.scan(1)
        assert clip.read_bytes() == content
        assert list(day(bench).iterdir()) == []
    bench.clock.now += RESCAN
    bench.scan(1)
    moved = day(bench) / "riff.wav"
    assert not clip.exists()
    assert (moved.read_bytes(), moved.stat().st_mtime_ns) == (content, modified)
    assert len(list(day(bench).iterdir())) == 1


def in_use(clip: Path) -> Any:
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path == clip:
            raise PermissionError(errno.EACCES, "in use")
        real(path, missing_ok)

    return unlink


def test_an_original_in_use_stays_and_is_named_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench.start(move=True)
    clip = bench.clip()
    bench.scan()
    bench.work()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", in_use(clip))
        for _ in range(3):
            bench.scan(1, RESCAN)
    assert clip.is_file()
    assert list(day(bench).iterdir()) == []
    assert len(caplog.records) == 1
    bench.scan(1)
    assert not clip.exists()


def test_a_folder_that_is_gone_is_waited_for(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.clip()
    bench.scan()
    bench.work()
    away = bench.root.rename(bench.base / "away")
    assert bench.scan(3) < RESCAN
    assert bench.watcher.paused
    assert len(caplog.records) == 1
    soundfile.write(away / "new.wav", noise(0.05, seed=3).T, RATE)
    away.rename(bench.root)
    bench.scan(4)
    assert not bench.watcher.paused
    assert bench.work() == ["new_bells.wav"]


def test_an_output_that_is_gone(bench: Bench) -> None:
    place = bench.base / "disk"
    place.mkdir()
    bench.start(out=place / "out")
    bench.clip()
    bench.scan(2)
    (place / "out").rmdir()
    bench.scan(1)
    assert (place / "out").is_dir()
    shutil.rmtree(place)
    bench.clip("other.wav", 1)
    bench.scan()
    assert bench.watcher.paused
    assert not place.exists()
    place.mkdir()
    bench.scan()
    assert not bench.watcher.paused
    assert bench.waiting() == 2


def test_an_output_that_cannot_be_written(bench: Bench) -> None:
    bench.out.mkdir()
    (bench.out / "sub").write_text("in the way", "utf-8")
    (bench.out / "failed").write_text("in the way too", "utf-8")
    bench.clip("sub/riff.wav")
    bench.clip("riff.wav", 1)
    bench.scan()
    assert bench.work() == ["riff_bells.wav"]
    (bench.out / "failed").unlink()
    bench.scan()
    assert "not-allowed" in bench.error("sub/riff.wav")
    (bench.out / "sub").unlink()
    bench.scan()
    assert bench.work() == ["sub/riff_bells.wav"]


def test_output_and_folder_are_apart(bench: Bench) -> None:
    with pytest.raises(BadRequest, match="is watched"):
        Watch(bench.root, bench.root / "out")
    with pytest.raises(BadRequest, match="is watched"):
        Watch(bench.root, bench.root)
    with pytest.raises(BadRequest, match="is watched"):
        Watch(bench.root, bench.base)
    link = bench.base / "link"
    link.symlink_to(bench.root, target_is_directory=True)
    with pytest.raises(BadRequest, match="is watched"):
        Watch(bench.root, link / "out")
    with pytest.raises(BadRequest, match="is not a folder"):
        Watch(bench.root, bench.style)
    with pytest.raises(NotFound):
        Watch(bench.base / "none")
    with pytest.raises(BadRequest, match="gamma"):
        Watch(bench.root, values={"gamma": 3})
    assert Watch(link).root == bench.root
    assert Watch(link).output == bench.out
    second = bench.base / "second"
    second.mkdir()
    check_apart([Watch(bench.root), Watch(second)])
    with pytest.raises(BadRequest, match="is watched"):
        check_apart([Watch(bench.root, second / "out"), Watch(second)])


@pytest.mark.parametrize("polling", [False, True])
def test_events_wake_the_scan(tmp_path: Path, polling: bool) -> None:
    bench = Bench(tmp_path)
    stop = threading.Event()

    def watch() -> None:
        jobs = Jobs(tmp_path / "home" / "jobs.db")
        asked = Watch(bench.root, styles=(str(bench.style),), polling=polling)
        run([Watcher(asked, jobs)], stop)
        jobs.close()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        for number in range(2):
            bench.clip(f"{number}.wav", number)
            until = time.monotonic() + 60
            while bench.waiting() <= number and time.monotonic() < until:
                time.sleep(0.05)
            assert bench.waiting() == number + 1
            if number == 0:
                # Events of a folder end where another takes its place.
                bench.root.rename(tmp_path / "old")
                bench.root.mkdir()
    finally:
        stop.set()
        thread.join(60)
        bench.jobs.close()
    assert not thread.is_alive()
