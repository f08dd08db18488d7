"""The command `check`, with --resume."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from bninspect.cli import help_texts
from bninspect.cli.errors import fail, tell
from bninspect.cli.exit_codes import INTERRUPTED, exit_code_of
from bninspect.cli.formats import CHECK, STREAMED, OutputOptions
from bninspect.cli.options import PATHS, check_options, common_options
from bninspect.cli.output import (
    Destination,
    opened_paths,
    refuse_to_overwrite_config,
    refuse_to_overwrite_inputs,
    refuse_to_overwrite_settings,
)
from bninspect.errors import UsageProblem

if TYPE_CHECKING:
    from bninspect.config.model import Config
    from bninspect.model.report import Report
    from bninspect.runs.resume import Results


@click.command(short_help="Judge: did training update the BN statistics?", epilog=help_texts.CHECK)
@PATHS
@common_options(
    CHECK,
    quiet="Print only the verdict on each checkpoint.",
    verbose="Name every layer of a finding.",
)
@check_options
def check(
    paths: tuple[str, ...],
    config: Config,
    targets: Sequence[Destination],
    options: OutputOptions,
    allow_empty: bool,
    resume: str | None,
    statistics: bool,
    update_baseline: bool,
) -> int:
    """Find BN statistics that training never updated; say why that is bad and how to fix it.

    Every rule is applied to every BN layer of each PATH. A finding is an error, a warning or a
    note. It comes with the evidence that the files hold, with the cause where they prove one, and
    with the fix. `bninspect rule` lists the rules, `bninspect rule CODE` explains one.

    Settings of a project belong in a configuration file: rules to leave out, findings to accept,
    names of your own (`bninspect config`).
    """
    if update_baseline:
        from bninspect.cli.update_baseline import update

        if resume is not None:
            raise UsageProblem(
                "--update-baseline cannot be combined with --resume: it has to check every"
                " checkpoint."
            )
        return update(paths, config, targets, quiet=options.quiet, allow_empty=allow_empty)
    if statistics and all(target.format != "text" for target in targets):
        raise UsageProblem("--statistics is for --format text; markdown always has groups.")
    inputs = paths if config.since is None else (*paths, config.since)
    refuse_to_overwrite_config(targets, config)
    files = [path for _, path in targets if path is not None]
    for file in files:
        refuse_to_overwrite_inputs(file, inputs)
    options = options._replace(
        fail_on=config.fail_on,
        allow_empty=allow_empty,
        resume=resume,
        statistics=statistics,
        momentum=config.momentum,
    )
    report = _check(paths, inputs, config, targets, options)
    if files and not options.quiet:
        _tell_where(report, files)
    if report.interrupted:
        return fail("interrupted", INTERRUPTED)
    return exit_code_of(report, config.fail_on, allow_empty=allow_empty)


def _check(
    paths: tuple[str, ...],
    inputs: tuple[str, ...],
    config: Config,
    targets: Sequence[Destination],
    options: OutputOptions,
) -> Report:
    """Check the paths and write the results; returns the report without its layers."""
    from bninspect.cli.streaming import open_sink
    from bninspect.runs.run import check_paths

    results = None
    if options.resume is not None or any(target.format in STREAMED for target in targets):
        from bninspect.runs.resume import settings_of

        config = replace(config, fingerprints=True)
        options = options._replace(settings=settings_of(config))
        results = _earlier_results(options, targets, names_earlier=config.since is not None)
    with open_sink(targets, options) as sink:
        report = check_paths(paths, config, sink, results)
        sink.end(report, (*inputs, *opened_paths(report)))
    return report


def _earlier_results(
    options: OutputOptions, targets: Sequence[Destination], *, names_earlier: bool
) -> Results | None:
    """Open the results to resume; None if this run is the first to write that file.

    `names_earlier` is that of `Results`. Raises `UsageProblem` if another format is to be written
    to it.
    """
    from bninspect.cli.streaming import is_same_file
    from bninspect.runs.resume import Results

    resume = options.resume
    if resume is None:
        return None
    other_files = (path for name, path in targets if path and name not in STREAMED)
    refuse_to_overwrite_settings(other_files, (resume,))
    is_written = any(path is not None and is_same_file(path, resume) for _, path in targets)
    if is_written and not os.path.exists(resume):
        return None
    return Results(resume, options.settings, names_earlier=names_earlier)


def _tell_where(report: Report, files: Sequence[str]) -> None:
    """Write the counts and the names of the written files to standard error."""
    from bninspect.reporters.escapes import printable
    from bninspect.reporters.verdict_text import summary

    tell(printable(f"{summary(report)}; written to {', '.join(files)}"))
