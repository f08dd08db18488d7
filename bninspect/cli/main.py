"""The program: the group of commands, and the exit code for each kind of exception."""

from __future__ import annotations

import io
import os
import shlex
import sys
from typing import TYPE_CHECKING

import click

from bninspect._version import __version__
from bninspect.cli import help_texts
from bninspect.cli.check import check
from bninspect.cli.compare import compare
from bninspect.cli.dump import dump
from bninspect.cli.errors import fail, unexpected_message, usage_message
from bninspect.cli.exit_codes import INTERRUPTED, OK, PROBLEM
from bninspect.cli.info import config_, rule, schema
from bninspect.cli.list import list_
from bninspect.cli.options import Choice
from bninspect.cli.output import discard_output, output_stream
from bninspect.cli.recalibrate import recalibrate
from bninspect.cli.report import report
from bninspect.cli.watch import watch
from bninspect.errors import BninspectError
from bninspect.wording import did_you_mean, nearest

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_SYNONYMS = {"output-format": "format"}  # of options: as linters call it
_SHELLS = ("bash", "fish", "zsh")


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
        code = main.main(args=typed, prog_name="bninspect", standalone_mode=False)
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


class _Commands(click.Group):
    """The commands. A path instead of a command raises an error that suggests a command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command as click does; raises `UsageError` with a suggestion if unknown."""
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            if _names_a_path(name):
                meant = f"`bninspect check {shlex.quote(name)}`"
                raise click.UsageError(f"A command is missing. Did you mean {meant}?", ctx)
            near = did_you_mean(nearest(name, self.commands))
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

    Reads TensorFlow checkpoints (V1, V2, object-based), SavedModels and Keras files (.h5,
    .weights.h5, .keras) without importing TensorFlow, and without running what they hold.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(PROBLEM)


for _command in (
    check,
    compare,
    config_,
    dump,
    list_,
    recalibrate,
    report,
    rule,
    schema,
    watch,
):
    main.add_command(_command)


def _complete_commands(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in main.commands if name.startswith(typed)]


@main.command(name="help", short_help="Show the help of a command.", epilog=help_texts.HELP)
@click.argument("command", required=False, shell_complete=_complete_commands)
@click.pass_context
def help_(context: click.Context, command: str | None) -> int:
    """Show the help of COMMAND, as `bninspect COMMAND --help` does, or that of the program."""
    program = context.find_root()
    text = program.get_help()
    if command is not None:
        name, found, _ = main.resolve_command(program, [command])
        if found is not None:
            text = found.get_help(click.Context(found, program, info_name=name))
    click.echo(text)
    return OK


@main.command(short_help="Print the completion script of a shell.", epilog=help_texts.COMPLETION)
@click.argument("shell", type=Choice(_SHELLS))
def completion(shell: str) -> int:
    """Print the script by which SHELL (bash, fish, zsh) completes commands, options and files.

    The script asks the installed program, so it need not be made again when that is upgraded.
    """
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    makers = dict(zip(_SHELLS, (BashComplete, FishComplete, ZshComplete), strict=True))
    script = makers[shell](main, {}, "bninspect", "_BNINSPECT_COMPLETE").source()
    with output_stream(None) as stream:
        stream.write(f"{script}\n")
    return OK
