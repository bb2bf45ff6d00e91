"""What the documents promise: their commands can be typed, and nothing that they show needs a network."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from stylus_audio import cli

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "max_for_live").glob("*.md")])
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def typed(text: str) -> Iterator[list[str]]:
    """The words behind `stylus` of every command: a whole line of a fenced block, or inline code."""
    lines = [line.strip() for block in FENCED.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    # Inline code may be broken where the paragraph is.
    spans = [" ".join(span.split()) for span in re.findall("`([^`]+)`", FENCED.sub("", text))]
    for command in [*lines, *spans]:
        if command.removeprefix("$ ").startswith("stylus "):
            yield shlex.split(command.removeprefix("$ "), comments=True)[1:]


def mistakes(words: list[str]) -> list[str]:
    """What of a command does not exist: the command itself, or the options that it has not."""
    cli._add_others()
    command: Any = typer.main.get_command(cli.app)
    path = ["stylus"]
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return [shlex.join([*path, words[0]])]
        command = command.commands[words[0]]
        path.append(words[0])
        words = words[1:]
    parameters = command.get_params(command.context_class(command))
    there = {name for one in parameters for name in (*one.opts, *one.secondary_opts) if name.startswith("-")}
    asked = [word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]
    return [shlex.join([*path, option]) for option in asked if option not in there]


def test_commands_are_found_where_they_stand() -> None:
    block = "```sh\n$ stylus render a.wav \\\n  --style b.wav  # --no\npip\n```"
    text = f"`stylus style add\nNAME FILE`, `stylus-audio`\n\n{block}\n"
    assert list(typed(text)) == [["render", "a.wav", "--style", "b.wav"], ["style", "add", "NAME", "FILE"]]
    assert mistakes(["render", "a.wav", "--style=b.wav", "-o", "-1", "--no-injection", "--help"]) == []
    assert mistakes(["render", "--bend", "2", "-x"]) == ["stylus render --bend", "stylus render -x"]
    assert mistakes(["style", "put", "--json"]) == ["stylus style put"]
    assert mistakes(["--help"]) == []
    found = [words for document in DOCUMENTS for words in typed(document.read_text("utf-8"))]
    assert {"render", "batch", "daemon", "send", "watch", "evaluate", "image"} <= {words[0] for words in found}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_in_a_document_exists_with_its_options(document: Path) -> None:
    wrong = [mistake for words in typed(document.read_text("utf-8")) for mistake in mistakes(words)]
    assert wrong == []


OFFLINE = """
import os, socket, sys

def hook(event, arguments):
    if event == "socket.getaddrinfo" or event in ("socket.connect", "socket.sendto") and (
        arguments[0].family in (socket.AF_INET, socket.AF_INET6)
    ):
        os.write(2, f"{event} {arguments[1:]}".encode())
        os._exit(9)

sys.addaudithook(hook)
"""


def offline(folder: Path, code: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run code that ends with 9 where it goes to a network; nothing in the environment tells it not to."""
    told = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(told)}
    return subprocess.run(
        [sys.executable, "-c", OFFLINE + code, *map(str, words)], capture_output=True, text=True, check=False,
        cwd=folder, env={**env, "HF_HOME": str(folder / "hub"), "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


@pytest.mark.parametrize(
    "code",
    [
        "socket.create_connection(('127.0.0.1', 9))",
        "socket.getaddrinfo('localhost', 80)",
        "socket.socket().connect(('127.0.0.1', 9))",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')",
    ],
)
def test_a_way_to_a_network_is_seen(tmp_path: Path, code: str) -> None:
    assert offline(tmp_path, code).returncode == 9
    assert offline(tmp_path, "").returncode == 0


@pytest.mark.slow
def test_a_render_and_its_measures_need_no_network(tmp_path: Path) -> None:
    run = "from stylus_audio.__main__ import run; run()"
    demo = offline(tmp_path, run, "demo", "-o", tmp_path / "demo")
    assert demo.returncode == 0, demo.stderr
    stem, picture = map(Path, demo.stdout.splitlines())
    assert stem.is_file()
    assert picture.is_file()
    measured = offline(tmp_path, run, "evaluate", tmp_path / "demo", "--json")
    assert measured.returncode == 0, measured.stderr
    assert "chroma_similarity" in measured.stdout
