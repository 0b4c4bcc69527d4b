"""Calibration end to end on a tiny LLaVA: any batch size, any memory budget, any interruption."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from kore.adapters import lora as adapter
from kore.config.resolve import AdapterSection, CalibrateSection, ModelSection
from kore.data.records import Sample
from kore.errors import DataError, MissingArtefact, UsageError
from kore.io.files import read_json
from kore.models.families import language_linears
from kore.models.load import Backbone, dense, load
from kore.models.offload import Shards, open_skeleton
from kore.models.processing import Encoder
from kore.nullspace.adapter_init import build, factors
from kore.nullspace.calibrate import Calibration, calibrate
from kore.nullspace.covariance import Covariance, shard
from kore.nullspace.factor_cache import find, keep
from kore.nullspace.spectra import write_spectra
from kore.workflows.run_factors import run_factors


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for n in range(11):
        path = folder / f"{n}.png"
        Image.effect_noise((40, 30), 30 + 10 * n).convert("RGB").save(path)
        turns = [
            {"from": "human", "value": ("<image>\n" if n % 3 else "") + "What is this" + " thing" * n + "?"},
            {"from": "gpt", "value": "Peru " * (n + 1)},
            {"from": "human", "value": "And this?"},
            {"from": "gpt", "value": "Lima"},
        ]
        made.append(
            Sample.from_json({"id": str(n), "image": str(path) if n % 3 else None, "conversations": turns})
        )
    return made


@pytest.fixture
def backbone(tiny_llava: Path) -> Backbone:
    return load(ModelSection(id=str(tiny_llava)))


@pytest.fixture(params=["tiny_llava", "tiny_qwen"])
def either(request: pytest.FixtureRequest) -> Backbone:
    return load(ModelSection(id=str(request.getfixturevalue(request.param))))


def matrices(covariance: Covariance) -> dict[str, torch.Tensor]:
    return {s.name: covariance.matrix(s) for s in covariance.sites}


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float) -> bool:
    return a.keys() == b.keys() and all(
        float((a[k] - b[k]).norm()) <= tolerance * float(a[k].norm()) for k in a
    )


def test_the_sums_are_those_of_plain_hooks_on_one_sample_at_a_time(
    either: Backbone, samples: list[Sample], tmp_path: Path
) -> None:
    made = calibrate(either, samples, CalibrateSection(batch=4), tmp_path / "c")
    linears = language_linears(either.model, either.family)
    sums = {
        name: torch.zeros(m.in_features, m.in_features, dtype=torch.float64) for name, m in linears.items()
    }

    def hook(name: str):  # type: ignore[no-untyped-def]
        def after(module, args, out):  # type: ignore[no-untyped-def]
            x = args[0][0].double()
            sums[name] += x.T @ x

        return after

    handles = [m.register_forward_hook(hook(n)) for n, m in linears.items()]
    encoder = Encoder(either.processor)
    with torch.no_grad():
        for sample in samples:
            inputs = encoder.prompt(sample.conversations[:1], sample.images)
            either.model(**{k: v[None] if v.dim() == 1 else v for k, v in inputs.items()})
    for handle in handles:
        handle.remove()
    assert {s.site for s in made.sites} == {"qkv", "o", "gate_up", "down"}
    for name, expected in sums.items():
        ours = made.matrix(made.site_of(name))
        assert float((ours - expected).norm()) < 1e-5 * float(expected.norm())


def test_a_batch_of_eight_equals_eight_of_one(
    either: Backbone, samples: list[Sample], tmp_path: Path
) -> None:
    eight = calibrate(either, samples[:8], CalibrateSection(batch=8), tmp_path / "a")
    one = calibrate(either, samples[:8], CalibrateSection(batch=1), tmp_path / "b")
    assert close(matrices(eight), matrices(one), 1e-5)
    assert [s.tokens for s in eight.sites] == [s.tokens for s in one.sites]


@pytest.mark.parametrize("memory", ["112KiB", "77KiB"])
def test_layer_by_layer_equals_all_at_once(
    backbone: Backbone, samples: list[Sample], tmp_path: Path, memory: str
) -> None:
    whole = Calibration(backbone, samples[:4], CalibrateSection(batch=4))
    parts = Calibration(backbone, samples[:4], CalibrateSection(batch=4, memory=memory))
    assert (whole.plan.at_once, parts.plan.at_once) == (2, 1)
    assert parts.plan.hidden_on == ("memory" if memory == "112KiB" else "disk")
    first, second = whole.run(tmp_path / "a"), parts.run(tmp_path / "b")
    assert close(matrices(first), matrices(second), 1e-12)
    assert not (tmp_path / "b" / "hidden-states").exists()


def test_a_calibration_that_lost_its_last_layers_goes_on_and_gives_the_same(
    backbone: Backbone, samples: list[Sample], tmp_path: Path
) -> None:
    whole = calibrate(backbone, samples, CalibrateSection(batch=4), tmp_path / "a")
    stopped = Calibration(backbone, samples, CalibrateSection(batch=4, memory="77KiB"))

    class Killed(Exception):
        pass

    def kill(*report: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        stopped.run(tmp_path / "b", progress=kill)
    assert shard(tmp_path / "b", 0).exists() and not shard(tmp_path / "b", 1).exists()
    with pytest.raises(MissingArtefact, match="not finished"):
        Covariance(tmp_path / "b")
    layers = []
    resumed = calibrate(
        backbone,
        samples,
        CalibrateSection(batch=4),
        tmp_path / "b",
        progress=lambda stage, done, total=None, note="": layers.append(note),
    )
    assert layers == ["layer 1"]
    assert close(matrices(whole), matrices(resumed), 1e-12)


def test_answers_are_left_out_unless_asked_for(
    backbone: Backbone, samples: list[Sample], tmp_path: Path
) -> None:
    question = calibrate(backbone, samples, CalibrateSection(), tmp_path / "a")
    answered = calibrate(backbone, samples, CalibrateSection(with_answers=True), tmp_path / "b")
    assert answered.sites[0].tokens > question.sites[0].tokens + 100


def test_a_finished_folder_is_kept_and_other_settings_are_refused(
    backbone: Backbone, samples: list[Sample], tmp_path: Path
) -> None:
    calibrate(backbone, samples, CalibrateSection(), tmp_path / "c")
    again: list[object] = []
    calibrate(
        backbone, samples, CalibrateSection(), tmp_path / "c", progress=lambda *report: again.append(report)
    )
    assert not again
    with pytest.raises(UsageError, match="with_answers: False -> True"):
        calibrate(backbone, samples, CalibrateSection(with_answers=True), tmp_path / "c")
    facts = read_json(tmp_path / "c" / "manifest.json")["facts"]
    assert [s["id"] for s in facts["samples"]] == [str(n) for n in range(11)]


def test_a_broken_picture_names_its_sample(backbone: Backbone, samples: list[Sample], tmp_path: Path) -> None:
    bad = samples[1].model_copy(update={"image": str(tmp_path / "none.png")})
    with pytest.raises(DataError, match="sample 1: no such picture"):
        calibrate(backbone, [samples[0], bad], CalibrateSection(), tmp_path / "c")


def test_the_adapter_changes_nothing_at_first_and_little_on_old_inputs_later(
    backbone: Backbone, samples: list[Sample], tmp_path: Path
) -> None:
    made = calibrate(backbone, samples, CalibrateSection(), tmp_path / "c")
    a = factors(backbone.model, made, AdapterSection(rank=8))
    assert set(a) == set(language_linears(backbone.model, backbone.family))
    site = made.sites[0]
    c, ours = made.matrix(site), a[site.linears[0]].double()
    energy = float((ours @ c * ours).sum() / ours.square().sum())
    other = torch.randn_like(ours)
    assert energy < 0.01 * float((other @ c * other).sum() / other.square().sum())
    ids = torch.randint(3, 300, (2, 7))
    with torch.no_grad():
        before = backbone.model(input_ids=ids).logits
        model = adapter.attach(backbone.model, backbone.family, rank=8, a=a)
        assert torch.equal(model(input_ids=ids).logits, before)


def test_spectra_are_what_the_dashboard_reads(
    backbone: Backbone, samples: list[Sample], tmp_path: Path
) -> None:
    made = calibrate(backbone, samples, CalibrateSection(), tmp_path / "c")
    report = build(backbone.model, made, AdapterSection(rank=4)).report
    write_spectra(made, tmp_path / "spectra.json", AdapterSection(rank=4), report=report)
    drawn = read_json(tmp_path / "spectra.json")
    assert len(drawn["sites"]) == 8
    for site, row in zip(made.sites, drawn["sites"], strict=True):
        assert row["eigenvalues"] == sorted(row["eigenvalues"], reverse=True)
        assert row["index"][0] == 1 and row["index"][-1] == site.d_in and len(row["index"]) <= 256
        assert sum(row["eigenvalues"][:1]) <= row["trace"]
        assert row["rank"] == 4 and 0 <= row["energy_left"] < 0.01
        assert len(row["heatmap"]) == 32 and len(row["heatmap"][0]) == 32


@pytest.mark.parametrize("family", ["tiny_llava", "tiny_qwen"])
def test_weights_from_disk_layer_by_layer_give_the_same_matrices(
    family: str, request: pytest.FixtureRequest, samples: list[Sample], tmp_path: Path
) -> None:
    section = ModelSection(id=str(request.getfixturevalue(family)))
    whole = load(section)
    first = calibrate(whole, samples, CalibrateSection(batch=4), tmp_path / "a")
    backbone, weights = open_skeleton(section)
    job = Calibration(backbone, samples, CalibrateSection(batch=4), weights=weights)
    second = job.run(tmp_path / "b")
    assert close(matrices(first), matrices(second), 1e-12)
    assert all(p.is_meta for p in backbone.model.parameters())
    a, b = (
        factors(source, covariance, AdapterSection(rank=3))
        for source, covariance in ((whole.model, first), (weights.shards, second))
    )
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("settings", [{"rank": 3}, {"keep": 0.9}, {"budget": "4k"}])
def test_each_weight_is_read_once(
    tiny_llava: Path,
    samples: list[Sample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    backbone, weights = open_skeleton(ModelSection(id=str(tiny_llava)))
    job = Calibration(backbone, samples, CalibrateSection(batch=4), weights=weights)
    covariance = job.run(tmp_path / "c")
    reads: Counter[str] = Counter()
    tensor = Shards.tensor
    monkeypatch.setattr(Shards, "tensor", lambda self, name: reads.update([name]) or tensor(self, name))
    made = build(weights.shards, covariance, AdapterSection(**settings))
    assert reads == {f"{name}.weight": 1 for name in made.a}
    reads.clear()
    monkeypatch.setattr(
        "kore.nullspace.adapter_init.dense", lambda linear: reads.update([linear]) or dense(linear)
    )
    whole = load(ModelSection(id=str(tiny_llava)))
    build(whole.model, covariance, AdapterSection(**settings))
    assert set(reads.values()) == {1} and len(reads) == len(made.a)


def test_factors_kept_beside_a_covariance_are_those_that_training_takes(
    tiny_llava: Path, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, section = ModelSection(id=str(tiny_llava)), AdapterSection(rank=3)
    backbone, weights = open_skeleton(model)
    job = Calibration(backbone, samples, CalibrateSection(batch=4), weights=weights)
    covariance = job.run(tmp_path / "c")
    assert find(covariance, section) is None
    keep(weights.shards, covariance, section)
    whole = load(model)
    computed = build(whole.model, covariance, section)
    assert find(covariance, AdapterSection(rank=2)) is None
    monkeypatch.setattr("kore.nullspace.adapter_init.build", None)  # nothing is computed again
    (tmp_path / "run").mkdir()
    taken = run_factors(tmp_path / "run", whole, covariance, section)
    assert taken.keys() == computed.a.keys()
    assert all(torch.equal(taken[name], computed.a[name]) for name in taken)
    found = find(covariance, section)
    assert found is not None and found.report == computed.report
