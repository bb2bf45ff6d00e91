"""What a clip in a watched folder is rendered with: `NAME.stylus.json` over `stylus.toml` over what was typed.

Option by option; none of them says where a stem goes.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stylus_audio import library
from stylus_audio.errors import BadRequest, NotAllowed, NotFound, StylusError
from stylus_audio.files import same_file, typed_path
from stylus_audio.options import Options
from stylus_audio.settings import Settings, setting_of, typed_over

SIDECAR = ".stylus.json"
FOLDER_FILE = "stylus.toml"
_MOST = 2**20
"""A settings file over so many bytes is none."""
_OF_THE_STEM = {"name", "output", "overwrite", "sidecar"}
"""Options of a render that its files do not hold."""


@dataclass(frozen=True)
class Watch:
    """What is asked for one folder, checked when it is made.

    `styles` are references as typed, `values` settings as typed; relative paths count from `base`. `polling` None
    lets the system decide. `root` and `output` (default: `FOLDER-stylus` beside the folder) are absolute and without
    links. Raises `NotFound` for a folder that is not there, and `BadRequest` for one inside the other and for settings.
    """

    folder: Path
    out: Path | None = None
    styles: tuple[str, ...] = ()
    values: Mapping[str, object] = field(default_factory=dict)
    model: str = "mini"
    move: bool = False
    polling: bool | None = None
    base: Path = field(default_factory=Path.cwd)
    root: Path = field(init=False)
    output: Path = field(init=False)

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise NotFound(f"the folder {self.folder} does not exist")
        root = self.folder.resolve()
        output = (root.parent / f"{root.name}-stylus" if self.out is None else self.out).resolve()
        if output.exists() and not output.is_dir():
            raise BadRequest(f"out: {output} is not a folder")
        object.__setattr__(self, "root", root)
        object.__setattr__(self, "output", output)
        check_apart([self])
        Settings.parse(self.values)

    @property
    def folders(self) -> list[Path]:
        """What a daemon has to be allowed for it: the folder, its output, and where the styles that were typed lie."""
        styles = [(self.base / typed_path(one)).resolve() for one in self.styles if library.is_path(one)]
        return [self.root, self.output, *(style.parent for style in styles)]


def check_apart(watches: Sequence[Watch]) -> None:
    """Refuse (`BadRequest`) stems that would be rendered again, and again: an output and a root inside one another."""
    for writer in watches:
        for reader in watches:
            if _inside(writer.output, reader.root):
                raise BadRequest(f"out: {writer.output} lies in {reader.root}, which is watched; give one elsewhere")
        if _inside(writer.root, writer.output):
            raise BadRequest(f"out: {writer.output} holds {writer.root}, which is watched; give one elsewhere")


def _inside(path: Path, folder: Path) -> bool:
    # By what the file system says too: names may differ in case, and a folder may be mounted twice.
    return any(one == folder or same_file(one, folder) for one in (path, *path.parents))


@dataclass(frozen=True)
class Wish:
    """What to render a clip with; paths of styles are absolute and without links."""

    styles: tuple[tuple[Path, str], ...]
    settings: dict[str, Any]
    model: str
    dtype: str = "auto"


@dataclass(frozen=True)
class _Layer:
    styles: tuple[str, ...]
    settings: dict[str, Any]
    model: str
    base: Path
    name: str
    dtype: str = ""


class Wishes:
    """Wishes as the files stand now: each is read once, so an object serves for one look at the folder."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._known: dict[Path | None, Wish | StylusError] = {}
        self._layers: dict[Path, _Layer | StylusError] = {}
        file = watch.root / FOLDER_FILE
        self._folder_file = file if file.is_file() and not file.is_symlink() else None

    def sources(self, sidecar: Path | None) -> list[Path]:
        """The files that have a say, the weakest first."""
        return [file for file in (self._folder_file, sidecar) if file is not None]

    def of(self, sidecar: Path | None) -> Wish:
        """The wish for a clip with this `.stylus.json`, or with none.

        Raises `BadRequest`, `NotFound` and `NotAllowed` with the name of the file that is wrong.
        """
        if sidecar not in self._known:
            try:
                self._known[sidecar] = self._joined(self.sources(sidecar))
            except StylusError as error:
                self._known[sidecar] = error
        known = self._known[sidecar]
        if isinstance(known, StylusError):
            raise known.with_traceback(None)
        return known

    def _joined(self, sources: Sequence[Path]) -> Wish:
        watch = self._watch
        layers = [_Layer(watch.styles, _by_their_names(watch.values), watch.model, watch.base, "")]
        layers += [self._layer(file) for file in sources]
        settings: dict[str, Any] = {}
        styles, model, dtype = layers[0], "", "auto"
        for layer in layers:
            if layer.styles:
                # Weights belong to the styles beside which they stand.
                settings.pop("style_weight", None)
                styles = layer
            settings = typed_over(settings, layer.settings)
            model = _model(layer) or model
            dtype = layer.dtype or dtype
        Settings.parse(settings)
        if not styles.styles:
            raise BadRequest(
                f'no style is given: write {{"style": "NAME or file"}} to NAME{SIDECAR} beside the clip, or'
                f' style = "NAME or file" to {FOLDER_FILE}, or start with --style'
            )
        found = tuple(_style(reference, styles) for reference in styles.styles)
        return Wish(found, settings, model, dtype)

    def _layer(self, file: Path) -> _Layer:
        if file not in self._layers:
            try:
                self._layers[file] = _read(file)
            except StylusError as error:
                self._layers[file] = error
        layer = self._layers[file]
        if isinstance(layer, StylusError):
            raise layer.with_traceback(None)
        return layer


def _read(file: Path) -> _Layer:
    values = _table(file)
    try:
        if "style" in values and "styles" in values:
            raise BadRequest("give style or styles, not both")
        given = values.pop("style", values.pop("styles", ()))
        styles = [given] if isinstance(given, str) else given
        if not isinstance(styles, list | tuple) or not all(isinstance(one, str) and one.strip() for one in styles):
            raise BadRequest("style: a name or a file, or a list of them, is wanted")
        model = values.pop("model", None)
        model = "" if model is None else model
        if not isinstance(model, str) or "\0" in model:
            raise BadRequest("model: a name is wanted")
        if stray := values.keys() & _OF_THE_STEM:
            raise BadRequest(f"{min(stray)} is not an option of a watched folder, which says itself where stems go")
        asked = Options.parse(values)
        # A recipe says in what precision, too.
        dtype = asked.dtype if values.keys() & {"dtype", "recipe"} else ""
        return _Layer(tuple(styles), _by_their_names(asked.settings), model, file.parent, f"{file.name}: ", dtype)
    except (BadRequest, NotFound) as error:
        raise type(error)(f"{file.name}: {error}") from None


def _table(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MOST:
            raise BadRequest(f"{file.name} is too large to hold settings")
        # Editors on Windows put a byte order mark first.
        text = file.read_bytes().decode("utf-8-sig")
        values = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise NotAllowed(f"{file.name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        kind = "TOML" if file.suffix == ".toml" else "JSON"
        raise BadRequest(f"{file.name} is not {kind}: {error}") from None
    if not isinstance(values, dict):
        raise BadRequest(f'{file.name} is not an object such as {{"style": "bells"}}')
    return values


def _by_their_names(values: Mapping[str, object]) -> dict[str, Any]:
    """Settings as typed, checked, under the names that `Settings` has for them, so that layers compare."""
    parsed = Settings.parse(values).to_dict()
    names = map(setting_of, values)
    return {name: parsed[name] for name in ("injection" if n == "no_injection" else n for n in names)}


def _model(layer: _Layer) -> str:
    """A model's name, or where its folder is: the worker has another working folder than who typed it."""
    try:
        path = layer.base / typed_path(layer.model)
        return str(path.resolve()) if len(Path(layer.model).parts) > 1 and path.exists() else layer.model
    except (OSError, RuntimeError):
        return layer.model


def _style(reference: str, layer: _Layer) -> tuple[Path, str]:
    """A reference's audio and its name; what is no file beside its layer is a name of the library."""
    try:
        path = layer.base / typed_path(reference)
        if path.is_file():
            return path.resolve(), path.stem
    except (OSError, RuntimeError):
        raise NotAllowed(f"{layer.name}style: {reference} cannot be read") from None
    if len(Path(reference).parts) > 1:
        raise NotFound(f"{layer.name}style: {path} is not a file")
    try:
        entry = library.style(reference)
    except NotFound as error:
        raise NotFound(f"{layer.name}{error}") from None
    return Path(entry.path).resolve(), entry.name
