"""The one place where sound meets diffusion: content and styles in, a stem and its report out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .audio import AudioInfo, Clip, probe, read_clip
from .conditional import Conditional
from .denoiser import Denoiser
from .errors import BadRequest, OutOfMemory
from .finish import finish
from .gains import Gains
from .loudness import integrated
from .match_eq import equalised, match_eq
from .model import Model, load_model
from .passage import Passage, is_segment, passage_of, segment_of
from .phase import apply_gain, apply_phase, griffin_lim
from .reference import Picture, picture_of, reference_windows
from .settings import Settings
from .spectrogram import from_image
from .stem import stem_subtype
from .style import normalised
from .stylize import Stylizer
from .windows import blend, seams, window_starts

Floats = NDArray[np.floating[Any]]
Source = Path | str | tuple[Floats, int]
"""A file, or `(array [channel, sample] or [sample], sample rate)`."""

Progress = Callable[[float, str], None]
"""Called with the fraction done and the stage; raising in it (`Cancelled`) ends the render."""

STATISTICS_WINDOWS = 16
"""A preview's statistics come from so many windows, spread over the whole clip."""


@dataclass(frozen=True)
class Render:
    """A finished stem.

    `audio` is `[channel, sample]`, float32 (float64 where the content's file holds more), at `sample_rate`. `report`
    says what was done and what the user should know. `gains` are None where no model ran; with `passage` and `finish`
    the stem can be made again with another mix, amount, kept band, attack or level. `subtype` and `clip` are what a
    file of the stem takes over from the content.
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

    Raises `NoModel` and `BadRequest` as `load_model` does.
    """

    def __init__(self, model: str = "mini", device: str = "auto", dtype: str = "auto") -> None:
        self.model: Model = load_model(model, device, dtype)

    def settings(self, **changes: object) -> Settings:
        """The model's own defaults with changes, by any name of an option."""
        return self.model.settings(**changes)

    def render(
        self,
        content: Source,
        style: Source | Sequence[Source],
        settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> Render:
        """Give `content` the sound of `style` (one, or several to be blended).

        Raises `NotFound` and `UnsupportedAudio` for files, `BadRequest` for settings that do not fit the clip or the
        model, `OutOfMemory`, and whatever `progress` raises.
        """
        settings = self.model.with_steps(settings or self.settings())
        watch = _Watch(progress)
        watch.stage("reading")
        styles = [_read(one) for one in _listed(style)]
        if settings.style_weight is not None and len(settings.style_weight) != len(styles):
            raise BadRequest(f"style_weight: {len(settings.style_weight)} weights for {len(styles)} styles")
        clip, passage = self.passage(content, settings)
        if settings.stereo == "mid-side" and clip.audio.shape[0] != 2:
            raise BadRequest(f"stereo: mid-side needs 2 channels, the content has {clip.audio.shape[0]}")
        gains, wet = None, passage.carrier
        if settings.mix > 0 and passage.carrier.any():
            try:
                gains = self._gains(passage, styles, settings, watch)
            except (torch.OutOfMemoryError, MemoryError) as error:
                raise OutOfMemory(f"not enough memory on {self.model.device} for this render") from error
            watch.stage("reconstruction")
            wet = reconstruct(passage, gains, settings)
        watch.stage("finishing")
        subtype = stem_subtype(clip.subtype, settings.bits)
        style_lufs = _loudness_of(styles) if settings.loudness == "match" else None
        audio, notes = finish(passage, wet, settings, subtype not in ("FLOAT", "DOUBLE"), style_lufs)
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

    def passage(self, content: Source, settings: Settings) -> tuple[Clip, Passage]:
        """Read what the render needs of the content: all of it, or a segment with a window's context."""
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
        return clip, passage_of(clip, settings, start, end, context, margin)

    def _gains(self, passage: Passage, styles: Sequence[Clip], settings: Settings, watch: _Watch) -> Gains:
        """Everything that the model does for a clip (METHOD 1–4 and 6)."""
        model, profile = self.model, self.model.profile
        carrier = mid_side(passage.carrier) if settings.stereo == "mid-side" else passage.carrier
        picture = picture_of(carrier, passage.sample_rate, profile, settings.stereo == "linked")
        starts = _planned(picture, settings.overlap)
        wanted = self._wanted(passage, starts)
        conditional = settings.method == "conditional"
        if conditional:
            starts, wanted = [start for start, want in zip(starts, wanted, strict=True) if want], wanted[wanted]
        elif settings.preview is not None:
            starts, wanted = _thinned(starts, wanted)
        references = [picture_of(clip.audio, clip.sample_rate, profile) for clip in styles]
        chosen = [reference_windows(one, model.style_windows, settings.variation) for one in references]
        if settings.blend == "features":
            chosen = [windows[: min(map(len, chosen))] for windows in chosen]
        way = self._conditional if conditional else self._injection
        content, styled = way(_Task(picture, starts, wanted, references, chosen, settings, watch))
        watch.stage("decoding")
        kept = [start for start, want in zip(starts, wanted, strict=True) if want]
        channels = picture.mel.shape[0]

        def mel_of(latent: torch.Tensor) -> NDArray[np.float32]:
            image = model.latent.decode(latent).cpu().numpy().reshape(-1, channels, profile.bands, profile.frames)
            return blend(from_image(image, profile, picture.maximum), kept, picture.mel.shape[-1])

        joints = tuple(frame / profile.frame_rate for frame in seams(kept, profile.frames))
        gains = Gains(mel_of(styled), mel_of(content), profile, seams=joints)
        return gains.held(*_full_frames(picture)) if settings.reconstruction == "gain" else gains

    def _injection(self, task: _Task) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of the wanted windows: the content's, and stylised by inversion and injection (METHOD 2–4)."""
        settings, watch, channels = task.settings, task.watch, task.picture.mel.shape[0]
        inverter = self._denoiser()
        stylizer = Stylizer(inverter, self._sampler(inverter, settings), settings, tick=watch.tick)
        # Gains compare with the content; the published reconstructions take the model's own way back as it is.
        exact = settings.reconstruction == "gain"
        watch.expect(stylizer.passes(len(task.starts) * channels, [len(one) for one in task.chosen], exact))
        watch.stage("style")
        prepared = [stylizer.prepare(*self._encoded(*windows)) for windows in task.style_windows]
        watch.stage("diffusion")
        content, columns = self._encoded(task.picture, task.starts)
        sampled = torch.from_numpy(np.repeat(task.wanted, channels))
        styled = stylizer.run(content, prepared, columns, sampled, exact)
        return content[sampled.to(content.device)], styled

    def _conditional(self, task: _Task) -> tuple[torch.Tensor, torch.Tensor]:
        """As `_injection`, by a network that is told of content and style; here every window is wanted."""
        model, settings, watch, picture = self.model, task.settings, task.watch, task.picture
        if model.encoder is None:
            raise BadRequest(f"method: {model.name} has no 'conditional'; it has {', '.join(model.methods)}")
        # Refuses a prompt where the model has no text.
        base = self._sampler(self._denoiser(), settings)
        way = Conditional(base, model.encoder, model.spread, settings, tick=watch.tick)
        watch.expect(way.passes(len(task.starts) * picture.mel.shape[0], len(task.references)))
        watch.stage("style")
        prepared = [way.prepare(*self._encoded(*windows)) for windows in task.style_windows]
        watch.stage("diffusion")
        windows, columns = self._windows(picture, task.starts)
        weights, level = normalised(settings.style_weight, len(task.references)), picture.level
        gains = [match_eq(level, one.level) for one in task.references]
        gain = sum((weight * gain for weight, gain in zip(weights, gains, strict=True)), start=np.zeros(()))
        content, guide = self._latent(windows), self._latent(equalised(windows, gain, model.profile))
        return content, way.run(content, guide, prepared, columns)

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


@dataclass(frozen=True)
class _Task:
    """What a method gets of a render: the clip's picture and windows, those to sample, the references and theirs."""

    picture: Picture
    starts: list[int]
    wanted: NDArray[np.bool_]
    references: list[Picture]
    chosen: list[list[int]]
    settings: Settings
    watch: _Watch

    @property
    def style_windows(self) -> list[tuple[Picture, list[int]]]:
        """Each reference with the first frames of its windows."""
        return list(zip(self.references, self.chosen, strict=True))


def reconstruct(passage: Passage, gains: Gains, settings: Settings) -> Floats:
    """The wet sound on the passage's carrier, `[channel, sample]`; needs no model."""
    carrier = mid_side(passage.carrier) if settings.stereo == "mid-side" else passage.carrier
    rate = passage.sample_rate
    if settings.reconstruction == "griffin-lim":
        wet = griffin_lim(carrier, rate, gains, 32 if settings.refine is None else settings.refine, settings.seed)
    else:
        apply = apply_gain if settings.reconstruction == "gain" else apply_phase
        wet = apply(carrier, rate, gains, 8 if settings.refine is None else settings.refine)
    return mid_side(wet) if settings.stereo == "mid-side" else wet


def mid_side(audio: Floats) -> Floats:
    """Left and right to mid and side and back: its own inverse.

    >>> mid_side(mid_side(np.array([[1.0], [0.5]]))).round(6).tolist()
    [[1.0], [0.5]]
    """
    left, right = audio
    return np.stack([left + right, left - right]) * np.asarray(0.5**0.5, audio.dtype)


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


def _listed(style: Source | Sequence[Source]) -> list[Source]:
    if isinstance(style, str | Path) or (isinstance(style, tuple) and len(style) == 2 and isinstance(style[1], int)):
        return [style]
    styles = list(style)
    if not styles:
        raise BadRequest("a render needs at least one style")
    return styles


def _read(source: Source) -> Clip:
    return Clip.from_array(*source) if isinstance(source, tuple) else read_clip(Path(source))


def _inside(seams: Sequence[float], passage: Passage) -> list[float]:
    """Seams of the carrier that lie in the stem, in its seconds."""
    rate = passage.sample_rate
    moved = [seam - passage.first / rate for seam in seams]
    return [round(seam, 4) for seam in moved if 0 < seam < (passage.last - passage.first) / rate]


def _loudness_of(styles: Sequence[Clip]) -> float:
    return float(np.mean([integrated(clip.audio, clip.sample_rate) for clip in styles]))


class _Watch:
    """Turns passes of the UNet into progress, and stages into timings."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._passes = 1
        self._done = 0
        self._stage = ""
        self._since = time.perf_counter()
        self._timings: dict[str, float] = {}

    def expect(self, passes: int) -> None:
        self._passes = max(1, passes)

    def stage(self, name: str, fraction: float | None = None) -> None:
        now = time.perf_counter()
        if self._stage:
            self._timings[self._stage] = self._timings.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = name, now
        self._say(self._fraction() if fraction is None else fraction)

    def tick(self) -> None:
        self._done += 1
        self._say(self._fraction())

    def timings(self) -> dict[str, float]:
        return {name: round(seconds, 3) for name, seconds in self._timings.items()}

    def _fraction(self) -> float:
        # The passes are nearly all of the work; the rest is reading before and sound after.
        return min(0.95, 0.95 * self._done / self._passes)

    def _say(self, fraction: float) -> None:
        if self._progress:
            self._progress(fraction, self._stage)
