"""What can go wrong: you (`UsageProblem`) or the file (`ReadProblem`).

Every message is a sentence a person can act on. `ReadProblem.kind` is one of the words that the
JSON report promises in `error.kind`. A bug of ours is none of these and stays a traceback.
"""

from __future__ import annotations

from typing import ClassVar


class BninspectError(Exception):
    """Base of everything bninspect raises on purpose."""


class UsageProblem(BninspectError):
    """The call cannot be carried out as it was made: an option, a rule code, a layer name."""


class ReadProblem(BninspectError):
    """A checkpoint could not be read.

    `path` is the file at fault, `message` says what is wrong with it (a clause without a full
    stop), `hint` is one sentence on what to do.
    """

    kind: ClassVar[str] = "corrupt"

    def __init__(self, path: str, message: str, hint: str) -> None:
        super().__init__(f"{path}: {message}. {hint}")
        self.path = path
        self.message = message
        self.hint = hint


class NotFound(ReadProblem):
    """Nothing lies where the path points."""

    kind = "not-found"


class UnknownFormat(ReadProblem):
    """There is a file, but it is none that TensorFlow or Keras writes."""

    kind = "unknown-format"


class Corrupt(ReadProblem):
    """The bytes contradict the format or their own checksum."""

    kind = "corrupt"


class Incomplete(ReadProblem):
    """A part is missing: a shard, the end of a file, the slice of a variable."""

    kind = "incomplete"


class Unsupported(ReadProblem):
    """The file is what it claims to be, and bninspect does not read that."""

    kind = "unsupported"
