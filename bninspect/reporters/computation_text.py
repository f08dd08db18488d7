"""`list --graph` as text: how training computes each layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

from bninspect.model.computation import Before, Computation
from bninspect.model.graph import Condition, Update
from bninspect.model.layer import BNLayer
from bninspect.model.roles import STATISTICS
from bninspect.reporters.escapes import printable, write_line, write_lines
from bninspect.reporters.text_utils import wrap

_INDENT = 19
_UNKNOWN = "not known"
_MODES = {
    "batch": "training normalizes by the statistics of the batch",
    "inference": "training normalizes by the stored statistics (inference mode)",
    "chosen": "a condition decides whether training uses the statistics of the batch",
    None: _UNKNOWN,
}
_DECIDES = {
    "placeholder": "the placeholder {}",
    "variable": "the variable {}",
    "op": "the output of {}",
    "constant": "{}, which is no constant True,",
}


def write_computations(
    layers: Sequence[BNLayer],
    computations: Mapping[str, Computation],
    stream: TextIO,
    width: int,
) -> None:
    """Write a paragraph for each layer, folded to `width` columns; nothing if no file says any."""
    for layer in layers if computations else ():
        write_line(stream, "")
        write_line(stream, f"{printable(layer.name)}:")
        computation = computations.get(layer.name)
        if computation is None:
            write_line(stream, f"  {_UNKNOWN}")
            continue
        for head, text in _facts(computation):
            write_lines(stream, wrap(f"  {head:<{_INDENT - 2}}", text, width, _INDENT))


def _facts(computation: Computation) -> Iterator[tuple[str, str]]:
    """Yield what is said of a layer, as pairs of a heading and a text."""
    if computation.source == "onnx":
        yield from _exported(computation)
        return
    yield "layer before", _before(computation.before)
    yield "mode", _mode(computation)
    if computation.proof is not None:
        yield "proved mode", computation.proof.fact
    facts = _updates if computation.source == "graph" else _configured
    yield from facts(computation)
    yield "momentum", _number(computation.momentum)
    yield "epsilon", _number(computation.epsilon)
    yield computation.source, computation.path


def _exported(computation: Computation) -> Iterator[tuple[str, str]]:
    """Yield what the node of an ONNX model says."""
    of_batch = (
        "the model normalizes by the statistics of each batch, as in training (training_mode)"
    )
    by_batch = computation.is_training == (True,)
    yield "mode", of_batch if by_batch else "the model normalizes by the stored statistics"
    yield "momentum", _number(computation.momentum)
    yield "epsilon", _number(computation.epsilon)
    yield "model", computation.path


def _before(before: Before | None) -> str:
    """Return the name and the type of the layer before, and its bias."""
    if before is None:
        return _UNKNOWN
    name = None if before.name is None else f"{before.name} ({before.type})"
    bias = None if before.bias is None else f"bias {before.bias}"
    return ", ".join(filter(None, (name, bias)))


def _mode(computation: Computation) -> str:
    """Return the mode of training, with the attribute of fused kernels that says it."""
    text = _MODES[computation.mode]
    if not computation.is_training:
        return text
    values = " and ".join(map(str, computation.is_training))
    return f"{text}: is_training={values} in its fused kernels"


def _updates(computation: Computation) -> Iterator[tuple[str, str]]:
    """Yield what training runs, the updates of each statistic, and what can switch them off."""
    ops = computation.training_ops or ()
    yield "training ops", ", ".join(ops) or "none: the graph has no optimizer"
    updates = computation.updates or ()
    for role in STATISTICS:
        of_role = [_update(update) for update in updates if update.role == role]
        none = "no update in the graph" if computation.all_updates else _NOT_FOLLOWED
        for text in of_role or [none]:
            yield role, text
    if updates and updates[0].collected is not None:
        yield "UPDATE_OPS", _collection(updates)
    if computation.others_depend:
        yield "other ops", "keep a result for which updates run; what runs them is not stored"
    for condition in computation.conditions or ():
        yield "condition", _condition(condition)


def _collection(updates: Sequence[Update]) -> str:
    """Return which of the updates UPDATE_OPS holds."""
    held = [update.node for update in updates if update.collected]
    if len(held) == len(updates):
        return "holds them"
    return f"holds only {', '.join(held)} of them" if held else "does not hold them"


_NOT_FOLLOWED = "no update was found; not every write of the graph could be followed"


def _update(update: Update) -> str:
    """Return the node of an update and what runs it."""
    loop = ", in a loop" if update.in_loop else ""
    if not update.run_by:
        fetched = "" if update.can_be_run else " and no session.run can run"
        return f"{update.node}, which no training op runs{fetched}{loop}"
    by = ", before the optimizer" if update.in_optimizer else ""
    return f"{update.node}, run by {' and '.join(update.run_by)}{by}{loop}"


def _condition(condition: Condition) -> str:
    """Return what decides whether the updates change anything, with the value that is stored."""
    what = _DECIDES[condition.kind].format(condition.name)
    name = "default" if condition.kind == "placeholder" else "stored as"
    value = "" if condition.value is None else f" ({name} {condition.value})"
    bound = "" if condition.bound is None else f", compared with {condition.bound},"
    return f"{what}{value}{bound} can switch them off"


def _configured(computation: Computation) -> Iterator[tuple[str, str]]:
    """Yield what a Keras configuration says of the calls of a layer, and whether it is trained."""
    is_called_once = computation.calls == 1
    times = "once" if is_called_once else f"{computation.calls} times"
    without = "without" if is_called_once else "not each time with"
    mode = "with" if computation.training_false else without
    yield "called", f"{times} in a pass through the model, {mode} training=False"
    yield "trainable", "yes" if computation.trainable else "no"


def _number(number: float | None) -> str:
    return _UNKNOWN if number is None else f"{number:g}"
