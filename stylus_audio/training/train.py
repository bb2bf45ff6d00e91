"""Train the embedded model: `python -m stylus_audio.training.train --data DIR --run DIR --minutes 45`.

Stopped at any moment it goes on from its last checkpoint, also on another machine and device. `--export DIR` writes
what there is as the model folder that `stylus` loads. `--objective regression` trains what it is compared with.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..engine import Engine
from ..errors import BadRequest, StylusError
from ..latent import Patchify
from ..spectrogram import MINI
from .architecture import FACTOR, build_scheduler
from .dataset import FRAMES, Pictures
from .deepening import deepened
from .evaluation import read, run, systems, table
from .heldout import validation
from .objective import SQUARE, Latents, Objective, Regression, Transfer
from .pairs import CONTENTS, NEPER, Pairs, draw
from .run import Batch, Plan, Progress, Run

VALIDATION_PAIRS = 4

METHODS: dict[str, object] = {
    "conditional": {
        "steps": {"fast": 1, "balanced": 1, "best": 1},
        "settings": {"gamma": 0.0, "alpha": 1.0, "layers": "0-1,3-4,6-8", "overlap": 0.5},
        "qualities": {"fast": {"overlap": 0.25}, "best": {"overlap": 0.75}},
    },
}
"""How the exported model wants to be run: it has only learned to answer at once."""

SHARPENED = 1.1
"""What answers are sharpened by (`conditional.sharpened`). Of 1, 1.1 and 1.15 this brought 48 renders of unheard
programs, in the held-out soundfont and in the training's, nearest to the truth."""

_FOLDERS = {"unet": "unet", "encoder": "style_encoder"}
"""Where each network lies in an exported folder."""


@dataclass
class PictureProgress(Progress):
    """With the scale of the latents, which a run settles at its start."""

    shift: float = 0.0
    scale: float = 1.0
    spread: float = 1.0
    """Deviation of the residual over the match-EQ, in latent units."""


class Trainer(Run[PictureProgress]):
    """A training run of the embedded model."""

    def __init__(
        self,
        run: Path,
        data: Pictures,
        objective: Objective,
        plan: Plan | None = None,
        frames: int = MINI.frames,
        init: Path | None = None,
    ) -> None:
        super().__init__(run, objective.build, PictureProgress(), plan or Plan())
        if self.plan.batch % CONTENTS:
            raise BadRequest(f"--batch: {self.plan.batch} is no multiple of {CONTENTS}, the contents in one style")
        if frames % FACTOR or not SQUARE * FACTOR <= frames <= FRAMES:
            raise BadRequest(
                f"--frames: {frames} is no multiple of {FACTOR} from {SQUARE * FACTOR} to the {FRAMES} of a clip"
            )
        self.data, self.objective, self.frames = data, objective, frames
        self.init = init
        self.before: dict[str, Any] | None = None
        if init:
            self._begin_with(init)
        elif not self.resumed:
            pairs = self.pairs(np.random.default_rng([self.plan.seed, 0]), 64)
            self.progress.shift, self.progress.scale = float(pairs.answer.mean()), float(pairs.answer.std())
            self.progress.spread = float((pairs.answer - pairs.guide).std()) / self.progress.scale
        self.codec = Patchify(FACTOR, self.progress.shift, self.progress.scale)

    def _begin_with(self, init: Path) -> None:
        """Read an exported folder; a new run starts from its weights and scale."""
        try:
            about: dict[str, Any] = json.loads((init / "stylus.json").read_text("utf-8"))
            latent, self.before, loss = about["latent"], about["training"], about["training"]["loss"]
            if not self.resumed:
                self.start_from(self._weights(init))
                self.progress = PictureProgress(
                    loss=loss, shift=latent["shift"], scale=latent["scale"], spread=about["spread"]
                )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise BadRequest(f"--init: {init} is no model that this training exports: {reason}") from error
        except RuntimeError as error:
            raise BadRequest(f"--init: {init} is a model of other networks than those to be trained") from error

    def _weights(self, model: Path) -> dict[str, dict[str, Tensor]]:
        """Those of each network in an exported folder, of whose UNet the levels may have fewer layers."""
        files = {name: model / _FOLDERS[name] / "diffusion_pytorch_model.safetensors" for name in self.networks}
        weights = {name: load_file(file) for name, file in files.items()}
        return weights | {"unet": deepened(weights["unet"], self.networks["unet"])}

    def refresh(self) -> None:
        """Take in pictures that have been added since."""
        self.data.refresh()

    def pairs(self, rng: np.random.Generator, windows: int) -> Pairs:
        """Drawn windows."""
        return draw(self.data.on(self.device), rng, windows // CONTENTS, self.frames, self.device)

    def batch(self, rng: np.random.Generator) -> Batch:
        """Pictures of contents, guides, answers and references."""
        pairs = self.pairs(rng, self.plan.batch)
        return pairs.content, pairs.guide, pairs.answer, pairs.reference

    def loss(self, batch: Batch) -> Tensor:
        """The objective's, of their latents."""
        content, guide, answer, reference = (self.codec.encode(pictures) for pictures in batch)
        styles = self.plan.batch // CONTENTS
        progress = self.progress
        silence, nepers = -progress.shift / progress.scale, NEPER * progress.scale
        latents = Latents(content, guide, answer, reference, styles, progress.spread, nepers, silence)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.objective.loss(self.networks, latents)

    def validate(self) -> None:
        """Render some of the validation with the averaged weights: stems, pictures and scores, in the run's folder."""
        model, out = self.folder / "model", self.folder / "validation" / f"step-{self.progress.step}"
        self.export(model)
        if "encoder" in self.networks:
            found = systems(Engine(str(model)), None, ("content", "match-EQ", "default"))
        else:
            # A comparator has no engine of its own.
            found = systems(Engine(), model, ("content", "match-EQ", "regression"))
        run(out, validation()[:VALIDATION_PAIRS], found, audio=True)
        print(table(read(out)), flush=True)

    def export(self, folder: Path, injection: str = "", halfway: bool = False) -> None:
        """The averaged weights in half precision, as a diffusers folder with `stylus.json`.

        `injection` names the model that this method is left to, where these weights have not learned it. `halfway`
        takes the mean with the weights that the run began with: what a short run on other sounds has learned, without
        what it has forgotten (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022); `BadRequest` where
        it began with none.
        """
        networks: dict[str, Any] = dict(self.averaged().items())
        if halfway:
            if self.init is None:
                raise BadRequest("halfway: this run did not begin with exported weights, so there is nothing to meet")
            for name, weights in self._weights(self.init).items():
                trained = networks[name].state_dict()
                networks[name].load_state_dict({key: (weights[key] + trained[key]) / 2 for key in trained})
        networks = {name: network.half() for name, network in networks.items()}
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
            "training": {"groups": len(self.data.pictures), **self.facts(), "before": self.before, "halfway": halfway},
        }  # fmt: skip
        if "encoder" in networks:
            build_scheduler().save_pretrained(folder / "scheduler")
            about |= {
                "methods": METHODS,
                "style_windows": 3,
                "contrast": SHARPENED,
            }
            if injection:
                about["elsewhere"] = {"injection": injection}
        (folder / "stylus.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the embedded model, or go on with it.")
    parser.add_argument("--data", type=Path, required=True, help="what stylus_audio.training.dataset made")
    Plan.options(parser)
    parser.add_argument("--init", type=Path, help="a new run starts from the weights of this exported folder")
    parser.add_argument("--export", type=Path, help="where to write the model folder at the end")
    parser.add_argument("--injection", default="", metavar="MODEL", help="the model that the method is left to")
    parser.add_argument(
        "--halfway", action="store_true", help="export the mean of what was trained and the weights of --init"
    )
    parser.add_argument("--frames", type=int, default=MINI.frames)
    parser.add_argument("--objective", choices=("transfer", "regression"), default="transfer")
    asked = parser.parse_args()
    if asked.halfway and not asked.init:
        parser.error("--halfway needs --init, whose weights the mean is taken with")
    objective = Regression() if asked.objective == "regression" else Transfer()
    try:
        trainer = Trainer(asked.run, Pictures(asked.data), objective, Plan.asked(asked), asked.frames, asked.init)
        trainer.carry_out(asked, lambda folder: trainer.export(folder, asked.injection, asked.halfway))
    except StylusError as error:
        parser.exit(error.exit_code, f"{error}\n")
