"""A check that is written while it runs: in every format at once, with a bar for who waits for it.

Files appear when the run has ended. Whoever reads standard output may stop reading: the files are
written all the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

import click

from bninspect.cli.formats import CHECK, STREAMED, OutputOptions, StreamWriter
from bninspect.cli.output import (
    OUTPUT_CLOSED,
    drop_output,
    growing_output,
    output_stream,
    refuse_input,
)

if TYPE_CHECKING:
    from bninspect.model.report import CheckpointReport, Report


@contextmanager
def open_sink(
    targets: Sequence[tuple[str, str | None]], options: OutputOptions, *, kept: bool = False
) -> Iterator[ResultSink]:
    """What follows a check and writes it to `targets`, (format, file or None for standard output).

    `kept` says that the findings are needed once more when the check is done.
    No file appears if the block ends by an exception, but for those that grow (`STREAMED`).
    """
    whole = [path for name, path in targets if path is not None and name not in STREAMED]
    with ExitStack() as files:
        written = []
        for name, path in targets:
            if path is not None:
                grows = name in STREAMED
                stream = files.enter_context(
                    _grown(path, options) if grows else output_stream(path)
                )
                written.append(_writer(name, stream, options))
        printed = [name for name, path in targets if path is None]
        # A bar and results that come line by line would write over each other.
        apart = not (printed in (["concise"], ["jsonl"]) and sys.stdout.isatty())
        yield ResultSink(
            written,
            _writer(printed[0], sys.stdout, options) if printed else None,
            whole,
            files.close,
            kept=kept,
            progress=apart and not options.quiet and sys.stderr is not None and sys.stderr.isatty(),
        )


def _grown(path: str, options: OutputOptions) -> AbstractContextManager[Any]:
    from bninspect.runs.resume import drop_unfinished_line, refuse_other_file

    appends = options.resume is not None and same_file(path, options.resume)
    refuse_other_file(path, "--format jsonl:")
    if appends and os.path.isfile(path):
        drop_unfinished_line(path)
    return growing_output(path, appends=appends)


def _writer(name: str, stream: TextIO, options: OutputOptions) -> StreamWriter:
    """What writes a format to a stream, which may be that of the results to go on with."""
    if name in STREAMED and options.resume is not None:
        with suppress(OSError, ValueError):  # not every stream is a file
            there = os.stat(options.resume)
            options = options._replace(appends=os.path.samestat(os.fstat(stream.fileno()), there))
    return CHECK[name](stream, options)


def same_file(path: str, other: str) -> bool:
    """Whether two names lead to one file, which need not be there yet."""
    return os.path.realpath(path) == os.path.realpath(other)


class ResultSink:
    """Gets the checkpoints of a check as they come, and the report at its end."""

    def __init__(
        self,
        written: Sequence[StreamWriter],
        printed: StreamWriter | None,
        files: Sequence[str],
        close_files: Callable[[], None],
        *,
        kept: bool,
        progress: bool,
    ) -> None:
        self._written, self._printed = written, printed
        self._files, self._close_files = files, close_files
        self._progress = progress
        self._bar: Any = None
        everyone = [one for one in (*written, printed) if one is not None]
        self.needs_layers = any(one.needs_layers for one in everyone)
        # A file that is to appear at the end must not be one that was read.
        self.needs_checkpoints = (
            kept or bool(files) or any(one.needs_checkpoints for one in everyone)
        )

    def begin(self, total: int) -> None:
        """Show how far it is, if somebody is there to see it."""
        if self._progress and total > 1:
            self._bar = click.progressbar(
                length=total, label="Checking", file=sys.stderr, show_pos=True
            )
            self._bar.render_progress()

    def add(self, item: CheckpointReport) -> None:
        """Hand on one checkpoint."""
        for one in self._written:
            one.add(item)
        self._print(lambda printed: printed.add(item))
        if self._bar is not None:
            self._bar.update(1)

    def end(self, report: Report, inputs: Iterable[str]) -> None:
        """Write the end; `UsageProblem` in the place of a file that is an input (`inputs`)."""
        inputs = tuple(inputs)
        for path in self._files:
            refuse_input(path, inputs)
        if self._bar is not None:
            self._bar.render_finish()
        for one in self._written:
            one.end(report)
        self._close_files()
        self._print(lambda printed: printed.end(report))

    def _print(self, write: Callable[[StreamWriter], None]) -> None:
        """Write to standard output; the program ends if that is closed and is all there is."""
        if self._printed is None:
            return
        try:
            write(self._printed)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read our output has seen enough; click would exit with 1
            drop_output()
            if not self._written:
                sys.exit(OUTPUT_CLOSED)
            self._printed = None
