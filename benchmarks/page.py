"""The page in Chromium: `python -m benchmarks.page [STYLES]` says how long the wall takes, and when a dial is heard."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
from playwright.sync_api import Page, sync_playwright

from stylus_audio import library
from stylus_audio.places import DEMO_CONTENT

RATE = 44100
PATIENCE = 600_000
"""Milliseconds."""

TURNS = 40

DIAL = """async ([turns]) => {
  const { wall, dials } = window.stylus;
  const context = wall.player.context;
  const input = document.getElementById("dial-mix");
  const waited = [];
  for (let turn = 0; turn < turns; turn += 1) {
    await new Promise((done) => setTimeout(done, 100 + 50 * Math.random()));
    const from = performance.now();
    input.value = turn % 2 ? 100 : 0;
    input.dispatchEvent(new Event("input"));
    const heard = await wall.player.setDials(dials.live());
    const { contextTime, performanceTime } = context.getOutputTimestamp();
    waited.push(performanceTime + 1000 * (heard - contextTime) - from);
  }
  return { waited, output: 1000 * (context.outputLatency || context.baseLatency) };
}"""
"""Milliseconds from the dial's event to when its change reaches the output."""


def sounds(folder: Path, count: int) -> None:
    """Styles of five seconds each: noise and notes through filters of chance."""
    rng = np.random.default_rng(0)
    moment = np.arange(5 * RATE) / RATE
    for number in range(count):
        shape = np.interp(np.linspace(0, 1, 5 * RATE // 2 + 1), np.linspace(0, 1, 12), 10 ** rng.uniform(-3, 0, 12))
        sound = np.fft.irfft(np.fft.rfft(rng.standard_normal(5 * RATE)) * shape)
        for note in rng.uniform(100, 2000, 4):
            sound += rng.uniform(0, 2) * sound.std() * np.sin(2 * np.pi * note * moment)
        soundfile.write(folder / f"{number}.wav", 0.3 * sound / np.abs(sound).max(), RATE)
        library.add(f"style {number:02}", folder / f"{number}.wav")


def wall(page: Page) -> tuple[float, float]:
    """Seconds to the first and to the last style."""
    page.evaluate("delete document.getElementById('tiles').dataset.all")
    page.click("#audition")
    page.wait_for_selector("#tiles[data-all]", timeout=PATIENCE)
    first, last = (page.get_attribute("#tiles", f"data-{which}") for which in ("first", "all"))
    return float(first or 0), float(last or 0)


def measure(page: Page, url: str) -> None:
    """Prints every figure as it is known."""
    begun = time.monotonic()
    page.goto(url)
    page.wait_for_selector("#library button", timeout=PATIENCE)
    print(f"painted with its library after {time.monotonic() - begun:.1f} s")
    page.locator("#gauges dd", has_text="idle").wait_for(timeout=PATIENCE)
    page.set_input_files("#clip-file", DEMO_CONTENT)
    page.wait_for_selector("#clip-wave:not([hidden])", timeout=PATIENCE)
    page.fill("#loop-length", "4")
    page.dispatch_event("#loop-length", "change")
    page.wait_for_timeout(15_000)
    for kind in ("cold", "warm"):
        first, last = wall(page)
        print(f"wall, styles {kind}: the first after {first:.2f} s, all after {last:.1f} s")
    page.click("#wall-play")
    page.wait_for_timeout(1000)
    found = page.evaluate(DIAL, [TURNS])
    waited = found["waited"]
    print(
        f"a dial's change reaches the output after {statistics.median(waited):.0f} ms (at most {max(waited):.0f} of"
        f" {TURNS} turns), and the ear after {found['output']:.0f} ms more; it fades in over 5 ms"
    )


def main() -> None:
    """A daemon and a browser of its own, and a library of so many styles (50)."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with TemporaryDirectory() as home, sync_playwright() as playwright:
        os.environ["STYLUS_HOME"] = home
        sounds(Path(home), count)
        words = [sys.executable, "-m", "stylus_audio", "daemon", "--osc-port", "9391", "--http-port", "0"]
        daemon = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert daemon.stdout is not None
        url = daemon.stdout.readline().split()[-1]
        arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        try:
            measure(browser.new_page(), url)
        finally:
            browser.close()
            daemon.send_signal(signal.SIGINT)
            daemon.wait()


if __name__ == "__main__":
    main()
