"""Reading objects by HTTP range requests (RFC 9110, section 14).

The answer to a first request for the head of an object has its size and its version, and the whole
of a small object. A server that sends the whole object instead of a range is accepted up to 16 MiB;
larger objects are refused. The range that a server claims to send is compared with the requested
one.
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
# The same for containers that begin with their structure, or the description of the model.
LONG_HEAD = 1 << 18
LARGEST_WHOLE = 16 << 20  # bytes of an object that is taken whole
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_EMPTY = re.compile(r"bytes \*/0")
_RETRIED = (408, 429, 500, 502, 503, 504)
_PAUSES = (0.2, 0.8)  # seconds before a request is sent again
_VERSION_CHECKS = 6  # requests to find out whether an object was replaced
_UNESCAPED = "%!$&'()*+,;=:@/~?#[]"


Version = tuple[int, str, str]  # size, ETag, time of the change


class Head(NamedTuple):
    """The answer to the first request: `data` are the first bytes of the object, or all.

    `directory` says that the server redirected to the name with a slash.
    """

    size: int
    etag: str
    modified: str
    data: bytes
    directory: bool = False


class Answer(NamedTuple):
    """The bytes from `start` of an object of `size`, and its version."""

    start: int
    data: bytes
    size: int
    etag: str
    modified: str
    path: str

    @property
    def version(self) -> Version:
        """Return the version of the object: size, ETag and time of the last change."""
        return self.size, self.etag, self.modified


Session = Callable[[], Awaitable[Any]]
Encode = Callable[[str], Any]


class Http:
    """Requests through a session. `encode` makes a URL that the session sends unchanged.

    `limit` is that of the requests at once, which `fetch` observes itself. All methods are
    coroutines. They raise `HttpStatus` and the exceptions of the session.
    """

    def __init__(self, session: Session, encode: Encode) -> None:
        self._session, self._encode = session, encode
        self.limit = asyncio.Semaphore(AT_ONCE)

    async def head(self, url: str, shown: str, length: int = HEAD) -> Head | None:
        """Return the first `length` bytes of an object; None if there is none."""
        try:
            answer = await _retry(lambda: self._get(url, shown, (0, length)))
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
        """Return the bytes of each range of an object whose version is that of `head`.

        Each request may take `seconds`, retries included.
        """

        async def fetch_one(wanted: Range) -> bytes:
            async with self.limit:
                sent = _retry(lambda: self._get(url, shown, wanted))
                answer = await asyncio.wait_for(sent, seconds)
            if is_other(answer.version, head) and await self._is_replaced(url, shown, head):
                raise replaced(shown)
            return answer.data[wanted[0] - answer.start : wanted[1] - answer.start]

        return await asyncio.gather(*map(fetch_one, ranges))

    async def differs(self, url: str, shown: str, known: Version) -> bool:
        """Return whether an object has changed since it was `known`, or is gone."""
        head = await self.head(url, shown, 1)
        if head is None:
            return True
        now = (head.size, head.etag, head.modified)
        return is_other(now, known) and await self._is_replaced(url, shown, known)

    async def _is_replaced(self, url: str, shown: str, known: Version) -> bool:
        """Return whether an object was replaced, after an answer had another version.

        Servers that share the load may each have their own ETag for one object, as Apache's with
        inodes do. An object that was replaced has a single ETag, which is new.
        """
        size, etag, modified = known
        seen = set()
        for _ in range(_VERSION_CHECKS):
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
            version = (
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
                return Answer(first, data, size, *version)
            if answer.status == 200:
                length = answer.headers.get("Content-Length", "")
                packed = "Content-Encoding" in answer.headers  # then the length is another
                if end == 1 and length.isdecimal() and not packed:  # only its version is wanted
                    answer.close()
                    return Answer(0, b"", int(length), *version)
                data = await _read_whole(answer, shown)
                return Answer(0, data, len(data), *version)
            if answer.status == 416 and _EMPTY.fullmatch(stated):
                return Answer(0, b"", 0, *version)
            raise HttpStatus(answer.status)


def is_other(now: Version, before: Version) -> bool:
    """Return whether two versions are of different objects; "" is unknown."""
    if now[0] != before[0]:
        return True
    if now[1] and before[1]:
        return now[1] != before[1]
    return bool(now[2] and before[2] and now[2] != before[2])


def _sent(shown: str, stated: str, wanted: Range) -> tuple[int, int, int]:
    """Return (start, size of the object, length) of the sent bytes; raise if they are others."""
    match = _CONTENT_RANGE.fullmatch(stated)
    if match:
        first, last, size = map(int, match.groups())
        if first == wanted[0] and last == min(wanted[1], size) - 1:
            return first, size, last + 1 - first
    raise Unreachable(
        shown,
        "the server sends other bytes than those that were requested",
        "It does not serve ranges as HTTP requires. Copy the file to this machine first.",
    )


async def _read(stream: Any, most: int) -> bytes:
    """Return the bytes that arrive, at most `most`."""
    parts = []
    while most:
        part = await stream.read(min(most, 1 << 20))
        if not part:
            break
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


async def _read_whole(answer: Any, shown: str) -> bytes:
    """Return a whole object from a server without ranges; raises `Unsupported` if it is large."""
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
            "Use a server that supports range requests, or copy the file to this machine first.",
        )
    if stated is not None and len(data) < stated and "Content-Encoding" not in answer.headers:
        raise ConnectionResetError
    return data


async def _retry(attempt: Callable[[], Awaitable[_Result]]) -> _Result:
    """Return the result of an attempt, with up to two retries of faults that may pass."""
    for pause in _PAUSES:
        try:
            return await attempt()
        except ReadProblem:
            raise
        except HttpStatus as error:
            if error.status not in _RETRIED:
                raise
        except (OSError, asyncio.TimeoutError):
            pass
        except Exception as error:  # of the session's library, which is not imported here
            if type(error).__name__ not in ("ClientPayloadError", "ServerDisconnectedError"):
                raise
        await asyncio.sleep(pause)
    return await attempt()
