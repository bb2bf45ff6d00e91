"""What inversion leaves behind: the trajectory of latents, and Q, K and V of the chosen layers for every step."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from torch import Tensor

from .attention import Plain, Projection

Part = Literal["query", "key", "value"]


@dataclass(frozen=True)
class Features:
    """Recorded parts of one layer at one step, `[window, token, channel]`; what was not asked for is None."""

    query: Tensor | None = None
    key: Tensor | None = None
    value: Tensor | None = None
    mask: Tensor | None = None
    """Which tokens count, `[window, token]`; None means all."""


Step = dict[int, Features]
"""Features of one step, by layer."""


def step_to_tensors(step: Step) -> dict[str, Tensor]:
    """A step as tensors named `layer.part`; what was not recorded has no name."""
    return {
        f"{layer}.{item.name}": tensor
        for layer, features in step.items()
        for item in fields(features)
        if (tensor := getattr(features, item.name)) is not None
    }


def step_from_tensors(tensors: Mapping[str, Tensor]) -> Step:
    """Undo `step_to_tensors`."""
    parts: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, part = name.split(".")
        parts.setdefault(int(layer), {})[part] = tensor
    return {layer: Features(**named) for layer, named in parts.items()}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, their names behind a prefix."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `prefixed`, leaving out what has another prefix."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


Source = Callable[[int], Step]
"""Features of sampling step `k`, counted from 0 at the noisiest: read from a record, or computed again."""


@dataclass(frozen=True)
class Inversion:
    """The way of some windows from clean to noisy.

    `trajectory` holds `steps + 1` latents `[window, channel, height, width]` from clean to noisy; `recorded[k]` the
    features of the pass with sampling step `k`'s label, so `recorded[0]` is the last, noisiest one. Empty where nothing
    was recorded. `back` has the latents that sampling steps reach from the trajectory, where the inversion has made the
    very prediction that they start with.
    """

    trajectory: list[Tensor]
    recorded: list[Step] = field(default_factory=list)
    back: dict[int, Tensor] = field(default_factory=dict)

    @property
    def noisy(self) -> Tensor:
        """The inverted latent, `z_T`."""
        return self.trajectory[-1]

    def to_tensors(self) -> dict[str, Tensor]:
        """The trajectory, and the features where they were recorded, by name."""
        tensors = {f"trajectory.{number}": latent for number, latent in enumerate(self.trajectory)}
        for number, step in enumerate(self.recorded):
            tensors |= prefixed(f"recorded.{number}", step_to_tensors(step))
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Inversion:
        """Undo `to_tensors`."""
        latents, features = under("trajectory", tensors), under("recorded", tensors)
        recorded = [step_from_tensors(under(str(number), features)) for number in range(len(latents) - 1)]
        return cls([latents[str(number)] for number in range(len(latents))], recorded if features else [])


class Recorder(Plain):
    """An `Attend` that keeps the asked parts and otherwise leaves attention as it is."""

    def __init__(self, parts: Iterable[Part], columns: Tensor | None, latent: tuple[int, int]) -> None:
        super().__init__(columns, latent)
        self.parts = frozenset(parts)
        self.step: Step = {}

    @property
    def constants(self) -> Hashable:
        """What it keeps, and the latent's size."""
        return "recorder", self.parts, self.latent

    def reading(self, tensors: Mapping[str, Tensor]) -> Recorder:
        """The same with other columns, and nothing recorded."""
        return Recorder(self.parts, tensors.get("columns"), self.latent)

    def recorded(self) -> dict[str, Tensor]:
        """The step as it is now."""
        return step_to_tensors(self.step)

    def keep(self, recorded: Mapping[str, Tensor]) -> None:
        """Take a step over."""
        self.step = step_from_tensors(recorded)

    def __call__(self, projection: Projection) -> Tensor:
        """Record, then attend plainly."""
        kept = {part: getattr(projection, part) for part in self.parts}
        self.step[projection.layer] = Features(**kept, mask=self.mask(projection))
        return super().__call__(projection)

    def take(self) -> Step:
        """The features of the pass that has just run; the next pass starts empty."""
        step, self.step = self.step, {}
        return step
