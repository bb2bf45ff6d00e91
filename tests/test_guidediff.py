"""GuideDiff: its parts on known signals, its training on a few clips, its weights on what they have not heard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stylus_audio import guidediff
from stylus_audio.engine import Engine
from stylus_audio.errors import BadRequest
from stylus_audio.gains import Gains
from stylus_audio.guidediff import BINS, N_FFT, GuideDiff, envelope, guided, spectrum, waveform
from stylus_audio.phase import griffin_lim
from stylus_audio.places import MODELS
from stylus_audio.reference import picture_of
from stylus_audio.spectrogram import MINI, band_centres, mel_spectrogram, to_image
from stylus_audio.training.guidediff_evaluation import compare, measure, table, ways
from stylus_audio.training.run import Plan
from stylus_audio.training.train_guidediff import GuideDiffTrainer, whitening
from stylus_audio.training.waveforms import FULL, GROUP, SAMPLES, Waveforms, clip
from stylus_audio.vocoder import decoded, load
from stylus_audio.waveform_metrics import log_spectral_distance, multi_resolution_stft
from tests.programs import need_font
from tests.sounds import RATE, noise, plucks


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Waveforms:
    """Two groups of plucks and noise, in the place of synthesised music."""
    folder = tmp_path_factory.mktemp("waveforms")
    rng = np.random.default_rng(0)
    seconds = SAMPLES / RATE
    array = np.memmap(folder / "waveforms.bin", GROUP.base, "w+", shape=(2, *GROUP.shape))
    for group in array:
        for row in range(len(group)):
            sound = plucks(seconds, channels=1) if row % 2 else 0.1 * rng.standard_normal((1, SAMPLES))
            group[row] = clip(np.pad(sound, ((0, 0), (0, SAMPLES - sound.shape[1]))).astype(np.float32))
    array.flush()
    (folder / "index.json").write_text('{"groups": 2}')
    return Waveforms(folder)


def own_gains(audio: np.ndarray) -> Gains:
    """A clip's own picture: what comes back is to be the clip."""
    mel = picture_of(audio, RATE, MINI).mel
    return Gains(mel, mel, MINI)


def test_distances_have_their_known_values() -> None:
    truth = np.random.default_rng(0).standard_normal(20000)
    assert multi_resolution_stft(truth, truth) == 0 == log_spectral_distance(truth, truth)
    # Phase does not count, a factor does: its share of the norm, and its logarithm.
    assert multi_resolution_stft(-truth, truth) == pytest.approx(0, abs=1e-6)
    assert multi_resolution_stft(2 * truth, truth) == pytest.approx(1 + np.log(2), rel=1e-4)
    assert log_spectral_distance(2 * truth, truth) == pytest.approx(20 * np.log10(2), rel=1e-4)
    assert multi_resolution_stft(np.zeros(20000), truth) == pytest.approx(1 + np.log(1e4), rel=0.15)
    assert np.isnan(multi_resolution_stft(truth, np.zeros(20000)))
    # What lies 80 dB under the maximum is not heard.
    tone = np.sin(2 * np.pi * 1000 * np.arange(20000) / RATE)
    assert multi_resolution_stft(tone + 1e-7 * truth, tone) < 1e-3


def test_a_spectrum_becomes_the_waveform_again() -> None:
    audio = torch.randn(2, 50 * MINI.hop, generator=torch.Generator().manual_seed(0))
    made = spectrum(audio)
    assert made.shape == (2, 51, BINS)
    torch.testing.assert_close(waveform(made, audio.shape[1]), audio, rtol=0, atol=1e-5)


@pytest.mark.parametrize("number", [8, 41, 122, 303])
def test_a_bins_phase_advances_by_quarter_turns(number: int) -> None:
    tone = torch.cos(2 * np.pi * number / N_FFT * torch.arange(20 * MINI.hop))[None]
    frames = spectrum(tone)[0, 4:-4, number]
    turns = frames[1:] * frames[:-1].conj() / frames[:-1].abs() ** 2
    assert torch.allclose(turns, torch.full_like(turns, 1j**number), atol=1e-3)


def test_the_envelope_is_the_spectrums_size() -> None:
    """Noise of any colour has it within a decibel or two, also where bands are wider than bins; so has a tone."""
    rng = np.random.default_rng(0)
    flat = rng.standard_normal(2 * RATE)
    red = np.fft.irfft(np.fft.rfft(flat) / (1 + np.arange(RATE + 1) / 2000), 2 * RATE)
    measured = []
    for sound in (flat, red):
        audio = sound[None].astype(np.float32)
        expected = envelope(torch.from_numpy(mel_spectrogram(audio, MINI)))[0, 8:-8]
        power = spectrum(torch.from_numpy(audio))[0, 8:-8].abs().square()
        measured.append(10 * torch.log10(power.mean(0) / expected.square().mean(0))[4:800])
    # One constant for all colours and frequencies.
    assert torch.cat(measured).std() < 1.0
    assert abs(float(measured[0].mean() - measured[1].mean())) < 0.2
    tone = np.sin(2 * np.pi * 1234.5 * np.arange(RATE) / RATE)[None].astype(np.float32)
    expected = envelope(torch.from_numpy(mel_spectrogram(tone, MINI)))[0, 20]
    size = spectrum(torch.from_numpy(tone))[0, 20].abs()
    peak = int(size.argmax())
    assert abs(float(20 * torch.log10(size[peak] / expected[peak])) - float(measured[0].mean())) < 5


def test_the_guide_reads_the_picture_where_the_bin_is() -> None:
    picture = torch.zeros(1, MINI.bands, 3)
    picture[:, np.abs(band_centres(MINI) - 3000).argmin()] = 1.0
    rows = guided(picture)[0, :-1, :, 1].reshape(guidediff.POINTS, guidediff.TOGETHER, guidediff.ROWS)
    bins = rows.permute(2, 1, 0).flatten(0, 1)
    assert abs(int(bins.amax(1).argmax()) * MINI.sample_rate / N_FFT - 3000) <= MINI.sample_rate / N_FFT
    assert bins[:60].max() == bins[200:BINS].max() == -1


@pytest.mark.slow
def test_training_learns_and_exports_what_it_has(data: Waveforms, tmp_path: Path) -> None:
    trainer = GuideDiffTrainer(tmp_path / "run", data, Plan(batch=2), frames=24, widths=(16, 16))
    losses = [float(trainer.step()) for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:5])
    trainer.export(tmp_path / "out")
    again = load(tmp_path / "out")
    noisy, guide = torch.randn(1, 9, BINS, dtype=torch.complex64), torch.randn(1, 13, guidediff.ROWS, 9)
    time = torch.tensor([500])
    with torch.no_grad():
        torch.testing.assert_close(
            torch.view_as_real(again(noisy, guide, time)), torch.view_as_real(trainer.decoder()(noisy, guide, time)),
            rtol=0, atol=2e-2,
        )  # fmt: skip
    assert torch.equal(again.whitening, trainer.decoder().whitening.half().float())
    # A resumed run goes on where it was.
    trainer.checkpoint()
    resumed = GuideDiffTrainer(tmp_path / "run", data, Plan(batch=2), frames=24, widths=(16, 16))
    assert float(resumed.step()) == pytest.approx(float(trainer.step()), rel=1e-4)


@pytest.mark.parametrize("frames", [8, 601])
def test_windows_have_frames_that_count_and_are_no_longer_than_a_clip(
    data: Waveforms, tmp_path: Path, frames: int
) -> None:
    with pytest.raises(BadRequest, match=f"--frames: {frames} is not from 9 to the 600 of a clip"):
        GuideDiffTrainer(tmp_path / "run", data, Plan(batch=2), frames=frames, widths=(16, 16))


def test_whitening_brings_noise_to_one(data: Waveforms) -> None:
    measured = whitening(data, np.random.default_rng(0), windows=12)
    assert measured.shape == (BINS,)
    assert (20 * measured[8:700].log10()).std() < 3


def test_a_clip_is_kept_with_its_picture() -> None:
    audio = np.concatenate([plucks(SAMPLES / RATE, channels=2), np.zeros((2, 10))], axis=1)[:, :SAMPLES] + 0.1
    made = clip(audio.astype(np.float32))
    wave = made["audio"].astype(np.float32)[None] / FULL
    # What lies under the picture's range is taken out: it cannot be found again.
    assert abs(wave.mean()) < 1e-4
    seen = picture_of(wave, RATE, MINI)
    assert float(made["maximum"]) == pytest.approx(seen.maximum, rel=1e-3)
    own = to_image(seen.mel[0], MINI, seen.maximum)[:, : made["picture"].shape[1]]
    assert np.abs(own - made["picture"] / 255).mean() < 0.003


@pytest.mark.slow
@pytest.mark.parametrize("rate", [44100, 48000, 22050])
def test_a_picture_becomes_a_clip_of_the_contents_shape(rate: int) -> None:
    audio = np.concatenate([noise(0.7), noise(0.7, seed=1)])[:, : round(0.7 * rate)]
    gains = Gains(*(2 * (picture_of(audio, rate, MINI).mel,)), MINI)
    told: list[float] = []
    one = decoded(audio, rate, gains, iterations=2, seed=3, done=told.append)
    assert one.shape == audio.shape
    assert np.isfinite(one).all()
    assert told == [0.0, 0.5, 1.0]
    assert np.array_equal(one, decoded(audio, rate, gains, iterations=2, seed=3))
    assert not np.array_equal(one, decoded(audio, rate, gains, iterations=2, seed=4))
    assert 20 * np.log10(one.std() / audio.std()) == pytest.approx(0, abs=3)


def test_channels_keep_their_places() -> None:
    left = plucks(0.8, channels=1)
    audio = np.concatenate([left, 0.25 * left])
    made = decoded(audio, RATE, own_gains(audio), iterations=4)
    assert 20 * np.log10(made[0].std() / made[1].std()) == pytest.approx(20 * np.log10(4), abs=0.5)
    # From one noise, so that both have one phase: what is in the middle stays there.
    assert np.asarray(np.corrcoef(made))[0, 1] > 0.95


def test_a_silent_channel_stays_silent() -> None:
    audio = np.concatenate([plucks(0.8), np.zeros((1, round(0.8 * RATE)), np.float32)])
    made = decoded(audio, RATE, own_gains(audio), iterations=2)
    assert made[0].any()
    assert not made[1].any()


def test_gains_of_an_excerpt_may_reach_further_than_its_sound() -> None:
    audio = np.concatenate([noise(0.4), plucks(0.4)])
    gains, decoder = own_gains(audio.mean(0, keepdims=True)), GuideDiff((16, 16)).eval()
    longer = replace(gains, styled=np.pad(gains.styled, ((0, 0), (0, 0), (0, 2)), "edge"))
    made, other = (decoded(audio, RATE, one, iterations=0, decoder=decoder) for one in (gains, longer))
    assert np.array_equal(made, other)


def test_silence_stays_silence() -> None:
    silent = np.zeros((2, 9000), np.float32)
    assert not decoded(silent, RATE, own_gains(silent)).any()


@pytest.mark.slow
def test_blocks_of_a_long_clip_meet_without_a_step() -> None:
    audio = noise(12.0)
    made = decoded(audio, RATE, own_gains(audio), iterations=0)
    power = np.square(made[0]).reshape(-1, RATE // 10).mean(1)
    # Between 10 and 11 seconds two blocks are crossfaded.
    assert abs(10 * np.log10(power[98:113].mean() / power[60:90].mean())) < 1.5


@pytest.mark.slow
def test_the_embedded_weights_beat_griffin_lim_on_what_they_have_not_heard() -> None:
    need_font("TimGM6mb.sf2")
    found = {name: way for name, way in ways(load()).items() if name.endswith("32 iterations")}
    rows = [row for name in ("0-21", "1-66", "2-drums") for row in measure(name, found)]
    theirs, ours = ([float(row["mr_stft"]) for row in rows if str(row["way"]).startswith(way)] for way in ("Gr", "Gu"))
    assert len(ours) == len(theirs) == 3
    assert np.mean(ours) < np.mean(theirs)
    assert "| GuideDiff, 32 iterations | 3 |" in table(rows)


def test_the_weights_are_small() -> None:
    assert sum(file.stat().st_size for file in (MODELS / "guidediff").iterdir()) < 25e6


@pytest.mark.slow
def test_scores_are_kept_and_not_made_again(tmp_path: Path) -> None:
    need_font("TimGM6mb.sf2")
    first = compare(load(), 1, tmp_path)
    lines = (tmp_path / "scores.jsonl").read_text("utf-8")
    assert compare(load(), 1, tmp_path) == first
    assert (tmp_path / "scores.jsonl").read_text("utf-8") == lines


@pytest.mark.slow
def test_a_render_decodes_without_the_contents_phase(tmp_path: Path) -> None:
    clip = plucks(1.2, channels=2)
    engine = Engine("mini", "cpu")
    seen: list[tuple[float, str]] = []
    settings = engine.settings(reconstruction="guidediff", refine=4)
    render = engine.render((clip, RATE), (noise(1.0), RATE), settings, lambda *said: seen.append(said))
    assert render.audio.shape == clip.shape
    fractions = [fraction for fraction, stage in seen if stage == "reconstruction"]
    assert len(fractions) > 2
    assert fractions == sorted(fractions)
    own = engine.render((clip, RATE), (noise(1.0), RATE), engine.settings())
    assert abs(np.asarray(np.corrcoef(render.audio[0], own.audio[0]))[0, 1]) < 0.5


def test_other_models_pictures_are_refused(tiny: Engine) -> None:
    settings = tiny.settings(reconstruction="guidediff")
    with pytest.raises(BadRequest, match="guidediff decodes mini's pictures"):
        tiny.check((noise(0.5), RATE), (noise(0.5), RATE), settings)


def test_an_untrained_decoder_changes_nothing_about_the_noise() -> None:
    """Its velocity is zero, so that every step only takes the noise down."""
    noisy = torch.randn(1, 6, BINS, dtype=torch.complex64)
    found = GuideDiff()(noisy, torch.zeros(1, 13, guidediff.ROWS, 6), torch.tensor([10]))
    assert found.shape == noisy.shape
    assert not found.abs().any()


def test_griffin_lim_and_guidediff_are_measured_alike() -> None:
    audio = plucks(0.8, channels=1)
    gains = own_gains(audio)
    made = griffin_lim(audio, RATE, gains, 32)
    assert multi_resolution_stft(made[0], audio[0]) < multi_resolution_stft(noise(0.8)[0][: audio.shape[1]], audio[0])
