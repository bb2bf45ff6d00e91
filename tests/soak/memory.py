"""Render 200 clips through a daemon; fails where daemon and worker have 2% more memory at the end than early on.

    python -m tests.soak.memory [--renders 200]

Resident memory of both processes after each render: the median of the last tenth of them against that of the second
tenth. Clips of several lengths, styles and settings come in turn, so that everything has been kept that is kept.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median

import psutil
import soundfile
from stylus_daemon.client import Client

from tests.daemons import Daemon, scratch
from tests.sounds import RATE, noise, plucks

ALLOWED = 0.02
"""Growth, as a share."""
CLIPS, STYLES = (0.5, 0.8, 1.3, 2.1), 3
"""Seconds of the clips; how many references there are."""
SETTINGS = (("keep", 0.7), ("amount", 1.5, "bits", "32f"), ("transients", 0.5, "stereo", "mid-side"))


def prepare(daemon: Daemon) -> None:
    """Write the clips and the references."""
    for number, seconds in enumerate(CLIPS):
        soundfile.write(daemon.folder / f"clip_{number}.wav", plucks(seconds, channels=2).T, RATE)
    for number in range(STYLES):
        soundfile.write(daemon.folder / f"style_{number}.wav", noise(1.0, seed=number).T, RATE)


def render(daemon: Daemon, client: Client, number: int) -> None:
    """One render, to its end."""
    clip = daemon.folder / f"clip_{number % len(CLIPS)}.wav"
    style = daemon.folder / f"style_{number % STYLES}.wav"
    values = SETTINGS[number // STYLES % len(SETTINGS)]
    job = client.ask("/stylus/render", str(clip), str(style), "overwrite", True, "quality", "fast", *values)[0]
    client.wait(int(str(job)), lambda *_: None)


def soak(renders: int) -> bool:
    """Render, and print the table; whether memory stayed as it was."""
    with scratch(None) as daemon, Client(daemon.port) as client:
        prepare(daemon)
        sizes: list[list[int]] = []
        for number in range(renders):
            render(daemon, client, number)
            processes = [psutil.Process(daemon.process.pid), *daemon.workers()]
            sizes.append([process.memory_info().rss for process in processes])
    tenth = renders // 10
    spans = [("first", 0, 1), (f"{tenth + 1} to {2 * tenth}", tenth, 2 * tenth),
             (f"{renders // 2 + 1} to {renders // 2 + tenth}", renders // 2, renders // 2 + tenth),
             (f"last {tenth}", renders - tenth, renders)]  # fmt: skip
    print(f"{'median MiB of render':24}{'daemon':>9}{'worker':>9}{'both':>9}")
    both = []
    for name, first, last in spans:
        daemons, workers = (median(one[process] for one in sizes[first:last]) / 2**20 for process in (0, 1))
        both.append(median(sum(one) for one in sizes[first:last]) / 2**20)
        print(f"{name:24}{daemons:9.1f}{workers:9.1f}{both[-1]:9.1f}")
    growth = both[-1] / both[1] - 1
    print(f"{renders} renders, growth {100 * growth:.2f}%, {100 * ALLOWED:.0f}% allowed")
    return growth < ALLOWED


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Watch a daemon's memory over many renders.")
    parser.add_argument("--renders", type=int, default=200)
    chosen = parser.parse_args()
    sys.exit(0 if soak(max(chosen.renders, 20)) else 1)
