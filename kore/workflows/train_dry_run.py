"""``kore train --dry-run``: everything up to step 1, nothing written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kore.distributed import launched
from kore.errors import DataError, MissingArtefact
from kore.io.files import check_place
from kore.workflows.stdin_buffer import spooled
from kore.workflows.train_run import Inputs, TrainRequest, adapter_rank, net_section, read_inputs

if TYPE_CHECKING:
    from torch import nn

    from kore.nullspace.covariance import Covariance


def dry_run_training(request: TrainRequest) -> tuple[dict[str, Any], list[str]]:
    """Everything up to step 1, nothing written: the plan as an object and in lines for a person."""
    if request.out:
        check_place(request.out)
    if request.data is None:
        return _dry_without_weights(request, None)
    with spooled(request.data) as source:
        return _rehearsed(request, read_inputs(request, source))


def _rehearsed(request: TrainRequest, inputs: Inputs) -> tuple[dict[str, Any], list[str]]:
    from kore.models.linear_table import linear_lines, linear_rows
    from kore.models.load import load
    from kore.training.estimate import describe
    from kore.training.run import prepare
    from kore.workflows.run_factors import check_model

    profile, section = request.profile, request.profile.train
    try:
        backbone = load(profile.model, download=request.download)
    except MissingArtefact:
        if profile.model.architecture is None:
            raise
        return _dry_without_weights(request, inputs)
    linears = linear_rows(backbone.model, backbone.family)
    if inputs.earlier is not None:
        inputs.earlier.stack_on(backbone)
    factors = None
    if inputs.covariance is not None:
        from kore.nullspace.adapter_init import factors as make_factors

        check_model(inputs.covariance, backbone)
        adapter = net_section(profile, backbone)
        factors = make_factors(backbone, inputs.covariance, adapter, new=inputs.new_covariance)
    rank: int | Mapping[str, int]
    rank = {n: len(a) for n, a in factors.items()} if factors else adapter_rank(profile, backbone)
    work = prepare(
        backbone,
        inputs.samples,
        section,
        inputs.method,
        inputs.probes,
        factors=factors,
        rank=rank,
        old=inputs.old,
    )
    work.attach()
    made = work.plan()
    value = {**made.to_json(), "linears": [row.to_json() for row in linears]}
    return value, [*inputs.notes, *inputs.skipped, *describe(made), *linear_lines(linears)]


def _dry_without_weights(request: TrainRequest, inputs: Inputs | None) -> tuple[dict[str, Any], list[str]]:
    """What can be told without weights, from the architecture alone; without samples, no steps."""
    from kore.methods.param_count import table, total
    from kore.models.architectures import folder_of, linears_of
    from kore.models.linear_table import linear_lines
    from kore.training.hf_args import check_settings, split
    from kore.training.sampler import step_count

    section = request.profile.train
    if inputs is not None:
        check_settings(section, inputs.probes)
    rows = table(request.profile, ranks=_ranks(request))
    linears = linears_of(folder_of(request.profile.model))
    parts = split(section, launched().size)
    samples = len(inputs.samples) if inputs else None
    steps = step_count(samples, section.epochs, section.batch, section.max_steps) if samples else None
    value = {
        "method": section.method,
        "trainable": total(rows),
        "parameters": rows[-1]["base"],
        "table": rows,
        "batch": parts.batch,
        "micro_batch": parts.micro,
        "accumulate": parts.accumulate,
        "devices": parts.world,
        "samples": samples,
        "steps": steps,
        "weights": "weights not read: tokens and memory are not counted",
        "linears": [row.to_json() for row in linears],
    }
    lines = [f"{section.method} trains {total(rows):,} of {rows[-1]['base']:,} parameters"]
    lines += [f"  {row['part']}  {row['trainable']:,} ({row['factors']})" for row in rows[:-1]]
    length = f"{steps:,} steps" if steps else f"{section.epochs:g} epochs"
    lines += [f"batch {parts.batch} = {parts}; {length}", str(value["weights"]), *linear_lines(linears)]
    return value, [*([*inputs.notes, *inputs.skipped] if inputs else []), *lines]


def _ranks(request: TrainRequest) -> dict[str, int] | None:
    """Ranks per linear that the request's covariance decides; None where it has none to decide."""
    from kore.methods.param_count import net_section as net
    from kore.models.architectures import folder_of, skeleton
    from kore.models.families import family_of, language_linears
    from kore.nullspace.adapter_init import chosen_sites
    from kore.nullspace.covariance import Covariance
    from kore.nullspace.rank_selection import choose_ranks

    profile = request.profile
    if request.covariance is None or profile.train.method != "kore" or not profile.train.constraint:
        return None
    covariance = Covariance(request.covariance)
    model = skeleton(folder_of(profile.model))
    section = net(profile, model, family_of(model))
    linears = language_linears(model)
    _check_shapes(covariance, linears)
    widths = {name: linear.out_features for name, linear in linears.items()}
    sites = chosen_sites(covariance, section)
    ranks = choose_ranks(covariance, sites, widths, section)
    return {linear: ranks[site.name] for site in sites for linear in site.linears}


def _check_shapes(covariance: Covariance, linears: Mapping[str, nn.Linear]) -> None:
    """Refuse a covariance whose inputs are not the model's: without weights it has no fingerprint to compare.

    Raises:
        DataError: names the first linear that differs.
    """
    for site in covariance.sites:
        for name in site.linears:
            if name not in linears or linears[name].in_features != site.d_in:
                raise DataError(
                    f"this covariance belongs to another model: {covariance.folder}",
                    where=name,
                    hint="make one with kore calibrate and the same --profile and --model",
                )
