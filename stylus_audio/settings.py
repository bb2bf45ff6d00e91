"""Every option of a render, once: names, ranges, defaults and help for Python, command line, OSC and sidecar.

`Settings` is frozen and checked when it is made, so code behind it never checks again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal

from .errors import BadRequest

Line = float | tuple[float, float]
"""A constant, or the first and the last value of a line over the sampling steps."""

Time = float | str
"""Seconds, or samples as "44100 samples"."""

DEFAULT_STEPS = 50
"""The published number of steps (Stylus, StyleID)."""


@dataclass(frozen=True)
class Option:
    """What is allowed for one setting, and how a user reads it."""

    kind: Literal["line", "number", "integer", "choice", "switch", "text", "layers", "weights", "time", "loudness"]
    help: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """Other names of the same option, the producer's before the researcher's."""
    optional: bool = False
    by_model: str = ""
    """The default in words, where models have their own."""

    @property
    def allowed(self) -> str:
        """The allowed values in words.

        >>> Option("number", "", low=0, high=1).allowed
        'a number from 0 to 1'
        """
        span = self._span()
        return {
            "line": f"a number{span}, or FIRST:LAST",
            "number": f"a number{span}",
            "integer": f"a whole number{span}",
            "choice": "one of " + ", ".join(self.choices),
            "switch": "true or false",
            "text": "text",
            "layers": "layer numbers such as 6-11 or 7,8,9",
            "weights": "positive numbers such as 0.7,0.3, one for each style",
            "time": "seconds such as 1.5, or samples such as 66150samples",
            "loudness": "keep, match, or a level from -70 to 0 LUFS",
        }[self.kind]

    def _span(self) -> str:
        # More digits than `g` has by itself, which would make 4.29497e+09 of a seed's highest.
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f" from {self.low:.15g} to {self.high:.15g}"
        if math.isfinite(self.low):
            return f" from {self.low:.15g}"
        return ""

    def check(self, name: str, value: object) -> Any:
        """`value`, which may be text, as what the setting holds; `BadRequest` says what is allowed."""
        if value is None and self.optional:
            return None
        try:
            return _PARSERS[self.kind](self, value)
        except (ValueError, TypeError, OverflowError):
            raise BadRequest(f"{name}: {_shown(value)} is not {self.allowed}") from None

    def _number(self, value: object) -> float:
        # True and False are 1 and 0, as a controller's toggle sends them. Where there may be none they mean on and off.
        if not isinstance(value, int | float | str) or (isinstance(value, bool) and self.optional):
            raise TypeError
        number = float(value)
        if not (math.isfinite(number) and self.low <= number <= self.high):
            raise ValueError
        return number

    def _integer(self, value: object) -> int:
        number = self._number(value)
        if number != int(number):
            raise ValueError
        return int(number)

    def _line(self, value: object) -> Line:
        pair = value.split(":") if isinstance(value, str) and ":" in value else value
        if isinstance(pair, tuple | list):
            first, last = pair
            return self._number(first), self._number(last)
        return self._number(pair)

    def _choice(self, value: object) -> str:
        chosen = _whole(value)
        if chosen not in self.choices:
            raise ValueError
        return chosen


def _whole(value: object) -> str:
    """A value as text, a whole number without a point: OSC, JSON and tables may have 24 or 24.0 for "24".

    >>> _whole(24), _whole("24.0"), _whole("32f")
    ('24', '24', '32f')
    """
    text = str(value)
    return text.removesuffix(".0") if text.removesuffix(".0").isdecimal() else text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _switch(value: object) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "yes", "on", "1", "false", "no", "off", "0"):
        return value.lower() in ("true", "yes", "on", "1")
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise ValueError


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError
    return value


_MOST_LAYERS = 100
"""Of any decoder's self-attention."""


def _layers(value: object) -> tuple[int, ...]:
    """Layer numbers from `[6, 7]`, "6,7" or "6-7"; of a single one from 6."""
    numbers: list[int] = []
    parts = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int | float) else value
    for part in parts:  # type: ignore[attr-defined]
        first, _, last = _whole(str(part).strip()).partition("-")
        # Bounded before it is spelt out: a request may say 0-99999999999.
        if int(last or first) >= _MOST_LAYERS:
            raise ValueError
        numbers += range(int(first), int(last or first) + 1)
    if not numbers or min(numbers) < 0:
        raise ValueError
    return tuple(sorted(set(numbers)))


def _weights(value: object) -> tuple[float, ...]:
    parts = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int | float) else value
    weights = tuple(float(part) for part in parts)  # type: ignore[attr-defined]
    if not weights or any(not math.isfinite(w) or w < 0 for w in weights) or sum(weights) <= 0:
        raise ValueError
    return weights


def _time(value: object) -> Time:
    if isinstance(value, str):
        text = value.strip().lower()
        for suffix in ("samples", "smp"):
            if text.endswith(suffix):
                count = int(text.removesuffix(suffix))
                if count < 0:
                    raise ValueError
                return f"{count} samples"
        value = text.removesuffix("s")
    seconds = float(value)  # type: ignore[arg-type]
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError
    return seconds


def _loudness(value: object) -> str | float:
    if value in ("keep", "match"):
        return str(value)
    level = float(value)  # type: ignore[arg-type]
    if not -70.0 <= level <= 0.0:
        raise ValueError
    return level


# Made once: the daemon checks thousands of requests a second.
_PARSERS: dict[str, Callable[[Option, object], Any]] = {
    "line": Option._line,
    "number": Option._number,
    "integer": Option._integer,
    "choice": Option._choice,
    "switch": lambda _, value: _switch(value),
    "text": lambda _, value: _text(value),
    "layers": lambda _, value: _layers(value),
    "weights": lambda _, value: _weights(value),
    "time": lambda _, value: _time(value),
    "loudness": lambda _, value: _loudness(value),
}


def to_samples(time: Time, sample_rate: int) -> int:
    """A setting's time as a number of samples.

    >>> to_samples(0.5, 44100), to_samples("100 samples", 44100)
    (22050, 100)
    """
    if isinstance(time, str):
        return int(time.split()[0])
    return round(time * sample_rate)


def _option(default: Any, kind: Any, help: str, **limits: Any) -> Any:
    return field(default=default, metadata={"option": Option(kind, help, optional=default is None, **limits)})


@dataclass(frozen=True)
class Settings:
    """What shapes the sound of a render. Defaults are Stylus's published values with our reconstruction.

    Raises `BadRequest`, in words that say what is allowed, for a value out of its range.

    >>> Settings(gamma=2)
    Traceback (most recent call last):
    ...
    stylus_audio.errors.BadRequest: gamma: 2 is not a number from 0 to 1, or FIRST:LAST
    """

    gamma: Line = _option(
        0.75, "line", "γ: how much of the content's structure is kept", low=0, high=1, names=("keep",),
        by_model="mini 0, by injection 0.75",
    )  # fmt: skip
    alpha: Line = _option(
        0.9, "line", "α: how much style; 0 is none, over 1 extrapolates", low=0, high=4, names=("amount",),
        by_model="mini 1, by injection 0.9",
    )  # fmt: skip
    tau: Line = _option(
        1.0, "line", "τ: sharpness of the attention to the style", low=0.01, high=10, names=("sharpness",)
    )
    method: str = _option(
        "injection", "choice", "injection inverts the content; conditional tells the network of it (embedded model)",
        choices=("injection", "conditional"), by_model="mini conditional, others injection",
    )  # fmt: skip
    auto: float | None = _option(
        None, "number", "find how much style leaves notes and groove so similar, at most what keep and amount say",
        low=0, high=1,
    )  # fmt: skip
    quality: str = _option(
        "balanced", "choice", "how much work: steps, or on mini how far windows overlap",
        choices=("fast", "balanced", "best"),
    )  # fmt: skip
    steps: int | None = _option(None, "integer", "diffusion steps (default: by quality)", low=1, high=1000)
    layers: tuple[int, ...] | None = _option(None, "layers", "decoder self-attention layers (default: the model's)")
    start_step: int | None = _option(None, "integer", "inject in the last N + 1 steps only", low=0, high=999)
    inversion: str = _option(
        "next", "choice", "time that labels an inversion step: next (StyleID), current (Stylus)",
        choices=("next", "current"), by_model="mini-injection current, others next",
    )  # fmt: skip
    init: str = _option(
        "adain", "choice", "statistics that the first latent takes from the style", choices=("adain", "efdm", "none")
    )
    injection: bool = _option(True, "switch", "attention injection")
    blend: str = _option(
        "outputs", "choice", "several styles: blend attention outputs or features", choices=("outputs", "features")
    )
    style_weight: tuple[float, ...] | None = _option(None, "weights", "weights of the styles (default: equal)")
    prompt: str = _option("", "text", "text prompt (models with a text encoder)")
    prompt_end: str | None = _option(None, "text", "second prompt, to interpolate to")
    prompt_mix: float = _option(0.5, "number", "where between prompt and prompt-end", low=0, high=1)
    guidance: float = _option(1.0, "number", "classifier-free guidance scale of the prompt", low=0, high=50)
    denoise: float = _option(1.0, "number", "how far the content is inverted", low=0.01, high=1)
    variation: int = _option(0, "integer", "other windows of the reference; 0 is the default choice", low=0, high=9999)
    reconstruction: str = _option(
        "gain", "choice", "how the picture becomes sound", choices=("gain", "phase", "griffin-lim", "guidediff")
    )
    refine: int | None = _option(
        None, "integer", "Griffin-Lim iterations (default: 8 from the content's phase, 32 from another)",
        low=0, high=1000,
    )  # fmt: skip
    stereo: str = _option(
        "linked", "choice", "channels share their gains, or not", choices=("linked", "independent", "mid-side")
    )
    overlap: float = _option(
        0.25, "number", "overlap of the model's windows, as a share; on mini by quality", low=0.05, high=0.75,
        by_model="mini 0.5, by injection 0.25",
    )  # fmt: skip
    mix: float = _option(1.0, "number", "dry to wet", low=0, high=1)
    keep_below: float | None = _option(None, "number", "the band under this frequency stays the content's, Hz", low=10,
                                       high=100000)  # fmt: skip
    keep_above: float | None = _option(None, "number", "the band over this frequency stays the content's, Hz", low=10,
                                       high=100000)  # fmt: skip
    transients: float = _option(0.0, "number", "how much of the content's attacks is kept", low=0, high=1)
    loop: str = _option(
        "auto", "choice", "render as a loop; auto follows the file's loop chunk", choices=("auto", "on", "off")
    )
    tail: float = _option(
        0.0, "number", "seconds to ring out after the clip's end; a loop is then rendered as none", low=0, high=60
    )
    start: Time | None = _option(None, "time", "where the segment starts")
    end: Time | None = _option(None, "time", "where the segment ends")
    preview: float | None = _option(None, "number", "render only the loudest passage of so many seconds", low=0.1,
                                    high=600)  # fmt: skip
    bits: str | None = _option(None, "choice", "bit depth (default: the content's)", choices=("16", "24", "32f"))
    loudness: str | float = _option("keep", "loudness", "keep the content's, match the style's, or a level in LUFS")
    ceiling: float | None = _option(None, "number", "true-peak ceiling in dBTP", low=-40, high=0)
    seed: int = _option(0, "integer", "of noise, dither and random phase", low=0, high=2**32 - 1)

    def __post_init__(self) -> None:
        for name, option in OPTIONS.items():
            value = getattr(self, name)
            # Most are the defaults, and the daemon has to answer thousands of requests a second.
            if value is not getattr(Settings, name):
                object.__setattr__(self, name, option.check(name, value))
        if self.prompt_end is not None and not self.prompt:
            raise BadRequest("prompt_end needs a prompt to start from")
        if self.preview is not None and (self.start is not None or self.end is not None):
            raise BadRequest("preview chooses its own passage: leave out start and end")
        if self.tail and self.loop == "on":
            raise BadRequest("tail: a loop has no end that rings out; leave out loop or tail")

    @classmethod
    def parse(cls, values: Mapping[str, object], besides: Collection[str] = ()) -> Settings:
        """Settings from names and values (text or numbers), as OSC, CSV, presets and sidecars give them.

        Every name of an option is taken, with `_` or `-`; `no_injection` too. `besides` are what else may be given
        there and was taken out before: a mistyped name is told of them.

        >>> Settings.parse({"keep": "0.5", "amount": "0:1.5", "no_injection": "1"}).alpha
        (0.0, 1.5)
        """
        taken: dict[str, object] = {}
        for given, value in values.items():
            name = setting_of(given)
            if name == "no_injection":
                name, value = "injection", not _checked_switch(given, value)  # noqa: PLW2901
            if name not in OPTIONS:
                raise BadRequest(_no_option(given, besides))
            taken[name] = OPTIONS[name].check(given, value)
        return cls(**taken)  # type: ignore[arg-type]

    @classmethod
    def recipe(cls, name: str, **changes: object) -> Settings:
        """The published values of `stylus` or `styleid`, with changes; what each holds stands in `RECIPES`."""
        if name not in RECIPES:
            raise BadRequest(f"recipe: {name!r} is not one of {', '.join(RECIPES)}")
        return cls.parse(typed_over(RECIPES[name], changes))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; `Settings.parse` reads it back."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _checked_switch(name: str, value: object) -> bool:
    return bool(Option("switch", "").check(name, value))


NEAR = 0.7
"""How alike a name is to what is meant by it, as difflib has it; what is no option at all is under that."""


def _no_option(given: str, besides: Collection[str]) -> str:
    """What is said of an unknown name: the one that was meant, and all of them as producers know them."""
    named = {"no_injection", *map(producers_name, OPTIONS), *besides} - {given}
    near = get_close_matches(given.lower().replace("-", "_"), sorted(named | set(OPTIONS)), 1, NEAR)
    meant = f"; did you mean {near[0]}? There" if near else "; there"
    return f"{given} is not an option{meant} are {', '.join(sorted(named))}"


OPTIONS: dict[str, Option] = {item.name: item.metadata["option"] for item in fields(Settings)}
"""Setting to what is allowed."""

LATENT_OPTIONS = (
    "gamma", "alpha", "tau", "steps", "layers", "start_step", "inversion", "init", "injection", "blend", "style_weight",
    "denoise",
)  # fmt: skip
"""Settings that act on latents alone, whatever these are pictures of."""

OF_INVERSION = ("denoise", "init", "start_step", "inversion")
"""Settings that the conditional method, which inverts nothing and has one step, has no use for."""

OF_TEXT = ("prompt", "prompt_end", "prompt_mix", "guidance")
"""Settings that a model without a text encoder has no use for."""

ALIASES: dict[str, str] = {alias: name for name, option in OPTIONS.items() for alias in option.names}
"""Producer's name to setting: keep, amount, sharpness."""


def setting_of(name: str) -> str:
    """The setting that an option stands for, by any of its names; what is none stays.

    >>> setting_of("keep-below"), setting_of("keep")
    ('keep_below', 'gamma')
    """
    name = name.replace("-", "_")
    return ALIASES.get(name, name)


def producers_name(setting: str) -> str:
    """The first name of a setting's option: a producer's, where it has one of its own.

    >>> producers_name("gamma"), producers_name("mix")
    ('keep', 'mix')
    """
    return (*OPTIONS[setting].names, setting)[0]


BY_METHOD = {name for name, option in OPTIONS.items() if option.by_model} | {"steps", "layers"}
"""What a model has defaults of its own for, other ones for each method."""


def typed_over(inherited: Mapping[str, Any], typed: Mapping[str, Any], other_model: bool = False) -> dict[str, Any]:
    """Options over those of a sidecar, a recipe or a preset, whose numbers do not outlive what they came from.

    Steps give way to a quality, and all that is a method's own to another method, or to another model, of which
    `other_model` knows: that may have no text either. So does the overlap of a stem that was answered at once to a
    quality: it was that of its own. What does not go with what is typed, as a tail and a loop, gives way to it.

    >>> typed_over({"steps": 50, "overlap": 0.4, "gamma": 0.75}, {"quality": "fast"})
    {'overlap': 0.4, 'gamma': 0.75, 'quality': 'fast'}
    >>> typed_over({"method": "conditional", "quality": "best", "overlap": 0.75}, {"quality": "fast"})
    {'method': 'conditional', 'quality': 'fast'}
    >>> typed_over({"method": "conditional", "steps": 1, "gamma": 0.0, "mix": 0.5}, {"method": "injection"})
    {'mix': 0.5, 'method': 'injection'}
    >>> typed_over({"method": "injection", "init": "efdm", "mix": 0.5}, {"method": "conditional"})
    {'mix': 0.5, 'method': 'conditional'}
    >>> typed_over({"method": "injection", "init": "efdm", "prompt": "bells", "mix": 0.5}, {}, other_model=True)
    {'mix': 0.5}
    >>> typed_over({"preview": 6.0, "loop": "on"}, {"start": "1.5", "tail": "2"})
    {'start': '1.5', 'tail': '2'}
    """
    names = {setting_of(name): value for name, value in typed.items()}
    # By whatever name: of two names of one setting the last would count.
    gone = set(names) | _excluded(names, inherited)
    if "quality" in names:
        gone.add("steps")
        if inherited.get("method") == "conditional" and "quality" in inherited:
            gone.add("overlap")
    other_method = "method" in names and names["method"] != inherited.get("method", names["method"])
    if other_method or other_model:
        gone |= {*BY_METHOD, *OF_INVERSION}
    if other_model:
        gone |= set(OF_TEXT)
    return {name: value for name, value in inherited.items() if setting_of(name) not in gone} | dict(typed)


def _excluded(typed: Mapping[str, Any], inherited: Mapping[str, Any]) -> set[str]:
    """What of the inherited settings `Settings` would refuse beside typed ones, whose values are not checked yet."""
    gone = set()
    if typed.get("preview") is not None:
        gone |= {"start", "end"}
    if typed.get("start") is not None or typed.get("end") is not None:
        gone.add("preview")
    # A list of values, which may become a sweep, counts by any of them; a tail of 0 is none.
    if str(typed.get("tail") or "").strip("0.") and inherited.get("loop") == "on":
        gone.add("loop")
    if "on" in str(typed.get("loop")).split(","):
        gone.add("tail")
    if typed.get("prompt") == "":
        gone.add("prompt_end")
    return gone


RECIPES: dict[str, dict[str, object]] = {
    # Wang et al., arXiv 2411.15913 v4 and its code: CompVis labels, content phase, no refinement.
    "stylus": {
        "method": "injection", "gamma": 0.75, "alpha": 0.9, "tau": 1.0, "steps": 50, "layers": "6-11",
        "inversion": "current", "init": "adain", "reconstruction": "phase", "refine": 0, "stereo": "linked",
    },
    # Chung et al., CVPR 2024, diffusers code; sound by Griffin-Lim as Riffusion's own decoder makes it.
    "styleid": {
        "method": "injection", "gamma": 0.75, "alpha": 1.0, "tau": 1.5, "steps": 50, "layers": "7-11",
        "inversion": "next", "init": "adain", "reconstruction": "griffin-lim", "refine": 32, "stereo": "linked",
    },
}  # fmt: skip
"""Published values. Both compute in float32 (`RECIPE_DTYPE`): the published inversion does."""

RECIPE_DTYPE = "float32"

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""What a model may compute in."""


def at_step(line: Line, step: int, steps: int) -> float:
    """Value of a line at sampling step `step` of `steps`, counted from 0 at the noisiest.

    >>> at_step((0.0, 1.0), 1, 5), at_step(0.3, 4, 5), at_step((0.2, 1.0), 0, 1)
    (0.25, 0.3, 0.2)
    """
    if not isinstance(line, tuple):
        return line
    first, last = line
    return first + (last - first) * (step / (steps - 1) if steps > 1 else 0.0)
