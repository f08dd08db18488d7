"""The commands: the only place that prints, exits and catches.

Exit codes: 0 nothing at or above --fail-on, 1 findings, 2 something could not be read or was
asked for wrongly, 3 no file had a BN layer. 2 wins over 1, 1 over 3.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from bninspect import __version__
from bninspect.errors import BninspectError, UsageProblem
from bninspect.options import common_options
from bninspect.output import destinations, drop_output, output_stream, terminal_width
from bninspect.writers import CHECK, COMPARE, DUMP, LIST, Wishes, write

if TYPE_CHECKING:
    from bninspect.findings import Report

OK, FINDINGS, PROBLEM, NOTHING_CHECKED = 0, 1, 2, 3
# What a shell reports of a program that SIGINT ended.
INTERRUPTED = 130
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
    bninspect rule BN101                    what does a finding mean, how is it fixed?
    """


@main.command(short_help="Judge: did training update the BN statistics?")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@common_options(
    CHECK,
    quiet="Only the verdict on each checkpoint.",
    verbose="Name every layer of a finding.",
)
@click.option(
    "--select", multiple=True, metavar="CODES", help="Only these rules (BN101,BN2); repeatable."
)
@click.option("--ignore", multiple=True, metavar="CODES", help="Not these rules; repeatable.")
@click.option(
    "--fail-on",
    type=click.Choice(("error", "warning", "note", "never")),
    default="error",
    show_default=True,
    help="The least severity that makes the exit code 1.",
)
@click.option("--allow-empty", is_flag=True, help="No BN layer anywhere is exit 0, not 3.")
@click.option(
    "--skip-unknown",
    is_flag=True,
    help="Pass over a file that is no checkpoint, as in a directory: for tools that list files.",
)
@click.option(
    "--momentum",
    type=float,
    metavar="M",
    help="The layers' momentum (slim: decay), where nothing stored tells it; for BN106 and BN303.",
)
@click.option(
    "--since",
    metavar="CHECKPOINT",
    help="An earlier checkpoint of the training: what stood still since then is BN107. With"
    " --all-checkpoints each is compared with the one before it unless this is given.",
)
def check(
    paths: tuple[str, ...],
    formats: list[tuple[str, str | None]],
    output: str | None,
    patterns: tuple[str, ...],
    all_checkpoints: bool,
    engine: str,
    quiet: bool,
    verbose: bool,
    color: str,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    fail_on: str,
    allow_empty: bool,
    skip_unknown: bool,
    momentum: float | None,
    since: str | None,
) -> int:
    """Say which BN statistics training never updated, why that is bad, and how to fix it.

    PATH is a checkpoint's prefix or any of its files, a Keras file, a training directory (its
    newest checkpoint), a directory of models (every checkpoint below it), or a pattern.

    \b
    Exit codes: 0 nothing at or above --fail-on, 1 findings, 2 something could
    not be read or the call was wrong, 3 no BN layer anywhere.

    \b
    bninspect check model.ckpt-200
    bninspect check run1/ run2/ --format json=report.json --format text
    bninspect check training_dir/ --all-checkpoints
    bninspect check model.ckpt-400 --since model.ckpt-200
    bninspect check model.h5 --ignore BN303 --fail-on warning
    bninspect check runs/ --format sarif=bninspect.sarif --format github
    """
    from bninspect.config import make_config  # noqa: PLC0415
    from bninspect.inspection import check_paths  # noqa: PLC0415

    targets = destinations(formats, output)
    config = make_config(
        select,
        ignore,
        momentum,
        patterns,
        all_checkpoints=all_checkpoints,
        engine=engine,
        since=since,
        skip_unknown=skip_unknown,
    )
    report = check_paths(paths, config)
    earlier = () if since is None else (since,)
    wishes = Wishes(color, quiet, verbose, fail_on, allow_empty)
    write(report, CHECK, targets, (*paths, *earlier, *_opened(report)), wishes)
    files = [path for _, path in targets if path is not None]
    if files and not quiet:
        from bninspect.reporters.text import summary  # noqa: PLC0415

        click.echo(f"{summary(report)}; written to {', '.join(files)}", err=True)
    return _exit_code(report, fail_on, allow_empty=allow_empty)


@main.command(name="list", short_help="List the BN layers and what is stored of them.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@common_options(
    LIST,
    quiet="Only the names of the layers, one per line.",
    verbose="Add the stored name of each variable.",
)
def list_(
    paths: tuple[str, ...],
    formats: list[tuple[str, str | None]],
    output: str | None,
    patterns: tuple[str, ...],
    all_checkpoints: bool,
    engine: str,
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
    from bninspect.config import make_config  # noqa: PLC0415
    from bninspect.inspection import list_paths  # noqa: PLC0415

    targets = destinations(formats, output)
    config = make_config(patterns=patterns, all_checkpoints=all_checkpoints, engine=engine)
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
    formats: list[tuple[str, str | None]],
    output: str | None,
    patterns: tuple[str, ...],
    all_checkpoints: bool,
    engine: str,
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
    from bninspect.config import make_config  # noqa: PLC0415
    from bninspect.inference import inference  # noqa: PLC0415
    from bninspect.inspection import read_values  # noqa: PLC0415
    from bninspect.selection import choose_layers  # noqa: PLC0415

    targets = destinations(formats, output)
    for name, file in targets:
        if name == "npz" and file is None:
            raise UsageProblem("--format npz is binary: give a file with --format npz=FILE.")
        if name != "npz" and file is not None and file.endswith(".npz"):
            raise UsageProblem(f"{file} looks like NumPy's archive: use --format npz.")
    config = make_config(patterns=patterns, all_checkpoints=all_checkpoints, engine=engine)
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
    wishes = Wishes(color, quiet, verbose, several=all_checkpoints)
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
def compare(
    paths: tuple[str, ...],
    formats: list[tuple[str, str | None]],
    output: str | None,
    patterns: tuple[str, ...],
    engine: str,
    quiet: bool,
    verbose: bool,
    color: str,
) -> int:
    """Say what moved and what stood still in a training, layer by layer.

    PATH names two checkpoints of one training or more, oldest first. A directory stands for all
    that it keeps. Layers belong together by name, also across containers (a .keras file and a
    TensorFlow checkpoint).

    \b
    Exit codes: 0 no error, 1 statistics stood still while training went on (BN107),
    2 something could not be read, or fewer than two checkpoints, 3 no BN layer to compare.

    \b
    bninspect compare model.ckpt-200 model.ckpt-400
    bninspect compare training_dir/
    bninspect compare training_dir/ --format csv -o changes.csv
    """
    from bninspect.config import make_config  # noqa: PLC0415
    from bninspect.inspection import compare_paths  # noqa: PLC0415

    targets = destinations(formats, output)
    comparison = compare_paths(paths, make_config(patterns=patterns, engine=engine))
    opened = (item.resolved or item.path for item in comparison.checkpoints)
    write(comparison, COMPARE, targets, (*paths, *opened), Wishes(color, quiet, verbose))
    if comparison.unreadable:
        return PROBLEM
    if any(finding.severity == "error" for finding in comparison.findings):
        return FINDINGS
    return OK if any(layer.compared for layer in comparison.layers) else NOTHING_CHECKED


@main.command(short_help="Explain the rules: meaning, causes, fix.")
@click.argument("code", required=False)
def rule(code: str | None) -> int:
    """Show the catalogue of rules, or one rule's page: meaning, causes, fix.

    \b
    bninspect rule
    bninspect rule BN101
    """
    from bninspect.reporters.catalogue import write_catalogue, write_rule  # noqa: PLC0415
    from bninspect.rules import RULES, rule_called  # noqa: PLC0415

    chosen = rule_called(code) if code else None
    with output_stream(None) as stream:
        if chosen is None:
            write_catalogue(RULES, stream)
        else:
            write_rule(chosen, stream, width=min(terminal_width(stream) or 80, 100))
    return OK


@main.command(short_help="Print the JSON Schema of --format json.")
def schema() -> int:
    """Print the JSON Schema (draft 2020-12) that every document of --format json follows.

    The JSON is only ever extended: ignore keys that you do not know.

    \b
    bninspect schema > bninspect.schema.json
    """
    from bninspect.reporters.json_v1 import schema_text  # noqa: PLC0415

    with output_stream(None) as stream:
        stream.write(schema_text())
    return OK


def _exit_code(report: Report, fail_on: str, *, allow_empty: bool) -> int:
    from bninspect.findings import SEVERITIES  # noqa: PLC0415

    if report.unreadable:
        return PROBLEM
    failing = SEVERITIES[: SEVERITIES.index(fail_on) + 1] if fail_on in SEVERITIES else ()
    if any(finding.severity in failing for finding in report.findings):
        return FINDINGS
    return OK if report.layer_count or allow_empty else NOTHING_CHECKED


def _opened(report: Report) -> Iterator[str]:
    """What was read besides what was typed: a directory or a pattern names files, too."""
    return (item.resolved or item.path for item in report.checkpoints)
