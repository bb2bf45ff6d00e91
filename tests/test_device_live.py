"""The device's scripts for Live, run by Node.js on a model of Live's objects. Live itself was never asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from stylus_daemon.desk import ADDRESSES

from tests.device.max import CHORDS, STEM, Device, Json, Max, clips_of, seconds_at

FOLDER = Path(__file__).parent.parent / "max_for_live"
SCRIPTS = sorted(path for path in FOLDER.glob("stylus_*.js") if path.name != "stylus_node.js")


# 10 s at 48 kHz: beats 0 to 4 in 2 s, 4 to 8 in 3 s, and on at 0.75 s a beat.
MARKERS = [[0, 0], [2, 4], [5, 8], [5.0234375, 8.03125]]


def chords(**values: Any) -> Json:
    """A warped clip of which the loop is heard: beats 2 to 6, that is 1 s to 3.5 s."""
    given = {
        "name": "Chords", "file_path": CHORDS, "sample_rate": 48000, "sample_length": 480000, "warping": 1,
        "warp_mode": 4, "looping": 1, "start_marker": 2, "end_marker": 8, "loop_start": 2, "loop_end": 6, "gain": 0.3,
        "pitch_coarse": -2, "pitch_fine": 7, "color": 0xFF8800, **values,
    }  # fmt: skip
    return {"values": given, "markers": MARKERS}


def straight(**values: Any) -> Json:
    """An unwarped clip of 44.1 kHz, of which 0.5 s to 2.25 s are heard."""
    given = {
        "name": "Voice", "file_path": "/Users/zoë/Voice.aif", "sample_length": 441000, "start_marker": 0.5,
        "end_marker": 2.25, **values,
    }  # fmt: skip
    return {"values": given}


def midi(name: str = "Keys") -> Json:
    return {"midi": True, "values": {"name": name}}


def audio(slots: Json | None = None, arrangement: list[Json] | None = None, **more: Any) -> Json:
    return {"name": "Pads", "slots": slots or {}, "arrangement": arrangement or [], **more}


Make = Callable[..., Device]


@pytest.fixture(scope="module")
def max_() -> Iterator[Max]:
    one = Max()
    yield one
    one.end()


@pytest.fixture
def make(max_: Max) -> Iterator[Make]:
    """Makes devices; what was in the Set before is untouched at the end."""
    made: list[tuple[Device, list[Json]]] = []

    def device(*tracks: Json, **spec: Any) -> Device:
        one = Device(max_, *(tracks or [audio({"0": chords()})]), **spec)
        made.append((one, one.tracks()))
        return one

    yield device
    for one, before in made:
        assert one.overwritten == []
        after = {clip["id"]: clip for clip in clips_of(one.tracks())}
        for clip in clips_of(before):
            assert after.get(clip["id"], clip) == clip


def chosen_clip(make: Make, clip: Json) -> Device:
    device = make(audio({"0": clip}))
    device.start(clip["values"]["name"])
    return device


# What is asked for


@pytest.mark.parametrize(
    ("clip", "start", "end", "loop"),
    [
        # The loop: beat 2 is at 1 s, beat 6 half way from 2 s to 5 s.
        (chords(), 48000, 168000, "on"),
        # Its run-in from beat 1 on comes before the loop; the loop is not all of it.
        (chords(start_marker=1), 24000, 168000, None),
        # Entered within the loop, all of the loop is heard.
        (chords(start_marker=5), 48000, 168000, "on"),
        # Behind the loop it plays on to its end, once: beat 7 to 8.
        (chords(start_marker=7), 204000, 240000, None),
        # Beat 10 lies behind the last marker, at 0.75 s a beat.
        (chords(looping=0, start_marker=3, end_marker=10), 72000, 312000, None),
        # Before the file and behind it is nothing; a loop over its edge is no circle.
        (chords(looping=0, start_marker=-2, end_marker=40), 0, 480000, None),
        (chords(start_marker=-1, loop_start=-1), 0, 168000, None),
        (straight(), 22050, 99225, None),
        (straight(start_marker=-1, end_marker=20), 0, 441000, None),
    ],
)
def test_the_part_that_is_heard_is_asked_for(make: Make, clip: Json, start: int, end: int, loop: str | None) -> None:
    device = chosen_clip(make, clip)
    device.send("render")
    asked = device.request()
    assert asked == {
        "content": clip["values"]["file_path"], "style": "/Users/zoë/bells.wav", "start": f"{start} samples",
        "end": f"{end} samples", **({"loop": loop} if loop else {}),
    }  # fmt: skip
    assert device.complaints == []


def test_dials_and_menus_are_asked_for(make: Make) -> None:
    device = make()
    device.start()
    device.answer(2, 0, "dark", "wide", key="preset:0")
    device.answer("mini", "sd15", key="model:0")
    for words in (("keep", 0.30000001), ("amount", 1.2), ("mix", 40), ("reconstruction", 2), ("model", 1)):
        device.send(*words)
    device.send("render")
    asked = device.request()
    assert {name: asked[name] for name in ("keep", "amount", "mix", "reconstruction", "model")} == {
        "keep": 0.3, "amount": 1.2, "mix": 0.4, "reconstruction": "griffin-lim", "model": "sd15",
    }  # fmt: skip
    assert "preset" not in asked


def test_a_preset_holds_where_a_dial_was_not_moved(make: Make) -> None:
    device = make()
    device.start()
    device.answer(2, 0, "dark", "wide", key="preset:0")
    device.send("preset", 2)
    # As Live may give the initial value of a 32-bit dial.
    device.send("amount", 0.9999999761581421)
    device.send("keep", 0.5)
    device.send("render")
    asked = device.request()
    assert asked["preset"] == "wide"
    assert asked["keep"] == 0.5
    assert not {"amount", "mix", "reconstruction"} & set(asked)


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("Macintosh HD:/Users/zoë/Größe 1.wav", "/Users/zoë/Größe 1.wav"),
        ("Macintosh HD:/private/tmp/a.wav", "/private/tmp/a.wav"),
        ("Samples SSD:/Packs/a.wav", "/Volumes/Samples SSD/Packs/a.wav"),
        ("/Users/zoë/a.wav", "/Users/zoë/a.wav"),
        ("C:/Musik/Größe 1.wav", "C:/Musik/Größe 1.wav"),
        ("C:\\Musik\\a.wav", "C:\\Musik\\a.wav"),
    ],
)
def test_paths_of_max_become_the_systems(make: Make, given: str, path: str) -> None:
    device = make()
    device.start()
    device.send("content_dropped", given)
    device.send("style_dropped", given)
    device.send("render")
    asked = device.request()
    assert (asked["content"], asked["style"]) == (path, path)
    name = re.split(r"[/\\]", path)[-1]
    assert device.shown["content"] == f"{name}, dropped"
    assert device.shown["reference"] == name
    # The whole file: the daemon follows its own loop chunk.
    assert "start" not in asked


def test_a_dropped_file_counts_until_another_clip_is_selected(make: Make) -> None:
    device = make(audio({"0": chords(), "1": straight()}))
    device.start()
    assert device.shown["content"] == "Chords, 2.5 s"
    device.send("content_dropped", "/x/drop.wav")
    device.wait(50)
    assert device.shown["content"] == "drop.wav, dropped"
    device.live("select", "Voice")
    device.wait(50)
    assert device.shown["content"] == "Voice, 1.8 s"
    device.send("render")
    assert device.request()["content"] == "/Users/zoë/Voice.aif"


def test_the_highlighted_slot_counts_where_no_clip_is_shown(make: Make) -> None:
    device = make(audio({"2": straight()}))
    device.start(None)
    device.live("highlight", 0, 2)
    device.send("render")
    assert device.request()["content"] == "/Users/zoë/Voice.aif"


def test_the_reference_is_a_file_a_clip_or_of_the_library(make: Make) -> None:
    device = make(audio({"0": chords(), "1": straight()}))
    device.start("Voice")
    device.answer(2, 0, "glass", True, "dark bells", False, key="style:0")
    assert device.shown["styles"] == ["–", "glass", "dark bells"]
    device.send("style", 2)
    assert device.shown["reference"] == "dark bells"
    device.send("render")
    assert device.request()["style"] == "dark bells"
    device.send("style_from_clip")
    assert (device.shown["reference"], device.shown["choose style"]) == ("Voice.aif", 0)
    # No style is chosen in the menu, and the clip stays the reference.
    device.send("style", 0)
    assert device.shown["reference"] == "Voice.aif"
    device.send("style", 1)
    device.send("style", 0)
    assert device.shown["reference"] == "no reference yet"


# Where the stem goes


@pytest.mark.parametrize("throws", [False, True])
def test_the_stem_lies_in_the_next_free_slot_and_plays_alike(make: Make, throws: bool) -> None:
    device = make(audio({"0": chords(), "1": straight()}), throws=throws)
    device.start()
    device.render()
    assert device.shown["status"] == "Chords (bells) is in slot 3"
    stem = device.clip(2)
    assert stem["name"] == "Chords (bells)"
    copied = ("warping", "warp_mode", "looping", "gain", "pitch_coarse", "pitch_fine", "color")
    assert {name: stem[name] for name in copied} == {
        "warping": 1, "warp_mode": 4, "looping": 1, "gain": 0.3, "pitch_coarse": -2, "pitch_fine": 7, "color": 0xFF8800,
    }  # fmt: skip
    assert [stem[name] for name in ("start_marker", "end_marker", "loop_start", "loop_end")] == [0, 4, 0, 4]
    # Beat 4 of the original, a second into the stem, and both ends.
    assert [seconds_at(stem, beat) for beat in (0, 1, 2, 3, 4)] == pytest.approx([0, 0.5, 1, 1.75, 2.5], abs=1e-6)
    # Of auto-warp's markers only the first is left, which cannot be removed; the last is the hidden one.
    assert [beat for _, beat in stem["markers"]] == pytest.approx([0, 0.026, 2, 4, 4 + 1 / 32])
    assert device.complaints == []
    assert (device.shown["busy"], device.shown["progress"]) == (0, 0)


def test_places_are_counted_from_the_stems_beginning(make: Make) -> None:
    device = chosen_clip(make, chords(start_marker=1))
    device.render()
    stem = device.clip(1)
    assert [stem[name] for name in ("start_marker", "end_marker", "loop_start", "loop_end")] == [0, 5, 1, 5]
    assert [seconds_at(stem, beat) for beat in (0, 1, 3, 5)] == pytest.approx([0, 0.5, 1.5, 3], abs=1e-6)


@pytest.mark.parametrize(("run_in", "length"), [(2, 0.25), (0, 0.25), (6, 2)])
def test_a_loop_wherever_it_lies_is_set(make: Make, run_in: float, length: float) -> None:
    device = chosen_clip(make, chords(loop_start=2 + run_in, loop_end=2 + run_in + length))
    device.render()
    stem = device.clip(1)
    assert [stem["loop_start"], stem["loop_end"], stem["start_marker"]] == [run_in, run_in + length, 0]
    assert device.complaints == []


def test_a_clip_from_before_its_file_starts_as_late_as_the_original(make: Make) -> None:
    device = chosen_clip(make, chords(looping=0, start_marker=-2, end_marker=4))
    device.render()
    stem = device.clip(1)
    assert (stem["looping"], stem["start_marker"], stem["end_marker"]) == (0, -2, 4)
    assert seconds_at(stem, 4) == pytest.approx(2, abs=1e-6)


def test_an_unwarped_clip_stays_unwarped(make: Make) -> None:
    device = chosen_clip(make, straight())
    device.send("render")
    device.answer(3)
    device.live("file", STEM, 44100, 77175)
    device.event("result", 3, 0, STEM)
    device.wait()
    stem = device.clip(1)
    assert (stem["warping"], stem["looping"]) == (0, 0)
    assert (stem["start_marker"], stem["end_marker"]) == pytest.approx((0, 1.75))
    assert device.complaints == []


def test_markers_that_live_analyses_late_or_keeps_do_no_harm(make: Make) -> None:
    for rules in ({"late": True}, {"stubborn": True}):
        device = make(**rules)
        device.start()
        device.render()
        stem = device.clip(1)
        assert [seconds_at(stem, beat) for beat in (0, 1, 2, 3, 4)] == pytest.approx([0, 0.5, 1, 1.75, 2.5], abs=1e-6)
        assert not any("warp markers" in words for words in device.said)


def test_warp_markers_that_cannot_be_set_are_told(make: Make) -> None:
    # 2400 beats a minute is more than Live lets a script set.
    clip = chords(looping=0, start_marker=0, end_marker=100)
    clip["markers"] = [[0, 0], [2.5, 100], [2.51, 100.4]]
    device = chosen_clip(make, clip)
    device.render()
    assert device.shown["status"] == "Chords (bells): check the warp markers"


def test_without_a_free_slot_a_scene_is_added(make: Make) -> None:
    device = make(audio({"0": straight(), "1": chords()}), scenes=2)
    device.start()
    device.render()
    assert [clip and clip["name"] for clip in device.slots()] == ["Voice", "Chords", "Chords (bells)"]
    limited = make(audio({"0": straight(), "1": chords()}), scenes=2, most_scenes=2)
    limited.start()
    limited.render()
    assert limited.shown["status"] == (
        "Chords 1_bells.wav is not in the Set: its track has no free slot; Show File to drag it in"
    )


def test_an_arrangement_clips_stem_lies_at_its_time_on_a_track_of_its_own(make: Make) -> None:
    before, after = (straight(name=name, start_time=time) for name, time in (("Intro", 0), ("Outro", 20)))
    device = make(audio(arrangement=[before, chords(start_time=16), after]), audio({"0": midi()}))
    device.start()
    device.render()
    pads, own, _ = device.tracks()
    assert [clip["name"] for clip in pads["arrangement"]] == ["Intro", "Chords", "Outro"]
    assert own["name"] == "Stylus ← Pads"
    (stem,) = own["arrangement"]
    assert (stem["name"], stem["start_time"], stem["end_time"]) == ("Chords (bells)", 16, 20)
    assert [seconds_at(stem, beat) for beat in (0, 2, 4)] == pytest.approx([0, 1, 2.5], abs=1e-6)
    assert device.shown["status"] == "Chords (bells) is in track Stylus ← Pads"
    assert device.complaints == []


def test_a_track_of_ours_is_used_again_where_it_is_free(make: Make) -> None:
    device = make(audio(arrangement=[chords(start_time=8), chords(name="Later", start_time=12)]))
    device.start("Chords")
    device.render(stem="/x/1.wav")
    device.live("select", "Later")
    device.render(stem="/x/2.wav")
    assert [len(track["arrangement"]) for track in device.tracks()] == [2, 2]
    # The first again: the second's stem lies behind it, and is not to be overwritten.
    device.live("select", "Chords")
    device.render(stem="/x/3.wav")
    tracks = device.tracks()
    assert [track["name"] for track in tracks] == ["Pads", "Stylus ← Pads", "Stylus ← Pads"]
    assert [len(track["arrangement"]) for track in tracks] == [2, 2, 1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("set", 0, "is_frozen", 1), "its track is frozen"),
        (("set", 0, "has_audio_input", 0), "its track takes no audio clips"),
        (("set", 0, "is_foldable", 1), "a group track holds no clips"),
    ],
)
def test_where_live_takes_no_clip_the_file_is_shown(make: Make, change: tuple[Any, ...], reason: str) -> None:
    device = make()
    device.start()
    device.live(*change)
    device.render()
    assert device.shown["status"] == f"Chords 1_bells.wav is not in the Set: {reason}; Show File to drag it in"
    assert len(clips_of(device.tracks())) == 1
    device.send("show_file")
    assert device.sent[-1] == ["reveal", STEM]


@pytest.mark.parametrize("throws", [False, True])
def test_what_live_refuses_is_noticed(make: Make, throws: bool) -> None:
    device = make(throws=throws)
    device.start()
    device.send("render")
    device.answer(7)
    # The file that the daemon named is not there.
    device.event("result", 7, 0, "/gone.wav")
    assert device.shown["status"] == "gone.wav is not in the Set: Live did not take it; Show File to drag it in"


def test_a_track_that_is_being_recorded_is_told(make: Make) -> None:
    device = make(audio(arrangement=[chords(start_time=8)]))
    device.start()
    device.render()
    device.live("set", 1, "arm", 1)
    device.live("song", "record_mode", 1)
    device.live("remove", "Chords (bells)")
    device.render()
    assert "its track is being recorded" in device.shown["status"]


@pytest.mark.parametrize("version", [[11, 0, 0], [11, 3, 4], [12, 0, 4]])
def test_an_older_live_shows_the_file(make: Make, version: list[int]) -> None:
    device = make(version=version)
    device.start()
    asked = device.render()
    assert asked["end"] == "168000 samples"
    assert device.shown["status"] == (
        "Chords 1_bells.wav is not in the Set: Live adds audio clips from 12.0.5 on; Show File to drag it in"
    )
    device.send("show_file")
    assert device.sent[-1] == ["reveal", STEM]


def test_originals_that_went_meanwhile(make: Make) -> None:
    device = make(audio({"1": chords()}))
    device.start()
    device.send("render")
    device.answer(7)
    device.live("remove", "Chords")
    device.finish(7)
    # Its slot is free, but below it is where one looks.
    assert device.clip(2)["name"] == "Chords (bells)"
    assert seconds_at(device.clip(2), 4) == pytest.approx(2.5, abs=1e-6)


def test_a_dropped_files_stem_lies_on_the_devices_track(make: Make) -> None:
    device = make(audio({"0": straight()}), audio({"0": chords()}, name="Other"), device_track=1, in_rack=True)
    device.start(None)
    device.send("content_dropped", "/x/drop.wav")
    device.render()
    stem = device.clip(1, track=1)
    assert stem["name"] == "drop (bells)"
    assert device.shown["status"] == "drop (bells) is in slot 2"


# Previews


def test_a_preview_of_a_part_is_its_beginning_and_in_time(make: Make) -> None:
    device = chosen_clip(make, chords(start_marker=0, loop_start=0, loop_end=10))
    asked = device.render("preview")
    # 0 s to 6 s of 0 s to 6.5 s.
    assert (asked["start"], asked["end"]) == ("0 samples", "288000 samples")
    assert "loop" not in asked
    stem = device.clip(1)
    assert stem["name"] == "Chords (bells, preview)"
    assert (stem["looping"], stem["start_marker"]) == (0, 0)
    # 6 s is 1 s behind beat 8, at 0.75 s a beat.
    assert stem["end_marker"] == pytest.approx(8 + 4 / 3)
    assert seconds_at(stem, 8) == pytest.approx(5, abs=1e-6)


def test_a_preview_of_a_short_clip_is_all_of_it(make: Make) -> None:
    device = make()
    device.start()
    asked = device.render("preview")
    assert (asked["start"], asked["end"], asked["loop"]) == ("48000 samples", "168000 samples", "on")
    assert "preview" not in asked


def test_a_preview_of_a_whole_file_is_its_loudest_passage_unwarped(make: Make) -> None:
    device = chosen_clip(make, chords(looping=0, start_marker=-2, end_marker=40))
    asked = device.render("preview")
    # The daemon refuses start and end beside it.
    assert asked["preview"] == 6
    assert not {"start", "end", "loop"} & set(asked)
    assert (device.clip(1)["warping"], device.clip(1)["looping"]) == (0, 0)
    device.send("content_dropped", "/x/drop.wav")
    device.send("preview")
    assert device.request()["preview"] == 6


# Folders


def test_a_saved_set_has_stems_of_foreign_files_in_its_own_folder(make: Make) -> None:
    device = make(audio({"0": straight()}), set_path="/Users/zoë/Sets/Song Project/Song.als")
    device.start("Voice")
    device.send("render")
    project = "/Users/zoë/Sets/Song Project/Samples"
    assert device.request()["output"] == f"{project}/Processed/Voice_bells.wav"
    device.refuse("bad-request", f"output: the folder {project}/Processed is not there")
    assert device.request()["output"] == f"{project}/Imported/Voice_bells.wav"
    device.refuse("bad-request", f"output: the folder {project}/Imported is not there")
    assert "output" not in device.request()
    assert len(device.requests) == 3
    device.refuse("bad-request", "keep: 7 is not a number from 0 to 1")
    assert device.shown["status"] == "keep: 7 is not a number from 0 to 1"
    assert device.shown["busy"] == 0


@pytest.mark.parametrize(
    ("set_path", "file"),
    [
        ("/Users/zoë/Music/Größe Project/Größe.als", CHORDS),
        ("C:\\Sets\\A Project\\A.als", "C:/Sets/A Project/Samples/Recorded/a.wav"),
        ("", CHORDS),
    ],
)
def test_a_file_of_the_project_has_its_stem_beside_it(make: Make, set_path: str, file: str) -> None:
    device = make(audio({"0": chords(file_path=file)}), set_path=set_path)
    device.start()
    device.send("render")
    assert "output" not in device.request()


def test_a_set_that_was_never_saved_is_told(make: Make) -> None:
    folder = "/Users/zoë/Music/Ableton/Live Recordings/2026-03-01 101500 Temp Project/Samples/Recorded"
    device = make(audio({"0": chords(file_path=f"{folder}/1-Audio.aif")}))
    device.start()
    device.render(stem=f"{folder}/1-Audio_bells.wav")
    assert device.shown["status"] == (
        f"Chords (bells) is in slot 2; the Set is not saved, so it lies in {folder}: save the Set and collect it"
    )


# What cannot be


def test_it_says_why_it_cannot(make: Make) -> None:
    device = make(audio({"0": chords(), "1": midi(), "2": chords(name="Take", is_recording=1)}))
    device.send("loaded")
    device.send("render")
    assert device.shown["status"] == "looking for the Stylus daemon"
    device.send("node", "disconnected", '{"reason": "no daemon answers on port 9109", "canStart": true}')
    assert (device.shown["offline"], device.shown["status"]) == (1, "no daemon answers on port 9109")
    device.send("start_daemon")
    assert device.sent == [["start"]]
    device.send("node", "connected", '{"version": "0.1.0"}')
    assert (device.shown["offline"], device.shown["status"]) == (0, "Stylus 0.1.0 is ready")
    device.send("render")
    assert device.shown["status"] == "no reference: drop a file, or choose a style"
    device.send("style_from_clip")
    assert device.shown["status"] == "select a clip to take its sound"
    device.send("style_dropped", "/x/bells.wav")
    asked = len(device.requests)
    for clip, reason in (
        (None, "select a clip, or drop a file"),
        ("Keys", "Keys is a MIDI clip; freeze and flatten it first"),
        ("Take", "Take is being recorded; stop that first"),
    ):
        device.live("select", clip)
        device.wait(50)
        device.send("render")
        assert device.shown["status"] == device.shown["content"] == reason
    device.send("show_file")
    assert device.shown["status"] == "nothing has been rendered yet"
    assert len(device.requests) == asked


@pytest.mark.parametrize(
    ("code", "message", "shown"),
    [
        ("busy", "the queue is full: 1000 jobs wait", "the queue is full: 1000 jobs wait"),
        (
            "not-allowed",
            "'/Volumes/X/a b.wav' is outside of the folders that the daemon may use; "
            '`stylus root add "/Volumes/X"` allows it',
            'not allowed: run stylus root add "/Volumes/X" in a terminal, then render',
        ),
        ("not-found", "'/gone.wav' does not exist", "'/gone.wav' does not exist"),
    ],
)
def test_what_the_daemon_refuses_is_shown(make: Make, code: str, message: str, shown: str) -> None:
    device = make()
    device.start()
    device.send("render")
    device.refuse(code, message)
    assert (device.shown["status"], device.shown["busy"]) == (shown, 0)
    # It may be tried again.
    device.send("render")
    device.answer(4)
    device.event("error", 4, code, message)
    assert (device.shown["status"], device.shown["busy"]) == (shown, 0)


def test_nothing_of_live_is_touched_before_it_is_there(make: Make) -> None:
    device = make()
    device.send("node", "connected", '{"version": "0.1.0"}')
    for word in ("render", "preview", "render_all", "style_from_clip", "show_file", "cancel", "freed"):
        device.send(word)
    device.send("restore", '{"takes": []}')
    device.send("content_dropped", "/x/a.wav")


def test_words_that_are_none_are_left_alone(make: Make) -> None:
    device = make()
    device.start()
    for word in ("finished", "tell", "submit", "nonsense", "begin"):
        device.send(word, 1)
    for damaged in ("", "0", "{", "[]", '{"takes": 1}', "null"):
        device.send("restore", damaged)
    assert device.requests == []


# Several renders


def test_all_clips_of_the_track_are_rendered_in_order(make: Make) -> None:
    late, early = (chords(name=name, start_time=time, loop_end=end) for name, time, end in (("B", 9, 7), ("A", 1, 5)))
    device = make(audio({"0": straight(), "2": chords()}, [late, early]), audio({"0": chords(name="Elsewhere")}))
    device.start()
    device.send("render_all")
    ends = [arguments[-1 if "loop" not in arguments else -3] for _, _, arguments in device.requests]
    assert ends == ["99225 samples", "168000 samples", "132000 samples", "204000 samples"]
    keys = [key for key, _, _ in device.requests]
    assert len(set(keys)) == 4
    for number, key in enumerate(keys):
        device.answer(20 + number, key=key)
    device.event("state", 20, "running")
    device.event("progress", 20, 0.25, "inverting", 39.5)
    assert device.shown["status"] == "1 of 4: inverting, 40 s left"
    assert (device.shown["progress"], device.shown["busy"]) == (0.25, 1)
    device.event("error", 20, "unsupported-audio", "Voice.aif is no audio")
    device.event("progress", 21, 0.5, "sampling", 150.0)
    assert device.shown["status"] == "2 of 4: sampling, 3 min left"
    for job, samples in ((21, 120000), (22, 84000), (23, 156000)):
        device.live("file", f"/x/{job}.wav", 48000, samples)
        device.event("result", job, 0, f"/x/{job}.wav")
        device.wait()
    assert device.shown["status"] == "3 of 4 done; Voice.aif is no audio"
    pads, own, _ = device.tracks()
    assert [clip and clip["name"] for clip in pads["slots"]] == ["Voice", None, "Chords", "Chords (bells)"]
    assert [(clip["name"], clip["start_time"]) for clip in own["arrangement"]] == [("A (bells)", 1), ("B (bells)", 9)]
    # Stems that it has made are no clips to be restyled.
    device.requests.clear()
    device.send("render_all")
    assert len(device.requests) == 4


def test_two_results_at_once_have_a_slot_each(make: Make) -> None:
    device = make(audio({"0": chords(), "1": chords(name="Other", loop_end=7)}))
    device.start()
    device.send("render")
    device.answer(1)
    device.live("select", "Other")
    device.send("render")
    device.answer(2)
    for job, samples in ((2, 156000), (1, 120000)):
        device.live("file", f"/x/{job}.wav", 48000, samples)
        device.event("result", job, 0, f"/x/{job}.wav")
    device.wait()
    assert [clip and clip["name"] for clip in device.slots()] == ["Chords", "Other", "Other (bells)", "Chords (bells)"]
    assert seconds_at(device.clip(2), 5) == pytest.approx(3.25, abs=1e-6)
    assert seconds_at(device.clip(3), 4) == pytest.approx(2.5, abs=1e-6)
    assert device.shown["status"] == "2 of 2 done"


def test_the_same_is_asked_for_once(make: Make) -> None:
    device = make(audio({"0": chords(), "2": chords(name="Copy")}), scenes=6)
    device.start()
    device.send("render")
    device.send("render")
    assert device.shown["status"] == "Chords is being rendered already"
    # A copy of the clip gets the same stem.
    device.send("render_all")
    assert len(device.requests) == 1
    device.answer(7)
    device.send("keep", 0.5)
    device.send("render")
    assert len(device.requests) == 2
    device.finish(7)
    names = [clip and clip["name"] for clip in device.slots()]
    assert names == ["Chords", "Chords (bells)", "Copy", "Copy (bells)", None, None]
    device.answer(8)
    device.event("error", 8, "internal", "no")
    device.send("keep", 0.0)
    device.send("render")
    assert len(device.requests) == 3


def test_cancel_ends_all_that_is_under_way(make: Make) -> None:
    device = make(audio({"0": chords(), "1": straight()}))
    device.start()
    device.send("render_all")
    (first, _, _), (second, _, _) = device.requests
    device.answer(1, key=first)
    device.event("progress", 1, 0.1, "inverting", -1.0)
    assert device.shown["status"] == "1 of 2: inverting"
    device.requests.clear()
    device.send("cancel")
    assert [request[1:] for request in device.requests] == [("/stylus/job/cancel", [1])]
    assert device.shown["status"] == "1 of 2: cancelling"
    # The second was not answered yet: it is cancelled as soon as it has a number.
    device.answer(2, key=second)
    assert device.requests[-1][1:] == ("/stylus/job/cancel", [2])
    device.answer(2, "cancelled")
    device.event("state", 2, "cancelled")
    device.event("state", 1, "cancelled")
    assert (device.shown["busy"], device.shown["status"]) == (0, "0 of 2 done; cancelled")


def test_what_is_cancelled_may_be_asked_for_again(make: Make) -> None:
    device = make()
    device.start()
    device.send("render")
    device.answer(1)
    device.send("cancel")
    device.requests.clear()
    device.send("render")
    assert [request[1] for request in device.requests] == ["/stylus/render"]
    device.answer(2)
    device.event("state", 1, "cancelled")
    assert device.shown["busy"] == 1


def test_cancel_without_a_daemon_is_asked_for_when_it_is_back(make: Make) -> None:
    device = make()
    device.start()
    device.send("render")
    device.answer(1)
    device.send("cancel")
    device.refuse("no-daemon", "no daemon answers on port 9109")
    assert device.shown["busy"] == 1
    device.requests.clear()
    device.send("node", "connected", '{"version": "0.1.0"}')
    assert device.requests[-1][1:] == ("/stylus/job/cancel", [1])
    device.answer(1, "cancelled")
    assert (device.shown["busy"], device.shown["status"]) == (0, "cancelled")


def test_cancel_that_comes_too_late(make: Make) -> None:
    device = make()
    device.start()
    device.send("render")
    device.answer(1)
    device.send("cancel")
    device.answer(1, "done")
    assert device.requests[-1][1:] == ("/stylus/job/status", [1])
    device.answer(1, "done", 1.0, "done", STEM)
    assert device.shown["status"] == "Chords 1_bells.wav was ready before"
    assert device.slots()[1] is None
    device.send("show_file")
    assert device.sent[-1] == ["reveal", STEM]
    device.send("cancel")
    assert device.shown["busy"] == 0


def test_jobs_of_others_are_no_business_of_ours(make: Make) -> None:
    device = make()
    device.start()
    device.send("render")
    device.answer(5)
    before = dict(device.shown)
    device.event("progress", 6, 0.9, "sampling", 1.0)
    device.event("result", 6, 0, STEM)
    device.event("error", 4, "internal", "no")
    assert device.shown == before


# Away and back


def test_what_happened_while_the_daemon_was_away_is_asked(make: Make) -> None:
    device = make(audio({"0": chords(), "1": straight()}), scenes=8)
    device.start()
    device.send("render_all")
    (first, _, _), (second, _, _) = device.requests
    device.answer(1, key=first)
    device.answer(2, key=second)
    device.send("node", "disconnected", '{"reason": "none recorded: run `stylus doctor`", "canStart": false}')
    assert device.shown["offline"] == 0
    device.live("file", STEM, 48000, 120000)
    device.requests.clear()
    device.send("node", "connected", '{"version": "0.1.0"}')
    asked = {tuple(arguments): key for key, address, arguments in device.requests if address == "/stylus/job/status"}
    assert set(asked) == {(1,), (2,)}
    device.answer(1, "done", 1.0, "done", STEM, key=asked[1,])
    device.answer(2, "failed", 0.5, "sampling", "disk-full: no room: 3 MB are missing", key=asked[2,])
    assert device.shown["status"] == "1 of 2 done; no room: 3 MB are missing"
    # The event of what was heard already comes late.
    device.event("result", 1, 0, STEM)
    assert sum(clip is not None for clip in device.slots()) == 3


def test_menus_come_in_pages_and_keep_their_choice(make: Make) -> None:
    device = make()
    device.start()
    device.send("node", "connected", '{"version": "0.1.0"}')
    assert {address for _, address, _ in device.requests} == {
        "/stylus/style/list", "/stylus/presets", "/stylus/models",
    }  # fmt: skip
    device.answer(3, 0, "glass", True, "7", False, key="style:0")
    assert device.requests[-1][1:] == ("/stylus/style/list", [2])
    device.answer(3, 2, "rain", False, key=device.requests[-1][0])
    assert device.shown["styles"] == ["–", "glass", "7", "rain"]
    device.answer(0, 0, key="preset:0")
    assert device.shown["presets"] == ["–"]
    device.answer("mini", "sd15", key="model:0")
    assert device.shown["models"] == ["mini", "sd15"]
    # None was chosen: the menu shows the daemon's own.
    assert device.requests[-1][1] == "/stylus/model"
    device.answer("sd15")
    assert device.shown["choose model"] == 1
    device.send("style", 3)
    device.send("node", "connected", '{"version": "0.1.0"}')
    device.answer(2, 0, "alpha", True, "rain", False, key="style:0")
    assert device.shown["choose style"] == 2
    device.send("render")
    assert device.request()["style"] == "rain"
    assert "model" not in device.request()


def test_menus_show_what_is_sent_also_where_the_daemon_does_not_know_it(make: Make) -> None:
    device = make(audio({"0": chords()}))
    device.start()
    device.send(
        "restore", json.dumps({"takes": [], "reference": {"style": "glass", "name": "glass"}, "preset": "gone"})
    )
    device.send("node", "connected", '{"version": "0.1.0"}')
    device.answer(1, 0, "wide", key="preset:0")
    assert (device.shown["presets"], device.shown["choose preset"]) == (["–", "wide", "gone"], 2)
    device.answer("mini", "sd15", key="model:0")
    device.answer("/models/choir")
    # The daemon's own, which is none of those that can be had by name, is what is used where none is chosen.
    assert (device.shown["models"], device.shown["choose model"]) == (["mini", "sd15", "choir"], 2)
    device.send("model", 0)
    device.send("render")
    asked = device.request()
    assert (asked["preset"], asked["model"]) == ("gone", "mini")
    device.send("preset", 0)
    device.send("model", 2)
    device.send("preview")
    assert not {"preset", "model"} & device.request().keys()


# Takes and what the Set keeps


def test_undo_and_redo_restore_what_the_set_keeps(make: Make) -> None:
    device = make(audio({"0": chords()}))
    device.start()
    device.send("style_dropped", "/x/glass.wav")
    before = device.shown["keep_state"]
    device.send("style_dropped", "/x/rain.wav")
    after = device.shown["keep_state"]
    for state, shown in ((before, "glass.wav"), (after, "rain.wav"), (before, "glass.wav")):
        device.send("restore", state)
        assert device.shown["reference"] == shown


def test_earlier_renders_are_listed_shown_and_kept(make: Make) -> None:
    device = make(audio({"0": chords(), "1": chords(name="Voice", loop_end=7)}), scenes=8)
    device.start()
    assert device.shown["takes"] == ["–"]
    device.render(stem="/x/1.wav")
    device.send("style_dropped", "/x/glass.wav")
    device.render(stem="/x/2.wav", job=8)
    first, second = device.shown["takes"][1:]
    assert re.fullmatch(r"glass \d\d?:\d\d", first)
    assert re.fullmatch(r"bells \d\d?:\d\d", second)
    device.send("take", 2)
    assert device.shown["status"] == "1.wav is selected"
    device.wait(50)
    assert device.shown["content"] == "Chords (bells), 2.5 s"
    # A stem's takes are those of its original, and it is one of them.
    assert (device.shown["takes"], device.shown["choose take"]) == (["–", first, second], 2)
    device.live("remove", "Chords (glass)")
    device.send("take", 1)
    assert device.shown["status"] == "2.wav is in no clip; Show File shows it"
    device.send("show_file")
    assert device.sent[-1] == ["reveal", "/x/2.wav"]
    device.live("select", "Voice")
    device.wait(50)
    assert device.shown["takes"] == ["–"]

    state = device.shown["keep_state"]
    again = make(audio({"0": chords()}))
    again.send("restore", state)
    again.start()
    assert again.shown["takes"] == ["–", first, second]
    assert again.shown["keep_state"] != ""


@pytest.mark.parametrize("restored_first", [True, False])
def test_the_set_keeps_reference_preset_and_model_by_name(make: Make, restored_first: bool) -> None:
    device = make()
    device.start()
    for names, key in (((2, 0, "glass", True, "rain", True), "style:0"), ((1, 0, "wide"), "preset:0")):
        device.answer(*names, key=key)
    device.answer("mini", "sd15", key="model:0")
    for words in (("style", 2), ("preset", 1), ("model", 1)):
        device.send(*words)
    state = device.shown["keep_state"]

    again = make()
    for first in (True, False):
        again.send(*(("restore", state) if first == restored_first else ("loaded",)))
    assert again.shown["reference"] == "rain"
    again.live("select", "Chords")
    again.send("node", "connected", '{"version": "0.1.0"}')
    # Live sends the items of its own memory before there are any.
    for menu, item in (("model", 0), ("style", 5), ("preset", 3)):
        again.send(menu, item)
    again.answer(1, 0, "rain", True, key="style:0")
    again.answer(2, 0, "narrow", "wide", key="preset:0")
    again.answer("sd15", "mini", key="model:0")
    assert again.requests[-1][1] != "/stylus/model"
    assert [again.shown[f"choose {menu}"] for menu in ("style", "preset", "model")] == [1, 2, 0]
    again.send("render")
    asked = again.request()
    assert (asked["style"], asked["preset"], asked["model"]) == ("rain", "wide", "sd15")


def test_the_newest_64_takes_are_kept(make: Make) -> None:
    device = make()
    take = {"file": CHORDS, "start": 48000, "end": 168000, "style": "bells", "at": 0}
    takes = [{**take, "stem": f"/x/{number}.wav"} for number in range(64)]
    device.send("restore", json.dumps({"takes": takes}))
    device.start()
    assert len(device.shown["takes"]) == 65
    device.render()
    kept = json.loads(device.shown["keep_state"])["takes"]
    assert [one["stem"] for one in kept] == [STEM, *(one["stem"] for one in takes[:-1])]


# The page

PAGE = "http://127.0.0.1:9110/?token=secret"


def opened(url: str) -> tuple[str, dict[str, list[str]]]:
    """A page's address, and what stands behind it."""
    address, _, behind = url.partition("#")
    return address, parse_qs(behind)


def test_the_page_opens_with_what_the_clip_plays(make: Make) -> None:
    device = make()
    device.start()
    device.send("page")
    assert device.requests[-1][1:] == ("/stylus/page", [])
    device.answer(PAGE)
    said = {"clip": [CHORDS], "start": ["1"], "length": ["2.5"]}
    assert opened(device.shown["page"]) == (PAGE, said)
    assert device.browsed == []
    device.send("browse")
    device.answer(PAGE)
    assert [opened(url) for url in device.browsed] == [(PAGE, said)]
    # A dropped file is all of it; no clip is no reason for no page.
    device.send("content_dropped", "/Users/zoë/a #1 & b.wav")
    device.send("page")
    device.answer(PAGE)
    assert opened(device.shown["page"]) == (PAGE, {"clip": ["/Users/zoë/a #1 & b.wav"]})
    other = make()
    other.start(select=None)
    other.send("page")
    other.answer(PAGE)
    assert other.shown["page"] == PAGE


def test_where_there_is_no_page_the_device_says_so(make: Make) -> None:
    device = make()
    device.start()
    device.send("page")
    device.answer("")
    assert "serves no page" in device.shown["status"]
    device.send("browse")
    device.refuse("no-daemon", "no daemon answers on port 9109")
    assert device.shown["status"] == "no daemon answers on port 9109"
    device.send("node", "disconnected", '{"reason": "no daemon is there", "canStart": true}')
    asked = len(device.requests)
    device.send("page")
    assert device.shown["status"] == "no daemon is there"
    assert len(device.requests) == asked
    assert "page" not in device.shown
    assert device.browsed == []


# The scripts as files


def test_every_address_is_in_the_daemons_table() -> None:
    said = {word for script in SCRIPTS for word in re.findall(r'"(/stylus/[^"]*)"', script.read_text("utf-8"))}
    events = {f"/stylus/job/{name}" for name in ("state", "progress", "result", "error")}
    assert said >= events | {"/stylus/render", "/stylus/job/cancel"}
    assert said - events <= set(ADDRESSES)


def bare(source: str) -> str:
    """A script without its comments, texts and patterns."""
    comment, text = r"//[^\n]*|/\*.*?\*/", r'"(?:\\.|[^"\\\n])*"'
    pattern = r"(?<=[(&=] |.[(!])/(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\\n])+/"
    return re.sub(f"{comment}|{text}|{pattern}", '""', source, flags=re.DOTALL)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_of_the_language_that_max_has(script: Path) -> None:
    source = script.read_text("utf-8")
    # How the old engine reads a file depends on the system's encoding.
    assert source.isascii()
    newer = r"=>|`|\b(?:let|const|class|async|await|yield|import|of)\b|\.\.\.|\*\*|\?\?|\?\.(?!\d)"
    assert re.findall(newer, bare(source)) == []
    # Default values of parameters.
    assert re.findall(r"function[^(]*\([^)]*=", bare(source)) == []


def test_scripts_that_are_needed_are_there() -> None:
    needed = {name for script in SCRIPTS for name in re.findall(r'require\("([^"]*)"\)', script.read_text("utf-8"))}
    assert {f"{name}.js" for name in needed} | {"stylus_device.js"} == {script.name for script in SCRIPTS}
