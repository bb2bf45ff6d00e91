"""Set up and run everything from a fresh clone: `python3 dev.py demo`, `python3 dev.py test`, `python3 dev.py check`.

Needs Python 3.11 to 3.13 with venv and nothing else; makes `.venv` beside itself the first time.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
DECLARED = (ROOT / "pyproject.toml", ROOT / "constraints.txt")

FORMAT = ["-m", "ruff", "format", "--check", "."]
LINT = ["-m", "ruff", "check", "."]
TYPES = ["-m", "mypy"]
# A file's tests share their daemon, browser or cluster. By name, since those with few tests take longest.
PYTEST = ["-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
FAST = [*PYTEST, "-m", "not slow"]
SLOW = [*PYTEST, "-m", "slow"]
NO_TESTS = 5
"""What pytest exits with where none of the tests that were asked for are fast, or slow."""

TASKS = {
    "demo": [["-m", "stylus_audio", "demo"]],
    "check": [FORMAT, LINT, TYPES, FAST],
    "test": [FORMAT, LINT, TYPES, FAST, SLOW],
    "setup": [],
}


def for_tests() -> dict[str, str]:
    """The environment of tests, which are two processes and start hundreds of short ones.

    Two processes with two threads each would wait for one another more than they work, and short ones that may not keep
    what they compile would do little else.
    """
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def set_up() -> None:
    """Make the environment, or bring it up to date where what it is made from has changed."""
    stamp = ENVIRONMENT / "made-from"
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in DECLARED)).hexdigest()
    if stamp.is_file() and stamp.read_text("utf-8") == wanted:
        return
    print("setting up .venv (PyTorch is large: some minutes)", file=sys.stderr)
    if not PYTHON.is_file():
        venv.create(ENVIRONMENT, with_pip=True)
    install = [str(PYTHON), "-m", "pip", "install", "--quiet", "--constraint", "constraints.txt"]
    # PyTorch first and by its exact version, so that the plain build is taken where there is one.
    subprocess.run([*install, "torch==2.13.0"], cwd=ROOT, check=True)
    subprocess.run([*install, "--editable", ".[dev]"], cwd=ROOT, check=True)
    stamp.write_text(wanted, "utf-8")


def main() -> int:
    """Run one task; its arguments go on to its tests, or to the demo."""
    task, *more = sys.argv[1:] or ["help"]
    if task not in TASKS:
        print(f"python3 dev.py {'|'.join(TASKS)}\n{__doc__}", file=sys.stderr)
        return 2
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        print(f"Python 3.11 to 3.13 is needed; this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    set_up()
    environment = for_tests() if task in ("check", "test") else None
    codes = []
    # Whoever says which marks are meant has them once: the last `-m` counts.
    commands = [command for command in TASKS[task] if command != SLOW] if "-m" in more else TASKS[task]
    for command in commands:
        tools = command in (FORMAT, LINT, TYPES)
        words = [str(PYTHON), *command, *([] if tools else more)]
        code = subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode
        if code not in (0, NO_TESTS) or (code and tools):
            return code
        codes += [] if tools else [code]
    return min(codes, default=0)


if __name__ == "__main__":
    sys.exit(main())
