"""Runs the installed kore command as a user's shell would: a process of its own, real pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

KORE = Path(sys.executable).parent / "kore"

# loads the command line in a fresh interpreter and reports which packages that took
TELL_MODULES = """
import atexit, json, os, sys
path = os.environ.pop("TELL_MODULES")
def tell():
    with open(path, "w") as stream:
        json.dump(sorted({name.partition(".")[0] for name in sys.modules}), stream)
atexit.register(tell)
from kore_cli.main import main
sys.argv[0] = "kore"
main()
"""


def kore(
    *args: str | Path, stdin: str | bytes = b"", cwd: Path | None = None, timeout: float = 120, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run ``kore ARGS`` with pipes; the environment is the test's own plus `env`."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [KORE, *map(str, args)],
        input=data,
        capture_output=True,
        cwd=cwd,
        timeout=timeout,
        env={**os.environ, **env},
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def loaded(folder: Path, *args: str, **env: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run the command line in a fresh interpreter; also the top-level packages it had loaded at its end."""
    path = folder / "modules.json"
    done = subprocess.run(
        [sys.executable, "-c", TELL_MODULES, *args],
        capture_output=True,
        text=True,
        env={**os.environ, "TELL_MODULES": str(path), **env},
        timeout=120,
        check=False,
    )
    return done, set(json.loads(path.read_text()))


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What an error said: its lines on stderr."""
    return done.stderr.splitlines()
