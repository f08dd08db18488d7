"""The program: the group of commands, and the exit code for each kind of exception."""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module

import click

from bninspect._version import __version__
from bninspect.cli import help_texts
from bninspect.cli.errors import fail, unexpected_message, usage_message
from bninspect.cli.exit_codes import INTERRUPTED, PROBLEM
from bninspect.cli.output import discard_output
from bninspect.errors import BninspectError
from bninspect.wording import did_you_mean, nearest

_SYNONYMS = {"output-format": "format"}  # of options: as linters call it


def run(arguments: list[str] | None = None) -> None:
    """Run the program and exit: problems as one sentence, bugs with a traceback and exit code 2.

    `arguments` are those of the command line if None. Characters that the terminal's encoding
    lacks are written as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _reserve_standard_streams()
        typed = _strip_credentials(sys.argv[1:] if arguments is None else arguments)
        # The page of a report shows the command; click keeps no copy of what was typed.
        code = main.main(args=typed, prog_name="bninspect", standalone_mode=False, obj=tuple(typed))
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.ClickException as problem:
        code = fail(usage_message(problem))
    except BninspectError as problem:
        code = fail(str(problem))
    except (click.Abort, KeyboardInterrupt):
        code = fail("interrupted", INTERRUPTED)
    except OSError as error:  # readers turn theirs into a ReadProblem
        discard_output()
        code = fail(unexpected_message(error))
    except Exception as error:  # exit code 1 would mean "findings"
        code = fail(unexpected_message(error))
    sys.exit(code)


def _reserve_standard_streams() -> None:
    """Open /dev/null for each standard stream that is closed.

    Otherwise the next file to be opened would get its number, and what a library prints to
    standard output would go into that file.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def _strip_credentials(arguments: list[str]) -> list[str]:
    """Return the arguments without the credentials of URLs, which no message may show."""
    if not any("://" in argument for argument in arguments):
        return arguments
    from bninspect.storage import urls

    return urls.strip_arguments(arguments)


# The module and the name of each command. A run imports that of its own, `--help` all.
COMMANDS = {
    "check": ("check", "check"),
    "compare": ("compare", "compare"),
    "completion": ("help", "completion"),
    "config": ("info", "config_"),
    "dump": ("dump", "dump"),
    "help": ("help", "help_"),
    "list": ("list", "list_"),
    "recalibrate": ("recalibrate", "recalibrate"),
    "report": ("report", "report"),
    "rule": ("info", "rule"),
    "schema": ("info", "schema"),
    "watch": ("watch", "watch"),
}


class _Commands(click.Group):
    """The commands. A path instead of a command raises an error that suggests a command."""

    def list_commands(self, _: click.Context) -> list[str]:
        """Return the names of the commands."""
        return [*COMMANDS]

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a name; None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"bninspect.cli.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command as click does; raises `UsageError` with a suggestion if unknown."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            if _names_a_path(name):
                import shlex

                meant = f"`bninspect check {shlex.quote(name)}`"
                raise click.UsageError(f"A command is missing. Did you mean {meant}?", ctx)
            near = did_you_mean(nearest(name, COMMANDS))
            raise click.UsageError(f"There is no command {name!r}.{near}", ctx)
        return super().resolve_command(ctx, args)


def _names_a_path(word: str) -> bool:
    """Return whether a word is a file, directory, checkpoint prefix, URL or pattern."""
    is_there = any(os.path.lexists(word.replace("\0", "") + end) for end in ("", ".index"))
    return is_there or any(mark in word for mark in (*"./*", os.sep))


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "token_normalize_func": lambda name: _SYNONYMS.get(name, name),
    },
    epilog=help_texts.MAIN,
)
@click.version_option(__version__, "-V", "--version", prog_name="bninspect")
@click.pass_context
def main(context: click.Context) -> None:
    """Find batch-normalization statistics that training never updated.

    Reads TensorFlow checkpoints (V1, V2, object-based), SavedModels, frozen graphs, Keras files
    (.h5, .weights.h5, .keras), ONNX and TensorFlow.js models and Orbax checkpoints without
    importing TensorFlow, and without running what they hold.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(PROBLEM)
