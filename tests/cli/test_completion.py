"""Completion for bash, zsh and fish: right words, no heavy imports, scripts that the shells accept."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.command import KORE, kore, loaded
from tests.cli.test_help import HEAVY


def asked(shell: str, line: str) -> dict[str, str]:
    """The environment in which that shell's script calls kore for words that go on `line`."""
    if shell == "bash":
        words = line.split(" ")
        return {"_KORE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    action = {"_TYPER_COMPLETE_FISH_ACTION": "get-args"} if shell == "fish" else {}
    return {"_KORE_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line, **action}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "word"),
    [("kore cal", "calibrate"), ("kore profiles va", "validate"), ("kore train --dry", "--dry-run")],
)
def test_commands_and_options_are_completed_without_heavy_imports(
    tmp_path: Path, shell: str, line: str, word: str
) -> None:
    done, modules = loaded(tmp_path, **asked(shell, line))
    assert done.returncode == 0
    assert word in done.stdout
    assert "augment" not in done.stdout
    assert not modules & (HEAVY - {"rich"})


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_names_of_shipped_profiles_are_completed(tmp_path: Path, shell: str) -> None:
    done, modules = loaded(tmp_path, **asked(shell, "kore train --profile ti"))
    assert "tiny" in done.stdout
    assert not modules & (HEAVY - {"rich"})


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_can_be_printed_and_parsed(tmp_path: Path, shell: str) -> None:
    done = kore(_KORE_COMPLETE=f"source_{shell}")
    assert done.returncode == 0
    assert f"complete_{shell}" in done.stdout
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(done.stdout)
    subprocess.run([program, "-n", script], check=True, capture_output=True)


def completed(shell: str, code: str) -> list[str]:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    path = f"{KORE.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [program, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
    )
    return done.stdout.split()


def test_a_real_bash_completes() -> None:
    code = (
        'eval "$(_KORE_COMPLETE=source_bash kore)"; COMP_WORDS=(kore exp); COMP_CWORD=1; '
        '_kore_completion kore; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert completed("bash", code) == ["export"]


def test_a_real_fish_completes() -> None:
    assert "export" in completed("fish", '_KORE_COMPLETE=source_fish kore | source; complete -C "kore exp"')
