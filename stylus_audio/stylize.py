"""The method on latents: invert content and styles, give the content the style's statistics, sample with injection.

Works with any diffusers `UNet2DConditionModel` and `DDIMScheduler`; knows nothing of sound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .attention import choose_layers, feature_bytes
from .denoiser import Denoiser, Schedule
from .errors import BadRequest
from .features import Inversion, Part, Source, step_from_tensors, step_to_tensors
from .graphs import Graphs
from .inversion import Tick, Tracer, invert, replay
from .sampling import drift, sample
from .settings import DEFAULT_STEPS, Settings
from .shelf import Shelf
from .style import adain, efdm, normalised

FEATURE_BUDGET = 4 * 2**30
"""Bytes of recorded features to hold at once; over it they are computed again from the trajectory, step by step."""

STYLE_SHARE = 0.5
"""How much of the budget that is left one style may take: the content's features need some too."""

CONTENT_BYTES = 2**30
"""The most that the content's features take of a memory that everything shares; over it they wait on the disk, so that
a render's memory does not grow with the clip."""

WINDOWS_PER_PASS = 4


@dataclass(frozen=True)
class PreparedStyle:
    """A style ready for injection: its inversion, what of it counts, and its keys and values for each step."""

    inversion: Inversion
    columns: Tensor | None
    features: Source

    @property
    def noisy(self) -> Tensor:
        """Its noisy latent."""
        return self.inversion.noisy

    def to_tensors(self) -> dict[str, Tensor]:
        """What is worth keeping of it, by name, but for `columns`; `Stylizer.restore` undoes it."""
        return self.inversion.to_tensors()


class Stylizer:
    """METHOD 2–4 for one model and one choice of settings.

    `inverter` predicts for the inversions, `sampler` for the sampling: the same, but for a prompt and its guidance.
    """

    def __init__(
        self,
        inverter: Denoiser,
        sampler: Denoiser,
        settings: Settings,
        *,
        trace: Tracer | None = None,
        tick: Tick | None = None,
        windows_per_pass: int = WINDOWS_PER_PASS,
        feature_budget: int = FEATURE_BUDGET,
    ) -> None:
        self.inverter = inverter
        self.sampler = sampler
        self.settings = settings
        self.layers = choose_layers(inverter.unet, settings.layers)
        self.schedule = Schedule.of(inverter.scheduler, settings.steps or DEFAULT_STEPS, settings.denoise)
        self.trace = trace
        self.tick = tick
        self.windows_per_pass = windows_per_pass
        self._left = feature_budget

    @property
    def content_parts(self) -> tuple[Part, ...]:
        """Queries; keys and values only where α ≠ 1 needs them (METHOD 2)."""
        if not self.settings.injection:
            return ()
        return ("query",) if self.settings.alpha in (1.0, (1.0, 1.0)) else ("query", "key", "value")

    @property
    def style_parts(self) -> tuple[Part, ...]:
        """Keys and values, where they are injected."""
        return ("key", "value") if self.settings.injection else ()

    def depends(self) -> dict[str, object]:
        """What `prepare` depends on beside the model and the windows, as plain JSON."""
        return {
            "method": "injection",
            "schedule": asdict(self.schedule),
            "prediction": self.inverter.scheduler.config.prediction_type,
            "inversion": self.settings.inversion,
            "layers": self.layers,
            "parts": self.style_parts,
        }

    def passes(self, content_windows: int, styles: int, exact: bool = False) -> int:
        """Passes of the UNet that a run takes, for progress; an estimate where features have to be computed again.

        `styles` are those to be prepared, each in one batch.
        """
        groups = -(-content_windows // self.windows_per_pass)
        steps = len(self.schedule)
        if self.settings.inversion == "next":
            return groups * (2 + exact) * steps + styles * steps
        # The noisiest sampling step's features, and its way back, take a pass of their own; the others' are known.
        recorded = int(self.settings.injection)
        return groups * (2 * steps + max(recorded, exact)) + styles * (steps + recorded)

    def _feature_bytes(self, latent: Tensor, parts: Sequence[Part]) -> int:
        """Size of the features of all steps of some windows."""
        unet = self.inverter.unet
        one = feature_bytes(unet, self.layers, (latent.shape[-2], latent.shape[-1]), unet.dtype.itemsize)
        return one * len(parts) * latent.shape[0] * len(self.schedule)

    def _replayed(self, inversion: Inversion, parts: Sequence[Part], columns: Tensor | None) -> Source:
        """Features computed again, step by step, from the trajectory."""
        convention = self.settings.inversion
        return replay(self.inverter, inversion, self.schedule, self.layers, parts, convention, columns)

    def _inverted(self, latent: Tensor, parts: Sequence[Part], columns: Tensor | None) -> Inversion:
        return invert(
            self.inverter, latent, self.schedule, self.layers, parts, self.settings.inversion, columns, self.trace,
            self.tick,
        )  # fmt: skip

    def prepare(self, latent: Tensor, columns: Tensor | None = None) -> PreparedStyle:
        """Invert a style's windows `[window, channel, height, width]` in one batch, keeping keys and values."""
        fits = self._feature_bytes(latent, self.style_parts) <= self._left * STYLE_SHARE
        inversion = self._inverted(latent, self.style_parts if fits else (), columns)
        # Only a content goes back.
        return self._prepared(replace(inversion, back={}), columns)

    def _prepared(self, inversion: Inversion, columns: Tensor | None) -> PreparedStyle:
        """With what was recorded, whose bytes are taken off the budget; without, features are computed again."""
        if not inversion.recorded:
            return PreparedStyle(inversion, columns, self._replayed(inversion, self.style_parts, columns))
        self._left -= self._feature_bytes(inversion.noisy, self.style_parts)
        return PreparedStyle(inversion, columns, inversion.recorded.__getitem__)

    def restore(self, tensors: Mapping[str, Tensor], columns: Tensor | None = None) -> PreparedStyle:
        """The style that `prepare` made, from its `to_tensors`: no pass, and the same features to the bit.

        Kept features that do not fit in the budget beside those of other styles are computed again, as ever.
        """
        inversion = Inversion.from_tensors(tensors)
        if self._feature_bytes(inversion.noisy, self.style_parts) > self._left * STYLE_SHARE:
            inversion = Inversion(inversion.trajectory)
        return self._prepared(inversion, columns)

    def initial(self, noisy: Tensor, styles: Sequence[PreparedStyle], columns: Tensor | None) -> Tensor:
        """The first latent: the content's with the styles' statistics (METHOD 3), weighted over the styles."""
        if self.settings.init == "none" or not styles:
            return noisy
        match = adain if self.settings.init == "adain" else efdm
        weights = normalised(self.settings.style_weight, len(styles))
        moved = [
            weight * match(noisy, style.noisy, columns, style.columns)
            for weight, style in zip(weights, styles, strict=True)
        ]
        return torch.stack(moved).sum(0)

    def run(
        self,
        content: Tensor,
        styles: Sequence[PreparedStyle],
        columns: Tensor | None = None,
        wanted: Tensor | None = None,
        exact: bool = False,
        clips: Sequence[int] | None = None,
    ) -> Tensor:
        """The stylised latents of a clip's windows `[window, channel, height, width]`; statistics are over all of them.

        `wanted` `[window]` marks those to sample; the others only count in the statistics. `exact` takes the error of
        the inversion off, so that without style the content comes back: the reference of METHOD 5 is then the content
        itself. `clips` says how many windows belong to each of several clips, which share nothing but the passes.
        """
        weights = normalised(self.settings.style_weight, len(styles)) if styles else []
        if styles and len(weights) != len(styles):
            raise BadRequest(f"style_weight: {len(weights)} weights for {len(styles)} styles; give one for each")
        self._check_blend(styles)
        wanted = torch.ones(len(content), dtype=torch.bool) if wanted is None else wanted.cpu()
        # Windows to be sampled first, so that a group is of one kind.
        order = torch.cat([wanted.nonzero()[:, 0], (~wanted).nonzero()[:, 0]])
        count = int(wanted.sum())
        groups = self._grouped(order[:count])
        others = self._grouped(order[count:]) if count < len(order) else ()
        parts = self.content_parts if styles else ()
        sources = [style.features for style in styles]
        with self._shelf() as shelf:
            waiting = [self._waiting(shelf, content[group], parts, _of(columns, group), exact) for group in groups]
            noisy = [one.noisy for one in waiting]
            noisy += [self._inverted(content[group], (), _of(columns, group)).noisy for group in others]
            first = self._initial_of(clips or [len(content)], torch.cat(noisy), styles, columns, order)
            starts = torch.split(first[:count], [len(group) for group in groups])
            styled = [
                sample(
                    self.sampler, start, self.schedule, self.settings, self.layers, one.features, sources, weights,
                    _of(columns, group), self.trace, self.tick, one.missed,
                )
                for group, start, one in zip(groups, starts, waiting, strict=True)
            ]  # fmt: skip
        return torch.cat(styled)

    def _grouped(self, windows: Tensor) -> tuple[Tensor, ...]:
        """In as few passes as hold them, all of about one size: a window takes the longer the fewer are beside it."""
        passes = -(-len(windows) // self.windows_per_pass)
        return torch.tensor_split(windows, passes)

    def _initial_of(
        self,
        clips: Sequence[int],
        noisy: Tensor,
        styles: Sequence[PreparedStyle],
        columns: Tensor | None,
        order: Tensor,
    ) -> Tensor:
        """`initial` of each of several clips, whose windows come in this `order`."""
        belongs = torch.repeat_interleave(torch.arange(len(clips)), torch.tensor(clips))[order]
        first = torch.empty_like(noisy)
        for clip in range(len(clips)):
            rows = (belongs == clip).nonzero()[:, 0]
            first[rows] = self.initial(noisy[rows], styles, _of(columns, order[rows]))
        return first

    def _shelf(self) -> Shelf:
        # A device that computes quickly makes features again in less time than a disk takes to give them back.
        if self.inverter.unet.device.type != "cpu":
            return Shelf(self._left, 0)
        return Shelf(min(self._left, CONTENT_BYTES), self._left)

    def _waiting(
        self, shelf: Shelf, latent: Tensor, parts: Sequence[Part], columns: Tensor | None, exact: bool
    ) -> _Waiting:
        """Invert some windows, and put away what their sampling will need."""
        recorded = shelf.takes(self._feature_bytes(latent, parts))
        inversion = self._inverted(latent, parts if recorded else (), columns)
        missed = drift(self.inverter, inversion, self.schedule, self.layers, columns, self.tick) if exact else []
        errors = [shelf.put({"error": error}) for error in missed]
        steps = [shelf.put(step_to_tensors(step)) for step in inversion.recorded]
        # Its latents of the way back are not wanted any more.
        trajectory = replace(inversion, recorded=[], back={})
        return _Waiting(
            inversion.noisy,
            (lambda step: step_from_tensors(steps[step]())) if recorded else self._replayed(trajectory, parts, columns),
            (lambda step: errors[step]()["error"]) if exact else None,
        )

    def _check_blend(self, styles: Sequence[PreparedStyle]) -> None:
        if self.settings.blend == "features" and len({tuple(style.noisy.shape) for style in styles}) > 1:
            raise BadRequest("blend: features needs styles of the same number of windows; use outputs")


@dataclass(frozen=True)
class _Waiting:
    """Some windows between their inversion and their sampling."""

    noisy: Tensor
    features: Source
    missed: Callable[[int], Tensor] | None


def _of(columns: Tensor | None, windows: Tensor) -> Tensor | None:
    """The columns of some windows; None where all of them count, since attention is quicker without a mask."""
    if columns is None:
        return None
    marks = columns[windows]
    return None if bool(marks.all()) else marks


def stylize_latents(
    unet: Any,
    scheduler: Any,
    content: Tensor,
    styles: Sequence[Tensor],
    embedding: Tensor,
    settings: Settings | None = None,
    *,
    trace: Tracer | None = None,
    tick: Tick | None = None,
    graphs: Graphs | None = None,
) -> Tensor:
    """The whole method on latents of any diffusers UNet (StyleID, Stylus): returns the stylised latent.

    `content` and each of `styles` are `[window, channel, height, width]`, `embedding` is `[1, token, channel]`;
    `scheduler` is a `DDIMScheduler`, whose prediction type, ᾱ and timesteps for `settings.steps` are used.
    `trace` sees every latent and attention output, `tick` is called after every pass of the UNet.
    With `graphs`, `cuda_graphs()`, kept as long as this UNet and its weights stay where they are, small batches
    are launched as CUDA graphs. Raises `BadRequest` for layers that the UNet does not have and for weights that do not
    fit the styles.
    """
    settings = settings or Settings()
    denoiser = Denoiser(unet, scheduler, embedding, graphs=graphs)
    stylizer = Stylizer(denoiser, denoiser, settings, trace=trace, tick=tick)
    prepared = [stylizer.prepare(style) for style in styles]
    return stylizer.run(content, prepared)
