"""Reports made by hand, for what no fixture has: many findings, and names that mean harm."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from bninspect.cli.formats import CHECK, OutputOptions
from bninspect.errors import Corrupt
from bninspect.model.layer import BNLayer
from bninspect.model.report import CheckpointReport, Finding, Report
from bninspect.model.rule import Severity
from bninspect.rules import RULES, entry_called

# What a log, a shell, a terminal, XML, JSON or a URI could take for its own.
HOSTILE = (
    "a\n::error::b",
    "::stop-commands::x",
    " ::add-mask::x",
    "##[error]a",
    "x ##[add-mask]y",
    "##vso[task.setvariable variable=a]b",
    "=cmd|' /C calc'!A0",
    "@SUM(A1)",
    "a\rb",
    "a\u202eb\u2066c",
    "%0A::warning::",
    "100%",
    "a,b:c=d",
    "a\r\nb",
    "\x1b[31mred\x07\x00",
    "]]>&<tag a='\"'>",
    "[link](https://example.com) {0}",
    "\u2028\u0085\ufffe\U0001f4a5",
    "\udc80\ud800",
    "../../etc",
    "é/ü?#%41",
    "n" * 5000,
    "🧨" * 3000,
)
# What a stored name never has: JSON would take the two for one character.
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")

hostile_text = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40))
hostile_name = st.one_of(
    hostile_text, st.builds("{}{}".format, hostile_text, st.sampled_from(HOSTILE))
).filter(lambda name: name and not _PAIR.search(name))


def finding(
    code: str = "BN101",
    layer: str = "bn",
    message: str = "it is wrong",
    severity: Severity | None = None,
    evidence: tuple[str, ...] = (),
) -> Finding:
    rule = entry_called(code)
    fix = f"mend {layer}"
    return Finding(rule, severity or rule.severity, layer, message, None, evidence, fix)


def checkpoint(
    path: str, findings: Iterable[Finding] = (), layers: Iterable[str] = ("bn",)
) -> CheckpointReport:
    findings = tuple(findings)
    names = dict.fromkeys((*layers, *(one.layer for one in findings)))
    return CheckpointReport(
        path,
        resolved=path,
        format="tf-v2",
        variable_count=7,
        layers=tuple(BNLayer(name, "tf.layers", {}) for name in names),
        findings=findings,
    )


def unreadable(path: str, message: str = "it is broken") -> CheckpointReport:
    return CheckpointReport(path, error=Corrupt(path, message, "Mend it."))


def report(*checkpoints: CheckpointReport) -> Report:
    return Report(checkpoints, RULES)


def written(format_: str, one: Report, **options: Any) -> str:
    """What `check --format` writes: each checkpoint as it comes, then the end without layers."""
    stream = io.StringIO()
    sink = CHECK[format_](stream, OutputOptions(**options))
    for item in one.checkpoints:
        sink.add(item, sink.render and sink.render(item))
    sink.end(replace(one, checkpoints=tuple(i.without_layers() for i in one.checkpoints)))
    return stream.getvalue()


_findings = st.builds(
    finding,
    st.sampled_from([rule.code for rule in RULES]),
    hostile_name,
    hostile_text,
    st.sampled_from(("error", "warning", "note")),
    st.lists(hostile_text, max_size=2).map(tuple),
)
hostile_reports = st.lists(
    st.one_of(
        st.builds(checkpoint, hostile_name, st.lists(_findings, max_size=6)),
        st.builds(checkpoint, hostile_name, st.just(()), st.just(())),
        st.builds(unreadable, hostile_name, hostile_text),
    ),
    min_size=1,
    max_size=5,
).map(lambda checkpoints: report(*checkpoints))
