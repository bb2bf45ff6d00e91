"""Passes of the UNet on a GPU: floor, kernels, layouts, compilation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stylus_audio.attention import Hand, attention, decoder_layers
from stylus_audio.features import Features, Recorder, Step
from stylus_audio.graphs import Graphs, cuda_graphs
from stylus_audio.sampling import Injector

from .gpu_bench import LAYERS, PARTS, Bench, clocked, timed
from .table import Row, settle


def floor(bench: Bench) -> Iterator[Row]:
    """The machine's rate, and what a pass cannot be quicker than."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        rate = bench.product(dtype)
        name = f"TFLOP/s of a {bench.size.product}³ product, {str(dtype).removeprefix('torch.')}"
        yield Row(name, rate / 1e12, notes={"flops_per_second": rate})
    yield Row(
        "TFLOP of one pass at 64 × 64, one window; the floor in seconds", bench.flops / 1e12, seconds=(bench.floor,),
        notes={"flops": bench.flops},
    )  # fmt: skip


@torch.no_grad()
def passes(bench: Bench) -> Iterator[Row]:
    """Our pass, of an inversion that records and of a sampling that injects, over the floor."""
    ours = bench.model.unet
    ways: list[tuple[str, Any, Graphs | None]] = [
        ("as it is", bench.plain_half, None),
        ("channels last", bench.channels_last, None),
        ("ours", ours, None),
    ]
    if bench.device.type == "cuda":
        ways.append(("ours, graph", ours, cuda_graphs(most_rows=10**6)))
    for batch in bench.size.batches:
        z = bench.noise(batch)
        features: Step = {}
        for way, unet, kept in ways:
            denoiser = bench.denoiser(unet, kept)
            recorder = Recorder(PARTS, None, (bench.size.latent, bench.size.latent))
            hand = Hand(LAYERS, recorder)
            seconds = timed(partial(denoiser, z, 500, 0.5, hand), 9)
            features = recorder.take()
            yield _pass(bench, f"inversion, batch {batch}, {way}", seconds, batch)
            if batch not in (bench.size.batches[0], bench.size.batches[-1]):
                continue
            hand = Hand(LAYERS, _injector(features))
            seconds = timed(partial(denoiser, z, 500, 0.5, hand), 9)
            yield _pass(bench, f"sampling, batch {batch}, {way}", seconds, batch)


def _injector(content: Step) -> Injector:
    """Injects the first window's features into all windows."""
    style = {layer: Features(key=one.key[:1], value=one.value[:1])  # type: ignore[index]
             for layer, one in content.items()}  # fmt: skip
    return Injector(content, [style], [1.0], 0.75, 0.9, 1.0)


def _pass(bench: Bench, name: str, seconds: float, batch: int) -> Row:
    notes = {"passes_per_second": batch / seconds}
    return Row(f"pass over floor: {name}", seconds / batch / bench.floor, seconds=(seconds,), notes=notes)


def attention_kernels(bench: Bench) -> Iterator[Row]:
    """Self-attention of the finest layers by each of PyTorch's kernels, over what it takes by itself."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    batch, tokens = bench.size.batches[-1], bench.size.latent**2
    layer = decoder_layers(bench.model.unet)[LAYERS[-1]]
    width, heads = layer.to_q.out_features, layer.heads
    query, key, value = (torch.randn(batch, tokens, width, device=bench.device, dtype=bench.half) for _ in range(3))
    work = partial(attention, query, key, value, heads)
    own = timed(work, 30)
    yield Row(
        f"attention, batch {batch}, {tokens} tokens, {heads} heads of {width // heads}: chosen", 1.0, seconds=(own,)
    )
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        name = f"attention by {backend.name.split('_')[0].lower()} over chosen"
        try:
            with sdpa_kernel(backend):
                seconds = timed(work, 30)
        except RuntimeError as error:
            yield Row(name, missing=str(error).splitlines()[0][:100])
            continue
        yield Row(name, seconds / own, seconds=(seconds,))


def kernels(bench: Bench) -> Iterator[Row]:
    """What the device does in our pass of the largest batch: the kernels that take most, as shares of all."""
    from torch.profiler import ProfilerActivity, profile

    if bench.device.type != "cuda":
        yield Row("kernels of a pass", missing="needs a CUDA device")
        return
    batch, denoiser = bench.size.batches[-1], bench.denoiser(bench.model.unet)
    z, hand = bench.noise(batch), Hand(LAYERS, Recorder(PARTS, None, (bench.size.latent, bench.size.latent)))
    timed(partial(denoiser, z, 500, 0.5, hand), 3)
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        denoiser(z, 500, 0.5, hand)
        settle()
    events = sorted(profiled.key_averages(), key=lambda one: -float(one.self_device_time_total))
    total = sum(float(one.self_device_time_total) for one in events) or 1.0
    for one in events[:16]:
        spent = float(one.self_device_time_total)
        yield Row(f"kernel × {one.count}, share: {one.key[:90]}", spent / total, seconds=(spent / 1e6,))


def _cudnn_first() -> AbstractContextManager[None]:
    """In the block attention is asked of cuDNN before PyTorch's own kernels."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    # What the first cannot do falls to the next.
    return sdpa_kernel(order, set_priority=True)


@torch.no_grad()
def tuned(bench: Bench) -> Iterator[Row]:
    """The largest batch with cuDNN's attention, and with cuDNN's convolutions chosen by trial.

    Nothing of it serves the sections behind, which measure what a user has.
    """
    batch = bench.size.batches[-1]
    z, denoiser = bench.noise(batch), bench.denoiser(bench.model.unet)
    recorder = Recorder(PARTS, None, (bench.size.latent, bench.size.latent))
    denoiser(z, 500, 0.5, Hand(LAYERS, recorder))
    work = partial(denoiser, z, 500, 0.5, Hand(LAYERS, _injector(recorder.take())))
    name = f"sampling, batch {batch}, ours"
    taken = {}
    for cudnn in (True, False):
        begun = time.perf_counter()
        with _cudnn_first() if cudnn else nullcontext():
            taken[cudnn] = timed(work, 9)
        spent = time.perf_counter() - begun
        row = _pass(bench, f"{name}, {'cuDNN' if cudnn else 'PyTorch'}'s attention", taken[cudnn], batch)
        yield replace(row, notes={**row.notes, "seconds_with_preparation": spent})
    yield Row(f"{name}: PyTorch's attention over cuDNN's", taken[False] / taken[True],
              seconds=(taken[False], taken[True]))  # fmt: skip
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield _pass(bench, f"{name}, convolutions by trial", timed(work, 9), batch)
    finally:
        torch.backends.cudnn.benchmark = before


def compiled_parts(bench: Bench) -> Iterator[Row]:
    """The largest batch with the residual blocks and feed-forwards compiled: a hand may be in the attention."""
    unet = deepcopy(bench.channels_last)
    # Every width and resolution is compiled by itself.
    torch._dynamo.config.recompile_limit = 256
    for module in unet.modules():
        if type(module).__name__ in ("ResnetBlock2D", "FeedForward"):
            module.compile(dynamic=False)
    yield from _compiled(bench, unet, "residual blocks and feed-forwards compiled")


def compiled(bench: Bench) -> Iterator[Row]:
    """The largest batch with all of the UNet compiled."""
    unet = deepcopy(bench.channels_last)
    unet.compile(dynamic=False)
    yield from _compiled(bench, unet, "all compiled")


@torch.no_grad()
def _compiled(bench: Bench, unet: Any, how: str) -> Iterator[Row]:
    batch = bench.size.batches[-1]
    latent = bench.noise(batch).to(bench.half)
    context = bench.embedding.to(bench.device, bench.half).expand(batch, -1, -1)
    label = torch.full((), 500, device=bench.device)

    def work() -> Tensor:
        output: Tensor = unet(latent, label, encoder_hidden_states=context, return_dict=False)[0]
        return output

    took, _ = clocked(work)
    yield _pass(bench, f"plain, batch {batch}, channels last, {how}", timed(work, 9), batch)
    yield Row(f"seconds to compile: {how}", took, seconds=(took,))
