"""Help, version and completion are instant: no command's help loads a model library."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from kore import __version__
from kore_cli.help import walk
from tests.cli.command import KORE, kore, loaded

# Typer itself takes pydantic as soon as an option has a value
HEAVY = {
    "torch",
    "transformers",
    "openai",
    "textual",
    "peft",
    "accelerate",
    "deepspeed",
    "datasets",
    "numpy",
    "scipy",
    "PIL",
    "httpx",
    "rich",
}


def command_paths() -> Iterator[tuple[str, ...]]:
    from kore_cli.main import app

    yield from (path for path, _ in walk(typer.main.get_command(app)))


PATHS = list(command_paths())


def test_every_command_of_the_design_is_there() -> None:
    words = """augment calibrate train eval chat dashboard inject demo export study
        runs show combine compare profiles data analyze check-server items"""
    assert {path[0] for path in PATHS if path} == set(words.split())
    assert {path[1] for path in PATHS if path[:1] == ("profiles",) and len(path) == 2} == {
        "list",
        "show",
        "validate",
        "copy",
        "suggest",
    }
    assert {path[1] for path in PATHS if path[:1] == ("data",) and len(path) == 2} == {"check", "fetch"}
    assert {path[1] for path in PATHS if path[:1] == ("analyze",) and len(path) == 2} == {
        "capture",
        "heatmap",
    }


@pytest.mark.parametrize("path", PATHS, ids=lambda path: " ".join(path) or "kore")
def test_help_is_on_stdout_and_loads_nothing_heavy(tmp_path: Path, path: tuple[str, ...]) -> None:
    done, modules = loaded(tmp_path, *path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: kore")
    assert " ".join(path) in done.stdout.splitlines()[0]
    assert not modules & HEAVY


def test_every_command_and_option_says_what_it_does() -> None:
    from kore_cli.main import app

    silent = []
    for path, command in walk(typer.main.get_command(app)):
        if not (command.help or "").strip():
            silent.append(path)
        silent += [(*path, p.name) for p in command.params if not getattr(p, "help", None)]
    assert silent == []


def test_the_overview_is_grouped_and_no_line_is_cut_at_80_columns() -> None:
    shown = kore("--help", COLUMNS="80").stdout
    for title in ("Start:", "Build:", "Look:", "Tools:"):
        assert f"\n{title}\n" in shown
    assert "..." not in shown.replace("[ARGS]...", "")
    assert all(len(line) <= 80 for line in shown.splitlines())


@pytest.mark.parametrize("path", PATHS, ids=lambda path: " ".join(path) or "kore")
def test_types_in_help_are_readable(path: tuple[str, ...]) -> None:
    shown = kore(*path, "--help").stdout
    assert "<list" not in shown and "<str>" not in shown and "<path>" not in shown


def test_version_is_the_packages_and_loads_nothing_heavy(tmp_path: Path) -> None:
    done, modules = loaded(tmp_path, "--version")
    assert done.stdout.startswith(f"kore {__version__} (python 3.")
    assert not modules & {*HEAVY, "pydantic"}


def test_the_short_flag_and_python_m_do_the_same_as_the_command() -> None:
    long, short = kore("train", "--help"), kore("train", "-h")
    assert long.stdout == short.stdout
    module = subprocess.run(
        [sys.executable, "-m", "kore_cli", "--version"], capture_output=True, text=True, check=True
    )
    assert module.stdout == kore("--version").stdout


def test_help_starts_within_half_a_second_of_processor_time() -> None:
    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(3):
        before = spent()
        subprocess.run([KORE, "--help"], capture_output=True, check=True)
        times.append(spent() - before)
    assert min(times) < 0.5


def test_no_command_prints_the_help_as_an_error() -> None:
    done = kore()
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Usage: kore [OPTIONS] COMMAND")
