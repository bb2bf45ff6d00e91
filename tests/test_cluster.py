"""A crew on a Ray cluster: real nodes, as processes of this machine, and real deaths."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stylus_audio.batch.cluster import Cluster, Inputs
from stylus_audio.batch.packs import Failed, Made, Outcome, Pack, Place
from stylus_audio.errors import BadRequest, Internal, NotFound, StylusError
from tests.hashing import Hashing
from tests.ray_nodes import ENVIRONMENT, RayNodes, need_ray, ray_nodes
from tests.studios import Studio

ENTER = """
import sys
from stylus_audio.batch.cluster import Cluster
from stylus_audio.errors import StylusError
from tests.hashing import Hashing
try:
    with Cluster(sys.argv[1], make=Hashing):
        print("let in")
except StylusError as error:
    print(type(error).__name__, error, sep=": ")
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    """Two nodes with a CPU each, which no test harms."""
    with ray_nodes(1, 1) as running:
        yield running


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def packs(tmp_path: Path) -> list[Pack]:
    """Thirty packs of two clips each, in three styles."""
    styles = [tmp_path / f"style{number}.wav" for number in range(3)]
    for number, style in enumerate(styles):
        style.write_bytes(bytes([number]) * 200_000)
    made = []
    for number in range(30):
        clips = [tmp_path / folder / f"clip{number}.wav" for folder in ("a", "b")]
        for clip in clips:
            clip.parent.mkdir(exist_ok=True)
            clip.write_bytes(str(clip).encode() * 1000)
        style = styles[number % 3]
        made.append(Pack(number, tuple(map(str, clips)), (".wav", ".wav"), ((str(style), style.stem),), {}, "mini"))
    return made


def worked(cluster: Cluster, packs: Iterable[Pack]) -> Iterator[tuple[Pack, list[Outcome]]]:
    """Packs with what came of them, as they get done."""
    return ((done.pack, done.outcomes) for done in cluster.work(packs))


def stems(outcomes: list[Outcome]) -> list[bytes]:
    """Of clips that all have one."""
    assert all(isinstance(outcome, Made) for outcome in outcomes), outcomes
    return [outcome.stem for outcome in outcomes if isinstance(outcome, Made)]


def processes(results: list[tuple[Pack, list[Outcome]]]) -> set[int]:
    """The workers that have taken part."""
    return {outcome.report["process"] for _, outcomes in results for outcome in outcomes if isinstance(outcome, Made)}


def with_settings(pack: Pack, **settings: Any) -> Pack:
    return replace(pack, settings=settings)


def left_on_nodes() -> set[Path]:
    """Folders of runs on the nodes, which are all on this machine."""
    return set(Path(tempfile.gettempdir()).glob("stylus-batch-*"))


def assert_each_once(results: list[tuple[Pack, list[Outcome]]], packs: list[Pack]) -> None:
    """Every pack once, and the stems that one process makes here."""
    assert sorted(pack.number for pack, _ in results) == [pack.number for pack in packs]
    here = Hashing(Place("cpu", 1, None))
    for pack, outcomes in results:
        assert pack in packs
        assert stems(outcomes) == stems(here.render(with_settings(pack), {}))


@pytest.mark.slow
@pytest.mark.parametrize("inputs", ["shared", "store"])
def test_every_pack_is_rendered_once_by_a_worker_on_each_node(
    nodes: RayNodes, packs: list[Pack], inputs: Inputs
) -> None:
    asked = [with_settings(pack, seconds=0.02) for pack in packs]
    with Cluster(nodes.address, inputs, make=Hashing) as cluster:
        results = list(worked(cluster, iter(asked)))
        assert_each_once(results, asked)
        assert len(processes(results)) == 2
        again = list(worked(cluster, asked[:3]))
        assert_each_once(again, asked[:3])
        assert processes(again) <= processes(results)
    for pack, outcomes in results:
        for content, outcome in zip(pack.contents, outcomes, strict=True):
            assert isinstance(outcome, Made)
            assert outcome.report["content"] == content
            assert outcome.report["files"] == pack.files
            assert (outcome.report["device"], outcome.report["threads"]) == ("cpu", 1)


@pytest.mark.slow
def test_where_there_are_gpus_each_has_one_worker_and_cpus_none(packs: list[Pack]) -> None:
    asked = [with_settings(pack, seconds=0.1) for pack in packs]
    with ray_nodes(1) as own:
        # Ray believes what it is told of GPUs.
        own.add(num_cpus=4, num_gpus=2)
        with Cluster(own.address, make=Hashing) as cluster:
            results = list(worked(cluster, asked))
    assert_each_once(results, asked)
    reports = [outcome.report for _, outcomes in results for outcome in outcomes if isinstance(outcome, Made)]
    assert {report["device"] for report in reports} == {"cuda"}
    assert sorted(visible for _, visible in {(report["process"], report["visible"]) for report in reports}) == [
        "0",
        "1",
    ]


@pytest.mark.slow
def test_files_that_the_nodes_do_not_see_are_sent(nodes: RayNodes, packs: list[Pack], tmp_path: Path) -> None:
    before = left_on_nodes()
    unseen = [with_settings(pack, unseen=str(tmp_path)) for pack in packs[:6]]
    with Cluster(nodes.address, "store", make=Hashing) as cluster:
        assert_each_once(list(worked(cluster, unseen)), unseen)
    assert left_on_nodes() == before


@pytest.mark.slow
@pytest.mark.parametrize("inputs", ["shared", "store"])
def test_a_missing_file_fails_alone_and_is_named(nodes: RayNodes, packs: list[Pack], inputs: Inputs) -> None:
    missing, fine = packs[0].contents
    Path(missing).unlink()
    Path(packs[1].styles[0][0]).unlink()
    with Cluster(nodes.address, inputs, make=Hashing) as cluster:
        results = {pack.number: outcomes for pack, outcomes in worked(cluster, packs[:3])}
    first, second = results[0]
    assert isinstance(first, Failed)
    assert first.code == "not-found"
    assert first.message.startswith(f"{missing} does not exist")
    assert ("on node" in first.message) == (inputs == "shared")
    assert isinstance(second, Made)
    for outcome in results[1]:
        assert isinstance(outcome, Failed)
        assert packs[1].styles[0][0] in outcome.message
    assert len(stems(results[2])) == 2
    assert fine == second.report["content"]


@pytest.mark.slow
def test_what_a_lost_run_has_left_is_removed_after_a_week(nodes: RayNodes, packs: list[Pack]) -> None:
    old, young = (Path(tempfile.mkdtemp(prefix="stylus-batch-")) for _ in range(2))
    (old / "0").mkdir()
    week_ago = time.time() - 8 * 24 * 3600
    os.utime(old, (week_ago, week_ago))
    try:
        with Cluster(nodes.address, make=Hashing) as cluster:
            assert_each_once(list(worked(cluster, packs[:2])), packs[:2])
        assert not old.exists()
        assert young.is_dir()
    finally:
        young.rmdir()


@pytest.mark.slow
def test_a_pack_that_ends_its_worker_fails_alone(nodes: RayNodes, packs: list[Pack]) -> None:
    asked = [*packs]
    asked[3] = with_settings(packs[3], deadly=True)
    asked[4] = with_settings(packs[4], broken=True)
    asked[5] = with_settings(packs[5], deadly=True)
    with Cluster(nodes.address, make=Hashing) as cluster:
        results = list(worked(cluster, asked))
    good = [pack for pack in asked if not pack.settings]
    assert_each_once([result for result in results if not result[0].settings], good)
    bad = {pack.number: outcomes for pack, outcomes in results if pack.settings}
    died = Failed("internal", "its worker died 3 times while rendering it")
    assert bad[3] == bad[5] == [died, died]
    assert all(isinstance(outcome, Failed) and "too much of it" in outcome.message for outcome in bad[4])


@pytest.mark.slow
def test_a_lost_node_costs_nothing_and_a_new_one_helps(packs: list[Pack], capfd: pytest.CaptureFixture[str]) -> None:
    asked = [with_settings(pack, seconds=1) for pack in packs]
    with ray_nodes(1, 1) as own, Cluster(own.address, "store", make=Hashing) as cluster:
        results = []
        for result in worked(cluster, asked):
            results.append(result)
            if len(results) == 5:
                before = processes(results)
                own.kill()
                own.add(num_cpus=1)
        assert_each_once(results, asked)
        assert len(before) == 2
        assert len(processes(results[7:])) == 2
        assert len(processes(results)) == 3
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_without_a_worker_left_it_says_so(packs: list[Pack]) -> None:
    asked = [with_settings(pack, seconds=0.3) for pack in packs]
    with ray_nodes(0, 1) as own, Cluster(own.address, make=Hashing) as cluster:
        rendering = worked(cluster, asked)
        assert_each_once(sorted((next(rendering) for _ in range(3)), key=lambda result: result[0].number), asked[:3])
        own.kill()
        with pytest.raises(Internal, match=r"no worker of the cluster is left, and 2\d packs are not rendered"):
            list(rendering)


@pytest.mark.slow
def test_interrupted_it_leaves_nothing_and_the_cluster_is_free_again(nodes: RayNodes, packs: list[Pack]) -> None:
    code = f"""
from stylus_audio.batch.cluster import Cluster
from stylus_audio.batch.packs import Pack
from stylus_audio.interruption import heed_signals, leave
from tests.hashing import Hashing
heed_signals()
packs = [Pack(n, ({packs[0].contents[0]!r},), (".wav",), (({packs[0].styles[0][0]!r}, "s"),), {{"seconds": n}}, "mini")
         for n in (0, 300, 301)]
try:
    with Cluster({nodes.address!r}, "store", make=Hashing) as cluster:
        for done in cluster.work(packs):
            print(done.pack.number, flush=True)
except KeyboardInterrupt:
    leave(130)
"""
    before = left_on_nodes()
    for number in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
            assert program.stdout
            assert program.stderr
            assert program.stdout.readline() == b"0\n"
            program.send_signal(number)
            said = program.stdout.read() + program.stderr.read()
        assert (program.returncode, said) == (130, b"")
        assert left_on_nodes() == before
    with Cluster(nodes.address, make=Hashing, patience=30) as cluster:
        assert_each_once(list(worked(cluster, packs[:4])), packs[:4])


def enter(address: str, **environment: str) -> tuple[str, str]:
    """What a process says that wants in, on stdout and on stderr."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", ENTER, address],
        capture_output=True,
        text=True,
        env={**inherited, **environment},
        timeout=200,
        check=True,
    )
    return done.stdout.strip(), done.stderr


@pytest.mark.slow
def test_without_the_token_nobody_comes_in(nodes: RayNodes, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert enter(nodes.address, **ENVIRONMENT) == ("let in", "")

    said, noise = enter(nodes.address, **home)
    assert said.startswith("NotAllowed: there is no token on this machine: --cluster needs Ray's token authentication")
    assert (len(said.splitlines()), noise) == (1, "")

    said, noise = enter(nodes.address, **home, RAY_AUTH_TOKEN="wrong")
    assert said.startswith(f"NotAllowed: the cluster at {nodes.address} refuses the token of this machine")
    assert (len(said.splitlines()), noise) == (1, "")

    said, noise = enter(nodes.address, **home, RAY_AUTH_TOKEN_PATH=str(tmp_path / "nowhere"))
    assert said.startswith("NotAllowed: there is no token on this machine")
    assert (len(said.splitlines()), noise) == (1, "")

    said, noise = enter(nodes.address, RAY_AUTH_MODE="disabled")
    assert said.startswith("NotAllowed: RAY_AUTH_MODE=disabled turns off what --cluster needs")
    assert (len(said.splitlines()), noise) == (1, "")


@pytest.mark.slow
def test_a_cluster_that_asks_for_no_token_is_refused() -> None:
    with ray_nodes(1, authenticated=False) as open_:
        said, noise = enter(open_.address, **ENVIRONMENT)
    assert said.startswith("NotAllowed: node ")
    assert "takes work from anybody: --cluster needs Ray's token authentication" in said
    assert (len(said.splitlines()), noise) == (1, "")


@pytest.mark.slow
def test_a_node_with_another_version_is_refused_before_work_starts(tmp_path: Path) -> None:
    other = tmp_path / "torch-9.9.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9\n")
    with ray_nodes(1) as own:
        own.add(num_cpus=1, env_vars={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}"})
        said, noise = enter(own.address, **ENVIRONMENT)
    assert said.startswith("BadRequest: node ")
    assert "torch 9.9 there, " in said
    assert (len(said.splitlines()), noise) == (1, "")


@pytest.mark.timeout(100)
@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("127.0.0.1:1", NotFound, "no Ray cluster answers at 127.0.0.1:1"),
        ("127.0.0.1:99999", NotFound, "no Ray cluster answers"),
        ("ray://127.0.0.1:10001", BadRequest, "--cluster takes HOST:PORT or auto"),
        ("somewhere", BadRequest, "--cluster takes HOST:PORT or auto"),
    ],
)
def test_an_address_where_nobody_is(address: str, error: type[StylusError], words: str) -> None:
    need_ray()
    with pytest.raises(error, match=words), Cluster(address, make=Hashing):
        pass


def test_without_ray_it_says_how_to_get_it() -> None:
    code = f"import sys; sys.modules['ray'] = None\n{ENTER}"
    done = subprocess.run([sys.executable, "-c", code, "127.0.0.1:1"], capture_output=True, text=True, check=True)
    assert done.stdout == "BadRequest: --cluster needs Ray: pip install '.[cluster]'\n"


@pytest.mark.slow
@pytest.mark.parametrize("inputs", ["store", "shared"])
def test_a_batch_that_loses_a_node_is_that_of_one_process(tmp_path: Path, told_folder: Path, inputs: Inputs) -> None:
    """Real renders, by the command line: every stem once and the same to the bit."""
    studio = Studio(tmp_path, told_folder, clips=18)
    alone = studio.run("kit", *studio.common, "-o", "alone")
    with ray_nodes(1, 1) as own:
        cluster = ("--cluster", own.address, "--inputs", inputs)
        process = studio.start("kit", *studio.common, *cluster, "--json")
        while not studio.count() and process.poll() is None:
            time.sleep(0.02)
        own.kill()
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        said = json.loads(out)
        assert (said["made"], said["failed"]) == (alone["made"], 0) == (36, 0)
        assert studio.stems() == studio.stems(tmp_path / "alone")
        assert sorted(report["stem"] for report in studio.reports()) == sorted(
            str(studio.out / name) for name in studio.stems()
        )
        # The state is the manifest's, whoever renders.
        assert studio.run("kit", *studio.common)["there"] == 36
