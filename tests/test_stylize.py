"""The method on latents against the plain implementation, and what its parts promise."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from stylus_audio import Settings, Trace, stylize_latents
from stylus_audio.attention import Hand, Plain, attending, decoder_layers
from stylus_audio.denoiser import Denoiser, Schedule
from stylus_audio.errors import BadRequest
from stylus_audio.features import step_to_tensors
from stylus_audio.inversion import invert, replay
from stylus_audio.sampling import drift
from stylus_audio.style import adain, efdm
from stylus_audio.stylize import Stylizer
from tests import plain

STEPS = 6


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def model(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return plain.small_unet(request.param)


def latents(windows: int, seed: int) -> Tensor:
    return torch.randn(windows, 4, 16, 16, generator=torch.Generator().manual_seed(seed))


EMBEDDING = torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(99))

CASES: list[dict[str, Any]] = [
    {"alpha": 1.0},
    {"alpha": 0.9},
    {"alpha": 1.0, "layers": (7, 8, 9, 10, 11), "tau": 1.5},
    {"alpha": 1.7, "gamma": 0.0},
    {"alpha": 0.0, "gamma": 1.0},
    {"alpha": (0.2, 1.0), "gamma": (0.9, 0.1), "tau": (1.0, 1.5)},
    {"alpha": 1.0, "inversion": "current"},
    {"alpha": 0.9, "start_step": 2},
    {"init": "none"},
    {"init": "efdm"},
    {"injection": False},
]


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_style_equals_the_plain_method(model: tuple[Any, Any], case: dict[str, Any]) -> None:
    content, style = latents(1, 0), latents(1, 1) * 1.5 + 0.3
    ours = stylize_latents(*model, content, [style], EMBEDDING, Settings(steps=STEPS, **case))
    expected = plain.stylize(*model, content, [style], EMBEDDING, steps=STEPS, **case)
    assert relative(ours, expected) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("blend", ["outputs", "features"])
@pytest.mark.parametrize("alpha", [1.0, 0.6])
@pytest.mark.parametrize("layers", [(6, 7, 8, 9, 10, 11), (7, 8, 9, 10, 11)])
def test_two_styles_equal_the_plain_method(
    model: tuple[Any, Any], blend: str, alpha: float, layers: tuple[int, ...]
) -> None:
    content, styles = latents(1, 0), [latents(1, 1), latents(1, 2) * 0.5]
    case: dict[str, Any] = {
        "steps": STEPS,
        "blend": blend,
        "alpha": alpha,
        "layers": layers,
        "style_weight": (0.7, 0.3),
    }
    ours = stylize_latents(*model, content, styles, EMBEDDING, Settings(**case))
    assert relative(ours, plain.stylize(*model, content, styles, EMBEDDING, **case)) < 1e-4


@pytest.mark.slow
def test_many_windows_equal_the_plain_method(model: tuple[Any, Any]) -> None:
    # More windows than one pass takes, and a style of three: groups, statistics of the clip, joined tokens.
    content, style = latents(6, 0), latents(3, 1) * 2
    ours = stylize_latents(*model, content, [style], EMBEDDING, Settings(steps=3))
    assert relative(ours, plain.stylize(*model, content, [style], EMBEDDING, steps=3)) < 1e-4


@pytest.mark.slow
def test_clips_that_share_passes_equal_each_alone(model: tuple[Any, Any]) -> None:
    # Their statistics are their own; of the second a window counts in these alone, and some columns are silent.
    contents, style = [latents(n, n) * n for n in (1, 3, 2)], latents(1, 9)
    wanted = torch.tensor([True, True, False, True, True, True])
    columns = torch.ones(6, 16, dtype=torch.bool)
    columns[1, 5:] = False
    denoiser = Denoiser(*model, EMBEDDING)
    stylizer = Stylizer(denoiser, denoiser, Settings(steps=3))
    prepared = [stylizer.prepare(style)]
    together = stylizer.run(torch.cat(contents), prepared, columns, wanted, exact=True, clips=[1, 3, 2])
    alone = [
        stylizer.run(content, prepared, marks, want, exact=True)
        for content, marks, want in zip(
            contents, torch.split(columns, [1, 3, 2]), torch.split(wanted, [1, 3, 2]), strict=True
        )
    ]
    assert relative(together, torch.cat(alone)) < 1e-5


@pytest.mark.slow
def test_the_comparison_is_well_conditioned(model: tuple[Any, Any]) -> None:
    content, style = latents(1, 0), latents(1, 1)
    nudged = content + 1e-6 * content.norm() / content.numel() ** 0.5 * latents(1, 5)
    case: dict[str, Any] = {"steps": 20}
    one = plain.stylize(*model, content, [style], EMBEDDING, **case)
    assert relative(plain.stylize(*model, nudged, [style], EMBEDDING, **case), one) < 2e-5
    assert relative(plain.stylize(*model, content, [style], EMBEDDING, injection=False, **case), one) > 0.05


@pytest.mark.slow
def test_features_computed_again_equal_the_recorded_ones(model: tuple[Any, Any]) -> None:
    content, style = latents(2, 0), latents(2, 1)
    denoiser = Denoiser(*model, EMBEDDING)
    results = []
    for budget in (2**30, 0):
        stylizer = Stylizer(denoiser, denoiser, Settings(steps=3), feature_budget=budget)
        prepared = stylizer.prepare(style)
        results.append(stylizer.run(content, [prepared], exact=True))
    assert relative(*results) < 1e-6


@pytest.mark.slow
def test_exact_inversion_returns_the_content_in_any_number_of_steps(model: tuple[Any, Any]) -> None:
    denoiser = Denoiser(*model, EMBEDDING)
    content = latents(2, 0)
    for steps in (1, 3, 10):
        stylizer = Stylizer(denoiser, denoiser, Settings(steps=steps, injection=False, init="none"))
        assert relative(stylizer.run(content, [], exact=True), content) < 1e-5


def test_replay_gives_what_invert_recorded(model: tuple[Any, Any]) -> None:
    denoiser = Denoiser(*model, EMBEDDING)
    schedule = Schedule.of(model[1], 3)
    inversion = invert(denoiser, latents(1, 3), schedule, (6, 11), ("query", "key", "value"))
    again = replay(denoiser, inversion, schedule, (6, 11), ("query", "key", "value"))
    assert len(inversion.recorded) == 3
    assert len(inversion.trajectory) == 4
    for step, recorded in enumerate(inversion.recorded):
        for layer, features in again(step).items():
            before = recorded[layer].query
            assert features.query is not None
            assert before is not None
            assert torch.allclose(features.query, before, atol=1e-6)


def test_masked_tokens_do_not_count(model: tuple[Any, Any]) -> None:
    # A style whose second half is masked equals the style made of its first half's tokens: change what is masked.
    content, style = latents(1, 0), latents(1, 1)
    columns = torch.ones(1, 16, dtype=torch.bool)
    columns[:, 8:] = False
    denoiser = Denoiser(*model, EMBEDDING)
    stylizer = Stylizer(denoiser, denoiser, Settings(steps=2))
    prepared = stylizer.prepare(style, columns)
    features = prepared.features(0)[11]
    assert features.mask is not None
    assert features.mask.reshape(16, 16)[:, :8].all()
    assert not features.mask.reshape(16, 16)[:, 8:].any()
    one = stylizer.run(content, [prepared])
    assert torch.isfinite(one).all()
    moved = adain(content, style, None, columns)
    assert torch.allclose(moved.mean((0, 2, 3)), style[..., :8].mean((0, 2, 3)), atol=1e-5)


@pytest.mark.slow
def test_without_style_the_clip_comes_back_the_better_the_finer_the_steps(model: tuple[Any, Any]) -> None:
    content = latents(1, 0)
    errors = []
    for steps in (5, 50):
        settings = Settings(steps=steps, injection=False, init="none")
        errors.append(relative(stylize_latents(*model, content, [latents(1, 1)], EMBEDDING, settings), content))
    assert errors[1] < min(0.5, errors[0])


def test_attention_processors_are_put_back(model: tuple[Any, Any]) -> None:
    unet = model[0]
    before = dict(unet.attn_processors)
    with suppress(ZeroDivisionError), attending(unet, Hand((6, 7), Plain(None, (16, 16)))):
        assert unet.attn_processors != before
        raise ZeroDivisionError
    assert all(unet.attn_processors[name] is one for name, one in before.items())


def test_trace_sees_every_latent_and_attention_output(model: tuple[Any, Any]) -> None:
    seen: list[Trace] = []
    settings = Settings(steps=3, layers=(6, 11))
    result = stylize_latents(*model, latents(1, 0), [latents(1, 1)], EMBEDDING, settings, trace=seen.append)
    per_stage = {stage: [one for one in seen if one.stage == stage] for stage in ("inversion", "sampling")}
    # Two inversions and one sampling of three steps, each a latent and two layers.
    assert len(per_stage["inversion"]) == 2 * 3 * 3
    assert len(per_stage["sampling"]) == 3 * 3
    assert [one.step for one in per_stage["sampling"] if one.layer is None] == [0, 1, 2]
    assert [one.step for one in per_stage["inversion"][:9] if one.layer is None] == [2, 1, 0]
    assert {one.tensor.shape[1] for one in per_stage["sampling"] if one.layer == 11} == {256}
    assert result.shape == (1, 4, 16, 16)


def test_layers_are_numbered_as_styleid_does(model: tuple[Any, Any]) -> None:
    assert sorted(decoder_layers(model[0])) == list(range(3, 12))
    with pytest.raises(BadRequest, match="no layer 2; it has 3, 4, 5"):
        stylize_latents(*model, latents(1, 0), [latents(1, 1)], EMBEDDING, Settings(steps=1, layers=(2,)))


def test_denoise_inverts_only_so_far(model: tuple[Any, Any]) -> None:
    assert Schedule.of(model[1], 10, 0.3).times == (201, 101, 1)
    assert Schedule.of(model[1], 10).times[0] == 901
    assert Schedule.of(model[1], 10).previous[-1] == 0


def test_steps_that_do_not_fit_are_refused(model: tuple[Any, Any]) -> None:
    # Times start at 1, so that a thousand steps would need a thousand and first.
    assert Schedule.of(model[1], 999).times[0] < 1000
    for steps in (1000, 1001):
        with pytest.raises(BadRequest, match=f"steps: {steps}"):
            Schedule.of(model[1], steps)


def test_efdm_gives_the_styles_values_by_rank() -> None:
    content = torch.tensor([3.0, 1.0, 2.0, 0.0]).reshape(1, 1, 2, 2)
    style = torch.tensor([10.0, 40.0, 20.0, 30.0]).reshape(1, 1, 2, 2)
    assert efdm(content, style).flatten().tolist() == [40.0, 20.0, 30.0, 10.0]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_with_the_current_time_no_style_is_the_content(model: tuple[Any, Any], gamma: float) -> None:
    """A sampling step's features are of its own latent and label, so that injecting the content's changes nothing."""
    settings = Settings(steps=5, inversion="current", init="none", alpha=0.0, gamma=gamma)
    denoiser = Denoiser(*model, EMBEDDING)
    ticks: list[None] = []
    stylizer = Stylizer(denoiser, denoiser, settings, tick=lambda: ticks.append(None))
    content = latents(1, 0)
    styled = stylizer.run(content, [stylizer.prepare(latents(1, 1))], exact=True)
    assert relative(styled, content) < 1e-5
    assert len(ticks) == stylizer.passes(1, 1, exact=True)


@pytest.mark.parametrize("convention", ["next", "current"])
def test_features_computed_again_are_those_recorded(model: tuple[Any, Any], convention: str) -> None:
    denoiser, schedule, layers = Denoiser(*model, EMBEDDING), Schedule.of(model[1], 4), (6, 7)
    inversion = invert(denoiser, latents(1, 0), schedule, layers, ("query", "value"), convention)
    again = replay(denoiser, inversion, schedule, layers, ("query", "value"), convention)
    for step, recorded in enumerate(inversion.recorded):
        for name, tensor in step_to_tensors(again(step)).items():
            assert torch.equal(tensor, step_to_tensors(recorded)[name])


@pytest.mark.parametrize(("convention", "passes"), [("current", 0), ("next", 7)])
def test_the_way_back_takes_only_the_passes_that_the_inversion_has_not_made(
    model: tuple[Any, Any], convention: str, passes: int
) -> None:
    denoiser = Denoiser(*model, EMBEDDING)
    schedule, layers = Schedule.of(model[1], 7), (6, 7)
    columns = torch.arange(16).expand(2, -1) < torch.tensor([[16], [9]])
    inversion = invert(denoiser, latents(2, 0), schedule, layers, ("query",), convention, columns)
    made: list[None] = []
    missed = drift(denoiser, inversion, schedule, layers, columns, lambda: made.append(None))
    assert len(made) == passes
    asked_anew = drift(denoiser, replace(inversion, back={}), schedule, layers, columns)
    assert max(float((one - other).abs().max()) for one, other in zip(missed, asked_anew, strict=True)) < 1e-6
