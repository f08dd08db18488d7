"""JSON, schema_version 1: a contract with other people's scripts, only ever extended."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, TextIO

from bninspect import __version__
from bninspect.inference import Dump, Inference, columns
from bninspect.model import (
    ROLES,
    STATISTICS,
    BNLayer,
    CheckpointReport,
    Finding,
    Report,
    Values,
)

SCHEMA_VERSION = 1


def write_json(report: Report, stream: TextIO, *, findings: bool = True) -> None:
    """Write a report; without `findings` it has none, nor their counts (`list`)."""
    document = _head() | {
        "checkpoints": [_checkpoint(item, findings=findings) for item in report.checkpoints],
        "summary": _summary(report, findings=findings),
    }
    _write(document, stream)


def write_dump_json(dumps: Sequence[Dump], stream: TextIO, *, several: bool = False) -> None:
    """Write the values of some layers, with what inference does with them.

    Those of one checkpoint are the document; of several they are its `checkpoints`.
    """
    written = [
        {
            "path": report.path,
            "resolved": report.resolved,
            "format": report.format,
            "step": report.step,
            "layers": [_layer(layer) | _inference(layer, result) for layer, result in layers],
        }
        for report, layers in dumps
    ]
    _write(_head() | ({"checkpoints": written} if several else written[0]), stream)


def _write(document: dict[str, Any], stream: TextIO) -> None:
    json.dump(document, stream, indent=1, allow_nan=False)
    stream.write("\n")


def _head() -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "bninspect", "version": __version__},
    }


def _checkpoint(item: CheckpointReport, *, findings: bool) -> dict[str, Any]:
    error = item.error
    document: dict[str, Any] = {
        "path": item.path,
        "resolved": item.resolved,
        "format": item.format,
        "step": item.step,
        "variables": item.variable_count,
        "layers": [_layer(layer) for layer in item.layers],
    }
    if findings:
        document["findings"] = [_finding(finding) for finding in item.findings]
    document["notes"] = list(item.notes)
    document["error"] = error and {
        "kind": error.kind,
        "message": f"{error.path}: {error.message}",
        "hint": error.hint,
    }
    return document


def _layer(layer: BNLayer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "family": layer.family,
        "channels": layer.channels,
        "dtype": layer.dtype,
        "momentum": layer.momentum,
        "epsilon": layer.epsilon,
        "trainable": layer.trainable,
        "variables": {
            role: layer.variables[role].name if role in layer.variables else None for role in ROLES
        },
        "statistics": {role: _statistic(layer.values.get(role)) for role in STATISTICS},
    }


def _statistic(values: Values | None) -> dict[str, Any] | None:
    if values is None:
        return None
    return {
        "min": _number(values.minimum),
        "max": _number(values.maximum),
        "mean": _number(values.mean),
        "at_initial": values.at_initial,
    }


def _inference(layer: BNLayer, result: Inference) -> dict[str, Any]:
    return {
        "epsilon_used": result.epsilon,
        "caution": result.caution,
        "values": {
            name: None
            if array is None
            else [_number(value) for value in array.astype("f8").tolist()]
            for name, array in columns(layer, result).items()
        },
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule.code,
        "name": finding.rule.name,
        "severity": finding.severity,
        "layer": finding.layer,
        "message": finding.message,
        "cause": finding.cause,
        "evidence": list(finding.evidence),
        "fix": finding.fix,
    }


def _summary(report: Report, *, findings: bool) -> dict[str, int]:
    summary = {"checkpoints": len(report.checkpoints), "layers": report.layer_count}
    if findings:
        summary |= {
            "errors": report.count("error"),
            "warnings": report.count("warning"),
            "notes": report.count("note"),
        }
    summary["unreadable"] = report.unreadable
    if findings:
        summary["suppressed"] = 0
    return summary


def _number(value: float) -> float | str:
    """A number; NaN and infinities, which JSON lacks, as the strings JavaScript calls them by."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
