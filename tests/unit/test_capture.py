"""The capture study's mathematics against float64 oracles, and the study itself on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kore.config.resolve import ModelSection
from kore.errors import DataError, KoreError, UsageError
from kore.evaluation.run_eval import Request
from kore.io.files import hash_file
from kore.io.jsonl import write_jsonl
from kore.models.families import language_linears
from kore.models.load import load
from kore.studies.truncation_study.captured_energy import (
    DAMPING,
    METHODS,
    Drop,
    Method,
    lost,
    parse_drops,
    parse_methods,
    rebuild,
    smallest,
)
from kore.studies.truncation_study.plan import CapturePlan, CaptureRequest, parse_counts
from kore.studies.truncation_study.report import tables
from kore.studies.truncation_study.run import run_capture
from kore.studies.truncation_study.weight_truncation import Cut
from tests.held import held

SHAPES = [(9, 9), (7, 12), (14, 8)]


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(d: int, tokens: int, seed: int, decay: float = 0.0) -> Tensor:
    """X, (d, tokens), whose channels mix and whose spectrum falls off by exp(-decay i)."""
    axes, _ = torch.linalg.qr(random(d, d, seed=seed))
    return (axes * torch.exp(-decay * torch.arange(d).double())) @ random(d, tokens, seed=seed + 1)


def scaling(method: Method, c: Tensor) -> Tensor:
    """S as the method defines it, (d, d)."""
    damped = c + DAMPING.get(method, 0) * c.diagonal().mean() * torch.eye(len(c), dtype=c.dtype)
    if method == "plain":
        return torch.eye(len(c), dtype=c.dtype)
    if method == "asvd":
        return torch.diag(c.diagonal().sqrt())
    if method == "cosvd":
        return damped
    values, axes = torch.linalg.eigh(damped)
    return (axes * values.sqrt()) @ axes.T


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_rebuilt_weight_is_the_cut_svd_of_the_scaled_one_undone(
    method: Method, shape: tuple[int, int]
) -> None:
    w, x = random(*shape, seed=1), inputs(shape[1], 40, 2)
    c = x @ x.T
    s = scaling(method, c)
    left, values, right = torch.linalg.svd(w @ s, full_matrices=False)
    for k in (0, 1, 4):
        kept = len(values) - k
        expected = (left[:, :kept] * values[:kept]) @ right[:kept] @ torch.linalg.inv(s)
        made = rebuild(w, smallest(w, method, k, c))
        assert torch.allclose(made, expected, atol=1e-9 * float(w.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_nothing_dropped_leaves_every_bit_and_all_dropped_leaves_nothing(method: Method) -> None:
    for shape in SHAPES:
        w, x = random(*shape, seed=3).float(), inputs(shape[1], 5, 4)
        directions = smallest(w, method, min(shape), x @ x.T)
        assert torch.equal(rebuild(w, directions[:, :0]), w)
        assert float(rebuild(w, directions).norm()) < 1e-6 * float(w.norm())


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(METHODS), st.sampled_from(SHAPES), st.integers(1, 6), st.integers(0, 50))
def test_exactly_k_components_go_even_where_fewer_tokens_than_channels_were_seen(
    method: Method, shape: tuple[int, int], k: int, seed: int
) -> None:
    w, x = random(*shape, seed=seed), inputs(shape[1], 3, seed + 1)
    directions = smallest(w, method, k, x @ x.T)
    assert torch.allclose(directions.T @ directions, torch.eye(k, dtype=w.dtype), atol=1e-12)
    assert int(torch.linalg.matrix_rank(rebuild(w, directions), rtol=1e-9)) == min(shape) - k


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(SHAPES),
    st.integers(1, 6),
    st.integers(0, 99),
    st.integers(2, 40),
    st.sampled_from([0.0, 0.5, 2.0]),
)
def test_the_root_form_never_changes_old_outputs_more_than_plain_svd(
    shape: tuple[int, int], k: int, seed: int, tokens: int, decay: float
) -> None:
    """Whatever the inputs: ||(W - W') X||_F, computed from X itself."""
    w, x = random(*shape, seed=seed), inputs(shape[1], tokens, seed + 1, decay)
    c = x @ x.T

    def error(method: Method) -> float:
        return float(((w - rebuild(w, smallest(w, method, k, c))) @ x).norm())

    assert error("cosvd-root") <= error("plain") * (1 + 1e-9) + 1e-9 * float((w @ x).norm())


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([(48, 48), (32, 64), (64, 32)]), st.integers(1, 24), st.integers(0, 99))
def test_the_papers_form_changes_old_outputs_less_than_plain_svd_where_the_spectrum_falls(
    shape: tuple[int, int], k: int, seed: int
) -> None:
    w, x = random(*shape, seed=seed), inputs(shape[1], 200, seed + 1, 0.1)
    c = x @ x.T
    error = {m: ((w - rebuild(w, smallest(w, m, k, c))) @ x).norm() for m in METHODS}
    assert error["cosvd-root"] <= error["cosvd"] * (1 + 1e-6)
    assert error["cosvd"] <= error["plain"]


def test_massive_channels_leave_the_papers_form_as_good_as_a_float64_svd_of_it() -> None:
    """W S^2 W^T squares a condition of 1e8; what that blurs carries no energy."""
    w, x = random(64, 64, seed=5), inputs(64, 400, 6, 0.15)
    x[3] *= 1e4
    c = x @ x.T
    left, _, _ = torch.linalg.svd(w @ scaling("cosvd", c))
    for k in (8, 32):
        best = float(((left[:, 64 - k :].T @ w) @ x).norm())
        ours = float(((w - rebuild(w, smallest(w, "cosvd", k, c))) @ x).norm())
        assert ours <= 1.001 * best


def test_the_loss_told_is_that_of_the_outputs() -> None:
    w, x = random(7, 12, seed=7), inputs(12, 30, 8)
    directions = smallest(w, "asvd", 5, x @ x.T)
    told = lost(w, directions, x @ x.T)
    for k in range(1, 6):
        gone = (w - rebuild(w, directions[:, :k])) @ x
        assert float(told[k - 1]) == pytest.approx(float((gone.norm() / (w @ x).norm()) ** 2), rel=1e-9)
    assert torch.equal(lost(w, directions, torch.zeros(12, 12, dtype=w.dtype)), torch.zeros(5, dtype=w.dtype))


def test_components_are_numbers_or_shares_that_leave_something() -> None:
    assert [d.of("x", (20, 12)) for d in parse_drops("3, 25%")] == [3, 3]
    for bad in ("0", "-1", "a", "1.5", "0%", "100%", "", "3,3"):
        with pytest.raises(UsageError, match="--components"):
            parse_drops(bad)
    with pytest.raises(UsageError, match="leaves nothing of k_proj: it has 12"):
        Drop("12").of("k_proj", (20, 12))
    with pytest.raises(UsageError, match="no such decomposition: svd"):
        parse_methods("plain,svd")
    with pytest.raises(UsageError, match="twice"):
        parse_methods("plain,plain")
    with pytest.raises(UsageError, match="not a number of samples"):
        parse_counts("8,0")
    with pytest.raises(UsageError, match="'²' is not a number of samples"):
        parse_counts("²")


def test_bad_weights_and_covariances_are_refused_with_the_name() -> None:
    w = random(4, 6, seed=9)
    with pytest.raises(DataError, match=r"q_proj: the weight is \(4, 6\), C \(5, 5\)"):
        smallest(w, "cosvd", 1, torch.eye(5, dtype=w.dtype), name="q_proj")
    w[0, 0] = float("nan")
    with pytest.raises(DataError, match=r"q_proj: .*nan"):
        smallest(w, "plain", 1, name="q_proj")


class Stopped(Exception):
    pass


def test_a_cut_model_is_put_back_bit_for_bit_also_after_an_error(tiny_llava: Path, tmp_path: Path) -> None:
    backbone = load(ModelSection(id=str(tiny_llava), device="cpu"))
    linears = language_linears(backbone.model, backbone.family)
    before = {name: x.weight.detach().clone() for name, x in linears.items()}
    drops = parse_drops("4,50%")
    cut = Cut(tmp_path, linears, backbone.family.layers, "plain", drops, None, {})
    cut.make()
    for drop in drops:
        with pytest.raises(Stopped), cut.applied(drop):
            for name, linear in linears.items():
                rank = int(torch.linalg.matrix_rank(linear.weight.double(), rtol=1e-5))
                assert rank == min(linear.weight.shape) - drop.of(name, linear.weight.shape)
            raise Stopped
        assert all(torch.equal(x.weight, before[name]) for name, x in linears.items())
    assert cut.lost(drops[0]) == {}


@pytest.fixture
def request_(tiny_llava: Path, tmp_path: Path) -> CaptureRequest:
    """plain and the paper's CO-SVD on a tiny model, two counts of one source, three questions."""
    rows = [{"question_id": i, "text": f"What is {i}?", "answer": "x"} for i in range(3)]
    write_jsonl(tmp_path / "ask.jsonl", rows)
    turns = [{"from": "human", "value": "What is the capital?"}, {"from": "gpt", "value": "Lima"}]
    old = [{"id": str(i), "conversations": [{**turns[0], "value": f"{i}?"}, turns[1]]} for i in range(9)]
    write_jsonl(tmp_path / "old.jsonl", old)
    return CaptureRequest(
        evaluation=Request(
            target=str(tiny_llava),
            suites=[f"{tmp_path / 'ask.jsonl'}:retention"],
            settings={"model.device": "cpu", "eval.max_new_tokens": 3},
            profile="tiny",
        ),
        drops=parse_drops("2,8"),
        methods=parse_methods("plain,cosvd"),
        samples=[str(tmp_path / "old.jsonl")],
        counts=[4, 9],
        out=tmp_path / "study",
    )


def run(request: CaptureRequest, notes: list[str] | None = None) -> tuple[dict[str, Any], list[str]]:
    """The study's result, and the stages that it went through."""
    stages: list[str] = []

    def tell(stage: str, done: int, total: int | None = None, note: str = "") -> None:
        if stage not in stages:
            stages.append(stage)

    with closing(CapturePlan(request, (notes if notes is not None else []).append)) as plan:
        return run_capture(plan, progress=tell), stages


def test_a_study_has_a_row_per_cell_leaves_the_model_and_is_not_done_twice(
    request_: CaptureRequest, tiny_llava: Path, tmp_path: Path
) -> None:
    before = hash_file(tiny_llava / "model.safetensors")
    value, stages = run(request_)
    assert hash_file(tiny_llava / "model.safetensors") == before
    cells = [(r["method"], r["covariance"], r["components"]) for r in value["rows"]]
    assert cells == [
        (method, name, k)
        for method, name in [("plain", None), ("cosvd", "old 4"), ("cosvd", "old 9")]
        for k in ("2", "8")
    ]
    for row in value["rows"]:
        assert set(row["lost"]) == {"old 4", "old 9"} and 0 <= row["lost"]["old 4"] < 1
    by_cell = dict(zip(cells, value["rows"], strict=True))
    for k in ("2", "8"):
        own, plain = by_cell["cosvd", "old 9", k], by_cell["plain", None, k]
        assert own["lost"]["old 9"] < plain["lost"]["old 9"]
        assert own["lost"]["old 9"] < by_cell["cosvd", "old 4", k]["lost"]["old 9"]
    assert [c["samples"] for c in value["covariances"]] == [4, 9]
    assert [t.title for t in tables(value)][1:] == [f"output energy lost on old {n}, %" for n in (4, 9)]
    told = (tmp_path / "study" / "capture.csv").read_text().splitlines()
    assert len(told) == 1 + 1 + 6 and told[1].startswith("base,,0,")
    assert not list((tmp_path / "study" / "directions").iterdir())
    assert "evaluate base" in stages and "decompose plain" in stages

    again, stages = run(request_)
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(value)) and stages == []
    with pytest.raises(UsageError, match="made with other settings: components"):
        run(replace(request_, drops=parse_drops("2")))


def test_a_study_that_lost_a_cell_makes_that_one_alone(request_: CaptureRequest, tmp_path: Path) -> None:
    value, _ = run(request_)
    out = tmp_path / "study"
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**manifest, "status": "partial"}))
    (out / "cells" / "plain-8.json").unlink()
    again, stages = run(request_)
    assert again["rows"] == value["rows"]
    assert [s for s in stages if s.startswith(("decompose", "evaluate"))] == [
        "evaluate base",
        "decompose plain",
        "evaluate plain-8",
    ]


def test_a_study_in_which_another_process_works_is_refused(request_: CaptureRequest, tmp_path: Path) -> None:
    with held(tmp_path / "study"), pytest.raises(KoreError, match="in use by process"):
        run(request_)


def refusals() -> Iterator[Any]:
    yield pytest.param({"samples": [], "counts": []}, 2, "cosvd needs a covariance", id="none")
    yield pytest.param({"samples": []}, 2, "--counts says how many", id="counts alone")
    yield pytest.param({"drops": parse_drops("16")}, 2, "leaves nothing of .*k_proj: it has 16", id="all")
    yield pytest.param({"counts": [20, 30]}, 2, "two covariances of old 9", id="too few samples")
    yield pytest.param({"covariances": [Path("nowhere")]}, 4, "no covariance here", id="no covariance")
    yield pytest.param({"samples": ["other.jsonl"]}, 4, "no such file", id="no samples")
    yield pytest.param({"samples": ["demo:none"]}, 2, "no suite none", id="no such demo suite")
    yield pytest.param({"samples": ["demo:4"]}, 2, "a count of its own", id="two counts")


@pytest.mark.parametrize(("change", "code", "message"), refusals())
def test_what_cannot_be_done_is_refused_before_any_work(
    request_: CaptureRequest, tmp_path: Path, change: dict[str, Any], code: int, message: str
) -> None:
    with pytest.raises(KoreError, match=message) as caught:
        CapturePlan(replace(request_, **change))
    assert caught.value.exit_code == code
    assert not (tmp_path / "study").exists()
