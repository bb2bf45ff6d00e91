"""Where notes and hits begin: spectral flux of a log spectrogram in bands, with a local threshold.

After Böck and Widmer, "Maximum filter vibrato suppression for onset detection" (DAFx 2013), without the vibrato part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

_HOP_SECONDS = 0.005
_WINDOW_SECONDS = 0.023
_BANDS = 48
_LIFT = 0.06
"""Of the highest flux of the clip: what an onset rises over its surroundings."""


def onset_times(audio: Floats, sample_rate: int) -> NDArray[np.float64]:
    """Onsets of `[channel, sample]` in seconds, in order, to about 10 ms; independent of the level."""
    from scipy.ndimage import median_filter
    from scipy.signal import find_peaks

    flux = _flux(np.asarray(audio).mean(0), sample_rate)
    if not len(flux) or flux.max() <= 0:
        return np.zeros(0)
    flux = flux / flux.max()
    around = median_filter(flux, round(0.2 / _HOP_SECONDS) | 1)
    apart = round(0.05 / _HOP_SECONDS)
    padded = np.concatenate([[0.0], flux - around, [0.0]])
    peaks, _ = find_peaks(padded, height=_LIFT, distance=apart, prominence=_LIFT)
    return np.asarray((peaks - 1) * _HOP_SECONDS, np.float64)


def _flux(mono: Floats, sample_rate: int) -> NDArray[np.float64]:
    """Rise of the log bands from frame to frame, `[frame]`; frame `j` is centred on `j` hops."""
    hop = max(1, round(_HOP_SECONDS * sample_rate))
    window = max(32, round(_WINDOW_SECONDS * sample_rate))
    shape = np.hanning(window)
    peak = float(np.abs(mono).max(initial=0.0))
    if peak <= 0:
        return np.zeros(0)
    # Silence before the clip, so that one which starts at once has an onset there.
    padded = np.pad(np.asarray(mono, np.float32) / peak, (window // 2 + hop * 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    edges = np.unique(np.round(np.geomspace(1, window // 2, _BANDS)).astype(int))
    logs = np.empty((len(frames), len(edges) - 1), np.float32)
    for first in range(0, len(frames), 2048):
        spectrum = np.abs(np.fft.rfft(frames[first : first + 2048] * shape, axis=1))
        bands = np.add.reduceat(spectrum, edges[:-1], axis=1) / np.diff(edges)
        logs[first : first + 2048] = np.log10(1e-3 + bands / window * 8)
    rise = np.maximum(0.0, logs[2:] - logs[:-2]).sum(1).astype(np.float64)
    # Frame `j` of the rise compares the frames around `j + 1`; two hops of silence were put before the clip.
    return np.concatenate([rise[1:], [0.0]])
