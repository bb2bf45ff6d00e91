"""Composed music, the sounds that it is put into, and synthesis."""

from __future__ import annotations

from pathlib import Path

import mido
import numpy as np
import pytest

from stylus_audio.errors import Internal, NotFound
from stylus_audio.spectrogram import MINI, mel_spectrogram
from stylus_audio.training.additive import Additive
from stylus_audio.training.compose import DRUM_CHANNEL, KINDS, Note, Piece, compose, in_a_row, to_midi
from stylus_audio.training.dataset import SECONDS
from stylus_audio.training.percussion import Percussion
from stylus_audio.training.sounds import (
    HELD_OUT_FONT,
    HELD_OUT_KIT,
    HELD_OUT_PROGRAMS,
    HELD_OUT_VOICE,
    TRAINING_FONTS,
    VARIANTS,
    VOICES,
    Sound,
    draw_effects,
    draw_sound,
    speech,
    texture,
    with_effects,
)
from stylus_audio.training.synthesise import SAMPLE_RATE, soundfont, synthesise
from tests.programs import need_font, need_program


def _sounding(midi: mido.MidiFile) -> list[tuple[int, int, int, int]]:
    """Every note-on as (tick, channel, key, velocity)."""
    now, notes = 0, []
    for message in midi.tracks[0]:
        now += message.time
        if message.type == "note_on":
            notes.append((now, message.channel, message.note, message.velocity))
    return notes


@pytest.mark.parametrize("kind", KINDS)
def test_a_piece_is_the_same_for_the_same_seed_and_playable(kind: str) -> None:
    piece = compose(11, kind, 8.0)
    assert piece == compose(11, kind, 8.0)
    assert piece.notes != compose(12, kind, 8.0).notes
    assert piece.notes == tuple(sorted(piece.notes, key=lambda note: (note.start, note.part, note.key)))
    for note in piece.notes:
        assert 0 <= note.start < piece.seconds
        assert note.length > 0
        assert 24 <= note.key <= 103
        assert 25 <= note.velocity <= 127
        assert (note.part == DRUM_CHANNEL) == (kind == "drums") or kind == "ensemble"


@pytest.mark.parametrize("kind", KINDS)
def test_a_note_is_over_before_its_key_is_struck_again_and_with_its_piece(kind: str) -> None:
    """FluidSynth's note-off ends all notes of a key; what is heard is to be what the notes say."""
    for seed in range(150):
        piece = compose(seed, kind, 6.0)
        assert max(note.start for note in piece.notes) < piece.seconds
        assert max(note.start + note.length for note in piece.notes) <= piece.seconds + 1e-9
        sounding: set[tuple[int, int]] = set()
        for message in to_midi(in_a_row([piece, piece], 1.0)).tracks[0]:
            if message.type == "note_on":
                assert (message.channel, message.note) not in sounding
                sounding.add((message.channel, message.note))
            elif message.type == "note_off":
                sounding.remove((message.channel, message.note))
        assert not sounding


def test_a_swung_hit_does_not_come_behind_the_end() -> None:
    """These groups of the training could not be made."""
    for group in (9736, 10293):
        for seed in (2 * group, 2 * group + 1):
            piece = compose(seed, "drums", SECONDS)
            (audio,) = Percussion(1).play([piece], 0.0)
            assert audio.shape == (2, round(SECONDS * SAMPLE_RATE))


def test_what_begins_behind_the_end_of_a_piece_is_not_played() -> None:
    notes = (Note(0.2, 0.1, 36, 100), Note(1.03, 0.1, 36, 100))
    for sound in (Percussion(1), Additive(1)):
        late, alone = (sound.play([Piece("drums", some, 1.0)], 0.0)[0] for some in (notes, notes[:1]))
        assert np.array_equal(late, alone)


def test_pieces_come_in_every_key_and_at_many_tempi() -> None:
    pieces = [compose(seed, "chords", 8.0) for seed in range(60)]
    assert {note.key % 12 for piece in pieces for note in piece.notes} == set(range(12))
    first_steps = {round(min(n.start for n in piece.notes if n.start > 0), 2) for piece in pieces}
    assert len(first_steps) > 30


def test_the_same_music_on_two_programs_has_the_same_notes_at_the_same_times() -> None:
    piece = compose(4, "melody and chords", 6.0)
    piano, organ = to_midi(piece, (0, 0)), to_midi(piece, (19, 48))
    assert _sounding(piano) == _sounding(organ)
    assert len(_sounding(piano)) == len(piece.notes)
    programs = [m.program for m in organ.tracks[0] if m.type == "program_change"]
    assert programs == [19, 48, 0]


def test_midi_keeps_the_seconds_of_a_piece() -> None:
    piece = Piece("two notes", (Note(0.25, 0.5, 60, 90), Note(1.5, 0.25, 64, 80)), 2.0)
    now, times = 0.0, []
    for message in to_midi(piece):
        now += message.time
        if message.type in ("note_on", "note_off"):
            times.append(now)
    assert times == pytest.approx([0.25, 0.75, 1.5, 1.75], abs=1e-3)


def test_synthesis_is_exactly_as_long_as_asked_repeatable_and_in_tune() -> None:
    need_font()
    font = soundfont()
    flute = to_midi(Piece("a", (Note(0.0, 1.0, 81, 100),), 1.0), (73, 73))
    audio = synthesise(flute, 1.0, font, reverb=False)
    assert audio.shape == (2, SAMPLE_RATE)
    assert np.array_equal(audio, synthesise(flute, 1.0, font, reverb=False))
    middle = audio.mean(0)[SAMPLE_RATE // 4 :][: SAMPLE_RATE // 2]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(middle) == pytest.approx(880.0, abs=8.0)


def test_a_soundfont_that_is_not_there_or_not_one_is_said(tmp_path: Path) -> None:
    need_font()
    with pytest.raises(NotFound, match=r"nowhere\.sf2 is not here"):
        soundfont("nowhere.sf2")
    broken = tmp_path / "broken.sf2"
    broken.write_bytes(b"no soundfont" * 20)
    with pytest.raises(Internal, match=r"broken\.sf2"):
        synthesise(to_midi(compose(0, "melody", 1.0)), 1.0, broken)


def test_pieces_in_a_row_keep_their_notes_and_their_distance() -> None:
    pieces = [compose(1, "melody", 2.0), compose(2, "bass", 3.0)]
    row = in_a_row(pieces, 1.0)
    assert row.seconds == 7.0
    assert [n.key for n in row.notes] == [n.key for piece in pieces for n in piece.notes]
    later = row.notes[len(pieces[0].notes) :]
    assert [n.start for n in later] == pytest.approx([n.start + 3.0 for n in pieces[1].notes])


def test_pieces_played_in_one_run_are_the_pieces_played_alone() -> None:
    need_font()
    pieces = [compose(1, "melody", 1.0), compose(2, "melody", 1.5)]
    sound = Sound("FluidR3_GM.sf2", (73, 73))
    first, second = sound.play(pieces, 0.0)
    assert (first.shape, second.shape) == ((2, SAMPLE_RATE), (2, round(1.5 * SAMPLE_RATE)))
    assert np.array_equal(first, sound.play(pieces[:1], 0.0)[0])
    alone = sound.play(pieces[1:], 0.0)[0]
    # Its vibrato runs on from piece to piece, so the waves are not the same.
    one, other = (mel_spectrogram(audio[:1], MINI)[0] for audio in (second, alone))
    loud = other > 0.01 * other.max()
    assert np.abs(20 * np.log10(one[loud] / other[loud])).mean() < 3


def test_what_is_held_out_is_drawn_by_no_training() -> None:
    drawn = [draw_sound(np.random.default_rng(seed), duo=True) for seed in range(400)]
    assert not {program for sound in drawn for program in sound.programs} & set(HELD_OUT_PROGRAMS)
    assert {sound.font for sound in drawn} == set(TRAINING_FONTS)
    assert HELD_OUT_FONT not in TRAINING_FONTS
    assert HELD_OUT_KIT not in {sound.kit for sound in drawn}
    assert HELD_OUT_VOICE not in {voice + variant for voice in VOICES for variant in VARIANTS}


def test_an_additive_instrument_plays_the_notes_where_they_are() -> None:
    """One note at a time, by the strongest partials under its pitch class's multiples; silence before the first."""
    notes = (Note(0.5, 0.4, 69, 100), Note(1.5, 0.4, 57, 100))
    piece = Piece("melody", notes, 2.5)
    heard = 0
    for seed in range(12):
        (audio,) = Additive(seed).play([piece], 0.0)
        assert audio.shape == (2, round(2.5 * SAMPLE_RATE))
        assert np.abs(audio).max() == pytest.approx(0.5)
        assert not audio[:, : round(0.5 * SAMPLE_RATE)].any()
        for note in notes:
            first = round(note.start * SAMPLE_RATE)
            spectrum = np.abs(np.fft.rfft(audio[0, first : first + SAMPLE_RATE // 2] * np.hanning(SAMPLE_RATE // 2)))
            pitch = 440 * 2 ** ((note.key - 69) / 12)
            # Bins of 2 Hz; the fundamental stands out of what lies a quarter tone and more beside it.
            at = round(pitch / 2)
            beside = np.r_[spectrum[at - 12 : at - 5], spectrum[at + 6 : at + 13]]
            heard += spectrum[at - 3 : at + 4].max() > 4 * beside.max()
    assert heard >= 20


def test_additive_instruments_are_seeded_and_unlike() -> None:
    pieces = [compose(3, "melody", 1.0), compose(4, "bass", 1.0)]
    one, again, other = (Additive(seed).play(pieces, 10.0) for seed in (1, 1, 2))
    assert [np.array_equal(*pair) for pair in zip(one, again, strict=True)] == [True, True]
    spectra = [np.abs(np.fft.rfft(audio[0][0])) for audio in (one, other)]
    assert np.corrcoef(*np.log(np.asarray(spectra) + 1e-3))[0, 1] < 0.95


def test_a_drawn_kit_is_struck_where_the_notes_are_and_as_loudly() -> None:
    notes = (Note(0.5, 0.1, 36, 100), Note(1.0, 0.1, 36, 60), Note(2.0, 0.1, 42, 100))
    piece = Piece("drums", notes, 3.0)
    for seed in range(12):
        (audio,) = Percussion(seed).play([piece], 0.0)
        assert audio.shape == (2, round(3.0 * SAMPLE_RATE))
        assert np.abs(audio).max() == pytest.approx(0.5)
        assert not audio[:, : round(0.5 * SAMPLE_RATE)].any()
        peaks = [np.abs(audio[0, (at := round(note.start * SAMPLE_RATE)) : at + 2205]).max() for note in notes]
        # A quarter of what separates the softest hit from the loudest, or more, but for what rings on.
        assert peaks[1] < 0.85 * peaks[0]
        assert peaks[2] > 0.05


def test_drawn_kits_are_seeded_and_unlike_and_their_drums_are_too() -> None:
    pieces = [Piece("drums", (Note(0.0, 0.1, key, 100),), 1.0) for key in (36, 42)]
    one, again, other = (Percussion(seed).play(pieces, 0.0) for seed in (1, 1, 2))
    assert [np.array_equal(*pair) for pair in zip(one, again, strict=True)] == [True, True]
    spectra = [np.log(np.abs(np.fft.rfft(audio[0])) + 1e-3) for audio in (*one, *other)]
    apart = np.corrcoef(spectra)
    assert apart[np.triu_indices(4, 1)].max() < 0.95
    # Of every kit a high drum sounds no lower than a low one.
    for seed in range(20):
        low, high = (_centre(audio[0]) for audio in Percussion(seed).play(pieces, 0.0))
        assert high > 0.7 * low


def _centre(audio: np.ndarray) -> float:
    """Mean frequency of the spectrum's power, in Hz."""
    power = np.abs(np.fft.rfft(audio)) ** 2
    return float((power * np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)).sum() / power.sum())


def test_effects_move_nothing_in_time() -> None:
    click = np.zeros((2, SAMPLE_RATE // 2), np.float32)
    click[:, SAMPLE_RATE // 4] = 0.5
    for seed in range(20):
        changed = with_effects(click, draw_effects(np.random.default_rng(seed)))
        assert changed.shape == click.shape
        assert np.isfinite(changed).all()
        before = np.abs(changed[:, : SAMPLE_RATE // 4 - 64]).max()
        assert before < 0.05 * np.abs(changed).max() + 1e-3


def test_a_texture_sounds_without_clipping() -> None:
    sound = texture(np.random.default_rng(1), 1.0)
    assert sound.shape == (2, SAMPLE_RATE)
    assert np.abs(sound).max() == pytest.approx(0.5)


def test_a_voice_speaks_for_as_long_as_asked() -> None:
    need_program("espeak-ng")
    said = speech(np.random.default_rng(0), 2.0)
    assert said.shape == (2, 2 * SAMPLE_RATE)
    assert np.array_equal(said, speech(np.random.default_rng(0), 2.0))
    quarters = np.square(said[0]).reshape(4, -1).mean(1)
    assert (quarters > 1e-5).all()
