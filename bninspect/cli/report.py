"""The command `report`: an HTML page."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from bninspect.cli import help_texts
from bninspect.cli.errors import fail, tell
from bninspect.cli.exit_codes import INTERRUPTED, exit_code_of
from bninspect.cli.options import PATHS, report_options
from bninspect.cli.output import (
    opened_paths,
    output_stream,
    refuse_to_overwrite_inputs,
    refuse_to_overwrite_settings,
    standard_output,
)
from bninspect.errors import UsageProblem

if TYPE_CHECKING:
    from bninspect.config.model import Config
    from bninspect.model.report import Report


@click.command(
    short_help="Make a page to look at: the verdict, distributions, trends.",
    epilog=help_texts.REPORT,
)
@PATHS
@report_options
def report(
    paths: tuple[str, ...], config: Config, output: str | None, quiet: bool, allow_empty: bool
) -> int:
    """Judge as `check` does, and write one HTML file to look at in a browser.

    The verdict comes first, with its cause, its fix and code to copy. Below are a map of all
    layers, and for each layer the distributions of gamma, beta, moving_mean and moving_variance,
    what inference does with them, and the values of its channels. Several checkpoints of one
    training are compared with each other, as by check --all-checkpoints, and shown over time.
    Findings of many models are grouped by rule, cause, framework and fix.

    The file needs no network and no other files.
    """
    from bninspect.cli.command_line import command_line
    from bninspect.reporters.html.page import HtmlReport
    from bninspect.reporters.html.run import run_details
    from bninspect.runs.run import check_paths

    if output is None and standard_output().isatty():
        raise UsageProblem("A page is not for a terminal: write it to a file with -o FILE.html.")
    inputs = paths if config.since is None else (*paths, config.since)
    if output is not None:
        refuse_to_overwrite_settings((output,), (config.file, config.baseline))
        refuse_to_overwrite_inputs(output, inputs)
    run = run_details(command_line())
    with output_stream(output) as stream:
        page = HtmlReport(stream, momentum=config.momentum, run=run)
        result = check_paths(paths, replace(config, trends=True), page)
        if output is not None:
            refuse_to_overwrite_inputs(output, opened_paths(result))
        page.end(result)
    if output is not None and not quiet:
        _tell_verdict(result, output)
    if result.interrupted:
        return fail("interrupted", INTERRUPTED)
    return exit_code_of(result, config.fail_on, allow_empty=allow_empty)


def _tell_verdict(result: Report, output: str) -> None:
    """Write the verdict, the counts and the name of the written file to standard error."""
    from bninspect.reporters.escapes import printable
    from bninspect.reporters.verdict_text import answer, summary

    for line in answer(result):
        tell(line)
    tell(f"{summary(result)}; written to {printable(output)}")
