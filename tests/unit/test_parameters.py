"""The trainable table counts the published architectures exactly, without weights."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kore.adapters.param_budget import parse_count
from kore.config.resolve import Profile
from kore.errors import MissingArtefact, ProfileError
from kore.methods import param_count as parameters
from kore.methods.param_count import table, total


@pytest.fixture(scope="module", autouse=True)
def built_once() -> Iterator[None]:
    """A skeleton takes a second: build each architecture once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parameters, "skeleton", functools.cache(parameters.skeleton))
        yield


def profile(architecture: str, rank: Any, *, projector: Any = 2e-5, **train: Any) -> Profile:
    adapter = rank if isinstance(rank, dict) else {"rank": rank}
    return Profile.model_validate(
        {
            "model": {"id": "somebody/else", "architecture": architecture},
            "adapter": adapter,
            "train": {"projector": projector, **train},
        }
    )


@pytest.mark.parametrize(
    ("architecture", "rank", "train", "count"),
    [
        ("llava-1.5-7b", 235, {}, 340_549_632),
        ("llava-1.5-7b", 256, {}, 369_106_944),
        ("llava-1.5-7b", {"budget": "341M"}, {}, 340_549_632),
        ("llava-1.5-7b", {"budget": "320M"}, {"projector": "off"}, 319_569_920),
        ("llava-1.5-7b", 235, {"method": "lora"}, 340_795_392),
        ("llava-1.5-13b", 235, {}, 531_998_720),
        ("llava-1.5-13b", 235, {"method": "ewc"}, 532_162_560),
        ("qwen2.5-vl-7b", 274, {"projector": "off"}, 381_022_208),
        ("qwen2.5-vl-7b", 274, {}, 425_596_672),
    ],
)
def test_counts_of_the_published_models(architecture: str, rank: Any, train: Any, count: int) -> None:
    rows = table(profile(architecture, rank, **train))
    assert total(rows) == count
    assert sum(row["trainable"] for row in rows[:-1]) == count
    assert rows[-1]["share"] == count / rows[-1]["base"]


def test_full_training_counts_everything_but_the_vision_tower() -> None:
    # the released figure counts 32,000 words; the converted checkpoint has 64 more, in and out
    rows = table(profile("llava-1.5-7b", 235, method="full"))
    assert total(rows) == 6_759_395_328 + 2 * 64 * 4096


def test_full_training_without_the_projector_counts_without_it() -> None:
    with_it, without = (
        table(profile("llava-1.5-7b", 235, method="full", projector=p)) for p in (2e-5, "off")
    )
    assert total(with_it) - total(without) == 20_979_712


def test_moelora_counts_its_experts_routers_and_projector() -> None:
    """Per linear E experts of rank r each, and a router: E (r (d_in + d_out) + d_in)."""
    rows = table(profile("llava-1.5-7b", 235, method="moelora"))
    per_layer = 4 * 8 * (16 * 8192 + 4096) + 2 * 8 * (16 * 15104 + 4096) + 8 * (16 * 15104 + 11008)
    assert total(rows) == 32 * per_layer + 20_979_712
    assert rows[0]["factors"] == "A+B+router" and rows[0]["rank"] == 8 * 16


def test_the_count_of_moelora_is_what_it_trains(tiny_llava: Path) -> None:
    from kore.methods.base import Setup
    from kore.methods.registry import make_method
    from kore.models.load import load
    from kore.models.processing import Encoder

    values = {"model": {"id": str(tiny_llava)}, "adapter": {"rank": 12}}
    chosen = Profile.model_validate({**values, "train": {"method": "moelora", "projector": 1e-3}})
    backbone = load(chosen.model)
    make_method("moelora").attach(Setup(backbone, Encoder(backbone.processor), rank=12, projector=True))
    trained = sum(p.numel() for p in backbone.model.parameters() if p.requires_grad)
    assert total(table(chosen)) == trained


def test_what_cannot_be_counted_is_said() -> None:
    with pytest.raises(ProfileError, match="depends on a covariance"):
        table(profile("llava-1.5-7b", {"keep": 0.95}))
    with pytest.raises(ProfileError, match="the projector alone takes 20,979,712"):
        table(profile("llava-1.5-7b", {"budget": "20M"}))
    with pytest.raises(MissingArtefact, match="no such architecture: llava-9") as caught:
        table(profile("llava-9", 1))
    assert "llava-1.5-13b" in str(caught.value.hint)
    with pytest.raises(ProfileError, match="not a number of parameters"):
        parse_count("many")
    assert parse_count("1.5B") == 1_500_000_000
