"""The command `check`, with --resume and --update-baseline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from bninspect.cli import help_texts
from bninspect.cli.errors import fail, tell
from bninspect.cli.exit_codes import INTERRUPTED, NOTHING_CHECKED, OK, exit_code_of
from bninspect.cli.formats import CHECK, STREAMED, OutputOptions
from bninspect.cli.options import PATHS, check_options, common_options
from bninspect.cli.output import destinations, output_stream, refuse_input, refuse_settings
from bninspect.errors import UsageProblem

if TYPE_CHECKING:
    from bninspect.config.model import Config
from bninspect.cli.output import opened_paths


@click.command(short_help="Judge: did training update the BN statistics?", epilog=help_texts.CHECK)
@PATHS
@common_options(
    CHECK,
    quiet="Only the verdict on each checkpoint.",
    verbose="Name every layer of a finding.",
)
@check_options
def check(
    paths: tuple[str, ...],
    config: Config,
    formats: list[tuple[str, str | None]],
    output: str | None,
    quiet: bool,
    verbose: bool,
    color: str,
    allow_empty: bool,
    resume: str | None,
    update_baseline: bool,
) -> int:
    """Say which BN statistics training never updated, why that is bad, and how to fix it.

    Every rule is applied to every BN layer of each PATH. A finding is an error, a warning or a
    note; it comes with the evidence that the files hold, with the cause where they prove one, and
    with the fix. `bninspect rule` lists the rules, `bninspect rule CODE` explains one.

    What holds for a project is best written into a configuration file: rules to leave out, findings
    to live with, own names (`bninspect config`).
    """
    from dataclasses import replace

    from bninspect.cli.streaming import open_sink
    from bninspect.runs.run import check_paths

    targets = destinations(formats, output)
    files = [path for _, path in targets if path is not None]
    if update_baseline and resume is not None:
        raise UsageProblem("--update-baseline looks at everything: leave --resume away.")
    if update_baseline:
        return _update_baseline(paths, config, files, quiet=quiet, allow_empty=allow_empty)
    refuse_settings(files, (config.file, config.baseline))
    options = OutputOptions(color, quiet, verbose, config.fail_on, allow_empty, resume=resume)
    given = paths if config.since is None else (*paths, config.since)
    for file in files:
        refuse_input(file, given)
    results = None
    if resume is not None or any(name in STREAMED for name, _ in targets):
        from bninspect.runs.resume import Results, settings_of

        config = replace(config, states=True)
        options = options._replace(settings=settings_of(config))
        if resume is not None and not _begins(resume, targets):
            results = Results(resume, options.settings)
    with open_sink(targets, options) as sink:
        report = check_paths(paths, config, sink, results)
        sink.end(report, (*given, *opened_paths(report)))
    if files and not quiet:
        from bninspect.reporters.escapes import printable
        from bninspect.reporters.verdict_text import summary

        tell(printable(f"{summary(report)}; written to {', '.join(files)}"))
    if report.interrupted:
        return fail("interrupted", INTERRUPTED)
    return exit_code_of(report, config.fail_on, allow_empty=allow_empty)


def _update_baseline(
    paths: tuple[str, ...], config: Config, files: list[str], *, quiet: bool, allow_empty: bool
) -> int:
    """Write the findings of today to the baseline, or nothing if it would not hold them all."""
    from dataclasses import replace

    from bninspect.cli.streaming import open_sink
    from bninspect.reporters.escapes import printable
    from bninspect.runs.run import check_paths
    from bninspect.verdicts.baseline import refuse_other_file, write_baseline
    from bninspect.wording import plural

    target = config.baseline
    if target is None:
        raise UsageProblem(
            "--update-baseline needs the file to write: `bninspect check PATH..."
            " --baseline FILE --update-baseline`."
        )
    if files:
        raise UsageProblem(f"--update-baseline writes no report: leave {files[0]} away.")
    refuse_other_file(target)
    with open_sink([], OutputOptions(quiet=quiet), kept=True) as sink:
        report = check_paths(paths, replace(config, baseline=None), sink)
        sink.end(report, ())
    if report.interrupted:
        return fail(f"interrupted; {target} is left as it was.", INTERRUPTED)
    for item in report.checkpoints:
        if item.error is not None:
            fail(str(item.error))
    if report.unreadable:
        missing = plural(report.unreadable, "checkpoint")
        return fail(f"{target} is left as it was: {missing} could not be read.")
    if not report.checked and not allow_empty:
        why = "could be compared" if report.layer_count else "is there"
        return fail(f"{target} is left as it was: no BN layer {why}.", NOTHING_CHECKED)
    refuse_input(target, (*paths, *opened_paths(report)))
    with output_stream(target) as stream:
        count = write_baseline(report.findings, stream)
    if not quiet:
        tell(
            f"{plural(count, 'finding')} of {plural(len(report.checkpoints), 'checkpoint')}"
            f" written to {printable(target)}"
        )
    return OK


def _begins(resume: str, targets: Sequence[tuple[str, str | None]]) -> bool:
    """Whether the file to go on with is not there yet, for this run is the first to write it.

    Raises `UsageProblem` if another format is to be written to it.
    """
    from bninspect.cli.streaming import same_file

    refuse_settings((path for name, path in targets if path and name not in STREAMED), (resume,))
    written = any(path is not None and same_file(path, resume) for _, path in targets)
    return written and not os.path.exists(resume)
