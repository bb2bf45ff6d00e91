"""Train the classifier of instruments: `python -m stylus_audio.training.train_instruments --data DIR --run DIR`.

`--data` is what `stylus_audio.training.dataset` made; which instrument plays is drawn again from the groups' seeds.
`--export DIR` writes weights and a card with the accuracy on held-out sounds.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import NotFound, StylusError
from ..instruments import FAMILIES, FRAMES, WEIGHTS, InstrumentNet, family_probabilities
from ..spectrogram import MINI
from .dataset import FRAMES as CLIP_FRAMES
from .dataset import LEVELS, PIECES, Pictures, group_instruments
from .heldout import make, names
from .run import Batch, Plan, Progress, Run, sent
from .sounds import HELD_OUT_FONT, HELD_OUT_PROGRAMS, TRAINING_FONTS
from .synthesise import SAMPLE_RATE

SMOOTHING = 0.05
MOVED = 12
"""Bands that a picture is moved by in pitch, at most."""


def family_of(program: int) -> int:
    """Index into `FAMILIES` of a General MIDI program, or of `DRUMS`."""
    return min(program // 8, len(FAMILIES) - 1)


class InstrumentTrainer(Run[Progress]):
    """A training run of the classifier."""

    def __init__(self, run: Path, data: Pictures, plan: Plan | None = None) -> None:
        super().__init__(run, lambda: nn.ModuleDict({"network": InstrumentNet()}), Progress(), plan or Plan())
        self.data = data
        self.clips: dict[int, list[tuple[int, int]]] = {}
        """Of each family, as group and sound."""
        self.labelled = 0
        self.refresh()

    def refresh(self) -> None:
        """Take in groups that have been added since."""
        self.data.refresh()
        before, self.labelled = self.labelled, len(self.data.pictures)
        for group in range(before, self.labelled):
            for sound, program in enumerate(group_instruments(group)):
                if program is not None:
                    self.clips.setdefault(family_of(program), []).append((group, sound))

    def batch(self, rng: np.random.Generator) -> Batch:
        """Pictures `[window, mel, frame]` and families `[window]`, every family as often.

        Tilted, moved in pitch and in level, so that no soundfont's own balance is what is learned.
        """
        pictures = np.zeros((self.plan.batch, MINI.bands, FRAMES), np.float32)
        families = rng.choice(sorted(self.clips), self.plan.batch)
        for row, family in enumerate(families):
            group, sound = self.clips[int(family)][int(rng.integers(len(self.clips[int(family)])))]
            start = int(rng.integers(0, CLIP_FRAMES - FRAMES + 1))
            window = self.data.pictures[group, sound, int(rng.integers(PIECES)), :, start : start + FRAMES]
            moved = int(rng.integers(-MOVED, MOVED + 1))
            padded = np.pad(window.astype(np.float32) / LEVELS, ((MOVED, MOVED), (0, 0)))
            picture = padded[MOVED - moved :][: MINI.bands]
            tilt = np.linspace(-1, 1, MINI.bands, dtype=np.float32)[:, None] * rng.normal(0, 0.08)
            pictures[row] = np.where(picture > 0, np.clip(picture + tilt + rng.normal(0, 0.05), 0, 1), 0)
        return sent(pictures, self.device), sent(families.astype(np.int64), self.device)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy with smoothed labels."""
        pictures, families = batch
        network: Any = self.networks["network"]
        return F.cross_entropy(network(pictures), families, label_smoothing=SMOOTHING)

    def network(self) -> InstrumentNet:
        """With the averaged weights, on the CPU."""
        network: InstrumentNet = self.averaged()["network"]  # type: ignore[assignment]
        return network

    def validate(self) -> None:
        """Print the accuracy on held-out sounds."""
        print(accuracy(self.network()), flush=True)

    def export(self, folder: Path) -> None:
        """The averaged weights in half precision, and their card; `NotFound` where there is no soundfont for it."""
        network = self.network()
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.half().contiguous() for name, value in network.state_dict().items()}
        save_file(weights, folder / WEIGHTS)
        try:
            found = accuracy(network)
        except NotFound as missing:
            raise NotFound(f"the weights are in {folder}, without a card: {missing}") from missing
        (folder / "MODEL_CARD.md").write_text(card(len(self.data.pictures), self.facts(), found), "utf-8")


def accuracy(network: InstrumentNet) -> dict[str, float]:
    """Share of held-out clips that are heard as their family: of programs that were trained on, in a soundfont that was
    not, and of programs that were not either.
    """
    right: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for name in names():
        if name.endswith("voice"):
            continue
        pair = make(name)
        for kind, audio, program in pair.heard():
            probable = family_probabilities(audio, SAMPLE_RATE, network)
            if probable is not None:
                count[kind] += 1
                right[kind] += int(probable.argmax()) == family_of(program)
    return {kind: right[kind] / count[kind] for kind in sorted(count)} | {"clips": float(count.total())}


def card(groups: int, facts: dict[str, object], found: dict[str, float]) -> str:
    """The model card's text."""
    shares = "\n".join(f"| {kind} | {share:.0%} |" for kind, share in found.items() if kind != "clips")
    return f"""# Instruments

A small classifier of log-mel pictures into {len(FAMILIES)} families ({", ".join(FAMILIES)}), for
`instrument_match` of `stylus evaluate`: whether a stem is heard as the family of its style.

Trained on {facts["examples"]} windows of 1.28 s of the clips of {groups} groups of `stylus_audio.training.dataset` on
which one instrument plays (soundfonts {", ".join(TRAINING_FONTS)}), {facts["minutes"]} minutes on {facts["device"]}.

```
python -m stylus_audio.training.dataset --out DATA --groups {groups}
python -m stylus_audio.training.train_instruments --data DATA --run RUN --minutes {facts["minutes"]} --export MODEL
```

Right on {found["clips"]:.0f} clips of 4 to 6 s of a soundfont that it has not heard ({HELD_OUT_FONT}); by chance it
would be {1 / len(FAMILIES):.0%}:

| | heard as their family |
|---|---|
{shares}

"unheard programs" are {", ".join(map(str, HELD_OUT_PROGRAMS))}, which no training clip played.

Licence: MIT, as the project.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the classifier of instruments, or go on with it.")
    parser.add_argument("--data", type=Path, required=True, help="what stylus_audio.training.dataset made")
    parser.add_argument("--export", type=Path, help="where to write the weights at the end")
    Plan.options(parser)
    asked = parser.parse_args()
    try:
        trainer = InstrumentTrainer(asked.run, Pictures(asked.data), Plan.asked(asked))
        trainer.carry_out(asked, trainer.export)
    except StylusError as error:
        parser.exit(error.exit_code, f"{error}\n")
