"""Reader of TensorFlow's state file `checkpoint`, which names the checkpoints of a training."""

from __future__ import annotations

import os
import re

from bninspect.storage.source import Source

# The state file is a CheckpointState as text (tensorflow/python/training/checkpoint_state.proto).
_NAMED = rb'(?m)^[ \t]*(all_model_checkpoint_paths|model_checkpoint_path):[ \t]*"((?:[^"\\]|\\.)*)"'

_MAX_STATE_FILE = 1 << 24


def state_of(state_file: str) -> tuple[str | None, list[str]]:
    """The newest checkpoint that a state file names (None if it names none), and all of them.

    The names are as stored: relative to the directory, or absolute on the machine that wrote them.
    """
    with Source(state_file) as source:
        text = source.read(0, min(source.size, _MAX_STATE_FILE), "the checkpoint state")
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
    """A character of a text-form protocol buffer: bytes beyond ASCII are written in octal."""
    octal, character = match.groups()
    if octal is not None:
        return bytes([int(octal, 8) & 0xFF])
    return {b"n": b"\n", b"t": b"\t", b"r": b"\r"}.get(character, character)
