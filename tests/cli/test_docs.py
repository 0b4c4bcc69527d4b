"""The documentation of the command line and of the keys is their own."""

from __future__ import annotations

import shutil
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


def test_the_script_of_the_docs_writes_both_pages_and_says_which_is_not_current(tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "scripts" / "write_cli_docs.py", scripts)

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        script = [sys.executable, scripts / "write_cli_docs.py", *options]
        return subprocess.run(script, capture_output=True, text=True, cwd=ROOT, check=False)

    assert run().returncode == 0
    assert {p.name for p in (tmp_path / "docs").iterdir()} == {"cli.md", "keys.md"}
    (tmp_path / "docs" / "keys.md").write_text("old")
    checked = run("--check")
    assert checked.returncode == 1 and "keys.md is not current" in checked.stderr
    assert "cli.md" not in checked.stderr
