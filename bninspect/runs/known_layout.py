"""Reports of the checkpoints of one layout: names and layers are known, only values are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bninspect.batchnorm.find_layers import is_empty, search_layers
from bninspect.evidence.progress import evidence_variables, lone_step
from bninspect.formats.opening import open_target, with_graphs
from bninspect.formats.tensorflow.v2_layout import BundleLayout, learn_layout
from bninspect.model.checkpoint import Checkpoint, Variable
from bninspect.model.layer_views import LayerViews
from bninspect.model.report import CheckpointReport
from bninspect.model.target import CheckpointLocation, Target
from bninspect.runs.graph_beside import GraphBeside, has_graph_beside
from bninspect.runs.one_checkpoint import EarlierReports, Wanted, judge, with_evidence
from bninspect.runs.plain_values import PlainValues, plain_values
from bninspect.runs.read_layers import measured_layers, without_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_DISK_TYPES = {"float32": "<f4", "float64": "<f8", "int32": "<i4", "int64": "<i8"}


class KnownLayout(NamedTuple):
    """The common properties of all checkpoints of a layout.

    `checkpoint` is the one that it was learned from, which is closed; `evidence` are those of its
    variables that tell how layers were trained. `blank` is a report without findings. `step_size`
    is the size of the step in bytes, 0 without one.
    """

    layout: BundleLayout
    plain: PlainValues
    checkpoint: Checkpoint
    evidence: Mapping[str, Variable]
    blank: CheckpointReport
    step_size: int

    def report(
        self,
        location: CheckpointLocation,
        target: Target,
        index: bytes,
        wanted: Wanted,
        earlier: EarlierReports,
    ) -> CheckpointReport | None:
        """Return the report of a checkpoint with such an `index`, compared with `earlier` ones.

        None if it is not sure that it would be that of the ordinary way. Raises a `ReadProblem`.
        """
        data = self.layout.read(target.path, index)
        if data is None:
            return None
        end = len(data) - self.step_size
        step = int.from_bytes(data[end:], "little", signed=True) if self.step_size else None
        if step is not None and step < 0:
            return None  # another variable may be the step
        values = np.frombuffer(data, np.dtype("<f4"), end // 4)
        may_pass = wanted.passes_plain and earlier.since is None and earlier.previous is None
        if may_pass and self._is_plain(target.path, values, step, wanted.config.momentum):
            return self._plain_report(location, target, index, values, step, wanted)
        opened = _OpenCheckpoint(self, location, target, index)
        try:
            return self._judge(location, opened, values, step, wanted, earlier)
        finally:
            opened.close()

    def _is_plain(
        self, prefix: str, values: NDArray[np.float32], step: int | None, momentum: float | None
    ) -> bool:
        """Return whether no rule finds anything, for sure."""
        return self.plain.accepts(values, step, momentum, lambda: has_graph_beside(prefix))

    def _plain_report(
        self,
        location: CheckpointLocation,
        target: Target,
        index: bytes,
        values: NDArray[np.float32],
        step: int | None,
        wanted: Wanted,
    ) -> CheckpointReport:
        """Return the report of a checkpoint in which nothing is found."""
        architecture = self.plain.architecture
        report = self.blank.with_fields(
            path=location.path,
            resolved=target.path,
            step=step,
            layers=LayerViews(architecture, values) if wanted.values else (),
            layers_left_out=0 if wanted.values else len(architecture.layers),
            training=location.training,
        )
        if not wanted.variables:
            return report
        opened = _OpenCheckpoint(self, location, target, index)
        layers = LayerViews(architecture, values, opened.load)
        graph = GraphBeside(opened.checkpoint).evidence_of(layers)
        return report.with_fields(layers=layers, graph=graph, graphs=opened.checkpoint.graphs)

    def _judge(
        self,
        location: CheckpointLocation,
        opened: _OpenCheckpoint,
        values: NDArray[np.float32],
        step: int | None,
        wanted: Wanted,
        earlier: EarlierReports,
    ) -> CheckpointReport:
        """Return the report of a checkpoint whose values are judged layer by layer."""
        load = opened.load if wanted.variables else None
        # Values that are not finite are findings (BN301): numpy need not warn about them.
        with np.errstate(all="ignore"):
            layers = measured_layers(self.plain.architecture, values, load)
            read = with_evidence(opened.checkpoint, layers, step)
            beside = GraphBeside(opened.checkpoint)
            return judge(location, beside, read, wanted.config, wanted.rules, earlier)


class _OpenCheckpoint:
    """A checkpoint of a known layout.

    Evidence of training is read all at once, other variables by the ordinary reader, which is
    opened only then; after `close` it is opened again.
    """

    def __init__(
        self, known: KnownLayout, location: CheckpointLocation, target: Target, index: bytes
    ) -> None:
        self._known, self._location, self._target = known, location, target
        self._index = index
        variables = _Variables(known.checkpoint.variables, known.evidence, self.load)
        checkpoint = replace(
            known.checkpoint, path=location.path, resolved=target.path, variables=variables
        )
        self.checkpoint = with_graphs(checkpoint, target)

    def load(self, name: str) -> NDArray[Any]:
        """Return the values of a variable; raises a `ReadProblem`."""
        if name in self._known.evidence:
            return self._evidence[name]
        return self._ordinary.variables[name].read()

    @cached_property
    def _evidence(self) -> dict[str, NDArray[Any]]:
        data = self._known.layout.read_others(self._target.path, self._index)
        return {
            name: np.frombuffer(data[name], _DISK_TYPES[variable.dtype]).reshape(variable.shape)
            for name, variable in self._known.evidence.items()
        }

    @cached_property
    def _ordinary(self) -> Checkpoint:
        return open_target(self._location.path, self._target)

    def close(self) -> None:
        """Close the ordinary reader."""
        if "_ordinary" in self.__dict__:
            self._ordinary.close()


class _Variables(Mapping[str, Variable]):
    """The variables of a checkpoint: those of one with the same layout, with values of its own."""

    def __init__(
        self,
        learned: Mapping[str, Variable],
        evidence: Mapping[str, Variable],
        load: Callable[[str], NDArray[Any]],
    ) -> None:
        self._learned, self._evidence, self._load = learned, evidence, load

    def __getitem__(self, name: str) -> Variable:
        variable = self._evidence.get(name) or self._learned[name]
        return variable._replace(load=partial(self._load, name))

    def __contains__(self, name: object) -> bool:
        return name in self._learned

    def __iter__(self) -> Iterator[str]:
        return iter(self._learned)

    def __len__(self) -> int:
        return len(self._learned)


def learn(location: CheckpointLocation, target: Target) -> KnownLayout | None:
    """Return the common properties of the checkpoints of this layout; None if it has too few.

    Raises a `BninspectError`.
    """
    with open_target(location.path, target) as checkpoint:
        return _learn_open(checkpoint, target.path)


def _learn_open(checkpoint: Checkpoint, prefix: str) -> KnownLayout | None:
    found = search_layers(checkpoint, ())
    if found.may_lack_some or checkpoint.notes or checkpoint.unchecked or checkpoint.incomplete:
        return None
    # Stored configurations are values, too.
    if checkpoint.keras_layers is not None or any(map(is_empty, found.layers)):
        return None
    layers = [without_files(layer) for layer in found.layers]
    plain, step = plain_values(checkpoint, layers), lone_step(checkpoint)
    if plain is None or step is None:
        return None
    if not step and any("beta1_power" in name for name in checkpoint.variables):
        return None  # the optimizer's variables count the steps
    names = [*(m.name for m in plain.architecture.members), *(v.name for v in step)]
    evidence = {
        variable.name: variable
        for variable in evidence_variables(checkpoint, layers)
        if variable.dtype in _DISK_TYPES and variable.size
    }
    constants = [_OBJECT_GRAPH] if checkpoint.format == "tf-object" else []
    layout = learn_layout(prefix, names, evidence, constants)
    if layout is None:
        return None
    return KnownLayout(
        layout=layout,
        plain=plain,
        checkpoint=replace(checkpoint, close=_nothing),
        evidence=evidence,
        blank=CheckpointReport(
            path="",
            format=checkpoint.format,
            verified=True,
            variable_count=len(checkpoint.variables),
        ),
        step_size=sum(int(variable.dtype[-2:]) // 8 for variable in step),
    )


def _nothing() -> None:
    """Close nothing: the checkpoint that a layout was learned from is closed."""
