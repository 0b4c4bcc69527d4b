"""The documentation of the command line is the command line's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_docs_cli_is_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "write_cli_docs.py", "--check"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
