"""HTTP: objects by ranges of bytes, from servers that may not know any (RFC 9110, section 14).

A first request for the head of an object tells its size and its version, and small objects are
whole in it. A server that sends all where a range was asked for is let, up to 16 MiB; from then on
the object is refused. What it says of the range it sent is held against what was asked for.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from bninspect.errors import ReadProblem, Unreachable, Unsupported
from bninspect.storage.remote.errors import HttpStatus, is_missing, replaced
from bninspect.storage.remote.ranges import Range

_Result = TypeVar("_Result")

AT_ONCE = 64  # requests
HEAD = 1 << 16  # bytes that the first request asks for
# The same of a container whose structure, or the description of the model, begins it.
LONG_HEAD = 1 << 18
LARGEST_WHOLE = 16 << 20  # bytes of an object that is taken whole
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_EMPTY = re.compile(r"bytes \*/0")
_AGAIN = (408, 429, 500, 502, 503, 504)
_PAUSES = (0.2, 0.8)  # seconds before a request is sent again
_LOOKS = 6  # at an object that may have been replaced
_UNESCAPED = "%!$&'()*+,;=:@/~?#[]"


Version = tuple[int, str, str]  # size, ETag, time of the change


class Head(NamedTuple):
    """What the first request told: `data` is how the object begins, or all of it.

    `directory` says that the server answered for the name with a slash.
    """

    size: int
    etag: str
    modified: str
    data: bytes
    directory: bool = False


class Answer(NamedTuple):
    """The bytes from `start` of an object of `size`, and what tells its version."""

    start: int
    data: bytes
    size: int
    etag: str
    modified: str
    path: str

    @property
    def version(self) -> Version:
        """What tells one version of the object from another."""
        return self.size, self.etag, self.modified


Session = Callable[[], Awaitable[Any]]
Encode = Callable[[str], Any]


class Http:
    """Reads objects through a session; `encode` makes of a URL what the session takes as it is.

    All methods are coroutines. They raise `HttpStatus` and what the session raises.
    """

    def __init__(self, session: Session, encode: Encode) -> None:
        self._session, self._encode = session, encode

    async def head(self, url: str, shown: str, length: int = HEAD) -> Head | None:
        """How the object begins, in `length` bytes; None if there is none."""
        try:
            answer = await _again(lambda: self._get(url, shown, (0, length)))
        except HttpStatus as error:
            if is_missing(error):
                return None
            raise
        directory = answer.path.endswith("/") and not shown.endswith("/")
        return Head(answer.size, answer.etag, answer.modified, answer.data, directory)

    async def fetch(
        self,
        url: str,
        shown: str,
        ranges: Sequence[Range],
        head: Version,
        seconds: float,
    ) -> list[bytes]:
        """The bytes of each range of the object that is (size, ETag, time of the change).

        Each request may take so many seconds, with what is tried anew.
        """
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(wanted: Range) -> bytes:
            async with limit:
                sent = _again(lambda: self._get(url, shown, wanted))
                answer = await asyncio.wait_for(sent, seconds)
            if is_other(answer.version, head) and await self._is_replaced(url, shown, head):
                raise replaced(shown)
            return answer.data[wanted[0] - answer.start : wanted[1] - answer.start]

        return await asyncio.gather(*map(one, ranges))

    async def differs(self, url: str, shown: str, known: Version) -> bool:
        """Whether the object is not `known` any more, or gone."""
        head = await self.head(url, shown, 1)
        if head is None:
            return True
        now = (head.size, head.etag, head.modified)
        return is_other(now, known) and await self._is_replaced(url, shown, known)

    async def _is_replaced(self, url: str, shown: str, known: Version) -> bool:
        """Whether an object is another one, of which an answer told another version.

        Servers that share the load may each have an ETag of their own for it, as Apache's with
        inodes do. An object that was replaced has one ETag, which is new.
        """
        size, etag, modified = known
        seen = set()
        for _ in range(_LOOKS):
            head = await self.head(url, shown, 1)
            if head is None or (head.size, head.modified) != (size, modified) or not modified:
                return True
            seen.add(head.etag)
        return len(seen) == 1 and etag not in seen

    async def _get(self, url: str, shown: str, wanted: Range) -> Answer:
        session = await self._session()
        start, end = wanted
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        target = self._encode(quote(url, safe=_UNESCAPED))
        async with session.get(target, headers=headers) as answer:
            told = (
                answer.headers.get("ETag", "").removeprefix("W/").strip('"'),
                answer.headers.get("Last-Modified", ""),
                answer.url.path,
            )
            stated = answer.headers.get("Content-Range", "")
            if answer.status == 206:
                first, size, length = _sent(shown, stated, wanted)
                data = await _read(answer.content, length)
                if len(data) < length:
                    raise ConnectionResetError
                return Answer(first, data, size, *told)
            if answer.status == 200:
                length = answer.headers.get("Content-Length", "")
                packed = "Content-Encoding" in answer.headers  # then the length is another
                if end == 1 and length.isdecimal() and not packed:  # only its version is wanted
                    answer.close()
                    return Answer(0, b"", int(length), *told)
                data = await _read_whole(answer, shown)
                return Answer(0, data, len(data), *told)
            if answer.status == 416 and _EMPTY.fullmatch(stated):
                return Answer(0, b"", 0, *told)
            raise HttpStatus(answer.status)


def is_other(now: Version, before: Version) -> bool:
    """Whether (size, ETag, time) tell of another object; what is "" tells nothing."""
    if now[0] != before[0]:
        return True
    if now[1] and before[1]:
        return now[1] != before[1]
    return bool(now[2] and before[2] and now[2] != before[2])


def _sent(shown: str, stated: str, wanted: Range) -> tuple[int, int, int]:
    """(start, size of the object, length) of the bytes that come, if they are those asked for."""
    match = _CONTENT_RANGE.fullmatch(stated)
    if match:
        first, last, size = map(int, match.groups())
        if first == wanted[0] and last == min(wanted[1], size) - 1:
            return first, size, last + 1 - first
    raise Unreachable(
        shown,
        "the server sends other bytes than those that were asked for",
        "It does not serve ranges as HTTP has it: copy the file here first.",
    )


async def _read(stream: Any, most: int) -> bytes:
    """What comes, up to `most` bytes."""
    parts = []
    while most:
        part = await stream.read(min(most, 1 << 20))
        if not part:
            break
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


async def _read_whole(answer: Any, shown: str) -> bytes:
    """All of an object, from a server that knows no ranges; raises `Unsupported` if it is large."""
    length = answer.headers.get("Content-Length", "")
    stated = int(length) if length.isdecimal() else None
    data = (
        b"" if stated and stated > LARGEST_WHOLE else await _read(answer.content, LARGEST_WHOLE + 1)
    )
    if (stated or len(data)) > LARGEST_WHOLE:
        answer.close()
        raise Unsupported(
            shown,
            f"the server sends whole files only, and this one is larger than"
            f" {LARGEST_WHOLE >> 20} MiB",
            "Use a server that knows ranges, or copy the file here first.",
        )
    if stated is not None and len(data) < stated and "Content-Encoding" not in answer.headers:
        raise ConnectionResetError
    return data


async def _again(attempt: Callable[[], Awaitable[_Result]]) -> _Result:
    """What an attempt brings, after two more if the first failed as the next may not."""
    for pause in _PAUSES:
        try:
            return await attempt()
        except ReadProblem:
            raise
        except HttpStatus as error:
            if error.status not in _AGAIN:
                raise
        except (OSError, asyncio.TimeoutError):
            pass
        except Exception as error:  # of the session's library, which this room does not know
            if type(error).__name__ not in ("ClientPayloadError", "ServerDisconnectedError"):
                raise
        await asyncio.sleep(pause)
    return await attempt()
