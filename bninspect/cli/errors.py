"""Error messages on standard error: one sentence each, with its exit code."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

import click

from bninspect._version import __version__
from bninspect.cli.exit_codes import PROBLEM
from bninspect.reporters.escapes import printable  # now, for later memory may be out
from bninspect.wording import did_you_mean, nearest

_REPORT_IT = "Please report this as a bug, with the lines above."
_NO_MEMORY = "there is too little memory; use fewer --jobs, or a larger machine."
# Messages of the dynamic linker if memory or file handles do not suffice to load a library.
_LINKER_ERRORS = {
    "failed to map segment": _NO_MEMORY,
    "cannot allocate memory": _NO_MEMORY,
    "cannot create shared object descriptor": _NO_MEMORY,
    "too many open files": None,
}


def fail(message: str, code: int = PROBLEM) -> int:
    """Write an error message and return the exit code for it."""
    tell(f"bninspect: {printable(message)}")
    return code


def tell(line: str) -> None:
    """Write a line to standard error. A failure to do so never changes the exit code."""
    with suppress(OSError):
        click.echo(line, err=True)


def usage_message(problem: click.ClickException) -> str:
    """Return click's message on wrong usage as a sentence, with a reference to --help."""
    text = problem.format_message().rstrip()
    context = problem.ctx if isinstance(problem, click.UsageError) else None
    if isinstance(problem, click.NoSuchOption) and context is not None:
        known = [name for option in context.command.params for name in option.opts]
        near = did_you_mean(nearest(problem.option_name, known))
        text = f"There is no option {problem.option_name}.{near}"
    if isinstance(problem, click.MissingParameter):
        text = " ".join(text.split())  # click lists choices in lines of their own
    if not text.endswith((".", "?")):
        text += "."
    return text if context is None else f"{text} See `{context.command_path} --help`."


def unexpected_message(error: Exception) -> str:
    """Return the message for an exception that no reader turned into a sentence.

    A missing package, and a lack of memory or file handles, are named. Anything else is a bug: its
    traceback is written to standard error first.
    """
    if isinstance(error, MemoryError):
        return _NO_MEMORY
    if isinstance(error, OSError):
        return _os_error_message(error)
    if isinstance(error, ImportError) and (message := _import_error_message(error)):
        return message
    import traceback

    from bninspect.storage.urls import redact

    with suppress(OSError):  # a library's text may hold the URL that it was given
        click.echo(redact(traceback.format_exc()), nl=False, err=True)
    return f"{__version__}: internal error. {_REPORT_IT}"


def _os_error_message(error: OSError) -> str:
    if error.errno == errno.ENOMEM:
        return _NO_MEMORY
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return _no_file_handles()
    try:
        os.getcwd()
    except OSError:
        return "the working directory is gone; change to one that exists."
    return f"the output cannot be written ({error.strerror or error})."


def _no_file_handles() -> str:
    return "too many files are open; use fewer --jobs, or raise the limit (ulimit -n)."


def _import_error_message(error: ImportError) -> str | None:
    """Return the message for a failed import; None if one of our own modules is at fault."""
    for words, message in _LINKER_ERRORS.items():
        if words in str(error).lower():
            return message or _no_file_handles()
    name = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
    if name.partition(".")[0] in ("", "bninspect"):
        return None
    return f"the package {name} is missing: install bninspect with all it needs, by pip."
