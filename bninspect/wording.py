"""Wording that messages of all packages share: counts, lists of names, suggestions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice

# How many names a message lists, and among how many it looks for the one that was meant.
NAMES_SHOWN, _MOST_COMPARED = 3, 1000


def plural(count: int, noun: str, several: str = "") -> str:
    """Return the count with its noun: `1 layer`, `2 layers`; `several` if that is no noun and s."""
    return f"{count} {noun}" if count == 1 else f"{count} {several or noun + 's'}"


def listed(names: Sequence[str], most: int = NAMES_SHOWN) -> str:
    """Return the first names and the number of the others: `a, b, c and 4 more`."""
    shown = ", ".join(names[:most])
    return f"{shown} {and_more(len(names) - most)}" if len(names) > most else shown


def and_more(count: int, noun: str = "") -> str:
    """Return the end of a shortened list: `and 4 more`, `and 4 more layers`."""
    return f"and {count} more{f' {noun}' if noun else ''}"


def install_command(extra: str) -> str:
    """Return the commands that install an extra of this program, from a registry or a checkout."""
    return f"pip install 'bninspect[{extra}]' (in a checkout: pip install '.[{extra}]')"


def nearest(typed: str, known: Collection[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known name that a mistyped one is nearest to; None if none is near.

    Letter case does not count, nor "_" for "-". `cutoff` is the smallest similarity, from 0 to 1.
    """
    from difflib import SequenceMatcher, get_close_matches

    by_folded = {_folded(name): name for name in islice(known, _MOST_COMPARED)}
    word = _folded(typed)
    near = [name for name in by_folded if word and name.startswith(word)]
    if not near:
        near = get_close_matches(word, by_folded, cutoff=cutoff)
        # Of equally similar names, the one with most letters in their places: BN101 for BN1O1.
        near.sort(key=lambda name: -sum(a == b for a, b in zip(name, word, strict=False)))
        near.sort(key=lambda name: -SequenceMatcher(None, name, word).ratio())
    return by_folded[near[0]] if near else None


def did_you_mean(meant: str | None) -> str:
    """Return a space and the question `Did you mean X?`; empty if nothing is near (None)."""
    return "" if meant is None else f" Did you mean {meant}?"


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")
