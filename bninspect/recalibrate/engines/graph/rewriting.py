"""Rewriting of a graph for recalibration: statistics that can be chosen, moments that can be taken.

Each BN site takes a mean and a variance of its own, the tensors `mean` and `variance` of its
`SiteTensors`. Computed, they are the moments of the batch; a run that feeds them normalizes by
other statistics. What is left besides are the ancestors of what is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bninspect.recalibrate.engines.frameworks import import_framework
from bninspect.recalibrate.engines.graph.nodes import Tensor
from bninspect.recalibrate.engines.graph.sites import BNSite

_SCOPE = "bninspect_recalibrate"


class Layout(NamedTuple):
    """The shapes around a site: the rank of x, its channels' axis, and the statistics' shape."""

    rank: int
    axis: int
    channels: int
    statistics: tuple[int, ...]


class SiteTensors(NamedTuple):
    """The tensors of a rewritten site.

    `mean` and `variance` have shape (C,) and type float64, `size` is the number of elements of x.
    `given` are mean and variance in the type in which the site takes them.
    `check` are the moments that the graph computes by itself, whose variance is that of a sample
    with `check_is_unbiased`; empty if it computes none.
    """

    layer: str
    mean: Tensor
    variance: Tensor
    size: Tensor
    given: tuple[Tensor, Tensor]
    check: tuple[Tensor, ...]
    check_is_unbiased: bool

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Return all tensors that are fetched or fed; no output need depend on a site."""
        return (self.mean, self.variance, self.size, *self.given, *self.check)


class Rewriter:
    """Adds the operations of recalibration to the nodes of a graph, in place."""

    def __init__(self, nodes: dict[str, Any]) -> None:
        self._nodes = nodes
        self._sites = 0
        self._tensorflow = import_framework("tensorflow")

    def rewrite(self, site: BNSite, layout: Layout, dtypes: Sequence[int]) -> SiteTensors:
        """Give a site its own statistics; `dtypes` are those of x, mean and variance in the graph.

        Return the tensors to feed and to fetch.
        """
        scope = f"{_SCOPE}/{self._sites}"
        self._sites += 1
        moments = self._moments(scope, site.x, layout, dtypes[0])
        check = self._check(scope, site)
        is_unbiased = site.kernel is not None and self._nodes[site.kernel].attr["is_training"].b
        for (name, place), statistic, dtype in zip(
            (site.takes_mean, site.takes_variance), moments, dtypes[1:], strict=True
        ):
            self._nodes[name].input[place] = str(self._given(statistic, layout, dtype))
        if site.kernel is not None:
            kernel = self._nodes[site.kernel]
            kernel.attr["is_training"].b = False
            kernel.attr.pop("exponential_avg_factor", None)
        size = self._node(f"{scope}/size", "Size", [site.x], T=dtypes[0], out_type=np.int64)
        mean, variance = moments
        given = Tensor(_given_name(mean)), Tensor(_given_name(variance))
        return SiteTensors(site.layer, mean, variance, size, given, check, is_unbiased)

    def _moments(self, scope: str, x: Tensor, layout: Layout, dtype: int) -> tuple[Tensor, Tensor]:
        """Return mean and variance over all axes but the channels', of shape (C,), in float64."""
        axes = [axis for axis in range(layout.rank) if axis != layout.axis]
        over = self.constant(f"{scope}/axes", np.array(axes, np.int32))
        shape = self.constant(f"{scope}/shape", np.array([layout.channels], np.int32))
        exact = self._node(f"{scope}/x", "Cast", [x], SrcT=dtype, DstT=np.float64)
        mean = self._mean(f"{scope}/mean_kept", exact, over)
        apart = self._node(f"{scope}/apart", "SquaredDifference", [exact, mean], T=np.float64)
        variance = self._mean(f"{scope}/variance_kept", apart, over)
        reshaped = {"T": np.float64, "Tshape": np.int32}
        return (
            self._node(f"{scope}/mean", "Reshape", [mean, shape], **reshaped),
            self._node(f"{scope}/variance", "Reshape", [variance, shape], **reshaped),
        )

    def _mean(self, name: str, values: Tensor, axes: Tensor) -> Tensor:
        return self._node(name, "Mean", [values, axes], T=np.float64, Tidx=np.int32, keep_dims=True)

    def _given(self, statistic: Tensor, layout: Layout, dtype: int) -> Tensor:
        """Return a statistic in the type and shape in which the graph takes it."""
        name = _given_name(statistic)
        cast = self._node(name, "Cast", [statistic], SrcT=np.float64, DstT=dtype)
        if layout.statistics == (layout.channels,):
            return cast
        shape = self.constant(f"{name}/shape", np.array(layout.statistics, np.int32))
        return self._node(f"{name}/shaped", "Reshape", [cast, shape], T=dtype, Tshape=np.int32)

    def _check(self, scope: str, site: BNSite) -> tuple[Tensor, ...]:
        """Return the graph's own moments; of a fused kernel, those of a copy left as it is."""
        if site.kernel is None or site.moments is None:
            return site.moments or ()
        kernel = self._nodes[site.kernel]
        copy = self._nodes[f"{scope}/check"] = type(kernel)()
        copy.CopyFrom(kernel)
        copy.name = f"{scope}/check"
        return Tensor(copy.name, 1), Tensor(copy.name, 2)

    def constant(self, name: str, value: np.ndarray[Any, Any]) -> Tensor:
        """Add a constant."""
        tensor = self._node(name, "Const", [], dtype=value.dtype.type)
        self._nodes[name].attr["value"].tensor.CopyFrom(self._tensorflow.make_tensor_proto(value))
        return tensor

    def placeholder(self, name: str, dtype: int, shape: Sequence[int | None] | None) -> None:
        """Add a placeholder, or make one of a node."""
        self._nodes.pop(name, None)
        self._node(name, "Placeholder", [], dtype=dtype)
        message = self._nodes[name].attr["shape"].shape
        message.unknown_rank = shape is None
        for size in shape or ():
            message.dim.add().size = -1 if size is None else size

    def identity(self, name: str, tensor: Tensor, dtype: int) -> None:
        """Make of a node an operation that passes a tensor on."""
        self._nodes.pop(name, None)
        self._node(name, "Identity", [tensor], T=dtype)

    def _node(
        self, name: str, operation: str, inputs: Sequence[Tensor], **attributes: Any
    ) -> Tensor:
        node = self._tensorflow.compat.v1.NodeDef(
            name=name, op=operation, input=[str(tensor) for tensor in inputs]
        )
        for key, value in attributes.items():
            if isinstance(value, bool):
                node.attr[key].b = value
            else:
                node.attr[key].type = self._tensorflow.as_dtype(value).as_datatype_enum
        self._nodes[name] = node
        return Tensor(name)


def _given_name(statistic: Tensor) -> str:
    return f"{statistic.node}_given"


def layout_of(
    kernel: Any,
    shape: Sequence[int | None] | None,
    statistics: Sequence[int | None] | None,
    channels: int,
) -> Layout | None:
    """Return the layout of a site by the static shapes of x and of the mean that it takes.

    `kernel` is the node of the site's fused operation, None without. The result is None if the
    shapes are not known well enough, or are not those of one statistic for each channel.
    """
    if shape is None:
        return None
    rank = len(shape)
    if kernel is not None:
        data_format = kernel.attr["data_format"].s.decode() or "NHWC"
        axis = rank - 1 if data_format.endswith("C") else 1
        taken: tuple[int, ...] = (channels,)
    elif statistics is None or None in statistics:
        return None
    else:
        taken = tuple(int(size or 0) for size in statistics)
        wide = [place - len(taken) for place, size in enumerate(taken) if size != 1]
        if len(wide) > 1 or len(taken) > rank or np.prod(taken) != channels:
            return None
        axis = rank + (wide[0] if wide else -1)
    return Layout(rank, axis, channels, taken) if shape[axis] == channels else None
