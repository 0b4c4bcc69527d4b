"""Text from elsewhere has no meaning where it is shown or tokenised."""

from __future__ import annotations

from pathlib import Path

import pytest

from kore.config.schema import ModelSection
from kore.data.records import Message, Sample
from kore.errors import DataError
from kore.models.load import load_processor
from kore.models.processing import Encoder
from kore_cli.output import Output, complain, harmless


@pytest.mark.parametrize("model", ["tiny_qwen", "tiny_llava"])
def test_special_tokens_inside_data_are_plain_text(model: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(model)
    encoder = Encoder(load_processor(folder, ModelSection(id="x")))
    special = [str(t) for t in encoder.tokenizer.all_special_tokens] + ["<|image_pad|>", "</s>", "<|im_end|>"]
    bare = encoder.prompt([Message.from_json({"from": "human", "value": "a"})], [])["input_ids"].tolist()
    ids = set(encoder.tokenizer.all_special_ids)
    for token in (t for t in special if t != "<image>"):
        words = f"a {token} b"
        turn = Message.from_json({"from": "human", "value": words})
        tokens = encoder.prompt([turn], [])["input_ids"].tolist()
        unknown = encoder.tokenizer.unk_token_id
        assert sum(t in ids and t != unknown for t in tokens) == sum(
            t in ids and t != unknown for t in bare
        ), token
        sample = Sample.from_json(
            {"id": "1", "conversations": [turn.to_json(), {"from": "gpt", "value": words}]}
        )
        features = encoder.training(sample)
        assert encoder.length(sample) == len(features["input_ids"])


def test_control_characters_of_the_data_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = "a\x1b]0;title\x07b\x1b[31mc\x9b2Jd\x00e\x85f\x1b]52;c;AAAA\x1b\\g\ttab"
    assert harmless(text) == "abcdefg\ttab"
    complain(text)
    Output().note(text)
    Output().table([{"name": text}], ["name"])
    found = capsys.readouterr()
    assert not set("\x1b\x07\x00\x9b\x85") & set(found.err + found.out)
    assert found.err.count("abcdefg") + found.err.count("abcde fg") == 2


def test_a_message_that_quotes_data_is_cut() -> None:
    error = DataError("x" * 3_000_000, where="a.jsonl:1")
    assert len(str(error)) < 700 and all(len(line) < 700 for line in error.lines())
