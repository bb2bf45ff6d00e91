"""The command line: `stylus`. Parses, calls one function, and turns errors into one line and an exit code.

Heavy libraries are imported in the commands, so that help and mistakes answer at once.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from .errors import BadRequest, Cancelled, StylusError
from .files import in_text
from .interruption import heed_signals, interruption, leave
from .settings import LATENT_OPTIONS, OPTIONS, RECIPES, Settings, producers_name, setting_of
from .sweep import typed

app = typer.Typer(
    name="stylus",
    help="Give a clip the sound of a reference: notes and groove stay. Offline, on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
style_app = typer.Typer(no_args_is_help=True, help="The style library: references by name.", rich_markup_mode=None)
preset_app = typer.Typer(no_args_is_help=True, help="Your own presets of render options.", rich_markup_mode=None)
models_app = typer.Typer(
    no_args_is_help=True, help="Models: embedded, from Hugging Face, your own.", rich_markup_mode=None
)
image_app = typer.Typer(
    no_args_is_help=True, help="Spectrograms as pictures, and pictures in another manner.", rich_markup_mode=None
)
app.add_typer(style_app, name="style")
app.add_typer(image_app, name="image")
app.add_typer(preset_app, name="preset")
app.add_typer(models_app, name="models")


def _parameter(name: str, defaults: Mapping[str, object]) -> inspect.Parameter:
    """A setting as an option of a command; its text is parsed by `Settings`, so that all say the same of a mistake.

    `defaults` are the command's own, which its help names.
    """
    option = OPTIONS[name]
    flags = [f"--{alias}" for alias in (*option.names, name.replace("_", "-"))]
    if option.kind == "switch":
        annotation: Any = Annotated[bool, typer.Option(f"--no-{flags[-1][2:]}", help=f"without {option.help}")]
        return inspect.Parameter(f"no_{name}", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
    own = option.by_model or Settings.__dataclass_fields__[name].default
    default = defaults.get(name, own)
    shown = "" if default in (None, "") else f" [{default}]"
    metavar = "|".join(option.choices) or {"line": "N|FIRST:LAST", "time": "SECONDS", "text": "TEXT"}.get(
        option.kind, "N"
    )
    info = typer.Option(*flags, help=option.help + shown, metavar=metavar, show_default=False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, info])


def with_settings(
    command: Callable[..., None], names: Sequence[str] = tuple(OPTIONS), defaults: Mapping[str, object] | None = None
) -> Callable[..., None]:
    """Gives a command settings as options, all or some; the asked ones reach it as the dictionary `asked`.

    There they have the names that they were typed by, so that a mistake is answered in the words that it was made in.
    """
    own = inspect.signature(command, eval_str=True)
    parameters = [p for p in own.parameters.values() if p.name not in ("asked", "context")]
    parameters.insert(
        0, inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    )
    settings = [_parameter(name, defaults or {}) for name in names]

    def run(context: typer.Context, **values: Any) -> None:
        given = {p.name: values.pop(p.name) for p in settings}
        asked = {name: value for name, value in given.items() if value not in (None, False)}
        if "context" in own.parameters:
            values["context"] = context
        command(**values, asked={_as_typed(name, context.obj or ()): value for name, value in asked.items()})

    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    run.__signature__ = inspect.Signature([*parameters, *settings])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in [*parameters, *settings]}
    return run


def _as_typed(name: str, words: Sequence[str]) -> str:
    return typed(name, words)[1].replace("-", "_") or name if name in OPTIONS else name


def by_producers_names(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of settings that were typed, the same by whatever name; each value is checked before.

    >>> by_producers_names({"gamma": "0.5", "no_injection": True})
    {'keep': '0.5', 'no_injection': True}
    """
    named = {}
    for name, value in asked.items():
        setting = setting_of(name)
        if setting in OPTIONS:
            OPTIONS[setting].check(name, value)
        named[producers_name(setting) if setting in OPTIONS else name] = value
    return named


Json = Annotated[bool, typer.Option("--json", help="print the result, or the error, as JSON")]
ModelName = Annotated[
    str,
    typer.Option(
        "--model", metavar="NAME|PATH", help="mini, sd15, sd21, riffusion, a diffusers folder or a .safetensors file"
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="auto|cuda|cuda:N|mps|cpu", help="where to compute")]
Dtype = Annotated[str, typer.Option("--dtype", metavar="auto|float32|bfloat16|float16", help="precision of the model")]


@app.command()
@with_settings
def render(
    context: typer.Context,
    asked: dict[str, Any],
    content: Annotated[Path | None, typer.Argument(help="the clip to restyle")] = None,
    style: Annotated[
        list[str], typer.Option("--style", "-s", metavar="FILE|NAME", help="the reference; repeat it to blend several")
    ] = [],  # noqa: B006
    output: Annotated[
        str,
        # Text: a path has no slash at its end, which says that a folder is meant.
        typer.Option(
            "--output", "-o", metavar="FILE|DIR", help="the stem, or a folder, made if need be [beside the content]"
        ),
    ] = "",
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="STEM.json", help="render again what made this stem")
    ] = None,
    model: ModelName = "",
    recipe: Annotated[
        str, typer.Option("--recipe", metavar="|".join(RECIPES), help="every published value of a paper")
    ] = "",
    preset: Annotated[str, typer.Option("--preset", metavar="NAME", help="fast, or a preset of your own")] = "",
    device: Device = "auto",
    dtype: Dtype = "",
    name: Annotated[str, typer.Option("--name", metavar="PATTERN", help="name of the stem [{content}_{style}]")] = "",
    sidecar: Annotated[str, typer.Option("--sidecar", metavar="file|embed|none", help="where STEM.json goes")] = "file",
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="DIR", help="keep the styles' features there, and take them from there"),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="draw content, style, stem and gain")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing stem, and picture")] = False,
    play: Annotated[
        bool, typer.Option("--play", help="play the stem, from before all of it is rendered where the method allows")
    ] = False,
    as_json: Json = False,
) -> None:
    """Restyle one clip: stylus render piano.flac --style accordion.flac

    Lists render every combination, into a folder with a contact sheet: --gamma 0.2,0.5,0.8 --alpha 0.1..0.9/9
    (evenly spaced); with ; between them for --style-weight and --layers.
    """
    from .commands import RenderRequest, run_render

    run_render(
        RenderRequest(
            content, tuple(style), output, from_, model, recipe, preset, device, dtype, name, sidecar, cache, plot,
            overwrite, play, as_json, asked, context.obj or (),
        )
    )  # fmt: skip


@app.command()
@with_settings
def batch(
    asked: dict[str, Any],
    manifest: Annotated[
        list[str],
        typer.Argument(
            help="a CSV or JSONL file, an SFZ instrument, a folder, a pattern such as 'drums/**/*.wav', clips"
        ),
    ],
    style: Annotated[
        list[str], typer.Option("--style", "-s", metavar="FILE|NAME", help="the reference of rows that name none")
    ] = [],  # noqa: B006
    each_style: Annotated[
        bool, typer.Option("--each-style", help="several styles: a stem in each, in place of one blend")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="folder of the stems, where the clips' tree is mirrored"),
    ] = None,
    model: ModelName = "",
    recipe: Annotated[str, typer.Option("--recipe", metavar="|".join(RECIPES), help="as for render")] = "",
    preset: Annotated[str, typer.Option("--preset", metavar="NAME", help="fast, or a preset of your own")] = "",
    device: Device = "auto",
    dtype: Dtype = "",
    name: Annotated[str, typer.Option("--name", metavar="PATTERN", help="name of a stem [{content}_{style}]")] = "",
    sidecar: Annotated[
        str, typer.Option("--sidecar", metavar="embed|none", help="reports.jsonl has them all [none]")
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace files that are there already")] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="processes [one a GPU, or one a core]")
    ] = None,
    cluster: Annotated[
        str, typer.Option("--cluster", metavar="ADDRESS", help="render on a Ray cluster, such as auto or host:6379")
    ] = "",
    inputs: Annotated[
        str, typer.Option("--inputs", metavar="store|shared", help="how clips reach a cluster's machines")
    ] = "store",
    shard: Annotated[str, typer.Option("--shard", metavar="I/N", help="only the I-th of N parts of the work")] = "",
    plan: Annotated[bool, typer.Option("--plan", help="only say what would be rendered")] = False,
    as_json: Json = False,
) -> None:
    """Render many clips: stylus batch 'drums/**/*.wav' --style glass.wav --style choir.flac --each-style -o out

    A manifest's columns are content, style (several with | between them), output, any option of render that shapes the
    sound, and model, recipe, preset, dtype, name, overwrite, sidecar. The same command again goes on where it was
    stopped, and tries again what failed.
    """
    from .batch.command import BatchRequest, run_batch

    about = {"model": model, "recipe": recipe, "preset": preset, "dtype": dtype, "name": name, "sidecar": sidecar}
    named = by_producers_names(asked)
    given = {key: value for key, value in about.items() if value} | named | ({"overwrite": True} if overwrite else {})
    request = BatchRequest(
        tuple(manifest), tuple(style), each_style, output, device, workers, cluster, inputs, shard, plan, as_json, given
    )
    if code := run_batch(request):
        raise typer.Exit(code)


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="where the stem and the picture go")
    ] = Path("demo"),
) -> None:
    """Render a clip that comes with Stylus, in a style that comes with it, and draw before and after."""
    from .commands import run_demo

    run_demo(output)


@app.command()
def evaluate(
    output: Annotated[Path, typer.Argument(help="the stem, or a folder of stems")],
    content: Annotated[
        Path | None,
        typer.Option("--content", "-c", metavar="FILE|DIR", help="what it was made from [sidecars and reports say it]"),
    ] = None,
    style: Annotated[
        Path | None, typer.Option("--style", "-s", metavar="FILE|DIR", help="the reference, or a folder of them")
    ] = None,
    clap: Annotated[
        Path | None,
        typer.Option("--clap", metavar="DIR", help="CLAP's weights, a transformers folder [the Hugging Face cache]"),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE.html", help="write it as a page with pictures and players")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure stems: notes and onsets kept, distance to content and style, level; Fréchet distances of a folder."""
    from .evaluate_commands import EvaluateRequest, run_evaluate

    run_evaluate(EvaluateRequest(output, content, style, clap, html, as_json))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what works here: devices, model, sound, folders."""
    from .doctor import report

    checks = report()
    if as_json:
        print(json.dumps([check.__dict__ for check in checks], indent=1))
    else:
        for check in checks:
            print(check.line)


@style_app.command("add")
def style_add(
    name: str,
    file: Path,
    start: Annotated[str | None, typer.Option("--start", metavar="SECONDS", help="where the style starts")] = None,
    end: Annotated[str | None, typer.Option("--end", metavar="SECONDS", help="where it ends")] = None,
) -> None:
    """Copy a file, or a part of it, to the library."""
    from . import library

    print(library.add(name, file, start, end).path)


@style_app.command("list")
def style_list(as_json: Json = False) -> None:
    """Every style's name and length."""
    from . import library

    entries = library.styles()
    if as_json:
        print(json.dumps([entry.__dict__ for entry in entries], indent=1, ensure_ascii=False))
    for entry in [] if as_json else entries:
        print(f"{entry.name:<24} {entry.seconds:7.2f} s  {entry.sample_rate} Hz  {entry.channels} ch")


@style_app.command("show")
def style_show(name: str) -> None:
    """All that is known of a style."""
    from . import library

    for key, value in library.style(name).__dict__.items():
        print(f"{key:<12} {value}")


@style_app.command("remove")
def style_remove(name: str) -> None:
    """Take a style out of the library; the file it came from stays."""
    from . import library

    library.remove(name)


@preset_app.command("save")
@with_settings
def preset_save(
    asked: dict[str, Any],
    name: str,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="STEM.json", help="what a stem has other than its model would by itself"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a preset of the same name")] = False,
) -> None:
    """Keep render options under a name.

    Of a stem, its segment, its preview and the weights of its styles are kept only if they are typed too.
    """
    from .presets import of_stem, save_preset

    if not asked and from_ is None:
        raise BadRequest("preset save: give the options to keep, such as --keep 0.6, or --from STEM.json")
    named = by_producers_names(asked)
    save_preset(name, of_stem(from_, named) if from_ is not None else named, overwrite)


@preset_app.command("list")
def preset_list(as_json: Json = False) -> None:
    """Every preset and what it holds, the built-in ones last."""
    from .presets import every_preset, presets

    known, own = every_preset(), presets()
    if as_json:
        print(json.dumps(known, indent=1, ensure_ascii=False))
    for name, values in {} if as_json else known.items():
        held = [f"{key}={value}" for key, value in values.items()]
        print(f"{name:<24} " + " ".join(held + ["(built in)"] * (name not in own)))


@preset_app.command("remove")
def preset_remove(name: str) -> None:
    """Forget a preset of your own."""
    from .presets import remove_preset

    remove_preset(name)


Picture = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.png", help="the picture [beside it]")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what is there")]


@image_app.command("from-audio")
def image_from_audio(clip: Path, output: Picture = None, overwrite: Overwrite = False) -> None:
    """Draw a clip as Riffusion's spectrogram: a PNG with its parameters in EXIF tags."""
    from .image_commands import run_from_audio

    run_from_audio(clip, output, overwrite)


@image_app.command("to-audio")
def image_to_audio(
    picture: Path,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="the sound [beside the picture]")
    ] = None,
    refine: Annotated[int, typer.Option("--refine", metavar="N", min=0, max=1000, help="Griffin-Lim iterations")] = 32,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, max=2**32 - 1, help="of the first phase")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Turn a spectrogram picture into sound, Riffusion's, ours or any other PNG."""
    from .image_commands import run_to_audio

    run_to_audio(picture, output, refine, seed, overwrite)


@image_app.command("transfer")
@partial(with_settings, names=LATENT_OPTIONS, defaults=RECIPES["styleid"])
def image_transfer(
    asked: dict[str, Any],
    content: Path,
    style: Annotated[
        list[Path], typer.Option("--style", "-s", metavar="FILE", help="the reference; repeat it to blend several")
    ] = [],  # noqa: B006
    output: Picture = None,
    model: ModelName = "sd15",
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Give a plain picture the manner of another, by StyleID's published values: needs sd15, sd21 or the like."""
    from .image_commands import run_transfer

    run_transfer(content, tuple(style), output, model, device, overwrite, asked)


@models_app.command("list")
def models_list(as_json: Json = False) -> None:
    """Every model, and whether it is on this machine."""
    from .model_commands import run_models_list

    run_models_list(as_json)


@models_app.command("pull")
def models_pull(name: str) -> None:
    """Download a model's weights to the Hugging Face cache."""
    from .weights import fingerprint, listed, located

    weights = listed(name)
    path = located(weights)
    print(f"{path}\nsha256 {fingerprint(weights, path)}")


@models_app.command("verify")
def models_verify(name: str) -> None:
    """Compute the weights' SHA-256 again and compare it with the one that was kept."""
    from .model_commands import run_models_verify

    run_models_verify(name)


@cache
def _add_others() -> None:
    """Commands of other packages, such as the daemon's, which this one does not know."""
    for entry in entry_points(group="stylus.commands"):
        entry.load()(app)


def _fail(error: StylusError, as_json: bool) -> NoReturn:
    message = in_text(" ".join(str(error).split()))
    if as_json:
        # ASCII, which every encoding of stdout can hold: an error about the error would be a traceback.
        print(json.dumps({"error": {"code": error.code, "message": message}}))
    print(f"stylus: {message}", file=sys.stderr)
    leave(error.exit_code)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point: exit codes as in the contract, one line for an error, a traceback only with `--debug`."""
    words = sys.argv[1:] if arguments is None else arguments
    debug, as_json = "--debug" in words, "--json" in words
    words = [word for word in words if word != "--debug"]
    heed_signals()
    if home := os.environ.get("STYLUS_HOME"):
        # Seen from here, whatever folder a process of ours works in.
        os.environ["STYLUS_HOME"] = str(Path(home).absolute())
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # A pipe on Windows has a code page: what it lacks must not fail a render that is done.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _add_others()
        code = typer.main.get_command(app).main(words, prog_name="stylus", standalone_mode=False, obj=tuple(words))
        if interruption.is_set():
            raise KeyboardInterrupt
        leave(code if isinstance(code, int) else 0)
    except (KeyboardInterrupt, typer.Abort):
        _fail(Cancelled("cancelled"), as_json)
    except StylusError as error:
        if debug:
            raise
        _fail(error, as_json)
    except BrokenPipeError:
        # The reader of our output went away, as `stylus … | head` does.
        sys.stderr.close()
        raise SystemExit(1) from None
    except Exception as error:
        # Wrong use, as typer's own copy of click says it.
        if type(error).__name__ == "NoArgsIsHelpError":
            print(str(error), file=sys.stderr)
            raise SystemExit(2) from None
        if hasattr(error, "format_message"):
            _fail(BadRequest(f"{error.format_message()} See `stylus --help`."), as_json)
        if debug:
            raise
        _fail(StylusError(f"internal error: {type(error).__name__}: {error}; `--debug` shows where"), as_json)
