"""Exit codes of the program, and which of them a finished check has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bninspect.model.report import Report

# Nothing at or above --fail-on; findings; something could not be read, or wrong usage; nothing was
# checked (no BN layer, or none that could be compared with --since).
OK, FINDINGS, PROBLEM, NOTHING_CHECKED = 0, 1, 2, 3
# A shell reports 128 + the number of the signal for a program that SIGINT or SIGPIPE ended.
INTERRUPTED, OUTPUT_CLOSED = 130, 141


def exit_code_of(report: Report, fail_on: str, *, allow_empty: bool) -> int:
    """Return the exit code of a finished check.

    It is 1 if a finding is at least as severe as `fail_on`. 2 wins over 1, 1 over 3.
    """
    from bninspect.model.report import any_at_least

    if report.unreadable:
        return PROBLEM
    if any_at_least(fail_on, report.findings):
        return FINDINGS
    return OK if report.checked or allow_empty else NOTHING_CHECKED
