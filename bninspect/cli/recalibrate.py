"""The command `recalibrate`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from operator import length_hint
from typing import TYPE_CHECKING

import click

from bninspect.cli import help_texts
from bninspect.cli.exit_codes import OK, PROBLEM
from bninspect.cli.formats import RECALIBRATE, OutputOptions, write
from bninspect.cli.options import complete_files, recalibrate_options
from bninspect.cli.output import (
    Destination,
    destinations,
    refuse_to_overwrite_inputs,
    require_directory,
    standard_output,
)
from bninspect.errors import UsageProblem
from bninspect.model.filenames import checkpoint_of

if TYPE_CHECKING:
    from bninspect.recalibrate.estimate import Item


@click.command(
    short_help="Re-estimate stuck statistics from samples; writes a copy.",
    epilog=help_texts.RECALIBRATE,
)
@click.argument("model", shell_complete=complete_files)
@recalibrate_options(RECALIBRATE)
def recalibrate(
    model: str,
    data: str,
    output: str | None,
    feeds: tuple[str, ...],
    batch: int,
    samples: int | None,
    layers: tuple[str, ...],
    labels: str | None,
    force: bool,
    dry_run: bool,
    formats: list[tuple[str, str | None]],
    quiet: bool,
    verbose: bool,
    color: str,
) -> int:
    """Re-estimate the statistics of stuck BN layers from samples of your data.

    This command runs the model, with the TensorFlow or Keras that is installed. All BN layers
    normalize by the statistics of each batch, all else runs as at inference, and the moments of
    their inputs over all samples become the new statistics. They are written to a copy; MODEL stays
    as it is.

    That cures a model that was trained with batch statistics whose averages were never kept. It
    ruins one that was trained in inference mode, so such a model is refused, and so is one of which
    neither can be proved: --labels decide it then.
    """
    from bninspect.recalibrate.estimate import without_progress
    from bninspect.recalibrate.files import Options, recalibrate_file

    if output is None and not dry_run:
        raise UsageProblem("Name the file of the copy with -o FIXED, or use --dry-run.")
    targets = _destinations(formats, model, data, output)
    options = Options(data, output, feeds, labels, batch, samples, layers, force, dry_run)
    shows = not quiet and sys.stderr is not None and sys.stderr.isatty()
    result = recalibrate_file(model, options, _with_bar if shows else without_progress)
    style = OutputOptions(color, quiet, verbose)
    write(result, RECALIBRATE, targets, (model, data), style)
    return OK if result.ok else PROBLEM


def _destinations(
    formats: list[tuple[str, str | None]], model: str, data: str, output: str | None
) -> list[Destination]:
    """Return where the report goes, before anything is run.

    Raises `UsageProblem` if it would go over the model, the samples or the copy, if it cannot
    be written there, and for a page that would go to a terminal.
    """
    targets = destinations(formats, None)
    for name, path in targets:
        if path is None:
            printed = standard_output()
            if name == "html" and printed.isatty():
                raise UsageProblem(
                    "A page is not for a terminal: write it to a file with --format html=FILE.html."
                )
            continue
        refuse_to_overwrite_inputs(path, (model, data))
        if output is not None and _checkpoint(path) == _checkpoint(output):
            raise UsageProblem(f"The report and the copy cannot both be written to {output}.")
        require_directory(path)
    return targets


def _checkpoint(path: str) -> str:
    return checkpoint_of(os.path.realpath(path))


def _with_bar(step: str, batches: Iterable[Item], number: int | None) -> Iterable[Item]:
    """Yield the batches, and show on standard error how many are done."""
    from bninspect.cli.progress import ProgressBar

    total = length_hint(batches) if number is None else number
    bar = ProgressBar(total, sys.stderr, label=step)
    try:
        for batch in batches:
            yield batch
            bar.advance()
    finally:
        bar.erase()
