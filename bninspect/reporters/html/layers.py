"""Views of layers: distributions, numbers, and which statistic a finding is about.

Names are as stored: the templates make them printable and escape them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

from bninspect.batchnorm.inference import inference
from bninspect.model.layer import BNLayer
from bninspect.model.report import CheckpointReport, Finding
from bninspect.model.roles import AFFINE, ROLES, STATISTICS, Role
from bninspect.model.rule import SEVERITIES, RuleContext
from bninspect.reporters.html.charts import Bins, Histogram, bins_of, histogram, number
from bninspect.rules.channels import dead_of, untouched_channels
from bninspect.wording import plural

# The states of a cell of the map, gravest first, with their words: a finding, one that does not
# count, none.
STATES: dict[str, str] = {
    **{severity: severity for severity in SEVERITIES},
    "muted": "not counted",
    "fine": "no finding",
    "absent": "not stored",
}


class Cell(NamedTuple):
    """A cell of the map, for one member: `state` is one of STATES."""

    role: Role
    state: str


class Figure(NamedTuple):
    """A chart with its name; `missing` says why there is none."""

    name: str
    chart: Histogram | None
    missing: str = ""


class LayerView(NamedTuple):
    """A layer as the page shows it: `id` is its anchor, `place` its number in the network.

    `state` is that of the gravest finding. `codes` are those of all findings, also of those that do
    not count. `columns` are the numbers of the table, `facts` the phrases beside the charts.
    """

    id: str
    place: int
    name: str
    state: str
    codes: tuple[str, ...]
    channels: int | None
    stuck: int
    dead: int
    columns: tuple[float | None, ...]
    cells: tuple[Cell, ...]
    facts: tuple[str, ...]
    findings: tuple[Finding, ...]
    muted: tuple[Finding, ...]


def anchor(name: str) -> str:
    """Return the anchor of a layer, the same in every report: ten digits of a hash of its name."""
    return "L" + sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]


def layer_views(
    item: CheckpointReport, prefix: str = "", momentum: float | None = None
) -> list[LayerView]:
    """Return the views of a checkpoint's layers; `prefix` begins their anchors."""
    counting: dict[str, list[Finding]] = defaultdict(list)
    muted: dict[str, list[Finding]] = defaultdict(list)
    for finding in item.findings:
        counting[finding.layer].append(finding)
    for finding in (*(hidden.finding for hidden in item.suppressed), *item.known):
        muted[finding.layer].append(finding)
    context = RuleContext(item.step, momentum)
    views = []
    seen: dict[str, int] = defaultdict(int)
    for index, layer in enumerate(item.layers, 1):
        view = layer_view(layer, counting[layer.name], muted[layer.name], context)
        seen[view.id] += 1
        again = f"-{seen[view.id]}" if seen[view.id] > 1 else ""
        views.append(view._replace(id=f"{prefix}{view.id}{again}", place=index))
    return views


def layer_view(
    layer: BNLayer,
    findings: Sequence[Finding] = (),
    muted: Sequence[Finding] = (),
    context: RuleContext | None = None,
) -> LayerView:
    """Return the view of one layer, with the findings that count and those that do not."""
    context = context or RuleContext()
    cells = _cells(layer, findings, muted)
    statistics = layer.statistics
    return LayerView(
        id=anchor(layer.name),
        place=1,
        name=layer.name,
        state=gravest([*(finding.severity for finding in findings), *("muted" for _ in muted)]),
        codes=tuple(dict.fromkeys(finding.rule.code for finding in (*findings, *muted))),
        channels=layer.channels,
        stuck=untouched_channels(*statistics) if statistics else 0,
        dead=dead_of(layer, context),
        columns=tuple(
            None if end is None or math.isnan(end) else end
            for role in STATISTICS
            for end in _range(layer, role)
        ),
        cells=cells,
        facts=_facts(layer, context),
        findings=tuple(findings),
        muted=tuple(muted),
    )


def gravest(states: Iterable[str]) -> str:
    """Return the gravest of some states; `fine` if there is none."""
    return min(states, key=list(STATES).index, default="fine")


def _cells(
    layer: BNLayer, findings: Sequence[Finding], muted: Sequence[Finding]
) -> tuple[Cell, ...]:
    """Return the state of each member: that of the gravest finding about it."""
    states: dict[Role, list[str]] = {role: [] for role in ROLES}
    for finding in findings:
        for role in finding.rule.members_of(layer):
            states[role].append(finding.severity)
    for finding in muted:
        for role in finding.rule.members_of(layer):
            states[role].append("muted")
    for role in ROLES:
        states[role].append("fine" if role in layer.variables else "absent")
    return tuple(Cell(role, gravest(states[role])) for role in ROLES)


def _range(layer: BNLayer, role: Role) -> tuple[float | None, float | None]:
    values = layer.values.get(role)
    if values is None or not values.channels:
        return None, None
    return values.minimum, values.maximum


def distributions(layer: BNLayer) -> Iterator[tuple[str, Bins | None]]:
    """Yield the values of each member, and of what inference makes of them; None without values.

    Variances are on a logarithmic axis, as far as they are above 0: they differ by factors.
    """
    for role in ROLES:
        values = layer.values.get(role)
        if values is None:
            yield role, None
        elif role == "moving_variance":
            yield role, bins_of(values.array, values.initial, values.at_initial, log_from=1.0)
        else:
            yield role, bins_of(values.array, values.initial, values.at_initial)
    made = inference(layer)
    for name, array in (("scale", made.scale), ("shift", made.shift)):
        yield name, None if array is None else bins_of(array)


def missing(layer: BNLayer, name: str) -> str:
    """Return why a layer has no values of a member, or of `scale` or `shift`."""
    if name not in ROLES:
        has_both = all(role in layer.values for role in STATISTICS)
        return "members differ in channels" if has_both else "needs both statistics"
    return "not read" if name in layer.variables else "not stored"


def figures(layer: BNLayer) -> tuple[Figure, ...]:
    """Return the distributions of a layer as static charts."""
    return tuple(
        Figure(name, None, missing(layer, name)) if bins is None else Figure(name, histogram(bins))
        for name, bins in distributions(layer)
    )


def _facts(layer: BNLayer, context: RuleContext) -> tuple[str, ...]:
    """Return the settings and counts of a layer as short phrases."""
    made = inference(layer)
    facts = [layer.family]
    if layer.channels is not None:
        facts.append(f"{plural(layer.channels, 'channel')}, {layer.dtype}")
    if layer.momentum is not None:
        facts.append(f"momentum {number(layer.momentum)}")
    facts.append(f"epsilon {made.epsilon:g}{' assumed' if made.assumed else ''}")
    if layer.trainable is not None:
        facts.append(f"trainable={str(layer.trainable).lower()}")
    missing = [role for role in AFFINE if role not in layer.variables]
    if missing:
        facts.append(f"without {' and '.join(missing)}")
    if made.caution:
        facts.append(made.caution)
    if layer.statistics:
        facts.append(f"{untouched_channels(*layer.statistics)} stuck")
        facts.append(f"{dead_of(layer, context)} dead")
    return tuple(facts)
