"""A batch renders everything once, whatever is killed, broken, changed or in the way."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from stylus_audio import Engine
from stylus_audio.batch.ledger import Ledger, open_ledger
from stylus_audio.batch.manifest import rows
from stylus_audio.batch.packs import Done, Failed, Made, Pack, Place
from stylus_audio.batch.plan import Planner, Wish
from stylus_audio.batch.renderer import Renderer
from stylus_audio.batch.run import Batch
from stylus_audio.batch.sources import Sources
from stylus_audio.engine import Render
from stylus_audio.errors import BadRequest, Busy, DiskFull, NotAllowed
from stylus_audio.loudness import integrated
from stylus_audio.riff import Loop
from stylus_audio.stem import check_target, publish_stem
from tests.instruments_sfz import Player, save_instrument
from tests.sounds import RATE, Audio, decibels, noise, plucks, tone
from tests.studios import Studio


@pytest.fixture
def studio(tmp_path: Path, told_folder: Path) -> Studio:
    return Studio(tmp_path, told_folder)


# --- The engine on several clips

FEW: dict[str, dict[str, int]] = {"conditional": {}, "injection": {"steps": 2}}


@pytest.mark.parametrize("method", ["conditional", "injection"])
def test_several_clips_come_out_as_each_alone(told: Engine, method: str) -> None:
    """Long and short, one channel and two, with silence, and one that cannot be read."""
    clips = [(plucks(2.0), RATE), (plucks(0.3, channels=2), RATE), (np.zeros((1, 4000), np.float32), RATE),
             (tone(300, 1.1), RATE)]  # fmt: skip
    settings = told.settings(method=method, stereo="independent", **FEW[method])
    found = told.render_several([*clips, Path("absent.wav")], (noise(1.0), RATE), settings)
    assert [type(one).__name__ for one in found] == ["Render"] * 4 + ["NotFound"]
    for clip, one in zip(clips, found[:4], strict=True):
        assert isinstance(one, Render)
        alone = told.render(clip, (noise(1.0), RATE), settings).audio
        # Rounding grows in a network of random weights.
        assert decibels(one.audio - alone) < max(-150, decibels(alone) - 45)


@pytest.mark.parametrize("auto", [None, 0.5])
def test_what_does_not_fit_one_clip_is_its_own_error(told: Engine, auto: float | None) -> None:
    settings = told.settings(stereo="mid-side", auto=auto)
    mono, stereo = told.render_several(
        [(plucks(0.3), RATE), (plucks(0.3, channels=2), RATE)], (noise(1.0), RATE), settings
    )
    assert isinstance(mono, BadRequest)
    assert isinstance(stereo, Render)


@pytest.mark.parametrize(
    ("method", "stereo"), [("conditional", "linked"), ("injection", "mid-side"), ("conditional", "independent")]
)
def test_an_instrument_of_one_sound_is_a_clip(told: Engine, method: str, stereo: str) -> None:
    """Its own statistics are those that it shares with itself."""
    panned = plucks(1.0, channels=2) * np.array([[1.0], [0.1]], np.float32)
    settings, clip = told.settings(method=method, stereo=stereo, **FEW[method]), (panned, RATE)
    # What has no sides is no part of it.
    others = [(plucks(1.0), RATE)] if stereo == "mid-side" else []
    shared = told.shared([clip, *others], settings)
    (one,) = told.render_several([clip], (noise(1.0), RATE), settings, shared=shared)
    assert isinstance(one, Render)
    alone = told.render(clip, (noise(1.0), RATE), settings).audio
    assert decibels(one.audio - alone) < decibels(alone) - 45


def test_sounds_of_one_instrument_share_scale_and_spectrum(told: Engine) -> None:
    loud, soft = (plucks(0.6), RATE), (0.1 * plucks(0.6), RATE)
    shared = told.shared([loud, soft, Path("absent.wav"), (np.zeros((1, 4000), np.float32), RATE)])
    assert shared.maximum == pytest.approx(told.shared([loud]).maximum)
    # The mean power of both, by hand: that of the loud one and a hundredth of it.
    alone = told.shared([loud]).level
    np.testing.assert_allclose(shared.level, alone + 10 * np.log10((1 + 0.01) / 2), atol=0.2)
    renders = told.render_several([loud, soft], (noise(1.0), RATE), shared=shared)
    levels = [integrated(one.audio, RATE) for one in renders if isinstance(one, Render)]
    assert levels[0] - levels[1] == pytest.approx(20, abs=0.1)


# --- Packs


def saved(folder: Path, name: str, audio: Audio) -> str:
    soundfile.write(folder / name, audio.T, RATE)
    return str(folder / name)


def test_a_pack_becomes_stems_reports_and_reasons(tmp_path: Path, told_folder: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio")
    clip, style = saved(tmp_path, "clip.wav", plucks(0.4)), saved(tmp_path, "hiss.wav", noise(1.0))
    renderer = Renderer(Place("cpu", 1))
    pack = Pack(0, (clip, str(tmp_path / "text.wav")), (".flac", ".wav"), ((style, "hiss"),), model=str(told_folder))
    made, failed = renderer.render(pack, {})
    assert isinstance(made, Made)
    assert made.stem[:4] == b"fLaC"
    assert made.report["content"]["path"] == clip
    assert isinstance(failed, Failed)
    assert (failed.code, "\n" in failed.message) == ("unsupported-audio", False)
    (again, _) = renderer.render(pack, {})
    assert isinstance(again, Made)
    assert again.stem == made.stem
    (lost,) = renderer.render(Pack(1, (clip,), (".wav",), ((style, "hiss"),), model="no such model"), {})
    assert isinstance(lost, Failed)
    assert lost.code == "no-model"


def test_a_loop_that_the_pack_tells_closes(tmp_path: Path, told_folder: Path) -> None:
    """The end of the loop runs into its start as the sample before the start does."""
    sound = saved(tmp_path, "pad.wav", tone(441, 1.0) + 0.3 * noise(1.0))
    style = saved(tmp_path, "hiss.wav", noise(1.0))
    loop = Loop(11025, 33075)
    stems = []
    for loops in ((), (loop,)):
        pack = Pack(0, (sound,), (".wav",), ((style, "hiss"),), model=str(told_folder), loops=loops)
        (made,) = Renderer(Place("cpu", 1)).render(pack, {})
        assert isinstance(made, Made)
        (tmp_path / "stem.wav").write_bytes(made.stem)
        stems.append(soundfile.read(tmp_path / "stem.wav")[0])
    open_, closed = (abs(stem[loop.end - 200 : loop.end] - stem[loop.start - 200 : loop.start]).max() for stem in stems)
    assert closed < 0.02 < open_


# --- The ledger

_CRASH = """
import os, sys
from pathlib import Path
from stylus_audio.batch.ledger import Ledger
from stylus_audio.stem import Journal, publish_stem
here = Path.cwd()
ledger = Ledger(here / "ledger.sqlite")
journal = ledger.journal("key", "clip.wav", "stamp", 1.0, 0.0, {"schema": 1})
def aim(candidate, part):
    journal.aim(candidate, part)
    if sys.argv[1] == "before":
        os._exit(9)
publish_stem(b"the stem", here / "stem.wav", journal=Journal(journal.token, aim))
os._exit(9)
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_stem_that_was_aimed_at_is_there_or_was_never_there(tmp_path: Path, moment: str) -> None:
    """A process that dies between the ledger and the name."""
    ended = subprocess.run([sys.executable, "-c", _CRASH, moment], cwd=tmp_path, check=False, timeout=120)
    assert ended.returncode == 9
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        there = ledger.stems()
        if moment == "after":
            assert Path(there["key"].path).name == "stem.wav"
            assert ledger.report("key") == {"schema": 1}
        else:
            assert not there
        assert ledger.failures() == {}
    files = {path.name for path in tmp_path.iterdir()} - {"ledger.sqlite"}
    assert files == ({"stem.wav"} if moment == "after" else set())


def test_somebody_elses_file_under_the_name_that_was_aimed_at_is_no_stem(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _CRASH, "before"], cwd=tmp_path, check=False, timeout=120)
    (tmp_path / "stem.wav").write_text("somebody else's")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert not ledger.stems()
        journal = ledger.journal("key", "clip.wav", "", 1.0, 0.0, {})
        assert publish_stem(b"the stem", tmp_path / "stem.wav", journal=journal).name == "stem_2.wav"
    assert (tmp_path / "stem.wav").read_text() == "somebody else's"


def test_a_stem_that_took_the_place_of_another_is_the_one_that_is_there(tmp_path: Path) -> None:
    """As the same clip with other settings and --overwrite does."""

    def put(ledger: Ledger, key: str) -> None:
        journal = ledger.journal(key, "clip.wav", "", 1.0, 0.0, {"made of": key})
        publish_stem(key.encode(), tmp_path / "stem.wav", overwrite=True, journal=journal)

    for key in ("keep 0.3", "keep 0.7", "keep 0.3"):
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            put(ledger, key)
            ledger.done([key])
            assert list(ledger.stems()) == [key]
            ledger.write_reports(tmp_path / "reports.jsonl")
        assert [json.loads(line)["made of"] for line in (tmp_path / "reports.jsonl").read_text().splitlines()] == [key]
    # Also where the run ended before it could be said.
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        put(ledger, "keep 0.7")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert list(ledger.stems()) == ["keep 0.7"]


def test_one_run_at_a_time_has_a_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite"), pytest.raises(Busy, match="another run"):
        Ledger(tmp_path / "ledger.sqlite")
    Ledger(tmp_path / "ledger.sqlite").__exit__()


def test_a_new_ledger_without_stems_goes_and_nobody_elses(tmp_path: Path) -> None:
    records = tmp_path / "kit-stylus" / "stylus-batch"
    with open_ledger(records / "ledger.sqlite"):
        pass
    assert not list(tmp_path.iterdir())
    with open_ledger(records / "ledger-1-of-2.sqlite"), open_ledger(records / "ledger-2-of-2.sqlite") as other:
        publish_stem(b"the stem", tmp_path / "stem.wav", journal=other.journal("key", "clip.wav", "", 1.0, 0.0, {}))
        other.done("key")
        with pytest.raises(Busy), open_ledger(records / "ledger-2-of-2.sqlite"):
            pass
    with pytest.raises(Busy), open_ledger(records / "ledger.sqlite"):
        raise Busy("no worker is free")
    assert [path.name for path in records.iterdir()] == ["ledger-2-of-2.sqlite"]
    with open_ledger(records / "ledger-2-of-2.sqlite") as other:
        assert list(other.stems()) == ["key"]


def test_a_full_disk_is_said_as_one(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        # No page more than it has: SQLite says then what it says on a disk without room.
        ledger._base.execute("PRAGMA max_page_count = 1")
        with pytest.raises(DiskFull, match="no room left"):
            ledger.note("shared", "x" * 100_000)


@pytest.mark.parametrize(("name", "words"), [("L" * 251, "too long"), ("a\udcff", "not UTF-8")])
def test_what_is_no_name_for_a_stem_is_said_and_leaves_nothing(tmp_path: Path, name: str, words: str) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        journal = ledger.journal("key", "clip.wav", "", 1.0, 0.0, {})
        with pytest.raises((BadRequest, NotAllowed), match=words):
            publish_stem(b"the stem", tmp_path / f"{name}_hiss.wav", journal=journal)
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.sqlite"]


def test_a_name_that_just_fits_is_one(tmp_path: Path) -> None:
    """255 bytes are the most, and an emoji has four; what it is called before it is whole has to fit too."""
    target = tmp_path / ("\N{DRUM WITH DRUMSTICKS}" * 60 + "_hiss.wav")
    assert publish_stem(b"the stem", target) == target
    # With what is put behind it where it is taken, and its sidecar: known before there is a stem.
    with pytest.raises(BadRequest, match="too long"):
        check_target(tmp_path / ("L" * 250 + ".wav"))


# --- Workers

_STARTED = """
import os, signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from stylus_audio.files import undisturbed_children
# A shell starts what runs in the background deaf to it.
signal.signal(signal.SIGINT, signal.default_int_handler)
with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
    try:
        with undisturbed_children():
            deaf = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ())
            os.kill(os.getpid(), signal.SIGINT)
            print("to the end")
    except KeyboardInterrupt:
        print(signal.SIGINT in deaf.result(), signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to be masked")
def test_a_worker_hears_no_ctrl_c_from_its_first_moment(tmp_path: Path) -> None:
    """A terminal sends it to all; workers that are just starting answered with tracebacks."""
    ended = subprocess.run(
        [sys.executable, "-c", _STARTED], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
    )
    assert ended.stdout.splitlines() == ["to the end", "True False"]
    assert ended.stderr == ""


_PRESSED = """
import os, signal
from stylus_audio import interruption
interruption.heed_signals()
press = lambda: os.kill(os.getpid(), signal.SIGINT)
try:
    press()
except KeyboardInterrupt:
    press(), press()
    print("put away")
interruption.AGAIN_SECONDS = 0.0
try:
    press()
except KeyboardInterrupt:
    print("heeded again")
interruption.leave(130)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process that is sent a signal")
def test_a_second_ctrl_c_does_not_end_the_ending(tmp_path: Path) -> None:
    """Workers were left behind, and a run hung."""
    ended = subprocess.run(
        [sys.executable, "-c", _PRESSED], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.stdout.splitlines() == ["put away", "heeded again"]
    assert (ended.returncode, ended.stderr) == (130, "")


# --- Batches in this process


class Here:
    """A crew of one."""

    size = 1

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self.packs: list[Pack] = []

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None: ...

    def work(self, packs: Iterable[Pack]) -> Iterator[Done]:
        for pack in packs:
            self.packs.append(pack)
            yield Done(pack, self._renderer.render(pack, {}), 1.0)


def test_no_clip_of_a_batch_is_replaced_by_the_stem_of_another(tmp_path: Path, told_folder: Path) -> None:
    clips = [Path(saved(tmp_path, f"{name}.wav", plucks(0.3))) for name in ("one", "two")]
    style = saved(tmp_path, "hiss.wav", noise(1.0))
    (tmp_path / "link.wav").hardlink_to(clips[0])
    (tmp_path / "mine.wav").write_text("replaced, as was asked for")
    before = [path.read_bytes() for path in (*clips, Path(style))]
    (tmp_path / "jobs.csv").write_text(
        "content,output\none.wav,two.wav\ntwo.wav,link.wav\ntwo.wav,hiss.wav\ntwo.wav,mine.wav\n", "utf-8"
    )
    asked = {"overwrite": True, "model": str(told_folder), "quality": "fast"}
    items = list(Planner(Wish((style,), options=asked)).items(rows([str(tmp_path / "jobs.csv")])))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        # As a shard that has not got the row of the first clip.
        batch = Batch([items[1:]], ledger, Sources(), kept=items)
        batch.run(Here(Renderer(Place("cpu", 1))))
        whole = Batch([items], ledger, Sources())
        whole.run(Here(Renderer(Place("cpu", 1))))
    assert (batch.standing.made, len(batch.standing.failures)) == (1, 2)
    assert {failed.code for _, failed in whole.standing.failures.values()} == {"not-allowed"}
    assert [path.read_bytes() for path in (*clips, Path(style))] == before
    assert soundfile.info(tmp_path / "mine.wav").samplerate == RATE


def test_what_cannot_be_written_is_known_before_it_is_rendered(tmp_path: Path, told_folder: Path) -> None:
    """Beside what can, in its packs, so that all stems are the same to the bit once they can be written."""
    saved(tmp_path, "clip.wav", plucks(0.3))
    style = saved(tmp_path, "hiss.wav", noise(1.0))
    (tmp_path / "shut").write_text("a file, where a folder is to be")
    asked = {"model": str(told_folder), "quality": "fast"}

    def batch(ledger: Ledger, *outputs: str, **more: str) -> Batch:
        (tmp_path / "jobs.csv").write_text(
            "content,output\n" + "".join(f"clip.wav,{one}\n" for one in outputs), "utf-8"
        )
        planner = Planner(Wish((style,), options={**asked, **more}))
        return Batch([list(planner.items(rows([str(tmp_path / "jobs.csv")])))], ledger, Sources())

    # The longest name that can stand has room for the number that a second of that name would have.
    outputs = ("shut/deep/a.wav", "new/b.wav", f"{'c' * 247}.wav", "shut/d.wav")
    crew = Here(Renderer(Place("cpu", 1)))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        first = batch(ledger, *outputs)
        first.run(crew)
        codes = [failed.code for _, failed in first.standing.failures.values()]
        assert codes == ["not-allowed", "bad-request", "not-allowed"]
        assert (first.standing.made, first.standing.left) == (1, 0)
        assert [len(pack.contents) for pack in crew.packs] == [4]
        none = batch(ledger, *outputs)
        assert (none.open, len(none.standing.failures), none.standing.left) == ({}, 3, 0)
        (tmp_path / "shut").unlink()
        second = batch(ledger, *outputs)
        second.run(crew)
        assert (second.standing.made, len(second.standing.failures)) == (2, 1)
        assert [len(pack.contents) for pack in crew.packs] == [4, 4]


def test_a_model_that_comes_with_the_run_is_the_one_of_its_stems(tmp_path: Path, told_folder: Path) -> None:
    """As one from the hub does, which is downloaded when the first clip is rendered."""
    clip, style = saved(tmp_path, "clip.wav", plucks(0.3)), saved(tmp_path, "hiss.wav", noise(1.0))
    model = tmp_path / "model"
    asked = {"model": str(model), "quality": "fast"}

    def batch(ledger: Ledger) -> Batch:
        return Batch([list(Planner(Wish((style,), options=asked)).items(rows([clip])))], ledger, Sources())

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        first = batch(ledger)
        shutil.copytree(told_folder, model)
        first.run(Here(Renderer(Place("cpu", 1))))
        assert first.standing.made == 1
        (stem,) = ledger.stems().values()
        weights = next(model.glob("unet/*.safetensors"))
        data = weights.read_bytes()
        weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert len(batch(ledger).open) == 1
        weights.write_bytes(data)
        assert not batch(ledger).open
        (known,) = ledger.stems().values()
    assert stem.stamp.endswith(" ")
    assert known.stamp.startswith(stem.stamp)
    assert len(known.stamp.rpartition(" ")[2]) == 64


# --- Whole batches, in processes of their own


@pytest.mark.slow
def test_every_clip_in_every_style_once_and_never_again(studio: Studio, told: Engine) -> None:
    # In company a window is rounded otherwise, in half precision too far to compare.
    command = ("kit", *studio.common, "--dtype", "float32")
    said = studio.run(*command)
    assert (said["made"], said["failed"], said["there"]) == (12, 0, 0)
    stems = studio.stems()
    assert sorted(stems) == sorted(
        f"{'deep/' if n % 2 else ''}hit {n}_{style}.wav" for n in range(6) for style in ("hiss", "beep")
    )
    reports = studio.reports()
    assert sorted(report["stem"] for report in reports) == sorted(str(studio.out / name) for name in stems)
    # What a render of one clip gives, with its rate, depth and length.
    for name in ("hit 4_hiss.wav", "deep/hit 3_beep.wav"):
        clip = studio.kit / name.replace("_hiss", "").replace("_beep", "")
        render = told.render(clip, studio.folder / f"{name[-8:-4]}.wav", told.settings(quality="fast"))
        stem, rate = soundfile.read(studio.out / name, always_2d=True)
        np.testing.assert_allclose(stem.T, render.audio, atol=5e-4)
        assert soundfile.info(studio.out / name).subtype == soundfile.info(clip).subtype
        assert (rate, len(stem)) == (RATE, soundfile.info(clip).frames)

    before = {name: (studio.out / name).stat().st_mtime_ns for name in stems}
    clips = sorted(studio.kit.rglob("*.wav"))
    clips[0].touch()
    assert studio.run(*command)["made"] == 0
    assert {name: (studio.out / name).stat().st_mtime_ns for name in stems} == before

    # A stem that was deleted comes again, and one whose clip is another now under the next free name.
    (studio.out / "hit 0_hiss.wav").unlink()
    soundfile.write(studio.kit / "hit 2.wav", plucks(0.5, 0.1).T, RATE)
    assert studio.run(*command)["made"] == 3
    after = studio.stems()
    assert set(after) - set(stems) == {"hit 2_hiss_2.wav", "hit 2_beep_2.wav"}
    assert {name: after[name] for name in stems} == stems
    assert len(studio.reports()) == 12


@pytest.mark.slow
def test_what_fails_is_named_and_tried_again_and_holds_up_nobody(studio: Studio) -> None:
    broken = studio.kit / "broken.wav"
    broken.write_bytes(b"RIFF no audio")
    (studio.folder / "jobs.csv").write_text(
        "content,style,output\nkit/hit 0.wav,hiss.wav,a/one.wav\nkit/broken.wav,hiss.wav,a/two.wav\n"
        "kit/gone.wav,hiss.wav,a/three.wav\nkit/hit 2.wav,gone.wav,a/four.wav\n", "utf-8",
    )  # fmt: skip
    said = studio.run("jobs.csv", code=3)
    assert said["made"] == 1
    assert sorted(row["code"] for row in said["failures"]) == ["not-found", "not-found", "unsupported-audio"]
    assert list(studio.stems(studio.folder / "a")) == ["one.wav"]
    soundfile.write(broken, plucks(0.3).T, RATE)
    said = studio.run("jobs.csv", code=3)
    assert (said["made"], said["there"], said["failed"]) == (1, 1, 2)
    assert sorted(studio.stems(studio.folder / "a")) == ["one.wav", "two.wav"]


@pytest.mark.slow
def test_the_users_files_are_never_replaced(studio: Studio) -> None:
    clip = studio.kit / "hit 0.wav"
    own = studio.folder / "kit" / "hit 0_hiss.wav"
    own.write_text("the user's")
    kept = clip.read_bytes()
    studio.run("kit/hit 0.wav", "--style", "hiss.wav")
    assert own.read_text() == "the user's"
    assert (studio.kit / "hit 0_hiss_2.wav").is_file()
    said = studio.run("kit/hit 0.wav", "--style", "hiss.wav", "--name", "{content}", "--overwrite", code=3)
    assert said["failures"][0]["code"] == "not-allowed"
    assert clip.read_bytes() == kept
    studio.run("kit/hit 0.wav", "--style", "beep.wav", "--name", "hit 0_hiss", "--overwrite")
    assert soundfile.info(own).samplerate == RATE


@pytest.mark.slow
def test_shards_together_are_the_whole(studio: Studio) -> None:
    whole = studio.run("kit", *studio.common, "-o", "whole")
    parts = [studio.run("kit", *studio.common, "-o", "parts", "--shard", f"{number}/2") for number in (1, 2)]
    assert sum(part["made"] for part in parts) == whole["made"] == 12
    assert all(part["made"] for part in parts)
    assert studio.stems(studio.folder / "whole") == studio.stems(studio.folder / "parts")


def _some_made(studio: Studio, process: subprocess.Popen[str], count: int) -> None:
    """Wait until so many stems are there."""
    end = time.monotonic() + 300
    while studio.count() < count and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_and_interrupted_it_goes_on_and_the_stems_are_the_same(tmp_path: Path, told_folder: Path) -> None:
    """As tests/soak/batch.py does at 20 random moments."""
    quiet, studio = (Studio(tmp_path / name, told_folder, clips=18) for name in ("quiet", "loud"))
    quiet.run()
    for at, strike in ((1, signal.SIGKILL), (17, signal.SIGINT), (19, signal.SIGKILL)):
        process = studio.start()
        _some_made(studio, process, at)
        process.send_signal(strike)
        _, err = process.communicate(timeout=120)
        if strike == signal.SIGINT and process.returncode != 0:
            assert process.returncode == 130
            assert "the same command goes on" in err
    studio.run()
    assert studio.stems() == quiet.stems()
    assert len(studio.reports()) == len({report["stem"] for report in studio.reports()}) == 36


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(tmp_path: Path, told_folder: Path) -> None:
    studio = Studio(tmp_path, told_folder, clips=18)
    process = studio.start("kit", *studio.common, "--json")
    _some_made(studio, process, 1)
    workers = [one for one in psutil.Process(process.pid).children() if "spawn_main" in " ".join(one.cmdline())]
    workers[0].kill()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert studio.count() == 36
    assert '"failed": 0' in out


# --- Instruments


@pytest.mark.slow
def test_an_instrument_plays_in_another_sound(tmp_path: Path, told_folder: Path) -> None:
    """Keys, layers, releases and loop as ever, by an SFZ player."""
    pytest.importorskip("pysfizz", reason="pysfizz is not installed (PyPI)")
    studio = Studio(tmp_path, told_folder)
    original = save_instrument(tmp_path / "library")
    before = studio.stems(tmp_path / "library")
    said = studio.run(str(original), "--style", "hiss.wav", "-o", "new")
    sfz = Path(said["sfz"])
    assert (sfz.name, said["made"]) == ("Piano_hiss.sfz", 10)
    assert studio.stems(tmp_path / "library") == before
    samples = Path(said["sfz"]).parent / "samples"
    assert (samples / "held" / "Pad.wav").is_file()

    old, new = Player(original), Player(sfz)
    notes = [(key, velocity) for key in (48, 60, 72, 90) for velocity in (40, 110)]
    played = [[player.play(key, velocity, 0.4, 0.7) for key, velocity in notes] for player in (old, new)]
    # Each sample has its own loudness still, so layers and keys are balanced as they were, by ear.
    loudness = [[integrated(np.atleast_2d(one), RATE) for one in each] for each in played]
    np.testing.assert_allclose(loudness[0], loudness[1], atol=3)
    levels = [[decibels(one) for one in each] for each in played]
    layers = np.diff(np.reshape(levels, (2, -1, 2)))[:, :3]
    np.testing.assert_allclose(layers[0], layers[1], atol=1.5)
    # Held for much longer than the sample lasts, it goes on.
    held = new.play(90, 100, 2.0, 2.1)
    assert decibels(held[RATE : RATE + RATE // 2]) > decibels(held[: RATE // 4]) - 6

    assert studio.run(str(original), "--style", "hiss.wav", "-o", "new")["made"] == 0
    # What all share is another with another sample: all are made again, and nothing is replaced.
    clip = original.parent / "Samples" / "C3 soft.wav"
    soundfile.write(clip, 3 * plucks(0.5).T, RATE)
    again = studio.run(str(original), "--style", "hiss.wav", "-o", "new")
    assert again["made"] == 10
    assert "_2.wav" in Path(again["sfz"]).read_text("utf-8")
