"""The facts of a layer and its file that the catalogue of suspects goes by."""

from __future__ import annotations

import re
from functools import lru_cache
from os.path import basename
from typing import Literal

import numpy as np

from bninspect.model.cached_property import cached_property
from bninspect.model.filenames import meta_graph
from bninspect.model.graph import Condition, GraphEvidence
from bninspect.model.layer import BNLayer
from bninspect.model.roles import AFFINE, STATISTICS
from bninspect.model.rule import RuleContext
from bninspect.rules.averages import expected_updates, known_momentum
from bninspect.rules.channels import not_enough_updates
from bninspect.rules.fixes import trained_in_javascript
from bninspect.rules.keras_versions import may_train_in_session, trains_in_session
from bninspect.rules.numeric import overshoot

_RECURRENT = r"(rnn|lstm|gru|conv_lstm\w*|simple_rnn|\w*cell)(_\d+)?"
# Groups of weights files are called after the class: `layers/batch_normalization_1`.
_KERAS_GROUP = r"(sync_)?batch_normalization(_v\d)?(_\d+)?|layer|cell"


class Facts:
    """The facts of one finding that speak for a reason or rule it out.

    `rule` is the code of the rule, `layer` the layer it is about, `context` that of the rules.
    `is_keras` says that the layer has the names of Keras's layers.
    Where something is not stored, both what needs it and what excludes it are False.
    """

    def __init__(self, rule: str, layer: BNLayer, context: RuleContext) -> None:
        self.rule, self.layer, self.context = rule, layer, context
        self.is_keras = layer.family in ("keras", "keras-1")  # most rows of the catalogue ask this

    # --- The framework ----------------------------------------------------------------------------

    @property
    def keras(self) -> str:
        """Return the major version of Keras: "1", "2" or "3"; empty where the file does not tell.

        Without a version, names of Keras 1 are those of its weights. TensorFlow.js is no Keras.
        """
        if trained_in_javascript(self.layer):
            return "tfjs"
        version = self.layer.keras_version[:1]
        return version or ("1" if self.layer.family == "keras-1" else "")

    @property
    def in_javascript(self) -> bool:
        """Return whether TensorFlow.js trained the model."""
        return self.keras == "tfjs"

    @property
    def in_session(self) -> bool:
        """Return whether this Keras trains in sessions, for sure."""
        return self.keras == "1" or trains_in_session(self.layer.keras_version)

    @property
    def may_be_in_session(self) -> bool:
        """Return whether this Keras may train in sessions."""
        return self.in_session or may_train_in_session(self.layer.keras_version)

    @property
    def in_tensorflow_1(self) -> bool:
        """Return whether the variables were named by a graph of TensorFlow 1."""
        is_other = self.layer.onnx is not None and self.family("pytorch", "onnx")
        of_graph = self.context.of_graph or self.context.frozen or self.layer.onnx is not None
        return of_graph and not (self.is_keras or self.layer.is_of_function or is_other)

    @property
    def is_linen(self) -> bool:
        """Return whether the layer is of Flax linen, which keeps statistics in `batch_stats`."""
        mean = self.layer.variables.get("moving_mean")
        return self.layer.family == "flax" and mean is not None and "batch_stats" in mean.name

    @property
    def is_arithmetic(self) -> bool:
        """Return whether arithmetic of an ONNX model computes the layer, as one written by hand."""
        return self.layer.onnx is not None and self.layer.onnx.is_arithmetic

    def family(self, *names: str) -> bool:
        """Return whether the layer is of one of these families."""
        return self.layer.family in names

    @property
    def has_configuration(self) -> bool:
        """Return whether the configuration of the model is stored and has the layer."""
        return self.layer.keras is not None

    @property
    def own_class(self) -> str | None:
        """Return the class of the layer if it is none of Keras's; None if it is, or not known.

        Without a configuration the groups of a weights file tell the class in snake case.
        """
        if self.layer.own_class is not None:
            return self.layer.own_class
        if self.layer.family == "keras-1" and self.keras in ("2", "3"):
            return "one with the names of Keras 1"
        container, _, group = self.layer.name.rpartition("/")
        is_group = self.is_keras and container.rpartition("/")[2] == "layers"
        return group if is_group and not re.fullmatch(_KERAS_GROUP, group) else None

    @property
    def model_class(self) -> str | None:
        """Return the class of the model if it is the user's own; None if not, or not known."""
        model = self.layer.keras_model
        return model.class_name if model is not None and model.has_own_class else None

    @property
    def model_may_be_own(self) -> bool:
        """Return whether the class of the model is one of the user's own, or not stored."""
        return self.layer.keras_model is None or self.layer.keras_model.has_own_class

    @property
    def may_be_part(self) -> bool:
        """Return whether the model is not compiled: it may be a part of the trained one."""
        return self.layer.keras_model is None or not self.layer.keras_model.is_compiled

    @property
    def backend(self) -> str | None:
        """Return the backend of Keras; None if not known."""
        return None if self.layer.keras_model is None else self.layer.keras_model.backend

    @property
    def cell(self) -> str | None:
        """Return the part of the layer's name that may be a recurrent layer's or its cell's."""
        parts = self.layer.name.split("/")[:-1] if self.is_keras else []
        return next((part for part in parts if re.fullmatch(_RECURRENT, part)), None)

    # --- The graph --------------------------------------------------------------------------------

    @cached_property
    def graph(self) -> GraphEvidence | None:
        """Return the evidence of the stored graph; None without an optimizer in it."""
        graph = self.context.graph(self.layer)
        return graph if graph is not None and graph.training_ops else None

    @property
    def is_updated_by_graph(self) -> bool:
        """Return whether a training op of the graph depends on an update of the layer."""
        return self.graph is not None and any(one.run_by for one in self.graph.updates)

    @property
    def has_unrun_updates(self) -> bool:
        """Return whether the graph has updates of the layer, and no training op depends on any."""
        return self.graph is not None and bool(self.graph.updates) and not self.is_updated_by_graph

    @property
    def false_condition(self) -> Condition | None:
        """Return a condition of the updates that is False by its stored value or default.

        None without one, and where logic stands between the value and the branch.
        """
        conditions = () if self.graph is None else self.graph.conditions
        return next((one for one in conditions if one.value is False and not one.derived), None)

    @property
    def may_be_unrun(self) -> bool:
        """Return whether updates may exist that a training step does not run."""
        return self.graph is None or self.has_unrun_updates

    @cached_property
    def mode(self) -> Literal["batch", "inference"] | None:
        """Return the mode that the bias before the layer proves; None if nothing does."""
        proof = self.context.mode(self.layer)
        return None if proof is None else proof.mode

    @cached_property
    def is_inference_elsewhere(self) -> bool:
        """Return whether inference mode is proved for another layer, and no mode for this one."""
        return self.mode is None and self.context.inference_elsewhere()

    # --- The values -------------------------------------------------------------------------------

    @cached_property
    def affine_moved(self) -> bool:
        """Return whether gamma or beta differ from what they start from."""
        values = self.layer.values
        return any(values[role].has_moved for role in AFFINE if role in values)

    @cached_property
    def affine_initial(self) -> bool:
        """Return whether the stored ones of gamma and beta are what they start from throughout."""
        stored = [self.layer.values[role] for role in AFFINE if role in self.layer.values]
        return bool(stored) and all(one.all_initial for one in stored)

    @property
    def has_negative_zeros(self) -> bool:
        """Return whether a moving_mean is -0.0, which no initial value and no update is."""
        mean = self.layer.values.get("moving_mean")
        if mean is None or not mean.minimum <= 0.0 <= mean.maximum:
            return False
        signs = np.signbit(mean.array)
        return bool(signs.any()) and bool((signs & (mean.array == 0.0)).any())

    @property
    def is_zeroed(self) -> bool:
        """Return whether the variance is exactly 0 in every channel, and began above that."""
        if self.layer.statistics is None:
            return False
        _, variance = self.layer.statistics
        return variance.initial != 0.0 and variance.minimum == variance.maximum == 0.0

    @property
    def has_decayed(self) -> bool:
        """Return whether updates by a variance of 0 may have brought that of the layer to 0."""
        if not self.is_zeroed or self.layer.statistics is None:
            return False
        mean, variance = self.layer.statistics
        momentum = known_momentum(self.layer, self.context)
        updates = expected_updates(self.layer, self.context)
        return not mean.all_initial and not not_enough_updates(
            variance.initial or 0.0, momentum, updates
        )

    @property
    def lacks_statistics(self) -> bool:
        """Return whether no value of a statistic was read."""
        return not any(role in self.layer.values for role in STATISTICS)

    @property
    def looks_swapped(self) -> bool:
        """Return whether variances are negative and no mean is, so that each may be the other."""
        both = self.layer.statistics
        return self.graph is None and both is not None and both[0].minimum >= 0.0

    @property
    def turns_signs(self) -> bool:
        """Return whether this Keras turns the sign of the variance of one value.

        It multiplies by n / (n - (1 + epsilon)) (keras/layers/normalization.py of 2.1.5 to 2.3.1),
        as tf.keras does not.
        """
        version = r"2\.(1\.[5-9]|2\.\d+|3\.[01])"
        return re.fullmatch(version, self.layer.keras_version) is not None

    @property
    def overshoots(self) -> bool:
        """Return whether the updates of one step overshoot together."""
        return overshoot(self.layer, self.context) is not None

    def is_not_finite(self, *roles: str) -> bool:
        """Return whether one of these members holds NaN or infinity."""
        return any(one.not_finite for role, one in self.layer.values.items() if role in roles)

    # --- The training -----------------------------------------------------------------------------

    @property
    def step(self) -> int | None:
        """Return the stored step; None without one."""
        return self.context.step

    @property
    def no_training_stored(self) -> bool:
        """Return whether neither a step nor an optimizer's count of steps is stored."""
        context = self.context
        return context.may_store_step and context.step is None and not context.optimizer_steps

    @property
    def others_updated(self) -> bool:
        """Return whether the statistics of another BN layer of the file moved."""
        return self.context.updated

    @property
    def is_trained_here(self) -> bool:
        """Return whether slots show that the optimizer of this checkpoint trained gamma or beta."""
        return self.layer.training.is_trained_here

    @property
    def is_frozen(self) -> bool:
        """Return whether the stored configuration says that the layer is not trainable."""
        return self.layer.keras is not None and self.layer.keras.frozen

    # --- The file ---------------------------------------------------------------------------------

    @property
    def graph_file(self) -> str | None:
        """Return the name of the graph's file that may lie beside the checkpoint, and does not."""
        context = self.context
        if context.live or context.format not in ("tf-v1", "tf-v2") or context.graph(self.layer):
            return None
        return _graph_beside(context.resolved)


@lru_cache(maxsize=8)  # the same for all layers of a checkpoint
def _graph_beside(prefix: str) -> str:
    return basename(meta_graph(prefix))
