"""Train the embedded model: `python -m stylus_audio.training.train --data DIR --run DIR --minutes 45`.

Stopped at any moment it goes on from its last checkpoint, also on another machine and device. `--export DIR` writes
what there is as the model folder that `stylus` loads, with its card.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..attention import decoder_layers
from ..errors import StylusError
from ..latent import Patchify
from ..spectrogram import MINI
from .architecture import CONTEXT, FACTOR, build_scheduler, build_unet
from .dataset import Pictures

BATCH = 8
RATE = 4e-4
WARM_UP = 200
EMA = 0.999
CHECKPOINT_SECONDS = 120.0


@dataclass
class Progress:
    """What a run has behind it."""

    step: int = 0
    seconds: float = 0.0
    loss: float = 1.0
    """Of the last steps, smoothed."""
    shift: float = 0.0
    scale: float = 1.0


class Trainer:
    """One training run in a folder: network, its average, optimiser, and the count of what is done.

    Every step draws its batch and noise from the seed and its own number, so a resumed run sees what it would have
    seen. `build` makes the network.
    """

    def __init__(
        self,
        run: Path,
        data: Pictures,
        device: str = "cpu",
        seed: int = 0,
        batch: int = BATCH,
        build: Callable[[], Any] = build_unet,
    ) -> None:
        self.run, self.data, self.seed, self.batch = run, data, seed, batch
        self.device = torch.device(device)
        torch.manual_seed(seed)
        self.unet = build().to(self.device, memory_format=torch.channels_last)
        self.ema = {name: value.detach().clone() for name, value in self.unet.state_dict().items()}
        self.optimiser = torch.optim.AdamW(self.unet.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)
        self.scheduler = build_scheduler()
        self.progress = Progress()
        self.context = torch.zeros(1, 1, CONTEXT, device=self.device)
        if (run / "progress.json").is_file():
            self._resume()
        else:
            pictures = data.batch(np.random.default_rng([seed, 0]), 256)
            self.progress.shift, self.progress.scale = float(pictures.mean()), float(pictures.std())
        self.codec = Patchify(FACTOR, self.progress.shift, self.progress.scale)

    def step(self) -> float:
        """One optimiser step; the loss of v-prediction over uniform times (Salimans and Ho, 2022)."""
        number = self.progress.step + 1
        rng = np.random.default_rng([self.seed, number])
        clean = self.codec.encode(torch.from_numpy(self.data.batch(rng, self.batch))).to(self.device)
        noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32)).to(self.device)
        # One time from each of `batch` equal parts: uniform still, with less variance (Kingma et al., 2021).
        times = (np.arange(self.batch) + rng.random(self.batch)) * 1000 / self.batch
        labels = torch.from_numpy(times.astype(np.int64)).to(self.device)
        noisy = self.scheduler.add_noise(clean, noise, labels)
        target = self.scheduler.get_velocity(clean, noise, labels)
        for group in self.optimiser.param_groups:
            group["lr"] = RATE * min(1.0, number / WARM_UP) / (1 + number / 20_000) ** 0.5
        with torch.autocast(self.device.type, torch.bfloat16):
            output = self.unet(
                noisy.contiguous(memory_format=torch.channels_last), labels,
                encoder_hidden_states=self.context.expand(self.batch, -1, -1),
            ).sample  # fmt: skip
        loss = F.mse_loss(output.float(), target)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimiser.step()
        self._average(min(EMA, number / (number + 10)))
        self.progress.step = number
        value = float(loss.detach())
        self.progress.loss += (value - self.progress.loss) * max(0.01, 1 / number)
        return value

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        for name, value in self.unet.state_dict().items():
            self.ema[name].lerp_(value.to(self.ema[name].dtype), 1 - decay)

    def train(self, minutes: float) -> None:
        """Train for so long, with a line every 20 seconds and a checkpoint every two minutes."""
        begun = said = kept = time.monotonic()
        already, first = self.progress.seconds, self.progress.step
        while (now := time.monotonic()) - begun < minutes * 60:
            self.step()
            self.progress.seconds = already + now - begun
            if now - said > 20:
                said = now
                rate = (self.progress.step - first) * self.batch / (now - begun)
                print(f"step {self.progress.step}  loss {self.progress.loss:.4f}  {rate:.1f} examples/s", flush=True)
            if now - kept > CHECKPOINT_SECONDS:
                kept = now
                self.checkpoint()
                self.data.refresh()
        self.checkpoint()

    def checkpoint(self) -> None:
        """Write everything under temporary names, then let one rename of `progress.json` make it count."""
        self.run.mkdir(parents=True, exist_ok=True)
        turn = f"checkpoint-{self.progress.step}"
        folder = self.run / turn
        folder.mkdir(exist_ok=True)
        save_file(
            {name: value.contiguous() for name, value in self.unet.state_dict().items()}, folder / "unet.safetensors"
        )
        save_file({name: value.contiguous() for name, value in self.ema.items()}, folder / "ema.safetensors")
        state = self.optimiser.state_dict()["state"]
        flat = {f"{key}.{name}": value.contiguous() for key, item in state.items() for name, value in item.items()}
        save_file(flat, folder / "optimiser.safetensors")
        part = self.run / "progress.part"
        part.write_text(json.dumps({"checkpoint": turn, **asdict(self.progress)}), "utf-8")
        part.replace(self.run / "progress.json")
        for old in self.run.glob("checkpoint-*"):
            if old.name != turn:
                shutil.rmtree(old)

    def _resume(self) -> None:
        values = json.loads((self.run / "progress.json").read_text("utf-8"))
        folder = self.run / values.pop("checkpoint")
        self.progress = Progress(**values)
        self.unet.load_state_dict(load_file(folder / "unet.safetensors"))
        self.ema = {name: value.to(self.device) for name, value in load_file(folder / "ema.safetensors").items()}
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in load_file(folder / "optimiser.safetensors").items():
            number, name = key.split(".", 1)
            state.setdefault(int(number), {})[name] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})

    def export(self, folder: Path) -> None:
        """The averaged weights in half precision, as a diffusers folder with `stylus.json` and the model card."""
        unet = copy.deepcopy(self.unet).cpu()
        unet.load_state_dict(self.ema)
        folder.mkdir(parents=True, exist_ok=True)
        unet.half().save_pretrained(folder / "unet", safe_serialization=True)
        self.scheduler.save_pretrained(folder / "scheduler")
        about = {
            "format": 1,
            "name": "mini",
            "profile": MINI.to_dict(),
            "latent": {
                "kind": "patchify", "factor": FACTOR, "shift": self.progress.shift, "scale": self.progress.scale,
            },
            "layers": sorted(decoder_layers(unet)),
            "steps": {"fast": 16, "balanced": 20, "best": 50},
            "style_windows": 3,
            # Labelled with the next time, the inversion of a lightly trained network does not come back to the clip.
            "settings": {"inversion": "current"},
        }  # fmt: skip
        (folder / "stylus.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
        parameters = sum(value.numel() for value in unet.parameters())
        (folder / "MODEL_CARD.md").write_text(
            _card(self.progress, parameters, len(self.data.pictures), self.batch, self._hardware()), "utf-8"
        )

    def _hardware(self) -> str:
        cuda = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if cuda else f"the CPU, threads: {torch.get_num_threads()}"


def _card(progress: Progress, parameters: int, clips: int, batch: int, hardware: str) -> str:
    return f"""# mini, first version

The embedded model of Stylus Audio: a small unconditional diffusion model of log-mel pictures, 512 bands from 20 Hz to
20 kHz by 256 frames of 10 ms, on an exact patchify of 8 × 8. {parameters / 1e6:.1f} million parameters, v-prediction.

It is a first model, there so that the whole pipeline runs at once and without a download. It is small, trained briefly
and knows nothing of the content but its inverted noise. Expect it to move timbre and spectrum towards the reference
(much of that by the statistics of the first latent), not to play the reference's instrument. Whether it is better than
a match-EQ has not been shown.

- Data: {clips} clips of 8 s, composed and synthesised by `stylus_audio.training.dataset` (FluidSynth; soundfont Fluid
  R3 GM by Frank Wen, MIT licence) on General MIDI programs 0–119 and four drum kits, 8% of them noise textures.
- Training: {progress.step} steps of {batch} windows ({progress.step * batch} examples) in {progress.seconds / 60:.0f}
  minutes on {hardware}, AdamW, averaged weights (EMA {EMA}). Smoothed loss at the end: {progress.loss:.4f}.
- Commands: `python -m stylus_audio.training.dataset --out DATA --clips {clips}` and
  `python -m stylus_audio.training.train --data DATA --run RUN --minutes {progress.seconds / 60:.0f} --export FOLDER`.
- Licence: MIT, as the project.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the embedded model, or go on with it.")
    parser.add_argument("--data", type=Path, required=True, help="what stylus_audio.training.dataset made")
    parser.add_argument("--run", type=Path, required=True, help="where checkpoints lie")
    parser.add_argument("--minutes", type=float, default=45.0, help="how long to train now; 0 only exports")
    parser.add_argument("--export", type=Path, help="where to write the model folder at the end")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=BATCH)
    asked = parser.parse_args()
    try:
        trainer = Trainer(asked.run, Pictures(asked.data), asked.device, asked.seed, asked.batch)
    except StylusError as error:
        parser.exit(error.exit_code, f"{error}\n")
    if asked.minutes > 0:
        trainer.train(asked.minutes)
    if asked.export:
        trainer.export(asked.export)
