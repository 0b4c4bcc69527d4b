"""The curve of adaptation (K.A) against retention (K.R) on the demo, over learning rates and seeds.

    python benchmarks/frontier.py                   # all, resumable; writes docs/results/frontier.{json,png}
    python benchmarks/frontier.py --seeds 0 --jobs 4

LoRA on raw items, LoRA on augmented ones, KORE, and KORE with a quarter of contrast in its basis (an extension,
so without gates), at the same trainable count, steps and batch, and with the same number of rates. Rates are
chosen on the validation split at seed 0; the curves and the gates are of the test split. Exit code 6 if a gate
is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

RATES = {
    "lora-raw": (1e-3, 2e-3, 4e-3, 8e-3),
    "lora": (1e-3, 2e-3, 4e-3, 8e-3),
    "kore": (1e-2, 2e-2, 3e-2, 4e-2),
    "kore-contrast": (1e-2, 2e-2, 3e-2, 4e-2),
}
CONTRAST = 0.25
NAMES = {
    "lora-raw": "LoRA, raw items",
    "lora": "LoRA, augmented",
    "kore": "KORE",
    "kore-contrast": f"KORE, contrast {CONTRAST}",
}
COLOURS = {"lora-raw": "#9ca3af", "lora": "#f97316", "kore": "#2563eb", "kore-contrast": "#16a34a"}


def trial(work: Path, label: str, rate: float, seed: int, threads: int) -> None:
    """Train and score one setting on both splits; the row goes to ``row.json`` of its folder."""
    import torch

    from kore.config.resolve import resolve
    from kore.io.files import write_json
    from kore.progress import silent
    from kore.workflows import demo, stages
    from kore.workflows.trial import run_trial

    torch.set_num_threads(threads)
    bench = demo.prepare(work / f"data-{seed}", seed, silent)
    folder = work / f"{label}-{rate:g}-{seed}"
    row: dict[str, Any] = {"method": label, "rate": rate, "seed": seed}
    for split in ("validation", "test") if seed == 0 else ("test",):
        suites = demo.suites_of(bench, split)
        evals = work / f"eval-{split}-{seed}-{label}-{rate:g}"
        if label == "base":
            result = stages.evaluate(resolve(demo.PROFILE), None, suites, evals, "base", silent)
        else:
            flags: dict[str, Any] = {"train.lr": rate, "train.seed": seed}
            if label == "kore-contrast":
                flags |= {"adapter.basis": "contrast", "adapter.contrast": CONTRAST}
                chosen = bench.trial("kore", **flags)
                chosen = replace(chosen, label=label, new_covariance=work / f"new-{seed}")
            else:
                chosen = bench.trial(label, **flags)
            run, result = run_trial(chosen, demo.PROFILE, folder, suites, evals)
            row["params"] = run.state().result["trainable"]
        row[split] = {name: s.headline for name, s in result.scored.items()}
    write_json(work / f"row-{label}-{rate:g}-{seed}.json", row)


def figures(row: dict[str, Any], split: str) -> dict[str, float]:
    """K.A, K.R over the far suites, and K.R near."""
    from kore.evaluation.demo_suites import FAR, NEAR

    scores = row[split]
    return {
        "k_a": scores["new countries"],
        "k_r": sum(scores[n] for n in FAR) / len(FAR),
        "k_r_near": sum(scores[n] for n in NEAR) / len(NEAR),
    }


def summarise(rows: list[dict[str, Any]], seeds: list[int]) -> dict[str, Any]:
    """Areas, chosen rates and the gates."""
    from kore.evaluation.frontier import area, retention_at

    base = {r["seed"]: r for r in rows if r["method"] == "base"}
    found: dict[str, Any] = {
        "rows": rows,
        "seeds": seeds,
        "area": {},
        "area_near": {},
        "chosen": choose(rows),
    }
    points: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for label in RATES:
        for seed in seeds:
            mine = [base[seed], *(r for r in rows if r["method"] == label and r["seed"] == seed)]
            values = [figures(r, "test") for r in mine]
            points[label, seed] = [(v["k_a"], v["k_r"]) for v in values]
            found["area"].setdefault(label, []).append(area(points[label, seed]))
            near = area([(v["k_a"], v["k_r_near"]) for v in values])
            found["area_near"].setdefault(label, []).append(near)
    for label in ("kore", "kore-contrast"):
        rate = found["chosen"][label]
        at = [figures(r, "test") for s in seeds for r in rows if _is(r, label, rate, s)]
        best_lora = [max(k_a for k_a, _ in points["lora", s]) for s in seeds]
        lora_there = [retention_at(points["lora", s], v["k_a"]) for s, v in zip(seeds, at, strict=True)]
        mine, lora, raw = (found["area"][n] for n in (label, "lora", "lora-raw"))
        found["gates" if label == "kore" else "contrast"] = {
            "area above both in every seed": all(
                k > a and k > b for k, a, b in zip(mine, lora, raw, strict=True)
            ),
            "K.A as a share of LoRA-augmented's best": [
                v["k_a"] / b for v, b in zip(at, best_lora, strict=True)
            ],
            "K.R minus LoRA's at equal K.A": [
                None if there is None else v["k_r"] - there for v, there in zip(at, lora_there, strict=True)
            ],
            "K.R as a share of the base's": [
                v["k_r"] / figures(base[s], "test")["k_r"] for s, v in zip(seeds, at, strict=True)
            ],
        }
    return found


def choose(rows: list[dict[str, Any]]) -> dict[str, float]:
    """One rate per method, on the validation split at seed 0.

    KORE, with contrast or without: the highest K.A that keeps at least 95 % of the base's K.R. The others: the K.A
    nearest to KORE's, so that what each forgot is compared at like learning.
    """
    seen = {
        (r["method"], r["rate"]): figures(r, "validation")
        for r in rows
        if r["seed"] == 0 and "validation" in r
    }
    floor = 0.95 * seen["base", 0.0]["k_r"]
    chosen = {}
    for label in ("kore", "kore-contrast"):
        kept = {rate: v["k_a"] for (m, rate), v in seen.items() if m == label and v["k_r"] >= floor}
        chosen[label] = max(kept, key=lambda rate: kept[rate])
    there = seen["kore", chosen["kore"]]["k_a"]
    for label in RATES:
        if label not in chosen:
            mine = {rate: abs(v["k_a"] - there) for (m, rate), v in seen.items() if m == label}
            chosen[label] = min(mine, key=lambda rate: mine[rate])
    return chosen


def _is(row: dict[str, Any], label: str, rate: float, seed: int) -> bool:
    return bool(row["method"] == label and row["rate"] == rate and row["seed"] == seed)


def draw(found: dict[str, Any], path: Path) -> None:
    """Both curves, far and near, all seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharex=True)
    for axis, key, title in zip(
        axes, ("k_r", "k_r_near"), ("kept: far suites (K.R)", "kept: other countries (near)"), strict=True
    ):
        for label, name in NAMES.items():
            for number, seed in enumerate(found["seeds"]):
                mine = [r for r in found["rows"] if r["seed"] == seed and r["method"] in ("base", label)]
                values = [figures(r, "test") for r in sorted(mine, key=lambda r: r["rate"])]
                axis.plot(
                    [v["k_a"] for v in values],
                    [v[key] for v in values],
                    "o-",
                    color=COLOURS[label],
                    alpha=0.75,
                    label=name if number == 0 else None,
                )
        axis.set_xlabel("learned: new countries (K.A)")
        axis.set_ylabel(title)
        axis.set_ylim(0, 100)
        axis.grid(alpha=0.25)
    axes[0].legend(loc="lower left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    """Run what is missing, then summarise; exit code 6 if a gate is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/frontier"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2)))
    parser.add_argument("--threads", type=int, default=1, help="per job")
    parser.add_argument("--one", nargs=3, metavar=("LABEL", "RATE", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        trial(args.work, args.one[0], float(args.one[1]), int(args.one[2]), args.threads)
        return 0
    from kore.config.resolve import resolve
    from kore.models.load import base_identity
    from kore.progress import silent
    from kore.workflows import demo, stages

    base = base_identity()
    args.work /= base["fingerprint"]  # rows of another base are others
    for seed in args.seeds:
        bench = demo.prepare(args.work / f"data-{seed}", seed, silent)
        samples = bench.tree / "samples.jsonl"
        stages.calibrate_new(resolve(demo.PROFILE), samples, args.work / f"new-{seed}", silent)
    wanted = [(label, rate, s) for s in args.seeds for label, rates in RATES.items() for rate in rates]
    wanted = [("base", 0.0, s) for s in args.seeds] + wanted

    def run(setting: tuple[str, float, int]) -> None:
        label, rate, seed = setting
        if (args.work / f"row-{label}-{rate:g}-{seed}.json").exists():
            return
        command = [sys.executable, __file__, "--work", str(args.work), "--threads", str(args.threads)]
        command += ["--one", label, f"{rate:g}", str(seed)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        print(
            f"{label} rate {rate:g} seed {seed}: {'done' if done.returncode == 0 else done.stderr[-800:]}",
            flush=True,
        )

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(run, wanted))
    rows = [json.loads(p.read_text()) for p in sorted(args.work.glob("row-*.json"))]
    tried = {("base", 0.0)} | {(m, rate) for m, rates in RATES.items() for rate in rates}
    rows = [r for r in rows if r["seed"] in args.seeds and (r["method"], r["rate"]) in tried]
    if len(rows) < len(wanted):
        print(f"{len(wanted) - len(rows)} of {len(wanted)} rows are missing", file=sys.stderr)
        return 1
    found = summarise(rows, args.seeds)
    args.out.mkdir(parents=True, exist_ok=True)
    command = "python benchmarks/frontier.py"
    (args.out / "frontier.json").write_text(
        json.dumps({"command": command, "base": base, **found}, indent=1) + "\n"
    )
    draw(found, args.out / "frontier.png")
    for label in RATES:
        print(
            f"{NAMES[label]:20} rate {found['chosen'][label]:g}  area {found['area'][label]}  near {found['area_near'][label]}"
        )
    for label, key in (("KORE", "gates"), ("with contrast", "contrast")):
        for name, value in found[key].items():
            print(f"{label}: {name}: {value}")
    gates = list(found["gates"].values())
    met = (
        gates[0]
        and min(gates[1]) >= 0.8
        and all(d is None or d > 0 for d in gates[2])
        and min(gates[3]) >= 0.95
    )
    return 0 if met else 6


if __name__ == "__main__":
    raise SystemExit(main())
