"""Imports point one way, and nothing unsafe is imported."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "stylus_audio"
MODULES = sorted(PACKAGE.glob("*.py"))
BATCH = sorted((PACKAGE / "batch").glob("*.py"))
DAEMON = sorted((PACKAGE.parent / "daemon" / "stylus_daemon").glob("*.py"))

SOUND = {"audio", "riff", "files", "stem", "loudness", "onsets", "spectrogram", "windows", "gains", "phase", "passage",
         "finish", "reference", "match_eq", "metrics", "oracle_metrics", "frechet", "plot", "contact_sheet",
         "style_cache", "spectrogram_image", "near_live", "waveform_metrics", "listening", "audition",
         "overview", "bursts", "pre_echo", "moments"}  # fmt: skip
METHOD = {"attention", "features", "denoiser", "inversion", "sampling", "style", "stylize", "shelf", "conditional"}
NETWORKS = {"pretrained", "unet", "style_encoder", "noise_schedule"}
MODEL = {"latent", "model", "text", "quiet", "clap", "guidediff", *NETWORKS}


def documented() -> dict[str, set[str]]:
    """The modules that docs/architecture.md has a row for, by the first column of the table."""
    tables: dict[str, set[str]] = {}
    for line in (PACKAGE.parent / "docs" / "architecture.md").read_text("utf-8").splitlines():
        first = line.split("|")[1].strip() if line.startswith("|") else ""
        if first.startswith("module"):
            modules = tables.setdefault(first, set())
        elif first.startswith("`"):
            modules |= set(re.findall("`(.+?)`", first))
    return tables


def imports(path: Path) -> tuple[set[str], set[str]]:
    """Modules of ours, and packages of others, that a file imports anywhere."""
    ours: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            ours |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            others.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
    return ours, others


def test_every_module_has_a_row_and_every_row_a_module() -> None:
    def there(paths: list[Path], *folders: str) -> set[str]:
        return {path.stem for path in paths if not path.stem.startswith("__")} | set(folders)

    assert documented() == {
        "module": there(MODULES, "batch", "training"),
        "module of `batch`": there(BATCH),
        "module of `daemon/stylus_daemon`": there(DAEMON, "page/"),
    }


def test_errors_and_settings_stand_alone() -> None:
    assert imports(PACKAGE / "errors.py")[0] == set()
    assert imports(PACKAGE / "settings.py")[0] == {"errors"}


@pytest.mark.parametrize("name", sorted(SOUND))
def test_sound_knows_nothing_of_diffusion(name: str) -> None:
    ours, others = imports(PACKAGE / f"{name}.py")
    assert not ours & (METHOD | MODEL | {"engine", "cli", "commands", "job"})
    assert not others & {"diffusers", "transformers"}


@pytest.mark.parametrize("name", sorted(METHOD))
def test_the_method_knows_nothing_of_sound_or_of_diffusers(name: str) -> None:
    ours, others = imports(PACKAGE / f"{name}.py")
    assert not ours & (SOUND | MODEL | {"engine", "cli"})
    assert not others & {"diffusers", "transformers", "soundfile"}


def test_only_the_model_modules_import_diffusers() -> None:
    users = {path.stem for path in MODULES if imports(path)[1] & {"diffusers", "transformers"}}
    assert users <= MODEL


@pytest.mark.slow
def test_the_embedded_model_renders_without_diffusers() -> None:
    """Importing it takes longer than a short render."""
    assert not [name for name in NETWORKS if imports(PACKAGE / f"{name}.py")[1] & {"diffusers", "transformers"}]
    code = """
import sys, numpy as np
from stylus_audio import Engine
sound = np.random.default_rng(0).standard_normal(22050).astype(np.float32) / 10, 44100
Engine("mini", device="cpu").render(sound, sound)
sys.exit(any(name in sys.modules for name in ("diffusers", "transformers", "torch._dynamo")))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_the_restyler_alone_joins_sound_and_method() -> None:
    joining = {path.stem for path in MODULES if imports(path)[0] & METHOD and imports(path)[0] & SOUND}
    assert joining == {"restyler"}


def test_only_the_cluster_imports_ray() -> None:
    """It is an extra, takes a second to import, and no other module shall depend on its ways."""
    everything = [*PACKAGE.rglob("*.py"), *DAEMON]
    assert [path.stem for path in everything if "ray" in imports(path)[1]] == ["cluster"]
    code = "import sys, stylus_audio.batch.cluster; sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.parametrize("path", [*MODULES, *BATCH], ids=lambda path: path.stem)
def test_nothing_unsafe(path: Path) -> None:
    assert not imports(path)[1] & {"pickle", "torchaudio", "pydub", "shelve", "marshal"}
    assert "torch.load" not in path.read_text("utf-8")


def test_every_public_name_is_there() -> None:
    package = importlib.import_module("stylus_audio")
    assert all(getattr(package, name) is not None for name in package.__all__)


def test_the_package_knows_nothing_of_the_daemon() -> None:
    assert not [path.stem for path in MODULES if "stylus_daemon" in imports(path)[1]]


def test_only_the_framing_imports_python_osc_and_only_the_worker_renders() -> None:
    assert [path.stem for path in DAEMON if "pythonosc" in imports(path)[1]] == ["osc_framing"]
    source = {path.stem: path.read_text("utf-8") for path in DAEMON}
    assert sorted(name for name, text in source.items() if "Engine(" in text) == ["check", "worker"]


def test_only_the_worker_process_loads_pytorch() -> None:
    """It takes seconds and 400 MB."""
    code = "import sys, stylus_daemon.service, stylus_daemon.cli; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_models_are_listed_without_pytorch() -> None:
    code = "import sys, stylus_audio.cli, stylus_audio.model_commands; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_a_batch_renders_in_its_workers_alone() -> None:
    source = {path.stem: imports(path) for path in BATCH}
    assert [name for name, (ours, _) in source.items() if ours & {"engine", "job"}] == ["renderer"]
    assert [name for name, (_, others) in source.items() if "torch" in others] == ["crew", "renderer"]


def test_no_process_is_forked() -> None:
    for path in (*MODULES, *BATCH, *DAEMON):
        assert "os.fork" not in path.read_text("utf-8")
        assert '"fork"' not in path.read_text("utf-8")
