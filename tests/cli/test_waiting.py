"""What is waited for is reported without a terminal too: servers by their address, stages with their count."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from kore.llm import client
from kore.llm.client import Client
from kore.llm.request import Request
from kore.progress import each_line, reminded, repeated
from kore_cli import output
from kore_cli.output import Output
from tests.cli.command import KORE, kore
from tests.cli.test_inject_inputs import write_items


class Slow(BaseHTTPRequestHandler):
    """Answers after half a second."""

    def do_POST(self) -> None:
        time.sleep(0.5)
        text = json.dumps({"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        pass


def test_a_slow_server_is_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "SLOW", 0.1)
    server = HTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/v1"

    async def ask() -> None:
        asked = Client("m", base_url=url)
        for _ in range(2):
            assert (await asked.reply(Request(({"role": "user", "content": "?"},)))).text == "yes"
        await asked.close()

    try:
        asyncio.run(ask())
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        f"waiting for m at {url}"
    ]


def test_an_unreachable_teacher_is_named_within_two_seconds(tmp_path: Path) -> None:
    write_items(tmp_path)
    address = "http://127.0.0.1:9/v1"
    words = [
        "augment",
        "items.jsonl",
        "-o",
        "out",
        "--teacher",
        "openai:m",
        "--set",
        f"augment.base_url={address}",
    ]
    child = subprocess.Popen(
        [KORE, *words], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert child.stderr is not None
    try:
        lines = iter(child.stderr.readline, "")
        settings = next(lines)
        start = time.monotonic()
        first = next(line for line in lines if address in line)
        assert (
            settings.startswith("settings:") and time.monotonic() - start < 10
        )  # the import of openai included
        assert first.startswith(f"warning: cannot reach {address}: ConnectError") and first.endswith(
            "; trying again\n"
        )
    finally:
        child.terminate()
        child.communicate()


def test_a_stage_without_a_terminal_reports_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "repeated", lambda *args: repeated(*args, every=0.05))
    with Output().progress("Augmenting", 3) as advance:
        advance(note="cost 0.1")
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert "Augmenting: 1 of 3, cost 0.1" in lines[:-1] and lines[-1].startswith("Augmenting: done in")


def test_a_sink_of_lines_is_reminded_of_the_last_progress() -> None:
    lines: list[str] = []
    with reminded(each_line(lines.append, every=0.05), every=0.05) as report:
        report("train", 1, 9, "loss 2")
        time.sleep(0.3)
        report("train", 9, 9)
        time.sleep(0.2)
    assert lines.count("train 1 of 9: loss 2") >= 2 and lines[-1] == "train (0 s)"


def test_a_closed_standard_output_is_no_error() -> None:
    for stream in (">&-", ">&- 2>&-"):
        done = subprocess.run(
            ["bash", "-c", f"'{KORE}' profiles list {stream}"], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert kore("profiles", "list").returncode == 0
