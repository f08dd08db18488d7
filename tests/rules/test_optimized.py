"""BN108: an optimizer writes the statistics, with and without updates of the averages beside it."""

from __future__ import annotations

import pytest

from bninspect.model.graph import Condition, GraphEvidence, Update
from bninspect.model.rule import RuleContext
from bninspect.rules import apply_rules, select_rules
from tests.support.layers_in_memory import bn

SWITCH = (Condition("placeholder", "training"),)
STATISTICS = {"moving_mean": "bn/moving_mean", "moving_variance": "bn/moving_variance"}


def found(*, mean: float, run_by: tuple[str, ...], conditions: tuple[Condition, ...] = ()):
    """Return the finding for a layer whose variance an optimizer of the stored graph writes."""
    graph = GraphEvidence(
        "model.ckpt.meta",
        training_ops=("train",),
        updates=(Update("bn/update", "moving_mean", run_by=run_by),),
        conditions=conditions,
        statistics=STATISTICS,
        optimizer_writes={"moving_variance": ("train/apply",)},
    )
    layer = bn(mean=mean, variance=(0.5, 0.9, 1.2), gamma=(1.0, 1.5, 2.0), may_be_optimized=True)
    context = RuleContext(graph=lambda _: graph)
    (finding,) = apply_rules([layer], select_rules(["BN108"], []), context)
    return finding


@pytest.mark.parametrize(
    ("mean", "run_by", "conditions", "severity", "says"),
    [
        (0.0, (), (), "error", "no update moved the mean, which is still 0"),
        (0.0, ("train",), (), "warning", "besides the updates of the averages"),
        (0.0, ("train",), SWITCH, "error", "no update moved the mean, which is still 0"),
        (0.5, ("train",), (), "warning", "besides the updates of the averages"),
        (0.5, ("train",), SWITCH, "warning", "a condition decides whether the updates"),
        (0.5, (), (), "error", "training runs no update of the averages"),
    ],
)
def test_what_runs_besides_decides(mean, run_by, conditions, severity, says) -> None:
    finding = found(mean=mean, run_by=run_by, conditions=conditions)
    assert finding.severity == severity
    assert says in finding.message
    assert finding.message.startswith("an optimizer writes moving_variance")
