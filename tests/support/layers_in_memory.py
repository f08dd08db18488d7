"""Checkpoints and BN layers made in memory, for tests that need no files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from bninspect.batchnorm.measure import measure
from bninspect.evidence.progress import Slots, training_evidence
from bninspect.model.checkpoint import Checkpoint, KerasLayer, Variable
from bninspect.model.layer import BNLayer
from bninspect.model.report import Finding
from bninspect.model.rule import RuleContext
from bninspect.rules import RULES, apply_rules

CHANNELS = 3
USUAL_INITIAL = {
    "gamma": (1.0,),
    "beta": (0.0,),
    "moving_mean": (0.0,),
    "moving_variance": (1.0,),
}


_NAMED_BY = {"keras-h5": "object", "tf-object": "object", "orbax": "tree"}


def variable(name, values, dtype=None):
    """A variable that holds `values`; bfloat16 ones are given as float32, as readers do."""
    array = np.asarray(values)
    return Variable(name, array.shape, dtype or str(array.dtype), lambda: array)


def unread(name, shape=(CHANNELS,), dtype="float32"):
    """A variable that must not be read."""

    def load():
        raise AssertionError(f"{name} was read")

    return Variable(name, shape, dtype, load)


def checkpoint(
    variables: Mapping[str, object] | Iterable[str],
    *,
    format="tf-v2",  # noqa: A002 - it is called so in Checkpoint
    step=None,
    optimizer=(),
    keras_layers=None,
) -> Checkpoint:
    """A checkpoint of `variables`: name → values, or names alone, which must not be read."""
    stored = dict.fromkeys(variables) if not isinstance(variables, Mapping) else dict(variables)
    if step is not None:
        stored["global_step"] = np.int64(step)
    return Checkpoint(
        path="in-memory",
        resolved="in-memory",
        format=format,
        variables=_variables(stored),
        optimizer=_variables(dict(optimizer)),
        in_order=format == "keras-h5",
        named_by=_NAMED_BY.get(format, "graph"),
        keras_layers=keras_layers,
    )


def _variables(stored):
    return {
        name: values
        if isinstance(values, Variable)
        else unread(name)
        if values is None
        else variable(name, values)
        for name, values in stored.items()
    }


def keras_layer(
    *, trainable=True, inference_only=False, calls=1, always_updated=False, **config
) -> KerasLayer:
    return KerasLayer(
        "BatchNormalization", trainable, inference_only, config, calls, always_updated
    )


def bn(
    mean=None,
    variance=None,
    gamma=None,
    beta=None,
    *,
    name="bn",
    family="tf.layers",
    dtype="float32",
    initial=(),
    step=None,
    others=(),
    unwritten=(),
    **fields,
) -> BNLayer:
    """A layer with its values read; a member given as one number holds it in three channels.

    `initial` changes the initial values of some roles, `others` are more variables of the
    checkpoint (name → values), `unwritten` the roles whose values were never written, `fields` more
    fields of BNLayer.
    """
    given = {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": variance}
    stored_as = "float32" if dtype == "bfloat16" else dtype
    variables = {
        role: variable(
            f"{name}/{role}",
            np.full(CHANNELS, values, stored_as)
            if np.ndim(values) == 0
            else np.asarray(values, stored_as),
            dtype,
        )
        for role, values in given.items()
        if values is not None
    }
    for role in unwritten:
        variables[role] = variables[role]._replace(unwritten=variables[role].size)
    initial = USUAL_INITIAL | dict(initial)
    read = {role: one for role, one in variables.items() if not one.unwritten}
    values = dict(
        zip(read, measure([(one.read(), initial[r]) for r, one in read.items()]), strict=True)
    )
    layer = BNLayer(
        name=name, family=family, variables=variables, values=values, initial=initial, **fields
    )
    training = training_evidence(layer, Slots(_variables(dict(others))), step)
    return BNLayer(**{**vars(layer), "training": training})


def findings(*, step=None, momentum=None, rules=RULES, **layer) -> list[Finding]:
    """What `rules` find in the layer `bn(**layer)` of a checkpoint at `step`."""
    context = RuleContext(step, momentum)
    return list(apply_rules([bn(step=step, **layer)], rules, context))


def codes(**arguments) -> list[str]:
    """The codes of `findings(**arguments)`."""
    return [finding.rule.code for finding in findings(**arguments)]


def only(code, **arguments) -> Finding:
    """The finding of the rule `code`, of which there must be one, and no other finding."""
    found = findings(**arguments)
    assert [finding.rule.code for finding in found] == [code]
    return found[0]
