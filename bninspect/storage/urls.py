"""URLs, and the credentials in them. Nothing is opened here.

User info, query and fragment of a URL may be secrets (a password, a signature). `strip_credentials`
removes them from every path that a user or a program gives, before any other use: messages and
reports only contain the rest. This module keeps the removed parts, and `url_with_credentials` adds
them again for the requests. They are kept until the process ends, since a checkpoint may stay open:
a program that reads for several people needs a process for each.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from bninspect.errors import UsageProblem
from bninspect.frozen import NamedTuple

_URL = re.compile(r"(?s)([A-Za-z][A-Za-z0-9+.-]+)://(.*)")
# Compiled only when a URL is named: start-up of a local run does not wait for it.
_ANYWHERE = r"[A-Za-z][A-Za-z0-9+.-]+://"
WEB = ("http", "https")  # schemes
# Schemes where a container or a repository stands before the @, not a user:
# https://learn.microsoft.com/azure/storage/blobs/data-lake-storage-introduction-abfs-uri
_NAMED_BEFORE_AT = ("abfs", "abfss", "adl", "az", "hf", "wasb", "wasbs")
# In other schemes ? is a character of patterns, but `?name=` is a query there, too. A second URL
# inside the URL counts as a query: fsspec chains file systems in this way.
_QUERY = r"\?[\w.~-]+=|::[A-Za-z][A-Za-z0-9+.-]+://"
# Parameters of a query that sign it, beside `X-Amz-…` and `X-Goog-…`. URLs that differ in these
# alone name one object.
# https://learn.microsoft.com/rest/api/storageservices/create-service-sas and CloudFront's.
_SIGNING = (
    r"(?i)x-(amz|goog)-.*|signature|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid"
    r"|(access_)?token|sig|s[evprs]|srt|spr|sip|st|sk(oid|tid|t|e|s|v)"
)
_SHORTEST_SECRET = 4  # characters; shorter parts are not searched for in a text


class Secrets(tuple[tuple[str, str, str], ...]):
    """Credentials of URLs, each as (URL, user, query). Their repr shows none of them."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return a placeholder: a cluster logs the arguments of a task that failed."""
        return "Secrets(…)"


class _Credentials(NamedTuple):
    """`user:password@` and `?query` of a URL; "" where it has none."""

    user: str
    query: str


# All credentials that this process was given, by URL without credentials.
_credentials: dict[str, _Credentials] = {}


def is_url(path: str) -> bool:
    """Return whether a path is a URL. It must have passed `strip_credentials`."""
    return "://" in path and _URL.match(path) is not None


def scheme_of(url: str) -> str:
    """Return the scheme of a URL: `s3` of `s3://bucket/key`."""
    return url.partition("://")[0]


def strip_credentials(paths: Iterable[str]) -> list[str]:
    """Strip credentials from user-supplied paths and remember them for the requests.

    A `file://` URL becomes a local path. A local file whose name looks like a URL stays a file.
    Raises `UsageProblem` if two URLs would become the same one, but may name two objects.
    """
    paths = list(paths)
    if not any("://" in path for path in paths):
        return paths
    meanings: dict[str, str] = {}
    stripped = []
    for path in paths:
        url, credentials = _split_credentials(path)
        if credentials.query:
            meaning = _without_signature(credentials.query)
            if meanings.setdefault(url, meaning) != meaning:
                raise UsageProblem(
                    f"{url} is named twice with different queries, which may mean two objects."
                    " Queries are never shown, so check them one at a time."
                )
        if any(credentials):
            _credentials[url] = credentials
        stripped.append(url)
    return stripped


def redact(text: str) -> str:
    """Return a text without the credentials of any URL in it."""
    if "://" in text:
        text = re.sub(r"(://)[^\s/'\"<>@]*@", r"\1", text)
        text = re.sub(r"(?i)(https?://[^\s?#'\"<>]*)[?#][^\s'\"<>)]*", r"\1", text)
    for user, query in _credentials.values():
        for secret in (user.rstrip("@"), *re.split("[:@]", user), *re.split("[?&=#]", query)):
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, "…")
    return text


def strip_arguments(texts: Iterable[str]) -> list[str]:
    """Strip credentials from the arguments of a command line, such as `--option=URL`."""
    parts = [_split_option(text) for text in texts]
    stripped = strip_credentials(url for _, url in parts)
    return [option + url for (option, _), url in zip(parts, stripped, strict=True)]


def _split_option(text: str) -> tuple[str, str]:
    """Split an argument before its URL; without a URL the first part is empty."""
    match = re.search(_ANYWHERE, text)
    start = 0 if match is None or os.path.lexists(text) else match.start()
    return text[:start], text[start:]


def quoted(name: str) -> str:
    """Percent-encode the characters of a file name that have a meaning in a web URL."""
    return name.replace("%", "%25").replace("?", "%3F").replace("#", "%23")


def url_with_credentials(url: str) -> str:
    """Return `url` with its credentials, for a request.

    A query also serves the files beside the URL that it was given with, and those below it: one
    query opens all files of a checkpoint or a directory. A user serves the whole server.
    """
    own = _credentials.get(url)
    if own is None:
        directory = url.rpartition("/")[0]
        near = [known for known in _credentials if _covers(known, url, directory)]
        own = _credentials[max(near, key=len)] if near else None
    server = _server(url)
    user = own.user if own is not None else ""
    user = user or next(
        (c.user for known, c in _credentials.items() if _server(known) == server), ""
    )
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{user}{rest}{own.query if own is not None else ''}"


def secrets() -> Secrets:
    """Return all credentials, for another process of the same run: see `adopt_secrets`."""
    return Secrets((url, *credentials) for url, credentials in _credentials.items())


def adopt_secrets(received: Secrets) -> None:
    """Remember the credentials that another process has sent."""
    _credentials.update({url: _Credentials(user, query) for url, user, query in received})


def credentials_of(url: str) -> Mapping[str, str]:
    """Return `user` and `query` that were stripped from exactly this URL; "" for none."""
    return _credentials.get(url, _Credentials("", ""))._asdict()


def _covers(known: str, url: str, directory: str) -> bool:
    """Return whether `url`, in `directory`, lies beside the URL `known` or below it."""
    return directory == known.rstrip("/").rpartition("/")[0] or url.startswith(
        known.rstrip("/") + "/"
    )


def _server(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])


def _split_credentials(path: str) -> tuple[str, _Credentials]:
    match = _URL.fullmatch(path)
    if match is None:
        return path, _Credentials("", "")
    if os.path.lexists(path):
        return os.path.join(".", path), _Credentials("", "")
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        return _local(rest), _Credentials("", "")
    rest, query = _without_query(scheme, rest)
    user, rest = _without_user(scheme, rest)
    if rest.endswith("//"):
        rest = rest.rstrip("/") + "/"
    return f"{scheme}://{rest}", _Credentials(user, query)


def _without_query(scheme: str, rest: str) -> tuple[str, str]:
    match = re.search(r"[?#]" if scheme in WEB else _QUERY, rest)
    if match is None:
        return rest, ""
    query = rest[match.start() :]
    return rest[: match.start()], query.partition("#")[0] if scheme in WEB else query


def _without_user(scheme: str, rest: str) -> tuple[str, str]:
    """Split `user:password@` from what follows. The password may hold unescaped characters."""
    server, slash, path = rest.partition("/")
    is_port = re.fullmatch(r"[^:]*(:\d*)?|\[.*\](:\d*)?", server)
    if "@" not in server and not is_port and "@" in path and _may_hold_user(scheme, server):
        user, _, behind = rest.rpartition("@")
        return user + "@", behind
    if ":" in server.rpartition("@")[0] and "@" in path and scheme not in _NAMED_BEFORE_AT:
        raise UsageProblem(
            f"A {scheme}:// URL has two @, so its password is ambiguous: write %2F for a / in a"
            " password, and %40 for an @ that does not end it."
        )
    user, at, server = server.rpartition("@")
    if scheme in _NAMED_BEFORE_AT and at:
        name, colon, password = user.partition(":")
        return (user + "@" if colon and password else ""), f"{name}@{server}{slash}{path}"
    return user + at, f"{server}{slash}{path}"


def _may_hold_user(scheme: str, server: str) -> bool:
    """Return whether a password with a / may begin here; access point names have colons."""
    return scheme not in _NAMED_BEFORE_AT and not server.startswith("arn:")


def _without_signature(query: str) -> str:
    """Return the parameters of a query that identify the object, in a fixed order."""
    parts = query.lstrip("?").split("&")
    return "&".join(sorted(p for p in parts if not re.fullmatch(_SIGNING, p.partition("=")[0])))


def _local(rest: str) -> str:
    """Return the local path of a `file://` URL (RFC 8089)."""
    from urllib.request import url2pathname

    server, _, path = rest.partition("/")
    if server not in ("", "localhost"):
        raise UsageProblem(
            f"file://{rest} names a file on another machine. Copy it to this one first."
        )
    return url2pathname("/" + path)
