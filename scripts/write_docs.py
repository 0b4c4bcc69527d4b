"""Write the pages of docs/ that the code holds: cli.md from the commands' own help, keys.md, settings.md.

python -m scripts.write_docs [--check]     # --check only says whether they are current
"""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from typer.testing import CliRunner

from scripts.settings_page import settings_page

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 100

HEAD = """# The command line

This page is written by `scripts/write_docs.py` from each command's own `--help`; a test checks that
it is current.

Data goes to standard output: text for people on a terminal, JSON lines in a pipe or with `--json`.
Everything else (progress, notes, warnings, errors) goes to standard error. `-` stands for standard
input, and for standard output where something is written. Colour appears on terminals only, and not with
`NO_COLOR` set. An error is one to three lines: what, where, what to do next.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | unexpected; `KORE_DEBUG=1` shows the traceback |
| 2 | wrong usage |
| 3 | bad profile or data, or a place that cannot be written to |
| 4 | something that an earlier command (or an extra) brings is missing; the message names it |
| 5 | a teacher, judge or image provider failed after its retries; what was finished is kept |
| 6 | a result fell below the bar that you set, or a limit of cost was reached |
| 130 | interrupted; the same command goes on |
| 141 | the reader of a pipe went away |

Settings come from flags, else from `KORE_SECTION__KEY` variables (`KORE_TRAIN__LR=2e-4`), else from the
named profile. Without `--profile` they follow the model: a run's own, else those of the shipped profile for
this model, else rules for its family, read from its config.json; one line on stderr reports which.
`kore profiles show NAME` shows where each value of a profile comes from. A run can be named by its path or by
its name under the runs folder. Runs live in `$KORE_HOME`,
by default `./runs`. Keys of providers are read from the environment only.

Completion: `kore --install-completion` for the shell you are in. To write the script yourself:
`_KORE_COMPLETE=source_bash kore` (or `source_zsh`, `source_fish`).
"""


def cli_page() -> str:
    """The whole text of docs/cli.md."""
    from kore_cli.help import walk
    from kore_cli.main import app

    runner, parts = CliRunner(), [HEAD]
    for path, _ in walk(typer.main.get_command(app)):
        done = runner.invoke(app, [*path, "--help"], prog_name="kore", terminal_width=WIDTH)
        if done.exit_code:
            raise SystemExit(f"kore {' '.join(path)} --help failed: {done.output}")
        text = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
        parts.append(
            f"{'##' if len(path) < 2 else '###'} {' '.join(('kore', *path))}\n\n```text\n{text}\n```\n"
        )
    return "\n".join(parts)


def main() -> int:
    """Write the pages, or compare them."""
    from kore_cli.widgets.keys import markdown

    code = 0
    pages = {"cli.md": cli_page(), "keys.md": markdown(), "settings.md": settings_page()}
    for name, text in pages.items():
        target = DOCS / name
        if "--check" not in sys.argv[1:]:
            target.write_text(text, encoding="utf-8")
        elif not target.exists() or target.read_text(encoding="utf-8") != text:
            print(f"{target} is not current; write it with: just docs", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
