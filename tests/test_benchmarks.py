"""The benchmark runs, says what it promises to say, and compares what gives the same output."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import gpu, gpu_clips, gpu_unet, latents, sd15
from benchmarks.gpu_bench import TINY, Bench, exact_sums
from benchmarks.table import Row, printed, side_by_side
from stylus_audio import Engine
from stylus_audio.engine import Render


@pytest.mark.parametrize(
    ("ratio", "limit", "verdict"), [(5.1, 5, "kept"), (4.9, 5, "MISSED"), (0.4, -0.5, "kept"), (0.6, -0.5, "MISSED")]
)
def test_a_limit_is_the_least_or_with_a_sign_the_most(ratio: float, limit: float, verdict: str) -> None:
    row = Row("row", ratio, limit=limit)
    assert row.verdict == verdict
    assert verdict in printed([row])


def test_ways_take_turns_and_the_first_turn_does_not_count() -> None:
    turns: list[str] = []

    def way(name: str) -> str:
        turns.append(name)
        return name.upper()

    results, seconds, peaks = side_by_side([lambda: way("a"), lambda: way("b")], 2)
    assert turns == ["a", "b"] * 3
    assert results == ["A", "B"]
    assert all(one >= 0 for one in seconds)
    assert all(peak > 1 << 20 for peak in peaks)


def test_a_single_turn_on_a_gpu_is_not_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []
    ways = [lambda: turns.append("a"), lambda: turns.append("b")]
    side_by_side(ways, 1)
    assert turns == ["a", "b"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 1)
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    turns.clear()
    side_by_side(ways, 1)
    assert turns == ["a", "b"] * 2


def multiplied(unet: Any, size: int) -> int:
    """FLOPs of a pass by what every layer is and has given."""
    counts: list[int] = []

    def layer(module: Any, _: Any, output: torch.Tensor) -> None:
        counts.append(output.numel() * module.weight[0].numel())

    def attended(module: Any, given: Any, named: Any, _: Any) -> None:
        keys = given[0] if named["encoder_hidden_states"] is None else named["encoder_hidden_states"]
        # Q Kᵀ, and what it weighs V by.
        counts.append(2 * given[0].shape[1] * keys.shape[1] * module.to_q.out_features)

    hooks = []
    for module in unet.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            hooks.append(module.register_forward_hook(layer))
        elif hasattr(module, "to_q"):
            hooks.append(module.register_forward_hook(attended, with_kwargs=True))
    with torch.no_grad():
        unet(
            torch.randn(1, 4, size, size), 1, encoder_hidden_states=torch.randn(1, 77, unet.config.cross_attention_dim)
        )
    for hook in hooks:
        hook.remove()
    return 2 * sum(counts)


def test_the_floor_is_that_of_one_pass_whether_or_not_the_network_is_there_already() -> None:
    first, later = (Bench(torch.device("cpu"), TINY) for _ in range(2))
    expected = multiplied(later.unet, TINY.latent)
    assert first.flops == later.flops == expected


def test_the_floor_on_a_cpu_has_its_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "side_by_side", lambda ways, rounds: (None, (1.0, 2.0), None))
    unet = sd15.unet(torch.device("cpu"), 16, sample_size=16, **dict(TINY.unet))
    assert latents._above_floor(unet, 1).notes["flops"] == multiplied(unet, 16)


@pytest.mark.parametrize("section", [gpu_clips.render, gpu_clips.several, gpu_clips.long])
def test_what_a_clip_is_timed_at_has_been_done_once(
    section: Callable[[Bench], Iterator[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []
    news: list[set[Any]] = []

    def rendered(sound: Any) -> Render:
        nothing: Any = None
        return Render(np.ones_like(sound[0]), sound[1], {"timings": {}}, None, nothing, nothing, "")

    def render(_: Engine, content: Any, style: Any, settings: Any) -> Render:
        done.append((content[0].shape[1], settings))
        return rendered(content)

    def render_several(_: Engine, contents: Any, style: Any, settings: Any) -> list[Render]:
        done.append((tuple(one[0].shape[1] for one in contents), settings))
        return [rendered(one) for one in contents]

    def clocked(work: Callable[[], Any]) -> tuple[float, Any]:
        before = len(done)
        made = work()
        news.append(set(done[before:]) - set(done[:before]))
        return 1.0, made

    monkeypatch.setattr(Engine, "warm", lambda *_: None)
    monkeypatch.setattr(Engine, "render", render)
    monkeypatch.setattr(Engine, "render_several", render_several)
    monkeypatch.setattr(gpu_clips, "clocked", clocked)
    assert list(section(Bench(torch.device("cpu"), TINY)))
    assert news
    assert not any(news)


@pytest.mark.slow
def test_ten_minutes_have_nothing_beside_them_but_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(torch.device("cpu"), TINY)
    large = [bench.unet, bench.vae, bench.plain_half, bench.channels_last, bench.encoded, bench.styles[0].noisy]
    others = [weakref.ref(one) for one in large]
    large.clear()
    model, there = bench.model, []

    def rendered(engine: Engine, *_: object) -> tuple[float, None]:
        there.append((engine.model is model, [one() for one in others if one() is not None]))
        return 1.0, None

    for name in ("warm", "render"):
        monkeypatch.setattr(Engine, name, lambda *_: None)
    monkeypatch.setattr(gpu_clips, "_rendered", rendered)
    list(gpu_clips.long(bench))
    assert there == [(True, [])] * 2
    # And what comes behind finds them again.
    assert bench.channels_last.device == bench.device


@pytest.mark.slow
def test_what_is_tried_with_cudnn_is_not_left_to_other_sections() -> None:
    before = torch.backends.cudnn.benchmark, torch._C._get_sdp_priority_order()
    assert len(list(gpu_unet.tuned(Bench(torch.device("cpu"), TINY)))) == 4
    assert (torch.backends.cudnn.benchmark, torch._C._get_sdp_priority_order()) == before


@pytest.mark.slow
def test_drift_has_nothing_of_an_encoder() -> None:
    """An autoencoder in half precision that is far off: it shows in the picture and in its own row alone."""
    bench = Bench(torch.device("cpu"), TINY)
    with torch.no_grad():
        bench.model.latent.vae.quant_conv.weight.mul_(1.1)  # type: ignore[attr-defined]
    rows = {row.name.split(": ")[-1]: row for row in gpu_clips.window(bench)}
    assert (rows["ours in fp16"].difference or 0) < 1e-4
    assert (rows["ours in fp16"].ratio or 0) < 60 < (rows["ours in TF32"].ratio or 0)
    assert (rows["latents that fp16 encodes, off those of float32, of their norm"].ratio or 0) > 0.05


def test_the_ends_of_the_network_are_in_float32() -> None:
    unet = sd15.unet(torch.device("cpu"), TINY.latent, **dict(TINY.unet)).bfloat16()
    ends, seen = gpu_clips._ends_in_float32(unet), {}
    for name in ("time_embedding", "conv_norm_out", "conv_out", "up_blocks.3.resnets.0.time_emb_proj"):
        ends.get_submodule(name).register_forward_hook(
            lambda _, given, output, name=name: seen.update({name: (given[0], output.dtype)})
        )
    z, told = torch.randn(1, 4, 16, 16), torch.randn(1, 77, 32)
    with torch.no_grad():
        made = ends(z.bfloat16(), 333, encoder_hidden_states=told.bfloat16()).sample
    assert torch.equal(seen["time_embedding"][0], unet.time_proj(torch.tensor([333])))
    assert made.dtype == seen["conv_norm_out"][1] == seen["conv_out"][0].dtype == torch.float32
    # In between it is as it was.
    assert seen["up_blocks.3.resnets.0.time_emb_proj"][0].dtype == ends.dtype == torch.bfloat16
    assert unet.conv_out.weight.dtype == torch.bfloat16


def test_exact_sums_are_put_back() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_fp16_reduced_precision_reduction
    with exact_sums():
        assert matmul.allow_fp16_reduced_precision_reduction is False
    assert matmul.allow_fp16_reduced_precision_reduction is before is True


def asked(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    command.main()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu"], "cuda is not available"), (["--gpu", "--tiny", "--only", "floor,nope"], "'nope' is no section"),
        (["--tiny"], "--tiny is for --gpu"), (["--quick", "--only", "floor"], "--only is for --gpu"),
        (["--seconds", "140"], "--seconds is for --gpu"), (["--quick", "--gpu"], "not allowed with"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_said_in_a_line(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as left:
        asked(monkeypatch, *words)
    assert left.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_json_of_a_gpu_is_all_that_it_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked(monkeypatch, "--gpu", "--tiny", "--only", "floor", "--json")
    printed_here = capsys.readouterr()
    assert [row["ratio"] > 0 for row in json.loads(printed_here.out)] == [True] * 4
    assert printed_here.err.count("s left]") == 4


def test_a_section_that_fails_or_has_no_time_is_named_and_the_next_goes_on(tmp_path: Path) -> None:
    def fails(bench: Bench) -> Iterator[Row]:
        yield Row("before", 1.0)
        raise RuntimeError("out of luck")

    def works(bench: Bench) -> Iterator[Row]:
        yield Row("after", 2.0)

    file = tmp_path / "rows.json"
    rows = gpu.measure(10.0, file, Bench(torch.device("cpu"), TINY), [(fails, 1), (works, 11), (works, 1)])
    assert [row.name for row in rows] == ["before", "fails", "works", "after"]
    assert rows[1].missing.startswith("failed: RuntimeError: out of luck at test_benchmarks.py:")
    assert "11 s needed" in rows[2].missing
    assert [row["name"] for row in json.loads(file.read_text("utf-8"))] == [row.name for row in rows]


@pytest.mark.slow
def test_every_section_for_a_gpu_runs_on_tiny_networks() -> None:
    bench = Bench(torch.device("cpu"), TINY)
    rows = gpu.measure(1e9, None, bench, gpu.SECTIONS)
    assert not [row for row in rows if row.missing.startswith("failed")]
    by_name = {row.name: row for row in rows}
    # The published loop and ours agree, and float32 is nearer to itself than bf16 is.
    published, ours, coarse = (
        by_name[f"dB of PSNR to float32, 1 window, 3 steps: {name}"].ratio or 0.0
        for name in ("published", "ours in fp16", "ours in bf16")
    )
    assert min(published, ours) > 80
    assert coarse < min(published, ours)


@pytest.mark.slow
def test_the_quick_table() -> None:
    words = [sys.executable, "-m", "benchmarks", "--quick", "--json"]
    done = subprocess.run(words, cwd=Path(__file__).parents[1], check=True, stdout=subprocess.PIPE, text=True)
    rows = json.loads(done.stdout)
    assert all({"name", "ratio", "difference", "peak_bytes"} <= row.keys() for row in rows)
    assert all(row["ratio"] > 0 for row in rows)
    same = {row["name"]: row["difference"] for row in rows if row["difference"] is not None}
    assert len(same) >= 4
    # Equal within float32: the published loop and ours, a warm style and a cold one.
    assert max(same.values()) < 1e-3, same
