"""Exceptions for wrong usage (`UsageProblem`) and for files that cannot be read (`ReadProblem`).

Every message is a sentence that a user can act on. `ReadProblem.kind` is one of the words that the
JSON report promises in `error.kind`. A bug in bninspect is none of these and stays a traceback.
"""

from __future__ import annotations

import re
from typing import ClassVar

_LONGEST_WORD, _LONGEST_MESSAGE = 200, 2000  # characters


def shortened(text: str) -> str:
    """Return a message without the middle of very long words: names in a file may be endless."""
    words = re.sub(rf"\S{{{_LONGEST_WORD + 1},}}", lambda word: _cut(word[0], _LONGEST_WORD), text)
    return _cut(words, _LONGEST_MESSAGE)


def _cut(text: str, longest: int) -> str:
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


class BninspectError(Exception):
    """Base class of all exceptions that bninspect raises on purpose."""


class UsageProblem(BninspectError):
    """Wrong usage: an option, a rule code, a layer name."""

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


class RecalibrationRefused(BninspectError):
    """A recalibration that would not cure the model, or of which that cannot be known.

    The message is one sentence.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


class ReadProblem(BninspectError):
    """A checkpoint that could not be read.

    `path` is the file at fault, `message` says what is wrong with it (a clause without a full
    stop), `hint` is one sentence on what to do. Very long words in these two lose their middle.
    """

    kind: ClassVar[str] = "corrupt"

    def __init__(self, path: str, message: str, hint: str) -> None:
        self.path = path
        self.message = shortened(message)
        self.hint = shortened(hint)
        super().__init__(f"{path}: {self.message}. {self.hint}")

    def __reduce__(self) -> tuple[type[ReadProblem], tuple[str, str, str]]:
        """Return how to pickle it, as for sending it to another process."""
        return type(self), (self.path, self.message, self.hint)


class NotFound(ReadProblem):
    """A path that does not exist."""

    kind = "not-found"


class UnknownFormat(ReadProblem):
    """A file that TensorFlow and Keras do not write."""

    kind = "unknown-format"


class OtherGraph(UnknownFormat):
    """A graph beside a checkpoint that has other variables than the checkpoint."""


class NotFetched(UnknownFormat):
    """A pointer that Git LFS leaves in the place of a file that it has not fetched."""


class Corrupt(ReadProblem):
    """A file whose bytes contradict the format or their own checksum."""

    kind = "corrupt"


class Incomplete(ReadProblem):
    """A checkpoint without a part: a shard, the end of a file, the slice of a variable."""

    kind = "incomplete"


class Overwritten(Incomplete):
    """A local file that was written while it was read: the bytes are of two versions."""


class Unsupported(ReadProblem):
    """A valid file that bninspect does not read, or for which there is too little memory."""

    kind = "unsupported"


class Unreachable(ReadProblem):
    """A file that the server did not deliver, or not to this user; the file may be fine."""

    kind = "unreachable"
