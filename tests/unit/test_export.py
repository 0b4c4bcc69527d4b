"""Exports answer as the adapter does, load with the stock tools, and refuse what does not fit."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from kore.adapters import export_check, merge
from kore.adapters import lora as adapter
from kore.adapters.export import export
from kore.adapters.export_check import Check, refuse_bad
from kore.adapters.lora_state import WEIGHTS
from kore.adapters.vllm import padded_rank
from kore.config.resolve import ModelSection
from kore.errors import DataError, UsageError
from kore.methods.load_adapter import load_adapter
from kore.models.families import language_linears
from kore.models.lineage import read_lineage
from kore.models.load import Backbone, embedded_base, load
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
    load_adapter(backbone, folder)
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
    assert told["check"]["relative"] < 1e-4
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
    with pytest.raises(DataError, match="moelora is not a low-rank adapter"):
        export(made, "merged", tmp_path / "b", section(tiny_llava))


def test_an_export_that_another_process_writes_is_refused(tiny_llava: Path, tmp_path: Path) -> None:
    made = trained(tiny_llava, tmp_path / "a")
    with held(tmp_path / "out"), pytest.raises(DataError, match="in use by process"):
        export(made, "peft", tmp_path / "out", section(tiny_llava))


def published(base: Path, out: Path, *, shards: int = 3, dtype: torch.dtype = torch.float16) -> Path:
    """A copy of a LLaVA under the names that llava-hf/llava-1.5-7b-hf has, in several files with an index."""
    shutil.copytree(base, out)
    tensors = load_file(out / "model.safetensors")
    (out / "model.safetensors").unlink()
    renamed = {
        k.replace("vision_tower.", "vision_tower.vision_model."): v.to(dtype) for k, v in tensors.items()
    }
    keys = sorted(renamed)
    weight_map = {}
    for n in range(shards):
        name = f"model-{n + 1:05}-of-{shards:05}.safetensors"
        part = {k: renamed[k] for k in keys[n::shards]}
        save_file(part, out / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    size = sum(v.numel() * v.element_size() for v in renamed.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (out / "model.safetensors.index.json").write_text(json.dumps(index))
    return out


def headers(folder: Path) -> dict[str, tuple[str, str, list[int]]]:
    """Key -> file, type, shape."""
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as stream:
            for key in stream.keys():  # noqa: SIM118 (not a mapping)
                part = stream.get_slice(key)
                found[key] = (path.name, part.get_dtype(), part.get_shape())
    return found


def stock(folder: Path) -> torch.nn.Module:
    """The model as stock transformers loads it, complete."""
    model, info = AutoModelForImageTextToText.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()  # type: ignore[no-any-return]


def test_a_merged_model_keeps_the_checkpoints_names_files_types_and_index(
    tiny_llava: Path, tmp_path: Path
) -> None:
    base = published(tiny_llava, tmp_path / "base")
    made = trained(base, tmp_path / "a", projector=True)
    told = export(made, "merged", tmp_path / "out", section(base))
    assert told["dtype"] == "float16" and told["check"]["relative"] < 0.02
    assert headers(tmp_path / "out") == headers(base)
    names = {"language_model.lm_head.weight", "language_model.model.embed_tokens.weight"}
    names |= {"multi_modal_projector.linear_1.weight", "vision_tower.vision_model.embeddings.class_embedding"}
    assert names < headers(base).keys()
    index = "model.safetensors.index.json"
    assert json.loads((tmp_path / "out" / index).read_text()) == json.loads((base / index).read_text())
    expected = as_trained(base, made)
    assert torch.allclose(answer(stock(tmp_path / "out")), expected, atol=2e-2)
    told = export(made, "merged", tmp_path / "wide", section(base), dtype="float32")
    assert told["dtype"] == "float32" and {kind for _, kind, _ in headers(tmp_path / "wide").values()} == {
        "F32"
    }
    assert json.loads((tmp_path / "wide" / "config.json").read_text())["dtype"] == "float32"
    size = json.loads((tmp_path / "wide" / index).read_text())["metadata"]["total_size"]
    assert size == 2 * json.loads((base / index).read_text())["metadata"]["total_size"]
    assert torch.allclose(answer(stock(tmp_path / "wide")), expected, atol=1e-5)


def test_exports_of_the_embedded_base_have_published_names(tmp_path: Path) -> None:
    base = embedded_base()
    made = trained(base, tmp_path / "a")
    expected = as_trained(base, made)
    told = export(made, "merged", tmp_path / "merged", ModelSection(id="kore-tiny"))
    assert told["dtype"] == "float16"
    export(made, "vllm", tmp_path / "vllm", ModelSection(id="kore-tiny"))
    for folder in (tmp_path / "merged", tmp_path / "vllm" / "base"):
        keys = headers(folder).keys()
        tower = [k for k in keys if k.startswith("vision_tower.")]
        assert tower and all(k.startswith("vision_tower.vision_model.") for k in tower)
        parts = ("language_model.model.", "multi_modal_projector.", "vision_tower.vision_model.")
        assert all(k.startswith(parts) for k in keys)
    merged = answer(stock(tmp_path / "merged"))
    assert float((merged - expected).norm()) < 0.02 * float((expected - answer(stock(base))).norm())
    served = PeftModel.from_pretrained(stock(tmp_path / "vllm" / "base"), str(tmp_path / "vllm" / "adapter"))
    assert torch.equal(answer(stock(tmp_path / "vllm" / "base")), answer(stock(base)))
    assert torch.allclose(answer(served), expected, atol=1e-4)
    card = (tmp_path / "vllm" / "README.md").read_text()
    assert "vllm serve ./base --enable-lora --max-lora-rank 8" in card and "not been run" not in card


def test_at_most_one_shard_is_in_memory_and_never_two_models(
    tiny_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = published(tiny_llava, tmp_path / "base", shards=6)
    made = trained(base, tmp_path / "a")
    live = peak = 0
    apply = merge._Merging.apply

    def counted(self: merge._Merging, name: str, value: torch.Tensor) -> torch.Tensor:
        nonlocal live, peak
        out = apply(self, name, value)
        size = out.numel() * out.element_size()
        live += size
        peak = max(peak, live)

        def gone() -> None:
            nonlocal live
            live -= size

        weakref.finalize(out, gone)
        return out

    models: list[weakref.ref[torch.nn.Module]] = []

    def alone(section: ModelSection) -> Backbone:
        gc.collect()
        assert all(model() is None for model in models)
        backbone = load(section)
        models.append(weakref.ref(backbone.model))
        return backbone

    monkeypatch.setattr(merge._Merging, "apply", counted)
    monkeypatch.setattr(export_check, "load", alone)
    for form in ("merged", "peft", "vllm"):
        models.clear()
        export(made, form, tmp_path / form, section(base))  # type: ignore[arg-type]
        assert len(models) == 2
    assert 0 < peak <= max(path.stat().st_size for path in base.glob("*.safetensors"))


def test_a_base_of_the_hub_is_named_by_its_id(
    tiny_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hub" / "models--acme--tiny-llava"
    published(tiny_llava, cache / "snapshots" / "abc")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    made = trained(Path("acme/tiny-llava"), tmp_path / "a")
    export(made, "peft", tmp_path / "peft", ModelSection(id="acme/tiny-llava"))
    export(made, "vllm", tmp_path / "vllm", ModelSection(id="acme/tiny-llava"))
    for folder in (tmp_path / "peft", tmp_path / "vllm" / "adapter"):
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "acme/tiny-llava"
    assert "vllm serve acme/tiny-llava " in (tmp_path / "vllm" / "README.md").read_text()
    assert not (tmp_path / "vllm" / "base").exists()


def test_a_local_base_under_published_names_is_served_from_its_folder(
    tiny_llava: Path, tmp_path: Path
) -> None:
    base = published(tiny_llava, tmp_path / "base")
    made = trained(base, tmp_path / "a")
    assert export(made, "vllm", tmp_path / "out", section(base))["served"] == str(base)
    assert f"vllm serve {base} " in (tmp_path / "out" / "README.md").read_text()


def test_a_merged_model_reads_the_layer_that_the_adapter_was_trained_with(
    tiny_llava: Path, tmp_path: Path
) -> None:
    made = trained(tiny_llava, tmp_path / "a")
    other = section(tiny_llava).model_copy(update={"vision_select_layer": -2})
    export(made, "merged", tmp_path / "out", other)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vision_feature_layer"] == -2
