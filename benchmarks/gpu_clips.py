"""Windows and clips on a GPU, from picture to picture and from file to file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from stylus_audio import Engine, Settings
from stylus_audio.attention import feature_bytes
from stylus_audio.engine import Render
from stylus_audio.graphs import Graphs, cuda_graphs
from stylus_audio.latent import Autoencoder
from stylus_audio.memory import feature_budget
from stylus_audio.style_cache import StyleCache
from stylus_audio.stylize import Stylizer
from tests.sounds import RATE, Audio, plucks

from .clips import real_time
from .gpu_bench import LAYERS, PARTS, Bench, clocked, exact_sums, tf32, timed
from .queued import embedded, queued
from .table import Row

RECIPE = "the recipe's settings in fp16"
"""What these rows measure; `--recipe stylus` itself has a model loaded in float32 (`RECIPE_DTYPE`)."""


def window(bench: Bench) -> Iterator[Row]:
    """One window from picture to picture: how long, and how far every precision is from float32.

    PSNR is that of a user's picture, with the autoencoder in the same precision; drift (`difference`) that of the
    latents from those that all start from (`Bench.start`), and seconds are of these. The published loop starts from
    them for both.
    """
    size, settings = bench.size, bench.settings
    pictures = [bench.pictures[:1], bench.pictures[-1:]]

    def latents(codec: Autoencoder) -> list[Tensor]:
        return [codec.encode(one) for one in pictures]

    def ours(unet: Any, start: Sequence[Tensor], graphs: Graphs | None = None) -> Tensor:
        denoiser = bench.denoiser(unet, graphs)
        stylizer = Stylizer(denoiser, denoiser, settings, feature_budget=feature_budget(bench.device))
        return stylizer.run(start[0], [stylizer.prepare(start[1])])

    with tf32(False, False):
        exact = ours(bench.unet, bench.start)
        exact_picture = Autoencoder(bench.vae).decode(exact)

    def row(name: str, latent: Tensor, picture: Tensor, *seconds: float) -> Row:
        drift = _off(latent.float(), exact)
        error = float((picture - exact_picture).square().mean())
        psnr = -10 * np.log10(max(error, 1e-20))
        notes = {"drift": drift, "psnr_db": float(psnr), "deviation_of_picture": float(exact_picture.std())}
        return Row(f"dB of PSNR to float32, 1 window, {size.steps} steps: {name}", float(psnr), drift,
                   seconds=seconds, notes=notes)  # fmt: skip

    def measured(name: str, unet: Any, vae: Any, graphs: Graphs | None = None) -> Row:
        codec = Autoencoder(vae)
        # This comes first, so that graphs are captured when the time is taken.
        picture = codec.decode(ours(unet, latents(codec), graphs))
        seconds, latent = clocked(lambda: ours(unet, bench.start, graphs))
        return row(name, latent, picture, seconds)

    def fresh() -> Graphs | None:
        # A trial's own: a graph keeps the kernels that it was captured with.
        return cuda_graphs() if bench.device.type == "cuda" else None

    with tf32(True, True):
        yield measured("ours in TF32", bench.unet, bench.vae, fresh())
    unet, codec = bench.model.unet, cast(Autoencoder, bench.model.latent)
    yield replace(measured("ours in fp16", unet, codec.vae, bench.graphs), limit=40.0)
    yield Row("latents that fp16 encodes, off those of float32, of their norm", _off(latents(codec)[0], bench.start[0]))
    with exact_sums():
        yield measured("ours in fp16, sums in float32", unet, codec.vae, fresh())
    # Without TF32, which is as coarse as fp16.
    with tf32(False, False):
        yield measured("ours in fp16, ends in float32", _ends_in_float32(unet), codec.vae, fresh())
    yield measured("ours in bf16", deepcopy(unet).bfloat16(), deepcopy(codec.vae).bfloat16(), fresh())
    one = bench.published
    yield row("published", bench.published_latent, Autoencoder(bench.vae).decode(bench.published_latent.float()))
    cold = min(clocked(lambda: codec.decode(ours(unet, latents(codec), bench.graphs)))[0] for _ in range(2))
    decoded = one["window"] + (2 * size.steps + 1) * one["decoding"]
    yield Row("picture to picture, 1 window, style cold: published over ours", decoded / cold, None, None, 8.0,
              (decoded, cold), notes=one)  # fmt: skip
    first, styles = bench.encoded[:1], bench.styles[:1]
    stylizer = bench.stylizer()
    warm = min(clocked(lambda: stylizer.run(first, styles))[0] for _ in range(2))
    yield Row("latents, 1 window, style warm: published with its style's inversion over ours", one["window"] / warm,
              None, None, 8.0, (one["window"], warm))  # fmt: skip


def _off(latent: Tensor, exact: Tensor) -> float:
    return float((latent - exact).norm() / exact.norm())


def _ends_in_float32(unet: Any) -> Any:
    """A copy of diffusers' UNet that computes its time embedding, last norm and last convolution in float32."""
    made, half = deepcopy(unet), unet.dtype
    # The waves of the time would be rounded to the precision of the sample.
    made.get_time_embed = lambda sample, timestep: unet.get_time_embed(sample.float(), timestep)
    made.time_embedding.float().register_forward_hook(lambda _, given, output: output.to(half))
    made.conv_norm_out.float().register_forward_pre_hook(lambda _, given: (given[0].float(),))
    made.conv_out.float()
    return made


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
        codec.decode(work())
        seconds, latent = clocked(work)
        decoding, _ = clocked(partial(codec.decode, latent))
        encoding, _ = clocked(partial(codec.encode, pictures))
        whole = seconds + decoding + encoding
        made.append(latent)
        distance = _off(latent, made[0])
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
    recipe = _recipe(bench)
    for name, settings, limit in (
        (RECIPE, recipe, -0.08),
        (f"{RECIPE}, by gain", replace(recipe, reconstruction="gain", refine=None), None),
        ("default", engine.settings(steps=bench.size.steps), None),
    ):
        engine.warm(style, settings)
        # The first time finds its memory, and makes what is made once in a process.
        engine.render(content, style, settings)
        seconds, made = _rendered(engine, content, style, settings)
        yield Row(f"real-time factor: {bench.size.clip:g} s stereo, style warm, {name}", seconds / bench.size.clip,
                  None, None, limit, (seconds,), notes={"timings": made.report["timings"]})  # fmt: skip


def warmth(bench: Bench) -> Iterator[Row]:
    """A clip of the style's length with the style cold and warm."""
    length = 5.1 * bench.size.latent / 64
    content, style = _sound(length), _sound(length, 0.4)
    kept, bare = Engine(bench.model, cache=StyleCache(device_bytes=8 * 2**30)), Engine(bench.model)
    settings = _recipe(bench)
    for engine in (kept, bare):
        _rendered(engine, content, style, settings)
    cold, warm = ([_rendered(engine, content, style, settings) for _ in range(3)] for engine in (bare, kept))
    taken = [median(seconds for seconds, _ in one) for one in (cold, warm)]
    apart = float(np.abs(cold[0][1].audio - warm[0][1].audio).max() / np.abs(cold[0][1].audio).max())
    yield Row(f"cold over warm style: one window, sound to sound, {RECIPE}", taken[0] / taken[1], apart, None,
              1.45, tuple(taken))  # fmt: skip


def several(bench: Bench) -> Iterator[Row]:
    """16 clips of one window in one style: one at a time over all together."""
    length = 1.0
    clips = [_sound(length, 0.15 + 0.02 * number) for number in range(16)]
    style = _sound(5.1 * bench.size.latent / 64, 0.4)
    engine = Engine(bench.model, cache=StyleCache(device_bytes=8 * 2**30))
    settings = _recipe(bench)
    # The first time finds its memory; one at a time they are all alike.
    engine.render(clips[0], style, settings)
    engine.render_several(clips, style, settings)
    alone, each = clocked(lambda: [engine.render(one, style, settings) for one in clips])
    together, found = clocked(lambda: engine.render_several(clips, style, settings))
    made = [one for one in found if isinstance(one, Render)]
    apart = max(float(np.abs(one.audio - other.audio).max() / np.abs(one.audio).max())
                for one, other in zip(each, made, strict=True))  # fmt: skip
    yield Row(f"16 clips of 1 s: one at a time over together, {RECIPE}", alone / together, apart, None, 2.0,
              (alone, together))  # fmt: skip


def queue(bench: Bench) -> Iterator[Row]:
    """The same from files to files, by a worker of the daemon."""
    engine = Engine(bench.model, cache=StyleCache(device_bytes=8 * 2**30))
    yield queued(engine, f"{RECIPE}, {bench.size.steps} steps", 16, 1, recipe="stylus", steps=bench.size.steps)


def mini(bench: Bench) -> Iterator[Row]:
    """The embedded model: a minute of stereo, and one-shots in the queue."""
    Engine("mini", bench.device.type).render(_sound(3.0), _sound(3.0, 0.4))
    yield from real_time(bench.size.clip, 1)
    yield embedded("mini", 16, 1)


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
    """10 minutes over one, with fewer steps, sound to sound, with nothing else on the device."""
    bench.let_go()
    style = _sound(5.1 * bench.size.latent / 64, 0.4)
    engine = Engine(bench.model, cache=StyleCache(device_bytes=8 * 2**30))
    settings = replace(_recipe(bench), steps=max(2, bench.size.steps // 10))
    engine.warm(style, settings)
    taken, peaks = [], []
    for seconds in (bench.size.clip, bench.size.long):
        content = _sound(seconds)
        # The first time finds its memory.
        engine.render(content, style, settings)
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        taken.append(_rendered(engine, content, style, settings)[0])
        peaks.append(torch.cuda.max_memory_allocated() if bench.device.type == "cuda" else 0)
    name = f"{bench.size.long:g} s over {bench.size.clip:g} s, {RECIPE}, {settings.steps} steps"
    yield Row(f"{name}: time", taken[1] / taken[0], None, peaks[1], -1.05 * bench.size.long / bench.size.clip,
              tuple(taken))  # fmt: skip
    if peaks[0]:
        yield Row(f"{name}: peak of the device's memory", peaks[1] / peaks[0], None, peaks[1], -1.2)


def _recipe(bench: Bench) -> Settings:
    return replace(Settings.recipe("stylus"), steps=bench.size.steps)


def _sound(seconds: float, every: float = 0.25) -> tuple[Audio, int]:
    """A stereo sound that repeats: to make ten minutes note by note would take longer than to render them."""
    bar = plucks(min(seconds, 6.0), every, channels=2)
    return np.tile(bar, -(-round(seconds * RATE) // bar.shape[1]))[:, : round(seconds * RATE)], RATE


def _rendered(engine: Engine, content: Any, style: Any, settings: Settings) -> tuple[float, Any]:
    return clocked(lambda: engine.render(content, style, settings))
