"""The running sums: exact masks, shared inputs, packing, any order of batches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from kore.config.resolve import AdapterSection
from kore.errors import DataError, UsageError
from kore.nullspace import accumulator
from kore.nullspace.accumulator import Accumulator, unpack
from kore.nullspace.activation_hooks import LayerTaps, site_name
from kore.nullspace.adapter_init import adapted
from kore.nullspace.group import Group
from kore.nullspace.layer_selection import parse_layers, parse_share
from kore.nullspace.layerwise import HiddenCache
from kore.nullspace.memory_plan import check_room, make_plan, parse_bytes


def rows(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def full(total: Accumulator) -> Tensor:
    return unpack(total.packed(), total.d_in)


def test_streaming_equals_one_product_to_1e_10_in_float64() -> None:
    x = rows(500, 24)
    whole, parts = Accumulator(24), Accumulator(24)
    whole.add(x)
    for piece in x.split(37):
        parts.add(piece)
    assert torch.allclose(full(whole), x.T @ x, rtol=1e-12, atol=1e-10)
    assert torch.allclose(full(parts), full(whole), rtol=1e-12, atol=1e-10)
    assert parts.tokens == 500


def test_a_double_sum_keeps_what_a_half_precision_sum_loses() -> None:
    x = rows(20000, 16).float()
    x += 30 * rows(20000, 1, seed=1).float()  # one direction that outweighs the rest, as in real models
    exact = x.double().T @ x.double()
    ours = Accumulator(16)
    for piece in x.split(100):
        ours.add(piece)
    smallest = torch.linalg.eigvalsh(exact)[0]
    assert torch.allclose(torch.linalg.eigvalsh(full(ours))[0], smallest, rtol=1e-4)
    half = torch.zeros(16, 16, dtype=torch.float16)
    for piece in (x / 100).split(100):
        half += (piece.T @ piece).half()
    assert not torch.allclose(torch.linalg.eigvalsh(1e4 * half.double())[0], smallest, rtol=0.5)


@pytest.mark.parametrize("d", [1, 4, 9, 12])
def test_stripes_and_packing_keep_every_entry(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accumulator, "STRIPE", 4)
    x = rows(50, d)
    ours = Accumulator(d)
    ours.add(x)
    whole = full(ours)
    assert torch.equal(whole, whole.T)
    assert torch.allclose(whole, x.T @ x, rtol=1e-12, atol=1e-12)
    assert torch.equal(ours.packed(), whole[torch.triu(torch.ones(d, d, dtype=torch.bool))])
    assert accumulator.values_held(d) <= d * (d + 4) // 2 + 4
    with pytest.raises(DataError, match="no triangle"):
        unpack(ours.packed(), d + 1)


def test_nan_is_refused() -> None:
    with pytest.raises(DataError, match="nan or infinite"):
        Accumulator(3).add(torch.tensor([[1.0, float("nan"), 0.0]]))


class Layer(nn.Module):
    """q and k share an input, o has its own, gate reads a copy of q's input: equal but not identical."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(6, 6), nn.Linear(6, 6)
        self.o_proj, self.gate_proj = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.o_proj(self.q_proj(x) * self.k_proj(x)) + self.gate_proj(x.clone())  # type: ignore[no-any-return]


def test_shared_inputs_are_found_by_identity_not_by_name() -> None:
    layer = Layer()
    linears = {n: m for n, m in layer.named_modules() if isinstance(m, nn.Linear)}
    with LayerTaps(linears, Accumulator) as taps, torch.no_grad():
        for _ in range(2):
            taps.start(torch.ones(2, 3, dtype=torch.bool))
            layer(torch.randn(2, 3, 6))
            taps.end()
    assert [tap.linears for tap in taps.taps] == [["q_proj", "k_proj"], ["o_proj"], ["gate_proj"]]
    assert [tap.sum.tokens for tap in taps.taps] == [12, 12, 12]
    assert site_name(["a.q_proj", "a.k_proj", "a.v_proj"]) == "qkv"
    assert site_name(["a.gate_proj", "a.up_proj"]) == "gate_up"


def test_padding_never_enters_the_sum() -> None:
    layer = Layer()
    linears = {"q_proj": layer.q_proj}
    x = torch.randn(2, 5, 6)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    spoiled = x.clone()
    spoiled[0, 3:] = float("inf")
    with LayerTaps(linears, Accumulator) as taps, torch.no_grad():
        taps.start(mask)
        layer.q_proj(spoiled)
    kept = x[mask].double()
    assert taps.taps[0].sum.tokens == 8
    assert torch.allclose(full(taps.taps[0].sum), kept.T @ kept, rtol=1e-5, atol=1e-5)


def test_a_padded_batch_and_its_samples_alone_agree_to_1e_10_in_float64() -> None:
    """Identical activations, whatever lies where the padding is."""
    layer = Layer().double()
    lengths = [3, 11, 7, 1, 9, 11, 5, 2]
    alone = [rows(n, 6, seed=n) for n in lengths]
    batch = 1e6 * rows(8 * 11, 6, seed=99).reshape(8, 11, 6)
    mask = torch.zeros(8, 11, dtype=torch.bool)
    for index, sample in enumerate(alone):
        batch[index, : len(sample)] = sample
        mask[index, : len(sample)] = True
    sums = []
    for passes in ([(batch, mask)], [(x[None], torch.ones(1, len(x), dtype=torch.bool)) for x in alone]):
        with LayerTaps({"q_proj": layer.q_proj}, Accumulator) as taps, torch.no_grad():
            for x, kept in passes:
                taps.start(kept)
                layer.q_proj(x)
                taps.end()
        sums.append(taps.taps[0].sum)
    assert sums[0].tokens == sums[1].tokens == sum(lengths)
    assert float((full(sums[0]) - full(sums[1])).abs().max()) < 1e-10


def test_normalising_divides_each_sample_by_its_largest_activation() -> None:
    layer = Layer()
    x = torch.randn(2, 4, 6)
    with LayerTaps({"q_proj": layer.q_proj}, Accumulator, normalise=True) as taps, torch.no_grad():
        taps.start(torch.ones(2, 4, dtype=torch.bool))
        layer.q_proj(x)
    scaled = torch.cat([s / s.max().abs() for s in x]).double()
    assert torch.allclose(full(taps.taps[0].sum), scaled.T @ scaled, rtol=1e-4, atol=1e-5)


def test_a_layer_beyond_a_covariance_is_told_of_the_covariance() -> None:
    sites = [SimpleNamespace(layer=n) for n in range(4)]
    with pytest.raises(UsageError, match="asks for layer 5, the covariance old has 0-3"):
        adapted(sites, AdapterSection(layers="5"), "the covariance old")  # type: ignore[arg-type]


def test_choices_of_layers() -> None:
    assert parse_layers("all", 3) == [0, 1, 2]
    assert parse_layers("0-2,5", 6) == [0, 1, 2, 5]
    assert parse_share("auto") == 0.5 and parse_share("auto:0.25") == 0.25 and parse_share("all") is None
    bad = {
        "x": "is not all, a range",
        "": "is not all, a range",
        "²": "is not all, a range",
        "3-1": "1 comes before 3",
        "6": "asks for layer 6, the model has 0-5",
        "0-99999999999": "asks for layer 99999999999",
    }
    for text, message in bad.items():
        with pytest.raises(UsageError, match=message):
            parse_layers(text, 6)
    with pytest.raises(UsageError):
        parse_share("auto:2")


def test_groups_cover_all_layers_up_to_the_last_wanted_one() -> None:
    groups = Group.split([1, 2, 5], 2)
    assert [g.layers for g in groups] == [[0, 1, 2], [3, 4, 5]]
    assert [g.summed for g in groups] == [[1, 2], [5]]


def test_the_plan_holds_what_fits_and_says_so() -> None:
    def plan(budget: int, layers: int = 8, **more: bool):  # type: ignore[no-untyped-def]
        return make_plan(
            widths=[[100, 100, 300]] * layers,
            samples=1,
            tokens=1,
            hidden=500_000,
            extra=0,
            weights=0,
            budget=budget,
            **more,
        )

    layer = (100**2 * 2 + 300**2) * 8
    scratch = 300**2 * 4
    assert plan(8 * layer + scratch).hidden == 0
    some = plan(3 * layer + scratch + 500_000)
    assert (some.at_once, some.hidden_on, some.memory) == (3, "memory", 3 * layer + scratch + 500_000)
    tight = plan(layer + scratch + 10)
    assert (tight.at_once, tight.hidden_on) == (1, "disk")
    with pytest.raises(UsageError, match="one decoder layer's sums take"):
        plan(layer)
    ample = plan(1 << 40, one_by_one=True)
    assert (ample.at_once, ample.hidden, ample.hidden_on) == (1, 500_000, "memory")
    assert ample.memory == layer + scratch + 500_000
    assert parse_bytes("8GiB") == 8 << 30 and parse_bytes("1.5k") == 1500
    with pytest.raises(UsageError):
        parse_bytes("much")


def test_too_little_memory_or_disk_is_refused_before_starting_with_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(
        widths=[[100, 300]] * 4, samples=1, tokens=1, hidden=10**6, extra=0, weights=10**6, budget=1_500_000
    )
    assert plan.hidden_on == "disk"

    def machine(memory: int, disk: int) -> None:
        monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=memory))
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=disk))

    machine(plan.memory, plan.disk + plan.hidden)
    check_room(plan, tmp_path / "not" / "yet")
    with pytest.raises(UsageError, match=r"of memory, .* of it for weights"):
        check_room(plan, tmp_path, weights=10**6)
    with pytest.raises(UsageError, match="of memory beside the weights"):
        check_room(plan, tmp_path, processes=2)
    machine(plan.memory, plan.disk + plan.hidden - 1)
    with pytest.raises(UsageError, match=r"of disk, .* are free at"):
        check_room(plan, tmp_path)
    check_room(plan, tmp_path, written=1)


def test_room_on_a_gpu_is_that_gpus_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(widths=[[64]], samples=1, tokens=10, hidden=0, extra=0, weights=0, budget=10**6)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (plan.memory, 1 << 40))
    gpu = torch.device("cuda", 1)
    check_room(plan, tmp_path, processes=8, device=gpu)
    with pytest.raises(UsageError, match="of GPU memory, 1 B of it for weights"):
        check_room(plan, tmp_path, weights=1, device=gpu)


def test_hidden_states_come_back_to_where_the_layers_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    second = torch.device("cuda", 1)
    cache = HiddenCache(tmp_path, second)
    cache.put(0, torch.randn(1, 3, 4))

    class OnDisk:
        def to(self, device: torch.device) -> torch.device:
            return device

    monkeypatch.setattr(safetensors.torch, "load_file", lambda path: {"hidden": OnDisk()})
    assert cache.get(0) == second
