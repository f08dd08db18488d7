"""The catalogue of suspects. To add one, add a row to `SUSPECTS`: nothing else knows them by name.

`SEEN` orders those that the facts leave equally possible.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from bninspect.model.graph import Condition
from bninspect.model.rule import PossibleCause
from bninspect.rules.graph_fixes import checks_of
from bninspect.rules.suspects.facts import Facts

Text = str | Callable[[Facts], str]


class Suspect(NamedTuple):
    """A reason that may be behind findings of some rules.

    `when` says whether the facts leave it possible; it is `marked` where they speak for it, and do
    not only fail to rule it out. `speaks_for` is a clause; `tells_apart` and `test` are sentences.
    A text may be a function of the facts. `families` are those of the layers that it may be about,
    none for all.
    """

    cause: str
    rules: tuple[str, ...]
    when: Callable[[Facts], bool]
    speaks_for: Text
    tells_apart: str
    test: Text
    marked: bool = False
    families: tuple[str, ...] = ()

    def seen(self, facts: Facts) -> int:
        """Return how often this was met in Keras, or in TensorFlow 1; 0 for what was not.

        In PyTorch nothing was counted: there the order of the catalogue holds.
        """
        if facts.family("pytorch"):
            return 0
        in_tensorflow_1, in_keras = SEEN.get(self.cause, (0, 0))
        return in_keras if facts.is_keras else in_tensorflow_1

    def as_possible_cause(self, facts: Facts) -> PossibleCause:
        """Return the suspect of a finding, with its texts written out."""
        return _possible_cause(
            self.cause,
            _written(self.speaks_for, facts),
            self.tells_apart,
            _written(self.test, facts),
        )


# Most findings of a run have the same, so that few objects are kept and sent.
@lru_cache(maxsize=256)
def _possible_cause(cause: str, speaks_for: str, tells_apart: str, test: str) -> PossibleCause:
    return PossibleCause(cause, speaks_for, tells_apart, test)


def _written(text: Text, facts: Facts) -> str:
    return text if isinstance(text, str) else text(facts)


_STUCK = ("BN101", "BN102", "BN103")
_STANDING = (*_STUCK, "BN107")
_HALF = ("BN102", "BN103")
_BOTH = ("BN101", "BN107")

# Families whose update ops a graph only collects, and what runs them.
_COLLECTED = {
    "tf.layers": "tf.layers leaves running its update ops to the script",
    "custom-scope": "TensorFlow 1 leaves running the update ops to the script",
    "slim": "slim only collects its update ops: create_train_op runs them, minimize does not",
    "sonnet-1": "Sonnet 1 leaves running its update ops to the script",
    "tensorpack": "only the callback RunUpdateOps runs the update ops of tensorpack",
    "lingvo": "a training step has to run the update ops that the layers collect",
}
_KERAS = ("keras", "keras-1")
_WRITTEN_BY_HAND = ("hand-written", "moments-ema", "tensorlayer")


def _collects(facts: Facts) -> str:
    return _COLLECTED[facts.layer.family]


def _graph_or(otherwise: str) -> Callable[[Facts], str]:
    """Return the test by the graph beside a checkpoint, or another where that can be none."""

    def test(facts: Facts) -> str:
        if facts.graph_file is None:
            return otherwise
        return f"Put the training's {facts.graph_file} beside it."

    return test


def _loading_by_name(facts: Facts) -> str:
    return "load_state_dict(strict=False)" if facts.family("pytorch") else "loading by name"


def _order_of_members(facts: Facts) -> str:
    if facts.in_javascript:
        return "layer.setWeights([gamma, beta, movingMean, movingVariance]): is this the order?"
    if facts.is_keras:
        return "layer.set_weights([gamma, beta, moving_mean, moving_variance]): is this the order?"
    return "Which variable of the source did the conversion assign to moving_variance?"


def _inference_in_loop(facts: Facts) -> str:
    if facts.in_javascript:
        return "in a loop of one's own a call without {training: true} is inference"
    return "in a loop or train_step of one's own a call without training=True is inference"


def _loop(facts: Facts) -> str:
    if facts.in_javascript:  # seen with TensorFlow.js 4.22
        return "Does the training call `model.apply(x, {training: true})`?"
    return "Does the training call `model(x, training=True)`?"


def _finite_batches(facts: Facts) -> str:
    is_finite = "tf.all(tf.isFinite(batch)).print()"
    in_python = "print(np.isfinite(batch).all())"
    return f"{is_finite if facts.in_javascript else in_python} for each batch of the training data."


def _has_no_update(facts: Facts) -> bool:
    """Return whether no BN layer of Keras was updated, as by a loop that runs no updates."""
    is_updated = facts.is_zeroed or facts.others_updated
    return not is_updated and not facts.affine_initial


def _look_at_conditions(facts: Facts) -> str:
    checks = checks_of(() if facts.graph is None else facts.graph.conditions)
    return f"{checks[:1].upper()}{checks[1:]}."


def _first_switch(facts: Facts) -> str:
    conditions = () if facts.graph is None else facts.graph.conditions
    return _switch(next(iter(conditions), None))


def _switch(condition: Condition | None) -> str:
    name = "" if condition is None else f", `{condition.name}`,"
    return f"a condition of the graph{name} can switch the updates off"


def _is_graph_of_run(facts: Facts) -> str:
    name = "the graph" if facts.graph is None else os.path.basename(facts.graph.path)
    return f"Was {name} written by the run that wrote the checkpoint?"


_NOT_IN_TRAIN_OP = "The graph has update ops, and no training op depends on them."
_UPDATE_OPS = (
    "print(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) where the train op is built: is it built"
    " under control_dependencies of these?"
)
_AFTER_LOADING = "Print gamma and moving_variance right after the weights were loaded."
_LOADED = "gamma and beta are good at once, without a step of training here."
_OF_SESSIONS = "sessions of this Keras run the updates only where the loop asks for them"
_MODEL_UPDATES = "Does each session.run of the loop fetch model.updates beside the train op?"

# How often each was met in TensorFlow 1, and in Keras: public bug reports and models, and the
# fixtures. docs/verified.md has the table.
SEEN = {
    "update-ops-not-run": (47, 9),
    "built-with-training-false": (7, 5),
    "updates-switched-off": (10, 0),
    "trained-in-inference-mode": (2, 8),
    "statistics-not-loaded": (6, 3),
    "layer-frozen": (1, 7),
    "saver-omitted-statistics": (7, 0),
    "own-class-without-updates": (0, 5),
    "untrained": (3, 2),
    "statistics-are-trainable": (5, 3),
    "updates-not-kept": (0, 4),
    "batch-statistics-mode": (0, 3),
    "statistics-overwritten": (0, 3),
    "batches-of-one-value": (0, 3),
    "updates-overshoot": (2, 1),
    "one-pass-variance": (2, 0),
    "averages-not-run": (2, 0),
    "call-without-training": (0, 2),
    "statistics-reset": (0, 1),
    "cell-without-updates": (0, 1),
    "weights-not-loaded": (0, 1),
    "statistics-swapped": (0, 1),
    "training-diverged": (0, 1),
    "conversion-incomplete": (0, 1),
}

SUSPECTS: tuple[Suspect, ...] = (
    # --- TensorFlow 1 -----------------------------------------------------------------------------
    Suspect(
        "update-ops-not-run",
        _HALF,
        when=lambda f: f.in_tensorflow_1 and f.may_be_unrun and not f.is_zeroed,
        marked=True,
        speaks_for="the other statistic was updated, so that the layer ran in training mode",
        tells_apart=_NOT_IN_TRAIN_OP,
        test=_graph_or("Does the train op depend on the updates of both averages?"),
    ),
    Suspect(
        "update-ops-not-run",
        _BOTH,
        families=tuple(_COLLECTED),
        when=lambda f: f.in_tensorflow_1 and f.may_be_unrun,
        speaks_for=_collects,
        tells_apart=_NOT_IN_TRAIN_OP,
        test=_graph_or(_UPDATE_OPS),
    ),
    Suspect(
        "update-ops-not-run",
        _BOTH,
        families=("graph",),
        when=lambda f: f.context.frozen and f.in_tensorflow_1,
        speaks_for=_COLLECTED["custom-scope"],
        tells_apart=_NOT_IN_TRAIN_OP,
        test=_UPDATE_OPS,
    ),
    Suspect(
        "update-ops-not-run",
        _BOTH,
        families=_WRITTEN_BY_HAND,
        when=lambda f: f.may_be_unrun,
        speaks_for="averages that are written by hand move only if each training step runs them",
        tells_apart=_NOT_IN_TRAIN_OP,
        test=_graph_or("Does each training step run the updates of both averages?"),
    ),
    Suspect(
        "updates-switched-off",
        _STANDING,
        when=lambda f: f.is_updated_by_graph and bool(f.graph and f.graph.conditions),
        marked=True,
        speaks_for=lambda f: f"training runs the updates, but {_first_switch(f)}",
        tells_apart="The condition is False while training.",
        test=_look_at_conditions,
    ),
    Suspect(
        "updates-switched-off",
        _STANDING,
        when=lambda f: f.has_unrun_updates and f.mode != "batch" and f.false_condition is not None,
        marked=True,
        speaks_for=lambda f: (
            f"{_switch(f.false_condition)}, and is False by"
            f" {'the graph' if f.context.live else 'what is stored'}"
        ),
        tells_apart="The update ops were fetched by hand, and the condition was False.",
        test=_look_at_conditions,
    ),
    Suspect(
        "updates-switched-off",
        _STANDING,
        when=lambda f: (
            f.has_unrun_updates and f.mode != "batch" and bool(f.graph and f.graph.conditions)
        ),
        speaks_for=lambda f: f"{_first_switch(f)}, even if they were fetched by hand",
        tells_apart="The update ops were fetched by hand, and the condition was False.",
        test=_look_at_conditions,
    ),
    Suspect(
        "updates-switched-off",
        _BOTH,
        families=("tflearn",),
        when=lambda f: f.graph is None and f.mode != "batch",
        marked=True,
        speaks_for="tflearn keeps the mode in the variable is_training, which is False unless set",
        tells_apart="The graph updates the averages under a condition.",
        test="print(session.run(tf.get_collection('is_training'))) in the training loop.",
    ),
    Suspect(
        "updates-switched-off",
        _BOTH,
        when=lambda f: f.graph is None and f.in_tensorflow_1 and f.mode != "batch",
        speaks_for="the mode may have been fed or set False",
        tells_apart="The graph updates the averages under a condition.",
        test="Print it in the training loop.",
    ),
    Suspect(
        "built-with-training-false",
        _BOTH,
        families=("tf.layers",),
        when=lambda f: f.in_tensorflow_1 and f.graph is None and f.mode != "batch",
        speaks_for="training=False is the default of tf.layers",
        tells_apart="The graph that was trained has no update of the averages.",
        test="Is training=True passed in the graph for training?",
    ),
    Suspect(
        "built-with-training-false",
        _BOTH,
        families=("slim", "custom-scope", "sonnet-1", "tensorpack", "lingvo"),
        when=lambda f: f.in_tensorflow_1 and f.graph is None and f.mode != "batch",
        speaks_for="the graph for training may have been built with is_training=False",
        tells_apart="The graph that was trained has no update of the averages.",
        test="Is the mode True where the graph for training is built?",
    ),
    Suspect(
        "statistics-not-loaded",
        _BOTH,
        when=lambda f: (
            f.graph is not None and f.affine_moved and not f.graph.updates and not f.graph.optimized
        ),
        marked=True,
        speaks_for="nothing in the graph trains gamma or beta, and they are not what they start at",
        tells_apart=f"Weights were restored: {_LOADED}",
        test="Does the Saver that restores name tf.global_variables(), or only the trainable ones?",
    ),
    Suspect(
        "statistics-overwritten",
        _BOTH,
        when=lambda f: (
            f.is_updated_by_graph
            and not (f.graph and f.graph.conditions)
            and not f.context.live  # whose statistics stand still, and whose graph is its own
        ),
        speaks_for="by the graph a training step updates the statistics, and nothing stops it",
        tells_apart="The statistics move while training runs, and stand still in the files.",
        test="Print moving_variance after a training step, and again before it is saved.",
    ),
    Suspect(
        "other-graph",
        _BOTH,
        when=lambda f: (
            f.is_updated_by_graph
            and not (f.graph and f.graph.conditions)
            and not f.context.live  # whose statistics stand still, and whose graph is its own
        ),
        speaks_for="the graph beside it may not be the one that was trained",
        tells_apart="The statistics do not move while training runs.",
        test=_is_graph_of_run,
    ),
    # --- Keras ------------------------------------------------------------------------------------
    Suspect(
        "statistics-reset",
        ("BN101",),
        when=lambda f: f.has_negative_zeros,
        marked=True,
        speaks_for="some moving_mean is -0.0, as a multiplication by 0 leaves it, and no update",
        tells_apart="The statistics were updated, and set back after the training.",
        test="Print moving_mean after each epoch: does a callback (weight averaging) set it back?",
    ),
    Suspect(
        "cell-without-updates",
        _BOTH,
        when=lambda f: f.cell is not None,
        marked=True,
        speaks_for=lambda f: (
            f"its name has `{f.cell}`: the cell of a recurrent layer has to pass training on to it"
        ),
        tells_apart="BN layers outside of the cell are updated.",
        test="Does the `call` of the cell take `training`, and pass it on to the layer?",
    ),
    Suspect(
        "own-class-without-updates",
        _STANDING,
        when=lambda f: f.own_class is not None and not f.is_zeroed,
        marked=True,
        speaks_for=lambda f: f"its class, {f.own_class}, is none of Keras's own",
        tells_apart="The class of Keras in its place is updated.",
        test="Does its `call` assign both averages in training mode, with nothing that skips it?",
    ),
    Suspect(
        "own-class-without-updates",
        _BOTH,
        families=("pytorch", "onnx"),
        when=lambda f: f.is_arithmetic,
        marked=True,
        speaks_for="its arithmetic is that of a class of one's own, no BatchNormalization node",
        tells_apart="The BN of the framework in its place is updated.",
        test="Does its forward assign both averages in training mode, with nothing that skips it?",
    ),
    Suspect(
        "updates-not-kept",
        _STANDING,
        families=_KERAS,
        when=lambda f: f.keras == "3" and f.mode == "batch" and not f.is_zeroed,
        marked=True,
        speaks_for="training used batch statistics; a stateless loop has to keep the new averages",
        tells_apart="`stateless_call` returns averages that moved.",
        test="Does the loop keep the non-trainable variables that `stateless_call` returns?",
    ),
    Suspect(
        "updates-not-kept",
        _BOTH,
        families=_KERAS,
        when=lambda f: (
            f.keras == "3" and f.backend == "jax" and f.mode != "inference" and not f.affine_initial
        ),
        marked=True,
        speaks_for="Keras ran on JAX, where a loop of one's own has to keep the new averages",
        tells_apart="`stateless_call` returns averages that moved.",
        test="Does the loop keep the non-trainable variables that `stateless_call` returns?",
    ),
    Suspect(
        "updates-not-kept",
        _BOTH,
        families=_KERAS,
        when=lambda f: (
            f.keras in ("3", "")
            and f.backend is None
            and f.mode != "inference"
            and not f.affine_initial
        ),
        speaks_for="a stateless loop of Keras 3 has to keep the new averages",
        tells_apart="Training used batch statistics: the bias before the layer stays at 0.",
        test="Does the loop keep the non-trainable variables that `stateless_call` returns?",
    ),
    Suspect(
        "statistics-reset",
        ("BN101",),
        families=_KERAS,
        when=lambda f: f.mode == "batch",
        speaks_for="training used batch statistics, so that the averages may have moved before",
        tells_apart="The statistics were updated, and set back after the training.",
        test="Print moving_mean after each epoch: does a callback (weight averaging) set it back?",
    ),
    Suspect(
        "update-ops-not-run",
        _STANDING,
        families=_KERAS,
        when=lambda f: f.in_session and _has_no_update(f),
        marked=True,
        speaks_for=_OF_SESSIONS,
        tells_apart="The training is a loop over session.run.",
        test=_MODEL_UPDATES,
    ),
    Suspect(
        "update-ops-not-run",
        _STANDING,
        families=_KERAS,
        when=lambda f: f.may_be_in_session and _has_no_update(f),
        speaks_for=_OF_SESSIONS,
        tells_apart="The training is a loop over session.run.",
        test=_MODEL_UPDATES,
    ),
    Suspect(
        "batch-statistics-mode",
        _BOTH,
        families=_KERAS,
        when=lambda f: f.keras == "1" and not f.has_configuration,
        marked=True,
        speaks_for="a layer of Keras 1 with mode=1 or mode=2 never updates its averages, by design",
        tells_apart="The layer uses no averages at inference either.",
        test="print([layer.mode for layer in model.layers if hasattr(layer, 'mode')])",
    ),
    Suspect(
        "call-without-training",
        _BOTH,
        families=_KERAS,
        when=lambda f: (
            f.keras == "3"
            and f.model_class is not None
            and f.mode != "batch"
            and not f.affine_initial
        ),
        marked=True,
        speaks_for=lambda f: (
            f"{f.model_class} is a class of one's own, in which Keras 3 updates"
            " nothing unless its `call` takes training"
        ),
        tells_apart="`fit` of a functional model of the same layers updates them.",
        test="Does its `call` have a parameter `training`: `def call(self, x, training=None)`?",
    ),
    Suspect(
        "call-without-training",
        _BOTH,
        families=_KERAS,
        when=lambda f: (
            f.keras in ("3", "")
            and (f.model_may_be_own or f.may_be_part)
            and f.mode != "batch"
            and not f.affine_initial
            and not f.others_updated
        ),
        speaks_for="Keras 3 updates no BN within a model class whose `call` takes no training",
        tells_apart="`fit` of a functional model of the same layers updates them.",
        test="Has a class of yours, this model's or one around it, a `call` without `training`?",
    ),
    Suspect(
        "statistics-not-loaded",
        _BOTH,
        when=lambda f: f.affine_moved and (f.is_frozen or f.step == 0),
        marked=True,
        speaks_for=lambda f: (
            f"{'the layer is frozen' if f.is_frozen else 'the stored step is 0'}, and gamma or beta"
            " are not what they start at"
        ),
        tells_apart=f"Weights were loaded: {_LOADED}",
        test=_AFTER_LOADING,
    ),
    Suspect(
        "statistics-not-loaded",
        ("BN101",),
        families=_KERAS,
        when=lambda f: (
            f.affine_moved and f.no_training_stored and not f.in_session and f.mode != "inference"
        ),
        marked=True,
        speaks_for="no training is on record, and gamma or beta are not what they start at",
        tells_apart=f"Weights were converted or copied: {_LOADED}",
        test=_AFTER_LOADING,
    ),
    Suspect(
        "statistics-not-loaded",
        ("BN101",),
        when=lambda f: (
            f.affine_moved
            and f.others_updated
            and not f.is_trained_here
            and f.mode != "inference"
            and f.graph is None
            and f.cell is None
        ),
        marked=True,
        speaks_for="the statistics of other BN layers moved, as beside a copy or a loaded part",
        tells_apart="Its part of the network is a copy (target network, teacher) or was loaded.",
        test="Does the copy take all variables, or only the trainable ones?",
    ),
    Suspect(
        "statistics-not-loaded",
        ("BN101",),
        when=lambda f: (
            f.affine_moved and f.no_training_stored and f.graph is None and f.mode != "inference"
        ),
        speaks_for="no step is stored, and gamma or beta are not what they start at",
        tells_apart=f"Weights were converted or restored: {_LOADED}",
        test=_AFTER_LOADING,
    ),
    Suspect(
        "trained-in-inference-mode",
        _BOTH,
        when=lambda f: f.is_inference_elsewhere and not f.affine_initial,
        marked=True,
        speaks_for="the bias before another layer proves that training ran that one so",
        tells_apart="Both layers are of one network, which is called in one mode.",
        test="Is this layer trained by the same calls as that one?",
    ),
    Suspect(
        "trained-in-inference-mode",
        _BOTH,
        families=(*_KERAS, "graph"),
        when=lambda f: (
            (f.is_keras or f.layer.is_of_function)
            and f.mode != "batch"
            and not f.in_session
            and not f.affine_initial
        ),
        speaks_for=_inference_in_loop,
        tells_apart="The bias before the layer was trained as far as beta.",
        test=_loop,
    ),
    Suspect(
        "trained-in-inference-mode",
        _BOTH,
        families=("sonnet-2",),
        when=lambda f: not f.affine_initial,
        marked=True,
        speaks_for="a Sonnet 2 layer updates its averages only if it is told to train",
        tells_apart="The module is called with is_training=False.",
        test="Does the training step call the module with is_training=True?",
    ),
    Suspect(
        "built-with-training-false",
        ("BN107",),
        families=_KERAS,
        when=lambda f: (
            not f.layer.all_initial
            and f.mode != "batch"
            and (not f.has_configuration or f.keras not in ("2", "tfjs"))
        ),
        marked=True,
        speaks_for="they are of a training before, as in fine-tuning with training=False",
        tells_apart="The layer is called with training=False, perhaps on purpose.",
        test="Does a `call` of yours pass training=False to the layer, or to a model around it?",
    ),
    Suspect(
        "built-with-training-false",
        ("BN101",),
        families=_KERAS,
        when=lambda f: (
            f.keras in ("2", "")
            and not f.in_session
            and not f.has_configuration
            and f.mode != "batch"
            and not f.affine_initial
        ),
        speaks_for="no configuration is stored, which would show a call with training=False",
        tells_apart="The layer is called with training=False where the model is built.",
        test="Does the code that builds the model pass training=False?",
    ),
    Suspect(
        "layer-frozen",
        ("BN101",),
        families=_KERAS,
        when=lambda f: (
            f.affine_initial and not f.has_configuration and f.own_class is None
        ),  # which says more than that gamma and beta stand still
        marked=True,
        speaks_for="gamma is still 1 and beta 0, where stored, while the training went on",
        tells_apart="trainable is False, of the layer or of a model around it.",
        test="print([(layer.name, layer.trainable) for layer in model.layers])",
    ),
    Suspect(
        "not-in-training",
        ("BN101",),
        when=lambda f: f.affine_initial,
        marked=True,
        speaks_for="no step changed gamma or beta, as in a part that the loss does not depend on",
        tells_apart="The gradient of gamma is None or 0.",
        test="Does the loss depend on this layer, and does the optimizer get its gamma?",
    ),
    Suspect(
        "weights-not-loaded",
        ("BN101",),
        when=lambda f: f.affine_initial,
        marked=True,
        speaks_for="all that is stored of the layer is what a new layer has",
        tells_apart="A pretrained part is new: its kernels are random.",
        test=_AFTER_LOADING,
    ),
    Suspect(
        "statistics-reset",
        ("BN101",),
        families=_KERAS,
        when=lambda f: f.affine_moved,
        speaks_for="a callback or a script may have set them back after the training",
        tells_apart="The statistics were updated, and set back after the training.",
        test="Print moving_mean after each epoch, and again before it is saved.",
    ),
    # --- Flax -------------------------------------------------------------------------------------
    Suspect(
        "updates-not-kept",
        _BOTH,
        families=("flax",),
        when=lambda f: f.is_linen and not f.affine_initial,
        speaks_for="`apply` of linen returns the new batch_stats; the train state has to get them",
        tells_apart="The batch_stats that `apply` returns have moved.",
        test="Does the step put the batch_stats that `apply` returns into the train state?",
    ),
    Suspect(
        "trained-in-inference-mode",
        _BOTH,
        families=("flax",),
        when=lambda f: not f.affine_initial,
        speaks_for="use_running_average=True, or an NNX model after eval(), updates no averages",
        tells_apart="The training step itself moves no statistics.",
        test="Is use_running_average False (NNX: model.train() called) in the training step?",
    ),
    # --- Haiku ------------------------------------------------------------------------------------
    Suspect(
        "updates-not-kept",
        _BOTH,
        families=("haiku",),
        when=lambda _: True,
        speaks_for="`apply` of Haiku returns the new state, and changes none",
        tells_apart="The state that `apply` returns has moved.",
        test="Does each step get the state that `apply` returned in the step before it?",
    ),
    Suspect(
        "trained-in-inference-mode",
        _BOTH,
        families=("haiku",),
        when=lambda f: not f.affine_initial,
        speaks_for="hk.BatchNorm updates its averages only with is_training=True",
        tells_apart="The state that `apply` returns has not moved.",
        test="Does the training step pass is_training=True?",
    ),
    # --- Both statistics are there, and wrong -----------------------------------------------------
    Suspect(
        "statistics-overwritten",
        _HALF,
        when=lambda f: f.is_zeroed,
        marked=True,
        speaks_for="moving_variance is 0 throughout, as in what is filled with zeros",
        tells_apart="Something wrote zeros: set weights, a conversion, a restore by name.",
        test="Print moving_variance after training, and again before it is saved.",
    ),
    Suspect(
        "batches-of-one-value",
        ("BN103",),
        when=lambda f: f.has_decayed,
        speaks_for="batches with one value per channel have a variance of 0",
        tells_apart="moving_variance falls with each step of the training.",
        test="How many values per channel does a batch give the layer?",
    ),
    Suspect(
        "statistics-overwritten",
        _HALF,
        families=_KERAS,
        when=lambda f: not f.is_zeroed and f.own_class is None,
        speaks_for="the layer updates both statistics in one step",
        tells_apart="Something wrote one of them: set weights, a conversion.",
        test="Print both statistics after one step of training.",
    ),
    # --- PyTorch, exported ------------------------------------------------------------------------
    Suspect(
        "momentum-one",
        _BOTH,
        when=lambda f: f.layer.onnx is not None and f.layer.onnx.momentum == 1.0,
        marked=True,
        speaks_for="its node has momentum 1, as PyTorch exports momentum=0, and momentum=None too",
        tells_apart="With momentum=0 an update changes nothing; with None it does.",
        test="print(module.momentum) in the model that was exported.",
    ),
    Suspect(
        "trained-in-inference-mode",
        _BOTH,
        families=("pytorch",),
        when=lambda f: not (f.affine_initial or f.is_arithmetic),
        speaks_for="a module updates its averages in training mode alone, which eval() ends",
        tells_apart="The module is in evaluation mode while it is trained.",
        test="print(module.training) in the training step.",
    ),
    Suspect(
        "statistics-not-loaded",
        ("BN101",),
        families=("pytorch",),
        when=lambda f: f.affine_moved,
        speaks_for="weights that were loaded or converted without their buffers look so",
        tells_apart=f"Weights were loaded: {_LOADED}",
        test="print(module.running_var) right after the weights were loaded.",
    ),
    # --- Nothing was touched ----------------------------------------------------------------------
    Suspect(
        "statistics-not-loaded",
        ("BN105",),
        when=lambda f: f.affine_moved,
        marked=True,
        speaks_for="gamma or beta differ from channel to channel, and no training is on record",
        tells_apart=f"Weights were loaded: {_LOADED}",
        test=_AFTER_LOADING,
    ),
    Suspect(
        "untrained",
        ("BN105",),
        when=lambda f: not f.context.trained,
        speaks_for="no moving average of the file moved, and no training is on record",
        tells_apart="All kernels are random, as they are drawn.",
        test="Was it saved before the training? An untrained model predicts by chance.",
    ),
    Suspect(
        "not-in-training",
        ("BN105",),
        when=lambda f: f.context.trained,
        marked=True,
        speaks_for="other BN layers of the file show training, this one does not",
        tells_apart="The gradient of gamma is None or 0.",
        test="Does the loss depend on this layer, and does the optimizer get its gamma?",
    ),
    Suspect(
        "weights-not-loaded",
        ("BN105",),
        when=lambda f: not f.affine_moved,
        speaks_for=lambda f: (
            f"{_loading_by_name(f)} skips, without a word, each layer whose name it does not find"
        ),
        tells_apart="The weights that were to be loaded hold layers of other names.",
        test="Print gamma before and after the weights are loaded: does it change?",
    ),
    Suspect(
        "layer-frozen",
        ("BN105",),
        families=_KERAS,
        when=lambda f: (
            not f.affine_moved and (f.is_frozen or (f.context.trained and not f.has_configuration))
        ),
        marked=True,
        speaks_for="a layer that is not trainable keeps what it starts with",
        tells_apart="trainable is False, of the layer or of a model around it.",
        test="print([(layer.name, layer.trainable) for layer in model.layers])",
    ),
    # --- What else is said of the statistics ------------------------------------------------------
    Suspect(
        "statistics-are-trainable",
        ("BN108",),
        when=lambda f: f.is_keras,
        marked=True,
        speaks_for="the optimizer got them among the variables that it trains",
        tells_apart="moving_mean and moving_variance are not among model.trainable_variables.",
        test="Does the loop give the optimizer model.variables or model.weights?",
    ),
    Suspect(
        "statistics-are-trainable",
        ("BN108",),
        when=lambda f: not f.is_keras,
        marked=True,
        speaks_for="an optimizer or its weight decay gets what is among the trainable variables",
        tells_apart="moving_mean and moving_variance are among tf.trainable_variables().",
        test="print([v.name for v in tf.trainable_variables()]): are the statistics among them?",
    ),
    Suspect(
        "averages-not-run",
        ("BN110",),
        when=lambda _: True,
        marked=True,
        speaks_for="they move only with the op that `apply` returns for these very variables",
        tells_apart="No training op depends on that op.",
        test="Does each training step run what ema.apply(...) returned for the statistics?",
    ),
    # --- Members that are not there ---------------------------------------------------------------
    Suspect(
        "saver-omitted-statistics",
        ("BN201", "BN202"),
        when=lambda f: not f.is_keras and not f.family("flax", "haiku") and not f.context.frozen,
        speaks_for="a Saver of tf.trainable_variables(), or of another list, leaves others out",
        tells_apart="The graph has the variables of the statistics.",
        test=_graph_or("Which variables does the Saver that wrote it get?"),
    ),
    Suspect(
        "no-averages",
        ("BN201",),
        when=lambda f: not f.is_keras and not f.context.frozen,
        speaks_for="a layer of this name may be one that keeps no averages",
        tells_apart="The layer normalizes by the batch, the sample or the group at inference too.",
        test="print([v.name for v in tf.global_variables()]): are there any averages?",
    ),
    Suspect(
        "named-otherwise",
        ("BN202",),
        when=lambda _: True,
        speaks_for="the missing statistic may have a name of its own",
        tells_apart="The file has another vector of this length beside it.",
        test="Look through `bninspect list --verbose`, and name it with --pattern.",
    ),
    Suspect(
        "conversion-incomplete",
        ("BN204",),
        when=lambda f: f.affine_moved and f.lacks_statistics,
        marked=True,
        speaks_for="gamma or beta were written, the statistics were not",
        tells_apart="The same is missing in all BN layers.",
        test="Did a script copy the trainable weights into a file that was made for all?",
    ),
    Suspect(
        "save-interrupted",
        ("BN204",),
        when=lambda _: True,
        speaks_for="a program that ends while it saves leaves places without values",
        tells_apart="All that comes later in the file is missing, too.",
        test="Save again, close the file, and check again.",
    ),
    # --- Values that no average has ---------------------------------------------------------------
    Suspect(
        "updates-overshoot",
        ("BN301", "BN302"),
        when=lambda f: f.overshoots,
        marked=True,
        speaks_for="one step makes so many updates that together they overshoot",
        tells_apart="The averages swing further with every step.",
        test="Does the network apply this one layer several times in a step?",
    ),
    Suspect(
        "one-pass-variance",
        ("BN302", "BN301"),
        when=lambda f: f.graph is not None and f.graph.one_pass,
        marked=True,
        speaks_for="the graph takes the variance as a difference of squares",
        tells_apart="The mean is large beside the deviation.",
        test="Replace it by tf.nn.moments, or compute it in float64.",
    ),
    Suspect(
        "statistics-swapped",
        ("BN302",),
        when=lambda f: f.looks_swapped,
        marked=True,
        speaks_for="no moving_mean is negative, as if the two were swapped",
        tells_apart="The moving_variance looks like means, the moving_mean like variances.",
        test=_order_of_members,
    ),
    Suspect(
        "statistics-swapped",
        ("BN302",),
        when=lambda f: f.graph is None,
        speaks_for="weights that were set or converted in another order give such variances",
        tells_apart="The weights come from another framework or another model.",
        test=_order_of_members,
    ),
    Suspect(
        "batches-of-one-value",
        ("BN302",),
        when=lambda f: f.turns_signs,
        marked=True,
        speaks_for="Keras 2.1.5 to 2.3.1 turns the sign of a variance of one value per channel",
        tells_apart="The last batch of an epoch has one sample.",
        test="How many samples does the last batch have: len(data) % batch_size?",
    ),
    Suspect(
        "training-diverged",
        ("BN301",),
        when=lambda f: f.is_not_finite("gamma", "beta"),
        marked=True,
        speaks_for="gamma or beta are not finite",
        tells_apart="The loss was NaN before the file was written.",
        test="Print the loss of each step: at which one is it NaN first?",
    ),
    Suspect(
        "inputs-not-finite",
        ("BN301",),
        when=lambda f: not f.is_not_finite("gamma", "beta"),
        speaks_for="the statistics alone are not finite, which one batch with NaN or infinity does",
        tells_apart="The loss is finite in all other batches.",
        test=_finite_batches,
    ),
    Suspect(
        "batches-of-one-value",
        ("BN301",),
        when=lambda f: (
            f.is_not_finite("moving_variance")
            and not f.is_not_finite("gamma", "beta", "moving_mean")
        ),
        marked=True,
        speaks_for="the variance alone is not finite, as a GPU makes it for one value per channel",
        tells_apart="The mean is finite.",
        test="How many values per channel does the smallest batch give the layer?",
    ),
)
