"""Trials side by side: a few processes, each with its share of the threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

from kore.errors import KoreError
from kore.progress import Progress, silent
from kore.studies.method_study.trials import Bench, Spec

Job = tuple[Bench, Spec, str]
"""A trial and the split that it is to be scored on."""


def run_all(jobs: Iterable[Job], count: int, progress: Progress) -> None:
    """Make the rows that are missing; `Bench.trial` then reads them back.

    Args:
        count: processes; 1 works in this one, and tells of each stage.

    Raises:
        Interrupted: after a checkpoint; the same call resumes from there.
        KoreError: a process died.
    """
    found: dict[tuple[str, str], tuple[Bench, Spec, list[str]]] = {}
    for bench, spec, split in jobs:
        if bench.trial(spec, split, make=False) is None and bench.pending(spec):
            splits = found.setdefault((bench.profile, bench.name(spec)), (bench, spec, []))[2]
            splits += [split] if split not in splits else []
    if count == 1:
        for bench, spec, splits in found.values():
            for split in splits:
                bench.trial(spec, split)
        return
    for bench, _, splits in found.values():
        for split in splits:
            bench.scored(split)  # once, not in every process
    waiting = list(found.values())
    threads = max(1, (os.cpu_count() or 1) // count)
    pool = ProcessPoolExecutor(
        count, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(threads, os.getpid())
    )
    running: dict[Future[dict[str, str]], tuple[Bench, Spec]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < count:
                bench, spec, splits = waiting.pop(0)
                progress(str(spec), 0)
                running[pool.submit(_work, replace(bench, progress=silent), spec, splits)] = (bench, spec)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                bench, spec = running.pop(future)
                bench.failed |= future.result()
                progress(str(spec), 1, 1, f"{len(waiting) + len(running)} to go")
    except BrokenProcessPool as error:
        raise KoreError(
            "a trial's process died", hint="the same command resumes; with fewer --jobs it needs less memory"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _work(bench: Bench, spec: Spec, splits: list[str]) -> dict[str, str]:
    """In a process of its own: make the rows, return what failed."""
    bench.failed.clear()
    for split in splits:
        bench.trial(spec, split)
    return bench.failed


def _begin(threads: int, parent: int) -> None:
    """Standard output belongs to the parent; a process whose parent died does not outlive it."""
    import torch

    torch.set_num_threads(threads)
    os.dup2(sys.stderr.fileno(), 1)
    warnings.simplefilter("ignore", FutureWarning)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(2)
        os.kill(os.getpid(), signal.SIGTERM)  # finish the step and write a checkpoint
        time.sleep(60)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
