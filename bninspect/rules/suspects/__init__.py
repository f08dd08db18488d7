"""Suspects: the reasons that may be behind a finding whose cause nothing proves.

`catalogue.py` has them as data; `facts.py` has what their predicates ask. A suspect is no more than
that: no rule judges by it, and the field `cause` of a finding stays empty.
"""

from __future__ import annotations

from collections.abc import Iterable

from bninspect.model.layer import BNLayer
from bninspect.model.rule import PossibleCause, RuleContext
from bninspect.rules.suspects.catalogue import SUSPECTS, Suspect
from bninspect.rules.suspects.facts import Facts

# More than these are no help.
_MOST = 3


class Catalogue:
    """The `suspects` by rule and by family of the layer, in their order."""

    def __init__(self, suspects: Iterable[Suspect]) -> None:
        self._suspects = tuple(suspects)
        self._about: dict[tuple[str, str], tuple[Suspect, ...]] = {}

    def about(self, rule: str, family: str) -> tuple[Suspect, ...]:
        """Return the suspects that findings of a rule on layers of a family may have."""
        key = rule, family
        if key not in self._about:
            self._about[key] = tuple(
                suspect
                for suspect in self._suspects
                if rule in suspect.rules and (not suspect.families or family in suspect.families)
            )
        return self._about[key]


_CATALOGUE = Catalogue(SUSPECTS)


def rules_of_suspect(name: str) -> tuple[str, ...]:
    """Return the codes of the rules whose findings the suspect of this name may explain."""
    return tuple(sorted({rule for one in SUSPECTS if one.cause == name for rule in one.rules}))


def possible_causes(rule: str, layer: BNLayer, context: RuleContext) -> tuple[PossibleCause, ...]:
    """Return the suspects of a finding that the files do not rule out, the most likely first.

    First come those that something in the files speaks for, and among equals what was seen more
    often. Of several rows with one name the first that fits counts.
    """
    if context.live and layer.family == "keras":
        return ()  # what a Keras model shows of itself says more than the catalogue
    facts = Facts(rule, layer, context)
    fitting: dict[str, Suspect] = {}
    for suspect in _CATALOGUE.about(rule, layer.family):
        if suspect.cause not in fitting and suspect.when(facts):
            fitting[suspect.cause] = suspect
    ordered = sorted(fitting.values(), key=lambda one: (not one.marked, -one.seen(facts)))
    return tuple(one.as_possible_cause(facts) for one in ordered[:_MOST])
