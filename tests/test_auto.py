"""How much style a clip bears: the search on known answers, and on a model that changes the sound a lot."""

from __future__ import annotations

import pytest

from stylus_audio import Engine, Settings
from stylus_audio.auto import EXCERPT, HALVINGS, LESS, RETRIES, at_strength, excerpt_of, found, similarity
from stylus_audio.metrics import evaluate
from tests.sounds import RATE, noise, plucks


def strength_of(settings: Settings) -> float:
    assert isinstance(settings.alpha, float)
    return settings.alpha


def search(floor: float, excerpt_bears: float, clip_bears: float) -> tuple[float, bool, int]:
    """The strength, whether it was kept, and how often all was rendered; similarity falls off as strength grows."""
    whole: list[float] = []

    def rendered(settings: Settings) -> tuple[float, float]:
        whole.append(strength_of(settings))
        return whole[-1], 1 - whole[-1] * (1 - floor) / clip_bears

    settings = Settings(gamma=0.0, alpha=1.0, auto=floor)
    result = found(settings, lambda tried: 1 - strength_of(tried) * (1 - floor) / excerpt_bears, rendered)
    assert result.settings.auto is None
    assert result.made == whole[-1]
    return result.made, result.kept, len(whole)


@pytest.mark.parametrize("bears", [0.1, 0.33, 0.5, 0.8, 0.97])
def test_strength_is_found_to_a_sixteenth_from_below(bears: float) -> None:
    strength, kept, renders = search(0.9, bears, bears)
    assert (kept, renders) == (True, 1)
    assert bears - 1 / 2**HALVINGS <= strength <= bears


def test_what_bears_all_of_it_gets_all_of_it() -> None:
    assert search(0.9, 5.0, 5.0) == (1.0, True, 1)


def test_a_clip_that_bears_less_than_its_excerpt_gets_less() -> None:
    strength, kept, renders = search(0.9, 1.0, 0.6)
    assert (kept, renders) == (True, 3)
    assert strength == pytest.approx(LESS**2, abs=1e-3)


def test_a_clip_that_bears_nothing_is_said_to() -> None:
    strength, kept, renders = search(0.9, 1.0, 0.01)
    assert (kept, renders) == (False, 1 + RETRIES)
    assert strength > 0.01


def test_what_no_strength_makes_similar_enough_is_rendered_once() -> None:
    made: list[float] = []

    def rendered(settings: Settings) -> tuple[float, float]:
        made.append(strength_of(settings))
        return made[-1], 0.9

    result = found(Settings(gamma=0.0, alpha=1.0, auto=0.95), lambda _: 0.5, rendered)
    assert (made, result.kept) == ([0.0], False)


def test_an_excerpt_is_short_and_inside() -> None:
    assert excerpt_of(Settings()).preview == EXCERPT
    assert excerpt_of(Settings(preview=2.0)).preview == 2.0
    part = excerpt_of(Settings(start=3.0, end=20.0))
    assert (part.start, part.end) == (3.0, 3.0 + EXCERPT)
    assert excerpt_of(Settings(end=2.0)).end == 2.0
    assert excerpt_of(Settings(start="7 samples")).start == "7 samples"
    assert at_strength(Settings(), 0.0).gamma == 1.0


def test_similarity_is_what_evaluate_measures() -> None:
    clip, other = plucks(2.0), plucks(2.0, every=0.3)
    metrics = evaluate(other, clip, sample_rate=RATE)
    expected = min(metrics["chroma_similarity"] or 0, metrics["onset_f1"] or 0)
    assert similarity(other, clip, RATE) == pytest.approx(expected, abs=1e-6)
    assert similarity(clip, clip, RATE) == pytest.approx(1.0, abs=1e-6)
    assert similarity(clip * 0, clip * 0, RATE) == 1.0


@pytest.mark.parametrize("floor", [0.3, 0.97])
def test_a_stem_is_as_similar_as_asked_or_says_so(tiny: Engine, floor: float) -> None:
    content, style = plucks(1.5), noise(0.8)
    whole = tiny.render((content, RATE), (style, RATE), tiny.settings(steps=2))
    render = tiny.render((content, RATE), (style, RATE), tiny.settings(steps=2, auto=floor))
    reached = similarity(render.audio, content, RATE)
    note = next(note for note in render.report["notes"] if note.startswith("auto:"))
    assert reached == pytest.approx(render.report["auto"]["similarity"], abs=1e-3)
    assert ("LESS" in note) == (reached < floor)
    settings = render.report["settings"]
    assert settings["auto"] is None
    # The whole clip is its own excerpt: all of the style where it bears that, less where it does not.
    less = similarity(whole.audio, content, RATE) < floor
    assert less == (floor > 0.9)
    assert (settings["alpha"] < 0.9, settings["gamma"] > 0.75) == (less, less)
    # The same again, by what the sidecar says.
    again = tiny.render((content, RATE), (style, RATE), tiny.settings(**settings))
    assert (again.audio == render.audio).all()


def test_a_higher_floor_leaves_less_of_the_style(told: Engine) -> None:
    content, style = (plucks(1.5), RATE), (noise(0.8), RATE)
    alphas = []
    for floor in (0.93, 0.985):
        report = told.render(content, style, told.settings(auto=floor)).report
        assert floor <= report["auto"]["similarity"]
        alphas.append(report["settings"]["alpha"])
    assert 0 < alphas[1] < alphas[0] < 1
