"""Ask a daemon 2,000 times a second while it renders; fails where the 99th percentile of replies takes over 20 ms.

    python -m tests.soak.load [--seconds 60] [--rate 2000] [--model mini]

A phase with room in the queue for every render, then one where the queue is full and every render is refused. Requests
go out when they are due, whether or not the ones before were answered; a quarter each are renders, job status, status
and ping. What is never answered counts as endless. How late the sender is by itself is told apart. No render is
answered before it is on the disk, so a disk that stalls shows; `TMPDIR` says which disk.
"""

from __future__ import annotations

import argparse
import gc
import math
import select
import socket
import sys
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

import psutil
import soundfile
from stylus_daemon.client import Client
from stylus_daemon.osc_messages import Argument, encode

from tests.daemons import Daemon, scratch, until
from tests.sounds import RATE, plucks

ALLOWED = 20.0
"""The 99th percentile of the times to a reply, ms."""
KINDS = ("/stylus/render", "/stylus/job/status", "/stylus/status", "/stylus/ping")
SMALL = 4
"""Jobs that may wait where the queue is to be full."""
LONG: tuple[Argument, ...] = ("steps", 900)
"""A render that outlasts a phase."""


class Volley:
    """Requests, and when each was due and sent and its reply came; ids are `~` and seven digits."""

    def __init__(self, packets: Sequence[bytes]) -> None:
        self.packets = packets
        self.due, self.sent, self.heard = (array("d", [math.inf] * len(packets)) for _ in range(3))
        self.busy = self.running = 0
        """Replies that said so of the queue, and of the job whose status was asked."""

    def fire(self, port: int, rate: float) -> None:
        """Send each packet when it is due, and note the replies meanwhile and for two seconds after."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            udp.connect(("127.0.0.1", port))
            gc.disable()
            begun = time.monotonic() + 0.1
            for number, packet in enumerate(self.packets):
                self.due[number] = begun + number / rate
                self._listen(udp, self.due[number])
                self.sent[number] = time.monotonic()
                udp.send(packet)
            self._listen(udp, time.monotonic() + 2)
            gc.enable()

    def _listen(self, udp: socket.socket, end: float) -> None:
        while (left := end - time.monotonic()) > 0:
            if not select.select([udp], [], [], left)[0]:
                return
            reply, now = udp.recv(1 << 16), time.monotonic()
            if reply.startswith((b"/stylus/reply", b"/stylus/error")):
                at = reply.index(b"~")
                number = int(reply[at + 1 : at + 8])
                self.heard[number] = min(self.heard[number], now)
                self.busy += reply.startswith(b"/stylus/error") and b"busy" in reply
                self.running += b"running" in reply

    def waits(self, kind: int) -> list[float]:
        """Times to the reply of each request of a kind, ms."""
        return [1000 * (self.heard[i] - self.sent[i]) for i in range(kind, len(self.packets), len(KINDS))]


def requests(daemon: Daemon, job: Argument, many: int) -> list[bytes]:
    """Requests of every kind in turn, each with an id of its own."""
    behind = ((daemon.clip, daemon.style, *LONG), (job,), (), ())
    return [encode(KINDS[i % len(KINDS)], f"~{i:07}", *behind[i % len(KINDS)]) for i in range(many)]


def row(name: str, times: list[float]) -> str:
    """Percentiles in a line of the table."""
    ordered = sorted(times)
    p50, p99 = (ordered[int(part * len(ordered))] for part in (0.5, 0.99))
    return f"{name:20}{len(times):9}{p50:9.1f}{p99:9.1f}{ordered[-1]:9.1f}{times.count(math.inf):9}"


def processor(process: psutil.Process) -> float:
    """Seconds of processor time so far."""
    spent = process.cpu_times()
    return spent.user + spent.system


def soak(full: bool, seconds: float, rate: float, model: str) -> bool:
    """One phase, and its table; whether it kept to what is required."""
    many = int(seconds * rate)
    with scratch(Path(model), "--queue", str(SMALL if full else many)) as daemon, Client(daemon.port) as client:
        soundfile.write(daemon.clip, plucks(30.0).T, RATE)
        first = client.ask("/stylus/render", daemon.clip, daemon.style, *LONG)[0]
        until(lambda: client.ask("/stylus/job/status", first)[2] != 0)
        for _ in range(SMALL if full else 0):
            client.ask("/stylus/render", daemon.clip, daemon.style, *LONG)
        volley = Volley(requests(daemon, first, many))
        processes = [psutil.Process(daemon.process.pid), *daemon.workers()]
        before = [processor(one) for one in processes]
        begun = time.monotonic()
        volley.fire(daemon.port, rate)
        passed = time.monotonic() - begun
        daemons, workers = ((processor(one) - was) / passed for one, was in zip(processes, before, strict=True))
        queued = client.ask("/stylus/status")[3]
    print(f"queue {'full' if full else 'with room'}: {'':2}requests   p50 ms   p99 ms   max ms     lost")
    waits = [volley.waits(kind) for kind in range(len(KINDS))]
    everything = [wait for times in waits for wait in times]
    for name, times in (*zip(KINDS, waits, strict=True), ("all", everything)):
        print(row(name, times))
    late = [1000 * (sent - due) for sent, due in zip(volley.sent, volley.due, strict=True)]
    print(row("(sender's lateness)", late))
    print(f"{volley.busy} refused, {queued!s} queued; cores used: daemon {daemons:.2f}, render {workers:.2f}; "
          f"the job was running in {volley.running} of {len(waits[1])} answers\n")  # fmt: skip
    p99 = sorted(everything)[int(0.99 * many)]
    return p99 <= ALLOWED and volley.running == len(waits[1]) and volley.busy == (len(waits[0]) if full else 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ask a daemon often while it renders, and time its replies.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--model", default="mini")
    chosen = parser.parse_args()
    kept = [soak(full, chosen.seconds, chosen.rate, chosen.model) for full in (False, True)]
    print(f"the 99th percentile is {'' if all(kept) else 'not '}within {ALLOWED:.0f} ms with a render running")
    sys.exit(0 if all(kept) else 1)
