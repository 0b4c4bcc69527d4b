"""Chat in real pipes: order, plain text, bad lines, comparison, streams, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kore.chat import Ask


def chat(*args: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command with `lines` on standard input."""
    return subprocess.run(
        [sys.executable, "-m", "kore_cli", "chat", *args, "--max-new-tokens", "4"],
        input=lines,
        capture_output=True,
        text=True,
        timeout=240,
    )


def objects(text: str) -> list[dict[str, Any]]:
    """The JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A picture's path."""
    path = tmp_path_factory.mktemp("pictures") / "x y.png"
    Image.new("RGB", (32, 32), "red").save(path)
    return str(path)


@pytest.fixture(scope="module")
def adapter(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An adapter whose answers differ from its base's."""
    import torch

    from kore.adapters.lora import attach, save
    from kore.config.resolve import ModelSection
    from kore.models.load import load

    backbone = load(ModelSection(id=str(tiny_llava)))
    model = attach(backbone.model, backbone.family, rank=4)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    folder = tmp_path_factory.mktemp("adapter") / "kore"
    save(model, folder, {"base": backbone.fingerprint, "method": "kore", "model": str(tiny_llava)})
    return str(folder)


def test_answers_come_in_the_order_of_the_lines_and_bad_ones_do_not_stop_the_rest(
    tiny_llava: Path, picture: str
) -> None:
    lines = [
        json.dumps({"id": "first", "text": "Who is this?", "image": picture}),
        "plain text?",
        "{broken",
        '{"image": "x.png"}',
        json.dumps({"id": 4, "text": "?", "image": "/not/there.png"}),
        '{"text": "?", "colour": "red"}',
        json.dumps({"text": "last", "image": None}),
    ]
    done = chat(str(tiny_llava), "--json", lines="\n".join(lines) + "\n")
    found = objects(done.stdout)
    assert [f["index"] for f in found] == list(range(7))
    assert [f["index"] for f in found if "answer" in f] == [0, 1, 6]
    assert all(("error" in f) != ("answer" in f) for f in found)
    assert found[0]["id"] == "first" and found[0]["model"] == "base" and found[4]["id"] == 4
    assert found[1]["text"] == "plain text?" and found[2]["where"] == "stdin:3"
    assert done.returncode == 3 and "4 lines could not be answered" in done.stderr


@pytest.mark.slow
def test_fields_of_a_wrong_kind_are_told_line_by_line_and_the_rest_is_answered(tiny_llava: Path) -> None:
    bad = [
        '{"text": "hi", "use": 5}',
        '{"text": "hi", "compare": "false"}',
        '{"text": "\\ud800"}',
        '{"text": "hi", "id": "\\ud800"}',
        '{"text": "hi", "history": [{"text": "\\ud800", "answer": "x"}]}',
        '{"text": "hi", "history": [{"text": "x", "answers": "y"}]}',
        '{"text": "hi", "temperature": NaN}',
        '{"text": "hi", "temperature": 1e999}',
        '{"text": "hi", "temperature": 1%s}' % ("0" * 400),
        '{"text": "hi", "use": "\\u0000"}',
    ]
    done = chat(str(tiny_llava), "--json", lines="\n".join(["first?", *bad, "last?"]))
    found = objects(done.stdout)
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert ["error" in f for f in found] == [False, *[True] * len(bad), False]


@pytest.mark.slow
def test_a_question_that_is_stopped_before_the_model_is_ready_is_not_answered(tiny_llava: Path) -> None:
    done = chat(str(tiny_llava), "--stream", lines='first?\n{"stop": true}\nsecond?\n')
    first, second = [e for e in objects(done.stdout) if e.get("done")]
    assert first["stopped"]
    assert "stopped" not in second


@pytest.mark.slow
def test_each_model_is_told_what_it_said_itself(adapter: str) -> None:
    past = {"text": "Who?", "answers": {"base": "Bob", "kore": "Ada"}}
    asked: list[dict[str, Any]] = [
        {"text": "Sure?", "compare": True, "history": [past, {"text": "And?", "answers": {"kore": "Eve"}}]},
        {"text": "Sure?", "model": "base", "history": [{"text": "Who?", "answer": "Bob"}]},
        {
            "text": "Sure?",
            "model": "kore",
            "history": [{"text": "Who?", "answer": "Ada"}, {"text": "And?", "answer": "Eve"}],
        },
    ]
    both, base, tuned = objects(chat(adapter, lines="\n".join(map(json.dumps, asked))).stdout)
    assert (both["base"], both["answer"]) == (base["answer"], tuned["answer"])
    told = Ask.read(asked[0]).past
    assert [p.said_by("base") for p in told] == ["Bob", None]
    assert [p.said_by("kore") for p in told] == ["Ada", "Eve"]
    assert Ask.read(asked[1]).past[0].said_by("anyone") == "Bob"


@pytest.mark.slow
def test_good_lines_alone_exit_zero_and_no_line_is_no_answer(tiny_llava: Path) -> None:
    done = chat(str(tiny_llava), lines="one?\n\ntwo?")
    assert done.returncode == 0 and [f["text"] for f in objects(done.stdout)] == ["one?", "two?"]
    assert chat(str(tiny_llava), lines="").stdout == ""


@pytest.mark.slow
def test_a_comparison_gives_the_same_two_answers_as_asking_each(adapter: str, picture: str) -> None:
    asked = [
        {"text": "Who?", "image": picture, "compare": True},
        {"text": "Who?", "image": picture, "model": "base"},
        {"text": "Who?", "image": picture, "model": "kore"},
    ]
    done = chat(adapter, lines="\n".join(map(json.dumps, asked)))
    both, base, tuned = objects(done.stdout)
    assert (both["base"], both["answer"]) == (base["answer"], tuned["answer"])
    assert (base["model"], tuned["model"], both["model"]) == ("base", "kore", "kore")
    assert both["same"] is False


@pytest.mark.slow
def test_a_stream_says_who_is_ready_then_pieces_then_whole_answers(adapter: str, picture: str) -> None:
    done = chat(adapter, "--stream", "--compare", "--image", picture, lines="Who?\n{bad\n")
    events = objects(done.stdout)
    assert events[0]["ready"] and events[0]["models"] == ["kore", "base"]
    for name in ("base", "kore"):
        pieces = "".join(e["delta"] for e in events if e.get("model") == name and "delta" in e)
        (whole,) = [
            e["answer"] for e in events if e.get("model") == name and "answer" in e and "done" not in e
        ]
        assert pieces.strip() == whole
    assert events[-2]["done"] and "error" in events[-1] and done.returncode == 3


@pytest.mark.slow
def test_switching_the_adapter_and_back_gives_the_first_answer_again(adapter: str, tiny_llava: Path) -> None:
    asked: list[dict[str, Any]] = [
        {"text": "Who?"},
        {"text": "Who?", "use": adapter},
        {"text": "Who?", "use": "nothing"},
    ]
    done = chat(adapter, lines="\n".join(map(json.dumps, asked)))
    first, second, third = objects(done.stdout)
    assert first["answer"] == second["answer"] and "error" in third


@pytest.mark.slow
def test_once_answers_one_question_and_leaves(tiny_llava: Path, picture: str) -> None:
    done = chat(str(tiny_llava), "--once", "What is this?", "--image", picture)
    (answer,) = objects(done.stdout)
    assert done.returncode == 0 and answer["image"] == picture and answer["text"] == "What is this?"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["/no/such/run", "--once", "?"], 4, "no such model"),
        (["LLAVA", "--once", "?", "--compare"], 2, "nothing to compare"),
        (["LLAVA", "--once", "?", "--image", "/no.png"], 3, "/no.png"),
        (["LLAVA", "--once", "?", "--who", "someone"], 2, "no model 'someone'"),
    ],
)
def test_what_cannot_be_asked_says_why_in_its_exit_code(
    args: list[str], code: int, words: str, tiny_llava: Path
) -> None:
    done = chat(*[str(tiny_llava) if a == "LLAVA" else a for a in args])
    assert done.returncode == code and words in done.stderr and not done.stdout
    assert "Traceback" not in done.stderr
