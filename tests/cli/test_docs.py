"""The pages of the documentation that the code holds are the code's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(place: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.write_docs", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=place, check=False)


def test_the_pages_are_current() -> None:
    done = run(ROOT, "--check")
    assert done.returncode == 0, done.stderr


def test_the_script_of_the_docs_writes_every_page_and_says_which_is_not_current(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "docs").mkdir()
    assert run(tmp_path).returncode == 0
    assert {p.name for p in (tmp_path / "docs").iterdir()} == {"cli.md", "keys.md", "settings.md"}
    (tmp_path / "docs" / "keys.md").write_text("old")
    checked = run(tmp_path, "--check")
    assert checked.returncode == 1 and "keys.md is not current" in checked.stderr
    assert "cli.md" not in checked.stderr
