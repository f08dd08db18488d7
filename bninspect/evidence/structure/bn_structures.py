"""BN layers of a graph: normalizations by statistics that are variables, with their roles.

A normalization is BN if it takes variables as mean and variance, or the moments of a batch that
moving averages keep in variables. One layer may be normalized in several places: for training and
for evaluation, in towers, in steps of a recurrent network. Layer, group and instance normalization
have no such variables. Input normalizers, which have, neither scale nor take the moments of a batch
in training, and subtract the mean itself, where tf.nn.batch_normalization without offset adds
-mean / sqrt(variance + epsilon) (tensorflow/python/ops/nn_impl.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bninspect.evidence.graph.momentum import common_momentum
from bninspect.evidence.graph.operations import PRODUCTS, SUMS
from bninspect.evidence.structure.averages import Average, find_averages
from bninspect.evidence.structure.dataflow import Dataflow, Value
from bninspect.evidence.structure.normalizations import Normalization, find_normalizations
from bninspect.model.graph import WEIGHTS
from bninspect.model.roles import Role

# Operations before the root that keep a variance from being negative.
_NOT_NEGATIVE = {"Abs", "Maximum", "Relu"}

Parts = tuple[int, ...]  # the nodes of a variable: one, or its partitions


class Structure(NamedTuple):
    """A BN layer of a graph: its variables by role, and the constants of its computation.

    `node` is an operation that normalizes. `epsilon` and `momentum` are None where the graph has
    several or none. Inference multiplies by gamma + `gamma_offset`. `sites` are all the places that
    normalize by these statistics.
    """

    node: int
    members: Mapping[Role, Parts]
    epsilon: float | None
    momentum: float | None
    gamma_offset: float = 0.0
    sites: tuple[Site, ...] = ()


class _Parameter(NamedTuple):
    """A variable that is gamma or beta, after `offset` was added to it."""

    parts: Parts
    offset: float


class Site(NamedTuple):
    """A normalization with the variables and the batch moments that it takes."""

    normalization: Normalization
    means: tuple[Parts, ...]
    variances: tuple[Parts, ...]
    batch_means: tuple[Value, ...]
    batch_variances: tuple[Value, ...]
    gamma: _Parameter | None
    beta: _Parameter | None


def find_bn_structures(dataflow: Dataflow, preferred: Iterable[int] = ()) -> list[Structure]:
    """Return the BN layers of a graph, in the order of their operations.

    Of several variables that could have a role, as the copies of replicas, one of `preferred` is
    taken: the variables that are stored.
    """
    sites = find_sites(dataflow)
    moments = {value for site in sites for value in (*site.batch_means, *site.batch_variances)}
    return _Layers(dataflow, sites, find_averages(dataflow, moments), set(preferred)).structures()


def find_sites(dataflow: Dataflow) -> list[Site]:
    """Return the normalizations of a graph that may be BN, in the order of their operations."""
    sites = [_site(dataflow, normalization) for normalization in find_normalizations(dataflow)]
    return [site for site in sites if _reduces_batches(dataflow, site)]


def _site(dataflow: Dataflow, normalization: Normalization) -> Site:
    means, batch_means = _split(dataflow, normalization.mean)
    variances, batch_variances = _split(dataflow, normalization.variance)
    gamma = _parameter(dataflow, normalization.gamma)
    beta = _parameter(dataflow, normalization.beta, ignored=None if gamma is None else gamma.parts)
    return Site(normalization, means, variances, batch_means, batch_variances, gamma, beta)


def _split(
    dataflow: Dataflow, values: Sequence[Value]
) -> tuple[tuple[Parts, ...], tuple[Value, ...]]:
    """Return the variables and the computed values among the sources of a statistic."""
    sources = {
        source: None for value in values for source in dataflow.sources(value, _NOT_NEGATIVE)
    }
    variables = {source: dataflow.variable(source) for source in sources}
    computed = [
        source
        for source, parts in variables.items()
        if not parts and dataflow.operation(source) != "Const"
    ]
    return tuple(dict.fromkeys(parts for parts in variables.values() if parts)), tuple(computed)


def _parameter(
    dataflow: Dataflow, value: Value | None, ignored: Parts | None = None
) -> _Parameter | None:
    """Return the one variable that gamma or beta is computed of, and the constant added to it.

    It may be multiplied by other values, as with renorm, where beta also has a multiple of gamma
    (`ignored`). Other values that are added make it conditional: it is no variable then.
    """
    if value is None:
        return None
    variables_of_terms: set[Parts] = set()
    offset = 0.0
    for term in dataflow.sources(value, SUMS):
        sources = dataflow.sources(term, PRODUCTS)
        variables = {parts for source in sources if (parts := dataflow.variable(source))}
        constant = dataflow.graph.attribute(term.node, "value")
        if isinstance(constant, int | float):
            offset += constant
        elif not variables:
            return None
        variables_of_terms |= variables
    variables_of_terms.discard(ignored or ())
    return _Parameter(variables_of_terms.pop(), offset) if len(variables_of_terms) == 1 else None


def _reduces_batches(dataflow: Dataflow, site: Site) -> bool:
    """Return whether the moments are taken over the samples of a batch, as far as that is known."""
    for value in site.batch_means:
        if dataflow.operation(value) == "Mean":
            operands = dataflow.operands(value)
            axes = dataflow.graph.constant(operands[1].node) if len(operands) == 2 else None
            if axes is not None and 0 not in axes.elements:
                return False
    return True


class _Key(NamedTuple):
    """The variables by which sites are one layer, and the node of a layer of its own."""

    mean: Parts
    variance: Parts
    affine: tuple[Parts, ...]
    node: int | None = None


class _Layers:
    """The sites of one graph, gathered by the statistics that they take."""

    def __init__(
        self,
        dataflow: Dataflow,
        sites: Sequence[Site],
        averages: Sequence[Average],
        preferred: set[int],
    ) -> None:
        self._dataflow = dataflow
        self._preferred = preferred
        self._averages = averages
        self._by_value: dict[Value, list[int]] = {}
        for average in averages:
            for value in average.values:
                self._by_value.setdefault(value, []).append(average.variable)
        self._sites: dict[_Key, list[Site]] = {}
        waiting = []
        for site in sites:
            key = self._statistics(site)
            if key is None:
                waiting.append(site)
            else:
                self._sites.setdefault(key, []).append(site)

    def structures(self) -> list[Structure]:
        """Return the layers whose sites make BN."""
        structures = [
            self._structure(key, sites) for key, sites in self._sites.items() if _is_bn(key, sites)
        ]
        return sorted(structures, key=lambda structure: structure.node)

    def _statistics(self, site: Site) -> _Key | None:
        """Return mean and variance of a site: variables it takes, else averages of its moments.

        Layers of a frozen graph may share constants that have the same values, so gamma and beta
        tell them apart. If two members of one site are the same constant, equal constants were
        merged: then all members of two layers may be the same, too.
        """
        mean = self._statistic(site.means, site.batch_means)
        variance = self._statistic(site.variances, site.batch_variances)
        if mean is None or variance is None:
            return None
        if self._dataflow.graph.operations[mean[0]] != WEIGHTS:
            return _Key(mean, variance, ())
        affine = tuple(found.parts if found else () for found in (site.gamma, site.beta))
        members = [parts for parts in (mean, variance, *affine) if parts]
        is_merged = len(set(members)) < len(members)
        return _Key(mean, variance, affine, site.normalization.node if is_merged else None)

    def _statistic(self, variables: Sequence[Parts], moments: Sequence[Value]) -> Parts | None:
        if variables:
            return variables[0] if len(variables) == 1 else None
        candidates = {(node,) for value in moments for node in self._by_value.get(value, ())}
        return self._best(candidates)

    def _best(self, candidates: Iterable[Parts]) -> Parts | None:
        return min(
            candidates, key=lambda parts: (parts[0] not in self._preferred, parts), default=None
        )

    def _structure(self, key: _Key, sites: Sequence[Site]) -> Structure:
        mean, variance = key.mean, key.variance
        members: dict[Role, Parts] = {"moving_mean": mean, "moving_variance": variance}
        offsets = {site.gamma.parts: site.gamma.offset for site in sites if site.gamma}
        gamma = self._best(offsets)
        beta = self._best({site.beta.parts for site in sites if site.beta})
        if gamma is not None:
            members["gamma"] = gamma
        if beta is not None:
            members["beta"] = beta
        epsilons = {site.normalization.epsilon for site in sites} - {None}
        statistics = {*mean, *variance}
        updates = [average.node for average in self._averages if average.variable in statistics]
        traversal = self._dataflow.traversal
        return Structure(
            min(site.normalization.node for site in sites),
            members,
            epsilons.pop() if len(epsilons) == 1 else None,
            common_momentum(traversal.graph, traversal.variables, updates) if updates else None,
            0.0 if gamma is None else offsets[gamma],
            tuple(sites),
        )


def _is_bn(key: _Key, sites: Sequence[Site]) -> bool:
    if key.mean == key.variance and not key.affine:
        return False
    return any(
        site.normalization.fused
        or site.normalization.minus_scaled_mean
        or site.batch_means
        or site.gamma is not None
        or site.beta is not None
        for site in sites
    )
