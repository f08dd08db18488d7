"""The package as it is in the working tree: its modules, each parsed once, and what installs it."""

from __future__ import annotations

import ast
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.conftest import ROOT

PACKAGE = ROOT / "bninspect"


@cache
def modules() -> dict[str, Path]:
    """Return the file of each module, by the module's dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    assert len(found) > 100
    return found


@dataclass(frozen=True)
class Scan:
    """What a module's source names: `calls` are functions as they are written, `texts` strings."""

    imports: frozenset[str]
    calls: frozenset[str]
    texts: frozenset[str]
    asserts: bool


@cache
def scan(module: str) -> Scan:
    """Return what a module names, inside functions too; imports for typing alone do not count."""
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    imports: set[str] = set()

    class Visitor(ast.NodeVisitor):
        def visit_If(self, node: ast.If) -> None:
            if ast.unparse(node.test) != "TYPE_CHECKING":
                self.generic_visit(node)

        def visit_Import(self, node: ast.Import) -> None:
            imports.update(alias.name for alias in node.names)

        def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
            assert not node.level, f"{module} uses a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                imports.add(name if name in modules() else str(node.module))

    Visitor().visit(tree)
    nodes = list(ast.walk(tree))
    constants = {node.value for node in nodes if isinstance(node, ast.Constant)}
    return Scan(
        frozenset(imports),
        frozenset(ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)),
        frozenset(value for value in constants if isinstance(value, str)),
        any(isinstance(node, ast.Assert) for node in nodes),
    )


def copy_package(folder: Path) -> None:
    """Copy what the package is built from, the hook and the action."""
    for name in ("pyproject.toml", "README.md", "LICENSE", ".pre-commit-hooks.yaml", "action.yml"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "bninspect", folder / "bninspect", ignore=ignored)
