"""The outputs in the documents, written again: `python -m tests.support.outputs [DOCUMENT...]`.

Each ```console block of the documents gets what its commands print now. Look at the difference: an
output that is wrong is written just as well.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from tests.support.documents import (
    DOCUMENTS,
    blocks,
    commands,
    make_workplace,
    run_in,
    served_bucket,
    timeless,
)


def main() -> None:
    """Write the outputs of all documents again, or of those that are named."""
    named = [Path(name).resolve() for name in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder, served_bucket(Path(folder)) as variables:
        for document in named or DOCUMENTS:
            if blocks(document, "console"):
                write_outputs(document, variables)


def write_outputs(document: Path, variables: dict[str, str]) -> None:
    """Run the commands of a document in order, and write what those of console blocks print."""
    text = document.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        make_workplace(Path(folder))
        for command in commands(document):
            done = run_in(Path(folder), command.line, **variables)
            output = done.stdout.strip("\n")
            if command.output is not None and timeless(output) != timeless(command.output):
                block = re.compile(
                    rf"^\$ {re.escape(command.line)}\n.*?(?=^(?:```|\$ ))", re.S | re.M
                )
                said = f"$ {command.line}\n{output}\n"
                text = block.sub(lambda _, said=said: said, text, count=1)
    document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
