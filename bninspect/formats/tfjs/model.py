"""Opening of a TensorFlow.js model: the JSON first, then a layers model or a graph model."""

from __future__ import annotations

from typing import Any

from bninspect.formats.tfjs.manifest import Manifest, read_manifest
from bninspect.formats.tfjs.weights import TfjsWeights
from bninspect.model.checkpoint import Checkpoint
from bninspect.wording import listed


def open_tfjs(path: str, json_path: str, notes: tuple[str, ...] = ()) -> Checkpoint:
    """Return the open TensorFlow.js model whose JSON is at `json_path`.

    `path` is what the user typed. Shards may be missing: then the checkpoint is `incomplete`.
    Raises a `ReadProblem` if the JSON is not one of a model, is damaged, or names other files.
    """
    manifest = read_manifest(json_path)
    notes = (*notes, *_notes(manifest))
    weights = TfjsWeights(json_path, manifest)
    try:
        if _is_graph(manifest.topology):
            from bninspect.formats.tfjs.graph_model import read_graph_model

            return read_graph_model(path, weights, manifest.topology, notes)
        from bninspect.formats.tfjs.layers_model import read_layers_model

        return read_layers_model(path, weights, manifest.topology, notes)
    except BaseException:
        weights.close()
        raise


def _is_graph(topology: Any) -> bool:
    return isinstance(topology, dict) and "node" in topology


def _notes(manifest: Manifest) -> list[str]:
    """Return a sentence on weights that are not stored as training left them."""
    types = manifest.quantizations
    if not types:
        return []
    return [f"weights are quantized to {listed(types)}, and read as the numbers they stand for"]
