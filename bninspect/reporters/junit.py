"""`check` as JUnit XML, for the test reports of GitLab and Jenkins.

There is no standard; both read this form. GitLab (lib/gitlab/ci/parsers/test/junit.rb) shows a
case's classname, name, file and the text of its failure, error or skip, identifies cases by
classname and name, and ignores the message attribute. Jenkins (junit-plugin, CaseResult.java) shows
message and text, and the output of a case and a suite.

Characters that XML lacks are not printable either, so they are written as escapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TextIO
from xml.etree import ElementTree as ET

from bninspect.model.report import CheckpointReport, Finding, Report
from bninspect.model.rule import SEVERITIES, Severity
from bninspect.reporters.ci_locations import file_of, in_repository
from bninspect.reporters.escapes import printable
from bninspect.reporters.verdict_text import (
    cause_in_words,
    more_on,
    nothing_checked,
    suspects_in_words,
)

_COUNTS = {"failures": "failure", "errors": "error", "skipped": "skipped"}


class _SuiteText(NamedTuple):
    """A suite as XML, and how many cases it has, by outcome."""

    text: str
    counts: Mapping[str, int]


class JunitReport:
    """Writer of one suite per checkpoint and one case per layer.

    A case fails by findings of at least the severity `fail_on`; others are its output. A checkpoint
    that cannot be read is an error. One without a BN layer, or without one that could be compared
    (--since), is skipped.
    """

    needs_layers = True
    needs_checkpoints = True

    def __init__(self, stream: TextIO, *, fail_on: str = "error") -> None:
        self._stream = stream
        failing = SEVERITIES[: SEVERITIES.index(fail_on) + 1] if fail_on in SEVERITIES else ()
        self.render = partial(_suite_text, failing=failing)
        self._counts: Counter[str] = Counter()
        self._suites: list[str] = []

    def add(self, _: CheckpointReport, suite: _SuiteText) -> None:
        """Keep the suite of one checkpoint, and count its cases."""
        self._counts.update(suite.counts)
        self._suites.append(suite.text)

    def end(self, report: Report) -> None:
        """Write the suites, below the counts of all."""
        if report.interrupted:
            interrupted = _as_text(_interrupted())
            self._counts.update(interrupted.counts)
            self._suites.append(interrupted.text)
        counts = "".join(f' {name}="{self._counts[name]}"' for name in ("tests", *_COUNTS))
        # In ASCII, so that the declaration is true of any terminal or file.
        self._stream.write("<?xml version='1.0' encoding='us-ascii'?>\n")
        self._stream.write(f'<testsuites name="bninspect"{counts}>\n')
        for suite in self._suites:
            self._stream.write(suite + "\n")
        self._stream.write("</testsuites>\n")


def _suite_text(item: CheckpointReport, failing: Sequence[Severity]) -> _SuiteText:
    return _as_text(_suite(item, failing))


def _as_text(suite: ET.Element) -> _SuiteText:
    counts = {name: int(suite.get(name, "0")) for name in ("tests", *_COUNTS)}
    ET.indent(suite, level=1)
    return _SuiteText(
        "  " + ET.tostring(suite, encoding="us-ascii").decode("ascii").strip(), counts
    )


def _interrupted() -> ET.Element:
    """Return a suite with an error, so that the report of an interrupted run does not pass."""
    suite = ET.Element("testsuite", name="bninspect")
    case = ET.SubElement(suite, "testcase", classname="bninspect", name="the run came to its end")
    message = "interrupted: what was still to be read is not in this report"
    _add(case, "error", message, "interrupted", [message])
    _count(suite)
    return suite


def _suite(item: CheckpointReport, failing: Sequence[Severity]) -> ET.Element:
    suite = ET.Element("testsuite", name=printable(item.path))
    if item.error is not None:
        case = _case(suite, item, "the checkpoint can be read")
        _add(case, "error", item.error.message, item.error.kind, [str(item.error)])
    elif not item.layers:
        case = _case(suite, item, "the checkpoint has BN layers")
        message = nothing_checked(item)
        _add(case, "skipped", message, None, [message])
    by_layer: dict[str, list[Finding]] = {}
    for finding in item.findings:
        by_layer.setdefault(finding.layer, []).append(finding)
    for layer in item.layers:
        case = _case(suite, item, layer.name)
        findings = by_layer.get(layer.name, [])
        failures = [finding for finding in findings if finding.severity in failing]
        if failures:
            codes = ", ".join(dict.fromkeys(finding.rule.code for finding in failures))
            _add(case, "failure", _headline(failures[0]), codes, _in_words(failures))
        below = [finding for finding in findings if finding.severity not in failing]
        if below:
            _output(case, _in_words(below))
    if item.since is not None and item.none_compared:
        case = _case(suite, item, "the checkpoint can be compared")
        message = f"no BN layer could be compared with {item.since.path}"
        _add(case, "skipped", message, None, [message])
    for group in item.unchecked:
        _add(_case(suite, item, group.name), "skipped", "not checked", None, [group.reason])
    if item.notes:
        _output(suite, [f"note: {note}" for note in item.notes])
    _count(suite)
    return suite


def _case(suite: ET.Element, item: CheckpointReport, name: str) -> ET.Element:
    path = file_of(item)
    attributes = {
        "classname": printable(item.path),
        "name": printable(name),
        "file": printable(in_repository(path) or path),
    }
    return ET.SubElement(suite, "testcase", attributes)


def _headline(finding: Finding) -> str:
    return f"{finding.rule.code} {finding.rule.name}: {finding.message}"


def _in_words(findings: Iterable[Finding]) -> list[str]:
    """Return the text of findings, line by line."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.severity} {_headline(finding)}")
        lines += [f"evidence: {fact}" for fact in finding.evidence]
        if cause := cause_in_words(finding):
            lines.append(f"cause: {cause}")
        lines += [f"likely: {suspect}" for suspect in suspects_in_words(finding)]
        lines += [f"fix: {finding.fix}", f"more: {more_on([finding])}"]
    return lines


def _add(
    case: ET.Element, outcome: str, message: str, kind: str | None, lines: Iterable[str]
) -> None:
    attributes = {"message": printable(message)} | ({"type": kind} if kind else {})
    ET.SubElement(case, outcome, attributes).text = "\n".join(map(printable, lines))


def _output(element: ET.Element, lines: Iterable[str]) -> None:
    ET.SubElement(element, "system-out").text = "\n".join(map(printable, lines))


def _count(element: ET.Element) -> None:
    """Write the number of cases below, and of each outcome."""
    element.set("tests", str(len(list(element.iter("testcase")))))
    for counted, outcome in _COUNTS.items():
        element.set(counted, str(len(list(element.iter(outcome)))))
