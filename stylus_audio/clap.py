"""CLAP's audio half: sounds to embeddings in which like sounds lie in like directions (Wu et al., ICASSP 2023)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from .audio import resample
from .errors import NoModel
from .quiet import quiet
from .windows import window_starts

Floats = NDArray[np.floating[Any]]


class Clap:
    """A loaded model, on the CPU in float32; call it for embeddings."""

    def __init__(self, model: Any, extractor: Any) -> None:
        self._model = model
        self._extractor = extractor

    @classmethod
    def of_folder(cls, folder: Path) -> Clap:
        """From a local folder as transformers saves a `ClapModel` with its feature extractor.

        Raises `NoModel` for a folder without safetensors, without one of these two, or damaged. Nothing is downloaded.
        """
        if not any(folder.glob("*.safetensors")):
            raise NoModel(f"clap: {folder} holds no .safetensors weights; pickled weights are not opened")
        with quiet():
            from transformers import ClapAudioModelWithProjection, ClapFeatureExtractor

            try:
                extractor = ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
                # The half that reads text would take four times the memory of the one that listens.
                model, report = ClapAudioModelWithProjection.from_pretrained(
                    folder, use_safetensors=True, local_files_only=True, output_loading_info=True, dtype=torch.float32
                )
            except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, SafetensorError) as error:
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise NoModel(f"clap: these weights cannot be loaded from {folder}: {reason}") from error
        # What a file does not hold is left random, and would be measured with.
        absent = {name for name, _ in model.named_parameters()} & set(report["missing_keys"])
        if absent:
            raise NoModel(f"clap: {folder} is no CLAP model: {min(absent)} and {len(absent) - 1} others are missing")
        return cls(model.eval(), extractor)

    def __call__(self, audio: Floats, sample_rate: int) -> NDArray[np.float64]:
        """One embedding of length 1 for every window of 10 s, `[channel, sample]` → `[window, dimension]`.

        Channels are averaged and resampled to the model's 48 kHz. A clip shorter than a window is repeated in it, as in
        the model's training; the windows of a longer one are spread so that none reaches beyond its end.
        """
        rate, window = int(self._extractor.sampling_rate), int(self._extractor.nb_max_samples)
        mono = resample(np.mean(audio, axis=0, keepdims=True), sample_rate, rate)[0]
        starts = window_starts(len(mono), window, 0.0)
        rows = np.concatenate([self._embedded(mono[start : start + window], rate) for start in starts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    def _embedded(self, piece: Floats, rate: int) -> NDArray[np.float64]:
        # One window at a time: of several the extractor marks one at random as longer, which fused models listen to.
        inputs = self._extractor(piece, sampling_rate=rate, return_tensors="pt")
        with torch.inference_mode():
            output = self._model(inputs["input_features"].float(), is_longer=inputs["is_longer"])
        return np.asarray(output.audio_embeds.double().numpy())
