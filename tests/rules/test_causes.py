"""The facts that prove a cause: their words follow what the graph has, one or several."""

from __future__ import annotations

import pytest

from bninspect.model.graph import GraphEvidence, Update
from bninspect.model.rule import RuleContext
from bninspect.rules.causes import left_out_by_saver, why_not_updated
from tests.support.layers_in_memory import bn

BOTH = ("moving_mean", "moving_variance")
STUCK = {"mean": 0.0, "variance": 1.0, "gamma": (1.0, 1.5, 2.0)}
STORED = {"moving_mean": "bn/moving_mean", "moving_variance": "bn/moving_variance"}


def context(**evidence) -> RuleContext:
    graph = GraphEvidence("model.meta", statistics=STORED, **evidence)
    return RuleContext(graph=lambda _: graph)


def updates(*, mean: tuple[str, ...] = (), variance: tuple[str, ...] = ()) -> tuple[Update, ...]:
    return (
        Update("bn/mean/update", "moving_mean", run_by=mean),
        Update("bn/variance/update", "moving_variance", run_by=variance),
    )


@pytest.mark.parametrize(
    ("training_ops", "says"),
    [
        (("train",), "`train` does not depend on them"),
        (("train_d", "train_g"), "`train_d`, `train_g` do not depend on them"),
    ],
)
def test_training_ops_that_reach_no_update(training_ops, says) -> None:
    given = context(training_ops=training_ops, updates=updates(), total=2)
    found = why_not_updated(bn(**STUCK), given, BOTH)
    assert found.cause == "update-ops-not-run"
    assert says in found.facts[0]


@pytest.mark.parametrize(
    ("training_ops", "modes", "says"),
    [
        (("train",), frozenset({False}), "what `train` computes uses the statistics"),
        (("a", "b"), frozenset(), "what `a`, `b` compute uses the statistics"),
    ],
)
def test_a_layer_in_inference_mode(training_ops, modes, says) -> None:
    given = context(training_ops=training_ops, modes=modes, reads=True, optimized=True)
    found = why_not_updated(bn(**STUCK), given, BOTH)
    assert found.cause == "built-with-training-false"
    assert any(says in fact for fact in found.facts)
    assert any("fused kernel" in fact for fact in found.facts) == bool(modes)


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (
            {"mean": ("train",), "variance": ("train",)},
            ["in the graph `train` depends on updates of moving_mean and moving_variance"],
        ),
        (
            {"mean": ("a", "b"), "variance": ("a",)},
            [
                "in the graph `a`, `b` depend on updates of moving_mean",
                "in the graph `a` depends on updates of moving_variance, `b` not",
            ],
        ),
    ],
)
def test_updates_that_training_ops_run(run, says) -> None:
    ops = tuple(dict.fromkeys(name for names in run.values() for name in names))
    given = context(training_ops=ops, updates=updates(**run), total=2, total_run=2)
    found = why_not_updated(bn(**STUCK), given, BOTH)
    assert found.cause is None
    assert [fact for fact in found.facts if fact.startswith("in the graph")] == says


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (("moving_mean",), "the variable `bn/moving_mean`, the checkpoint does not"),
        (BOTH, "the variables `bn/moving_mean`, `bn/moving_variance`, the checkpoint does not"),
    ],
)
def test_statistics_that_the_saver_left_out(missing, says) -> None:
    found = left_out_by_saver(bn(gamma=(1.0, 1.5, 2.0)), context(training_ops=("train",)), missing)
    assert found.cause == "saver-omitted-statistics"
    assert says in found.facts[0]
