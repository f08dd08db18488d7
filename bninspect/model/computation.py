"""Immutable data types of how training computes a BN layer, as a file says it. No I/O."""

from __future__ import annotations

from typing import Literal, NamedTuple

from bninspect.model.graph import Condition, Update
from bninspect.model.layer import ModeProof

# batch: by the statistics of the batch; inference: by the stored ones; chosen: a condition decides.
Mode = Literal["batch", "inference", "chosen"]


class Before(NamedTuple):
    """The layer before a BN layer: its name, type or class, and the stored name of its bias.

    What the file does not say is None.
    """

    name: str | None
    type: str | None
    bias: str | None


class Computation(NamedTuple):
    """Facts on one layer from a stored graph or Keras configuration; None where it has none.

    `source` is the kind of document and `path` its file. `mode` is that of training: which
    statistics it normalizes by. `proof` is the mode that the bias before the layer proves.
    `is_training` has the values of the attribute that the layer's fused kernels have in training.

    Of a graph, `training_ops` names what a training step may run, `updates` what moves the
    averages, and `conditions` what decides whether that changes anything. `all_updates` says that
    these are all: every write could be followed to its variable. `in_update_ops` says that the
    collection UPDATE_OPS has the updates. `others_depend` says that something else that keeps a
    result depends on them, such as gradients that are accumulated; what runs it is not stored.

    Of the node of an ONNX model nothing is known of the training. `is_training` says whether the
    node normalizes by the statistics of each batch.

    Of a configuration, `training_false` says that every stored call passes training=False, and
    `trainable` and `calls` are those of `KerasLayer`.
    """

    source: Literal["graph", "configuration", "onnx"]
    path: str
    before: Before | None = None
    mode: Mode | None = None
    proof: ModeProof | None = None
    is_training: tuple[bool, ...] | None = None
    training_ops: tuple[str, ...] | None = None
    updates: tuple[Update, ...] | None = None
    all_updates: bool | None = None
    in_update_ops: bool | None = None
    others_depend: bool | None = None
    conditions: tuple[Condition, ...] | None = None
    momentum: float | None = None
    epsilon: float | None = None
    training_false: bool | None = None
    trainable: bool | None = None
    calls: int | None = None
