"""Rules on statistics that were quantized after the training: converters round to small types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bninspect.model.layer import BNLayer, Values
from bninspect.model.roles import STATISTICS, Role
from bninspect.model.rule import Rule
from bninspect.wording import listed, plural

# The numbers that a type rounds to 0 and to 1: half a step of the type around them.
_HALVES = {
    "float16": "what is within 3e-08 of 0 is stored as 0, and 0.9998 to 1.0005 as 1",
    "bfloat16": "0.998 to 1.004 is stored as 1",
}
_STEPS = {"uint8": 255, "uint16": 65535}
_OF_CHANNELS = ("BN104", "BN303")
# The rules that one value breaks.
_OF_ANY_VALUE = ("BN301", "BN302")


def facts_of_quantization(layer: BNLayer, rule: Rule) -> Iterator[str]:
    """Yield a sentence on the statistics that a finding is about and that were quantized alike."""
    effects: dict[str, list[Role]] = {}
    for role in STATISTICS:
        variable, values = layer.variables.get(role), layer.values.get(role)
        if role not in rule.members or variable is None or not variable.quantized or values is None:
            continue
        if rule.code not in _OF_ANY_VALUE or _may_have_made_it(rule, variable.quantized, values):
            effects.setdefault(_effect(layer, role), []).append(role)
    for effect, roles in effects.items():
        are = "is" if len(roles) == 1 else "are"
        yield f"{' and '.join(roles)} {are} {effect}"


def _may_have_made_it(rule: Rule, dtype: str, values: Values) -> bool:
    """Return whether a quantization may have made a value infinite, NaN or negative."""
    if rule.code == "BN301":
        return bool(values.not_finite)
    return dtype not in _HALVES


def _effect(layer: BNLayer, role: Role) -> str:
    """Return what a quantization did to a statistic, to end a sentence."""
    values, dtype = layer.values[role], layer.variables[role].quantized or ""
    if dtype in _HALVES:
        infinite = dtype == "float16" and values.not_finite
        rounds = "what is above 65504 is stored as infinite" if infinite else _HALVES[dtype]
        return f"stored as {dtype}: {rounds}"
    converted = f"quantized to {dtype} by the converter"
    if values.not_finite:
        return f"{converted}: one infinite value or NaN makes NaN of all of them"
    if values.is_exact:
        return f"{converted}, which keeps a vector of one number as it was"
    return (
        f"{converted}: {_STEPS.get(dtype, '')} steps from {values.minimum:g} to"
        f" {values.maximum:g}, so each value is rounded"
    )


def is_rounded(layer: BNLayer, role: Role) -> bool:
    """Return whether a statistic was rounded: then its initial value is no proof by itself."""
    return role in layer.values and not layer.values[role].is_exact


def as_stored(layer: BNLayer, *roles: Role) -> str:
    """Return the end of a sentence about statistics that are initial as far as is stored."""
    rounded = [role for role in roles if is_rounded(layer, role)]
    if not rounded:
        return ""
    which = "" if len(rounded) == len(roles) else f"{' and '.join(rounded)} "
    it = "it" if len(rounded) == 1 else "them"
    return f", {which}as {layer.variables[rounded[0]].quantized} stores {it}"


def _may_have_initial_channels(layer: BNLayer) -> bool:
    """Return whether the mean of some channels, not of all, was rounded to its initial value."""
    statistics = layer.statistics
    if statistics is None or statistics[0].all_initial or statistics[1].all_initial:
        return False
    mean, _ = statistics
    is_near = bool(mean.equal_to(mean.initial or 0.0).any())
    return is_near and any(not values.is_exact for values in statistics)


def not_judged(layers: Iterable[BNLayer], rules: Iterable[Rule]) -> Iterator[str]:
    """Yield a sentence on the rules of single channels, if statistics were rounded."""
    codes = [rule.code for rule in rules if rule.code in _OF_CHANNELS]
    names = [layer.name for layer in layers if _may_have_initial_channels(layer)]
    if codes and names:
        were = "was" if len(codes) == 1 else "were"
        yield (
            f"{' and '.join(codes)} {were} not judged in {plural(len(names), 'layer')}"
            f" ({listed(names)}): the statistics are rounded, so that which channels were exactly"
            " at their initial values is lost"
        )
