"""The page in a real browser, on a real daemon with the embedded model."""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright
from stylus_daemon.client import Client

from stylus_audio import library
from stylus_audio.riff import Chunk, append_chunks
from stylus_audio.settings import Settings
from tests.daemons import Daemon, scratch, until
from tests.programs import need_node_module, need_program
from tests.sounds import RATE, noise, plucks

pytestmark = pytest.mark.slow

NAME = "Übung «é» 日本 & <b>.wav"
LONG = "ten minutes.wav"
PATIENCE = 240_000
"""Milliseconds; generous, as a test machine may be busy."""

TAP = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (to, ...more) {
  if (to instanceof AudioDestinationNode) {
    to.context.tap ??= new AnalyserNode(to.context, { fftSize: 8192, smoothingTimeConstant: 0 });
    window.tap = to.context.tap;
    connect.call(this, window.tap);
  }
  return connect.call(this, to, ...more);
};
window.spectrum = () => {
  const bins = new Float32Array(window.tap.frequencyBinCount);
  window.tap.getFloatFrequencyData(bins);
  return Array.from(bins);
};
window.level = () => {
  const samples = new Float32Array(window.tap.fftSize);
  window.tap.getFloatTimeDomainData(samples);
  return 10 * Math.log10(samples.reduce((sum, one) => sum + one * one, 1e-12) / samples.length);
};
"""
"""Listens to whatever the page sends to the loudspeakers."""


class Screen:
    """One daemon, one browser, and what a user of both does."""

    def __init__(self, daemon: Daemon, browser: Browser, clips: Path) -> None:
        self.daemon, self.browser, self.clips = daemon, browser, clips
        self.errors: list[str] = []

    def open(self, **options: Any) -> Page:
        """A new user's page: nothing is kept from another."""
        context = self.browser.new_context(viewport={"width": 1280, "height": 1100}, **options)
        return self.tab(context)

    def tab(self, context: BrowserContext) -> Page:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.add_init_script(TAP)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.errors.append(request.url) if self.foreign(request.url) else None)
        with Client(self.daemon.port) as client:
            (url,) = client.ask("/stylus/page")
        page.goto(str(url))
        expect(page.locator("#connection")).to_have_text("connected", timeout=PATIENCE)
        expect(page.locator("#library button")).to_have_count(3, timeout=PATIENCE)
        return page

    def foreign(self, url: str) -> bool:
        return not re.match(r"(http://127\.0\.0\.1:|data:|blob:)", url)

    def take(self, page: Page, name: str) -> None:
        """Choose a clip, and wait until it is seen."""
        page.set_input_files("#clip-file", self.clips / name)
        # Some characters may not stand in a file's name everywhere.
        shown = name.replace("<", "_").replace(">", "_")
        expect(page.locator("#clip-name")).to_contain_text(f"{shown} ·", timeout=PATIENCE)

    def see(self, page: Page, state: str) -> None:
        """A screenshot for whoever wants to look."""
        if folder := os.environ.get("STYLUS_SCREENSHOTS"):
            page.wait_for_timeout(300)
            page.screenshot(path=Path(folder) / f"{state}.png", full_page=True)


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screen]:
    need_program("chromium")
    clips = tmp_path_factory.mktemp("clips")
    # With something in the treble for a sound to change.
    soundfile.write(clips / NAME, (plucks(6.0, channels=2) + noise(6.0, 0.03)).T, RATE)
    soundfile.write(clips / LONG, np.tile(plucks(30.0, channels=2), 20).T, RATE)
    with scratch(Path("mini"), "--http-port", "0") as daemon, sync_playwright() as playwright:
        for number, name in enumerate(("dark", "bright", "noise")):
            file = clips / f"{name}.wav"
            sound = noise(3.0, seed=number)[0]
            if name == "dark":
                sound = np.convolve(sound, np.ones(64) / 20, "same").astype(np.float32)
            soundfile.write(file, sound, RATE)
            library.add(name, file)
        arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        try:
            yield Screen(daemon, browser, clips)
        finally:
            browser.close()


@pytest.fixture
def page(screen: Screen) -> Iterator[Page]:
    opened = screen.open()
    screen.errors.clear()
    yield opened
    opened.context.close()
    assert screen.errors == []


def sounding() -> bytes:
    """A WAV file's bytes."""
    file = BytesIO()
    soundfile.write(file, noise(2.0, seed=7).T, RATE, format="WAV")
    return file.getvalue()


def style(page: Page, name: str) -> Locator:
    return page.locator(f'#library [data-style="{name}"]')


def newest(page: Page) -> int:
    numbers = page.locator("#queue li").evaluate_all("rows => rows.map((row) => Number(row.dataset.job))")
    return max(numbers, default=0)


def row(page: Page, job: int) -> Locator:
    return page.locator(f'#queue li[data-job="{job}"]')


def render(page: Page, button: str = "#render") -> int:
    """Ask for a render; its number, once the queue shows it."""
    page.click(button)
    expect(page.locator("#chosen")).to_contain_text("Job", timeout=PATIENCE)
    number = int(str(page.locator("#chosen").text_content()).split()[1].rstrip(":"))
    expect(row(page, number)).to_be_visible(timeout=PATIENCE)
    return number


def reaches(page: Page, job: int, state: str) -> None:
    expect(row(page, job)).to_have_attribute("data-state", state, timeout=PATIENCE)


def plays(page: Page, result: Locator) -> None:
    """Play a result, once more where a slow machine has heard its six seconds to the end."""
    play = result.get_by_role("button", name="Play", exact=True)
    if play.is_visible():
        play.click()
    heard(page, lambda level: level > -60)


def heard(page: Page, is_so: Callable[[float], bool]) -> float:
    """Wait until the loudspeakers' level in dB is so."""
    level = 0.0

    def now() -> bool:
        nonlocal level
        level = page.evaluate("window.tap ? window.level() : -200")
        return is_so(level)

    until(now, 60)
    return level


def brightness(page: Page, looks: int = 10, every: float = 200) -> float:
    """Mean level in dB of the treble that is heard, over so many looks, `every` milliseconds one."""
    spectra = []
    for _ in range(looks):
        page.wait_for_timeout(every)
        spectra.append(page.evaluate("window.spectrum()"))
    return float(np.mean(np.array(spectra)[:, 2000:3500]))


def test_a_clip_is_dropped_rendered_seen_and_heard(screen: Screen, page: Page) -> None:
    screen.see(page, "empty")
    data = list((screen.clips / NAME).read_bytes())
    page.evaluate(
        """([bytes, name]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], name));
          const zone = document.querySelector('[data-drop="clip"]');
          zone.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        [data, NAME],
    )
    expect(page.locator("#clip-name")).to_contain_text("Übung «é» 日本 & _b_.wav ·", timeout=PATIENCE)
    assert page.locator("#clip-name b").count() == 0
    style(page, "noise").click()
    expect(style(page, "noise")).to_have_attribute("aria-pressed", "true")
    screen.see(page, "chosen")
    page.fill("#dial-keep_below", "200")
    page.evaluate(
        """() => {
          window.seen = [];
          setInterval(() => {
            const bar = document.querySelector("#queue progress:not([hidden])");
            if (bar && bar.value !== window.seen.at(-1)) window.seen.push(bar.value);
          }, 10);
        }"""
    )
    job = render(page)
    reaches(page, job, "done")
    moved = page.evaluate("window.seen")
    assert len(moved) >= 3
    assert moved == sorted(moved)
    result = page.locator("#result")
    expect(result.locator(".track")).to_have_count(3, timeout=PATIENCE)
    expect(result).to_contain_text("Notes kept")
    assert "--keep-below 200" in str(result.locator("code").first.text_content())
    for image in result.locator(".track img").all():
        image.evaluate("image => image.decode()")
        assert image.evaluate("image => image.naturalWidth") > 100
    screen.see(page, "result")
    # Content and stem are heard at one level, in sync, and what is chosen is what sounds.
    bright = {}
    for key in ("stem", "content"):
        plays(page, result)
        result.locator(f'[data-track="{key}"]').click()
        page.wait_for_timeout(400)
        bright[key] = brightness(page, 6, 100)
    # `mini` takes treble from a clip in this style, which a match-EQ would give it.
    assert abs(bright["stem"] - bright["content"]) > 3
    expect(result.locator('[data-track="content"]')).to_have_attribute("aria-checked", "true")
    result.locator('[data-track="content"]').press("ArrowDown")
    expect(result.locator('[data-track="style"]')).to_have_attribute("aria-checked", "true")
    result.get_by_role("button", name="Blind").click()
    assert set(result.locator("[role=radio]").all_text_contents()) == {"Sound 1", "Sound 2", "Sound 3"}
    screen.see(page, "blind")
    plays(page, result)
    result.get_by_role("button", name="Pause").click()
    heard(page, lambda level: level < -90)
    with page.expect_download() as download:
        result.get_by_role("link", name="Download the stem").click()
    stem = soundfile.info(str(download.value.path()))
    assert (stem.frames, stem.channels, stem.samplerate) == (6 * RATE, 2, RATE)
    page.fill("#dial-keep_below", "")
    result.get_by_role("button", name="Render again with").click()
    expect(page.locator("#dial-keep_below")).to_have_value("200", timeout=PATIENCE)


def test_what_has_no_dial_is_rendered_again_until_another_clip_is_chosen(screen: Screen, page: Page) -> None:
    file = screen.daemon.folder / "longer.wav"
    soundfile.write(file, plucks(9.0, channels=2).T, RATE)
    typed: dict[str, Any] = {
        "start": "22050 samples", "end": 8.5, "method": "injection", "steps": 2, "keep": "0.2:0.8", "amount": 1.25,
        "keep_below": 90.0, "stereo": "mid-side", "loudness": -20.0, "style_weight": "2,1", "mix": 0.5,
    }  # fmt: skip
    with Client(screen.daemon.port) as client:
        words = [word for pair in typed.items() for word in pair]
        number = int(str(client.ask("/stylus/render", str(file), "dark", "style", "noise", *words)[0]))
    said = "also: start 22050 samples, end 8.5, method injection, steps 2, keep 0.2:0.8, stereo mid-side, loudness -20"
    line = page.locator("#dials .also")
    reaches(page, number, "done")

    def asked(button: str) -> dict[str, Any]:
        page.locator("#chosen").evaluate("place => place.textContent = ''")
        request = screen.daemon.jobs().get(render(page, button)).request
        return dict(request["settings"])

    def again() -> None:
        row(page, number).get_by_role("button", name="Show").click()
        page.locator("#result").get_by_role("button", name="Render again with").click()
        expect(line).to_contain_text(said, timeout=PATIENCE)

    again()
    expect(page.locator("#dial-amount")).to_have_value("1.25")
    screen.see(page, "again")
    assert Settings.parse(asked("#render")) == Settings.parse(typed)
    page.reload()
    expect(line).to_contain_text(said, timeout=PATIENCE)
    expect(page.locator("#clip-name")).to_contain_text("longer.wav ·", timeout=PATIENCE)
    # A dial takes over what it is turned for, and a preview the segment's beginning.
    page.fill("#dial-keep", "0.5")
    assert Settings.parse(asked("#preview")) == Settings.parse({**typed, "keep": 0.5, "end": 6.5})
    screen.take(page, NAME)
    expect(line).to_be_hidden()
    again()
    line.get_by_role("button", name="Leave out").click()
    expect(line).to_be_hidden()
    assert asked("#render") == {"amount": 1.25, "keep_below": 90, "mix": 0.5}
    reaches(page, newest(page), "done")


def test_it_opens_on_a_file_that_its_address_names(screen: Screen, page: Page) -> None:
    """As the device for Live opens it."""
    screen.take(page, NAME)
    file = screen.daemon.folder / "Ünder #1 & 100% of it.wav"
    soundfile.write(file, plucks(16.0).T, RATE)
    append_chunks(file, [Chunk(b"acid", struct.pack("<IHHfIHHf", 0, 60, 0x8000, 0, 24, 4, 3, 90.0))])
    address = page.url.split("#")[0]

    def shows(name: str, start: str, length: str) -> None:
        expect(page.locator("#clip-name")).to_contain_text(f"{name} ·", timeout=PATIENCE)
        expect(page.locator("#loop-start")).to_have_value(start)
        expect(page.locator("#loop-length")).to_have_value(length)

    page.goto("about:blank")
    page.goto(f"{address}#clip={quote(str(file), safe='')}&start=1.5&length=2.25")
    shows(file.name, "1.50", "2.25")
    assert page.url == address
    # A reload keeps what has been changed since.
    page.fill("#loop-start", "3")
    page.press("#loop-start", "Enter")
    page.reload()
    shows(file.name, "3.00", "2.25")
    # What is typed is one of the two: the other stays finer than it is shown.
    page.goto("about:blank")
    page.goto(f"{address}#clip={quote(str(file), safe='')}&start=1.142857&length=3.428571")
    shows(file.name, "1.14", "3.43")
    kept = "JSON.parse(localStorage.getItem('kept')).loop"
    page.fill("#loop-start", "2")
    page.press("#loop-start", "Enter")
    assert page.evaluate(kept) == {"start": 2, "length": 3.428571}
    # Its audition is heard again after a reload, but not where another part of the file is named.
    page.click("#audition")
    expect(page.locator("#tiles button")).to_have_count(4, timeout=PATIENCE)
    page.reload()
    expect(page.locator("#tiles button")).to_have_count(4, timeout=PATIENCE)
    for start, tiles in ((2, 4), (8, 0)):
        page.goto("about:blank")
        page.goto(f"{address}#clip={quote(str(file), safe='')}&start={start}&length=3.428571")
        shows(file.name, f"{start}.00", "3.43")
        expect(page.locator("#tiles button")).to_have_count(tiles, timeout=PATIENCE)
    # Without a loop it is two bars of the file's own, three beats each, from a bar on.
    page.goto("about:blank")
    page.goto(f"{address}#clip={quote(str(file), safe='')}")
    expect(page.locator("#loop-bpm")).to_have_value("90", timeout=PATIENCE)
    expect(page.locator("#loop-length")).to_have_value("4.00")
    assert float(page.input_value("#loop-start")) % 2 == 0
    # A click beside the loop brings it there.
    box = page.locator("#clip-wave").bounding_box()
    assert box
    page.mouse.click(box["x"] + box["width"] * 11 / 16, box["y"] + 10)
    expect(page.locator("#loop-start")).to_have_value(re.compile(r"1[01]\.\d\d"))
    page.goto("about:blank")
    page.goto(f"{address}#clip=%2Fetc%2Fpasswd")
    expect(page.locator("#notice")).to_contain_text("outside of the folders", timeout=PATIENCE)


def test_cancel_pause_and_order(screen: Screen, page: Page) -> None:
    screen.take(page, LONG)
    style(page, "noise").click()
    first = render(page)
    reaches(page, first, "running")
    waiting = []
    for _ in range(3):
        page.locator("#chosen").evaluate("place => place.textContent = ''")
        waiting.append(render(page))

    def shown() -> list[int]:
        queued = page.locator("#queue li[data-state=queued]")
        return [int(number) for number in queued.evaluate_all("rows => rows.map((row) => row.dataset.job)")]

    assert shown() == waiting
    row(page, waiting[2]).get_by_role("button", name="Up:").click()
    until(lambda: shown() == [waiting[0], waiting[2], waiting[1]])
    row(page, waiting[0]).get_by_role("button", name="Down:").click()
    until(lambda: shown() == [waiting[2], waiting[0], waiting[1]])
    row(page, waiting[0]).get_by_role("button", name="Pause").click()
    reaches(page, waiting[0], "paused")
    screen.see(page, "queue")
    row(page, waiting[0]).get_by_role("button", name="Resume").click()
    reaches(page, waiting[0], "queued")
    for number in (*waiting, first):
        row(page, number).get_by_role("button", name="Cancel").click()
        reaches(page, number, "cancelled")
    assert not screen.daemon.unfinished()


def test_a_reload_in_mid_render_and_a_second_tab(screen: Screen, page: Page) -> None:
    screen.take(page, LONG)
    style(page, "dark").click()
    page.fill("#dial-keep_above", "9000")
    job = render(page, "#preview")
    other = screen.tab(page.context)
    expect(row(other, job)).to_be_visible(timeout=PATIENCE)
    reaches(page, job, "running")
    page.reload()
    expect(page.locator("#clip-name")).to_contain_text(LONG, timeout=PATIENCE)
    expect(style(page, "dark")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#dial-keep_above")).to_have_value("9000")
    reaches(page, job, "done")
    reaches(other, job, "done")
    # The tab that has asked shows the result; the other one offers it.
    expect(page.locator("#result .track")).to_have_count(3, timeout=PATIENCE)
    expect(other.locator("#result")).to_be_hidden()
    row(other, job).get_by_role("button", name="Show").click()
    expect(other.locator("#result .track")).to_have_count(3, timeout=PATIENCE)
    # A passage of ten minutes lies where it comes from.
    play = page.locator("#result").get_by_role("button", name="Play", exact=True)
    play.click()
    heard(page, lambda level: level > -60)
    page.locator('#result [data-track="content"]').click()
    heard(page, lambda level: level > -60)


def test_a_daemon_that_starts_anew_under_the_page(screen: Screen, page: Page) -> None:
    screen.take(page, NAME)
    style(page, "noise").click()
    port = int(page.url.split(":")[2].split("/")[0])
    before = screen.daemon.words
    screen.daemon.end()
    expect(page.locator("#connection")).to_have_text("waiting for the daemon …", timeout=PATIENCE)
    page.click("#render")
    expect(page.locator("#notice")).to_contain_text("The daemon does not answer", timeout=PATIENCE)
    screen.see(page, "daemon gone")
    try:
        screen.daemon.words = ("--http-port", str(port))
        screen.daemon.start()
        expect(page.locator("#connection")).to_have_text("connected", timeout=PATIENCE)
        job = render(page)
        reaches(page, job, "done")
        expect(page.locator("#notice")).to_be_hidden()
    finally:
        screen.daemon.words = before


def test_the_wall_is_heard_and_its_dials_answer(screen: Screen, page: Page) -> None:
    screen.take(page, NAME)
    page.click("#audition")
    tiles = page.locator("#tiles button")
    expect(tiles).to_have_count(4, timeout=PATIENCE)
    for name in ("dark", "bright", "noise"):
        expect(page.locator(f'#tiles [data-tile="{name}"]')).to_be_enabled(timeout=PATIENCE)
    screen.see(page, "wall")
    page.click("#wall-play")
    heard(page, lambda level: level > -60)

    def choose(name: str) -> float:
        page.locator(f'#tiles [data-tile="{name}"]').click()
        expect(page.locator(f'#tiles [data-tile="{name}"]')).to_have_attribute("aria-pressed", "true")
        return brightness(page)

    dry, dark, bright = choose(""), choose("dark"), choose("noise")
    assert dark < bright - 3
    assert dark < dry - 3
    assert abs(dry - bright) > 3
    # None of it, by whichever dial, is the clip itself.
    page.fill("#dial-amount", "0")
    assert abs(brightness(page) - dry) < 1.5
    page.fill("#dial-amount", "1")
    assert abs(brightness(page) - bright) < 1.5
    page.fill("#dial-mix", "0")
    assert abs(brightness(page) - dry) < 1.5
    page.fill("#dial-mix", "100")
    page.fill("#dial-keep_above", "5000")
    assert abs(brightness(page) - dry) < 1.5
    page.fill("#dial-keep_above", "")
    page.click("#wall-play")
    heard(page, lambda level: level < -90)
    page.reload()
    expect(page.locator('#tiles [data-tile="noise"]')).to_be_enabled(timeout=PATIENCE)
    page.locator('#tiles [data-tile="noise"]').click()
    before = newest(page)
    # Though a segment is asked for, and weights of several sounds.
    page.evaluate("stylus.dials.fill({ start: 1, style_weight: [2, 1], stereo: 'mid-side' })")
    page.click("#wall-render")
    until(lambda: newest(page) > before)
    assert screen.daemon.jobs().get(newest(page)).request["settings"] == {"stereo": "mid-side"}
    reaches(page, newest(page), "done")
    expect(page.locator("#result-title")).to_contain_text("noise", timeout=PATIENCE)


def test_a_reference_is_dropped_and_kept(screen: Screen, page: Page) -> None:
    page.set_input_files("#style-file", [screen.clips / "bright.wav", screen.clips / "dark.wav"])
    boxes = page.locator("#references input[type=checkbox]")
    expect(boxes).to_have_count(2, timeout=PATIENCE)
    assert all(box.is_checked() for box in boxes.all())
    page.set_input_files("#style-file", {"name": "no.wav", "mimeType": "audio/wav", "buffer": b"nothing"})
    expect(page.locator("#notice")).to_contain_text("no.wav", timeout=PATIENCE)
    screen.see(page, "refused")
    screen.take(page, NAME)
    job = render(page)
    reaches(page, job, "done")
    expect(page.locator("#result-title")).to_contain_text("bright+dark", timeout=PATIENCE)
    # The wall has what was dropped too, but for what the library has by that name.
    page.set_input_files("#style-file", {"name": "dropped.wav", "mimeType": "audio/wav", "buffer": sounding()})
    expect(boxes).to_have_count(3, timeout=PATIENCE)
    page.click("#audition")
    expect(page.locator("#tiles button:enabled")).to_have_count(5, timeout=PATIENCE)
    tiles = page.locator("#tiles button").evaluate_all("tiles => tiles.map((tile) => tile.dataset.tile)")
    assert set(tiles) == {"", "dark", "bright", "noise", "dropped"}
    page.get_by_role("button", name="Remove dropped.wav").click()
    expect(boxes).to_have_count(2)
    page.reload()
    expect(boxes).to_have_count(2, timeout=PATIENCE)
    # A name that the library has is refused in words.
    page.locator("#references button").first.click()
    expect(page.locator("#notice")).to_contain_text("is there already", timeout=PATIENCE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_violation_of_accessibility(screen: Screen, page: Page, scheme: str) -> None:
    need_node_module("axe-core")
    script = Path(os.environ["NODE_PATH"]) / "axe-core" / "axe.min.js"
    page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
    screen.take(page, NAME)
    done = page.locator('#queue li[data-state="done"] button')
    if not done.count():
        style(page, "dark").click()
        reaches(page, render(page), "done")
    else:
        done.first.click()
    expect(page.locator("#result .track")).to_have_count(3, timeout=PATIENCE)
    screen.see(page, f"all {scheme}")
    page.evaluate(script.read_text("utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert serious == [], [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious]


def test_the_first_paint_waits_for_no_model_and_the_page_answers_while_it_renders(screen: Screen, page: Page) -> None:
    screen.take(page, LONG)
    style(page, "noise").click()
    job = render(page)
    reaches(page, job, "running")
    # Both cores render; frames are still drawn, at each of which this is asked, and commands answered.
    page.wait_for_function("() => (window.drawn = (window.drawn ?? 0) + 1) > 10", timeout=PATIENCE)
    row(page, job).get_by_role("button", name="Cancel").click()
    reaches(page, job, "cancelled")
    # A daemon that has just begun paints before a worker has loaded anything.
    screen.daemon.end()
    screen.daemon.start()
    until(lambda: bool(screen.daemon.workers()))
    (worker,) = screen.daemon.workers()
    worker.suspend()
    try:
        fresh = screen.open()
        assert fresh.locator("h1").text_content() == "Stylus"
        state = fresh.locator("#gauges dd").first
        expect(state).to_have_text(re.compile("^(starting|loading)$"), timeout=PATIENCE)
    finally:
        worker.resume()
    expect(state).to_have_text("idle", timeout=PATIENCE)
    fresh.context.close()
