"""The cache of prepared styles: the same samples with fewer passes, whatever happens to its files."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stylus_audio import Engine, style_cache
from stylus_audio.denoiser import Denoiser
from stylus_audio.engine import Render, Source
from stylus_audio.errors import Cancelled
from stylus_audio.style_cache import StyleCache, Tensors
from stylus_audio.stylize import FEATURE_BUDGET, PreparedStyle, Stylizer
from tests.sounds import RATE, noise, plucks

CPU = torch.device("cpu")
STEPS = 4
"""Of the small models' balanced quality."""

CONTENT = (plucks(0.8), RATE)
STYLE = (noise(3.0, seed=9), RATE)
SHORT = (noise(0.4, seed=3), RATE)
"""Shorter than a window: some columns do not count."""

METHODS = pytest.mark.parametrize("method", ["injection", "conditional"])


@pytest.fixture
def load(told_folder: Path) -> Callable[[StyleCache], Engine]:
    """An engine of its own with a cache."""
    return lambda cache: Engine(str(told_folder), device="cpu", dtype="float32", cache=cache)


def rendered(engine: Engine, style: Source | list[Source] = STYLE, **changes: Any) -> Render:
    return engine.render(CONTENT, style, engine.settings(**changes))


def same(one: Render, other: Render) -> bool:
    return np.array_equal(one.audio, other.audio)


@contextmanager
def counting(engine: Engine) -> Iterator[list[int]]:
    """Gets an element at every forward pass of the UNet."""
    passes: list[int] = []
    hook = engine.model.unet.register_forward_hook(lambda *_: passes.append(1))
    yield passes
    hook.remove()


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


Load = Callable[[StyleCache], Engine]


@METHODS
@pytest.mark.parametrize("style", [STYLE, SHORT], ids=["long", "short"])
def test_the_second_render_makes_no_pass_for_the_style(told: Engine, load: Load, method: str, style: Source) -> None:
    engine = load(StyleCache())
    with counting(told) as plain:
        expected = rendered(told, style, method=method)
    with counting(engine) as first:
        assert same(rendered(engine, style, method=method), expected)
    with counting(engine) as second:
        assert same(rendered(engine, style, method=method), expected)
    assert len(first) == len(plain)
    assert len(second) == len(plain) - (STEPS if method == "injection" else 1)
    assert engine.cache is not None
    about = engine.cache.statistics()
    assert (about.prepared, about.hits, about.entries) == (1, 1, 1)


@METHODS
@pytest.mark.parametrize("style", [STYLE, SHORT], ids=["long", "short"])
def test_another_engine_finds_it_on_the_disk(
    told: Engine, load: Load, tmp_path: Path, method: str, style: Source
) -> None:
    rendered(load(StyleCache(tmp_path)), style, method=method)
    cache = StyleCache(tmp_path)
    engine = load(cache)
    assert engine.is_warm(style, engine.settings(method=method))
    with counting(engine) as passes:
        assert same(rendered(engine, style, method=method), rendered(told, style, method=method))
    with counting(told) as plain:
        rendered(told, style, method=method)
    assert len(passes) == len(plain) - (STEPS if method == "injection" else 1)
    about = cache.statistics()
    assert (about.prepared, about.hits, about.device.entries, about.disk.entries, about.entries) == (0, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        *(("injection", {name: value}) for name, value in
          [("gamma", 0.2), ("tau", 2.0), ("alpha", 0.5), ("seed", 5), ("mix", 0.5), ("init", "efdm"),
           ("start_step", 1), ("reconstruction", "phase")]),
        *(("conditional", {name: value}) for name, value in
          [("gamma", 0.2), ("tau", 2.0), ("alpha", 0.5), ("seed", 5), ("mix", 0.5)]),
    ],
    ids=str,
)  # fmt: skip
def test_a_dial_hits(told: Engine, load: Load, method: str, changes: dict[str, Any]) -> None:
    cache = StyleCache()
    engine = load(cache)
    engine.warm(STYLE, engine.settings(method=method))
    assert engine.is_warm(STYLE, engine.settings(method=method, **changes))
    assert same(rendered(engine, method=method, **changes), rendered(told, method=method, **changes))
    assert (cache.statistics().prepared, cache.statistics().hits) == (1, 1)


@pytest.mark.parametrize(
    "changes",
    [{"steps": 3}, {"layers": "3-4"}, {"variation": 2}, {"method": "conditional"}, {"inversion": "current"},
     {"denoise": 0.5}, {"injection": False}, {"method": "conditional", "layers": "3-4"}],
    ids=str,
)  # fmt: skip
def test_what_changes_the_style_misses(told: Engine, load: Load, changes: dict[str, Any]) -> None:
    cache = StyleCache()
    engine = load(cache)
    rendered(engine, method="injection")
    rendered(engine, method="conditional", variation=1)
    assert not engine.is_warm(STYLE, engine.settings(**{"method": "injection", **changes}))
    changes = {"method": "injection", **changes}
    assert same(rendered(engine, **changes), rendered(told, **changes))
    assert (cache.statistics().prepared, cache.statistics().hits) == (3, 0)


def test_another_style_misses(told: Engine, load: Load) -> None:
    cache = StyleCache()
    engine = load(cache)
    other = (noise(3.0, seed=10), RATE)
    rendered(engine)
    assert same(rendered(engine, other), rendered(told, other))
    assert cache.statistics().prepared == 2


def test_the_same_weights_by_another_configuration_miss(told_folder: Path, load: Load, tmp_path: Path) -> None:
    cache = StyleCache(tmp_path / "cache")
    first = load(cache)
    first.warm(STYLE)
    changed = [("stylus.json", "latent", {"kind": "patchify", "factor": 8, "shift": 0.2, "scale": 0.25}),
               ("unet/config.json", "norm_eps", 1e-3), ("style_encoder/config.json", "stride", 1)]  # fmt: skip
    for number, (name, key, value) in enumerate(changed):
        folder = tmp_path / str(number)
        shutil.copytree(told_folder, folder)
        about = json.loads((folder / name).read_text("utf-8"))
        differs = about[key] != value
        (folder / name).write_text(json.dumps({**about, key: value}), "utf-8")
        other = Engine(str(folder), device="cpu", dtype="float32", cache=cache)
        assert other.model.sha256 == first.model.sha256
        # The last is the same model in another place.
        assert other.is_warm(STYLE) is not differs
    assert not Engine(str(told_folder), device="cpu", dtype="bfloat16", cache=cache).is_warm(STYLE)


@METHODS
def test_of_two_styles_only_the_unknown_one_is_prepared(told: Engine, load: Load, method: str) -> None:
    cache = StyleCache()
    engine = load(cache)
    engine.warm(SHORT, engine.settings(method=method))
    with counting(engine) as passes:
        both = rendered(engine, [STYLE, SHORT], method=method)
    with counting(told) as plain:
        assert same(both, rendered(told, [STYLE, SHORT], method=method))
    assert len(passes) == len(plain) - (STEPS if method == "injection" else 1)
    assert (cache.statistics().prepared, cache.statistics().hits) == (2, 1)


@METHODS
def test_warming_prepares_once_and_renders_nothing(load: Load, tmp_path: Path, method: str) -> None:
    engine = load(StyleCache(tmp_path))
    settings = engine.settings(method=method)
    assert not engine.is_warm(STYLE, settings)
    for expected in (STEPS if method == "injection" else 1, 0):
        seen: list[float] = []
        with counting(engine) as passes:
            engine.warm(STYLE, settings, lambda fraction, _, seen=seen: seen.append(fraction))  # type: ignore[misc]
        assert len(passes) == expected
        assert seen == sorted(seen)
        assert seen[-1] == 1.0
        assert engine.is_warm(STYLE, settings)


def test_without_a_cache_nothing_is_warm(told: Engine) -> None:
    with counting(told) as passes:
        told.warm(STYLE)
    assert not passes
    assert not told.is_warm(STYLE)


@METHODS
def test_the_passes_that_are_announced_are_made(load: Load, method: str) -> None:
    engine = load(StyleCache())
    for _ in range(2):
        seen: list[tuple[float, str]] = []
        settings = engine.settings(method=method)
        engine.render(CONTENT, STYLE, settings, lambda fraction, stage, seen=seen: seen.append((fraction, stage)))  # type: ignore[misc]
        diffusion = [fraction for fraction, stage in seen if stage == "diffusion"]
        # Not before the last pass, and then all of it.
        assert diffusion[-2] < 0.949
        assert diffusion[-1] == pytest.approx(0.95)


@METHODS
@pytest.mark.parametrize("way", ["render", "warm"])
def test_a_cancelled_preparation_leaves_nothing(
    told: Engine, load: Load, tmp_path: Path, method: str, way: str
) -> None:
    cache = StyleCache(tmp_path)
    engine = load(cache)
    settings = engine.settings(method=method)

    def cancel(fraction: float, stage: str) -> None:
        if stage == "style" and fraction > 0:
            raise Cancelled("enough")

    work = engine.warm if way == "warm" else partial(engine.render, CONTENT)
    with pytest.raises(Cancelled):
        work(STYLE, settings, cancel)
    assert cache.statistics().entries == cache.statistics().prepared == 0
    assert entries(tmp_path) == []
    assert same(rendered(engine, method=method), rendered(told, method=method))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1000] ^= 4
    path.write_bytes(data)


def foreign(path: Path) -> None:
    path.write_bytes(b"RIFF, not safetensors at all")


def another_model(path: Path) -> None:
    save_file({"weight": torch.zeros(5)}, path)


def another_key(path: Path) -> None:
    save_file(load_file(path), path, {"format": style_cache.FORMAT, "key": "0" * 64, "crc32": "00000000"})


def empty(path: Path) -> None:
    path.write_bytes(b"")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.slow
@METHODS
@pytest.mark.parametrize("damage", [truncated, flipped, foreign, another_model, another_key, empty])
def test_a_damaged_file_is_made_again(
    told: Engine, load: Load, tmp_path: Path, method: str, damage: Callable[[Path], None]
) -> None:
    rendered(load(StyleCache(tmp_path)), method=method)
    (file,) = entries(tmp_path)
    damage(file)
    cache = StyleCache(tmp_path)
    assert same(rendered(load(cache), method=method), rendered(told, method=method))
    assert cache.statistics().prepared == 1
    assert entries(tmp_path) == [file]
    whole = StyleCache(tmp_path)
    assert same(rendered(load(whole), method=method), rendered(told, method=method))
    assert whole.statistics().prepared == 0


def test_a_folder_in_the_place_of_a_file_is_no_error(told: Engine, load: Load, tmp_path: Path) -> None:
    rendered(load(StyleCache(tmp_path)))
    a_folder(*entries(tmp_path))
    assert same(rendered(load(StyleCache(tmp_path))), rendered(told))
    assert entries(tmp_path) == []


def tensors(seed: int, size: int = 1000) -> Tensors:
    made = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return {"a": made.to(torch.bfloat16).view(2, -1), "b": made > 0}


def equal(one: Tensors | None, other: Tensors) -> bool:
    return one is not None and one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_no_flipped_bit_and_no_cut_goes_unnoticed(tmp_path: Path) -> None:
    key, made = "k" * 64, tensors(0, 50)
    StyleCache(tmp_path).put(key, made)
    (file,) = entries(tmp_path)
    whole = file.read_bytes()
    assert equal(StyleCache(tmp_path).get(key, CPU), made)
    damaged = [whole[:end] for end in range(len(whole))]
    for bit in (1, 16, 128):
        damaged += [whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :] for at in range(len(whole))]
    for data in damaged:
        file.write_bytes(data)
        assert StyleCache(tmp_path).get(key, CPU) is None
        assert not file.exists()


def test_a_file_that_has_vanished_is_a_miss(tmp_path: Path) -> None:
    cache = StyleCache(tmp_path, device_bytes=0)
    cache.put("a", tensors(0))
    assert cache.has("a")
    shutil.rmtree(tmp_path)
    assert not cache.has("a")
    assert cache.get("a", CPU) is None
    assert cache.statistics().disk.entries == 0
    cache.put("a", tensors(0))
    assert equal(cache.get("a", CPU), tensors(0))


def test_what_comes_from_disk_outlives_its_file(tmp_path: Path) -> None:
    StyleCache(tmp_path).put("a", tensors(0))
    got = StyleCache(tmp_path).get("a", CPU)
    (file,) = entries(tmp_path)
    file.write_bytes(bytes(file.stat().st_size))
    assert equal(got, tensors(0))


SIZE = sum(tensor.nbytes for tensor in tensors(0).values())


def test_the_least_recently_used_leaves_memory_first() -> None:
    cache = StyleCache(device_bytes=3 * SIZE)
    for number, key in enumerate("abc"):
        cache.put(key, tensors(number))
    assert cache.statistics().device.bytes == cache.statistics().bytes == 3 * SIZE
    assert equal(cache.get("a", CPU), tensors(0))
    cache.put("d", tensors(3))
    assert [key for key in "abcd" if cache.has(key)] == ["a", "c", "d"]
    cache.put("c", tensors(2))
    cache.put("e", tensors(4, 2000))
    assert [key for key in "abcde" if cache.has(key)] == ["c", "e"]
    assert cache.statistics().device.bytes == 3 * SIZE
    # What could never have room costs nobody else theirs.
    cache.put("f", tensors(5, 4000))
    assert [key for key in "abcdef" if cache.has(key)] == ["c", "e"]
    # A CPU has no other memory to go to.
    assert cache.statistics().host.entries == 0


def test_a_limit_holds_until_another_is_said() -> None:
    cache = StyleCache(device_bytes=3 * SIZE)
    for number, key in enumerate("abc"):
        cache.put(key, tensors(number))
    cache.limit(2 * SIZE)
    assert [key for key in "abc" if cache.has(key)] == ["b", "c"]
    cache.put("d", tensors(3))
    assert [key for key in "abcd" if cache.has(key)] == ["c", "d"]
    cache.limit(0)
    assert cache.statistics().device.bytes == 0
    cache.put("a", tensors(0))
    assert cache.statistics().device.bytes == 0
    # No more than the cache was made for.
    cache.limit(float("inf"))
    for number, key in enumerate("abcd"):
        cache.put(key, tensors(number))
    assert [key for key in "abcd" if cache.has(key)] == ["b", "c", "d"]


def test_the_least_recently_used_leaves_the_disk_first(tmp_path: Path) -> None:
    StyleCache(tmp_path / "one").put("a", tensors(0))
    (file,) = entries(tmp_path)
    budget = 3 * file.stat().st_size + 20
    folder = tmp_path / "cache"
    cache = StyleCache(folder, device_bytes=SIZE, disk_bytes=budget)
    for number, key in enumerate("abc"):
        cache.put(key, tensors(number))
    # One use from disk, one from memory: both count.
    assert equal(cache.get("a", CPU), tensors(0))
    assert equal(cache.get("a", CPU), tensors(0))
    cache.put("d", tensors(3))
    assert [path.name[0] for path in entries(folder)] == ["a", "c", "d"]
    assert cache.statistics().disk.bytes == sum(path.stat().st_size for path in entries(folder)) <= budget
    # Another process with its own memory and the same folder.
    other = StyleCache(folder, disk_bytes=budget)
    assert equal(other.get("c", CPU), tensors(2))
    cache.put("e", tensors(4))
    assert [path.name[0] for path in entries(folder)] == ["c", "d", "e"]
    cache.put("f", tensors(5, 4000))
    assert [path.name[0] for path in entries(folder)] == ["c", "d", "e"]


def test_files_of_others_are_left_alone_and_abandoned_parts_are_not(tmp_path: Path) -> None:
    key, another = "a" * 64, "b" * 64
    names = ("model.safetensors", ".download.part", f".{key}.1.part", f".{another}.2.part")
    theirs, download, fresh, old = (tmp_path / name for name in names)
    for path in (theirs, download, fresh, old):
        path.write_bytes(bytes(100_000))
    then = time.time() - 2 * style_cache.ABANDONED_SECONDS
    for path in (download, old):
        os.utime(path, (then, then))
    cache = StyleCache(tmp_path, device_bytes=0, disk_bytes=SIZE + 1000)
    cache.put("a", tensors(0))
    cache.put("b", tensors(1))
    assert not cache.has("a")
    assert cache.has("b")
    assert theirs.exists()
    assert download.exists()
    assert fresh.exists()
    assert not old.exists()


def test_a_folder_that_cannot_be_means_memory_only(told: Engine, load: Load, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", "utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "cache"):
        cache = StyleCache(folder)
        engine = load(cache)
        for _ in range(2):
            assert same(rendered(engine), rendered(told))
        about = cache.statistics()
        assert (about.prepared, about.hits, about.entries, about.disk.entries) == (1, 1, 1, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_disk_without_room_means_memory_only(told: Engine, load: Load, tmp_path: Path) -> None:
    import resource

    expected = rendered(told)
    cache = StyleCache(tmp_path)
    engine = load(cache)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system refuses the write in the midst of the file.
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        stems = [rendered(engine), rendered(engine)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert all(same(stem, expected) for stem in stems)
    about = cache.statistics()
    assert (about.prepared, about.hits, about.entries, about.disk.entries) == (1, 1, 1, 0)
    assert entries(tmp_path) == []


def test_a_nearly_full_disk_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style_cache, "SPARE_BYTES", 2**62)
    cache = StyleCache(tmp_path)
    cache.put("a", tensors(0))
    assert entries(tmp_path) == []
    assert equal(cache.get("a", CPU), tensors(0))


def latents(seed: int) -> Tensor:
    return torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("columns", [None, torch.tensor([[True] * 8, [True] * 3 + [False] * 5])], ids=["all", "some"])
def test_features_over_the_budget_are_computed_again_from_the_kept_way(tiny: Engine, columns: Tensor | None) -> None:
    model = tiny.model
    denoiser = Denoiser(model.unet, model.scheduler, model.embedding())

    def stylizer(budget: int = FEATURE_BUDGET) -> Stylizer:
        return Stylizer(denoiser, denoiser, tiny.settings(steps=3), feature_budget=budget)

    def styled(style: PreparedStyle) -> Tensor:
        return stylizer().run(latents(1), [style])

    recorded, replayed = (stylizer(budget).prepare(latents(0), columns) for budget in (FEATURE_BUDGET, 0))
    assert set(replayed.to_tensors()) == {f"trajectory.{number}" for number in range(4)}
    expected = styled(recorded)
    for kept in (recorded.to_tensors(), replayed.to_tensors()):
        for budget in (FEATURE_BUDGET, 0):
            assert torch.equal(styled(stylizer(budget).restore(kept, columns)), expected)


def test_restored_features_are_taken_off_the_budget(tiny: Engine) -> None:
    model = tiny.model
    denoiser = Denoiser(model.unet, model.scheduler, model.embedding())
    kept = Stylizer(denoiser, denoiser, tiny.settings(steps=3)).prepare(latents(0)).to_tensors()
    size = sum(tensor.nbytes for name, tensor in kept.items() if name.startswith("recorded"))
    # Half of what is left: the first style has just that, the second has not.
    one = Stylizer(denoiser, denoiser, tiny.settings(steps=3), feature_budget=2 * size)
    assert [len(one.restore(kept).inversion.recorded) for _ in range(2)] == [3, 0]


if torch.cuda.is_available():

    def test_what_leaves_the_device_goes_to_pinned_memory_and_comes_back(tmp_path: Path) -> None:
        cuda = torch.device("cuda", 0)

        def there(seed: int) -> Tensors:
            return {name: tensor.to(cuda) for name, tensor in tensors(seed).items()}

        cache = StyleCache(tmp_path, device_bytes=SIZE, host_bytes=SIZE)
        for number, key in enumerate("abc"):
            cache.put(key, there(number))
        about = cache.statistics()
        assert (about.device.bytes, about.host.bytes, about.disk.entries, about.entries) == (SIZE, SIZE, 3, 3)
        for number, key in [(1, "b"), (0, "a"), (2, "c")]:
            got = cache.get(key, cuda)
            assert equal(got, there(number))
            assert got is not None
            assert all(tensor.device == cuda for tensor in got.values())
        assert cache.statistics().hits == 3
