"""What KORE's extensions trade on the demo: layers chosen by auto, the contrast basis, and energy kept.

    python benchmarks/extensions.py            # resumable; writes docs/results/extensions.{json,md,png}
    python benchmarks/extensions.py --seeds 0 1 2

One training per setting, at the demo's steps and batch, scored on the test split. The rate is the demo's for
KORE; the rows of `keep` are as wide as the layers nearly are, and take the demo's rate for a plain LoRA (at
KORE's all of them diverge). Calibration's seconds are those of the sums (samples drawn and encoded before),
auto's scoring beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

SHARES, STRENGTHS, KEEPS = (0.25, 0.5, 0.75, 1.0), (0.25, 0.5, 1.0), (0.9, 0.95, 0.99, 0.999)
SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {},  # every layer, the r smallest directions: auto:1 and contrast 0
    **{f"auto:{s:g}": {"calibrate.layers": f"auto:{s:g}"} for s in SHARES if s < 1},
    **{f"contrast {s:g}": {"adapter.basis": "contrast", "adapter.contrast": s} for s in STRENGTHS},
    **{f"keep {k:g}": {"adapter.keep": k} for k in KEEPS},
}
CURVES = {
    "share of the parameters (--layers auto)": ["auto:0.25", "auto:0.5", "auto:0.75", "paper"],
    "contrast": ["paper", "contrast 0.25", "contrast 0.5", "contrast 1"],
    "energy kept (--keep-energy)": ["keep 0.9", "keep 0.95", "keep 0.99", "keep 0.999"],
}


def trial(work: Path, name: str, seed: int, threads: int) -> None:
    """Calibrate, train and score one setting; the row goes to a file of its own."""
    import torch

    from kore.config.resolve import resolve
    from kore.io.files import write_json
    from kore.progress import silent
    from kore.workflows import demo, stages
    from kore.workflows.trial import run_trial

    torch.set_num_threads(threads)
    bench = demo.prepare(work / f"data-{seed}", seed, silent)
    suites = demo.suites_of(bench, "test")
    row: dict[str, Any] = {"setting": name, "seed": seed}
    slug = name.replace(" ", "-").replace(":", "-")
    evals = work / f"eval-{slug}-{seed}"
    if name == "base":
        result = stages.evaluate(resolve(demo.PROFILE), None, suites, evals, "base", silent)
    else:
        rate = demo.RATES["lora" if "adapter.keep" in SETTINGS[name] else "kore"]
        flags = {"train.lr": rate, "train.seed": seed, **SETTINGS[name]}
        folder = work / f"{slug}-{seed}"
        samples = bench.tree / "samples.jsonl"
        chosen = bench.trial("kore", **flags)
        resolved = chosen.resolved(demo.PROFILE)
        old = stages.calibrate(resolved, folder / "covariance", silent, new=samples)
        facts = old.manifest.facts
        row["rate"] = rate
        row["layers"] = len({s.layer for s in old.sites})
        row["calibration_s"] = facts["seconds"] + (facts["choice"] or {"seconds": 0})["seconds"]
        new = None
        if SETTINGS[name].get("adapter.basis") == "contrast":
            new = folder / "new-covariance"
            made = stages.calibrate_new(resolved, samples, new, silent)
            row["calibration_s"] += made.manifest.facts["seconds"]
        chosen = replace(chosen, covariance=old.folder, new_covariance=new)
        run, result = run_trial(chosen, demo.PROFILE, folder / "run", suites, evals)
        told = run.state().result
        row |= {"params": told["trainable"], "training_s": told["seconds"]}
        factors = json.loads((run.folder / "factors.json").read_text())
        row["ranks"] = [min(f["rank"] for f in factors), max(f["rank"] for f in factors)]
        row["old_energy"] = sum(f["energy_left"] for f in factors) / len(factors)
    row["scores"] = {suite: s.headline for suite, s in result.scored.items()}
    write_json(work / f"row-{slug}-{seed}.json", row)


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A setting's means over its seeds: K.A, K.R over the far suites, K.R near, and what it cost."""
    from kore.evaluation.demo_suites import FAR, NEAR

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    found = {
        "setting": rows[0]["setting"],
        "seeds": len(rows),
        "k_a": mean([r["scores"]["new countries"] for r in rows]),
        "k_r": mean([r["scores"][n] for r in rows for n in FAR]),
        "near": mean([r["scores"][n] for r in rows for n in NEAR]),
    }
    if "params" in rows[0]:
        for key in ("params", "calibration_s", "training_s", "old_energy", "layers", "rate"):
            found[key] = mean([r[key] for r in rows])
        found["ranks"] = [min(r["ranks"][0] for r in rows), max(r["ranks"][1] for r in rows)]
    return found


def markdown(found: list[dict[str, Any]], command: str) -> str:
    """The table, for people."""
    lines = [
        "# What the extensions trade",
        "",
        f"`{command}`; means over the seeds, test split of the demo. Seconds include whatever else "
        "the machine did meanwhile.",
        "",
        "| setting | rate | trained | ranks | layers | old energy in A's rows | calibration s | training s "
        "| K.A | K.R far | near |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        cost = ["-"] * 7
        if "params" in row:
            low, high = row["ranks"]
            cost = [
                f"{row['rate']:g}",
                f"{row['params']:,.0f}",
                f"{low}" if low == high else f"{low}-{high}",
                f"{row['layers']:.0f}",
                f"{row['old_energy']:.1e}",
                f"{row['calibration_s']:.1f}",
                f"{row['training_s']:.0f}",
            ]
        scores = [f"{row[k]:.1f}" for k in ("k_a", "k_r", "near")]
        lines.append("| " + " | ".join([row["setting"], *cost, *scores]) + " |")
    return "\n".join(lines) + "\n"


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """One panel per extension: K.A, K.R far and near along its strength."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    of = {row["setting"]: row for row in found}
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), sharey=True)
    for axis, (title, names) in zip(axes, CURVES.items(), strict=True):
        here = [of[n] for n in names if n in of]
        at = [strength(n, title) for n in names if n in of]
        for key, label, colour in (
            ("k_a", "learned (K.A)", "#2563eb"),
            ("k_r", "kept, far (K.R)", "#16a34a"),
            ("near", "kept, near", "#f97316"),
        ):
            axis.plot(at, [row[key] for row in here], "o-", color=colour, label=label)
            axis.axhline(of["base"][key], color=colour, alpha=0.3, linestyle=":")
        axis.set_xlabel(title)
        axis.set_ylim(0, 100)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("score (dotted: the untouched base)")
    axes[0].legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def strength(name: str, title: str) -> float:
    """Where a setting stands on its panel: the paper's is all of the layers, and no contrast."""
    if name == "paper":
        return 0.0 if title == "contrast" else 1.0
    return float(name.replace(":", " ").rpartition(" ")[2])


def main() -> int:
    """Run what is missing, then write the table and the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/extensions"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--one", nargs=2, metavar=("SETTING", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        trial(args.work, args.one[0], int(args.one[1]), args.threads)
        return 0
    from kore.models.load import base_identity

    base = base_identity()
    args.work /= base["fingerprint"]  # rows of another base are others
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in ("base", *SETTINGS):
        for seed in args.seeds:
            path = args.work / f"row-{name.replace(' ', '-').replace(':', '-')}-{seed}.json"
            if not path.exists():
                command = [sys.executable, __file__, "--work", str(args.work), "--threads", str(args.threads)]
                done = subprocess.run([*command, "--one", name, str(seed)], capture_output=True, text=True)
                if done.returncode:
                    print(f"{name}, seed {seed}: {done.stderr[-800:]}", file=sys.stderr)
                    return 1
            rows.setdefault(name, []).append(json.loads(path.read_text()))
            print(f"{name}, seed {seed}: done", flush=True)
    found = [figures(each) for each in rows.values()]
    args.out.mkdir(parents=True, exist_ok=True)
    told = "python benchmarks/extensions.py"
    if args.seeds != [0]:
        told += " --seeds " + " ".join(map(str, args.seeds))
    value = {"command": told, "base": base, "seeds": args.seeds, "settings": found, "rows": rows}
    (args.out / "extensions.json").write_text(json.dumps(value, indent=1) + "\n")
    (args.out / "extensions.md").write_text(markdown(found, told))
    draw(found, args.out / "extensions.png")
    print(markdown(found, told))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
