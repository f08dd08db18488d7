"""BN101 to BN103: statistics that training did not move.

A statistic is initial if it equals the initial value (-0.0 equals 0). Healthy layers come within
1e-4 of 0 and within 1e-5 of 1, so a tolerance would condemn them.
"""

from __future__ import annotations

from collections.abc import Iterator

from bninspect.model.layer import BNLayer
from bninspect.model.roles import AFFINE, STATISTICS, Role
from bninspect.model.rule import Rule, RuleContext, Violation
from bninspect.rules.averages import expected_updates, is_forgotten, known_momentum, momentum_of
from bninspect.rules.causes import (
    FILLED_LATER,
    INFERENCE,
    NEVER_USED,
    NOT_LOADED,
    Proof,
    by_design,
    in_inference_mode,
    why_not_updated,
)
from bninspect.rules.channels import (
    channels_in_words,
    contradictions,
    dead_channels,
    not_enough_updates,
    saw_only_zeros,
)
from bninspect.rules.fixes import lower_the_momentum, run_the_updates
from bninspect.rules.live_causes import (
    call_without_training,
    facts_of_live_model,
    frozen_in_training,
)
from bninspect.rules.optimized import optimizer_writes
from bninspect.rules.situation_fixes import (
    copy_or_update,
    load_again,
    load_with_the_weights,
    unfreeze_or_load,
)

# Half a step of the type below 1.0: an update must exceed it to move a variance of 1.
_HALF_STEP_BELOW_ONE = {"bfloat16": 2.0**-9, "float16": 2.0**-12}
MOMENTUM_ONE = "momentum-one"
# The steps after which a layer that some of them leave out has more than one update.
_MANY_STEPS = 20


def statistics_never_updated(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if both statistics are initial in every channel of a trained layer (BN101).

    Or if the layer counts its updates, and training made none of them (see `_updated_once`).
    BN105 judges layers without evidence of training, BN303 those whose input is 0.
    """
    statistics = layer.statistics
    if statistics is None or saw_only_zeros(layer):
        return
    if not layer.all_initial:
        yield from _updated_once(layer, context)
        return
    if layer.training.testable and not layer.training.facts and not is_loaded(layer):
        return
    mean, variance = statistics
    proof = _proof(layer, context)
    still = _as_stored(layer, *STATISTICS)
    yield Violation(
        f"moving_mean is {'' if still else 'still '}{mean.initial:g} and moving_variance"
        f" {'' if still else 'still '}{variance.initial:g} in {channels_in_words(layer)}{still}",
        evidence=(
            *proof.facts,
            *_own_count(layer),
            *_facts_of_training(layer),
            *(facts_of_live_model(layer, context) if proof.cause is None else ()),
            *_facts_of_model(layer, context),
        ),
        cause=proof.cause,
        severity="note" if by_design(layer) else None,
        fix=proof.fix or _fix_by_situation(layer, context, proof),
    )


def _updated_once(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if the layer counts one update and `_MANY_STEPS` or more are stored.

    That one is of the call that built the model: hk.layer_stack keeps the state that its module has
    after `init` (haiku/_src/layer_stack.py), a module of Sonnet 2 is built by its first call.
    """
    counts = (context.step, *(count.steps for count in context.optimizer_steps))
    steps = max((count for count in counts if count is not None), default=0)
    if layer.training.updates != 1 or steps < _MANY_STEPS or layer.family == FILLED_LATER:
        return
    proof = why_not_updated(layer, context, STATISTICS)
    yield Violation(
        f"moving_mean and moving_variance were updated once, in {steps} steps of training",
        evidence=("its own count says 1 update", *proof.facts, *layer.training.facts),
        cause=proof.cause,
        fix=proof.fix,
    )


def is_loaded(layer: BNLayer) -> bool:
    """Return whether the values of beta, and of gamma if there is one, were loaded, not trained.

    That is so if their optimizer slots never moved. A gamma without beta may have started random.
    """
    stored = [role for role in AFFINE if role in layer.values]
    return "beta" in stored and all(
        role in layer.training.unmoved and layer.values[role].has_moved for role in stored
    )


def _facts_of_training(layer: BNLayer) -> tuple[str, ...]:
    """Return the facts that show that the layer was trained, and those that show the contrary."""
    facts = list(layer.training.facts)
    if _is_affine_initial(layer):
        facts.append(f"{_values_in_words(layer)} in every channel: no optimizer step changed them")
    if not facts and not is_loaded(layer):
        return ("nothing stored could show training: whether the layer was trained is not known",)
    return tuple(facts)


def _facts_of_model(layer: BNLayer, context: RuleContext) -> Iterator[str]:
    """Yield facts about the stored model that may explain why nothing was updated.

    A user's own class may have its own `call` and `train_step`. A model that was not compiled was
    not trained by `fit`, or was loaded with compile=False and saved again.
    """
    if layer.onnx is not None and layer.onnx.in_training:
        yield "its node normalizes by the statistics of each batch (training mode)"
    model = layer.keras_model
    if model is None or context.live:
        return
    if model.has_own_class:
        yield f"the class of the model, {model.class_name}, is not one of Keras"
    if not model.is_compiled:
        yield "the model was not compiled when it was saved"


def _is_affine_initial(layer: BNLayer) -> bool:
    """Return whether the stored ones of gamma and beta are initial in every channel."""
    stored = [layer.values[role] for role in AFFINE if role in layer.values]
    return bool(stored) and all(values.all_initial for values in stored)


def _values_in_words(layer: BNLayer) -> str:
    return " and ".join(
        f"{role} is exactly {layer.values[role].initial:g}"
        for role in AFFINE
        if role in layer.values
    )


def _own_count(layer: BNLayer) -> tuple[str, ...]:
    """Return the layer's own count of updates as a fact, even if it contradicts the values."""
    updates = layer.training.updates
    if not updates:
        return () if updates is None else ("its own count of updates is 0",)
    if layer.family == FILLED_LATER:
        return ()
    return (f"its own count says {updates} updates: they did not reach what stands still",)


def _proof(layer: BNLayer, context: RuleContext) -> Proof:
    """Return the cause that configuration, slots or graph prove, in this order."""
    return (
        by_design(layer)
        or in_inference_mode(layer, context)
        or with_momentum_one(layer, context)
        or _without_statistics(layer)
        or frozen_in_training(layer, context)
        or call_without_training(layer, context)
        or why_not_updated(layer, context, STATISTICS)
    )


def with_momentum_one(layer: BNLayer, context: RuleContext) -> Proof | None:
    """Return the proof that an update changes nothing, if the momentum is 1; else None."""
    if layer.momentum == 1.0:
        whose = "the layer" if context.live else "the stored configuration"
        return Proof(MOMENTUM_ONE, (f"{whose} has momentum 1",))
    if layer.momentum is None and known_momentum(layer, context) == 1.0:
        return Proof(MOMENTUM_ONE, ("the graph has momentum 1",))
    return None


def _without_statistics(layer: BNLayer) -> Proof | None:
    """Return the proof that gamma and beta were loaded without the statistics; else None."""
    if not is_loaded(layer):
        return None
    roles = [role for role in AFFINE if role in layer.values]
    ranges = " and ".join(
        f"{role} is {layer.values[role].minimum:.3g} to {layer.values[role].maximum:.3g}"
        for role in roles
    )
    slots = f"the optimizer slots of {' and '.join(roles)} never moved"
    return Proof(
        NOT_LOADED, (f"{ranges}, and {slots}: the values were loaded",), load_with_the_weights()
    )


def _fix_by_situation(layer: BNLayer, context: RuleContext, proof: Proof) -> str | None:
    """Return the fix for a layer without a proved cause; None to use that of its family."""
    if proof.cause is not None or by_design(layer):
        return None
    if _is_affine_initial(layer):
        return unfreeze_or_load(layer)
    if not any(layer.values[role].has_moved for role in AFFINE if role in layer.values):
        return None
    why = _why_from_elsewhere(layer, context)
    return None if why is None else copy_or_update(layer, why)


def _why_from_elsewhere(layer: BNLayer, context: RuleContext) -> str | None:
    """Return the reason why gamma and beta may come from another training, to begin a sentence."""
    if layer.keras is not None and layer.keras.frozen:
        return "The layer is frozen"
    if context.step == 0:
        return "The stored step is 0"
    if context.step is None and not context.optimizer_steps and context.may_store_step:
        return "No training step is stored"
    if context.updated and not layer.training.is_trained_here:
        return f"Other BN layers of this {'model' if context.live else 'checkpoint'} were updated"
    return None


def mean_never_updated(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if the mean is initial in every channel and the variance moved (BN102).

    None if the variance is that of dead channels, unless something contradicts that, and none if an
    optimizer wrote it (BN108).
    """
    statistics = layer.statistics
    if statistics is None or not statistics[0].all_initial or statistics[1].all_initial:
        return
    mean, variance = statistics
    moved = variance.channels - (variance.at_initial or 0)
    looks_dead = _looks_dead(layer, context)
    contradicted = contradictions(layer, context) if looks_dead else ()
    if looks_dead and (not contradicted or optimizer_writes(layer, context)):
        return
    if not mean.is_exact:
        yield _not_told(layer, "moving_mean")
        return
    if variance.minimum == variance.maximum == 0.0 and contradicted:
        yield _written_zeros(layer, context, contradicted)
        return
    proof = _half_proof(layer, context, "moving_mean")
    yield Violation(
        f"moving_mean is still {mean.initial:g} in {channels_in_words(layer)}, while"
        f" moving_variance moved ({variance.minimum:g} to {variance.maximum:g})",
        evidence=(
            f"moving_variance moved in {moved} of {variance.channels} channels"
            if variance.is_exact
            else "moving_variance moved",
            *contradicted,
            *proof.facts,
        ),
        cause=proof.cause,
        fix=proof.fix,
    )


def _as_stored(layer: BNLayer, *roles: Role) -> str:
    """Return the end of a sentence about statistics that a quantization may have rounded."""
    if all(layer.values[role].is_exact for role in roles):
        return ""
    from bninspect.rules.quantized import as_stored

    return as_stored(layer, *roles)


def _not_told(layer: BNLayer, role: Role) -> Violation:
    """Return the note on one rounded statistic that is at its initial value, and may have moved."""
    initial = layer.values[role].initial
    return Violation(
        f"{role} is {initial:g} in {channels_in_words(layer)}{_as_stored(layer, role)}: whether"
        " training moved it is lost",
        severity="note",
        fix="Check the file that the model was converted from, which stores it in full.",
    )


def _looks_dead(layer: BNLayer, context: RuleContext) -> bool:
    """Return whether all variances that moved may be those of dead channels."""
    if layer.statistics is None:
        return False
    mean, variance = layer.statistics
    moved = variance.channels - (variance.at_initial or 0)
    momentum = momentum_of(layer, context)
    if variance.initial != 0.0 and moved == dead_channels(mean, variance, momentum, context.step):
        return True
    # A single variance below 1 may be that of a dead channel.
    undecided = momentum is None or context.step is None
    return variance.channels == 1 and undecided and 0.0 <= variance.maximum < 1.0


def _written_zeros(
    layer: BNLayer, context: RuleContext, contradicted: tuple[str, ...]
) -> Violation:
    """Return the violation for statistics that are 0, and not because the input is 0.

    Without a known momentum, this is only very likely.
    """
    is_sure = known_momentum(layer, context) is not None
    return Violation(
        f"moving_mean and moving_variance are exactly 0 in {channels_in_words(layer)}, and"
        f" {'not' if is_sure else 'very likely not'} because the input is always 0",
        evidence=contradicted,
        fix=load_again(),
    )


def _half_proof(layer: BNLayer, context: RuleContext, role: Role) -> Proof:
    """Return the proof for one statistic that stands still while the other moved."""
    proof = why_not_updated(layer, context, (role,))
    count = _own_count(layer)
    step = () if context.step is None else (f"the stored step is {context.step}",)
    return proof._replace(facts=(*proof.facts, *count, *(step if count else ())))


def variance_never_updated(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if the variance is initial in every channel and the mean moved (BN103)."""
    statistics = layer.statistics
    if statistics is None or statistics[0].all_initial:
        return
    mean, variance = statistics
    if not variance.all_initial:
        yield from _variance_of_zeros(layer, context)
        return
    if not variance.is_exact:
        yield _not_told(layer, "moving_variance")
        return
    evidence = [f"moving_mean moved ({mean.minimum:g} to {mean.maximum:g})"]
    proof = _half_proof(layer, context, "moving_variance")
    if proof.cause is None and not _no_update_in_graph(layer, context):
        proof = _proof_by_type(layer, context) or proof
    yield Violation(
        f"moving_variance is still {variance.initial:g} in {channels_in_words(layer)},"
        " while moving_mean moved",
        evidence=(*evidence, *proof.facts),
        cause=proof.cause,
        fix=proof.fix,
    )


def _variance_of_zeros(layer: BNLayer, context: RuleContext) -> Iterator[Violation]:
    """Yield a violation if the variance is exactly 0 in every channel, and the mean moved.

    None if the updates by a variance of 0 leave nothing of the initial one (BN109).
    """
    if layer.statistics is None:
        return
    mean, variance = layer.statistics
    if not variance.minimum == variance.maximum == 0.0 or not variance.initial:
        return
    if not variance.is_exact:
        return
    updates, momentum = expected_updates(layer, context), known_momentum(layer, context)
    if is_forgotten(variance.initial, momentum, updates):
        return
    yield Violation(
        f"moving_variance is exactly 0 in {channels_in_words(layer)}, while moving_mean moved"
        f" ({mean.minimum:g} to {mean.maximum:g})",
        evidence=tuple(not_enough_updates(variance.initial, momentum, updates)),
        fix=load_again(),
    )


def _no_update_in_graph(layer: BNLayer, context: RuleContext) -> bool:
    """Return whether the graph trains and has no update of the variance.

    Then the type of the variance is not the reason.
    """
    graph = context.graph(layer)
    if graph is None or not graph.training_ops:
        return False
    return not any(update.role == "moving_variance" for update in graph.updates)


def _proof_by_type(layer: BNLayer, context: RuleContext) -> Proof | None:
    """Return the proof that a half-precision variance cannot leave 1.0, if the momentum shows it.

    An update moves it by at most (1 - momentum) for any true variance in [0, 2]; less than half
    a step of the type is rounded away.
    """
    dtype = layer.variables["moving_variance"].dtype
    half_step = None if layer.onnx is not None else _HALF_STEP_BELOW_ONE.get(dtype)
    initial = layer.values["moving_variance"].initial
    if half_step is None or initial != 1.0:
        return None
    momentum = known_momentum(layer, context)
    if momentum is None or 1.0 - momentum >= half_step:
        return None
    fact = (
        f"one update by a variance of 0 to 2 changes it by at most {1.0 - momentum:g}, half a step"
        f" of {dtype} below 1 is {half_step:g}"
    )
    return Proof("half-precision", (fact,))


def _fix_updates(layer: BNLayer, violation: Violation) -> str:
    if violation.cause == NEVER_USED:
        return (
            "By design this layer never uses its averages: mode=1 normalises each sample by"
            " itself, mode=2 each batch, at inference too. With mode=2 predict in batches as large"
            " as in training; or train the layer with mode=0."
        )
    if violation.cause == INFERENCE:
        return (
            "Build the model without training=False in the layer's call, so that fit can train it,"
            " and train again. If it was meant to stay frozen, load pretrained statistics into it."
        )
    return lower_the_momentum() if violation.cause == MOMENTUM_ONE else run_the_updates(layer)


def _fix_variance(layer: BNLayer, _: Violation) -> str:
    is_half = layer.variables["moving_variance"].dtype in _HALF_STEP_BELOW_ONE
    if is_half and layer.onnx is None:
        return (
            "Keep the statistics in float32 (a mixed-precision policy does), then train again: in"
            " half precision small updates are rounded away."
        )
    return run_the_updates(layer)


RULES: tuple[Rule, ...] = (
    Rule(
        code="BN101",
        name="statistics-never-updated",
        severity="error",
        summary="moving_mean and moving_variance are still at their initial values",
        check=statistics_never_updated,
        fix=_fix_updates,
        members=STATISTICS,
        live=True,
        passes_plain=True,
    ),
    Rule(
        code="BN102",
        name="mean-never-updated",
        severity="error",
        summary="moving_mean equals its initial value everywhere, moving_variance does not",
        check=mean_never_updated,
        fix=_fix_updates,
        members=("moving_mean",),
        live=True,
        passes_plain=True,
    ),
    Rule(
        code="BN103",
        name="variance-never-updated",
        severity="error",
        summary="moving_mean moved, but moving_variance is its initial value or 0 everywhere",
        check=variance_never_updated,
        fix=_fix_variance,
        members=("moving_variance",),
        live=True,
        passes_plain=True,
    ),
)
