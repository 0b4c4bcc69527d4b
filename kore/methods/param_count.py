"""What a profile trains, counted on the meta device: neither weights nor data are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kore.adapters.param_budget import kore_count, lora_rank, paid_rank, parse_count
from kore.errors import ProfileError
from kore.models.architectures import folder_of, skeleton
from kore.models.families import Family, family_of, language_linears

if TYPE_CHECKING:
    from torch import nn

    from kore.config.resolve import AdapterSection, Profile

TOTAL = "total"


def table(profile: Profile, *, ranks: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """Trainable parameters by kind of linear, then the projector, then the total.

    Args:
        ranks: rank per linear's full name, where it was chosen from a covariance.

    Returns:
        Rows ``{part, count, d_in, d_out, rank, factors, trainable}``; the last one, named total, adds
        ``base`` (parameters of the whole model) and ``share`` (trainable over base). `factors` says
        what is trained: B, A+B, A+B+router or W.

    Raises:
        ProfileError: a rank that only a covariance can give (auto, keep) and no `ranks`.
        MissingArtefact: the profile's model is not here and names no architecture.
    """
    model = skeleton(folder_of(profile.model))
    family = family_of(model)
    linears = language_linears(model, family)
    base = sum(p.numel() for p in model.parameters())
    section = net_section(profile, model, family)
    if profile.train.method == "full":
        rows = _full(model, family)
    elif profile.train.method == "moelora":
        rows = _mixture(profile, kore_rank(section, linears), linears)
    else:
        rows = _adapter(profile, section, linears, ranks)
    if profile.train.projector != "off" and family.projector:
        rows.append(_whole(model, family.projector, "projector"))
    trainable = sum(row["trainable"] for row in rows)
    rows.append({"part": TOTAL, "trainable": trainable, "base": base, "share": trainable / base})
    return rows


def total(rows: list[dict[str, Any]]) -> int:
    """Trainable parameters of a table."""
    return int(rows[-1]["trainable"])


def net_section(profile: Profile, model: nn.Module, family: Family) -> AdapterSection:
    """The adapter's settings, its budget without what the projector takes of it.

    Raises:
        ProfileError: the projector alone costs more.
    """
    section = profile.adapter
    if section.budget is None or profile.train.projector == "off" or not family.projector:
        return section
    projector = sum(p.numel() for p in model.get_submodule(family.projector).parameters())
    left = parse_count(section.budget) - projector
    if left < 1:
        raise ProfileError(f"the projector alone takes {projector:,} parameters", where="adapter.budget")
    return section.model_copy(update={"budget": str(left)})


def kore_rank(section: AdapterSection, linears: Mapping[str, nn.Linear]) -> int:
    """The single rank that the section names, or the largest that its budget pays for.

    Raises:
        ProfileError: the rank is left to a covariance, or the budget pays for nothing.
    """
    if section.known_rank is None:
        raise ProfileError(
            "the rank depends on a covariance", where="adapter.rank", hint="give one with --covariance DIR"
        )
    if section.budget is None:
        return section.known_rank
    return paid_rank(parse_count(section.budget), sum(linear.out_features for linear in linears.values()))


def _adapter(
    profile: Profile,
    section: AdapterSection,
    linears: Mapping[str, nn.Linear],
    ranks: Mapping[str, int] | None,
) -> list[dict[str, Any]]:
    train = profile.train
    alone = train.method == "kore" and train.constraint and not train.thaw_a
    if ranks is None:
        rank = kore_rank(section, linears)
        if not (train.method == "kore" and train.constraint):
            rank = lora_rank(linears, kore_count(linears, rank))
        ranks = dict.fromkeys(linears, rank)
    kinds: Counter[tuple[str, int, int, int]] = Counter()
    for name, rank in ranks.items():
        linear = linears[name]
        kinds[(name.rpartition(".")[2], linear.in_features, linear.out_features, rank)] += 1
    return [
        {
            "part": part,
            "count": count,
            "d_in": d_in,
            "d_out": d_out,
            "rank": rank,
            "factors": "B" if alone else "A+B",
            "trainable": count * rank * (d_out if alone else d_in + d_out),
        }
        for (part, d_in, d_out, rank), count in kinds.items()
    ]


def _mixture(profile: Profile, rank: int, linears: Mapping[str, nn.Linear]) -> list[dict[str, Any]]:
    """MoELoRA's experts and routers, at KORE's `rank`."""
    from kore.methods.moelora import MoeLora, MoeLoraSettings, shape

    settings = MoeLora(profile.method.get("moelora")).settings
    assert isinstance(settings, MoeLoraSettings)
    widths = [(linear.in_features, linear.out_features) for linear in linears.values()]
    experts, each = shape(rank * sum(d_out for _, d_out in widths), widths, settings.experts)
    kinds = Counter((n.rpartition(".")[2], m.in_features, m.out_features) for n, m in linears.items())
    return [
        {
            "part": part,
            "count": count,
            "d_in": d_in,
            "d_out": d_out,
            "rank": experts * each,
            "factors": "A+B+router",
            "trainable": count * experts * (each * (d_in + d_out) + d_in),
        }
        for (part, d_in, d_out), count in kinds.items()
    ]


def _full(model: nn.Module, family: Family) -> list[dict[str, Any]]:
    language = family.layers.rpartition(".")[0]
    rows = [_whole(model, language, "language model")]
    tied = getattr(model.config, "tie_word_embeddings", False)
    if getattr(model, "lm_head", None) is not None and not tied:
        rows.append(_whole(model, "lm_head", "head"))
    return rows


def _whole(model: nn.Module, name: str, part: str) -> dict[str, Any]:
    count = sum(p.numel() for p in model.get_submodule(name).parameters())
    return {"part": part, "count": 1, "factors": "W", "trainable": count}
