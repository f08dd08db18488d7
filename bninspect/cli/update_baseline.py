"""`check --update-baseline`: write the findings of a run to the baseline file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bninspect.cli.errors import fail, tell
from bninspect.cli.exit_codes import INTERRUPTED, NOTHING_CHECKED, OK
from bninspect.cli.formats import OutputOptions
from bninspect.cli.output import (
    Destination,
    opened_paths,
    output_stream,
    refuse_to_overwrite_inputs,
)
from bninspect.cli.streaming import open_sink
from bninspect.errors import UsageProblem
from bninspect.reporters.escapes import printable
from bninspect.runs.run import check_paths
from bninspect.verdicts.baseline import refuse_other_file, write_baseline
from bninspect.wording import plural

if TYPE_CHECKING:
    from bninspect.config.model import Config
    from bninspect.model.report import Report


def update(
    paths: tuple[str, ...],
    config: Config,
    targets: Sequence[Destination],
    *,
    quiet: bool,
    allow_empty: bool,
) -> int:
    """Write the findings of this run to the baseline; returns the exit code.

    A run that was interrupted, could not read a checkpoint or checked nothing leaves the file as
    it was. Raises `UsageProblem` without a baseline, or with a file to write a report to.
    """
    baseline = config.baseline
    if baseline is None:
        raise UsageProblem(
            "--update-baseline needs the file to write: `bninspect check PATH..."
            " --baseline FILE --update-baseline`."
        )
    reports = [path for _, path in targets if path is not None]
    if reports:
        raise UsageProblem(f"--update-baseline writes no report: do not give {reports[0]}.")
    refuse_other_file(baseline)
    with open_sink([], OutputOptions(quiet=quiet), needs_checkpoints=True) as sink:
        report = check_paths(paths, replace(config, baseline=None), sink)
        sink.end(report, ())
    code = _reason_not_to(report, baseline, allow_empty=allow_empty)
    if code != OK:
        return code
    refuse_to_overwrite_inputs(baseline, (*paths, *opened_paths(report)))
    with output_stream(baseline) as stream:
        count = write_baseline(report, baseline, stream)
    if not quiet:
        tell(
            f"{plural(count, 'finding')} of {plural(len(report.checkpoints), 'checkpoint')}"
            f" written to {printable(baseline)}"
        )
    return OK


def _reason_not_to(report: Report, baseline: str, *, allow_empty: bool) -> int:
    """Say why a run does not replace the baseline; returns the exit code, 0 if it does."""
    left = f"{baseline} is left as it was"
    if report.interrupted:
        return fail(f"interrupted; {left}.", INTERRUPTED)
    for item in report.checkpoints:
        if item.error is not None:
            fail(str(item.error))
    if report.unreadable:
        return fail(f"{left}: {plural(report.unreadable, 'checkpoint')} could not be read.")
    if not report.checked and not allow_empty:
        why = "could be compared" if report.layer_count else "was found"
        return fail(f"{left}: no BN layer {why}.", NOTHING_CHECKED)
    return OK
