"""Exports answer as the adapter does, load with the stock tools, and refuse what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from kore.adapters import lora as adapter
from kore.adapters.export import Check, export, refuse_bad
from kore.adapters.lineage import read_lineage
from kore.adapters.lora_state import WEIGHTS
from kore.adapters.vllm import padded_rank
from kore.config.resolve import ModelSection
from kore.errors import DataError, UsageError
from kore.models.families import language_linears
from kore.models.load import Backbone, load
from tests.held import held


def trained(base: Path, out: Path, *, projector: bool = False, ranks: tuple[int, int] = (5, 5)) -> Path:
    """An adapter folder with B and, if asked, a projector that have moved."""
    torch.manual_seed(3)
    backbone = load(ModelSection(id=str(base)))
    linears = language_linears(backbone.model, backbone.family)
    rank = {n: ranks["layers.1" in n] for n in linears}
    a = {n: torch.randn(rank[n], m.in_features) for n, m in linears.items()}
    model = adapter.attach(backbone.model, backbone.family, rank=rank, a=a, projector=projector)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * 0.1)
    facts = {"base": backbone.fingerprint, "model": str(base), "method": "kore", "frozen_a": True}
    adapter.save(model, out, facts)
    return out


def section(folder: Path) -> ModelSection:
    return ModelSection(id=str(folder))


@torch.no_grad()
def answer(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.randint(3, 300, (2, 9), generator=torch.Generator().manual_seed(0))
    return model(input_ids=ids).logits  # type: ignore[no-any-return]


def as_trained(base: Path, folder: Path) -> torch.Tensor:
    backbone: Backbone = load(section(base))
    adapter.load_adapter(backbone, folder)
    return answer(backbone.model)


def test_the_peft_folder_loads_with_stock_peft(tiny_llava: Path, tmp_path: Path) -> None:
    made = trained(tiny_llava, tmp_path / "a", projector=True)
    told = export(made, "peft", tmp_path / "out", section(tiny_llava))
    assert told["check"]["relative"] < 1e-5
    model = PeftModel.from_pretrained(load(section(tiny_llava)).model, str(tmp_path / "out"))
    assert torch.allclose(answer(model), as_trained(tiny_llava, made), atol=1e-6)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"base_model: {tiny_llava}" in card and "by at most" in card


def test_the_merged_model_answers_as_the_adapter_and_knows_its_lineage(
    tiny_llava: Path, tmp_path: Path
) -> None:
    made = trained(tiny_llava, tmp_path / "a")
    told = export(made, "merged", tmp_path / "out", section(tiny_llava))
    assert told["check"]["moved"] > 0.01 and told["check"]["relative"] < 1e-3
    merged = load(section(tmp_path / "out"))
    assert torch.allclose(answer(merged.model), as_trained(tiny_llava, made), atol=1e-5)
    lineage = read_lineage(merged.path, merged.fingerprint)
    assert lineage.root == load(section(tiny_llava)).fingerprint and len(lineage.chain) == 1
    again = export(made, "merged", tmp_path / "out", section(tiny_llava))
    assert again["check"] == told["check"]


def test_a_merge_that_loses_the_adapter_is_refused_with_the_numbers(tiny_llava: Path, tmp_path: Path) -> None:
    made = trained(tiny_llava, tmp_path / "a")
    weights = load_file(made / WEIGHTS)
    save_file({k: v * 1e-3 if "lora_B" in k else v for k, v in weights.items()}, made / WEIGHTS)
    with pytest.raises(DataError, match=r"bfloat16 does not answer .* of the change"):
        export(made, "merged", tmp_path / "out", section(tiny_llava), dtype="bfloat16")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["status"] == "partial"
    with pytest.raises(UsageError, match="no such type: int8"):
        export(made, "merged", tmp_path / "none", section(tiny_llava), dtype="int8")
    assert not (tmp_path / "none").exists()
    with pytest.raises(DataError):
        refuse_bad(Check(1, 0.0, 0.0, float("nan"), 1.0), "it")


@pytest.mark.parametrize("family", ["tiny_llava", "tiny_qwen"])
def test_vllm_gets_a_padded_lora_and_the_projector_in_the_base(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    base = request.getfixturevalue(family)
    made = trained(base, tmp_path / "a", projector=True, ranks=(5, 9))
    told = export(made, "vllm", tmp_path / "out", section(base))
    assert told["check"]["relative"] < 1e-4 and told["run_in_vllm"] is False
    config = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (16, 16)
    assert config["modules_to_save"] is None and not config["rank_pattern"]
    weights = load_file(tmp_path / "out" / "adapter" / WEIGHTS)
    assert all(".lora_A." in k or ".lora_B." in k for k in weights)
    assert all(k.startswith("base_model.model.model.language_model.layers.") for k in weights)
    assert {v.shape["lora_B" in k] for k, v in weights.items()} == {16}
    model = PeftModel.from_pretrained(
        load(section(tmp_path / "out" / "base")).model, str(tmp_path / "out" / "adapter")
    )
    assert torch.allclose(answer(model), as_trained(base, made), atol=1e-5)
    assert [padded_rank(r) for r in (1, 2, 235, 256, 274)] == [1, 8, 256, 256, 320]
    with pytest.raises(DataError, match="above vLLM's largest"):
        padded_rank(513)


def test_missing_and_unexpected_keys_are_named(tiny_llava: Path, tmp_path: Path) -> None:
    made = trained(tiny_llava, tmp_path / "a")
    weights = load_file(made / WEIGHTS)
    first = min(weights)
    save_file({k: v for k, v in weights.items() if k != first}, made / WEIGHTS)
    with pytest.raises(DataError, match=f"1 missing keys, first {first}"):
        export(made, "peft", tmp_path / "b", section(tiny_llava))
    save_file({**weights, "stray": weights[first].clone()}, made / WEIGHTS)
    with pytest.raises(DataError, match="1 unexpected keys, first stray"):
        export(made, "peft", tmp_path / "c", section(tiny_llava))


def test_a_result_that_is_no_low_rank_adapter_is_refused(tiny_llava: Path, tmp_path: Path) -> None:
    made = trained(tiny_llava, tmp_path / "a")
    facts = json.loads((made / "kore.json").read_text())
    (made / "kore.json").write_text(json.dumps({**facts, "format": "moelora", "method": "moelora"}))
    with pytest.raises(DataError, match="moelora is no low-rank adapter"):
        export(made, "merged", tmp_path / "b", section(tiny_llava))


def test_an_export_that_another_process_writes_is_refused(tiny_llava: Path, tmp_path: Path) -> None:
    made = trained(tiny_llava, tmp_path / "a")
    with held(tmp_path / "out"), pytest.raises(DataError, match="in use by process"):
        export(made, "peft", tmp_path / "out", section(tiny_llava))
