"""What may import what, and what no file may do: the rules that keep the layout as it is drawn."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("kore/**/*.py"), *ROOT.glob("kore_cli/**/*.py")])
IMPORT = (ast.Import, ast.ImportFrom)
CORE = [
    "errors",
    "io.files",
    "io.jsonl",
    "data.records",
    "config.resolve",
    "artifacts.manifest",
    "artifacts.run",
    "artifacts.events",
]
MODELS = {"torch", "transformers", "peft", "accelerate", "openai", "deepspeed", "open_clip"}
DASHBOARD = [
    f"{folder}.{path.stem}"
    for folder in ("dashboard", "widgets", "screens")
    for path in ROOT.glob(f"kore_cli/{folder}/*.py")
]
WRITES = re.compile(
    r"print|(typer|click|rich)\.(echo|secho|print)|sys\.(__)?std(out|err)(__)?(\.buffer)?\.write(lines)?|(.*\.)?Console"
)
# beside kore_cli.output: records for ``-``, and the bars of a whole injection
WRITERS = {"kore_cli/output.py", "kore/io/jsonl.py", "kore_cli/render/progress_display.py"}


def imports(tree: ast.AST) -> Iterator[str]:
    """Every imported module, anywhere in the tree, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def loaded_by(*modules: str) -> set[str]:
    code = f"import sys, json\nfor m in {modules!r}: __import__(m)\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return {module.partition(".")[0] for module in json.loads(done.stdout)}


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_light_core_loads_no_model_library_no_array_library_and_no_terminal() -> None:
    found = loaded_by(*(f"kore.{module}" for module in CORE))
    assert not found & {*MODELS, "numpy", "scipy", "PIL", "typer", "textual", "rich", "httpx", "kore_cli"}


def test_the_dashboards_modules_load_no_model_library() -> None:
    found = loaded_by(*(f"kore_cli.{module}" for module in DASHBOARD))
    assert "textual" in found
    assert not found & MODELS


def test_a_command_imports_at_its_top_only_typer_and_the_shared_options() -> None:
    from kore_cli.main import Kore

    allowed = {*sys.stdlib_module_names, "typer"}
    wrong = []
    commands = [
        f"commands/{name.replace('-', '_')}" for section in Kore.sections.values() for name in section
    ]
    for command in (*commands, "options", "main"):
        tree = ast.parse((ROOT / "kore_cli" / f"{command}.py").read_text())
        for module in imports(ast.Module([n for n in tree.body if isinstance(n, IMPORT)], [])):
            if module.partition(".")[0] not in allowed and not module.startswith(
                ("kore_cli.options", "kore_cli.help", "kore_cli.schema_options")
            ):
                wrong.append(f"{command}: {module}")
    assert wrong == []


def offences(path: Path) -> Iterator[str]:
    """What in a file is against the house rules."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    if len(text.splitlines()) > 400:
        yield "more than 400 lines"
    if path.stem in {"utils", "util", "misc", "helpers", "helper", "manager", "common"}:
        yield "a name that says nothing"
    if tree.body and not ast.get_docstring(tree):
        yield "does not say what it is for"
    used = {module.partition(".")[0] for module in imports(tree)}
    for module in used & {"pickle", "dill", "cloudpickle", "shelve", "marshal"}:
        yield f"imports {module}"
    if path.is_relative_to(ROOT / "kore"):
        for module in used & {"kore_cli", "typer", "textual", "rich"}:
            yield f"the engine imports {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"line {node.lineno}: bare except"
        elif isinstance(node, ast.Global):
            yield f"line {node.lineno}: module-level state"
        elif isinstance(node, ast.Call):
            yield from call_offences(node, path)


def call_offences(node: ast.Call, path: Path) -> Iterator[str]:
    called = ast.unparse(node.func)
    if called in {"eval", "exec"}:
        yield f"line {node.lineno}: {called}"
    if WRITES.fullmatch(called) and str(path.relative_to(ROOT)) not in WRITERS:
        yield f"line {node.lineno}: writes past kore_cli.output"
    for keyword in node.keywords:
        trusts = not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
        if keyword.arg == "trust_remote_code" and trusts:
            yield f"line {node.lineno}: runs code that came with a model"


def test_every_file_keeps_the_house_rules() -> None:
    assert [f"{path.relative_to(ROOT)}: {text}" for path in FILES for text in offences(path)] == []
