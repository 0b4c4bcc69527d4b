"""A loaded model changes adapters, of whatever method, and keeps its own when another cannot be put on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from kore.adapters.lora import attach, save
from kore.chat import Ask, Past, Session
from kore.config.resolve import ModelSection
from kore.errors import DataError, KoreError
from kore.methods.base import Setup
from kore.methods.registry import make_method
from kore.models.load import load
from kore.models.processing import Encoder

METHODS = ("kore", "full", "moelora")


@pytest.fixture(scope="module")
def adapters(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter of each method, all of them with an effect."""
    found = {}
    for name in METHODS:
        torch.manual_seed(0)
        backbone = load(ModelSection(id=str(tiny_llava)))
        facts = {"base": backbone.fingerprint, "method": name, "model": str(tiny_llava)}
        folder = found[name] = tmp_path_factory.mktemp("adapters") / name
        if name == "kore":
            backbone.model = attach(backbone.model, backbone.family, rank=4)
        else:
            method = make_method(name)
            method.attach(Setup(backbone, Encoder(backbone.processor), rank=4, projector=True))
        with torch.no_grad():
            for parameter in backbone.model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        if name == "kore":
            save(backbone.model, folder, facts)
        else:
            method.save(backbone.model, folder, facts)
    return found


def opened(adapter: Path) -> Session:
    return Session.open(str(adapter), ModelSection(), max_new_tokens=6)


def says(session: Session) -> list[str]:
    (replies,) = session.answer([Ask("Who is this?", compare=True)])
    assert isinstance(replies, list)
    return [r.answer for r in replies]


@pytest.mark.parametrize(("first", "second"), [("kore", "full"), ("full", "moelora"), ("moelora", "kore")])
def test_adapters_of_all_methods_are_changed_there_and_back(
    first: str, second: str, adapters: dict[str, Path]
) -> None:
    session = opened(adapters[first])
    expected = {first: says(session), second: says(opened(adapters[second]))}
    assert len({*expected[first], *expected[second]}) == 3  # one base, two adapters
    for name in (second, first, second):
        session.use(str(adapters[name]))
        assert says(session) == expected[name] and session.models == [name, "base"]


@pytest.mark.parametrize(
    ("start", "method"),
    [("kore", "kore"), ("kore", "full"), ("kore", "moelora"), ("full", "kore"), ("moelora", "moelora")],
)
def test_an_adapter_that_cannot_be_put_on_leaves_the_old_one(
    start: str, method: str, adapters: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    session = opened(adapters[start])
    before = says(session)
    broken = Path(shutil.copytree(adapters[method], tmp_path / "broken"))
    (weights,) = broken.glob("*.safetensors")
    whole = load_file(weights)
    last = sorted(whole)[-1]
    for spoilt in ({**whole, last: torch.zeros(1, 2, 3, 4)}, {**whole, "no.such.layer": whole[last].clone()}):
        save_file(spoilt, weights)
        with pytest.raises(KoreError):
            session.use(str(broken))
        assert says(session) == before
    weights.write_bytes(b"torn")
    with pytest.raises(DataError):
        session.use(str(broken))
    weights.unlink()
    with pytest.raises(KoreError, match="no weights here"):
        session.use(str(broken))
    assert says(session) == before and session.models == [start, "base"]


def test_where_the_old_one_has_gone_too_the_base_answers_in_its_own_name(
    adapters: dict[str, Path], tmp_path: Path
) -> None:
    old, new = (Path(shutil.copytree(adapters["full"], tmp_path / name)) for name in ("old", "new"))
    session = opened(old)
    base, _ = says(session)
    for folder in (old, new):
        (folder / "kore_weights.safetensors").unlink()
    with pytest.raises(KoreError):
        session.use(str(new))
    assert session.models == ["base"]
    (replies,) = session.answer([Ask("Who is this?")])
    assert isinstance(replies, list) and [(r.model, r.answer) for r in replies] == [("base", base)]


def test_what_cannot_be_looked_at_is_an_error_of_the_question(adapters: dict[str, Path]) -> None:
    session = opened(adapters["kore"])
    for name in ("x" * 5000, "\0"):
        with pytest.raises(KoreError):
            session.use(name)
    strange = adapters["kore"] / "strange"
    strange.mkdir()
    (strange / "adapter_config.json").write_text(json.dumps({"peft_type": "NONE"}))
    with pytest.raises(DataError):
        session.use(str(strange))
    assert session.models == ["kore", "base"]


def test_marks_without_a_picture_are_an_error_but_in_answers_they_are_words(
    adapters: dict[str, Path], tmp_path: Path
) -> None:
    from PIL import Image

    session, path = opened(adapters["kore"]), str(tmp_path / "x.png")
    Image.new("RGB", (32, 32), "red").save(path)
    past = Past("<image> And here?", "nothing", (path,))
    good = Ask("<image> Who?", (path,), past=(past, Past("Who?", "see <image>")))
    bad = [Ask("<image><image> Who?", (path,)), Ask("Who?", past=(Past("<image> And?", ""),)), Ask("<image>")]
    answers = session.answer([*bad, good])
    assert [isinstance(a, DataError) for a in answers] == [True, True, True, False]
    assert str(answers[0]).startswith("2 <image> in the text for 1 pictures")
    with pytest.raises(DataError):
        next(session.stream(bad[0], lambda: False))
