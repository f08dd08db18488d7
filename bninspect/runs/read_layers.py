"""Reading the values of BN layers from an open checkpoint, and the evidence of their training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from bninspect.batchnorm.measure import measure, rounded, settle_initial
from bninspect.errors import BninspectError, Incomplete
from bninspect.evidence.progress import (
    Slots,
    evidence_variables,
    optimized,
    own_counters,
    own_updates,
    read_step,
    step_variables,
    training_evidence,
)
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.layer import BNLayer, OptimizerSteps, TrainingEvidence, Values
from bninspect.model.roles import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bninspect.model.layer_views import Architecture, Load


def read_what_can_be_read(
    checkpoint: Checkpoint, layers: Sequence[BNLayer]
) -> tuple[int | None, list[BNLayer], str]:
    """Return the step, the layers with the values that can be read, and a note on the others."""
    step = None
    with suppress(Incomplete):
        step = read_step(checkpoint)
    readable = [
        replace(layer, variables=_readable(layer.variables), shadows=_readable(layer.shadows))
        for layer in layers
    ]
    read = [
        replace(layer, values=part.values, shadow_values=part.shadow_values)
        for layer, part in zip(layers, with_values(readable), strict=True)
    ]
    total = sum(len(layer.variables) for layer in read)
    missing = total - sum(len(layer.values) for layer in read)
    if not missing:
        return step, read, "a part of the checkpoint is missing"
    of_some = f" of {missing} of {total} BN variables" if missing < total else ""
    return step, read, f"the values{of_some} are missing"


def _readable(variables: Mapping[Role, Variable]) -> dict[Role, Variable]:
    """Return those of some variables whose values can be read."""
    return {role: variable for role, variable in variables.items() if _can_be_read(variable)}


def _can_be_read(variable: Variable) -> bool:
    try:
        variable.read()
    except Incomplete:
        return False
    return True


def prefetch_values(checkpoint: Checkpoint, layers: Sequence[BNLayer]) -> None:
    """Prefetch the values of all layers, and the step (remote files only)."""
    read = (
        variable
        for layer in layers
        for variable in (
            *layer.variables.values(),
            *layer.shadows.values(),
            *own_counters(layer),
        )
    )
    checkpoint.prefetch((*read, *step_variables(checkpoint)))


def prefetch_evidence(checkpoint: Checkpoint, layers: Sequence[BNLayer]) -> None:
    """Prefetch the evidence of training of the layers that may be stuck (remote files only)."""
    checkpoint.prefetch(evidence_variables(checkpoint, filter(may_be_stuck, layers)))


def may_be_stuck(layer: BNLayer) -> bool:
    """Return whether a statistic is at its initial value throughout, or was updated once.

    `layer` has its values. Raises a `ReadProblem` if its own count of updates cannot be read.
    """
    if layer.statistics is None:
        return False
    return any(values.all_initial for values in layer.statistics) or own_updates(layer) == 1


def with_training(
    layer: BNLayer, slots: Slots, step: int | None, optimizers: Sequence[OptimizerSteps]
) -> BNLayer:
    """Return a layer with values together with its evidence of training, if a rule needs it."""
    if not may_be_stuck(layer):
        written = optimized(layer, slots)
        training = TrainingEvidence(optimized=written)
        return layer.with_fields(training=training) if written else layer
    return layer.with_fields(training=training_evidence(layer, slots, step, optimizers))


def with_values(layers: Sequence[BNLayer]) -> list[BNLayer]:
    """Return the layers with the values of their members and shadows; raises a `ReadProblem`.

    Variables that were never written have no values (BN204).
    """
    measured = iter(
        measure(
            [
                (variable.read(), layer.initial.get(role, ()))
                for layer in layers
                for stored in (layer.variables, layer.shadows)
                for role, variable in _written(stored)
            ]
        )
    )
    return list(
        settle_initial(
            [
                layer.with_fields(
                    values=_values_of(layer.variables, measured),
                    shadow_values=_values_of(layer.shadows, measured),
                )
                for layer in layers
            ]
        )
    )


def measured_layers(
    architecture: Architecture, values: NDArray[np.float32], load: Load | None = None
) -> list[BNLayer]:
    """Return the layers of an architecture with `values`, those of all members of shape (n,).

    `load` reads the values of a variable again by its name.
    """
    layers = architecture.layers
    measured = measure(
        [
            (
                values[member.start : member.start + member.size],
                layers[member.layer].initial.get(member.role, ()),
            )
            for member in architecture.members
        ]
    )
    return list(settle_initial(architecture.layers_with(measured, load)))


def _values_of(stored: Mapping[Role, Variable], measured: Iterator[Values]) -> dict[Role, Values]:
    """Return the values of some variables, taken from the measured ones in their order."""
    return {
        role: rounded(next(measured), variable.quantized) if variable.quantized else next(measured)
        for role, variable in _written(stored)
    }


def _written(stored: Mapping[Role, Variable]) -> list[tuple[Role, Variable]]:
    return [(role, variable) for role, variable in stored.items() if not variable.unwritten]


def without_files(layer: BNLayer) -> BNLayer:
    """Return a layer whose variables cannot be read any more; it can be pickled."""
    return replace(
        layer,
        variables={role: _without_file(variable) for role, variable in layer.variables.items()},
        helpers={name: _without_file(variable) for name, variable in layer.helpers.items()},
        shadows={role: _without_file(variable) for role, variable in layer.shadows.items()},
    )


def _without_file(variable: Variable) -> Variable:
    return variable._replace(load=_raise_closed)


def _raise_closed() -> NoReturn:
    raise BninspectError("The process that read this checkpoint has closed it.")
