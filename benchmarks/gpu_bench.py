"""What is measured on a GPU: the networks in the precisions that are compared, sizes, and clocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import Any, TypeVar

import torch
from torch import Tensor

from stylus_audio import Settings
from stylus_audio.denoiser import Denoiser
from stylus_audio.features import Part
from stylus_audio.graphs import Graphs, cuda_graphs
from stylus_audio.latent import Autoencoder
from stylus_audio.memory import feature_budget, give_back
from stylus_audio.model import Model, laid_out
from stylus_audio.spectrogram import RIFFUSION, Profile
from stylus_audio.stylize import PreparedStyle, Stylizer
from tests import plain

from . import sd15
from .table import settle

LAYERS = (6, 7, 8, 9, 10, 11)
PARTS: tuple[Part, ...] = ("query", "key", "value")

Made = TypeVar("Made")


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

    def let_go(self) -> None:
        """Of all but the engine's model, as on a user's device; the others are made again when they are needed."""
        model = self.model  # is made of the others
        for name in ("unet", "vae", "plain_half", "channels_last", "encoded", "styles"):
            self.__dict__.pop(name, None)
        for graphs in (self.graphs, model.graphs):
            if graphs is not None:
                graphs.clear()
        give_back(self.device)

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
        return sd15.flops(self.unet, self.size.latent)

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

    def stylizer(self, settings: Settings | None = None, budget: int | None = None) -> Stylizer:
        """Ours, as the engine makes it."""
        denoiser = self.denoiser(self.model.unet, self.graphs)
        budget = feature_budget(self.device) if budget is None else budget
        settings = settings or self.settings
        return Stylizer(denoiser, denoiser, settings, windows_per_pass=16, feature_budget=budget)

    @cached_property
    def encoded(self) -> Tensor:
        """Latents of all pictures in our precision, `[window, ...]`; the last four are styles."""
        return self.model.latent.encode(self.pictures).to(self.device)

    @cached_property
    def start(self) -> list[Tensor]:
        """Latents of the first picture and of the last, a style, in strict float32: every precision starts from them,
        so that what an encoder adds is no drift.
        """
        with tf32(False, False):
            return [Autoencoder(self.vae).encode(one[None]) for one in (self.pictures[0], self.pictures[-1])]

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
        latents = self.start
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


def clocked(work: Callable[[], Made]) -> tuple[float, Made]:
    """Seconds of doing it once, and its result."""
    settle()
    begun = time.perf_counter()
    made = work()
    settle()
    return time.perf_counter() - begun, made


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


@contextmanager
def exact_sums() -> Iterator[None]:
    """Partial sums of products in fp16 are added in float32, which cuBLAS may do in fp16."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_fp16_reduced_precision_reduction
    matmul.allow_fp16_reduced_precision_reduction = False
    try:
        yield
    finally:
        matmul.allow_fp16_reduced_precision_reduction = before
