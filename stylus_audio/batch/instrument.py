"""A sampled instrument in another sound: its samples as one batch that shares its statistics, and an SFZ to play it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..audio import probe
from ..errors import BadRequest, Internal, StylusError
from ..files import write_new
from ..passage import is_segment
from ..reference import Shared
from ..settings import Settings
from ..target import DEFAULT_NAME, stem_name
from .ledger import Ledger
from .manifest import whole_path
from .packs import Crew, Failed, Pack, Surveyed
from .plan import Folders, Item, Sound, as_pack, in_packs
from .sfz import Instrument

SAMPLES = "samples"
"""The folder of the stems, beside the new SFZ."""

_TOLD = ("", "mini")
"""Models whose windows need nothing of each other; others take an instrument in one pack."""


@dataclass(frozen=True)
class Reskin:
    """An instrument, the sound that it is to have, and the folder in which it comes to lie."""

    instrument: Instrument
    sound: Sound
    folder: Path

    @property
    def sfz(self) -> Path:
        """The new instrument's file, if its name is free."""
        return self.folder / f"{self.folder.name}.sfz"

    @cached_property
    def stems(self) -> dict[Path, str]:
        """Each sample's stem, seen from the folder: the samples' own tree without what is above all of them."""
        paths = [sample.path for sample in self.instrument.samples]
        root = os.path.commonpath([path.parent for path in paths]) if paths else ""
        taken: set[str] = set()
        stems = {}
        for path in paths:
            name = path.relative_to(root).with_suffix(".wav").as_posix()
            if name.casefold() in taken:
                # Of the same name in another container.
                name = f"{name.removesuffix('.wav')} {path.suffix[1:]}.wav"
            taken.add(name.casefold())
            stems[path] = f"{SAMPLES}/{name}"
        return stems

    @cached_property
    def packs(self) -> list[list[Item]]:
        """The samples as items. Where one of them changes all are other items, since what they share is another.

        Raises `BadRequest` for an instrument without samples.
        """
        if not self.stems:
            raise BadRequest(f"{self.instrument.path} plays no sample that is there")
        folders = Folders()
        stamps = "\n".join(f"{path} {folders.about(str(path))}" for path in self.stems)
        sound = replace(
            self.sound, text=self.sound.text + hashlib.sha256(stamps.encode("utf-8", "replace")).hexdigest()
        )
        items = [
            Item(number, str(path), sound, str(self.folder / stem), *folders.about(str(path)))
            for number, (path, stem) in enumerate(self.stems.items())
        ]
        told = self.sound.options.model in _TOLD and self.sound.options.settings.get("method") != "injection"
        return in_packs(items) if told else [items]

    def dress(self, crew: Crew, ledger: Ledger) -> Callable[[Pack], Pack]:
        """What gives a pack what all samples share, found by the crew or by an earlier run, and their loops."""
        about = self.packs[0][0].sound.text
        kept = json.loads(ledger.fact("shared") or "{}")
        if kept.get("about") != about:
            shared = self._surveyed(crew)
            kept = {"about": about, "maximum": shared.maximum, "level": shared.level.tolist()}
            ledger.note("shared", json.dumps(kept))
        shared = Shared(float(kept["maximum"]), np.array(kept["level"], np.float32))
        samples = {str(sample.path): sample for sample in self.instrument.samples}

        def dressed(pack: Pack) -> Pack:
            loops = []
            for content in pack.contents:
                loop = None
                with suppress(StylusError):
                    info = probe(Path(content))
                    loop = samples[content].loop(info.chunks, info.samples)
                loops.append(loop)
            return replace(pack, shared=shared, loops=tuple(loops))

        return dressed

    def _surveyed(self, crew: Crew) -> Shared:
        every = [item for pack in self.packs for item in pack]
        (done,) = crew.work([replace(as_pack(0, every), survey=True)])
        outcome = done.outcomes[0]
        if isinstance(outcome, Surveyed):
            return outcome.shared
        raise Internal(outcome.message if isinstance(outcome, Failed) else "the samples could not be surveyed")

    def write(self, ledger: Ledger) -> tuple[Path, tuple[str, ...]]:
        """Write the SFZ over the stems that are done: its path, and what it cannot play.

        The file that an earlier run has written is replaced, another's is not. Raises `NotAllowed` and `DiskFull`.
        """
        done = ledger.stems()
        made = {Path(item.content): done[item.key] for pack in self.packs for item in pack if item.key in done}
        stems = {path: Path(stem.path).relative_to(self.folder).as_posix() for path, stem in made.items()}
        lowered = {path: stem.lowered_db for path, stem in made.items() if stem.lowered_db > 0}
        new = self.instrument.rewritten(self.folder, stems, lowered)
        # One of the same name, or this one in another sound, may have come into the same folder.
        wish = f"{self.instrument.path.absolute()} {self.sound.text}"
        about = f"sfz {hashlib.sha256(wish.encode('utf-8', 'surrogatepass')).hexdigest()}"
        known = ledger.fact(about)
        own = self.folder / known if known else None
        digest = hashlib.sha256(new.data).hexdigest()
        if own and own.is_file() and hashlib.sha256(own.read_bytes()).hexdigest() == ledger.fact(f"digest of {about}"):
            written = write_new(own, new.data, overwrite=True, protect=[self.instrument.path])
        else:
            written = write_new(self.sfz, new.data, self.sound.options.overwrite, [self.instrument.path])
        ledger.note(about, written.name)
        ledger.note(f"digest of {about}", digest)
        return written, new.unreachable


def reskin(instrument: Instrument, sound: Sound, output: Path | None, made: set[str] | None = None) -> Reskin:
    """Into a folder of its own, `NAME_STYLE`, in `output` or beside the instrument.

    `made` holds the folders of a run's instruments, and takes this one's: in a folder twice, nothing is replaced.

    Raises `BadRequest` where only parts of the samples are asked for, or other names.
    """
    if sound.options.name != DEFAULT_NAME:
        raise BadRequest("an instrument's stems have the names of its samples: name is for clips")
    settings = Settings.parse(sound.options.settings)
    if is_segment(settings) or settings.preview is not None or settings.auto is not None:
        raise BadRequest("an instrument plays its samples whole and alike: start, end, preview and auto are for clips")
    name = stem_name(instrument.path.stem, [name for _, name in sound.styles]).removesuffix(".wav")
    folder = (output or whole_path(instrument.path).parent) / name
    if made is not None:
        # Whatever the file system thinks of case.
        if str(folder).casefold() in made:
            sound = replace(sound, options=replace(sound.options, overwrite=False))
        made.add(str(folder).casefold())
    return Reskin(instrument, sound, folder)
