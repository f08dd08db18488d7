"""Views of verdicts and findings, in the words of `check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from bninspect.errors import shortened
from bninspect.model.frameworks import FRAMEWORKS
from bninspect.model.report import CheckpointReport, Finding, Report, Suppression
from bninspect.model.rule import SEVERITIES, Rule
from bninspect.reporters.check_text import evidence_of
from bninspect.reporters.finding_groups import FindingGroup
from bninspect.reporters.verdict_text import (
    CUT_SHORT,
    OUTCOMES,
    baseline_in_words,
    cause_in_words,
    grouped,
    notes_on,
    source_of,
    status,
    summary,
    suspects_in_words,
    verdict,
    verdict_on_all,
)
from bninspect.rules import CAUSES
from bninspect.rules.pages import Fix, page_of
from bninspect.wording import listed, plural

_CAUSES = {cause.name: cause for cause in CAUSES}
# The beginning of the titles of fixes for a model that is trained already.
_AFTERWARDS = "Without training again"


class Place(NamedTuple):
    """A layer or checkpoint that findings are about; `target` is its anchor, empty without one."""

    name: str
    target: str
    message: str


class Group(NamedTuple):
    """Findings with the same rule, cause and fix; `state` is their severity, or `muted`.

    `scope` says how much is hit, `kind` tells the groups of one rule apart: what is behind them,
    or some layers. `cause` is empty if the rule has none. `likely` is the reason that comes first
    where none is proved, `reasons` are more of them, in words that `reasons_title` introduces.
    `sample` is code for the framework of the layers. `muted` is the reason why they do not count,
    empty if they count.
    """

    rule: Rule
    severity: str
    state: str
    scope: str
    places: tuple[Place, ...]
    evidence: tuple[str, ...]
    cause: str
    likely: str
    fix: str
    reasons: tuple[str, ...] = ()
    reasons_title: str = ""
    sample: Fix | None = None
    muted: str = ""
    kind: str = ""


class RuleGroups(NamedTuple):
    """The groups of one rule and severity in a run, and how much they hit in all."""

    rule: Rule
    state: str
    scope: str
    groups: tuple[Group, ...]


class CheckpointView(NamedTuple):
    """A checkpoint: the verdict and its evidence; `verdict` does not repeat the `path`."""

    id: str
    path: str
    status: str
    verdict: str
    groups: tuple[Group, ...]
    muted: tuple[Group, ...]
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


class RunView(NamedTuple):
    """The verdict on all checkpoints; `path` is that of the only one, empty if there are more."""

    status: str
    verdict: str
    path: str
    summary: str
    notes: tuple[str, ...]


def run_view(report: Report) -> RunView:
    """Return the answer for a run; for one checkpoint, that of the checkpoint."""
    path = ""
    if len(report.checkpoints) == 1:
        item = report.checkpoints[0]
        path = item.path
        word, sentence = status(item), verdict_without_path(item)
    elif report.checkpoints:
        word, sentence = verdict_on_all(report)
    else:
        word, sentence = "NONE", "no checkpoint was looked at"
    notes = list(report.notes)
    if report.baseline is not None:
        notes.append(f"baseline: {baseline_in_words(report.baseline)}")
    if report.interrupted:
        notes.append(CUT_SHORT)
    return RunView(word, sentence, path, summary(report), tuple(notes))


def verdict_without_path(item: CheckpointReport) -> str:
    """Return the verdict on a checkpoint for a place that names its path already."""
    return verdict(item).removeprefix(f"{item.path}: ")


def verdict_on_unit(items: Sequence[CheckpointReport]) -> tuple[str, str]:
    """Return the verdict on the checkpoints of one training: a word and a sentence."""
    if len(items) == 1:
        return status(items[0]), verdict_without_path(items[0])
    return verdict_on_all(Report(tuple(items)))


def gravity(state: str) -> int:
    """Return the place of an outcome among all, the gravest first."""
    return list(OUTCOMES).index(state)


def checkpoint_view(
    item: CheckpointReport, id_: str = "", targets: Mapping[str, str] | None = None
) -> CheckpointView:
    """Return the view of one checkpoint; `targets` are the anchors of its layers."""
    targets = targets or {}
    return CheckpointView(
        id=id_,
        path=item.path,
        status=status(item),
        verdict=verdict_without_path(item),
        groups=tuple(
            _group(findings, targets, source_of(item)) for findings in grouped(item.findings)
        ),
        muted=tuple(_muted(item, targets)),
        notes=tuple(notes_on(item)),
        facts=tuple(_facts(item)),
    )


def groups_of_run(
    groups: Sequence[FindingGroup], targets: Mapping[str, str], *, one_training: bool
) -> tuple[RuleGroups, ...]:
    """Return the findings in several checkpoints by rule; `targets` are the anchors of those.

    Of one training, what is likely in one checkpoint is so in all.
    """
    return tuple(
        _of_rule(list(same), targets, one_training=one_training)
        for _, same in groupby(
            sorted(groups, key=_rule_order(groups)),
            key=lambda group: (group.first.rule.code, group.first.severity),
        )
    )


def _rule_order(groups: Sequence[FindingGroup]) -> Callable[[FindingGroup], tuple[int, int, str]]:
    """Return the order of rules: the gravest first, then those that hit the most checkpoints."""
    hits = Counter[tuple[str, str]]()
    for group in groups:
        hits[group.first.severity, group.first.rule.code] += len(group.hits)

    def order(group: FindingGroup) -> tuple[int, int, str]:
        severity, code = group.first.severity, group.first.rule.code
        return SEVERITIES.index(severity), -hits[severity, code], code

    return order


def _of_rule(
    groups: Sequence[FindingGroup], targets: Mapping[str, str], *, one_training: bool
) -> RuleGroups:
    first = groups[0].first
    hits = [hit for group in groups for hit in group.hits]
    layers = sum(len(hit.layers) for hit in hits)
    checkpoints = len({hit.path for hit in hits})
    return RuleGroups(
        first.rule,
        first.severity,
        f"{plural(layers, 'layer')} in {plural(checkpoints, 'checkpoint')}",
        tuple(
            _group_of_run(group, kind, targets, one_training=one_training)
            for group, kind in zip(groups, _kinds(groups), strict=True)
        ),
    )


def _group_of_run(
    group: FindingGroup, kind: str, targets: Mapping[str, str], *, one_training: bool
) -> Group:
    first = group.first
    suspects = suspects_in_words(first)
    title = f"What may be behind it in {group.hits[0].path}, and how to tell"
    likely = group.likely
    if one_training and suspects:
        likely = suspects.pop(0)
        title = plural(len(suspects), "other possible reason")
    return Group(
        rule=first.rule,
        severity=first.severity,
        state=first.severity,
        scope=group.title.partition(": ")[2],
        places=tuple(
            Place(hit.path, targets.get(hit.path, ""), hit.in_words) for hit in group.hits
        ),
        evidence=(),
        cause=_with_summary(group.cause, first),
        likely=likely,
        fix=first.fix,
        reasons=tuple(suspects),
        reasons_title=title,
        sample=sample_of(first),
        kind=kind,
    )


def _kinds(groups: Sequence[FindingGroup]) -> list[str]:
    """Return what tells the groups of one rule apart: cause and framework, else also an example.

    Groups that have both in common differ in what the fix asks for: a frozen graph has to be frozen
    again, a converted model converted again.
    """
    kinds = [_kind(group) for group in groups]
    return [
        kind if kinds.count(kind) == 1 else f"{kind}, such as {group.hits[0].path}"
        for group, kind in zip(groups, kinds, strict=True)
    ]


def _kind(group: FindingGroup) -> str:
    """Return the cause that is proved or likely, and the framework if it is known."""
    cause = group.first.cause or (f"likely {group.likely}" if group.likely else "no cause proved")
    framework = FRAMEWORKS.get(group.first.framework or "")
    return f"{cause}, {framework}" if framework else cause


def sample_of(finding: Finding) -> Fix | None:
    """Return code that fixes a finding, for its framework; None where that depends on more.

    It is the first on the page of a proved cause. Without one, it is that of the page of the rule,
    if that has no other for the framework.
    """
    if finding.framework is None:
        return None
    cause = _CAUSES.get(finding.cause or "")
    fixes = [
        fix
        for fix in page_of(cause or finding.rule).for_framework(finding.framework).fixes
        if fix.code and fix.frameworks and not fix.where.startswith(_AFTERWARDS)
    ]
    return fixes[0] if fixes and (cause is not None or len(fixes) == 1) else None


def _group(
    findings: list[Finding], targets: Mapping[str, str], source: str, muted: str = ""
) -> Group:
    first = findings[0]
    suspects = suspects_in_words(first)
    return Group(
        rule=first.rule,
        severity=first.severity,
        state="muted" if muted else first.severity,
        scope=plural(len(findings), "layer"),
        places=tuple(
            Place(finding.layer, targets.get(finding.layer, ""), finding.message)
            for finding in findings
        ),
        evidence=tuple(evidence_of(findings, verbose=True)),
        cause=_with_summary(cause_in_words(first, source), first),
        likely=suspects[0] if suspects else "",
        fix=first.fix,
        reasons=tuple(suspects[1:]),
        reasons_title=plural(len(suspects) - 1, "other possible reason"),
        sample=sample_of(first),
        muted=muted,
        kind=listed([shortened(finding.layer) for finding in findings]),
    )


def _with_summary(cause: str, finding: Finding) -> str:
    """Return the words on a cause, with what it means if it is proved."""
    known = _CAUSES.get(finding.cause or "")
    return cause if known is None else f"{cause}: {known.summary}"


def _muted(item: CheckpointReport, targets: Mapping[str, str]) -> Iterator[Group]:
    """Return the findings that do not count, and why not."""
    reasons: dict[Suppression, list[Finding]] = {}
    for finding, why in item.suppressed:
        reasons.setdefault(why, []).append(finding)
    for why, findings in reasons.items():
        until = "" if why.expires is None else f" (until {why.expires})"
        for group in grouped(findings):
            yield _group(group, targets, source_of(item), f"suppressed: {why.reason}{until}")
    for group in grouped(item.known):
        yield _group(group, targets, source_of(item), "known: it is in the baseline")


def _facts(item: CheckpointReport) -> Iterable[tuple[str, str]]:
    if item.error is not None:
        return
    if item.resolved and item.resolved != item.path:
        yield "opened", item.resolved
    yield "format", item.format or ""
    yield "step", "not stored" if item.step is None else str(item.step)
    yield "variables", str(item.variable_count)
    yield "BN layers", str(item.layer_count)
    if item.since is not None:
        yield "compared with", item.since.path
