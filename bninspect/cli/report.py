"""The command that makes a page to look at."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from bninspect.cli import help_texts
from bninspect.cli.exit_codes import exit_code_of
from bninspect.cli.options import PATHS, report_options
from bninspect.cli.output import output_stream, refuse_input, refuse_settings
from bninspect.errors import UsageProblem

if TYPE_CHECKING:
    from bninspect.config.model import Config


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

    It shows the verdict with its cause and fix, a map of all layers, and of each the distributions
    of gamma, beta, moving_mean and moving_variance and what inference does with them. Of several
    checkpoints of one training it shows how the statistics went.

    The file needs no network and nothing beside it.
    """
    from bninspect.reporters.html.page import HtmlReport
    from bninspect.runs.run import check_paths

    if output is None and sys.stdout.isatty():
        raise UsageProblem("A page is not for a terminal: say where it goes with -o FILE.html.")
    given = paths if config.since is None else (*paths, config.since)
    if output is not None:
        refuse_settings((output,), (config.file, config.baseline))
        refuse_input(output, given)
    with output_stream(output) as stream:
        page = HtmlReport(stream, momentum=config.momentum)
        result = check_paths(paths, config, page)
        if output is not None:
            opened = (item.resolved or item.path for item in result.checkpoints)
            refuse_input(output, opened)
        page.end(result)
    if output is not None and not quiet:
        from bninspect.reporters.escapes import printable
        from bninspect.reporters.verdict_text import answer, summary

        with suppress(OSError):  # what becomes of the lines never changes the exit code
            for line in answer(result):
                click.echo(line, err=True)
            click.echo(f"{summary(result)}; written to {printable(output)}", err=True)
    if result.interrupted:
        raise KeyboardInterrupt
    return exit_code_of(result, config.fail_on, allow_empty=allow_empty)
