"""A chain of adapters is the sum of its links: in memory, in its folder, in every export, in covariances."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from kore.adapters import lora as adapter
from kore.adapters.export import export
from kore.adapters.lora_state import CONFIG, WEIGHTS, read_low_rank
from kore.adapters.stacked import Earlier
from kore.config.resolve import AdapterSection, CalibrateSection, ModelSection, resolve
from kore.data.records import Sample
from kore.errors import DataError, MissingArtefact, UsageError
from kore.methods.load_adapter import load_adapter
from kore.methods.registry import make_method
from kore.models.adapter_off import adapter_off
from kore.models.families import language_linears
from kore.models.lineage import Lineage, adapter_fingerprint, read_lineage
from kore.models.load import Backbone, load
from kore.nullspace.adapter_init import build
from kore.nullspace.calibrate import Calibration
from kore.nullspace.combine import combine
from kore.nullspace.covariance import Covariance
from kore.workflows.calibrate_run import CalibrateJob
from kore.workflows.run_factors import check_model
from kore.workflows.sequential import read_earlier


def open_base(folder: Path) -> Backbone:
    return load(ModelSection(id=str(folder)))


def made(
    base: Path, out: Path, seed: int, *, after: Path | None = None, rank: int = 3, projector: bool = False
) -> Path:
    """An adapter folder as a training run writes it, B and projector moved; layer 1 alone where seed is 2."""
    backbone = open_base(base)
    if after:
        Earlier(after).stack_on(backbone)
    linears = language_linears(backbone.model, backbone.family)
    ranks = {n: rank + ("layers.1" in n) for n in linears if seed != 2 or "layers.1" in n}
    torch.manual_seed(seed)
    a = {n: torch.randn(r, linears[n].in_features) for n, r in ranks.items()}
    model = adapter.attach(backbone.model, backbone.family, rank=ranks, a=a, projector=projector)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * 0.1)
    facts = {"base": backbone.fingerprint, "model": str(base), "method": "kore", "frozen_a": True}
    adapter.save(model, out, facts)
    if backbone.earlier:
        backbone.earlier.join(out)
        assert torch.allclose(answer(model), answer(loaded(base, out).model), atol=1e-5)
    return out


def answer(model: torch.nn.Module) -> Tensor:
    ids = torch.randint(3, 300, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids=ids).logits  # type: ignore[no-any-return]


def with_deltas(base: Path, *folders: Path) -> Tensor:
    """The base's answer with each folder's own B A added to its weights, in float64, by hand."""
    model = open_base(base).model
    modules = dict(model.named_modules())
    for folder in folders:
        for name, value in load_file(folder / WEIGHTS).items():
            if ".lora_A." in name:
                b = load_file(folder / WEIGHTS)[name.replace("lora_A", "lora_B")]
                weight = modules[name.removeprefix("base_model.model.").partition(".lora_A")[0]].weight
                weight.data = (weight.double() + b.double() @ value.double()).float()
    return answer(model)


@pytest.fixture(scope="module")
def chain(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapter 1; adapter 2 alone (as if it had been saved without its past); 1 and 2 joined; 3 after both."""
    folder = tmp_path_factory.mktemp("chain")
    one = made(tiny_llava, folder / "one", 1)
    found = {
        "one": one,
        "alone": made(tiny_llava, folder / "alone", 2),
        "two": made(tiny_llava, folder / "two", 2, after=one),
    }
    found["three"] = made(tiny_llava, folder / "three", 3, after=found["two"], projector=True)
    return found


def loaded(base: Path, folder: Path) -> Backbone:
    backbone = open_base(base)
    load_adapter(backbone, folder)
    return backbone


def test_a_chain_of_two_adapters_answers_as_both_deltas_applied(
    tiny_llava: Path, chain: dict[str, Path]
) -> None:
    expected = with_deltas(tiny_llava, chain["one"], chain["alone"])
    for lost in (chain["one"], chain["alone"]):
        assert not torch.allclose(expected, with_deltas(tiny_llava, lost), atol=1e-2)
    joined = loaded(tiny_llava, chain["two"])
    assert torch.allclose(answer(joined.model), expected, atol=1e-5)
    with adapter_off(joined.model):
        assert torch.equal(answer(joined.model), answer(open_base(tiny_llava).model))
    ranks = {n.rpartition(".layers.")[2]: len(a) for n, (a, _) in read_low_rank(chain["two"]).factors.items()}
    assert ranks["0.mlp.up_proj"] == 3 and ranks["1.mlp.up_proj"] == 4 + 4


def test_the_model_under_a_new_adapter_is_the_earlier_one_and_can_be_freed_of_it(
    tiny_llava: Path, chain: dict[str, Path]
) -> None:
    backbone = open_base(tiny_llava)
    before = answer(backbone.model)
    for folder in (chain["one"], chain["three"]):  # the second has trained the projector
        earlier = Earlier(folder)
        earlier.stack_on(backbone)
        assert torch.allclose(answer(backbone.model), answer(loaded(tiny_llava, folder).model), atol=1e-5)
        name = next(iter(language_linears(backbone.model)))
        a, b = earlier.low_rank.factors[name]
        linear = backbone.model.get_submodule(name)
        assert torch.allclose(backbone.weight(name), linear.weight + b @ a, atol=1e-6)
        projector = {n: p.clone() for n, p in backbone.model.named_parameters() if "projector" in n}
        earlier.take_off(backbone)
        assert torch.equal(answer(backbone.model), before) and backbone.earlier is None
    assert all(torch.equal(projector[n], Earlier(chain["three"]).low_rank.whole[n]) for n in projector)
    kept = dict(backbone.model.named_parameters())
    assert not any(torch.equal(projector[n], kept[n]) for n in projector)


def test_loading_an_adapter_on_a_stacked_model_counts_the_earlier_one_once(
    tiny_llava: Path, chain: dict[str, Path]
) -> None:
    backbone = open_base(tiny_llava)
    Earlier(chain["one"]).stack_on(backbone)
    load_adapter(backbone, chain["two"])
    assert torch.allclose(answer(backbone.model), answer(loaded(tiny_llava, chain["two"]).model), atol=1e-6)


@pytest.mark.parametrize("form", ["peft", "merged", "vllm"])
def test_every_export_of_a_chain_holds_all_of_it(
    tiny_llava: Path, chain: dict[str, Path], tmp_path: Path, form: str
) -> None:
    expected = answer(loaded(tiny_llava, chain["three"]).model)
    section = ModelSection(id=str(tiny_llava))
    told = export(chain["three"], form, tmp_path / "out", section)  # type: ignore[arg-type]
    assert told["check"]["relative"] < 1e-3
    if form == "merged":
        merged = open_base(tmp_path / "out")
        assert torch.allclose(answer(merged.model), expected, atol=1e-5)
        prints = tuple(adapter_fingerprint(chain[n]) for n in ("one", "two", "three"))
        assert merged.lineage == Lineage(open_base(tiny_llava).fingerprint, prints)
        assert read_lineage(merged.path, "") == merged.lineage
        return
    lora = tmp_path / "out" / ("adapter" if form == "vllm" else "")
    base = tmp_path / "out" / "base" if form == "vllm" else tiny_llava
    model = PeftModel.from_pretrained(open_base(base).model, str(lora))
    assert torch.allclose(answer(model), expected, atol=1e-5)
    assert json.loads((lora / CONFIG).read_text())["r"] == (16 if form == "vllm" else 4 + 4 + 4)


def old_samples(count: int = 6) -> list[Sample]:
    text = ["What is it?", "Is this Peru? Yes or No", "Name the capital.", "abc def", "Where?", "Who is it?"]
    return [
        Sample.model_validate(
            {
                "id": str(n),
                "conversations": [
                    {"from": "human", "value": text[n % 6] * (1 + n % 3)},
                    {"from": "gpt", "value": "Lima"},
                ],
            }
        )
        for n in range(count)
    ]


def calibrated(backbone: Backbone, out: Path, **more: bool) -> Covariance:
    return Calibration(backbone, old_samples(), CalibrateSection(**more)).run(out)


def test_calibration_sees_the_inputs_of_the_model_as_it_now_is(
    tiny_llava: Path, chain: dict[str, Path], tmp_path: Path
) -> None:
    stacked = open_base(tiny_llava)
    Earlier(chain["three"]).stack_on(stacked)
    found = calibrated(stacked, tmp_path / "stacked", with_answers=True)
    section = ModelSection(id=str(tiny_llava))
    export(chain["three"], "merged", tmp_path / "merged", section)
    merged = open_base(tmp_path / "merged")
    expected = calibrated(merged, tmp_path / "c", with_answers=True)
    untouched = calibrated(open_base(tiny_llava), tmp_path / "base", with_answers=True)
    assert found.lineage == expected.lineage and found.model != untouched.model
    moved = 0.0
    for site in found.sites:
        c = found.matrix(site)
        assert torch.allclose(c, expected.matrix(site), rtol=1e-3, atol=1e-4 * float(c.diagonal().max()))
        moved = max(moved, float((c - untouched.matrix(site)).norm() / c.norm()))
    assert moved > 0.05
    a = build(stacked, found, AdapterSection(rank=2)).a
    b = build(merged, found, AdapterSection(rank=2)).a
    assert all(torch.allclose(a[n], b[n], atol=1e-3) for n in a)


def test_calibration_from_disk_puts_the_earlier_adapter_on_too(
    tiny_llava: Path, chain: dict[str, Path], tmp_path: Path
) -> None:
    profile = resolve("tiny", {"model.id": str(tiny_llava), "calibrate.samples": ["x.jsonl:6"]}).profile
    found = []
    for offload in (False, True):
        job = CalibrateJob(
            profile,
            tmp_path / str(offload),
            offload=offload,
            samples=old_samples(),
            earlier=Earlier(chain["three"]),
        )
        found.append(job.run())
        name = next(iter(job.calibration.backbone.earlier.low_rank.factors))  # type: ignore[union-attr]
        assert torch.allclose(job.weight(name), read_weight(tiny_llava, chain["three"], name), atol=1e-6)
    memory, disk = found
    for site in memory.sites:
        assert torch.allclose(memory.matrix(site), disk.matrix(site), rtol=1e-5, atol=1e-5)


def read_weight(base: Path, folder: Path, name: str) -> Tensor:
    a, b = read_low_rank(folder).factors[name]
    return open_base(base).weight(name) + b @ a


def test_covariances_sum_along_a_chain_and_a_chain_takes_no_other(
    tiny_llava: Path, chain: dict[str, Path], tmp_path: Path
) -> None:
    base, stacked, fork = open_base(tiny_llava), open_base(tiny_llava), open_base(tiny_llava)
    Earlier(chain["one"]).stack_on(stacked)
    Earlier(chain["alone"]).stack_on(fork)
    old = calibrated(base, tmp_path / "old")
    new = calibrated(stacked, tmp_path / "new", with_answers=True)
    total = combine([old.folder, new.folder], tmp_path / "sum")
    for site in total.sites:
        parts = old.matrix(old.site_of(site.linears[0])) + new.matrix(new.site_of(site.linears[0]))
        assert torch.allclose(total.matrix(site), parts, rtol=1e-12)
    check_model(total, stacked)
    with pytest.raises(DataError, match="ends before the adapter"):
        check_model(old, stacked)
    with pytest.raises(DataError, match="belongs to model"):
        check_model(total, base)
    with pytest.raises(DataError, match="belongs to model"):
        check_model(new, fork)
    other = calibrated(fork, tmp_path / "fork")
    with pytest.raises(DataError, match="another model"):
        combine([other.folder, total.folder], tmp_path / "no")
    later = open_base(tiny_llava)
    Earlier(chain["two"]).stack_on(later)
    assert total.lineage.leads_to(later.lineage) and not other.lineage.leads_to(later.lineage)


def test_what_cannot_be_chained_is_refused_with_the_reason(
    tiny_llava: Path, tiny_qwen: Path, chain: dict[str, Path], tmp_path: Path
) -> None:
    for name, reason in (("full", "the base's own weights"), ("moelora", "router depends")):
        with pytest.raises(UsageError, match=reason):
            read_earlier(chain["one"], make_method(name))
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": f"KORE_{name.upper()}"}))
        (folder / "kore.json").write_text(json.dumps({"base": "b", "format": name}))
        with pytest.raises(UsageError, match=reason):
            read_earlier(folder, make_method("kore"))
    with pytest.raises(DataError, match="the model is"):
        read_earlier(chain["one"]).stack_on(open_base(tiny_qwen))
    with pytest.raises(MissingArtefact, match="no run here"):
        read_earlier(tmp_path)
    bare = tmp_path / "bare"
    export(chain["one"], "peft", bare, ModelSection(id=str(tiny_llava)))
    with pytest.raises(DataError, match="does not say which base"):
        read_earlier(bare)
