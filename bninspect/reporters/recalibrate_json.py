"""`recalibrate` as JSON: a document of its own, under the contract of `json_v1`."""

from __future__ import annotations

from typing import Any, TextIO

from numpy.typing import NDArray

from bninspect.model.recalibration import RecalibratedLayer, Recalibration
from bninspect.reporters.json_v1 import heading, number, write_document


def write_recalibration_json(result: Recalibration, stream: TextIO) -> None:
    """Write a result as a document; the schema describes its keys."""
    document = heading() | {
        "model": result.path,
        "cured": result.refusal is None,
        "refusal": result.refusal,
        "dry_run": result.dry_run,
        "output": result.output,
        "framework": result.framework or None,
        "proof": result.proof,
        "samples": result.samples,
        "batches": result.batches,
        "layers": [_layer(layer) for layer in result.layers],
        "kept": list(result.kept),
        "outputs": _numbers(result.outputs),
        "quality": _numbers(result.quality),
        "notes": list(result.notes),
    }
    write_document(document, stream)


def _layer(layer: RecalibratedLayer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "channels": len(layer.mean),
        "mean": {"before": _range(layer.mean_before), "after": _range(layer.mean)},
        "variance": {"before": _range(layer.variance_before), "after": _range(layer.variance)},
        "mean_error": number(layer.mean_error),
        "variance_error": number(layer.variance_error),
    }


def _range(values: NDArray[Any]) -> dict[str, Any]:
    return {"min": number(float(values.min())), "max": number(float(values.max()))}


def _numbers(result: Any) -> dict[str, Any] | None:
    """Return a named tuple of numbers and words as a document; None for None."""
    if result is None:
        return None
    return {
        name: number(value) if isinstance(value, float) else value
        for name, value in result._asdict().items()
    }
