"""Print how large the code is: lines, file sizes, long functions, untyped dictionaries, skipped formatting.

python -m scripts.code_size
"""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("kore", "kore_cli")
LONG = 80


def functions(path: Path) -> list[tuple[str, int]]:
    """Name and length of every function in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        (f"{path.relative_to(ROOT)}:{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def main() -> None:
    """Measure and print."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    lines = {path: len(text.splitlines()) for path, text in texts.items()}
    sizes = [count for count in lines.values() if count > 1]
    long = [item for path in files for item in functions(path) if item[1] > LONG]
    largest = max(lines, key=lambda path: lines[path])
    untyped = sum(len(re.findall(r"dict\[str, Any\]", text)) for text in texts.values())
    skips = sum(text.count("# fmt: skip") for text in texts.values())
    print(f"lines              {sum(lines.values()):,} in {len(files)} files")
    print(f"median file        {statistics.median(sizes):.0f} lines")
    print(f"largest file       {lines[largest]} lines ({largest.relative_to(ROOT)})")
    print(f"functions over {LONG}  {len(long)}")
    for name, count in sorted(long, key=lambda item: -item[1]):
        print(f"                   {count:>4} {name}")
    print(f"dict[str, Any]     {untyped}")
    print(f"# fmt: skip        {skips}")


if __name__ == "__main__":
    main()
