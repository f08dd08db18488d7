"""The package as it is in the working tree: its modules, parsed once, and what installs it."""

from __future__ import annotations

import ast
import shutil
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


@cache
def nodes_of(module: str) -> tuple[ast.AST, ...]:
    """Return every node of a module's syntax tree, the module itself first."""
    return tuple(ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))))


def copy_package(folder: Path) -> None:
    """Copy what the package is built from, the hook and the action."""
    for name in ("pyproject.toml", "README.md", "LICENSE", ".pre-commit-hooks.yaml", "action.yml"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "bninspect", folder / "bninspect", ignore=ignored)
