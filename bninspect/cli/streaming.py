"""Writing a check while it runs: every format at once, and a progress bar.

Files appear when the run has ended. They are written even if the reader of standard output closes
it early.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from bninspect.cli.exit_codes import OUTPUT_CLOSED
from bninspect.cli.formats import CHECK, STREAMED, OutputOptions, StreamWriter
from bninspect.cli.output import (
    Destination,
    discard_output,
    growing_output,
    is_closed_pipe,
    output_stream,
    refuse_to_overwrite_inputs,
    standard_output,
)
from bninspect.cli.progress import ProgressBar
from bninspect.runs.observer import render_all

if TYPE_CHECKING:
    from bninspect.model.report import CheckpointReport, Report


@contextmanager
def open_sink(
    targets: Sequence[Destination], options: OutputOptions, *, needs_checkpoints: bool = False
) -> Iterator[ResultSink]:
    """Open the sink that writes a check to `targets`.

    `needs_checkpoints` says that the caller needs the checkpoints again when the check is done.
    No file appears if the block ends with an exception, except those that grow (`STREAMED`).
    """
    atomic = [path for name, path in targets if path is not None and name not in STREAMED]
    with ExitStack() as files:
        writers = []
        for name, path in targets:
            if path is not None:
                opened = _grown(path, options) if name in STREAMED else output_stream(path)
                writers.append(_writer(name, files.enter_context(opened), options))
        printed = [name for name, path in targets if path is None]
        printer = _writer(printed[0], standard_output(), options) if printed else None
        # A progress bar and results that come line by line would overwrite each other.
        is_mixed = printed in (["concise"], ["jsonl"]) and standard_output().isatty()
        has_terminal = sys.stderr is not None and sys.stderr.isatty()
        sink = ResultSink(
            writers,
            printer,
            atomic,
            files.close,
            needs_checkpoints=needs_checkpoints,
            shows_progress=has_terminal and not is_mixed and not options.quiet,
        )
        files.callback(sink.erase_progress)
        yield sink


def _grown(path: str, options: OutputOptions) -> AbstractContextManager[Any]:
    from bninspect.runs.resume import drop_unfinished_line, refuse_other_file

    appends = options.resume is not None and is_same_file(path, options.resume)
    refuse_other_file(path, "--format jsonl:")
    if appends and os.path.isfile(path):
        drop_unfinished_line(path)
    return growing_output(path, appends=appends)


def _writer(name: str, stream: TextIO, options: OutputOptions) -> StreamWriter:
    """Return the writer of a format to a stream, which may be that of the resumed results."""
    if name in STREAMED and options.resume is not None:
        with suppress(OSError, ValueError):  # not every stream is a file
            resumed = os.stat(options.resume)
            options = options._replace(appends=os.path.samestat(os.fstat(stream.fileno()), resumed))
    return CHECK[name](stream, options)


def is_same_file(path: str, other_path: str) -> bool:
    """Return whether two paths name one file, which need not exist yet."""
    return os.path.realpath(path) == os.path.realpath(other_path)


class ResultSink:
    """A run observer that passes each checkpoint on to the writers, and the report at the end.

    `writers` write to files, `printer` to standard output. `atomic` are the files that appear when
    `close_files` is called.
    """

    def __init__(
        self,
        writers: Sequence[StreamWriter],
        printer: StreamWriter | None,
        atomic: Sequence[str],
        close_files: Callable[[], None],
        *,
        needs_checkpoints: bool,
        shows_progress: bool,
    ) -> None:
        self._writers, self._printer = writers, printer
        self._atomic, self._close_files = atomic, close_files
        self._shows_progress = shows_progress
        self._bar: ProgressBar | None = None
        all_writers = [*writers, *([printer] if printer is not None else [])]
        self.needs_layers = any(writer.needs_layers for writer in all_writers)
        self._render = partial(render_all, renderers=tuple(one.render for one in all_writers))
        needs_whole = any(one.needs_layers and one.render is None for one in all_writers)
        self.render = None if needs_whole else self._render
        # The paths that were read are compared with the files that are about to appear.
        self.needs_checkpoints = (
            needs_checkpoints
            or bool(atomic)
            or any(writer.needs_checkpoints for writer in all_writers)
        )

    def begin(self, total: int) -> None:
        """Show the progress over `total` checkpoints on a terminal."""
        if self._shows_progress and total > 1:
            self._bar = ProgressBar(total, sys.stderr)

    def erase_progress(self) -> None:
        """Erase the progress bar."""
        if self._bar is not None:
            self._bar.erase()

    def add(self, item: CheckpointReport, rendered: Sequence[Any] | None) -> None:
        """Write one checkpoint; `rendered` is None if a writer needs the whole report."""
        rendered = self._render(item) if rendered is None else rendered
        for writer, text in zip(self._writers, rendered, strict=False):
            writer.add(item, text)
        self._print(lambda printer: printer.add(item, rendered[-1]))
        if self._bar is not None:
            self._bar.advance()

    def end(self, report: Report, inputs: Iterable[str]) -> None:
        """Write the end; raises `UsageProblem` instead if a file to write is one of `inputs`."""
        inputs = tuple(inputs)
        for path in self._atomic:
            refuse_to_overwrite_inputs(path, inputs)
        self.erase_progress()
        for writer in self._writers:
            writer.end(report)
        self._close_files()
        self._print(lambda printer: printer.end(report))

    def _print(self, write: Callable[[StreamWriter], None]) -> None:
        """Write to standard output; exit the program if it is closed and there are no files."""
        if self._printer is None:
            return
        try:
            write(self._printer)
            sys.stdout.flush()
        except OSError as error:
            if not is_closed_pipe(error):
                raise
            discard_output()  # click would exit with 1, "findings"
            if not self._writers:
                sys.exit(OUTPUT_CLOSED)
            self._printer = None
