"""Windows and clips on a GPU, from picture to picture and from file to file."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylus_audio import Engine, Settings
from stylus_audio.attention import feature_bytes
from stylus_audio.engine import Render
from stylus_audio.graphs import Graphs
from stylus_audio.latent import Autoencoder
from stylus_audio.memory import feature_budget
from stylus_audio.style_cache import StyleCache
from stylus_audio.stylize import Stylizer
from tests.sounds import RATE, Audio, plucks

from .clips import real_time
from .gpu_bench import LAYERS, PARTS, Bench, clocked, tf32, timed
from .queued import embedded, queued
from .table import Row


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
    alone, each = clocked(lambda: [engine.render(one, style, settings) for one in clips])
    together, found = clocked(lambda: engine.render_several(clips, style, settings))
    made = [one for one in found if isinstance(one, Render)]
    apart = max(float(np.abs(one.audio - other.audio).max() / np.abs(one.audio).max())
                for one, other in zip(each, made, strict=True))  # fmt: skip
    yield Row("16 clips of 1 s: one at a time over together", alone / together, apart, None, 2.0, (alone, together))


def queue(bench: Bench) -> Iterator[Row]:
    """The same from files to files, by a worker of the daemon."""
    engine = Engine(bench.model, cache=StyleCache(device_bytes=8 * 2**30))
    yield queued(engine, f"recipe stylus, {bench.size.steps} steps", 16, 1, recipe="stylus", steps=bench.size.steps)


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


def _sound(seconds: float, every: float = 0.25) -> tuple[Audio, int]:
    """A stereo sound that repeats: to make ten minutes note by note would take longer than to render them."""
    bar = plucks(min(seconds, 6.0), every, channels=2)
    return np.tile(bar, -(-round(seconds * RATE) // bar.shape[1]))[:, : round(seconds * RATE)], RATE


def _rendered(engine: Engine, content: Any, style: Any, settings: Settings) -> tuple[float, Any]:
    return clocked(lambda: engine.render(content, style, settings))
