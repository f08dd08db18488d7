"""Flax: linen train states and NNX models, saved by Orbax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import optax
import orbax.checkpoint as ocp
from flax import linen, nnx
from flax.training import train_state

from tests.trainings.running import BATCHES, pair, recording, run_mistaken, run_sample

FORGOTTEN = ('grads=grads, batch_stats=updates["batch_stats"])', "grads=grads)")
INFERENCE = ("train=True, mutable", "train=False, mutable")


class Net(linen.Module):
    @linen.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = linen.Dense(4)(x)
        x = linen.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return linen.Dense(1)(x)


class TrainState(train_state.TrainState):
    batch_stats: Any


def new_state() -> Any:
    variables = Net().init(jax.random.key(0), BATCHES[0][0], train=False)
    return TrainState.create(
        apply_fn=Net().apply,
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        tx=optax.sgd(1e-3),
    )


def save(path: Path, state: Any) -> str:
    checkpointer = ocp.StandardCheckpointer()
    checkpointer.save(path, state)
    checkpointer.wait_until_finished()
    return str(path)


def scope_of(state: Any) -> dict[str, Any]:
    return {"jax": jax, "state": state, "dataset": BATCHES}


def trained() -> Any:
    scope = scope_of(new_state())
    run_sample("flax-mutable", scope)
    return scope["state"]


def linen_training(folder: Path, right: bool, *changes: tuple[str, str]) -> dict[str, str]:
    scope = scope_of(new_state())
    if right:
        run_sample("flax-mutable", scope)
    else:
        run_mistaken("flax-mutable", scope, *changes)
    return {"path": save(folder / "30", scope["state"])}


def resumed(folder: Path, right: bool) -> dict[str, str]:
    state = trained()
    since = save(folder / "30", state)
    scope = scope_of(state)
    if right:
        run_sample("flax-mutable", scope)
    else:
        run_mistaken("flax-mutable", scope, FORGOTTEN)
    return {"path": save(folder / "60", scope["state"]), "since": since}


def saved(folder: Path, right: bool) -> dict[str, str]:
    scope = {
        "state": trained(),
        "checkpointer": ocp.StandardCheckpointer(),
        "path": folder / "model",
    }
    if right:
        run_sample("flax-save", scope)
    else:
        run_mistaken("flax-save", scope, (', "batch_stats": state.batch_stats', ""))
    return {"path": str(folder / "model")}


def reestimated(folder: Path, right: bool) -> dict[str, str]:
    """Training used batch statistics, and the averages of them were not kept."""
    scope = scope_of(new_state())
    run_mistaken("flax-mutable", scope, FORGOTTEN)
    if right:
        params = scope["state"].params
        run_sample("flax-reestimate", scope)
        assert scope["state"].params is params
    return {"path": save(folder / "30", scope["state"])}


class NnxNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.dense = nnx.Linear(4, 4, rngs=rngs)
        self.bn = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.head = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.head(self.bn(self.dense(x)))


def nnx_training(folder: Path, right: bool) -> dict[str, str]:
    model = NnxNet(nnx.Rngs(0))
    model.eval()  # as an evaluation before leaves it
    scope = {
        "nnx": nnx,
        "model": model,
        "optimizer": nnx.Optimizer(model, optax.sgd(1e-3), wrt=nnx.Param),
        "loss": lambda model, batch, targets: ((model(batch) - targets) ** 2).mean(),
        "dataset": BATCHES,
    }
    if right:
        run_sample("flax-nnx", scope)
    else:
        run_mistaken("flax-nnx", scope, ("model.train()", "model.eval()"))
    return {"path": save(folder / "model", nnx.state(model))}


with recording():
    pair("flax-mutable", lambda folder, right: linen_training(folder, right, FORGOTTEN))
    pair(
        "flax-mutable in inference mode",
        lambda folder, right: linen_training(folder, right, INFERENCE),
    )
    pair("flax-mutable resumed", resumed)
    pair("flax-reestimate", reestimated)
    pair("flax-nnx", nnx_training)
    pair("flax-save", saved)
