"""Fixes for what a stored graph shows: a condition, another network, no write at all.

Each is a text of a finding. The fixes by family of the layer are in `fixes.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bninspect.model.roles import Role
from bninspect.rules.fixes import AGAIN, TRAINED_AS_STORED

if TYPE_CHECKING:
    from bninspect.model.graph import Condition, Scalar

_CHECKED = 3


def written(value: Scalar | None) -> str | None:
    """Return a stored scalar as text: `False`, `0`, `2000`; None for none."""
    return None if value is None else str(value) if isinstance(value, bool) else f"{value:g}"


def switched_off(conditions: Sequence[Condition], switch_on: str | None) -> str:
    """Return what to do where a training step runs the updates, and they changed nothing.

    `switch_on` is how the framework of the layer sets the mode, where it has a way of its own.
    """
    if not conditions:
        return (
            "By the graph a training step runs the update ops, and no condition that switches them"
            " off was found. Check that this graph is the one that was trained, which train op the"
            " loop ran, and whether the statistics were restored or overwritten later. Then train"
            f" {AGAIN}"
        )
    return (
        "By the graph a training step runs the update ops, but a condition can switch them off:"
        f" {checks_of(conditions)}. It has to let the updates run while training."
        f"{_on_purpose(conditions)} {switch_on or f'Then train {AGAIN}'}"
    )


def not_run_or_switched_off(conditions: Sequence[Condition], run_the_updates: str) -> str:
    """Return what to do where no training op runs the updates, and a condition can stop them too.

    `run_the_updates` is what to do where they were not run.
    """
    return (
        "Two explanations fit: the update ops were fetched by hand and a condition switched them"
        f" off, or they were not run. First {checks_of(conditions)}. If that switches the updates"
        f" off while training, change it.{_on_purpose(conditions)} If not, the updates were not"
        f" run: {_uncapitalised(run_the_updates)}"
    )


def run_by_hand_until(moved: str, run_the_updates: str) -> str:
    """Return what to do where updates that no training op runs did run earlier."""
    return (
        f"No training op depends on the update ops, but something ran them {moved}. Find what was"
        " different afterwards: a loop that fetched the update ops, a mode that it fed. If they"
        f" were left out since, {_uncapitalised(run_the_updates)}"
    )


def train_the_training_network() -> str:
    """Return what to do where training computes a network in inference mode beside another."""
    return (
        "What is trained is a network that was built with training=False (slim:"
        " is_training=False). Take the loss from the network that was built with training=True, run"
        f" its update ops with every training step, and train again. {TRAINED_AS_STORED}"
    )


def copy_statistics(assigned: Sequence[Role]) -> str:
    """Return what to do where the graph copies gamma and beta, and not the statistics."""
    return (
        f"Copy moving_mean and moving_variance wherever {' and '.join(assigned)} are copied: take"
        " the variables from `tf.global_variables(scope)`, since `tf.trainable_variables(scope)`"
        " leaves the statistics out."
    )


def load_statistics() -> str:
    """Return what to do where gamma and beta moved, and nothing in the graph trains them."""
    return (
        "Nothing in the graph changes gamma, beta or the statistics, so gamma and beta were loaded"
        " or copied: load or copy moving_mean and moving_variance from the same source"
        " (`tf.global_variables()` instead of `tf.trainable_variables()` for the Saver that"
        " restores). If they are at their initial values there too, that training has to be mended,"
        " or the averages re-estimated (`bninspect rule BN101` says when)."
    )


def load_or_build() -> str:
    """Return what to do where no node of the graph updates the statistics."""
    return (
        "No op of the graph updates the statistics, so running more ops cannot help. If the layer"
        " is a copy of another one, load or copy its statistics as well. If it is to be trained"
        " here, build it with training=True, or add the updates of its averages and run them with"
        f" every training step; then train {AGAIN}"
    )


def checks_of(conditions: Sequence[Condition]) -> str:
    """Say how to look at each condition, the cheapest test first."""
    kinds = ("constant", "placeholder", "variable", "op")
    ordered = sorted(conditions, key=lambda condition: kinds.index(condition.kind))
    return ", ".join(_check(condition) for condition in ordered[:_CHECKED])


def _check(condition: Condition) -> str:
    name, value = f"`{condition.name}`", written(condition.value)
    if condition.kind == "constant":
        return f"look at the condition {name}, which is a constant of the graph"
    if condition.kind == "placeholder":
        default = "" if value is None else f" (its default is {value})"
        return f"look at what the training loop feeds {name}{default}"
    if condition.kind == "variable":
        stored = "" if value is None else f" (it is stored as {value})"
        bound = (
            "" if condition.bound is None else f" and compare it with {written(condition.bound)}"
        )
        return f"print the variable {name}{stored} while training{bound}"
    return f"print the output of {name} while training"


def _on_purpose(conditions: Sequence[Condition]) -> str:
    """Say that it may be meant, where a count of steps decides."""
    counts = any(
        condition.kind == "variable" and condition.bound is not None for condition in conditions
    )
    return " Nothing to fix if the updates are meant to stop at that count." if counts else ""


def _uncapitalised(sentence: str) -> str:
    return f"{sentence[:1].lower()}{sentence[1:]}"
