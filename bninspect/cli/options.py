"""The options that commands share, and those of `check`, which are many.

What tells a run what to do reaches the command as one `Config`, the rest as it was typed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bninspect.model.checkpoint import ENGINES

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Command = TypeVar("Command", bound=Callable[..., Any])


def complete_files(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    """Leave it to the shell to complete the name of a file.

    `click.Path` would do so, too, but looks at each file before a command does, and ends the run
    over one that may not be read.
    """
    from click.shell_completion import CompletionItem

    return [CompletionItem(typed, type="file")]


PATHS = click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", shell_complete=complete_files
)
# The options that a command gets as its `config`.
_OF_CONFIG = (
    "select",
    "ignore",
    "momentum",
    "patterns",
    "all_checkpoints",
    "engine",
    "since",
    "skip_unknown",
    "jobs",
    "scheduler",
    "fail_on",
    "baseline",
)
_PATTERN = click.option(
    "--pattern",
    "patterns",
    multiple=True,
    metavar="ROLE=REGEX",
    help="Names of your own: a variable that REGEX matches is the gamma, beta, moving_mean or"
    " moving_variance (ROLE) of a layer. The layer is called by the group (?P<layer>...), else by"
    " what stands before the match. Repeatable.",
)
COLOR = click.option(
    "--color",
    type=click.Choice(("auto", "always", "never")),
    default="auto",
    show_default=True,
    help="Colours; auto honours NO_COLOR and uses none in a pipe or file.",
)
# Of what is given in seconds: below, a look would follow a look; above is more than a month.
_SHORTEST, _LONGEST = 0.05, 3e6
_CONFIGURATION = (
    click.option(
        "--config",
        "file",
        metavar="FILE",
        shell_complete=complete_files,
        help="The configuration to use, in the place of the nearest bninspect.toml or"
        " pyproject.toml with [tool.bninspect], from here upward.",
    ),
    click.option("--isolated", is_flag=True, help="Use no configuration file."),
)
fail_on_option = click.option(
    "--fail-on",
    type=click.Choice(("error", "warning", "note", "never")),
    help="The least severity that makes the exit code 1; error, if nothing else is configured.",
)
# What `check` can be told in a configuration file, too.
_OF_RULES = (
    click.option(
        "--select",
        multiple=True,
        metavar="CODES",
        help="Only these rules (BN101,BN2), whatever is configured; repeatable.",
    ),
    click.option(
        "--ignore",
        multiple=True,
        metavar="CODES",
        help="Not these rules, nor those that are configured; repeatable.",
    ),
    fail_on_option,
    click.option(
        "--momentum",
        type=float,
        metavar="M",
        help="The layers' momentum (slim: decay), where nothing stored tells it; for"
        " BN106 and BN303.",
    ),
    click.option(
        "--baseline",
        metavar="FILE",
        shell_complete=complete_files,
        help="A file of the findings that are known: only others are reported, and fail.",
    ),
)
_ALL_CHECKPOINTS = click.option(
    "--all-checkpoints",
    is_flag=True,
    help="Of a training directory all checkpoints, oldest first, not the newest alone.",
)
_ENGINE = click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default=ENGINES[0],
    show_default=True,
    help="What reads the files: bninspect itself, or an installed TensorFlow, for"
    " a second opinion on its checkpoints and SavedModels.",
)
_ALLOW_EMPTY = click.option(
    "--allow-empty",
    is_flag=True,
    help="Exit with 0, not 3, where there was nothing to check or compare.",
)
_SINCE = click.option(
    "--since",
    metavar="CHECKPOINT",
    shell_complete=complete_files,
    help="An earlier checkpoint of the training: what stood still since then is"
    " BN107. With --all-checkpoints each is compared with the one before it unless this"
    " is given.",
)
_JOBS = click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    show_default=True,
    help="Read checkpoints in N processes; the report is the same.",
)


OUTPUT = click.option(
    "-o",
    "--output",
    metavar="FILE",
    shell_complete=complete_files,
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
    formats: Iterable[str], *, quiet: str, verbose: str, all_checkpoints: bool = True
) -> Callable[[Command], Command]:
    """The options that every command on checkpoints has; `quiet` and `verbose` say what they do.

    `formats` are those the command writes, the usual one first.
    Without `all_checkpoints` there is no such option: the command takes all of them anyway.
    """
    known = tuple(formats)

    def add(command: Command) -> Command:
        return _with_options(
            _configured(command),
            (
                *_destination_options(known),
                _PATTERN,
                *([_ALL_CHECKPOINTS] if all_checkpoints else []),
                _ENGINE,
                *_CONFIGURATION,
                click.option("-q", "--quiet", is_flag=True, help=quiet),
                click.option("-v", "--verbose", is_flag=True, help=verbose),
                COLOR,
            ),
        )

    return add


def _destination_options(formats: Sequence[str]) -> Sequence[Callable[[Command], Command]]:
    """The formats to write, and where to."""
    return (
        click.option(
            "--format",
            "formats",
            multiple=True,
            metavar=f"[{'|'.join(formats)}][=FILE]",
            callback=lambda _, __, values: [_format_and_file(value, formats) for value in values],
            shell_complete=lambda _, __, typed: [f for f in formats if f.startswith(typed)],
            default=(formats[0],),
            show_default=True,
            help="How to write the result, and the file to write it to (else --output, or"
            " standard output). Repeatable: --format json=report.json --format text.",
        ),
        click.option(
            "-o",
            "--output",
            metavar="FILE",
            shell_complete=complete_files,
            help="Write to FILE, whole or not at all, instead of standard output; with"
            " several formats, the one that names no file.",
        ),
    )


def check_options(command: Command) -> Command:
    """The options of `check` alone."""
    return _with_options(
        command,
        (
            *_OF_RULES,
            _ALLOW_EMPTY,
            click.option(
                "--skip-unknown",
                is_flag=True,
                help="Pass over a file that is no checkpoint, as in a directory: for tools that"
                " list files.",
            ),
            _SINCE,
            _JOBS,
            click.option(
                "--scheduler",
                metavar="ADDRESS",
                help="Read checkpoints by the workers of a Dask cluster, tcp://HOST:PORT; the"
                " report is the same. They must find each PATH under the same name.",
            ),
            click.option(
                "--resume",
                metavar="FILE",
                shell_complete=complete_files,
                help="Go on with FILE, from --format jsonl: a checkpoint that has a result there"
                " is not read again, unless its files have changed or could not be read. Earlier"
                " results count. If FILE is what this run writes, results are added to it.",
            ),
            click.option(
                "--update-baseline",
                is_flag=True,
                help="Write today's findings to the file of --baseline, and report nothing.",
            ),
        ),
    )


def report_options(command: Command) -> Command:
    """The options of `report`: what is judged, as for `check`, and where the page goes."""
    return _with_options(
        _configured(command),
        (
            OUTPUT,
            *_OF_RULES,
            _ALL_CHECKPOINTS,
            _SINCE,
            _PATTERN,
            _ALLOW_EMPTY,
            _ENGINE,
            _JOBS,
            *_CONFIGURATION,
            click.option("-q", "--quiet", is_flag=True, help="Say nothing when it is written."),
        ),
    )


def config_options(command: Command) -> Command:
    """The options of `config`: what a configuration file can hold, and how to show it."""
    return _with_options(
        _configured(command),
        (
            *_OF_RULES,
            _PATTERN,
            *_CONFIGURATION,
            format_option("text", "json"),
        ),
    )


def _with_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """The command with options that its help shows in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def watch_options(command: Command) -> Command:
    """The options of `watch`: those of `check` that are about one checkpoint, and its own."""
    command = _configured(command)
    for option in reversed(
        (
            format_option("text", "jsonl"),
            _seconds("--interval", "How long to wait between two looks at the directory.", 10.0),
            _seconds(
                "--timeout",
                "End when no checkpoint has come for so long; one that is half written is waited"
                " for first (up to --grace).",
                None,
            ),
            click.option(
                "--until-step",
                type=int,
                metavar="N",
                help="End with the first checkpoint of step N or later.",
            ),
            click.option(
                "--fail-fast",
                is_flag=True,
                help="End with the first checkpoint that has a finding at or above --fail-on.",
            ),
            _seconds(
                "--grace",
                "How long what looks like a checkpoint and cannot be read may stay as it is, before"
                " it is reported: it may still be written.",
                60.0,
            ),
            click.option(
                "--all-checkpoints",
                is_flag=True,
                help="Begin with all checkpoints that are there already, oldest first, not with"
                " the newest alone.",
            ),
            *_OF_RULES,
            click.option("--allow-empty", is_flag=True, help="Nothing to check is exit 0, not 3."),
            _PATTERN,
            _ENGINE,
            *_CONFIGURATION,
            click.option(
                "-q", "--quiet", is_flag=True, help="One line a checkpoint, no findings below."
            ),
            click.option(
                "-v",
                "--verbose",
                is_flag=True,
                help="Findings below each checkpoint, also if they are the same as before, and"
                " every layer of them.",
            ),
            COLOR,
        )
    ):
        command = option(command)
    return command


def _seconds(name: str, text: str, default: float | None) -> Callable[[Command], Command]:
    return click.option(
        name,
        type=float,
        metavar="SECONDS",
        default=default,
        show_default=default is not None,
        callback=lambda _, __, value: value if value is None else _checked_seconds(value),
        help=text,
    )


def _checked_seconds(value: float) -> float:
    if not _SHORTEST <= value <= _LONGEST:  # NaN is not, either
        raise click.BadParameter(f"{value:g} is not between {_SHORTEST:g} and {_LONGEST:g}.")
    return value


def _configured(command: Command) -> Command:
    """The command that gets `config` in the place of the options that make it."""

    @wraps(command)
    def with_config(**given: Any) -> Any:
        # Showing the help does without.
        from bninspect.config.lookup import base_config
        from bninspect.config.model import make_config

        base = base_config(given.pop("file"), isolated=given.pop("isolated"))
        told = {name: given.pop(name) for name in _OF_CONFIG if name in given}
        return command(config=make_config(base=base, **told), **given)

    return with_config  # type: ignore[return-value]


def _format_and_file(value: str, formats: Sequence[str]) -> tuple[str, str | None]:
    """`FORMAT` or `FORMAT=FILE` as (format, file or None); raises for what is neither."""
    name, equals, path = value.partition("=")
    if name not in formats:
        raise click.BadParameter(f"{name!r} is not one of {', '.join(formats)}.")
    if equals and not path:
        raise click.BadParameter(f"{value!r} names no file.")
    return name, path or None
