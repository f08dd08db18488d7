"""The options that every command on checkpoints has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from bninspect.model import ENGINES

Command = TypeVar("Command", bound=Callable[..., Any])

_ALL_CHECKPOINTS = click.option(
    "--all-checkpoints",
    is_flag=True,
    help="Of a training directory all checkpoints, oldest first, not the newest alone.",
)


def common_options(
    formats: Iterable[str], *, quiet: str, verbose: str, all_checkpoints: bool = True
) -> Callable[[Command], Command]:
    """The options that every command on checkpoints has; `quiet` and `verbose` say what they do.

    `formats` are those the command writes, the usual one first.
    Without `all_checkpoints` there is no such option: the command takes all of them anyway.
    """
    known = tuple(formats)

    def add(command: Command) -> Command:
        for option in reversed(
            (
                click.option(
                    "--format",
                    "formats",
                    multiple=True,
                    metavar=f"[{'|'.join(known)}][=FILE]",
                    callback=lambda _, __, values: [_format_and_file(v, known) for v in values],
                    shell_complete=lambda _, __, typed: [f for f in known if f.startswith(typed)],
                    default=(known[0],),
                    show_default=True,
                    help="How to write the result, and the file to write it to (else --output, or"
                    " standard output). Repeatable: --format json=report.json --format text.",
                ),
                click.option(
                    "-o",
                    "--output",
                    metavar="FILE",
                    help="Write to FILE, whole or not at all, instead of standard output; with"
                    " several formats, the one that names no file.",
                ),
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


def _format_and_file(value: str, formats: Sequence[str]) -> tuple[str, str | None]:
    """`FORMAT` or `FORMAT=FILE` as (format, file or None); raises for what is neither."""
    name, equals, path = value.partition("=")
    if name not in formats:
        raise click.BadParameter(f"{name!r} is not one of {', '.join(formats)}.")
    if equals and not path:
        raise click.BadParameter(f"{value!r} names no file.")
    return name, path or None
