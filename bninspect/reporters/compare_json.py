"""`compare` as JSON: a document of its own, under the contract of `json_v1`."""

from __future__ import annotations

from typing import Any, TextIO

from bninspect.model.layer import Change
from bninspect.model.roles import ROLES, Role
from bninspect.reporters.json_v1 import finding_document, heading, number, opened, write_document
from bninspect.verdicts.comparison import Comparison, LayerHistory, Stretch


def write_comparison_json(comparison: Comparison, stream: TextIO) -> None:
    """Write what changed in each layer, as a document of its own under the contract of `json_v1`.

    `checkpoints` are those that were compared, oldest first, and `unreadable` the others, as in a
    report but without layers. Each of `layers` has

    - `name`, and `names`: the layer's name in each checkpoint, null if it has no such layer;
    - `family`, `channels`, `dtype`, `trainable` of the newest checkpoint that has it;
    - `members`: for each of the four `moved` (in any interval; null: nothing to compare),
      `largest_change` from the first to the last checkpoint that have it, and `intervals`, one from
      each checkpoint to the next: `{"moved", "largest_change"}`, or null;
    - `still_since`: the place in `checkpoints` since which no statistic moved, up to the newest,
      or null; `stretches`: every time they stood still, `{"from", "to", "or_earlier",
      "never_moved"}`, the first two as such places (see `comparison.Stretch`);
    - `not_finite_since`: the place since which a member holds NaN or infinity, up to the newest, or
      null; `not_finite`: every time one did, `{"from", "to", "or_earlier"}`;
    - `events`: sentences on what happened to the layer itself.

    `largest_change` of the mean is in standard deviations, of the variance the share by which the
    standard deviation changed, of gamma and beta the number itself (see `evidence.changes`); null
    if nothing is stored to measure it by. `findings` are those of a report, with `from` and
    `to`: BN107, BN301 and BN302. One that does not last up to the newest checkpoint is a warning at
    most.
    `summary.compared` counts the layers of which anything could be compared.
    `summary.step_goes_back` are the first two stored steps, `[larger, smaller]`, that contradict
    the order, or null.
    """
    layers = comparison.layers
    findings = [
        finding_document(finding) | {"from": stretch.first, "to": stretch.last}
        for layer in layers
        for stretch in layer.judged
        for finding in stretch.findings
    ]
    document = heading() | {
        "checkpoints": [opened(item) for item in comparison.checkpoints],
        "unreadable": [opened(item) for item in comparison.unreadable],
        "layers": [_layer_history(layer) for layer in layers],
        "findings": findings,
        "notes": list(comparison.notes),
        "summary": {
            "checkpoints": len(comparison.checkpoints),
            "layers": len(layers),
            "compared": sum(layer.compared for layer in layers),
            "errors": sum(finding["severity"] == "error" for finding in findings),
            "warnings": sum(finding["severity"] == "warning" for finding in findings),
            "notes": sum(finding["severity"] == "note" for finding in findings),
            "unreadable": len(comparison.unreadable),
            "step_goes_back": comparison.step_goes_back,
        },
    }
    write_document(document, stream)


def _layer_history(layer: LayerHistory) -> dict[str, Any]:
    last = layer.last
    lost = layer.lasting(layer.not_finite)
    return {
        "name": layer.name,
        "names": [None if bn_layer is None else bn_layer.name for bn_layer in layer.layers],
        "family": last.family,
        "channels": last.channels,
        "dtype": last.dtype,
        "trainable": last.trainable,
        "members": {role: _member_history(layer, role) for role in ROLES},
        "still_since": layer.still_since,
        "stretches": [
            _stretch(stretch) | {"never_moved": stretch.never_moved} for stretch in layer.stretches
        ],
        "not_finite_since": None if lost is None else lost.first,
        "not_finite": [_stretch(stretch) for stretch in layer.not_finite],
        "events": list(layer.events),
    }


def _stretch(stretch: Stretch) -> dict[str, Any]:
    return {"from": stretch.first, "to": stretch.last, "or_earlier": stretch.or_earlier}


def _member_history(layer: LayerHistory, role: Role) -> dict[str, Any]:
    intervals = [_change(changes.get(role)) for changes in layer.changes]
    total = _change(layer.total.get(role))
    return {
        "moved": layer.moved(role) if any(intervals) else None,
        "largest_change": total and total["largest_change"],
        "intervals": intervals,
    }


def _change(change: Change | None) -> dict[str, Any] | None:
    if change is None:
        return None
    largest = None if change.largest is None else number(change.largest)
    return {"moved": change.moved, "largest_change": largest}
