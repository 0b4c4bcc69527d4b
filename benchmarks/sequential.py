"""Three batches taught one after another: what is left of each, and of what the base knew.

    python benchmarks/sequential.py            # resumable; writes docs/results/sequential.{json,md,png}

The demo's 24 new countries in three batches of eight, each trained on the model that the batch before
left. Compared: KORE as `kore inject --after` does it (the earlier batches' covariance added to the old
one), KORE that protects the old samples alone, LoRA, and Replay (LoRA with a tenth of samples drawn from
the old ones and the earlier batches'). All at one trainable count, steps and batch size. KORE takes 2e-2:
at the demo's 4e-2, which one batch bears, the second diverges. LoRA's and Replay's rate is the one of RATES
whose first batch comes nearest to KORE's K.A on the validation split, so that what each forgets is compared
at like learning. All figures are of the test split.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from kore.demo.archive import demo_data

BATCHES = 3
KORE_RATE = 2e-2
RATES = (1e-3, 2e-3, 4e-3)
NAMES = {
    "kore": "KORE, --after",
    "kore-old": "KORE, old samples alone protected",
    "lora": "LoRA",
    "replay": "LoRA with replay",
}
COLOURS = {"kore": "#2563eb", "kore-old": "#93c5fd", "lora": "#f97316", "replay": "#16a34a"}


def prepare(work: Path) -> None:
    """The countries in three batches, augmented, and the covariance of the old samples."""
    from kore.config.resolve import resolve
    from kore.data.read import read_records
    from kore.data.records import KnowledgeItem
    from kore.progress import silent
    from kore.workflows import demo, stages

    path = demo_data() / "items.jsonl"
    items = list(read_records(KnowledgeItem, path))
    profile = resolve(demo.PROFILE, {"augment.images": f"local:{demo_data() / 'images_more'}"})
    for number in range(BATCHES):
        out = tree(work, number)
        stages.augment(items[number::BATCHES], profile.profile, out, silent, sources={"items": str(path)})
    stages.calibrate(profile, work / "covariance", silent)


def tree(work: Path, number: int) -> Path:
    """The samples and questions of a batch, counted from 0."""
    return work / f"batch-{number + 1}"


def train(work: Path, method: str, rate: float, number: int) -> Path:
    """Train a method on a batch, after the batches before it; the run folder."""
    from kore.config.resolve import resolve
    from kore.data.read import read_records
    from kore.data.records import Sample
    from kore.progress import silent
    from kore.workflows import demo, stages
    from kore.workflows.protect import protect

    def folder(n: int) -> Path:
        first = "kore" if method == "kore-old" and n == 0 else method  # the first batch is the same
        return work / f"{first}-{rate:g}" / f"after-{n + 1}"

    out, before = folder(number), folder(number - 1) / "run" if number else None
    resolved = resolve(demo.PROFILE, {"train.method": method.split("-")[0], "train.lr": rate})
    covariance = old = None
    if method.startswith("kore"):
        covariance = work / "covariance"
        if before and method == "kore":
            covariance = protect(resolved, before, out, silent)
        elif before:
            covariance = out / "covariance"
            stages.calibrate(resolved, covariance, silent, adapter=before)
    if method == "replay":
        from kore.io.jsonl import write_jsonl

        pools = [demo_data() / "old.jsonl", *(tree(work, n) / "samples.jsonl" for n in range(number))]
        old = out / "old.jsonl"
        write_jsonl(old, [s.to_json() for pool in pools for s in read_records(Sample, pool)])
    data = tree(work, number) / "samples.jsonl"
    stages.train(resolved, data, out / "run", silent, covariance=covariance, old=old, after=before)
    return out / "run"


def score(work: Path, run: Path | None, label: str, split: str, batches: int = BATCHES) -> dict[str, Any]:
    """K.A of the first batches, K.R over the far suites and near."""
    from kore.artifacts.run import Run
    from kore.config.resolve import resolve
    from kore.evaluation.demo_suites import FAR, NEAR, demo_suites
    from kore.progress import silent
    from kore.workflows import demo, stages

    names = [f"batch {n + 1}" for n in range(batches)]
    suites = [demo.new_suite(tree(work, n), split, name) for n, name in enumerate(names)]
    if split == "test":
        suites += demo_suites(split)
    model = Run(run) if run else None
    found = stages.evaluate(
        resolve(demo.PROFILE), model, suites, work / f"eval-{split}", label, silent
    ).scored
    row: dict[str, Any] = {"k_a": [found[name].headline for name in names]}
    if split == "test":
        row["k_r"] = sum(found[n].headline or 0 for n in FAR) / len(FAR)
        row["near"] = sum(found[n].headline or 0 for n in NEAR) / len(NEAR)
    return row


def choose(work: Path, kore_rate: float) -> tuple[float, dict[str, float]]:
    """The LoRA rate whose K.A on the first batch is nearest to KORE's, on the validation split."""
    kore = score(work, train(work, "kore", kore_rate, 0), f"kore-{kore_rate:g}", "validation", 1)["k_a"][0]
    seen = {}
    for rate in RATES:
        seen[rate] = score(work, train(work, "lora", rate, 0), f"lora-{rate:g}", "validation", 1)["k_a"][0]
    tried = {"kore": kore, **{f"lora {rate:g}": k_a for rate, k_a in seen.items()}}
    return min(seen, key=lambda rate: abs(seen[rate] - kore)), tried


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The table in Markdown."""
    head = ["method", "after", *(f"batch {n + 1}" for n in range(BATCHES)), "all so far", "K.R", "near"]
    made = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for row in rows:
        done = row["after"]
        cells = [f"{k:.1f}" if n < done or not done else "-" for n, k in enumerate(row["k_a"])]
        so_far = f"{sum(row['k_a'][:done]) / done:.1f}" if done else "-"
        name = NAMES.get(row["method"], "base (untouched)")
        made.append(
            f"| {name} | {f'batch {done}' if done else '-'} | {' | '.join(cells)} | {so_far} "
            f"| {row['k_r']:.1f} | {row['near']:.1f} |"
        )
    return made


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """What is left of the first batch, of all batches so far, and of old knowledge, after each batch."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    base = next(r for r in rows if r["method"] == "base")
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), sharex=True)
    for method, name in NAMES.items():
        mine = sorted((r for r in rows if r["method"] == method), key=lambda r: r["after"])
        steps = [r["after"] for r in mine]
        style = {"color": COLOURS[method], "marker": "o"}
        axes[0].plot(steps, [r["k_a"][0] for r in mine], label=name, **style)
        axes[1].plot(steps, [sum(r["k_a"][: r["after"]]) / r["after"] for r in mine], **style)
        axes[2].plot([0, *steps], [base["k_r"], *(r["k_r"] for r in mine)], **style)
        axes[2].plot([0, *steps], [base["near"], *(r["near"] for r in mine)], linestyle="--", **style)
    for axis, title in zip(
        axes,
        ("first batch (K.A)", "all batches so far (K.A)", "old: far suites (K.R) and, dashed, near"),
        strict=True,
    ):
        axis.set_title(title)
        axis.set_xlabel("batches taught")
        axis.set_xticks(range(BATCHES + 1))
        axis.set_ylim(0, 100)
        axis.grid(alpha=0.25)
    axes[0].legend(loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Train and score what is missing, then write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/sequential"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    args = parser.parse_args()
    import torch

    from kore.models.load import base_version, embedded_base

    torch.set_num_threads(args.threads)
    began = time.monotonic()
    prepare(args.work)
    kore_rate = KORE_RATE
    lora_rate, tried = choose(args.work, kore_rate)
    rows = [{"method": "base", "after": 0, **score(args.work, None, "base", "test")}]
    print("\n".join(lines(rows)), flush=True)
    for method in NAMES:
        rate = kore_rate if method.startswith("kore") else lora_rate
        for number in range(BATCHES):
            run = train(args.work, method, rate, number)
            label = f"{method}-{rate:g}-after-{number + 1}"
            rows.append({"method": method, "after": number + 1, **score(args.work, run, label, "test")})
            print(lines(rows)[-1], flush=True)
    found = {
        "command": "python benchmarks/sequential.py",
        "base": base_version(embedded_base()),
        "rates": {"kore": kore_rate, "lora": lora_rate},
        "first batch on the validation split (K.A)": tried,
        "seconds": round(time.monotonic() - began),
        "rows": rows,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "sequential.json").write_text(json.dumps(found, indent=1) + "\n")
    title = "# Batches taught one after another"
    told = (
        f"`{found['command']}`, kore-tiny version {found['base']}, one seed, test split; learning rates "
        f"KORE {kore_rate:g}, LoRA {lora_rate:g}. K.A of each batch, of all so far, K.R over the far suites, near."
    )
    (args.out / "sequential.md").write_text("\n".join([title, "", told, "", *lines(rows), ""]))
    draw(rows, args.out / "sequential.png")


if __name__ == "__main__":
    main()
