"""Train the embedded model: `python -m stylus_audio.training.train --data DIR --run DIR --minutes 45`.

Stopped at any moment it goes on from its last checkpoint, also on another machine and device. `--export DIR` writes
what there is as the model folder that `stylus` loads. `--objective regression` trains what it is compared with.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..engine import Engine
from ..errors import NotFound, StylusError
from ..latent import Patchify
from ..model import choose_dtype
from ..spectrogram import MINI
from .architecture import FACTOR, build_scheduler
from .dataset import Pictures
from .evaluation import read, run, systems, table
from .heldout import names
from .muon import Muon
from .objective import REFINING_FROM, Diffusion, Latents, Objective, Regression

BATCH = 8
FRAMES = 128
"""Half a window of the model's: twice the music for the time; the network takes any number of frames."""
RATE = 2e-3
WARM_UP = 50
SLOW_DOWN = 1_000
"""Steps after which the rate begins to fall with the root of their number."""
EMA = 0.998
CHECKPOINT_SECONDS = 180.0
VALIDATION_PAIRS = 4

METHODS: dict[str, object] = {
    "conditional": {
        "steps": {"fast": 4, "balanced": 8, "best": 16},
        "settings": {"gamma": 0.0, "alpha": 1.0, "layers": "3-4,6-7"},
    },
    "injection": {
        "steps": {"fast": 16, "balanced": 20, "best": 50},
        # Labelled with the next time, the inversion of a small network does not come back to the clip.
        "settings": {"inversion": "current", "layers": "3-4,6-7"},
    },
}
"""How the exported model wants to be run; the first is its default."""

AT_ONCE: dict[str, object] = {
    "conditional": {
        "steps": {"fast": 1, "balanced": 1, "best": 1},
        "most_steps": 1,
        "settings": {"gamma": 0.0, "alpha": 1.0, "layers": "3-4,6-7"},
    },
}
"""The same, of one that has only learned to answer at once."""

_FOLDERS = {"unet": "unet", "encoder": "style_encoder"}
"""Where each network lies in an exported folder."""


@dataclass
class Progress:
    """What a run has behind it."""

    step: int = 0
    examples: int = 0
    seconds: float = 0.0
    loss: float = 1.0
    """Of the last steps, smoothed."""
    shift: float = 0.0
    scale: float = 1.0
    spread: float = 1.0
    """Deviation of the residual over the match-EQ, in latent units."""


class Trainer:
    """One training run in a folder: networks, their average, optimiser, and the count of what is done.

    Every step draws its batch and noise from the seed and its own number, so a resumed run sees what it would have
    seen.
    """

    def __init__(
        self,
        run: Path,
        data: Pictures,
        objective: Objective,
        device: str = "cpu",
        seed: int = 0,
        batch: int = BATCH,
        frames: int = FRAMES,
        rate: float = RATE,
        init: Path | None = None,
        cooling: tuple[int, int] | None = None,
    ) -> None:
        self.run, self.data, self.objective = run, data, objective
        self.seed, self.batch, self.frames, self.rate, self.cooling = seed, batch, frames, rate, cooling
        self.device = torch.device(device)
        # Emulated, half precision is many times slower than single.
        self.half = choose_dtype("auto", self.device) != torch.float32
        torch.manual_seed(seed)
        self.networks = objective.build().to(self.device)
        if self.device.type == "cpu":
            for network in self.networks.values():
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        resuming = (run / "progress.json").is_file()
        if init and not resuming:
            for name, network in self.networks.items():
                weights = load_file(init / _FOLDERS[name] / "diffusion_pytorch_model.safetensors")
                network.load_state_dict(weights)
        self.ema = {name: value.detach().clone() for name, value in self.networks.state_dict().items()}
        self.optimiser = Muon(self.networks.parameters(), rate)
        self.progress = Progress()
        if resuming:
            self._resume()
        elif init:
            about = json.loads((init / "stylus.json").read_text("utf-8"))
            behind, latent = about["training"], about["latent"]
            self.progress = Progress(0, behind["examples"], behind["minutes"] * 60.0, behind["loss"],
                                     latent["shift"], latent["scale"], about["spread"])  # fmt: skip
        else:
            pairs = data.batch(np.random.default_rng([seed, 0]), 256, frames)
            self.progress.shift, self.progress.scale = float(pairs.answer.mean()), float(pairs.answer.std())
            self.progress.spread = float((pairs.answer - pairs.guide).std()) / self.progress.scale
        self.codec = Patchify(FACTOR, self.progress.shift, self.progress.scale)

    def latents(self, rng: np.random.Generator) -> Latents:
        """A drawn batch."""
        pairs = self.data.batch(rng, self.batch, self.frames)
        content, guide, answer, reference = (
            self.codec.encode(torch.from_numpy(pictures)).to(self.device)
            for pictures in (pairs.content, pairs.guide, pairs.answer, pairs.reference)
        )
        return Latents(content, guide, answer, reference, self.progress.spread)

    def step(self) -> float:
        """One optimiser step; returns its loss."""
        number = self.progress.step + 1
        rng = np.random.default_rng([self.seed, number])
        latents = self.latents(rng)
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(number)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            loss = self.objective.loss(self.networks, latents, rng, self.progress.examples)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimiser.step()
        self._average(min(EMA, number / (number + 10)))
        self.progress.step = number
        self.progress.examples += self.batch
        value = float(loss.detach())
        self.progress.loss += (value - self.progress.loss) * max(0.01, 1 / number)
        return value

    def _rate(self, number: int) -> float:
        """The learning rate of a step: warmed up, then with the root of the steps, at last straight down to nothing."""
        rate = self.rate * min(1.0, number / WARM_UP) * math.sqrt(min(1.0, SLOW_DOWN / number))
        if self.cooling is None:
            return rate
        first, last = self.cooling
        return rate * min(1.0, max(0.0, (last - number) / (last - first)))

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        current = self.networks.state_dict()
        torch._foreach_lerp_(list(self.ema.values()), [current[name] for name in self.ema], 1 - decay)

    def train(self, minutes: float, validate: float = math.inf) -> None:
        """Train for so long or until cool; a line every 20 seconds, a checkpoint every three minutes, validation."""
        begun = said = kept = validated = time.monotonic()
        already, first = self.progress.seconds, self.progress.step
        while (now := time.monotonic()) - begun < minutes * 60:
            if self.cooling and self.progress.step >= self.cooling[1]:
                break
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
            if now - validated > validate * 60:
                self.validate()
                validated = time.monotonic()
        self.checkpoint()

    def checkpoint(self) -> None:
        """Write everything under temporary names, then let one rename of `progress.json` make it count."""
        self.run.mkdir(parents=True, exist_ok=True)
        turn = f"checkpoint-{self.progress.step}"
        folder = self.run / turn
        folder.mkdir(exist_ok=True)
        moments = self.optimiser.state_dict()["state"]
        parts: dict[str, dict[str, Tensor]] = {
            "networks": self.networks.state_dict(),
            "ema": self.ema,
            "optimiser": {f"{key}.{name}": value for key, item in moments.items() for name, value in item.items()},
        }
        for part, tensors in parts.items():
            contiguous = {name: value.contiguous() for name, value in tensors.items()}
            save_file(contiguous, folder / f"{part}.safetensors")
        unfinished = self.run / "progress.part"
        unfinished.write_text(json.dumps({"checkpoint": turn, **asdict(self.progress)}), "utf-8")
        unfinished.replace(self.run / "progress.json")
        for old in self.run.glob("checkpoint-*"):
            if old.name != turn:
                shutil.rmtree(old)

    def _resume(self) -> None:
        values = json.loads((self.run / "progress.json").read_text("utf-8"))
        folder = self.run / values.pop("checkpoint")
        self.progress = Progress(**values)
        self.networks.load_state_dict(load_file(folder / "networks.safetensors"))
        self.ema = {name: value.to(self.device) for name, value in load_file(folder / "ema.safetensors").items()}
        parameters = list(self.networks.parameters())
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in load_file(folder / "optimiser.safetensors").items():
            number, name = key.split(".", 1)
            like = parameters[int(number)]
            # In memory as the parameter lies, channels last or not: arithmetic is quicker so.
            moment = value if value.shape != like.shape else torch.empty_like(like).copy_(value)
            state.setdefault(int(number), {})[name] = moment.detach()
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})

    def validate(self) -> None:
        """Render a few held-out pairs with the averaged weights: stems, pictures and scores, in the run's folder."""
        model, out = self.run / "model", self.run / "validation" / f"step-{self.progress.step}"
        self.export(model)
        try:
            found = systems(Engine(str(model)), None, ("content", "match-EQ", "default"))
            run(out, names()[:VALIDATION_PAIRS], found, audio=True)
        except NotFound as missing:
            print(f"no validation: {missing}", flush=True)
            return
        print(table(read(out)), flush=True)

    def averaged(self) -> nn.ModuleDict:
        """The networks with their averaged weights, on the CPU."""
        networks = copy.deepcopy(self.networks).cpu()
        networks.load_state_dict(self.ema)
        return networks.eval()

    def export(self, folder: Path, injection: str = "") -> None:
        """The averaged weights in half precision, as a diffusers folder with `stylus.json`.

        `injection` names the model that this method is left to, where these weights have not learned it.
        """
        networks: dict[str, Any] = dict(self.averaged().half().items())
        folder.mkdir(parents=True, exist_ok=True)
        for name, network in networks.items():
            network.save_pretrained(folder / _FOLDERS[name], safe_serialization=True)
        about: dict[str, object] = {
            "format": 2,
            "name": "mini",
            "profile": MINI.to_dict(),
            "latent": {
                "kind": "patchify", "factor": FACTOR, "shift": self.progress.shift, "scale": self.progress.scale,
            },
            "spread": self.progress.spread,
            "training": {
                "examples": self.progress.examples, "groups": len(self.data.pictures),
                "minutes": round(self.progress.seconds / 60), "loss": round(self.progress.loss, 4),
                "device": self._hardware(),
            },
        }  # fmt: skip
        if "encoder" in networks:
            build_scheduler().save_pretrained(folder / "scheduler")
            about |= {
                "methods": METHODS if self.objective.refines(self.progress.examples) else AT_ONCE,
                "style_windows": 3,
            }
            if injection:
                about["elsewhere"] = {"injection": injection}
        (folder / "stylus.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")

    def _hardware(self) -> str:
        cuda = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if cuda else f"CPU, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the embedded model, or go on with it.")
    parser.add_argument("--data", type=Path, required=True, help="what stylus_audio.training.dataset made")
    parser.add_argument("--run", type=Path, required=True, help="where checkpoints lie")
    parser.add_argument("--minutes", type=float, default=45.0, help="how long to train now; 0 only exports")
    parser.add_argument(
        "--validate", type=float, default=math.inf, help="minutes between validations on held-out pairs"
    )
    parser.add_argument("--init", type=Path, help="a new run starts from the weights of this exported folder")
    parser.add_argument("--export", type=Path, help="where to write the model folder at the end")
    parser.add_argument("--injection", default="", metavar="MODEL", help="the model that the method is left to")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument(
        "--cool",
        type=int,
        nargs=2,
        metavar=("FROM", "TO"),
        help="the rate falls to nothing between these steps: the end",
    )
    parser.add_argument(
        "--refining-from", type=int, default=REFINING_FROM, help="examples before refining and unconditional ones begin"
    )
    parser.add_argument("--objective", choices=("diffusion", "regression"), default="diffusion")
    asked = parser.parse_args()
    objective = Regression() if asked.objective == "regression" else Diffusion(asked.refining_from)
    try:
        trainer = Trainer(
            asked.run, Pictures(asked.data), objective, asked.device, asked.seed, asked.batch, asked.frames, asked.rate,
            asked.init, tuple(asked.cool) if asked.cool else None,
        )  # fmt: skip
    except StylusError as error:
        parser.exit(error.exit_code, f"{error}\n")
    if asked.minutes > 0:
        trainer.train(asked.minutes, asked.validate)
    if asked.export:
        trainer.export(asked.export, asked.injection)
