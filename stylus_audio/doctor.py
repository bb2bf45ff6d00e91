"""`stylus doctor`: what works on this machine."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import entry_points, version

from . import installed
from .errors import StylusError
from .files import can_write
from .places import user_data


@dataclass(frozen=True)
class Check:
    """One line of the report; `ok` is false only where something that a user may want does not work."""

    name: str
    ok: bool
    detail: str

    @property
    def line(self) -> str:
        """As it is printed."""
        return f"{'ok  ' if self.ok else 'no  '} {self.name:<12} {self.detail}"


def report() -> list[Check]:
    """Every check, in the order in which a render needs them."""
    own = [_versions(), _device(), _model(), _downloads(), _audio_files(), _playing(), _home(), _executable()]
    # Those of other packages, such as the daemon's, which this one does not know.
    return own + [check for entry in entry_points(group="stylus.checks") for check in entry.load()()]


def _versions() -> Check:
    packages = ", ".join(f"{name} {version(name)}" for name in ("stylus-audio", "torch", "diffusers", "transformers"))
    return Check("versions", True, f"Python {platform.python_version()}, {packages}")


def _device() -> Check:
    import torch

    from .model import choose_device, choose_dtype

    device = choose_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    precision = str(choose_dtype("auto", device)).removeprefix("torch.")
    return Check("device", True, f"{device} ({name}), {precision}")


def _model() -> Check:
    from .model import load_model

    try:
        model = load_model("mini")
    except StylusError as error:
        return Check("model", False, str(error))
    return Check("model", True, f"mini loads, SHA-256 {model.sha256[:12]}")


def _downloads() -> Check:
    from huggingface_hub.constants import HF_HUB_CACHE

    from .weights import is_offline

    state = "offline by HF_HUB_OFFLINE" if is_offline() else "allowed"
    return Check("downloads", True, f"{state}, cache {HF_HUB_CACHE}")


def _audio_files() -> Check:
    import soundfile

    from .audio import FORMATS

    there = soundfile.available_formats()
    missing = [name for name in FORMATS if name not in there]
    detail = f"libsndfile {soundfile.__libsndfile_version__}"
    return Check("audio files", not missing, f"{detail}, without {', '.join(missing)}" if missing else detail)


def _playing() -> Check:
    from .playback import portaudio

    return Check("playing", *portaudio())


def _home() -> Check:
    folder = user_data()
    there = folder if folder.exists() else next(parent for parent in folder.parents if parent.exists())
    writable = can_write(there)
    return Check("your folder", writable, f"{folder}{'' if writable else ' cannot be written'}")


def _executable() -> Check:
    return Check("executable", *installed.record())
