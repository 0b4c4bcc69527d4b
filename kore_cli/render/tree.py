"""A folder of knowledge trees: its statistics beside those of KORE-74K, or one tree drawn."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kore.artifacts.manifest import read_manifest
from kore.data.read import read_records
from kore.data.records import Branch, KnowledgeTree, Origin
from kore.errors import DataError, MissingArtefact
from kore.io.files import read_json
from kore_cli.output import Output

_ROWS = (
    ("items", "items"),
    ("samples", "samples"),
    ("dialogues", "dialogue"),
    ("recognition", "recognition"),
    ("captions", "caption"),
    ("visual questions", "vqa"),
    ("across items", "hop"),
    ("rounds of dialogue", "rounds"),
    ("distinct images", "images"),
    ("words a question, mean", "question_words_mean"),
    ("words a question, most", "question_words_max"),
    ("words an answer, mean", "answer_words_mean"),
    ("words an answer, most", "answer_words_max"),
)


def show_tree(folder: Path, output: Output, record_id: str | None) -> None:
    """Print the statistics, or with `record_id` the tree of that item.

    Raises:
        DataError: no such item. MissingArtefact: the folder is not finished.
    """
    manifest = read_manifest(folder)
    if manifest.status != "done":
        raise MissingArtefact(
            f"{folder} is not finished",
            hint="repeat the kore augment command to resume it",
        )
    if record_id is not None:
        tree = find_tree(folder, record_id)
        if output.human:
            draw(output, tree, folder)
        else:
            output.record(tree.to_json())
        return
    values = read_json(folder / "report.json")
    if not output.human:
        output.record({"v": 1, "folder": str(folder), "kind": "tree", **values})
        return
    report_table(output, values)


def find_tree(folder: Path, record_id: str) -> KnowledgeTree:
    """The tree of an item, by its id.

    Raises:
        DataError: no such item; the hint names the nearest ids.
    """
    names = []
    for tree in read_records(KnowledgeTree, folder / "tree.jsonl"):
        if tree.item.id == record_id:
            return tree
        names.append(tree.item.id)
    close = difflib.get_close_matches(record_id, names, n=3, cutoff=0.3) or names[:3]
    raise DataError(
        f"no item {record_id!r} here", where=str(folder), hint=f"there are: {', '.join(close)}, ..."
    )


def report_table(output: Output, values: Mapping[str, Any]) -> None:
    """The statistics beside those of KORE-74K, and what was rejected."""
    ours, theirs = values["statistics"], values["kore_74k"]
    rows = [
        {
            "": label,
            "here": ours.get(key),
            "share": _share(values["shares"], key),
            "KORE-74K": theirs.get(key),
            "share ": _share(theirs["shares"], key),
        }
        for label, key in _ROWS
        if key in ours or key in theirs
    ]
    output.table(
        rows,
        ["", "here", "share", "KORE-74K", "share "],
        title=f"teacher {values['teacher']}, strategy {values['strategy']}",
    )
    grounding = values["grounding"]
    if grounding["generated"]:
        output.note(
            f"grounding: {grounding['rejected']} of {grounding['generated']} answers rejected"
            " (rejected.jsonl)"
        )
    yes = values["recognition"]
    if yes["yes_rate"] == 1.0:
        output.note("recognition: every answer is Yes; --negatives 0.5 adds hard ones answered No")
    output.note(
        f"evaluation questions: {values['evaluation']['questions']}, in phrasings that no sample uses"
    )


def _share(shares: Mapping[str, float], key: str) -> str:
    return f"{shares[key]:.0%}" if key in shares else ""


def draw(output: Output, tree: KnowledgeTree, folder: Path) -> None:
    """One tree in the terminal: trunk and branches, with images and verdicts."""
    from rich.text import Text
    from rich.tree import Tree

    item = tree.item
    root = Tree(Text.assemble((item.title, "bold"), f"  {item.kind} · {item.type} · {item.id}"))
    trunk = root.add(
        Text.assemble(
            ("trunk", "bold green"), f"  {_name(item.images[0], folder) if item.images else 'no picture'}"
        )
    )
    for turn in tree.trunk:
        _pair(trunk, turn.question, turn.answer, turn.made)
    for task in ("recognition", "caption", "vqa", "hop"):
        branches = [b for b in tree.branches if b.task == task]
        if not branches:
            continue
        node = root.add(Text(task, style="bold cyan"))
        for branch in branches:
            _pair(node, branch.question, branch.answer, branch.made, _where(branch, tree, folder))
    output.drawing(root)


def _pair(node: Any, question: str, answer: str, made: Origin | None, note: str = "") -> None:
    from rich.text import Text

    marks = {"grounded": ("✓", "green"), "ungrounded": ("✗", "red"), "unchecked": ("·", "dim")}
    sign, style = marks[made.verdict] if made else marks["unchecked"]
    leaf = node.add(Text.assemble((f"{sign} ", style), question, (f"  {note}" if note else "", "dim")))
    leaf.add(Text(answer, style="italic"))


def _where(branch: Branch, tree: KnowledgeTree, folder: Path) -> str:
    parts = [_name(branch.image, folder)] if branch.image else []
    kept = tree.extra.get("images", {}).get("kept", ())
    parts += [f"{k['score']:.2f} like the original" for k in kept if Path(k["image"]).name == _last(branch)]
    if branch.subject and branch.task == "vqa":
        parts.append(
            f"shows {branch.subject} ({branch.hypernym})"
            if branch.extra.get("shown", True)
            else "names its subject"
        )
    if branch.extra.get("other"):
        parts.append(f"through {branch.extra.get('link')} to {branch.extra['other']}")
    return " · ".join(parts)


def _last(branch: Branch) -> str:
    return Path(branch.image or "").name


def _name(image: str, folder: Path) -> str:
    path = Path(image)
    return str(path.relative_to(folder.resolve())) if path.is_relative_to(folder.resolve()) else image
