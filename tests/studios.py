"""A folder of clips and styles, and batches over it in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import soundfile

from stylus_audio.audio import sha256
from tests.sounds import RATE, noise, plucks, tone


class Studio:
    """Clips in `kit`, two styles beside it, and a model."""

    def __init__(self, folder: Path, model: Path, clips: int = 6) -> None:
        self.folder, self.model = folder, model
        self.kit, self.out = folder / "kit", folder / "kit-stylus"
        for number in range(clips):
            path = self.kit / ("deep" if number % 2 else "") / f"hit {number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            audio = plucks(0.3 + 0.1 * (number % 7), 0.2, channels=1 + number % 2)
            soundfile.write(path, audio.T, RATE, subtype="PCM_24" if number % 3 else "PCM_16")
        soundfile.write(folder / "hiss.wav", noise(1.0).T, RATE)
        soundfile.write(folder / "beep.wav", tone(700, 1.0).T, RATE)
        self.common = ["--style", "hiss.wav", "--style", "beep.wav", "--each-style"]

    def words(self, *more: str) -> list[str]:
        """The command line of a batch over the kit, in both styles."""
        model = ["--model", str(self.model), "--device", "cpu", "--workers", "1", "--quality", "fast"]
        return [sys.executable, "-m", "stylus_audio", "batch", *(more or ("kit", *self.common)), *model]

    def start(self, *more: str) -> subprocess.Popen[str]:
        """A batch under way."""
        return subprocess.Popen(
            self.words(*more), cwd=self.folder, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def run(self, *more: str, code: int = 0) -> dict[str, Any]:
        """A batch to its end, whose summary is returned; the exit code is `code`."""
        process = self.start(*(more or ("kit", *self.common)), "--json")
        out, err = process.communicate(timeout=600)
        assert process.returncode == code, err
        said: dict[str, Any] = json.loads(out)
        return said

    def stems(self, folder: Path | None = None) -> dict[str, str]:
        """Every file of a folder of stems (that of the kit) with its SHA-256, hidden ones too; the records apart."""
        folder = folder or self.out
        files = [path for path in folder.rglob("*") if path.is_file() and "stylus-batch" not in path.parts]
        return {path.relative_to(folder).as_posix(): sha256(path) for path in files}

    def count(self) -> int:
        """How many stems the kit has by now; other processes may be at work on them."""
        return sum(
            not name.startswith(".") for _, _, names in os.walk(self.out) for name in names if name.endswith("wav")
        )

    def reports(self, folder: Path | None = None) -> list[dict[str, Any]]:
        """The lines of reports.jsonl."""
        file = (folder or self.out) / "stylus-batch" / "reports.jsonl"
        return [json.loads(line) for line in file.read_text("utf-8").splitlines()]
