"""A model, warm, and what it does for clips: content and styles in, a stem and its report out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from . import auto
from .audio import AudioInfo, Clip, probe, read_clip
from .bursts import standing_out
from .errors import BadRequest, NotAllowed, NotFound, OutOfMemory, StylusError, UnsupportedAudio
from .finish import finish, level_of, lowered
from .gains import Gains
from .memory import Budget, give_back
from .model import Model, load_model, means_no_memory
from .near_live import NearLive
from .passage import Passage, is_segment, is_silent, passage_of, segment_of
from .progress import Progress, Watch, part
from .reconstruction import reconstruct
from .reference import Picture, Shared, picture_of
from .restyler import Restyler, picture_of_passage
from .riff import Chunk
from .scratch import zeros
from .settings import Line, Settings
from .spectrogram import Profile
from .stem import stem_subtype
from .style_cache import StyleCache
from .unchanged import WhileUnchanged

log = logging.getLogger(__name__)

Floats = NDArray[np.floating[Any]]
Source = Path | str | tuple[Floats, int]
"""A file, or `(array [channel, sample] or [sample], sample rate)`."""

_OF_ONE_CLIP = (UnsupportedAudio, NotFound, NotAllowed, BadRequest)
"""What is wrong with a clip, or with the settings for it, and holds up no other."""

Done = TypeVar("Done")


@dataclass(frozen=True)
class Render:
    """A finished stem.

    `audio` is `[channel, sample]`, float32 (float64 where the content's file holds more), at `sample_rate`. `report`
    says what was done and what the user should know. `gains` are None where no model ran; with `passage` and `finish`
    the stem can be made again with another mix, amount, kept band, attack or level. `subtype` and `clip`, which has no
    samples any more, are what a file of the stem takes over from the content. `lowered_db` kept it under its ceiling.
    """

    audio: Floats
    sample_rate: int
    report: dict[str, Any]
    gains: Gains | None
    passage: Passage
    clip: Clip
    subtype: str
    lowered_db: float = 0.0


class Engine:
    """A model, warm, that renders clips.

    `model` is a name, a folder or a file, or one that is loaded already. With a `cache`, a style that is in it needs no
    pass of the network, and the same samples come out. Raises `NoModel` and `BadRequest` as `load_model` does.
    """

    def __init__(
        self, model: str | Model = "mini", device: str = "auto", dtype: str = "auto", cache: StyleCache | None = None
    ) -> None:
        self.model: Model = load_model(model, device, dtype) if isinstance(model, str) else model
        self.cache = cache
        self.budget = Budget(self.model.device)
        self._others: dict[str, Model] = {}

    def _on(self, method: str) -> Restyler:
        """What runs a method: this model, or the one that the method is left to."""
        model = self.model
        name = model.elsewhere.get(method)
        if name is not None:
            if name not in self._others:
                self._others[name] = load_model(name, str(model.device), str(model.dtype).removeprefix("torch."))
            model = self._others[name]
        return Restyler(model, self.cache, self.budget.windows_per_pass, self.budget.features)

    def use_less_memory(self) -> str:
        """After `OutOfMemory`, once its traceback holds nothing any more: give memory back, and lower the budget.

        Returns what it did, in words. It stays so until more memory is free (`Budget`).
        """
        for model in (self.model, *self._others.values()):
            if model.graphs is not None:
                model.graphs.clear()
        if self.cache:
            self.cache.limit(0)
        give_back(self.model.device)
        self.budget.lower()
        if self.budget.is_least:
            return "memory did not suffice; features are computed again for every step"
        return f"memory did not suffice; {self.budget.windows_per_pass} windows at a time"

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
            (found,) = self._several([content], style, settings, progress, near_live=near_live)
            if isinstance(found, StylusError):
                raise found
            render = found
        if near_live:
            near_live.end(render.audio, render.sample_rate)
        return render

    def render_several(
        self,
        contents: Sequence[Source],
        style: Source | Sequence[Source],
        settings: Settings | None = None,
        progress: Progress | None = None,
        shared: Shared | None = None,
        told: Sequence[Sequence[Chunk]] = (),
    ) -> list[Render | StylusError]:
        """Render clips in one style with their windows in the same passes: many short ones take less time so.

        In the place of a clip that cannot be rendered is its error. All clips are in memory at once. With `shared`
        (`Engine.shared`) they are sounds of one instrument: one scale, one spectrum to start from, and for injection
        one set of statistics. `told` holds, for every clip or for none, the chunks that say its loop in place of its
        file's. With `auto` each clip is rendered by itself, whatever the two say. Raises what `render` does for
        settings and styles.
        """
        settings = self.model.with_steps(settings or self.settings())
        if settings.auto is None:
            return self._several(contents, style, settings, progress, shared, told)
        # Each clip bears another amount.
        results: list[Render | StylusError] = []
        for number, content in enumerate(contents):
            here = part(progress, number / len(contents), (number + 1) / len(contents))
            try:
                results.append(self._automatic(content, style, settings, here))
            except _OF_ONE_CLIP as error:
                results.append(error)
        return results

    def shared(self, contents: Iterable[Source], settings: Settings | None = None) -> Shared:
        """What clips have in common as the sounds of one instrument; they are read one after the other.

        One that cannot be read does not count. Raises `BadRequest` for settings that do not fit a clip.
        """
        settings = self.model.with_steps(settings or self.settings())
        profile = self._on(settings.method).model.profile

        def pictures() -> Iterator[Picture]:
            for content in contents:
                try:
                    passage = self.passage(content, settings)[1]
                except (UnsupportedAudio, NotFound, NotAllowed):
                    continue
                # What has no sides is said when it is rendered.
                if settings.stereo != "mid-side" or len(passage.dry) == 2:
                    yield picture_of_passage(passage, settings, profile)

        return Shared.of(pictures(), profile)

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
            self._on(settings.method).check(settings)

    def _within_memory(self, work: Callable[[], Done]) -> tuple[Done, list[str]]:
        """Work, on less and less memory at a time where it does not suffice; with what that took, in words."""
        said: list[str] = []
        self.budget.begin()
        while True:
            if self.cache:
                self.cache.limit(self.budget.most)
            try:
                # All of it: transforms take the device's memory too.
                with _enough_memory(self.model.device):
                    return work(), said
            except OutOfMemory:
                if self.budget.is_least:
                    # It was this work that is too large, whatever the sizes.
                    self.budget.reset()
                    raise
            # Not sooner: the error's traceback holds what the attempt had in memory.
            said.append(self.use_less_memory())
            log.warning("out of memory: %s", said[-1])

    def _several(
        self,
        contents: Sequence[Source],
        style: Source | Sequence[Source],
        settings: Settings,
        progress: Progress | None,
        shared: Shared | None = None,
        told: Sequence[Sequence[Chunk]] = (),
        near_live: NearLive | None = None,
    ) -> list[Render | StylusError]:
        def rendered() -> list[Render | StylusError]:
            watch = Watch(progress)
            watch.stage("reading")
            order = _Order(self._on(settings.method), _listed(style), settings, watch)
            return self._rendered(contents, order, shared, told or [None] * len(contents), near_live)

        results, said = self._within_memory(rendered)
        for result in results:
            if isinstance(result, Render):
                result.report["notes"] += said
        return results

    def _rendered(
        self,
        contents: Sequence[Source],
        order: _Order,
        shared: Shared | None,
        told: Sequence[Sequence[Chunk] | None],
        near_live: NearLive | None,
    ) -> list[Render | StylusError]:
        settings, restyler = order.settings, order.restyler
        begun: list[_Begun | StylusError] = []
        for content, chunks in zip(contents, told, strict=True):
            try:
                begun.append(self._begun(content, order, chunks))
            except _OF_ONE_CLIP as error:
                begun.append(error)
        sounding = [one for one in begun if isinstance(one, _Begun) and one.sounds(settings)]
        found: Iterator[Gains] = iter(())
        if sounding:
            if near_live:
                (one,) = sounding
                near_live.begin(
                    one.passage, settings, restyler.model.profile, one.integer, order.lufs, order.standing_out
                )
            made = restyler.gains(
                [restyler.task(one.passage, settings, shared) for one in sounding],
                restyler.references(order.pictures, settings), settings, order.watch,
                as_one=shared is not None, near_live=near_live,
            )  # fmt: skip
            # All of them before any becomes sound: a picture of a long clip is large, and is not needed any more.
            found = iter(list(made))
        results = [one if isinstance(one, StylusError) else _stem(one, found, order) for one in begun]
        order.watch.stage("done", 1.0)
        for result in results:
            if isinstance(result, Render):
                result.report["timings"] = order.watch.timings()
        return results

    def _begun(self, content: Source, order: _Order, told: Sequence[Chunk] | None) -> _Begun:
        clip, passage = self.passage(content, order.settings, told)
        _check_counts(order.settings, len(order.styles), len(passage.dry))
        return _Begun(clip, passage, stem_subtype(clip.subtype, order.settings.bits))

    def level(self, source: Source) -> NDArray[np.float32]:
        """The long-term level per band of a sound, in dB, `[mel]`; raises what `render` does for a file.

        And `UnsupportedAudio` for a silent one, which has none.
        """
        clip = _read(source)
        if is_silent(clip.audio):
            raise UnsupportedAudio("this sound is silent, and has no level")
        return picture_of(clip.audio, clip.sample_rate, self.model.profile).level

    def audition(
        self, passage: Passage, styles: Iterable[Source], settings: Settings, progress: Progress | None = None
    ) -> Iterator[Gains | StylusError]:
        """The gains of a passage (`passage`, of the same settings) in one style after the other.

        They lie on its carrier; `progress` is told of each style anew. What makes sound of them, and all that comes
        behind, is left out, so that many styles can be heard at once by who listens (`audition.score_of`). A style that
        cannot be read gives its error in its place. Raises what `render` does for settings, and `UnsupportedAudio` for
        a silent passage.
        """
        settings = self.model.with_steps(settings)
        _check_counts(settings, 1, len(passage.dry))
        if is_silent(passage.carrier):
            raise UnsupportedAudio("this passage is silent; choose one with some sound")

        task, _ = self._within_memory(lambda: self._on(settings.method).task(passage, settings))

        def gains(style: Source) -> list[Gains]:
            # Anew each time: its sizes are what the budget says by then.
            restyler = self._on(settings.method)
            references = restyler.references(_pictures([style], restyler), settings)
            return list(restyler.gains([task], references, settings, Watch(progress)))

        for style in styles:
            try:
                found, _ = self._within_memory(partial(gains, style))
                yield from found
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
        self._within_memory(lambda: self._warmed(style, settings, Watch(progress)))

    def _warmed(self, style: Source | Sequence[Source], settings: Settings, watch: Watch) -> None:
        watch.stage("reading")
        restyler = self._on(settings.method)
        restyler.warm(restyler.references(_pictures(_listed(style), restyler), settings), settings, watch)
        watch.stage("done", 1.0)

    def is_warm(self, style: Source | Sequence[Source], settings: Settings | None = None) -> bool:
        """Whether a render of `style` with `settings` would find it in the cache; raises what `warm` does."""
        if self.cache is None:
            return False
        settings = self.model.with_steps(settings or self.settings())
        restyler = self._on(settings.method)
        return restyler.is_warm(restyler.references(_pictures(_listed(style), restyler), settings), settings)

    def passage(self, content: Source, settings: Settings, told: Sequence[Chunk] | None = None) -> tuple[Clip, Passage]:
        """Read what the render needs of the content, all of it or a segment with a window's context: the passage.

        With it comes what else the file says; the samples are in the passage alone. `told` says of a loop
        what counts in place of the file's own chunks.
        """
        if isinstance(content, tuple):
            clip = Clip.from_array(*content)
            total, rate = clip.audio.shape[1], clip.sample_rate
        else:
            info: AudioInfo = probe(Path(content))
            total, rate = info.samples, info.sample_rate
        start, end = segment_of(settings, total, rate)
        profile = self._on(settings.method).model.profile
        context = round(profile.seconds * rate)
        # Whole hops, and more than the analysis window reaches.
        margin = round(-(-profile.window // profile.hop) * profile.hop * rate / profile.sample_rate)
        around = context if is_segment(settings) else 0
        low, high = max(0, start - around), min(total, end + around)
        if isinstance(content, tuple):
            clip = replace(clip, audio=clip.audio[:, low:high], offset=low)
        else:
            clip = read_clip(Path(content), low, high)
        looped = clip if told is None else replace(clip, chunks=tuple(told))
        passage = passage_of(looped, settings, start, end, context, margin)
        # It has the samples, with their surroundings: of a long clip every copy counts.
        return replace(clip, audio=clip.audio[:, :0].copy()), passage


@dataclass(frozen=True, eq=False)
class _Heard:
    """What is kept of a style's sound: its picture, how far it stands out (`bursts`), what the user should know."""

    picture: Picture
    standing_out: float
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, clip: Clip, profile: Profile) -> _Heard:
        picture = picture_of(clip.audio, clip.sample_rate, profile)
        picture.mel.setflags(write=False)
        return cls(picture, standing_out(clip.audio, clip.sample_rate), clip.warnings)


def _heard_file(path: Path, profile: Profile) -> _Heard:
    return _Heard.of(read_clip(path), profile)


_hear_file = WhileUnchanged(_heard_file, 2**27, lambda heard: heard.picture.mel.nbytes)
"""Many renders have a style in common, whose picture takes longer than that of a short clip; 128 MiB, 10 minutes."""


@contextmanager
def _enough_memory(device: torch.device) -> Iterator[None]:
    """Raise `OutOfMemory` for what a device or a system says when its memory does not suffice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not means_no_memory(error):
            raise
        raise OutOfMemory(f"not enough memory on {device} for this render") from error


def _hear(source: Source, profile: Profile) -> _Heard:
    if isinstance(source, tuple):
        return _Heard.of(Clip.from_array(*source), profile)
    return _hear_file(Path(source), profile)


def _pictures(styles: Sequence[Source], restyler: Restyler) -> list[Picture]:
    return [_hear(style, restyler.model.profile).picture for style in styles]


class _Order:
    """What clips are rendered with; raises what `Engine.render` does for styles."""

    def __init__(self, restyler: Restyler, styles: Sequence[Source], settings: Settings, watch: Watch) -> None:
        self.restyler, self.settings, self.watch = restyler, settings, watch
        self.styles = styles
        heard = [_hear(style, restyler.model.profile) for style in styles]
        self.pictures = [one.picture for one in heard]
        self.standing_out = max(one.standing_out for one in heard)
        self.warnings = [warning for one in heard for warning in one.warnings]

    @cached_property
    def lufs(self) -> float | None:
        """The styles' loudness, where the stem is to have it."""
        if self.settings.loudness != "match":
            return None
        clips = (_read(style) for style in self.styles)
        return float(np.mean([level_of(clip.audio, clip.sample_rate) for clip in clips]))


@dataclass(frozen=True, eq=False)
class _Begun:
    """A clip that has been read: its passage, and the sample format of its stem."""

    clip: Clip
    passage: Passage
    subtype: str

    @property
    def integer(self) -> bool:
        """Whether the stem cannot hold samples over full scale."""
        return self.subtype not in ("FLOAT", "DOUBLE")

    def sounds(self, settings: Settings) -> bool:
        """Whether there is anything to be restyled."""
        return settings.mix > 0 and not is_silent(self.passage.carrier)


def _stem(one: _Begun, found: Iterator[Gains], order: _Order) -> Render:
    """What becomes of a clip with the next gains that are found, which are its own where it sounds."""
    clip, passage, settings, model = one.clip, one.passage, order.settings, order.restyler.model
    gains = next(found) if one.sounds(settings) else None
    if gains is None:
        wet = zeros(passage.carrier.shape, passage.carrier.dtype)
    else:
        order.watch.stage("reconstruction")
        gains = replace(gains, standing_out=order.standing_out)
        wet = reconstruct(passage, gains, settings, order.watch.nearly, model.transforms_on)
    order.watch.stage("finishing")
    audio, over = finish(passage, wet, settings, one.integer, order.lufs)
    report = {
        "settings": settings.to_dict(),
        "model": {"name": model.name, "sha256": model.sha256},
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "sample_rate": clip.sample_rate,
        "samples": audio.shape[1],
        "channels": audio.shape[0],
        "start_sample": passage.offset,
        "loop": passage.loop is not None,
        "seams": _inside(gains.seams, passage) if gains else [],
        "notes": [*clip.warnings, *order.warnings, *lowered(over, settings.ceiling)],
    }  # fmt: skip
    return Render(audio, clip.sample_rate, report, gains, passage, clip, one.subtype, over)


def _listed(style: Source | Sequence[Source]) -> list[Source]:
    # A sound and its rate, whatever kind of number that is; or a pair of references.
    if isinstance(style, str | Path) or (isinstance(style, tuple) and len(style) == 2 and isinstance(style[1], Real)):
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
