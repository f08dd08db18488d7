"""The command `compare`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from bninspect.cli import help_texts
from bninspect.cli.exit_codes import FINDINGS, NOTHING_CHECKED, OK, PROBLEM
from bninspect.cli.formats import COMPARE, OutputOptions, write
from bninspect.cli.options import PATHS, common_options, fail_on_options
from bninspect.cli.output import Destination, refuse_to_overwrite_config

if TYPE_CHECKING:
    from bninspect.config.model import Config


@click.command(
    short_help="What moved, what stood still, from checkpoint to checkpoint?",
    epilog=help_texts.COMPARE,
)
@PATHS
@common_options(
    COMPARE,
    all_checkpoints=False,
    quiet="Print only the verdict.",
    verbose="Show every layer and checkpoint.",
)
@fail_on_options
def compare(
    paths: tuple[str, ...],
    config: Config,
    targets: Sequence[Destination],
    options: OutputOptions,
) -> int:
    """Show what moved and what stood still in a training, layer by layer.

    PATH names two or more checkpoints of one training, oldest first. A directory stands for all
    checkpoints in it. Layers are matched by name, also between formats (a .keras file and a
    TensorFlow checkpoint).

    An error is a defect of the newest checkpoint: statistics that stand still while training goes
    on (BN107), NaN or infinity (BN301), a negative variance (BN302). If it ended before the newest
    checkpoint, it is a warning.
    """
    from bninspect.model.report import any_at_least
    from bninspect.runs.compare import compare_paths

    refuse_to_overwrite_config(targets, config)
    comparison = compare_paths(paths, config)
    opened = (item.resolved or item.path for item in comparison.checkpoints)
    write(comparison, COMPARE, targets, (*paths, *opened), options)
    if comparison.unreadable:
        return PROBLEM
    if any_at_least(config.fail_on, comparison.findings):
        return FINDINGS
    return OK if any(layer.compared for layer in comparison.layers) else NOTHING_CHECKED
