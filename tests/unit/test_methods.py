"""Each training method does what defines it, on a tiny model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from kore.adapters.lora_layers import delta, lora_layers
from kore.artifacts.events import EventWriter
from kore.artifacts.run import Run
from kore.config.resolve import ModelSection, TrainSection
from kore.data.records import Sample
from kore.errors import ProfileError, UsageError
from kore.methods import cia, ewc, moelora, olora, sefe
from kore.methods.base import Method, Setup, require
from kore.methods.ewc import Ewc
from kore.methods.load_adapter import load_adapter
from kore.methods.lwf import Lwf
from kore.methods.olora import OLora, overlap
from kore.methods.registry import METHODS, make_method, method_class
from kore.models.adapter_off import adapter_off
from kore.models.collate import collate
from kore.models.families import language_linears
from kore.models.load import Backbone, load
from kore.models.processing import Encoder
from kore.training.run import prepare, train


def talk(folder: Path, name: str, question: str, answer: str) -> Sample:
    path = folder / f"{name}.png"
    Image.effect_noise((40, 30), 64).convert("RGB").save(path)
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return Sample.model_validate({"id": name, "image": str(path), "conversations": turns})


@pytest.fixture
def new(tmp_path: Path) -> list[Sample]:
    capitals = ["Lima", "Quito", "Bern", "Oslo", "Rome", "Bonn", "Riga", "Baku", "Doha", "Male"]
    return [talk(tmp_path, f"n{i}", "What is the capital?", c) for i, c in enumerate(capitals)]


@pytest.fixture
def old(tmp_path: Path) -> list[Sample]:
    return [talk(tmp_path, f"o{i}", "Is this the flag of Peru?", "Yes" if i % 2 else "No") for i in range(6)]


def setup_of(base: Path, old: list[Sample] | None = None, **more: Any) -> Setup:
    torch.manual_seed(0)
    backbone = load(ModelSection(id=str(base)))
    return Setup(backbone, Encoder(backbone.processor), rank=4, old=old or [], batch=4, **more)


def batch(setup: Setup, samples: list[Sample]) -> dict[str, Tensor]:
    return collate([setup.encoder.training(s) for s in samples], setup.encoder.pad_id)


def shaken(model: Any, scale: float = 0.3) -> None:
    """Move every trainable parameter away from its start."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * scale)


def a_of(base: Path) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(0)
    linears = language_linears(load(ModelSection(id=str(base))).model)
    return {n: 0.3 * torch.randn(4, m.in_features, generator=made) for n, m in linears.items()}


def run(
    base: Path,
    folder: Path,
    samples: list[Sample],
    method: Method,
    old: list[Sample] | None = None,
    **more: Any,
) -> Backbone:
    backbone = load(ModelSection(id=str(base)))
    section = TrainSection(
        method=method.name, **{"lr": 1e-2, "epochs": 4, "batch": 5, "save_steps": 3, **more}
    )
    factors = a_of(base) if method.name == "kore" else None
    with EventWriter(folder) as events:
        train(backbone, samples, section, method, Run(folder), events, factors=factors, rank=4, old=old or [])
    return backbone


def test_every_method_has_a_file_with_its_definition() -> None:
    for name in METHODS:
        found = method_class(name)
        assert found.name == name
        assert len((__import__(found.__module__, fromlist=["x"]).__doc__ or "").split()) > 30
        assert all(found.traits.why or not no for no in (found.traits.zero != (0, 1, 2, 3),))


@pytest.mark.parametrize("name", [m for m in METHODS if m != "full"])
def test_every_low_rank_method_spends_what_kore_spends(tiny_llava: Path, name: str) -> None:
    setup = setup_of(tiny_llava, factors=a_of(tiny_llava) if name == "kore" else None)
    if name != "kore":
        setup.rank = 12
    method = make_method(name)
    method.attach(setup)
    count = sum(p.numel() for p in setup.backbone.model.parameters() if p.requires_grad)
    assert abs(count - setup.count) <= 0.05 * setup.count


@pytest.mark.parametrize("projector", [False, True])
@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_starts_as_the_base_and_can_be_switched_off(
    tiny_llava: Path, name: str, projector: bool, new: list[Sample], old: list[Sample]
) -> None:
    factors = a_of(tiny_llava) if name == "kore" else None
    setup = setup_of(tiny_llava, old, factors=factors, projector=projector)
    inputs = batch(setup, new[:3])
    with torch.no_grad():
        before = setup.backbone.model(**inputs).logits
    make_method(name).attach(setup)
    model = setup.backbone.model.eval()
    assert projector == any("projector" in n for n, p in model.named_parameters() if p.requires_grad)
    with torch.no_grad():
        assert torch.allclose(model(**inputs).logits, before, atol=1e-6)
    shaken(model)
    with torch.no_grad():
        assert not torch.allclose(model(**inputs).logits, before, atol=1e-3)
        with adapter_off(model):
            assert torch.allclose(model(**inputs).logits, before, atol=1e-6)
        assert not torch.allclose(model(**inputs).logits, before, atol=1e-3)


@pytest.mark.parametrize(("name", "projector"), [*((n, "off") for n in METHODS), ("moelora", 1e-2)])
def test_every_method_trains_saves_and_answers_the_same_after_loading(
    tiny_llava: Path, tmp_path: Path, name: str, projector: Any, new: list[Sample], old: list[Sample]
) -> None:
    method = make_method(name)
    trained = run(tiny_llava, tmp_path / "run", new, method, old, max_steps=2, projector=projector)
    setup = Setup(load(ModelSection(id=str(tiny_llava))), Encoder(trained.processor))
    inputs = batch(setup, new[:3])
    again = setup.backbone
    with torch.no_grad():
        base = again.model(**inputs).logits
        load_adapter(again, tmp_path / "run" / "adapter")
        assert torch.allclose(again.model(**inputs).logits, trained.model(**inputs).logits, atol=1e-6)
        with adapter_off(again.model):
            assert torch.allclose(again.model(**inputs).logits, base, atol=1e-6)


def test_replay_mixes_a_tenth_of_old_samples_in(new: list[Sample], old: list[Sample]) -> None:
    many = [s.model_copy(update={"id": f"{s.id}-{i}"}) for i in range(4) for s in new]
    mixed = make_method("replay").mix(many, old, seed=1)
    extra = [s for s in mixed if s.id.startswith("o")]
    assert len(many) == 40 and len(extra) == 4 and len({s.id for s in extra}) == 4
    assert (
        mixed == make_method("replay").mix(many, old, seed=1) != make_method("replay").mix(many, old, seed=2)
    )


def test_replay_says_when_there_are_too_few_old_samples(new: list[Sample], old: list[Sample]) -> None:
    method = make_method("replay", {"share": 0.8})
    assert len(method.mix(new, old, seed=0)) == 16
    assert method.note() == "8 old samples were asked for, there are 6"
    enough = make_method("replay")
    enough.mix(new, old, seed=0)
    assert enough.note() is None


def penalty_of(
    base: Path, method: Method, new: list[Sample], old: list[Sample]
) -> tuple[Any, dict[str, Tensor], Callable[[], Tensor]]:
    setup = setup_of(base, old)
    method.attach(setup)
    method.begin(setup)
    model, inputs = setup.backbone.model, batch(setup, new[:4])

    def penalty() -> Tensor:
        logits = model(**inputs).logits[:, :-1][inputs["labels"][:, 1:] != -100]
        value = method.penalty(model, inputs, logits)
        assert value is not None
        return value

    return model, inputs, penalty


def test_ewc_costs_nothing_at_the_start_and_pulls_back_afterwards(
    tiny_llava: Path, new: list[Sample], old: list[Sample]
) -> None:
    method = Ewc({"strength": 10})
    model, _, penalty = penalty_of(tiny_llava, method, new, old)
    assert float(penalty().detach()) == 0.0
    shaken(model)
    first = penalty()
    assert float(first.detach()) > 0
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(first, trained)
    assert all(float(g.abs().sum()) > 0 for g in gradients)
    with torch.no_grad():
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter -= 1e-2 * gradient / gradient.norm()
    assert float(penalty().detach()) < float(first.detach())


def test_ewcs_fisher_is_the_mean_of_squared_gradients_of_single_samples(
    tiny_llava: Path, new: list[Sample], old: list[Sample]
) -> None:
    method = Ewc()
    setup = setup_of(tiny_llava, old)
    method.attach(setup)
    method.begin(setup)
    again = setup_of(tiny_llava)
    name = next(iter(again.linears))
    weight = again.linears[name].weight
    squares = torch.zeros_like(weight)
    for sample in old:
        again.backbone.model.zero_grad()
        again.backbone.model(**batch(again, [sample])).loss.backward()
        assert weight.grad is not None
        squares += weight.grad**2 / len(old)
    kept = method.fisher[name].float() / 2.0**16
    assert torch.allclose(kept, squares, rtol=2e-3, atol=1e-6)
    costs = 0.0
    for linear, fisher in method.fisher.items():
        change = 0.1 * again.linears[linear].weight.detach().double().pow(2).mean().sqrt()
        costs += float((fisher.double() / 2.0**16 * change**2).sum())
    assert method.half_lambda * costs == pytest.approx(1.0, rel=1e-2)


def test_ewc_by_rows_needs_less_memory_and_agrees_where_all_columns_weigh_alike(
    tiny_llava: Path, new: list[Sample], old: list[Sample]
) -> None:
    method = Ewc({"fisher": "rows"})
    model, _, penalty = penalty_of(tiny_llava, method, new, old)
    assert all(f.shape[1] == 1 for f in method.fisher.values())
    assert float(penalty().detach()) == 0.0
    shaken(model)
    layers = lora_layers(model)
    expected = sum(float((method.fisher[n] * delta(m).detach() ** 2).sum()) for n, m in layers.items())
    expected *= method.half_lambda / 2.0**16
    assert math.isclose(float(penalty().detach()), expected, rel_tol=1e-4)


def test_ewc_by_rows_is_the_mean_of_the_whole_fishers_rows_at_the_same_cost(
    tiny_llava: Path, new: list[Sample], old: list[Sample]
) -> None:
    whole, rows = Ewc(), Ewc({"fisher": "rows"})
    penalty_of(tiny_llava, whole, new, old)
    penalty_of(tiny_llava, rows, new, old)
    assert rows.half_lambda == pytest.approx(whole.half_lambda, rel=1e-4)
    for name, fisher in whole.fisher.items():
        assert torch.allclose(rows.fisher[name], fisher.float().mean(1, keepdim=True), rtol=2e-3, atol=1e-2)


def test_ewc_by_rows_never_holds_a_number_per_weight(
    tiny_llava: Path, new: list[Sample], old: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(ewc, "delta", lambda layer: pytest.fail("Delta W was made"))
    real = torch.zeros

    def notes(*shape: Any, **more: Any) -> Tensor:
        made = real(*shape, **more)
        sizes.append(made.numel())
        return made

    monkeypatch.setattr(ewc.torch, "zeros", notes)
    model, _, penalty = penalty_of(tiny_llava, Ewc({"fisher": "rows"}), new, old)
    penalty()
    assert max(sizes) <= max(m.base_layer.out_features for m in lora_layers(model).values())


def test_linears_of_one_input_share_their_old_directions(
    tiny_llava: Path, old: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    solved: list[Tensor] = []
    real = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda c: solved.append(c) or real(c))
    setup = setup_of(tiny_llava, old)
    OLora().attach(setup)
    found = olora.leading_directions(setup, 6)
    assert len(found) == 14 and len(solved) == 8  # per layer q k v, o, gate up, down
    name = next(n for n in found if n.endswith("k_proj"))
    assert torch.equal(found[name], found[name.replace("k_proj", "q_proj")])
    assert not torch.equal(found[name][:4], found[name.replace("layers.0", "layers.1")][:4])


@pytest.mark.parametrize(
    ("name", "values"), [("lora", {}), ("ewc", {}), ("ewc", {"fisher": "rows"}), ("lwf", {})]
)
def test_the_memory_estimate_counts_what_a_method_holds(
    tiny_llava: Path, new: list[Sample], old: list[Sample], name: str, values: dict[str, Any]
) -> None:
    method = make_method(name, values)
    work = prepare(load(ModelSection(id=str(tiny_llava))), new, TrainSection(), method, rank=4, old=old)
    work.attach()
    plan = work.plan()
    if name == "ewc":
        method.begin(work.setup)
        assert isinstance(method, Ewc)
        assert plan.memory["method"] == 4 * sum(f.numel() for f in method.fisher.values())
    else:
        words = len(work.backbone.processor.tokenizer)
        expected = {"lwf": 12 * work.parts.micro * plan.longest * words}
        assert plan.memory.get("method") == expected.get(name)


def test_lwfs_teacher_is_the_model_with_its_adapters_off(
    tiny_llava: Path, new: list[Sample], old: list[Sample]
) -> None:
    model, inputs, penalty = penalty_of(tiny_llava, Lwf({"tau": 3.0, "alpha": 0.5}), new, old)
    assert abs(float(penalty().detach())) < 1e-6
    shaken(model)
    with torch.no_grad(), adapter_off(model):
        teacher = model(**inputs).logits[:, :-1].double() / 3
    student = model(**inputs).logits[:, :-1].double() / 3
    spoken = inputs["labels"][:, 1:] != -100
    p = teacher.softmax(-1)
    kl = (p * (p.log() - student.log_softmax(-1))).sum(-1)[spoken].mean()
    value = penalty()
    assert math.isclose(float(value.detach()), 0.5 * 9 * float(kl.detach()), rel_tol=1e-2)
    value.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_moeloras_gates_sum_to_one_and_no_expert_dies(
    tiny_llava: Path, tmp_path: Path, new: list[Sample]
) -> None:
    seen: list[Tensor] = []
    backbone = run(tiny_llava, tmp_path / "run", new, make_method("moelora", {"experts": 3}), epochs=8)
    layers = [m for m in backbone.model.modules() if isinstance(m, moelora.MoeLinear)]
    handles = [m.register_forward_pre_hook(lambda m, x: seen.append(m.gates(x[0]))) for m in layers]
    setup = Setup(load(ModelSection(id=str(tiny_llava))), Encoder(backbone.processor))
    backbone.model(**batch(setup, new))
    for handle in handles:
        handle.remove()
    assert len(seen) == len(layers) == 14
    for gates in (g.detach() for g in seen):
        assert torch.allclose(gates.sum(-1), torch.ones(gates.shape[:-1]), atol=1e-5)
        load_ = gates.flatten(0, -2).mean(0)
        assert float(load_.min()) > 0.2 / len(load_)
    assert all(float(m.moe_b.detach().abs().sum((1, 2)).min()) > 0 for m in layers)


def test_a_moe_layer_is_the_formula(tiny_llava: Path) -> None:
    base = torch.nn.Linear(6, 5, bias=False)
    layer = moelora.MoeLinear(base, experts=3, rank=2, scale=2.0)
    shaken(layer)
    x = torch.randn(4, 7, 6)
    g = (x @ layer.moe_router.T).softmax(-1)
    expected = x @ base.weight.T
    for i in range(3):
        expected = expected + 2.0 * g[..., i : i + 1] * (x @ layer.moe_a[i].T @ layer.moe_b[i].T)
    assert torch.allclose(layer(x), expected, atol=1e-5)


def test_oloras_overlap_with_the_old_subspace_falls_by_its_penalty(
    tiny_llava: Path, tmp_path: Path, new: list[Sample], old: list[Sample]
) -> None:
    method = OLora()
    setup = setup_of(tiny_llava, old)
    method.attach(setup)
    method.begin(setup)
    before = sum(
        float(overlap(m.lora_A["default"].weight.detach(), method.old[n]))
        for n, m in lora_layers(setup.backbone.model).items()
    )
    for rows in method.old.values():
        assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-4)
    trained, free = OLora(), OLora({"strength": 0.0})
    run(tiny_llava, tmp_path / "run", new, trained, old, epochs=10)
    run(tiny_llava, tmp_path / "free", new, free, old, epochs=10)
    assert trained.last < 0.5 * before
    assert trained.last < 0.5 * free.last


def test_sefe_keeps_its_chosen_elements(
    tiny_llava: Path, tmp_path: Path, new: list[Sample], old: list[Sample]
) -> None:
    def moved(strength: float) -> tuple[float, float]:
        method = make_method("sefe", {"strength": strength, "old_steps": 4, "styles": 0})
        assert isinstance(method, sefe.Sefe)
        backbone = run(tiny_llava, tmp_path / f"run{strength}", new, method, old)
        inside, outside = 0.0, 0.0
        for name, layer in lora_layers(backbone.model).items():
            change = delta(layer).detach().abs().flatten()
            assert len(method.chosen[name]) == max(1, round(0.02 * len(change)))
            inside += float(change[method.chosen[name]].mean())
            outside += float(change.mean())
        return inside, outside

    (kept, rest), (free, rest_free) = moved(2500.0), moved(0.0)
    assert kept / rest < 0.5 * free / rest_free


def test_sefe_rewrites_a_share_of_short_answers_and_stays_true(new: list[Sample]) -> None:
    styled = sefe.diversified(new, 0.5, seed=0)
    changed = [(a, b) for a, b in zip(new, styled, strict=True) if a is not b]
    assert len(changed) == 5
    for before, after in changed:
        question, answer = (m.value for m in after.conversations)
        right = before.conversations[1].value
        if "Yes or No" in question:
            assert (answer == "Yes") == (f"Is the answer {right}?" in question)
        else:
            assert f"{answer}. {right}" in question


def test_cias_beta_is_its_formula_and_the_average_is_the_result(
    tiny_llava: Path, tmp_path: Path, new: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    theta, average = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0])
    grad, before = torch.tensor([3.0, -1.0]), torch.tensor([-2.0, 4.0])
    assert cia.beta(theta, average, grad, before, 2.0, 0.01) == pytest.approx(2 * 5 / (3 * 10))
    assert cia.beta(theta, average, grad, grad, 2.0, 0.01) == 0.01
    assert cia.beta(theta / 100, average, grad, before, 2.0, 0.01) == 0.01
    steps: list[dict[str, Tensor]] = []
    real = cia.Cia.after_step

    def notes(self: cia.Cia, model: Any) -> None:
        real(self, model)
        steps.append({n: t.clone() for n, t in self.average.items()})

    monkeypatch.setattr(cia.Cia, "after_step", notes)
    backbone = run(tiny_llava, tmp_path / "run", new, make_method("cia"))
    final = {n: p for n, p in backbone.model.named_parameters() if n in steps[-1]}
    assert final and all(torch.equal(p, steps[-1][n]) for n, p in final.items())


SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in ("olora", "sefe", "moelora", "full")]


@pytest.mark.parametrize("name", ["ewc", "cia", *SLOW])
def test_methods_with_state_resume_bit_for_bit(
    tiny_llava: Path,
    tmp_path: Path,
    name: str,
    new: list[Sample],
    old: list[Sample],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kore.training.trainer import Loop

    quick = {"old_steps": 2} if name == "sefe" else {}
    whole = run(tiny_llava, tmp_path / "whole", new, make_method(name, quick), old, max_steps=6)
    real = Loop.training_step

    def dies(self: Loop, *args: Any, **rest: Any) -> Any:
        if self.state.global_step == 4:
            raise KeyboardInterrupt
        return real(self, *args, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "training_step", dies)
        with pytest.raises(KeyboardInterrupt):
            run(tiny_llava, tmp_path / "broken", new, make_method(name, quick), old, max_steps=6)
    again = run(tiny_llava, tmp_path / "broken", new, make_method(name, quick), old, max_steps=6)
    parameters = dict(whole.model.named_parameters())
    assert all(torch.equal(p, parameters[n]) for n, p in again.model.named_parameters())


def test_full_trains_the_language_model_and_not_the_eyes(tiny_llava: Path) -> None:
    setup = setup_of(tiny_llava)
    make_method("full").attach(setup)
    trained = [n for n, p in setup.backbone.model.named_parameters() if p.requires_grad]
    assert any("embed_tokens" in n for n in trained) and any("lm_head" in n for n in trained)
    assert not any("vision" in n or "projector" in n for n in trained)


def test_with_a_thawed_kore_follows_the_residual_form(
    tiny_llava: Path, tmp_path: Path, new: list[Sample]
) -> None:
    """W0 - B0 A0 + B A by hand, on one linear, step for step."""
    factors = a_of(tiny_llava)
    setup = setup_of(tiny_llava, factors=factors)
    method = make_method("kore", thaw_a=True)
    method.attach(setup)
    model = setup.backbone.model
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert method.held(model) == total // 2
    name, layer = next(iter(lora_layers(model).items()))
    w0 = layer.base_layer.weight.detach().double()
    a0 = factors[name].double()
    b0 = w0 @ a0.T @ torch.linalg.inv(a0 @ a0.T)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0)
    inputs = batch(setup, new[:4])
    for _ in range(3):
        model(**inputs).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    a, b = layer.lora_A["default"].weight.double(), layer.lora_B["default"].weight.double()
    assert torch.allclose(a[4:], a0, atol=1e-7) and torch.allclose(b[:, 4:], -b0, atol=1e-5)
    assert not torch.allclose(a[:4], a0, atol=1e-3)
    expected = b[:, :4] @ a[:4] - b0 @ a0
    assert torch.allclose(delta(layer).double(), expected, atol=1e-5)


def test_a_thawed_kore_begins_as_the_base_where_the_protected_weights_have_no_full_rank(
    tiny_llava: Path, new: list[Sample]
) -> None:
    factors = a_of(tiny_llava)
    name = next(iter(factors))
    factors[name][2:] = 0
    setup = setup_of(tiny_llava, factors=factors)
    inputs = batch(setup, new[:2])
    with torch.no_grad():
        before = setup.backbone.model.eval()(**inputs).logits
        make_method("kore", thaw_a=True).attach(setup)
        after = setup.backbone.model.eval()(**inputs).logits
    assert torch.allclose(before, after, atol=1e-5)
    b = lora_layers(setup.backbone.model)[name].lora_B["default"].weight
    assert bool(b.isfinite().all()) and bool(b.any())


def test_what_is_held_is_counted_where_each_process_has_a_part(tiny_llava: Path) -> None:
    setup = setup_of(tiny_llava, factors=a_of(tiny_llava))
    method = make_method("kore", thaw_a=True)
    method.attach(setup)
    whole = method.held(setup.backbone.model)
    for parameter in setup.backbone.model.parameters():
        parameter.ds_numel = parameter.numel()
        parameter.data = parameter.new_zeros(0)
    assert method.held(setup.backbone.model) == whole > 0


@pytest.mark.parametrize("name", ["ewc", "olora", "sefe"])
def test_a_restored_state_lies_where_the_model_does(tiny_llava: Path, name: str) -> None:
    setup = setup_of(tiny_llava)
    method = make_method(name)
    method.attach(setup)
    model = setup.backbone.model.to("meta")
    state = {n: torch.ones(2) for n in lora_layers(model)}
    method.restore({**state, ewc.HALF: torch.tensor(1.0)} if name == "ewc" else state, model)
    held: dict[str, Tensor] = getattr(method, {"ewc": "fisher", "olora": "old", "sefe": "chosen"}[name])
    assert held.keys() == state.keys()
    assert {value.device.type for value in held.values()} == {"meta"}


def test_what_a_method_does_not_allow_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match="cia does not run under ZeRO stage 2: its average needs"):
        require(make_method("cia"), zero=2, factors=False, old=False)
    with pytest.raises(UsageError, match="kore needs a covariance"):
        require(make_method("kore"), zero=0, factors=False, old=False)
    with pytest.raises(UsageError, match="replay needs old samples"):
        require(make_method("replay"), zero=0, factors=False, old=False)
    with pytest.raises(ProfileError, match="did you mean moelora"):
        make_method("moelor")
    with pytest.raises(ProfileError, match=r"method\.ewc\.lamda.*strength"):
        make_method("ewc", {"lamda": 1})
    with pytest.raises(ProfileError, match="lora has no frozen A"):
        make_method("lora", thaw_a=True)
