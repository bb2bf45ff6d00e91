"""What a producer takes for granted of a render, on a small model of random weights."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from stylus_audio import Engine, memory
from stylus_audio.audio import Clip
from stylus_audio.engine import Render
from stylus_audio.errors import BadRequest, Cancelled, OutOfMemory, UnsupportedAudio
from stylus_audio.finish import finish, lowered, without_kept_bands
from stylus_audio.gains import Gains
from stylus_audio.job import FileRender
from stylus_audio.loudness import integrated
from stylus_audio.metrics import si_sdr
from stylus_audio.passage import passage_of, segment_of
from stylus_audio.reconstruction import reconstruct
from stylus_audio.riff import Chunk, Loop, loop_chunk
from stylus_audio.settings import Settings
from stylus_audio.target import Target
from tests.sounds import RATE, Audio, decibels, noise, plucks, tone

STYLE = (noise(1.5, seed=9), RATE)


def rendered(engine: Engine, audio: Audio, **settings: object) -> Render:
    return engine.render((audio, RATE), STYLE, engine.settings(**settings))


def test_the_model_changes_the_sound(tiny: Engine) -> None:
    audio = plucks(1.0)
    assert si_sdr(rendered(tiny, audio).audio, audio) < 20


def test_no_style_returns_the_content(tiny: Engine) -> None:
    audio = plucks(2.0, channels=2)
    assert si_sdr(rendered(tiny, audio, injection=False, init="none").audio, audio) >= 60


def test_mix_zero_is_the_content_to_the_bit(tiny: Engine) -> None:
    audio = plucks(0.7)
    assert np.array_equal(rendered(tiny, audio, mix=0).audio, audio)


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("padding", [0.3, 1.0, 4.0])
def test_padding_does_not_change_a_short_clip(tiny: Engine, seconds: float, padding: float) -> None:
    audio = plucks(seconds)
    alone = rendered(tiny, audio, loudness=-20).audio
    padded = np.pad(audio, ((0, 0), (0, round(padding * RATE))))
    behind = rendered(tiny, padded, loudness=-20).audio
    # Loudness is measured over blocks that differ: compare the shape, not the level.
    assert si_sdr(behind[:, : audio.shape[1]], alone) > 40
    assert not behind[:, audio.shape[1] :].any()


def test_an_impulse_stays_on_its_sample(tiny: Engine) -> None:
    audio = noise(1.0, 1e-4)
    audio[0, 20000] = 0.9
    stem = rendered(tiny, audio).audio
    assert int(np.abs(stem[0]).argmax()) == 20000


@pytest.mark.parametrize("seconds", [1.0, 0.3, 2.005])
def test_a_loop_wraps_without_a_step(tiny: Engine, seconds: float) -> None:
    # A whole number of periods: the content itself wraps without a step.
    seconds = round(seconds * RATE) / RATE
    audio = tone(round(220 * seconds) / seconds, seconds) + tone(round(1330 * seconds) / seconds, seconds, 0.1)
    stem = rendered(tiny, audio, loop="on").audio[0].astype(np.float64)
    inner = np.abs(np.diff(stem)).max()
    assert abs(stem[0] - stem[-1]) <= inner
    # The curvature too: a kink is heard as a click.
    wrapped = np.concatenate([stem[-50:], stem[:50]])
    assert np.abs(np.diff(wrapped, 2)).max() <= np.abs(np.diff(stem, 2)).max() * 1.01


def test_the_loop_chunk_is_followed(tiny: Engine) -> None:
    clip = Clip(plucks(1.0), RATE, "FLOAT", "WAV", 0, RATE, (Chunk(b"acid", bytes(24)),))
    assert passage_of(clip, tiny.settings(), 0, RATE, 1000, 100).wraps
    assert not passage_of(clip, tiny.settings(loop="off"), 0, RATE, 1000, 100).wraps
    # What rings out behind its end is no loop.
    ringing = passage_of(clip, tiny.settings(tail=0.5), 0, RATE, 1000, 100)
    assert (ringing.wraps, ringing.loop, ringing.tail) == (False, None, RATE // 2)
    with pytest.raises(BadRequest, match="leave out loop or tail"):
        tiny.settings(tail=0.5, loop="on")


@pytest.mark.parametrize("rate", [44100, 96000, 192000, 384000])
@pytest.mark.parametrize("hz", [30.0, 100.0])
def test_kept_bands_are_kept_at_every_rate(rate: int, hz: float) -> None:
    time = np.arange(rate) / rate
    difference = np.sin(2 * np.pi * 0.9 * hz * time)[None].astype(np.float32)
    left = without_kept_bands(difference, rate, hz, None)
    # Where the filter reaches beyond the ends, it hears the sine begin and end.
    assert decibels(left[:, rate // 3 : -rate // 3]) < -75


@pytest.mark.parametrize(
    "asked", [{}, {"start": "100 samples"}, {"start": 0.25}, {"end": 0.9}, {"preview": 0.9}], ids=str
)
def test_a_loop_within_a_segment_is_closed(tiny: Engine, asked: dict[str, Any]) -> None:
    # The second half of the loop is louder than the first: open, it steps where it wraps.
    audio = tone(440, 1.0)
    audio[:, RATE // 2 :] *= 3
    clip = Clip(audio, RATE, "FLOAT", "WAV", 0, RATE, (loop_chunk(Loop(RATE // 4, RATE * 3 // 4)),))
    settings = tiny.settings(**asked)
    first, last = segment_of(settings, RATE, RATE)
    passage = passage_of(clip, settings, first, last, 20_000, 5000)
    assert passage.loop is not None
    start = passage.offset
    assert passage.loop == Loop(RATE // 4 - start, RATE * 3 // 4 - start)
    stem = finish(passage, passage.carrier.copy(), settings, integer=False)[0]
    before = audio[:, RATE // 4 - 400 : RATE // 4]
    end = stem[:, passage.loop.end - 400 : passage.loop.end]
    # The level of the whole is kept.
    assert np.abs(end / np.abs(end).max() - before / np.abs(before).max()).max() < 0.05


@pytest.mark.parametrize("loop", [Loop(0, RATE - 100), Loop(500, RATE - 100), Loop(20000, RATE - 100)])
def test_a_loop_that_begins_with_the_clip_keeps_its_end(tiny: Engine, loop: Loop) -> None:
    audio = tone(441, 1.0)
    clip = Clip(audio, RATE, "FLOAT", "WAV", 0, RATE, (loop_chunk(loop),))
    passage = passage_of(clip, tiny.settings(), 0, RATE, 1000, 4410)
    stem, _ = finish(passage, passage.carrier.copy(), tiny.settings(), integer=False)
    end = stem[:, loop.end - 1000 : loop.end]
    assert decibels(end) == pytest.approx(decibels(audio[:, loop.end - 1000 : loop.end]), abs=0.5)


@pytest.mark.parametrize("hz", [150, 1000])
def test_keep_below_leaves_that_band(tiny: Engine, hz: float) -> None:
    audio = plucks(1.5) + tone(60, 1.5) + tone(120, 1.5, 0.2)
    stem = rendered(tiny, audio, keep_below=hz).audio
    assert band(stem - audio, 0, hz) - band(audio, 0, hz) <= -60
    assert band(stem - audio, 2 * hz, 20000) - band(audio, 2 * hz, 20000) > -20


def test_keep_above_leaves_that_band(tiny: Engine) -> None:
    audio = plucks(1.5) + noise(1.5, 0.05)
    stem = rendered(tiny, audio, keep_above=5000).audio
    assert band(stem - audio, 5000, 22050) - band(audio, 5000, 22050) <= -60


def band(audio: NDArray[np.floating], low: float, high: float) -> float:
    """Level of a band, of a spectrum whose window keeps the other bands out of it."""
    mono = np.asarray(audio[0], np.float64) * np.blackman(audio.shape[1])
    spectrum = np.abs(np.fft.rfft(mono)) ** 2
    frequencies = np.fft.rfftfreq(audio.shape[1], 1 / RATE)
    return float(10 * np.log10(spectrum[(frequencies >= low) & (frequencies <= high)].sum() + 1e-20))


def test_silence_stays_silent(tiny: Engine) -> None:
    audio = plucks(2.0, channels=2)
    audio[:, 30000:50000] = 0
    audio[:, :500] = 0
    stem = rendered(tiny, audio).audio
    assert not stem[:, 30000:50000].any()
    assert stem[:, 50000:].any()
    assert not rendered(tiny, np.zeros((1, 5000), np.float32)).audio.any()


def test_a_segment_is_the_same_passage_in_its_context(tiny: Engine) -> None:
    audio = plucks(4.0)
    render = rendered(tiny, audio, start=1.0, end="88200 samples", loudness="keep")
    assert render.audio.shape == (1, RATE)
    assert render.passage.offset == RATE
    assert np.array_equal(rendered(tiny, audio, start=1.0, end=2.0, mix=0).audio, audio[:, RATE : 2 * RATE])


@pytest.mark.parametrize("method", ["injection", "conditional"])
def test_a_silent_segment_with_sound_behind_it_comes_back_silent(tiny: Engine, method: str) -> None:
    audio = plucks(4.0)
    audio[:, : round(2.5 * RATE)] = 0
    engine = Engine("mini", "cpu") if method == "conditional" else tiny
    render = engine.render((audio, RATE), STYLE, engine.settings(method=method, start=0.0, end=2.0))
    assert render.audio.shape == (1, 2 * RATE)
    assert not render.audio.any()
    # Under what the picture holds, not silence.
    audio[:, : 2 * RATE] = noise(2.0, 1e-7)
    soft = engine.render((audio, RATE), STYLE, engine.settings(method=method, start=0.0, end=2.0)).audio
    assert np.allclose(soft, audio[:, : 2 * RATE], atol=1e-7)


def test_a_preview_is_the_loudest_passage(tiny: Engine) -> None:
    audio = plucks(5.0) * 0.1
    audio[:, 3 * RATE : 4 * RATE] *= 10
    render = rendered(tiny, audio, preview=1.0, loop="off")
    assert render.audio.shape == (1, RATE)
    assert abs(render.passage.offset - 3 * RATE) < 0.05 * RATE


def test_a_preview_as_a_loop_wraps(tiny: Engine) -> None:
    stem = rendered(tiny, tone(440, 2.0), preview=0.5, loop="on").audio[0].astype(np.float64)
    assert len(stem) == RATE // 2
    assert abs(stem[0] - stem[-1]) <= np.abs(np.diff(stem)).max()


def test_a_tail_rings_out(tiny: Engine) -> None:
    audio = tone(440, 1.0)
    stem = rendered(tiny, audio, tail=0.5).audio
    assert stem.shape[1] == round(1.5 * RATE)
    tail = stem[:, RATE:]
    levels = [decibels(tail[:, first : first + 2205]) for first in range(0, tail.shape[1] - 2205, 4410)]
    assert levels[0] > -40
    assert levels[-1] < levels[0] - 20
    assert abs(tail[0, -1]) < 1e-3


def test_kept_attacks_are_the_contents(tiny: Engine) -> None:
    audio = plucks(2.0, every=0.5) + noise(2.0, 1e-4)
    kept = rendered(tiny, audio, transients=1.0).audio
    at = slice(RATE, RATE + 300)
    lost = rendered(tiny, audio).audio
    assert decibels(kept[:, at] - audio[:, at]) < decibels(lost[:, at] - audio[:, at]) - 20


def test_linked_stereo_keeps_the_balance(tiny: Engine) -> None:
    audio = plucks(1.0, channels=2)
    stem = rendered(tiny, audio, stereo="linked", refine=0).audio
    assert decibels(stem[1]) - decibels(stem[0]) == pytest.approx(decibels(audio[1]) - decibels(audio[0]), abs=0.1)


@pytest.mark.parametrize("stereo", ["independent", "mid-side"])
def test_other_stereo_modes_render_both_channels(tiny: Engine, stereo: str) -> None:
    audio = plucks(1.0, channels=2)
    audio[1] += noise(1.0, 0.02)[0]
    render = rendered(tiny, audio, stereo=stereo)
    assert render.gains is not None
    assert render.gains.styled.shape[0] == 2
    assert render.audio.shape == audio.shape


def test_mid_side_needs_two_channels(tiny: Engine) -> None:
    with pytest.raises(BadRequest, match="2 channels"):
        rendered(tiny, plucks(0.5), stereo="mid-side")


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 48000, 96000])
def test_every_rate_keeps_its_length(tiny: Engine, rate: int) -> None:
    time = np.arange(rate) / rate
    audio = (0.3 * np.sin(2 * np.pi * 440 * time))[None].astype(np.float32)
    render = tiny.render((audio, rate), STYLE, tiny.settings(injection=False, init="none"))
    assert render.audio.shape == audio.shape
    assert si_sdr(render.audio, audio) >= 60


def test_many_channels(tiny: Engine) -> None:
    audio = plucks(0.4, channels=32) * 0.02
    assert rendered(tiny, audio).audio.shape == (32, audio.shape[1])


def test_integer_stems_do_not_clip_silently(tiny: Engine) -> None:
    audio = plucks(1.0)
    render = rendered(tiny, audio)
    settings = tiny.settings(loudness=0)
    stem, over = finish(render.passage, render.passage.carrier * 3, settings, True)
    as_rendered, _ = finish(render.passage, render.passage.carrier * 3, settings, False)
    assert np.abs(stem).max() == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(stem * 10 ** (over / 20), as_rendered, rtol=1e-5)
    assert "lower than rendered" in lowered(over, settings.ceiling)[0]


def test_ceiling_is_a_true_peak(tiny: Engine) -> None:
    from stylus_audio.loudness import true_peak

    stem = rendered(tiny, plucks(1.0), ceiling=-20, loudness=-6).audio
    assert true_peak(stem, RATE) == pytest.approx(-20, abs=0.05)


def test_loudness(tiny: Engine) -> None:
    audio = plucks(1.0)
    assert integrated(rendered(tiny, audio, loudness="-23").audio, RATE) == pytest.approx(-23, abs=0.2)
    assert integrated(rendered(tiny, audio, loudness="match").audio, RATE) == pytest.approx(integrated(*STYLE), abs=0.2)
    assert integrated(rendered(tiny, audio).audio, RATE) == pytest.approx(integrated(audio, RATE), abs=0.2)


def test_the_level_of_what_loudness_meters_do_not_hear_is_kept_too(tiny: Engine) -> None:
    soft = (1e-3 * plucks(1.0)).astype(np.float32)
    assert integrated(rendered(tiny, soft, loudness=-60.0).audio, RATE) == pytest.approx(-60, abs=0.2)
    style = ((1e-3 * STYLE[0]).astype(np.float32), RATE)
    stem = tiny.render((soft, RATE), style, tiny.settings(loudness="match")).audio
    assert integrated(stem, RATE, 1e3) == pytest.approx(integrated(*STYLE), abs=0.2)


@pytest.mark.parametrize("milliseconds", [1, 4, 20])
def test_a_hit_that_nothing_changes_is_itself(milliseconds: int) -> None:
    """One that is trimmed tightly has most of its energy where the sound fades in behind silence."""
    hit = noise(0.2)
    hit *= np.exp(-np.arange(hit.shape[1]) * 1000 / RATE / milliseconds).astype(np.float32)
    settings = Settings()
    passage = passage_of(Clip.from_array(hit, RATE), settings, 0, hit.shape[1], RATE, 4096)
    assert np.array_equal(finish(passage, passage.carrier.copy(), settings, False)[0], hit)


def test_a_segment_of_an_array_is_that_of_the_file(tiny: Engine, tmp_path: Path) -> None:
    audio = np.concatenate([0.02 * plucks(4.0), plucks(1.0)], axis=1)
    soundfile.write(tmp_path / "clip.wav", audio.T, RATE, subtype="FLOAT")
    settings = tiny.settings(start=0.5, end=1.0)
    (_, array), (_, file) = (tiny.passage(one, settings) for one in ((audio, RATE), tmp_path / "clip.wav"))
    assert (array.first, array.last, array.offset) == (file.first, file.last, file.offset)
    assert np.array_equal(array.carrier, file.carrier)


def test_a_rate_is_any_kind_of_number(tiny: Engine) -> None:
    settings, style = tiny.settings(steps=1), cast("tuple[Audio, int]", (STYLE[0], np.int64(RATE)))
    one, other = (tiny.render((plucks(0.3), RATE), each, settings).audio for each in (STYLE, style))
    assert np.array_equal(one, other)


def test_silence_has_no_level(tiny: Engine) -> None:
    with pytest.raises(UnsupportedAudio, match="silent"):
        tiny.level((np.zeros((1, RATE), np.float32), RATE))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_samples(tiny: Engine) -> None:
    audio = plucks(1.2)
    for reconstruction in ("gain", "griffin-lim"):
        one, other = (rendered(tiny, audio, reconstruction=reconstruction, seed=5).audio for _ in range(2))
        assert np.array_equal(one, other)


def test_gains_can_be_finished_again_without_the_model(tiny: Engine) -> None:
    audio = plucks(1.0)
    render = rendered(tiny, audio)
    assert render.gains is not None
    settings = tiny.settings(mix=0.5, keep_below=300)
    again, _ = finish(render.passage, reconstruct(render.passage, render.gains, settings), settings, False)
    assert np.array_equal(again, rendered(tiny, audio, mix=0.5, keep_below=300).audio)
    unchanged = replace(render.gains, styled=render.gains.reference)
    none = reconstruct(render.passage, unchanged, settings)
    assert si_sdr(none[:, render.passage.first : render.passage.last], audio) > 100


@pytest.mark.parametrize("reconstruction", ["phase", "griffin-lim"])
def test_other_reconstructions_sound(tiny: Engine, reconstruction: str) -> None:
    audio = plucks(1.0, channels=2)
    stem = rendered(tiny, audio, reconstruction=reconstruction, refine=4).audio
    assert stem.shape == audio.shape
    assert decibels(stem) == pytest.approx(decibels(audio), abs=6)


def test_several_styles_and_variations(tiny: Engine) -> None:
    audio = plucks(1.0)
    styles = [(noise(2.0, seed=1), RATE), (plucks(2.0, every=0.1), RATE)]
    stems = [
        tiny.render((audio, RATE), styles, tiny.settings(**settings)).audio
        for settings in ({}, {"style_weight": "0.9,0.1"}, {"blend": "features"}, {"variation": 3})
    ]
    for number, one in enumerate(stems):
        for other in stems[number + 1 :]:
            assert not np.allclose(one, other, atol=1e-4)
    with pytest.raises(BadRequest, match="style_weight"):
        tiny.render((audio, RATE), styles, tiny.settings(style_weight="1,2,3"))


def test_a_silent_style_is_refused(tiny: Engine) -> None:
    with pytest.raises(UnsupportedAudio, match="silent"):
        tiny.render((plucks(0.5), RATE), (np.zeros((1, 9000), np.float32), RATE))


def test_progress_moves_and_can_cancel(tiny: Engine) -> None:
    seen: list[float] = []
    tiny.render((plucks(1.0), RATE), STYLE, tiny.settings(), lambda fraction, stage: seen.append(fraction))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) > 10

    def cancel(fraction: float, stage: str) -> None:
        if fraction > 0.3:
            raise Cancelled("enough")

    processors = dict(tiny.model.unet.attn_processors)
    with pytest.raises(Cancelled):
        tiny.render((plucks(1.0), RATE), STYLE, tiny.settings(), cancel)
    assert all(tiny.model.unet.attn_processors[name] is one for name, one in processors.items())


def test_a_tail_joins_a_sound_that_moves_without_a_step(tiny: Engine) -> None:
    from scipy.signal import butter, sosfiltfilt

    time = np.arange(round(1.5 * RATE)) / RATE
    vibrato = 0.4 * np.sin(2 * np.pi * 300 * time + 8 * np.sin(2 * np.pi * 5.5 * time))
    _, passage = tiny.passage((vibrato[None].astype(np.float32), RATE), tiny.settings(tail=1.0))
    end = passage.first + len(time)
    high = sosfiltfilt(butter(4, 4000, "high", fs=RATE, output="sos"), passage.carrier[0])
    assert np.abs(high[end - 1500 : end + 1500]).max() < 10 ** (-60 / 20)
    ringing = passage.carrier[0, end : end + 2000]
    assert np.abs(ringing).max() > 0.1


@pytest.mark.parametrize("scale", [1e-4, 1e-3, 3.0])
def test_how_soft_a_clip_is_does_not_change_how_its_level_is_kept(tiny: Engine, scale: float) -> None:
    audio = plucks(1.0)
    plain, scaled = (rendered(tiny, one).audio for one in (audio, (scale * audio).astype(np.float32)))
    change = integrated(scaled, RATE, 1 / scale) - integrated(plain, RATE)
    assert abs(change) < 0.1


# --- Where memory does not suffice


@contextmanager
def before_each_pass(engine: Engine, act: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """`act` sees the windows of every pass of the UNet."""

    def seen(_: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        act(arguments[0] if arguments else named["sample"])

    hook = engine.model.unet.register_forward_pre_hook(seen, with_kwargs=True)
    yield
    hook.remove()


def full() -> torch.OutOfMemoryError:
    """A new one each time: it holds the frames that it goes through."""
    return torch.OutOfMemoryError("CUDA out of memory")


def test_memory_that_others_take_and_give_back(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that has what is kept of a clip only while nobody else takes of it."""
    free, needed = 120, 26
    monkeypatch.setattr(memory, "free_bytes", lambda _: free)
    engine = Engine(str(tiny_folder), device="cpu", dtype="float32")
    tried: list[tuple[int, int]] = []
    taken_meanwhile = False

    def take(_: torch.Tensor) -> None:
        nonlocal free
        if taken_meanwhile:
            free = 20
        sizes = engine.budget.windows_per_pass, engine.budget.features
        if sizes not in tried:
            tried.append(sizes)
        if min(engine.budget.features, needed) > free:
            raise full()

    def attempts() -> tuple[list[tuple[int, int]], list[str]]:
        """Windows of a pass and budget of each, and what the report says."""
        tried.clear()
        notes = rendered(engine, plucks(2.0), steps=1).report["notes"]
        return tried.copy(), notes

    with before_each_pass(engine, take):
        assert attempts() == ([(4, 30)], [])
        free = 20
        # Taken before the render: nothing fails.
        assert attempts() == ([(4, 5)], [])
        free, taken_meanwhile = 120, True
        assert attempts() == ([(4, 30), (2, 5)], ["memory did not suffice; 2 windows at a time"])
        # The next one does not fail anew, and the one after that has what it had at first.
        assert attempts() == ([(2, 5)], [])
        free, taken_meanwhile = 120, False
        assert attempts() == ([(4, 30)], [])


def test_a_clip_that_nothing_helps_leaves_the_others_their_sizes(tiny_folder: Path) -> None:
    engine = Engine(str(tiny_folder), device="cpu", dtype="float32")
    fits = False
    windows: list[int] = []

    def take(sample: torch.Tensor) -> None:
        windows.append(len(sample))
        if not fits:
            raise full()

    with before_each_pass(engine, take):
        with pytest.raises(OutOfMemory, match="not enough memory on cpu"):
            rendered(engine, plucks(3.0), steps=1)
        fits = True
        windows.clear()
        assert rendered(engine, plucks(3.0), steps=1).report["notes"] == []
    assert max(windows) == 4


def test_an_audition_is_tried_with_fewer_windows_at_a_time(tiny_folder: Path) -> None:
    engine = Engine(str(tiny_folder), device="cpu", dtype="float32")
    settings = engine.settings(steps=1)
    _, passage = engine.passage((plucks(3.0), RATE), settings)

    def take(sample: torch.Tensor) -> None:
        if len(sample) > 2:
            raise full()

    with before_each_pass(engine, take):
        (found,) = engine.audition(passage, [STYLE], settings)
    assert isinstance(found, Gains)


@pytest.mark.parametrize("where", ["engine.reconstruct", "restyler.picture_of"])
def test_transforms_take_memory_too(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    engine = Engine(str(tiny_folder), device="cpu", dtype="float32")
    calls = 0
    real = getattr(importlib.import_module(f"stylus_audio.{where.split('.', maxsplit=1)[0]}"), where.split(".")[1])

    def once(*words: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise full()
        return real(*words, **more)

    monkeypatch.setattr(f"stylus_audio.{where}", once)
    assert rendered(engine, plucks(0.5), steps=1).report["notes"] == ["memory did not suffice; 2 windows at a time"]


def test_what_a_failed_attempt_had_is_gone_before_the_next(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(str(tiny_folder), device="cpu", dtype="float32")
    had: list[weakref.ref[torch.Tensor]] = []
    left: list[int] = []

    def take(sample: torch.Tensor) -> None:
        had.append(weakref.ref(sample))
        if len(had) == 5:
            left.append(alive())
            raise full()

    def alive() -> int:
        return sum(ref() is not None for ref in had)

    def free(_: torch.device) -> int:
        if had:
            left.append(alive())
        return 2**30

    monkeypatch.setattr(memory, "free_bytes", free)
    with before_each_pass(engine, take):
        assert rendered(engine, plucks(2.0)).report["notes"] == ["memory did not suffice; 2 windows at a time"]
    # When it failed, and when it was asked what is free.
    assert left[0] > 1
    assert set(left[1:]) == {0}


def test_a_stem_is_not_lost_with_its_folder(tiny: Engine, tmp_path: Path) -> None:
    folder, content, style = tmp_path / "stems", tmp_path / "riff.wav", tmp_path / "hiss.wav"
    soundfile.write(content, plucks(0.5).T, RATE)
    soundfile.write(style, noise(0.5).T, RATE)
    folder.mkdir()
    files = FileRender(content, [(style, "hiss")], Target(folder))
    files.check()
    render = tiny.render(content, [style], tiny.settings(mix=0))
    # Another render, whose folder it was, has failed meanwhile.
    folder.rmdir()
    assert files.write(render).path == folder / "riff_hiss.wav"
    assert (folder / "riff_hiss.wav").is_file()
