"""A stem that is listened to while later windows are rendered."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stylus_audio.engine import Engine
from stylus_audio.near_live import NearLive
from stylus_audio.places import DEMO_CONTENT, DEMO_STYLE
from stylus_audio.playback import open_player, portaudio

Pieces = list[tuple[np.ndarray, int, int]]


def db(value: float) -> float:
    return float(20 * np.log10(max(value, 1e-12)))


def residual(piece: np.ndarray, stem: np.ndarray) -> float:
    """How far a piece is off, in dB under it, at the level that fits best."""
    gain = float((piece * stem).sum() / (stem * stem).sum())
    return db(float(np.linalg.norm(piece - gain * stem) / np.linalg.norm(gain * stem)))


@pytest.fixture(scope="module")
def mini() -> Engine:
    return Engine("mini", "cpu")


@pytest.fixture(scope="module")
def clip() -> tuple[np.ndarray, int]:
    audio, rate = soundfile.read(DEMO_CONTENT, always_2d=True)
    return np.tile(audio.T, (1, 2)).astype(np.float32), rate


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"stereo": "mid-side", "keep_below": 200.0, "mix": 0.7}, {"loop": "on"}])
def test_the_pieces_are_the_stem(mini: Engine, clip: tuple[np.ndarray, int], changes: dict[str, object]) -> None:
    pieces: Pieces = []
    done_at: list[float] = []
    seen: list[float] = []

    def send(piece: np.ndarray, rate: int, total: int) -> None:
        pieces.append((piece, rate, total))
        done_at.append(seen[-1])

    render = mini.render(
        clip, DEMO_STYLE, mini.settings(**changes), lambda fraction, _: seen.append(fraction), NearLive(send)
    )
    assert len(pieces) > 3
    # The first was sent when less than half of the render was done.
    assert done_at[0] < 0.5
    whole = np.concatenate([piece for piece, _, _ in pieces], axis=1)
    assert whole.shape == render.audio.shape
    assert {piece[1:] for piece in pieces} == {(render.sample_rate, whole.shape[1])}
    at = 0
    for piece, _, _ in pieces:
        here = slice(at, at + piece.shape[1])
        at += piece.shape[1]
        if piece.shape[1] > render.sample_rate:
            assert residual(piece, render.audio[:, here]) < -30
            assert abs(db(float(np.linalg.norm(piece) / np.linalg.norm(render.audio[:, here])))) < 2
    # What is sent last is the stem itself.
    assert np.allclose(whole[:, -1], render.audio[:, -1], atol=1e-6)
    # No piece begins with a click: no step is larger than twice the largest of the stem.
    assert np.abs(np.diff(whole)).max() < 2 * np.abs(np.diff(render.audio)).max()


@pytest.mark.slow
def test_the_pieces_of_a_preview_are_those_of_its_passage(mini: Engine, clip: tuple[np.ndarray, int]) -> None:
    audio, rate = clip
    late = np.concatenate([0.05 * audio, audio, 0.05 * audio], axis=1)
    pieces: Pieces = []
    settings = mini.settings(preview=5.0, loop="off")
    render = mini.render((late, rate), DEMO_STYLE, settings, None, NearLive(lambda *piece: pieces.append(piece)))
    assert len(pieces) > 1
    assert render.passage.offset > 5 * rate
    assert sum(piece.shape[1] for piece, _, _ in pieces) == render.audio.shape[1]
    first, _, _ = pieces[0]
    assert residual(first, render.audio[:, : first.shape[1]]) < -25


@pytest.mark.slow
def test_a_short_clip_comes_in_one_piece(mini: Engine) -> None:
    pieces: Pieces = []
    clip = 0.3 * np.random.default_rng(0).standard_normal((1, 8000)).astype(np.float32)
    render = mini.render((clip, 44100), DEMO_STYLE, near_live=NearLive(lambda *piece: pieces.append(piece)))
    assert np.array_equal(np.concatenate([piece for piece, _, _ in pieces], axis=1), render.audio)


PLAY = """
import sys
import numpy as np
from stylus_audio.playback import Player
pieces = np.split(np.linspace(-0.5, 0.5, 40000, dtype=np.float32)[None].repeat(3, 0), [100, 30000], axis=1)
with Player() as player:
    for piece in pieces:
        player.hear(piece, 44100, 40000)
    if sys.argv[1:]:
        raise SystemExit(7)
"""


def played(folder: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], np.ndarray]:
    """What PortAudio gives to ALSA's own file writer."""
    sink = folder / "played.raw"
    (folder / ".asoundrc").write_text(
        f'pcm.speaker {{ type file slave.pcm "null" file "{sink}" format "raw" hint {{ show on }} }}\n'
        'pcm.!default { type plug slave.pcm "speaker" }\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", PLAY, *words], check=False, capture_output=True, text=True, timeout=60,
        env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    return done, np.fromfile(sink, np.float32).reshape(-1, 2) if sink.is_file() else np.zeros((0, 2), np.float32)


@pytest.mark.skipif(
    not Path("/usr/share/alsa/alsa.conf").is_file() or "PortAudio is not installed" in portaudio()[1],
    reason="needs PortAudio and ALSA's configuration (Debian: libportaudio2)",
)
def test_portaudio_gets_every_sample_once_and_in_order(tmp_path: Path) -> None:
    done, heard = played(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    expected = np.linspace(-0.5, 0.5, 40000, dtype=np.float32)
    assert np.array_equal(heard[:40000], np.stack([expected, expected], axis=1))
    # What PortAudio fills its last buffer with.
    assert not heard[40000:].any()


def test_without_a_device_a_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if portaudio()[0]:
        pytest.skip("there is a device")
    assert open_player() is None
    assert capsys.readouterr().err.startswith("stylus: not played: PortAudio is ")


@pytest.mark.slow
@pytest.mark.parametrize("gap", [(0, 40), (3, 43)])
def test_nothing_is_left_out_around_a_long_silence(mini: Engine, gap: tuple[int, int]) -> None:
    """More becomes settled at once than the level is measured over."""
    rate = 8000
    clip = 0.2 * np.random.default_rng(0).standard_normal((1, 46 * rate)).astype(np.float32)
    clip[:, gap[0] * rate : gap[1] * rate] = 0
    pieces: Pieces = []
    render = mini.render((clip, rate), DEMO_STYLE, near_live=NearLive(lambda *piece: pieces.append(piece)))
    whole = np.concatenate([piece for piece, _, _ in pieces], axis=1)
    assert whole.shape == render.audio.shape
    assert len(pieces) > 1
    for first in range(0, 45):
        here = slice(first * rate, (first + 1) * rate)
        if render.audio[:, here].any():
            # The level moves on where a piece ends.
            assert residual(whole[:, here], render.audio[:, here]) < -10
        else:
            assert not whole[:, here].any()


@pytest.mark.slow
def test_a_render_that_begins_again_sends_nothing_twice(mini: Engine, clip: tuple[np.ndarray, int]) -> None:
    """As after memory has run out: the pieces go on where they were."""
    pieces: Pieces = []
    near_live = NearLive(lambda *piece: pieces.append(piece))

    class Stopped(Exception):
        pass

    def stop(fraction: float, stage: str) -> None:
        if len(pieces) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        mini.render(clip, DEMO_STYLE, None, stop, near_live)
    render = mini.render(clip, DEMO_STYLE, None, None, near_live)
    whole = np.concatenate([piece for piece, _, _ in pieces], axis=1)
    assert whole.shape == render.audio.shape
    assert residual(whole, render.audio) < -10
