"""What is written of a result: the formats each command has, and how one run writes several.

A table from a format's name to what writes it: `--format` offers its keys, the first is the usual
one. A reporter is imported when its format is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, TextIO

from bninspect.cli.output import look, output_stream, refuse_input

if TYPE_CHECKING:
    from datetime import datetime

    from bninspect.batchnorm.inference import Dump
    from bninspect.model.report import CheckpointReport, Report
    from bninspect.runs.watch import Conclusion
    from bninspect.verdicts.comparison import Comparison


class OutputOptions(NamedTuple):
    """What was asked for besides a format: colour and length of prose, and what else formats show.

    `fail_on` is the least severity that fails the run, and without `allow_empty` so does a run
    without a BN layer; `several` says that a dump may be of more than one checkpoint. `settings`
    name the options that results depend on, and `resume` is the file of an earlier run's; with
    `appends` it is the one that is written to.
    """

    color: str = "auto"
    quiet: bool = False
    verbose: bool = False
    fail_on: str = "error"
    allow_empty: bool = False
    several: bool = False
    settings: str = ""
    resume: str | None = None
    appends: bool = False

    def look(self, stream: TextIO) -> dict[str, Any]:
        """How a reporter for persons is to write to a stream."""
        return look(stream, self.color, quiet=self.quiet, verbose=self.verbose)


# (result, stream, options); those of BINARY take a stream of bytes.
Writer = Callable[[Any, Any, OutputOptions], None]
BINARY = ("npz",)
# Formats whose file grows with each result, and holds what is done if the run breaks.
STREAMED = ("jsonl",)


def write(
    result: Any,
    writers: Mapping[str, Writer],
    destinations: Sequence[tuple[str, str | None]],
    inputs: Iterable[str],
    options: OutputOptions,
) -> None:
    """Write a result in each format to its file, which is none of `inputs`, or to standard output.

    Nothing is written if one of the files is an input. Raises `UsageProblem` for such a file, and
    for one that cannot be written.
    """
    inputs = tuple(inputs)
    for _, path in destinations:
        if path is not None:
            refuse_input(path, inputs)
    for name, path in destinations:
        with output_stream(path, binary=name in BINARY) as stream:
            writers[name](result, stream, options)


class StreamWriter(Protocol):
    """What writes a check in one format: each checkpoint as it comes, then what is said of all.

    `layers` says whether it writes the layers themselves, not only how many there are; `kept`
    whether the report at the end is to have the checkpoints again, not only how many.
    """

    needs_layers: bool
    needs_checkpoints: bool

    def add(self, item: CheckpointReport) -> None:
        """One checkpoint has been checked."""

    def end(self, report: Report) -> None:
        """All have; of their layers `report` has only the number."""


class _AtTheEnd:
    """A format of which nothing can be written before the end."""

    needs_layers = False
    needs_checkpoints = True

    def __init__(self, write: Callable[[Report], None]) -> None:
        self._write = write

    def add(self, _: CheckpointReport) -> None:
        pass

    def end(self, report: Report) -> None:
        self._write(report)


def _check_text(stream: TextIO, options: OutputOptions) -> StreamWriter:
    from bninspect.reporters.check_text import TextReport

    return TextReport(stream, **options.look(stream))


def _concise(stream: TextIO, _: OutputOptions) -> StreamWriter:
    from bninspect.reporters.check_text import ConciseReport

    return ConciseReport(stream)


def _check_json(stream: TextIO, _: OutputOptions) -> StreamWriter:
    from bninspect.reporters.json_v1 import JsonReport

    return JsonReport(stream)


def _check_jsonl(stream: TextIO, options: OutputOptions) -> StreamWriter:
    from bninspect.reporters.json_v1 import CheckLines

    return CheckLines(stream, options.settings, appends=options.appends)


def _github(stream: TextIO, options: OutputOptions) -> StreamWriter:
    from bninspect.reporters.github import GithubReport

    return GithubReport(
        stream,
        quiet=options.quiet,
        verbose=options.verbose,
        allow_empty=options.allow_empty,
    )


def _sarif(stream: TextIO, _: OutputOptions) -> StreamWriter:
    from bninspect.reporters.sarif import write_sarif

    return _AtTheEnd(lambda report: write_sarif(report, stream))


def _junit(stream: TextIO, options: OutputOptions) -> StreamWriter:
    from bninspect.reporters.junit import JunitReport

    return JunitReport(stream, fail_on=options.fail_on)


CHECK: Mapping[str, Callable[[TextIO, OutputOptions], StreamWriter]] = {
    "text": _check_text,
    "concise": _concise,
    "json": _check_json,
    "jsonl": _check_jsonl,
    "github": _github,
    "sarif": _sarif,
    "junit": _junit,
}


class WatchWriter(Protocol):
    """What writes a watch in one format: each checkpoint at its moment, at last what is said."""

    def add(self, item: CheckpointReport, moment: datetime) -> None:
        """One checkpoint has come."""

    def end(self, conclusion: Conclusion, moment: datetime) -> None:
        """No more will come."""


def _watch_text(stream: TextIO, options: OutputOptions) -> WatchWriter:
    from bninspect.reporters.watch_text import WatchText

    return WatchText(stream, **options.look(stream))


def _watch_jsonl(stream: TextIO, _: OutputOptions) -> WatchWriter:
    from bninspect.reporters.json_v1 import JsonLines

    return JsonLines(stream)


WATCH: Mapping[str, Callable[[TextIO, OutputOptions], WatchWriter]] = {
    "text": _watch_text,
    "jsonl": _watch_jsonl,
}


def _list_text(report: Report, stream: TextIO, options: OutputOptions) -> None:
    from bninspect.reporters.list_text import write_list

    write_list(report, stream, **options.look(stream))


def _list_json(report: Report, stream: TextIO, _: OutputOptions) -> None:
    from bninspect.reporters.json_v1 import write_json

    write_json(report, stream, findings=False)


LIST: Mapping[str, Writer] = {"text": _list_text, "json": _list_json}


def _dump_text(dumps: Sequence[Dump], stream: TextIO, options: OutputOptions) -> None:
    from bninspect.reporters.list_text import write_dump

    asked = options.look(stream)
    del asked["width"]  # nothing of it is folded
    write_dump(dumps, stream, **asked)


def _dump_json(dumps: Sequence[Dump], stream: TextIO, options: OutputOptions) -> None:
    from bninspect.reporters.json_v1 import write_dump_json

    write_dump_json(dumps, stream, several=options.several)


def _dump_csv(dumps: Sequence[Dump], stream: TextIO, options: OutputOptions) -> None:
    from bninspect.reporters.dump_files import write_csv

    write_csv(dumps, stream, several=options.several)


def _dump_npz(dumps: Sequence[Dump], stream: BinaryIO, options: OutputOptions) -> None:
    from bninspect.reporters.dump_files import write_npz

    write_npz(dumps, stream, several=options.several)


DUMP: Mapping[str, Writer] = {
    "text": _dump_text,
    "json": _dump_json,
    "csv": _dump_csv,
    "npz": _dump_npz,
}


def _compare_text(comparison: Comparison, stream: TextIO, options: OutputOptions) -> None:
    from bninspect.reporters.compare_text import write_comparison

    write_comparison(comparison, stream, **options.look(stream))


def _compare_json(comparison: Comparison, stream: TextIO, _: OutputOptions) -> None:
    from bninspect.reporters.compare_json import write_comparison_json

    write_comparison_json(comparison, stream)


def _compare_csv(comparison: Comparison, stream: TextIO, _: OutputOptions) -> None:
    from bninspect.reporters.compare_text import write_csv

    write_csv(comparison, stream)


COMPARE: Mapping[str, Writer] = {
    "text": _compare_text,
    "json": _compare_json,
    "csv": _compare_csv,
}
