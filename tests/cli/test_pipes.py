"""Pipes and signals: data alone on stdout, a closed pipe without a word, Ctrl-C as 130, no colour unasked."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.command import KORE, kore

# commands of a test's own, ended as every command of KORE is
HARNESS = """
import sys, typer
from kore_cli.errors import ended
from kore_cli.output import Output, keep_stdout_clean
app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
@app.command()
def flood() -> None:
    for i in range(1_000_000): Output().record({"i": i})
@app.command()
def wait() -> None:
    import time
    print("ready", flush=True)
    time.sleep(60)
@app.command()
def table() -> None:
    out = Output()
    out.table([{"name": "K.A", "value": 1.5}, {"name": "K.R", "value": None}], ["name", "value"], "Scores")
    with out.progress("Working", 2) as advance:
        advance(); advance()
@app.command()
def names() -> None:
    import os
    Output().record({"text": "\\u00dcn\\u00efcode \\u2602", "nan": float("nan")})
    Output().line(os.fsdecode(b"\\xff.jpg"))
keep_stdout_clean()
sys.exit(ended(lambda: app(standalone_mode=False)))
"""


def test_a_reader_that_goes_away_ends_the_command_without_a_word() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HARNESS, "flood"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None and child.stderr is not None
    assert json.loads(child.stdout.readline()) == {"i": 0}
    child.stdout.close()
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait(timeout=60) == 141


@pytest.mark.parametrize("args", ["--help", "--version", "train --help"])
def test_help_into_a_closed_pipe_is_quiet(args: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{KORE}' {args} | true; exit ${{PIPESTATUS[0]}}"], capture_output=True, check=False
    )
    assert done.stderr == b""
    assert done.returncode in (0, 141)


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_ctrl_c_ends_with_130_and_no_traceback(number: signal.Signals) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HARNESS, "wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a job in the background is started with interrupts ignored, and would hand that on
        preexec_fn=lambda: signal.signal(number, signal.default_int_handler),
    )
    assert child.stdout is not None and child.stderr is not None
    assert child.stdout.readline() == b"ready\n"
    time.sleep(0.1)
    child.send_signal(number)
    assert child.wait(timeout=60) == 130
    assert b"Traceback" not in child.stderr.read()
    child.stdout.close()
    child.stderr.close()


def on_a_terminal(*command: str, **env: str) -> str:
    """What a program writes when stdout and stderr are a terminal."""
    main, side = pty.openpty()
    variables = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "CI")}
    child = subprocess.Popen(
        command, stdin=side, stdout=side, stderr=side, env={**variables, "TERM": "xterm-256color", **env}
    )
    os.close(side)
    data = b""
    while select.select([main], [], [], 60)[0]:
        try:
            piece = os.read(main, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        data += piece
    os.close(main)
    assert child.wait(timeout=60) == 0
    return data.decode()


def test_no_color_is_honoured_on_a_terminal() -> None:
    plain = on_a_terminal(sys.executable, "-c", HARNESS, "table", NO_COLOR="1")
    assert "K.A" in plain and "Working" in plain
    coloured = on_a_terminal(sys.executable, "-c", HARNESS, "table")
    assert "\x1b[1;36m" in coloured
    assert "\x1b[3" not in plain and "\x1b[1m" not in plain, "neither colour nor bold"


def test_a_dumb_terminal_gets_no_escape_sequences() -> None:
    text = on_a_terminal(sys.executable, "-c", HARNESS, "table", TERM="dumb", NO_COLOR="1")
    assert "\x1b" not in text


def test_a_pipe_gets_no_escape_sequences_and_no_progress_bar() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, "table"], capture_output=True, text=True, check=True
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout.split() == ["Scores", "name", "value", "K.A", "1.50", "K.R", "-"]
    assert done.stderr.startswith("Working: done in ")


def test_data_is_utf8_json_whatever_the_locale() -> None:
    env = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    done = subprocess.run([sys.executable, "-c", HARNESS, "names"], capture_output=True, check=True, env=env)
    first, second = done.stdout.splitlines()
    assert json.loads(first.decode("utf-8")) == {"text": "Ünïcode ☂", "nan": None}
    assert second == b"\xff.jpg"


def test_a_piped_command_prints_data_alone_on_stdout(tmp_path: Path) -> None:
    done = kore("profiles", "list", cwd=tmp_path)
    assert done.returncode == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert "tiny" in {row["name"] for row in rows}
