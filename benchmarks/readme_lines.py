"""README's two command lines, run as they stand in a fresh clone and a fresh environment, and timed.

    python benchmarks/readme_lines.py --out docs/results/readme.json

The first installs and runs the main job, the second installs and passes the tests; each begins from nothing.
What pip has cached is left out of neither: the packages come from the index or from pip's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kore.io.files import write_json

HOME = Path(__file__).parents[1]
ENVIRONMENT = "python -m venv .venv && . .venv/bin/activate"


def lines() -> dict[str, str]:
    """The command lines by what they do, from README's first two blocks of shell."""
    blocks = re.findall(r"```sh\n(.*?)```", (HOME / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    _, main = blocks[0].strip().splitlines()  # behind the line that clones
    (tests,) = blocks[1].strip().splitlines()
    return {"main job": main, "tests": f"{ENVIRONMENT} && {tests}"}


def run(line: str) -> dict[str, Any]:
    """One line in a clone of its own, without this environment's settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KORE_") and k != "VIRTUAL_ENV"}
    with tempfile.TemporaryDirectory(prefix="kore-readme-") as place:
        subprocess.run(["git", "clone", "-q", str(HOME), f"{place}/kore"], check=True)
        environment = {**kept, "KORE_HOME": f"{place}/runs"}
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=f"{place}/kore",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        took = round(time.monotonic() - began)
    last = done.stdout.strip().splitlines()[-1:] + done.stderr.strip().splitlines()[-3:]
    print("\n".join(last), file=sys.stderr)
    return {"line": line, "exit_code": done.returncode, "seconds": took}


def main() -> int:
    """Run both, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    found = {name: run(line) for name, line in lines().items()}
    print(json.dumps(found, indent=1))
    if args.out:
        told = "python benchmarks/readme_lines.py"
        write_json(args.out, {"command": told, "machine": f"{os.cpu_count()} cores", **found})
    return max(row["exit_code"] for row in found.values())


if __name__ == "__main__":
    raise SystemExit(main())
