"""How good the embedded model is, on what it has never heard: `python -m stylus_audio.training.evaluation --out DIR`.

Renders held-out pairs by every system, scores each against the true answer, and prints one table. What is done is
kept in `DIR/scores.jsonl`, so a stopped run goes on; `--table` prints what there is of these weights and pairs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..audio import sha256
from ..engine import Engine
from ..errors import BadRequest, NotFound, StylusError
from ..finish import finish
from ..gains import Gains
from ..match_eq import equalised, match_eq
from ..metrics import chroma, chroma_similarity, log_mel_distance, timbre_distance
from ..oracle_metrics import flatness, formant_drift, local_contrast, mfcc_distance, note_f1, pitch_leakage
from ..passage import Passage
from ..reconstruction import reconstruct
from ..reference import Picture, picture_of
from ..settings import RECIPES, Settings
from ..spectrogram import MINI, from_image, to_image
from ..stem import write_stem
from ..store import damaged
from ..weights import fingerprint, located, named
from ..windows import blend, window_starts
from .heldout import Pair, make, names, validation
from .sounds import Audio
from .synthesise import SAMPLE_RATE

SCORES = "scores.jsonl"
DRAWN_OF = "Weights"
"""The text in a picture's PNG that says of which weights it is."""

Row = dict[str, Any]


@dataclass(frozen=True)
class System:
    """What makes a stem of a pair, and the fingerprint of the weights that it does so with, where there are any."""

    stem: Callable[[Pair], Audio]
    weights: str | None = None


@dataclass(frozen=True)
class Column:
    """One column of the table: how a score is summed up over pairs, and how it is written."""

    title: str
    key: str
    places: int = 3


COLUMNS = (
    Column("log-mel to oracle", "log_mel"),
    Column("MFCC to oracle, dB", "mfcc", 2),
    Column("style distance", "style"),
    Column("chroma", "chroma"),
    Column("note F1", "note_f1"),
    Column("leakage", "leakage"),
    Column("contrast / oracle's", "contrast", 2),
    Column("flatness − oracle's, dB", "flatness", 2),
    Column("formant drift", "formants", 3),
)


def systems(engine: Engine, regression: Path | None, only: Sequence[str] = ()) -> dict[str, System]:
    """Everything that is compared, by its name in the table; or `only` some of it."""
    default = engine.settings()
    found: dict[str, Callable[[Pair], Audio]] = {
        "content": lambda pair: pair.content,
        "match-EQ": partial(_by_gains, engine, default, _match_eq),
        "oracle's mel": partial(_by_gains, engine, default, _oracle),
        "default": partial(_rendered, engine, default),
    }
    if regression:
        found["regression"] = partial(_by_gains, engine, default, _Regression(regression).styled)
    # The published values with our reconstruction, so that what is compared is the method.
    for name, recipe in RECIPES.items():
        values = {**recipe, "reconstruction": "gain", "refine": None, "layers": None}
        found[f"recipe {name}"] = partial(_rendered, engine, engine.settings(**values))
    weights = weights_of(engine, regression)
    return {name: System(stem, weights[name]) for name, stem in found.items() if not only or name in only}


def weights_of(engine: Engine, regression: Path | None = None) -> dict[str, str | None]:
    """The fingerprint of what each system renders with: what others have scored is not theirs.

    Of the engine's model, of those that it leaves methods to, and of what they prefer, for all but the untouched
    content; for the regression of its network too.
    """
    model = engine.model
    others = [fingerprint(named(name), located(named(name))) for name in model.elsewhere.values()]
    own = _digest(model.sha256, *others, repr((model.methods, model.spread, model.contrast)))
    ours = ("match-EQ", "oracle's mel", "default", *(f"recipe {name}" for name in RECIPES))
    weights = {"content": None, **dict.fromkeys(ours, own)}
    if regression:
        files = sorted(regression.rglob("*.safetensors"))
        weights["regression"] = _digest(own, *(sha256(file) for file in files))
    return weights


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _rendered(engine: Engine, settings: Settings, pair: Pair) -> Audio:
    render = engine.render((pair.content, SAMPLE_RATE), (pair.reference, SAMPLE_RATE), settings)
    return np.asarray(render.audio, np.float32)


def _by_gains(
    engine: Engine, settings: Settings, styled: Callable[[Picture, Pair, Passage], NDArray[np.float32]], pair: Pair
) -> Audio:
    """A stem from a mel that something else than the engine's model made, by the engine's own reconstruction."""
    _, passage = engine.passage((pair.content, SAMPLE_RATE), settings)
    picture = picture_of(passage.carrier, SAMPLE_RATE, MINI)
    gains = Gains(styled(picture, pair, passage), picture.mel, MINI)
    audio, _ = finish(passage, reconstruct(passage, gains, settings), settings, integer=False)
    return np.asarray(audio, np.float32)


def _match_eq(picture: Picture, pair: Pair, passage: Passage) -> NDArray[np.float32]:
    del passage
    gain = match_eq(picture.level, pair.reference_picture.level)
    return np.asarray(picture.mel * 10 ** (gain[:, None] / 20), np.float32)


def _oracle(picture: Picture, pair: Pair, passage: Passage) -> NDArray[np.float32]:
    """The true answer's own mel: what the reconstruction could reach at best."""
    if pair.oracle is None:
        return picture.mel
    behind = passage.carrier.shape[1] - passage.first - pair.oracle.shape[1]
    return picture_of(np.pad(pair.oracle, ((0, 0), (passage.first, behind))), SAMPLE_RATE, MINI).mel


class _Regression:
    """The comparator's network, exported by the trainer."""

    def __init__(self, folder: Path) -> None:
        from diffusers import UNet2DConditionModel

        from ..latent import Patchify

        about = json.loads((folder / "stylus.json").read_text("utf-8"))
        self.codec = Patchify(*(about["latent"][name] for name in ("factor", "shift", "scale")))
        self.spread = float(about["spread"])
        self.unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", use_safetensors=True).float().eval()

    @torch.no_grad()
    def styled(self, picture: Picture, pair: Pair, passage: Passage) -> NDArray[np.float32]:
        from .objective import regress

        del passage
        starts = window_starts(picture.mel.shape[-1], MINI.frames, 0.25)
        windows = picture.windows(starts)[0][:, 0]
        gain = match_eq(picture.level, pair.reference_picture.level)
        guide = self.codec.encode(torch.from_numpy(equalised(windows, gain, MINI)))
        content = self.codec.encode(torch.from_numpy(windows))
        image = self.codec.decode(guide + self.spread * regress(self.unet, content, guide)).numpy()
        mel = from_image(image[:, None], MINI, picture.maximum)
        return blend(mel, starts, picture.mel.shape[-1])


def score(pair: Pair, audio: Audio) -> dict[str, float]:
    """All scores of one stem; what does not exist for the pair is not in it."""
    output, oracle = picture_of(audio, SAMPLE_RATE, MINI), pair.oracle_picture
    values = {
        "style": timbre_distance(output, pair.reference_picture),
        "note_f1": note_f1(audio, pair.notes),
        "leakage": pitch_leakage(audio, pair.notes, pair.reference_notes),
        "chroma": chroma_similarity(chroma(audio), chroma(pair.content)),
    }
    if oracle is None:
        values["formants"] = formant_drift(audio, pair.content)
    else:
        values |= {
            "log_mel": log_mel_distance(output, oracle),
            "mfcc": mfcc_distance(output, oracle),
            "contrast": float(local_contrast(output, oracle).mean() / local_contrast(oracle, oracle).mean()),
            "flatness": float(flatness(output, oracle).mean() - flatness(oracle, oracle).mean()),
        }
    return {name: round(float(value), 5) for name, value in values.items() if math.isfinite(value)}


def run(out: Path, chosen: list[str], found: dict[str, System], audio: bool = False) -> None:
    """Score what is not yet scored; each pair gets a line, a picture of all its stems and, with `audio`, the stems."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: system.weights for name, system in found.items()}
    drawn = next((one for one in weights.values() if one), None)
    done = {(row["pair"], row["system"]): row for row in read(out, chosen, weights)}
    for number, name in enumerate(chosen):
        missing = [system for system in found if (name, system) not in done]
        if not missing:
            continue
        pair = make(name)
        stems: dict[str, Audio] = {}
        for system in missing:
            stems[system] = found[system].stem(pair)
            row = {"pair": name, "system": system, "weights": found[system].weights, **score(pair, stems[system])}
            done[name, system] = row
            add_rows(out / SCORES, [row])
        before = drawn_of(out / f"{name}.png")
        # Of some systems alone it would take the place of a picture of all, if these are of the same weights.
        if len(missing) == len(found) or before is None or (drawn and before != drawn):
            draw(out / f"{name}.png", pair, stems, drawn)
        if audio:
            for system, stem in stems.items():
                write_stem(stem, SAMPLE_RATE, out / f"{name} {system}.flac", subtype="PCM_16", overwrite=True)
        distances = {system: done[name, system].get("log_mel") for system in found}
        shown = ", ".join(f"{system} {value:.3f}" for system, value in distances.items() if value is not None)
        print(f"{number + 1}/{len(chosen)} {pair.name}: {shown}", flush=True)


def read(out: Path, chosen: Sequence[str] | None = None, weights: Mapping[str, str | None] | None = None) -> list[Row]:
    """Rows that are there, one for each pair and system: all, or those of the chosen pairs and of these `weights_of`.

    A row that does not say its weights, as an earlier version has left it, is of none that are asked for.
    """
    rows = read_rows(out / SCORES)
    if chosen is not None:
        rows = [row for row in rows if row["pair"] in set(chosen)]
    if weights is not None:
        rows = [row for row in rows if row["system"] in weights and row.get("weights") == weights[row["system"]]]
    return rows


def read_rows(file: Path) -> list[Row]:
    """The objects of a file, one a line; raises `BadRequest` for a damaged file.

    A line that has no end is none: a run that was stopped may have left it.
    """
    if not file.is_file():
        return []
    try:
        whole, _, _ = file.read_text("utf-8").rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise damaged(file, str(error)) from None


def add_rows(file: Path, rows: Sequence[Row]) -> None:
    """Put rows behind the lines of a file; a last one that has no end makes room for them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as stream:
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)
        stream.write("".join(json.dumps(row) + "\n" for row in rows).encode("utf-8"))


def first(pairs: Sequence[str], count: int | None) -> list[str]:
    """The first so many pairs, or all; `BadRequest` for less than one."""
    if count is not None and count < 1:
        raise BadRequest(f"--pairs: {count} are none; 1 or more are evaluated")
    return list(pairs[:count])


@contextmanager
def one_line(parser: argparse.ArgumentParser) -> Iterator[None]:
    """End the program with one line for what is wrong with what was asked, or with the place."""
    try:
        yield
    except StylusError as error:
        parser.exit(error.exit_code, f"{error}\n")
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.filename else str(error).splitlines()[0]
        parser.exit(NotFound.exit_code, f"{said}\n")


def table(rows: Sequence[Row]) -> str:
    """Means over pairs, and how each system's log-mel distance compares with the content's and match-EQ's."""
    by_system: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        by_system.setdefault(row["system"], {})[row["pair"]] = row
    titles = ["system", "pairs", "× content", "× match-EQ", "wins", *(column.title for column in COLUMNS)]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for system, scores in by_system.items():
        cells = [system, str(len(scores))]
        for base in ("content", "match-EQ"):
            others = by_system.get(base, {})
            both = [pair for pair in scores if "log_mel" in scores[pair] and "log_mel" in others.get(pair, {})]
            ours = np.array([scores[pair]["log_mel"] for pair in both])
            theirs = np.array([others[pair]["log_mel"] for pair in both])
            cells.append(f"{ours.mean() / theirs.mean():.2f}" if both else "")
        cells.append(f"{(ours < theirs).mean():.0%}" if both else "")
        for column in COLUMNS:
            values = [row[column.key] for row in scores.values() if column.key in row]
            cells.append(f"{np.mean(values):.{column.places}f}" if values else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def drawn_of(path: Path) -> str | None:
    """The fingerprint of the weights whose stems a picture shows; None where there is none, or it does not say."""
    from PIL import Image

    if not path.is_file():
        return None
    with Image.open(path) as image:
        said: str | None = image.info.get(DRAWN_OF)
    return said


def draw(path: Path, pair: Pair, stems: dict[str, Audio], weights: str | None = None) -> None:
    """Log-mels of content, stems, oracle and reference on one scale each; the file says of which weights."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = {"content": pair.content, **stems}
    shown |= {"oracle": pair.oracle} if pair.oracle is not None else {}
    shown |= {"reference": pair.reference}
    figure, axes = pyplot.subplots(1, len(shown), figsize=(3.2 * len(shown), 4), sharey=True)
    for axis, (name, audio) in zip(axes, shown.items(), strict=True):
        picture = picture_of(audio, SAMPLE_RATE, MINI)
        image = to_image(picture.mel[0], MINI, picture.maximum)
        extent = (0, image.shape[1] / MINI.frame_rate, 0, MINI.bands)
        axis.imshow(image, origin="lower", aspect="auto", vmin=0, vmax=1, extent=extent)
        axis.set_title(name)
        axis.set_xlabel("s")
    axes[0].set_ylabel("mel band")
    figure.suptitle(pair.name)
    figure.tight_layout()
    figure.savefig(path, dpi=60, metadata={DRAWN_OF: weights or ""})
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Score the embedded model on held-out pairs.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--regression", type=Path, help="the comparator's folder, as the trainer exports it")
    parser.add_argument("--pairs", type=int, help="only the first so many")
    parser.add_argument("--validation", action="store_true", help="other pairs, on which choices are made")
    parser.add_argument("--systems", nargs="+", help="only these")
    parser.add_argument("--audio", action="store_true", help="keep the stems, as FLAC")
    parser.add_argument("--table", action="store_true", help="only print what there is")
    asked = parser.parse_args()
    with one_line(parser):
        chosen = first(validation() if asked.validation else names(), asked.pairs)
        engine = Engine(asked.model)
        if not asked.table:
            run(asked.out, chosen, systems(engine, asked.regression, asked.systems or ()), asked.audio)
        print(table(read(asked.out, chosen, weights_of(engine, asked.regression))))
