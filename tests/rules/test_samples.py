"""The code on the rule pages does what it says, in the framework it is for.

Each sample is trained with twice: as it is printed, and with the mistake that it corrects, the rest
being the same. `tests/trainings` holds the trainings, one script for each framework, which starts
once; what is to be found in their files stands here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from bninspect.model.frameworks import FRAMEWORKS as FRAMEWORKS_OF_PAGES
from bninspect.rules import CAUSES, RULES
from bninspect.rules.pages import page_of
from tests.conftest import ROOT, Run

pytestmark = [pytest.mark.framework, pytest.mark.xdist_group("samples")]


# name → the script, and what it needs in its environment
FRAMEWORKS = {
    "tf1": ("tf1", {"TF_USE_LEGACY_KERAS": "1"}),
    "keras2": ("keras_by_version", {"TF_USE_LEGACY_KERAS": "1"}),
    "keras3": ("keras_by_version", {"KERAS_BACKEND": "tensorflow"}),
    "keras3-jax": ("keras_jax", {"KERAS_BACKEND": "jax"}),
    "flax": ("flax_trainings", {"JAX_PLATFORMS": "cpu"}),
}

# For networks this small threads cost more than they give.
SINGLE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
}


class Found(NamedTuple):
    """A finding, as far as it is foretold."""

    rule: str
    cause: str | None = None
    severity: str = "error"


STUCK = Found("BN101", "update-ops-not-run")
COLD = Found("BN106", "too-few-updates", "warning")
OMITTED = Found("BN201", "saver-omitted-statistics")
# A loop of one's own leaves nothing in a Keras file that would prove the cause.
UNPROVED = Found("BN101")

TF1 = {
    "tf1-updates": [STUCK],
    "tf1-updates collected first": [STUCK],
    "tf1-updates variance only": [Found("BN102", "update-ops-not-run")],
    "tf1-updates mean only": [Found("BN103", "update-ops-not-run")],
    "tf1-updates resumed": [Found("BN107", "update-ops-not-run")],
    "tf1-updates resumed in inference mode": [Found("BN107", "built-with-training-false", "note")],
    "tf1-mode": [Found("BN101", "built-with-training-false")],
    "tf1-keras": [STUCK],
    "tf1-hand-written": [STUCK],
    "tf1-hand-written variance only": [Found("BN102", "update-ops-not-run")],
    "tf1-hand-written mean only": [Found("BN103", "update-ops-not-run")],
    "tf1-reestimate": [STUCK],
    "tf1-pretrained": [Found("BN101", "layer-frozen")],
    "tf1-momentum": [COLD],
    "tf1-saver": [OMITTED],
    "tf1-saver-choice": [OMITTED],
    "tf1-saver-choice mean only": [Found("BN202", "saver-omitted-statistics")],
    "tf1-averages": [Found("BN110", None, "warning")],
    "slim-updates": [STUCK],
    "slim-decay": [COLD],
    "slim-saver": [OMITTED],
}
KERAS = {
    "keras-fit untrained": [Found("BN105", "untrained", "note")],
    "keras-loop": [Found("BN101", "trained-in-inference-mode")],
    "keras-loop resumed": [Found("BN107")],
    "keras-reestimate": [UNPROVED],
    "keras-pretrained": [Found("BN105", "layer-frozen", "warning")],
    "keras-pretrained frozen": [Found("BN107")],
    "keras-momentum": [COLD],
    "keras-save": [OMITTED],
    "keras-set-weights": [Found("BN302")],
}
MISTAKEN = {
    "tf1": TF1,
    # Keras 3's fit overrides what a layer was called with: there is no such mistake.
    "keras2": {**KERAS, "keras-fit": [Found("BN101", "built-with-training-false")]},
    # Keras 2 keeps the statistics in float32 whatever the policy.
    "keras3": {
        **KERAS,
        "keras-3-call": [UNPROVED],
        "keras-mixed": [Found("BN103", "half-precision"), Found("BN305", None, "warning")],
    },
    "keras3-jax": {"keras-stateless": [UNPROVED]},
    "flax": {
        "flax-mutable": [UNPROVED],
        "flax-mutable in inference mode": [UNPROVED],
        "flax-mutable resumed": [Found("BN107")],
        "flax-reestimate": [UNPROVED],
        "flax-nnx": [UNPROVED],
        "flax-save": [OMITTED],
    },
}
# What is left to say of a training that is right.
RIGHT = {"keras-pretrained frozen": [Found("BN107", "layer-frozen", "note")]}

PAIRS = [(framework, name) for framework, pairs in MISTAKEN.items() for name in pairs]


@dataclass(frozen=True)
class Record:
    """What a script did: the samples it ran, and where the files of each pair are."""

    executed: set[str]
    pairs: dict[str, dict[str, dict[str, str]]]


def plain_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Record]:
    """Run a framework's script, once."""
    records: dict[str, Record] = {}

    def get(framework: str) -> Record:
        if framework not in records:
            folder = tmp_path_factory.mktemp(framework)
            script, more = FRAMEWORKS[framework]
            done = subprocess.run(
                [sys.executable, "-m", f"tests.trainings.{script}", str(folder)],
                env={**plain_environment(), **SINGLE_THREAD, "PYTHONPATH": str(ROOT), **more},
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-4000:]
            stored = json.loads((folder / "record.json").read_text(encoding="utf-8"))
            records[framework] = Record(set(stored["executed"]), stored["pairs"])
        return records[framework]

    return get


def found_in(run: Run, files: dict[str, str]) -> tuple[list[Found], int]:
    """What `bninspect check` finds, and its exit code."""
    since = ["--since", files["since"]] if "since" in files else []
    outcome = run("check", files["path"], "--format", "json", *since)
    (checkpoint,) = outcome.json["checkpoints"]
    assert checkpoint["layers"], "no BN layer was looked at"
    found = [Found(f["rule"], f["cause"], f["severity"]) for f in checkpoint["findings"]]
    return found, outcome.exit_code


@pytest.mark.parametrize(("framework", "name"), PAIRS, ids=lambda value: value)
def test_the_mistake_is_found(record: Any, run: Run, framework: str, name: str) -> None:
    found, exit_code = found_in(run, record(framework).pairs[name]["mistaken"])
    expected = MISTAKEN[framework][name]
    assert found == expected
    assert exit_code == any(one.severity == "error" for one in expected)


@pytest.mark.parametrize(("framework", "name"), PAIRS, ids=lambda value: value)
def test_the_sample_is_clean(record: Any, run: Run, framework: str, name: str) -> None:
    found, exit_code = found_in(run, record(framework).pairs[name]["right"])
    assert found == RIGHT.get(name, [])
    assert exit_code == 0


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_training_is_judged(record: Any, framework: str) -> None:
    assert set(record(framework).pairs) == set(MISTAKEN[framework])


def printed() -> set[str]:
    """The code on all pages."""
    return {fix.code for entry in (*RULES, *CAUSES) for fix in page_of(entry).fixes if fix.code}


def test_what_is_printed_is_what_is_run(record: Any) -> None:
    executed = set().union(*(record(framework).executed for framework in FRAMEWORKS))
    assert executed == printed()


# Which scripts run code for a framework. What is for Keras 3 and JAX may run on another backend.
RUNS = {
    "tf1-layers": {"tf1"},
    "slim": {"tf1"},
    "tf1-hand-written": {"tf1"},
    "tf1-keras": {"tf1", "keras2"},
    "keras-1": {"tf1"},
    "keras-2": {"keras2"},
    "keras-3": {"keras3", "keras3-jax"},
    "jax": {"keras3-jax", "keras3"},
    "pytorch": set(),  # its fixes are sentences
    "flax": {"flax"},
}


def test_code_is_run_in_each_framework_that_it_is_for(record: Any) -> None:
    assert {*RUNS} == {*FRAMEWORKS_OF_PAGES}
    fixes = [fix for entry in (*RULES, *CAUSES) for fix in page_of(entry).fixes if fix.code]
    for fix in fixes:
        assert fix.frameworks, fix.where
        for framework in fix.frameworks:
            executed = set().union(*(record(script).executed for script in RUNS[framework]))
            assert fix.code in executed, (framework, fix.where)
        assert "jax" not in fix.frameworks or "tf." not in fix.code


def test_legacy_keras_changes_nothing_unless_it_is_asked_for() -> None:
    """tf_keras is installed for these trainings alone: tf.keras stays Keras 3 for all others."""
    import tensorflow as tf

    assert "TF_USE_LEGACY_KERAS" not in os.environ
    assert tf.keras.__version__.startswith("3.")
