"""A callback that watches the BN layers of a Keras model while it trains.

    >>> from bninspect.keras import BatchNormGuard
    >>> model.fit(dataset, callbacks=[BatchNormGuard()])

Keras calls a callback by the names of its methods, whatever its class. So no Keras is imported
here, and the one that trains the model may be any: Keras 3 on each of its backends, tf_keras, or
tf.keras. What stands still is told by the rules of `bninspect check`, in its words.

Layers are found as in files, by their variables: whatever keeps moving_mean and moving_variance,
at any depth. Only those layers' variables are read, and only when the guard looks.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from bninspect.batchnorm.families import FAMILIES
from bninspect.batchnorm.measure import measure
from bninspect.config.model import make_config
from bninspect.errors import UsageProblem
from bninspect.evidence.changes import affine_moved, changes_between, facts_of_training
from bninspect.evidence.keras_config import configured
from bninspect.evidence.progress import training_evidence
from bninspect.formats.keras.model_config import keras_layers
from bninspect.model.checkpoint import KerasLayer, Variable
from bninspect.model.layer import BNLayer, Change, Since, TrainingEvidence
from bninspect.model.report import Finding
from bninspect.model.roles import AFFINE, ROLES, STATISTICS, Role
from bninspect.model.rule import RuleContext
from bninspect.reporters.check_text import entries
from bninspect.reporters.text_utils import plural, printable
from bninspect.rules import apply_rules, select_rules

Action = Literal["warn", "stop"]

# The rules that make sense while a model trains. Left out are those about files (BN2), notes
# (BN303), what only a finished training can be blamed for (BN105: a layer that this training
# leaves alone; BN106: all averages are cold after a few batches), and BN104: weights that were
# copied in.
GUARD_RULES = ("BN101", "BN102", "BN103", "BN107", "BN301", "BN302", "BN304", "BN305")
# BN107 says no more of a layer than what these have said.
_SAY_MORE = ("BN101", "BN102", "BN103")
# Averages of one and the same batch come ever closer to its statistics, and then rest. If their
# last move before they stood still was below this (in the units of `evidence.history`), they did:
# a bit of a float32 is 1e-7 of it.
_AT_REST = 1e-5
_KERAS = next(family for family in FAMILIES if family.name == "keras")
_START = "the start of the training"


class BatchNormWarning(UserWarning):
    """What `BatchNormGuard` warns with: statistics that training does not update."""


class _Look(NamedTuple):
    """The BN layers with their values, and when that was, as part of a sentence."""

    called: str
    layers: tuple[BNLayer, ...]


class BatchNormGuard:
    """A callback for `fit` that warns of BN statistics that training does not update, or stops it.

    It looks at the model's BN layers when `after_batches` batches of an epoch are done, and at the
    end of each epoch, and compares with its last look. What it finds is a `BatchNormWarning`, once
    for each layer and rule, with evidence and fix. With `action="stop"` an error stops the
    training after the next batch, too (`model.stop_training`); a mere warning does not.

    `select` and `ignore` are rule codes or their beginnings, as in `bninspect check`; `GUARD_RULES`
    are those that are judged here. `findings` are those of the last look, notes included, which are
    never warned of: a layer that is frozen, or called with training=False, on purpose. Where the
    model's configuration does not show that purpose (a `call` of your own that passes
    training=False to layers whose gamma and beta it trains), ignore BN107.

    A loop of your own calls `set_model`, `on_train_begin`, `on_epoch_begin`, `on_train_batch_begin`
    and `on_epoch_end` as `fit` does. Raises `UsageProblem` for a wrong option.
    """

    # Keras 2 need not fetch the losses of each batch for it: it does not look at them.
    _supports_tf_logs = True

    def __init__(
        self,
        *,
        after_batches: int = 50,
        action: Action = "warn",
        select: str | Iterable[str] = (),
        ignore: str | Iterable[str] = (),
    ) -> None:
        if after_batches < 1:
            raise UsageProblem(f"after_batches must be at least 1, not {after_batches}.")
        if action not in get_args(Action):
            raise UsageProblem(f"action is one of {', '.join(get_args(Action))}, not {action!r}.")
        config = make_config(select, ignore)
        rules = select_rules(config.select, config.ignore)
        self._rules = tuple(rule for rule in rules if rule.code in GUARD_RULES)
        if not self._rules:
            raise UsageProblem(f"No rule is left: a guard judges {', '.join(GUARD_RULES)}.")
        self.after_batches = after_batches
        self.action = action
        self.findings: tuple[Finding, ...] = ()
        self.set_model(None)

    def set_params(self, params: object) -> None:
        """Keras tells the number of epochs and steps; the guard does without."""

    def set_model(self, model: Any) -> None:
        """Watch `model`; what was told of another one is forgotten."""
        self._model = model
        self._told: set[tuple[str, str]] = set()
        self._configs: dict[int, tuple[object, Mapping[str, Any]]] = {}
        self._begin()

    def _begin(self) -> None:
        self._last: _Look | None = None
        self._last_moves: dict[str, float] = {}
        self._epoch = ""
        self._looked = False  # at after_batches of this epoch
        self._trained = False  # since the last look

    def on_train_begin(self, logs: object = None) -> None:  # noqa: ARG002 - Keras gives it
        """Take a first look, to have something to compare with."""
        self._begin()
        self._last = self._look(_START)

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
        """Count the batches of this epoch anew."""
        self._epoch = f" of epoch {epoch + 1}"
        self._looked = False

    # At the beginning of a batch and not at the end of the one before: Keras 3 waits for every
    # batch as soon as one callback wants to know its end.
    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        """Look if `after_batches` of the epoch are done: `batch` counts those before this one."""
        if not self._looked and batch >= self.after_batches:
            self._looked = True
            self._judge(f"batch {batch}{self._epoch}")
        self._trained = True

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
        """Look."""
        self._judge(f"the end of epoch {epoch + 1}")

    # What CallbackList of Keras 2 asks (keras/src/callbacks.py).
    def _implements_train_batch_hooks(self) -> bool:
        return True

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("on_"):  # every other hook there is, or will be
            return _nothing
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _look(self, called: str) -> _Look:
        """The BN layers as they are now, with their values."""
        if self._model is None:
            raise UsageProblem("The guard has no model: call set_model(model) before the training.")
        if hasattr(self._model, "jax_state_sync"):
            self._model.jax_state_sync()  # on JAX, fit keeps the values to itself
        layers = [
            _live(name, layer, self._config(layer))
            for name, layer in _named(_bn_layers(self._model))
        ]
        members = [
            (variable.read(), layer.initial.get(role, ()))
            for layer in layers
            for role, variable in layer.variables.items()
        ]
        with np.errstate(all="ignore"):  # what is not finite is BN301
            measured = iter(measure(members))
        return _Look(
            called,
            tuple(
                replace(layer, values={role: next(measured) for role in layer.variables})
                for layer in layers
            ),
        )

    def _config(self, layer: Any) -> Mapping[str, Any]:
        """A layer's configuration, which is asked once; with the layer, so that its id stays."""
        if id(layer) not in self._configs:
            self._configs[id(layer)] = layer, _config_of(layer)
        return self._configs[id(layer)][1]

    def _judge(self, called: str) -> None:
        """Look, apply the rules, and tell what is new."""
        last, look = self._last, self._look(called)
        went_on = (
            (f"training went on from {last.called} to {called}",) if last and self._trained else ()
        )
        self._last, self._trained = look, False
        with np.errstate(all="ignore"):
            layers = _with_evidence(look.layers, last, went_on)
            findings = apply_rules(layers, self._rules, RuleContext())
            if findings:  # only then it is worth asking how the model calls its layers
                layers = _with_calls(layers, self._model)
                findings = apply_rules(layers, self._rules, RuleContext())
        said = {(finding.layer, finding.rule.code) for finding in findings} | self._told
        self.findings = tuple(
            finding
            for finding in findings
            if finding.rule.code != "BN107"
            or not (self._rests(finding.layer) or _said_more(finding.layer, said))
        )
        self._remember_moves(layers)
        new = [f for f in self.findings if f.severity != "note" and _key(f) not in self._told]
        if new:
            self._told |= {_key(finding) for finding in new}
            self._tell(new, called, len(layers))

    def _rests(self, name: str) -> bool:
        """Whether statistics that stand still had come to rest by themselves."""
        return self._last_moves.get(name, 1.0) < _AT_REST

    def _remember_moves(self, layers: Iterable[BNLayer]) -> None:
        for layer in layers:
            moves = [
                change.largest or 0.0
                for role, change in (layer.since.changes if layer.since else {}).items()
                if role in STATISTICS and change.moved
            ]
            if moves:
                self._last_moves[layer.name] = max(moves)

    def _tell(self, findings: Sequence[Finding], called: str, total: int) -> None:
        stop = self.action == "stop" and any(f.severity == "error" for f in findings)
        if stop:
            self._model.stop_training = True
        worst = min(findings, key=lambda f: ("error", "warning").index(f.severity))
        count = sum(finding.rule is worst.rule for finding in findings)
        head = (
            f"{'training is stopped at ' if stop else ''}{called}: {count} of"
            f" {plural(total, 'BN layer')}: {worst.rule.summary} ({worst.rule.code})"
        )
        lines = entries(findings, width=80, source="the model")
        warnings.warn("\n".join([printable(head), *lines]), BatchNormWarning, stacklevel=3)


def _nothing(*_: object, **__: object) -> None:
    """A hook that the guard has no use for."""


def _key(finding: Finding) -> tuple[str, str]:
    return finding.layer, finding.rule.code


def _said_more(name: str, said: set[tuple[str, str]]) -> bool:
    return any((name, code) in said for code in _SAY_MORE)


def _bn_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """The layers that keep moving_mean and moving_variance, each once, with its path of names."""
    seen = {id(model)}
    around: list[tuple[str, Any]] = [("", model)]
    while around:
        path, layer = around.pop()
        if path and _keeps_statistics(layer):
            yield path, layer
        below = []
        # Keras has no public way to the layers inside a layer; 2 and 3 share this one.
        for child in layer._flatten_layers(recursive=False, include_self=False):  # noqa: SLF001
            if id(child) not in seen:
                seen.add(id(child))
                below.append((f"{path}/{child.name}" if path else child.name, child))
        around += reversed(below)


def _named(found: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The layers by names of their own: those of one path are numbered."""
    layers = list(found)
    total = Counter(name for name, _ in layers)
    count: Counter[str] = Counter()
    named = []
    for name, layer in layers:
        count[name] += 1
        number = f"#{count[name]}of{total[name]}" if total[name] > 1 else ""
        named.append((name + number, layer))
    return named


def _keeps_statistics(layer: Any) -> bool:
    """Whether a layer has both statistics among its variables: not before it is built."""
    members = [getattr(layer, role, None) for role in STATISTICS]
    if any(member is None for member in members):
        return False
    own = {id(variable) for variable in layer.weights}
    return all(id(member) in own for member in members)


def _live(name: str, layer: Any, config: Mapping[str, Any]) -> BNLayer:
    """A layer of the model as the rules know layers, without its values."""
    arrays = dict(zip(map(id, layer.weights), layer.get_weights(), strict=True))
    variables: dict[Role, Variable] = {}
    for role in ROLES:
        array = arrays.get(id(getattr(layer, role, None)))
        if array is not None:
            variables[role] = _variable(f"{name}/{role}", np.asarray(array))
    keras = KerasLayer(
        class_name=type(layer).__name__,
        trainable=bool(layer.trainable),
        inference_only=False,
        config=config,
    )
    found = BNLayer(
        name=name,
        family=_KERAS.name,
        variables=variables,
        initial=_KERAS.initial,
        usual_epsilon=_KERAS.epsilon,
    )
    return configured(found, keras)


def _variable(name: str, array: NDArray[Any]) -> Variable:
    """A member as it is now: the memory that an array of a framework shows may be used again."""
    numpy_has_none = array.dtype.kind == "V"  # bfloat16
    values = array.astype(np.float32) if numpy_has_none else array.copy()
    return Variable(name, array.shape, array.dtype.name, lambda: values)


def _config_of(layer: Any) -> Mapping[str, Any]:
    """What a layer says of itself, for momentum, epsilon and initial values."""
    try:
        config = layer.get_config()
    except Exception:  # a person's own method may raise anything, and need not work
        config = None
    if isinstance(config, dict):
        return config
    return {name: getattr(layer, name, None) for name in ("momentum", "epsilon")}


def _with_evidence(
    layers: Sequence[BNLayer], last: _Look | None, went_on: tuple[str, ...]
) -> list[BNLayer]:
    """The layers with what shows that they were trained, and what became of them since `last`."""
    earlier = {layer.name: layer for layer in last.layers} if last else {}
    changes = {
        layer.name: changes_between(earlier[layer.name], layer)
        for layer in layers
        if layer.name in earlier
    }
    changed = sum(map(affine_moved, changes.values()))
    facts = (*went_on, *facts_of_training((None, None), changed, len(layers)))
    return [
        replace(
            layer,
            training=_training(layer, changes.get(layer.name, {}), went_on),
            since=Since(last.called, changes[layer.name], facts)
            if last and layer.name in changes
            else None,
        )
        for layer in layers
    ]


def _training(
    layer: BNLayer, changes: Mapping[Role, Change], went_on: tuple[str, ...]
) -> TrainingEvidence:
    """What shows that a layer is trained: its gamma and beta, else that batches went by.

    A layer whose gamma and beta stand still takes no part in the training; that is no finding.
    """
    if not any(role in layer.variables for role in AFFINE):
        return TrainingEvidence(went_on if layer.trainable else (), testable=True)
    facts = training_evidence(layer, {}, None).facts or tuple(
        f"{role} moved" for role in AFFINE if role in changes and changes[role].moved
    )
    return TrainingEvidence(facts, testable=True)


def _with_calls(layers: Sequence[BNLayer], model: Any) -> list[BNLayer]:
    """The layers with what the model's configuration says of their calls, if it says anything."""
    try:
        stored = keras_layers(json.loads(model.to_json()), _keras_version(model))
    except Exception:  # Keras refuses some models, and a person's own may raise anything
        return [*layers]
    by_name = {"/".join(path): layer for path, layer in stored.items()}
    return [
        replace(
            layer,
            keras=layer.keras._replace(
                inference_only=by_name[layer.name].inference_only, calls=by_name[layer.name].calls
            ),
        )
        if layer.keras and layer.name in by_name
        else layer
        for layer in layers
    ]


def _keras_version(model: Any) -> str:
    """The version of the Keras that a model is made of."""
    roots = (one.__module__.partition(".")[0] for one in type(model).__mro__)
    root = next((root for root in roots if root in ("keras", "tf_keras")), "")
    return str(getattr(sys.modules.get(root), "__version__", ""))
