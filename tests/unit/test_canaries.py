"""Canaries of exports: both models' answers, and the same answers from the export by stock tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from kore.adapters.export import export
from kore.artifacts.canaries import FILE, read_canaries
from kore.errors import DataError
from kore.models.generate import Engine, Prompt
from kore.models.load import load
from kore.workflows.check_export import check_export, refuse_wrong
from tests.cli.command import kore
from tests.unit.test_export import section, trained


def prompts() -> list[Prompt]:
    shown = [
        Prompt.ask(f"Which colour is {n}?", [Image.new("RGB", (30, 20), (n * 40, 9, 99))]) for n in range(4)
    ]
    return [*shown, *(Prompt.ask(f"What is {n}?") for n in range(4))]


@pytest.mark.parametrize("form", ["peft", "merged", "vllm"])
@pytest.mark.parametrize("family", ["tiny_llava", "tiny_qwen"])
def test_an_exports_canaries_are_answered_alike_by_stock_tools(
    family: str, form: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    base = request.getfixturevalue(family)
    out = tmp_path / "out"
    told = export(
        trained(base, tmp_path / "a"),
        form,
        out,
        section(base),
        prompts=prompts()[:1],
        candidates=prompts(),  # type: ignore[arg-type]
    )
    canaries = read_canaries(out)
    differ = sum(c.differs for c in canaries)
    assert told["canaries"] == {"count": len(canaries), "differ": differ, "general": False}
    assert told["canaries"]["differ"] and {c.order for c in canaries} >= {"plain", "text-first"}
    engine = Engine(load(section(base)), batch=1, max_new_tokens=24)
    plain = [c for c in canaries if c.order == "plain" and c.text.startswith("What")]
    assert [c.base.text for c in plain] == engine.answer([Prompt.ask(c.text) for c in plain])
    assert all(len(c.adapter.logprobs) <= 4 and max(c.adapter.logprobs) <= 0 for c in canaries)
    check = check_export(out)
    assert (check.form, check.canaries, check.wrong) == (form, len(canaries), [])
    refuse_wrong(check, out)


def test_an_export_that_answers_otherwise_is_refused_with_the_prompts(
    tiny_llava: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export(trained(tiny_llava, tmp_path / "a"), "peft", out, section(tiny_llava), candidates=prompts())
    lines = [json.loads(line) for line in (out / FILE).read_text().splitlines()]
    lines[0]["adapter"]["text"] = "Lima"
    (out / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=rf"1 of {len(lines)} canaries are answered otherwise: .* not 'Lima'"):
        refuse_wrong(check_export(out), out)


def test_the_export_of_an_adapter_folder_says_that_its_data_is_missing(
    tiny_llava: Path, tmp_path: Path
) -> None:
    done = kore("export", trained(tiny_llava, tmp_path / "a"), "-o", tmp_path / "out", "--model", tiny_llava)
    assert done.returncode == 0, done.stderr
    canaries = read_canaries(tmp_path / "out")
    differ = sum(c.differs for c in canaries)
    assert f"{len(canaries)} canaries: base and adapter differ on {differ}\n" in done.stderr
    assert "general questions without images" in done.stderr
    assert ("cannot judge" in done.stderr) == (not differ)
