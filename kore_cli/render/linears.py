"""Which linears of a model are adapted, for ``kore show --model``."""

from __future__ import annotations

from kore_cli.output import Output


def show_model(name: str, output: Output) -> None:
    """Print the parts of a model and every linear of its language model as adapted or skipped."""
    from kore.config.resolve import ModelSection
    from kore.models.architectures import folder_of, skeleton
    from kore.models.families import family_of
    from kore.models.linear_table import linear_lines, linear_rows

    model = skeleton(folder_of(ModelSection(id=name, architecture=name)))
    family = family_of(model)
    rows = linear_rows(model, family)
    parts = {
        "model": name,
        "model_type": family.name,
        "decoder_layers": family.layers,
        "projector": family.projector,
        "vision_tower": family.vision,
        "traced": family.traced,
    }
    text = [f"{key.replace('_', ' '):<15} {value or '-'}" for key, value in parts.items() if key != "traced"]
    if not family.traced:
        text.append("not confirmed by a forward pass, which takes this model's weights")
    output.result(
        {**parts, "linears": [row.to_json() for row in rows]}, "\n".join([*text, "", *linear_lines(rows)])
    )
