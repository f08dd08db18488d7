"""What can go wrong: you (`UsageProblem`) or the file (`ReadProblem`).

Every message is a sentence a person can act on. `ReadProblem.kind` is one of the words that the
JSON report promises in `error.kind`. A bug of ours is none of these and stays a traceback.
"""

from __future__ import annotations

import re
from typing import ClassVar

_LONGEST_WORD, _LONGEST_MESSAGE = 200, 2000  # characters


def shortened(text: str) -> str:
    """A message without the middle of what no person would read: names in a file may be endless."""
    words = re.sub(rf"\S{{{_LONGEST_WORD + 1},}}", lambda word: _cut(word[0], _LONGEST_WORD), text)
    return _cut(words, _LONGEST_MESSAGE)


def _cut(text: str, longest: int) -> str:
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


class BninspectError(Exception):
    """Base of everything bninspect raises on purpose."""


class UsageProblem(BninspectError):
    """The call cannot be carried out as it was made: an option, a rule code, a layer name."""

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


class ReadProblem(BninspectError):
    """A checkpoint could not be read.

    `path` is the file at fault, `message` says what is wrong with it (a clause without a full
    stop), `hint` is one sentence on what to do. Endless names in these two lose their middle.
    """

    kind: ClassVar[str] = "corrupt"

    def __init__(self, path: str, message: str, hint: str) -> None:
        self.path = path
        self.message = shortened(message)
        self.hint = shortened(hint)
        super().__init__(f"{path}: {self.message}. {self.hint}")

    def __reduce__(self) -> tuple[type[ReadProblem], tuple[str, str, str]]:
        """How it travels from one process to another."""
        return type(self), (self.path, self.message, self.hint)


class NotFound(ReadProblem):
    """Nothing lies where the path points."""

    kind = "not-found"


class UnknownFormat(ReadProblem):
    """There is a file, but it is none that TensorFlow or Keras writes."""

    kind = "unknown-format"


class NotFetched(UnknownFormat):
    """There is what Git LFS leaves in the place of a file that it has not fetched."""


class Corrupt(ReadProblem):
    """The bytes contradict the format or their own checksum."""

    kind = "corrupt"


class Incomplete(ReadProblem):
    """A part is missing: a shard, the end of a file, the slice of a variable."""

    kind = "incomplete"


class Overwritten(Incomplete):
    """A local file was written while it was read, so what was read is a mixture of two states."""


class Unsupported(ReadProblem):
    """The file is what it claims to be, and bninspect does not read that."""

    kind = "unsupported"


class Unreachable(ReadProblem):
    """A server gives nobody, or not this one, what lies there; that tells nothing of the file."""

    kind = "unreachable"
