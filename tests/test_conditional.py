"""The conditional way: a network that is told of content and style."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stylus_audio import Engine
from stylus_audio.attention import decoder_layers
from stylus_audio.conditional import Conditional, ReadStyle, sharpened, without_grid
from stylus_audio.denoiser import Denoiser
from stylus_audio.errors import BadRequest
from stylus_audio.latent import Patchify
from stylus_audio.metrics import si_sdr
from stylus_audio.places import DEMO_STYLE
from stylus_audio.settings import RECIPES, Settings
from stylus_audio.style_encoder import StyleEncoder
from tests.sounds import RATE, noise, plucks


def latents(windows: int, seed: int) -> Tensor:
    return torch.randn(windows, 64, 8, 8, generator=torch.Generator().manual_seed(seed))


CONTENT, GUIDE, STYLE = latents(3, 0), latents(3, 1), latents(2, 2)


def way(engine: Engine, **changes: Any) -> Conditional:
    model = engine.model
    assert model.encoder is not None
    settings = model.with_steps(engine.settings(**changes))
    return Conditional(Denoiser(model.unet, model.scheduler, model.embedding()), model.encoder, model.spread, settings)


def styled(engine: Engine, styles: list[Tensor] | None = None, **changes: Any) -> Tensor:
    one = way(engine, **changes)
    return one.run(CONTENT, GUIDE, [one.prepare(style) for style in styles or [STYLE]])


def test_one_step_is_the_networks_own_answer_over_the_guide(told: Engine) -> None:
    """Computed by hand: diffusers' own attention, told of the style by tokens alone."""
    model = told.model
    assert model.encoder is not None
    with torch.no_grad():
        tokens = model.encoder(STYLE[None])
        inputs = torch.cat([torch.zeros_like(CONTENT), CONTENT, GUIDE], 1)
        v = model.unet(inputs, 999, encoder_hidden_states=tokens.expand(3, -1, -1)).sample
    signal = float(model.scheduler.alphas_cumprod[999])
    expected = GUIDE - 0.8 * (1 - signal) ** 0.5 * without_grid(v)
    torch.testing.assert_close(styled(told, injection=False), expected, rtol=1e-4, atol=1e-4)


def test_keys_and_values_are_the_references_read_as_it_is(told: Engine) -> None:
    model = told.model
    read = way(told).prepare(STYLE)
    seen: dict[int, Tensor] = {}
    hooks = [
        module.to_k.register_forward_hook(lambda _, __, output, layer=layer: seen.update({layer: output}))
        for layer, module in decoder_layers(model.unet).items()
    ]
    with torch.no_grad():
        inputs = torch.cat([torch.zeros_like(STYLE), STYLE, STYLE], 1)
        model.unet(inputs, 0, encoder_hidden_states=read.tokens.expand(2, -1, -1))
    for hook in hooks:
        hook.remove()
    assert set(read.features) == set(seen) == {0, 1, 3, 4}
    for layer, features in read.features.items():
        assert features.key is not None
        torch.testing.assert_close(features.key, seen[layer], rtol=1e-4, atol=1e-5)


def test_amount_goes_in_a_line_from_the_content_through_the_style(told: Engine) -> None:
    whole = styled(told)
    assert torch.equal(styled(told, alpha=0.0), CONTENT)
    torch.testing.assert_close(styled(told, alpha=0.5), (CONTENT + whole) / 2)
    torch.testing.assert_close(styled(told, alpha=2.0), 2 * whole - CONTENT)


def test_keep_goes_in_a_line_from_the_style_to_the_match_eq(told: Engine) -> None:
    whole = styled(told)
    torch.testing.assert_close(styled(told, gamma=1.0), GUIDE)
    torch.testing.assert_close(styled(told, gamma=0.25), 0.75 * whole + 0.25 * GUIDE)


@pytest.mark.parametrize(("dial", "named"), [("gamma", "keep"), ("alpha", "amount"), ("tau", "sharpness")])
def test_a_line_over_the_steps_is_refused(told: Engine, dial: str, named: str) -> None:
    with pytest.raises(BadRequest, match=f"{named}: the conditional method takes one number"):
        way(told, **{dial: "0.5:1"})


@pytest.mark.parametrize("changes", [{"gamma": 0.7}, {"tau": 3.0}, {"injection": False}])
def test_every_dial_changes_the_result(told: Engine, changes: dict[str, Any]) -> None:
    assert torch.equal(styled(told), styled(told))
    assert float((styled(told, **changes) - styled(told)).abs().max()) > 1e-3


def test_what_stands_out_in_pitch_stands_out_further() -> None:
    """A partial on a floor that slopes in pitch and time: the slopes stay, it rises, and what lies beside falls."""
    bands, frames = torch.linspace(1, -1, 512)[:, None], torch.linspace(0, 1, 32)
    floor, line = (bands + frames)[None], torch.zeros(1, 512, 32)
    line[:, 256] = 1.0
    codec = Patchify(4, 0.0, 1.0)

    def changed(picture: Tensor, contrast: float) -> Tensor:
        return F.pixel_shuffle(sharpened(codec.encode(picture), contrast), 4)[:, 0]

    away = slice(80, 180)
    torch.testing.assert_close(changed(floor, 1.5)[:, away], floor[:, away], rtol=0, atol=1e-5)
    sharp = changed(floor + line, 1.2) - floor
    # A Gaussian of σ 16 leaves a fortieth of a line at its place.
    share = 1 / (16 * (2 * np.pi) ** 0.5)
    assert sharp[0, 256, 0].item() == pytest.approx(1 + 0.2 * (1 - share), abs=1e-3)
    assert sharp[0, 264, 0].item() == pytest.approx(-0.2 * share * np.exp(-0.125), abs=1e-3)
    latent = codec.encode(line)
    assert sharpened(latent, 1.0) is latent


def test_a_pattern_of_the_squares_goes_and_slopes_and_beats_stay() -> None:
    codec = Patchify(4, 0.0, 1.0)
    frames = torch.arange(256.0)
    falling = (0.9 - frames / 400).expand(8, 256)[None]
    beat = (0.1 * torch.sin(frames * 2 * np.pi / 5.2)).expand(8, 256)[None]
    pattern = torch.tensor([0.0, 0.2, -0.1, 0.05]).repeat(64).expand(8, 256)[None]

    def cleaned(picture: Tensor) -> Tensor:
        return F.pixel_shuffle(without_grid(codec.encode(picture)), 4)[:, 0]

    torch.testing.assert_close(cleaned(falling), falling, rtol=0, atol=1e-5)
    torch.testing.assert_close(cleaned(beat), beat, rtol=0, atol=0.01)
    torch.testing.assert_close(cleaned(falling + pattern), falling + pattern.mean(), rtol=0, atol=1e-5)


def test_a_models_contrast_is_that_of_its_answers(told: Engine) -> None:
    plain, sharp = way(told), way(told)
    sharp.contrast = 1.3
    read = [plain.prepare(STYLE)]
    found = sharp.run(CONTENT, GUIDE, read)
    torch.testing.assert_close(found, sharpened(plain.run(CONTENT, GUIDE, read), 1.3))
    # The match-EQ is as it is.
    sharp.gamma = 1.0
    torch.testing.assert_close(sharp.run(CONTENT, GUIDE, read), GUIDE)


def test_a_weight_of_one_is_that_style_alone(told: Engine) -> None:
    other = latents(2, 5)
    both = styled(told, [STYLE, other], style_weight=(1.0, 0.0))
    torch.testing.assert_close(both, styled(told), rtol=1e-4, atol=1e-4)
    assert float((styled(told, [STYLE, other]) - both).abs().max()) > 1e-3


def test_windows_are_alike_however_many_go_in_one_pass(told: Engine) -> None:
    one_by_one = way(told, gamma=0.5)
    one_by_one.windows_per_pass = 1
    torch.testing.assert_close(
        one_by_one.run(CONTENT, GUIDE, [one_by_one.prepare(STYLE)]), styled(told, gamma=0.5), rtol=1e-4, atol=1e-4
    )


def test_the_passes_that_are_announced_are_made(told: Engine) -> None:
    ticks: list[int] = []
    counted = way(told)
    counted.tick = lambda: ticks.append(1)
    counted.windows_per_pass = 2
    styles: list[ReadStyle] = [counted.prepare(STYLE)]
    counted.run(CONTENT, GUIDE, styles)
    assert len(ticks) == counted.passes(len(CONTENT), 1)


def test_what_is_silent_in_a_reference_tells_nothing(told: Engine) -> None:
    columns = torch.tensor([[True] * 8, [True] * 3 + [False] * 5])
    disturbed = STYLE.clone()
    disturbed[1, :, :, 3:] = 7.0
    encoder = StyleEncoder(64, 8, 32, 16, depth=0).eval()
    with torch.no_grad():
        one, other = (encoder(style[None], columns[None]) for style in (STYLE, disturbed))
    torch.testing.assert_close(one, other)
    read = way(told).prepare(STYLE, columns)
    mask = read.features[4].mask
    assert mask is not None
    assert int(mask[1].sum()) < mask.shape[1]


def test_tokens_do_not_depend_on_the_order_of_windows() -> None:
    encoder = StyleEncoder(64, 8, 32, 16).eval()
    with torch.no_grad():
        torch.testing.assert_close(encoder(STYLE[None]), encoder(STYLE.flip(0)[None]), rtol=1e-4, atol=1e-5)


def test_more_steps_than_one_are_refused(told: Engine) -> None:
    with pytest.raises(BadRequest, match="steps: told answers at once"):
        told.render((plucks(0.5), RATE), (noise(0.5), RATE), told.settings(steps=2))


def test_the_engine_renders_by_the_default_method_and_by_the_other(told: Engine) -> None:
    content, style = (plucks(0.8), RATE), (noise(0.8), RATE)
    stems = {
        method: told.render(content, style, told.settings(method=method)).audio
        for method in ("conditional", "injection")
    }
    assert told.settings().method == "conditional"
    assert np.array_equal(told.render(content, style).audio, stems["conditional"])
    assert not np.allclose(stems["conditional"], stems["injection"], atol=1e-3)
    assert stems["conditional"].shape == content[0].shape


def test_no_amount_gives_the_clip_back(told: Engine) -> None:
    content = plucks(0.8)
    stem = told.render((content, RATE), (noise(0.8), RATE), told.settings(alpha=0)).audio
    assert si_sdr(stem, content) > 60


def test_a_model_that_is_told_nothing_says_so(tiny: Engine) -> None:
    with pytest.raises(BadRequest, match="has no 'conditional'; it has injection"):
        tiny.settings(method="conditional")
    settings = replace(Settings(), method="conditional", steps=1)
    with pytest.raises(BadRequest, match="has no 'conditional'; it has injection"):
        tiny.render((plucks(0.5), RATE), (noise(0.5), RATE), settings)


def test_a_prompt_is_refused_in_words(told: Engine) -> None:
    with pytest.raises(BadRequest, match=r"prompt: .* has no text encoder"):
        told.render((plucks(0.5), RATE), (noise(0.5), RATE), told.settings(prompt="bells"))


def test_features_of_unlike_long_styles_are_blended(told: Engine) -> None:
    styles = [(noise(0.5), RATE), (noise(2.0), RATE)]
    assert told.render((plucks(0.5), RATE), styles, told.settings(blend="features")).audio.any()


def test_each_method_has_its_own_defaults(told: Engine) -> None:
    assert (told.settings().gamma, told.settings(method="injection").gamma) == (0.0, 0.75)
    assert told.settings(method="injection", gamma=0.1).gamma == 0.1


@pytest.mark.parametrize("method", ["conditional", pytest.param("injection", marks=pytest.mark.slow)])
def test_the_first_of_equal_hits_is_about_as_loud_as_the_others(method: str) -> None:
    """Out of silence, where half of an analysis window hears a click."""
    time = np.arange(RATE // 2) / RATE
    hit = 0.6 * np.sin(2 * np.pi * (45 * time + 4.4 * (1 - np.exp(-25 * time)))) * np.exp(-6 * time)
    hit[:30] *= np.linspace(0, 1, 30)
    engine = Engine("mini")
    stem = engine.render((np.tile(hit, 4)[None], RATE), DEMO_STYLE, engine.settings(method=method)).audio
    first, *others = np.abs(stem.reshape(4, -1)).max(1)
    assert 0.5 * min(others) < first < 1.5 * max(others)


def takes(engine: Engine, **changes: Any) -> None:
    engine.check((plucks(0.5), RATE), (noise(0.5), RATE), engine.settings(**changes))


OF_INVERSION = [{"denoise": 0.5}, {"init": "efdm"}, {"init": "none"}, {"start_step": 0}, {"inversion": "current"}]


@pytest.mark.parametrize("changes", OF_INVERSION, ids=str)
def test_what_inverts_nothing_refuses_settings_of_the_inversion(told: Engine, changes: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=rf"^{next(iter(changes))}: told answers at once"):
        takes(told, **changes)
    takes(told, method="injection", **changes)


@pytest.mark.parametrize("method", ["conditional", "injection"])
@pytest.mark.parametrize("changes", [{"guidance": 7}, {"prompt_mix": 0.3}], ids=str)
def test_without_text_nothing_of_a_prompt_is_taken(told: Engine, method: str, changes: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=rf"^{next(iter(changes))}: told has no text encoder"):
        takes(told, method=method, **changes)


def test_what_says_every_default_is_refused_nothing() -> None:
    mini = Engine("mini", device="cpu")
    takes(mini, **mini.settings().to_dict())
    takes(mini, **mini.settings(method="injection").to_dict())
    for recipe in RECIPES.values():
        takes(mini, **{**recipe, "layers": "6-7"})
