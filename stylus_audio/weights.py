"""Which models there are, where their files lie, and their SHA-256.

`mini` is in the package; the others come from the Hugging Face hub into its cache, or are a folder or file of the
user's.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from . import store
from .audio import sha256
from .errors import BadRequest, NoModel, NotAllowed
from .files import exists, typed_path
from .places import MODELS, user_data

_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_PATTERNS = (
    "model_index.json",
    "stylus.json",
    *(f"{part}/*.{end}" for part in _PARTS for end in ("json", "txt")),
    # The plain weights only: a repository also holds fp16, EMA and pickled copies.
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)


@dataclass(frozen=True)
class Weights:
    """A model's name, where it comes from, and which files of a hub's repository it consists of."""

    name: str
    kind: Literal["embedded", "hub", "folder", "file"]
    source: str
    size: str
    note: str
    files: tuple[str, ...] = _PATTERNS
    former: str = ""
    """The repository that it had before; what was downloaded from there serves."""


def _second(name: str, repository: str, note: str) -> Weights:
    """Of the second generation, which its makers have taken from the hub: others keep a copy there."""
    source, former = (f"{owner}/{repository}" for owner in ("sd2-community", "stabilityai"))
    return Weights(name, "hub", source, "5.2 GB", f"{note}, a copy kept by others", former=former)


KNOWN = {
    "mini": Weights("mini", "embedded", str(MODELS / "mini"), "38 MB", "the embedded default"),
    "mini-injection": Weights(
        "mini-injection", "embedded", str(MODELS / "mini-injection"), "26 MB", "what mini leaves --method injection to"
    ),
    "sd15": Weights(
        "sd15",
        "hub",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "4.3 GB",
        "Stable Diffusion 1.5, Stylus's",
    ),
    "sd20-base": _second("sd20-base", "stable-diffusion-2-base", "Stable Diffusion 2.0 at 512"),
    "sd21-base": _second("sd21-base", "stable-diffusion-2-1-base", "Stable Diffusion 2.1 at 512"),
    "sd21": _second("sd21", "stable-diffusion-2-1", "Stable Diffusion 2.1, v-prediction"),
    "riffusion": Weights(
        "riffusion", "hub", "riffusion/riffusion-model-v1", "4.3 GB", "Stable Diffusion 1.5 tuned on spectrograms"
    ),
}
"""What renders."""

CLAP = Weights(
    "clap", "hub", "laion/clap-htsat-unfused", "0.6 GB", "listens for `stylus evaluate`; renders nothing",
    ("config.json", "preprocessor_config.json", "model.safetensors"),
)  # fmt: skip


def from_anywhere(model: str) -> str:
    """A model as it is named for others: a path is the same one in whatever folder it is read."""
    path = typed_path(model)
    return str(path.resolve()) if model not in KNOWN and exists(path) else model


def named(model: str) -> Weights:
    """A known model, or the user's folder or `.safetensors` file; `NoModel` says what there is."""
    if model in KNOWN:
        return KNOWN[model]
    path = typed_path(model)
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise NoModel(
            f"{path.name} is a pickle, which can run code when it is opened; convert it to .safetensors first "
            "(diffusers' convert_original_stable_diffusion_to_diffusers.py on a machine that you trust with it)"
        )
    if path.is_dir():
        return Weights(path.name, "folder", str(path.resolve()), "", "a local folder")
    if path.is_file() and path.suffix == ".safetensors":
        return Weights(path.stem, "file", str(path.resolve()), "", "a local file")
    raise NoModel(
        f"model: {model!r} is none of {', '.join(KNOWN)}, and no diffusers folder or .safetensors file either"
    )


def listed(name: str) -> Weights:
    """As `named`, and what measures too: all that `stylus models` knows."""
    return CLAP if name == CLAP.name else named(name)


def is_offline() -> bool:
    """Whether the user forbids downloads, by the hub's own switch."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def located(weights: Weights, download: bool = True) -> Path:
    """The folder or file on this machine; a hub model that is not there yet is downloaded with a progress bar."""
    if weights.kind != "hub":
        return Path(weights.source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for source in filter(None, (weights.source, weights.former)):
        try:
            folder = Path(snapshot_download(source, allow_patterns=list(weights.files), local_files_only=True))
        except LocalEntryNotFoundError:
            continue
        if _is_whole(weights, folder):
            return folder
    pull = f"`stylus models pull {weights.name}` ({weights.size})"
    if is_offline():
        raise NoModel(
            f"{weights.name} is not on this machine, and HF_HUB_OFFLINE forbids to fetch it; without it, {pull}"
        )
    if not download:
        raise NoModel(f"{weights.name} is not on this machine; {pull}")
    try:
        folder = Path(snapshot_download(weights.source, allow_patterns=list(weights.files)))
    except Exception as error:  # the hub client raises its HTTP library's errors, which differ between versions
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NoModel(f"{weights.name} could not be downloaded from {weights.source}: {reason}") from error
    if not _is_whole(weights, folder):
        raise NoModel(
            f"{weights.source} does not offer all of its weights as .safetensors, and pickled ones are not opened; "
            "convert them on a machine that you trust with them, and give the folder"
        )
    return folder


def _is_whole(weights: Weights, folder: Path) -> bool:
    """Whether a hub's folder has all weights: a download that was cut short, or another program, leaves some."""
    wanted = [name for name in weights.files if name.endswith(".safetensors") and "*" not in name]
    return all((folder / name).is_file() for name in wanted) and bool(_weight_files(weights, folder))


def _weight_files(weights: Weights, path: Path) -> list[Path]:
    """What a model is known by; in a hub's folder, which other programs share, nothing that it does not consist of."""
    if path.is_file():
        return [path]
    patterns = weights.files if weights.kind == "hub" else ("**/*.safetensors",)
    found = {file for pattern in patterns for file in path.glob(pattern)}
    return sorted(file for file in found if file.suffix == ".safetensors" and file.is_file())


def _file() -> Path:
    return user_data() / "weights.json"


def fingerprint(weights: Weights, path: Path, fresh: bool = False) -> str:
    """SHA-256 over a model's weight files, kept between runs while their sizes and times do not change."""
    files = _weight_files(weights, path)
    if not files:
        raise NoModel(f"{path} holds no .safetensors weights")
    stamp = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    kept = store.load(_file())
    key = str(path)
    if not fresh and key in kept and kept[key]["stamp"] == stamp:
        return str(kept[key]["sha256"])
    digests = [sha256(file) for file in files]
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    if not fresh:
        kept[key] = {"name": weights.name, "stamp": stamp, "sha256": digest}
        # A home that cannot be written only costs the next run a second hash.
        with suppress(NotAllowed):
            store.save(_file(), kept)
    return digest


def verify(weights: Weights) -> tuple[str, bool]:
    """The weights' SHA-256 as they lie there now, and whether it is the one that was kept."""
    path = located(weights, download=False)
    kept = store.load(_file()).get(str(path), {}).get("sha256")
    digest = fingerprint(weights, path, fresh=True)
    return digest, kept in (None, digest)


def check_device(device: str) -> str:
    """`BadRequest` for a device name that cannot be meant."""
    kind, _, number = device.partition(":")
    # A tensor on Apple's GPU calls it "mps:0".
    if device in ("auto", "cpu", "mps", "cuda") or (kind in ("cuda", "mps") and number.isdigit()):
        return device
    raise BadRequest(f"device: {device!r} is none of auto, cuda, cuda:N, mps, cpu")
