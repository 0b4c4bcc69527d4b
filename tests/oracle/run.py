"""Compare KORE's scorers with the original's: every verdict and every figure, on random predictions.

Builds an environment of its own for ``ms-vlmeval`` (without its dependencies, plus the light ones that
its scorers import), or uses ``--python``. Usage: python -m tests.oracle.run [--count 2000] [--seeds 0 1]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from kore.evaluation.math_eval import equal
from tests.oracle import ours
from tests.oracle.cases import all_cases
from tests.oracle.compare import differences
from tests.tsv import write_all

ORIGINAL = "ms-vlmeval==0.0.20"
LIGHT = (
    "numpy pandas tabulate tqdm pillow requests python-dotenv openpyxl xlsxwriter validators portalocker termcolor "
    "rich sty timeout-decorator latex2sympy2-extended huggingface_hub filelock"
)
SCRIPT = Path(__file__).parent / "original.py"
GOLDEN = Path(__file__).parents[1] / "golden" / "benchmarks.json"
# name -> kind, (prediction, key), what the original says, what KORE says
KNOWN: dict[str, tuple[str, tuple[str, str], object, bool]] = {
    "any answer `a` equals any number (a local name of the original is evaluated)": (
        "equal",
        ("a", "5"),
        True,
        False,
    ),
    "Python calls in an answer are run": ("equal", ("max(1, 5)", "5"), True, False),
    "Python text methods in an answer are run": ("equal", ("len('abcde')", "5"), True, False),
    "numbers side by side are added": ("equal", ("3 4", "7"), True, False),
    "a comparison counts as 1": ("equal", ("2 > 1", "1"), True, False),
    "a stored list of numbers crashes OCRVQA": ("ocr", ("1", "[1]"), "AttributeError", True),
}


def environment(folder: Path) -> Path:
    """The oracle's Python, built on first use."""
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "-q"]
        subprocess.run([*pip, *LIGHT.split()], check=True)
        subprocess.run([*pip, "--no-deps", ORIGINAL], check=True)
        (folder / "ready").touch()
    return python


def original(python: Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the original says to the cases."""
    with tempfile.TemporaryDirectory() as name:
        asked, said = Path(name) / "asked.json", Path(name) / "said.json"
        asked.write_text(json.dumps(cases), encoding="utf-8")
        done = subprocess.run(
            [str(python), str(SCRIPT), str(asked), str(said)], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"the original failed:\n{done.stderr[-3000:]}")
        found: list[dict[str, Any]] = json.loads(said.read_text(encoding="utf-8"))
        return found


def compare(case: dict[str, Any], theirs: dict[str, Any], mode: str) -> list[str]:
    """Every difference in a case's verdicts, figures and counts."""
    scored, name = ours.score(case, mode == "judged"), case["name"]
    found = list(differences(theirs[mode]["samples"], ours.samples(name, scored), "sample"))
    found += differences(theirs[mode]["figures"], ours.figures(name, scored), "figure")
    return found


def compare_prompts(python: Path, count: int) -> dict[str, list[str]]:
    """Differences in the messages built for each row of generated files, pictures by content."""
    with tempfile.TemporaryDirectory() as name:
        data, said = Path(name) / "data", Path(name) / "said.json"
        write_all(data, count)
        command = [str(python), str(SCRIPT), "-", str(said), str(data)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"the original failed:\n{done.stderr[-3000:]}")
        theirs = json.loads(said.read_text(encoding="utf-8"))
        return {n: list(differences(told, ours.prompts(n, data), n)) for n, told in theirs.items()}


def check_known(theirs: dict[str, list[Any]]) -> list[str]:
    """The known differences, each still there on both sides."""
    wrong = []
    for name, (kind, pair, expected, own) in KNOWN.items():
        said = theirs[kind][[k for k in KNOWN if KNOWN[k][0] == kind].index(name)]
        mine = equal(*pair)[0] if kind == "equal" else _ocr(*pair)
        if said != expected or mine is not own:
            wrong.append(f"{name}: theirs {said!r} (expected {expected!r}), ours {mine!r} (expected {own!r})")
    return wrong


def _ocr(said: str, key: str) -> bool:
    case = {
        "name": "OCRVQA_TESTCORE",
        "rows": [{"index": "0", "question": "?", "answer": key}],
        "said": {"0": [said]},
    }
    return ours.score({**case, "replies": {}}, False).headline == 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="predictions per benchmark and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--python", type=Path, help="an environment that is there already")
    parser.add_argument("--venv", type=Path, default=Path("build/oracle"))
    parser.add_argument(
        "--golden", type=int, metavar="COUNT", help=f"write {GOLDEN.name} with so many per benchmark"
    )
    options = parser.parse_args()
    python = options.python or environment(options.venv)
    if options.golden:
        cases = all_cases(7, options.golden)
        for case in cases:
            for row in case["rows"]:
                row["image"] = ""
        GOLDEN.write_text(_golden(cases, original(python, cases)), encoding="utf-8")
        print(f"wrote {GOLDEN}")
        return
    failed = 0
    for name, wrong in compare_prompts(python, 40).items():
        print(f"prompts {name:16} {len(wrong)} differences")
        failed += len(wrong)
        for line in wrong[:5]:
            print(f"   {line}")
    for seed in options.seeds:
        cases: list[dict[str, Any]] = [*all_cases(seed, options.count)]
        asked = {
            "equal": [v[1] for v in KNOWN.values() if v[0] == "equal"],
            "ocr": [v[1] for v in KNOWN.values() if v[0] == "ocr"],
        }
        *results, known = original(python, [*cases, {"known": asked}])
        for case, theirs in zip(cases, results, strict=True):
            for mode in ("plain", "judged"):
                if theirs[mode] is None:
                    continue
                wrong = compare(case, theirs, mode)
                drawn = theirs[mode]["random_letters"]
                note = f", {drawn} letters drawn at random there (known difference)" if drawn else ""
                print(
                    f"seed {seed} {case['name']:16} {mode:6} {len(case['said'])} predictions: {len(wrong)} differences{note}"
                )
                failed += len(wrong)
                for line in wrong[:10]:
                    print(f"   {line}")
        problems = check_known(known)
        print(f"seed {seed} known differences: {len(KNOWN) - len(problems)} of {len(KNOWN)} as stated")
        failed += len(problems)
        for line in problems:
            print(f"   {line}")
    sys.exit(1 if failed else 0)


def _golden(cases: list[dict[str, Any]], results: list[dict[str, Any]]) -> str:
    lines = [
        json.dumps({"case": c, "original": r}, ensure_ascii=False)
        for c, r in zip(cases, results, strict=True)
    ]
    return "[\n" + ",\n".join(lines) + "\n]\n"


if __name__ == "__main__":
    main()
