"""File signatures: the formats that are read, and those of other tools, by first and last bytes."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Literal

from bninspect.errors import Overwritten, ReadProblem, UnknownFormat
from bninspect.frozen import NamedTuple
from bninspect.storage.run_scope import of_run
from bninspect.storage.source import Source
from bninspect.storage.urls import is_url

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")  # the second is that of an empty archive
# Ends every table of TensorFlow: kTableMagicNumber of tensorflow/core/lib/io/format.h.
TABLE_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
HEAD, _TAIL = 64, 8  # bytes
_SMALLEST_USER_BLOCK = 512  # bytes
_LONGEST_LENGTH = 5  # bytes: of a number of 32 bits
# The first member of a .keras archive (keras/src/saving/saving_lib.py).
_KERAS_MEMBERS = (b"metadata.json", b"config.json", b"model.weights.h5")

# Messages of TensorFlow, as their first 64 bytes show them, or fewer of a file that was cut short.
# They are compiled where one is needed.
# A length of a submessage, and a name as ValidateNodeDef allows it
# (tensorflow/core/framework/node_def_util.cc), which may be longer than the head.
_LENGTH = rb"[\x80-\xff]{0,4}[\x00-\x7f]"
_NAME = rb"(?:[\x01-\x7f]|[\x80-\xff][\x01-\x7f])[\w.][\w.\\/>-]*"
_OPERATION = rb"\x12[\x01-\x40][A-Z_]\w*"
# GraphDef of tensorflow/core/framework/graph.proto: version and versions, then a node, which begins
# with its name or operation, or a function, whose signature has a name.
_GRAPH = (
    rb"(?:\x18[\x00-\x7f]|\x22[\x00-\x20](?:\x08[\x80-\xff]{0,2}[\x00-\x7f]"
    rb"|\x10[\x00-\x7f])*)*"
    rb"(?:\x0a"
    + _LENGTH
    + rb"(?:\x0a"
    + _NAME
    + rb"(?:\Z|\x12(?:\Z|[\x01-\x40](?:\Z|[A-Z_])))|"
    + _OPERATION
    + rb"(?:[\x0a\x1a\x22\x2a]|\Z))"
    rb"|\x12"
    + _LENGTH
    + rb"\x0a"
    + _LENGTH
    + rb"\x0a"
    + _LENGTH
    + rb"\x0a"
    + _NAME
    + rb"(?:[\x0a\x12\x1a\x22]|\Z))"
)
# SavedModel of tensorflow/core/protobuf/saved_model.proto: a version of its schema, a MetaGraphDef.
_SAVED_MODEL = rb"\x08\x01\x12" + _LENGTH + rb"[\x0a\x12]"
# The same as text.
_GRAPH_TEXT = (
    rb"\s*(?:#[^\n]*\n\s*)*(?:versions?\s*[:{<].{0,60}?)?"
    rb"node\s*:?\s*[{<]\s*(?:[a-z]*\Z|(?:name|op|input|device|attr)\s*(?:\Z|[:{<]))"
)
_SAVED_MODEL_TEXT = rb"\s*(?:#[^\n]*\n\s*)*(?:saved_model_schema_version\s*:|meta_graphs\s*[{<:])"
# MetaGraphDef of tensorflow/core/protobuf/meta_graph.proto, by export_meta_graph(as_text=True).
_META_GRAPH_TEXT = rb"\s*(?:#[^\n]*\n\s*)*(?:meta_info_def|graph_def)\s*:?\s*[{<]"

MessageKind = Literal["graph-def", "saved-model"]
_MESSAGES: dict[MessageKind, tuple[bytes, bytes]] = {
    "graph-def": (_GRAPH, _GRAPH_TEXT),
    "saved-model": (_SAVED_MODEL, _SAVED_MODEL_TEXT),
}


class OtherFormat(NamedTuple):
    """A format of another tool: its name in sentences, and a hint on what to check instead."""

    name: str
    hint: str


_ORIGINAL = "If it was made from a TensorFlow or Keras model, check the checkpoint of that."
_OURS = "bninspect reads TensorFlow checkpoints and Keras files."
_PYTORCH = OtherFormat("a PyTorch file", _OURS)
_NUMPY = "Check the checkpoint or Keras file that its arrays were taken from."

# Each pattern matches the first 64 bytes of a file. They are compiled only where one is needed.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # of UTF-8
_OTHERS: tuple[tuple[bytes, OtherFormat], ...] = (
    # torch/serialization.py: MAGIC_NUMBER as a pickle; the zip that replaced it since 1.6.
    (rb"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", _PYTORCH),
    (rb"PK\x03\x04.{26}[^/]+/(data\.pkl|version|byteorder)", _PYTORCH),
    (
        rb"\x80",
        OtherFormat(
            "a Python pickle, which bninspect never loads",
            "Save the model itself (model.save, or save_weights) and check that file.",
        ),
    ),
    # numpy/lib/format.py; np.savez writes a zip of such arrays.
    (rb"\x93NUMPY", OtherFormat("a NumPy array (.npy)", _NUMPY)),
    (rb"PK\x03\x04.{26}[^/]+\.npy", OtherFormat("a NumPy archive (.npz)", _NUMPY)),
    # huggingface/safetensors, README.md: the length of a JSON header, then the header.
    (rb".{5}\x00{3}\{\s*\"", OtherFormat("a safetensors file", _ORIGINAL)),
    # ggml-org/ggml, docs/gguf.md
    (rb"GGUF", OtherFormat("a GGUF file", _ORIGINAL)),
    # file_identifier of tensorflow/lite/schema/schema.fbs
    (
        rb".{4}TFL3",
        OtherFormat(
            "a TensorFlow Lite model, where batch normalization is part of other operations",
            _ORIGINAL,
        ),
    ),
    # file_identifier of onnxruntime/core/flatbuffers/schema/ort.fbs
    (
        rb".{4}ORTM",
        OtherFormat(
            "a model in the format of ONNX Runtime (.ort)",
            "Check the ONNX model that it was made from.",
        ),
    ),
    # tfjs-converter/python/tensorflowjs/write_weights.py, up to 0.8
    (
        rb'(?:\xef\xbb\xbf)?\s*\[\s*\{\s*"(paths|weights)"\s*:\s*\[',
        OtherFormat(
            "the list of a TensorFlow.js model's weights, whose graph was kept in another file"
            " before 1.0 (tensorflowjs_model.pb), so that nothing says what they are",
            "Check what the model was converted from, or convert that again.",
        ),
    ),
    (rb"\x1f\x8b\x08", OtherFormat("a gzip archive", "Unpack it, and check what is in it.")),
)
# Keys of JSON files (Model.to_json of Keras).
_JSON_KEYS: tuple[tuple[tuple[bytes, ...], OtherFormat], ...] = (
    (
        (b'"class_name"', b'"config"'),
        OtherFormat(
            "the architecture of a Keras model without its weights", "Check the file of weights."
        ),
    ),
)


def ends(path: str) -> tuple[bytes, bytes]:
    """Return the first 64 and the last 8 bytes of a file, fewer of a shorter one.

    The tail of an HDF5 file is left out, since it has no signature. Raises like `Source`.
    """
    if is_url(path):
        from bninspect.storage.remote.cache import RemoteFiles

        of_run(RemoteFiles).fetch_ends(path, HEAD)
    try:
        return _read_ends(path)
    except Overwritten:
        return _read_ends(path)


def _read_ends(path: str) -> tuple[bytes, bytes]:
    with Source(path) as source:
        head = source.read(0, min(source.size, HEAD), "the head of the file")
        tail = 0 if head.startswith(HDF5_SIGNATURE) else min(source.size, _TAIL)
        return head, source.read(source.size - tail, tail, "the end of the file")


def hdf5_offset(size: int, read: Callable[[int, int], bytes]) -> int | None:
    """Return the offset at which the HDF5 file in `size` bytes begins, None if there is none.

    A user block of 512 bytes, or of twice as many and so on, may precede it (File Format
    Specification of HDF5, II.A). `read` returns bytes by offset and length.
    """
    offset = 0
    while offset + len(HDF5_SIGNATURE) <= size:
        if read(offset, len(HDF5_SIGNATURE)) == HDF5_SIGNATURE:
            return offset
        offset = max(2 * offset, _SMALLEST_USER_BLOCK)
    return None


def is_keras_archive(head: bytes) -> bool:
    """Return whether a file begins like a .keras archive, by the name of its first member."""
    return head.startswith(ZIP_SIGNATURES) and head[30:].startswith(_KERAS_MEMBERS)


# ModelProto of onnx/onnx.proto: ir_version, then names of the producer and others, then the graph
# or opset_import. Other files begin with a version below 3 (SavedModel).
_ONNX_VERSIONS = range(3, 64)
_ONNX_TEXTS, _ONNX_NUMBER, _ONNX_END = b"\x12\x1a\x22\x32", 0x28, b"\x3a\x42"


def is_onnx(head: bytes) -> bool:
    """Return whether a file begins like an ONNX model."""
    if len(head) < 3 or head[0] != 0x08 or head[1] not in _ONNX_VERSIONS:
        return False
    from bninspect.storage.varint import LONGEST_VARINT, read_varint

    at = 2
    while at < len(head) and head[at] not in _ONNX_END:
        tag = head[at]
        try:
            number, at = read_varint(head, at + 1)
        except IndexError:
            return at + LONGEST_VARINT >= len(head)  # the head ends within it
        if tag in _ONNX_TEXTS:
            if not head[at : at + number].decode("utf-8", "ignore").isprintable():
                return False
            at += number
        elif tag != _ONNX_NUMBER:
            return False
    return True


def begins_as_v1(head: bytes) -> bool:
    """Return whether a file begins like a TensorFlow V1 checkpoint, which may have been cut short.

    Its table begins with the empty key, whose value is a SavedTensorSlices that holds `meta` alone
    (tensorflow/core/util/saved_tensor_slice.proto, TensorSliceWriter::Finish): the lengths agree.
    """
    if not head.startswith(b"\x00\x00"):
        return False
    from bninspect.storage.varint import read_varint

    try:
        length, start = read_varint(head, 2, _LONGEST_LENGTH)
        inner, end = read_varint(head, start + 1, _LONGEST_LENGTH)
    except IndexError:
        return False
    return head[start] == ord("\n") and length > 0 and length == end - start + inner


def message_kind(head: bytes) -> MessageKind | None:
    """Return which message of TensorFlow a file begins like: a graph, a SavedModel, or neither."""
    for kind, patterns in _MESSAGES.items():
        if any(re.match(pattern, head, re.DOTALL) for pattern in patterns):
            return kind
    return None


def is_message_text(head: bytes) -> bool:
    """Return whether a message that a file begins like is in the text form."""
    patterns = (_GRAPH_TEXT, _SAVED_MODEL_TEXT, _META_GRAPH_TEXT)
    return any(re.match(pattern, head, re.DOTALL) for pattern in patterns)


def other_format(head: bytes) -> OtherFormat | None:
    """Return the format of another tool that a file begins like; None if it is none of these."""
    return next(
        (format_ for pattern, format_ in _OTHERS if re.match(pattern, head, re.DOTALL)), None
    )


def other_json(text: bytes) -> OtherFormat | None:
    """Return the format of a JSON file of another tool; None if it is none of these."""
    return next((format_ for keys, format_ in _JSON_KEYS if all(key in text for key in keys)), None)


def foreign(path: str, format_: OtherFormat) -> ReadProblem:
    """Return the error for a file of another tool."""
    return UnknownFormat(path, f"this is {format_.name}", format_.hint)


def unknown(path: str, head: bytes) -> ReadProblem:
    """Return the error for a file that is not a checkpoint, by its first bytes."""
    if not head:
        return UnknownFormat(path, "this file is empty", "Copy it again.")
    if (format_ := other_format(head)) is not None:
        return foreign(path, format_)
    kind = "a text file" if is_text(head) else "neither a TensorFlow checkpoint nor a Keras file"
    return UnknownFormat(
        path,
        f"this is {kind}",
        "Check that the download is complete and that this is the right file.",
    )


def begins_as_json(head: bytes) -> bool:
    """Return whether a file that begins with `head` may be a JSON object.

    Editors of Windows put a byte order mark before it, which browsers skip, too.
    """
    return head.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"{")


def is_text(head: bytes) -> bool:
    """Return whether a file that begins with `head` is a text."""
    head = head.removeprefix(BYTE_ORDER_MARK)
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8")
        if len(head) - error.start > 3:  # more than one character cut in two
            return False
    return all(character.isprintable() or character in "\r\n\t" for character in text)
