"""What needs a GPU: `python -m benchmarks --gpu`. Stable Diffusion 1.5 in full size, ours against the published loop.

The published loop runs in its published precision: it inverts in float32, with PyTorch's own settings, and samples in
fp16. It takes one window after the other, so that a clip takes as long as its windows do; it is measured on one.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from stylus_audio import Engine, Settings
from stylus_audio import attention as own_attention
from stylus_audio.attention import Hand, attention, decoder_layers, feature_bytes
from stylus_audio.denoiser import Denoiser
from stylus_audio.features import Features, Part, Recorder, Step
from stylus_audio.graphs import Graphs, cuda_graphs
from stylus_audio.latent import Autoencoder
from stylus_audio.memory import feature_budget
from stylus_audio.model import Model, laid_out
from stylus_audio.sampling import Injector
from stylus_audio.spectrogram import RIFFUSION, Profile
from stylus_audio.style_cache import StyleCache
from stylus_audio.stylize import PreparedStyle, Stylizer
from tests import plain
from tests.sounds import RATE, Audio, plucks

from . import sd15
from .queued import queued
from .table import Row, settle

LAYERS = (6, 7, 8, 9, 10, 11)
PARTS: tuple[Part, ...] = ("query", "key", "value")


@dataclass(frozen=True)
class Size:
    """How much is measured; the default is what the table is about, anything else tries the benchmark itself."""

    latent: int = 64
    steps: int = 50
    fast: int = 20
    windows: int = 12
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    product: int = 8192
    unet: tuple[tuple[str, Any], ...] = ()
    vae: tuple[tuple[str, Any], ...] = ()
    clip: float = 60.0
    long: float = 600.0

    @property
    def profile(self) -> Profile:
        """Riffusion's, whose windows fit the latent."""
        side = 8 * self.latent
        return replace(RIFFUSION, bands=side, frames=side)


TINY = Size(
    latent=16, steps=3, fast=2, windows=2, batches=(1, 2), product=64, clip=4.0, long=6.0,
    unet=(("block_out_channels", (32, 32, 32, 32)), ("cross_attention_dim", 32), ("norm_num_groups", 8)),
    vae=(("block_out_channels", (8, 8, 8, 8)), ("norm_num_groups", 4), ("layers_per_block", 1)),
)  # fmt: skip


class Bench:
    """The networks in the precisions that are compared, made when they are needed."""

    def __init__(self, device: torch.device, size: Size = Size()) -> None:
        self.device, self.size = device, size
        self.half = torch.float16 if device.type == "cuda" else torch.float32
        random = torch.Generator().manual_seed(1)
        self.embedding = torch.randn(1, 77, dict(size.unet).get("cross_attention_dim", 768), generator=random)
        self.pictures = torch.rand(size.windows + 4, 8 * size.latent, 8 * size.latent, generator=random)
        self.scheduler = sd15.scheduler()
        self.settings = Settings(steps=size.steps, layers=LAYERS, alpha=0.9)
        # For all parts: what one has captured the next one finds.
        self.graphs = cuda_graphs() if device.type == "cuda" else None

    @cached_property
    def unet(self) -> Any:
        """In float32, as the published code loads it."""
        return sd15.unet(self.device, self.size.latent, **dict(self.size.unet))

    @cached_property
    def vae(self) -> Any:
        """In float32."""
        return sd15.autoencoder(self.device, self.size.latent, **dict(self.size.vae))

    @cached_property
    def plain_half(self) -> Any:
        """The UNet that the published code samples with."""
        return deepcopy(self.unet).to(self.half)

    @cached_property
    def channels_last(self) -> Any:
        """The same with channels last, and nothing else of ours."""
        return deepcopy(self.plain_half).to(memory_format=torch.channels_last)

    @cached_property
    def model(self) -> Model:
        """As the engine has it."""
        unet, vae = deepcopy(self.unet).to(self.half), deepcopy(self.vae).to(self.half)
        text: Any = lambda prompt: self.embedding  # noqa: E731  (stands for an encoder of text, which runs once)
        return laid_out(Model("sd15", "random", self.size.profile, unet, self.scheduler, Autoencoder(vae), text))

    @cached_property
    def rate(self) -> float:
        """FLOPs a second of a matrix product in our precision."""
        return self.product(self.half)

    def product(self, dtype: torch.dtype) -> float:
        """FLOPs a second of a large matrix product."""
        side = self.size.product
        one, other = (torch.randn(side, side, device=self.device, dtype=dtype) for _ in range(2))
        return 2 * side**3 / timed(lambda: one @ other, 10)

    @cached_property
    def flops(self) -> int:
        """Of one pass over one window."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.unet(self.noise(1), 1, encoder_hidden_states=self.embedding.to(self.device))
        return int(counter.get_total_flops())

    @property
    def floor(self) -> float:
        """Seconds that a pass over one window takes at the rate of a matrix product."""
        return self.flops / self.rate

    def noise(self, windows: int, seed: int = 2) -> Tensor:
        """Latents of noise."""
        shape = (windows, 4, self.size.latent, self.size.latent)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device)

    def denoiser(self, unet: Any, graphs: Graphs | None = None) -> Denoiser:
        """Of one of the UNets."""
        return Denoiser(unet, self.scheduler, self.embedding, graphs=graphs)

    def stylizer(self, settings: Settings | None = None, budget: int | None = None, windows: int = 16) -> Stylizer:
        """Ours, as the engine makes it."""
        denoiser = self.denoiser(self.model.unet, self.graphs)
        budget = feature_budget(self.device) if budget is None else budget
        settings = settings or self.settings
        return Stylizer(denoiser, denoiser, settings, windows_per_pass=windows, feature_budget=budget)

    @cached_property
    def encoded(self) -> Tensor:
        """Latents of all pictures in our precision, `[window, ...]`; the last four are styles."""
        return self.model.latent.encode(self.pictures).to(self.device)

    @property
    def content(self) -> Tensor:
        """Latents of the clip's windows."""
        return self.encoded[: self.size.windows]

    @cached_property
    def styles(self) -> list[PreparedStyle]:
        """Four styles, warm."""
        stylizer = self.stylizer()
        return [stylizer.prepare(one[None]) for one in self.encoded[self.size.windows :]]

    @cached_property
    def published(self) -> dict[str, float]:
        """Seconds of the published loop's parts for one window, and of one decoding."""
        latents = [Autoencoder(self.vae).encode(one[None]) for one in (self.pictures[0], self.pictures[-1])]
        embedding = self.embedding.to(self.device)

        def whole(steps: int) -> Tensor:
            return plain.stylize(
                self.unet, self.scheduler, latents[0], latents[1:], embedding, steps=steps, layers=LAYERS, alpha=0.9,
                sampler=self.plain_half,
            )  # fmt: skip

        def inversion() -> None:
            numbers = plain.Prediction(self.scheduler, self.size.steps)
            plain.invert_window(self.unet, numbers, latents[0], embedding, LAYERS, "next")

        whole(2)
        all_of_it, self.published_latent = clocked(lambda: whole(self.size.steps))
        decoding = timed(lambda: Autoencoder(self.vae).decode(latents[0]), 5)
        return {"window": all_of_it, "inversion": clocked(inversion)[0], "decoding": decoding}

    def published_clip(self, decoded: bool, kept: bool = False) -> float:
        """Seconds of the published loop for the clip: three times as many passes as steps for each of its windows.

        `decoded`: picture to picture, where it decodes every latent of its inversions. `kept`: as if it inverted the
        style once and not again for each window.
        """
        one, windows, steps = self.published, self.size.windows, self.size.steps
        inversion = one["inversion"] + steps * one["decoding"] * decoded
        window = one["window"] + (2 * steps + 1) * one["decoding"] * decoded
        return windows * window - (windows - 1) * inversion * kept


def timed(work: Callable[[], Any], rounds: int) -> float:
    """Seconds of one time of it, the median of three runs of several, after two that warm up."""
    for _ in range(2):
        work()
    taken = []
    for _ in range(3):
        settle()
        begun = time.perf_counter()
        for _ in range(max(1, rounds // 3)):
            work()
        settle()
        taken.append((time.perf_counter() - begun) / max(1, rounds // 3))
    return median(taken)


def clocked(work: Callable[[], Tensor | None]) -> tuple[float, Tensor]:
    """Seconds of doing it once, and its result."""
    settle()
    begun = time.perf_counter()
    made = work()
    settle()
    return time.perf_counter() - begun, torch.empty(0) if made is None else made


@contextmanager
def tf32(convolutions: bool, products: bool) -> Iterator[None]:
    """Whether float32 is multiplied as TF32."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32, matmul.allow_tf32 = convolutions, products
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


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


@torch.no_grad()
def tuned(bench: Bench) -> Iterator[Row]:
    """The largest batch with cuDNN's attention, and with cuDNN's convolutions chosen by trial.

    The attention that is quicker serves the sections behind.
    """
    batch = bench.size.batches[-1]
    z, denoiser = bench.noise(batch), bench.denoiser(bench.model.unet)
    recorder = Recorder(PARTS, None, (bench.size.latent, bench.size.latent))
    denoiser(z, 500, 0.5, Hand(LAYERS, recorder))
    work = partial(denoiser, z, 500, 0.5, Hand(LAYERS, _injector(recorder.take())))
    name = f"sampling, batch {batch}, ours"
    taken = {}
    try:
        for cudnn in (True, False):
            own_attention.CUDNN_FIRST = cudnn
            begun = time.perf_counter()
            taken[cudnn] = timed(work, 9)
            spent = time.perf_counter() - begun
            row = _pass(bench, f"{name}, {'cuDNN' if cudnn else 'PyTorch'}'s attention", taken[cudnn], batch)
            yield replace(row, notes={**row.notes, "seconds_with_preparation": spent})
    finally:
        own_attention.CUDNN_FIRST = False
    own_attention.CUDNN_FIRST = bench.device.type == "cuda" and taken[True] < 0.98 * taken[False]
    yield Row("cuDNN's attention serves from here on", float(own_attention.CUDNN_FIRST))
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


def window(bench: Bench) -> Iterator[Row]:
    """One window from picture to picture: how long, and how far every precision is from float32."""
    size, settings = bench.size, bench.settings
    pictures = [bench.pictures[:1], bench.pictures[-1:]]

    def ours(unet: Any, vae: Any, graphs: Graphs | None = None) -> tuple[Tensor, Tensor]:
        codec = Autoencoder(vae)
        content, style = (codec.encode(one) for one in pictures)
        denoiser = bench.denoiser(unet, graphs)
        stylizer = Stylizer(denoiser, denoiser, settings, feature_budget=feature_budget(bench.device))
        latent = stylizer.run(content, [stylizer.prepare(style)])
        return latent, codec.decode(latent)

    with tf32(False, False):
        exact = ours(bench.unet, bench.vae)
    spread = float(exact[1].std())

    def row(name: str, made: tuple[Tensor, Tensor]) -> Row:
        latent, picture = (one.float() for one in made)
        drift = float((latent - exact[0]).norm() / exact[0].norm())
        error = float((picture - exact[1]).square().mean())
        psnr = -10 * np.log10(max(error, 1e-20))
        notes = {"drift": drift, "psnr_db": float(psnr), "deviation_of_picture": spread}
        return Row(f"dB of PSNR to float32, 1 window, {size.steps} steps: {name}", float(psnr), drift, notes=notes)

    with tf32(True, True):
        yield row("ours in TF32", ours(bench.unet, bench.vae))
    unet, vae = bench.model.unet, bench.model.latent.vae  # type: ignore[attr-defined]
    made = ours(unet, vae, bench.graphs)
    yield replace(row("ours in fp16", made), limit=40.0)
    yield row("ours in bf16", ours(deepcopy(unet).bfloat16(), deepcopy(vae).bfloat16()))
    one = bench.published
    yield row("published", (bench.published_latent, Autoencoder(bench.vae).decode(bench.published_latent.float())))
    cold = min(clocked(lambda: ours(unet, vae, bench.graphs)[1])[0] for _ in range(2))
    decoded = one["window"] + (2 * size.steps + 1) * one["decoding"]
    yield Row("picture to picture, 1 window, style cold: published over ours", decoded / cold, None, None, 8.0,
              (decoded, cold), notes=one)  # fmt: skip
    first, styles = bench.encoded[:1], bench.styles[:1]
    stylizer = bench.stylizer()
    warm = min(clocked(lambda: stylizer.run(first, styles))[0] for _ in range(2))
    yield Row("latents, 1 window, style warm: published with its style's inversion over ours", one["window"] / warm,
              None, None, 8.0, (one["window"], warm))  # fmt: skip


def clip(bench: Bench) -> Iterator[Row]:
    """A minute in 12 windows side by side, as the published code cuts it, the style warm."""
    size, styles = bench.size, bench.styles[:1]
    codec, pictures = bench.model.latent, bench.pictures[: size.windows]
    name = f"{size.windows} windows, style warm"
    made: list[Tensor] = []
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for steps, how in ((size.steps, "equal output"), (size.fast, f"fast, {size.fast} steps")):
        settings = replace(bench.settings, steps=steps)
        stylizer = bench.stylizer(settings)
        chosen = styles if steps == size.steps else [stylizer.prepare(bench.encoded[-4:-3])]
        work = partial(stylizer.run, bench.content, chosen)
        # The first time finds its memory.
        work()
        seconds, latent = clocked(work)
        decoding, _ = clocked(partial(codec.decode, latent))
        encoding, _ = clocked(partial(codec.encode, pictures))
        whole = seconds + decoding + encoding
        made.append(latent)
        distance = float((latent - made[0]).norm() / made[0].norm())
        exact = how == "equal output"
        peak = torch.cuda.max_memory_allocated() if bench.device.type == "cuda" else None
        for kept, published in ((False, "published"), (True, "published with one inversion of the style")):
            latents, pictured = (bench.published_clip(decoded, kept) for decoded in (False, True))
            yield Row(f"latents, {name}, {how}: {published} over ours", latents / seconds, distance, peak,
                      10.0 if exact and not kept else None, (latents, seconds))  # fmt: skip
            yield Row(f"picture to picture, {name}, {how}: {published} over ours", pictured / whole, None, peak,
                      None if kept else 20.0 if exact else 40.0, (pictured, whole),
                      notes={"encoding": encoding, "decoding": decoding})  # fmt: skip
        yield Row(f"latents, {name}, {how}: over the floor", seconds / (2 * steps * size.windows * bench.floor), None,
                  None, -2.5, (seconds,))  # fmt: skip


def render(bench: Bench) -> Iterator[Row]:
    """A stereo clip from sound to sound by the engine, with all that is around the network."""
    content, style = _sound(bench.size.clip), _sound(5.1 * bench.size.latent / 64, 0.4)
    engine = Engine(bench.model, cache=StyleCache(device_bytes=8 * 2**30))
    for name, recipe in (("recipe stylus", "stylus"), ("recipe stylus, by gain", "gain"), ("default", "")):
        settings = engine.settings(steps=bench.size.steps)
        if recipe:
            settings = replace(Settings.recipe("stylus"), steps=bench.size.steps)
        if recipe == "gain":
            settings = replace(settings, reconstruction="gain", refine=None)
        engine.warm(style, settings)
        # What is made once in a process, such as the mel filters' pseudo-inverse, is there then.
        engine.render(_sound(1.0), style, settings)
        seconds, made = _rendered(engine, content, style, settings)
        limit = -0.08 if recipe == "stylus" else None
        yield Row(f"real-time factor: {bench.size.clip:g} s stereo, style warm, {name}", seconds / bench.size.clip,
                  None, None, limit, (seconds,), notes={"timings": made.report["timings"]})  # fmt: skip


def warmth(bench: Bench) -> Iterator[Row]:
    """A clip of the style's length with the style cold and warm."""
    length = 5.1 * bench.size.latent / 64
    content, style = _sound(length), _sound(length, 0.4)
    kept, bare = Engine(bench.model, cache=StyleCache(device_bytes=8 * 2**30)), Engine(bench.model)
    settings = replace(Settings.recipe("stylus"), steps=bench.size.steps)
    for engine in (kept, bare):
        _rendered(engine, content, style, settings)
    cold, warm = ([_rendered(engine, content, style, settings) for _ in range(3)] for engine in (bare, kept))
    taken = [median(seconds for seconds, _ in one) for one in (cold, warm)]
    apart = float(np.abs(cold[0][1].audio - warm[0][1].audio).max() / np.abs(cold[0][1].audio).max())
    yield Row("cold over warm style: one window, sound to sound, recipe stylus", taken[0] / taken[1], apart, None,
              1.45, tuple(taken))  # fmt: skip


def several(bench: Bench) -> Iterator[Row]:
    """16 clips of one window in one style: one at a time over all together."""
    length = 1.0
    clips = [_sound(length, 0.15 + 0.02 * number) for number in range(16)]
    style = _sound(5.1 * bench.size.latent / 64, 0.4)
    engine = Engine(bench.model, cache=StyleCache(device_bytes=8 * 2**30))
    settings = replace(Settings.recipe("stylus"), steps=bench.size.steps)
    engine.render(clips[0], style, settings)
    alone, each = clocked_any(lambda: [engine.render(one, style, settings) for one in clips])
    together, made = clocked_any(lambda: engine.render_several(clips, style, settings))
    apart = max(float(np.abs(one.audio - other.audio).max() / np.abs(one.audio).max())
                for one, other in zip(each, made, strict=True))  # fmt: skip
    yield Row("16 clips of 1 s: one at a time over together", alone / together, apart, None, 2.0, (alone, together))


def queue(bench: Bench) -> Iterator[Row]:
    """The same from files to files, by a worker of the daemon."""
    engine = Engine(bench.model, cache=StyleCache(device_bytes=8 * 2**30))
    yield queued(engine, f"recipe stylus, {bench.size.steps} steps", 16, 1, recipe="stylus", steps=bench.size.steps)


def styles(bench: Bench) -> Iterator[Row]:
    """Two and four styles over one, on the latents of the clip."""
    stylizer, taken = bench.stylizer(), {}
    for count in (1, 1, 2, 4):
        chosen = bench.styles[:count]
        taken[count], _ = clocked(partial(stylizer.run, bench.content, chosen))
        if count > 1:
            yield Row(f"latents, {bench.size.windows} windows: {count} warm styles over 1", taken[count] / taken[1],
                      seconds=(taken[count],))  # fmt: skip


def features(bench: Bench) -> Iterator[Row]:
    """Where the content's features wait: on the device, or nowhere, so that they are computed again; or in the host's
    locked memory, of which the parts that it would take are measured.
    """
    content, chosen, taken = bench.content, bench.styles[:1], {}
    latent = (bench.size.latent, bench.size.latent)
    one = feature_bytes(bench.model.unet, LAYERS, latent, bench.half.itemsize)
    size = one * len(PARTS) * len(content) * bench.size.steps
    stylizer = bench.stylizer()
    stylizer.run(content, chosen)
    for name, budget in (("kept on the device", None), ("computed again", 0)):
        stylizer = bench.stylizer(budget=budget)
        taken[name], _ = clocked(partial(stylizer.run, content, chosen))
        over = taken[name] / taken["kept on the device"]
        yield Row(f"features of {bench.size.windows} windows {name}: over kept", over, seconds=(taken[name],),
                  notes={"feature_bytes": size})  # fmt: skip

    if bench.device.type != "cuda":
        return
    count = 2**30 // bench.half.itemsize
    there = torch.empty(count, device=bench.device, dtype=bench.half)
    locking, locked = clocked(lambda: torch.empty(count, dtype=bench.half, pin_memory=True))
    out = timed(lambda: locked.copy_(there, non_blocking=True), 3)
    back = timed(lambda: there.copy_(locked, non_blocking=True), 3)
    step = one * len(PARTS)
    notes = {"bytes_a_window_and_step": step, "lock_1_GiB": locking, "out_1_GiB": out, "back_1_GiB": back}
    again = (taken["computed again"] - taken["kept on the device"]) / (bench.size.steps * len(content))
    yield Row("features of a window and step, locked, sent and fetched: over computed again",
              step / 2**30 * (locking + out + back) / again, seconds=(step / 2**30 * (locking + out + back), again),
              notes=notes)  # fmt: skip
    yield Row("features of a window and step, sent and fetched into memory that is locked already: over computed again",
              step / 2**30 * (out + back) / again, seconds=(step / 2**30 * (out + back), again))  # fmt: skip


def long(bench: Bench) -> Iterator[Row]:
    """10 minutes over one, with fewer steps, sound to sound."""
    style = _sound(5.1 * bench.size.latent / 64, 0.4)
    engine = Engine(bench.model, cache=StyleCache(device_bytes=8 * 2**30))
    settings = replace(Settings.recipe("stylus"), steps=max(2, bench.size.steps // 10))
    engine.warm(style, settings)
    taken, peaks = [], []
    for seconds in (bench.size.clip, bench.size.long):
        content = _sound(seconds)
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        taken.append(_rendered(engine, content, style, settings)[0])
        peaks.append(torch.cuda.max_memory_allocated() if bench.device.type == "cuda" else 0)
    name = f"{bench.size.long:g} s over {bench.size.clip:g} s, {settings.steps} steps"
    yield Row(f"{name}: time", taken[1] / taken[0], None, peaks[1], -1.05 * bench.size.long / bench.size.clip,
              tuple(taken))  # fmt: skip
    if peaks[0]:
        yield Row(f"{name}: peak of the device's memory", peaks[1] / peaks[0], None, peaks[1], -1.2)


def clocked_any(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of doing it once, and whatever it gives."""
    settle()
    begun = time.perf_counter()
    made = work()
    settle()
    return time.perf_counter() - begun, made


def _sound(seconds: float, every: float = 0.25) -> tuple[Audio, int]:
    """A stereo sound that repeats: to make ten minutes note by note would take longer than to render them."""
    bar = plucks(min(seconds, 6.0), every, channels=2)
    return np.tile(bar, -(-round(seconds * RATE) // bar.shape[1]))[:, : round(seconds * RATE)], RATE


def _rendered(engine: Engine, content: Any, style: Any, settings: Settings) -> tuple[float, Any]:
    return clocked_any(lambda: engine.render(content, style, settings))


Section = Callable[[Bench], Iterator[Row]]

SECTIONS: Sequence[tuple[Section, float]] = (
    (floor, 6), (tuned, 10), (passes, 20), (window, 35), (clip, 18), (render, 25), (warmth, 8), (several, 12),
    (queue, 40), (kernels, 5), (attention_kernels, 3), (features, 14), (styles, 16), (long, 30),
)  # fmt: skip
"""With about how many seconds each takes on an H100: it is left out where less is left."""

ON_DEMAND: Sequence[tuple[Section, float]] = ((compiled_parts, 60), (compiled, 120))
"""What takes long for one row."""


def measure(seconds: float, file: Path | None, bench: Bench, sections: Sequence[tuple[Section, float]]) -> list[Row]:
    """Section after section while there is time; every row is printed and written to `file` as soon as it is there."""
    begun = time.perf_counter()
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        left = seconds - (time.perf_counter() - begun)
        shown = row.missing or f"{row.ratio:.4g} {row.verdict} {' '.join(f'{one:.4g}' for one in row.seconds)}"
        print(f"[{left:5.1f} s left] {row.name}: {shown}", flush=True)
        if file is not None:
            file.write_text(json.dumps([one.to_dict() for one in rows], indent=1), "utf-8")

    for section, estimate in sections:
        name = section.__name__
        left = seconds - (time.perf_counter() - begun)
        if left < estimate:
            add(Row(name, missing=f"{estimate:g} s needed, {left:.0f} left"))
            continue
        try:
            for row in section(bench):
                add(row)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-4:]
            steps = " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(where))
            add(Row(name, missing=f"failed: {type(error).__name__}: {str(error)[:300]} at {steps}"))
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    return rows
