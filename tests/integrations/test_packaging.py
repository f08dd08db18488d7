"""The container image and the conda recipe: what they say is what the package says.

Neither is built here: that needs a daemon and servers of packages.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import bninspect
from tests.conftest import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
RECIPE: dict[str, Any] = yaml.safe_load((ROOT / "conda" / "meta.yaml").read_text("utf-8"))


def versions(requirements: list[str]) -> dict[str, str]:
    parsed = [Requirement(text.replace(" >=", ">=")) for text in requirements]
    return {one.name: str(one.specifier) for one in parsed}


def test_the_recipe_needs_what_the_package_needs() -> None:
    needed = versions(RECIPE["requirements"]["run"])
    assert needed.pop("python") == PROJECT["requires-python"]
    assert needed == versions(PROJECT["dependencies"])
    assert str(RECIPE["package"]["version"]) == bninspect.__version__
    (entry,) = RECIPE["build"]["entry_points"]
    name, _, target = entry.partition(" = ")
    assert PROJECT["scripts"] == {name: target}


def test_the_image_has_a_supported_python_and_known_extras() -> None:
    versions_of_python = re.findall(r"^FROM python:(3\.\d+)-slim\b", DOCKERFILE, re.MULTILINE)
    assert len(versions_of_python) == 2
    for version in versions_of_python:
        assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]
    extras = re.findall(r"(?:bninspect|/source)\[(\w+)\]", DOCKERFILE)
    assert extras
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert 'ENTRYPOINT ["bninspect"]' in DOCKERFILE


def test_the_image_is_built_from_files_that_there_are() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    sources = re.findall(r"^COPY ([^\n]+) \S+$", DOCKERFILE, re.MULTILINE)
    copied = {name for line in sources for name in line.split()}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    for name in (PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml"):
        assert name in copied


def test_the_image_runs_without_rights() -> None:
    (user,) = re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE)
    assert int(user) > 0


@pytest.mark.parametrize("text", [DOCKERFILE, (ROOT / "conda/meta.yaml").read_text("utf-8")])
def test_no_secret_and_no_host_is_named(text: str) -> None:
    assert not re.search(r"https?://|token|password", text, re.IGNORECASE)
