"""The audition wall's sound under plain Node, beside the stem's own functions."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any, cast

import numpy as np
import pytest
import stylus_daemon
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from stylus_audio.audio import Clip
from stylus_audio.finish import attacks, finish, level_factor
from stylus_audio.gains import Gains
from stylus_audio.loudness import integrated
from stylus_audio.passage import Passage, passage_of
from stylus_audio.phase import apply_gain
from stylus_audio.settings import Settings
from stylus_audio.spectrogram import MINI
from stylus_audio.training.compose import compose, to_midi
from stylus_audio.training.synthesise import soundfont, synthesise
from tests.programs import need_font, need_program
from tests.sounds import RATE, Audio, decibels, noise, plucks, tone

PAGE = Path(stylus_daemon.__file__).parent / "page"
HELPERS = Path(__file__).parent / "page"
BLOCK = 128
"""Samples that Web Audio asks for at once."""
HOP = MINI.hop / MINI.sample_rate
FADE = 221
"""Samples from one sound to the next: 5 ms."""

Floats = NDArray[np.floating[Any]]
Step = Mapping[str, object]


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's modules and the tests' own, where Node takes them for modules as browsers do."""
    need_program("node", "nodejs")
    folder = tmp_path_factory.mktemp("page")
    for path in (*PAGE.glob("*.js"), *HELPERS.glob("*.js")):
        shutil.copy(path, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


def evaluated(page: Path, code: str, *words: object) -> Any:
    """What a module that lies beside the page's says as JSON; `words` are `process.argv` from 1 on."""
    done = subprocess.run(
        ["node", "--expose-gc", "--input-type=module", "--eval", code, *map(str, words)], cwd=page, capture_output=True,
        text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def save(path: Path, db: Floats, hop: float = HOP) -> dict[str, object]:
    """Gains `[channel, frame, band]` as a file that the page would get, and what it is told of them."""
    np.round(db * 500).astype("<i2").tofile(path)
    channels, frames, bands = db.shape
    shape = {"channels": channels, "frames": frames, "bands": bands, "low": MINI.low, "high": MINI.high, "hop": hop}
    return {"gains": str(path), "shape": shape}


@dataclass
class Wall:
    """A clip and its styles, gains in dB `[channel, frame, band]`; `heard` plays them."""

    page: Path
    folder: Path
    audio: Audio
    rate: int = RATE
    styles: Mapping[str, Floats] = field(default_factory=dict)
    attack: Floats | None = None
    hop: float = HOP
    times: list[dict[str, float]] = field(default_factory=list)
    """Per step, the seconds that all blocks took and the longest one."""

    def heard(self, *steps: Step, block: int = BLOCK, transport: bool = False) -> Audio:
        """What all steps together render, `[channel, sample]`."""
        for name, values in (("clip", self.audio), ("attack", self.attack)):
            if values is not None:
                np.ascontiguousarray(values, "<f4").tofile(self.folder / name)
        spec = {
            "rate": self.rate,
            "clip": str(self.folder / "clip"),
            "channels": len(self.audio),
            "attack": None if self.attack is None else str(self.folder / "attack"),
            "styles": {name: save(self.folder / f"{name}.gains", db, self.hop) for name, db in self.styles.items()},
            "block": block,
            "steps": steps,
            "isTransport": transport,
            "out": str(self.folder / "out"),
        }
        (self.folder / "spec.json").write_text(json.dumps(spec))
        self.times = evaluated(self.page, 'import "./run_audition.js"', self.folder / "spec.json")
        return np.fromfile(self.folder / "out", "<f4").reshape(len(self.audio), -1)


MakeWall = Callable[..., Wall]


@pytest.fixture
def wall(page: Path, tmp_path: Path) -> MakeWall:
    """Makes one."""

    def one(audio: Audio, *more: Any, **named: Any) -> Wall:
        return Wall(page, tmp_path, audio, *more, **named)

    return one


def frames(samples: int, rate: int = RATE) -> int:
    """Of gains that begin before the loop ends."""
    return int(np.ceil(samples / rate / HOP - 1e-6))


def flat(db: float, samples: int) -> Floats:
    return np.full((1, frames(samples), MINI.bands), db)


def waving(channels: int, times: Floats, turn: float) -> Floats:
    """Smooth gains within ±15 dB that come back after `turn` seconds, `[channel, frame, band]`."""
    band = np.arange(MINI.bands) / MINI.bands
    angle = 2 * np.pi * times[:, None] / turn
    return np.stack([9 * np.sin(4 * np.pi * band + c) + 6 * np.cos(2 * angle + 3 * band - c) for c in range(channels)])


def rough(channels: int, count: int) -> Floats:
    """Gains as uneven as a model's, of 8 dB at random, `[channel, frame, band]`."""
    values = gaussian_filter(np.random.default_rng(0).standard_normal((channels, count, MINI.bands)), (0, 3, 6))
    return np.asarray(np.clip(8 * values / values.std(), -60, 60))


def piano(seconds: float = 4.0) -> Audio:
    """Chords in stereo."""
    need_font()
    return synthesise(to_midi(compose(3, "chords", seconds)), seconds, soundfont())


def notes(channels: int, samples: int, seed: int = 0) -> Audio:
    """Plucked notes over noise, other ones in every channel."""
    seconds = samples / RATE
    rows = [plucks(seconds + 1, 0.25 + 0.05 * c) + noise(seconds + 1, 0.02, seed + c) for c in range(channels)]
    return np.concatenate(rows)[:, :samples]


def sdr(made: Floats, wanted: Floats) -> float:
    """Signal over its difference from what is wanted, dB."""
    return decibels(wanted) - decibels(np.asarray(made, np.float64) - wanted)


def turning(audio: Audio, rate: int, settings: Settings) -> Passage:
    """The loop with two seconds of its other turns around it."""
    return passage_of(Clip.from_array(audio, rate), settings, 0, audio.shape[1], 2 * rate, 0)


def stem(audio: Audio, rate: int, gains: Callable[[Floats], Floats], settings: Settings) -> tuple[Floats, float]:
    """The loop by the stem's own functions, without iterations, and its level factor.

    `gains` has them at seconds from the loop's start, before which and behind which it turns.
    """
    passage = turning(audio, rate, settings)
    times = np.arange(1 + round(passage.carrier.shape[1] / rate / HOP)) * HOP - 2.0
    db = gains(times % (audio.shape[1] / rate)).transpose(0, 2, 1)
    one = np.ones_like(db, np.float32)
    wet = apply_gain(passage.carrier, rate, Gains(one * 10 ** (db / 20).astype(np.float32), one, MINI), 0)
    body = slice(passage.first, passage.last)
    level = level_factor(integrated(wet[:, body], rate), integrated(passage.carrier[:, body], rate))
    return finish(passage, wet, settings, False)[0], level


def steps_of(audio: Floats) -> float:
    """The largest step from one sample to the next."""
    return float(np.abs(np.diff(audio.astype(np.float64))).max())


# The transform


@pytest.mark.parametrize("size", [4, 8, 64, 2048, 4096, 16384])
def test_the_transform_is_numpy_s(page: Path, tmp_path: Path, size: int) -> None:
    values = np.random.default_rng(size).standard_normal((2, size))
    (tmp_path / "values").write_text(json.dumps(values.tolist()))
    forward, back = evaluated(
        page,
        """
        import fs from "node:fs";
        import { Fft } from "./spectral.js";
        const values = JSON.parse(fs.readFileSync(process.argv[1])).map((part) => Float64Array.from(part));
        const fft = new Fft(values[0].length);
        fft.forward(...values);
        const forward = values.map((part) => [...part]);
        fft.inverse(...values);
        console.log(JSON.stringify([forward, values.map((part) => [...part])]));
        """,
        tmp_path / "values",
    )
    expected = np.fft.fft(values[0] + 1j * values[1])
    assert np.allclose(np.array(forward[0]) + 1j * np.array(forward[1]), expected, atol=1e-12 * size)
    assert np.allclose(back, values, atol=1e-14 * size)
    # Two real signals in one.
    mirrored = np.conj(np.roll(expected[::-1], 1))
    assert np.allclose((expected + mirrored) / 2, np.fft.fft(values[0]))
    assert np.allclose((expected - mirrored) / 2j, np.fft.fft(values[1]))


def test_other_sizes_are_refused(page: Path) -> None:
    code = """
        import { Fft } from "./spectral.js";
        const refused = [0, 1, 2, 3, 12, 4095, NaN].filter((size) => {
          try { new Fft(size); } catch (error) { return error instanceof RangeError; }
        });
        console.log(refused.length);
        """
    assert evaluated(page, code) == 7


# The loop beside the stem


@pytest.mark.parametrize(
    ("rate", "channels", "linked", "samples"),
    [
        (44100, 1, True, 176400), (44100, 2, False, 100003), (44100, 2, True, 30011), (48000, 1, True, 130007),
        (48000, 2, False, 192000), (22050, 1, True, 50001), (96000, 2, True, 200001),
    ],
)  # fmt: skip
def test_the_loop_is_the_stem_s(wall: MakeWall, rate: int, channels: int, linked: bool, samples: int) -> None:
    audio, turn = notes(channels, samples), samples / rate

    def gains(times: Floats) -> Floats:
        return waving(1 if linked else channels, times, turn)

    expected, level = stem(audio, rate, gains, Settings(loop="on"))
    one = wall(audio, rate, {"a": gains(np.arange(frames(samples, rate)) * HOP)})
    heard = one.heard({"style": "a", "dials": {"level": level}, "render": 2 * samples})
    difference = [round(sdr(part - audio, expected - audio), 1) for part in (heard[:, :samples], heard[:, samples:])]
    print(f"{rate} Hz, {channels} channels, linked {linked}: SDR of the change {difference} dB in two turns")
    assert min(difference) > 45


@pytest.mark.parametrize("count", [1, 3, 5, 9])
def test_sparse_gains_lie_between_their_frames_round_the_loop(wall: MakeWall, count: int) -> None:
    """Where gains end too soon the last frame holds, until a frame before the first; what is too much is left out."""
    samples, hop = 48000, 0.25
    audio, turn = notes(1, samples), 48000 / RATE
    db = np.tile(np.array([-9.0, 6, -3, 9, 3, 60, 60, 60, 60])[None, :count, None], (1, 1, MINI.bands))
    ends = min(count, 5)
    places = [*(hop * np.arange(ends)), max(turn - hop, hop * (ends - 1)), turn]
    values = [*db[0, :ends, 0], db[0, ends - 1, 0], db[0, 0, 0]]

    def gains(times: Floats) -> Floats:
        return np.repeat(np.interp(times, places, values)[None, :, None], MINI.bands, axis=2)

    expected, level = stem(audio, RATE, gains, Settings(loop="on"))
    heard = wall(audio, styles={"a": db}, hop=hop).heard({"style": "a", "dials": {"level": level}, "render": samples})
    print(f"{count} frames: SDR {sdr(heard, expected):.1f} dB")
    assert sdr(heard, expected) > 35


@pytest.mark.parametrize(
    ("dials", "settings", "least"),
    [
        ({"mix": 0.6}, {"mix": 0.6}, 50),
        ({"transients": 0.5}, {"transients": 0.5}, 50),
        # The filters of the stem's kept bands have other flanks.
        ({"keepBelow": 300, "keepAbove": 6000}, {"keep_below": 300.0, "keep_above": 6000.0}, 15),
    ],
)
def test_dials_are_the_stem_s(
    wall: MakeWall, dials: dict[str, float], settings: dict[str, float], least: float
) -> None:
    samples = 100003
    audio, turn = notes(2, samples), samples / RATE

    def gains(times: Floats) -> Floats:
        return waving(1, times, turn)

    asked = Settings.parse({"loop": "on", **settings})
    expected, level = stem(audio, RATE, gains, asked)
    passage = turning(audio, RATE, asked)
    attack = attacks(passage.dry, RATE)[passage.first : passage.last]
    one = wall(audio, styles={"a": gains(np.arange(frames(samples)) * HOP)}, attack=attack)
    heard = one.heard({"style": "a", "dials": {"level": level, **dials}, "render": samples})
    # At its end the stem fades into the turn before, whose attacks may have been found a little off.
    here = slice(samples - RATE // 10)
    change = sdr((heard - audio)[:, here], (expected - audio)[:, here])
    print(f"{settings}: SDR {sdr(heard, expected):.1f} dB, of the change {change:.1f} dB")
    assert change > least


def test_silence_of_the_loop_stays_silence(wall: MakeWall) -> None:
    audio = plucks(1.0) + 0
    audio[:, : RATE // 8] = 0
    audio[:, RATE // 2 : 3 * RATE // 4] = 0
    turn = 1.0
    expected, level = stem(audio, RATE, lambda times: waving(1, times, turn), Settings(loop="on"))
    gains = waving(1, np.arange(frames(RATE)) * HOP, turn)
    heard = wall(audio, styles={"a": gains}).heard({"style": "a", "dials": {"level": level}, "render": RATE})
    assert not heard[audio == 0].any()
    assert sdr(heard, expected) > 40


# Where nothing is to change


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2])
def test_without_change_the_loop_is_dry_to_the_bit(wall: MakeWall, channels: int) -> None:
    samples = 30011
    audio = notes(channels, samples)
    audio[:, 100:200] = -0.0
    one = wall(audio, styles={"a": waving(channels, np.arange(frames(samples)) * HOP, 1.0), "none": flat(0, samples)})
    turns = {"render": 2 * samples}
    dry = np.tile(audio, 2).tobytes()
    assert one.heard(turns).tobytes() == dry
    assert one.heard({"style": "a", "dials": {"mix": 0}, **turns}).tobytes() == dry
    assert one.heard({"style": "none", **turns}).tobytes() == dry
    assert one.heard({"style": "a", "dials": {"amount": 0}, **turns}).tobytes() == dry
    assert one.heard({"style": "a", "dials": {"keepBelow": 30000}, **turns}).tobytes() == dry
    # And again once the fade is over.
    heard = one.heard({"style": "a", "render": samples}, {"style": None, "render": samples})
    assert heard[:, samples + FADE :].tobytes() == audio[:, FADE:].tobytes()
    heard = one.heard({"style": "a", "render": samples}, {"dials": {"mix": 0}, "render": samples})
    assert heard[:, samples + FADE :].tobytes() == audio[:, FADE:].tobytes()


def test_a_silent_loop_and_one_shorter_than_a_window(wall: MakeWall) -> None:
    silent = np.zeros((1, 5000), np.float32)
    assert not wall(silent, styles={"a": flat(20, 5000)}).heard({"style": "a", "render": 9000}).any()
    short = notes(1, 997)
    heard = wall(short, styles={"a": flat(-6, 997)}).heard({"style": "a", "render": 9970})
    assert sdr(heard, np.tile(short, 10) * 10**-0.3) > 100


@pytest.mark.parametrize(("amount", "db"), [(1.0, -12.0), (0.5, -6.0), (2.0, -24.0), (-1.0, 12.0), (9.0, -60.0)])
def test_the_amount_bends_the_gains(wall: MakeWall, amount: float, db: float) -> None:
    audio = notes(1, RATE)
    one = wall(audio, styles={"a": flat(-12, RATE)})
    heard = one.heard({"style": "a", "dials": {"amount": amount}, "render": RATE})
    assert decibels(heard) - decibels(audio) == pytest.approx(db, abs=0.001)


# Dials


def power_between(audio: Floats, low: float, high: float) -> float:
    """Power between two frequencies, in dB."""
    window = np.hanning(audio.shape[1])
    spectrum = np.abs(np.fft.rfft(audio * window)) ** 2
    hz = np.fft.rfftfreq(audio.shape[1], 1 / RATE)
    return float(10 * np.log10(spectrum[:, (hz >= low) & (hz < high)].sum() + 1e-20))


@pytest.mark.parametrize(("below", "above"), [(60.0, 15000.0), (200.0, 8000.0), (1000.0, 3000.0)])
def test_kept_bands_are_the_loop_s(wall: MakeWall, below: float, above: float) -> None:
    samples = 2 * RATE
    audio = noise(2.0)
    one = wall(audio, styles={"a": waving(1, np.arange(frames(samples)) * HOP, 2.0)})
    heard = one.heard({"style": "a", "dials": {"keepBelow": below, "keepAbove": above}, "render": samples})
    change = heard.astype(np.float64) - audio
    under, over = (power_between(change, *band) - power_between(audio, *band) for band in ((0, below), (above, RATE)))
    print(f"change under {below:g} Hz {under:.1f} dB, over {above:g} Hz {over:.1f} dB of the loop's power there")
    assert max(under, over) < -60
    within = below * 1.5, above / 1.25
    free = one.heard({"style": "a", "render": samples})
    assert power_between(heard, *within) == pytest.approx(power_between(free, *within), abs=0.1)


def test_attacks_are_kept(wall: MakeWall) -> None:
    samples = RATE
    audio = plucks(1.0)
    attack = attacks(audio, RATE)
    one = wall(audio, styles={"a": waving(1, np.arange(frames(samples)) * HOP, 1.0)}, attack=attack)
    heard = one.heard({"style": "a", "dials": {"transients": 1}, "render": samples})
    assert (attack == 1).sum() > 1000
    assert heard[:, attack == 1].tobytes() == audio[:, attack == 1].tobytes()
    free = one.heard({"style": "a", "render": samples})
    assert heard[:, attack == 0].tobytes() == free[:, attack == 0].tobytes()
    half = one.heard({"style": "a", "dials": {"transients": 0.5}, "render": samples})
    assert np.allclose(half, (heard + free) / 2, atol=1e-6)


# Changes while it plays


CHANGES: list[Step] = [
    {"style": "b"}, {"style": None}, {"dials": {"amount": 0.2}}, {"dials": {"level": 0.5}}, {"dials": {"mix": 0}},
    {"dials": {"keepBelow": 500}}, {"dials": {"transients": 1}}, {"style": "b", "dials": {"level": 0.7, "mix": 0.5}},
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=json.dumps)
@pytest.mark.parametrize("at", [20000, 20480 - 3])
def test_a_change_is_heard_at_once_without_a_step_and_in_sync(wall: MakeWall, change: Step, at: int) -> None:
    samples = 40009
    audio = np.concatenate([tone(311, 1.0) + tone(1033, 1.0, 0.1), tone(450, 1.0)])[:, :samples]
    # Where the loop ends and begins again it has no step of its own.
    audio *= np.float32(np.sin(np.pi * np.arange(samples) / samples) ** 0.1)
    times = np.arange(frames(samples)) * HOP
    styles = {"a": waving(2, times, samples / RATE), "b": -waving(1, times, samples / RATE) - 3}
    one = wall(audio, styles=styles, attack=np.full(samples, 0.8, np.float32))
    before, rest = {"style": "a", "render": at}, {"render": 2 * samples - at}
    heard = one.heard(before, {**change, **rest}, block=100)
    old = one.heard({**before, "render": 2 * samples})
    new = one.heard({"style": "a"}, {**change, "render": 2 * samples})
    assert heard[:, :at].tobytes() == old[:, :at].tobytes()
    assert heard[:, at + FADE :].tobytes() == new[:, at + FADE :].tobytes()
    if len(change) == 1:
        here = slice(at, at + FADE)
        expected = old[:, here] + np.arange(1, FADE + 1) / FADE * (new - old)[:, here]
        assert np.abs(heard[:, here] - expected).max() < 1e-6
    assert (heard[:, at : at + BLOCK] != old[:, at : at + BLOCK]).any(axis=0).mean() > 0.9
    assert steps_of(heard) < 1.05 * max(steps_of(old), steps_of(new))


def test_a_dial_that_is_dragged_makes_no_step(wall: MakeWall) -> None:
    samples = RATE
    audio = tone(440, 1.0)
    one = wall(audio, styles={"a": flat(-20, samples), "b": flat(6, samples)})
    drag: list[Step] = [
        {"style": "ab"[number % 2], "dials": {"mix": number % 3 / 2, "amount": 1 + number % 2}, "render": 50}
        for number in range(400)
    ]
    heard = one.heard({"style": "a", "render": 20000}, *drag, {"style": "b", "render": 24100}, block=50)
    assert steps_of(heard) < 1.3 * steps_of(one.heard({"style": "b", "dials": {"amount": 2}, "render": samples}))


def test_it_goes_on_from_where_it_is_sought(wall: MakeWall) -> None:
    audio = notes(2, 30011)
    one = wall(audio, styles={"a": flat(-3, 30011)})
    heard = one.heard({"seek": 0.5, "render": 9000}, {"seek": -0.1, "style": "a", "render": 5000})
    turning = np.arange(9000)
    assert np.array_equal(heard[:, :9000], audio[:, (22050 + turning) % 30011])
    assert sdr(heard[:, 9000:], audio[:, (30011 - 4410 + turning[:5000]) % 30011] * 10**-0.15) > 80


def test_playing_stopping_and_seeking_do_not_click(wall: MakeWall) -> None:
    samples = RATE
    audio = tone(441, 1.0)
    one = wall(audio, styles={"a": flat(3, samples)})
    heard = one.heard(
        {"render": 1000}, {"play": True, "render": 10000}, {"seek": 0.2501, "render": 10000},
        {"play": False, "render": 3000}, {"style": "a", "play": True, "render": 10000}, {"play": False, "render": 50},
        {"play": True, "render": 3000}, {"play": False, "render": 5000}, transport=True,
    )  # fmt: skip
    assert not heard[:, :1000].any()
    assert heard[:, 1000 + FADE : 11000].tobytes() == audio[:, FADE:10000].tobytes()
    sought = round(0.2501 * RATE)
    # The old place fades out, and the new one in.
    start = 11000 + FADE
    assert heard[:, start + FADE : 21000].tobytes() == audio[:, sought + FADE : sought + 10000 - FADE].tobytes()
    assert not heard[:, 21000 + FADE : 24000].any()
    assert heard[:, 24000 + 2 * FADE : 33000].any(axis=0).mean() > 0.95
    assert not heard[:, -5000 + FADE :].any()
    steady = steps_of(audio * np.float32(10**0.15))
    assert steps_of(heard) < 1.1 * steady


# The level

LEVEL = """
import fs from "node:fs";
import { energiesOf, levelOf } from "./spectral.js";
const [spec] = JSON.parse(fs.readFileSync(process.argv[1]));
function read(path, Numbers) {
  const bytes = fs.readFileSync(path);
  return new Numbers(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}
const clip = read(spec.clip, Float32Array);
const length = clip.length / spec.channels;
const channels = Array.from({ length: spec.channels }, (_, row) => clip.slice(row * length, (row + 1) * length));
const energies = energiesOf(channels, spec.rate, spec.style.shape);
const gains = read(spec.style.gains, Int16Array);
console.log(JSON.stringify(spec.amounts.map((amount) => levelOf(energies, gains, amount))));
"""


def levels(page: Path, folder: Path, audio: Audio, rate: int, db: Floats, *amounts: float) -> list[float]:
    """The page's level factor at each amount."""
    np.ascontiguousarray(audio, "<f4").tofile(folder / "clip")
    style = save(folder / "gains", db)
    spec = {"clip": str(folder / "clip"), "channels": len(audio), "rate": rate, "style": style, "amounts": amounts}
    (folder / "spec").write_text(json.dumps([spec]))
    found: list[float] = evaluated(page, LEVEL, folder / "spec")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["piano", "noise", "notes at 48 kHz"])
@pytest.mark.parametrize("kind", ["smooth", "rough"])
def test_the_level_is_the_stem_s(page: Path, tmp_path: Path, name: str, kind: str) -> None:
    audio = piano() if name == "piano" else noise(4.0) if name == "noise" else notes(2, 4 * RATE)
    rate = 48000 if "48" in name else RATE
    samples = audio.shape[1]
    turn, count = samples / rate, frames(samples, rate)
    linked = name != "piano"
    db = waving(1 if linked else 2, np.arange(count) * HOP, turn)
    if kind == "rough":
        db = rough(1 if linked else 2, count)

    def at(amount: float) -> Callable[[Floats], Floats]:
        # The stem's frames are the loop's: two seconds are whole frames.
        return lambda times: amount * db[:, np.round(times / HOP).astype(int) % count]

    amounts = (0.0, 0.5, 1.0)
    wanted = [20 * np.log10(stem(audio, rate, at(amount), Settings(loop="on"))[1]) for amount in amounts]
    found = 20 * np.log10(levels(page, tmp_path, audio, rate, db, *amounts))
    print(f"{name}, {kind}: {np.round(wanted, 2)} dB wanted, {np.round(found, 2)} found")
    assert found[0] == 0
    assert found == pytest.approx(wanted, abs=0.5)


def test_the_level_of_silence_and_its_limits(page: Path, tmp_path: Path) -> None:
    silent, loud = np.zeros((1, RATE), np.float32), noise(1.0, 0.3)
    assert levels(page, tmp_path, silent, RATE, flat(20, RATE), 1.0) == [1.0]
    # Under the gate of -70 LUFS there is no loudness.
    assert levels(page, tmp_path, noise(1.0, 1e-5), RATE, flat(-20, RATE), 1.0) == [1.0]
    found = levels(page, tmp_path, loud, RATE, flat(-50, RATE), 1.0, 0.5, -0.5, -1.0)
    assert 20 * np.log10(found) == pytest.approx([40, 25, -25, -40], abs=0.02)
    # Silence follows what is shorter than a block.
    short = np.asarray(loud[:, :2000])
    assert 20 * np.log10(levels(page, tmp_path, short, RATE, flat(-10, 2000), 1.0)) == pytest.approx([10], abs=0.02)


def test_quiet_blocks_do_not_count_for_the_level(page: Path, tmp_path: Path) -> None:
    """The quiet half of the clip lies under the gate, until the gains lift it over that: then it counts."""
    audio = np.concatenate([noise(2.0, 0.3), noise(2.0, 0.03)], axis=1)
    db = flat(0, 4 * RATE)
    db[:, 220:380] = 9

    def at(times: Floats) -> Floats:
        return db[:, np.round(times / HOP).astype(int) % 400]

    _, wanted = stem(audio, RATE, at, Settings(loop="on"))
    (found,) = levels(page, tmp_path, audio, RATE, db, 1.0)
    without_gate = np.sqrt(np.mean(audio**2) / (np.mean(audio**2) + (10**0.9 - 1) * 0.4 * 0.03**2))
    assert 20 * np.log10(wanted / without_gate) > 2
    assert 20 * np.log10(found) == pytest.approx(20 * np.log10(wanted), abs=0.3)


# The audio thread, and the page's side of it


WEB_AUDIO = """
import { Audition } from "./audition.js";
import { levelOf, energiesOf } from "./spectral.js";
import { Context } from "./web_audio.js";

const rate = 8000;
const samples = 2 * rate;
const clip = (hz) => Float32Array.from({ length: samples }, (_, n) => 0.3 * Math.sin((2 * Math.PI * hz * n) / rate));
const shape = { channels: 1, frames: 200, bands: 64, low: 20, high: 4000, hop: 0.01 };
const gains = (db) => new Int16Array(shape.frames * shape.bands).fill(500 * db);
const contexts = [];
const audition = new Audition((sampleRate) => {
  contexts.push(new Context(sampleRate));
  return contexts.at(-1);
});
const positions = [];
audition.onPosition = (position, time) => positions.push([position, time]);
const peak = (samples) => samples.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
const say = (value) => console.log(JSON.stringify(value));
"""


def scene(page: Path, code: str) -> Any:
    return evaluated(page, WEB_AUDIO + code)


def test_a_wall_is_heard_in_stereo_and_answers_with_the_time(page: Path) -> None:
    told = scene(
        page,
        """
        await audition.setClip([clip(440)], rate);
        const context = contexts[0];
        const silent = context.quanta(5);
        const playing = audition.play();
        const played = context.quanta(2 * samples / 128);
        const asked = context.currentTime;
        audition.addStyle("low", gains(-20), shape);
        const choosing = audition.choose("low");
        const chosen = context.quanta(10);
        const level = audition.dials.level;
        const turning = audition.setDials({ amount: 0.5 });
        const turned = audition.dials.level;
        context.quanta(10);
        audition.choose(null);
        context.quanta(1);
        const dry = context.quanta(10);
        const stopping = audition.stop();
        context.quanta(1);
        const stopped = context.quanta(20);
        const times = [await playing, await choosing, await turning, await stopping];
        say({
          silent: peak(silent[0]), isStereo: played.length === 2 && played[0].every((x, n) => x === played[1][n]),
          played: peak(played[0]), times, asked, level, turned, dry: peak(dry[0]), stopped: peak(stopped[0]), positions,
          isChanged: chosen[0].some((x, n) => Math.abs(x) < 0.1),
        });
        """,
    )
    assert (told["silent"], told["stopped"]) == (0, 0)
    assert told["isStereo"]
    assert told["played"] == told["dry"] == pytest.approx(0.3, abs=1e-3)
    quantum = 128 / 8000
    assert told["times"][0] == pytest.approx(5 * quantum)
    assert told["times"][1:3] == pytest.approx([told["asked"], told["asked"] + 10 * quantum])
    assert 20 * np.log10([told["level"], told["turned"]]) == pytest.approx([20, 10], abs=0.01)
    seconds = np.array(told["positions"])
    assert len(seconds) == pytest.approx(20 * seconds[-1, 1], abs=3)
    # It began to play after five quanta, and a position is that of the end of a quantum.
    assert seconds[:60, 0] == pytest.approx((seconds[:60, 1] - 4 * quantum) % 2)


def test_a_style_is_heard_at_the_content_s_level(page: Path) -> None:
    """A gain for all that is lifted to the old level is no change."""
    told = scene(
        page,
        """
        await audition.setClip([clip(440)], rate);
        audition.addStyle("low", gains(-20), shape);
        audition.choose("low");
        audition.play();
        contexts[0].quanta(20);
        say(peak(contexts[0].quanta(200)[0]));
        """,
    )
    assert told == pytest.approx(0.3, abs=1e-3)


def test_another_clip_takes_over_without_a_click(page: Path) -> None:
    told = scene(
        page,
        """
        await audition.setClip([clip(440)], rate);
        const context = contexts[0];
        audition.play();
        audition.setDials({ mix: 0.5 });
        audition.addStyle("low", gains(-20), shape);
        audition.choose("low");
        const first = context.quanta(50)[0];
        const right = clip(330).map((x) => -x);
        await audition.setClip([clip(330), right], rate);
        const [left, other] = context.quanta(50);
        const heard = [...first, ...left];
        const step = Math.max(...heard.slice(1).map((x, n) => Math.abs(x - heard[n])));
        let refused = "";
        try { audition.choose("low"); } catch (error) { refused = error.message; }
        audition.setClip([clip(550)], 16000);
        await audition.setClip([clip(220)], 16000);
        const faster = contexts[1].quanta(100)[0];
        say({
          step, refused, chosen: audition.chosen, mix: audition.dials.mix, contexts: contexts.length,
          isClosed: contexts.map((one) => one.isClosed), mirrored: left.every((x, n) => x === -other[n] || n < 100),
          crossings: faster.slice(1).filter((x, n) => x > 0 && faster[n] <= 0).length,
        });
        """,
    )
    assert told["step"] < 0.3 * 2 * np.pi * 440 / 8000 * 1.2
    assert told["refused"] == "no style is called low"
    assert (told["chosen"], told["mix"]) == (None, 0.5)
    assert (told["contexts"], told["isClosed"]) == (2, [True, False])
    assert told["mirrored"]
    # At twice the rate the clip of 220 Hz sounds as 440.
    assert told["crossings"] == pytest.approx(440 * 0.8, abs=4)


def test_what_is_asked_for_before_there_is_a_clip_is_kept(page: Path) -> None:
    told = scene(
        page,
        """
        audition.setDials({ transients: 0.3, keepBelow: 100 });
        audition.play();
        audition.stop();
        audition.play();
        await audition.setClip([clip(440)], rate);
        say({ dials: audition.dials, peak: peak(contexts[0].quanta(100)[0]) });
        """,
    )
    assert told["dials"] == {
        "amount": 1, "mix": 1, "keepBelow": 100, "keepAbove": None, "transients": 0.3, "level": 1,
    }  # fmt: skip
    assert told["peak"] > 0.2


def test_gains_of_another_shape_are_refused(page: Path) -> None:
    code = """
        import { AuditionLoop } from "./spectral.js";
        const loop = new AuditionLoop([new Float32Array(9000)], 44100);
        const shape = { channels: 1, frames: 20, bands: 512, low: 20, high: 20000, hop: 0.01 };
        try { loop.setStyle({ gains: new Int16Array(9), shape }); } catch (error) { console.log(`"${error.message}"`); }
        """
    assert evaluated(page, code) == "the gains have another shape"


def test_the_sound_needs_nothing_that_is_not_beside_it() -> None:
    for path in PAGE.glob("*.js"):
        for name in re.findall(r"(?:from|import) \"(.+)\"", path.read_text("utf-8")):
            assert (PAGE / name).is_file(), f"{path.name} imports {name}"


# In a browser


CHROMIUM = """<!doctype html>
<script type="module">
import { Audition } from "./audition.js";
const say = (value) => fetch("said", { method: "POST", body: value });
window.onerror = (message) => say(message);
window.onunhandledrejection = ({ reason }) => say(String(reason));
const spec = await (await fetch("spec.json")).json();
const read = async (name) => (await fetch(name)).arrayBuffer();
const clip = new Float32Array(await read("clip"));
const context = new OfflineAudioContext(2, spec.rate, spec.rate);
const audition = new Audition(() => context);
await audition.setClip([clip], spec.rate);
audition.addStyle("a", new Int16Array(await read("a.gains")), spec.styles.a.shape);
audition.choose("a");
audition.play();
// What is said before it begins is heard then.
await new Promise((resolve) => setTimeout(resolve, 500));
const sound = await context.startRendering();
await say(new Blob([Float64Array.of(audition.dials.level), sound.getChannelData(0), sound.getChannelData(1)]));
</script>
"""


class Server(ThreadingHTTPServer):
    """Has what the page says."""

    said: Queue[bytes] = Queue()


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder."""

    extensions_map = {".js": "text/javascript", ".html": "text/html", "": "text/plain"}  # noqa: RUF012

    def do_POST(self) -> None:
        cast(Server, self.server).said.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.slow
def test_a_browser_makes_the_same_sound(wall: MakeWall, page: Path, tmp_path: Path) -> None:
    need_program("chromium")
    audio = notes(1, 30011)
    one = wall(audio, styles={"a": waving(1, np.arange(frames(30011)) * HOP, 1.0)})
    one.heard()
    shutil.copytree(page, tmp_path, dirs_exist_ok=True)
    (tmp_path / "index.html").write_text(CHROMIUM)
    with Server(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever).start()
        words = [
            "chromium",
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
        ]
        browser = subprocess.Popen(
            [*words, f"http://127.0.0.1:{server.server_port}/"], stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            said = server.said.get(timeout=60)
        finally:
            os.killpg(browser.pid, signal.SIGTERM)
            browser.wait()
            server.shutdown()
    level = np.frombuffer(said[:8], "<f8")[0]
    left, right = np.frombuffer(said[8:], "<f4").reshape(2, -1)
    assert left.tobytes() == right.tobytes()
    start = int(np.flatnonzero(left)[0]) // BLOCK * BLOCK
    dials = {"style": "a", "dials": {"level": level}, "play": True, "render": RATE}
    expected = one.heard(dials, transport=True)[0]
    print(f"SDR {sdr(left[start:], expected[: RATE - start]):.1f} dB")
    assert sdr(left[start:], expected[: RATE - start]) > 100


# What it costs


def test_what_it_costs(page: Path) -> None:
    """Only printed: a machine's speed is no property of the code. What is thrown away is one."""
    told = evaluated(
        page,
        """
        import { AuditionLoop, energiesOf, levelOf } from "./spectral.js";
        const rate = 48000;
        const samples = 4 * rate;
        const noise = () => Float32Array.from({ length: samples }, () => Math.random() - 0.5);
        const outputs = [new Float32Array(128), new Float32Array(128)];
        const told = {};
        for (const channels of [1, 2]) {
          const clip = Array.from({ length: channels }, noise);
          const shape = { channels, frames: 400, bands: 512, low: 20, high: 20000, hop: 0.01 };
          const styles = [0, 1].map(() => {
            const gains = Int16Array.from({ length: channels * 400 * 512 }, () => 9000 * (Math.random() - 0.5));
            return { gains, shape };
          });
          const loop = new AuditionLoop(clip, rate);
          const play = (seconds, between) => {
            const times = [];
            for (let quantum = 0; quantum < (seconds * rate) / 128; quantum++) {
              between(quantum);
              const start = performance.now();
              loop.process(outputs, 128);
              times.push(performance.now() - start);
            }
            times.sort((one, other) => other - one);
            return { perSecond: times.reduce((sum, one) => sum + one) / seconds, longest: times.slice(0, 3) };
          };
          const change = (quantum) => quantum % 37 === 0 && loop.setStyle(styles[(quantum / 37) % 2]);
          play(2, change);
          globalThis.gc();
          const before = process.memoryUsage().heapUsed;
          for (let quantum = 0; quantum < 10 * rate / 128; quantum++) loop.process(outputs, 128);
          const garbage = (process.memoryUsage().heapUsed - before) / 10;
          const [steady, switching] = [play(4, () => {}), play(4, change)];
          const time = (action) => {
            const start = performance.now();
            const value = action();
            return [value, performance.now() - start];
          };
          const [energies, first] = time(() => energiesOf(clip, rate, shape));
          const level = [0.5, 0.7, 1, 1.2].map((amount) => time(() => levelOf(energies, styles[0].gains, amount))[1]);
          told[channels] = { garbage, steady, switching, energies: first, level };
        }
        console.log(JSON.stringify(told));
        """,
    )
    for channels, costs in told.items():
        print(f"{channels} channels: {json.dumps(costs)}")
        assert costs["garbage"] < 50_000, "bytes that a second of sound throws away"
