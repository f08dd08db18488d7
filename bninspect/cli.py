"""The commands: the only place that prints, exits and catches."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from bninspect import __version__, manual
from bninspect.about import config_, rule, schema
from bninspect.errors import BninspectError, UsageProblem
from bninspect.exit_codes import (
    FINDINGS,
    INTERRUPTED,
    NOTHING_CHECKED,
    OK,
    PROBLEM,
    exit_code_of,
)
from bninspect.faults import (
    fail,
    internal_error,
    missing_package,
    system_fault,
    tell,
)
from bninspect.options import (
    PATHS,
    check_options,
    common_options,
    complete_files,
    fail_on_option,
)
from bninspect.output import (
    destinations,
    drop_output,
    output_stream,
    refuse_input,
    refuse_settings,
)
from bninspect.page import report
from bninspect.watch import watch
from bninspect.writers import CHECK, COMPARE, DUMP, LIST, STREAMED, Wishes, write

if TYPE_CHECKING:
    from bninspect.config import Config
    from bninspect.findings import Report


def run(arguments: list[str] | None = None) -> None:
    """Run the program and exit: problems as one sentence, bugs with a traceback and exit 2.

    `arguments` are those of the command line if None. What the terminal's encoding lacks is
    written as an escape.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if sys.stdout is None:
            raise UsageProblem("standard output is closed; use --output FILE.")
        given = _without_secrets(sys.argv[1:] if arguments is None else arguments)
        code = main.main(args=given, prog_name="bninspect", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as problem:
        with suppress(OSError):
            problem.show()
        code = problem.exit_code
    except BninspectError as problem:
        code = fail(str(problem))
    except (click.Abort, KeyboardInterrupt):
        code = fail("interrupted", INTERRUPTED)
    except OSError as error:  # readers turn theirs into a ReadProblem
        drop_output()
        code = fail(system_fault(error))
    except Exception as error:  # a bug of ours must not pass for exit 1, "findings"
        code = fail(missing_package(error) or internal_error())
    sys.exit(code)


def _without_secrets(arguments: list[str]) -> list[str]:
    """The arguments, URLs without what must be in no message and report."""
    if not any("://" in one for one in arguments):
        return arguments
    from bninspect.formats import urls  # noqa: PLC0415 - few read from afar

    return urls.arguments(arguments)


class _Commands(click.Group):
    """The commands; whoever gives a path without one learns which takes it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the call that was meant where a path stands for the command."""
        if args[0] not in self.commands and any(mark in args[0] for mark in "./"):
            given = shlex.quote(args[0])
            raise click.UsageError(f"A command is missing: `bninspect check {given}`?", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=manual.MAIN,
)
@click.version_option(__version__, prog_name="bninspect")
def main() -> None:
    """Find batch-normalization statistics that training never updated.

    Reads TensorFlow checkpoints (V1, V2, object-based), SavedModels and Keras files (.h5,
    .weights.h5, .keras) without importing TensorFlow, and without running what they hold.
    """


@main.command(short_help="Judge: did training update the BN statistics?", epilog=manual.CHECK)
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
    from dataclasses import replace  # noqa: PLC0415

    from bninspect.following import follow  # noqa: PLC0415
    from bninspect.inspection import check_paths  # noqa: PLC0415

    targets = destinations(formats, output)
    files = [path for _, path in targets if path is not None]
    if update_baseline and resume is not None:
        raise UsageProblem("--update-baseline looks at everything: leave --resume away.")
    if update_baseline:
        return _update_baseline(paths, config, files, quiet=quiet, allow_empty=allow_empty)
    refuse_settings(files, (config.file, config.baseline))
    wishes = Wishes(color, quiet, verbose, config.fail_on, allow_empty, resume=resume)
    given = paths if config.since is None else (*paths, config.since)
    for file in files:
        refuse_input(file, given)
    results = None
    if resume is not None or any(name in STREAMED for name, _ in targets):
        from bninspect.resuming import Results, settings_of  # noqa: PLC0415

        config = replace(config, states=True)
        wishes = wishes._replace(settings=settings_of(config))
        if resume is not None and not _begins(resume, targets):
            results = Results(resume, wishes.settings)
    with follow(targets, wishes) as follower:
        report = check_paths(paths, config, follower, results)
        follower.end(report, (*given, *_opened(report)))
    if files and not quiet:
        from bninspect.reporters.outcomes import summary  # noqa: PLC0415
        from bninspect.reporters.words import printable  # noqa: PLC0415

        tell(printable(f"{summary(report)}; written to {', '.join(files)}"))
    if report.interrupted:
        return fail("interrupted", INTERRUPTED)
    return exit_code_of(report, config.fail_on, allow_empty=allow_empty)


@main.command(
    name="list",
    short_help="List the BN layers and what is stored of them.",
    epilog=manual.LIST,
)
@PATHS
@common_options(
    LIST,
    quiet="Only the names of the layers, one per line.",
    verbose="Add the stored name of each variable.",
)
def list_(
    paths: tuple[str, ...],
    config: Config,
    formats: list[tuple[str, str | None]],
    output: str | None,
    quiet: bool,
    verbose: bool,
    color: str,
) -> int:
    """List the BN layers: name, family, channels, what is stored, range of each statistic.

    Nothing is judged. Where no BN layer is found, --verbose shows the names of all variables, from
    which --pattern can be made.
    """
    from bninspect.inspection import list_paths  # noqa: PLC0415

    targets = destinations(formats, output)
    _keep_settings(targets, config)
    report = list_paths(paths, config)
    write(report, LIST, targets, (*paths, *_opened(report)), Wishes(color, quiet, verbose))
    return PROBLEM if report.unreadable else OK


@main.command(short_help="Show the values of layers, channel by channel.", epilog=manual.DUMP)
@click.argument("path", shell_complete=complete_files)
@click.option(
    "--layer",
    "names",
    multiple=True,
    required=True,
    metavar="NAME",
    help="The layer's name, exact or as a glob ('conv*', '*' for all); repeatable.",
)
@common_options(
    DUMP,
    quiet="Only the tables, no histograms.",
    verbose="Every channel of every layer.",
)
def dump(
    path: str,
    names: tuple[str, ...],
    config: Config,
    formats: list[tuple[str, str | None]],
    output: str | None,
    quiet: bool,
    verbose: bool,
    color: str,
) -> int:
    """Show the values of layers, channel by channel, and what inference does with them.

    PATH is what `check` takes and names one checkpoint. With --all-checkpoints it may name
    several; then the values of each are written under its path.
    """
    from bninspect.inference import inference  # noqa: PLC0415
    from bninspect.inspection import read_values  # noqa: PLC0415
    from bninspect.selection import choose_layers  # noqa: PLC0415

    targets = destinations(formats, output)
    _keep_settings(targets, config)
    for name, file in targets:
        if name == "npz" and file is None:
            raise UsageProblem("--format npz is binary: give a file with --format npz=FILE.")
        if name != "npz" and file is not None and file.endswith(".npz"):
            raise UsageProblem(f"{file} looks like NumPy's archive: use --format npz.")
    report = read_values(path, config)
    chosen = choose_layers(path, report, names)
    dumps = [
        (item, [(layer, inference(layer)) for layer in item.layers if layer.name in chosen])
        for item in report.checkpoints
        if item.error is None
    ]
    for item in report.checkpoints:
        if item.error is not None:
            fail(str(item.error))
    wishes = Wishes(color, quiet, verbose, several=config.all_checkpoints)
    write(dumps, DUMP, targets, (path, *_opened(report)), wishes)
    return PROBLEM if report.unreadable else OK


@main.command(
    short_help="What moved, what stood still, from checkpoint to checkpoint?", epilog=manual.COMPARE
)
@PATHS
@common_options(
    COMPARE,
    all_checkpoints=False,
    quiet="Only the verdict.",
    verbose="Show every layer and checkpoint.",
)
@fail_on_option
def compare(
    paths: tuple[str, ...],
    config: Config,
    formats: list[tuple[str, str | None]],
    output: str | None,
    quiet: bool,
    verbose: bool,
    color: str,
) -> int:
    """Say what moved and what stood still in a training, layer by layer.

    PATH names two checkpoints of one training or more, oldest first. A directory stands for all
    that it keeps. Layers belong together by name, also across containers (a .keras file and a
    TensorFlow checkpoint).

    An error is what the newest checkpoint shows: statistics that stand still while training goes on
    (BN107), NaN or infinity (BN301), a negative variance (BN302). Of what is over by then a warning
    is left.
    """
    from bninspect.findings import any_at_least  # noqa: PLC0415
    from bninspect.inspection import compare_paths  # noqa: PLC0415

    targets = destinations(formats, output)
    _keep_settings(targets, config)
    comparison = compare_paths(paths, config)
    opened = (item.resolved or item.path for item in comparison.checkpoints)
    write(comparison, COMPARE, targets, (*paths, *opened), Wishes(color, quiet, verbose))
    if comparison.unreadable:
        return PROBLEM
    if any_at_least(config.fail_on, comparison.findings):
        return FINDINGS
    return OK if any(layer.compared for layer in comparison.layers) else NOTHING_CHECKED


main.add_command(config_)
main.add_command(report)
main.add_command(rule)
main.add_command(schema)
main.add_command(watch)


def _update_baseline(
    paths: tuple[str, ...], config: Config, files: list[str], *, quiet: bool, allow_empty: bool
) -> int:
    """Write the findings of today to the baseline, or nothing if it would not hold them all."""
    from dataclasses import replace  # noqa: PLC0415

    from bninspect.baseline import refuse_other_file, write_baseline  # noqa: PLC0415
    from bninspect.following import follow  # noqa: PLC0415
    from bninspect.inspection import check_paths  # noqa: PLC0415
    from bninspect.reporters.words import plural, printable  # noqa: PLC0415

    target = config.baseline
    if target is None:
        raise UsageProblem(
            "--update-baseline needs the file to write: `bninspect check PATH..."
            " --baseline FILE --update-baseline`."
        )
    if files:
        raise UsageProblem(f"--update-baseline writes no report: leave {files[0]} away.")
    refuse_other_file(target)
    with follow([], Wishes(quiet=quiet), kept=True) as follower:
        report = check_paths(paths, replace(config, baseline=None), follower)
        follower.end(report, ())
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
    refuse_input(target, (*paths, *_opened(report)))
    with output_stream(target) as stream:
        count = write_baseline(report.findings, stream)
    if not quiet:
        tell(
            f"{plural(count, 'finding')} of {plural(len(report.checkpoints), 'checkpoint')}"
            f" written to {printable(target)}"
        )
    return OK


def _keep_settings(targets: Sequence[tuple[str, str | None]], config: Config) -> None:
    """Raise `UsageProblem` if a file to write is what this run goes by."""
    written = (file for _, file in targets if file is not None)
    refuse_settings(written, (config.file, config.baseline))


def _begins(resume: str, targets: Sequence[tuple[str, str | None]]) -> bool:
    """Whether the file to go on with is not there yet, for this run is the first to write it.

    Raises `UsageProblem` if another format is to be written to it.
    """
    from bninspect.following import same_file  # noqa: PLC0415

    refuse_settings((path for name, path in targets if path and name not in STREAMED), (resume,))
    written = any(path is not None and same_file(path, resume) for _, path in targets)
    return written and not os.path.exists(resume)


def _opened(report: Report) -> Iterator[str]:
    """What was read besides what was typed: a directory or a pattern names files, too."""
    return (item.resolved or item.path for item in report.checkpoints)
