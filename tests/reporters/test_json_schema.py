"""The JSON Schema: printed, shipped, and as strict as the documents are."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from bninspect.errors import ReadProblem
from bninspect.model.rule import SEVERITIES
from tests.conftest import (
    CLEAN,
    FIXTURES,
    STUCK,
    Run,
    parsed,
    strict_validator,
)

MISSING = FIXTURES / "no_such_checkpoint"


def test_is_printed_and_ships_with_the_package(run: Run) -> None:
    outcome = run("schema")
    assert outcome.exit_code == 0
    schema = json.loads(outcome.out)
    assert schema["$schema"].endswith("2020-12/schema")
    Draft202012Validator.check_schema(schema)
    document = run("check", STUCK, "--format", "json").json
    document["a key of a later version"] = 1
    Draft202012Validator(schema).validate(document)


def test_every_command_has_its_own_document(run: Run) -> None:
    documents = {
        "check": run("check", STUCK, MISSING, "--format", "json"),
        "list": run("list", STUCK, MISSING, "--format", "json"),
        "dump": run("dump", STUCK, "--layer", "*", "--format", "json"),
        "dump_of_all": run("dump", STUCK, "--all-checkpoints", "--layer", "*", "--format", "json"),
        "compare": run("compare", CLEAN, STUCK, "--format", "json"),
        "config": run("config", "--format", "json"),
        "rules": run("rule", "--format", "json"),
        "recalibration": run("recalibrate", CLEAN, "--data", "x", "--dry-run", "--format", "json"),
    }
    defs = strict_validator().schema["$defs"]
    for name, outcome in documents.items():
        for other, schema in defs.items():
            if other in documents:
                validator = strict_validator().evolve(schema={**schema, "$defs": defs})
                assert validator.is_valid(outcome.json) == (name == other), (name, other)


def test_the_test_sees_an_undocumented_key(run: Run) -> None:
    document = run("check", STUCK, "--format", "json").json
    document["checkpoints"][0]["layers"][0]["undocumented"] = 1
    with pytest.raises(AssertionError):
        parsed(json.dumps(document))


def test_knows_every_word_the_program_has() -> None:
    defs = strict_validator().schema["$defs"]
    kinds = {cls.kind for cls in (ReadProblem, *ReadProblem.__subclasses__())}
    assert set(defs["error"]["properties"]["kind"]["enum"]) == kinds
    assert tuple(defs["severity"]["enum"]) == SEVERITIES
