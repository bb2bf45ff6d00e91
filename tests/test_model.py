"""Loading: a folder in Stable Diffusion's form made small, prompts, hashes, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTextModel

from stylus_audio import Engine
from stylus_audio.errors import BadRequest, NoModel, OutOfMemory
from stylus_audio.metrics import level_steps
from stylus_audio.model import choose_device, choose_dtype, load_model, predicts
from stylus_audio.pretrained import Config
from stylus_audio.spectrogram import frame_count
from stylus_audio.weights import KNOWN, check_device, fingerprint, located, named, verify
from stylus_audio.windows import window_starts
from tests.small_sd import save_small_sd
from tests.sounds import RATE, noise, plucks


@pytest.fixture(scope="module")
def small_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_sd(tmp_path_factory.mktemp("sd"))


@pytest.mark.slow
def test_prompts_change_the_sound(small_sd: Path) -> None:
    engine = Engine(str(small_sd), device="cpu", dtype="float32")
    engine.model.scheduler.set_timesteps(50)
    assert engine.model.scheduler.timesteps[-1] == 1
    assert engine.model.with_steps(engine.settings()).steps == 50
    assert engine.model.embedding().shape == (1, 77, 32)
    assert torch.equal(engine.model.embedding("bells"), engine.model.embedding("bells"))
    assert not torch.equal(engine.model.embedding("bells"), engine.model.embedding("gong"))
    stems = [
        engine.render((plucks(0.5), RATE), (noise(0.5), RATE), engine.settings(steps=2, **options)).audio
        for options in (
            {},
            {"prompt": "bells", "guidance": 5},
            {"prompt": "bells", "prompt_end": "gong", "guidance": 5},
            {"denoise": 0.5},
        )
    ]
    for number, one in enumerate(stems):
        assert np.isfinite(one).all()
        assert all(not np.allclose(one, other, atol=1e-5) for other in stems[number + 1 :])


def test_the_empty_prompt_is_clips_own(small_sd: Path) -> None:
    from transformers import CLIPTokenizer

    model = load_model(str(small_sd), "cpu", "float32")
    tokenizer = CLIPTokenizer.from_pretrained(small_sd / "tokenizer")
    tokens = tokenizer("", padding="max_length", max_length=77, return_tensors="pt").input_ids
    encoder = CLIPTextModel.from_pretrained(small_sd / "text_encoder")
    with torch.no_grad():
        assert torch.allclose(model.embedding(), encoder(tokens)[0], atol=1e-6)


def test_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"x")
    for model in ("weights.ckpt", str(tmp_path)):
        with pytest.raises(NoModel):
            load_model(model, "cpu")


def test_a_safetensors_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, file)
    with pytest.raises(NoModel, match="original layout"):
        load_model(str(file), "cpu")
    file.write_bytes(b"not safetensors at all")
    with pytest.raises(NoModel):
        load_model(str(file), "cpu")


def test_damaged_weights_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(tiny_folder, tmp_path / "damaged")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(NoModel, match="damaged"):
        load_model(str(folder), "cpu")


@pytest.mark.parametrize(
    "file", ["scheduler/scheduler_config.json", "unet/config.json", "stylus.json", "style_encoder/config.json"]
)
@pytest.mark.parametrize("said", ["[]", "null", "{", "\xff"])
def test_damaged_configurations_are_refused(told_folder: Path, tmp_path: Path, file: str, said: str) -> None:
    folder = shutil.copytree(told_folder, tmp_path / "damaged")
    (folder / file).write_bytes(said.encode("latin-1"))
    with pytest.raises(NoModel):
        load_model(str(folder), "cpu")


def test_a_model_that_does_not_fit_says_so(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(OutOfMemory, match="not enough memory on cpu for tiny"):
        load_model(str(tiny_folder), "cpu")


def test_offline_says_how_to_get_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NoModel, match="HF_HUB_OFFLINE forbids to fetch it; without it, `stylus models pull sd15`"):
        located(KNOWN["sd15"])
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(NoModel, match=r"^sd15 is not on this machine; `stylus models pull sd15`"):
        located(KNOWN["sd15"], download=False)


def test_a_model_of_the_hub_is_its_own_files_and_all_of_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other programs keep theirs in the same cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    sd15 = KNOWN["sd15"]
    cache = tmp_path / f"models--{sd15.source.replace('/', '--')}"
    snapshot = cache / "snapshots" / ("0" * 40)

    def put(name: str) -> Path:
        file = snapshot / name
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"weight": torch.full((2,), float(len(name)))}, file)
        return file

    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40, "utf-8")
    for name in ("vae/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.safetensors"):
        put(name)
        with pytest.raises(NoModel, match="stylus models pull sd15"):
            located(sd15, download=False)
    text = put("text_encoder/model.safetensors")
    assert located(sd15) == snapshot
    digest = fingerprint(sd15, snapshot)
    # As a folder of these files alone, which is what it was before.
    assert fingerprint(named(str(snapshot)), snapshot, fresh=True) == digest
    for name in ("unet/diffusion_pytorch_model.fp16.safetensors", "safety_checker/model.safetensors"):
        put(name)
    assert fingerprint(sd15, snapshot) == digest
    assert verify(sd15) == (digest, True)
    save_file({"weight": torch.zeros(2)}, text)
    assert verify(sd15)[1] is False


def test_what_was_downloaded_from_where_a_model_lay_before_serves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for sd2 in (KNOWN["sd20-base"], KNOWN["sd21-base"], KNOWN["sd21"]):
        cache = tmp_path / f"models--{sd2.former.replace('/', '--')}"
        (cache / "refs").mkdir(parents=True)
        (cache / "refs" / "main").write_text("0" * 40, "utf-8")
        with pytest.raises(NoModel):
            located(sd2, download=False)
        for name in (file for file in sd2.files if file.endswith(".safetensors")):
            file = cache / "snapshots" / ("0" * 40) / name
            file.parent.mkdir(parents=True)
            save_file({"weight": torch.zeros(2)}, file)
        assert located(sd2, download=False) == cache / "snapshots" / ("0" * 40)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("unet/config.json", {"in_channels": 9}, "takes 9 channels"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "addition_embed_type"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    ],
)
def test_a_model_of_another_kind_is_refused_before_its_weights_are_read(
    tmp_path: Path, file: str, change: dict[str, object], said: str
) -> None:
    for name, content in (
        ("unet/config.json", {"in_channels": 4, "out_channels": 4}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "scaled_linear"}),
    ):
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({**content, **(change if name == file else {})}), "utf-8")
    (tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not read")
    with pytest.raises(NoModel, match=said):
        load_model(str(tmp_path / "model"), "cpu")


@pytest.mark.parametrize(("answer", "kind"), [(1.0, "epsilon"), (0.07, "v_prediction")])
def test_what_a_network_predicts_is_asked_of_it(answer: float, kind: str) -> None:
    class Network:
        config = Config(in_channels=4, cross_attention_dim=8)

        def __call__(self, noise: torch.Tensor, time: int, text: torch.Tensor) -> Any:
            picture = torch.linspace(-1, 1, noise.numel()).reshape(noise.shape)
            return SimpleNamespace(sample=answer * noise - (1 - answer) * picture)

    assert predicts(Network()) == kind


def test_weights_are_hashed_and_verified(tiny_folder: Path, tmp_path: Path) -> None:
    import shutil

    weights = named(str(shutil.copytree(tiny_folder, tmp_path / "copy")))
    path = Path(weights.source)
    digest = fingerprint(weights, path)
    assert verify(weights) == (digest, True)
    file = path / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert verify(weights)[1] is False


def test_devices_and_dtypes() -> None:
    assert choose_device("cpu").type == "cpu"
    # What a model on Apple's GPU says that it lies on; the one that a method is left to is loaded there.
    assert check_device("mps:0") == str(torch.device("mps", 0))
    assert choose_dtype("float32", torch.device("cpu")) is torch.float32
    for device in ("tpu", "cuda:x"):
        with pytest.raises(BadRequest):
            choose_device(device)


@pytest.mark.parametrize("name", ["mini", "mini-injection"])
def test_mini_is_in_the_package_and_small_enough(name: str) -> None:
    weights = named(name)
    files = list(Path(weights.source).rglob("*"))
    assert sum(file.stat().st_size for file in files if file.is_file()) <= 40e6
    assert any(file.name == "MODEL_CARD.md" for file in files)


def test_a_method_may_be_left_to_another_model(told_folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "apart"
    shutil.copytree(told_folder, folder)
    about = json.loads((folder / "stylus.json").read_text("utf-8"))
    del about["methods"]["injection"]
    about["elsewhere"] = {"injection": str(tiny_folder)}
    (folder / "stylus.json").write_text(json.dumps(about), "utf-8")
    clip, style = (plucks(1.0), RATE), (noise(1.0), RATE)
    apart, alone = (Engine(str(place), device="cpu", dtype="float32") for place in (folder, tiny_folder))
    expected = alone.render(clip, style, alone.settings(steps=3))
    for _ in range(2):
        render = apart.render(clip, style, apart.settings(method="injection", steps=3))
        assert np.array_equal(render.audio, expected.audio)
        assert render.report["model"] == expected.report["model"]
    assert not np.array_equal(apart.render(clip, style).audio, expected.audio)


def test_a_quality_settles_what_is_not_asked_for(told_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(told_folder, folder)
    about = json.loads((folder / "stylus.json").read_text("utf-8"))
    about["methods"]["conditional"] |= {"settings": {"overlap": 0.4}, "qualities": {"best": {"overlap": 0.7}}}
    (folder / "stylus.json").write_text(json.dumps(about), "utf-8")
    engine = Engine(str(folder), device="cpu")
    assert engine.settings().overlap == 0.4
    assert engine.settings(quality="fast").overlap == 0.4
    assert engine.settings(quality="best").overlap == 0.7
    assert engine.settings(quality="best", overlap=0.1).overlap == 0.1
    assert engine.settings(quality="best", method="injection").overlap == 0.25
    mini = Engine("mini", device="cpu")
    assert [mini.settings(quality=one).overlap for one in ("fast", "balanced", "best")] == [0.25, 0.5, 0.75]
    with pytest.raises(BadRequest, match=r"^quality: 'better' is not one of fast, balanced, best$"):
        engine.settings(quality="better")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "hertz"),
    [("conditional", 110), ("conditional", 440), ("conditional", None), ("injection", 440), ("injection", None)],
)
def test_mini_has_no_seams(method: str, hertz: float | None) -> None:
    """In a tone, or in noise."""
    from tests.sounds import tone

    engine = Engine("mini", device="cpu")
    settings = engine.settings(method=method)
    profile = engine.model.profile
    seconds = (5 if hertz and method == "conditional" else 3) * profile.seconds
    # A conditional stem of noise has narrow bands, whose level moves by decibels anywhere; that of many does not.
    seeds = range(12 if method == "conditional" else 1)
    clips = [tone(hertz, seconds)] if hertz else [noise(seconds, seed=seed) for seed in seeds]
    stems = [engine.render((clip, RATE), (plucks(3.0, 0.2), RATE), settings).audio for clip in clips]
    windows = len(window_starts(frame_count(round(seconds * RATE), profile.hop), profile.frames, settings.overlap))
    stride = (seconds - profile.seconds) / (windows - 1)
    seams = [stride * n + (profile.seconds - stride) / 2 for n in range(1, windows)]
    steps = level_steps(np.concatenate(stems), RATE, seams)
    if method == "conditional":
        # Plucks are answered with an attack and a decay, which are no seams.
        steps = steps[1:-1]
    if len(clips) > 1:
        # By chance either way; seams would all be louder or all quieter than what is between them.
        steps = steps.mean(keepdims=True)
    assert np.abs(steps).max() <= 0.5
