"""Metrics: known answers, independent references, and what must not change them."""

from __future__ import annotations

import json
import math
from typing import Any

import librosa
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from stylus_audio.errors import UnsupportedAudio
from stylus_audio.metrics import (
    ONSET_TOLERANCE,
    Timbre,
    chroma,
    chroma_similarity,
    evaluate,
    log_mel_distance,
    onset_f1,
    seam_step,
    si_sdr,
    timbre_distance,
)
from stylus_audio.reference import Picture
from stylus_audio.spectrogram import MINI, silent_frames

Floats = NDArray[np.floating[Any]]

RATE = 44100
MELODY = (57, 64, 60, 67)


def notes(keys: tuple[int, ...], partials: tuple[float, ...], sample_rate: int = RATE, length: float = 0.4) -> Floats:
    """Plucked MIDI keys one after the other with these amplitudes of partials, `[2, sample]`."""
    time = np.arange(round(length * sample_rate)) / sample_rate
    played = [
        sum(a * np.sin(2 * np.pi * 440 * 2 ** ((key - 69) / 12) * n * time) for n, a in enumerate(partials, 1))
        * np.exp(-time / 0.15)
        for key in keys
    ]
    return 0.2 * np.tile(np.concatenate([np.zeros_like(time), *played]).astype(np.float32), (2, 1))


def picture(mel: Floats) -> Picture:
    """A picture of a mel `[mel, frame]`."""
    values = np.asarray(mel, np.float32)[None]
    maximum = float(values.max())
    return Picture(values, maximum, silent_frames(values, maximum), MINI)


FLUTE, REED = (1.0, 0.1), (0.6, 0.4, 0.2, 0.3, 0.1, 0.2)
CONTENT = notes(MELODY, FLUTE)


def test_a_clip_is_like_itself() -> None:
    values = evaluate(CONTENT, CONTENT, CONTENT, sample_rate=RATE, seams=[1.0])
    assert values["chroma_similarity"] == pytest.approx(1.0, abs=1e-6)
    assert values["onset_f1"] == 1.0
    assert values["log_mel_distance_content"] == values["log_mel_distance_style"] == 0.0
    assert values["log_mel_distance_content_style"] == 0.0
    assert values["si_sdr_db"] == 200.0
    assert values["seam_step_db"] == 0.0
    assert values["loudness_change_lu"] == 0.0


def test_level_counts_as_level_only() -> None:
    plain = evaluate(notes(MELODY, REED), CONTENT, CONTENT, sample_rate=RATE)
    quiet = evaluate(notes(MELODY, REED) / 4, CONTENT, CONTENT, sample_rate=RATE)
    levels = {"peak_db", "true_peak_db", "loudness_lufs", "loudness_change_lu"}
    for name, value in plain.items():
        expected = None if value is None else pytest.approx(value - 12.0412 * (name in levels), abs=1e-3)
        assert quiet[name] == expected, name


def test_what_has_no_value_is_none_and_the_rest_is_json() -> None:
    silence = np.zeros_like(CONTENT)
    for output, content, style in (
        (silence, CONTENT, CONTENT), (CONTENT, silence, silence), (CONTENT, CONTENT[:, :1], None),
    ):  # fmt: skip
        json.dumps(evaluate(output, content, style, sample_rate=RATE, seams=[0.01, 1.0]), allow_nan=False)
    values = evaluate(silence, CONTENT, sample_rate=RATE)
    assert values["chroma_similarity"] == values["onset_f1"] == 0.0
    assert values["peak_db"] is values["loudness_lufs"] is values["log_mel_distance_style"] is None
    assert values["seam_step_db"] is None


def test_restyled_notes_keep_their_chroma_and_onsets_and_come_nearer_to_the_style() -> None:
    style = notes(MELODY[::-1], REED)
    values = evaluate(notes(MELODY, REED), CONTENT, style, sample_rate=RATE)
    assert values["chroma_similarity"] is not None
    assert values["chroma_similarity"] > 0.9
    assert values["onset_f1"] == 1.0
    assert values["log_mel_distance_style"] is not None
    assert values["log_mel_distance_content_style"] is not None
    assert values["log_mel_distance_style"] < 0.5 * values["log_mel_distance_content_style"]


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_other_notes_do_not_keep_it(steps: int) -> None:
    moved = notes(tuple(key + steps for key in MELODY), FLUTE)
    assert chroma_similarity(chroma(moved), chroma(CONTENT)) < (0.5 if steps == 1 else 0.2)


@pytest.mark.slow
def test_chroma_is_librosas() -> None:
    expected = librosa.feature.chroma_stft(
        y=CONTENT[0], sr=RATE, n_fft=8192, hop_length=2048, pad_mode="constant", norm=None, tuning=0.0
    )
    ours = chroma(CONTENT[:1])
    assert np.abs(ours - (expected - expected.min(0))).max() < 1e-3 * expected.max()


def test_an_octave_is_the_same_chroma() -> None:
    moved = notes(tuple(key + 12 for key in MELODY), FLUTE)
    assert chroma_similarity(chroma(moved), chroma(CONTENT)) > 0.95


def test_chroma_does_not_depend_on_the_blocks() -> None:
    whole = chroma(CONTENT)
    # Processors multiply blocks of other sizes in another order: the last bits of single precision differ.
    assert (np.abs(chroma(CONTENT, 7) - whole) <= 1e-4 * whole + 1e-6 * whole.max(0)).all()


def test_channels_out_of_phase_do_not_cancel() -> None:
    turned = CONTENT * np.array([[1], [-1]], np.float32)
    values = evaluate(turned, CONTENT, sample_rate=RATE)
    assert values["chroma_similarity"] == pytest.approx(1.0, abs=1e-6)
    assert values["onset_f1"] == 1.0
    assert values["log_mel_distance_content"] == 0.0
    assert values["si_sdr_db"] == -200.0


def test_other_rates_channels_and_lengths_are_compared() -> None:
    tail = np.zeros((1, 24000), np.float32)
    output = np.concatenate([notes(MELODY, FLUTE, 48000)[:1], tail], axis=1)
    values = evaluate(output, CONTENT, CONTENT, sample_rate=48000, content_rate=RATE, style_rate=RATE)
    assert values["chroma_similarity"] == pytest.approx(1.0, abs=1e-3)
    assert values["onset_f1"] == 1.0
    assert values["log_mel_distance_content"] == pytest.approx(0.0, abs=0.03)
    assert values["log_mel_distance_style"] == pytest.approx(0.0, abs=0.03)
    assert values["si_sdr_db"] is None


def test_log_mel_distance_by_hand() -> None:
    flat, tilted = np.ones((4, 3)), np.array([[10.0], [10.0], [1.0], [1.0]]).repeat(3, 1)
    # Both at mean power 1: ten is 1.4072, one is 0.14072, against four ones that are 0.5 each.
    level = math.sqrt(202.0)
    expected = math.sqrt(((math.log10(20 / level)) ** 2 + (math.log10(2 / level)) ** 2) / 2)
    assert log_mel_distance(picture(tilted), picture(flat)) == pytest.approx(expected, abs=1e-6)
    assert timbre_distance(picture(tilted), picture(flat)) == pytest.approx(expected, abs=1e-6)


def test_what_lies_under_the_range_is_no_difference() -> None:
    mel = np.array([[1.0, 1.0], [1e-5, 1e-9]])
    other = np.array([[1.0, 1.0], [1e-7, 9e-5]])
    assert log_mel_distance(picture(other), picture(mel)) == pytest.approx(0.0, abs=1e-6)


def test_timbre_does_not_depend_on_order_or_silence() -> None:
    mel = np.random.default_rng(0).uniform(0.1, 1, (16, 40))
    turned = np.concatenate([mel[:, ::-1], np.zeros((16, 30))], axis=1)
    assert timbre_distance(picture(turned), picture(mel)) == pytest.approx(0.0, abs=1e-6)
    assert math.isnan(timbre_distance(picture(mel), picture(np.zeros((16, 3)))))


@pytest.mark.parametrize("level", [1.0, 0.0])
def test_a_style_that_is_looked_at_once_measures_the_same(level: float) -> None:
    style = level * notes(MELODY[::-1], REED, 48000)
    expected = evaluate(notes(MELODY, REED), CONTENT, style, sample_rate=RATE, style_rate=48000)
    assert evaluate(notes(MELODY, REED), CONTENT, Timbre.heard(style, 48000), sample_rate=RATE) == expected
    assert (expected["log_mel_distance_style"] is None) == (level == 0.0)
    with pytest.raises(UnsupportedAudio, match="the style"):
        Timbre.heard(style[:, :0], 48000)


def test_a_filter_is_measured_in_decades() -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, (1, 2 * RATE))
    dull = sosfilt(butter(1, 2000, fs=RATE, output="sos"), noise)
    brighter = sosfilt(butter(1, 4000, fs=RATE, output="sos"), noise)
    far = evaluate(dull, noise, noise, sample_rate=RATE)["log_mel_distance_style"]
    near = evaluate(brighter, noise, noise, sample_rate=RATE)["log_mel_distance_style"]
    assert far is not None
    assert near is not None
    assert 0.05 < near < far < 0.5


def test_onsets_match_one_to_one_as_many_as_can() -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        ours, theirs = rng.uniform(0, 1, rng.integers(1, 13)), rng.uniform(0, 1, rng.integers(1, 13))
        near = np.abs(np.subtract.outer(ours, theirs)) <= ONSET_TOLERANCE
        matched = int((maximum_bipartite_matching(csr_array(near)) >= 0).sum())
        assert onset_f1(ours, theirs) == pytest.approx(2 * matched / (len(ours) + len(theirs)))


def test_no_onsets_anywhere_is_no_value() -> None:
    assert onset_f1([], [0.5]) == onset_f1([0.5], []) == 0.0
    assert math.isnan(onset_f1([], []))


def test_si_sdr_of_orthogonal_noise() -> None:
    rng = np.random.default_rng(2)
    content = rng.normal(size=(2, 1000))
    noise = rng.normal(size=(2, 1000))
    content, noise = (one - one.mean(1, keepdims=True) for one in (content, noise))
    noise -= (noise * content).sum() / (content**2).sum() * content
    noise *= np.linalg.norm(content) / np.linalg.norm(noise) / 10
    assert si_sdr(content + noise, content) == pytest.approx(20.0, abs=1e-9)
    assert si_sdr(-3 * (content + noise), content) == pytest.approx(20.0, abs=1e-9)
    assert -200.0 <= si_sdr(noise, content) < -100.0
    assert math.isnan(si_sdr(content, content * 0))
    assert math.isnan(si_sdr(content[:, :0], content[:, :0]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("level", [0.1, 1 / 3, 0.7, -0.123])
@pytest.mark.parametrize("samples", [1000, 44101, 300_007])
def test_si_sdr_of_dc_alone_is_that_of_silence(dtype: type, level: float, samples: int) -> None:
    content = np.ones((2, samples), dtype) * dtype(level)
    assert math.isnan(si_sdr(content, content))


def test_dc_is_no_distortion() -> None:
    rng = np.random.default_rng(2)
    content, noise = (rng.normal(0, level, (2, 300_000)) for level in (0.1, 0.01))
    clean = si_sdr(content + noise, content)
    offset = np.array([[0.2], [-0.05]])
    assert si_sdr(content + noise + offset, content) == pytest.approx(clean, abs=1e-6)
    assert si_sdr(content + noise, content + offset) == pytest.approx(clean, abs=1e-6)
    # Of nothing but DC there is nothing to keep.
    assert math.isnan(si_sdr(content, np.full_like(content, 0.3, np.float32)))


def test_seam_step_is_the_dip_at_the_seam() -> None:
    time = np.arange(6 * RATE) / RATE
    tone = np.sin(2 * np.pi * 500 * time)[None]
    assert seam_step(tone, RATE, [2.0, 4.0]) == pytest.approx(0.0, abs=1e-3)
    tone[:, (time > 3.95) & (time < 4.05)] *= 10 ** (-1.5 / 20)
    assert seam_step(tone, RATE, [2.0, 4.0]) == pytest.approx(1.5, abs=1e-3)
    assert seam_step(tone, RATE, [2.0, 4.2]) == pytest.approx(0.0, abs=1e-3)


def test_seam_step_of_noise_is_small() -> None:
    noise = np.random.default_rng(3).normal(0, 0.1, (2, 6 * RATE))
    assert seam_step(noise, RATE, [2.0, 4.0]) < 0.5


def test_the_contents_own_steps_are_taken_off() -> None:
    time = np.arange(4 * RATE) / RATE
    content = (np.sin(2 * np.pi * 500 * time) * np.where(time > 1.9, 1.0, 0.1))[None]
    assert seam_step(content, RATE, [2.0]) > 2.0
    output = content.copy()
    output[:, abs(time - 2.0) < 0.03] *= 10 ** (0.7 / 20)
    assert seam_step(output, RATE, [2.0], content) == pytest.approx(0.7, abs=1e-3)


def test_a_seam_outside_the_clip_is_none() -> None:
    assert math.isnan(seam_step(CONTENT, RATE, [0.0, 99.0]))


def test_levels() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 997 * np.arange(RATE) / RATE)[None].astype(np.float32)
    values = evaluate(tone, tone * 10 ** (-5 / 20), sample_rate=RATE)
    assert values["peak_db"] == pytest.approx(-6.02, abs=0.01)
    assert values["true_peak_db"] == pytest.approx(-6.02, abs=0.05)
    assert values["loudness_lufs"] == pytest.approx(-9.03, abs=0.01)
    assert values["loudness_change_lu"] == pytest.approx(5.0, abs=1e-3)


@pytest.mark.parametrize(
    ("audio", "rate", "says"),
    [
        (np.zeros(100), RATE, r"\[channel, sample\]"),
        (np.zeros((2, 0)), RATE, "at least one sample"),
        (np.zeros((33, 10)), RATE, "1 to 32 channels"),
        (np.zeros((1, 10)), 4000, "8000 to 384000 Hz"),
        (np.array([[0.0, np.nan]]), RATE, "not finite"),
    ],
)
def test_what_cannot_be_measured_is_named(audio: Floats, rate: int, says: str) -> None:
    with pytest.raises(UnsupportedAudio, match=f"the stem.*{says}"):
        evaluate(audio, CONTENT, sample_rate=rate, content_rate=RATE)
    with pytest.raises(UnsupportedAudio, match="the style"):
        evaluate(CONTENT, CONTENT, audio, sample_rate=RATE, style_rate=rate)
