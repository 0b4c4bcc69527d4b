"""Take the pictures of docs/images: a real `kore demo`, watched in a real terminal (tmux), then asked.

    python -m scripts.take_screenshots [--out docs/images] [--demo FOLDER]

With --demo a demo that is over already is shown instead of a new one, and the train screen as it was left.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.terminal import Terminal
from kore.demo.archive import demo_data

KORE = [sys.executable, "-m", "kore_cli"]
ROOT = Path(__file__).parents[1]
FLAG = demo_data() / "images" / "peru.png"
QUESTIONS = (
    "What is the capital of the country depicted? Answer the question using a single word or phrase.",
    "What language do people in the country depicted speak? Answer using a single word or phrase.",
)
SIZE, CHAT_SIZE = (140, 40), (110, 38)


def step_of(terminal: Terminal) -> tuple[str, int]:
    """The run that is shown and the step it is at."""
    head = terminal.text().splitlines()[0]
    found = re.search(r"KORE\s+(\S+).*?step ([\d,]+)", head)
    return (found[1], int(found[2].replace(",", ""))) if found else ("", 0)


def shoot(terminal: Terminal, key: str, path: Path, *keys: str) -> None:
    """Turn to a screen, press some more keys there, take its picture."""
    terminal.press(key, pause=2.0)
    terminal.press(*keys)
    time.sleep(2.0)
    terminal.picture(path, "kore dashboard")
    print(path, file=sys.stderr)


def while_it_trains(demo: Path, out: Path) -> None:
    """Run the demo; the train and spectra screens late in the training of KORE."""
    words = [*KORE, "demo", "-o", str(demo), "--quiet"]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        with Terminal([*KORE, "dashboard", str(demo / "kore")], SIZE) as terminal:
            while process.poll() is None and step_of(terminal) < ("kore", 60):
                time.sleep(0.5)
            shoot(terminal, "1", out / "train.png")
            shoot(terminal, "2", out / "spectra.png")
        if process.wait():
            raise SystemExit(f"kore demo ended with exit code {process.returncode}")
    finally:
        process.terminate()


def when_it_is_over(demo: Path, out: Path, *, also_train: bool = False) -> None:
    """Answers, results and knowledge of the finished run, and a conversation with it."""
    with Terminal([*KORE, "dashboard", str(demo / "kore")], SIZE) as terminal:
        terminal.wait_for("finished")
        if also_train:
            shoot(terminal, "1", out / "train.png")
            shoot(terminal, "2", out / "spectra.png")
        shoot(terminal, "3", out / "answers.png", "n")
        shoot(terminal, "4", out / "results.png")
        shoot(terminal, "5", out / "knowledge.png")
    words = [*KORE, "chat", str(demo / "kore"), "--compare", "--image", str(FLAG)]
    with Terminal(words, CHAT_SIZE) as terminal:
        terminal.wait_for("answers: base and kore", 120.0)
        for count, question in enumerate(QUESTIONS, start=1):
            terminal.write(question)
            terminal.press("Enter", pause=2.0)
            while len(re.findall(r"kore [\d.]+s", terminal.text())) < count:
                time.sleep(0.5)
        time.sleep(1.0)
        terminal.picture(out / "chat.png", "kore chat")
        terminal.press("C-q")


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--demo", type=Path, help="a finished demo's folder")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.demo:
        when_it_is_over(args.demo, args.out, also_train=True)
        return
    with tempfile.TemporaryDirectory() as place:
        demo = Path(place) / "runs" / "demo"
        while_it_trains(demo, args.out)
        when_it_is_over(demo, args.out)


if __name__ == "__main__":
    main()
