"""From pictures to gains: the one place where sound meets diffusion (METHOD 1–4 and 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from .conditional import Conditional
from .denoiser import Denoiser
from .errors import BadRequest
from .gains import Gains, limit_edges, see_under_floor
from .latent import Autoencoder
from .match_eq import equalised, match_eq, releveled
from .model import Model
from .near_live import NearLive
from .noisiness import noisiness
from .passage import Passage
from .progress import Watch
from .reconstruction import OF_CONTENT, mid_side
from .reference import Picture, Shared, Transform, picture_of, reference_windows
from .settings import Settings
from .spectrogram import Profile, from_image, mel_spectrogram, mel_spectrogram_on
from .style import normalised
from .style_cache import StyleCache, style_key
from .stylize import Stylizer
from .windows import Blend, seams, window_starts

STATISTICS_WINDOWS = 16
"""A preview's statistics come from so many windows, spread over the whole clip."""

DECODED = 4
"""Windows whose pictures are made at once."""

Floats = NDArray[np.float32]

Reference = tuple[Picture, list[int]]
"""A style's picture, with the first frames of its windows."""


@dataclass(frozen=True)
class Task:
    """What a clip gives to a render, whatever the style: its picture and windows, and which of them to sample.

    `level` is the long-term level per band, in dB `[mel]`, that its match-EQ starts from.
    """

    picture: Picture
    starts: list[int]
    wanted: NDArray[np.bool_]
    level: NDArray[np.float32]

    @property
    def channels(self) -> int:
        """Of the picture: linked channels are one."""
        return len(self.picture.mel)

    @property
    def windows(self) -> int:
        """How many there are, of all channels."""
        return len(self.starts) * self.channels

    @property
    def kept(self) -> list[int]:
        """First frames of the windows that are sampled."""
        return [start for start, want in zip(self.starts, self.wanted, strict=True) if want]


class Restyler:
    """One model that gives clips the sound of styles, as gains.

    `windows_per_pass` go through the network at once; `feature_budget` bytes of recorded features may be held.
    """

    def __init__(self, model: Model, cache: StyleCache | None, windows_per_pass: int, feature_budget: int) -> None:
        self.model, self.cache = model, cache
        self.windows_per_pass, self.feature_budget = windows_per_pass, feature_budget

    def task(self, passage: Passage, settings: Settings, shared: Shared | None = None) -> Task:
        """The picture of a passage that is not silent, and its windows; with `shared`, on several clips' one scale."""
        device = self.model.transforms_on
        transform = mel_spectrogram if device.type == "cpu" else partial(mel_spectrogram_on, device)
        picture = picture_of_passage(passage, settings, self.model.profile, shared, transform)
        conditional = settings.method == "conditional"
        # An answer at once has a faint tremolo of its latent's squares, two by two.
        starts = _planned(picture, settings.overlap, self.model.latent.factor if conditional else 1)
        wanted = self._wanted(passage, starts)
        if conditional:
            starts, wanted = [start for start, want in zip(starts, wanted, strict=True) if want], wanted[wanted]
        elif settings.preview is not None:
            starts, wanted = _thinned(starts, wanted)
        return Task(picture, starts, wanted, picture.level if shared is None else shared.level)

    def references(self, pictures: Sequence[Picture], settings: Settings) -> list[Reference]:
        """Each style's picture, with the first frames of the windows that stand for it."""
        chosen = [reference_windows(one, self.model.style_windows, settings.variation) for one in pictures]
        if settings.blend == "features":
            chosen = [windows[: min(map(len, chosen))] for windows in chosen]
        return list(zip(pictures, chosen, strict=True))

    def check(self, settings: Settings) -> None:
        """Raise `BadRequest` for settings that do not fit the model."""
        self._way(settings, Watch(None))

    def warm(self, references: Sequence[Reference], settings: Settings, watch: Watch) -> None:
        """Put styles into the cache."""
        way = self._way(settings, watch)
        self._prepared(way, references, watch, lambda missing: way.passes(0, missing))

    def is_warm(self, references: Sequence[Reference], settings: Settings) -> bool:
        """Whether the cache has every style."""
        way = self._way(settings, Watch(None))
        return self.cache is not None and all(
            self.cache.has(self._key(way, *self._windows(*one))) for one in references
        )

    def gains(
        self,
        tasks: Sequence[Task],
        references: Sequence[Reference],
        settings: Settings,
        watch: Watch,
        *,
        as_one: bool = False,
        near_live: NearLive | None = None,
    ) -> Iterator[Gains]:
        """The gains of each clip in the styles, in order.

        Windows of several clips go through the network together where they need nothing of each other; `as_one` has
        one set of statistics for all of them, as if they were one clip. `near_live`, of a single clip, hears every
        window. Raises `BadRequest` for settings that do not fit the model.
        """
        sampled = [task for task in tasks if task.kept]
        if not sampled:
            images: Iterator[Floats] = iter(())
        elif settings.method == "conditional":
            images = self._conditional(sampled, references, settings, watch, one_by_one=near_live is not None)
        else:
            images = self._injection(sampled, references, settings, watch, as_one)
        for task in tasks:
            if task.kept:
                yield self._gains(task, images, settings, near_live)
            else:
                # A segment of silence, with sound around it alone.
                yield Gains(task.picture.mel, task.picture.mel, self.model.profile)

    def _gains(self, task: Task, images: Iterator[Floats], settings: Settings, near_live: NearLive | None) -> Gains:
        """Those of one clip, from as many of the images as it has windows."""
        profile, picture, kept = self.model.profile, task.picture, task.kept
        blended, (first, last) = Blend(kept, picture.mel.shape[-1]), _full_frames(picture)
        # With a phase of its own a piece would not fit the one before; with injection all windows come at once.
        heard = settings.method == "conditional" and settings.reconstruction in OF_CONTENT
        for _ in kept:
            blended.add(from_image(next(images), profile, picture.maximum))
            if heard and near_live:
                near_live.window(blended, picture, first)
        styled, reference = blended.result(), picture.mel
        if settings.reconstruction == "gain":
            styled, reference = np.split(styled, 2)
            see_under_floor(styled, reference, picture.mel, picture.floor)
            limit_edges(styled, reference, first, last)
        joints = tuple(frame / profile.frame_rate for frame in seams(kept, profile.frames))
        return Gains(styled, reference, profile, seams=joints)

    def _injection(
        self, tasks: Sequence[Task], references: Sequence[Reference], settings: Settings, watch: Watch, as_one: bool
    ) -> Iterator[Floats]:
        """Of each wanted window log pictures `[channel, mel, frame]`, stylised by inversion and injection (METHOD 2–4).

        For gains the content's are behind them, through the same autoencoder.
        """
        stylizer = self._stylizer(settings, watch)
        # Gains compare with the content; the published reconstructions take the model's own way back as it is.
        exact = settings.reconstruction == "gain"
        runs = [list(tasks)] if as_one else list(_bunched(tasks, self.windows_per_pass))
        windows = [sum(task.windows for task in run) for run in runs]
        prepared = self._prepared(
            stylizer,
            references,
            watch,
            lambda missing: stylizer.passes(0, missing) + sum(stylizer.passes(count, 0, exact) for count in windows),
        )
        for run in runs:
            watch.stage("diffusion")
            content, columns = _joined([self._encoded(task.picture, task.starts) for task in run])
            sampled = torch.from_numpy(np.concatenate([np.repeat(task.wanted, task.channels) for task in run]))
            # Each clip has its own statistics, or all have one (METHOD 3).
            clips = None if as_one else [task.windows for task in run]
            styled = stylizer.run(content, prepared, columns, sampled, exact, clips)
            watch.stage("decoding")
            rows = [task.channels for task in run for _ in task.kept]
            images = self._decoded(styled, rows)
            if exact:
                images = _paired(images, self._decoded(content[sampled.to(content.device)], rows))
            yield from images

    def _conditional(
        self,
        tasks: Sequence[Task],
        references: Sequence[Reference],
        settings: Settings,
        watch: Watch,
        one_by_one: bool,
    ) -> Iterator[Floats]:
        """As `_injection`, by a network that is told of content and style; here every window is wanted.

        One by one, windows can be heard the sooner.
        """
        way = self._told(settings, watch)
        groups = list(_grouped(tasks, 1 if one_by_one else self.windows_per_pass))
        passes = sum(way.passes(sum(task.channels for task, _ in group), 0) for group in groups)
        prepared = self._prepared(way, references, watch, lambda missing: passes + way.passes(0, missing))
        weights = normalised(settings.style_weight, len(references))
        levels = [picture.level for picture, _ in references]
        profile = self.model.profile
        noise = sum(
            weight * noisiness(self._windows(*one)[0], profile) for weight, one in zip(weights, references, strict=True)
        )

        def gain(task: Task) -> NDArray[np.float32]:
            each = [weight * match_eq(task.level, level) for weight, level in zip(weights, levels, strict=True)]
            return np.asarray(np.sum(each, axis=0), np.float32)

        gains = {id(task): gain(task) for task in tasks}
        for group in groups:
            # Its clips are finished before the next group comes.
            watch.stage("diffusion")
            windows = [self._windows(task.picture, [start]) for task, start in group]
            pictures = np.concatenate([picture for picture, _ in windows])
            guides = np.concatenate(
                [
                    equalised(picture, gains[id(task)], profile)
                    for (task, _), (picture, _) in zip(group, windows, strict=True)
                ]
            )
            content, columns = _joined([(self._latent(picture), columns) for picture, columns in windows])
            styled = way.run(content, self._latent(guides), prepared, columns)
            answers = self.model.latent.decode(styled).cpu().numpy()
            aims = pictures + np.float32(way.alpha) * (guides - pictures)
            rows = [task.channels for task, _ in group]
            images = _split(releveled(answers, aims, noise, profile), rows)
            yield from _paired(images, _split(pictures, rows)) if settings.reconstruction == "gain" else images

    def _way(self, settings: Settings, watch: Watch) -> _Way[Any]:
        return self._told(settings, watch) if settings.method == "conditional" else self._stylizer(settings, watch)

    def _stylizer(self, settings: Settings, watch: Watch) -> Stylizer:
        inverter = self._denoiser()
        return Stylizer(
            inverter, self._sampler(inverter, settings), settings, tick=watch.tick,
            windows_per_pass=self.windows_per_pass, feature_budget=self.feature_budget,
        )  # fmt: skip

    def _told(self, settings: Settings, watch: Watch) -> Conditional:
        model = self.model
        if model.encoder is None:
            raise BadRequest(f"method: {model.name} has no 'conditional'; it has {', '.join(model.methods)}")
        # Refuses a prompt where the model has no text.
        base = self._sampler(self._denoiser(), settings)
        return Conditional(
            base,
            model.encoder,
            model.spread,
            settings,
            contrast=model.contrast,
            tick=watch.tick,
            windows_per_pass=self.windows_per_pass,
        )

    def _prepared(
        self, way: _Way[Prepared_co], references: Sequence[Reference], watch: Watch, passes: Callable[[int], int]
    ) -> list[Prepared_co]:
        """The styles, from the cache where it has them; `passes` says what to expect, by how many it has not."""
        watch.stage("style")
        cut = [self._windows(*one) for one in references]
        keys = [self._key(way, *one) if self.cache is not None else "" for one in cut]
        kept = [self._kept(way, key, columns) for key, (_, columns) in zip(keys, cut, strict=True)]
        watch.expect(passes(kept.count(None)))
        return [
            self._prepare(way, key, *one) if style is None else style
            for style, key, one in zip(kept, keys, cut, strict=True)
        ]

    def _prepare(
        self, way: _Way[Prepared_co], key: str, windows: NDArray[np.float32], columns: torch.Tensor | None
    ) -> Prepared_co:
        style = way.prepare(self._latent(windows), columns)
        if self.cache is not None:
            self.cache.put(key, style.to_tensors())
        return style

    def _kept(self, way: _Way[Prepared_co], key: str, columns: torch.Tensor | None) -> Prepared_co | None:
        tensors = self.cache.get(key, self.model.device) if self.cache is not None else None
        return None if tensors is None else way.restore(tensors, columns)

    def _key(self, way: _Way[Any], windows: NDArray[np.float32], columns: torch.Tensor | None) -> str:
        """What a prepared style depends on: the model as it is loaded, the method's own, and the style's windows.

        Not on a prompt: a style is inverted with the empty one, whose embedding counts, and read without.
        """
        model = self.model
        codec = model.latent
        about = {
            "weights": model.sha256,
            # The same weights mean something else by another configuration.
            "unet": _config(model.unet),
            "encoder": _config(model.encoder) if model.encoder else None,
            "codec": _config(codec.vae) if isinstance(codec, Autoencoder) else vars(codec),
            "dtype": str(model.dtype),
            "device": model.device.type,
            "libraries": [torch.__version__, _diffusers()],
            "style": way.depends(),
        }
        marks = None if columns is None else columns.cpu().numpy()
        return style_key(about, [windows, marks, model.embedding().numpy()])

    def _denoiser(self) -> Denoiser:
        model = self.model
        return Denoiser(model.unet, model.scheduler, model.embedding(), graphs=model.graphs)

    def _encoded(self, picture: Picture, starts: list[int]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Latents of windows, a clip's channels side by side, and which of their columns count."""
        windows, columns = self._windows(picture, starts)
        return self._latent(windows), columns

    def _windows(self, picture: Picture, starts: list[int]) -> tuple[NDArray[np.float32], torch.Tensor | None]:
        """Pictures `[window, mel, frame]`, a clip's channels side by side, and which latent columns count."""
        pictures, counts = picture.windows(starts)
        columns = self._columns(np.repeat(counts, pictures.shape[1], axis=0))
        return pictures.reshape(-1, *pictures.shape[2:]), columns

    def _latent(self, windows: NDArray[np.float32]) -> torch.Tensor:
        return self.model.latent.encode(torch.from_numpy(windows)).to(self.model.device)

    def _decoded(self, latents: torch.Tensor, rows: Sequence[int]) -> Iterator[Floats]:
        """Log pictures of each window, which has so many rows; a few are decoded at a time, however many there are."""
        windows = torch.split(latents, list(rows))
        for first in range(0, len(windows), DECODED):
            few = slice(first, first + DECODED)
            yield from _split(self.model.latent.decode(torch.cat(windows[few])).cpu().numpy(), rows[few])

    def _sampler(self, inverter: Denoiser, settings: Settings) -> Denoiser:
        if not settings.prompt:
            return inverter
        embedding = self.model.embedding(settings.prompt)
        if settings.prompt_end is not None:
            embedding = torch.lerp(embedding, self.model.embedding(settings.prompt_end), settings.prompt_mix)
        model = self.model
        return Denoiser(
            model.unet, model.scheduler, embedding, model.embedding(), settings.guidance, graphs=model.graphs
        )

    def _columns(self, counts: NDArray[np.bool_]) -> torch.Tensor | None:
        """Which latent columns count, `[window, width]`: those with a frame that does; None where all do."""
        factor = self.model.latent.factor
        columns = counts.reshape(counts.shape[0], -1, factor).any(axis=2)
        return None if columns.all() else torch.from_numpy(columns).to(self.model.device)

    def _wanted(self, passage: Passage, starts: list[int]) -> NDArray[np.bool_]:
        """Which windows touch the body of the passage, with the reach of the STFT around it."""
        profile = self.model.profile
        rate = profile.frame_rate / passage.sample_rate
        reach = profile.window / profile.hop
        low, high = passage.first * rate - reach, passage.last * rate + reach
        return np.array([start < high and start + profile.frames > low for start in starts])


class _Style(Protocol):
    """A style as a method has prepared it."""

    def to_tensors(self) -> dict[str, torch.Tensor]: ...


Prepared_co = TypeVar("Prepared_co", bound=_Style, covariant=True)


class _Way(Protocol[Prepared_co]):
    """What both methods do with a style."""

    def depends(self) -> dict[str, object]: ...
    def passes(self, content_windows: int, styles: int) -> int: ...
    def prepare(self, latent: torch.Tensor, columns: torch.Tensor | None) -> Prepared_co: ...
    def restore(self, tensors: Mapping[str, torch.Tensor], columns: torch.Tensor | None) -> Prepared_co: ...


def picture_of_passage(
    passage: Passage,
    settings: Settings,
    profile: Profile,
    shared: Shared | None = None,
    transform: Transform = mel_spectrogram,
) -> Picture:
    """What a model sees of a passage: its channels as one, each by itself, or mid and side."""
    carrier = mid_side(passage.carrier) if settings.stereo == "mid-side" else passage.carrier
    return picture_of(carrier, passage.sample_rate, profile, settings.stereo == "linked", shared, transform)


def _bunched(tasks: Sequence[Task], rows: int) -> Iterator[list[Task]]:
    """Clips in order, as many at a time as have so many windows; at least one."""
    bunch: list[Task] = []
    for task in tasks:
        if bunch and sum(one.windows for one in bunch) + task.windows > rows:
            yield bunch
            bunch = []
        bunch.append(task)
    if bunch:
        yield bunch


def _grouped(tasks: Sequence[Task], rows: int) -> Iterator[list[tuple[Task, int]]]:
    """The windows of all clips in order, as many at a time as have so many channels; at least one."""
    group: list[tuple[Task, int]] = []
    for task in tasks:
        for start in task.starts:
            if group and sum(one.channels for one, _ in group) + task.channels > rows:
                yield group
                group = []
            group.append((task, start))
    if group:
        yield group


def _joined(parts: Sequence[tuple[torch.Tensor, torch.Tensor | None]]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Latents of several clips behind one another, and which of their columns count; None where all do."""
    latents = torch.cat([latent for latent, _ in parts])
    if all(columns is None for _, columns in parts):
        return latents, None
    counted = [
        torch.ones(len(latent), latent.shape[-1], dtype=torch.bool, device=latent.device)
        if columns is None
        else columns
        for latent, columns in parts
    ]
    return latents, torch.cat(counted)


def _split(images: Floats, rows: Sequence[int]) -> Iterator[Floats]:
    """The images of each window, which has so many rows."""
    return iter(np.split(images, np.cumsum(rows)[:-1]))


def _paired(styled: Iterator[Floats], content: Iterator[Floats]) -> Iterator[Floats]:
    """Of each window the images of the one, and behind them those of the other."""
    return (np.concatenate(pair) for pair in zip(styled, content, strict=True))


def _planned(picture: Picture, overlap: float, grid: int) -> list[int]:
    """Windows over what is not silence before and after the clip; silence within is not rendered either."""
    sounding = np.flatnonzero(~picture.silent)
    first, last = int(sounding[0]), int(sounding[-1]) + 1
    window = picture.profile.frames
    starts = window_starts(last - first, window, overlap, first, grid)
    return [start for start in starts if not picture.silent[start : start + window].all()]


def _full_frames(picture: Picture) -> tuple[int, int]:
    """First and last frame whose analysis window lies in the sound, reaching neither before nor behind it."""
    sounding = np.flatnonzero(~picture.silent)
    reach = -(-picture.profile.window // picture.profile.hop)
    return int(sounding[0]) + reach, int(sounding[-1]) - reach


def _thinned(starts: list[int], wanted: NDArray[np.bool_]) -> tuple[list[int], NDArray[np.bool_]]:
    """The wanted windows, and an even choice of the others for the statistics."""
    others = np.flatnonzero(~wanted)
    spread = others[np.linspace(0, len(others) - 1, min(len(others), STATISTICS_WINDOWS)).round().astype(int)]
    kept = np.sort(np.concatenate([np.flatnonzero(wanted), spread]))
    return [starts[number] for number in kept], wanted[kept]


@cache
def _diffusers() -> str:
    """Its version, which takes milliseconds to look up."""
    return version("diffusers")


def _config(module: Any) -> dict[str, object]:
    """The configuration of a part of the model, without where it came from."""
    return {name: value for name, value in module.config.items() if not name.startswith("_")}
