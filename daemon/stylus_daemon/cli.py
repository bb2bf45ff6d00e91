"""The daemon's commands of `stylus`: daemon, watch, send, root."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from stylus_audio import installed, library, store
from stylus_audio.cli import Device, Json, ModelName, with_settings
from stylus_audio.errors import BadRequest, NotAllowed, NotFound, StylusError
from stylus_audio.files import in_text, typed_path
from stylus_audio.weights import from_anywhere

root_app = typer.Typer(no_args_is_help=True, help="Folders that the daemon may use.", rich_markup_mode=None)

Port = Annotated[int, typer.Option("--osc-port", metavar="PORT", min=1, max=65535, help="UDP and TCP port")]
Styles = Annotated[
    list[str], typer.Option("--style", "-s", metavar="FILE|NAME", help="the reference; repeat it to blend several")
]


def add(app: typer.Typer) -> None:
    """Put the commands in the command line."""
    app.command()(daemon)
    app.command()(page)
    app.command()(with_settings(watch))
    app.command(cls=_Reporting)(with_settings(send))
    app.add_typer(root_app, name="root")


def daemon(
    osc_port: Port = 9109,
    http_port: Annotated[
        int, typer.Option("--http-port", metavar="PORT", min=0, max=65535, help="the page's; 0 takes a free one")
    ] = 9110,
    no_page: Annotated[bool, typer.Option("--no-page", help="serve no page")] = False,
    root: Annotated[
        list[Path], typer.Option("--root", metavar="DIR", help="a folder that it may use, until it ends")
    ] = [],  # noqa: B006
    watch: Annotated[
        list[Path], typer.Option("--watch", metavar="FOLDER", help="a folder to watch, with its stylus.toml")
    ] = [],  # noqa: B006
    model: ModelName = "mini",
    device: Device = "auto",
    queue: Annotated[int, typer.Option("--queue", metavar="N", min=1, help="jobs that may wait")] = 1000,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", metavar="N", min=1, help="short clips rendered together [16 on a GPU, else 1]"),
    ] = None,
    host: Annotated[str, typer.Option("--host", metavar="IP", help="where to listen")] = "127.0.0.1",
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="holds what clients from outside have to say")
    ] = None,
    allow: Annotated[list[str], typer.Option("--allow", metavar="IP", help="a host outside that may ask")] = [],  # noqa: B006
    stall: Annotated[
        float, typer.Option("--stall", metavar="SECONDS", min=1, help="after which a silent worker is started anew")
    ] = 600.0,
    check: Annotated[bool, typer.Option("--check", help="say what a daemon would find, and end")] = False,
) -> None:
    """Take commands over OSC and from its page in a browser, keeping model and styles warm."""
    from .service import Options
    from .watch_settings import Watch

    token = _token(token_file)
    options = Options(
        osc_port, host, token, tuple(allow), tuple(_folder(one) for one in root), model, device, queue, stall,
        tuple(Watch(one, model=model) for one in watch), None if no_page else http_port, batch_size,
    )  # fmt: skip
    if check:
        from .check import run_check

        run_check(options)
        return
    installed.record()
    _run(options, f"OSC on {host}:{osc_port}, UDP and TCP")


def page(
    osc_port: Port = 9109,
    no_open: Annotated[bool, typer.Option("--no-open", help="only print its address")] = False,
) -> None:
    """Open the running daemon's page in the browser."""
    import webbrowser

    from .client import Client

    with Client(osc_port) as client:
        (url,) = client.ask("/stylus/page")
    if not url:
        raise BadRequest(
            "the daemon that is running serves no page; it was started with --no-page, or by `stylus watch`"
        )
    print(url)
    if not no_open:
        webbrowser.open(str(url))


def watch(
    asked: dict[str, Any],
    folder: Annotated[Path, typer.Argument(help="what appears in it is rendered")],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="where stems go [FOLDER-stylus]")] = None,
    style: Styles = [],  # noqa: B006
    move: Annotated[bool, typer.Option("--move", help="move originals out of the folder when they are done")] = False,
    polling: Annotated[bool, typer.Option("--polling", help="look instead of being told: for network drives")] = False,
    model: ModelName = "mini",
    device: Device = "auto",
) -> None:
    """Render what appears in a folder; the originals stay as they are."""
    from .service import PORT, Options, PortTaken, other_daemon, watch_beside
    from .watch_settings import Watch

    watched = Watch(
        folder, out, tuple(style), asked, model, move, polling or None,
    )  # fmt: skip
    # There is one daemon for each user: a DAW finds this one.
    options = Options(PORT, model=model, device=device, watches=(watched,), any_port=True)
    again = False
    while not other_daemon() or watch_beside(options, again):
        again = True
        # Of several that wait for a daemon's end one is the next, and the others are beside that one.
        with suppress(PortTaken):
            _run(options, f"watching {watched.root}")
            return


def _run(options: Any, what: str) -> None:
    from .log import to_stderr
    from .service import Service, on_signal

    to_stderr()
    service = Service(options)
    on_signal(service.stop)
    if service.page_url:
        print(f"The page: {service.page_url}", flush=True)
    logging.getLogger("stylus_daemon").info("%s; Ctrl-C ends it", what)
    service.run()


def send(
    asked: dict[str, Any],
    content: Annotated[Path, typer.Argument(help="the clip to restyle")],
    style: Styles,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE|DIR", help="the stem")] = None,
    model: Annotated[str, typer.Option("--model", metavar="NAME|PATH", help="another than the daemon's")] = "",
    recipe: Annotated[str, typer.Option("--recipe", metavar="NAME", help="every published value of a paper")] = "",
    preset: Annotated[str, typer.Option("--preset", metavar="NAME", help="fast, or a preset of your own")] = "",
    name: Annotated[str, typer.Option("--name", metavar="PATTERN", help="name of the stem")] = "",
    sidecar: Annotated[str, typer.Option("--sidecar", metavar="file|embed|none", help="where STEM.json goes")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing stem")] = False,
    osc_port: Port = 9109,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="print the job's number and end")] = False,
    as_json: Json = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE.json", help="write what came of it there at the end"),
    ] = None,
) -> None:
    """Have the daemon render a clip, and wait for the stem."""
    if report is not None:
        _check_report(report)
    about = {
        "recipe": recipe, "preset": preset, "name": name, "sidecar": sidecar, "overwrite": overwrite,
        "output": str(output.absolute()) if output else "",
    }  # fmt: skip
    try:
        about["model"] = from_anywhere(model) if model else ""
        values = {**asked, **{key: value for key, value in about.items() if value}}
        first, *more = [str(typed_path(one).absolute()) if library.is_path(one) else one for one in style]
        pairs = [*(("style", one) for one in more), *values.items()]
        result = _sent(osc_port, [str(content.absolute()), first, *(word for pair in pairs for word in pair)], no_wait)
    except Exception as error:
        # Whoever waits for the report waits for whatever comes.
        code = error.code if isinstance(error, StylusError) else "internal"
        _report(report, {"error": code, "message": in_text(str(error))})
        raise
    _report(report, result)
    shown = result.get("stem", result["job"])
    print(json.dumps(result, ensure_ascii=False) if as_json else shown)


class _Reporting(TyperCommand):
    """Used wrongly it writes `--report` as well: whoever asked for one waits for it."""

    def make_context(self, info_name: str | None, args: list[str], *others: Any, **extra: Any) -> Any:
        """As of any command."""
        words = list(args)
        try:
            return super().make_context(info_name, args, *others, **extra)
        except Exception as error:
            if (file := _report_of(words)) and hasattr(error, "format_message"):
                _check_report(file)
                _report(file, {"error": BadRequest.code, "message": error.format_message()})
            raise


def _report_of(words: Sequence[str]) -> Path | None:
    """What follows `--report`, before the words have been understood."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, sign, value = word.partition("=")
        if name == "--report" and (value if sign else following):
            return Path(value if sign else following)
    return None


def _sent(port: int, words: list[Any], no_wait: bool) -> dict[str, Any]:
    from .client import Client

    with Client(port) as client:
        job, *note = map(str, client.ask("/stylus/render", *words))
        for line in note:
            print(f"stylus: {line}", file=sys.stderr)
        return {"job": int(job)} if no_wait else {"job": int(job), "stem": _waited(client, int(job))}


def _check_report(file: Path) -> None:
    """`NotAllowed` where something else lies that would be replaced."""
    if not file.exists() or (file.is_file() and file.stat().st_size == 0):
        return
    known = store.load(file)
    if not ({"job"} <= known.keys() <= {"job", "stem"} or known.keys() == {"error", "message"}):
        raise NotAllowed(f"report: {file} is no report of `stylus send`; it is not replaced")


def _report(file: Path | None, result: dict[str, Any]) -> None:
    """For a program that cannot wait for this one: the file is whole as soon as it is there."""
    if file is not None:
        store.save(file, result)


def _waited(client: Any, job: int) -> str:
    """Wait with a progress bar; Ctrl-C cancels the job."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description:<18}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"), console=console,
        transient=True, disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=1.0)
        try:
            path: str = client.wait(
                job, lambda fraction, stage, _: bar.update(task, completed=fraction, description=stage)
            )
        except KeyboardInterrupt:
            client.ask("/stylus/job/cancel", job)
            raise
    return path


@root_app.command("add")
def root_add(folder: list[Path]) -> None:
    """Let the daemon use folders, from now on and after the next start."""
    from .roots import keep_roots

    print("\n".join(map(str, keep_roots(folder))))


@root_app.command("list")
def root_list(as_json: Json = False) -> None:
    """Every folder that the daemon may use."""
    from .roots import Roots

    folders = [str(folder) for folder in Roots().folders()]
    print(json.dumps(folders, ensure_ascii=False) if as_json else "\n".join(folders))


@root_app.command("remove")
def root_remove(folder: Path) -> None:
    """No longer let the daemon use a folder that was added."""
    from .roots import forget_root

    forget_root(folder)


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise BadRequest(f"{path} is not a folder")
    return path.resolve()


def _token(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        return file.read_text("utf-8").strip()
    except FileNotFoundError:
        raise NotFound(f"token-file: {file} does not exist") from None
    except OSError as error:
        raise NotAllowed(f"token-file: {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise BadRequest(f"token-file: {file} is not text") from None
