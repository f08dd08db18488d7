"""The help of each command: complete, within 80 columns, and with examples that run."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from bninspect.cli import formats
from bninspect.cli.main import COMMANDS, main
from tests.support.documents import framework_marks, make_workplace, run_in

NAMES = ("", *COMMANDS)
each_command = pytest.mark.parametrize("name", NAMES, ids=lambda name: name or "bninspect")


def command_of(name: str) -> click.Command:
    command = main.get_command(click.Context(main), name) if name else main
    assert command is not None
    return command


def help_of(name: str) -> str:
    """The help at 80 columns."""
    command = command_of(name)
    parent = click.Context(main, info_name="bninspect", terminal_width=80, **main.context_settings)
    context = click.Context(command, parent, info_name=name) if name else parent
    return command.get_help(context)


def part(text: str, title: str) -> list[str]:
    """The lines under a title of the part below the options."""
    found = re.search(rf"^  {title}\n((?:    .*\n)+)", text + "\n", re.MULTILINE)
    return [line[4:] for line in found[1].splitlines()] if found else []


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    make_workplace(tmp_path)
    return tmp_path


def examples_of(name: str) -> list[str]:
    return part(help_of(name), "Examples:")


@pytest.mark.processes
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, id=name or "bninspect", marks=framework_marks(examples_of(name)))
        for name in NAMES
    ],
)
def test_every_example_runs(name: str, workplace: Path) -> None:
    examples = examples_of(name)
    start = f"bninspect {name}".rstrip()
    assert examples
    for line in examples:
        assert line.startswith(start), line
        done = run_in(workplace, line)
        assert done.returncode in (0, 1, 3), f"{line}\n{done.stdout}"
        assert "Traceback" not in done.stdout
        shown = re.search(r"(?:-o |=|> )(\S+\.(?:jsonl?|csv|npz|md|sarif))", line)
        assert shown is None or (workplace / shown[1]).stat().st_size, line


def test_no_example_is_missing_from_the_help_of_all() -> None:
    text = help_of("")
    assert re.findall(r"^  (\w+)  ", text.partition("Commands:")[2], re.MULTILINE) == sorted(
        NAMES[1:]
    )


@each_command
def test_fits_into_80_columns(name: str) -> None:
    assert [line for line in help_of(name).splitlines() if len(line) > 80] == []


@each_command
def test_every_option_is_explained_once(name: str) -> None:
    command = command_of(name)
    options = [one for one in command.params if isinstance(one, click.Option)]
    spelled = [text for option in options for text in option.opts]
    assert len(spelled) == len(set(spelled))
    assert options or name in ("schema", "help", "completion")
    for option in options:
        assert option.help, option.opts
        assert option.help.endswith("."), option.opts
    text = help_of(name)
    for option in options:
        heads = re.findall(rf"^  (?:-\w, )?{option.opts[-1]}\b", text, re.MULTILINE)
        assert len(heads) == 1, option.opts


@pytest.mark.parametrize(
    "name", ["check", "list", "dump", "compare", "recalibrate", "rule", "config"]
)
def test_says_the_exit_codes(name: str) -> None:
    """Those that the tests of the commands have: a verdict has four, the others two."""
    codes = [line[0] for line in part(help_of(name), "Exit codes:") if line[0].isdigit()]
    assert codes == (["0", "1", "2", "3"] if name in ("check", "compare") else ["0", "2"])


@pytest.mark.parametrize("name", ["check", "dump", "compare"])
def test_says_what_each_format_is(name: str) -> None:
    told = [line.split()[0] for line in part(help_of(name), "Formats:")]
    assert told == list(getattr(formats, name.upper()))
