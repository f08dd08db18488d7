"""What lies where behind URLs: listings, and names that are looked up in them.

A server is asked once in a run for what a directory holds; `forget` ends the run. HTTP has no
listings, and some credentials may read objects but not list them: there each name costs a request.
"""

from __future__ import annotations

import re
from contextlib import suppress
from threading import Lock
from urllib.parse import urlsplit

from bninspect.errors import NotFound, ReadProblem, Unreachable, Unsupported
from bninspect.model.filenames import PART, SAVED_MODEL, STATE_FILE, natural_order
from bninspect.storage import run_caches
from bninspect.storage.remote.errors import is_denied, is_missing, problem_of, refuse
from bninspect.storage.remote.stores import Info, store_of
from bninspect.storage.urls import WEB, scheme_of

_MOST_NAMES = 1_000_000  # that listings keep
_MOST_HEADS = 256  # of single names that are kept
_MAGIC = re.compile(r"[*?[]")
_SERVED = (*WEB, "s3", "s3a", "gs", "gcs", "az", "abfs", "hf")  # others may need no name there


class OutOfReach(OSError):
    """A directory that cannot be listed; `problem` is the sentence about it."""

    def __init__(self, problem: ReadProblem) -> None:
        self.problem = problem
        super().__init__(problem.message)


# Runs of several threads may share all this, and any of them may begin meanwhile.
_of_all = Lock()
_listings: dict[str, dict[str, Info]] = {}
_single: dict[str, Info | None] = {}  # of names that were asked for one by one
_refused: dict[str, ReadProblem] = {}  # of these, what a web server said
_unlistable: dict[str, ReadProblem] = {}
# The objects below the directory that is walked, in about the order in which they will be looked
# at, and where each stands in it.
_order: list[str] = []
_places: dict[str, int] = {}


@run_caches.register
def forget() -> None:
    """Know nothing of what lies where, as when a run begins; connections stay."""
    with _of_all:
        for known in (_listings, _single, _refused, _unlistable, _order, _places):
            known.clear()


def lookup(url: str) -> Info | None:
    """What lies at a URL; None if nothing does. Raises a `ReadProblem` if nobody can tell."""
    _require_server(url)
    url = _plain(url)
    around, _, name = url.rpartition("/")
    if is_top(url):
        if scheme_of(url) in WEB:
            return None
        if _entries(url):
            return Info(0, directory=True)
        raise NotFound(url, "there is no such bucket or server, or nothing in it", "Check the URL.")
    if not around.endswith("/"):  # no listing tells a key with // in it by its name
        try:
            return entries(around).get(name)
        except OutOfReach as fault:
            if not isinstance(fault.problem, _Denied):
                raise fault.problem from None
    with suppress(KeyError):
        return _single[url]
    try:
        found = store_of(url).info(url)
    except Exception as error:  # whatever the library of a scheme raises
        # Who may not list, or has the signature of one object alone, is told so of what is not
        # there, too (AWS: HeadObject, permissions).
        if not is_denied(error):
            refuse(url, error)
        found = None
        if scheme_of(url) in WEB:
            _refused[url] = problem_of(url, error)
    if found is not None and _is_page(name, found.data):
        found = None
    with _of_all:
        while len(_single) >= _MOST_HEADS:
            oldest = next(iter(_single))
            del _single[oldest]
            _refused.pop(oldest, None)
        _single[url] = found
    return found


def _is_page(name: str, data: bytes) -> bool:
    """Whether a web page came for a name that was but tried: some servers have one for all."""
    tried = name.endswith(".index") or name in (STATE_FILE, SAVED_MODEL)
    return tried and data[:256].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _plain(url: str) -> str:
    """A URL without the slashes at its end; those of `scheme://` stay."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rstrip('/')}"


def _require_server(url: str) -> None:
    """Raise `Unsupported` unless a URL names the bucket or server that is to be asked."""
    scheme, _, rest = url.partition("://")
    server = rest.partition("/")[0]
    if scheme in _SERVED and not server:
        raise Unsupported(url, "this URL names no bucket or server", "Check the URL.")
    if scheme in WEB:
        try:
            _ = urlsplit(url).port
        except ValueError:
            fault = "the name of the server, or its port, is none"
            raise Unsupported(url, fault, "Check the URL.") from None
    if scheme in _SERVED and scheme not in WEB and _MAGIC.search(server):
        fault = "a pattern stands for what is in a bucket, not for the bucket itself"
        raise Unsupported(url, fault, "Name the bucket.")


def is_top(url: str) -> bool:
    """Whether a URL is that of a bucket, a server or a repository, beside which nothing is listed.

    Repositories of Hugging Face have two names, and those of datasets and spaces a kind before
    them (https://huggingface.co/docs/huggingface_hub/guides/hf_file_system).
    """
    scheme, _, rest = url.partition("://")
    names = rest.split("/")
    if scheme == "hf":
        return len(names) <= (3 if names[0] in ("buckets", "datasets", "spaces") else 2)
    return len(names) == 1


class _Denied(Unreachable):
    """Listing is not possible, though objects may be read."""


def entries(directory: str) -> dict[str, Info]:
    """What lies directly in a directory, by name; raises `OutOfReach`."""
    directory = _plain(directory)
    found = _listings.get(directory)
    if found is None:
        if problem := _unlistable.get(directory):
            raise OutOfReach(problem)
        try:
            found = store_of(directory).listing(directory)
        except Exception as error:  # whatever the library of a scheme raises
            if not is_missing(error):
                raise OutOfReach(_no_listing(directory, error)) from None
            found = {}
        _keep(directory, found)
    return found


def _no_listing(directory: str, error: Exception) -> ReadProblem:
    problem = problem_of(directory, error)
    if scheme_of(directory) in WEB or is_denied(error):
        problem = _Denied(problem.path, problem.message, problem.hint)
        _unlistable[directory] = problem
    return problem


def _keep(directory: str, found: dict[str, Info]) -> None:
    with _of_all:
        _listings[directory] = found
        if len(_listings) % 1000 == 0:
            while sum(map(len, _listings.values())) > _MOST_NAMES:
                del _listings[next(iter(_listings))]


def list_below(directory: str) -> None:
    """Ask at once for all that lies below a directory; what cannot be told so is asked later."""
    directory = _plain(directory)
    try:
        found = store_of(directory).find(directory)
    except Exception:  # the listing of the directory tells why
        return
    # Keys may have an empty name in them, to which no path leads.
    found = {path: info for path, info in found.items() if "" not in path.split("/")}
    below: dict[str, dict[str, Info]] = {directory: {}}
    for path, info in found.items():
        around, _, name = path.rpartition("/")
        below.setdefault(f"{directory}/{around}" if around else directory, {})[name] = info
        while around and name:
            around, _, name = around.rpartition("/")
            parent = f"{directory}/{around}" if around else directory
            folder = path[len(around) + 1 if around else 0 :].partition("/")[0]
            below.setdefault(parent, {})[folder] = Info(0, directory=True)
    for place, names in below.items():
        _keep(place, names)
    whole = (path for path in found if not PART.fullmatch(path))
    _order[:] = [f"{directory}/{path}" for path in sorted(whole, key=natural_order)]
    _places.clear()
    _places.update({url: place for place, url in enumerate(_order)})


def followed_by(url: str, most: int) -> list[str]:
    """An object, and those that will be looked at after it as far as is known."""
    place = _places.get(url)
    return [url] if place is None else _order[place : place + most]


def is_directory(url: str) -> bool:
    """Whether a URL is that of a directory; by HTTP, whether what marks one lies there."""
    _require_server(url)
    if scheme_of(url) not in WEB:
        found = lookup(url)
        return found is not None and found.directory
    plain = url.rstrip("/")
    if not url.endswith("/") and not is_top(url):
        if lookup(url + ".index") is not None:
            return False
        found = lookup(url)
        if found is not None and not found.directory:
            return False
    marks = (f"{plain}/{mark}" for mark in (STATE_FILE, SAVED_MODEL))
    return any((one := lookup(mark)) is not None and not one.directory for mark in marks)


def _entries(directory: str) -> dict[str, Info]:
    """`entries`, but for the sentence itself where they cannot be told."""
    try:
        return entries(directory)
    except OutOfReach as fault:
        raise fault.problem from None


def why_not(url: str) -> ReadProblem | None:
    """Why nobody can tell what lies at a URL; None where that is known."""
    try:
        found = lookup(url)
    except ReadProblem as problem:
        return problem
    if found is not None:
        return None
    url = url.rstrip("/")
    return _refused.get(url) if scheme_of(url) in WEB else _unlistable.get(url.rpartition("/")[0])
