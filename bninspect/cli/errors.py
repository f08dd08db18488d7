"""What is said on standard error when something goes wrong, and with which exit code."""

from __future__ import annotations

import os
from contextlib import suppress

import click

from bninspect._version import __version__
from bninspect.cli.exit_codes import PROBLEM

_ISSUES = "Please report this as a bug, with the lines above."


def missing_package(error: Exception) -> str:
    """That a package of another is not installed, if that is what the error says."""
    name = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
    if name.partition(".")[0] in ("", "bninspect"):
        return ""
    return f"the package {name} is missing: install bninspect with all it needs, by pip."


def internal_error() -> str:
    """Show where a bug of ours struck; returns what is said of it."""
    import traceback

    with suppress(OSError):
        click.echo(_shown(traceback.format_exc()), nl=False, err=True)
    return f"{__version__}: internal error. {_ISSUES}"


def _shown(text: str) -> str:
    """A text of a library, which may hold any URL."""
    from bninspect.storage.urls import redact

    return redact(text)


def system_fault(error: OSError) -> str:
    """What an error that no reader made a sentence of is about."""
    try:
        os.getcwd()
    except OSError:
        return "the working directory is gone; change to one that exists."
    return f"the output cannot be written ({error.strerror or error})."


def fail(message: str, code: int = PROBLEM) -> int:
    """Say what went wrong; returns the exit code for it."""
    from bninspect.reporters.escapes import printable

    tell(f"bninspect: {printable(message)}")
    return code


def tell(line: str) -> None:
    """Write a line to standard error; what becomes of it never changes the exit code."""
    with suppress(OSError):
        click.echo(line, err=True)
