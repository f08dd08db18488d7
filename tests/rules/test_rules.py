"""Every rule on layers in memory: fires, does not fire, and the value between the two."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bninspect.errors import UsageProblem
from bninspect.evidence.progress import Slots, read_step, training_evidence
from bninspect.model.layer import Change, Since
from bninspect.model.roles import ROLES
from bninspect.model.rule import SEVERITIES, RuleContext
from bninspect.rules import RULES, apply_rules, select_rules
from bninspect.rules.pages import page_of
from tests.conftest import load_fixture
from tests.support.layers_in_memory import (
    bn,
    checkpoint,
    codes,
    findings,
    keras_layer,
    only,
    unread,
    variable,
)

pytestmark = pytest.mark.filterwarnings("error")

MEAN = (0.25, -0.5, 3.0)
VARIANCE = (0.5, 2.0, 1.25)
GAMMA = (1.125, 0.875, 1.5)
BETA = (0.25, -0.125, 0.5)
STUCK = {"mean": 0.0, "variance": 1.0}
FROM_ZERO = {"moving_variance": (0.0,)}
HEALTHY = {"mean": MEAN, "variance": VARIANCE, "gamma": GAMMA, "beta": BETA}
NAN, INF = math.nan, math.inf
UNMOVED = dict.fromkeys(ROLES, Change(False, 0.0))


def after(value, towards=INF, dtype="float32"):
    """The next number of `dtype` behind `value`, as a Python float."""
    return float(np.nextafter(np.asarray(value, dtype), np.asarray(towards, dtype)))


def healthy(**members):
    return {**HEALTHY, **members}


def averages_of(mean=None, variance=None):
    """The fields of a layer whose statistics have averages of these values."""
    averages = bn(mean, variance)
    return {"shadows": averages.variables, "shadow_values": averages.values}


# --- The catalogue --------------------------------------------------------------------------------

CATALOGUE = {
    "BN101": ("statistics-never-updated", "error"),
    "BN102": ("mean-never-updated", "error"),
    "BN103": ("variance-never-updated", "error"),
    "BN104": ("channels-never-updated", "warning"),
    "BN105": ("layer-untouched", "warning"),
    "BN106": ("statistics-cold", "warning"),
    "BN107": ("statistics-frozen", "error"),
    "BN108": ("statistics-optimized", "error"),
    "BN109": ("batches-of-one-value", "error"),
    "BN110": ("shadows-never-updated", "warning"),
    "BN201": ("statistics-missing", "error"),
    "BN202": ("statistics-half-missing", "error"),
    "BN203": ("shape-mismatch", "error"),
    "BN204": ("statistics-not-written", "error"),
    "BN301": ("not-finite", "error"),
    "BN302": ("negative-variance", "error"),
    "BN303": ("dead-channels", "note"),
    "BN304": ("exploding-variance", "warning"),
    "BN305": ("half-precision-statistics", "warning"),
}


def test_codes_names_and_severities_are_those_promised():
    assert {rule.code: (rule.name, rule.severity) for rule in RULES} == CATALOGUE


def test_codes_and_names_are_unique_and_in_order():
    assert [rule.code for rule in RULES] == sorted({rule.code for rule in RULES})
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_the_page_of_a_rule_is_complete(rule):
    assert re.fullmatch(r"BN\d{3}", rule.code)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.name)
    assert rule.severity in SEVERITIES
    assert rule.summary.strip()
    assert not rule.summary.endswith(".")
    page = page_of(rule)
    for text in (page.meaning, page.why):
        assert len(text) > 40
        assert text.endswith(".")
    assert page.causes
    for text in (*page.causes, *(fix.where for fix in page.fixes)):
        assert text.strip()


# --- Choosing rules -------------------------------------------------------------------------------


def chosen(select=(), ignore=()):
    return [rule.code for rule in select_rules(select, ignore)]


def test_no_choice_is_every_rule():
    assert chosen() == list(CATALOGUE)


BN104_TO_BN110 = [code for code in CATALOGUE if "BN104" <= code <= "BN110" and code != "BN105"]


@pytest.mark.parametrize(
    ("select", "ignore", "expected"),
    [
        (["BN101"], [], ["BN101"]),
        (["bn101"], [], ["BN101"]),
        (["BN2"], [], ["BN201", "BN202", "BN203", "BN204"]),
        (["BN302", "BN20", "BN302"], [], ["BN201", "BN202", "BN203", "BN204", "BN302"]),
        (["BN1"], ["BN10"], ["BN110"]),
        (["BN1"], ["BN101", "bn105", "BN103"], ["BN102", *BN104_TO_BN110]),
        (["BN101"], ["BN3"], ["BN101"]),
        ([], ["BN1", "BN3"], ["BN201", "BN202", "BN203", "BN204"]),
        ([], ["B"], []),
    ],
)
def test_codes_may_be_cut_short(select, ignore, expected):
    assert chosen(select, ignore) == expected


@pytest.mark.parametrize("option", ["select", "ignore"])
@pytest.mark.parametrize("code", ["BN1080", "BN1011", "BN4", "N101", "", " BN101", "BN101,BN102"])
def test_an_unknown_code_is_a_usage_problem(code, option):
    with pytest.raises(UsageProblem, match=re.escape(repr(code))):
        chosen(**{option: ["BN101", code]})


@pytest.mark.parametrize(
    ("code", "nearest"),
    [
        ("BN1O1", "BN101"),
        ("bn3o4", "BN304"),
        ("dead-chanels", "BN303"),
        ("Statistics-Cold", "BN106"),
    ],
)
def test_a_mistyped_code_is_told_the_nearest(code, nearest):
    with pytest.raises(UsageProblem, match=f"Did you mean {nearest}"):
        chosen([code])


def test_a_code_like_none_is_told_no_nearest():
    with pytest.raises(UsageProblem) as caught:
        chosen(["~~~~"])
    assert "Did you mean" not in str(caught.value)


# --- Applying rules -------------------------------------------------------------------------------


def test_findings_come_layer_by_layer_in_the_order_of_the_rules():
    layers = [
        bn(name="z", mean=(NAN, 0.5, 1.0), variance=(-1.0, 1.0, 2.0)),
        bn(name="a", **HEALTHY),
        bn(name="b", gamma=GAMMA, beta=BETA),
        bn(name="a", **STUCK),
    ]
    found = apply_rules(layers, RULES, RuleContext())
    assert [(finding.layer, finding.rule.code) for finding in found] == [
        ("z", "BN301"),
        ("z", "BN302"),
        ("b", "BN201"),
        ("a", "BN101"),
    ]


def test_only_the_rules_given_are_applied():
    broken = {"mean": (NAN, 0.5, 1.0), "variance": (-1.0, 1.0, 2.0)}
    assert codes(rules=select_rules(["BN302"], []), **broken) == ["BN302"]
    assert codes(rules=(), **broken) == []


FIRING = {
    "BN101": STUCK,
    "BN102": {"mean": 0.0, "variance": VARIANCE},
    "BN103": {"mean": MEAN, "variance": 1.0},
    "BN104": {"mean": (0.0, 0.5, 1.0), "variance": (1.0, 0.5, 2.0)},
    "BN105": {**STUCK, "gamma": 1.0},
    "BN106": {**HEALTHY, "variance": 1.25, "momentum": 0.99, "step": 10},
    "BN107": {**HEALTHY, "since": Since("step 1", {**UNMOVED, "gamma": Change(True, 0.5)})},
    "BN108": {
        "mean": 0.0,
        "variance": 0.97,
        "may_be_optimized": True,
        "others": {"bn/moving_variance/Momentum": (-0.1, -0.1, -0.1)},
    },
    "BN109": {**HEALTHY, "variance": 0.25, "momentum": 0.5},
    "BN201": {"gamma": GAMMA},
    "BN110": {**HEALTHY, **averages_of(0.0, 1.0)},
    "BN202": {"mean": MEAN, "gamma": GAMMA},
    "BN203": {**HEALTHY, "gamma": (1.5, 2.0)},
    "BN204": {**HEALTHY, "unwritten": ("moving_mean",)},
    "BN301": {**HEALTHY, "beta": (NAN, 1.0, 2.0)},
    "BN302": {**HEALTHY, "variance": (-0.5, 0.5, 2.0)},
    "BN303": {**HEALTHY, "mean": (0.0, 0.5, 2.0), "variance": (0.0, 0.5, 2.0)},
    "BN304": {**HEALTHY, "variance": (1e12, 0.5, 2.0)},
    "BN305": {**HEALTHY, "dtype": "bfloat16"},
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_each_rule_fires_with_its_severity_and_a_way_to_fix_it(rule):
    finding = only(rule.code, **FIRING[rule.code])
    assert finding.rule is rule
    assert finding.severity == rule.severity
    assert finding.layer == "bn"
    assert finding.message.strip()
    assert "None" not in finding.message
    assert finding.fix.endswith(".")
    assert isinstance(finding.evidence, tuple)


# --- BN101: statistics never updated --------------------------------------------------------------


def test_stuck_is_told_with_its_values_and_channels():
    finding = only("BN101", **STUCK, step=200)
    assert finding.message == (
        "moving_mean is still 0 and moving_variance still 1 in all 3 channels"
    )
    assert finding.cause is None
    assert only("BN101", mean=[0.0], variance=[1.0]).message.endswith("in its only channel")


@pytest.mark.parametrize(
    ("layer", "evidence"),
    [
        ({"step": 200}, ["the stored step is 200"]),
        ({"step": 1}, ["the stored step is 1"]),
        ({"gamma": GAMMA}, ["gamma moved away from 1"]),
        ({"beta": BETA}, ["beta moved away from 0"]),
        ({"gamma": (1.0, 1.0, after(1.0)), "beta": 0.0}, ["gamma moved away from 1"]),
        ({"gamma": 1.0, "beta": (0.0, 1e-38, 0.0), "step": 0}, ["beta moved away from 0"]),
        (
            {"gamma": GAMMA, "beta": BETA, "step": 7},
            ["the stored step is 7", "gamma moved away from 1", "beta moved away from 0"],
        ),
        (
            {"gamma": GAMMA, "initial": {"gamma": (0.0,)}, "family": "lingvo"},
            ["gamma moved away from 0"],
        ),
    ],
)
def test_stuck_with_evidence_of_training(layer, evidence):
    assert list(only("BN101", **STUCK, **layer).evidence) == evidence


def test_stuck_where_nothing_could_show_training():
    nothing = ("nothing stored could show training: whether the layer was trained is not known",)
    assert only("BN101", **STUCK).evidence == nothing
    # A random gamma cannot show anything either.
    tflearn = only("BN101", **STUCK, gamma=GAMMA, initial={"gamma": ()})
    assert tflearn.evidence == nothing


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_stuck_in_any_type(dtype):
    assert "BN101" in codes(**STUCK, gamma=GAMMA, dtype=dtype)


NEARLY_0 = [1e-7, -1e-7, 1e-38, after(0.0)]
NEARLY_1 = [after(1.0), after(1.0, 0.0), 1.0000035, 0.9999]


@pytest.mark.parametrize("value", NEARLY_0)
def test_a_mean_near_the_initial_value_is_not_at_it(value):
    assert codes(mean=(0.0, 0.0, value), variance=(1.0, 1.0, 2.0), step=5) == ["BN104"]
    assert codes(mean=value, variance=1.0, step=5) == ["BN103"]
    assert codes(mean=value, variance=VARIANCE, step=5) == []


@pytest.mark.parametrize("value", NEARLY_1)
def test_a_variance_near_the_initial_value_is_not_at_it(value):
    assert codes(mean=MEAN, variance=(1.0, value, 1.0), step=5) == []
    assert codes(mean=MEAN, variance=value, step=5) == []
    # A mean of 0 everywhere with one variance that moved by one bit is no stuck layer.
    assert "BN101" not in codes(mean=0.0, variance=(1.0, value, 1.0), step=5)


def test_the_smallest_float64_numbers_are_not_0():
    assert codes(mean=1e-300, variance=VARIANCE, dtype="float64", step=5) == []
    assert codes(mean=1e-300, variance=1.0, dtype="float64", step=5) == ["BN103"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_minus_zero_is_the_initial_0(dtype):
    for mean in (-0.0, (0.0, -0.0, 0.0)):
        finding = findings(mean=mean, variance=1.0, gamma=GAMMA, step=5, dtype=dtype)[0]
        assert finding.rule.code == "BN101"
        assert finding.message.startswith("moving_mean is still 0 and moving_variance still 1 in")
    assert "BN102" in codes(mean=-0.0, variance=VARIANCE, step=5, dtype=dtype)
    assert "BN105" in codes(mean=0.0, variance=1.0, gamma=1.0, beta=-0.0, dtype=dtype)


def test_initial_values_of_the_stored_config_count():
    initial = {"moving_mean": (0.25,), "moving_variance": (4.0,)}
    finding = only("BN101", mean=0.25, variance=4.0, step=5, initial=initial)
    assert finding.message.startswith("moving_mean is still 0.25 and moving_variance still 4 in")
    assert codes(mean=0.0, variance=1.0, step=5, initial=initial) == []


def test_random_initial_values_prove_nothing():
    assert codes(**STUCK, step=5, initial={"moving_mean": ()}) == []
    assert codes(**STUCK, step=5, initial={"moving_variance": ()}) == []


def test_either_of_two_possible_initial_variances_counts():
    pop_var = {"moving_variance": (1.0, 0.0)}
    assert only("BN101", mean=0.0, variance=0.0, step=5, initial=pop_var).message.startswith(
        "moving_mean is still 0 and moving_variance still 0 in"
    )
    assert codes(mean=0.0, variance=1.0, step=5, initial=pop_var) == ["BN101"]
    # … but all channels must have started alike.
    assert "BN101" not in codes(mean=0.0, variance=(1.0, 0.0, 0.0), step=5, initial=pop_var)


def test_the_config_proves_batch_statistics_mode():
    for mode in (1, 2):
        finding = only("BN101", **STUCK, gamma=GAMMA, keras=keras_layer(mode=mode))
        assert finding.cause == "batch-statistics-mode"
        assert finding.severity == "note"  # by design, so no defect of the training
        assert finding.evidence[0] == f"the stored configuration says mode={mode}"
        assert "mode=0" in finding.fix
    for mode in (0, 3, None, "1", [1]):
        finding = only("BN101", **STUCK, gamma=GAMMA, keras=keras_layer(mode=mode))
        assert (finding.cause, finding.severity) == (None, "error")


def test_a_layer_whose_averages_moved_may_have_any_mode():
    for mode in (0, 1, 2):
        assert codes(**HEALTHY, keras=keras_layer(mode=mode)) == []


def test_accumulators_that_wait_to_be_filled_are_a_note():
    waiting = {"mean": 0.0, "variance": 0.0, "initial": FROM_ZERO, "family": "compare_gan"}
    finding = only("BN101", **waiting, gamma=GAMMA, step=5)
    assert (finding.severity, finding.cause) == ("note", None)
    assert "filled before evaluation" in finding.evidence[0]
    assert "update_accus" in finding.fix
    averages = {**waiting, "family": "moments-ema"}
    assert only("BN101", **averages, gamma=GAMMA, step=5).severity == "error"
    assert codes(mean=MEAN, variance=VARIANCE, initial=FROM_ZERO, family="compare_gan") == []


def test_the_config_proves_training_false():
    finding = only("BN101", **STUCK, gamma=GAMMA, keras=keras_layer(inference_only=True))
    assert finding.cause == "built-with-training-false"
    assert finding.evidence[0] == "the stored model calls the layer with training=False"
    assert "training=False" in finding.fix
    finding = only("BN101", **STUCK, gamma=GAMMA, keras=keras_layer(inference_only=False))
    assert finding.cause is None


def test_a_step_says_nothing_of_a_frozen_layer():
    frozen = keras_layer(trainable=False)
    assert codes(**STUCK, gamma=1.0, step=200, keras=frozen) == ["BN105"]
    assert codes(**STUCK, gamma=1.0, step=200, keras=keras_layer()) == ["BN101"]
    assert only("BN101", **STUCK, gamma=GAMMA, step=200, keras=frozen).evidence == (
        "gamma moved away from 1",
    )


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("tf.layers", "UPDATE_OPS"),
        ("slim", "create_train_op"),
        ("keras", "model.fit"),
        ("keras-1", "mode=0"),
        ("tflearn", "tflearn.is_training"),
        ("tensorpack", "RunUpdateOps"),
        ("sonnet-1", "is_training=True"),
        ("hand-written", "assign ops"),
        ("moments-ema", "ema.apply"),
        ("sonnet-2", "is_training=True"),
        ("darkflow", "placeholder True"),
        ("lingvo", "assign ops"),
    ],
)
def test_the_fix_speaks_the_language_of_the_family(family, words):
    assert words in only("BN101", **STUCK, family=family).fix


# --- The evidence of training ---------------------------------------------------------------------


def evidence(step=None, others=(), **members):
    layer = bn(**{**STUCK, **members}, step=step, others=others)
    return list(layer.training.facts), layer.training.testable


@pytest.mark.parametrize(
    ("layer", "testable"),
    [
        ({}, False),
        ({"step": 0}, True),
        ({"gamma": 1.0}, True),
        ({"beta": 0.0}, True),
        ({"gamma": 1.0, "beta": 0.0, "step": 0}, True),
        # Other constants are how other initializers look: zeros for the last gamma of a block …
        ({"gamma": 0.0}, True),
        ({"gamma": 0.0, "step": 0}, True),
        ({"gamma": 0.5}, True),
        ({"beta": 0.5}, True),
        # … in one channel a 0 too, but nobody starts from another number.
        ({"gamma": [0.0]}, True),
        ({"gamma": [-0.0]}, True),
        ({"gamma": [1.0]}, True),
        ({"gamma": GAMMA, "initial": {"gamma": ()}}, False),
    ],
)
def test_no_evidence(layer, testable):
    assert evidence(**layer) == ([], testable)


@pytest.mark.parametrize(
    ("layer", "facts"),
    [
        ({"gamma": [0.5]}, ["gamma moved away from 1"]),
        ({"beta": [0.5]}, ["beta moved away from 0"]),
        ({"gamma": (0.0, 0.0, 0.5)}, ["gamma moved away from 1"]),
        ({"gamma": (1.0, 1.0, after(1.0))}, ["gamma moved away from 1"]),
        ({"gamma": (0.5, 0.5, NAN)}, ["gamma moved away from 1"]),
        ({"step": 1}, ["the stored step is 1"]),
    ],
)
def test_evidence(layer, facts):
    assert evidence(**layer) == (facts, True)


SLOTS = {
    "Momentum": 0.0,
    "Adam": 0.0,
    "Adam_1": 0.0,
    "RMSProp": 1.0,
    "RMSProp_1": 0.0,
    "Adadelta": 0.0,
    "Adadelta_1": 0.0,
    "Ftrl_1": 0.0,
}


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("role", ["gamma", "beta"])
def test_a_slot_that_moved_is_evidence(slot, role):
    at_start = np.full(3, SLOTS[slot], "float32")
    moved = at_start.copy()
    moved[1] = after(SLOTS[slot])
    name = f"bn/{role}/{slot}"
    member = {role: {"gamma": 1.0, "beta": 0.0}[role]}
    assert evidence(others={name: at_start}, **member) == ([], True)
    assert evidence(others={name: moved}, **member) == (
        [f"an optimizer slot of {name.split('/')[1]} moved"],
        True,
    )


def test_a_slot_makes_a_layer_testable_whose_gamma_is_random():
    layer = {"gamma": GAMMA, "initial": {"gamma": ()}}
    zeros = np.zeros(3, "float32")
    assert evidence(others={"bn/gamma/Adam": zeros}, **layer) == ([], True)
    assert codes(**STUCK, **layer, others={"bn/gamma/Adam": zeros}) == ["BN105"]
    assert codes(**STUCK, **layer, others={"bn/gamma/Adam": zeros + 1}) == ["BN101"]


def test_variables_that_are_no_slots_of_the_layer_are_no_evidence():
    moved = np.ones(3, "float32")
    others = {
        "gamma/Momentum": moved,
        "other/gamma/Momentum": moved,
        "bn/moving_mean/Momentum": moved,
        "bn/gamma/ExponentialMovingAverage": moved,
        "bn/gamma/Adagrad": moved,  # starts where the user chose
        "bn/gamma/Ftrl": moved,
    }
    assert evidence(others=others, gamma=1.0) == ([], True)


def test_slots_are_not_read_where_the_step_tells_and_the_member_is_initial():
    layer = bn(**STUCK, gamma=1.0)
    slots = {"bn/gamma/Adam": unread("bn/gamma/Adam")}
    assert training_evidence(layer, Slots(slots), 7).facts == ("the stored step is 7",)


@pytest.mark.parametrize("step", [0, 7])
def test_a_gamma_whose_slots_never_moved_is_no_evidence(step):
    layer = bn(**STUCK, gamma=GAMMA)
    slots = {"bn/gamma/Adam": variable("bn/gamma/Adam", np.zeros(3, "float32"))}
    result = training_evidence(layer, Slots(slots), step)
    assert result.facts == (("the stored step is 7",) if step else ())
    assert (result.testable, result.unmoved) == (True, ("gamma",))


@pytest.mark.parametrize(
    ("slot", "values", "expected"),
    [
        ("moving_variance/Adam", 0.5, ("moving_variance",)),
        ("moving_variance/Momentum", 0.0, ()),
        ("moving_variance/RMSProp", 0.5, ()),  # shrinks without a gradient
        ("moving_mean/RMSProp_1", 0.5, ("moving_mean",)),
    ],
)
def test_slots_of_a_statistic_show_that_an_optimizer_wrote_it(slot, values, expected):
    slots = {f"bn/{slot}": variable(f"bn/{slot}", np.full(3, values, "float32"))}
    assert training_evidence(bn(**HEALTHY), Slots(slots), 7).optimized == expected


def test_slots_of_a_layer_without_gamma_and_beta_are_not_looked_for():
    slots = {"bn/moving_mean/Adam": variable("bn/moving_mean/Adam", np.ones(3, "float32"))}
    result = training_evidence(bn(**STUCK), Slots(slots), None)
    assert (result.facts, result.testable) == ((), False)


# --- The stored step ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "optimizer", "step"),
    [
        ({}, {}, None),
        ({"global_step": np.int64(0)}, {}, 0),
        ({"global_step": np.int64(200)}, {}, 200),
        ({"global_step": np.int32(200), "iteration": np.int64(7)}, {"iter": np.int64(9)}, 200),
        ({"Global_Step": np.float32(200)}, {}, 200),
        ({"train/global_step": np.int64(200)}, {}, 200),
        # the outermost scope decides, and where there are several in it, the largest
        ({"agent/global_step": np.int64(900), "global_step": np.int64(200)}, {}, 200),
        ({"a/global_step": np.int64(5), "longer/global_step": np.int64(200)}, {}, 200),
        # the optimizer's count
        ({}, {"optimizer_weights/Adam/iter:0": np.int64(37)}, 37),
        ({}, {"optimizer_weights/adam/iteration": np.int64(37)}, 37),
        ({"sgd/iterations": np.int64(5)}, {"adam/iter:0": np.int64(37)}, 37),
        # names like it, and values that count nothing
        ({"global_step_1": np.int64(5), "my_global_step": np.int64(5)}, {}, None),
        ({"writer": np.int64(5), "iterator/state": np.int64(5), "niter": np.int64(5)}, {}, None),
        ({"global_step": np.zeros(1, "int64")}, {}, None),
        ({"global_step": np.float32(1.5)}, {}, None),
        ({"global_step": np.int64(-1)}, {}, None),
        ({"global_step": np.float32(NAN)}, {}, None),
        ({"global_step": np.bool_(True)}, {}, None),
        ({"global_step": np.float32(-3.0)}, {"iter": np.int64(4)}, 4),
    ],
)
def test_the_step(variables, optimizer, step):
    assert read_step(checkpoint(variables, optimizer=optimizer)) == step


@pytest.mark.parametrize(
    ("values", "step"), [([200, 200], 200), ([200], 200), ([200, 100], None), ([], None)]
)
def test_the_step_of_a_replicated_state_is_that_of_each_device(values, step):
    stored = {"step": np.array(values, "int32")}
    assert read_step(replace(checkpoint(stored), named_by="tree")) == step
    assert read_step(replace(checkpoint(stored), named_by="object")) is None


def test_variables_that_are_no_step_are_not_read_for_it():
    names = ["filter", "iterative/kernel", "bn/gamma", "global_step/Adam"]
    assert read_step(checkpoint(names)) is None


# --- BN102: the mean alone ------------------------------------------------------------------------


def test_a_mean_that_never_moved():
    finding = only("BN102", mean=0.0, variance=VARIANCE, gamma=GAMMA, step=5)
    assert finding.message == (
        "moving_mean is still 0 in all 3 channels, while moving_variance moved (0.5 to 2)"
    )
    assert finding.evidence == ("moving_variance moved in 3 of 3 channels",)
    assert finding.cause is None
    finding = only("BN102", mean=0.0, variance=(1.0, 2.0, 1.0))
    assert finding.evidence == ("moving_variance moved in 1 of 3 channels",)


def test_a_mean_at_another_initial_value():
    finding = only("BN102", mean=0.5, variance=VARIANCE, initial={"moving_mean": (0.5,)})
    assert finding.message.startswith("moving_mean is still 0.5 in")


@pytest.mark.parametrize(
    "variance",
    [
        (0.0, 7e-44, 1e-36),  # collapsed
        (0.6050061, 0.6050061, 0.6050061),  # decayed alike
        (0.6050061, 0.6050061, 1e-20),
        (1e-20, 1.0, 1.0),  # the others did not move: all that moved is dead
    ],
)
def test_dead_channels_are_no_stuck_mean(variance):
    assert codes(mean=0.0, variance=variance, gamma=1.0) == ["BN303"]


# --- What contradicts that a whole layer is dead --------------------------------------------------

ZEROED = {"mean": 0.0, "variance": 0.0}


@pytest.mark.parametrize(
    ("layer", "fact"),
    [
        ({**ZEROED, "gamma": GAMMA}, "gamma moved"),
        ({**ZEROED, "gamma": GAMMA, "step": 56}, "gamma moved"),
        ({"mean": 0.0, "variance": 0.9747, "gamma": GAMMA}, "gamma moved"),
        (
            {**ZEROED, "momentum": 0.9, "step": 56},
            "56 updates with momentum 0.9 leave a variance of 0.002739",
        ),
        ({**ZEROED, "step": 0}, "the stored step is 0"),
        ({**ZEROED, "step": 120}, "120 updates with a momentum of 0.5 or more leave more than 0"),
        ({"mean": 0.0, "variance": 0.9747, "momentum": 0.9}, "0.9747 is not 0.9^n for any number"),
        ({"mean": 0.0, "variance": 0.5, "momentum": 1.0}, "0.5 is not 1^n"),
    ],
)
def test_a_layer_is_not_dead_if_gamma_step_or_momentum_contradict_it(layer, fact):
    finding = only("BN102", **layer)
    assert finding.severity == "error"
    assert any(one.startswith(fact) for one in finding.evidence)


def test_statistics_that_were_set_to_0_are_called_so():
    finding = only("BN102", **ZEROED, gamma=GAMMA, step=56, momentum=0.9)
    assert finding.message.startswith("moving_mean and moving_variance are exactly 0 in all 3")
    assert "Load the statistics again" in finding.fix
    assert (finding.cause, len(finding.evidence)) == (None, 2)


@pytest.mark.parametrize(
    "layer",
    [
        {"variance": 0.9**40, "momentum": 0.9, "step": 40},
        {"variance": 0.9**30, "momentum": 0.9, "step": 40},  # not updated in every step
        {"variance": 0.9**90, "momentum": 0.9, "step": 40},  # trained before
        {"variance": 0.9997**5000, "momentum": 0.9997, "step": 5000},
        {"variance": 0.97, "momentum": 0.99999},  # too near to 1 to tell the powers apart
        {"variance": 0.0, "momentum": 0.9, "step": 1000},
        {"variance": 0.0, "momentum": 0.0, "step": 3},
        {"variance": 0.0, "step": 130},  # no momentum to tell
        {"variance": 0.0, "momentum": 0.9},  # no step
        {"variance": 2.0**-126, "momentum": 0.9, "step": 56},  # decayed in an earlier training
        {"variance": 1e-20, "gamma": 0.5},  # weight decay goes on without gradients
        {"variance": 1e-20, "gamma": GAMMA, "initial": {"gamma": ()}},
        {"variance": 1e-20, "gamma": GAMMA, "others": {"bn/gamma/Adam": np.zeros(3, "float32")}},
        {"variance": 0.0, "gamma": GAMMA, "momentum": 0.9, "step": 1000},  # died later
        {"variance": 0.0, "gamma": GAMMA, "momentum": 0.9, "step": 850},
        {"variance": (7e-44, 0.0, 1e-36), "gamma": GAMMA},  # decayed, so it died later
        {"variance": 0.9747, "momentum": 0.9, "dtype": "float16"},
    ],
    ids=str,
)
def test_a_layer_is_dead_if_nothing_contradicts_it(layer):
    with np.errstate(under="ignore"):
        assert "BN102" not in codes(**{"mean": 0.0, "gamma": 1.0, **layer})
        assert "BN303" in codes(**{"mean": 0.0, "gamma": 1.0, **layer})


def test_a_layer_with_a_live_channel_may_have_dead_ones_whatever_gamma_did():
    partial = {"mean": (0.0, 0.0, 0.5), "variance": (0.0, 0.0, 0.5), "gamma": GAMMA}
    assert codes(**partial, step=56) == ["BN303"]
    assert codes(**partial, step=200, momentum=0.9) == ["BN303"]


def test_another_layer_may_show_that_the_step_was_counted_anew():
    def found(variance):
        zeroed = bn(**ZEROED, name="dead", momentum=0.9, step=56)
        other = bn(mean=MEAN, variance=variance, name="other", momentum=0.9, step=56)
        found = apply_rules([zeroed, other], RULES, RuleContext(56))
        return [(one.layer, one.rule.code) for one in found]

    assert found((1e-5, 0.5, 2.0)) == [("dead", "BN303")]
    assert found((0.5, 0.5, 2.0)) == [("dead", "BN102")]


@pytest.mark.parametrize(
    ("layer", "word", "fix"),
    [
        ({"variance": (0.0, 0.5, 2.0)}, "look", "Nothing to do about the statistics if the input"),
        ({"variance": (0.0, 0.5, 2.0), "momentum": 0.9, "step": 999}, "are", "they are right"),
        ({"variance": (0.0, 0.5, 2.0), "momentum": 0.9, "step": 99}, "look", "if the input"),
        ({"variance": (0.9**99, 0.5, 2.0), "momentum": 0.9, "step": 99}, "are", "they are right"),
    ],
)
def test_statistics_are_called_right_where_momentum_and_step_say_so(layer, word, fix):
    finding = only("BN303", mean=(0.0, 0.5, 2.0), **layer)
    assert f"channels {word} dead" in finding.message
    assert fix in finding.fix


@pytest.mark.parametrize(
    "variance",
    [
        (1e-20, 2.0, 0.5),
        (0.6050061, 0.6050061, 2.0),
        (1e-20, 1e-20, 0.5),
    ],
)
def test_a_stuck_mean_with_some_dead_channels(variance):
    assert codes(mean=0.0, variance=variance) == ["BN102", "BN303"]


def test_dead_channels_may_have_a_mean_of_minus_zero():
    assert codes(mean=-0.0, variance=(0.5, 0.5, 0.5)) == codes(mean=0.0, variance=(0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("variance", "expected"),
    [
        (0.5, []),  # may be a dead channel that has not decayed yet
        (after(1.0, 0.0), []),
        (after(1.0), ["BN102"]),
        (1.5, ["BN102"]),
        (0.0, ["BN303"]),
        (after(0.0, -1.0), ["BN102", "BN302"]),
        (NAN, ["BN102", "BN301"]),
    ],
)
def test_the_mean_of_a_single_channel(variance, expected):
    assert codes(mean=[0.0], variance=[variance]) == expected


def test_the_mean_of_a_single_channel_whose_variance_started_elsewhere():
    initial = {"moving_variance": (0.5,)}
    assert codes(mean=[0.0], variance=[1.0], initial=initial) == ["BN102"]
    assert codes(mean=[0.0], variance=[0.75], initial=initial) == []


def test_a_stuck_mean_with_a_decay_that_the_momentum_explains():
    layer = {"mean": 0.0, "variance": (0.5, 1.0, 1.0)}
    assert codes(**layer, step=1) == ["BN102"]
    assert codes(**layer, step=1, momentum=0.5) == ["BN303"]
    assert codes(**layer, step=2, momentum=0.5) == ["BN102"]


# --- BN103: the variance alone --------------------------------------------------------------------


def test_a_variance_that_never_moved():
    finding = only("BN103", mean=MEAN, variance=1.0, gamma=GAMMA, step=5)
    assert finding.message == (
        "moving_variance is still 1 in all 3 channels, while moving_mean moved"
    )
    assert finding.evidence == ("moving_mean moved (-0.5 to 3)",)
    assert finding.cause is None


@pytest.mark.parametrize("mean", [(0.0, 0.0, 1e-38), (NAN, 0.0, 0.0)])
def test_one_mean_that_moved_is_enough(mean):
    assert [code for code in codes(mean=mean, variance=1.0) if code < "BN2"] == ["BN103"]


@pytest.mark.parametrize(
    ("dtype", "momentum", "cause"),
    [
        ("bfloat16", 0.99, None),
        ("bfloat16", 1 - 2.0**-9, None),
        ("bfloat16", 1 - 2.0**-10, "half-precision"),
        ("bfloat16", 0.999, "half-precision"),
        ("bfloat16", None, None),
        ("float16", 0.999, None),
        ("float16", 1 - 2.0**-12, None),
        ("float16", 1 - 2.0**-13, "half-precision"),
        ("float16", 0.9999, "half-precision"),
        ("float16", None, None),
        ("float32", 0.9999, None),
        ("float64", 0.9999, None),
    ],
)
def test_half_precision_explains_a_stuck_variance(dtype, momentum, cause):
    found = findings(mean=MEAN, variance=1.0, dtype=dtype, momentum=momentum)
    stuck = found[0]
    assert stuck.rule.code == "BN103"
    assert stuck.cause == cause
    assert len(stuck.evidence) == (2 if cause else 1)
    assert ("float32" in stuck.fix) == dtype.endswith("float16")
    assert [finding.rule.code for finding in found[1:]] == (
        ["BN305"] if dtype.endswith("float16") else []
    )


def test_the_numbers_that_explain_a_stuck_variance():
    stuck = findings(mean=MEAN, variance=1.0, dtype="bfloat16", momentum=0.999)[0]
    assert stuck.evidence[1] == (
        "one update by a variance of 0 to 2 changes it by at most 0.001, half a step of bfloat16"
        " below 1 is 0.00195312"
    )


def test_half_precision_explains_no_variance_stuck_at_0():
    # Near 0 a half-precision number has fine steps, so an update would have moved it.
    layer = {"mean": MEAN, "variance": 0.0, "initial": {"moving_variance": (0.0,)}}
    assert findings(**layer, dtype="bfloat16", momentum=0.999)[0].cause is None


@pytest.mark.parametrize(
    ("layer", "evidence"),
    [
        ({}, ()),
        ({"momentum": 0.9}, ()),
        (
            {"momentum": 0.9, "step": 56},
            ("56 updates with momentum 0.9 leave a variance of 0.002739, not 0",),
        ),
    ],
)
def test_a_variance_of_zeros_with_means_that_moved(layer, evidence):
    finding = only("BN103", mean=MEAN, variance=0.0, gamma=GAMMA, **layer)
    assert finding.message.startswith("moving_variance is exactly 0 in all 3 channels")
    assert finding.evidence == evidence
    assert codes(mean=MEAN, variance=(0.0, 0.0, 0.5)) == []


# --- BN109: batches of one value ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ({"variance": 0.9**100, "momentum": 0.9, "step": 100}, 100),
        ({"variance": 0.9**100, "momentum": 0.9}, 100),
        ({"variance": 0.9**50, "momentum": 0.9, "step": 100}, 50),
        ({"variance": 4 * 0.9**9, "momentum": 0.9, "initial": {"moving_variance": (4.0,)}}, 9),
        ({"variance": 0.0, "momentum": 0.9, "step": 1000}, 1000),
        ({"variance": 2.0**-126, "momentum": 0.9, "step": 900}, 900),
        ({"mean": [3.0], "variance": [0.9**100], "momentum": 0.9, "step": 100}, 100),
        ({"variance": 0.99**100, "step": 100}, 100),  # no momentum, but a usual one
    ],
)
def test_a_variance_that_only_batches_of_one_value_leave(layer, expected):
    with np.errstate(under="ignore"):
        finding = only("BN109", **{"mean": MEAN, **layer})
    assert finding.evidence[0].startswith(f"{expected} updates by a variance of 0 leave")


def test_behind_a_dead_layer_a_variance_without_batches_is_a_note():
    dead = bn(mean=0.0, variance=0.9**60, gamma=1.0, name="dead", momentum=0.9)
    behind = bn(mean=MEAN, variance=0.9**60, gamma=1.0, name="behind", momentum=0.9)
    found = apply_rules([dead, behind], RULES, RuleContext(60))
    assert [(one.layer, one.rule.code, one.severity) for one in found] == [
        ("dead", "BN303", "note"),
        ("behind", "BN109", "note"),
    ]
    assert "Mend the dead layer first" in found[1].fix


@pytest.mark.parametrize(
    "layer",
    [
        {"variance": (0.9**100, 0.9**100, 0.9**99), "momentum": 0.9, "step": 100},
        {"variance": 0.9**100},  # neither momentum nor step
        {"variance": 0.93**100, "step": 100},  # no momentum, and no usual one
        {"variance": 0.9**99, "step": 100},
        {"mean": [3.0], "variance": [0.9**100], "step": 100},
        {"variance": 0.97, "momentum": 0.9, "step": 100},  # no power of it
        {"mean": [3.0], "variance": [0.9**99], "momentum": 0.9, "step": 100},  # by chance
        {"mean": [3.0], "variance": [0.9**100], "momentum": 0.9},
        {"variance": 1.5, "momentum": 0.9, "step": 100},
    ],
)
def test_other_variances_are_none_of_batches_of_one_value(layer):
    assert "BN109" not in codes(**{"mean": MEAN, **layer})


# --- BN104: some channels -------------------------------------------------------------------------


def test_channels_that_never_moved():
    finding = only("BN104", mean=(0.0, 0.5, 0.0), variance=(1.0, 2.0, 1.0), gamma=GAMMA)
    assert finding.message == (
        "2 of 3 channels have both statistics exactly at their initial values, the others moved"
    )
    assert finding.cause is None


def test_channels_that_stay_initial_beside_nan_are_not_called_new_or_padded():
    statistics = {"mean": (0.0, np.nan, 0.0), "variance": (1.0, np.nan, 1.0)}
    assert codes(**statistics, gamma=GAMMA, step=5) == ["BN301"]


@pytest.mark.parametrize(
    ("mean", "variance"),
    [
        ((0.0, 0.5, 1.0), (2.0, 1.0, 1.0)),  # never both in one channel
        ((0.0, 0.5, 1.0), (after(1.0), 2.0, 3.0)),
        ((1e-38, 0.5, 1.0), (1.0, 2.0, 3.0)),
    ],
)
def test_channels_that_moved_in_one_of_the_two(mean, variance):
    assert codes(mean=mean, variance=variance) == []


def test_channels_at_other_initial_values():
    initial = {"moving_mean": (0.5,), "moving_variance": (2.0,)}
    layer = {"mean": (0.5, 0.0, 3.0), "variance": (2.0, 1.0, 4.0)}
    assert only("BN104", **layer, initial=initial).message.startswith("1 of 3 channels")


# --- BN105: the whole layer -----------------------------------------------------------------------


def test_an_untouched_layer():
    finding = only("BN105", **STUCK, gamma=1.0, beta=0.0)
    assert finding.message == (
        "all that is stored of the layer is at its initial value, in all 3 channels"
    )
    assert (finding.severity, finding.cause) == ("warning", None)
    assert len(finding.evidence) == 1


def test_an_untrained_model():
    finding = only("BN105", **STUCK, gamma=1.0, beta=0.0, step=0)
    assert (finding.severity, finding.cause) == ("note", "untrained")
    assert finding.evidence == ("the stored step is 0",)
    assert "untrained" in finding.fix


def test_an_untrained_model_with_nothing_but_statistics():
    finding = only("BN105", **STUCK, step=0)
    assert (finding.severity, finding.cause) == ("note", "untrained")


def test_a_frozen_layer():
    frozen = keras_layer(trainable=False)
    finding = only("BN105", **STUCK, gamma=1.0, step=200, keras=frozen)
    assert (finding.severity, finding.cause) == ("warning", "layer-frozen")
    assert finding.evidence[-1] == "the stored configuration says trainable=false"
    assert "the stored step is 200" in finding.evidence
    assert "trainable=True" in finding.fix


def test_keras_before_2_1_3_updates_a_frozen_layer_so_that_is_no_cause():
    frozen = keras_layer(trainable=False, always_updated=True)
    finding = only("BN105", **STUCK, gamma=1.0, step=5, keras=frozen)
    assert finding.cause is None


def test_a_frozen_layer_in_a_model_that_shows_no_training_may_just_be_new():
    frozen = keras_layer(trainable=False)
    assert only("BN105", **STUCK, gamma=1.0, step=None, keras=frozen).cause is None


@pytest.mark.parametrize(
    ("version", "cause"), [("2.15.0", "untrained"), ("3.9.0", None), ("", None)]
)
def test_a_step_of_0_says_nothing_of_a_layer_that_keras_3_froze(version, cause):
    frozen = {"keras": keras_layer(trainable=False), "keras_version": version}
    finding = only("BN105", **STUCK, gamma=1.0, step=0, **frozen)
    assert (finding.severity, finding.cause) == ("note", cause)
    assert finding.evidence[0] == "the stored step is 0"
    assert "trainable=false" in finding.evidence[1]


def still(*roles):
    """Optimizer slots that never moved."""
    return {f"bn/{role}/Adam": np.zeros(3, "float32") for role in roles}


def test_a_gamma_that_differs_at_step_0_is_not_called_initial():
    finding = only("BN105", **STUCK, gamma=GAMMA, others=still("gamma"), step=0)
    assert (finding.severity, finding.cause) == ("note", None)
    assert "gamma is 0.875 to 1.5" in finding.message
    assert "the optimizer slots of gamma never moved" in finding.evidence
    assert "load moving_mean and moving_variance" in finding.fix


@pytest.mark.parametrize("step", [0, 200])
def test_a_beta_that_no_optimizer_moved_was_loaded_without_the_statistics(step):
    loaded = {"gamma": GAMMA, "beta": BETA, "others": still("gamma", "beta")}
    finding = only("BN101", **STUCK, **loaded, step=step)
    assert (finding.severity, finding.cause) == ("error", "statistics-not-loaded")
    assert "gamma is 0.875 to 1.5 and beta is -0.125 to 0.5" in finding.evidence[0]
    assert not [fact for fact in finding.evidence if "nothing stored" in fact]
    trained = {**loaded, "others": still("beta")}
    assert only("BN101", **STUCK, **trained, step=200).cause is None


def test_a_gamma_of_zeros_at_step_0_is_untouched():
    assert only("BN105", **STUCK, gamma=0.0, beta=0.0, step=0).cause == "untrained"
    assert only("BN105", **STUCK, gamma=0.0, beta=0.0).cause is None


@pytest.mark.parametrize("member", [{"mean": MEAN}, {"variance": VARIANCE}])
def test_a_layer_with_one_statistic_moved_is_not_untouched(member):
    assert "BN105" not in codes(**{**STUCK, **member}, gamma=1.0, step=0)


# --- BN106: cold statistics -----------------------------------------------------------------------

WARM = {"mean": MEAN, "variance": 1.25, "gamma": GAMMA}


def test_cold_statistics():
    finding = only("BN106", **WARM, momentum=0.5, step=4)
    assert finding.message == (
        "the initial values still make up 6% of the averages after 4 updates with momentum 0.5"
    )
    assert finding.evidence == (
        "the stored step is 4",
        "0.5^4 = 0.062",
        "it takes 5 updates to bring that below 5%",
    )
    assert (finding.severity, finding.cause) == ("warning", "too-few-updates")


@pytest.mark.parametrize(
    ("momentum", "step", "expected"),
    [
        (0.5, 4, ["BN106"]),
        (0.5, 5, []),
        (0.05, 1, []),  # exactly 5%
        (0.0501, 1, ["BN106"]),
        (0.99, 298, ["BN106"]),
        (0.99, 299, []),
        (0.999, 1000, ["BN106"]),
        (0.9997, 1000, ["BN106"]),
        (0.9997, 9984, ["BN106"]),
        (0.9997, 9985, []),
        (0.99, 10**12, []),
        (0.99, 0, []),
        (0.99, None, []),
        (None, 10, []),
        (0.0, 1, []),
        (1.0, 10, []),
        (1.5, 10, []),
        (-0.5, 2, []),
    ],
)
def test_cold_by_momentum_and_steps(momentum, step, expected):
    assert codes(**WARM, momentum=momentum, step=step) == expected
    layer = bn(**WARM, step=step)
    given_by_user = apply_rules([layer], RULES, RuleContext(step, momentum))
    assert [finding.rule.code for finding in given_by_user] == expected


def cold_with(own, given_by_user, step):
    layer = bn(**WARM, momentum=own, step=step)
    return [f.rule.code for f in apply_rules([layer], RULES, RuleContext(step, given_by_user))]


def test_the_momentum_of_the_layer_comes_before_that_of_the_user():
    assert cold_with(0.5, 0.999, 10) == []
    assert cold_with(0.999, 0.5, 10) == ["BN106"]
    assert cold_with(None, 0.999, 10) == ["BN106"]


@pytest.mark.parametrize("helper", ["moving_mean/biased", "moving_variance/local_step"])
def test_zero_debiased_averages_are_never_cold(helper):
    helpers = {helper: variable("x", np.zeros(3))}
    assert codes(**WARM, momentum=0.99, step=10, helpers=helpers) == []


def test_other_helpers_do_not_make_averages_warm():
    helpers = {"renorm_mean": variable("x", np.zeros(3))}
    assert codes(**WARM, momentum=0.99, step=10, helpers=helpers) == ["BN106"]


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [(False, []), (True, ["BN106"])],
)
def test_a_frozen_layer_is_not_cold(trainable, expected):
    keras = keras_layer(trainable=trainable)
    assert codes(**WARM, momentum=0.99, step=10, keras=keras) == expected


def test_a_layer_that_is_only_called_for_inference_is_not_cold():
    keras = keras_layer(inference_only=True)
    assert codes(**WARM, momentum=0.99, step=10, keras=keras) == []


def test_averages_that_moved_are_not_all_initial():
    finding = only("BN106", **WARM, momentum=0.9999, step=4)
    assert "make up more than 99% of the averages" in finding.message


def test_a_layer_that_is_shared_is_updated_with_every_call():
    layer = {**WARM, "momentum": 0.5, "step": 1}
    assert "after 4 updates" in only("BN106", **layer, keras=keras_layer(calls=4)).message
    assert codes(**layer, keras=keras_layer(calls=5)) == []


def restarted_by(**other):
    """What is found in a cold layer beside one that shows more updates than the step."""
    older = {"mean": MEAN, "variance": (0.25, 0.3, 0.35), "momentum": 0.5} | other
    layers = [bn(name="cold", **WARM, momentum=0.5, step=1), bn(name="older", step=1, **older)]
    found = apply_rules(layers, RULES, RuleContext(1))
    return [(finding.layer, finding.rule.code) for finding in found]


def test_a_layer_older_than_the_step_takes_the_step_from_all():
    assert restarted_by() == []
    cold = [("cold", "BN106")]
    assert restarted_by(variance=0.75) == [*cold, ("older", "BN106")]
    # … but not if other reasons make its variance small.
    debiased = {"moving_mean/biased": variable("x", np.zeros(3))}
    assert restarted_by(helpers=debiased) == cold
    assert restarted_by(keras=keras_layer(trainable=False)) == cold
    assert restarted_by(momentum=None) == cold
    assert restarted_by(keras=keras_layer(calls=5)) == cold
    assert restarted_by(initial={"moving_variance": (0.0,)}) == [*cold, ("older", "BN106")]


def test_a_layer_without_a_step_is_not_older_than_it():
    variance = (0.25, 0.3, 0.35)
    assert codes(**healthy(variance=variance), momentum=0.5, keras=keras_layer()) == []


@pytest.mark.parametrize(
    ("smallest", "expected"),
    [
        (0.4, []),
        (0.4994, []),
        (0.4996, ["BN106"]),  # float32's rounding of 0.5
        (0.5, ["BN106"]),
        (NAN, ["BN301"]),
    ],
)
def test_a_variance_below_the_share_shows_more_updates_than_the_step(smallest, expected):
    layer = {"mean": MEAN, "variance": (2.0, smallest, 3.0), "momentum": 0.5, "step": 1}
    assert codes(**layer) == expected


def test_the_share_is_that_of_the_initial_variance():
    layer = {"mean": MEAN, "momentum": 0.5, "step": 1, "initial": {"moving_variance": (4.0,)}}
    assert codes(**layer, variance=(2.5, 6.0, 7.0)) == ["BN106"]
    assert codes(**layer, variance=(1.5, 6.0, 7.0)) == []


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ({"mean": 0.0, "variance": 1.0}, ["BN101"]),
        ({"mean": 0.0, "variance": (1.25, 2.0, 3.0)}, ["BN102"]),
        ({"mean": MEAN, "variance": 1.0}, ["BN103"]),
    ],
)
def test_a_stuck_layer_is_not_called_cold_too(layer, expected):
    assert codes(**layer, momentum=0.99, step=10) == expected


# --- BN107: statistics that stand still -----------------------------------------------------------

MOVED = Change(True, 0.5)
TRAINED = ("the stored step went from 1 to 2",)


def since(*facts, **changes):
    """What became of a layer of which nothing moved but `changes`."""
    return Since("model.ckpt-1", {**UNMOVED, **changes}, facts)


def test_statistics_that_stand_still_while_gamma_moves():
    finding = only("BN107", **HEALTHY, since=since(*TRAINED, gamma=MOVED))
    assert finding.message == (
        "moving_mean and moving_variance are exactly what they were at model.ckpt-1, while gamma"
        " moved by up to 0.5"
    )
    assert finding.evidence == TRAINED
    assert finding.cause is None
    assert "update ops" in finding.fix


@pytest.mark.parametrize("still", ["gamma", "beta"])
def test_one_of_gamma_and_beta_is_enough(still):
    other = {"gamma": "beta", "beta": "gamma"}[still]
    assert codes(**HEALTHY, since=since(**{other: MOVED})) == ["BN107"]


@pytest.mark.parametrize("role", ["moving_mean", "moving_variance"])
def test_one_statistic_that_moved_is_enough(role):
    assert codes(**HEALTHY, since=since(*TRAINED, gamma=MOVED, **{role: MOVED})) == []


def test_a_layer_that_stands_still_as_a_whole_was_left_out_of_training():
    assert codes(**HEALTHY, since=since(*TRAINED)) == []


def test_a_layer_without_gamma_and_beta_asks_the_network():
    bare = {"mean": MEAN, "variance": VARIANCE}
    still = {role: UNMOVED[role] for role in ("moving_mean", "moving_variance")}
    assert codes(**bare, since=Since("before", still, TRAINED)) == ["BN107"]
    assert codes(**bare, since=Since("before", still)) == []


def test_nothing_to_compare_is_no_finding():
    assert codes(**HEALTHY, since=Since("before", {}, TRAINED)) == []
    one_is_new = {"moving_mean": UNMOVED["moving_mean"], "gamma": MOVED}
    assert codes(**HEALTHY, since=Since("before", one_is_new, TRAINED)) == []


@pytest.mark.parametrize(
    ("keras", "changes", "cause"),
    [
        (keras_layer(trainable=False), {}, "layer-frozen"),
        (keras_layer(trainable=False), {"gamma": MOVED}, "layer-frozen"),
        (keras_layer(inference_only=True), {"gamma": MOVED}, "built-with-training-false"),
        (keras_layer(mode=1), {"gamma": MOVED}, "batch-statistics-mode"),
    ],
)
def test_frozen_on_purpose_is_a_note(keras, changes, cause):
    finding = only("BN107", **HEALTHY, keras=keras, since=since(*TRAINED, **changes))
    assert (finding.severity, finding.cause) == ("note", cause)
    assert finding.fix.startswith("Nothing to fix")


def test_frozen_on_purpose_needs_training_too():
    assert codes(**HEALTHY, keras=keras_layer(trainable=False), since=since()) == []


def test_statistics_that_stay_nan_are_no_fault_of_the_updates():
    lost = {**HEALTHY, "mean": NAN, "variance": NAN}
    assert codes(**lost, since=since(*TRAINED, gamma=MOVED)) == ["BN301"]


def test_keras_before_2_1_3_updates_a_frozen_layer_so_its_standing_still_is_no_note():
    frozen = keras_layer(trainable=False, always_updated=True)
    finding = only("BN107", **HEALTHY, keras=frozen, since=since(gamma=MOVED))
    assert (finding.severity, finding.cause) == ("error", None)


def test_accumulators_stand_still_while_training():
    assert only("BN107", **HEALTHY, family="compare_gan", since=since(gamma=MOVED)).severity == (
        "note"
    )


def test_half_precision_is_evidence_but_no_proof():
    found = findings(**HEALTHY, dtype="float16", since=since(gamma=MOVED))
    frozen = next(finding for finding in found if finding.rule.code == "BN107")
    assert frozen.cause is None
    assert "float16" in frozen.evidence[0]
    assert "float32" in frozen.fix


def test_a_layer_at_rest_is_updated_without_moving():
    """A constant input for long enough: each update leaves mean and variance where they are."""
    at_rest = healthy(mean=(0.5, 0.25, 1.0), variance=1e-30)
    assert codes(**at_rest, since=since(gamma=MOVED)) == []
    stuck = {"mean": 0.0, "variance": 0.0, "gamma": GAMMA, "initial": FROM_ZERO}
    assert codes(**stuck, since=since(gamma=MOVED)) == ["BN101", "BN107"]


def test_gamma_that_went_to_nan_moved():
    finding = only("BN107", **HEALTHY, since=since(gamma=Change(True, NAN)))
    assert finding.message.endswith("while gamma moved")


# --- BN110: averages of the statistics ------------------------------------------------------------


def shadowed(mean=None, variance=None, *, of=HEALTHY):
    """The codes and the message of a layer `of` these members with averages of its statistics."""
    found = findings(**of, **averages_of(mean, variance))
    return [finding.rule.code for finding in found], "".join(finding.message for finding in found)


def test_averages_that_stand_still_while_the_statistics_moved():
    found, message = shadowed(0.0, 1.0)
    assert found == ["BN110"]
    assert "that of moving_mean still 0 and that of moving_variance still 1" in message
    found, message = shadowed(0.0, VARIANCE)
    assert found == ["BN110"]
    assert "moving_variance" not in message
    assert shadowed(variance=1.0)[0] == ["BN110"]


@pytest.mark.parametrize(("mean", "variance"), [(MEAN, VARIANCE), ((0.0, 0.0, 1e-7), 1.5)])
def test_averages_that_moved(mean, variance):
    assert shadowed(mean, variance)[0] == []


def test_averages_of_statistics_that_stand_still_are_told_once():
    assert shadowed(0.0, 1.0, of={**STUCK, "gamma": GAMMA})[0] == ["BN101"]
    # A dead layer: its mean is 0 in both.
    assert shadowed(0.0, 0.5, of={"mean": 0.0, "variance": 0.25})[0] == ["BN303"]


# --- BN201 to BN204: what is not stored, or does not fit ------------------------------------------


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"gamma": GAMMA, "beta": BETA}, "gamma and beta are stored"),
        ({"gamma": GAMMA}, "gamma is stored"),
        ({"beta": BETA}, "beta is stored"),
    ],
)
def test_statistics_that_are_missing(members, told):
    finding = only("BN201", **members, family="slim")
    assert finding.message == f"{told}, moving_mean and moving_variance are not"
    assert finding.cause == "saver-omitted-statistics"
    assert finding.evidence == ("slim layers always have both statistics",)
    assert "tf.train.Saver()" in finding.fix


def test_missing_statistics_in_a_scope_that_is_not_only_sonnets_prove_nothing():
    finding = only("BN201", gamma=GAMMA, beta=BETA, family="sonnet-1")
    assert (finding.cause, finding.evidence) == (None, ())


def test_the_fix_of_missing_statistics_in_keras():
    assert "model.save" in only("BN201", gamma=GAMMA, family="keras").fix
    assert "model.save" in only("BN202", mean=MEAN, family="keras-1").fix


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"mean": MEAN, "gamma": GAMMA}, "moving_mean is stored, moving_variance is not"),
        ({"variance": VARIANCE, "beta": BETA}, "moving_variance is stored, moving_mean is not"),
        ({"mean": 0.0}, "moving_mean is stored, moving_variance is not"),
        ({"variance": 1.0}, "moving_variance is stored, moving_mean is not"),
    ],
)
def test_one_statistic_that_is_missing(members, told):
    finding = only("BN202", **members, step=5)
    assert finding.message == told
    assert finding.cause is None


def test_members_that_disagree():
    finding = only("BN203", mean=MEAN, variance=VARIANCE, gamma=(1.5, 2.0), beta=BETA)
    assert finding.message == (
        "its members disagree on the number of channels:"
        " gamma 2, beta 3, moving_mean 3, moving_variance 3"
    )
    assert codes(gamma=(1.5, 2.0), beta=BETA) == ["BN201", "BN203"]
    # Nothing is said about statistics that do not belong together.
    assert codes(mean=[0.0, 0.0], variance=[1.0, 1.0, 1.0], step=5) == ["BN203"]


def test_values_that_were_never_written():
    stuck = healthy(mean=0.0, variance=0.0)
    finding = only("BN204", **stuck, unwritten=("moving_mean", "moving_variance"), step=5)
    assert finding.message == (
        "the file reserves a place for values that were never written:"
        " moving_mean (3 of 3), moving_variance (3 of 3)"
    )
    assert finding.cause is None
    # The members that were written are judged all the same.
    assert codes(**healthy(variance=(-1.0, 1.0, 2.0)), unwritten=("gamma",)) == ["BN204", "BN302"]


def test_gamma_and_beta_of_a_conditional_layer_agree():
    # a row for each class
    rows = np.array([GAMMA, BETA])
    assert codes(**healthy(gamma=rows, beta=rows)) == []
    assert codes(**healthy(gamma=rows.T)) == ["BN203"]
    assert codes(mean=[0.5], variance=[2.0], gamma=[[1.5]]) == []
    assert codes(mean=[0.5], variance=[2.0], gamma=[1.5, 2.0]) == ["BN203"]


def test_members_of_one_size_in_other_shapes_agree():
    shaped = np.reshape(VARIANCE, (1, 1, 1, 3))
    assert codes(**healthy(variance=shaped)) == []


# --- BN301: not finite ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("role", ["mean", "gamma", "beta"])
def test_values_that_are_not_finite(role, value):
    finding = only("BN301", **healthy(**{role: (0.5, value, 1.5)}))
    stored = {"mean": "moving_mean"}.get(role, role)
    assert finding.message == f"NaN or infinity: {stored} in 1 of 3 channels"
    assert finding.cause is None


def test_values_that_are_not_finite_in_several_members():
    finding = only("BN301", **healthy(gamma=(NAN, 1.0, 2.0), variance=(INF, 0.5, NAN)))
    assert finding.message == (
        "NaN or infinity: gamma in 1 of 3 channels, moving_variance in 2 of 3 channels"
    )


@pytest.mark.parametrize(("dtype", "largest"), [("float32", 3.4e38), ("float64", 1e308)])
def test_the_largest_numbers_are_finite(dtype, largest):
    assert codes(**healthy(mean=(largest, -largest, 1.0)), dtype=dtype) == []


# --- BN302: negative variance ---------------------------------------------------------------------


@pytest.mark.parametrize("value", [after(0.0, -1.0), -1e-30, -0.5, -1e30])
def test_a_variance_below_0(value):
    finding = only("BN302", **healthy(variance=(value, 0.5, 2.0)))
    assert finding.message == (
        f"moving_variance is negative in 1 of 3 channels (down to {value:g})"
    )


def test_the_most_negative_variance_is_told():
    finding = only("BN302", **healthy(variance=(-0.5, -2.0, 2.0)))
    assert finding.message.endswith("in 2 of 3 channels (down to -2)")


@pytest.mark.parametrize("value", [0.0, -0.0, after(0.0)])
def test_a_variance_of_0_is_not_below_it(value):
    assert codes(**healthy(variance=(value, 0.5, 2.0))) == []


def test_a_negative_variance_beside_a_nan():
    assert codes(**healthy(variance=(NAN, -0.5, 2.0))) == ["BN301", "BN302"]
    assert codes(**healthy(variance=(-INF, 0.5, 2.0))) == ["BN301", "BN302"]
    assert codes(**healthy(variance=(NAN, 0.5, 2.0))) == ["BN301"]


# --- BN303: dead channels -------------------------------------------------------------------------


def dead(mean, variance, dtype="float64", **arguments):
    """How many channels BN303 calls dead."""
    rules = select_rules(["BN303"], [])
    found = findings(mean=mean, variance=variance, dtype=dtype, rules=rules, **arguments)
    if not found:
        return 0
    assert found[0].severity == "note"
    assert re.search(
        r" channels (are|look) dead: their mean is exactly 0 and their variance has decayed$",
        found[0].message,
    )
    return int(found[0].message.split(" of 3 ")[0])


@pytest.mark.parametrize(
    ("variance", "count"),
    [
        (0.0, 1),
        (7e-44, 1),
        (after(1e-12, 0.0, "float64"), 1),
        (1e-12, 0),
        (1e-6, 0),
        (0.5, 0),
        (-1e-20, 0),
        (NAN, 0),
        (INF, 0),
    ],
)
def test_a_channel_is_dead_if_its_variance_collapsed(variance, count):
    assert dead(mean=(0.0, 0.5, 2.0), variance=(variance, 0.75, 2.0)) == count


@pytest.mark.parametrize("mean", [1e-300, 1e-7, NAN])
def test_a_channel_with_a_mean_is_not_dead(mean):
    assert dead(mean=(mean, 0.5, 2.0), variance=(1e-20, 0.75, 2.0)) == 0


@pytest.mark.parametrize(
    ("first", "second", "count"),
    [
        (0.6, 0.6, 2),
        (0.6, after(0.6, 1.0, "float64"), 0),
        (1e-20, 0.6, 1),
        (1e-20, 1e-30, 2),
        (after(1.0, 0.0, "float64"), after(1.0, 0.0, "float64"), 2),
        (1.0, 1.0, 0),
        (1.5, 1.5, 0),
        (-0.5, -0.5, 0),
    ],
)
def test_channels_are_dead_if_they_decayed_alike(first, second, count):
    assert dead(mean=(0.0, 0.0, 2.0), variance=(first, second, 0.75)) == count


def test_channels_that_look_alike_but_have_a_mean_are_not_dead():
    assert dead(mean=(0.0, 0.5, 2.0), variance=(0.6, 0.6, 0.6)) == 0


@pytest.mark.parametrize(
    ("variance", "momentum", "step", "count"),
    [
        (0.5, 0.5, 1, 1),
        (0.5004, 0.5, 1, 1),
        (0.4996, 0.5, 1, 1),
        (0.5006, 0.5, 1, 0),
        (0.4994, 0.5, 1, 0),
        (0.25, 0.5, 1, 0),
        (0.25, 0.5, 2, 1),
        (0.6050061, 0.99, 50, 1),
        (0.6050061, 0.99, 51, 0),
        (0.5, None, 1, 0),
        (0.5, 0.5, None, 0),
        (0.9995, 1.0, 7, 0),
        (0.9999, 1.00001, 1, 0),
    ],
)
def test_a_channel_is_dead_if_the_momentum_explains_its_variance(variance, momentum, step, count):
    layer = {"mean": (0.0, 0.5, 2.0), "variance": (variance, 0.75, 2.0)}
    assert dead(**layer, momentum=momentum, step=step) == count


def test_no_channel_is_dead_where_the_mean_starts_elsewhere():
    # The second channel is at its initial mean, the first is not.
    layer = {"mean": (0.0, 0.25, 2.0), "variance": (1e-20, 0.75, 2.0)}
    assert dead(**layer, initial={"moving_mean": (0.25,)}) == 0


def test_a_dead_channel_stays_where_its_variance_started_from_0():
    dead = {"mean": (0.0, 0.25, 3.0), "variance": (0.0, 2.0, 0.5), "initial": FROM_ZERO}
    finding = only("BN303", **dead, step=5)
    assert finding.message.startswith("1 of 3 channels are dead")
    assert codes(**dead, step=5, momentum=0.99) == ["BN106", "BN303"]


COUNTERS = ["moving_mean/_counter", "moving_mean/counter", "accu/accu_counter", "m/local_step"]


@pytest.mark.parametrize("counter", COUNTERS)
@pytest.mark.parametrize("gamma", [1.0, GAMMA])
def test_a_layer_that_counts_updates_and_saw_only_zeros_is_dead(counter, gamma):
    def found(count, **more):
        helpers = {counter: variable(counter, count, "float32")}
        layer = {"mean": 0.0, "variance": 0.0, "gamma": gamma, "initial": FROM_ZERO} | more
        return findings(**layer, helpers=helpers)

    [dead] = found(7.0)
    assert (dead.rule.code, dead.message[:27]) == ("BN303", "3 of 3 channels are dead: t")
    stuck_code = "BN101" if gamma is GAMMA else "BN105"
    [stuck] = found(0.0)
    assert stuck.rule.code == stuck_code
    assert stuck_code == "BN105" or "its own count of updates is 0" in stuck.evidence
    # A variance that started at 1 would have left it.
    [stuck] = found(7.0, variance=1.0, initial={})
    assert stuck.rule.code == stuck_code
    # No count at all: the accumulators start at 1e-12, and a list is no count.
    for count in (1e-12, [7.0, 7.0]):
        [stuck] = found(count)
        assert stuck.rule.code == stuck_code


@pytest.mark.parametrize("counter", ["moving_mean/counter", "mean_ema/counter", "m/local_step"])
def test_a_layer_that_counts_one_update_in_many_steps_was_not_updated(counter):
    """The call that builds a model may update it: hk.layer_stack, Sonnet 2."""

    def found(count, step, **more):
        helpers = {counter: variable(counter, count, "int32")}
        return findings(**HEALTHY, helpers=helpers, step=step, **more)

    [stuck] = found(1, 20)
    assert (stuck.rule.code, stuck.severity, stuck.cause) == ("BN101", "error", None)
    in_words = "moving_mean and moving_variance were updated once, in 20 steps of training"
    assert stuck.message == in_words
    assert stuck.evidence[:2] == ("its own count says 1 update", "the stored step is 20")
    assert not found(1, 19)
    assert not found(1, None)
    assert not found(2, 20)
    assert not found(20, 20)
    assert not found(1, 20, family="compare_gan")  # filled after training


def test_dead_channels_do_not_excuse_a_stuck_mean_that_started_from_0():
    # Two variances moved and two channels are dead: no channel is both.
    assert codes(mean=(0.0,) * 4, variance=(0.0, 0.0, 1.0, 2.0), initial=FROM_ZERO) == [
        "BN102",
        "BN303",
    ]


def test_a_variance_that_started_from_0_and_never_moved():
    finding = only("BN103", mean=MEAN, variance=0.0, initial=FROM_ZERO, step=5)
    assert finding.message.startswith("moving_variance is still 0 in all 3 channels")


def test_a_whole_layer_may_be_dead():
    assert dead(mean=0.0, variance=(1e-20, 0.0, 7e-44)) == 3
    assert codes(mean=0.0, variance=1e-20, gamma=1.0) == ["BN303"]


def test_a_stuck_layer_is_not_dead():
    assert dead(mean=0.0, variance=1.0) == 0
    zeros = {"moving_variance": (1.0, 0.0)}
    assert codes(mean=0.0, variance=0.0, step=5, initial=zeros) == ["BN101"]


# --- BN304: exploding variance --------------------------------------------------------------------

LIMIT = 65504.0**2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_variance_beyond_float16(dtype):
    assert codes(**healthy(variance=(LIMIT, 0.5, 2.0)), dtype=dtype) == []
    above = after(LIMIT, dtype=dtype)
    assert codes(**healthy(variance=(above, 0.5, 2.0)), dtype=dtype) == ["BN304"]


def test_a_variance_at_the_limit_is_not_counted_among_those_beyond():
    finding = only("BN304", **healthy(variance=(LIMIT, after(LIMIT), 2.0)))
    assert finding.message.endswith("in 1 of 3 channels")


def test_a_variance_of_raw_audio_is_none():
    assert codes(**healthy(variance=(1.1e9, 0.5, 2.0))) == []


def test_how_far_a_variance_exploded():
    finding = only("BN304", **healthy(variance=(5e10, 0.5, 7e12)))
    assert finding.message == "moving_variance is up to 7e+12 in 2 of 3 channels"


def test_an_infinite_variance_is_not_finite_and_no_more():
    assert codes(**healthy(variance=(INF, 0.5, 2.0))) == ["BN301"]
    found = findings(**healthy(variance=(INF, NAN, 5e10)))
    assert [finding.rule.code for finding in found] == ["BN301", "BN304"]
    assert found[1].message == "moving_variance is up to 5e+10 in 1 of 3 channels"


@pytest.mark.parametrize("value", [INF, NAN])
def test_an_infinite_variance_in_half_precision(value):
    # Not even a warning of NumPy: it would land among the messages of the program.
    assert codes(**healthy(variance=(value, 0.5, 2.0)), dtype="float16") == ["BN301", "BN305"]


# --- BN305: half precision ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_statistics_in_half_precision(dtype):
    finding = only("BN305", **HEALTHY, dtype=dtype)
    assert finding.message == f"moving_mean and moving_variance: stored as {dtype}"
    assert codes(mean=MEAN, gamma=GAMMA, dtype=dtype) == ["BN202", "BN305"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_statistics_in_full_precision(dtype):
    assert codes(**HEALTHY, dtype=dtype) == []


def test_gamma_and_beta_may_have_half_precision():
    assert codes(gamma=GAMMA, beta=BETA, dtype="float16") == ["BN201"]


# --- Layers without channels ----------------------------------------------------------------------


@pytest.mark.parametrize("initial", [{}, {"moving_mean": (), "gamma": ()}])
def test_a_layer_without_channels_has_no_finding(initial):
    layer = {"mean": [], "variance": [], "gamma": [], "initial": initial}
    assert codes(**layer, step=5, momentum=0.999) == []
    values = bn(**layer).values["moving_mean"]
    assert values.channels == 0
    assert (values.initial, values.at_initial) == ((None, None) if initial else (0.0, 0))
    assert not values.all_initial
    assert not values.constant
    assert math.isnan(values.mean)


# --- All rules together ---------------------------------------------------------------------------

CHANNEL_COUNT = st.integers(1, 40)
NUMBERS = st.floats(-1e4, 1e4, width=32)


@st.composite
def healthy_layers(draw):
    """Layers as training leaves them: every channel moved, everything finite and sane."""
    count = draw(CHANNEL_COUNT)

    def values(elements):
        return draw(st.lists(elements, min_size=count, max_size=count))

    layer = {
        "mean": values(NUMBERS.filter(bool)),
        "variance": values(
            st.floats(2.0**-20, 2.0**20, width=32).filter(lambda value: value != 1.0)
        ),
    }
    for role in ("gamma", "beta"):
        if draw(st.booleans()):
            layer[role] = values(NUMBERS)
    return layer


@pytest.mark.slow
@given(healthy_layers(), st.none() | st.integers(0, 10**9), st.sampled_from([None, 0.9]))
def test_a_healthy_layer_has_no_finding(layer, step, momentum):
    if momentum is not None and step is not None and 0 < step < 30:
        step += 30  # else it is cold
    assert codes(**layer, step=step, momentum=momentum) == []


ANY_VALUES = st.sampled_from([0.0, -0.0, 1.0, 0.5, -1.0, 2e-7, 6e4, NAN, INF, -INF])


@given(
    layer=st.dictionaries(
        st.sampled_from(["mean", "variance", "gamma", "beta"]), st.lists(ANY_VALUES, max_size=4)
    ),
    step=st.sampled_from([None, 0, 1, 10**6]),
    momentum=st.sampled_from([None, 0.0, 0.5, 0.999]),
    dtype=st.sampled_from(["float16", "bfloat16", "float32", "float64"]),
    variance_initial=st.sampled_from([(1.0,), (0.0,), (1.0, 0.0), (0.5,), ()]),
)
def test_any_layer_gets_findings_that_go_together(layer, variance_initial, **arguments):
    told = codes(**layer, **arguments, initial={"moving_variance": variance_initial})
    assert len(told) == len(set(told))
    assert len({"BN101", "BN102", "BN103", "BN104", "BN105"} & set(told)) <= 1
    assert len({"BN101", "BN102", "BN103", "BN105", "BN106"} & set(told)) <= 1
    assert len({"BN201", "BN202"} & set(told)) <= 1


def test_untouched_channels_that_start_below_1_are_not_dead():
    half = {"moving_variance": (0.5,)}
    found = codes(mean=(0.0, 0.0, 0.3), variance=(0.5, 0.5, 2.0), gamma=GAMMA, initial=half, step=9)
    assert found == ["BN104"]
    dead = codes(mean=(0.0, 0.0, 0.3), variance=(0.2, 0.2, 2.0), gamma=GAMMA, initial=half, step=9)
    assert dead == ["BN303"]


@pytest.mark.parametrize("momentum", [-0.5, 0.0, 1.0, 10.0, 1e300])
def test_a_momentum_that_makes_no_sense_tells_nothing(momentum):
    assert codes(mean=MEAN, variance=VARIANCE, gamma=GAMMA, step=10**6, momentum=momentum) == []


def test_what_bn106_could_not_judge_is_told(run):
    """A short training, whose checkpoint does not tell the momentum."""
    path = load_fixture("tf1_layers_too_few_steps").path
    (checkpoint,) = run("check", path, "--format", "json").json["checkpoints"]
    assert any(
        "BN106 was not judged" in note and "give --momentum" in note for note in checkpoint["notes"]
    )
    for options in (["--momentum", "0.5"], ["--ignore", "BN106"]):
        (checkpoint,) = run("check", path, "--format", "json", *options).json["checkpoints"]
        assert checkpoint["notes"] == []
