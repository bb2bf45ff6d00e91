"""Train GuideDiff: `python -m stylus_audio.training.train_guidediff --data DIR --run DIR --minutes 60 --export DIR`.

Stopped at any moment it goes on from its last checkpoint, also on another machine and device.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import BadRequest, StylusError
from ..guidediff import BINS, GuideDiff, envelope, guided, limited, scheduler, spectrum, waveform
from ..spectrogram import MINI
from .dataset import FRAMES as CLIP_FRAMES
from .guidediff_evaluation import compare
from .run import Batch, Plan, Progress, Run, sent
from .waveforms import Waveforms

FRAMES = 72
WIDTHS = (32, 48, 80)
VALIDATION_PAIRS = 6
EDGE = 4
"""Frames at both ends of a window whose STFT misses what was cut away: not counted."""

SHOWN_DB = 45.0
"""The whitening is measured down to so far under the loudest."""

HEARD_WEIGHT = 0.3
HEARD = ((512, 128), (2048, 512))
"""FFT size and hop of the magnitudes that the found waveform is also judged by."""


class GuideDiffTrainer(Run[Progress]):
    """A training run of the decoder."""

    def __init__(
        self,
        run: Path,
        data: Waveforms,
        plan: Plan | None = None,
        frames: int = FRAMES,
        widths: tuple[int, ...] = WIDTHS,
    ) -> None:
        super().__init__(run, lambda: nn.ModuleDict({"decoder": GuideDiff(widths)}), Progress(), plan or Plan())
        if not 2 * EDGE < frames <= CLIP_FRAMES:
            raise BadRequest(f"--frames: {frames} is not from {2 * EDGE + 1} to the {CLIP_FRAMES} of a clip")
        self.data, self.frames = data, frames
        self.noise = scheduler()
        if not self.resumed:
            decoder: Any = self.networks["decoder"]
            decoder.whitening.copy_(whitening(data, np.random.default_rng([self.plan.seed, 0])))
            self.ema = self._copied()

    def refresh(self) -> None:
        """Take in clips that have been added since."""
        self.data.refresh()

    def batch(self, rng: np.random.Generator) -> Batch:
        """Audio, pictures and their maxima, times and white noise."""
        audio, picture, maximum = self.data.batch(rng, self.plan.batch, self.frames)
        # Through its quantiles every batch has all times: less noise in the loss than drawing each.
        places = (torch.arange(len(audio)) + float(rng.random())) / len(audio)
        times = (places * self.noise.config.num_train_timesteps).long().numpy()
        white = rng.standard_normal(audio.shape, np.float32)
        return tuple(sent(part, self.device) for part in (audio, picture, maximum, times, white))

    def loss(self, batch: Batch) -> Tensor:
        """Squared error of the whitened velocity, and how far the found waveform's magnitudes are off."""
        decoder: Any = self.networks["decoder"]
        audio, picture, maximum, times, white = batch
        expected = envelope(_mel(picture, maximum)) * decoder.whitening
        noise = decoder.shaped(white, expected)
        noisy = self.noise.add_noise(audio, noise, times)
        velocity = limited(spectrum(self.noise.get_velocity(audio, noise, times)) / expected)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            found = decoder(spectrum(noisy) / expected, guided(picture), times)
        inner = slice(EDGE, -EDGE)
        error = torch.view_as_real(found[:, inner] - velocity[:, inner]).square().mean()
        kept = self.noise.alphas_cumprod.to(self.device)[times][:, None]
        heard = kept.sqrt() * noisy - (1 - kept).sqrt() * waveform(found * expected, audio.shape[-1])
        return error + HEARD_WEIGHT * _heard(heard, audio)

    def validate(self) -> None:
        """Print the distances on a few held-out sounds."""
        print(compare(self.decoder(), VALIDATION_PAIRS), flush=True)

    def decoder(self) -> GuideDiff:
        """With the averaged weights, on the CPU."""
        decoder: GuideDiff = self.averaged()["decoder"]  # type: ignore[assignment]
        return decoder

    def export(self, folder: Path) -> None:
        """The averaged weights in half precision, with what the card says of the training."""
        self.decoder().half().save_pretrained(folder, safe_serialization=True)
        training = {"groups": len(self.data.clips), **self.facts()}
        (folder / "training.json").write_text(json.dumps(training, indent=1) + "\n", "utf-8")


def _mel(picture: Tensor, maximum: Tensor) -> Tensor:
    return 10 ** ((picture - 1) * (MINI.range_db / 20)) * maximum[:, None, None]


def whitening(data: Waveforms, rng: np.random.Generator, windows: int = 96) -> Tensor:
    """How much larger the spectra are than the picture's envelope, `[bin]`: the root of the median ratio of powers.

    Of places that the picture shows: where it is black, what lies under it can be anything. Noise has its median at
    ln 2 of its mean.
    """
    audio, picture, maximum = (torch.from_numpy(part) for part in data.batch(rng, windows, FRAMES))
    expected = envelope(_mel(picture, maximum))
    shown = expected > 10 ** (-SHOWN_DB / 20) * expected.amax((1, 2), keepdim=True)
    ratio = torch.where(shown, (spectrum(audio).abs() / expected).square(), torch.nan)
    inner = ratio[:, EDGE:-EDGE].reshape(-1, BINS)
    measured = (inner.nanmedian(0).values.nan_to_num(1.0) / math.log(2)).sqrt()
    measured[0] = measured[1]
    return measured


def _heard(output: Tensor, truth: Tensor) -> Tensor:
    """Spectral convergence and log magnitude (Yamamoto et al., arXiv 1910.11480) of `[window, sample]`."""
    total = output.new_zeros(())
    for size, hop in HEARD:
        window = torch.hann_window(size, device=output.device)
        made, true = (
            torch.stft(signal, size, hop, window=window, pad_mode="constant", return_complex=True).abs()
            for signal in (output, truth)
        )
        floor = (true.amax((1, 2), keepdim=True) * 1e-4).clamp_min(1e-9)
        convergence = (made - true).norm(dim=(1, 2)) / true.norm(dim=(1, 2)).clamp_min(1e-3)
        logs = (made.maximum(floor).log() - true.maximum(floor).log()).abs().mean()
        total = total + convergence.mean() + logs
    return total / len(HEARD)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train GuideDiff, the decoder from pictures to sound, or go on.")
    parser.add_argument("--data", type=Path, required=True, help="what stylus_audio.training.waveforms made")
    parser.add_argument("--export", type=Path, help="where to write the weights at the end")
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS, help="channels at each halving")
    Plan.options(parser)
    asked = parser.parse_args()
    try:
        data = Waveforms(asked.data)
        trainer = GuideDiffTrainer(asked.run, data, Plan.asked(asked), asked.frames, tuple(asked.widths))
        trainer.carry_out(asked, trainer.export)
    except StylusError as error:
        parser.exit(error.exit_code, f"{error}\n")
