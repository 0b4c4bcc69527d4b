"""The command line's modules import each other in one direction."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import kore_cli


def test_no_module_imports_itself_through_others_not_even_inside_functions() -> None:
    root = Path(kore_cli.__file__).parents[1]
    modules = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in Path(kore_cli.__file__).parent.rglob("*.py")
    }
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                names = (f"{node.module}.{alias.name}" for alias in node.names)
                graph[name] |= {n if n in modules else node.module for n in names} - {name}
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)
