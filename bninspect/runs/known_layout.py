"""Reports of the checkpoints of one layout: names and layers are known, only values are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

from bninspect.batchnorm.find_layers import is_empty, search_layers
from bninspect.evidence.keras_config import with_keras_config
from bninspect.evidence.progress import evidence_variables, lone_step
from bninspect.formats.opening import open_target, with_graphs
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
_BUNDLE = "tensor-bundle"
_DISK_TYPES = {"float32": "<f4", "float64": "<f8", "int32": "<i4", "int64": "<i8"}


class OpenHead(Protocol):
    """The open file of a checkpoint that says what is stored where; `size` is that of the file."""

    size: int

    def close(self) -> None:
        """Close the file."""


_Head_contra = TypeVar("_Head_contra", bound=OpenHead, contravariant=True)


class Layout(Protocol[_Head_contra]):
    """The layout of the files of a checkpoint, by which the values of others are read.

    `size` is that of the file which says what is stored where, `weight` how many bytes are kept.
    """

    size: int
    weight: int

    def matches(self, head: _Head_contra, /) -> bool:
        """Return whether a file says the same; raises a `ReadProblem`."""

    def read(self, head: _Head_contra, /) -> bytes | None:
        """Return the values of members and step, one after the other; None if it is not sure.

        Raises a `ReadProblem`.
        """

    def read_others(self, head: _Head_contra, /) -> dict[str, bytes]:
        """Return the bytes of the evidence by name; raises a `ReadProblem`."""


def open_head(target: Target) -> OpenHead:
    """Open the file of a checkpoint that says what is stored where; raises a `ReadProblem`."""
    if target.kind == _BUNDLE:
        from bninspect.formats.tensorflow.v2_layout import OpenIndex

        return OpenIndex(target.path)
    from bninspect.formats.keras.layout import OpenKerasFile

    return OpenKerasFile(target)


class KnownLayout(NamedTuple):
    """The common properties of all checkpoints of a layout.

    `checkpoint` is the one that it was learned from, which is closed; `evidence` are those of its
    variables that tell how layers were trained. `blank` is a report without findings. `step_size`
    is the size of the step in bytes, 0 without one.
    """

    layout: Layout[Any]
    plain: PlainValues
    checkpoint: Checkpoint
    evidence: Mapping[str, Variable]
    blank: CheckpointReport
    step_size: int

    def report(
        self,
        location: CheckpointLocation,
        target: Target,
        head: OpenHead,
        wanted: Wanted,
        earlier: EarlierReports,
    ) -> CheckpointReport | None:
        """Return the report of a checkpoint of this layout, compared with `earlier` ones.

        None if it is not sure that it would be that of the ordinary way. Raises a `ReadProblem`.
        """
        data = self.layout.read(head)
        if data is None:
            return None
        end = len(data) - self.step_size
        step = int.from_bytes(data[end:], "little", signed=True) if self.step_size else None
        if step is not None and step < 0:
            return None  # another variable may be the step
        values = np.frombuffer(data, np.dtype("<f4"), end // 4)
        may_pass = wanted.passes_plain and earlier.since is None and earlier.previous() is None
        if may_pass and self._is_plain(target, values, step, wanted.config.momentum):
            return self._plain_report(location, target, head, values, step, wanted)
        if target.kind != _BUNDLE and self.plain.has_zero_variances(values):
            return None  # numbered variables may be those of another class
        opened = _OpenCheckpoint(self, location, target, head)
        try:
            return self._judge(location, opened, values, step, wanted, earlier)
        finally:
            opened.close()

    def _is_plain(
        self, target: Target, values: NDArray[np.float32], step: int | None, momentum: float | None
    ) -> bool:
        """Return whether no rule finds anything, for sure."""

        def has_graph() -> bool:
            return target.kind == _BUNDLE and has_graph_beside(target.path)

        return self.plain.accepts(values, step, momentum, has_graph)

    def _plain_report(
        self,
        location: CheckpointLocation,
        target: Target,
        head: OpenHead,
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
        opened = _OpenCheckpoint(self, location, target, head)
        opened.close()
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
        self, known: KnownLayout, location: CheckpointLocation, target: Target, head: OpenHead
    ) -> None:
        self._known, self._location, self._target = known, location, target
        self._head = head
        learned = known.checkpoint
        self._is_closed = False
        variables = _Variables(learned.variables, self._of_model)
        optimizer = _Variables(learned.optimizer, self._of_optimizer)
        checkpoint = replace(
            learned,
            path=location.path,
            resolved=target.path,
            variables=variables,
            optimizer=optimizer,
        )
        is_bundle = target.kind == _BUNDLE
        self.checkpoint = with_graphs(checkpoint, target) if is_bundle else checkpoint

    def load(self, name: str) -> NDArray[Any]:
        """Return the values of a variable; raises a `ReadProblem`."""
        if name in self._known.evidence:
            return self._evidence[name]
        if self._is_closed and self._target.kind != _BUNDLE:
            # A bundle opens its shards when they are needed; other readers keep their file open.
            with open_target(self._location.path, self._target) as ordinary:
                return ordinary.variables[name].read()
        return self._ordinary.variables[name].read()

    def _of_model(self, name: str) -> Variable:
        variable = self._known.evidence.get(name) or self._known.checkpoint.variables.get(name)
        variable = variable or self._ordinary.variables[name]
        return variable._replace(load=partial(self.load, name))

    def _of_optimizer(self, name: str) -> Variable:
        variable = self._known.checkpoint.optimizer.get(name) or self._ordinary.optimizer[name]
        return variable._replace(load=partial(self._load_slot, name))

    def _load_slot(self, name: str) -> NDArray[Any]:
        return self._ordinary.optimizer[name].read()

    @cached_property
    def _evidence(self) -> dict[str, NDArray[Any]]:
        data = self._known.layout.read_others(self._head)
        return {
            name: np.frombuffer(data[name], _DISK_TYPES[variable.dtype]).reshape(variable.shape)
            for name, variable in self._known.evidence.items()
        }

    @cached_property
    def _ordinary(self) -> Checkpoint:
        return open_target(self._location.path, self._target)

    def close(self) -> None:
        """Close the ordinary reader."""
        self._is_closed = True
        if "_ordinary" in self.__dict__:
            self._ordinary.close()


class _Variables(Mapping[str, Variable]):
    """The variables of a checkpoint: the names are those of one with the same layout."""

    def __init__(self, names: Mapping[str, Variable], find: Callable[[str], Variable]) -> None:
        self._names, self._find = names, find

    def __getitem__(self, name: str) -> Variable:
        if name not in self._names:
            raise KeyError(name)
        return self._find(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


# Returns the layout by which members and step are read, and the evidence besides.
_LearnLayout = Callable[[Sequence[Variable], Mapping[str, Variable]], "Layout[Any] | None"]


def learn(location: CheckpointLocation, target: Target) -> KnownLayout | None:
    """Return the common properties of the checkpoints of this layout; None if it has too few.

    Raises a `BninspectError`.
    """
    if target.kind == _BUNDLE:
        from bninspect.formats.tensorflow.v2_layout import learn_layout

        with open_target(location.path, target) as checkpoint:
            if checkpoint.keras_layers is not None:  # stored configurations are values, too
                return None
            constants = [_OBJECT_GRAPH] if checkpoint.format == "tf-object" else []

            def of_bundle(
                variables: Sequence[Variable], evidence: Mapping[str, Variable]
            ) -> Layout[Any] | None:
                names = [variable.name for variable in variables]
                return learn_layout(target.path, names, evidence, constants)

            return _learn_open(checkpoint, of_bundle)
    from bninspect.formats.keras.layout import Recording

    with Recording(location.path, target) as recording:

        def of_keras(
            variables: Sequence[Variable], evidence: Mapping[str, Variable]
        ) -> Layout[Any] | None:
            return None if evidence else recording.layout(variables)

        return _learn_open(recording.checkpoint, of_keras)


def _learn_open(checkpoint: Checkpoint, learn_layout: _LearnLayout) -> KnownLayout | None:
    found = search_layers(checkpoint, ())
    if found.may_lack_some or checkpoint.notes or checkpoint.unchecked or checkpoint.incomplete:
        return None
    if any(map(is_empty, found.layers)):
        return None
    layers = [without_files(layer) for layer in with_keras_config(found.layers, checkpoint)]
    plain, step = plain_values(checkpoint, layers), lone_step(checkpoint)
    if plain is None or step is None:
        return None
    if not step and any("beta1_power" in name for name in checkpoint.variables):
        return None  # the optimizer's variables count the steps
    evidence = {
        variable.name: variable
        for variable in evidence_variables(checkpoint, layers)
        if variable.dtype in _DISK_TYPES and variable.size
    }
    members = [layers[member.layer].variables[member.role] for member in plain.architecture.members]
    layout = learn_layout([*members, *step], evidence)
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
            verified=checkpoint.verified,
            variable_count=len(checkpoint.variables),
        ),
        step_size=sum(int(variable.dtype[-2:]) // 8 for variable in step),
    )


def _nothing() -> None:
    """Close nothing: the checkpoint that a layout was learned from is closed."""
