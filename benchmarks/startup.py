"""How long commands take to start, beside other tools of the kind.

    python benchmarks/startup.py --runs 9 --others --out docs/results/startup.json

Measures `kore --help`, `kore --version` and the help of the commands with the most options. With
--others it makes an environment for each of llm, litgpt and lm-eval, installs them there and measures
their `--help` as well. Those environments borrow this one's torch, so that all tools run on the same
Python and the same torch. The first run of a command, which fills the caches, is left out;
the runs of all commands take turns, so that a busy moment of the machine does not fall on one alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from kore.io.files import write_json

OWN = ("--help", "--version", "train --help", "dashboard --help")
# what to install for a program; litgpt imports requests without asking for it
OTHERS = {"llm": ["llm"], "litgpt": ["litgpt", "requests"], "lm-eval": ["lm-eval"]}


def own_commands() -> dict[str, list[str]]:
    """The words shown, and the command line behind them."""
    kore = str(Path(sys.executable).parent / "kore")
    return {f"kore {words}": [kore, *shlex.split(words)] for words in OWN}


def borrow(folder: Path, package: str) -> None:
    """Link a package of this environment, and all that it needs, into a folder."""
    folder.mkdir(parents=True)
    here = Path(sysconfig.get_path("purelib"))
    wanted, seen = [package], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        found = metadata.distribution(name)
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(here / top)
        needs = map(Requirement, found.requires or ())
        wanted += [n.name for n in needs if n.marker is None or n.marker.evaluate({"extra": ""})]


def other_commands(folder: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Make an environment for each of the other tools; their command lines and versions."""
    commands, versions = {}, {}
    if not (folder / "torch").exists():
        borrow(folder / "torch", "torch")
    for program, packages in OTHERS.items():
        home = folder / program
        if not (home / "bin" / program).exists():
            venv.create(home, with_pip=True)
            inside = home / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
            (inside / "borrowed.pth").write_text(f"{folder / 'torch'}\n")
            subprocess.run([home / "bin" / "pip", "install", "-q", *packages], check=True)
        ask = f"import importlib.metadata as m; print(m.version('{packages[0]}'))"
        told = subprocess.run(
            [home / "bin" / "python", "-c", ask], check=True, capture_output=True, text=True
        )
        versions[program] = told.stdout.strip()
        commands[f"{program} --help"] = [str(home / "bin" / program), "--help"]
    return commands, versions


def milliseconds(command: list[str]) -> float:
    """Wall-clock time of one run.

    Raises:
        CalledProcessError: it failed.
    """
    # as if the whole world were on this disk: no tool may look for its newest version
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, env=quiet)
    return 1000 * (time.perf_counter() - start)


def measure(commands: dict[str, list[str]], runs: int) -> list[dict[str, Any]]:
    """Best and median of each command's runs."""
    found: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, command in commands.items():
            taken = milliseconds(command)
            if turn:
                found[name].append(taken)
    return [
        {"command": name, "best_ms": round(min(taken)), "median_ms": round(statistics.median(taken))}
        for name, taken in found.items()
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--others", action="store_true", help="install and measure other tools too")
    parser.add_argument("--environments", type=Path, help="keep the environments of other tools here")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    commands, versions = own_commands(), {"kore": metadata.version("kore-inject")}
    with tempfile.TemporaryDirectory() as passing:
        if args.others:
            theirs, numbers = other_commands((args.environments or Path(passing)).resolve())
            commands, versions = commands | theirs, versions | numbers
        rows = measure(commands, args.runs)
    for row in rows:
        print(json.dumps(row))
    if args.out:
        about = {
            "command": f"python benchmarks/startup.py --runs {args.runs}{' --others' * args.others}",
            "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
            "versions": versions,
        }
        write_json(args.out, {**about, "rows": rows})


if __name__ == "__main__":
    main()
