"""From old samples to other people's tools, each step a process: calibrate, train, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file, save_file

from kore.config.resolve import ModelSection
from kore.io.jsonl import write_jsonl
from kore.methods.load_adapter import load_adapter
from kore.models.load import load
from kore.nullspace.covariance import Covariance
from tests.cli.command import kore


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """A tree's folder: one item, and the samples made of it."""
    folder = tmp_path / "tree"
    folder.mkdir()
    Image.effect_noise((40, 30), 50).convert("RGB").save(folder / "new.png")
    item = {"id": "1", "kind": "news", "type": "film", "title": "A | prize", "text": "A film won."}
    item |= {"date": "2026-03-01", "source": "https://example.org/prize"}
    write_jsonl(folder / "tree.jsonl", [{"item": item, "trunk": []}])
    turns = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A film"}]
    write_jsonl(
        folder / "samples.jsonl",
        [{"id": f"n{n}", "image": "new.png", "conversations": turns} for n in range(8)],
    )
    return folder / "samples.jsonl"


def told(*arguments: str | Path) -> Any:
    done = kore(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@torch.no_grad()
def answer(model: Any) -> torch.Tensor:
    ids = torch.randint(3, 300, (2, 9), generator=torch.Generator().manual_seed(0))
    logits: torch.Tensor = model(input_ids=ids).logits
    return logits


@pytest.mark.slow
def test_a_run_is_exported_three_ways_with_its_card(tiny_llava: Path, new: Path, tmp_path: Path) -> None:
    base, old, run = ["--model", tiny_llava], tmp_path / "old", tmp_path / "run"
    told("calibrate", *base, "--samples", "demo:16", "--layers", "auto:0.75", "--new", new, "-o", old)
    told("calibrate", *base, "--samples", new, "--with-answers", "-o", tmp_path / "facts")
    sites = Covariance(old).sites
    assert len(sites) < 8
    train = ["train", *base, "--data", new, "-c", old, "--new-covariance", tmp_path / "facts"]
    train += ["--keep-energy", "0.9", "--contrast", "0.5", "--max-steps", "6", "--lr", "0.05"]
    train += ["--set", "train.projector=1e-3", "-o", run]
    planned = told(*train, "--dry-run")
    result = told(*train)
    assert result["trainable"] == planned["trainable"]
    report = json.loads((run / "manifest.json").read_text())["facts"]["factors"]
    assert [row["site"] for row in report] == [s.name for s in sites]
    for row in report:
        assert row["solver"] == "contrast 0.5" and row["residual"] < 1e-9 and row["orthonormality"] < 1e-9
    marked = {s["name"]: s["rank"] for s in json.loads((run / "spectra.json").read_text())["sites"]}
    assert marked == {row["site"]: row["rank"] for row in report}

    made = {
        form: told("export", run, "--to", form, "-o", tmp_path / form) for form in ("peft", "merged", "vllm")
    }
    tuned = load(ModelSection(id=str(tiny_llava)))
    untouched = answer(tuned.model)
    load_adapter(tuned, run / "adapter")
    expected = answer(tuned.model)
    assert float((expected - untouched).abs().max()) > 1e-3
    stock = PeftModel.from_pretrained(load(ModelSection(id=str(tiny_llava))).model, str(tmp_path / "peft"))
    merged = load(ModelSection(id=str(tmp_path / "merged"))).model
    served = load(ModelSection(id=str(tmp_path / "vllm" / "base"))).model
    served = PeftModel.from_pretrained(served, str(tmp_path / "vllm" / "adapter"))
    for model in (stock, merged, served):
        assert torch.allclose(answer(model), expected, atol=1e-5)
    assert made["vllm"]["served"] == "./base" and made["vllm"]["rank"] in (8, 16, 32)
    for form in made:
        card = (tmp_path / form / "README.md").read_text()
        assert f"base_model: {tiny_llava}" in card
        assert r"| A \| prize | https://example.org/prize | 2026-03-01 |" in card
        assert Covariance(old).manifest.fingerprint in card and "demo 16" in card
        assert "## Scores" in card and "by at most" in card

    weights = load_file(run / "adapter" / "adapter_model.safetensors")
    small = {k: v * 1e-4 if "lora_B" in k else v for k, v in weights.items() if "projector" not in k}
    small |= {k: v for k, v in weights.items() if k not in small}
    save_file(small | {"stray": torch.zeros(1)}, run / "adapter" / "adapter_model.safetensors")
    refused = kore("export", run, "--to", "peft", "-o", tmp_path / "no")
    assert refused.returncode == 3 and "1 unexpected keys, first stray" in refused.stderr


@pytest.mark.slow
def test_a_dry_run_totals_the_ranks_that_a_covariance_decides(tiny_llava: Path, tmp_path: Path) -> None:
    told("calibrate", "--model", tiny_llava, "--samples", "demo:16", "-o", tmp_path / "c")
    plain = ["train", "--model", tiny_llava, "--dry-run"]
    value = told(*plain, "--rank", "auto", "-c", tmp_path / "c")
    assert value["trainable"] == sum(row["trainable"] for row in value["table"][:-1]) > 0
    less = told(*plain, "--keep-energy", "0.9", "--budget", "3000", "-c", tmp_path / "c")
    assert 2000 < less["trainable"] <= 3000
    refused = kore(*plain, "--rank", "auto")
    assert refused.returncode == 3 and "depends on a covariance" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("profile", "more", "count"),
    [
        ("llava-v1.5-7b", [], 340_549_632),
        ("llava-v1.5-7b", ["--rank", "256"], 369_106_944),
        ("llava-v1.5-13b", [], 531_998_720),
        ("qwen2.5-vl-7b", [], 381_022_208),
    ],
)
def test_the_published_counts_come_from_the_shipped_profiles_alone(
    profile: str, more: list[str], count: int
) -> None:
    value = told("train", "--profile", profile, "--dry-run", *more)
    assert value["trainable"] == count
