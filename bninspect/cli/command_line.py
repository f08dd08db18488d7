"""The command line of this run, for a report that shows it."""

from __future__ import annotations

import click


def command_line() -> tuple[str, ...]:
    """Return the arguments as they were typed, without credentials; none outside of a command."""
    context = click.get_current_context(silent=True)
    return () if context is None else context.find_root().obj or ()
