"""Stylus Audio: give a clip the sound of a reference by style injection in a diffusion model.

`Engine` renders clips; `stylize_latents`, `invert` and `sample` are the method alone, on any diffusers UNet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .denoiser import Denoiser, Schedule
    from .engine import Engine, Render
    from .errors import StylusError
    from .inversion import Trace, invert
    from .sampling import sample
    from .settings import Settings
    from .stylize import stylize_latents

_HOMES = {
    "Denoiser": "denoiser",
    "Engine": "engine",
    "Render": "engine",
    "Schedule": "denoiser",
    "Settings": "settings",
    "StylusError": "errors",
    "Trace": "inversion",
    "invert": "inversion",
    "sample": "sampling",
    "stylize_latents": "stylize",
}

__all__ = [
    "Denoiser",
    "Engine",
    "Render",
    "Schedule",
    "Settings",
    "StylusError",
    "Trace",
    "invert",
    "sample",
    "stylize_latents",
]


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used, so that importing the package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
