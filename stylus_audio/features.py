"""What inversion leaves behind: the trajectory of latents, and Q, K and V of the chosen layers for every step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
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

Source = Callable[[int], Step]
"""Features of sampling step `k`, counted from 0 at the noisiest: read from a record, or computed again."""


@dataclass(frozen=True)
class Inversion:
    """The way of some windows from clean to noisy.

    `trajectory` holds `steps + 1` latents `[window, channel, height, width]` from clean to noisy; `recorded[k]` the
    features of the step that sampling step `k` undoes, so `recorded[0]` is the last, noisiest one. Empty where nothing
    was recorded.
    """

    trajectory: list[Tensor]
    recorded: list[Step] = field(default_factory=list)

    @property
    def noisy(self) -> Tensor:
        """The inverted latent, `z_T`."""
        return self.trajectory[-1]


class Recorder(Plain):
    """An `Attend` that keeps the asked parts and otherwise leaves attention as it is."""

    def __init__(self, parts: Iterable[Part], columns: Tensor | None, latent: tuple[int, int]) -> None:
        super().__init__(columns, latent)
        self.parts = frozenset(parts)
        self.step: Step = {}

    def __call__(self, projection: Projection) -> Tensor:
        """Record, then attend plainly."""
        kept = {part: getattr(projection, part) for part in self.parts}
        self.step[projection.layer] = Features(**kept, mask=self.mask(projection))
        return super().__call__(projection)

    def take(self) -> Step:
        """The features of the pass that has just run; the next pass starts empty."""
        step, self.step = self.step, {}
        return step
