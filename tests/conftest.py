"""What several test modules need: the fixtures with their expectations, and the command line."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from tests.support import needs

# The same examples in every run and on every machine: what fails is what was changed.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")

# Bytecode is kept even where PYTHONDONTWRITEBYTECODE is set: the tests start hundreds of processes,
# and each would compile the package again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "fixtures"
FIXTURE_STEMS = sorted(path.stem for path in FIXTURES.glob("*.json"))
assert FIXTURE_STEMS


def unmeasured_environment() -> dict[str, str]:
    """Return the environment without coverage's, which imports modules into a measured process."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


@dataclass(frozen=True)
class Fixture:
    """A committed checkpoint and what a correct inspection finds in it."""

    stem: str
    path: Path
    expected: dict[str, Any]


def load_fixture(stem: str) -> Fixture:
    expected = json.loads((FIXTURES / f"{stem}.json").read_text(encoding="utf-8"))
    return Fixture(stem, FIXTURES / stem / expected["checkpoint"], expected)


# What many tests run the program on: nothing to find, BN101 at three layers, no BN layer.
CLEAN = load_fixture("tf1_layers_correct").path
STUCK = load_fixture("tf1_layers_update_ops_forgotten").path
EMPTY = load_fixture("tf1_lookalikes").path


sys.addaudithook(needs.note_event)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test that needs nothing besides Python, and no second, as `quick`."""
    for item in items:
        if not any(item.get_closest_marker(name) for name in (*needs.MARKERS, "slow")):
            item.add_marker("quick")


def pytest_collection_finish() -> None:
    """Except what was collected from the garbage collections to come: it stays to the end."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    needs.noted.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Fail a test that needed more than its markers say, with the markers that it lacks.

    What happens in the teardown is not counted: the last test of a session ends the servers of all.
    """
    lacking = needs.unmarked(item)
    yield
    if lacking:
        pytest.fail(f"mark this test: {', '.join(sorted(lacking))}", pytrace=False)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `fixture` on every fixture there is."""
    if "fixture" in metafunc.fixturenames:
        fixtures = [load_fixture(stem) for stem in FIXTURE_STEMS]
        metafunc.parametrize("fixture", fixtures, ids=FIXTURE_STEMS)


@cache
def strict_validator() -> Draft202012Validator:
    """For the published schema, with a key that it does not describe being a fault."""
    schema = json.loads((ROOT / "bninspect/reporters/schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)

    def close(part: Any) -> None:
        if isinstance(part, list):
            for item in part:
                close(item)
        elif isinstance(part, dict):
            for item in part.values():
                close(item)
            if part.get("type") == "object":
                part["additionalProperties"] = False

    close(schema)
    return Draft202012Validator(schema)


def parsed(text: str) -> Any:
    """A JSON document of the program, which follows the published schema."""
    document = json.loads(text)
    fault = best_match(strict_validator().iter_errors(document))
    assert fault is None, f"{fault.json_path}: {fault.message}"
    return document


@dataclass(frozen=True)
class Outcome:
    """What one call of the program left."""

    exit_code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """The output in one line: where prose is folded depends on where the checkpoint lies."""
        return " ".join(self.out.split())

    @property
    def json(self) -> Any:
        return parsed(self.out)


Run = Callable[..., Outcome]  # the fixture `run`


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the program in this process, as `run("check", path, "--format", "json")`."""
    from bninspect.cli.main import run as run_program

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            run_program([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(int(leaving.value.code or 0), captured.out, captured.err)

    return call
