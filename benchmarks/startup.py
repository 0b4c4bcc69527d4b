"""How long commands take to start, beside other tools of the kind.

    python benchmarks/startup.py --runs 5

Measures `kore --help`, `kore --version`, `kore dashboard --help` and, where they are installed,
`llm --help`, `litgpt --help` and `lm-eval --help` (or uvx-style paths given with --tool). Prints one
JSON line per command: best and median of the runs, in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

KORE = str(Path(sys.executable).parent / "kore")
OWN = (f"{KORE} --help", f"{KORE} --version", f"{KORE} train --help", f"{KORE} dashboard --help")
OTHERS = ("llm --help", "litgpt --help", "lm-eval --help")


def times(command: str, runs: int) -> list[float]:
    """Wall-clock milliseconds of each run; the first, which fills the caches, is left out."""
    found = []
    for turn in range(runs + 1):
        start = time.perf_counter()
        done = subprocess.run(
            shlex.split(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
        if done.returncode not in (0, 2):
            print(f"{command}: exit code {done.returncode}, not measured", file=sys.stderr)
            return []
        if turn:
            found.append(1000 * (time.perf_counter() - start))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tool", action="append", default=[], help="another command line to time")
    args = parser.parse_args()
    others = [c for c in OTHERS if shutil.which(c.split()[0])]
    missing = [c for c in OTHERS if c not in others and not any(c.split()[0] in t for t in args.tool)]
    for command in (*OWN, *others, *args.tool):
        taken = times(command, args.runs)
        if not taken:
            continue
        words = shlex.split(command)
        name = shlex.join([Path(words[0]).name, *words[1:]])
        print(
            json.dumps(
                {"command": name, "best_ms": round(min(taken)), "median_ms": round(statistics.median(taken))}
            )
        )
    if missing:
        print(f"not installed here, so not measured: {', '.join(missing)}", file=sys.stderr)


if __name__ == "__main__":
    main()
