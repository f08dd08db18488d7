"""The commands that read no checkpoint: `config`, `rule` and `schema`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bninspect.cli import help_texts
from bninspect.cli.exit_codes import OK
from bninspect.cli.options import COLOR, OUTPUT, Choice, config_options, format_option
from bninspect.cli.output import is_colored, output_stream, terminal_width
from bninspect.errors import UsageProblem
from bninspect.model.frameworks import FRAMEWORKS

if TYPE_CHECKING:
    from bninspect.config.model import Config


@click.command(
    name="config",
    short_help="Show the configuration and where it comes from.",
    epilog=help_texts.CONFIG,
)
@config_options
def config_(config: Config, format_: str) -> int:
    """Show the settings that `check` uses in this directory, and the source of each.

    A value is the default, a key of the configuration file, or an option of this command. The file
    is the nearest bninspect.toml, or pyproject.toml with [tool.bninspect], in this directory or one
    above it.
    """
    rules = config.rules
    with output_stream(None) as stream:
        if format_ == "json":
            from bninspect.reporters.json_v1 import write_config_json

            write_config_json(config, rules, stream)
        else:
            from bninspect.reporters.config_text import write_config

            write_config(config, rules, stream, width=terminal_width(stream))
    return OK


def _complete_entries(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
    """Return the codes of rules and the names of causes that begin with what is typed."""
    from bninspect.rules import CAUSES, RULES

    names = [*(rule.code for rule in RULES), *(cause.name for cause in CAUSES)]
    return [name for name in names if name.startswith(typed)]


@click.command(
    short_help="Explain the rules and causes: meaning, proof, fix.", epilog=help_texts.RULE
)
@click.argument("code", required=False, shell_complete=_complete_entries)
@click.option(
    "--for",
    "framework",
    type=Choice(tuple(FRAMEWORKS)),
    metavar="FRAMEWORK",
    help="Leave out what is for other frameworks alone, and begin with how to fix it. FRAMEWORK is"
    f" one of {', '.join(FRAMEWORKS)}.",
)
@format_option("text", "markdown", "json")
@OUTPUT
@COLOR
def rule(
    code: str | None, framework: str | None, format_: str, output: str | None, color: str
) -> int:
    """Show the catalogue of rules and causes, or one page: meaning, causes, fix.

    CODE is a rule's code or name, or the name of a cause. A page says what a finding means, why it
    is bad, what proves a cause, and how to fix it, with code for TF1 layers, slim, Keras and custom
    training loops; with --for, for one of them.
    """
    from bninspect.reporters import rule_pages
    from bninspect.rules import CAUSES, RULES, entry_called

    chosen = entry_called(code) if code else None
    if framework and chosen is None:
        raise UsageProblem(
            f"--for needs the rule or cause to show: bninspect rule BN101 --for {framework}"
        )
    with output_stream(output) as stream:
        if format_ == "json":
            from bninspect.reporters.rule_json import write_rules

            write_rules(RULES, CAUSES, stream, entry=chosen, framework=framework)
        elif format_ == "markdown":
            rule_pages.write_markdown(RULES, CAUSES, stream, entry=chosen, framework=framework)
        elif chosen is None:
            rule_pages.write_catalogue(RULES, CAUSES, stream, width=terminal_width(stream))
        else:
            width = min(terminal_width(stream) or 80, 100)
            colored = is_colored(stream, color)
            rule_pages.write_page(
                chosen, RULES, CAUSES, stream, framework=framework, width=width, color=colored
            )
    return OK


@click.command(short_help="Print the JSON Schema of --format json.", epilog=help_texts.SCHEMA)
def schema() -> int:
    """Print the JSON Schema (draft 2020-12) that every document of --format json follows.

    The JSON is only ever extended: ignore keys that you do not know.
    """
    from bninspect.reporters.json_v1 import schema_text

    with output_stream(None) as stream:
        stream.write(schema_text())
    return OK
