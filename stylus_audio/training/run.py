"""A training run in a folder: networks, their average, optimiser, and the count of what is done.

Stopped at any moment it goes on from its last checkpoint, also on another machine and device.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import BadRequest, DiskFull, NotAllowed, StylusError
from ..files import means_full
from ..graphs import cuda_graphs
from ..model import choose_device, choose_dtype
from .muon import Muon

WARM_UP = 50
EMA = 0.998
CHECKPOINT_SECONDS = 180.0
LITTLE = 2**20
"""Bytes free on a disk that is full."""
UNCAPTURED = 3
"""Steps before one is captured as a CUDA graph: what is made at first has been made by then."""


@dataclass
class Progress:
    """What a run has behind it."""

    step: int = 0
    examples: int = 0
    seconds: float = 0.0
    loss: float = 1.0
    """Of the last steps, smoothed."""


Progress_ = TypeVar("Progress_", bound=Progress)

Batch = tuple[Tensor, ...]
"""What a step learns from, every step's of the same shapes."""


@dataclass(frozen=True)
class Plan:
    """How a run trains.

    The rate is warmed up, then falls with the root of the steps after `slow_down`. With `total`, minutes of training
    over all of its runs, it falls straight to nothing over the last `cool` of them, where the training ends. Raises
    `BadRequest` for what cannot be.
    """

    device: str = "cpu"
    seed: int = 0
    batch: int = 8
    rate: float = 2e-3
    slow_down: int = 1_000
    total: float = math.inf
    cool: float = 0.0
    compile: bool = False

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("batch", 1), ("slow_down", 1), ("cool", 0)):
            if (value := getattr(self, name)) < least:
                raise BadRequest(f"--{name.replace('_', '-')}: {value} is less than {least}")
        if self.cool and math.isinf(self.total):
            raise BadRequest("--cool needs --total: the last minutes of how many?")

    @staticmethod
    def options(parser: argparse.ArgumentParser) -> None:
        """Add the options of a run to a trainer's own."""
        parser.add_argument("--run", type=Path, required=True, help="where checkpoints lie")
        parser.add_argument("--minutes", type=float, default=45.0, help="how long to train now; 0 only exports")
        parser.add_argument(
            "--validate", type=float, default=math.inf, help="minutes between validations on held-out sounds"
        )
        parser.add_argument("--device", default="cpu")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--batch", type=int, default=Plan.batch)
        parser.add_argument("--rate", type=float, default=Plan.rate)
        parser.add_argument("--slow-down", type=int, default=Plan.slow_down, help="steps after which the rate falls")
        parser.add_argument("--total", type=float, default=math.inf, help="minutes after which this run ends")
        parser.add_argument(
            "--cool", type=float, default=0.0, help="the last minutes, in which the rate falls to nothing"
        )
        parser.add_argument("--compile", action="store_true", help="quicker steps, after some minutes of compilation")

    @classmethod
    def asked(cls, asked: argparse.Namespace) -> Plan:
        """From what `options` have been given."""
        return cls(
            asked.device, asked.seed, asked.batch, asked.rate, asked.slow_down, asked.total, asked.cool, asked.compile
        )

    @property
    def flags(self) -> str:
        """What of it is not the default, as it is typed.

        >>> Plan(batch=64, rate=7e-4, compile=True).flags
        '--batch 64 --rate 0.0007 --compile'
        """
        other = [(item.name, value) for item in fields(self) if (value := getattr(self, item.name)) != item.default]
        return " ".join(f"--{name.replace('_', '-')}" + f" {value}" * (value is not True) for name, value in other)

    def rate_at(self, step: int, seconds: float) -> float:
        """The learning rate of a step after so many seconds of training."""
        rate = self.rate * min(1.0, step / WARM_UP) * math.sqrt(min(1.0, self.slow_down / step))
        if not self.cool:
            return rate
        return rate * min(1.0, max(0.0, (self.total * 60 - seconds) / (self.cool * 60)))


def sent(values: NDArray[Any], device: torch.device | str) -> Tensor:
    """On the device, from memory that it reads by itself: otherwise each copy waits for all work before it."""
    tensor = torch.from_numpy(values)
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Run(ABC, Generic[Progress_]):
    """Steps of an optimiser over drawn batches, with checkpoints.

    Every step draws from the seed and its own number, so a resumed run sees what it would have seen.
    """

    def __init__(self, folder: Path, build: Callable[[], nn.ModuleDict], progress: Progress_, plan: Plan) -> None:
        self.folder, self.progress, self.plan, self.build = folder, progress, plan, build
        self.device = choose_device(plan.device)
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        # Emulated, half precision is many times slower than single.
        self.half = choose_dtype("auto", self.device) != torch.float32
        torch.manual_seed(plan.seed)
        self.networks = build().to(self.device)
        for network in self.networks.values():
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if plan.compile:
                network.compile(dynamic=False)
        self.ema = self._copied()
        self.optimiser = Muon(self.networks.parameters(), plan.rate)
        # A step is some thousands of small kernels, whose launches one by one take time of their own.
        self.graphs = cuda_graphs(plan.batch) if plan.compile and self.device.type == "cuda" else None
        self.stepped = 0
        self._kept = ""
        """The checkpoint that `progress.json` names."""
        self.resumed = self.begun = (folder / "progress.json").is_file()
        if self.resumed:
            self._resume()
        # Read when it is to be shown: a GPU would have to wait for it at every step.
        self.smoothed = torch.tensor(self.progress.loss, device=self.device)

    @abstractmethod
    def batch(self, rng: np.random.Generator) -> Batch:
        """Drawn from the generator, on the training's device."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Of a batch. As a CUDA graph it may not wait for the device."""

    @abstractmethod
    def refresh(self) -> None:
        """Take in data that has been added since."""

    @abstractmethod
    def validate(self) -> None:
        """Say how good the averaged weights are by now."""

    def start_from(self, weights: dict[str, dict[str, Tensor]]) -> None:
        """Begin with each network's weights."""
        self.begun = True
        for name, network in self.networks.items():
            network.load_state_dict(weights[name])
        self.ema = self._copied()

    def step(self) -> Tensor:
        """One optimiser step; returns its loss."""
        number = self.progress.step + 1
        rng = np.random.default_rng([self.plan.seed, number])
        batch = self.batch(rng)
        # For dropout. A captured step reads the generator's state at each replay.
        torch.manual_seed(int(rng.integers(2**63)))
        forgotten = 1 - min(EMA, number / (number + 10))
        told = np.array([self.plan.rate_at(number, self.progress.seconds), forgotten, max(0.01, 1 / number)])
        tensors = {str(place): tensor for place, tensor in enumerate(batch)}
        tensors["told"] = sent(told.astype(np.float32), self.device)
        if self.graphs is None or self.stepped < UNCAPTURED:
            value = self._update(tensors)["loss"]
        else:
            value = self.graphs("step", self._update, tensors)["loss"]
        self.stepped += 1
        self.progress.step = number
        self.progress.examples += self.plan.batch
        return value

    def _update(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What of a step runs on the device: its numbers are tensors too, so that it can be captured."""
        rate, forgotten, smoothing = tensors["told"].unbind()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss(tuple(tensor for name, tensor in tensors.items() if name != "told"))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimiser.step()
        self._average(forgotten)
        value = loss.detach()
        self.smoothed.lerp_(value.to(self.smoothed), smoothing)
        return {"loss": value}

    @torch.no_grad()
    def _average(self, forgotten: Tensor) -> None:
        """`ema += forgotten * (current - ema)`."""
        current, ema = self.networks.state_dict(), list(self.ema.values())
        changes = torch._foreach_sub([current[name] for name in self.ema], ema)
        torch._foreach_mul_(changes, forgotten)
        torch._foreach_add_(ema, changes)

    def _copied(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.networks.state_dict().items()}

    def train(self, minutes: float, validate: float = math.inf) -> None:
        """Train for so long or to the end; a line every 20 seconds, a checkpoint every three minutes, validation."""
        begun = said = kept = validated = time.monotonic()
        already, first = self.progress.seconds, self.progress.step
        if self.plan.compile:
            print("compiling: the first step takes minutes, beside other work the longer", flush=True)
        while (now := time.monotonic()) - begun < minutes * 60:
            if self.progress.seconds >= self.plan.total * 60:
                break
            self.step()
            self.progress.seconds = already + time.monotonic() - begun
            if now - said > 20:
                said = now
                rate = (self.progress.step - first) * self.plan.batch / (now - begun)
                print(f"step {self.progress.step}  loss {float(self.smoothed):.4f}  {rate:.1f} examples/s", flush=True)
                self.refresh()
            if now - kept > CHECKPOINT_SECONDS:
                kept = now
                self.checkpoint()
            if now - validated > validate * 60:
                try:
                    self.validate()
                except StylusError as missing:
                    print(f"no validation: {missing}", flush=True)
                validated = time.monotonic()
        self.checkpoint()

    def carry_out(self, asked: argparse.Namespace, export: Callable[[Path], None]) -> None:
        """Train and export as asked; `BadRequest` where nothing has been trained and is not to be."""
        if asked.minutes > 0:
            self.train(asked.minutes, asked.validate)
        elif not self.begun:
            raise BadRequest(f"nothing has been trained in {self.folder}")
        if asked.export:
            export(asked.export)

    def checkpoint(self) -> None:
        """Write everything under temporary names, then let one rename of `progress.json` make it count."""
        self.progress.loss = float(self.smoothed)
        turn = f"checkpoint-{self.progress.step}"
        folder = self.folder / turn
        if turn == self._kept:
            return  # nothing has been trained since
        try:
            self._write_checkpoint(folder)
            unfinished = self.folder / "progress.part"
            unfinished.write_text(json.dumps({"checkpoint": turn, **asdict(self.progress)}), "utf-8")
            unfinished.replace(self.folder / "progress.json")
            self._kept = turn
        except (OSError, SafetensorError) as error:
            # What safetensors raises does not say so.
            full = means_full(error) if isinstance(error, OSError) else shutil.disk_usage(self.folder).free < LITTLE
            # The next needs its room.
            shutil.rmtree(folder, ignore_errors=True)
            raise (DiskFull if full else NotAllowed)(f"{folder} cannot be written: {error}") from error
        for old in self.folder.glob("checkpoint-*"):
            if old.name != turn:
                shutil.rmtree(old)

    def _write_checkpoint(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        moments = self.optimiser.state_dict()["state"]
        parts: dict[str, dict[str, Tensor]] = {
            "networks": self.networks.state_dict(),
            "ema": self.ema,
            "optimiser": {f"{key}.{name}": value for key, item in moments.items() for name, value in item.items()},
        }
        for part, tensors in parts.items():
            contiguous = {name: value.contiguous() for name, value in tensors.items()}
            save_file(contiguous, folder / f"{part}.safetensors")

    def _resume(self) -> None:
        try:
            self._load()
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise BadRequest(f"{self.folder} holds a damaged run: {error}") from error
        except (TypeError, RuntimeError) as error:
            raise BadRequest(f"{self.folder} is a run of other networks; take a folder of its own") from error

    def _load(self) -> None:
        values: dict[str, Any] = json.loads((self.folder / "progress.json").read_text("utf-8"))
        self._kept = values.pop("checkpoint")
        folder = self.folder / self._kept
        self.progress = type(self.progress)(**values)
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

    def averaged(self) -> nn.ModuleDict:
        """The networks with their averaged weights, on the CPU."""
        networks = self.build()
        networks.load_state_dict(self.ema)
        return networks.eval()

    def facts(self) -> dict[str, object]:
        """What a model card says of the run."""
        cuda = self.device.type == "cuda"
        return {
            "examples": self.progress.examples,
            "minutes": round(self.progress.seconds / 60),
            "loss": round(float(self.smoothed), 4),
            "flags": self.plan.flags,
            "device": torch.cuda.get_device_name(self.device) if cuda else f"CPU, {torch.get_num_threads()} threads",
        }
