"""SFZ instruments: oddities of the format by their known answers; what a player reads, and what is heard."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylus_audio.batch.sfz import Instrument, read_instrument
from stylus_audio.batch.sfz_text import can_stand
from stylus_audio.errors import BadRequest, NotFound
from stylus_audio.riff import Loop, read_chunks
from tests.instruments_sfz import (
    PAD,
    PAD_LOOP,
    RELEASE_HZ,
    ROOTS,
    Floats,
    Player,
    frequency,
    loop_chunk,
    save_flac,
    save_instrument,
    save_tone,
)
from tests.sounds import RATE


def written(folder: Path, text: str | bytes, *samples: str) -> Instrument:
    """An instrument of this text, whose samples are there."""
    for name in samples:
        save_tone(folder / name)
    path = folder / "x.sfz"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_instrument(path)


def names(instrument: Instrument) -> list[str]:
    """Its samples, seen from its folder."""
    return [sample.path.relative_to(instrument.path.parent).as_posix() for sample in instrument.samples]


@pytest.mark.parametrize(
    ("text", "sample"),
    [
        ("<region> sample=a.wav", "a.wav"),
        ("<region>sample=a.wav<region>key=60", "a.wav"),
        ("<region> key=60 sample=my piano #2.wav lokey=1", "my piano #2.wav"),
        ("<region> sample=a=b (c).wav\tkey=60", "a=b (c).wav"),
        ("<region> sample=a.wav // sample=b.wav", "a.wav"),
        ("<region> sample=a.wav/* x */key=60", "a.wav"),
        ("/* <region> sample=b.wav\n */ <region> sample=a.wav /* <region> sample=b.wav", "a.wav"),
        ("<region>\r\nsample=a.wav\r\nkey=60\r\n", "a.wav"),
        ("<region> sample= a.wav \n sample=\n", "a.wav"),
        ("<REGION> SAMPLE=a.wav", "a.wav"),
        ("<region> sample=b.wav sample=a.wav", "a.wav"),
        ("<group> sample=a.wav <region> key=60 <region> key=61", "a.wav"),
        ("<global> sample=a.wav <group> <region>", "a.wav"),
        ("<group> sample=b.wav <master> sample=a.wav <region>", "a.wav"),
        ("<global> sample=b.wav <global> <group> sample=a.wav <region>", "a.wav"),
        ("<group> sample=a.wav <control> default_path= <curve> sample=b.wav <region>", "a.wav"),
        ("sample=b.wav\n<region> sample=a.wav", "a.wav"),
        ("what is this?\n<region> sample=a.wav", "a.wav"),
        (b"\xef\xbb\xbf<region> sample=a.wav", "a.wav"),
        (b"// caf\xe9\r\n<region> sample=gr\xfcn \x96.wav key=60", "grün –.wav"),
        ("<region> sample=grün.wav", "grün.wav"),
        ("<region> sample=SUB\\Deep\\A.WAV", "Sub/deep/a.wav"),
        ("<region> sample=.\\Sub/../Sub/deep/a.wav", "Sub/deep/a.wav"),
        ("<region> sample=E\u0301TUDE.wav", "étude.wav"),
        ("<control> default_path=Sub\\ <region> sample=a.wav", "Sub/a.wav"),
        ("<control>\ndefault_path=Sub/my_ \n<region> sample=piano.wav", "Sub/my_piano.wav"),
        ("<control> default_path=no/ <control> default_path=Sub/ <group> <region> sample=a.wav", "Sub/a.wav"),
        ("<control> default_path=Sub/ <control> set_cc1=3 <region> sample=a.wav", "a.wav"),
        ("<control> default_path=no/ default_path=Sub/ <region> sample=a.wav", "Sub/a.wav"),
        ("#define $EXT wav\n<region> sample=a.$EXT", "a.wav"),
        ("#define $A a #define $B $Aa\n<region> sample=$B.wav", "aa.wav"),
        ("#define $A a\n<region> sample=$Ab.wav", "ab.wav"),
        ("#define $S sample// what\n<region> $S=a.wav", "a.wav"),
        ("<region> sample=a.wav #define $K 60\n", "a.wav"),
        ("<region> sample=$100.wav", "$100.wav"),
    ],
)
def test_a_sample_is_found(tmp_path: Path, text: str | bytes, sample: str) -> None:
    instrument = written(tmp_path, text, sample)
    assert names(instrument) == [sample]
    assert instrument.missing == ()


def test_samples_once_in_the_order_of_first_use(tmp_path: Path) -> None:
    regions = [f"<region> sample={name}" for name in ("b.wav", "a.wav", "B.WAV", r"no\c.wav", "*sine", "no/c.wav")]
    instrument = written(tmp_path, " ".join(regions), "a.wav", "b.wav", "unused.wav")
    assert names(instrument) == ["b.wav", "a.wav"]
    assert instrument.missing == ("no/c.wav",)


def test_samples_may_lie_outside(tmp_path: Path) -> None:
    save_tone(tmp_path / "samples" / "a.wav")
    (tmp_path / "presets").mkdir()
    instrument = written(tmp_path / "presets", "<region> sample=..\\Samples\\a.wav")
    assert [sample.path for sample in instrument.samples] == [tmp_path / "samples" / "a.wav"]


def test_what_is_no_file_is_let_alone(tmp_path: Path) -> None:
    text = """<sample> name=inside.wav base64data=UklG key=//
        =a<region> sample=inside.wav <region> sample=*noise <region> key=3"""
    instrument = written(tmp_path, text)
    assert (instrument.samples, instrument.missing) == ((), ())
    assert instrument.rewritten(tmp_path, {}).data == text.encode()


def test_names_that_no_file_has(tmp_path: Path) -> None:
    instrument = written(tmp_path, b"<region> sample=a\0.wav <region> sample=" + 5000 * b"x", "a.wav")
    assert instrument.missing == ("a\0.wav", 5000 * "x")
    assert instrument.rewritten(tmp_path / "out", {}).data.count(b"sample=") == 2


def test_includes_stand_where_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "Parts").mkdir()
    (tmp_path / "Parts" / "Soft.sfz").write_bytes(b"\xef\xbb\xbf<region> sample=$NAME.wav // soft")
    (tmp_path / "Parts" / "all.sfz").write_text(
        '#define $NAME a\n#include "parts\\soft.sfz"\n#define $NAME b\n', "utf-8"
    )
    text = '<group> lovel=1 #include "Parts/all.sfz" // all\n#include "parts/soft.sfz" hivel=9\n// #include "no.sfz"\n'
    instrument = written(tmp_path, text, "a.wav", "b.wav")
    assert names(instrument) == ["a.wav", "b.wav"]
    assert instrument.rewritten(tmp_path, {}).data.decode() == (
        "<group> lovel=1 #define $NAME a\n<region> sample=a.wav // soft\n\n#define $NAME b\n // all\n"
        '<region> sample=b.wav // soft\n hivel=9\n// #include "no.sfz"\n'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<region> sample=a.wav\n#include "no.sfz"', "x.sfz includes 'no.sfz', which does not exist in"),
        ('#include "X.sfz"', "x.sfz includes itself"),
        ('#include "other.sfz"', "x.sfz includes itself"),
        ("#define $A $B\n#define $B $A\n<region> sample=$A", "it holds itself"),
        ("#define $A $A$A\n<region> sample=$A", "it holds itself"),
        ("<group> sample=a.wav", "has no <region>"),
        ("", "has no <region>"),
        (bytes(range(256)), "has no <region>"),
        (bytes(2**25 + 1), "too large"),
    ],
)
def test_bad_files_get_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    (tmp_path / "other.sfz").write_text('#include "./x.sfz"', "utf-8")
    with pytest.raises((BadRequest, NotFound)) as raised:
        written(tmp_path, text)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        read_instrument(tmp_path / "no.sfz")
    with pytest.raises(NotFound, match=r"cannot be opened|may not be read"):
        read_instrument(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(st.binary(max_size=200), st.text('<region> sample=a.wav#define $"\\/*\n', max_size=200).map(str.encode))
)
def test_any_bytes_are_an_instrument_or_one_line(tmp_path: Path, data: bytes) -> None:
    try:
        instrument = written(tmp_path, b"<region> sample=a.wav\n" + data)
    except (BadRequest, NotFound):
        return
    again = written(tmp_path, instrument.rewritten(tmp_path, {}).data)
    assert names(again) == names(instrument)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_a_name_that_can_stand_is_read_as_it_is(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    if can_stand(f"{name}.no"):
        instrument = written(tmp_path_factory.getbasetemp(), f"<region> sample={name}.no key=60")
        assert instrument.missing == (f"{name}.no".replace("\\", "/"),)


LOOPED = (100, 199)
LOOPS = pytest.mark.parametrize(
    ("opcodes", "plain", "looped"),
    [
        ("", None, Loop(100, 200)),
        ("loop_mode=no_loop", None, None),
        ("loop_mode=one_shot loop_start=5", None, None),
        ("loop_mode=loop_continuous", Loop(0, 1000), Loop(100, 200)),
        ("loopmode=loop_sustain loopstart=10 loopend=19", Loop(10, 20), Loop(10, 20)),
        ("loop_mode=loop_continuous loop_start=10", Loop(10, 1000), Loop(10, 200)),
        ("loop_end=149", None, Loop(100, 150)),
        ("loop_mode=loop_continuous end=499", Loop(0, 500), Loop(100, 200)),
        ("loop_mode=loop_continuous loop_end=5000 end=499 offset=50", Loop(0, 500), Loop(100, 500)),
        ("loop_mode=loop_continuous loop_end=5000", Loop(0, 1000), Loop(100, 1000)),
        ("loop_mode=loop_continuous loop_start=900 loop_end=20", None, None),
        ("loop_mode=sometimes loop_start=x", None, Loop(100, 200)),
        ("trigger=first loop_mode=one_shot loop_mode=loop_sustain", Loop(0, 1000), Loop(100, 200)),
    ],
)


@LOOPS
def test_opcodes_of_a_loop(tmp_path: Path, opcodes: str, plain: Loop | None, looped: Loop | None) -> None:
    (sample,) = written(tmp_path, f"<region> sample=a.wav {opcodes}", "a.wav").samples
    assert sample.loop((), 1000) == plain
    assert sample.loop([loop_chunk(LOOPED)], 1000) == looped


@LOOPS
def test_a_player_loops_alike(tmp_path: Path, opcodes: str, plain: Loop | None, looped: Loop | None) -> None:
    for name, loop, expected in (("a.wav", None, plain), ("b.wav", LOOPED, looped)):
        save_tone(tmp_path / name, seconds=1000 / RATE, loop=loop)
        instrument = written(tmp_path, f"<region> sample={name} key=60 {opcodes}")
        assert (peak(Player(instrument.path).play(60, 100, 0.5, 0.5)[2000:]) > 1e-3) == (expected is not None)


def test_a_flac_keeps_its_loop(tmp_path: Path) -> None:
    """What `flac --keep-foreign-metadata` keeps is read by a player and by us, and reaches the stem."""
    save_flac(tmp_path / "a.flac", loop_chunk(LOOPED))
    instrument = written(tmp_path, "<region> sample=a.flac key=60")
    (region,) = Player(instrument.path).regions()
    assert (region["loop_start"], region["loop_end"]) == LOOPED
    chunks = read_chunks(tmp_path / "a.flac")
    assert chunks == (loop_chunk(LOOPED),)
    assert instrument.samples[0].loop(chunks, 4410) == Loop(100, 200)


def test_a_count_is_no_loop(tmp_path: Path) -> None:
    (sample,) = written(tmp_path, "<region> sample=a.wav count=2", "a.wav").samples
    assert sample.loop([loop_chunk(LOOPED)], 1000) is None


def test_the_first_loop_that_sustains_counts(tmp_path: Path) -> None:
    text = """<group> loop_start=10 loop_end=19
        <region> sample=a.wav loop_mode=one_shot <region> sample=a.wav loop_mode=loop_sustain
        <region> sample=a.wav loop_mode=loop_continuous loop_start=15 <region> sample=a.wav loop_mode=one_shot"""
    (sample,) = written(tmp_path, text, "a.wav").samples
    assert [asked.mode for asked in sample.loops] == ["one_shot", "loop_sustain", "loop_continuous"]
    assert sample.loop([loop_chunk(LOOPED)], 1000) == Loop(10, 20)


STEMS = {"a.wav": "a stem.wav", "b.wav": "stems/b.wav"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<region>\tsample=a.wav\r\nfoo_bar=1 key=c4", "<region> volume=6\tsample={a}\r\nfoo_bar=1 key=c4"),
        ("<region>sample=a.wav<region>sample=b.wav", "<region> volume=6 sample={a}<region>sample={b}"),
        ("<region> sample=a.wav volume=-3.5 // loud", "<region> sample={a} volume=2.5 // loud"),
        ("<region> VOLUME=+1dB sample=a.wav", "<region> VOLUME=7 sample={a}"),
        ("<region> volume=1 sample=a.wav gain=2", "<region> volume=1 sample={a} gain=8"),
        ("<group> volume=-3 <region> sample=a.wav", "<group> volume=-3 <region> volume=3 sample={a}"),
        ("<global> volume=-3 <master> gain=-6 <region> sample=a.wav",
         "<global> volume=-3 <master> gain=-6 <region> volume=0 sample={a}"),
        ("<global> volume=-3 <group> <region> sample=b.wav", "<global> volume=-3 <group> <region> sample={b}"),
        ("<group> group_volume=2 amplitude=50 volume_oncc1=4 <region> sample=a.wav",
         "<group> group_volume=2 amplitude=50 volume_oncc1=4 <region> volume=6 sample={a}"),
        ("#define $V -2\n<region> volume=$V sample=a.wav", "#define $V -2\n<region> volume=4 sample={a}"),
        ("<group> sample=a.wav <region> key=60 <region> key=61 volume=1",
         "<group> sample={a} <region> volume=6 key=60 <region> key=61 volume=7"),
        ("<group> sample=a.wav <region> sample=b.wav", "<group> sample=a.wav <region> sample={b}"),
        ("<control> set_cc1=3 default_path=.\\ note_offset=1\n<region> sample=b.wav",
         "<control> set_cc1=3  note_offset=1\n<region> sample={b}"),
        ("<region> sample=*sine volume=1", "<region> sample=*sine volume=1"),
        ("/* sample=a.wav */<region> sample=b.wav\r// sample=a.wav",
         "/* sample=a.wav */<region> sample={b}\r// sample=a.wav"),
        ("<region> sample=no\\c.wav volume=1", "<region> sample=../no/c.wav volume=1"),
        ("<region> sample=C.wav", "<region> sample=../c.wav"),
        ("<group> sample=a.wav <control> default_path=./ <region> <control> default_path=sub/ <region> key=1",
         "<group> sample={a} <control>  <region> volume=6 <control>  <region> sample=../sub/a.wav key=1"),
    ],
)  # fmt: skip
def test_only_what_has_to_change_does(tmp_path: Path, before: str, after: str) -> None:
    """`a` was lowered by 6 dB; `b` is written as it is; `c` has no stem."""
    instrument = written(tmp_path, before, "a.wav", "b.wav", "c.wav", "sub/a.wav")
    a, b = tmp_path / "a.wav", tmp_path / "b.wav"
    rewritten = instrument.rewritten(tmp_path / "out", {a: STEMS["a.wav"], b: STEMS["b.wav"]}, {a: 6.0, b: 0.0})
    assert rewritten.data.decode() == after.format(a=STEMS["a.wav"], b=STEMS["b.wav"])
    assert rewritten.unreachable == ()


def test_an_original_that_cannot_be_named_is_told(tmp_path: Path) -> None:
    instrument = written(tmp_path / "cash $", "<region> sample=a.wav", "a.wav")
    rewritten = instrument.rewritten(tmp_path / "out", {})
    assert rewritten.unreachable == ("../cash $/a.wav",)
    stems = {tmp_path / "cash $" / "a.wav": "a.wav"}
    assert instrument.rewritten(tmp_path / "out", stems).unreachable == ()


@pytest.mark.parametrize("stem", ["$5.wav", "a//b.wav", "a key=3.wav", "<a>.wav", "*a.wav", "", " a.wav", "a\n.wav"])
def test_a_stem_has_a_name_that_sfz_can_hold(tmp_path: Path, stem: str) -> None:
    instrument = written(tmp_path, "<region> sample=a.wav", "a.wav")
    with pytest.raises(BadRequest, match="cannot name a sample"):
        instrument.rewritten(tmp_path, {tmp_path / "a.wav": stem})


def test_reading_needs_no_heavy_library() -> None:
    code = "import sys, stylus_audio.batch.sfz; print({'torch', 'numpy', 'soundfile'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# What a player reads.

HEADERS = st.sampled_from(
    ["<global>", "<master>", "<group>", "<region>", "<region>", "<region>", "<curve>curve_index=9"]
)
CONTROLS = st.sampled_from(["<control>", "<control> default_path=Sub\\", "<control> set_cc1=3 default_path=./sub/"])
NAMES = st.sampled_from(
    ["a.wav", "b c.wav", "B C.WAV", "sub\\d.wav", "SUB/looped.wav", "looped.wav", "*sine", "no.wav", "$N.wav"]
)
VALUES = {
    "volume": st.integers(-30, 6),
    "gain": st.integers(-30, 6),
    "tune": st.integers(-99, 99),
    "key": st.integers(0, 127),
    "group_volume": st.integers(-6, 6),
    "my_opcode": st.just("a b c"),
    "hivel": st.just("$V"),
    "loop_mode": st.sampled_from(["no_loop", "one_shot", "loop_continuous", "loop_sustain"]),
    "loop_start": st.integers(1, 900),
    "loop_end": st.integers(1, 5000),
    "end": st.integers(500, 5000),
    "offset": st.integers(0, 9),
}
OPCODES = st.one_of(
    NAMES.map("sample={}".format),
    st.sampled_from(sorted(VALUES)).flatmap(lambda name: VALUES[name].map(lambda value: f"{name}={value}")),
)
PIECES = st.one_of(
    HEADERS, CONTROLS, OPCODES, OPCODES, OPCODES, st.sampled_from(["// sample=no.wav\n", "/* <region> */"])
)
SEPARATORS = st.sampled_from([" ", "\n", "\r\n", " \t"])
BODIES = st.lists(st.tuples(PIECES, SEPARATORS).map("".join), max_size=30).map("".join)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    for name in ("a.wav", "b c.wav", "sub/d.wav", "sub/a.wav"):
        save_tone(folder / name)
    save_tone(folder / "sub" / "looped.wav", loop=(1000, 1999))
    (folder / "out").mkdir()
    return folder


@settings(max_examples=150)
@given(body=BODIES, lowered=st.floats(0, 20))
def test_a_player_reads_the_same(library: Path, body: str, lowered: float) -> None:
    """Samples, loops and every value of every region, as sfizz reads them: ours alike, and alike after rewriting."""
    path = library / "x.sfz"
    text = f"#define $N a\n#define $V 99\n<global> sample=a.wav\n{body} <control> <region> sample=sub/d.wav"
    path.write_bytes(text.encode())
    before = Player(path).regions()
    instrument = read_instrument(path)

    heard: dict[Path, list[Loop]] = {}
    for region in before:
        if plays_a_file(region):
            end = min(region["loop_end"], region["end"])
            loops = heard.setdefault((library / region["sample_id"]).resolve(), [])
            loops.append(Loop(region["loop_start"], end + 1))
    ours = {sample.path: sample.loop(read_chunks(sample.path), 4410) for sample in instrument.samples}
    assert list(ours) == list(heard)
    assert all(loop is None or loop in heard[sample] for sample, loop in ours.items())

    # The stems are the originals, by other names for some.
    stems = {sample: f"../{sample.relative_to(library).as_posix()}" for sample in list(heard)[::2]}
    target = library / "out" / "x.sfz"
    rewritten = instrument.rewritten(target.parent, stems, dict.fromkeys(stems, lowered))
    assert rewritten.unreachable == ()
    target.write_bytes(rewritten.data)
    after = Player(target).regions()
    assert len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        sample = (library / old["sample_id"]).resolve()
        if plays_a_file(old):
            assert (target.parent / new["sample_id"]).resolve() == sample
        louder = lowered if sample in stems else 0.0
        assert new["volume"] == pytest.approx(old["volume"] + louder, abs=1e-4)
        changed = {"sample_id", "volume", "gain"}
        assert {key: new[key] for key in new.keys() - changed} == {key: old[key] for key in old.keys() - changed}


def plays_a_file(region: dict[str, Any]) -> bool:
    return bool(region["sample_id"]) and not region["sample_id"].startswith("*")


# What is heard.


def pitch(audio: Floats) -> float:
    """The loudest frequency, in Hz."""
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 2**19))
    return float(spectrum.argmax() * RATE / 2**19)


def peak(audio: Floats) -> float:
    return float(np.abs(audio).max())


NOTES = [
    (40, 30),
    (48, 63),
    (48, 64),
    (53, 100),
    (60, 10),
    (60, 127),
    (64, 90),
    (72, 50),
    (74, 80),
    (84, 20),
    (87, 100),
]


def test_the_instrument_plays_as_it_was_made(tmp_path: Path) -> None:
    player = Player(save_instrument(tmp_path))
    notes = {note: player.play(*note, held=0.3, seconds=0.8) for note in NOTES}
    for (key, _), audio in notes.items():
        root = PAD if key >= 79 else min(ROOTS, key=lambda root: (abs(root - key), root))
        sounding = 1050.0 if root == PAD else frequency(root) * 2 ** (20 / 1200 if root == 60 else 0)
        assert pitch(audio[2000:13000]) == pytest.approx(sounding * 2 ** ((key - root) / 12), rel=1e-3)
    # Levels are 0.05 and 0.4, volumes of the two regions -1 and -2.5 or 0 dB.
    for soft, loud, volume in ((notes[48, 63], notes[48, 64], 0.0), (notes[60, 10], notes[60, 127], -2.5)):
        expected = 20 * np.log10(0.4 / 0.05) + volume + 1
        assert 20 * np.log10(peak(loud[:10000]) / peak(soft[:10000])) == pytest.approx(expected, abs=0.1)
    # A release click, transposed with its key, where it has one.
    released = round(0.3 * RATE)
    assert pitch(notes[48, 64][released + 2205 : released + 6000]) == pytest.approx(RELEASE_HZ, rel=0.02)
    assert peak(notes[84, 20][released + 4410 :]) < 1e-3
    # A pad of 0.4 s that is held for two, at its level until it is let go.
    held = player.play(PAD, 100, 2.0, 2.3)
    blocks = np.abs(held[RATE // 5 : 2 * RATE]).reshape(-1, 1764).max(1)
    assert blocks.min() == pytest.approx(blocks.max(), rel=0.02)
    assert pitch(held[RATE : 2 * RATE]) == pytest.approx(1050, rel=1e-4)


def test_a_reskinned_instrument_plays_its_stems_alike(tmp_path: Path) -> None:
    """The stems are the samples upside down, each lowered by another factor: what is heard is the same upside down."""
    source = save_instrument(tmp_path / "Piano Library")
    instrument = read_instrument(source)
    assert len(instrument.samples) == 10
    target = tmp_path / "Piano glass" / "Piano.sfz"
    stems, lowered = {}, {}
    for number, sample in enumerate(instrument.samples):
        name = f"Samples/{sample.path.stem}_glass #{number}.wav"
        (target.parent / name).parent.mkdir(parents=True, exist_ok=True)
        audio, rate = soundfile.read(sample.path)
        soundfile.write(target.parent / name, -audio * 10 ** (-number / 20), rate, subtype="FLOAT")
        stems[sample.path], lowered[sample.path] = name, float(number)
    (pad,) = [sample for sample in instrument.samples if sample.path.stem == "Pad"]
    assert pad.loop((), 17640) == Loop(PAD_LOOP[0], PAD_LOOP[1] + 1)
    target.write_bytes(instrument.rewritten(target.parent, stems, lowered).data)

    before, after = Player(source), Player(target)
    for key, velocity in NOTES:
        for held, seconds in ((0.3, 0.8), (1.5, 1.7)):
            original, restyled = (player.play(key, velocity, held, seconds) for player in (before, after))
            assert peak(original) > 0.005
            assert np.allclose(restyled, -original, atol=2e-5 * peak(original) + 1e-7)


def test_samples_without_a_stem_play_on(tmp_path: Path) -> None:
    source = save_instrument(tmp_path / "Piano Library")
    instrument = read_instrument(source)
    target = tmp_path / "elsewhere" / "deep" / "Piano.sfz"
    target.parent.mkdir(parents=True)
    target.write_bytes(instrument.rewritten(target.parent, {}).data)
    before, after = Player(source), Player(target)
    for key, velocity in NOTES:
        assert np.array_equal(before.play(key, velocity, 0.3, 0.6), after.play(key, velocity, 0.3, 0.6))
