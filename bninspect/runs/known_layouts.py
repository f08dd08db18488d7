"""Reports of checkpoints that are laid out as one before them, and plainly healthy.

Thousands of checkpoints of a few architectures are what a fleet or a long training has. Their names
are searched for BN layers once for each layout; of the others only the values are read, and judged
all at once. Where anything is not plain, and for every problem, there is no report from here: the
checkpoint is then examined in the ordinary way.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bninspect.batchnorm.find_layers import search_layers
from bninspect.config.model import Config
from bninspect.errors import BninspectError, ReadProblem
from bninspect.evidence.progress import lone_step
from bninspect.formats.opening import open_target
from bninspect.formats.tensorflow.v2_layout import BundleLayout, learn_layout, read_index
from bninspect.model.checkpoint import Checkpoint
from bninspect.model.layer import BNLayer
from bninspect.model.layer_views import LayerViews
from bninspect.model.report import CheckpointReport
from bninspect.model.rule import Rule
from bninspect.model.target import CheckpointLocation
from bninspect.runs.plain_values import PlainValues, plain_values
from bninspect.runs.read_layers import without_files
from bninspect.storage import filesystem
from bninspect.storage.urls import is_url

_MOST_LAYOUTS = 64
_MOST_SIZES = 4096
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


class _Architecture(NamedTuple):
    """The common properties of all checkpoints of a layout.

    `step_size` is the size of the step in bytes, 0 without one.
    """

    layout: BundleLayout
    plain: PlainValues
    format: str
    variable_count: int
    step_size: int

    def read(self, prefix: str, index: bytes) -> tuple[NDArray[np.float32] | None, int | None]:
        """Return the values of all layers and the step; None for both if a constant differs.

        Raises a `ReadProblem`.
        """
        data = self.layout.read(prefix, index)
        if data is None:
            return None, None
        end = len(data) - self.step_size
        step = int.from_bytes(data[end:], "little", signed=True) if self.step_size else None
        return np.frombuffer(data, np.dtype("<f4"), end // 4), step

    def accepts(
        self,
        prefix: str,
        values: NDArray[np.float32],
        step: int | None,
        momentum: float | None,
    ) -> bool:
        """Return whether no rule finds anything, for sure."""
        if step is not None and step < 0:
            return False  # another variable may be the step
        return self.plain.accepts(
            values, step, momentum, lambda: filesystem.exists(prefix + ".meta")
        )

    def report_on(
        self,
        location: CheckpointLocation,
        prefix: str,
        step: int | None,
        layers: Sequence[BNLayer],
    ) -> CheckpointReport:
        """Return the report of a checkpoint in which nothing is found, with or without layers."""
        return CheckpointReport(
            path=location.path,
            resolved=prefix,
            format=self.format,
            step=step,
            verified=True,
            variable_count=self.variable_count,
            layers=layers,
            layers_left_out=0 if layers else len(self.plain.architecture.layers),
            training=location.training,
        )


class KnownLayouts:
    """The layouts of a run, by the size of the index; the least recently used are dropped.

    A layout is learned from the second checkpoint whose index has a size, so that checkpoints that
    have nothing in common cost no more than before. The threads of a worker of a Dask cluster share
    the layouts.
    """

    def __init__(self) -> None:
        self._lock = Lock()  # of `_known`
        self._seen: set[int] = set()
        self._known: OrderedDict[int, list[_Architecture]] = OrderedDict()

    def report(
        self, location: CheckpointLocation, config: Config, *, with_values: bool
    ) -> CheckpointReport | None:
        """Return the report of a checkpoint in which all is plainly healthy, None if it may not be.

        It has no layers, or those `with_values`, whose variables cannot be read any more.
        """
        prefix = _prefix_of(location)
        if prefix is None:
            return None
        try:
            with filesystem.unchanged(prefix):
                return self._report(location, prefix, config, with_values=with_values)
        except ReadProblem:
            return None  # the ordinary way says what is wrong

    def _report(
        self, location: CheckpointLocation, prefix: str, config: Config, *, with_values: bool
    ) -> CheckpointReport | None:
        if _index_size(prefix) not in self._known:
            return None
        index = read_index(prefix)
        known = self._architecture_of(index)
        if known is None:
            return None
        values, step = known.read(prefix, index)
        if values is None or not known.accepts(prefix, values, step, config.momentum):
            return None
        layers = LayerViews(known.plain.architecture, values) if with_values else ()
        return known.report_on(location, prefix, step, layers)

    def learn(self, location: CheckpointLocation, config: Config) -> None:
        """Learn the layout of a checkpoint that was examined in the ordinary way.

        A checkpoint whose layout is known was examined so because its values are not plain.
        """
        prefix = _prefix_of(location)
        if prefix is None:
            return
        size = _index_size(prefix)
        if size not in self._seen:
            if len(self._seen) < _MOST_SIZES:
                self._seen.add(size)
            return
        try:
            with filesystem.unchanged(prefix):
                if size in self._known and self._architecture_of(read_index(prefix)):
                    return
                architecture = _learn(location, prefix, config)
        except BninspectError:
            return
        if architecture is not None:
            with self._lock:
                self._known.setdefault(size, []).append(architecture)
                self._drop_oldest()

    def _architecture_of(self, index: bytes) -> _Architecture | None:
        """Return the known architecture of the checkpoints with such an index; None without one."""
        size = len(index)
        with self._lock:
            known = tuple(self._known.get(size, ()))
            if known:
                self._known.move_to_end(size)
        return next((item for item in known if item.layout.matches(index)), None)

    def _drop_oldest(self) -> None:
        """Drop the least recently used layouts beyond `_MOST_LAYOUTS`; the caller has the lock."""
        while sum(map(len, self._known.values())) > _MOST_LAYOUTS:
            _, layouts = next(iter(self._known.items()))
            layouts.pop(0)
            if not layouts:
                self._known.popitem(last=False)


def takes_layouts(config: Config, rules: tuple[Rule, ...] | None) -> bool:
    """Return whether the checkpoints of a run may be judged by their layout.

    They are read with our own reader, and each rule passes what is plain.
    """
    return config.engine == "native" and bool(rules) and all(r.passes_plain for r in rules or ())


def _prefix_of(location: CheckpointLocation) -> str | None:
    """Return the prefix of a local V2 checkpoint of which there is nothing to note."""
    target = location.target
    if target is None or target.kind != "tensor-bundle" or target.notes or is_url(target.path):
        return None
    return target.path


def _index_size(prefix: str) -> int:
    try:
        return os.path.getsize(prefix + ".index")
    except OSError:
        return -1


def _learn(location: CheckpointLocation, prefix: str, config: Config) -> _Architecture | None:
    """Return the common properties of the checkpoints of this layout; None if it has too few.

    Raises a `BninspectError`.
    """
    if location.target is None:
        return None
    with open_target(location.path, location.target) as checkpoint:
        return _learn_open(checkpoint, prefix, config)


def _learn_open(checkpoint: Checkpoint, prefix: str, config: Config) -> _Architecture | None:
    found = search_layers(checkpoint, config.patterns)
    if found.may_lack_some or checkpoint.notes or checkpoint.unchecked or checkpoint.incomplete:
        return None
    if config.patterns:  # notes say which of them match nothing
        return None
    layers = [without_files(layer) for layer in found.layers]
    plain, step = plain_values(checkpoint, layers), lone_step(checkpoint)
    if plain is None or step is None:
        return None
    if not step and any("beta1_power" in name for name in checkpoint.variables):
        return None  # the optimizer's variables count the steps
    names = [*(m.name for m in plain.architecture.members), *(v.name for v in step)]
    constants = [_OBJECT_GRAPH] if checkpoint.format == "tf-object" else []
    layout = learn_layout(prefix, names, constants)
    if layout is None:
        return None
    return _Architecture(
        layout=layout,
        plain=plain,
        format=checkpoint.format,
        variable_count=len(checkpoint.variables),
        step_size=sum(int(variable.dtype[-2:]) // 8 for variable in step),
    )
