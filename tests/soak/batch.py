"""End a batch at random moments, then look at what came of it.

    python -m tests.soak.batch [--strikes 20] [--clips 60] [--seed 0]

In turn the run itself is killed (SIGKILL), interrupted (SIGINT), or its worker is killed under it. Fails where a stem
is not bit for bit what an undisturbed run gives, one is there twice, or anything is left over.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from stylus_audio.style_encoder import StyleEncoder
from tests.studios import Studio
from tests.tiny import STEPS, save_tiny

SPAN = 3.0
"""Seconds after a run's first stem within which it is struck: while stems come."""


def told(folder: Path) -> Path:
    """A small conditional model."""
    model = save_tiny(
        folder, 2, {"conditional": {"steps": dict.fromkeys(STEPS, 1), "settings": {"gamma": 0.0, "alpha": 1.0}}}
    )
    StyleEncoder(64, 8, 32, 16, depth=1).save_pretrained(model / "style_encoder")
    return model


def strike(process: subprocess.Popen[str], kind: str) -> None:
    """One blow."""
    if kind == "worker":
        with suppress(psutil.NoSuchProcess, IndexError):
            psutil.Process(process.pid).children()[-1].kill()
        return
    process.send_signal(signal.SIGKILL if kind == "killed" else signal.SIGINT)
    process.wait()


def run(strikes: int, clips: int, seed: int, folder: Path) -> int:
    """Returns the exit code."""
    rng, count = random.Random(seed), Counter[str]()
    model = told(folder / "model")
    for name in ("quiet", "loud"):
        (folder / name).mkdir()
    quiet, loud = (Studio(folder / name, model, clips) for name in ("quiet", "loud"))
    quiet.run()
    right = quiet.stems()
    while sum(count.values()) < strikes:
        before, process = loud.count(), loud.start()
        while process.poll() is None and loud.count() == before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, SPAN))
        kind = ("killed", "interrupted", "worker")[sum(count.values()) % 3]
        if process.poll() is None:
            strike(process, kind)
            count[kind] += 1
            process.kill()
        process.communicate()
        if loud.count() >= len(right):
            # All is there: begin once more.
            for path in loud.out.rglob("*.wav"):
                path.unlink()
        print(f"{dict(count)}: {loud.count()} of {len(right)} stems", flush=True)
    loud.run()
    reports = [report["stem"] for report in loud.reports()]
    wrong = [name for name in {*right, *loud.stems()} if right.get(name) != loud.stems().get(name)]
    print(f"{dict(count)}; {len(right)} stems, {len(wrong)} wrong {sorted(wrong)[:5]}, {len(reports)} reports")
    return int(bool(wrong) or len(reports) != len(set(reports)) or len(reports) != len(right))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strikes", type=int, default=20)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with TemporaryDirectory() as place:
        os.environ["STYLUS_HOME"] = str(Path(place) / "home")
        sys.exit(run(asked.strikes, asked.clips, asked.seed, Path(place)))
