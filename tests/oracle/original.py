"""Runs inside the oracle's own environment: scores the cases with ms-vlmeval and prints what it found.

Three package names are registered before the import, so that neither its model registry nor its judges
load; files are kept in memory, so that no spreadsheet changes a cell on the way.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
import os
import re
import sys
import tempfile
import types
from pathlib import Path

STORE: dict[str, object] = {}
REPLIES: dict[str, list[str]] = {}
SEEN: dict[str, int] = {}
_MARK = re.compile(r"\[q([^\]]+)\]")


class Stub:
    """A judge that reads the sample's mark in the prompt and says what the case says."""

    def working(self) -> bool:
        return True

    def generate(self, message, **options):
        key = _MARK.findall(str(message))[-1]
        attempt = SEEN.get(key, 0)
        SEEN[key] = attempt + 1
        return REPLIES[key][min(attempt, len(REPLIES[key]) - 1)]


def prepare(files: bool = False) -> dict[str, types.ModuleType]:
    spec = importlib.util.find_spec("vlmeval")
    root = Path(next(iter(spec.submodule_search_locations)))
    for name, folder in (
        ("vlmeval", root),
        ("vlmeval.dataset", root / "dataset"),
        ("vlmeval.dataset.utils", root / "dataset" / "utils"),
    ):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    utils = sys.modules["vlmeval.dataset.utils"]
    utils.build_judge = lambda **options: Stub()
    utils.DEBUG_MESSAGE = ""
    names = ("image_yorn", "image_mcq", "image_vqa", "image_mt", "miabench")
    modules = {n: importlib.import_module(f"vlmeval.dataset.{n}") for n in names}
    inner = {
        n: importlib.import_module(f"vlmeval.dataset.utils.{n}")
        for n in ("yorn", "multiple_choice", "mathvista", "mathv", "mmdu", "judge_util")
    }
    inner["judge_util"].build_judge = lambda **options: Stub()
    if files:
        return modules
    for module in [*modules.values(), *inner.values()]:
        for name, value in (
            ("load", load),
            ("dump", dump),
            ("track_progress_rich", track),
            ("build_judge", lambda **o: Stub()),
        ):
            if hasattr(module, name):
                setattr(module, name, value)
        if hasattr(module, "osp"):
            module.osp = Files(module.osp)
    mathv = inner["mathv"]
    mathv.is_equal = getattr(mathv.is_equal, "__wrapped__", mathv.is_equal)  # no process per comparison
    inner["multiple_choice"].rd = Dice
    modules["image_vqa"].mp = types.SimpleNamespace(Pool=Pool)
    return {**modules, **inner}


class Dice:
    """Stands for the random letter that the original draws when its judge cannot be read: known
    difference, counted. Always Z here, that is wrong."""

    thrown = 0

    @classmethod
    def choice(cls, options) -> str:
        cls.thrown += 1
        return "Z"


class Pool:
    def __init__(self, count: int) -> None:
        pass

    def map(self, function, items):
        return [function(item) for item in items]


class Files:
    """os.path whose `exists` looks into the store."""

    def __init__(self, inner) -> None:
        self.inner = inner

    def exists(self, path: str) -> bool:
        return str(path) in STORE

    def __getattr__(self, name: str):
        return getattr(self.inner, name)


def load(path, fmt=None):
    return copy.deepcopy(STORE[str(path)])


def dump(value, path, **options) -> None:
    STORE[str(path)] = copy.deepcopy(value)


def track(func, tasks=(), nproc=1, save=None, keys=None, **options):
    results = [
        func(**t) if isinstance(t, dict) else func(*t) if isinstance(t, (tuple, list)) else func(t)
        for t in tasks
    ]
    if save is not None:
        found = dict(STORE.get(str(save), {}))
        found.update(zip(keys, results, strict=True))
        STORE[str(save)] = found
    return results


def records(frame) -> list[dict]:
    return json.loads(frame.to_json(orient="records", double_precision=15))


def score(modules, case: dict, judged: bool) -> dict:
    import numpy as np
    import pandas as pd

    Dice.thrown = 0
    STORE.clear()
    SEEN.clear()
    REPLIES.clear()
    REPLIES.update(case["replies"])
    name = case["name"]
    frame = pd.DataFrame(case["rows"])
    for letter in "ABCDE":
        if letter in frame:
            frame[letter] = [np.nan if x in ("", None) else x for x in frame[letter]]
    if all(str(x).isdigit() for x in frame["index"]):
        frame["index"] = [int(x) for x in frame["index"]]
    meta = frame.copy()
    said = case["said"]
    frame["prediction"] = [repr(said[str(i)]) if name == "MMDU" else said[str(i)][0] for i in frame["index"]]
    path = f"/nowhere/model_{name}.xlsx"
    STORE[path] = frame.drop(columns=["image"])
    module, kind = KINDS.get(name, ("image_mcq", "ImageMCQDataset"))
    found = modules[module]
    dataset = object.__new__(getattr(found, kind))
    dataset.dataset_name, dataset.data = name, meta
    if name == "MIA-Bench":  # it makes itself anew to look up the pictures
        found.MIABench = type(
            "MIABench", (found.MIABench,), {"__init__": lambda self, n: setattr(self, "data", meta)}
        )
    judge = (
        "stub"
        if judged or name in ("MathVista_MINI", "MathVision_MINI", "MIA-Bench", "MMDU")
        else "exact_matching"
    )
    report = dataset.evaluate(path, model=judge, nproc=1)
    return {
        "random_letters": Dice.thrown,
        "figures": figures(name, report),
        "samples": samples(name, modules, judge),
    }


KINDS = {
    "MME": ("image_yorn", "ImageYORNDataset"),
    "POPE": ("image_yorn", "ImageYORNDataset"),
    "HallusionBench": ("image_yorn", "ImageYORNDataset"),
    "OCRVQA_TESTCORE": ("image_vqa", "ImageVQADataset"),
    "MathVista_MINI": ("image_vqa", "MathVista"),
    "MathVision_MINI": ("image_vqa", "MathVision"),
    "MIA-Bench": ("miabench", "MIABench"),
    "MMDU": ("image_mt", "MMDUDataset"),
    "MMMU_DEV_VAL": ("image_mcq", "MMMUDataset"),
}


def prompts(modules, name: str, folder: Path) -> dict:
    """The messages that the original builds for each row of a file: parts in order, pictures by name
    and content."""
    import hashlib

    from PIL import Image

    module, kind = KINDS.get(name, ("image_mcq", "ImageMCQDataset"))
    found = getattr(modules[module], kind)
    found.DATASET_MD5 = {}
    if name == "MIA-Bench":
        found.DATASET_URL = {name: f"{name}.tsv"}
    dataset = found(name)
    told = {}
    for position in range(len(dataset.data)):
        message = dataset.build_prompt(position)
        if name == "MMDU":
            message = [part for turn in message if turn["role"] == "user" for part in turn["content"]]
        parts = []
        for part in message:
            if part["type"] == "image":
                with Image.open(part["value"]) as image:
                    pixels = hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
                parts.append(["image", Path(part["value"]).name, pixels])
            else:
                parts.append(["text", part["value"]])
        told[str(dataset.data.iloc[position]["index"])] = parts
    return told


def figures(name: str, report) -> dict:
    if name == "MIA-Bench":
        return {str(k): float(v) for k, v in report.items()}
    rows = records(report)
    keys = {
        "HallusionBench": "split",
        "POPE": "split",
        "MathVista_MINI": "Task&Skill",
        "MathVision_MINI": "Subject",
        "MMDU": "set",
    }
    key = keys.get(name, "split" if rows and "split" in rows[0] else None)
    if key is None:
        return rows[0]
    return {str(row.pop(key)): row for row in rows}


def samples(name: str, modules, judge: str) -> dict:
    def stored(*endings: str):
        return next(v for k, v in STORE.items() if any(k.endswith(e) for e in endings))

    if name in ("MME", "POPE", "HallusionBench"):
        frame = stored("_auxmatch.xlsx")
        return {str(r["index"]): [bool(r["score"]), r["extracted"]] for r in frame.to_dict("records")}
    if name == "OCRVQA_TESTCORE":
        return {str(r["index"]): max(r["eval_match"]) for r in stored("_results.xlsx").to_dict("records")}
    if name in ("MathVista_MINI", "MathVision_MINI"):
        check = modules["mathvista" if name.startswith("MathVista") else "mathv"].post_check
        frame = stored(f"_{judge}.xlsx")
        return {
            str(r["index"]): [bool(check(r, prefetch=False)), r["log"] == "Prefetch succeed"]
            for r in frame.to_dict("records")
        }
    if name == "MIA-Bench":
        return {
            str(r["index"]): mia_points(modules["miabench"], r)
            for r in stored("_stub.xlsx").to_dict("records")
        }
    if name == "MMDU":
        return {str(k): mmdu_points(v["res"]) for k, v in stored("_stub.pkl").items()}
    frame = stored(f"_{judge}_result.xlsx")
    return {str(r["index"]): int(r["hit"]) for r in frame.to_dict("records")}


def known(modules, asked: dict) -> dict:
    """The original's answer to single comparisons, or the error that it raises."""
    process = importlib.import_module("vlmeval.dataset.utils.vqa_eval").process_line
    calls = {
        "equal": lambda pair: bool(modules["mathv"].is_equal(*pair)),
        "ocr": lambda pair: max(
            process({"prediction": pair[0], "answer": pair[1]}, method="accuracy")["match"]
        ),
    }
    found = {}
    for kind, pairs in asked.items():
        found[kind] = []
        for pair in pairs:
            try:
                found[kind].append(calls[kind](pair))
            except Exception as error:
                found[kind].append(type(error).__name__)
    return found


def mia_points(module, row: dict):
    try:
        return module.process_rawscore(row["component_type"][2:-2].split("', '"), row["score_raw"])
    except Exception:
        return None


def mmdu_points(frame) -> list:
    """Overall score per turn, 0 where the original does not count it."""
    found = []
    for row in frame.to_dict("records"):
        try:
            found.append(min(10, max(0, int(row["Overall Score"]))))
        except (KeyError, TypeError, ValueError):
            found.append(0)
    return found


def main() -> None:
    import shutil

    if len(sys.argv) > 3:  # prompts are built from files, before anything is replaced
        data = Path(sys.argv[3])
        os.environ["LMUData"] = str(data)  # noqa: SIM112 - its own spelling
        modules = prepare(files=True)
        told = {path.stem: prompts(modules, path.stem, data) for path in sorted(data.glob("*.tsv"))}
        shutil.rmtree(data / "images")
        Path(sys.argv[2]).write_text(json.dumps(told), encoding="utf-8")
        return
    cases = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LMUData"] = folder  # noqa: SIM112 - its own spelling
        modules = prepare()
        asked = cases.pop() if "known" in cases[-1] else None
        results = []
        for case in cases:
            judged = score(modules, case, True) if case["replies"] else None
            results.append({"plain": score(modules, case, False), "judged": judged})
            print(case["name"], "done", file=sys.stderr, flush=True)
        if asked:
            results.append(known(modules, asked["known"]))
    Path(sys.argv[2]).write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main()
