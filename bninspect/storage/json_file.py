"""Files that are one JSON document."""

from __future__ import annotations

import json
from typing import Any

from bninspect.errors import Corrupt
from bninspect.storage.source import Source


def read_json(path: str, what: str, largest: int, hint: str) -> Any:
    """Return the document in a file of at most `largest` bytes.

    `what` is in the file, `hint` what to do if it is damaged. Raises a `ReadProblem` if the file is
    larger, is not JSON or cannot be read.
    """
    with Source(path) as source:
        if source.size > largest:
            raise Corrupt(path, f"it has {source.size} bytes, which is too many for {what}", hint)
        text = source.read(0, source.size, what)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Corrupt(path, f"it is not valid JSON ({error})", hint) from error
