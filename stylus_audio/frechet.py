"""Fréchet audio distance: how far two sets of sounds are from each other, whatever is played in them.

A sound becomes embeddings, rows `[window, dimension]`; two sets of rows are compared as two Gaussians. The embedding
here needs no weights; `clap` has another.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import log_mels
from .reference import picture_of
from .spectrogram import Profile

Floats = NDArray[np.floating[Any]]

PROFILE = Profile(44100, 441, 2048, 4096, 40, 20.0, 20000.0, 100, "log")
"""40 bands from 20 Hz to 20 kHz, a hundred frames a second: timbre, and hardly the single harmonics."""


def mel_embeddings(audio: Floats, sample_rate: int) -> NDArray[np.float64]:
    """Mean and standard deviation of `PROFILE`'s log-mel bands in decades (20 dB) for about every second.

    `[channel, sample]` → `[second, 80]`, the 40 means first. The clip's level does not count, nor do frames of silence;
    a clip shorter than 1.5 s has one row, a silent one none.
    """
    picture = picture_of(audio, sample_rate, PROFILE)
    logs = log_mels(picture, picture).astype(np.float64)
    # Equal shares of the clip instead of a short rest at its end, whose deviation would be of few frames.
    shares = np.array_split(np.arange(logs.shape[1]), max(1, round(logs.shape[1] / PROFILE.frames)))
    sounding = [share[~picture.silent[share]] for share in shares]
    rows = [np.concatenate([logs[:, at].mean(1), logs[:, at].std(1)]) for at in sounding if at.size]
    return np.array(rows).reshape(-1, 2 * PROFILE.bands)


def frechet_distance(one: Floats, other: Floats) -> float:
    """`‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½)` of two sets of embeddings `[row, dimension]`, in their unit squared.

    From 0, for sets with the same mean and covariance; the same either way round. NaN where a set has fewer than two
    rows, which have no covariance. Few rows make it larger than the distance between what they were drawn from.
    Fréchet distance of Gaussians: Dowson & Landau, 1982; of embeddings of audio: Kilgour et al., Interspeech 2019.
    """
    if min(len(one), len(other)) < 2:
        return math.nan
    ours, theirs = _root(one), _root(other)
    # With Σ = RᵀR the square roots of the eigenvalues of Σ₁Σ₂ are the singular values of R₁R₂ᵀ. They need no square
    # root of a covariance that has fewer rows than dimensions, which eigenvalues near zero would make inexact.
    shared = float(np.linalg.norm(ours @ theirs.T, "nuc"))
    moved = np.asarray(one, np.float64).mean(0) - np.asarray(other, np.float64).mean(0)
    return max(0.0, float((moved**2).sum() + (ours**2).sum() + (theirs**2).sum() - 2 * shared))


def _root(rows: Floats) -> NDArray[np.float64]:
    """A matrix R with RᵀR the unbiased covariance of the rows."""
    values = np.asarray(rows, np.float64)
    return np.asarray(np.linalg.qr((values - values.mean(0)) / math.sqrt(len(values) - 1), mode="r"), np.float64)
