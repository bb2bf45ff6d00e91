"""What waits on a shelf comes back as it was, and leaves nothing behind."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from stylus_audio import Settings, shelf, stylize
from stylus_audio.denoiser import Denoiser
from stylus_audio.shelf import Shelf
from stylus_audio.stylize import Stylizer
from tests import plain


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where large temporary files of this process go."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_exceeds_the_budget_goes_to_files_that_end_with_the_shelf(folder: Path) -> None:
    tensors = [{"a": torch.randn(3, 5).to(dtype), "b": torch.arange(6).reshape(2, 3).T} for dtype in
               (torch.float32, torch.bfloat16, torch.float16)]  # fmt: skip
    size = sum(tensor.nbytes for tensor in tensors[0].values())
    with Shelf(size, size) as kept:
        back = [kept.put(one) for one in tensors]
        assert kept.left == 0
        assert len(files(folder)) == 2
        for one, read in zip(tensors, back, strict=True):
            for _ in range(2):
                assert all(torch.equal(read()[name], tensor) for name, tensor in one.items())
                assert {name: tensor.dtype for name, tensor in read().items()} == {
                    name: tensor.dtype for name, tensor in one.items()
                }
    assert not list(folder.iterdir())


def test_what_takes_room_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Shelf(1000, 2000) as kept:
        kept.put({"a": torch.zeros(200)})
        assert [kept.takes(size) for size in (200, 201, 2000, 2001)] == [True, True, True, False]
        monkeypatch.setattr(shelf, "SPARE_BYTES", shutil.disk_usage(folder).total)
        assert [kept.takes(size) for size in (200, 201)] == [True, False]
    with Shelf(1000, 0) as kept:
        assert [kept.takes(size) for size in (1000, 1001)] == [True, False]


def test_a_disk_that_has_filled_up_costs_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object, file: Path) -> None:
        file.write_bytes(b"what there was room for")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shelf, "save_file", full)
    with Shelf(0, 1000) as kept:
        assert torch.equal(kept.put({"a": torch.ones(3)})()["a"], torch.ones(3))
        assert not files(folder)
    assert not list(folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("exact", [True, False])
def test_a_run_that_waits_on_the_disk_is_the_same_to_the_bit(
    folder: Path, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet, scheduler = plain.small_unet()
    denoiser = Denoiser(unet, scheduler, torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(9)))
    content, style = (torch.randn(n, 4, 16, 16, generator=torch.Generator().manual_seed(n)) for n in (5, 1))
    settings = Settings(steps=3, inversion="current", alpha=0.9)
    written: list[Any] = []
    filed = Shelf._filed

    def watched(self: Shelf, tensors: Any) -> Any:
        written.append(tensors)
        return filed(self, tensors)

    monkeypatch.setattr(Shelf, "_filed", watched)

    def styled() -> torch.Tensor:
        stylizer = Stylizer(denoiser, denoiser, settings, windows_per_pass=2)
        return stylizer.run(content, [stylizer.prepare(style)], exact=exact)

    expected = styled()
    assert not written
    # Less than one group of windows takes.
    monkeypatch.setattr(stylize, "CONTENT_BYTES", 1 << 18)
    assert torch.equal(styled(), expected)
    assert written
    assert not list(folder.iterdir())
