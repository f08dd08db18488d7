"""The command `list`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from bninspect.cli import help_texts
from bninspect.cli.exit_codes import OK, PROBLEM
from bninspect.cli.formats import LIST, OutputOptions, write
from bninspect.cli.options import PATHS, common_options, graph_option, search_options
from bninspect.cli.output import Destination, opened_paths, refuse_to_overwrite_config

if TYPE_CHECKING:
    from bninspect.config.model import Config


@click.command(
    name="list",
    short_help="List the BN layers and what is stored of them.",
    epilog=help_texts.LIST,
)
@PATHS
@graph_option
@common_options(
    LIST,
    quiet="Print only the names of the layers, one per line; of several checkpoints after the"
    " path.",
    verbose="Add the stored name of each variable.",
)
@search_options
def list_(
    paths: tuple[str, ...],
    config: Config,
    targets: Sequence[Destination],
    options: OutputOptions,
) -> int:
    """List the BN layers: name, family, channels, what is stored, range of each statistic.

    Nothing is judged. If no BN layer is found, --verbose shows the names of all variables, from
    which --pattern can be made. --graph needs the graph (.meta, graph.pbtxt) beside a checkpoint,
    a SavedModel or a whole Keras model.
    """
    from bninspect.runs.run import list_paths

    refuse_to_overwrite_config(targets, config)
    report = list_paths(paths, config)
    write(report, LIST, targets, (*paths, *opened_paths(report)), options)
    return PROBLEM if report.unreadable else OK
