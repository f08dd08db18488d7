"""URLs: which paths are some, what of them is shown, and what opens them. Nothing is opened here.

User info, query and fragment of a URL may be secrets (a password, a signature). They are withdrawn
at the door, by `given`, before anything else has seen the URL: what goes through the program, into
messages and reports, is the rest. What was withdrawn is kept here alone, and `opened_by` puts it
back for the one room that sends requests. It is kept as long as the process: a checkpoint may stay
open, so a program that reads for several people gives each a process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bninspect.errors import UsageProblem

_URL = re.compile(r"(?s)([A-Za-z][A-Za-z0-9+.-]+)://(.*)")
# Who reads local files does not wait until these are compiled.
_ANYWHERE = r"[A-Za-z][A-Za-z0-9+.-]+://"
WEB = ("http", "https")  # schemes
# What stands before an @ there is a container or a repository, no user:
# https://learn.microsoft.com/azure/storage/blobs/data-lake-storage-introduction-abfs-uri
_NAMED_BEFORE_AT = ("abfs", "abfss", "adl", "az", "hf", "wasb", "wasbs")
# Elsewhere ? is a character of patterns; what is called so behind one is a query all the same.
# So is a URL in a URL, which is how fsspec chains them.
_QUERY = r"\?[\w.~-]+=|::[A-Za-z][A-Za-z0-9+.-]+://"
# The parts of a query that sign it, beside `X-Amz-…` and `X-Goog-…`: two such URLs are one object.
# https://learn.microsoft.com/rest/api/storageservices/create-service-sas and CloudFront's.
_SIGNING = (
    r"(?i)x-(amz|goog)-.*|signature|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid"
    r"|(access_)?token|sig|s[evprs]|srt|spr|sip|st|sk(oid|tid|t|e|s|v)"
)
_SHORTEST_SECRET = 4  # characters of what is looked for in a text


class Secrets(tuple[tuple[str, str, str], ...]):
    """What was withdrawn of URLs: (URL, user, query) each. No log can show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        """What it is, not what is in it: a cluster logs the arguments of what has failed."""
        return "Secrets(…)"


class _Withdrawn(NamedTuple):
    """`user:password@` and `?query` of a URL, each "" if it has none."""

    user: str
    query: str


# By the URL without them, of all URLs that this process was given.
_withdrawn: dict[str, _Withdrawn] = {}


def is_url(path: str) -> bool:
    """Whether a path that came through the door is a URL."""
    return "://" in path and _URL.match(path) is not None


def scheme_of(url: str) -> str:
    """`s3` of `s3://bucket/key`."""
    return url.partition("://")[0]


def given(paths: Iterable[str]) -> list[str]:
    """What a person or program named, as it is known from here on.

    A URL loses what may be secret, and one of `file://` becomes a path. A file that is there under
    a name like a URL's stays a file. Raises `UsageProblem` if two of them can no longer be told
    apart.
    """
    paths = list(paths)
    if not any("://" in path for path in paths):
        return paths
    meant: dict[str, str] = {}
    known = []
    for path in paths:
        url, withdrawn = _parted(path)
        if withdrawn.query:
            names = _what_is_meant(withdrawn.query)
            if meant.setdefault(url, names) != names:
                raise UsageProblem(
                    f"{url} is named twice, with queries that may mean two objects, and queries are"
                    " never shown: check them one at a time."
                )
        if any(withdrawn):
            _withdrawn[url] = withdrawn
        known.append(url)
    return known


def without_secrets(text: str) -> str:
    """A text as it may be shown, whatever of a URL stands in it."""
    if "://" in text:
        text = re.sub(r"(://)[^\s/'\"<>@]*@", r"\1", text)
        text = re.sub(r"(?i)(https?://[^\s?#'\"<>]*)[?#][^\s'\"<>)]*", r"\1", text)
    for user, query in _withdrawn.values():
        for secret in (user.rstrip("@"), *re.split("[:@]", user), *re.split("[?&=#]", query)):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "…")
    return text


def arguments(texts: Iterable[str]) -> list[str]:
    """The arguments of a command line, perhaps `--option=URL`, without secrets; see `given`."""
    parts = [_before_url(text) for text in texts]
    known = given(url for _, url in parts)
    return [before + url for (before, _), url in zip(parts, known, strict=True)]


def _before_url(text: str) -> tuple[str, str]:
    """What stands before the URL in an argument, and the URL; all is one if there is none."""
    found = re.search(_ANYWHERE, text)
    start = 0 if found is None or os.path.lexists(text) else found.start()
    return text[:start], text[start:]


def quoted(name: str) -> str:
    """A name as it stands in a web URL, where some characters have a meaning."""
    return name.replace("%", "%25").replace("?", "%3F").replace("#", "%23")


def opened_by(url: str) -> str:
    """The URL that opens `url`: with what was withdrawn of it, or of what lies beside it.

    So one query opens all files of a checkpoint or directory that was named by one URL. A user is
    one of the whole server.
    """
    own = _withdrawn.get(url)
    if own is None:
        around = url.rpartition("/")[0]
        beside = [one for one in _withdrawn if _reaches(one, url, around)]
        own = _withdrawn[max(beside, key=len)] if beside else None
    server = _server(url)
    user = own.user if own is not None else ""
    user = user or next((w.user for one, w in _withdrawn.items() if _server(one) == server), "")
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{user}{rest}{own.query if own is not None else ''}"


def secrets() -> Secrets:
    """All that was withdrawn, for another process of the same run; see `take_over`."""
    return Secrets((url, *withdrawn) for url, withdrawn in _withdrawn.items())


def take_over(told: Secrets) -> None:
    """Know the secrets of another process."""
    _withdrawn.update({url: _Withdrawn(user, query) for url, user, query in told})


def withdrawn_from(url: str) -> Mapping[str, str]:
    """What was withdrawn of this very URL: `user` and `query`, "" for none."""
    return _withdrawn.get(url, _Withdrawn("", ""))._asdict()


def _reaches(known: str, url: str, around: str) -> bool:
    """Whether `url` lies beside what is known, or below it."""
    return around == known.rstrip("/").rpartition("/")[0] or url.startswith(known.rstrip("/") + "/")


def _server(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])


def _parted(path: str) -> tuple[str, _Withdrawn]:
    match = _URL.fullmatch(path)
    if match is None:
        return path, _Withdrawn("", "")
    if os.path.lexists(path):
        return os.path.join(".", path), _Withdrawn("", "")
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        return _local(rest), _Withdrawn("", "")
    rest, query = _without_query(scheme, rest)
    user, rest = _without_user(scheme, rest)
    if rest.endswith("//"):
        rest = rest.rstrip("/") + "/"
    return f"{scheme}://{rest}", _Withdrawn(user, query)


def _without_query(scheme: str, rest: str) -> tuple[str, str]:
    found = re.search(r"[?#]" if scheme in WEB else _QUERY, rest)
    if found is None:
        return rest, ""
    query = rest[found.start() :]
    return rest[: found.start()], query.partition("#")[0] if scheme in WEB else query


def _without_user(scheme: str, rest: str) -> tuple[str, str]:
    """`user:password@` and what stands behind it; a password may hold any character, if wrongly."""
    server, slash, path = rest.partition("/")
    is_port = re.fullmatch(r"[^:]*(:\d*)?|\[.*\](:\d*)?", server)
    if "@" not in server and not is_port and "@" in path and _may_hold_user(scheme, server):
        user, _, behind = rest.rpartition("@")
        return user + "@", behind
    if ":" in server.rpartition("@")[0] and "@" in path and scheme not in _NAMED_BEFORE_AT:
        raise UsageProblem(
            f"A URL of {scheme}:// has two @, and what is a password in it cannot be told: write"
            " %2F for a / in a password, and %40 for an @ that does not end one."
        )
    user, at, server = server.rpartition("@")
    if scheme in _NAMED_BEFORE_AT and at:
        name, colon, password = user.partition(":")
        return (user + "@" if colon and password else ""), f"{name}@{server}{slash}{path}"
    return user + at, f"{server}{slash}{path}"


def _may_hold_user(scheme: str, server: str) -> bool:
    """Whether a password with a / in it may begin there: names of access points have colons."""
    return scheme not in _NAMED_BEFORE_AT and not server.startswith("arn:")


def _what_is_meant(query: str) -> str:
    parts = query.lstrip("?").split("&")
    return "&".join(sorted(p for p in parts if not re.fullmatch(_SIGNING, p.partition("=")[0])))


def _local(rest: str) -> str:
    """The path of a `file://` URL (RFC 8089)."""
    from urllib.request import url2pathname

    server, _, path = rest.partition("/")
    if server not in ("", "localhost"):
        raise UsageProblem(f"file://{rest} names a file of another machine: copy it here first.")
    return url2pathname("/" + path)
