"""A diffusion model loaded and ready: UNet, picture codec, scheduler, text, and how it sees sound.

A folder in diffusers' format (the embedded one, the hub's, the user's) or a single Stable Diffusion `.safetensors`
file. Only what our own modules do not cover is left to diffusers, which takes longer to import than to render a short
clip.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from .errors import BadRequest, NoModel, OutOfMemory, StylusError
from .graphs import Graphs, cuda_graphs
from .latent import Autoencoder, Latent, Patchify
from .noise_schedule import NoiseSchedule
from .places import CONFIGS
from .pretrained import Config
from .quiet import quiet
from .settings import DTYPES, OF_INVERSION, OF_TEXT, Settings, producers_name
from .spectrogram import MINI, RIFFUSION, Profile
from .style_encoder import StyleEncoder
from .text import TextEncoder
from .unet import UNet
from .weights import check_device, fingerprint, located, named

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preference:
    """How a model wants a method run: steps of each quality, and settings instead of the published ones.

    `qualities` are settings of a quality over those of all.
    """

    steps: dict[str, int] = field(default_factory=lambda: {"fast": 20, "balanced": 50, "best": 100})
    settings: dict[str, object] = field(default_factory=dict)
    qualities: dict[str, dict[str, object]] = field(default_factory=dict)

    def of(self, quality: str) -> dict[str, object]:
        """The settings of a quality."""
        return {**self.settings, **self.qualities.get(quality, {})}


@dataclass
class Model:
    """What the engine needs of a model.

    `methods` are those that it can, the first its default; `style_windows` is how many windows of a reference are used.
    `encoder`, `spread` and `contrast` are what the conditional method needs (see `Conditional`). `elsewhere` names the
    model that a method is left to. `graphs` are those of the UNet, where its device has them.
    """

    name: str
    sha256: str
    profile: Profile
    unet: Any
    scheduler: NoiseSchedule
    latent: Latent
    text: TextEncoder | None
    style_windows: int = 1
    methods: dict[str, Preference] = field(default_factory=lambda: {"injection": Preference()})
    encoder: StyleEncoder | None = None
    spread: float = 1.0
    contrast: float = 1.0
    elsewhere: dict[str, str] = field(default_factory=dict)
    graphs: Graphs | None = None

    @property
    def device(self) -> torch.device:
        """Where the UNet lives."""
        device: torch.device = self.unet.device
        return device

    @property
    def transforms_on(self) -> torch.device:
        """Where Fourier transforms are made: on CUDA with it; of other devices' nothing is known here."""
        return self.device if self.device.type == "cuda" else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The UNet's precision."""
        dtype: torch.dtype = self.unet.dtype
        return dtype

    def settings(self, **changes: object) -> Settings:
        """The model's own defaults with changes, by any name of an option; `BadRequest` for a method it cannot."""
        method = str(changes.get("method", next(iter(self.methods))))
        own = self._of(method).of(str(changes.get("quality", Settings.quality)))
        return Settings.parse({"method": method, **own, **changes})

    def with_steps(self, settings: Settings) -> Settings:
        """Settings whose number of steps is settled: asked for, else the model's for the asked quality.

        `BadRequest` for more steps than one of a model that answers at once, for a decoder of other pictures than its,
        and for what would have no effect on it.
        """
        self._check_effect(settings)
        if settings.reconstruction == "guidediff" and self.profile != MINI:
            raise BadRequest(f"reconstruction: guidediff decodes mini's pictures, and {self.name} has others")
        own = self._of(settings.method)
        steps = settings.steps or own.steps[settings.quality]
        if settings.method == "conditional" and steps > 1:
            raise BadRequest(f"steps: {self.name} answers at once, in 1 step; more are for --method injection")
        return replace(settings, steps=steps)

    def _check_effect(self, settings: Settings) -> None:
        """Raise `BadRequest` for a setting other than its default that nothing of this model and method takes."""
        idle: dict[str, str] = {}
        if settings.method == "conditional":
            at_once = f"{self.name} answers at once, without inversion; this is for --method injection"
            idle |= dict.fromkeys(OF_INVERSION, at_once)
        if self.text is None:
            idle |= dict.fromkeys(OF_TEXT, f"{self.name} has no text encoder; sd15, sd21 and riffusion have")
        for name, reason in idle.items():
            if getattr(settings, name) != getattr(Settings, name):
                raise BadRequest(f"{producers_name(name)}: {reason}")

    def _of(self, method: str) -> Preference:
        if method not in self.methods:
            raise BadRequest(f"method: {self.name} has no {method!r}; it has {', '.join(self.methods)}")
        return self.methods[method]

    def embedding(self, prompt: str = "") -> Tensor:
        """Conditioning `[1, token, channel]` of a prompt; a model without text has only the empty one, zeros."""
        if self.text:
            return self.text(prompt)
        if prompt:
            raise BadRequest(f"prompt: {self.name} has no text encoder; sd15, sd21 and riffusion have")
        return torch.zeros(1, 1, self.unet.config.cross_attention_dim)


def choose_device(device: str = "auto") -> torch.device:
    """`auto` is CUDA, then MPS, then the CPU; `BadRequest` where the asked one is not there."""
    check_device(device)
    cuda = torch.cuda.is_available()
    mps = torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    chosen = torch.device(device)
    if (chosen.type == "cuda" and (not cuda or (chosen.index or 0) >= torch.cuda.device_count())) or (
        chosen.type == "mps" and not mps
    ):
        raise BadRequest(f"device: {device} is not available here; {choose_device('auto')} is")
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto` is half precision where the hardware computes in it, float32 elsewhere."""
    if dtype not in DTYPES:
        raise BadRequest(f"dtype: {dtype!r} is none of {', '.join(DTYPES)}")
    if dtype != "auto":
        return cast(torch.dtype, getattr(torch, dtype))
    if device.type == "cuda":
        # As exact as TF32, which bf16 is not.
        return torch.float16
    if device.type == "cpu" and _cpu_computes_bf16():
        return torch.bfloat16
    return torch.float32


def _cpu_computes_bf16() -> bool:
    """Whether the CPU multiplies matrices in bf16 (AVX512-BF16, AMX); it is many times slower where it does not."""
    checks: list[Callable[[], bool]] = [
        check
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        if (check := getattr(torch.cpu, name, None)) is not None
    ]
    return any(check() for check in checks)


def load_model(model: str = "mini", device: str = "auto", dtype: str = "auto") -> Model:
    """Load a model by name, folder or file.

    Raises `NoModel` for weights that cannot be had, are damaged, or are pickles; `OutOfMemory` where the device has no
    room for them; `BadRequest` for a device or dtype that is not there.
    """
    place = choose_device(device)
    precision = choose_dtype(dtype, place)
    weights = named(model)
    path = located(weights)
    try:
        digest = fingerprint(weights, path)
        loaded = _from_file(path, precision) if path.is_file() else _from_folder(path, precision)
        loaded.name, loaded.sha256 = weights.name, digest
        return _moved(loaded, place)
    except StylusError:
        raise
    except Exception as error:  # a damaged configuration may be anything, to our code and to diffusers'
        if means_no_memory(error):
            raise OutOfMemory(f"not enough memory on {place} for {weights.name}") from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NoModel(f"{weights.name}: these weights cannot be loaded from {path}: {reason}") from error


def means_no_memory(error: Exception) -> bool:
    """Whether an error says that a device or the machine has no memory left."""
    # On Apple's GPU it is a RuntimeError like any other.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "out of memory" in str(error)
    )


def _moved(model: Model, place: torch.device) -> Model:
    """A model on a device, for inference."""
    model.unet.to(place).eval().requires_grad_(False)
    if model.encoder:
        model.encoder.to(place).eval().requires_grad_(False)
    if isinstance(model.latent, Autoencoder):
        model.latent.vae.to(place).eval().requires_grad_(False)
    return laid_out(model)


def laid_out(model: Model) -> Model:
    """A model on its device, with its weights as the device reads them quickest and what it has for quick launches."""
    if model.device.type in ("cpu", "cuda"):
        model.unet.to(memory_format=torch.channels_last)
    if model.device.type == "cuda":
        _with_own_norms(model.unet)
        model.graphs = cuda_graphs()
    return model


def _with_own_norms(unet: Any) -> None:
    try:
        from . import group_norm

        group_norm.check(unet.device, unet.dtype)
    except Exception as error:  # Triton is not there, or its compiler fails in a way of its own: PyTorch's norms serve
        log.warning("no kernel of our own for GroupNorm: %s", (str(error).strip().splitlines() or [repr(error)])[0])
        return
    group_norm.install(unet)


def _from_folder(folder: Path, dtype: torch.dtype) -> Model:
    if not (folder / "unet").is_dir():
        raise NoModel(f"{folder} is not a diffusers folder: it has no unet/")
    if not (folder / "unet" / "diffusion_pytorch_model.safetensors").is_file():
        raise NoModel(f"{folder}/unet has no diffusion_pytorch_model.safetensors; pickled weights are not opened")
    scheduler = NoiseSchedule(**Config.read(folder / "scheduler", "scheduler_config.json"))
    own = _about(folder)
    if own:
        return _embedded(folder, own, scheduler, dtype)
    _check_unet(folder.name, Config.read(folder / "unet"))
    with quiet():
        from diffusers import AutoencoderKL

        unet = _diffusers_unet(folder, dtype)
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=dtype, use_safetensors=True)
        return Model("", "", RIFFUSION, unet, scheduler, Autoencoder(vae), TextEncoder.of_folder(folder))


def _check_unet(name: str, config: Config) -> None:
    """Raise `NoModel`, before gigabytes are read, for a network that wants more than a latent, a time and a text."""
    channels = config.get("in_channels", 4), config.get("out_channels", 4)
    more = [key for key in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type") if config.get(key)]
    if channels != (4, 4) or more:
        what = f"its UNet has {more[0]}" if more else f"its UNet takes {channels[0]} channels and gives {channels[1]}"
        raise NoModel(f"{name} is no Stable Diffusion 1.x or 2.x that makes pictures of a text alone: {what}")


def _embedded(folder: Path, own: dict[str, Any], scheduler: NoiseSchedule, dtype: torch.dtype) -> Model:
    """A folder in the embedded format, which `own` describes."""
    codec = own["latent"]
    if codec["kind"] != "patchify":
        raise ValueError(f"stylus.json: latent kind {codec['kind']!r} is not known")
    covered = UNet.covers(Config.read(folder / "unet"))
    unet = UNet.from_pretrained(folder / "unet", dtype) if covered else _diffusers_unet(folder, dtype)
    told = "conditional" in own["methods"]
    return Model(
        "", "", Profile(**own["profile"]), unet, scheduler,
        Patchify(codec["factor"], codec["shift"], codec["scale"]), None, int(own["style_windows"]),
        _preferences(own),
        StyleEncoder.from_pretrained(folder / "style_encoder", dtype) if told else None, float(own.get("spread", 1.0)),
        float(own.get("contrast", 1.0)), own.get("elsewhere", {}),
    )  # fmt: skip


def own_settings(model: str, method: str, quality: str) -> dict[str, Any]:
    """What a model renders with where this method and quality alone are asked for; its weights are not opened.

    `method` and `quality` in it are those of a render that asks for nothing. Raises `NoModel` for a model that is not
    there, is damaged, or has not the method.
    """
    weights = named(model)
    try:
        own = _about(Path(weights.source)) if weights.kind in ("embedded", "folder") else {}
        methods = _preferences(own) if own else {"injection": Preference()}
        preference = methods[method]
        values = {"method": next(iter(methods)), "steps": preference.steps[quality], **preference.of(quality)}
        return Settings.parse(values).to_dict()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadRequest) as error:
        raise NoModel(f"{weights.name}: nothing is known of its method {method!r}") from error


def _preferences(own: dict[str, Any]) -> dict[str, Preference]:
    """What an embedded folder says of its methods, and of those that it leaves to another model."""
    elsewhere = own.get("elsewhere", {})
    others = {method: _about(located(named(model)))["methods"][method] for method, model in elsewhere.items()}
    return {name: _preference(one) for name, one in {**own["methods"], **others}.items()}


def _preference(about: dict[str, Any]) -> Preference:
    """What a folder says of a method; of an earlier version it may say more than there is."""
    return Preference(**{name: about[name] for name in ("steps", "settings", "qualities") if name in about})


def _diffusers_unet(folder: Path, dtype: torch.dtype) -> Any:
    with quiet():
        from diffusers import UNet2DConditionModel

        return UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=dtype, use_safetensors=True)


def _about(folder: Path) -> dict[str, Any]:
    """What the embedded format says beside diffusers' own files; empty for a plain diffusers folder."""
    file = folder / "stylus.json"
    about: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return about


def _from_file(file: Path, dtype: torch.dtype) -> Model:
    """Stable Diffusion 1.x or 2.x in one file, in the original layout."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        probe = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
        if probe not in opened.keys():  # noqa: SIM118  (a safetensors handle is no mapping)
            raise NoModel(f"{file.name} is not a Stable Diffusion 1.x or 2.x file in the original layout")
        width = opened.get_slice(probe).get_shape()[1]
        metadata = opened.metadata() or {}
    config = CONFIGS / ("sd1" if width == 768 else "sd2")
    noise = Config.read(config / "scheduler", "scheduler_config.json")
    said = {"epsilon": "epsilon", "v": "v_prediction"}.get(metadata.get("modelspec.prediction_type", ""))
    # Of the second generation there are both, and older files do not say which they are.
    asked = said is None and config.name == "sd2"
    given = {"config": str(config), "local_files_only": True}
    with quiet():
        from diffusers import AutoencoderKL, UNet2DConditionModel

        unet = UNet2DConditionModel.from_single_file(
            str(file), subfolder="unet", torch_dtype=torch.float32 if asked else dtype, **given
        )
        if asked:
            said = predicts(unet)
            unet = unet.to(dtype)
        vae = AutoencoderKL.from_single_file(str(file), subfolder="vae", torch_dtype=dtype, **given)
        text = TextEncoder.of_file(file, config)
    if said:
        noise["prediction_type"] = said
    return Model("", "", RIFFUSION, unet, NoiseSchedule(**noise), Autoencoder(vae), text)


@torch.no_grad()
def predicts(unet: Any) -> str:
    """What a UNet predicts, by its answer to pure noise at the last time: that very noise, or hardly any of it.

    There √ᾱ is 0.07: of noise alone, "epsilon" is all of it, "v_prediction" √ᾱ of it less the picture that is guessed.
    """
    config = unet.config
    noise = torch.randn(1, config.in_channels, 32, 32, generator=torch.Generator().manual_seed(0))
    answer = unet(noise, 999, torch.zeros(1, 77, config.cross_attention_dim)).sample
    likeness = torch.corrcoef(torch.stack([noise.flatten(), answer.float().flatten()]))[0, 1]
    return "epsilon" if likeness > 0.5 else "v_prediction"
