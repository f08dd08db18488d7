"""Evidence of training between two readings of a live model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from bninspect.evidence.changes import affine_moved, changes_between, facts_of_training
from bninspect.evidence.progress import Slots, training_evidence
from bninspect.model.checkpoint import KerasLayer
from bninspect.model.layer import BNLayer, Change, Since, TrainingEvidence
from bninspect.model.roles import AFFINE, Role


class Reading(NamedTuple):
    """The BN layers of a model with their values at one moment.

    `moment` names it as part of a sentence ("the end of epoch 2").
    """

    moment: str
    layers: tuple[BNLayer, ...]


def with_evidence(
    layers: Sequence[BNLayer], earlier: Reading | None, batches_ran: tuple[str, ...]
) -> list[BNLayer]:
    """Return the layers with their evidence of training and their changes since `earlier`.

    `batches_ran` is the fact that batches were trained since then; empty if none were.
    """
    before = {layer.name: layer for layer in earlier.layers} if earlier else {}
    changes = {
        layer.name: changes_between(before[layer.name], layer)
        for layer in layers
        if layer.name in before
    }
    moved = sum(map(affine_moved, changes.values()))
    facts = (*batches_ran, *facts_of_training((None, None), moved, len(layers)))
    return [
        replace(
            layer,
            keras=_as_in_training(layer, before.get(layer.name)),
            training=_training(layer, changes.get(layer.name, {}), batches_ran),
            since=Since(earlier.moment, changes[layer.name], facts)
            if earlier and layer.name in changes
            else None,
        )
        for layer in layers
    ]


def _as_in_training(layer: BNLayer, earlier: BNLayer | None) -> KerasLayer | None:
    """Return the configuration of a layer, trainable if it was so at one of both readings."""
    if layer.keras is None or earlier is None or earlier.keras is None:
        return layer.keras
    return layer.keras._replace(trainable=layer.keras.trainable or earlier.keras.trainable)


def _training(
    layer: BNLayer, changes: Mapping[Role, Change], batches_ran: tuple[str, ...]
) -> TrainingEvidence:
    """Return the evidence that a layer is trained: its gamma and beta, else that batches ran.

    A layer whose gamma and beta stand still takes no part in the training; that is no finding.
    """
    if not any(role in layer.variables for role in AFFINE):
        return TrainingEvidence(batches_ran if layer.trainable is not False else (), testable=True)
    facts = training_evidence(layer, Slots({}), None).facts or tuple(
        f"{role} moved" for role in AFFINE if role in changes and changes[role].moved
    )
    return TrainingEvidence(facts, testable=True)
