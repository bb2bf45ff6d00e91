"""The one place where sound meets diffusion: content and styles in, a stem and its report out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from . import auto
from .audio import AudioInfo, Clip, probe, read_clip
from .conditional import Conditional
from .denoiser import Denoiser
from .errors import BadRequest, NotAllowed, NotFound, OutOfMemory, StylusError, UnsupportedAudio
from .finish import finish
from .gains import Gains, hold
from .latent import Autoencoder
from .loudness import integrated
from .match_eq import equalised, match_eq
from .memory import feature_budget, windows_per_pass
from .model import Model, load_model
from .near_live import NearLive
from .passage import Passage, is_segment, passage_of, segment_of
from .progress import Progress, Watch, part
from .reconstruction import OF_CONTENT, mid_side, reconstruct
from .reference import Picture, picture_of, reference_windows
from .settings import Line, Settings
from .spectrogram import from_image
from .stem import stem_subtype
from .style import normalised
from .style_cache import StyleCache, style_key
from .stylize import Stylizer
from .windows import Blend, seams, window_starts

log = logging.getLogger(__name__)

Floats = NDArray[np.floating[Any]]
Source = Path | str | tuple[Floats, int]
"""A file, or `(array [channel, sample] or [sample], sample rate)`."""

Done = TypeVar("Done")

STATISTICS_WINDOWS = 16
"""A preview's statistics come from so many windows, spread over the whole clip."""


@dataclass(frozen=True)
class Render:
    """A finished stem.

    `audio` is `[channel, sample]`, float32 (float64 where the content's file holds more), at `sample_rate`. `report`
    says what was done and what the user should know. `gains` are None where no model ran; with `passage` and `finish`
    the stem can be made again with another mix, amount, kept band, attack or level. `subtype` and `clip`, which has no
    samples any more, are what a file of the stem takes over from the content.
    """

    audio: Floats
    sample_rate: int
    report: dict[str, Any]
    gains: Gains | None
    passage: Passage
    clip: Clip
    subtype: str


class Engine:
    """A model, warm, that renders clips.

    With a `cache`, a style that is in it needs no pass of the network, and the same samples come out. Raises `NoModel`
    and `BadRequest` as `load_model` does.
    """

    def __init__(
        self, model: str = "mini", device: str = "auto", dtype: str = "auto", cache: StyleCache | None = None
    ) -> None:
        self.model: Model = load_model(model, device, dtype)
        self.cache = cache
        self.windows_per_pass = windows_per_pass(self.model.device)
        self.feature_budget = feature_budget(self.model.device)
        self._others: dict[str, Model] = {}

    def _on(self, method: str) -> Engine:
        """The engine that runs a method: this one, or the same with the model that the method is left to."""
        name = self.model.elsewhere.get(method)
        if name is None:
            return self
        if name not in self._others:
            dtype = str(self.model.dtype).removeprefix("torch.")
            self._others[name] = load_model(name, str(self.model.device), dtype)
        other = copy(self)
        other.model = self._others[name]
        return other

    def use_less_memory(self) -> str | None:
        """After `OutOfMemory`: halve the windows of a pass, then keep nothing on the device; None where that is all.

        Returns what it did, in words. It stays so for this engine.
        """
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.windows_per_pass > 1:
            self.windows_per_pass //= 2
            return f"memory did not suffice; {self.windows_per_pass} windows at a time"
        if self.feature_budget:
            self.feature_budget = 0
            if self.cache:
                self.cache.offload()
            return "memory did not suffice; features are computed again for every step"
        return None

    def settings(self, **changes: object) -> Settings:
        """The model's own defaults with changes, by any name of an option."""
        return self.model.settings(**changes)

    def render(
        self,
        content: Source,
        style: Source | Sequence[Source],
        settings: Settings | None = None,
        progress: Progress | None = None,
        near_live: NearLive | None = None,
    ) -> Render:
        """Give `content` the sound of `style` (one, or several to be blended).

        `near_live` gets the stem piece by piece, where the method goes window by window (`conditional`) before all of
        it is rendered.

        Raises `NotFound` and `UnsupportedAudio` for files, `BadRequest` for settings that do not fit the clip or the
        model, and whatever `progress` raises; `OutOfMemory` where less and less memory at a time did not help.
        """
        settings = self.model.with_steps(settings or self.settings())
        if settings.auto is not None:
            render = self._automatic(content, style, settings, progress)
        else:
            render, said = self._within_memory(
                lambda: self._on(settings.method)._rendered(content, style, settings, Watch(progress), near_live)
            )
            render.report["notes"] += said
        if near_live:
            near_live.end(render.audio, render.sample_rate)
        return render

    def _automatic(
        self, content: Source, style: Source | Sequence[Source], settings: Settings, progress: Progress | None
    ) -> Render:
        """A render whose γ and α are found (`auto`); says what was found, and where the clip would not bear it."""
        here = copy(self)
        # Every try has the same style.
        here.cache = self.cache or StyleCache()
        # The excerpts take half of the bar.
        parts = (part(progress, at / auto.TRIES / 2, (at + 1) / auto.TRIES / 2, "auto") for at in range(auto.TRIES))

        def excerpt(tried: Settings) -> float:
            return _kept(here.render(content, style, tried, next(parts)))

        def whole(tried: Settings) -> tuple[Render, float]:
            render = here.render(content, style, tried, part(progress, 0.5, 1.0))
            return render, _kept(render)

        found = auto.found(settings, excerpt, whole)
        render, asked = found.made, settings.auto
        render.report["auto"] = {"asked": asked, "similarity": round(found.similarity, 4)}
        values = f"keep {_shown(found.settings.gamma)}, amount {_shown(found.settings.alpha)}"
        if found.kept:
            render.report["notes"].append(f"auto: {values}; similarity {found.similarity:.2f} of at least {asked:g}")
        else:
            render.report["notes"].append(
                f"auto: the similarity is {found.similarity:.2f}, LESS than the {asked:g} asked for, even with {values}"
            )
        return render

    def check(self, content: Source, style: Source | Sequence[Source], settings: Settings | None = None) -> None:
        """Raise what `render` would for settings that do not fit the clip, the styles or the model.

        Takes no pass of the UNet, and reads no more of a file than its header.
        """
        settings = self.model.with_steps(settings or self.settings())
        channels, total, rate = _extent(content)
        _check_counts(settings, len(_listed(style)), channels)
        segment_of(settings, total, rate)
        if settings.mix > 0:
            self._on(settings.method)._way(settings, Watch(None))

    def _within_memory(self, work: Callable[[], Done]) -> tuple[Done, list[str]]:
        """Work, on less and less memory at a time where it does not suffice; with what that took, in words."""
        said: list[str] = []
        while True:
            try:
                return work(), said
            except OutOfMemory:
                if (step := self.use_less_memory()) is None:
                    raise
                log.warning("out of memory: %s", step)
                said.append(step)

    def _rendered(
        self,
        content: Source,
        style: Source | Sequence[Source],
        settings: Settings,
        watch: Watch,
        near_live: NearLive | None = None,
    ) -> Render:
        watch.stage("reading")
        styles = [_read(one) for one in _listed(style)]
        clip, passage = self.passage(content, settings)
        _check_counts(settings, len(styles), len(passage.dry))
        subtype = stem_subtype(clip.subtype, settings.bits)
        integer = subtype not in ("FLOAT", "DOUBLE")
        style_lufs = _loudness_of(styles) if settings.loudness == "match" else None
        if near_live:
            near_live.begin(passage, settings, self.model.profile, integer, style_lufs)
        gains, wet = None, np.zeros(passage.carrier.shape, passage.carrier.dtype)
        if settings.mix > 0 and passage.carrier.any():
            with self._enough_memory():
                gains = self._gains(passage, styles, settings, watch, near_live)
            watch.stage("reconstruction")
            wet = reconstruct(passage, gains, settings, watch.nearly)
        watch.stage("finishing")
        audio, notes = finish(passage, wet, settings, integer, style_lufs)
        watch.stage("done", 1.0)
        report = {
            "settings": settings.to_dict(),
            "model": {"name": self.model.name, "sha256": self.model.sha256},
            "device": str(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "sample_rate": clip.sample_rate,
            "samples": audio.shape[1],
            "channels": audio.shape[0],
            "start_sample": passage.offset,
            "loop": passage.loop is not None,
            "seams": _inside(gains.seams, passage) if gains else [],
            "notes": [*clip.warnings, *(note for one in styles for note in one.warnings), *notes],
            "timings": watch.timings(),
        }
        return Render(audio, clip.sample_rate, report, gains, passage, clip, subtype)

    def level(self, source: Source) -> NDArray[np.float32]:
        """The long-term level per band of a sound, in dB, `[mel]`; raises what `render` does for a file."""
        clip = _read(source)
        return picture_of(clip.audio, clip.sample_rate, self.model.profile).level

    def audition(self, passage: Passage, styles: Iterable[Source], settings: Settings) -> Iterator[Gains | StylusError]:
        """The gains of a passage (`passage`, of the same settings) in one style after the other.

        They lie on its carrier. What makes sound of them, and all that comes behind, is left out, so that many styles
        can be heard at once by who listens (`audition.score_of`). A style that cannot be read gives its error in its
        place. Raises what `render` does for settings, and `UnsupportedAudio` for a silent passage.
        """
        settings = self.model.with_steps(settings)
        here, watch = self._on(settings.method), Watch(None)
        _check_counts(settings, 1, len(passage.dry))
        if not passage.carrier.any():
            raise UnsupportedAudio("this passage is silent; choose one with some sound")
        task = here._task(passage, settings, watch)
        for style in styles:
            try:
                found = replace(task, references=here._references([_read(style)], settings))
                with here._enough_memory():
                    yield here._gains_of(found)
            except (UnsupportedAudio, NotFound, NotAllowed) as error:
                yield error

    def warm(
        self, style: Source | Sequence[Source], settings: Settings | None = None, progress: Progress | None = None
    ) -> None:
        """Put `style` into the cache, ready for a render with `settings`; without a cache there is nothing to do.

        Raises what `render` does for a style.
        """
        if self.cache is None:
            return
        settings = self.model.with_steps(settings or self.settings())
        self._within_memory(lambda: self._on(settings.method)._warmed(style, settings, Watch(progress)))

    def _warmed(self, style: Source | Sequence[Source], settings: Settings, watch: Watch) -> None:
        watch.stage("reading")
        references = self._references([_read(one) for one in _listed(style)], settings)
        with self._enough_memory():
            way = self._way(settings, watch)
            self._prepared(way, references, watch, lambda missing: way.passes(0, missing))
        watch.stage("done", 1.0)

    def is_warm(self, style: Source | Sequence[Source], settings: Settings | None = None) -> bool:
        """Whether a render of `style` with `settings` would find it in the cache; raises what `warm` does."""
        if self.cache is None:
            return False
        settings = self.model.with_steps(settings or self.settings())
        here = self._on(settings.method)
        way = here._way(settings, Watch(None))
        references = here._references([_read(one) for one in _listed(style)], settings)
        return all(self.cache.has(here._key(way, *here._windows(*one))) for one in references)

    def passage(self, content: Source, settings: Settings) -> tuple[Clip, Passage]:
        """Read what the render needs of the content, all of it or a segment with a window's context: the passage.

        With it comes what else the file says; the samples are in the passage alone.
        """
        if isinstance(content, tuple):
            clip = Clip.from_array(*content)
            total, rate = clip.audio.shape[1], clip.sample_rate
        else:
            info: AudioInfo = probe(Path(content))
            total, rate = info.samples, info.sample_rate
        start, end = segment_of(settings, total, rate)
        profile = self.model.profile
        context = round(profile.seconds * rate)
        # Whole hops, and more than the analysis window reaches.
        margin = round(-(-profile.window // profile.hop) * profile.hop * rate / profile.sample_rate)
        if not isinstance(content, tuple):
            around = context if is_segment(settings) else 0
            clip = read_clip(Path(content), max(0, start - around), min(total, end + around))
        passage = passage_of(clip, settings, start, end, context, margin)
        # It has the samples, with their surroundings: of a long clip every copy counts.
        return replace(clip, audio=clip.audio[:, :0].copy()), passage

    def _gains(
        self, passage: Passage, styles: Sequence[Clip], settings: Settings, watch: Watch, near_live: NearLive | None
    ) -> Gains:
        """Everything that the model does for a clip (METHOD 1–4 and 6)."""
        task = self._task(passage, settings, watch, near_live)
        return self._gains_of(replace(task, references=self._references(styles, settings)), near_live)

    def _task(self, passage: Passage, settings: Settings, watch: Watch, near_live: NearLive | None = None) -> _Task:
        """What a clip gives to a render, whatever the style."""
        carrier = mid_side(passage.carrier) if settings.stereo == "mid-side" else passage.carrier
        picture = picture_of(carrier, passage.sample_rate, self.model.profile, settings.stereo == "linked")
        starts = _planned(picture, settings.overlap)
        wanted = self._wanted(passage, starts)
        if settings.method == "conditional":
            starts, wanted = [start for start, want in zip(starts, wanted, strict=True) if want], wanted[wanted]
        elif settings.preview is not None:
            starts, wanted = _thinned(starts, wanted)
        # One by one they can be heard the sooner.
        together = 1 if near_live else max(1, self.windows_per_pass // picture.mel.shape[0])
        return _Task(picture, starts, wanted, [], settings, watch, together)

    def _gains_of(self, task: _Task, near_live: NearLive | None = None) -> Gains:
        model, profile = self.model, self.model.profile
        picture, settings = task.picture, task.settings
        conditional = settings.method == "conditional"
        latents = (self._conditional if conditional else self._injection)(task)
        images = (model.latent.decode(latent).cpu().numpy() for latent in latents)
        kept = [start for start, want in zip(task.starts, task.wanted, strict=True) if want]
        blended, (first, last) = Blend(kept, picture.mel.shape[-1]), _full_frames(picture)
        # With a phase of its own a piece would not fit the one before; with injection all windows come at once.
        heard = near_live if conditional and settings.reconstruction in OF_CONTENT else None
        for image in images:
            blended.add(from_image(image, profile, picture.maximum))
            if heard:
                heard.window(blended, first)
        styled, reference = np.split(blended.result(), 2)
        if settings.reconstruction == "gain":
            hold(styled, reference, first, last)
        joints = tuple(frame / profile.frame_rate for frame in seams(kept, profile.frames))
        return Gains(styled, reference, profile, seams=joints)

    def _injection(self, task: _Task) -> Iterator[torch.Tensor]:
        """Of each wanted window latents `[2 · channel, ...]`, stylised by inversion and injection (METHOD 2–4), and the
        content's behind them.
        """
        settings, watch, channels = task.settings, task.watch, task.picture.mel.shape[0]
        stylizer = self._stylizer(settings, watch)
        # Gains compare with the content; the published reconstructions take the model's own way back as it is.
        exact = settings.reconstruction == "gain"
        windows = len(task.starts) * channels
        prepared = self._prepared(
            stylizer, task.references, watch, lambda missing: stylizer.passes(windows, missing, exact)
        )
        watch.stage("diffusion")
        content, columns = self._encoded(task.picture, task.starts)
        sampled = torch.from_numpy(np.repeat(task.wanted, channels))
        styled = stylizer.run(content, prepared, columns, sampled, exact)
        watch.stage("decoding")
        yield from _paired(styled, content[sampled.to(content.device)], channels)

    def _conditional(self, task: _Task) -> Iterator[torch.Tensor]:
        """As `_injection`, by a network that is told of content and style; here every window is wanted."""
        model, settings, watch, picture = self.model, task.settings, task.watch, task.picture
        channels = picture.mel.shape[0]
        way = self._told(settings, watch)
        together = task.together
        groups = [task.starts[first : first + together] for first in range(0, len(task.starts), together)]
        passes = sum(way.passes(len(group) * channels, 0) for group in groups)
        prepared = self._prepared(way, task.references, watch, lambda missing: passes + way.passes(0, missing))
        watch.stage("diffusion")
        weights, level = normalised(settings.style_weight, len(task.references)), picture.level
        gains = [match_eq(level, one.level) for one, _ in task.references]
        gain = sum((weight * gain for weight, gain in zip(weights, gains, strict=True)), start=np.zeros(()))
        noise = torch.Generator().manual_seed(settings.seed)
        for group in groups:
            windows, columns = self._windows(picture, group)
            content, guide = self._latent(windows), self._latent(equalised(windows, gain, model.profile))
            yield from _paired(way.run(content, guide, prepared, columns, noise), content, channels)

    def _references(self, styles: Sequence[Clip], settings: Settings) -> list[_Reference]:
        """Each style's picture, with the first frames of the windows that stand for it."""
        pictures = [picture_of(clip.audio, clip.sample_rate, self.model.profile) for clip in styles]
        chosen = [reference_windows(one, self.model.style_windows, settings.variation) for one in pictures]
        if settings.blend == "features":
            chosen = [windows[: min(map(len, chosen))] for windows in chosen]
        return list(zip(pictures, chosen, strict=True))

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
            base, model.encoder, model.spread, settings, tick=watch.tick, windows_per_pass=self.windows_per_pass
        )

    def _prepared(
        self, way: _Way[Prepared_co], references: Sequence[_Reference], watch: Watch, passes: Callable[[int], int]
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
            "libraries": [torch.__version__, version("diffusers")],
            "style": way.depends(),
        }
        marks = None if columns is None else columns.cpu().numpy()
        return style_key(about, [windows, marks, model.embedding().numpy()])

    @contextmanager
    def _enough_memory(self) -> Iterator[None]:
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise OutOfMemory(f"not enough memory on {self.model.device} for this render") from error

    def _denoiser(self) -> Denoiser:
        return Denoiser(self.model.unet, self.model.scheduler, self.model.embedding())

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

    def _sampler(self, inverter: Denoiser, settings: Settings) -> Denoiser:
        if not settings.prompt:
            return inverter
        embedding = self.model.embedding(settings.prompt)
        if settings.prompt_end is not None:
            embedding = torch.lerp(embedding, self.model.embedding(settings.prompt_end), settings.prompt_mix)
        return Denoiser(self.model.unet, self.model.scheduler, embedding, self.model.embedding(), settings.guidance)

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


_Reference = tuple[Picture, list[int]]
"""A style's picture, with the first frames of its windows."""


@dataclass(frozen=True)
class _Task:
    """What a method gets of a render: the clip's picture and windows, those to sample, and the references."""

    picture: Picture
    starts: list[int]
    wanted: NDArray[np.bool_]
    references: list[_Reference]
    settings: Settings
    watch: Watch
    together: int
    """How many windows are sampled at once, where they need nothing of each other."""


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


def _paired(styled: torch.Tensor, content: torch.Tensor, channels: int) -> Iterator[torch.Tensor]:
    """Of each window the channels of the one, and behind them those of the other."""
    for pair in zip(torch.split(styled, channels), torch.split(content, channels), strict=True):
        yield torch.cat(pair)


def _planned(picture: Picture, overlap: float) -> list[int]:
    """Windows over what is not silence before and after the clip; silence within is not rendered either."""
    sounding = np.flatnonzero(~picture.silent)
    first, last = int(sounding[0]), int(sounding[-1]) + 1
    window = picture.profile.frames
    starts = window_starts(last - first, window, overlap, first)
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


def _config(module: Any) -> dict[str, object]:
    """The configuration of a part of the model, without where it came from."""
    return {name: value for name, value in module.config.items() if not name.startswith("_")}


def _listed(style: Source | Sequence[Source]) -> list[Source]:
    if isinstance(style, str | Path) or (isinstance(style, tuple) and len(style) == 2 and isinstance(style[1], int)):
        return [style]
    styles = list(style)
    if not styles:
        raise BadRequest("a render needs at least one style")
    return styles


def _read(source: Source) -> Clip:
    return Clip.from_array(*source) if isinstance(source, tuple) else read_clip(Path(source))


def _kept(render: Render) -> float:
    """How similar a stem is to what was rendered."""
    passage = render.passage
    return auto.similarity(render.audio, passage.dry[:, passage.first : passage.last], render.sample_rate)


def _shown(line: Line) -> str:
    return ":".join(f"{value:g}" for value in line) if isinstance(line, tuple) else f"{line:g}"


def _extent(source: Source) -> tuple[int, int, int]:
    """Channels, samples and sample rate of a clip."""
    if isinstance(source, tuple):
        clip = Clip.from_array(*source)
        return (*clip.audio.shape, clip.sample_rate)
    info = probe(Path(source))
    return info.channels, info.samples, info.sample_rate


def _check_counts(settings: Settings, styles: int, channels: int) -> None:
    if settings.style_weight is not None and len(settings.style_weight) != styles:
        raise BadRequest(f"style_weight: {len(settings.style_weight)} weights for {styles} styles")
    if settings.stereo == "mid-side" and channels != 2:
        raise BadRequest(f"stereo: mid-side needs 2 channels, the content has {channels}")


def _inside(seams: Sequence[float], passage: Passage) -> list[float]:
    """Seams of the carrier that lie in the stem, in its seconds."""
    rate = passage.sample_rate
    moved = [seam - passage.first / rate for seam in seams]
    return [round(seam, 4) for seam in moved if 0 < seam < (passage.last - passage.first) / rate]


def _loudness_of(styles: Sequence[Clip]) -> float:
    return float(np.mean([integrated(clip.audio, clip.sample_rate) for clip in styles]))
