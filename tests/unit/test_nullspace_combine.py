"""Sums of covariances, lineage, and what an adapter does to held-out inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kore.artifacts.manifest import Manifest
from kore.config.resolve import AdapterSection, resolve
from kore.errors import DataError, UsageError
from kore.models.lineage import Lineage, read_lineage
from kore.nullspace.accumulator import Accumulator
from kore.nullspace.adapter_init import build
from kore.nullspace.combine import combine
from kore.nullspace.covariance import KIND, Covariance, Site, write_shard
from kore.nullspace.interference import interference, summary
from kore.nullspace.rank_selection import choose_ranks
from kore.nullspace.report import report
from kore.workflows.train_dry_run import dry_run_training
from kore.workflows.train_run import TrainRequest
from tests.held import held


def rows(n: int, d: int, seed: int) -> Tensor:
    """Inputs whose energy falls by ten from one direction to the next few, (n, d)."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x * torch.exp(-0.3 * torch.arange(d).double())


def covariance(
    folder: Path,
    seed: int,
    *,
    model: str = "m",
    root: str | None = None,
    chain: tuple[str, ...] = (),
    n: int = 60,
    layers: tuple[int, ...] = (0, 1),
) -> Covariance:
    """Layers of one site each, d = 16."""
    sites = []
    for layer in layers:
        total = Accumulator(16)
        total.add(rows(n, 16, 10 * seed + layer))
        packed = total.packed()
        site = Site.measure(packed, layer=layer, site="qkv", linears=[f"l.{layer}.q"], d_in=16, tokens=n)
        write_shard(folder, layer, {"qkv": packed}, [site])
        sites.append(site.to_json())
    settings = {"root": root or model, "lineage": list(chain), "seed": seed}
    Manifest(KIND, settings, {"model": model}, facts={"tokens": n}).finished(sites=sites).write(folder)
    return Covariance(folder)


def test_the_sum_of_covariances_is_the_covariance_of_the_union(tmp_path: Path) -> None:
    a, b = covariance(tmp_path / "a", 1), covariance(tmp_path / "b", 2)
    made = combine([a.folder, b.folder], tmp_path / "c", weights=[1.0, 0.5])
    for site in made.sites:
        x, y = rows(60, 16, 10 + site.layer), rows(60, 16, 20 + site.layer)
        assert torch.allclose(made.matrix(site), x.T @ x + 0.5 * y.T @ y, rtol=1e-12, atol=1e-12)
        assert site.tokens == 120
        assert site.trace == pytest.approx(float(x.square().sum() + 0.5 * y.square().sum()))


def test_a_sum_holds_the_sites_that_all_its_parts_hold(tmp_path: Path) -> None:
    whole, part = covariance(tmp_path / "a", 1), covariance(tmp_path / "b", 2, layers=(1,))
    made = combine([whole.folder, part.folder], tmp_path / "c")
    assert [s.name for s in made.sites] == ["layers.1.qkv"]
    assert made.manifest.facts["left_out"] == ["layers.0.qkv"]
    other = covariance(tmp_path / "e", 1, layers=(0,))
    with pytest.raises(DataError, match="no site in common"):
        combine([other.folder, part.folder], tmp_path / "d")


def test_a_finished_covariance_that_lost_a_shard_is_refused(tmp_path: Path) -> None:
    (covariance(tmp_path / "a", 1).folder / "layer-0001.safetensors").unlink()
    with pytest.raises(DataError, match=r"shards are incomplete: layers\.1\.qkv is missing"):
        Covariance(tmp_path / "a")


@pytest.mark.parametrize("out", ["a", "sub/../b", "."])
def test_a_sum_is_not_written_over_its_own_parts(tmp_path: Path, out: str) -> None:
    folders = [covariance(tmp_path / name, n).folder for n, name in enumerate("ab")]
    (tmp_path / "sub").mkdir()
    combine(folders, tmp_path / "c")
    (tmp_path / "c" / "manifest.json").rename(tmp_path / "manifest.json")  # a folder that holds its parts
    with pytest.raises(UsageError, match="is or holds what is read"):
        combine(folders, tmp_path / out, restart=True)
    assert all(Covariance(folder).sites for folder in folders)


def test_sums_run_along_one_lineage_only(tmp_path: Path) -> None:
    base = covariance(tmp_path / "a", 1, model="m")
    later = covariance(tmp_path / "b", 2, model="m1", root="m", chain=("one",))
    latest = covariance(tmp_path / "c", 3, model="m2", root="m", chain=("one", "two"))
    made = combine([base.folder, latest.folder, later.folder], tmp_path / "sum")
    assert made.model == "m2"
    assert made.lineage == Lineage("m", ("one", "two"))
    fork = covariance(tmp_path / "d", 4, model="m3", root="m", chain=("other",))
    stranger = covariance(tmp_path / "e", 5, model="x")
    for wrong in (fork, stranger):
        with pytest.raises(DataError, match="another model"):
            combine([wrong.folder, latest.folder], tmp_path / f"no-{wrong.folder.name}")
    for bad in (-1, 0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="positive weights"):
            combine([base.folder, later.folder], tmp_path / "no", weights=[1, bad])
    with pytest.raises(UsageError, match="at least two"):
        combine([base.folder], tmp_path / "no")


def test_a_lineage_is_written_and_read(tmp_path: Path) -> None:
    assert read_lineage(tmp_path, "f") == Lineage("f")
    chain = Lineage("f").then("a").then("b")
    chain.write(tmp_path)
    assert read_lineage(tmp_path, "g") == chain
    assert Lineage("f", ("a",)).leads_to(chain) and not chain.leads_to(Lineage("f", ("a",)))


def test_kore_disturbs_held_out_inputs_far_less_than_a_random_a(tmp_path: Path) -> None:
    own, held = covariance(tmp_path / "a", 1, n=400), covariance(tmp_path / "b", 2, n=100)
    weight = torch.randn(20, 16, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    linear = nn.Linear(16, 20, bias=False, dtype=torch.float64)
    linear.weight.data = weight
    names = [name for site in own.sites for name in site.linears]
    made = build(dict.fromkeys(names, linear), own, AdapterSection(rank=4))
    found = interference(lambda name: weight, made.a, held, own=own)
    means = summary(found)
    assert means["kore"] < 0.2 * means["random"] and means["kore"] < 0.2 * means["lora"]
    x = rows(100, 16, 20)
    a = made.a["l.0.q"].double()
    b, _ = torch.linalg.qr(torch.randn(20, 4, dtype=torch.float64))
    expected = float((x @ a.T @ b.T).norm() / (x @ weight.T).norm())
    assert found[0]["kore"] == pytest.approx(expected, rel=1e-6)
    assert found[0]["energy_own"] == pytest.approx(made.report[0]["energy_left"], rel=1e-4)


def test_keep_bounds_the_energy_at_every_site_and_a_budget_bounds_the_total(tmp_path: Path) -> None:
    own = covariance(tmp_path / "a", 1, n=400)
    d_out = {"l.0.q": 20, "l.1.q": 20}
    loose = choose_ranks(own, own.sites, d_out, AdapterSection(keep=0.9))
    tight = choose_ranks(own, own.sites, d_out, AdapterSection(keep=0.999))
    assert all(tight[s] < loose[s] for s in loose)
    for site in own.sites:
        values = torch.linalg.eigvalsh(own.matrix(site))
        assert values[: loose[site.name]].sum() <= 0.1 * site.trace < values[: loose[site.name] + 1].sum()
    assert choose_ranks(own, own.sites, d_out, AdapterSection(rank="auto")) == tight
    cut = choose_ranks(own, own.sites, d_out, AdapterSection(keep=0.9, budget="200"))
    assert 160 <= sum(20 * r for r in cut.values()) <= 200
    assert choose_ranks(own, own.sites, d_out, AdapterSection(budget="200")) == {s.name: 5 for s in own.sites}
    with pytest.raises(DataError, match="rank 17 does not fit a width of 16"):
        choose_ranks(own, own.sites, d_out, AdapterSection(rank=17))


def test_a_budget_holds_also_where_directions_without_energy_alone_cost_more(tmp_path: Path) -> None:
    own = covariance(tmp_path / "a", 1, n=6)  # ten of sixteen directions are empty
    d_out = {"l.0.q": 20, "l.1.q": 30}
    cut = choose_ranks(own, own.sites, d_out, AdapterSection(rank="auto", budget="215"))
    assert set(cut.values()) == {4}


def test_a_dry_run_without_weights_refuses_the_covariance_of_another_model(
    tiny_llava: Path, tmp_path: Path
) -> None:
    other = covariance(tmp_path / "a", 1)
    resolved = resolve("tiny", {"model.id": str(tiny_llava)}, {})
    with pytest.raises(DataError, match="belongs to another model") as caught:
        dry_run_training(TrainRequest(resolved, None, covariance=other.folder))
    assert caught.value.where == "l.0.q"


def test_the_report_warns_of_too_few_tokens(tmp_path: Path) -> None:
    covariance(tmp_path / "a", 1, n=9)
    told = report(tmp_path / "a", 4)
    assert "2 of 2 sites saw fewer tokens" in told["warnings"][0]
    assert told["sites"][0]["condition"] is None or told["sites"][0]["condition"] > 1e12
    assert told["sites"][0]["energy_smallest"] < 1e-12


def test_a_sum_that_another_process_makes_is_refused(tmp_path: Path) -> None:
    a, b = covariance(tmp_path / "a", 1), covariance(tmp_path / "b", 2)
    with held(tmp_path / "c"), pytest.raises(DataError, match="in use by process"):
        combine([a.folder, b.folder], tmp_path / "c")
