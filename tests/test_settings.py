"""What a setting allows, and that every way of giving it means the same."""

from __future__ import annotations

from typing import Any

import pytest

from stylus_audio.errors import BadRequest
from stylus_audio.options import Options
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


@pytest.mark.parametrize("number", [6, 6.0, "6.0", [6.0]])
def test_a_number_is_one_layer(number: object) -> None:
    assert Settings.parse({"layers": number}).layers == (6,)


@pytest.mark.parametrize("text", ["", "x", "-1", "7-6", "100", "0-99999999999", 6.5, -1, 100, True])
def test_layers_that_are_none(text: object) -> None:
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


@pytest.mark.parametrize(("name", "toggled", "number"), [("mix", True, 1), ("transients", False, 0), ("keep", True, 1)])
def test_a_toggle_is_one_or_zero(name: str, toggled: bool, number: float) -> None:
    assert Settings.parse({name: toggled}) == Settings.parse({name: number})


@pytest.mark.parametrize("name", ["auto", "preview", "steps", "refine", "ceiling"])
@pytest.mark.parametrize("toggled", [True, False])
def test_a_toggle_is_refused_where_it_would_mean_on_or_off(name: str, toggled: bool) -> None:
    with pytest.raises(BadRequest, match=f"{name}: {toggled} is not a"):
        Settings.parse({name: toggled})


def test_a_toggle_is_refused_where_the_range_does_not_hold_it() -> None:
    with pytest.raises(BadRequest, match="keep_below: True is not a number from 10 to 100000"):
        Settings.parse({"keep_below": True})
    with pytest.raises(BadRequest, match="bits: True is not one of 16, 24, 32f"):
        Settings.parse({"bits": True})


@pytest.mark.parametrize("bits", [24, 24.0, "24", "24.0"])
def test_bits_are_a_number_too(bits: object) -> None:
    assert Settings.parse({"bits": bits}).bits == "24"


@pytest.mark.parametrize("bits", [32, 12, 24.5, "24.5", "24.", -16])
def test_bits_that_there_are_not(bits: object) -> None:
    with pytest.raises(BadRequest, match=r"is not one of 16, 24, 32f$"):
        Settings.parse({"bits": bits})


def test_what_a_controller_sends_can_be_typed() -> None:
    """The page shows a job as the command that renders the same, of the values as they came."""
    asked = Options.parse(
        {"mix": True, "transients": False, "bits": 24.0, "layers": 6.0, "steps": 20.0, "keep": [True, False]}
    )
    assert asked.settings["keep"] == [1, 0]
    assert not any(isinstance(value, bool) for value in asked.settings.values())
    typed = {name: str(value) for name, value in asked.settings.items() if name != "keep"}
    assert Settings.parse(typed) == Settings(bits="24", layers=(6,), steps=20)


def test_limits_are_said_in_full() -> None:
    with pytest.raises(BadRequest, match=r"seed: '-1' is not a whole number from 0 to 4294967295$"):
        Settings.parse({"seed": "-1"})
    with pytest.raises(BadRequest, match=r"tau: 0 is not a number from 0\.01 to 10, or FIRST:LAST$"):
        Settings(tau=0)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("kepp", "keep"), ("Keep", "keep"), ("gama", "gamma"), ("keep-bellow", "keep_below"), ("sharpnes", "sharpness"),
     ("no-injektion", "no_injection")],
)  # fmt: skip
def test_an_unknown_name_is_told_the_nearest_and_all_that_producers_use(typed: str, meant: str) -> None:
    with pytest.raises(BadRequest) as error:
        Settings.parse({typed: 1})
    said, _, listed = str(error.value).partition(" There are ")
    assert said == f"{typed} is not an option; did you mean {meant}?"
    names = listed.split(", ")
    assert {"keep", "amount", "sharpness", "no_injection", "mix"} <= set(names)
    assert not {"gamma", "alpha", "tau", "model"} & set(names)
    assert names == sorted(names)


def test_a_name_that_is_near_none_is_told_them_all() -> None:
    with pytest.raises(BadRequest, match=r"^colour is not an option; there are amount, auto, "):
        Settings.parse({"colour": 1})


def test_every_name_that_is_listed_is_taken() -> None:
    with pytest.raises(BadRequest) as error:
        Options.parse({"colour": 1})
    for name in str(error.value).partition(" are ")[2].split(", "):
        if name not in ("style", "output"):  # taken out before, by who knows what their paths are relative to
            with pytest.raises(BadRequest, match=f"^{name}: "):
                Options.parse({name: "\0"})


@pytest.mark.parametrize(
    ("typed", "meant"), [("ouput", "output"), ("pre-set", "preset"), ("modle", "model"), ("recipie", "recipe")]
)
def test_an_unknown_name_is_told_what_there_is_beside_settings(typed: str, meant: str) -> None:
    with pytest.raises(BadRequest, match=f"^{typed} is not an option; did you mean {meant}\\?"):
        Options.parse({typed: "x"})


def test_a_name_that_has_no_place_here_is_not_offered() -> None:
    with pytest.raises(BadRequest, match="output is not an option") as error:
        Options.parse({"output": "x.wav"})
    assert "output" not in str(error.value).split(" are ")[1].split(", ")


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(BadRequest):
        Settings(preview=3, start=1)
    with pytest.raises(BadRequest):
        Settings(prompt_end="bells")


def test_what_is_typed_wins_by_whatever_name() -> None:
    assert Settings.parse(typed_over({"keep": 0.6, "gamma": 0.75}, {"gamma": 0.2})).gamma == 0.2
    assert Settings.parse(typed_over({"gamma": 0.75}, {"keep": 0.5, "gamma": 0.2})).gamma == 0.2
    assert Settings.recipe("stylus", quality="fast").steps is None


@pytest.mark.parametrize(
    ("inherited", "typed", "left"),
    [
        ({"preview": 6.0}, {"start": "1"}, {"start": "1"}),
        ({"preview": 6.0}, {"end": "1"}, {"end": "1"}),
        ({"preview": 6.0}, {"start": None}, {"preview": 6.0, "start": None}),
        ({"start": 1.0, "end": 2.0}, {"preview": "6"}, {"preview": "6"}),
        ({"loop": "on"}, {"tail": "0.5"}, {"tail": "0.5"}),
        ({"loop": "on"}, {"tail": "0.0"}, {"loop": "on", "tail": "0.0"}),
        ({"loop": "off"}, {"tail": "0.5"}, {"loop": "off", "tail": "0.5"}),
        ({"tail": 0.5}, {"loop": "on"}, {"loop": "on"}),
        ({"tail": 0.5}, {"loop": "off,on"}, {"loop": "off,on"}),
        ({"tail": 0.5}, {"loop": "auto"}, {"tail": 0.5, "loop": "auto"}),
        ({"prompt": "bells", "prompt_end": "glass"}, {"prompt": ""}, {"prompt": ""}),
    ],
)
def test_what_is_typed_wins_where_two_exclude_each_other(
    inherited: dict[str, Any], typed: dict[str, Any], left: dict[str, Any]
) -> None:
    assert typed_over(inherited, typed) == left
    if "loop" not in typed or "," not in typed["loop"]:
        Settings.parse(left)


def test_another_model_has_its_own_method_and_all_that_is_by_it() -> None:
    inherited = Settings(method="conditional", gamma=0, steps=1, layers=(0, 1), tau=2, mix=0.5).to_dict()
    kept = Settings.parse(typed_over(inherited, {"alpha": 0.5}, other_model=True))
    assert kept == Settings(alpha=0.5, tau=2, mix=0.5)


def test_another_method_leaves_what_only_the_inversion_takes() -> None:
    inherited = Settings(denoise=0.5, init="efdm", start_step=3, inversion="current", mix=0.5).to_dict()
    kept = Settings.parse(typed_over(inherited, {"method": "conditional"}))
    assert kept == Settings(method="conditional", mix=0.5)
    assert Settings.parse(typed_over(inherited, {"method": "injection"})).init == "efdm"


def test_recipes_hold_the_published_values() -> None:
    stylus, styleid = (Settings.recipe(name) for name in RECIPES)
    assert (stylus.gamma, stylus.alpha, stylus.tau, stylus.steps) == (0.75, 0.9, 1.0, 50)
    assert stylus.layers == (6, 7, 8, 9, 10, 11)
    assert (stylus.inversion, stylus.reconstruction, stylus.refine) == ("current", "phase", 0)
    assert (styleid.gamma, styleid.alpha, styleid.tau, styleid.layers) == (0.75, 1.0, 1.5, (7, 8, 9, 10, 11))


def test_lines_run_over_the_steps() -> None:
    assert [at_step((1.0, 0.0), step, 3) for step in range(3)] == [1.0, 0.5, 0.0]
