"""Graphs in the text form of protocol buffers (`.pbtxt`), encoded as their binary form.

The text form has the names of fields (https://protobuf.dev/reference/protobuf/textformat-spec).
Fields that are not declared in `protos` are passed over: newer versions of TensorFlow have more. It
takes far longer to parse than the binary form, so its size is limited.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping

from bninspect.errors import Corrupt, UnknownFormat, Unsupported
from bninspect.formats.message_file import FIXED32, FIXED64, LENGTH, VARINT
from bninspect.formats.tensorflow.dtypes import DTYPES
from bninspect.formats.tensorflow.protos import DATA_TYPE, DecodeError, text_fields
from bninspect.storage.varint import encoded_varint

_LARGEST_TEXT = 1 << 25  # bytes
# The operation of a node that is a variable; within a string, the text form escapes the quotes.
_VARIABLE = re.compile(rb"""\bop\s*:\s*(["'])(?:Variable|VariableV2|VarHandleOp)\1""")

# A string is searched for its end instead: a pattern would keep a state for each escape.
_TOKEN = re.compile(
    rb"(?P<space>\s+|#[^\n]*)|(?P<quote>[\"'])"
    rb"|(?P<word>-?\s*(?:[A-Za-z_]\w*|(?:\d|\.\d)[\w.]*(?:(?<=[eE])[+-]\w*)?))"
    rb"|(?P<mark>[{}<>\[\]:,;/.])"
)
_MARKS = b"{}<>[]:,;/."
_QUOTES = {quote: re.compile(rb"[%b\n]" % quote) for quote in (b'"', b"'")}
_ESCAPE = re.compile(
    rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.?))",
    re.DOTALL,
)
_ESCAPED = dict(zip(b"abfnrtv\\'\"?", b"\a\b\f\n\r\t\v\\'\"?", strict=True))
_OPENING = {b"{": b"}", b"<": b">"}
_DEEPEST = 100  # messages within others, as in the parsers of protocol buffers
_END = b""


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


def encode_text(path: str, text: bytes, message: str) -> bytes:
    """Return the binary form of a message that `protos` declares, from its text form.

    Raises `Corrupt` if it cannot be parsed, `Unsupported` if it is too large.
    """
    if len(text) > _LARGEST_TEXT:
        raise Unsupported(
            path,
            f"this graph in text form has {len(text)} bytes, more than {_LARGEST_TEXT}",
            "Write it in binary form: as_text=False.",
        )
    try:
        return bytes(_Encoder(text).message(message, _END))
    except DecodeError as error:
        raise Corrupt(
            path,
            "this text is not a TensorFlow graph, or it is damaged",
            "Check that the download is complete and that this is the right file.",
        ) from error


class _Encoder:
    """An encoder of one text, which it reads token by token."""

    def __init__(self, text: bytes) -> None:
        self._tokens = _tokens(text)
        self._token = next(self._tokens)
        self._depth = 0

    def message(self, name: str, end: bytes) -> bytearray:
        """Return the encoded fields up to the token `end`; the message is not known without a name.

        Raises `DecodeError` if the text cannot be parsed.
        """
        self._depth += 1
        if self._depth > _DEEPEST:
            raise DecodeError("too many messages within others")
        fields = text_fields(name) if name else {}
        encoded = bytearray()
        while self._token != end:
            number, kind = fields.get(self._field_name(), (0, ""))
            self._field(encoded, number, kind)
            if self._token in (b",", b";"):
                self._take()
        self._depth -= 1
        return encoded

    def _take(self) -> bytes:
        token = self._token
        if token == _END:
            raise DecodeError("the end is missing")
        self._token = next(self._tokens)
        return token

    def _field_name(self) -> bytes:
        name = self._take()
        if name == b"[":  # of an extension, or the type of an Any
            while self._take() != b"]":
                pass
            return b""
        if not re.fullmatch(rb"\w+", name):
            raise DecodeError("expected the name of a field")
        return name

    def _field(self, encoded: bytearray, number: int, kind: str) -> None:
        """Add one field, whose value may be a list; nothing is added if its kind is not known."""
        has_colon = self._token == b":"
        if has_colon:
            self._take()
        elif self._token not in (b"{", b"<", b"["):
            raise DecodeError("expected a colon")
        if self._token != b"[":
            self._value(encoded, number, kind)
            return
        self._take()
        while self._token != b"]":
            self._value(encoded, number, kind)
            if self._token == b",":
                self._take()
            elif self._token != b"]":
                raise DecodeError("expected the end of a list")
        self._take()

    def _value(self, encoded: bytearray, number: int, kind: str) -> None:
        first = self._take()
        if first in _OPENING:
            if kind in _SCALARS and kind:
                raise DecodeError("expected a value, got a message")
            body = self.message(kind, _OPENING[first])
            self._take()
            data, wire = encoded_varint(len(body)) + body, LENGTH
        elif first[:1] in _QUOTES:
            content = bytearray(_unescaped(first))
            while self._token[:1] in _QUOTES:  # strings that follow each other are one
                content += _unescaped(self._take())
            if kind not in ("", "bytes"):
                raise DecodeError("expected no string")
            data, wire = encoded_varint(len(content)) + content, LENGTH
        elif first in _MARKS or kind == "bytes" or kind not in _SCALARS:
            raise DecodeError("expected another value")
        else:
            wire, encode = _SCALARS[kind]
            data = encode(first)
        if kind:
            encoded += encoded_varint(number << 3 | wire) + data


def _tokens(text: bytes) -> Iterator[bytes]:
    """Yield the tokens of a text, strings with their quotes; at the end, always `_END`."""
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise DecodeError("a character that no token begins with")
        start, at = token.span()
        if token.lastgroup == "quote":
            at = _string_end(text, start)
        if token.lastgroup != "space":
            yield text[start:at]
    while True:
        yield _END


def _string_end(text: bytes, start: int) -> int:
    """Return the place behind the closing quote of the string that begins at `start`."""
    quote = text[start : start + 1]
    at = start + 1
    while (found := _QUOTES[quote].search(text, at)) is not None and found[0] == quote:
        end = found.start()
        backslashes = end
        while backslashes > at and text[backslashes - 1] == 0x5C:
            backslashes -= 1
        if (end - backslashes) % 2 == 0:
            return end + 1
        at = end + 1
    raise DecodeError("a string has no end")


def _unescaped(token: bytes) -> bytes:
    content = bytearray()
    at, end = 1, len(token) - 1
    for escape in _ESCAPE.finditer(token, at, end):
        content += token[at : escape.start()]
        content += _unescape(escape)
        at = escape.end()
    return bytes(content + token[at:end])


def _unescape(escape: re.Match[bytes]) -> bytes:
    octal, hexadecimal, short, long, other = escape.groups()
    if other is not None:
        if len(other) != 1 or other[0] not in _ESCAPED:
            raise DecodeError("an unknown escape")
        return bytes([_ESCAPED[other[0]]])
    digits, base = (octal, 8) if octal else (hexadecimal or short or long, 16)
    number = int(digits, base)
    try:
        return chr(number).encode() if short or long else bytes([number])
    except ValueError as error:
        raise DecodeError("an impossible escape") from error


def _integer(word: bytes) -> bytes:
    """Return an encoded integer, which may be octal or hexadecimal."""
    digits = b"".join(word.split())
    is_octal = re.fullmatch(rb"-?0[0-7]+", digits) is not None
    try:
        number = int(digits, 8 if is_octal else 0)
    except ValueError as error:
        raise DecodeError("expected a whole number") from error
    if not -(1 << 63) <= number < 1 << 64:
        raise DecodeError("a number is too large")
    return encoded_varint(number % (1 << 64))


def _real(format_: str) -> Callable[[bytes], bytes]:
    def encode(word: bytes) -> bytes:
        try:
            number = float(b"".join(word.split()).rstrip(b"fF") or word)
        except ValueError:
            number = _named_number(word)
        try:
            return struct.pack(format_, number)
        except OverflowError:  # beyond the numbers of the type
            return struct.pack(format_, float("inf") if number > 0 else float("-inf"))

    return encode


def _named_number(word: bytes) -> float:
    """Return an infinity or NaN, by its name; raises `DecodeError` for other words."""
    try:
        return float(b"".join(word.split()))
    except ValueError as error:
        raise DecodeError("expected a number") from error


def _boolean(word: bytes) -> bytes:
    try:
        return b"\x01" if _BOOLEANS[word] else b"\x00"
    except KeyError as error:
        raise DecodeError("expected true or false") from error


def _data_type(word: bytes) -> bytes:
    """Return an encoded DataType; a name that is not known here is DT_INVALID, 0."""
    return _integer(word) if word[:1].isdigit() else encoded_varint(_DATA_TYPES.get(word, 0))


_BOOLEANS = {
    **dict.fromkeys((b"true", b"True", b"t", b"1"), True),
    **dict.fromkeys((b"false", b"False", b"f", b"0"), False),
}
# Each kind of value that is no message: the kind of its field in the binary form, and its encoding.
# The empty one is that of fields that are passed over.
_SCALARS: Mapping[str, tuple[int, Callable[[bytes], bytes]]] = {
    "": (VARINT, bytes),
    "bytes": (LENGTH, bytes),
    "int32": (VARINT, _integer),
    "int64": (VARINT, _integer),
    "bool": (VARINT, _boolean),
    "float": (FIXED32, _real("<f")),
    "double": (FIXED64, _real("<d")),
    DATA_TYPE: (VARINT, _data_type),
}


def _named_types() -> Iterator[tuple[bytes, int]]:
    """Yield the names of the enumeration DataType (tensorflow/core/framework/types.proto)."""
    names = {"float32": "float", "float64": "double", "float16": "half"}
    for number, (dtype, _) in DTYPES.items():
        yield f"DT_{names.get(dtype, dtype)}".upper().encode(), number


_DATA_TYPES = dict(_named_types())
