"""What a setting allows, and that every way of giving it means the same."""

from __future__ import annotations

import pytest

from stylus_audio.errors import BadRequest
from stylus_audio.settings import ALIASES, OPTIONS, RECIPES, Settings, at_step, to_samples, typed_over


def test_every_default_is_allowed_and_survives_json() -> None:
    import json

    settings = Settings(gamma=(0.1, 0.9), layers=(6, 7), style_weight=(1.0, 2.0), start="44 samples", loudness=-14)
    assert Settings.parse(json.loads(json.dumps(settings.to_dict()))) == settings
    assert Settings.parse(Settings().to_dict()) == Settings()


def test_producers_and_researchers_names_are_the_same() -> None:
    assert ALIASES == {"keep": "gamma", "amount": "alpha", "sharpness": "tau"}
    assert Settings.parse({"keep": "0.2", "amount": 1, "sharpness": "1:2"}) == Settings(
        gamma=0.2, alpha=1.0, tau=(1.0, 2.0)
    )


@pytest.mark.parametrize(("text", "layers"), [("6-9", (6, 7, 8, 9)), ("11,6", (6, 11)), ("6-7,9", (6, 7, 9))])
def test_layers(text: str, layers: tuple[int, ...]) -> None:
    assert Settings.parse({"layers": text}).layers == layers


@pytest.mark.parametrize("text", ["", "x", "-1", "7-6", "100", "0-99999999999"])
def test_layers_that_are_none(text: str) -> None:
    with pytest.raises(BadRequest, match="layers"):
        Settings.parse({"layers": text})


@pytest.mark.parametrize(("text", "samples"), [("1.5", 66150), ("2s", 88200), ("100 samples", 100), ("7smp", 7)])
def test_times(text: str, samples: int) -> None:
    start = Settings.parse({"start": text}).start
    assert start is not None
    assert to_samples(start, 44100) == samples


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("value", [object(), "nonsense\0", float("nan"), float("inf"), -1e9, [], {}, "1:2:3"])
def test_nonsense_is_refused_in_words(name: str, value: object) -> None:
    if OPTIONS[name].kind == "text" and value == "1:2:3":
        value = 7
    with pytest.raises(BadRequest, match=name):
        Settings.parse({name: value})


def test_unknown_names_are_refused() -> None:
    with pytest.raises(BadRequest, match="gamma"):
        Settings.parse({"gama": 1})


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(BadRequest):
        Settings(preview=3, start=1)
    with pytest.raises(BadRequest):
        Settings(prompt_end="bells")


def test_what_is_typed_wins_by_whatever_name() -> None:
    assert Settings.parse(typed_over({"keep": 0.6, "gamma": 0.75}, {"gamma": 0.2})).gamma == 0.2
    assert Settings.parse(typed_over({"gamma": 0.75}, {"keep": 0.5, "gamma": 0.2})).gamma == 0.2
    assert Settings.recipe("stylus", quality="fast").steps is None


def test_recipes_hold_the_published_values() -> None:
    stylus, styleid = (Settings.recipe(name) for name in RECIPES)
    assert (stylus.gamma, stylus.alpha, stylus.tau, stylus.steps) == (0.75, 0.9, 1.0, 50)
    assert stylus.layers == (6, 7, 8, 9, 10, 11)
    assert (stylus.inversion, stylus.reconstruction, stylus.refine) == ("current", "phase", 0)
    assert (styleid.gamma, styleid.alpha, styleid.tau, styleid.layers) == (0.75, 1.0, 1.5, (7, 8, 9, 10, 11))


def test_lines_run_over_the_steps() -> None:
    assert [at_step((1.0, 0.0), step, 3) for step in range(3)] == [1.0, 0.5, 0.0]
