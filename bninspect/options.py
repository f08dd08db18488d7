"""The options that every command on checkpoints has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from bninspect.model import ENGINES

Command = TypeVar("Command", bound=Callable[..., Any])

_ALL_CHECKPOINTS = click.option(
    "--all-checkpoints",
    is_flag=True,
    help="Of a training directory all checkpoints, oldest first, not the newest alone.",
)


OUTPUT = click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Write to FILE, whole or not at all, instead of standard output.",
)


def format_option(*formats: str) -> Callable[[Command], Command]:
    """How the result is written; the first of `formats` unless another is asked for."""
    return click.option(
        "--format",
        "format_",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="How to write the result.",
    )


def common_options(
    *formats: str, quiet: str, verbose: str, all_checkpoints: bool = True
) -> Callable[[Command], Command]:
    """The options that every command on checkpoints has; `quiet` and `verbose` say what they do.

    Without `all_checkpoints` there is no such option: the command takes all of them anyway.
    """

    def add(command: Command) -> Command:
        for option in reversed(
            (
                format_option(*formats),
                OUTPUT,
                click.option(
                    "--pattern",
                    "patterns",
                    multiple=True,
                    metavar="ROLE=REGEX",
                    help="Names of your own: a variable that REGEX matches is the gamma, beta,"
                    " moving_mean or moving_variance (ROLE) of a layer. The layer is called by the"
                    " group (?P<layer>...), else by what stands before the match. Repeatable.",
                ),
                *([_ALL_CHECKPOINTS] if all_checkpoints else []),
                click.option(
                    "--engine",
                    type=click.Choice(ENGINES),
                    default=ENGINES[0],
                    show_default=True,
                    help="What reads the files: bninspect itself, or an installed TensorFlow, for"
                    " a second opinion on its checkpoints and SavedModels.",
                ),
                click.option("-q", "--quiet", is_flag=True, help=quiet),
                click.option("-v", "--verbose", is_flag=True, help=verbose),
                click.option(
                    "--color",
                    type=click.Choice(("auto", "always", "never")),
                    default="auto",
                    show_default=True,
                    help="Colours; auto honours NO_COLOR and uses none in a pipe or file.",
                ),
            )
        ):
            command = option(command)
        return command

    return add
