"""A result's sounds, played in sync, under plain Node with a stand-in for the browser's sound."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import stylus_daemon

from tests.programs import need_program

SCRIPT = Path(stylus_daemon.__file__).parent / "page" / "compare.js"

BROWSER = """
const contexts = [];
globalThis.AudioContext = class {
  currentTime = 0;
  constructor() { contexts.push(this); }
  async resume() {}
  async close() {
    if (this.closed) throw new Error("Cannot close a closed AudioContext.");
    this.closed = true;
    await null;
  }
};
globalThis.GainNode = class {
  gain = { cancelScheduledValues() {}, setTargetAtTime() {} };
  connect() {}
};
globalThis.AudioBuffer = class { copyToChannel() {} };
globalThis.AudioBufferSourceNode = class {
  connect() {}
  start() { this.started = true; }
  // As browsers do.
  stop() { if (!this.started) throw new Error("cannot call stop without calling start first"); }
};
let frame = null;
globalThis.requestAnimationFrame = (work) => { frame = work; };
// Pieces arrive when they are told to.
const due = [];
globalThis.fetch = () => new Promise((done, fail) => due.push({ done, fail }));
const headers = { "X-Channels": 1, "X-Sample-Rate": 8000 };
const piece = () => new Response(new Float32Array(32000).buffer, { headers });
const arrive = () => { for (const { done } of due.splice(0)) done(piece()); };
const { Comparison } = await import(process.argv.at(-1));
const track = { key: "stem", path: "stem.wav", rate: 8000, samples: 60 * 8000, offset: 0, lufs: null, loops: false };
const comparison = new Comparison([track], 60);
const now = () => ({ wanted: comparison.wanted, playing: comparison.playing, at: comparison.now() });
const begin = async () => {
  const begun = comparison.play();
  arrive();
  await begun;
};
const say = async (value) => {
  await comparison.close();
  console.log(JSON.stringify(value));
};
"""


def told(code: str) -> Any:
    need_program("node", "nodejs")
    done = subprocess.run(
        ["node", "--experimental-default-type=module", "--no-warnings", "--eval", BROWSER + code, SCRIPT.as_uri()],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_closed_once_however_many_close_it() -> None:
    """As two results do that are there at once."""
    code = """
    await begin();
    const closed = await Promise.allSettled([comparison.close(), comparison.close()]);
    await say(closed.map(({ status }) => status));
    """
    assert told(code) == ["fulfilled", "fulfilled"]


def test_it_plays_on_from_where_a_drag_ends() -> None:
    """A second move comes while the pieces of the first are on their way."""
    waiting, after = told(
        """
        await begin();
        const moves = [10, 20, 30].map((to) => comparison.seek(to));
        const waiting = now();
        arrive();
        await Promise.all(moves);
        say([waiting, now()]);
        """
    )
    assert waiting == {"wanted": True, "playing": False, "at": 30}
    assert after == {"wanted": True, "playing": True, "at": 30}


def test_it_stays_silent_where_it_is_paused_meanwhile() -> None:
    paused, sought = told(
        """
        await begin();
        const move = comparison.seek(10);
        comparison.pause();
        arrive();
        await move;
        const paused = now();
        await comparison.seek(20);
        say([paused, now()]);
        """
    )
    assert paused == {"wanted": False, "playing": False, "at": 10}
    assert sought == {"wanted": False, "playing": False, "at": 20}


def test_it_is_over_at_the_end_and_where_a_piece_does_not_come() -> None:
    over, failed = told(
        """
        await begin();
        contexts[0].currentTime = 61;
        frame();
        const over = now();
        arrive();
        const begun = comparison.play();
        const moves = [40, 50].map((to) => comparison.seek(to).catch((error) => error.message));
        for (const { fail } of due) fail(new Error("gone"));
        const said = await Promise.all([begun, ...moves]);
        say([over, { said, ...now() }]);
        """
    )
    assert over == {"wanted": False, "playing": False, "at": 0}
    assert failed == {"said": [None, None, "gone"], "wanted": False, "playing": False, "at": 50}


def test_pieces_that_come_too_late_to_be_heard_do_not_keep_it_from_pausing() -> None:
    """The last 50 ms of a piece are over before the next one is there."""
    assert told(
        """
        const begun = comparison.seek(3.95).then(() => comparison.play());
        await new Promise((done) => setTimeout(done, 10));
        arrive();
        // The sound's clock goes on at each look at it.
        const context = contexts[0];
        let clock = 0;
        Object.defineProperty(context, "currentTime", { get: () => (clock += 0.06) });
        await begun;
        arrive();
        await new Promise((done) => setTimeout(done, 10));
        comparison.pause();
        await comparison.seek(20);
        say(now());
        """
    ) == {"wanted": False, "playing": False, "at": 20}


def test_a_piece_that_fails_in_the_middle_ends_the_playing_and_is_said() -> None:
    assert told(
        """
        const said = [];
        comparison.onError = (error) => said.push(error.message);
        await begin();
        await new Promise((done) => setTimeout(done, 10));
        for (const { fail } of due.splice(0)) fail(new Error("gone"));
        await new Promise((done) => setTimeout(done, 10));
        say([said, comparison.wanted, comparison.playing]);
        """
    ) == [["gone"], False, False]
