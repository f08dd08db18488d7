"""The command `dump`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bninspect.cli import help_texts
from bninspect.cli.errors import fail
from bninspect.cli.exit_codes import OK, PROBLEM
from bninspect.cli.formats import DUMP, OutputOptions, write
from bninspect.cli.options import common_options, complete_files
from bninspect.cli.output import destinations
from bninspect.errors import UsageProblem

if TYPE_CHECKING:
    from bninspect.config.model import Config
from bninspect.cli.output import keep_settings, opened_paths


@click.command(short_help="Show the values of layers, channel by channel.", epilog=help_texts.DUMP)
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
    from bninspect.batchnorm.inference import inference
    from bninspect.runs.run import read_values
    from bninspect.verdicts.selection import choose_layers

    targets = destinations(formats, output)
    keep_settings(targets, config)
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
    options = OutputOptions(color, quiet, verbose, several=config.all_checkpoints)
    write(dumps, DUMP, targets, (path, *opened_paths(report)), options)
    return PROBLEM if report.unreadable else OK
