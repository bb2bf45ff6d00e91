"""How near GuideDiff comes to the true waveform: `python -m stylus_audio.training.guidediff_evaluation --out DIR`.

Held-out renders become pictures, and pictures become sound again, in every way there is. What is done is kept in
`DIR/scores.jsonl`, so a stopped run goes on. `--card MODEL` writes the model card beside the weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import NotFound
from ..gains import Gains
from ..guidediff import GuideDiff
from ..phase import apply_gain, apply_phase, griffin_lim
from ..reference import picture_of
from ..spectrogram import MINI
from ..vocoder import decoded, load
from ..waveform_metrics import log_spectral_distance, multi_resolution_stft
from .evaluation import SCORES, Row, add_rows, first, one_line, read_rows
from .heldout import make, names
from .sounds import HELD_OUT_FONT, TRAINING_FONTS
from .synthesise import SAMPLE_RATE

Mono = NDArray[np.float32]
Way = Callable[[Mono, int, Gains], NDArray[np.float32]]


def ways(decoder: GuideDiff) -> dict[str, Way]:
    """Everything that makes sound of a picture, by its name in the table; the first argument is the content."""
    return {
        "Griffin-Lim, 32 iterations": partial(griffin_lim, iterations=32),
        "Griffin-Lim, 64 iterations": partial(griffin_lim, iterations=64),
        "GuideDiff alone": partial(decoded, iterations=0, decoder=decoder),
        "GuideDiff, 32 iterations": partial(decoded, iterations=32, decoder=decoder),
        "phase of the content": partial(apply_phase, iterations=8),
        "gains on the content": partial(apply_gain, iterations=8),
    }


def measure(name: str, found: dict[str, Way]) -> list[Row]:
    """A row for each way: its distances from the true waveform of a held-out pair, and its real-time factor."""
    pair = make(name)
    if pair.oracle is None:
        return []
    truth, content = pair.oracle[:1], pair.content[:1]
    scale = max(1e-9, float(np.abs(truth).max()))
    truth, content = truth / scale, content / scale
    styled = picture_of(truth, SAMPLE_RATE, MINI).mel
    gains = Gains(styled, picture_of(content, SAMPLE_RATE, MINI).mel, MINI)
    rows: list[Row] = []
    for way, make_sound in found.items():
        begun = time.perf_counter()
        made = make_sound(content, SAMPLE_RATE, gains)
        seconds = time.perf_counter() - begun
        rows.append({
            "pair": name,
            "way": way,
            "mr_stft": round(multi_resolution_stft(made[0], truth[0]), 5),
            "lsd_db": round(log_spectral_distance(made[0], truth[0]), 4),
            "rtf": round(seconds / (truth.shape[1] / SAMPLE_RATE), 3),
        })  # fmt: skip
    return rows


def table(rows: Sequence[Row]) -> str:
    """Means over the held-out renders, and in how many a way is nearer than Griffin-Lim with 32 iterations."""
    by_way: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_way.setdefault(str(row["way"]), {})[str(row["pair"])] = row
    base = next(iter(by_way.values()))
    lines = [
        "| picture to sound | renders | MR-STFT | log-spectral, dB | nearer than the first | real-time factor |",
        "|---|---|---|---|---|---|",
    ]
    for way, scores in by_way.items():
        means = [np.mean([float(row[key]) for row in scores.values()]) for key in ("mr_stft", "lsd_db", "rtf")]
        wins = np.mean([float(row["mr_stft"]) < float(base[pair]["mr_stft"]) for pair, row in scores.items()])
        lines.append(f"| {way} | {len(scores)} | {means[0]:.3f} | {means[1]:.2f} | {wins:.0%} | {means[2]:.2f} |")
    return "\n".join(lines)


def compare(decoder: GuideDiff, pairs: int | None = None, out: Path | None = None) -> str:
    """The table of the first so many held-out renders; rows that `out` has are not made again."""
    kept = out / SCORES if out else None
    chosen = first([name for name in names() if not name.endswith("voice")], pairs)
    weights, found = _fingerprint(decoder), ways(decoder)
    rows = [row for row in (read_rows(kept) if kept else []) if row.get("weights") == weights and row["pair"] in chosen]
    done = {(row["pair"], row["way"]) for row in rows}
    for name in chosen:
        # A run that was stopped may have left some of them.
        if all((name, way) in done for way in found):
            continue
        made = [{**row, "weights": weights} for row in measure(name, found)]
        rows += made
        if kept:
            add_rows(kept, made)
            print(f"{name}: " + ", ".join(f"{row['way']} {row['mr_stft']:.3f}" for row in made), flush=True)
    return table(rows)


def _fingerprint(decoder: GuideDiff) -> str:
    """Of the weights: what others have scored is not theirs."""
    digest = hashlib.sha256()
    for name, value in sorted(decoder.state_dict().items()):
        digest.update(name.encode() + value.half().numpy().tobytes())
    return digest.hexdigest()[:16]


def card(folder: Path, figures: str) -> str:
    """The model card's text."""
    training = json.loads((folder / "training.json").read_text("utf-8"))
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6
    return f"""# GuideDiff

A diffusion decoder from `mini`'s pictures to waveforms (after Huang et al., arXiv 2404.14771), for
`--reconstruction guidediff`: sound from the picture alone, without the content's phase. {size:.1f} MB of weights in
half precision; how it works is in `stylus_audio/guidediff.py`.

## Training

{training["examples"]} windows of 0.7 s of the clips of {training["groups"]} groups of `stylus_audio.training.dataset`
(soundfonts {", ".join(TRAINING_FONTS)}), {training["minutes"]} minutes on {training["device"]}; smoothed loss at the
end {training["loss"]}.

```
python -m stylus_audio.training.waveforms --out CLIPS --groups {training["groups"]}
python -m stylus_audio.training.train_guidediff --data CLIPS --run RUN --minutes {training["minutes"]} --export MODEL
python -m stylus_audio.training.guidediff_evaluation --model MODEL --out SCORES --card
```

## Evaluation

Held-out renders (soundfont {HELD_OUT_FONT}, instruments and music that no training has heard) become pictures and
sound again; distances from the true waveform, one channel. MR-STFT: spectral convergence and log magnitude at 512, 1024
and 2048 samples (Yamamoto et al., arXiv 1910.11480), down to 80 dB. "alone" is what the network makes in four steps;
"32 iterations" are Griffin and Lim's from the phase that it has found, which is what `--reconstruction guidediff` does.
The last two rows have what the others have not: a content that plays the same notes on another instrument.

{figures}

Licence: MIT, as the project.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare GuideDiff with Griffin-Lim and the content's phase.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--model", type=Path, help="a folder that the trainer has exported, instead of the embedded one"
    )
    parser.add_argument("--pairs", type=int, help="only the first so many renders")
    parser.add_argument("--card", action="store_true", help="write MODEL_CARD.md into the model's folder")
    asked = parser.parse_args()
    with one_line(parser):
        if asked.model and not asked.model.is_dir():
            # It would be looked for on the hub.
            raise NotFound(f"--model: {asked.model} is no folder")
        figures = compare(load(asked.model) if asked.model else load(), asked.pairs, asked.out)
        print(figures)
        if asked.card and asked.model:
            (asked.model / "MODEL_CARD.md").write_text(card(asked.model, figures), "utf-8")
