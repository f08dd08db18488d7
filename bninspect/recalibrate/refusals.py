"""Refusals: whose statistics must not be re-estimated, and estimates that are not good enough.

Weights that were trained with batch statistics fit the statistics of the data; weights that were
trained in inference mode fit the statistics that are stored, and re-estimated ones ruin them. So a
model is refused where inference mode is proved, and where nothing proves batch mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bninspect.errors import RecalibrationRefused
from bninspect.model.layer import BNLayer, ModeProof
from bninspect.model.recalibration import RecalibratedLayer
from bninspect.model.report import CheckpointReport, Finding
from bninspect.model.roles import STATISTICS
from bninspect.recalibrate.quality import Comparison
from bninspect.rules import stuck
from bninspect.wording import listed, plural

if TYPE_CHECKING:
    from bninspect.model.graph import GraphEvidence

# A layer is stuck if one of these says so: statistics at their initial values in every channel.
STUCK = tuple(rule.code for rule in stuck.RULES)
_ACCUMULATED = "compare_gan"
_OPTIMIZED = "BN108"
# The largest standard errors: of a mean in deviations, of a variance as a share of it.
MEAN_LIMIT, VARIANCE_LIMIT = 0.05, 0.05
_LEAST_BATCHES = 2
_LARGEST_HALF = 65504.0

_FITS_STORED = "its weights fit the stored statistics and re-estimated ones would ruin it"
_CAUSES = {
    "built-with-training-false": f"training called it in inference mode; {_FITS_STORED}",
    "trained-in-inference-mode": f"training ran it in inference mode; {_FITS_STORED}",
    "call-without-training": f"training ran it in inference mode; {_FITS_STORED}",
    "layer-frozen": f"it is frozen, which means inference mode in training; {_FITS_STORED}",
    "batch-statistics-mode": "inference does not use its statistics, so there is nothing to cure",
}


class Evidence(NamedTuple):
    """Proofs of the mode of training: functions of a layer, None where nothing is proved."""

    mode: Callable[[BNLayer], ModeProof | None]
    graph: Callable[[BNLayer], GraphEvidence | None]


def choose(report: CheckpointReport, named: set[str]) -> tuple[BNLayer, ...]:
    """Return the layers to re-estimate: those that are `named`, else those that are stuck.

    Raises `RecalibrationRefused` if there are none.
    """
    if named:
        return tuple(layer for layer in report.layers if layer.name in named)
    names = {finding.layer for finding in report.findings if finding.rule.code in STUCK}
    chosen = tuple(layer for layer in report.layers if layer.name in names)
    if chosen:
        return chosen
    total = plural(len(report.layers), "BN layer")
    if not report.layers:
        raise RecalibrationRefused("There is no BN layer in it.")
    raise RecalibrationRefused(
        f"It has {total}, none of which is stuck ({', '.join(STUCK)}). To re-estimate a layer"
        " nevertheless, name it (--layer NAME; in Python, layers)."
    )


def require_curable(
    layers: Sequence[BNLayer], findings: Sequence[Finding], evidence: Evidence
) -> None:
    """Raise `RecalibrationRefused` for the first layer that re-estimation would not cure."""
    by_layer: dict[str, list[Finding]] = {}
    for finding in findings:
        by_layer.setdefault(finding.layer, []).append(finding)
    for layer in layers:
        reason = _not_curable(layer, by_layer.get(layer.name, []), evidence)
        if reason is not None:
            raise RecalibrationRefused(f"The layer {layer.name} cannot be cured: {reason}.")


def _not_curable(layer: BNLayer, findings: Sequence[Finding], evidence: Evidence) -> str | None:
    """Return why re-estimated statistics would not cure a layer, as a clause; else None."""
    missing = [role for role in STATISTICS if role not in layer.values]
    if missing:
        return f"{' and '.join(missing)} is not stored"
    optimized = [finding.message for finding in findings if finding.rule.code == _OPTIMIZED]
    if optimized:
        # A gradient shows inference mode, which the weights then fit; weight decay shows no mode.
        return (
            f"{optimized[0]}; keep the optimizer from it and train again (`bninspect rule BN108`)"
        )
    proved = _inference_mode(layer, evidence)
    if proved is not None:
        return proved
    causes = [finding.cause for finding in findings if finding.cause in _CAUSES]
    if layer.keras is not None and layer.keras.frozen:
        causes.append("layer-frozen")
    if causes:
        return _CAUSES[str(causes[0])]
    return _own_scheme(layer)


def _own_scheme(layer: BNLayer) -> str | None:
    """Return why the statistics are not plain averages that inference reads; else None."""
    if layer.family == _ACCUMULATED:
        return "its accumulators are filled by code of its own after training"
    if layer.helpers:
        kept = listed([helper.name for helper in layer.helpers.values()])
        return (
            f"it keeps {kept} besides its statistics (renormalization, zero-debias or"
            " accumulators), which would no longer agree with them"
        )
    return None


def _inference_mode(layer: BNLayer, evidence: Evidence) -> str | None:
    """Return the proof that training ran a layer in inference mode, as a clause; else None."""
    mode = evidence.mode(layer)
    if mode is not None and mode.mode == "inference":
        return f"{mode.fact}; {_FITS_STORED}"
    return None


def proof_of_batch_mode(
    layers: Sequence[BNLayer], report: CheckpointReport, evidence: Evidence
) -> str | None:
    """Return a sentence that proves that training used batch statistics; None without proof.

    One of `layers` proves it for the others: training has one mode for the network, and none of
    them is frozen, called in inference mode or proved to be trained in it. Where training updated
    other layers of the report, it had not one mode for all: then each has to prove it.
    """
    proofs = [_proof_of(layer, report.findings, evidence) for layer in layers]
    names = {layer.name for layer in layers}
    has_updated = any(_moved(layer) for layer in report.layers if layer.name not in names)
    if has_updated and None in proofs:
        return None
    return next((proof for proof in proofs if proof is not None), None)


def _proof_of(layer: BNLayer, findings: Sequence[Finding], evidence: Evidence) -> str | None:
    """Return a sentence that proves that training ran a layer on batch statistics, or None."""
    own_findings = [finding for finding in findings if finding.layer == layer.name]
    if any(finding.cause == "update-ops-not-run" for finding in own_findings):
        return (
            f"the graph builds {layer.name} in training mode, and its updates were not run:"
            " training used batch statistics"
        )
    mode = evidence.mode(layer)
    if mode is not None:
        return f"{layer.name}: {mode.fact}"
    graph = evidence.graph(layer)
    if graph is not None and graph.training_ops and not graph.conditions and graph.modes == {True}:
        return f"the fused kernel of {layer.name} has is_training=True in the graph of training"
    # Where both moved, that may have been before a fine-tuning in inference mode.
    if any(finding.rule.code in STUCK for finding in own_findings) and _moved(layer):
        return f"statistics of {layer.name} moved, which they do in training mode alone"
    return None


def _moved(layer: BNLayer) -> bool:
    """Return whether updates moved a statistic: channels differ, as no initializer makes them."""
    statistics = layer.statistics or ()
    return any(not (statistic.constant or statistic.all_initial) for statistic in statistics)


def require_proof(
    proof: str | None, quality: Comparison | None, *, force: bool, against: str | None = None
) -> str:
    """Return the proof of batch mode, or what stands in for it.

    `against` is a clause on what speaks for inference mode; only a proof or labels outweigh it.
    Raises `RecalibrationRefused` if labels show that inference mode is better, and if nothing
    proves batch mode and `force` is not given.
    """
    if quality is not None and quality.gain < 0.0:
        raise RecalibrationRefused(
            "On the labels the model is better with its stored statistics"
            f" ({quality.describe('before')}) than with those of each batch"
            f" ({quality.describe('training')}), as one that was trained in inference mode is:"
            " re-estimated statistics would ruin it."
        )
    if proof is not None:
        return proof
    if quality is not None and quality.is_significant:
        return (
            f"on the labels the model is better with the statistics of each batch"
            f" ({quality.describe('training')}) than with its stored ones"
            f" ({quality.describe('before')})"
        )
    if against is not None:
        raise RecalibrationRefused(
            f"Nothing stored proves that training used batch statistics, and {against}:"
            " re-estimated statistics would ruin it then. If a loop of your own trained it by"
            " model(x, training=True), give samples with labels, which show it."
        )
    if force:
        return "none: forced by the user"
    given = "no labels are given"
    advice = "Give labels (--labels KEY; in Python, beside the samples)"
    if quality is not None:
        given, advice = "the labels do not decide it", "Give more samples"
    raise RecalibrationRefused(
        f"Nothing stored proves that training used batch statistics, and {given}: a model that was"
        f" trained in inference mode would be ruined. {advice}, or use --force (in Python"
        " force=True) if you know that it was trained with training=True."
    )


def require_better(quality: Comparison | None) -> None:
    """Raise `RecalibrationRefused` if the model would be worse at inference than it was."""
    if quality is not None and quality.after is not None and quality.gain_after < 0.0:
        raise RecalibrationRefused(
            f"On the labels the model would be worse after it ({quality.describe('after')}) than it"
            f" is ({quality.describe('before')})."
        )


def require_batches(batches: int, samples: int) -> None:
    """Raise `RecalibrationRefused` if there are too few batches to estimate an error from."""
    if batches < _LEAST_BATCHES:
        raise RecalibrationRefused(
            f"{plural(samples, 'sample')} in {'one batch' if batches else 'no batch'} are too few:"
            " with fewer than two batches the error of the statistics is not known."
        )


def require_precise(
    layers: Sequence[RecalibratedLayer], samples: int, elements: Mapping[str, int]
) -> None:
    """Raise `RecalibrationRefused` if an estimate is not finite or its standard error too large.

    `elements` is by layer the number of elements per channel.
    """
    for layer in layers:
        if not elements.get(layer.name):
            raise RecalibrationRefused(
                f"The layer {layer.name} was not run: no sample reaches it in the model's output."
            )
        if not (np.isfinite(layer.mean).all() and np.isfinite(layer.variance).all()):
            raise RecalibrationRefused(
                f"The input of the layer {layer.name} is not finite (NaN or infinity): look for it"
                " in the samples, and in the weights with `bninspect check`."
            )
    worst = max(layers, key=_excess)
    if _excess(worst) > 1.0:
        needed = math.ceil(1.2 * samples * _excess(worst) ** 2 / 100) * 100
        by_mean = worst.mean_error / MEAN_LIMIT >= worst.variance_error / VARIANCE_LIMIT
        shortfall = (
            f"a mean is known to {worst.mean_error:.2g} deviations only (limit {MEAN_LIMIT:g})"
            if by_mean
            else f"a variance is known to {worst.variance_error:.2%} only (limit"
            f" {VARIANCE_LIMIT:.0%})"
        )
        raise RecalibrationRefused(
            f"{plural(samples, 'sample')} are too few, or not shuffled: in the layer {worst.name}"
            f" {shortfall}; about {needed} shuffled samples would do."
        )


def require_storable(layers: Sequence[BNLayer], recalibrated: Sequence[RecalibratedLayer]) -> None:
    """Raise `RecalibrationRefused` if a new statistic is too large for float16."""
    halves = {layer.name for layer in layers if layer.dtype == "float16"}
    for layer in recalibrated:
        largest = max(float(np.abs(layer.mean).max()), float(layer.variance.max()))
        if layer.name in halves and largest > _LARGEST_HALF:
            raise RecalibrationRefused(
                f"The layer {layer.name} stores its statistics in float16, which ends at"
                f" {_LARGEST_HALF:.0f}, and a new one is {largest:.4g}: convert it to float32."
            )


def _excess(layer: RecalibratedLayer) -> float:
    """Return the largest standard error of a layer as a multiple of its limit."""
    return max(layer.mean_error / MEAN_LIMIT, layer.variance_error / VARIANCE_LIMIT)
