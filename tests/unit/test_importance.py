"""Which inputs are worth an adapter: the score's formula, and what auto does with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from kore.adapters.lora import attach
from kore.config.resolve import AdapterSection, CalibrateSection, ModelSection, Profile
from kore.data.records import Sample
from kore.errors import UsageError
from kore.models.families import language_layers, language_linears
from kore.models.load import Backbone, load
from kore.models.processing import Encoder
from kore.nullspace.adapter_init import build, chosen_sites
from kore.nullspace.calibrate import Calibration
from kore.nullspace.site_selection import SiteScore, choose_sites, score_sites
from kore.workflows.calibrate_run import CalibrateJob


def some(folder: Path, count: int, answer: str) -> list[Sample]:
    made = []
    for n in range(count):
        path = folder / f"{answer}-{n}.png"
        Image.effect_noise((40, 30), 30 + 10 * n).convert("RGB").save(path)
        turns = [
            {"from": "human", "value": "<image>\nWhat is this" + " thing" * n + "?"},
            {"from": "gpt", "value": f"{answer} {n}"},
        ]
        made.append(Sample.from_json({"id": f"{answer}{n}", "image": str(path), "conversations": turns}))
    return made


@pytest.fixture(params=["tiny_llava", "tiny_qwen"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return load(ModelSection(id=str(request.getfixturevalue(request.param))))


def test_a_score_is_gradient_energy_over_old_energy_times_output_energy(
    backbone: Backbone, tmp_path: Path
) -> None:
    """Against autograd's own weight gradients, channel by channel."""
    old, new = some(tmp_path, 3, "old"), some(tmp_path, 2, "new")
    for parameter in backbone.model.parameters():
        parameter.requires_grad_(False)
    scores = score_sites(backbone, old, new)
    encoder = Encoder(backbone.processor)
    linears = language_linears(backbone.model, backbone.family)
    assert {n for s in scores for n in s.linears} == set(linears)
    name = scores[-1].linears[0]
    linear = linears[name]
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = linear.register_forward_hook(lambda m, a, y: seen.append((a[0][0], y[0])))
    one = {"labels", "input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"}
    with torch.no_grad():
        for sample in old:
            inputs = encoder.prompt(sample.conversations[:1], sample.images)
            backbone.model(**{k: v[None] if k in one else v for k, v in inputs.items()})
    handle.remove()
    x, y = (torch.cat(each).double() for each in zip(*seen, strict=True))
    channel = x.square().mean(dim=0)
    channel = channel + 0.01 * channel.mean()
    linear.weight.requires_grad_(True)
    energy = 0.0
    for sample in new:
        linear.weight.grad = None
        inputs = encoder.training(sample)
        backbone.model(**{k: v[None] if k in one else v for k, v in inputs.items()}).loss.backward()
        assert linear.weight.grad is not None
        energy += float((linear.weight.grad.double().square() / channel).sum())
    expected = energy * float(y.square().sum(dim=1).mean()) / linear.out_features
    assert scores[-1].linears == (name,)
    assert scores[-1].score == pytest.approx(expected, rel=1e-3)


def test_scoring_leaves_the_model_as_it_was(backbone: Backbone, tmp_path: Path) -> None:
    before = {n: p.requires_grad for n, p in backbone.model.named_parameters()}
    score_sites(backbone, some(tmp_path, 1, "old"), some(tmp_path, 1, "new"))
    assert {n: p.requires_grad for n, p in backbone.model.named_parameters()} == before
    assert all(p.grad is None for p in backbone.model.parameters())
    assert not any(m._forward_hooks for m in language_linears(backbone.model).values())
    assert not language_layers(backbone.model)[0]._forward_pre_hooks


def test_the_best_sites_within_the_share_are_taken_and_at_least_one() -> None:
    costs, scores = (4, 1, 3, 2), (1.0, 5.0, 3.0, 4.0)
    sites = [
        SiteScore(f"layers.{n}.o", n, (f"l.{n}.o",), c, s)
        for n, (c, s) in enumerate(zip(costs, scores, strict=True))
    ]
    assert [s.layer for s in choose_sites(sites, 1.0).chosen] == [0, 1, 2, 3]
    assert [s.layer for s in choose_sites(sites, 0.6).chosen] == [1, 2, 3]
    assert [s.layer for s in choose_sites(sites, 0.35).chosen] == [1, 3]
    assert [s.layer for s in choose_sites(sites, 0.01).chosen] == [1]
    assert "auto:0.35 takes 2 of 4 inputs, in 2 layers, 30%" in choose_sites(sites, 0.35).line()


def test_what_auto_leaves_out_is_neither_summed_nor_adapted(backbone: Backbone, tmp_path: Path) -> None:
    old, new = some(tmp_path, 4, "old"), some(tmp_path, 2, "new")
    whole = Calibration(backbone, old, CalibrateSection()).run(tmp_path / "all")
    choice = choose_sites(score_sites(backbone, old, new), 0.5)
    job = Calibration(backbone, old, CalibrateSection(), choice=choice)
    part = job.run(tmp_path / "part")
    assert [s.name for s in part.sites] == choice.names
    assert 0 < len(part.sites) < len(whole.sites)
    stored = sum(d * (d + 1) // 2 for d in (s.d_in for s in part.sites)) * 8
    assert job.plan.disk == stored
    for site in part.sites:
        assert torch.equal(part.matrix(site), whole.matrix(whole.site_of(site.linears[0])))
    assert part.manifest.fingerprint != whole.manifest.fingerprint
    assert [row["chosen"] for row in part.manifest.facts["choice"]["sites"]].count(True) == len(part.sites)
    made = build(backbone.model, part, AdapterSection(rank=2))
    assert set(made.a) == {n for s in choice.chosen for n in s.linears}
    model = attach(backbone.model, backbone.family, rank=2, a=made.a)
    assert {
        n.split(".lora_B")[0].removeprefix("base_model.model.")
        for n, p in model.named_parameters()
        if p.requires_grad
    } == set(made.a)
    with pytest.raises(UsageError, match="before the inputs are summed"):
        chosen_sites(whole, AdapterSection(layers="auto"))


def test_auto_without_new_samples_or_with_weights_on_disk_is_refused(
    tiny_llava: Path, tmp_path: Path
) -> None:
    profile = Profile(
        model=ModelSection(id=str(tiny_llava)),
        calibrate=CalibrateSection(layers="auto:0.5", samples=["demo"]),
    )
    with pytest.raises(UsageError, match="weighs new samples"):
        CalibrateJob(profile)
    with pytest.raises(UsageError, match="gradients through the whole model"):
        CalibrateJob(profile, offload=True, new=tmp_path / "new.jsonl")
