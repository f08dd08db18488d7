"""The package as who installs it from a checkout gets it: as it lies in the working tree."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.conftest import ROOT


def copy_package(folder: Path) -> None:
    """Copy what the package is built from, the hook and the action."""
    for name in ("pyproject.toml", "README.md", "LICENSE", ".pre-commit-hooks.yaml", "action.yml"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "bninspect", folder / "bninspect", ignore=ignored)
