"""How fast augmentation goes against a slow server, and what it costs the client; beside a plain asyncio
loop.

    python benchmarks/augment_throughput.py --items 1000 --latency 0.5 --concurrency 64

Starts benchmarks/loopback_server.py, grows the items through the whole pipeline (trunk, caption, visual
questions, grounding, cache, files), and compares with the ideal: calls x latency / concurrency. Then makes
the same calls with a bare asyncio loop over the openai client (no cache, no checks, no files). Prints one
JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai  # noqa: F401  loaded before the clock starts, for both alike
from PIL import Image

from kore.augment import grow
from kore.augment.call import Call, make_call
from kore.augment.schemas import Answers, Quadruplets, Questions, Summary
from kore.augment.teachers.model import ModelTeacher
from kore.config.schema import AugmentSection
from kore.data.records import KnowledgeItem
from kore.llm.client import Client

KEYS = ("price", "weight", "colour", "maker", "origin", "material", "size", "year")


def items(count: int, picture: Path) -> list[KnowledgeItem]:
    """Made-up gadgets with a sentence per fact and one picture for all: four calls each."""
    return [
        KnowledgeItem(
            id=f"g{i}",
            kind="entity",
            type="gadget",
            title=f"Gadget {i}",
            image=str(picture),
            text=" ".join(f"The {key} of Gadget {i} is {key} {i}." for key in KEYS),
        )
        for i in range(count)
    ]


@contextmanager
def server(latency: float) -> Iterator[int]:
    """The loopback server's port."""
    script = Path(__file__).with_name("loopback_server.py")
    process = subprocess.Popen(
        [sys.executable, str(script), "--latency", str(latency)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["port"]
    finally:
        process.kill()
        process.wait()


def stats(port: int) -> dict[str, int]:
    """What the server has seen."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats") as answer:
        value: dict[str, int] = json.load(answer)
    return value


def plain(found: list[KnowledgeItem], settings: AugmentSection) -> None:
    """The same calls, one coroutine an item behind a semaphore: what a quick script would do."""

    async def run() -> None:
        teacher = ModelTeacher(Client("loopback", base_url=settings.base_url), settings.temperature)
        gate = asyncio.Semaphore(settings.concurrency)

        async def ask(call: Call) -> str:
            async with gate:
                return (await teacher.reply(call)).text

        async def one(item: KnowledgeItem) -> None:
            async def trunk() -> None:
                asked = Questions.model_validate_json(
                    await ask(make_call("questions", Questions, item, 0, count=10))
                )
                listed = "\n".join(f"{i}. {q}" for i, q in enumerate(asked.questions, 1))
                Answers.model_validate_json(
                    await ask(make_call("answers", Answers, item, 0, questions=listed))
                )

            await asyncio.gather(
                trunk(),
                ask(make_call("summary", Summary, item, 0)),
                ask(make_call("vqa", Quadruplets, item, 0, count=5)),
            )

        await asyncio.gather(*(one(item) for item in found))
        await teacher.close()

    asyncio.run(run())


def measured(work: Any) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Run both and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--concurrency", type=int, default=64)
    given = parser.parse_args()
    result: dict[str, Any] = {**vars(given)}
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "gadget.png"
        Image.new("RGB", (64, 64), "teal").save(picture)
        found = items(given.items, picture)
        os.environ["KORE_CACHE"] = f"{folder}/cache"
        for name in ("kore", "plain"):
            with server(given.latency) as port:
                settings = AugmentSection(
                    teacher="openai:loopback",
                    base_url=f"http://127.0.0.1:{port}/v1",
                    concurrency=given.concurrency,
                )
                if name == "kore":
                    wall, cpu = measured(lambda: grow(found, settings, Path(folder) / "out"))  # noqa: B023
                else:
                    wall, cpu = measured(lambda: plain(found, settings))  # noqa: B023
                calls = stats(port)["requests"]
            ideal = calls * given.latency / given.concurrency
            result[name] = {
                "calls": calls,
                "seconds": round(wall, 2),
                "ideal_seconds": round(ideal, 2),
                "over_ideal": round(wall / ideal, 3),
                "cpu_ms_per_call": round(1000 * cpu / calls, 2),
            }
    result["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps(result))


if __name__ == "__main__":
    main()
