"""The command `compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bninspect.cli import help_texts
from bninspect.cli.exit_codes import FINDINGS, NOTHING_CHECKED, OK, PROBLEM
from bninspect.cli.formats import COMPARE, OutputOptions, write
from bninspect.cli.options import PATHS, common_options, fail_on_option
from bninspect.cli.output import destinations

if TYPE_CHECKING:
    from bninspect.config.model import Config
from bninspect.cli.output import keep_settings


@click.command(
    short_help="What moved, what stood still, from checkpoint to checkpoint?",
    epilog=help_texts.COMPARE,
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
    from bninspect.model.report import any_at_least
    from bninspect.runs.compare import compare_paths

    targets = destinations(formats, output)
    keep_settings(targets, config)
    comparison = compare_paths(paths, config)
    opened = (item.resolved or item.path for item in comparison.checkpoints)
    write(comparison, COMPARE, targets, (*paths, *opened), OutputOptions(color, quiet, verbose))
    if comparison.unreadable:
        return PROBLEM
    if any_at_least(config.fail_on, comparison.findings):
        return FINDINGS
    return OK if any(layer.compared for layer in comparison.layers) else NOTHING_CHECKED
