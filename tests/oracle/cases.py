"""Random rows, predictions and judge replies for every benchmark, seeded; standard library only."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from typing import Any

Row = dict[str, str]
Case = dict[str, Any]
# a 1 x 1 PNG: pictures play no part in scoring
PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000"
        "0400015c0bd3a30000000049454e44ae426082"
    )
).decode()
WORDS = [
    "cat",
    "dog",
    "bird",
    "fish",
    "red",
    "green",
    "blue",
    "seven",
    "house",
    "Paris",
    "river",
    "tall",
    "none",
    "left",
    "right",
    "car",
    "tree",
]
NOISE = ("", " ", ".", "!", "\n", " maybe", " I think", ", of course", " **", "、", "。", "“”", " é", "\t")
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
    "Failed to obtain answer via API.",
)


def words(rng: random.Random, low: int, high: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))


def choice_answer(rng: random.Random, options: dict[str, str]) -> str:
    letter = rng.choice([*options, "Z", "a", "b", "F"])
    text = options.get(letter, "nothing")
    forms = (
        letter,
        f"({letter})",
        f"{letter}.",
        f"{letter}:",
        f"**{letter}**",
        f"Answer: {letter}",
        f"The answer is {letter}",
        f"The correct answer is **{letter}**. {words(rng, 1, 6)}",
        f"{letter}. {text}",
        text,
        text.upper(),
        f"It is a {text}",
        f"{words(rng, 1, 3)} {letter} {words(rng, 0, 6)}",
        f"{letter} or {rng.choice([*options])}",
        f"{letter} {letter}",
        f"hot{text}",
        words(rng, 1, 5),
        f"{letter}{rng.choice(NOISE)}",
        f"Option {letter} {words(rng, 3, 8)}",
        "x" * rng.randint(1, 60) + text,
        rng.choice(REFUSALS),
        "",
        f"[{letter}] {text}",
        f"#{letter}#",
        f"{letter}、",
        f"none of these {letter}",
        f"A {words(rng, 1, 4)}",
        f"{text} and {rng.choice([*options.values()])}",
    )
    return rng.choice(forms) + rng.choice(NOISE)


def yes_answer(rng: random.Random) -> str:
    word = rng.choice(["yes", "no", "Yes", "No", "YES", "nope", "yess", "maybe", "not"])
    forms = (
        word,
        f"{word}.",
        f"{word},",
        f"{word}!",
        f"{word}:",
        f"**{word}**",
        f'"{word}"',
        f"The answer is:{word}",
        f"The answer is {word}.",
        f"{word} it is. {rng.choice(['No', 'Yes'])} doubt",
        f"{words(rng, 1, 4)}, {word}",
        f"{word}/{rng.choice(['no', 'yes'])}",
        f"({word})",
        f"1,000 {word}-ish",
        f"{word}.{words(rng, 1, 2)}",
        f"3.5 {word}. 4",
        "." * rng.randint(1, 40) + word,
        words(rng, 1, 5),
        "",
        f"{word};{word}",
        f"{word}\n{word}",
        f"{word}_{word}",
        f"{word}?yes",
        f"no,{word}",
        "I do not know",
        f"{word}…",
    )
    return rng.choice(forms) + rng.choice(NOISE)


def number_answer(rng: random.Random, key: str) -> str:
    forms = (
        key,
        f" {key} ",
        f"{key}.0",
        f"{key}0",
        f"The answer is {key}",
        f"\\boxed{{{key}}}",
        f"{key} cm",
        f"${key}$",
        str(rng.randint(-20, 20)),
        f"{rng.random():.2f}",
        "1_0",
        f"+{key}",
        f"{key}.",
        f"{key}%",
        "１４",
        "nan",
        "inf",
        f"{rng.randint(1, 9)}/{rng.randint(1, 9)}",
        "",
        "0",
        "0.0",
        f"1e{rng.randint(0, 3)}",
        words(rng, 1, 4),
    )
    return rng.choice(forms)


def mathematics_key(rng: random.Random) -> str:
    a, b = rng.randint(1, 20), rng.randint(1, 9)
    return rng.choice(
        [
            str(a),
            f"{a}.5",
            f"{a}/{b}",
            f"\\frac{{{a}}}{{{b}}}",
            f"{a}^2",
            f"{a}*{b}",
            f"-{a}",
            f"\\sqrt{{{a}}}",
            f"{a}\\pi",
            f"({a},{b})",
            f"{a}:{b}",
            f"{a}\\%",
            f"{a} cm",
            f"{a}-{b}",
            f"2^{{{b}}}",
            f"{a}\\times {b}",
            f"0.{b}",
            f"{a},000",
        ]
    )


def mathematics_answer(rng: random.Random, key: str) -> str:
    a, b = rng.randint(1, 20), rng.randint(1, 9)
    value = ""
    if "/" in key and "\\" not in key and key.count("/") == 1:
        over, under = key.split("/")
        value = str(int(over) / int(under))
    forms = (
        key,
        key,
        f" {key}",
        key.upper(),
        f"${key}$",
        f"\\({key}\\)",
        f"\\boxed{{{key}}}",
        f"{key}.0",
        f"{key}.",
        value,
        f"\\frac{{{a}}}{{{b}}}",
        f"\\dfrac{{{a}}}{{{b}}}",
        f"{a}/{b}",
        str(a),
        str(a / b),
        f"{a}\\cdot {b}",
        f"{a}\\times {b}",
        f"{a}^2",
        f"{a}^{{2}}",
        f"{a}**2",
        f"({a})",
        f"{{{a}}}",
        f"\\frac{a % 10}{b}",
        mathematics_key(rng),
        f"{key}0",
        f"-({a})",
        f"{a}+{b}",
        "",
        words(rng, 1, 3),
        f"{a},{b:03d}",
        f"{a} + {b}",
        f"{a}\\div {b}",
        f"\\left({a}\\right)",
        f"-{key}",
        f"x={a}",
        f"{a}^\\circ",
    )
    return rng.choice(forms)


def _options(rng: random.Random, count: int) -> dict[str, str]:
    return {chr(65 + i): words(rng, 1, 3) for i in range(count)}


def choice_case(rng: random.Random, count: int, name: str) -> Case:
    rows, said = [], {}
    for i in range(count):
        options = _options(rng, rng.randint(2, 4))
        row = {
            "index": str(i),
            "question": f"[q{i}] {words(rng, 3, 6)}?",
            **options,
            "answer": rng.choice([*options]),
            "category": rng.choice(WORDS[:5]),
            "image": PNG,
        }
        rows.append(row)
        said[str(i)] = [choice_answer(rng, options)]
    return {
        "name": name,
        "rows": rows,
        "said": said,
        "replies": _replies(rng, said, lambda k: rng.choice(["A", "B", "zz", "C.", "the answer is D"])),
    }


def circular_case(rng: random.Random, count: int) -> Case:
    rows: list[Row] = []
    said = {}
    number = 0
    while len(rows) < count:
        options = _options(rng, rng.randint(2, 4))
        letters, key = [*options], rng.choice([*options])
        category, area = rng.choice(WORDS[:4]), rng.choice(["logic_reasoning", "coarse_perception"])
        for roll in range(len(letters)):
            rolled = {letter: options[letters[(i + roll) % len(letters)]] for i, letter in enumerate(letters)}
            answer = letters[(letters.index(key) - roll) % len(letters)]
            index = number + 1_000_000 * roll
            rows.append(
                {
                    "index": str(index),
                    "question": f"[q{index}] {words(rng, 3, 6)}?",
                    **rolled,
                    "answer": answer,
                    "category": category,
                    "l2-category": area,
                    "split": "dev",
                    "image": PNG,
                }
            )
            right = rng.random() < 0.8
            said[str(index)] = [
                rng.choice([answer, f"({answer})", f"The answer is {answer}", "hard to tell"])
                if right
                else choice_answer(rng, rolled)
            ]
        number += 1
    rng.shuffle(rows)
    return {
        "name": "MMBench_DEV_EN",
        "rows": rows,
        "said": said,
        "replies": _replies(rng, said, lambda k: rng.choice(["A", "B", "C", "zz"])),
    }


def mmmu_case(rng: random.Random, count: int) -> Case:
    case = choice_case(rng, count, "MMMU_DEV_VAL")
    for row in case["rows"]:
        row["split"] = rng.choice(["dev", "validation", "validation"])
        row["l2-category"] = rng.choice(WORDS[5:8])
        if rng.random() < 0.3:
            for letter in "ABCD":
                row.pop(letter, None)
            key = rng.choice(["24/7", "Red Car", "3.14", "B", "Paris", "$5"])
            row["answer"] = key
            case["said"][row["index"]] = [
                rng.choice(
                    [
                        key,
                        f"it is {key}",
                        key.lower(),
                        words(rng, 1, 4),
                        "other answers",
                        f"{key} or other answers",
                        "x" * 30 + key,
                        "A",
                        "B",
                        choice_answer(rng, {"A": key}),
                    ]
                )
            ]
    return case


def yes_case(rng: random.Random, count: int, name: str, fill: Callable[[int], Row]) -> Case:
    rows, said = [], {}
    for i in range(count):
        row = {
            "index": str(i),
            "question": f"[q{i}] {words(rng, 2, 5)}?",
            "answer": rng.choice(["Yes", "No"]),
            "image": PNG,
        }
        row |= fill(i)
        rows.append(row)
        said[row["index"]] = [yes_answer(rng)]
    for row in rows:
        row["question"] = f"[q{row['index']}] {words(rng, 2, 5)}?"
    return {
        "name": name,
        "rows": rows,
        "said": said,
        "replies": _replies(rng, said, lambda k: yes_answer(rng)),
    }


def ocr_case(rng: random.Random, count: int) -> Case:
    rows, said = [], {}
    for i in range(count):
        keys = [words(rng, 1, 2) for _ in range(rng.randint(1, 3))]
        cell = (
            repr(keys)
            if rng.random() < 0.5
            else rng.choice([keys[0], str(rng.randint(1, 99)), f" {keys[0]} ", f"[{keys[0]}]"])
        )
        rows.append(
            {
                "index": str(i),
                "question": f"[q{i}] what?",
                "answer": cell,
                "category": rng.choice(WORDS[:4]),
                "image": PNG,
            }
        )
        key = rng.choice(keys)
        said[str(i)] = [
            rng.choice(
                [key, key.upper(), f" {key}\n", f"{key}.", f"the {key}", cell, words(rng, 1, 2), "", "1.0"]
            )
        ]
    return {"name": "OCRVQA_TESTCORE", "rows": rows, "said": said, "replies": {}}


def vista_case(rng: random.Random, count: int) -> Case:
    rows, said = [], {}
    for i in range(count):
        kind = rng.choice(["multi_choice", "free_form"])
        skills = rng.sample(["arithmetic reasoning", "statistical", "geometry"], rng.randint(1, 2))
        row = {
            "index": str(i),
            "question": f"[q{i}] {words(rng, 2, 5)}?",
            "question_type": kind,
            "task": rng.choice(["figure QA", "word problem"]),
            "skills": repr(skills) if rng.random() < 0.9 else "arithmetic reasoning",
            "image": PNG,
            "choices": "",
            "answer_option": "",
        }
        if kind == "multi_choice":
            options = _options(rng, rng.randint(2, 5))
            key = rng.choice([*options])
            row |= {
                "choices": repr([*options.values()]),
                "answer_option": key,
                "answer": options[key],
                "answer_type": "text",
            }
            said[str(i)] = [choice_answer(rng, options)]
        else:
            answer_type = rng.choice(["integer", "float", "list"])
            key = {"integer": str(rng.randint(-5, 20)), "float": f"{rng.random() * 9:.1f}", "list": "[1, 2]"}[
                answer_type
            ]
            row |= {"answer": key, "answer_type": answer_type}
            said[str(i)] = [number_answer(rng, key)]
        rows.append(row)
    return {
        "name": "MathVista_MINI",
        "rows": rows,
        "said": said,
        "replies": _math_replies(rng, rows, "answer_option"),
    }


def vision_case(rng: random.Random, count: int) -> Case:
    rows, said = [], {}
    for i in range(count):
        row = {
            "index": str(i),
            "question": f"[q{i}] {words(rng, 2, 5)}?",
            "category": rng.choice(["algebra", "area", "counting"]),
            "image": PNG,
        }
        if rng.random() < 0.4:
            options = _options(rng, 5)
            row |= {"choices": repr([*options.values()]), "answer": rng.choice([*options])}
            said[str(i)] = [choice_answer(rng, options)]
        else:
            row |= {"choices": "[]", "answer": mathematics_key(rng)}
            said[str(i)] = [mathematics_answer(rng, row["answer"])]
        rows.append(row)
    return {
        "name": "MathVision_MINI",
        "rows": rows,
        "said": said,
        "replies": _math_replies(rng, rows, "answer"),
    }


def _math_replies(rng: random.Random, rows: list[Row], option: str) -> dict[str, list[str]]:
    found = {}
    for row in rows:
        multiple = len(row["choices"]) > 2
        key = row[option] if multiple else row["answer"]
        wrong = rng.choice(
            ["A" if multiple else "4", "B", "5", "0.5", "zz", "Failed to obtain answer via API."]
        )
        found[row["index"]] = [key if rng.random() < 0.5 else wrong] * 5
    return found


def mia_case(rng: random.Random, count: int) -> Case:
    kinds = ["describe", "length_limit", "math", "grammar", "mention"]
    rows, said, replies = [], {}, {}
    for i in range(count):
        number = rng.randint(1, 5)
        types = [rng.choice(kinds) for _ in range(number)]
        rows.append(
            {
                "index": str(i),
                "question": f"[q{i}] do it",
                "components": repr([words(rng, 1, 3) for _ in types]),
                "component_weight": repr([str(rng.randint(1, 9)) for _ in types]),
                "component_type": repr(types),
                "num_of_component": str(number),
                "image": PNG,
            }
        )
        said[str(i)] = [words(rng, 1, 6)]
        parts = [
            f"score of component {k + 1}: {rng.randint(0, 5)}/{rng.randint(0 if rng.random() < 0.02 else 1, 9)}"
            for k in range(number)
        ]
        whole = ", ".join([*parts, f"total score: {rng.randint(0, 10)}/10"])
        broken = rng.choice(
            [
                whole.replace("/10", ".5/10"),
                whole.replace(":", " ", 1),
                "no",
                "",
                whole + ", extra: 1/1",
                "total score: 5/10",
                whole.replace(": ", ":"),
            ]
        )
        reply = whole + rng.choice([".", ". Because.", ".\nx", " ", ""]) if rng.random() < 0.8 else broken
        replies[str(i)] = [reply] * 3
    return {"name": "MIA-Bench", "rows": rows, "said": said, "replies": replies}


def mmdu_case(rng: random.Random, count: int) -> Case:
    dims = (
        "Creativity",
        "Richness",
        "Visual Perception",
        "Logical Coherence",
        "Answer Accuracy",
        "Image Relationship Understanding",
        "Overall Score",
    )
    rows, said, replies = [], {}, {}
    for i in range(count):
        turns = rng.randint(1, 4)
        questions = [f"[q{i}#{t}] {words(rng, 2, 4)}?" for t in range(turns)]
        rows.append(
            {
                "index": str(i),
                "question": repr(questions),
                "answer": repr([words(rng, 2, 4) for _ in range(turns)]),
                "image": PNG,
            }
        )
        said[str(i)] = [words(rng, 1, 5) for _ in range(turns)]
        for t in range(turns):
            scores: dict[str, object] = {d: rng.randint(-1, 12) for d in dims}
            roll = rng.random()
            if roll < 0.1:
                scores.pop(rng.choice(dims))
            elif roll < 0.2:
                scores[rng.choice(dims)] = rng.choice(["7", "x", None, 6.9])
            reply = rng.choice(["", "Fine. "]) + repr(scores) + rng.choice(["", "\nbye"])
            if rng.random() < 0.1:
                reply = rng.choice(["no idea", "{", "{'Creativity': }", "7"])
            replies[f"{i}#{t}"] = [reply] * 3
    return {"name": "MMDU", "rows": rows, "said": said, "replies": replies}


def _replies(
    rng: random.Random, said: dict[str, list[str]], make: Callable[[str], str]
) -> dict[str, list[str]]:
    return {key: [make(key) for _ in range(5)] for key in said}


def all_cases(seed: int, count: int) -> list[Case]:
    """One case per benchmark, at least `count` predictions each."""
    rng = random.Random(seed)
    mme = [
        *(
            [
                "OCR",
                "artwork",
                "celebrity",
                "color",
                "count",
                "existence",
                "landmark",
                "position",
                "posters",
                "scene",
            ]
        ),
        *(["code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation"]),
    ]
    pope = ["adversarial", "popular", "random", "popular,random", "adversarial,popular,random"]
    return [
        yes_case(rng, count, "MME", lambda i: {"category": mme[i // 2 % 14], "image_path": f"p{i // 2}.png"}),
        yes_case(rng, count, "POPE", lambda i: {"category": rng.choice(pope)}),
        yes_case(
            rng,
            count,
            "HallusionBench",
            lambda i: {
                "index": f"{rng.choice(['VD', 'VS'])}_fig_{i}_{rng.randint(0, 40)}_{rng.randint(0, 3)}_{rng.randint(0, 3)}",
                "category": rng.choice(["VD", "VS"]),
                "l2-category": rng.choice(["figure", "map", "video"]),
            },
        ),
        choice_case(rng, count, "SEEDBench2_Plus"),
        choice_case(rng, count, "ScienceQA_TEST"),
        circular_case(rng, count),
        mmmu_case(rng, count),
        ocr_case(rng, count),
        vista_case(rng, count),
        vision_case(rng, count),
        mia_case(rng, count),
        mmdu_case(rng, count),
    ]
