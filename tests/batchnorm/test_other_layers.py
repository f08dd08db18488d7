"""Which variables outside of all layers found by names let the graph be searched: no others may."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bninspect.batchnorm.find_layers import search_layers
from tests.conftest import Fixture, Outcome
from tests.support.layers_in_memory import checkpoint, variable

# A network of tf.layers: the shapes of its variables by name.
NETWORK = {
    "conv/kernel": (3, 3, 3, 4),
    "conv/bias": (4,),
    "bn/gamma": (4,),
    "bn/beta": (4,),
    "bn/moving_mean": (4,),
    "bn/moving_variance": (4,),
    "dense/kernel": (4, 2),
    "dense/bias": (2,),
    "global_step": (),
}
WEIGHTS = [shape for name, shape in NETWORK.items() if shape and "moving" not in name]


def may_lack_some(besides: dict[str, tuple[int, ...]]) -> bool:
    stored = {
        name: variable(name, np.zeros(shape, "f4")) for name, shape in (NETWORK | besides).items()
    }
    found = search_layers(checkpoint(stored))
    assert [layer.name for layer in found.layers] == ["bn"]
    return found.may_lack_some


def numbered(base: str, shapes: list[tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {base + (f"_{number}" if number else ""): shape for number, shape in enumerate(shapes)}


@pytest.mark.parametrize(
    "besides",
    [
        {},
        {f"{name}/Adam{one}": shape for name, shape in NETWORK.items() for one in ("", "_1")},
        {f"{name}/ExponentialMovingAverage": shape for name, shape in NETWORK.items() if shape},
        {f"adam/{slot}/bn/{leaf}": (4,) for slot in "mv" for leaf in ("gamma", "beta")},
        {"layer_norm/gamma": (4,), "layer_norm/beta": (4,)},
        numbered("sum", WEIGHTS),
        numbered("Variable", WEIGHTS),
        numbered("accumulated/gradient", WEIGHTS),
        {f"auc/{kind}": (200,) for kind in ("true_positives", "false_negatives")},
        {"codes/ema/_hidden": (6,), "codes/ema/average": (6,)},
    ],
    ids=[
        *("nothing", "slots", "weight averages", "slots below a scope", "layer normalization"),
        *("sums", "unnamed sums", "sums in a scope", "metrics", "averages of Sonnet 2"),
    ],
)
def test_nothing_else_leaves_it_open_whether_all_layers_were_found(besides):
    assert not may_lack_some(besides)


@pytest.mark.parametrize(
    "besides",
    [
        {"other/gamma": (4,), "other/beta": (4,)},
        {"other/mean": (4,), "other/variance": (4,)},
        {"adam/bn/moving_mean": (4,)},
        {"other/u": (4,), "other/v": (1, 1, 1, 4)},
        numbered("Variable", [(4,), (4,), (4,), (4,)]),
        # The network once more, without names: its statistics have no weights of their shapes.
        numbered("Variable", [shape for shape in NETWORK.values() if shape]),
        # Not all of the weights, so they are no sums of gradients.
        numbered("sum", WEIGHTS[1:]),
        {"sum": (4,), "add": (4,)},
    ],
    ids=[
        *("gamma and beta", "mean and variance", "a statistic below a scope", "two vectors"),
        *("four vectors", "an unnamed network", "some weights", "two names"),
    ],
)
def test_what_may_be_a_layer_leaves_it_open(besides):
    assert may_lack_some(besides)


def test_a_healthy_checkpoint_opens_no_graph(
    fixture: Fixture, run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless names find nothing.

    BN106 and BN108 ask it where the values of a short training are those of a broken one, too.
    """
    from bninspect.formats.tensorflow import graph_def

    opened = []
    read_graphs = graph_def.read_graphs
    monkeypatch.setattr(
        graph_def,
        "read_graphs",
        lambda *args, **kw: opened.append(args) or read_graphs(*args, **kw),
    )
    outcome = run(
        "check",
        fixture.path,
        "--ignore=BN106,BN108",
        "--format=json",
        *fixture.expected["options"],
    )
    (item,) = outcome.json["checkpoints"]
    is_healthy = item["layers"] and not fixture.expected["findings"]
    is_named = any(layer["family"] != "graph" for layer in item["layers"])
    assert not (is_healthy and is_named and opened)
