"""The trainable table counts the published architectures exactly, without weights."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest

from kore.errors import MissingArtefact, ProfileError
from kore.models import parameters
from kore.models.parameters import parse_count, table, total
from kore.profile import Profile


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


def test_what_cannot_be_counted_is_said() -> None:
    with pytest.raises(ProfileError, match="depends on a covariance"):
        table(profile("llava-1.5-7b", {"keep": 0.95}))
    with pytest.raises(ProfileError, match="the projector alone takes 20,979,712"):
        table(profile("llava-1.5-7b", {"budget": "20M"}))
    with pytest.raises(MissingArtefact, match="no such architecture: llava-9") as caught:
        table(profile("llava-9", 1))
    assert "llava-1.5-13b" in str(caught.value.hint)
    with pytest.raises(ProfileError, match="no count of parameters"):
        parse_count("many")
    assert parse_count("1.5B") == 1_500_000_000
