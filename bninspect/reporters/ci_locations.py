"""Locations of checkpoints as CI services expect them: relative to the repository."""

from __future__ import annotations

import os
from pathlib import PurePath
from urllib.parse import quote

from bninspect.model.report import CheckpointReport
from bninspect.reporters.escapes import printable
from bninspect.storage.urls import is_url

# The file that is read first, where `resolved` is the prefix or the directory of several.
_FIRST_FILE = {"tf-v2": ".index", "tf-object": ".index", "saved-model": "/saved_model.pb"}

_OF_URLS = "%/:@!$&'()*+,;=~"


def file_of(item: CheckpointReport) -> str:
    """Return the file to point at: the one at fault, else the one that was read first."""
    if item.error is not None:
        return item.error.path
    return (item.resolved or item.path) + _FIRST_FILE.get(item.format or "", "")


def in_repository(path: str) -> str | None:
    """Return a path relative to the repository, with slashes; None if it lies elsewhere.

    The repository is GITHUB_WORKSPACE, else the working directory.
    """
    if is_url(path):
        return None
    absolute = os.path.abspath(_possible(path))
    root = os.path.abspath(os.environ.get("GITHUB_WORKSPACE") or ".")
    for around in (root, os.path.realpath(root)):
        if absolute.startswith(os.path.join(around, "")):
            return PurePath(os.path.relpath(absolute, around)).as_posix()
    return None


def file_uri(path: str) -> str:
    """Return the absolute URI of a path (RFC 8089); that of an object is its URL."""
    if is_url(path):
        return quote(os.fsencode(_possible(path)), safe=_OF_URLS)
    return PurePath(os.path.abspath(_possible(path))).as_uri()


def relative_uri(path: str) -> str:
    """Return a relative path as a URI reference (RFC 3986), escaped where it needs to be."""
    return quote(os.fsencode(path))


def _possible(path: str) -> str:
    """Return a path that a file can have: a name stored in a file may hold anything."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return printable(path)
    return path.replace("\0", "")
