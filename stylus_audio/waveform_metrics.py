"""How near a waveform's spectra are to those of the true one, whatever the phase. Both are `[sample]`, equally long."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.floating[Any]]

RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512))
"""FFT size and hop in samples."""

RANGE_DB = 80.0
"""Magnitudes count as at least this much under the true one's maximum: nobody hears how deep silence is."""


def multi_resolution_stft(output: Floats, truth: Floats) -> float:
    """Spectral convergence plus mean absolute log magnitude, over `RESOLUTIONS` (Yamamoto et al., arXiv 1910.11480).

    0 for the same signal; NaN where the true one is silent.
    """
    made, true = (torch.from_numpy(np.asarray(signal, np.float32)) for signal in (output, truth))
    return float(np.mean([_distance(made, true, size, hop) for size, hop in RESOLUTIONS]))


def _distance(output: Tensor, truth: Tensor, size: int, hop: int) -> float:
    made, true = (_magnitude(signal, size, hop) for signal in (output, truth))
    if not true.max() > 0:
        return float("nan")
    convergence = (made - true).norm() / true.norm()
    logs = (_logs(made, true) - _logs(true, true)).abs().mean()
    return float(convergence + logs)


def log_spectral_distance(output: Floats, truth: Floats) -> float:
    """Root of the mean squared difference in dB of each frame (46 ms), averaged over frames; NaN as above."""
    made, true = (
        _magnitude(torch.from_numpy(np.asarray(signal, np.float32)), *RESOLUTIONS[-1]) for signal in (output, truth)
    )
    if not true.max() > 0:
        return float("nan")
    decibels = (_logs(made, true) - _logs(true, true)) * (20 / np.log(10))
    return float(decibels.square().mean(0).sqrt().mean())


def _magnitude(signal: Tensor, size: int, hop: int) -> Tensor:
    window = torch.hann_window(size)
    return torch.stft(signal, size, hop, window=window, pad_mode="constant", return_complex=True).abs()


def _logs(magnitude: Tensor, truth: Tensor) -> Tensor:
    return magnitude.clamp_min(float(truth.max()) * 10 ** (-RANGE_DB / 20)).log()
