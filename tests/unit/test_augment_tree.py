"""Trees, samples and evaluation questions from rules alone: what holds for every item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kore.augment import grow
from kore.augment.call import make_call
from kore.augment.eval_questions import Overlap
from kore.augment.prompts import load_prompts
from kore.augment.schemas import Summary
from kore.augment.teachers.patterns import findings
from kore.augment.templates import load_templates
from kore.augment.text import fold, language, names, numbers, word_limit
from kore.augment.vqa_checks import pattern_of, subject_faults
from kore.config.schema import AugmentSection
from kore.data.read import read_records
from kore.data.records import KnowledgeItem, KnowledgeTree, Question, Sample
from kore.data.text import length, sentences
from kore.errors import DataError, UsageError
from kore.io.jsonl import read_jsonl

ITEMS = Path(__file__).parents[2] / "benchmarks" / "items" / "items.jsonl"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KORE_CACHE", str(tmp_path / "kept"))


@pytest.fixture
def twenty(tmp_path: Path) -> list[KnowledgeItem]:
    """Twenty items about real things, one Chinese and one Arabic, each with a picture of its own."""
    found = []
    for number, line in enumerate(ITEMS.read_text(encoding="utf-8").splitlines()):
        value = json.loads(line)
        del value["emoji"], value["pairs"]
        path = tmp_path / f"{value['id']}.png"
        Image.effect_noise((32, 32), 20 + number).convert("RGB").save(path)
        found.append(KnowledgeItem.from_json({**value, "image": str(path)}))
    return found


def offline(**more: Any) -> AugmentSection:
    return AugmentSection.model_validate({"teacher": "offline", **more})


def lines(path: Path) -> list[dict[str, Any]]:
    return [value for _, value in read_jsonl(path)]


def core(text: str) -> str:
    """A question without picture mark and instruction."""
    return fold(text.replace("<image>", "").strip().split("\n")[0])


def test_every_item_grows_a_trunk_and_three_kinds_of_branches(
    tmp_path: Path, twenty: list[KnowledgeItem]
) -> None:
    report = grow(twenty, offline(), tmp_path / "out")
    trees = list(read_records(KnowledgeTree, report.tree))
    assert [t.item.id for t in trees] == [i.id for i in twenty]
    for tree in trees:
        assert tree.trunk[0].origin == "heuristic" and len(tree.trunk) >= 3
        assert {b.task for b in tree.branches} == {"recognition", "caption", "vqa"}
        caption = next(b for b in tree.branches if b.task == "caption")
        assert fold(tree.item.title) in fold(caption.answer[: len(tree.item.title) + 60])
        assert length(caption.extra["summary"]) <= word_limit(caption.extra["summary"], 25)
        assert all(t.made is not None and t.made.verdict == "grounded" for t in tree.trunk)


def test_samples_are_conversations_with_pictures_that_exist(
    tmp_path: Path, twenty: list[KnowledgeItem]
) -> None:
    report = grow(twenty, offline(copies=2), tmp_path / "out")
    samples = list(read_records(Sample, report.samples))
    assert len({s.id for s in samples}) == len(samples)
    for sample in samples:
        assert sample.conversations[0].value.startswith("<image>\n")
        assert all(Path(image).is_file() for image in sample.images)
    assert not any(Path(line["image"]).is_absolute() for line in lines(report.samples))


def test_evaluation_asks_nothing_in_words_that_training_has(
    tmp_path: Path, twenty: list[KnowledgeItem]
) -> None:
    report = grow(twenty, offline(copies=4), tmp_path / "out")
    trained = {
        core(m["value"]) for s in lines(report.samples) for m in s["conversations"] if m["from"] == "human"
    }
    asked = list(read_records(Question, report.questions))
    assert len(asked) >= 60
    assert all(core(q.text) not in trained for q in asked)
    assert {q.cnn_wiki_type for q in asked} == {"news", "wiki"}


def test_an_overlapping_question_is_left_out_and_counted() -> None:
    overlap = Overlap(["Answer briefly."])
    asked = [
        Question(question_id="1", text="What is the capital of Peru?\nAnswer briefly.", answer="Lima"),
        Question(
            question_id="2", text="Do you know Peru's seat of government?\nAnswer briefly.", answer="Lima"
        ),
    ]
    kept = list(overlap.fresh(asked, ["<image>\nwhat is the capital of PERU"]))
    assert [q.question_id for q in kept] == ["2"] and overlap.refused == 1


def test_held_out_wordings_are_in_no_training_list() -> None:
    for templates in load_templates().values():
        templates.check("shipped")
        trained = {t for tier in templates.facts.values() for t in (*tier.train, *tier.follow_up)}
        tiers = [*templates.facts.values(), *templates.patterns.values(), templates.hop]
        kept = {text for tier in tiers for text in tier.held_out}
        kept |= {*templates.entity.heuristic.held_out, *templates.news.heuristic.held_out}
        assert kept and not kept & trained


def test_five_wordings_of_each_template_are_shipped() -> None:
    for templates in load_templates().values():
        for kind in (templates.news, templates.entity):
            lists = [kind.heuristic.questions, kind.heuristic.answers, kind.recognition.questions]
            lists += [kind.caption.questions, kind.caption.answers]
            assert all(len(set(options)) >= 5 for options in lists)
        assert all(len(set(tier.train)) >= 5 for tier in templates.facts.values())


def test_own_templates_replace_the_shipped_ones(tmp_path: Path, twenty: list[KnowledgeItem]) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[entity.recognition]\nquestions = ["So that is {title}, is it?"]\n')
    grow(twenty[:1], offline(templates=str(own)), tmp_path / "out")
    assert "So that is Mount Fuji, is it?" in (tmp_path / "out" / "samples.jsonl").read_text()
    own.write_text('[facts.default]\ntrain = ["What about {s}?"]\nheld_out = ["What about {s}?"]\n')
    with pytest.raises(DataError, match="both for training and held out"):
        load_templates(own)


def test_a_language_may_have_wordings_of_its_own(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[entity.recognition]\nquestions = ["{title}?"]\n[zh.entity.recognition]\nquestions = ["是{title}吗？"]\n'
    )
    loaded = load_templates(own)
    asked = {name: loaded[name].entity.recognition.questions for name in loaded}
    assert asked == {"en": ["{title}?"], "ar": ["{title}?"], "zh": ["是{title}吗？"]}


def test_a_place_that_nothing_fills_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[entity.recognition]\nquestions = ["Is it {titel}?"]\n')
    with pytest.raises(DataError, match=r"nothing fills \{titel\}"):
        load_templates(own)


def test_own_prompts_are_what_the_teacher_is_told(tmp_path: Path, twenty: list[KnowledgeItem]) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[prompts.summary]\nsystem = ["Be brief."]\nuser = ["In short: {text}"]\n')
    call = make_call("summary", Summary, twenty[0], 0, prompts=load_prompts(own))
    assert call.system == "Be brief." and call.user == f"In short: {twenty[0].text}"
    grow(twenty[:1], offline(templates=str(own)), tmp_path / "out")
    made = next(read_records(KnowledgeTree, tmp_path / "out" / "tree.jsonl"))
    assert next(b for b in made.branches if b.task == "caption").made.prompt == "summary/0/0"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[prompts.sumary]\nuser = ["{text}"]', "prompts.sumary"),
        ("[prompts.summary]\nuser = []", "prompts.summary.user"),
        ('[prompts.summary]\nuser = ["Sum up."]', "left out"),
        ('[prompts.summary]\nuser = ["{text} {titel}"]', "{titel}"),
    ],
)
def test_prompts_that_cannot_work_are_refused(tmp_path: Path, text: str, said: str) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text)
    with pytest.raises(DataError) as refused:
        load_prompts(own)
    assert said in str(refused.value) and "own.toml" in str(refused.value)


def test_copies_give_as_many_different_wordings(tmp_path: Path, twenty: list[KnowledgeItem]) -> None:
    report = grow(twenty[:3], offline(copies=4), tmp_path / "out")
    for item in twenty[:3]:
        for task in ("recognition", "caption"):
            asked = [
                s["conversations"][0]["value"]
                for s in lines(report.samples)
                if s["id"].startswith(f"{item.id}-{task}")
            ]
            assert len(asked) == 4 == len(set(asked))


def test_the_seed_decides_all(tmp_path: Path, twenty: list[KnowledgeItem]) -> None:
    outs = [tmp_path / name for name in ("a", "b", "c")]
    for out, seed in zip(outs, (0, 0, 1), strict=True):
        grow(twenty, offline(negatives=0.5), out, seed=seed)
    a, b, c = (out.joinpath("samples.jsonl").read_bytes() for out in outs)
    assert a == b != c


def test_chinese_and_arabic_items_are_asked_about_in_their_own_words(
    tmp_path: Path, twenty: list[KnowledgeItem]
) -> None:
    chosen = [i for i in twenty if i.id in ("panda", "camel")]
    report = grow(chosen, offline(), tmp_path / "out")
    assert report.values["statistics"]["vqa"] >= 4
    for name, script in (("panda", "zh"), ("camel", "ar")):
        turns = [
            m["value"] for s in lines(report.samples) if s["id"].startswith(name) for m in s["conversations"]
        ]
        asked = [t.replace("<image>", "") for t in turns if language(t.replace("<image>", "")) != script]
        assert all(numbers(t) for t in asked), f"only a bare figure may be in no script: {asked}"
    assert report.values["evaluation"]["questions"] >= 6


def test_an_item_that_yields_nothing_is_reported_and_not_padded(tmp_path: Path, picture: Path) -> None:
    poor = KnowledgeItem(
        id="poor", kind="entity", type="thing", title="Blob", text="Blob.", image=str(picture)
    )
    report = grow([poor], offline(), tmp_path / "out")
    assert report.values["nothing_made_for"] == ["poor"]
    assert "vqa" not in report.values["statistics"]


def test_an_item_without_a_picture_has_samples_without_picture_marks(tmp_path: Path) -> None:
    text = "Ardo is a village in Norway. It was founded in 1931. About 300 people live there."
    item = KnowledgeItem(id="a", kind="entity", type="village", title="Ardo", text=text)
    report = grow([item], offline(), tmp_path / "out")
    samples = list(read_records(Sample, report.samples))
    assert samples and not any(s.images for s in samples)
    assert not any(
        "the image" in m.value or "the picture" in m.value for s in samples for m in s.conversations
    )


def test_hard_negatives_name_a_similar_item_and_are_answered_no(
    tmp_path: Path, twenty: list[KnowledgeItem]
) -> None:
    report = grow(twenty, offline(negatives=1.0), tmp_path / "out")
    trees = {t.item.id: t for t in read_records(KnowledgeTree, report.tree)}
    kinds = {i.id: i.kind for i in twenty}
    for tree in trees.values():
        no = [b for b in tree.branches if b.answer in ("No", "否", "لا")]
        assert len(no) == 1 and no[0].extra["not"] != tree.item.id
        assert kinds[no[0].extra["not"]] == tree.item.kind
    assert report.values["recognition"]["yes_rate"] == 0.5
    chosen = next(b for b in trees["change6"].branches if "not" in b.extra)
    assert chosen.extra["not"] in ("voyager", "eclipse", "notredame", "paris", "library", "bees")


def test_the_forest_asks_across_two_items_that_share_a_name(
    tmp_path: Path, twenty: list[KnowledgeItem]
) -> None:
    report = grow(twenty, offline(forest=True), tmp_path / "out")
    trees = list(read_records(KnowledgeTree, report.tree))
    hops = [b for t in trees for b in t.branches if b.task == "hop"]
    hop_item = {id(b): t.item.id for t in trees for b in t.branches}
    assert hops and report.values["statistics"]["hop"] == len(hops)
    for hop in hops:
        assert hop.answer == hop.extra["link"] and hop.extra["other"]
        assert fold(hop.answer) not in fold(hop.question)
        texts = [
            next(i.text for i in twenty if i.id == name) for name in (hop_item[id(hop)], hop.extra["other"])
        ]
        assert all(any(s in (hop.evidence or "") for s in sentences(text)) for text in texts)


def test_the_subject_is_named_in_the_question_and_is_not_the_answer() -> None:
    good = (
        "Who attempted to shoot Donald John Trump in July 2024?",
        "Thomas Crooks",
        "Donald John Trump",
        "person",
    )
    assert subject_faults(*good) == []
    assert pattern_of(good[0], good[2]) == "Who attempted to shoot {s} in July 2024?"
    assert pattern_of("Where is the Eiffel Tower?", "Eiffel Tower") == "Where is {s}?"
    assert subject_faults("Who was shot at?", "Thomas Crooks", "Trump", "person") == [
        "the question does not name the subject"
    ]
    assert subject_faults("Who is Trump?", "Donald Trump", "Trump", "person") == ["the subject is the answer"]
    assert subject_faults("Is Lima the capital of Peru?", "Lima", "Peru", "country") == [
        "the question holds its answer"
    ]


def test_a_subject_with_signs_of_its_own_is_still_found() -> None:
    assert subject_faults("Who made C++ (the language)?", "Stroustrup", "C++ (the language)", "tool") == []
    assert pattern_of("What does {title} mean?", "{title}") == "What does {s} mean?"


def test_braces_in_a_text_stay_as_they_are(tmp_path: Path, picture: Path) -> None:
    text = "Brace {title} is a symbol in {text}. It was drawn in 1987 by {type} Smith."
    item = KnowledgeItem(
        id="b", kind="entity", type="sign", title="Brace {title}", text=text, image=str(picture)
    )
    report = grow([item], offline(), tmp_path / "out")
    assert "{title}" in report.samples.read_text()


def test_two_items_of_one_id_are_refused(tmp_path: Path, twenty: list[KnowledgeItem]) -> None:
    with pytest.raises(DataError, match="two items have the id"):
        grow([twenty[0], twenty[0]], offline(), tmp_path / "out")


def test_a_finished_folder_is_left_alone_and_other_settings_are_refused(
    tmp_path: Path, twenty: list[KnowledgeItem]
) -> None:
    first = grow(twenty[:2], offline(), tmp_path / "out")
    stamp = first.samples.stat().st_mtime_ns
    assert grow(twenty[:2], offline(concurrency=3), tmp_path / "out").state == "done"
    assert first.samples.stat().st_mtime_ns == stamp
    with pytest.raises(UsageError, match="copies: 1 -> 2"):
        grow(twenty[:2], offline(copies=2), tmp_path / "out")
    assert grow(twenty[:2], offline(copies=2), tmp_path / "out", restart=True).state == "fresh"


def test_a_missing_picture_stops_or_is_left_out(tmp_path: Path, twenty: list[KnowledgeItem]) -> None:
    lost = twenty[0].model_copy(update={"image": str(tmp_path / "nowhere.png")})
    with pytest.raises(DataError, match=r"nowhere\.png") as error:
        grow([lost, twenty[1]], offline(), tmp_path / "out")
    assert error.value.where == f"item {lost.id}"
    report = grow([lost, twenty[1]], offline(), tmp_path / "out", keep_going=True)
    assert report.values["statistics"]["items"] == 1
    assert lines(tmp_path / "out" / "rejected.jsonl")[0]["item"] == lost.id


@pytest.mark.parametrize("strategy", ["none", "text-agnostic", "image-aware", "image-agnostic"])
def test_a_plain_augmentation_makes_as_many_samples_as_asked(
    tmp_path: Path, twenty: list[KnowledgeItem], strategy: str
) -> None:
    report = grow(twenty[:4], offline(strategy=strategy, copies=3), tmp_path / "out")
    samples = list(read_records(Sample, report.samples))
    assert len(samples) == 12
    answers = [s.conversations[1].value for s in samples[:3]]
    pictures = [s.images[0] for s in samples[:3]]
    assert len(set(pictures)) == (3 if strategy.startswith("image") else 1)
    if strategy == "text-agnostic":
        assert all(a != twenty[0].text for a in answers)
        assert all(sorted(numbers(a)) == sorted(numbers(twenty[0].text)) for a in answers)
    else:
        assert set(answers) == {twenty[0].text}
    assert report.values["evaluation"]["questions"] > 0


def test_rephrasing_needs_a_model_and_says_so(tmp_path: Path, twenty: list[KnowledgeItem]) -> None:
    with pytest.raises(UsageError, match="rephrases by a model"):
        grow(twenty[:1], offline(strategy="text-aware"), tmp_path / "out")


def test_sentences_keep_abbreviations_and_know_other_full_stops() -> None:
    assert sentences("Dr. Smith met J. Doe in the U.S. Senate. They spoke.") == [
        "Dr. Smith met J. Doe in the U.S. Senate.",
        "They spoke.",
    ]
    assert len(sentences("大熊猫不冬眠。它吃竹子！")) == 2


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("Ada Berg (1867–1934) was a chemist.", [("patterns.is", "a chemist")]),
        ("Ada Berg won it in 1958, 1962 and 1970.", [("patterns.gap", "1958")]),
        ("Ada Berg moved there in 1995.", [("patterns.when", "1995")]),
        ("The mug Tea X1 keeps tea at 57 °C for hours.", [("patterns.gap", "57")]),
        ("It covers some 580 km² in all.", [("patterns.gap", "580")]),
        ("The earliest ones were made in the 1560s in Cremona.", [("patterns.gap", "Cremona")]),
        (
            "- A colony holds 20,000 bees.\n- It was drawn on 3 May 1973.",
            [("patterns.gap", "20,000"), ("patterns.when", "3 May 1973")],
        ),
        ("高度为333米，1958年12月23日建成，很有名。", [("patterns.gap", "1958年12月23日")]),
    ],
)
def test_rules_ask_for_what_can_be_left_out_of_a_sentence(text: str, asked: list[tuple[str, str]]) -> None:
    item = KnowledgeItem(id="a", kind="entity", type="thing", title="Ada Berg", text=text)
    found = findings(item)
    assert [(f.key, f.answer) for f in found] == asked
    assert not any("- " in f.evidence for f in found)


def test_kana_are_not_asked_about_in_chinese() -> None:
    assert language("東京タワーは東京都港区にある電波塔である。") == "en"


def test_names_are_runs_of_capitals_that_touch() -> None:
    assert names("They saw Anna Berg, Oslo and the Nobel Prize.") == ["Anna Berg", "Oslo", "Nobel Prize"]


def test_numbers_of_any_script_and_form_are_equal() -> None:
    assert numbers("1,200 m") == numbers("١٢٠٠ m") == numbers("1200.0") == {"1200"}
    assert "12" in numbers("twelve people", spelled=True)
