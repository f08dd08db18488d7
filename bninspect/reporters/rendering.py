"""Rendering one checkpoint in several formats, also in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bninspect.model.report import CheckpointReport


def render_all(
    item: CheckpointReport, renderers: Iterable[Callable[[CheckpointReport], Any] | None]
) -> tuple[Any, ...]:
    """Return what each renderer makes of a checkpoint, in their order; None without one."""
    return tuple(None if render is None else render(item) for render in renderers)
