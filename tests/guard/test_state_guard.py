"""The guard for JAX, and `check_updated`, on states of linen, of NNX, and of plain arrays."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bninspect
from bninspect import UsageProblem
from bninspect.flax import BatchNormGuard, BatchNormWarning, check_updated
from bninspect.guard.train_state import find_leaves, state_checkpoint
from tests.conftest import ROOT

framework = [pytest.mark.framework, pytest.mark.xdist_group("guarded_flax")]
STEPS, EVERY = 8, 3
X = np.random.default_rng(1).normal(3.0, 2.0, (16, 4)).astype("float32")


def found(report: bninspect.Report) -> list[tuple[str, str, str]]:
    return [(f.layer, f.rule.code, f.severity) for f in report.findings]


# --- linen ----------------------------------------------------------------------------------------


def new_state(**options: Any) -> Any:
    """A TrainState of a backbone and a head, each with a BN layer."""
    import jax
    import optax
    from flax import linen
    from flax.training import train_state

    frozen = options.pop("frozen", False)

    class Part(linen.Module):
        inference: bool = False

        @linen.compact
        def __call__(self, x: Any, train: bool) -> Any:
            x = linen.Dense(4)(x)
            average = self.inference or not train
            return linen.BatchNorm(use_running_average=average, **{"momentum": 0.9, **options})(x)

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x: Any, train: bool) -> Any:
            x = Part(inference=frozen, name="backbone")(x, train)
            x = Part(name="head")(linen.relu(x), train)
            return linen.Dense(1)(x)

    class TrainState(train_state.TrainState):
        batch_stats: Any

    def label(params: Any) -> Any:
        return {name: "frozen" if frozen and name == "backbone" else "trained" for name in params}

    transforms = {"trained": optax.adam(1e-2), "frozen": optax.set_to_zero()}
    net = Net()
    variables = net.init(jax.random.key(0), X, train=False)
    if frozen:  # with statistics of a training before
        statistics = variables["batch_stats"]["backbone"]["BatchNorm_0"]
        statistics["mean"], statistics["var"] = statistics["mean"] + 0.5, statistics["var"] * 2.0
    return TrainState.create(
        apply_fn=net.apply, tx=optax.multi_transform(transforms, label), **variables
    )


def step(state: Any, *, keeps: bool = True, train: bool = True, mutable: bool = True) -> Any:
    import jax

    def loss(params: Any) -> Any:
        variables = {"params": params, "batch_stats": state.batch_stats}
        collections = ["batch_stats"] if mutable else False
        out = state.apply_fn(variables, X, train=train, mutable=collections)
        y, updates = out if mutable else (out, {})
        return ((y - 1.0) ** 2).mean(), updates

    gradients, updates = jax.grad(loss, has_aux=True)(state.params)
    statistics = updates.get("batch_stats") if keeps else None
    return state.apply_gradients(grads=gradients, batch_stats=statistics or state.batch_stats)


BOTH = ["backbone/BatchNorm_0", "head/BatchNorm_0"]
# what is wrong with each step
BROKEN = {
    "not carried over": {"keeps": False},
    "use_running_average=True": {"train": False},
    "mutable not given": {"train": False, "mutable": False},
}
FORMS = {
    "TrainState": lambda state: state,
    "variables": lambda state: {"params": state.params, "batch_stats": state.batch_stats},
    "batch_stats": lambda state: state.batch_stats,
    "FrozenDict": lambda state: _frozen({"params": state.params, "batch_stats": state.batch_stats}),
}
for_each_form = pytest.mark.parametrize("form", FORMS)


def _frozen(variables: Any) -> Any:
    from flax.core import freeze

    return freeze(variables)


class TestLinen:
    pytestmark = framework

    @for_each_form
    def test_a_step_that_updates_passes(self, form: str) -> None:
        state = new_state()
        report = check_updated(FORMS[form](state), FORMS[form](step(state)))
        assert report.ok, bninspect.explain(report)
        assert [layer.name for layer in report.checkpoints[0].layers] == BOTH

    @for_each_form
    @pytest.mark.parametrize("wrong", BROKEN)
    def test_a_step_that_updates_nothing_fails(self, form: str, wrong: str) -> None:
        state = new_state()
        report = check_updated(FORMS[form](state), FORMS[form](step(state, **BROKEN[wrong])))
        assert not report.ok
        assert found(report) == [(name, "BN101", "error") for name in BOTH]
        for finding in report.findings:
            assert finding.cause is None
            assert [one.cause for one in finding.possible_causes] == [
                "trained-in-inference-mode",
                "updates-not-kept",
            ]
        said = " ".join(bninspect.explain(report).split())
        assert said.startswith("FAIL the new state: 2 of 2 BN layers: moving_mean and")
        assert "cause cannot be told from the new state" in said
        assert "mutable=['batch_stats']" in said
        assert "more bninspect rule BN101 --for flax" in said

    @for_each_form
    def test_statistics_that_stopped_fail(self, form: str) -> None:
        state = step(step(new_state()))
        report = check_updated(FORMS[form](state), FORMS[form](step(state, keeps=False)))
        assert found(report) == [(name, "BN107", "error") for name in BOTH]
        assert "exactly what they were at the old state" in report.findings[0].message

    def test_linen_itself_refuses_a_training_step_without_mutable(self) -> None:
        from flax.errors import ModifyScopeVariableError

        with pytest.raises(ModifyScopeVariableError):
            step(new_state(), mutable=False)

    def test_a_frozen_backbone_is_no_finding(self) -> None:
        state = new_state(frozen=True)
        trained = step(state)
        report = check_updated(state, trained)
        assert report.ok
        assert found(report) == []
        # Without the parameters nothing shows that it is frozen.
        statistics = check_updated(state.batch_stats, trained.batch_stats)
        assert found(statistics) == [(BOTH[0], "BN107", "error")]

    def test_layers_without_scale_and_bias(self) -> None:
        state = new_state(use_scale=False, use_bias=False)
        assert check_updated(state, step(state)).ok
        report = check_updated(state, step(state, keeps=False))
        assert found(report) == [(name, "BN101", "error") for name in BOTH]

    def test_a_slow_decay_moves(self) -> None:
        state = new_state(momentum=0.9999)
        assert check_updated(state, step(state)).ok

    def test_select_and_ignore(self) -> None:
        state = new_state()
        broken = step(state, keeps=False)
        assert found(check_updated(state, broken, select="BN3")) == []
        report = check_updated(state, broken, ignore=["BN101"])
        assert {code for _, code, _ in found(report)} == {"BN107"}
        with pytest.raises(UsageProblem, match="check_updated judges BN101"):
            check_updated(state, broken, select="BN106")


def guarded(train_step: Any, state: Any, **options: Any) -> tuple[BatchNormGuard, list[str], int]:
    guard, ran = BatchNormGuard(every_n_steps=EVERY, **options), 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(1, STEPS + 1):
            state = train_step(state)
            ran += 1
            if guard.check(state, number):
                break
    own = [one for one in caught if one.category is BatchNormWarning]
    assert {one.filename for one in own} <= {__file__}
    return guard, [str(one.message) for one in own], ran


class TestGuard:
    pytestmark = framework

    def test_a_healthy_training_whose_states_are_donated(self) -> None:
        import jax

        guard, warned, ran = guarded(jax.jit(step, donate_argnums=0), new_state())
        assert (warned, guard.findings, ran) == ([], (), STEPS)
        assert [layer.name for layer in guard.layers] == BOTH
        assert bninspect.scalars(guard.layers)[f"{BOTH[0]}/moving_mean/at_initial"] == 0

    @pytest.mark.parametrize("wrong", BROKEN)
    def test_a_broken_training_is_warned_of_once(self, wrong: str) -> None:
        guard, (warned,), ran = guarded(lambda state: step(state, **BROKEN[wrong]), new_state())
        assert ran == STEPS
        assert warned.startswith("step 4: 2 of 2 BN layers: ")
        assert [finding.layer for finding in guard.findings] == BOTH
        assert "cannot be told from the states" in warned

    def test_an_error_stops_the_training(self) -> None:
        guard, (warned,), ran = guarded(
            lambda state: step(state, keeps=False), new_state(), action="stop"
        )
        assert ran == 4
        assert guard.should_stop
        assert warned.startswith("training is stopped at step 4: ")

    def test_a_frozen_backbone_is_not_warned_of(self) -> None:
        assert guarded(step, new_state(frozen=True))[1] == []

    def test_statistics_that_stopped(self) -> None:
        states = iter(range(STEPS))
        guard, (warned,), _ = guarded(
            lambda state: step(state, keeps=next(states) < EVERY), new_state()
        )
        assert {finding.rule.code for finding in guard.findings} == {"BN107"}
        assert "what they were at step 4" in " ".join(warned.split())

    def test_another_training_begins_at_an_earlier_step(self) -> None:
        guard, state = BatchNormGuard(every_n_steps=1), new_state()
        with warnings.catch_warnings():
            warnings.simplefilter("error", BatchNormWarning)
            for number in (1, 2, 3):
                state = step(state)
                guard.check(state, number)
            guard.check(new_state(), 0)
        assert guard.findings == ()


class TestNnx:
    pytestmark = framework

    def model(self) -> Any:
        from flax import nnx

        class Net(nnx.Module):
            def __init__(self, rngs: Any) -> None:
                self.dense = nnx.Linear(4, 4, rngs=rngs)
                self.bn = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
                self.dropout = nnx.Dropout(0.1, rngs=rngs)  # whose state has a random key
                self.head = nnx.Linear(4, 1, rngs=rngs)

            def __call__(self, x: Any) -> Any:
                return self.head(self.dropout(self.bn(self.dense(x))))

        return Net(nnx.Rngs(0))

    def step(self, model: Any) -> None:
        import jax
        from flax import nnx

        gradients = nnx.grad(lambda model: ((model(X) - 1.0) ** 2).mean())(model)
        parameters = nnx.state(model, nnx.Param)
        nnx.update(model, jax.tree.map(lambda p, g: p - 0.01 * g, parameters, gradients))

    @pytest.mark.parametrize("mode", ["train", "eval"])
    @pytest.mark.parametrize("part", ["all", "statistics"])
    def test_a_step_in_each_mode(self, mode: str, part: str) -> None:
        import jax
        import jax.numpy as jnp
        from flax import nnx

        model, filters = self.model(), (nnx.BatchStat,) if part == "statistics" else ()
        getattr(model, mode)()
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            old = jax.tree.map(jnp.copy, nnx.state(model, *filters))
            self.step(model)
            report = check_updated(old, nnx.state(model, *filters))
        expected = [] if mode == "train" else [("bn", "BN101", "error")]
        assert found(report) == expected
        assert report.ok == (mode == "train")

    def test_one_model_is_not_compared_with_itself(self) -> None:
        """Before Flax 0.12 a state of NNX is a copy; then it shares the variables of the model."""
        from flax import nnx

        model = self.model()
        old = nnx.state(model)
        self.step(model)
        new = nnx.state(model)
        if old["bn"]["mean"] is new["bn"]["mean"]:
            with pytest.raises(UsageProblem, match=r"jax\.tree\.map\(jnp\.copy"):
                check_updated(old, new)
        else:
            assert check_updated(old, new).ok

    def test_a_module_is_no_state(self) -> None:
        model = self.model()
        with pytest.raises(UsageProblem, match=r"nnx\.state\(model\), got Net"):
            check_updated(model, model)

    def test_the_guard_copies_what_it_reads(self) -> None:
        from flax import nnx

        model = self.model()
        guard = BatchNormGuard(every_n_steps=1)
        with warnings.catch_warnings():
            warnings.simplefilter("error", BatchNormWarning)
            for number in range(3):
                self.step(model)
                guard.check(nnx.state(model), number)
        model.eval()
        self.step(model)
        with pytest.warns(BatchNormWarning, match="BN107"):
            guard.check(nnx.state(model), 3)


# --- Plain arrays: no framework -------------------------------------------------------------------


def arrays(mean: float, var: float, scale: float = 1.0) -> dict[str, Any]:
    return {
        "params": {"bn": {"scale": np.array([scale, 1.0]), "bias": np.zeros(2)}},
        "batch_stats": {"bn": {"mean": np.full(2, float(mean)), "var": np.full(2, float(var))}},
    }


def test_arrays_of_numpy() -> None:
    assert check_updated(arrays(0, 1), arrays(0.1, 0.9, 1.1)).ok
    assert found(check_updated(arrays(0, 1), arrays(0, 1, 1.1))) == [("bn", "BN101", "error")]
    # Nothing shows that the layer takes part in the training.
    assert check_updated(arrays(0, 1), arrays(0, 1)).ok


def test_a_notebook_calls_no_state_a_file() -> None:
    html = bninspect.as_html(check_updated(arrays(0, 1), arrays(0, 1, 1.1)))
    assert "cannot be told from the new state" in html
    assert "this file" not in html


@pytest.mark.parametrize(
    ("new", "code"),
    [
        (arrays(0, 0.9, 1.1), "BN102"),
        (arrays(0.1, 1, 1.1), "BN103"),
        (arrays(np.nan, 0.9, 1.1), "BN301"),
        (arrays(0.1, -0.9, 1.1), "BN302"),
    ],
    ids=["BN102", "BN103", "BN301", "BN302"],
)
def test_other_faults(new: dict[str, Any], code: str) -> None:
    assert [rule for _, rule, _ in found(check_updated(arrays(0, 1), new))] == [code]


def test_a_state_without_bn_passes_no_test() -> None:
    state = {"params": {"dense": {"kernel": np.ones((2, 2))}}}
    report = check_updated(state, state)
    assert not report.ok
    assert bninspect.explain(report).startswith("NONE  the new state: no BN layer among 1 variable")
    with pytest.warns(BatchNormWarning, match="nothing is judged: no BN layer is among 1 variable"):
        BatchNormGuard().check(state, 1)


@pytest.mark.parametrize("state", [None, 3, "state", {}, {"step": 1}], ids=repr)
def test_what_holds_no_arrays_is_refused(state: Any) -> None:
    with pytest.raises(UsageProblem, match="expected a state with arrays"):
        check_updated(state, state)
    with pytest.raises(UsageProblem, match="expected a state with arrays"):
        BatchNormGuard().check(state, 1)


def test_states_of_two_models_are_refused() -> None:
    other = {name: {"other": part["bn"]} for name, part in arrays(0, 1).items()}
    with pytest.raises(UsageProblem, match="no BN layer in common"):
        check_updated(other, arrays(0.1, 0.9))


def test_a_layer_that_is_new_is_named() -> None:
    new = arrays(0.1, 0.9, 1.1)
    for part in new.values():
        part["added"] = part["bn"]
    (state,) = check_updated(arrays(0, 1), new).checkpoints
    assert state.notes == ("1 of 2 BN layers cannot be compared with the old state: added",)


def test_an_optimizer_is_no_layer() -> None:
    new = arrays(0.1, 0.9, 1.1)
    optimizer = {"opt_state": {"0": {"mu": new["params"], "nu": new["params"]}}}
    report = check_updated({**arrays(0, 1), **optimizer}, {**new, **optimizer})
    assert [layer.name for layer in report.checkpoints[0].layers] == ["bn"]


class Unread:
    """An array that must not be read."""

    shape, dtype = (2, 2), np.dtype("float32")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("it was read")


def test_arrays_of_bn_alone_are_read_and_when_it_is_due() -> None:
    new = arrays(0.1, 0.9, 1.1)
    others = {"dense": {"kernel": Unread(), "bias": Unread()}}
    states = [{**state, "others": others} for state in (arrays(0, 1), new)]
    assert check_updated(*states).ok
    guard = BatchNormGuard(every_n_steps=2)
    guard.check(states[0], 0)
    guard.check({"batch_stats": {"bn": {"mean": Unread(), "var": Unread()}}}, 1)
    guard.check(states[1], 2)
    assert [layer.name for layer in guard.layers] == ["bn"]


def test_wrong_options() -> None:
    with pytest.raises(UsageProblem, match="every_n_steps must be at least 1, not 0"):
        BatchNormGuard(every_n_steps=0)


@pytest.mark.processes
def test_needs_no_jax() -> None:
    program = "import sys, bninspect.flax; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not set(done.stdout.split()) & {"flax", "jax", "tensorflow", "keras", "h5py", "rich"}


# --- Any state ------------------------------------------------------------------------------------

leaves = st.sampled_from(
    [np.ones(2), np.float32(3.0), None, 1, "text", b"", object, np.dtype("i4")]
)
keys = st.sampled_from(
    ["params", "batch_stats", "bn", "mean", "var", "scale", "opt_state", "value"]
)
states = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.dictionaries(st.one_of(keys, st.integers(0, 2)), inner, max_size=4),
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
    ),
    max_leaves=12,
)


@given(states)
def test_any_state_is_read_or_refused(state: Any) -> None:
    try:
        checkpoint = state_checkpoint(state, "the state")
    except UsageProblem:
        assert list(find_leaves(state)) in ([], [((), state)])
        return
    stored = {**checkpoint.variables, **checkpoint.optimizer}
    assert len(stored) == len(dict(find_leaves(state)))
    for variable in stored.values():
        assert variable.read().shape == variable.shape
