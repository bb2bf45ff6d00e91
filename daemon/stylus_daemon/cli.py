"""The daemon's commands of `stylus`: daemon, watch, send, root."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stylus_audio.cli import Device, Json, ModelName, with_settings
from stylus_audio.errors import BadRequest, StylusError

root_app = typer.Typer(no_args_is_help=True, help="Folders that the daemon may use.", rich_markup_mode=None)

Port = Annotated[int, typer.Option("--osc-port", metavar="PORT", min=1, max=65535, help="UDP and TCP port")]
Styles = Annotated[
    list[str], typer.Option("--style", "-s", metavar="FILE|NAME", help="the reference; repeat it to blend several")
]


def add(app: typer.Typer) -> None:
    """Put the commands in the command line."""
    app.command()(daemon)
    app.command()(with_settings(watch))
    app.command()(with_settings(send))
    app.add_typer(root_app, name="root")


def daemon(
    osc_port: Port = 9109,
    root: Annotated[
        list[Path], typer.Option("--root", metavar="DIR", help="a folder that it may use, until it ends")
    ] = [],  # noqa: B006
    watch: Annotated[
        list[Path], typer.Option("--watch", metavar="FOLDER", help="a folder to watch, with its stylus.toml")
    ] = [],  # noqa: B006
    model: ModelName = "mini",
    device: Device = "auto",
    queue: Annotated[int, typer.Option("--queue", metavar="N", min=1, help="jobs that may wait")] = 1000,
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
    """Take commands over OSC, keeping model and styles warm."""
    from .service import Options
    from .watch_settings import Watch

    token = _token(token_file)
    options = Options(
        osc_port, host, token, tuple(allow), tuple(_folder(one) for one in root), model, device, queue, stall,
        tuple(Watch(one) for one in watch),
    )  # fmt: skip
    if check:
        from .check import run_check

        run_check(options)
        return
    _run(options, f"OSC on {host}:{osc_port}, UDP and TCP")


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
    from .service import Options, daemon_runs, watch_beside
    from .watch_settings import Watch

    watched = Watch(
        folder, out, tuple(style), asked, model, move, polling or None,
    )  # fmt: skip
    roots = (watched.root, watched.output, *(Path(one).resolve().parent for one in style if _is_path(one)))
    options = Options(0, roots=roots, model=model, device=device, watches=(watched,))
    if daemon_runs():
        watch_beside(options)
    else:
        _run(options, f"watching {watched.root}")


def _run(options: Any, what: str) -> None:
    from .log import to_stderr
    from .service import Service, on_signal

    to_stderr()
    service = Service(options)
    on_signal(service.stop)
    logging.getLogger("stylus_daemon").info("%s; Ctrl-C ends it", what)
    service.run()


def send(
    asked: dict[str, Any],
    content: Annotated[Path, typer.Argument(help="the clip to restyle")],
    style: Annotated[str, typer.Option("--style", "-s", metavar="FILE|NAME", help="the reference")],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE|DIR", help="the stem")] = None,
    osc_port: Port = 9109,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="print the job's number and end")] = False,
    as_json: Json = False,
) -> None:
    """Have the daemon render a clip, and wait for the stem."""
    from .client import Client

    values: dict[str, Any] = {**asked, **({"output": str(output.absolute())} if output else {})}
    reference = str(Path(style).absolute()) if _is_path(style) else style
    words = [word for pair in values.items() for word in pair]
    with Client(osc_port) as client:
        job, *note = map(str, client.ask("/stylus/render", str(content.absolute()), reference, *words))
        for line in note:
            print(f"stylus: {line}", file=sys.stderr)
        number = int(job)
        if no_wait:
            print(json.dumps({"job": number}) if as_json else number)
            return
        path = _waited(client, number)
    print(json.dumps({"job": number, "stem": path}, ensure_ascii=False) if as_json else path)


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
def root_add(folder: Path) -> None:
    """Let the daemon use a folder, from now on and after the next start."""
    from .roots import keep_root

    print(keep_root(folder))


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


def _is_path(reference: str) -> bool:
    """As `library.resolve` tells a file from a name."""
    path = Path(reference).expanduser()
    return path.exists() or len(path.parts) > 1


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise BadRequest(f"{path} is not a folder")
    return path.resolve()


def _token(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        return file.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise StylusError(f"{file} cannot be read: {error}") from error
