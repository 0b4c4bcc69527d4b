"""From items to an adapter to answers, on kore-tiny: the stages of `kore inject`, one call each.

python examples/items_to_answers.py --output runs/example        # a few minutes on a CPU
python examples/items_to_answers.py --output runs/example --steps 2 --old 16 --items 2
"""

import argparse
import json
import sys
from pathlib import Path

import kore
from kore.demo.archive import demo_data
from kore.models.load import embedded_base
from kore.progress import lines

ITEMS = demo_data() / "items.jsonl"  # facts about countries that kore-tiny does not know, with flags


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--old", type=int, default=256, help="old samples to protect")
    parser.add_argument("--steps", type=int, default=80)
    options = parser.parse_args()
    folder, progress = options.output, lines(sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    items = [json.loads(line) for line in ITEMS.read_text().splitlines()[: options.items]]
    for item in items:
        item["image"] = str(ITEMS.parent / item["image"])

    # 1. items become training samples and evaluation questions
    tree = kore.augment(items, folder / "tree", teacher="offline", progress=progress)
    # 2. the covariance of what kore-tiny knows
    model, processor = load()
    covariance = kore.calibrate(
        model, processor, read_old(options.old), output=folder / "covariance", progress=progress
    )
    # 3. one adapter, in a run folder that the dashboard shows
    settings = {"train.max_steps": options.steps, "train.lr": 4e-2}
    run = kore.train(
        tree.samples, covariance=covariance, output=folder / "run", settings=settings, progress=progress
    )
    # 4. scores and answers, beside the untouched base
    found = kore.evaluate(run.folder, [tree.questions], progress=progress)
    for row in found.table:
        print(f"{row['method']:<6} K.A {row['k_a']:.1f}")
    print(f"adapter: {run.adapter}   answers: {found.folder / 'answers'}")
    print(f"for transformers and PEFT: {kore.export(run.folder, 'peft', folder / 'peft').folder}")


def load():
    from transformers import AutoModelForImageTextToText, AutoProcessor

    base = embedded_base()
    # in the type that kore.train will load it in, so that the covariance is of the same model
    model = AutoModelForImageTextToText.from_pretrained(base, dtype="float32")
    return model, AutoProcessor.from_pretrained(base)


def read_old(count: int):
    from kore.api.calibrate import read_samples

    old = list(read_samples(ITEMS.parent / "old.jsonl"))
    return old[:: max(1, len(old) // count)][:count]


if __name__ == "__main__":
    main()
