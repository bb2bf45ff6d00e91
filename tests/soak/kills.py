"""Kill a daemon and its worker (SIGKILL) at random moments over a queue of renders, then look at what came of it.

    python -m tests.soak.kills [--kills 100] [--seed 0] [--batch-size 1]

Worker and daemon in turn. Fails where a job does not end as it should, a file under its final name is not bit for bit
what an undisturbed render gives (but for rounding where jobs are batched), or anything is left over. A job whose worker
died twice is failed by design; so no job's worker is killed a second time here, but for one job at the end, of which
that is expected.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import soundfile
from stylus_daemon.client import Client
from stylus_daemon.jobs import Job, Jobs

from stylus_audio.audio import sha256
from tests.daemons import Daemon, scratch, until
from tests.sounds import RATE, tone

STEPS = 40
"""A job takes a second or two on one core."""
SPAN = 12.0
"""Seconds after a start or the last kill within which the next one falls: half of that is the worker's start."""
PATIENCE = 3600.0
"""Seconds for what workers have to do: beside other work, which goes first, they get a small share of a processor."""
TOLERANCE = 2e-4
"""What rounding comes to at most in a network of random weights, of full scale."""
WAITING = 8
"""Jobs that wait at least, so that no kill falls in an empty queue."""
KINDS = [
    (style, settings)
    for style in ("style", "other")
    for settings in (("keep", 0.7), ("keep", 0.2, "seed", 3), ("amount", 1.5, "bits", "32f"))
]


class Trial:
    """A daemon, what it was asked for, and what its stems have to be."""

    def __init__(self, daemon: Daemon, jobs: Jobs, seed: int, exact: bool) -> None:
        self.daemon, self.jobs, self.rng, self.exact = daemon, jobs, random.Random(seed), exact
        self.names: Iterator[str] = (f"clip_style_{number}" for number in itertools.count())
        self.asked: dict[int, tuple[str, int]] = {}
        """Job to the name of its stem and its kind."""
        self.right: dict[int, Path] = {}
        """Kind to a stem that was rendered in peace."""
        self.struck: Counter[int] = Counter()
        """How often the worker was killed under which job."""
        self.wrong: dict[str, tuple[str, tuple[object, ...]]] = {}
        """Stems that are not as they should be, and of which kind they are."""
        self.count: Counter[str] = Counter()

    def ask(self, kind: int, steps: int = STEPS) -> int:
        """Put a render in the queue."""
        style, settings = KINDS[kind]
        name = next(self.names)
        with Client(self.daemon.port) as client:
            path = str(self.daemon.folder / f"{style}.wav")
            said = client.ask("/stylus/render", self.daemon.clip, path, "name", name, "steps", steps,
                              "dtype", "float32", *settings)  # fmt: skip
        job = int(str(said[0]))
        self.asked[job] = name, kind
        return job

    def running(self) -> list[Job]:
        return self.jobs.listed("running")

    def undisturbed(self) -> None:
        """Render one of each kind in peace."""
        for job in [self.ask(kind) for kind in range(len(KINDS))]:
            until(lambda: self.jobs.get(job).state == "done", PATIENCE)  # noqa: B023  # called at once
            self.right[self.asked[job][1]] = Path(self.jobs.get(job).path)

    def kill(self, whole: bool) -> None:
        """Kill the worker or the daemon at some moment, look at the folder as it is then, and go on."""
        while self.jobs.count("queued") < WAITING:
            self.ask(self.rng.randrange(len(KINDS)))
        time.sleep(self.rng.uniform(0, SPAN))
        if whole:
            self.daemon.kill()
        else:
            until(
                lambda: bool(self.daemon.workers()) and not any(self.struck[job.id] for job in self.running()), PATIENCE
            )
            for worker in self.daemon.workers():
                worker.kill()
                worker.wait()
        hit = {job.id for job in self.running()}
        self.count["daemon" if whole else "worker"] += 1
        self.count["hit, daemon" if whole else "hit, worker"] += bool(hit)
        self.count["hit, several"] += len(hit) > 1
        self.struck.update(() if whole else hit)
        self.compare()
        if whole:
            self.daemon.start()

    def compare(self) -> None:
        """Every stem that can be seen is whole and right."""
        kinds = dict(self.asked.values())
        for stem in self.daemon.stems():
            self.count["stems compared"] += 1
            if not self.is_right(stem, self.right[kinds[stem.stem]]):
                self.wrong[stem.name] = KINDS[kinds[stem.stem]]

    def is_right(self, stem: Path, right: Path) -> bool:
        if self.exact:
            return sha256(stem) == sha256(right)
        # Sums over other batches round otherwise, and a rounding may turn a step of dither.
        one, other = (soundfile.read(path)[0] for path in (stem, right))
        return one.shape == other.shape and bool(np.abs(one - other).max() < TOLERANCE)

    def twice(self) -> int:
        """Kill the worker under one job until it is failed; returns the job."""
        until(lambda: not self.jobs.count("queued", "running"), PATIENCE)
        job = self.ask(0, 900)
        for attempt in (1, 2):
            until(lambda: any(one.attempts == attempt and one.stage for one in self.running()), PATIENCE)  # noqa: B023
            for worker in self.daemon.workers():
                worker.kill()
        until(lambda: self.jobs.get(job).state == "failed", PATIENCE)
        return job

    def leftovers(self) -> list[str]:
        """Files that should not be there: unfinished ones, stems without their sidecars, what nobody asked for."""
        there = {path.name for path in self.daemon.folder.iterdir()} - {"clip.wav", "style.wav", "other.wav"}
        done = [self.asked[job.id][0] for job in self.jobs.listed("done")]
        for name in done:
            json.loads((self.daemon.folder / f"{name}.json").read_text("utf-8"))
        workshop = self.daemon.home / "workshop"
        expected = {f"{name}{end}" for name in done for end in (".wav", ".json")}
        return sorted(there ^ expected) + [str(path) for path in workshop.rglob("*") if path.is_file()]


def soak(kills: int, seed: int, batch_size: int) -> bool:
    """Run the trial, and print what came of it; whether all is as it should be."""
    with scratch(None, "--batch-size", str(batch_size)) as daemon, closing(daemon.jobs()) as jobs:
        soundfile.write(daemon.folder / "other.wav", tone(440.0, 1.0).T, RATE)
        trial = Trial(daemon, jobs, seed, exact=batch_size == 1)
        trial.undisturbed()
        for number in range(kills):
            trial.kill(whole=number % 2 == 1)
        doomed = trial.twice()
        trial.compare()
        count, states = trial.count, Counter(job.state for job in jobs.listed())
        print(f"kills: {count['worker']} of the worker, {count['hit, worker']} under a running job; "
              f"{count['daemon']} of the daemon, {count['hit, daemon']} under a running job; "
              f"{count['hit, several']} under several")  # fmt: skip
        print(f"jobs: {len(trial.asked)} asked, {dict(states)}; killed twice: {jobs.get(doomed).message!r}")
        # Between the look at what runs and the kill another job may have begun, whose worker was killed before.
        expected = {doomed, *(job for job, times in trial.struck.items() if times > 1)}
        failed = {job.id: job.message for job in jobs.listed("failed")}
        if wrongly := {job: message for job, message in failed.items() if job not in expected}:
            print(f"failed, but should not have: {wrongly}")
        print(f"stems: {len(daemon.stems())} there, {count['stems compared']} times compared with undisturbed ones, "
              f"wrong: {trial.wrong or 'none'}; left over: {trial.leftovers() or 'nothing'}")  # fmt: skip
        return (
            states["done"] + states["failed"] == len(trial.asked)
            and not wrongly
            and len(daemon.stems()) == states["done"]
            and not trial.wrong
            and not trial.leftovers()
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kill a daemon and its worker at random moments.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=1)
    chosen = parser.parse_args()
    sys.exit(0 if soak(chosen.kills, chosen.seed, chosen.batch_size) else 1)
