"""Graphs in the text form of protocol buffers (`.pbtxt`), encoded as their binary form.

The text form has the names of fields (https://protobuf.dev/reference/protobuf/textformat-spec). It
takes 100 times as long to parse, so its size is limited.
"""

from __future__ import annotations

import re

from bninspect.errors import Corrupt, UnknownFormat, Unsupported
from bninspect.formats.tensorflow.protos import DecodeError, declare, parse_text

_LARGEST_TEXT = 1 << 24  # bytes
# The operation of a node that is a variable; within a string, the text form escapes the quotes.
_VARIABLE = re.compile(rb"""\bop\s*:\s*(["'])(?:Variable|VariableV2|VarHandleOp)\1""")


def refuse_variables(path: str, text: bytes) -> None:
    """Raise `UnknownFormat` if a GraphDef in its text form has variables.

    Estimators write such a `graph.pbtxt` beside their checkpoints. It may be large, and is not
    parsed to say so.
    """
    if _VARIABLE.search(text):
        raise UnknownFormat(
            path,
            "this graph is not frozen: it lacks the values of its variables",
            "Check the checkpoint that was saved with it.",
        )


def encode_text(path: str, text: bytes, *, saved_model: bool = False) -> bytes:
    """Return the binary form of a GraphDef in its text form.

    Raises `Corrupt` if it cannot be parsed, `Unsupported` if it is too large, or that of a
    SavedModel, which has much more than a graph.
    """
    if saved_model:
        raise Unsupported(
            path,
            "the graph of this SavedModel is in text form, which is not read",
            "Write it in binary form: builder.save(as_text=False).",
        )
    if len(text) > _LARGEST_TEXT:
        raise Unsupported(
            path,
            f"this graph in text form has {len(text)} bytes, more than {_LARGEST_TEXT}",
            "Write it in binary form: tf.io.write_graph(…, as_text=False).",
        )
    (message_class,) = declare("GraphDef", text=True)
    graph = message_class()
    try:
        parse_text(text, graph)
        encoded: bytes = graph.SerializeToString()
    except DecodeError as error:
        raise Corrupt(
            path,
            "this text is not a TensorFlow graph, or it is damaged",
            "Check that the download is complete and that this is the right file.",
        ) from error
    return encoded
