"""The program: the group of commands, and what becomes of errors they raise."""

from __future__ import annotations

import io
import shlex
import sys
from contextlib import suppress

import click

from bninspect._version import __version__
from bninspect.cli import help_texts
from bninspect.cli.check import check
from bninspect.cli.compare import compare
from bninspect.cli.dump import dump
from bninspect.cli.errors import fail, internal_error, missing_package, system_fault
from bninspect.cli.exit_codes import INTERRUPTED
from bninspect.cli.info import config_, rule, schema
from bninspect.cli.list import list_
from bninspect.cli.output import drop_output
from bninspect.cli.report import report
from bninspect.cli.watch import watch
from bninspect.errors import BninspectError, UsageProblem


def run(arguments: list[str] | None = None) -> None:
    """Run the program and exit: problems as one sentence, bugs with a traceback and exit 2.

    `arguments` are those of the command line if None. What the terminal's encoding lacks is
    written as an escape.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if sys.stdout is None:
            raise UsageProblem("standard output is closed; use --output FILE.")
        given = _strip_credentials(sys.argv[1:] if arguments is None else arguments)
        code = main.main(args=given, prog_name="bninspect", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as problem:
        with suppress(OSError):
            problem.show()
        code = problem.exit_code
    except BninspectError as problem:
        code = fail(str(problem))
    except (click.Abort, KeyboardInterrupt):
        code = fail("interrupted", INTERRUPTED)
    except OSError as error:  # readers turn theirs into a ReadProblem
        drop_output()
        code = fail(system_fault(error))
    except Exception as error:  # a bug of ours must not pass for exit 1, "findings"
        code = fail(missing_package(error) or internal_error())
    sys.exit(code)


def _strip_credentials(arguments: list[str]) -> list[str]:
    """The arguments, URLs without what must be in no message and report."""
    if not any("://" in one for one in arguments):
        return arguments
    from bninspect.storage import urls

    return urls.strip_arguments(arguments)


class _Commands(click.Group):
    """The commands; whoever gives a path without one learns which takes it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the call that was meant where a path stands for the command."""
        if args[0] not in self.commands and any(mark in args[0] for mark in "./"):
            given = shlex.quote(args[0])
            raise click.UsageError(f"A command is missing: `bninspect check {given}`?", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=help_texts.MAIN,
)
@click.version_option(__version__, prog_name="bninspect")
def main() -> None:
    """Find batch-normalization statistics that training never updated.

    Reads TensorFlow checkpoints (V1, V2, object-based), SavedModels and Keras files (.h5,
    .weights.h5, .keras) without importing TensorFlow, and without running what they hold.
    """


for _command in (check, compare, config_, dump, list_, report, rule, schema, watch):
    main.add_command(_command)
