"""The command `dump`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from bninspect.cli import help_texts
from bninspect.cli.errors import fail, tell
from bninspect.cli.exit_codes import OK, PROBLEM
from bninspect.cli.formats import DUMP, OutputOptions, write
from bninspect.cli.options import common_options, complete_files
from bninspect.cli.output import (
    Destination,
    opened_paths,
    refuse_to_overwrite_config,
)
from bninspect.errors import UsageProblem

if TYPE_CHECKING:
    from bninspect.config.model import Config
    from bninspect.model.report import Report


def _complete_layers(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Return the names of layers that begin as typed; none if the path cannot be read."""
    from bninspect.config.model import Config
    from bninspect.errors import BninspectError
    from bninspect.runs.run import list_paths
    from bninspect.storage.urls import is_url

    # click leaves the words before an option without a value where they are.
    path = next((word for word in context.args if not word.startswith("-")), None)
    if path is None or is_url(path):  # a shell does not wait for a network
        return []
    try:
        report = list_paths((path,), Config())
    except (BninspectError, OSError):
        return []
    names = dict.fromkeys(layer.name for item in report.checkpoints for layer in item.layers)
    return [name for name in names if name.startswith(typed) and name.isprintable()]


@click.command(short_help="Show the values of layers, channel by channel.", epilog=help_texts.DUMP)
@click.argument("path", shell_complete=complete_files)
@click.option(
    "--layer",
    "names",
    multiple=True,
    metavar="NAME",
    shell_complete=_complete_layers,
    help="The layer's name, exact or as a glob ('conv*', '*' for all). Repeatable.",
)
@common_options(
    DUMP,
    quiet="Print only the tables, no histograms.",
    verbose="Show every channel of every layer.",
)
def dump(
    path: str,
    names: tuple[str, ...],
    config: Config,
    targets: Sequence[Destination],
    options: OutputOptions,
) -> int:
    """Show the values of layers, channel by channel, and what inference does with them.

    PATH is what `check` takes and names one checkpoint. With --all-checkpoints it may name
    several; then the values of each are written under its path.
    """
    from bninspect.batchnorm.inference import inference
    from bninspect.runs.run import read_values
    from bninspect.verdicts.selection import choose_layers

    refuse_to_overwrite_config(targets, config)
    _require_format_of_archives(targets)
    report = read_values(path, config)
    if not names:
        return _ask_for_layer(path, report)
    chosen = choose_layers(path, report, names)
    dumps = [
        (item, [(layer, inference(layer)) for layer in item.layers if layer.name in chosen])
        for item in report.checkpoints
        if item.error is None
    ]
    for item in report.checkpoints:
        if item.error is not None:
            fail(str(item.error))
    options = options._replace(several=config.all_checkpoints)
    write(dumps, DUMP, targets, (path, *opened_paths(report)), options)
    return PROBLEM if report.unreadable else OK


def _require_format_of_archives(targets: Sequence[Destination]) -> None:
    """Raise `UsageProblem` if the format npz has no file, or an .npz file another format."""
    for name, file in targets:
        if name == "npz" and file is None:
            raise UsageProblem("--format npz is binary: give a file with --format npz=FILE.")
        if name != "npz" and file is not None and file.endswith(".npz"):
            raise UsageProblem(f"{file} looks like a NumPy archive: use --format npz.")


def _ask_for_layer(path: str, report: Report) -> int:
    """Name the layers that --layer can choose from; returns the exit code of wrong usage."""
    from bninspect.reporters.escapes import printable

    names = dict.fromkeys(layer.name for item in report.checkpoints for layer in item.layers)
    if not names:
        return fail(f"{path} has no BN layer.")
    code = fail(f"--layer NAME is missing. {path} has these BN layers ('*' stands for all):")
    for name in names:
        tell(f"  {printable(name)}")
    return code
