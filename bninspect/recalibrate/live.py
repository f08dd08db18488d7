"""Recalibration of a live Keras model, in place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bninspect.errors import UsageProblem
from bninspect.evidence.training_mode import TrainingModes
from bninspect.formats.keras.layer_before import with_layers_before
from bninspect.formats.keras.model_config import keras_layers
from bninspect.guard.evidence import with_evidence
from bninspect.guard.live_layers import (
    find_bn_layers,
    find_every_layer,
    layer_config,
    read_layers,
    with_calls,
)
from bninspect.guard.live_model import keras_version, live_model
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.layer import BNLayer
from bninspect.model.recalibration import Recalibration
from bninspect.model.report import CheckpointReport, Report
from bninspect.model.rule import RuleContext, no_graph
from bninspect.recalibrate import refusals
from bninspect.recalibrate.datasets import open_dataset
from bninspect.recalibrate.engines.keras_model import KerasModelEngine, describe, keras_of
from bninspect.recalibrate.estimate import estimate, without_progress
from bninspect.rules import RULES, apply_rules
from bninspect.verdicts.selection import choose_layers

_MODEL = "the model"


def recalibrate(
    model: Any,
    dataset: Any,
    *,
    layers: str | Iterable[str] = (),
    batch: int = 64,
    samples: int | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> Recalibration:
    """Re-estimate the stuck BN statistics of a live Keras model, in place.

    All BN layers normalize by the statistics of each batch, all else runs as at inference, and the
    moments of their inputs become the new moving_mean and moving_variance. The weights stay as they
    are. Save the model yourself afterwards. With `dry_run` the model is left as it is.

    `dataset` is what `fit` takes: arrays (a tuple of inputs and labels), or an iterable of batches
    such as a tf.data.Dataset, shuffled, and preprocessed as at serving. Arrays are shuffled and cut
    into batches of about `batch`. Where it has labels, the model is judged by them. `samples` is
    how many samples are taken at most; batches of an iterable are taken whole. `layers` are names
    or globs of layers to re-estimate instead of those that are stuck. `force` goes on although
    nothing proves in which mode the model was trained; not for a model class whose `call` takes no
    `training`, which `fit` of Keras 3 trains in inference mode: there labels decide.

    Raises `RecalibrationRefused`, and leaves the model as it was, if that would not cure it; raises
    `UsageProblem` if it is no Keras model, or cannot be run on the dataset, or if `batch` or
    `samples` is less than 1.
    """
    for name, number in (("batch", batch), ("samples", samples)):
        if number is not None and number < 1:
            raise UsageProblem(f"{name}: expected a number of at least 1, got {number}.")
    keras_of(model)
    report = _report(model)
    named = [layers] if isinstance(layers, str) else [*layers]
    chosen = refusals.choose(report, choose_layers(_MODEL, Report((report,)), named))
    evidence = refusals.Evidence(_modes(model), no_graph)
    refusals.require_curable(chosen, report.findings, evidence)
    proof = refusals.proof_of_batch_mode(chosen, report, evidence)
    engine = KerasModelEngine(
        model,
        [
            describe(
                name,
                layer,
                f"{name}/moving_mean",
                f"{name}/moving_variance",
                is_fixed=_is_fixed(name, report.layers),
            )
            for name, layer in find_bn_layers(model)
        ],
    )
    kept = tuple(layer.name for layer in report.layers if layer not in chosen)
    estimated = estimate(
        engine,
        open_dataset(dataset, engine.inputs(), batch=batch, most=samples),
        chosen,
        proof,
        force=force,
        progress=without_progress,
        result=Recalibration(_MODEL, dry_run=dry_run, kept=kept),
        against=_sign_of_inference_mode(model),
    )
    if not dry_run:
        engine.assign(estimated.statistics)
    return estimated.result


def _report(model: Any) -> CheckpointReport:
    """Return what the rules find in the BN layers of the model as it is now."""
    with np.errstate(all="ignore"):
        layers = with_evidence(with_calls(read_layers(model, layer_config), model), None, ())
        rules = tuple(rule for rule in RULES if rule.live)
        findings = apply_rules(layers, rules, RuleContext(live=True))
    return CheckpointReport(_MODEL, layers=tuple(layers), findings=findings)


def _sign_of_inference_mode(model: Any) -> str | None:
    """Return the clause that `fit` of Keras 3 runs the model in inference mode; None if not."""
    shown = live_model(model, is_fitted=False)
    if shown.takes_training is not False or not keras_version(model).startswith("3"):
        return None
    return (
        f"the `call` of {shown.class_name} has no parameter `training`, so that `fit` of Keras 3"
        " trains it in inference mode"
    )


def _is_fixed(name: str, layers: Sequence[BNLayer]) -> bool:
    """Return whether the model calls the layer of this name with training=False."""
    keras = {layer.name: layer.keras for layer in layers}.get(name)
    return keras is not None and keras.inference_only


def _modes(model: Any) -> Callable[[BNLayer], Any]:
    """Return a function that gives the mode of training of a layer, as biases before it prove it.

    The weights and the slots of the optimizer are laid out as in a Keras file.
    """
    live = dict(find_every_layer(model))
    variables: dict[str, Variable] = {}

    def stored(path: tuple[str, ...], count: int) -> str | None:
        """Return the name of the last of `count` variables of a layer, if it has so many."""
        layer = live.get("/".join(path))
        if layer is None or len(layer.weights) != count:
            return None
        variable = _variable(layer.weights[-1])
        variables[variable.name] = variable
        return variable.name

    try:
        document = json.loads(model.to_json())
        described = with_layers_before(keras_layers(document, ""), document, stored)
    except Exception:  # Keras refuses some models, and a user's own method may raise anything
        described = {}
    biases = {"/".join(path): layer.bias_before for path, layer in described.items()}
    checkpoint = Checkpoint(
        _MODEL, _MODEL, "keras-h5", variables, optimizer=_slots(model), named_by="object"
    )
    modes = TrainingModes(checkpoint, no_graph)

    def of(layer: BNLayer) -> Any:
        if layer.keras is None or "beta" not in layer.variables:
            return None
        beta = _variable(live[layer.name].beta)
        keras = layer.keras._replace(bias_before=biases.get(layer.name))
        return modes.of(replace(layer, keras=keras, variables={**layer.variables, "beta": beta}))

    return of


def _slots(model: Any) -> dict[str, Variable]:
    """Return the variables of the model's optimizer by name; none without one."""
    optimizer = getattr(model, "optimizer", None)
    variables = getattr(optimizer, "variables", ())
    try:
        slots = [
            _variable(slot, "") for slot in (variables() if callable(variables) else variables)
        ]
    except Exception:  # an optimizer of the user's own
        return {}
    return {slot.name: slot for slot in slots}


def _variable(variable: Any, prefix: str = "model/") -> Variable:
    """Return a live variable as one of a file, by its path (Keras 3) or its name (Keras 2)."""
    name = prefix + str(getattr(variable, "path", variable.name))
    return Variable(
        name,
        tuple(variable.shape),
        str(getattr(variable.dtype, "name", variable.dtype)),
        lambda: np.asarray(variable.numpy() if hasattr(variable, "numpy") else variable),
    )
