"""The options of the commands.

A command gets the options that configure a run as one `Config`, and the others as typed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bninspect.cli.formats import OutputOptions
from bninspect.cli.output import destinations
from bninspect.errors import UsageProblem
from bninspect.model.checkpoint import ENGINES
from bninspect.wording import did_you_mean, nearest

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from bninspect.config.model import Jobs

Command = TypeVar("Command", bound=Callable[..., Any])


class Choice(click.Choice):  # type: ignore[type-arg] # click 8.1 takes no parameter
    """A choice that suggests the nearest value for a mistyped one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value; raises `BadParameter` if it is none of the choices."""
        if value not in self.choices:
            self.fail(_unknown_choice(value, self.choices), param, ctx)
        return value


def _unknown_choice(value: str, choices: Sequence[str]) -> str:
    near = did_you_mean(nearest(value, choices))
    return f"{value!r} is not one of {', '.join(choices)}.{near}"


def complete_files(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    """Return the completion item by which the shell completes the name of a file.

    `click.Path` does so, too, but it also opens each file before the command starts, and ends the
    run if one may not be read.
    """
    from click.shell_completion import CompletionItem

    return [CompletionItem(typed, type="file")]


def _complete_codes(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Return the codes of rules that the last of some codes may become."""
    from bninspect.rules import RULES

    before, comma, last = typed.rpartition(",")
    return [f"{before}{comma}{rule.code}" for rule in RULES if rule.code.startswith(last)]


def _flag(*names: str, text: str) -> Callable[[Command], Command]:
    return click.option(*names, is_flag=True, help=text)


def _file(
    *names: str, text: str, metavar: str = "FILE", callback: Any = None
) -> Callable[[Command], Command]:
    return click.option(
        *names, metavar=metavar, shell_complete=complete_files, callback=callback, help=text
    )


PATHS = click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", shell_complete=complete_files
)
# The options that reach a command in its `config`.
_OF_CONFIG = (
    "select",
    "ignore",
    "exclude",
    "include",
    "momentum",
    "patterns",
    "all_checkpoints",
    "engine",
    "since",
    "skip_unknown",
    "jobs",
    "scheduler",
    "verify",
    "graph",
    "fail_on",
    "baseline",
)
_PATTERN = click.option(
    "--pattern",
    "patterns",
    multiple=True,
    metavar="ROLE=REGEX",
    help="For variable names of your own: a variable that REGEX matches is the gamma, beta,"
    " moving_mean or moving_variance (ROLE) of a layer. The layer's name is the group"
    " (?P<layer>...), else the text before the match. Repeatable.",
)
COLOR = click.option(
    "--color",
    type=Choice(("auto", "always", "never")),
    default="auto",
    show_default=True,
    help="Use colours; auto honours NO_COLOR and uses none in a pipe or file.",
)
_LONGEST_METAVAR = 60  # columns; the names of more formats stand below the options
# Limits of options in seconds: less would poll without a pause, more is over a month.
_SHORTEST, _LONGEST = 0.05, 3e6
_CONFIGURATION = (
    _file(
        "--config",
        "file",
        text="Use this configuration file instead of the nearest bninspect.toml, or"
        " pyproject.toml with [tool.bninspect], in this directory or one above it.",
    ),
    _flag("--isolated", text="Use no configuration file."),
)
_FAIL_ON = (
    click.option(
        "--fail-on",
        type=Choice(("error", "warning", "note", "never")),
        help="The least severity that makes the exit code 1; error unless configured.",
    ),
    _flag("--exit-zero", text="The same as --fail-on never: findings do not fail."),
)
# The options of `check` that a configuration file can hold, too.
_OF_RULES = (
    click.option(
        "--select",
        multiple=True,
        metavar="CODES",
        shell_complete=_complete_codes,
        help="Apply only these rules (BN101,BN2), whatever is configured. Repeatable.",
    ),
    click.option(
        "--ignore",
        multiple=True,
        metavar="CODES",
        shell_complete=_complete_codes,
        help="Skip these rules, in addition to those ignored in the configuration. Repeatable.",
    ),
    *_FAIL_ON,
    click.option(
        "--momentum",
        type=float,
        metavar="M",
        help="The layers' momentum (slim: decay), used where the files do not store it; for"
        " BN102, BN103, BN106, BN109, BN303 and BN305.",
    ),
    _file(
        "--baseline",
        text="A file of known findings: only new ones are reported, and fail.",
    ),
)
_ALL_CHECKPOINTS = _flag(
    "--all-checkpoints",
    text="In a training directory, take every checkpoint (oldest first), not only the newest.",
)
_ENGINE = click.option(
    "--engine",
    type=Choice(ENGINES),
    default=ENGINES[0],
    show_default=True,
    help="Read the files with bninspect itself, or with an installed TensorFlow, for a second"
    " opinion on its checkpoints and SavedModels.",
)
_OF_SEARCH = (
    click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="Leave out what matches below a directory or among the matches of a quoted pattern;"
        " written as in .gitignore: 'old/', '*_backup.h5'. Adds to the configuration. Repeatable.",
    ),
    click.option(
        "--include",
        multiple=True,
        metavar="PATTERN",
        help="Of what is found there, take only what matches: 'exports/'. Adds to the"
        " configuration. Repeatable.",
    ),
)
_ALLOW_EMPTY = _flag(
    "--allow-empty",
    text="Exit with 0 instead of 3 if there was nothing to check or compare.",
)
_SINCE = _file(
    "--since",
    metavar="CHECKPOINT",
    text="An earlier checkpoint of the training: statistics that stood still since then are"
    " BN107. Without it, --all-checkpoints compares each checkpoint with the one before it.",
)
_JOBS = click.option(
    "-j",
    "--jobs",
    default="auto",
    metavar="N|auto",
    show_default=True,
    callback=lambda _, __, value: _checked_jobs(value),
    help="Read checkpoints in up to N processes, as many as the work pays for; auto takes the"
    " number of processors, at most 8. The report is the same.",
)


OUTPUT = _file(
    "-o",
    "--output",
    text="Write to FILE, whole or not at all, instead of standard output.",
    callback=lambda _, __, value: None if value == "-" else value,
)


def format_option(*formats: str) -> Callable[[Command], Command]:
    """Return the option --format, whose default is the first of `formats`."""
    return click.option(
        "--format",
        "format_",
        type=Choice(formats),
        default=formats[0],
        show_default=True,
        help="The format of the result.",
    )


def common_options(
    formats: Iterable[str], *, quiet: str, verbose: str, all_checkpoints: bool = True
) -> Callable[[Command], Command]:
    """Return a decorator that adds the options of every command on checkpoints.

    The command gets `config`, the `targets` to write to, and the `options` of formats.
    `formats` are those of the command, the default first; `quiet` and `verbose` are the help texts
    of these options. Without `all_checkpoints` the option is left out: the command always takes
    all checkpoints.
    """
    known = tuple(formats)

    def add(command: Command) -> Command:
        return _with_options(
            _configured(_with_targets(command)),
            (
                *_destination_options(known),
                _PATTERN,
                *([_ALL_CHECKPOINTS] if all_checkpoints else []),
                _ENGINE,
                *_CONFIGURATION,
                _flag("-q", "--quiet", text=quiet),
                _flag("-v", "--verbose", text=verbose),
                COLOR,
            ),
        )

    return add


def search_options(command: Command) -> Command:
    """Add the options on what is left out of a search."""
    return _with_options(command, _OF_SEARCH)


def fail_on_options(command: Command) -> Command:
    """Add the options on the severity that fails."""
    return _with_options(command, _FAIL_ON)


graph_option = _flag(
    "--graph",
    text="Add how training computes each layer: the layer before it, the mode, the updates of its"
    " averages and what runs them, as far as the stored graph or Keras configuration says it.",
)


def _destination_options(formats: Sequence[str]) -> Sequence[Callable[[Command], Command]]:
    """Return the options --format and --output."""
    return (
        _formats_option(formats),
        _file(
            "-o",
            "--output",
            text="Write to FILE, whole or not at all, instead of standard output. With several"
            " formats, this is the file of the one that names none.",
        ),
    )


def _formats_option(
    formats: Sequence[str], *, otherwise: str = "--output, or"
) -> Callable[[Command], Command]:
    """Return the option --format, which may name a file for each format.

    `otherwise` is said of where a format without a file goes.
    """
    names = "|".join(formats)
    return click.option(
        "--format",
        "formats",
        multiple=True,
        metavar=f"[{names}][=FILE]" if len(names) < _LONGEST_METAVAR else "FORMAT[=FILE]",
        callback=lambda _, __, values: [_format_and_file(value, formats) for value in values],
        shell_complete=lambda _, __, typed: [f for f in formats if f.startswith(typed)],
        default=(formats[0],),
        show_default=True,
        help=f"The format of the result, and the file to write it to (else {otherwise}"
        " standard output). Repeatable: --format json=report.json --format text. --output-format"
        " is the same.",
    )


def recalibrate_options(formats: Iterable[str]) -> Callable[[Command], Command]:
    """Return a decorator that adds the options of `recalibrate`."""
    known = tuple(formats)

    def add(command: Command) -> Command:
        return _with_options(command, (*_OF_SAMPLES, *_OF_THE_COPY, *_shown(known)))

    return add


_OF_SAMPLES = (
    click.option(
        "--data",
        required=True,
        metavar="SAMPLES",
        shell_complete=complete_files,
        help="The samples: a .npz or .npy file, or a directory of .npz files (parts of the same"
        " arrays) or .npy files (arrays by name, or parts of one). An array goes to the input of"
        " its name, a single array to a single input.",
    ),
    click.option(
        "--feed",
        "feeds",
        multiple=True,
        metavar="NAME=KEY|VALUE",
        help="Feed the model's input NAME with the array KEY, or with a number, true or false."
        " Repeatable.",
    ),
    click.option(
        "--labels",
        metavar="KEY",
        help="The array of the labels: numbers of classes, one-hot rows, or values. With them the"
        " model is judged before and after.",
    ),
    click.option(
        "--batch",
        type=click.IntRange(2),
        default=64,
        show_default=True,
        metavar="N",
        help="The size of a batch, about that of training.",
    ),
    click.option(
        "--samples",
        type=click.IntRange(2),
        metavar="N",
        help="Take N samples at most, by chance.",
    ),
)
_OF_THE_COPY = (
    _file(
        "-o",
        "--output",
        metavar="FIXED",
        text="The copy to write: a file, a prefix or a directory, as MODEL is. It must not exist.",
    ),
    click.option(
        "--layer",
        "layers",
        multiple=True,
        metavar="NAME",
        help="Re-estimate this layer (exact name or glob) instead of all that are stuck."
        " Repeatable.",
    ),
    _flag(
        "--force",
        text="Go on although nothing proves in which mode the model was trained. No other refusal"
        " can be overridden.",
    ),
    _flag("--dry-run", text="Do everything but write the copy."),
)


def _shown(formats: Sequence[str]) -> Sequence[Callable[[Command], Command]]:
    """Return the options of what is shown of a recalibration."""
    return (
        _formats_option(formats, otherwise="to"),
        _flag("-q", "--quiet", text="Print only the first line, and no bar."),
        _flag("-v", "--verbose", text="Show every layer."),
        COLOR,
    )


def check_options(command: Command) -> Command:
    """Add the options that only `check` has."""
    return _with_options(
        command,
        (
            *_OF_RULES,
            *_OF_SEARCH,
            _ALLOW_EMPTY,
            _flag(
                "--statistics",
                text="In the text, show the findings of all checkpoints in groups, by rule, cause,"
                " framework and fix: the three gravest in full, the others counted.",
            ),
            _flag(
                "--skip-unknown",
                text="Skip a file that is not a checkpoint, instead of reporting it: for tools that"
                " list files.",
            ),
            _SINCE,
            _flag(
                "--verify",
                text="Verify the checksum of .keras archives of any size, also of remote ones,"
                " which are then read whole. Without it, that is done up to 16 MiB on the disk."
                " TensorFlow's checksums are always verified; HDF5 has none.",
            ),
            _JOBS,
            click.option(
                "--scheduler",
                metavar="ADDRESS",
                help="Read checkpoints with the workers of a Dask cluster, tcp://HOST:PORT. The"
                " report is the same. Each worker must have every PATH under the same name.",
            ),
            _file(
                "--resume",
                text="Go on with FILE, a result of --format jsonl: a checkpoint that has a result"
                " there is not read again, unless its files have changed or could not be read."
                " Earlier results count. If this run writes to FILE, results are added to it.",
            ),
            _flag(
                "--update-baseline",
                text="Write the findings of this run to the --baseline file, and report nothing.",
            ),
        ),
    )


def report_options(command: Command) -> Command:
    """Add the options of `report`: those of `check` that choose what is judged, and --output."""
    return _with_options(
        _configured(command),
        (
            OUTPUT,
            *_OF_RULES,
            *_OF_SEARCH,
            _ALL_CHECKPOINTS,
            _SINCE,
            _PATTERN,
            _ALLOW_EMPTY,
            _ENGINE,
            _JOBS,
            *_CONFIGURATION,
            _flag("-q", "--quiet", text="Do not print the verdict."),
        ),
    )


def config_options(command: Command) -> Command:
    """Add the options of `config`: those that a configuration file can hold, and --format."""
    return _with_options(
        _configured(command),
        (
            *_OF_RULES,
            *_OF_SEARCH,
            _PATTERN,
            *_CONFIGURATION,
            format_option("text", "json"),
        ),
    )


def _with_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """Add options to a command; its help shows them in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def watch_options(command: Command) -> Command:
    """Add the options of `watch`: those of `check` for one checkpoint, and its own."""
    return _with_options(
        _configured(command),
        (
            format_option("text", "jsonl"),
            _seconds("--interval", "Time between two listings of the directory.", 10.0),
            _seconds(
                "--timeout",
                "End when no checkpoint has arrived for this time. A half-written one is waited for"
                " first (up to --grace).",
                None,
            ),
            click.option(
                "--until-step",
                type=int,
                metavar="N",
                help="End with the first checkpoint of step N or later.",
            ),
            _flag(
                "--fail-fast",
                text="End with the first checkpoint that has a finding at or above --fail-on.",
            ),
            _seconds(
                "--grace",
                "Report a file that looks like a checkpoint and cannot be read only when it has not"
                " changed for this time: it may still be written.",
                60.0,
            ),
            _flag(
                "--all-checkpoints",
                text="Start with every checkpoint that exists already (oldest first), not only the"
                " newest.",
            ),
            *_OF_RULES,
            _ALLOW_EMPTY,
            _PATTERN,
            _ENGINE,
            *_CONFIGURATION,
            _flag(
                "-q",
                "--quiet",
                text="Print one line per checkpoint, without findings.",
            ),
            _flag(
                "-v",
                "--verbose",
                text="Print the findings of each checkpoint even if they are the same as before,"
                " with every layer.",
            ),
            COLOR,
        ),
    )


def _checked_jobs(value: str) -> Jobs:
    if value == "auto":
        return "auto"
    if not (value.isascii() and value.isdecimal() and len(value) < 5 and int(value)):
        raise click.BadParameter(f"{value!r} is not auto, nor a number from 1 to 9999.")
    return int(value)


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
    """Return the command with its options of `_OF_CONFIG` merged into one argument, `config`."""

    @wraps(command)
    def with_config(**options: Any) -> Any:
        # Imported here: --help needs neither.
        from bninspect.config.lookup import base_config
        from bninspect.config.model import make_config

        base = base_config(options.pop("file"), isolated=options.pop("isolated"))
        if options.pop("exit_zero", False):
            options["fail_on"] = _never(options["fail_on"])
        merged = {name: options.pop(name) for name in _OF_CONFIG if name in options}
        return command(config=make_config(base=base, **merged), **options)

    return with_config  # type: ignore[return-value]


def _never(fail_on: str | None) -> str:
    """Return the value of --fail-on that --exit-zero stands for; raises `UsageProblem`."""
    if fail_on not in (None, "never"):
        raise UsageProblem(f"--exit-zero cannot be combined with --fail-on {fail_on}.")
    return "never"


def _with_targets(command: Command) -> Command:
    """Return the command with --format and --output as `targets`, -q, -v, --color as `options`."""

    @wraps(command)
    def with_targets(
        *,
        formats: Sequence[tuple[str, str | None]],
        output: str | None,
        color: str,
        quiet: bool,
        verbose: bool,
        **others: Any,
    ) -> Any:
        options = OutputOptions(color, quiet, verbose)
        return command(targets=destinations(formats, output), options=options, **others)

    return with_targets  # type: ignore[return-value]


def _format_and_file(value: str, formats: Sequence[str]) -> tuple[str, str | None]:
    """Split `FORMAT` or `FORMAT=FILE` into (format, file or None); raises `BadParameter`."""
    name, equals, path = value.partition("=")
    if name not in formats:
        raise click.BadParameter(_unknown_choice(name, formats))
    if equals and not path:
        raise click.BadParameter(f"{value!r} names no file.")
    return name, path or None
