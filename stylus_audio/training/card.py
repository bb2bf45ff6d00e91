"""The model card, from what the training and the evaluation have left: `python -m stylus_audio.training.card`."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from ..engine import Engine
from ..errors import BadRequest
from .evaluation import drawn_of, one_line, read, table, weights_of
from .heldout import names
from .sounds import HELD_OUT_FONT, HELD_OUT_KIT, HELD_OUT_PROGRAMS, TRAINING_FONTS

PICTURES = 3


def _behind(training: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs that the weights have behind them, the first one first."""
    before: dict[str, Any] | None = training.get("before")
    return [*(_behind(before) if before else []), training]


def _said(run: dict[str, Any]) -> str:
    line = (
        f"- {run['examples']} examples of {run['groups']} groups, {run['minutes']} minutes on {run['device']}; "
        f"smoothed loss at the end {run['loss']}."
    )
    return line + " The weights are the mean of those before and after it." * bool(run.get("halfway"))


def _commands(runs: list[dict[str, Any]], left: str | None) -> str:
    """The command of each run; `left` is the model that injection is left to."""
    lines = []
    for number, run in enumerate(runs, 1):
        last = number == len(runs)
        words = ["--data DATA", f"--run RUN{number}", f"--minutes {run['minutes']}", run.get("flags", "")]
        words += [f"--init MODEL{number - 1}"] * (number > 1) + ["--halfway"] * bool(run.get("halfway"))
        words += [f"--injection {left}"] * bool(last and left) + [f"--export MODEL{'' if last else number}"]
        lines.append("python -m stylus_audio.training.train " + " ".join(word for word in words if word))
    return "\n".join(lines)


def card(model: Path, scores: Path, note: str, regression: Path | None = None) -> str:
    """The card's text; pictures of the first pairs and of the dials are copied beside it.

    Scores and pictures are those of the model, and of the `regression` where that is given, whatever else lies there.
    """
    about: dict[str, Any] = json.loads((model / "stylus.json").read_text("utf-8"))
    if "training" not in about:
        raise BadRequest(f"{model / 'stylus.json'} says nothing of a training")
    weights = weights_of(Engine(str(model), "cpu"), regression)
    runs, left = _behind(about["training"]), about.get("elsewhere", {}).get("injection")
    elsewhere = f"`--method injection` is left to `{left}`." if left else ""
    size = sum(file.stat().st_size for file in model.rglob("*.safetensors")) / 1e6
    pictures = []
    for file in [scores / f"{name}.png" for name in names()[:PICTURES]] + sorted(scores.glob("dials-*.png")):
        if drawn_of(file) == weights["default"]:
            shutil.copy(file, model / file.name)
            pictures.append(f"![{file.stem}]({file.name})")
    return f"""# mini

The embedded model of Stylus Audio: a small conditional diffusion model of log-mel pictures, 512 bands from 20 Hz to
20 kHz by 256 frames of 10 ms, on an exact patchify. {size:.0f} MB of weights in half precision.

It is given the content and its match-EQ to the reference as maps, the reference as tokens in cross-attention and as
keys and values in the decoder's self-attention (after Huang et al., arXiv 2404.14771), and says the residual over the
match-EQ in one pass: the answer of a diffusion model at its last time. {elsewhere}

{note}

## Training

- Data: groups of two pieces in three sounds, made by `stylus_audio.training.dataset`: composed
  MIDI on General MIDI programs by FluidSynth, on additive instruments that are drawn, drum kits, ensembles; speech by
  espeak-ng and noise through effects.
  Soundfonts: {", ".join(TRAINING_FONTS)} (Fluid R3 by Frank Wen, MuseScore General by S. Christian Collins; both MIT).
- Held out: the soundfont {HELD_OUT_FONT}, programs {", ".join(map(str, HELD_OUT_PROGRAMS))}, drum kit {HELD_OUT_KIT}, a
  voice, and all music of the evaluation.
{chr(10).join(map(_said, runs))}

```
python -m stylus_audio.training.dataset --out DATA --groups {runs[-1]["groups"]}
{_commands(runs, left)}
python -m stylus_audio.training.train --data DATA --run RUN0 --objective regression --export REGRESSION
python -m stylus_audio.training.evaluation --model MODEL --regression REGRESSION --out SCORES
python -m stylus_audio.training.dials --model MODEL --out SCORES
python -m stylus_audio.training.card --model MODEL --regression REGRESSION --scores SCORES
```

## Evaluation

Held-out pairs: the same MIDI on two instruments, one of them held out, in the held-out soundfont, and a reference that
plays something else on the second. The content's music on the second is the true answer, the oracle. Distances are of
the rendered audio to it, log-mel in decades at equal level. "oracle's mel" is the answer's own picture through the same
reconstruction: what any model could reach. Recipes have the published values with our reconstruction. Wins are pairs
nearer to the answer than match-EQ. The voice (espeak-ng) has no true answer; its formants' drift against the content is
reported.

{table(read(scores, names(), weights))}

{chr(10).join(pictures)}

Licence: MIT, as the project.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the model card beside the weights.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--regression", type=Path, help="the comparator's folder, where its scores are wanted")
    parser.add_argument("--note", type=Path, help="a text on what this version is good and bad at")
    asked = parser.parse_args()
    with one_line(parser):
        said = asked.note.read_text("utf-8").strip() if asked.note else ""
        text = card(asked.model, asked.scores, said, asked.regression)
        (asked.model / "MODEL_CARD.md").write_text(text, "utf-8")
