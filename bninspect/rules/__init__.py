"""The catalogue of all rules, in the order of their codes; selecting and applying them.

`CAUSES` are the causes that a finding may name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from bninspect.errors import UsageProblem
from bninspect.model.layer import BNLayer
from bninspect.model.report import Finding
from bninspect.model.rule import Cause, Rule, RuleContext
from bninspect.rules import (
    cold,
    frozen,
    incomplete,
    numeric,
    one_value,
    optimized,
    shadows,
    stuck,
    untouched,
)
from bninspect.rules.cause_catalogue import CAUSES as CAUSES
from bninspect.rules.channels import is_all_dead
from bninspect.wording import did_you_mean, nearest

RULES: tuple[Rule, ...] = (
    *stuck.RULES,
    *untouched.RULES,
    *cold.RULES,
    *frozen.RULES,
    *optimized.RULES,
    *one_value.RULES,
    *shadows.RULES,
    *incomplete.RULES,
    *numeric.RULES,
)


def select_rules(select: Iterable[str], ignore: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules that `select` names (all, if it names none), less those that `ignore` names.

    A code may be cut short: BN1 stands for all that begin so. Raises `UsageProblem` for a code that
    no rule begins with.
    """
    selected = _with_prefixes(select) or RULES
    ignored = _with_prefixes(ignore)
    return tuple(rule for rule in RULES if rule in selected and rule not in ignored)


def require_rules(
    rules: Iterable[Rule], reason: str = "all that are selected are ignored or off"
) -> tuple[Rule, ...]:
    """Return the rules to apply; raise `UsageProblem` with the reason if there is none."""
    some = tuple(rules)
    if not some:
        raise UsageProblem(f"No rule is left: {reason}.")
    return some


def _with_prefixes(codes: Iterable[str]) -> tuple[Rule, ...]:
    chosen: list[Rule] = []
    for code in codes:
        matching = [rule for rule in RULES if code and rule.code.startswith(code.upper())]
        if not matching:
            near = _suggestion(code, _codes_by_name())
            raise UsageProblem(f"There is no rule {code!r}.{near} `bninspect rule` lists all.")
        chosen += matching
    return tuple(chosen)


def entry_called(name: str) -> Rule | Cause:
    """Return the rule of a code or name, or the cause of a name; else raise `UsageProblem`."""
    for rule in RULES:
        if name.upper() == rule.code or name.lower() == rule.name:
            return rule
    for cause in CAUSES:
        if name.lower() == cause.name:
            return cause
    known = _codes_by_name() | {cause.name: cause.name for cause in CAUSES}
    from bninspect.rules.suspects import rules_of_suspect

    if rules := rules_of_suspect(name.lower()):
        raise UsageProblem(
            f"{name!r} has no page, since no file proves it. It may be the reason for"
            f" {', '.join(rules)}: `bninspect rule {rules[0]}` has the fixes."
        )
    near = _suggestion(name, known)
    raise UsageProblem(f"There is no rule or cause {name!r}.{near} `bninspect rule` lists all.")


def _codes_by_name() -> dict[str, str]:
    """Return the code of each rule by its code and by its name."""
    return {rule.code: rule.code for rule in RULES} | {rule.name: rule.code for rule in RULES}


def _suggestion(typed: str, codes: Mapping[str, str]) -> str:
    near = nearest(typed, codes)
    return did_you_mean(near and codes[near])


def apply_rules(
    layers: Iterable[BNLayer], rules: Iterable[Rule], context: RuleContext
) -> tuple[Finding, ...]:
    """Return the findings of `rules` on `layers` of one checkpoint, layer by layer.

    `context` is completed by facts about all layers together.
    """
    layers = tuple(layers)
    context = _completed(layers, context)
    rules = tuple(rules)
    found = [
        (rule, layer, violation)
        for layer in layers
        for rule in rules
        for violation in rule.check(layer, context)
    ]
    if not found:
        return ()
    from bninspect.rules.findings import finding_of

    return tuple(finding_of(*item, context) for item in found)


def not_judged(
    layers: Iterable[BNLayer], rules: Iterable[Rule], context: RuleContext
) -> tuple[str, ...]:
    """Return sentences on what `rules` could not judge without a fact that the user may give."""
    layers, rules = tuple(layers), tuple(rules)
    of_quantization: tuple[str, ...] = ()
    if any(not values.is_exact for layer in layers for values in layer.values.values()):
        from bninspect.rules import quantized

        of_quantization = tuple(quantized.not_judged(layers, rules))
    if not any(rule in cold.RULES for rule in rules):
        return of_quantization
    sentence = cold.not_judged(layers, context)
    return (sentence, *of_quantization) if sentence else of_quantization


def _completed(layers: tuple[BNLayer, ...], context: RuleContext) -> RuleContext:
    """Return the context with the facts about all layers together."""
    return context._replace(
        trained=any(_shows_training(layer) for layer in layers),
        updated=any(_is_updated(layer) for layer in layers),
        dead=any(is_all_dead(layer, context) for layer in layers),
        all_dead=all(is_all_dead(layer, context) for layer in layers),
        restarted=any(cold.older_than_step(layer, context) for layer in layers),
        least_share=cold.least_share(layers),
        inference_elsewhere=cache(lambda: _ran_in_inference_mode(layers, context)),
    )


def _ran_in_inference_mode(layers: Iterable[BNLayer], context: RuleContext) -> bool:
    """Return whether inference mode is proved for any layer whose statistics are initial."""
    proofs = (context.mode(layer) for layer in layers if layer.all_initial)
    return any(proof is not None and proof.mode == "inference" for proof in proofs)


def _shows_training(layer: BNLayer) -> bool:
    """Return whether anything of a layer moved.

    Evidence of training is gathered only for layers whose statistics did not move.
    """
    return bool(layer.training.facts) or _is_updated(layer)


def _is_updated(layer: BNLayer) -> bool:
    """Return whether a statistic of the layer moved, unless an optimizer moves them.

    A single update is that of the call that built the model, or no more than it (BN101).
    """
    if layer.statistics is None or layer.training.optimized:
        return False
    return not layer.all_initial and layer.training.updates != 1
