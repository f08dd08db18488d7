"""Reader of TensorFlow's state file `checkpoint`, which names the checkpoints of a training."""

from __future__ import annotations

import os
import re

from bninspect.storage.source import Source

# The state file is a CheckpointState as text (tensorflow/python/training/checkpoint_state.proto).
_NAMED = rb'(?m)^[ \t]*(all_model_checkpoint_paths|model_checkpoint_path):[ \t]*"((?:[^"\\]|\\.)*)"'

_LARGEST = 1 << 24  # bytes that are read of it


def read_state(state_file: str) -> tuple[str | None, list[str]]:
    """Return the newest checkpoint that a state file names, None without one, and all it names.

    The names are as stored: relative to the directory, or absolute on the machine that wrote them.
    Raises a `ReadProblem` if the file cannot be read.
    """
    with Source(state_file) as source:
        text = source.read(0, min(source.size, _LARGEST), "the checkpoint state")
    latest, names = None, []
    for field, quoted in re.findall(_NAMED, text):
        unescaped = re.sub(rb"\\(?:([0-7]{1,3})|(.))", _unescape, quoted, flags=re.DOTALL)
        if not unescaped:
            continue
        names.append(os.fsdecode(unescaped))
        if latest is None and field == b"model_checkpoint_path":
            latest = names[-1]
    return latest, list(dict.fromkeys(names))


def _unescape(match: re.Match[bytes]) -> bytes:
    """Return the character of an escape in a text-format protocol buffer, octal beyond ASCII."""
    octal, character = match.groups()
    if octal is not None:
        return bytes([int(octal, 8) & 0xFF])
    return {b"n": b"\n", b"t": b"\t", b"r": b"\r"}.get(character, character)
