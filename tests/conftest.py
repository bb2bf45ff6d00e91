"""A small model of random weights, and a home that is not the user's."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck

from stylus_audio import Engine
from stylus_audio.style_encoder import StyleEncoder
from tests.tiny import STEPS, save_clap, save_injection, save_tiny

NO_TIME = "no time left"

# How long an example takes must not be the machine's speed.
hypothesis.settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis.settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """A machine that takes ten times as long runs all fast tests, and slow ones for as long as there is time."""
    text = "run no slow test that has not begun by then (seconds since 1970), and list it"
    parser.addoption("--slow-until", type=float, default=math.inf, metavar="TIME", help=text)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the fixtures of a test, which may take longest."""
    if item.get_closest_marker("slow") and time.time() > item.config.getoption("--slow-until"):
        pytest.skip(NO_TIME)


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Not to be taken for a test that was skipped because something is missing."""
    return (NO_TIME, "t", NO_TIME.upper()) if report.skipped and NO_TIME in report.longreprtext else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests there was no time for."""
    for report in terminalreporter.stats.get(NO_TIME, []):
        terminalreporter.write_line(f"{NO_TIME}: {report.nodeid}")


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLUS_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(autouse=True)
def _no_word_of_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a command in this process says how long it will take must not be the machine's speed."""
    monkeypatch.setattr("stylus_audio.progress_bar.SAYS_HOW_LONG", math.inf)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model for injection."""
    return save_injection(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def clap_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLAP."""
    return save_clap(tmp_path_factory.mktemp("models") / "clap")


@pytest.fixture(scope="session")
def told_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small conditional model; conditional is its default."""
    methods = {
        "conditional": {"steps": dict.fromkeys(STEPS, 1), "settings": {"gamma": 0.0, "alpha": 1.0}},
        "injection": {"steps": STEPS, "settings": {}},
    }
    folder = save_tiny(tmp_path_factory.mktemp("models") / "told", 2, methods)
    StyleEncoder(64, 8, 32, 16, depth=1).save_pretrained(folder / "style_encoder")
    return folder


@pytest.fixture(scope="session")
def told(told_folder: Path) -> Engine:
    """The small conditional model, loaded once."""
    return Engine(str(told_folder), device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The small model, loaded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLUS_HOME", str(tmp_path_factory.mktemp("home")))
        yield Engine(str(tiny_folder), device="cpu", dtype="float32")
