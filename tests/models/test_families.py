"""Every family goes the whole way: calibrate, train, evaluate, chat, export, and reload in stock PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import CONFIG_MAPPING, AutoConfig

from kore.adapters.export import export
from kore.adapters.export_check import logits
from kore.artifacts.events import EventWriter
from kore.artifacts.run import Run
from kore.chat import Ask, Session
from kore.config.resolve import AdapterSection, CalibrateSection, ModelSection, TrainSection
from kore.data.records import Sample
from kore.errors import DataError, UsageError
from kore.methods.load_adapter import load_adapter
from kore.methods.registry import make_method
from kore.models.families import family_of, model_class
from kore.models.generate import Engine, Prompt
from kore.models.linear_table import linear_rows
from kore.models.load import load, load_processor
from kore.models.processing import Encoder
from kore.nullspace.adapter_init import build
from kore.nullspace.calibrate import Calibration
from kore.training.run import train
from scripts.models_page import PAGE, page
from tests.models.families import CASES, HIDDEN, TEXT, VISION

NAMES = [
    pytest.param(name, marks=[] if case.fast else pytest.mark.slow, id=name) for name, case in CASES.items()
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Model folders by family, each built once."""
    built: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in built:
            built[name] = CASES[name].build(tmp_path_factory.mktemp("models") / name)
        return built[name]

    return folder


def samples(folder: Path, images: bool) -> list[Sample]:
    """With and without an image by turns, of one and of two exchanges."""
    found = []
    for i in range(4):
        path = folder / f"{i}.png"
        shown = images and i % 2 == 0
        if shown:
            Image.effect_noise((40, 30), 64 + i).convert("RGB").save(path)
        turns = [
            {"from": "human", "value": "<image>\n" * shown + "What is the capital?"},
            {"from": "gpt", "value": "Lima " * (1 + i)},
        ]
        if i > 1:
            turns += [{"from": "human", "value": "And the colour?"}, {"from": "gpt", "value": "Red"}]
        record = {"id": f"s{i}", "image": str(path) if shown else None, "conversations": turns}
        found.append(Sample.model_validate(record))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_family_goes_the_whole_way(name: str, folders: Any, tmp_path: Path) -> None:
    case, base = CASES[name], folders(name)
    section = ModelSection(id=str(base))
    data = samples(tmp_path, case.reads_images)
    backbone = load(section)
    rows = linear_rows(backbone.model, backbone.family)
    assert sum(row.count for row in rows if not row.skipped) == len(backbone.family.linears)
    job = Calibration(backbone, data, CalibrateSection(samples=["x"], batch=2, with_answers=True))
    assert job.whole == case.whole
    covariance = job.run(tmp_path / "c")
    assert {linear for site in covariance.sites for linear in site.linears} == set(backbone.family.linears)
    factors = build(backbone, covariance, AdapterSection(rank=4)).a

    for method in ("lora", "kore"):
        backbone = load(section)
        run = Run(tmp_path / method)
        settings = TrainSection(method=method, lr=1e-2, batch=4, max_steps=2)
        with EventWriter(run.folder) as events:
            train(
                backbone,
                data,
                settings,
                make_method(method),
                run,
                events,
                factors=factors if method == "kore" else None,
                rank=4,
                facts={"base": backbone.fingerprint, "model": str(base)},
            )
        prompts = [Prompt.ask("Which capital?"), Prompt.ask("Which colour?")]
        if case.reads_images:
            prompts.append(Prompt.ask("What is shown?", [Image.new("RGB", (50, 40), (9, 90, 200))]))
        engine = Engine(backbone, batch=3, max_new_tokens=4)
        assert len(engine.answer(prompts)) == len(prompts)
        assert all(loss > 0 for loss in engine.losses(prompts[:2], ["Lima", "Red"]))
        told = export(run.adapter, "peft", tmp_path / f"{method}-peft", section, prompts=prompts)
        assert told["check"]["relative"] < 1e-3 and told["check"]["moved"] > 0
        assert_stock_peft_gives_the_same_logits(section, run.adapter, tmp_path / f"{method}-peft", prompts)
    session = Session.open(str(run.adapter), ModelSection(), max_new_tokens=3)
    (replies,) = session.answer([Ask("Who is this?", compare=True)])
    assert isinstance(replies, list) and len(replies) == 2


def test_a_pixel_limit_takes_effect_or_is_refused(folders: Any) -> None:
    prompt = Prompt.ask("What is shown?", [Image.new("RGB", (200, 200))])

    def tokens(limit: int | None) -> int:
        processor = load_processor(folders("qwen3_vl"), ModelSection(max_pixels=limit))
        return len(Encoder(processor).prompt(prompt.turns, prompt.images)["input_ids"])

    assert tokens(400) < tokens(None)
    for name in ("llava", "llama"):
        with pytest.raises(UsageError, match="max_pixels has no effect"):
            load_processor(folders(name), ModelSection(max_pixels=400))


@pytest.mark.slow
def test_the_page_of_models_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_paligemma_is_refused_with_the_reason() -> None:
    config = CONFIG_MAPPING["paligemma"](
        text_config={**TEXT, "model_type": "gemma2", "vocab_size": 300},
        vision_config={**VISION, "model_type": "siglip_vision_model", "projection_dim": HIDDEN},
        projection_dim=HIDDEN,
    )
    with pytest.raises(DataError, match="reads its whole prompt in both directions"):
        family_of(model_class(config).from_config(config))


def assert_stock_peft_gives_the_same_logits(
    section: ModelSection, adapter: Path, exported: Path, prompts: list[Prompt]
) -> None:
    from peft import PeftModel

    ours = load(section)
    load_adapter(ours, adapter)
    stock = load(section)
    plain = model_class(AutoConfig.from_pretrained(section.id)).from_pretrained(section.id)
    stock.model = PeftModel.from_pretrained(plain, str(exported)).eval()
    assert torch.allclose(logits(stock, prompts), logits(ours, prompts), atol=1e-5)
