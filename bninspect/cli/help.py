"""The commands that explain the program to a person and to a shell: `help`, `completion`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from bninspect.cli import help_texts
from bninspect.cli.exit_codes import OK
from bninspect.cli.options import Choice
from bninspect.cli.output import output_stream

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_SHELLS = ("bash", "fish", "zsh")


def _complete_commands(
    context: click.Context, _: click.Parameter, typed: str
) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    names = _commands(context).list_commands(context)
    return [CompletionItem(name) for name in names if name.startswith(typed)]


def _commands(context: click.Context) -> click.Group:
    """Return the group of all commands."""
    return cast("click.Group", context.find_root().command)


@click.command(name="help", short_help="Show the help of a command.", epilog=help_texts.HELP)
@click.argument("command", required=False, shell_complete=_complete_commands)
@click.pass_context
def help_(context: click.Context, command: str | None) -> int:
    """Show the help of COMMAND, as `bninspect COMMAND --help` does, or that of the program."""
    program = context.find_root()
    text = program.get_help()
    if command is not None:
        name, found, _ = _commands(context).resolve_command(program, [command])
        if found is not None:
            text = found.get_help(click.Context(found, program, info_name=name))
    click.echo(text)
    return OK


@click.command(short_help="Print the completion script of a shell.", epilog=help_texts.COMPLETION)
@click.argument("shell", type=Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print the script by which SHELL (bash, fish, zsh) completes commands, options and files.

    The script asks the installed program, so it need not be made again when that is upgraded.
    """
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    makers = dict(zip(_SHELLS, (BashComplete, FishComplete, ZshComplete), strict=True))
    script = makers[shell](_commands(context), {}, "bninspect", "_BNINSPECT_COMPLETE").source()
    with output_stream(None) as stream:
        stream.write(f"{script}\n")
    return OK
