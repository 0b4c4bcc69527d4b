"""Samples longer than train.max_length: all listed, left out, or cut; known before the weights are loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kore.config.resolve import resolve
from kore.data.records import Sample
from kore.errors import DataError
from kore.models import load as loading
from kore.models.token_budget import TokenBudget, token_budget
from kore.training.dataset import Located
from kore.training.fit import fit, truncated
from kore.workflows.train_run import TrainRequest, read_inputs, run_training


def line(name: str, image: str, *turns: str) -> dict[str, Any]:
    roles = ("human", "gpt")
    spoken = [{"from": roles[i % 2], "value": text} for i, text in enumerate(turns)]
    return {"id": name, "image": image, "conversations": spoken}


def write(folder: Path, long: int, short: int = 1) -> Path:
    Image.new("RGB", (40, 30), (20, 120, 60)).save(folder / "p.png")
    rows = [line(f"short{n}", "p.png", "<image>\nWhat is it?", "A house.") for n in range(short)]
    rows += [line(f"long{n}", "p.png", "<image>\nTell me.", "It is a house. " * 60) for n in range(long)]
    path = folder / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def request(data: Path, **settings: object) -> TrainRequest:
    flags = {f"train.{k}": v for k, v in {"max_length": 64, "max_steps": 1, "batch": 2, **settings}.items()}
    resolved = resolve("tiny", {"train.method": "lora", "adapter.rank": 4, **flags})
    return TrainRequest(resolved=resolved, data=str(data), out=data.parent / "run")


def budget(limit: int) -> TokenBudget:
    profile = resolve("tiny", {"train.max_length": limit}).profile
    return token_budget(profile.model, profile.train)


def test_all_long_samples_are_listed_with_their_places_and_a_remedy(tmp_path: Path) -> None:
    data = write(tmp_path, 23)
    with pytest.raises(DataError) as caught:
        read_inputs(request(data), str(data))
    text = str(caught.value)
    assert text.startswith("23 samples are longer than train.max_length 64:")
    assert f"{data}:2: sample long0, " in text and f"{data}:21: sample long19" in text
    assert "long20" not in text and "and 3 more" in text
    assert caught.value.hint and "train.max_length=" in caught.value.hint
    assert "train.on_long=drop" in caught.value.hint and "up to 512" in caught.value.hint


def test_lengths_are_known_before_the_weights_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **named: object) -> None:
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr(loading, "load", refuse)
    data = write(tmp_path, 1)
    with pytest.raises(DataError, match="a sample is longer"):
        run_training(request(data))
    assert not (tmp_path / "run").exists()


def test_dropped_samples_are_counted_and_listed_in_the_run(tmp_path: Path) -> None:
    data = write(tmp_path, 2, short=3)
    told: list[str] = []
    value = run_training(request(data, on_long="drop"), note=told.append)
    assert value["samples"] == 3
    assert value["long"] == {"cut": 0, "left_out": 2, "list": "long.jsonl"}
    rows = [json.loads(row) for row in (tmp_path / "run" / "long.jsonl").read_text().splitlines()]
    assert [(row["where"], row["done"]) for row in rows] == [(f"{data}:{n}", "left out") for n in (4, 5)]
    assert any(f"2 samples longer than 64 tokens (2 left out); the first: {data}:4" in text for text in told)
    again = run_training(request(data, on_long="drop"))
    assert again["long"] == value["long"]


def test_dropping_all_is_an_error(tmp_path: Path) -> None:
    data = write(tmp_path, 2, short=0)
    with pytest.raises(DataError, match="no sample has 64 tokens or fewer"):
        read_inputs(request(data, on_long="drop"), str(data))


def test_a_cut_sample_keeps_its_pictures_and_a_part_of_an_answer(tmp_path: Path) -> None:
    data = write(tmp_path, 1)
    inputs = read_inputs(request(data, on_long="truncate"), str(data))
    (whole,) = [s.sample for s in inputs.samples if s.sample.id == "long0"]
    answer = whole.conversations[-1].value
    measure = budget(64)
    assert measure.fits(whole) and len(whole.images) == 1
    assert answer and ("It is a house. " * 60).startswith(answer)
    longer = whole.conversations[-1].model_copy(update={"value": f"{answer} house house"})
    assert not measure.fits(whole.model_copy(update={"conversations": [*whole.conversations[:-1], longer]}))
    assert [(one.id, one.done) for one in inputs.long] == [("long0", "cut")]


def test_a_sample_whose_question_alone_is_too_long_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, 0)
    row = line("question", str(tmp_path / "p.png"), "<image>\n" + "Why is that so? " * 60, "It is.")
    sample = Sample.model_validate(row)
    assert truncated(sample, budget(64)) is None
    short = Sample.model_validate(line("short", str(tmp_path / "p.png"), "<image>\nWhy?", "It is."))
    found = fit([Located("f:1", sample), Located("f:2", short)], budget(64), "truncate")
    assert [one.sample.id for one in found.samples] == ["short"]
    assert [one.done for one in found.long] == ["left out"]


def test_later_turns_are_cut_first(tmp_path: Path) -> None:
    write(tmp_path, 0)
    turns = ("<image>\nWhat is it?", "A house.", "And the long story of it? " * 30, "No.")
    sample = Sample.model_validate(line("s", str(tmp_path / "p.png"), *turns))
    shorter = truncated(sample, budget(64))
    assert shorter is not None and [m.value for m in shorter.conversations] == list(turns[:2])
