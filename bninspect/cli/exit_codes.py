"""What the program's exit code says, and that of a check.

0 nothing at or above --fail-on, 1 findings, 2 something could not be read or was asked for wrongly,
3 nothing was checked: no file had a BN layer, or none that could be compared where a comparison was
asked for. 2 wins over 1, 1 over 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bninspect.model.report import Report

OK, FINDINGS, PROBLEM, NOTHING_CHECKED = 0, 1, 2, 3
# What a shell reports of a program that SIGINT ended.
INTERRUPTED = 130


def exit_code_of(report: Report, fail_on: str, *, allow_empty: bool) -> int:
    """That of a run which checked; `fail_on` is the least severity that fails it."""
    from bninspect.model.report import any_at_least

    if report.unreadable:
        return PROBLEM
    if any_at_least(fail_on, report.findings):
        return FINDINGS
    return OK if report.checked or allow_empty else NOTHING_CHECKED
