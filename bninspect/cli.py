"""The commands: the only place that prints, exits and catches.

Exit codes: 0 nothing at or above --fail-on, 1 findings, 2 something could not be read or was
asked for wrongly, 3 nothing was checked: no file had a BN layer, or none that could be compared
where a comparison was asked for. 2 wins over 1, 1 over 3.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from bninspect import __version__
from bninspect.about import config_, rule, schema
from bninspect.errors import BninspectError, UsageProblem
from bninspect.exits import FINDINGS, INTERRUPTED, NOTHING_CHECKED, OK, PROBLEM
from bninspect.options import check_options, common_options, fail_on_option
from bninspect.output import (
    destinations,
    drop_output,
    output_stream,
    refuse_input,
    refuse_settings,
)
from bninspect.watch import watch
from bninspect.writers import CHECK, COMPARE, DUMP, LIST, Wishes, write

if TYPE_CHECKING:
    from bninspect.config import Config
    from bninspect.findings import Report

_ISSUES = "Please report this as a bug, with the lines above."


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
        code = main.main(args=arguments, prog_name="bninspect", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as problem:
        problem.show()
        code = problem.exit_code
    except BninspectError as problem:
        code = _fail(str(problem))
    except (click.Abort, KeyboardInterrupt):
        code = _fail("interrupted", INTERRUPTED)
    except OSError as error:  # readers turn theirs into a ReadProblem: this is about writing
        drop_output()
        code = _fail(f"the output cannot be written ({error.strerror or error}).")
    except Exception:  # a bug of ours must not pass for exit 1, "findings"
        import traceback  # noqa: PLC0415

        traceback.print_exc()
        code = _fail(f"{__version__}: internal error. {_ISSUES}")
    sys.exit(code)


def _fail(message: str, code: int = PROBLEM) -> int:
    from bninspect.reporters.text import printable  # noqa: PLC0415

    click.echo(f"bninspect: {printable(message)}", err=True)
    return code


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="bninspect")
def main() -> None:
    """Find batch-normalization statistics that training never updated.

    Reads TensorFlow checkpoints (V1, V2, object-based), SavedModels and Keras files (.h5,
    .weights.h5, .keras) without importing TensorFlow.

    \b
    PATH may be
      model.ckpt-200      the prefix of a checkpoint, or any of its files; a Keras file
      training_dir/       its newest checkpoint (--all-checkpoints: all of them)
      models/             without a `checkpoint` file: every checkpoint below it
      'runs/*/model.h5'   a pattern that the shell left alone

    \b
    bninspect check model.ckpt-200          is anything wrong? (exit code 1 if so)
    bninspect list model.h5                 which BN layers are in it?
    bninspect dump model.h5 --layer bn1     what are the values of this one?
    bninspect compare training_dir/         what moved from checkpoint to checkpoint?
    bninspect watch training_dir/           check each new checkpoint as it lands
    bninspect rule BN101                    what does a finding mean, how is it fixed?
    """


@main.command(short_help="Judge: did training update the BN statistics?")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
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
    update_baseline: bool,
) -> int:
    """Say which BN statistics training never updated, why that is bad, and how to fix it.

    PATH is a checkpoint's prefix or any of its files, a Keras file, a training directory (its
    newest checkpoint), a directory of models (every checkpoint below it), or a pattern.

    \b
    Exit codes: 0 nothing at or above --fail-on, 1 findings, 2 something could
    not be read or the call was wrong, 3 no BN layer anywhere, or none that
    could be compared with --since.

    \b
    bninspect check model.ckpt-200
    bninspect check run1/ run2/ --format json=report.json --format text
    bninspect check training_dir/ --all-checkpoints
    bninspect check model.ckpt-400 --since model.ckpt-200
    bninspect check model.h5 --ignore BN303 --fail-on warning
    bninspect check models/ --baseline known.json --update-baseline
    bninspect check models/ --baseline known.json
    bninspect check runs/ --format sarif=bninspect.sarif --format github
    """
    from bninspect.following import follow  # noqa: PLC0415
    from bninspect.inspection import check_paths  # noqa: PLC0415

    targets = destinations(formats, output)
    files = [path for _, path in targets if path is not None]
    if update_baseline:
        return _update_baseline(paths, config, files, quiet=quiet, allow_empty=allow_empty)
    refuse_settings(files, (config.file, config.baseline))
    wishes = Wishes(color, quiet, verbose, config.fail_on, allow_empty)
    given = paths if config.since is None else (*paths, config.since)
    for file in files:
        refuse_input(file, given)
    with follow(targets, wishes) as follower:
        report = check_paths(paths, config, follower)
        follower.end(report, (*given, *_opened(report)))
    if files and not quiet:
        from bninspect.reporters.text import summary  # noqa: PLC0415

        click.echo(f"{summary(report)}; written to {', '.join(files)}", err=True)
    if report.interrupted:
        return _fail("interrupted", INTERRUPTED)
    return _exit_code(report, config.fail_on, allow_empty=allow_empty)


@main.command(name="list", short_help="List the BN layers and what is stored of them.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
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

    PATH is a checkpoint's prefix or any of its files, a Keras file, a training directory (its
    newest checkpoint), a directory of models (every checkpoint below it), or a pattern.

    \b
    bninspect list model.ckpt-200
    bninspect list model.h5 --verbose      with the stored name of each variable
    bninspect list model.h5 --quiet        names only, for scripts
    """
    from bninspect.inspection import list_paths  # noqa: PLC0415

    targets = destinations(formats, output)
    report = list_paths(paths, config)
    write(report, LIST, targets, (*paths, *_opened(report)), Wishes(color, quiet, verbose))
    return PROBLEM if report.unreadable else OK


@main.command(short_help="Show the values of layers, channel by channel.")
@click.argument("path")
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

    \b
    bninspect dump model.ckpt-200 --layer resnet/unit_1/batch_normalization
    bninspect dump model.h5 --layer 'block*' --format csv -o values.csv
    bninspect dump model.h5 --layer '*' --format npz -o values.npz

    PATH is what `check` takes and names one checkpoint. With --all-checkpoints it may name
    several; then the values of each are written under its path.
    """
    from bninspect.inference import inference  # noqa: PLC0415
    from bninspect.inspection import read_values  # noqa: PLC0415
    from bninspect.selection import choose_layers  # noqa: PLC0415

    targets = destinations(formats, output)
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
            _fail(str(item.error))
    wishes = Wishes(color, quiet, verbose, several=config.all_checkpoints)
    write(dumps, DUMP, targets, (path, *_opened(report)), wishes)
    return PROBLEM if report.unreadable else OK


@main.command(short_help="What moved, what stood still, from checkpoint to checkpoint?")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
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
    (BN107), NaN or infinity (BN301). Of what is over by then a warning is left.

    \b
    Exit codes: 0 nothing at or above --fail-on, 1 findings, 2 something could
    not be read, or fewer than two checkpoints, 3 no BN layer to compare.

    \b
    bninspect compare model.ckpt-200 model.ckpt-400
    bninspect compare training_dir/
    bninspect compare training_dir/ --format csv -o changes.csv
    """
    from bninspect.findings import any_at_least  # noqa: PLC0415
    from bninspect.inspection import compare_paths  # noqa: PLC0415

    targets = destinations(formats, output)
    comparison = compare_paths(paths, config)
    opened = (item.resolved or item.path for item in comparison.checkpoints)
    write(comparison, COMPARE, targets, (*paths, *opened), Wishes(color, quiet, verbose))
    if comparison.unreadable:
        return PROBLEM
    if any_at_least(config.fail_on, comparison.findings):
        return FINDINGS
    return OK if any(layer.compared for layer in comparison.layers) else NOTHING_CHECKED


main.add_command(config_)
main.add_command(rule)
main.add_command(schema)
main.add_command(watch)


def _update_baseline(
    paths: tuple[str, ...], config: Config, files: list[str], *, quiet: bool, allow_empty: bool
) -> int:
    """Write the findings of today to the baseline, or nothing if it would not hold them all."""
    from dataclasses import replace  # noqa: PLC0415

    from bninspect.baseline import refuse_other_file, write_baseline  # noqa: PLC0415
    from bninspect.inspection import check_paths  # noqa: PLC0415
    from bninspect.reporters.text import plural, printable  # noqa: PLC0415

    target = config.baseline
    if target is None:
        raise UsageProblem(
            "--update-baseline needs the file to write: `bninspect check PATH..."
            " --baseline FILE --update-baseline`."
        )
    if files:
        raise UsageProblem(f"--update-baseline writes no report: leave {files[0]} away.")
    refuse_other_file(target)
    report = check_paths(paths, replace(config, baseline=None))
    for item in report.checkpoints:
        if item.error is not None:
            _fail(str(item.error))
    if report.unreadable:
        missing = plural(report.unreadable, "checkpoint")
        return _fail(f"{target} is left as it was: {missing} could not be read.")
    if not report.layer_count and not allow_empty:
        return _fail(f"{target} is left as it was: there is no BN layer.", NOTHING_CHECKED)
    refuse_input(target, (*paths, *_opened(report)))
    with output_stream(target) as stream:
        count = write_baseline(report.findings, stream)
    if not quiet:
        click.echo(
            f"{plural(count, 'finding')} of {plural(len(report.checkpoints), 'checkpoint')}"
            f" written to {printable(target)}",
            err=True,
        )
    return OK


def _exit_code(report: Report, fail_on: str, *, allow_empty: bool) -> int:
    from bninspect.findings import any_at_least  # noqa: PLC0415

    if report.unreadable:
        return PROBLEM
    if any_at_least(fail_on, report.findings):
        return FINDINGS
    checked = report.layer_count and not report.none_compared
    return OK if checked or allow_empty else NOTHING_CHECKED


def _opened(report: Report) -> Iterator[str]:
    """What was read besides what was typed: a directory or a pattern names files, too."""
    return (item.resolved or item.path for item in report.checkpoints)
