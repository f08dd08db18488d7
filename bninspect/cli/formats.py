"""Output formats of each command: a table from a format's name to its writer.

`--format` offers the keys of a table; the first one is the default. A reporter is imported when its
format is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TextIO

from bninspect.cli.output import (
    Destination,
    is_colored,
    output_stream,
    refuse_to_overwrite_inputs,
    terminal_width,
)
from bninspect.frozen import NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from bninspect.batchnorm.inference import Dump
    from bninspect.model.recalibration import Recalibration
    from bninspect.model.report import CheckpointReport, Report
    from bninspect.reporters.text_utils import TextStyle
    from bninspect.runs.watch import Conclusion
    from bninspect.verdicts.comparison import Comparison


class OutputOptions(NamedTuple):
    """The options that change what formats write.

    A check fails by findings of at least the severity `fail_on`, and without `allow_empty` if no
    BN layer was checked. With `several` a dump has the shape of a dump of several checkpoints.
    With `statistics` the text has the findings of all checkpoints in groups. `momentum` is that of
    the configuration. `settings` is the fingerprint of the options that results depend on; `resume`
    is the results file of an earlier run, and with `appends` the one that is written to.
    """

    color: str = "auto"
    quiet: bool = False
    verbose: bool = False
    fail_on: str = "error"
    allow_empty: bool = False
    several: bool = False
    statistics: bool = False
    momentum: float | None = None
    settings: str = ""
    resume: str | None = None
    appends: bool = False

    def text_style(self, stream: TextIO) -> TextStyle:
        """Return the style of a text reporter that writes to `stream`."""
        from bninspect.reporters.text_utils import TextStyle

        colored = is_colored(stream, self.color)
        return TextStyle(terminal_width(stream), colored, self.quiet, self.verbose)


# (result, stream, options); the formats of BINARY take a stream of bytes.
Writer = Callable[[Any, Any, OutputOptions], None]
BINARY = ("npz",)
# Formats whose file grows with each result: if the run breaks off, it holds those before.
STREAMED = ("jsonl",)


def write(
    result: Any,
    writers: Mapping[str, Writer],
    targets: Sequence[Destination],
    inputs: Iterable[str],
    options: OutputOptions,
) -> None:
    """Write a result in each format to its destination.

    Raises `UsageProblem` before anything is written if a file to write is one of `inputs`, and
    for a file that cannot be written.
    """
    inputs = tuple(inputs)
    for _, path in targets:
        if path is not None:
            refuse_to_overwrite_inputs(path, inputs)
    for name, path in targets:
        with output_stream(path, binary=name in BINARY) as stream:
            writers[name](result, stream, options)


class StreamWriter(Protocol):
    """A writer of a check in one format: each checkpoint as it is done, then the end.

    `needs_layers` says that it writes the layers, not only their number. `needs_checkpoints` says
    that the report at the end must have the checkpoints again, not only their number. `render`
    makes what is written of a checkpoint; both can be pickled, since a worker process calls it.
    None if `add` takes what it needs from the report, which then has its layers if it needs them.
    """

    needs_layers: bool
    needs_checkpoints: bool

    @property
    def render(self) -> Callable[[CheckpointReport], Any] | None:
        """Return the function that makes what `add` writes of a checkpoint."""

    def add(self, item: CheckpointReport, rendered: Any) -> None:
        """Write one checkpoint; with `render`, its report may be without its layers."""

    def end(self, report: Report) -> None:
        """Write the end; the checkpoints of `report` are without their layers."""


class _WriterAtTheEnd:
    """A writer of a format of which nothing can be written before the end."""

    needs_layers = False
    needs_checkpoints = True
    render = None

    def __init__(self, write: Callable[[Report], None]) -> None:
        self._write = write

    def add(self, _: CheckpointReport, __: None) -> None:
        pass

    def end(self, report: Report) -> None:
        self._write(report)


def _check_text(stream: TextIO, options: OutputOptions) -> StreamWriter:
    if options.statistics:
        from bninspect.reporters.statistics_text import StatisticsReport

        return StatisticsReport(stream, options.text_style(stream))
    from bninspect.reporters.check_text import TextReport

    return TextReport(stream, options.text_style(stream))


def _check_concise(stream: TextIO, _: OutputOptions) -> StreamWriter:
    from bninspect.reporters.check_text import ConciseReport

    return ConciseReport(stream)


def _check_json(stream: TextIO, _: OutputOptions) -> StreamWriter:
    from bninspect.reporters.json_v1 import JsonReport

    return JsonReport(stream)


def _check_jsonl(stream: TextIO, options: OutputOptions) -> StreamWriter:
    from bninspect.reporters.json_v1 import CheckLines

    return CheckLines(stream, options.settings, appends=options.appends)


def _check_github(stream: TextIO, options: OutputOptions) -> StreamWriter:
    from bninspect.reporters.github import GithubReport

    return GithubReport(
        stream,
        quiet=options.quiet,
        verbose=options.verbose,
        allow_empty=options.allow_empty,
    )


def _check_sarif(stream: TextIO, _: OutputOptions) -> StreamWriter:
    from bninspect.reporters.sarif import write_sarif

    return _WriterAtTheEnd(lambda report: write_sarif(report, stream))


def _check_markdown(stream: TextIO, _: OutputOptions) -> StreamWriter:
    from bninspect.reporters.markdown import MarkdownReport

    return MarkdownReport(stream)


def _check_html(stream: TextIO, options: OutputOptions) -> StreamWriter:
    from bninspect.cli.command_line import command_line
    from bninspect.reporters.html.page import HtmlReport
    from bninspect.reporters.html.run import run_details

    return HtmlReport(stream, momentum=options.momentum, run=run_details(command_line()))


def _check_gitlab(stream: TextIO, options: OutputOptions) -> StreamWriter:
    from bninspect.reporters.gitlab import write_gitlab

    return _WriterAtTheEnd(
        lambda report: write_gitlab(report, stream, allow_empty=options.allow_empty)
    )


def _check_junit(stream: TextIO, options: OutputOptions) -> StreamWriter:
    from bninspect.reporters.junit import JunitReport

    return JunitReport(stream, fail_on=options.fail_on)


CHECK: Mapping[str, Callable[[TextIO, OutputOptions], StreamWriter]] = {
    "text": _check_text,
    "concise": _check_concise,
    "json": _check_json,
    "jsonl": _check_jsonl,
    "github": _check_github,
    "sarif": _check_sarif,
    "junit": _check_junit,
    "gitlab": _check_gitlab,
    "markdown": _check_markdown,
    "html": _check_html,
}


class WatchWriter(Protocol):
    """A writer of a watch in one format: each checkpoint when it was checked, then the end."""

    def add(self, item: CheckpointReport, moment: datetime) -> None:
        """Write one checkpoint."""

    def end(self, conclusion: Conclusion, moment: datetime) -> None:
        """Write the end."""


def _watch_text(stream: TextIO, options: OutputOptions) -> WatchWriter:
    from bninspect.reporters.watch_text import WatchText

    return WatchText(stream, options.text_style(stream))


def _watch_jsonl(stream: TextIO, _: OutputOptions) -> WatchWriter:
    from bninspect.reporters.json_v1 import JsonLines

    return JsonLines(stream)


WATCH: Mapping[str, Callable[[TextIO, OutputOptions], WatchWriter]] = {
    "text": _watch_text,
    "jsonl": _watch_jsonl,
}


def _list_text(report: Report, stream: TextIO, options: OutputOptions) -> None:
    from bninspect.reporters.list_text import write_list

    write_list(report, stream, options.text_style(stream))


def _list_json(report: Report, stream: TextIO, _: OutputOptions) -> None:
    from bninspect.reporters.json_v1 import write_json

    write_json(report, stream, findings=False)


LIST: Mapping[str, Writer] = {"text": _list_text, "json": _list_json}


def _dump_text(dumps: Sequence[Dump], stream: TextIO, options: OutputOptions) -> None:
    from bninspect.reporters.dump_text import write_dump

    write_dump(dumps, stream, options.text_style(stream))


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

    write_comparison(comparison, stream, options.text_style(stream))


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


def _recalibrate_text(result: Recalibration, stream: TextIO, options: OutputOptions) -> None:
    from bninspect.reporters.recalibrate_text import write_recalibration

    write_recalibration(result, stream, options.text_style(stream))


def _recalibrate_json(result: Recalibration, stream: TextIO, _: OutputOptions) -> None:
    from bninspect.reporters.recalibrate_json import write_recalibration_json

    write_recalibration_json(result, stream)


def _recalibrate_html(result: Recalibration, stream: TextIO, _: OutputOptions) -> None:
    from bninspect.reporters.html.recalibration import write_recalibration

    write_recalibration(result, stream)


RECALIBRATE: Mapping[str, Writer] = {
    "text": _recalibrate_text,
    "json": _recalibrate_json,
    "html": _recalibrate_html,
}
