"""Roles of numbered variables: what values and slots prove, in any order of the vectors."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bninspect.formats.keras.optimizer_slots import trained_vectors
from bninspect.formats.keras.roles import (
    RENORM,
    NumberedObject,
    called,
    is_keras_bn,
    proved_order,
    read_roles,
    roles_by_position,
)

STATISTICS = ("moving_mean", "moving_variance")
ZERO, ONE = np.zeros(3), np.ones(3)
SIGNED, POSITIVE = np.array([-1.0, 2.0, 0.5]), np.array([0.25, 2.0, 0.5])
GAMMA, BETA = np.array([1.5, 0.5, 1.25]), np.array([0.5, -0.5, 0.25])


def of(*vectors, **facts):
    facts.setdefault("called", "batch-norm")
    facts.setdefault("origin", "unknown")
    return NumberedObject(vectors={str(i): one for i, one in enumerate(vectors)}, **facts)


def statistics(reading):
    """The places of mean and variance."""
    places = {role: int(member) for member, role in reading.roles.items()}
    return tuple(places[role] for role in STATISTICS) if reading.roles else None


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["my_batch_norm"], "batch-norm"),
        (["BatchNorm2d"], "batch-norm"),
        (["enc_bn_2"], "bn"),
        (["bn1"], "bn"),
        (["abnormal"], "norm"),
        (["norm1"], "norm"),
        (["layer_norm", "bn"], "other"),
        (["InstanceNorm"], "other"),
        (["auc_1"], "other"),
        (["dense"], "nothing"),
        ([], "nothing"),
    ],
)
def test_what_names_call_it(names, expected):
    assert called(names) == expected


def test_keras_calls_its_own_so():
    assert all(map(is_keras_bn, ("batch_normalization", "sync_batch_normalization_12")))
    assert not any(map(is_keras_bn, ("my_batch_normalization", "batch_norm", "bn")))


# --- Keras's own class ----------------------------------------------------------------------------


def test_keras_own_class_is_read_by_position_whatever_its_values():
    for last in ([POSITIVE, SIGNED], [SIGNED, SIGNED], [ZERO, ZERO], [np.full(3, np.nan), ONE]):
        reading = read_roles(of(GAMMA, BETA, *last, origin="keras"))
        assert (reading.certainty, statistics(reading)) == ("proved", (2, 3))


def test_renorm_is_known_by_its_standard_deviation():
    variance, stddev = POSITIVE, np.sqrt(POSITIVE + 1e-3)
    renorm = of(GAMMA, BETA, SIGNED, variance, stddev, SIGNED, stddev, origin="keras")
    assert [*read_roles(renorm).roles.values()][-3:] == list(RENORM)
    never_updated = of(GAMMA, BETA, ZERO, ONE, ONE, ZERO, ONE, origin="keras")
    assert [*read_roles(never_updated).roles.values()][-3:] == list(RENORM)


def test_a_class_of_ones_own_by_the_name_of_keras_own():
    assert statistics(read_roles(of(GAMMA, BETA, ONE, ZERO, origin="keras"))) == (3, 2)
    still = of(GAMMA, BETA, ZERO, ONE, ZERO, ZERO, origin="keras")
    assert statistics(read_roles(still)) == (2, 3)
    accumulators = of(GAMMA, BETA, SIGNED, POSITIVE, SIGNED, POSITIVE, origin="keras")
    assert read_roles(accumulators).certainty == "unproved"


# --- Classes that are not Keras's -----------------------------------------------------------------


@pytest.mark.parametrize("extra", [[], [ZERO], [ZERO, ZERO]])
@pytest.mark.parametrize("affine", list(permutations([GAMMA, BETA])))
def test_stuck_statistics_are_found_in_any_order(extra, affine):
    for last in permutations([ZERO, ONE, *extra]):
        reading = read_roles(of(*affine, *last, origin="foreign"))
        mean, variance = statistics(reading)
        assert reading.certainty == "proved"
        assert (last[mean - 2] == 0).all()
        assert (last[variance - 2] == 1).all()
        # Which of the others is gamma is not told, so neither is named.
        assert not {"gamma", "beta"} & {*reading.roles.values()}


def test_an_untrained_layer_is_found_whole():
    for affine in permutations([ZERO, ONE]):
        for last in permutations([ZERO, ONE]):
            roles = read_roles(of(*affine, *last, origin="foreign")).roles
            vectors = [*affine, *last]
            for member, role in roles.items():
                initial = 1 if role in ("gamma", "moving_variance") else 0
                assert (vectors[int(member)] == initial).all()
            assert len(roles) == 4


def test_statistics_that_moved_are_proved_in_the_order_of_keras_alone():
    """A negative vector behind one without is a mean behind its variance, or a broken variance."""
    assert statistics(read_roles(of(GAMMA, BETA, SIGNED, POSITIVE, origin="foreign"))) == (2, 3)
    for last in ([POSITIVE, SIGNED], [SIGNED, SIGNED], [POSITIVE, POSITIVE], [ZERO, POSITIVE]):
        reading = read_roles(of(GAMMA, BETA, *last, origin="foreign", class_name="MyBN"))
        assert reading.certainty == "unproved"
        assert "MyBN" in reading.reason


@pytest.mark.parametrize("mean", [ZERO, SIGNED, POSITIVE])
def test_a_variance_that_is_1_everywhere_is_one(mean):
    for last, places in (((mean, ONE), (2, 3)), ((ONE, mean), (3, 2))):
        assert statistics(read_roles(of(GAMMA, BETA, *last, origin="foreign"))) == places


def test_gamma_that_never_moved_is_no_variance():
    found = of(ONE, ZERO, SIGNED, POSITIVE, SIGNED, POSITIVE, origin="foreign")
    assert read_roles(found).certainty == "unproved"


def test_accumulators_that_moved_hide_the_statistics():
    found = of(GAMMA, BETA, ZERO, ONE, SIGNED, POSITIVE, origin="foreign")
    assert read_roles(found).certainty == "unproved"


def test_the_order_of_the_class_decides_unless_values_contradict_it():
    unclear = of(GAMMA, BETA, POSITIVE, POSITIVE, origin="foreign")
    assert statistics(read_roles(unclear, "mean-first")) == (2, 3)
    assert statistics(read_roles(unclear, "variance-first")) == (3, 2)
    contradicted = of(GAMMA, BETA, POSITIVE, SIGNED, origin="foreign")
    assert read_roles(contradicted, "mean-first").certainty == "unproved"
    assert proved_order(of(GAMMA, BETA, SIGNED, POSITIVE)) == "mean-first"
    assert proved_order(unclear) is None


def test_what_an_optimizer_trains_is_no_statistic():
    found = of(BETA, ZERO, ONE, origin="foreign", trained=1)
    assert statistics(read_roles(found)) == (1, 2)
    reading = read_roles(of(GAMMA, BETA, ZERO, ONE, origin="foreign", trained=4))
    assert reading.certainty == "unproved"
    assert "trains all" in reading.reason
    assert read_roles(of(GAMMA, BETA, called="norm", trained=2)).certainty == "not-bn"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_said(value):
    reading = read_roles(of(GAMMA, BETA, np.full(3, value), POSITIVE, origin="foreign"))
    assert reading.certainty == "unproved"
    assert "NaN or infinite" in reading.reason


# --- Classes that the file does not name ----------------------------------------------------------


def test_four_vectors_are_read_in_the_order_of_keras():
    assert read_roles(of(GAMMA, BETA, SIGNED, POSITIVE)).certainty == "proved"
    assert read_roles(of(GAMMA, BETA, POSITIVE, POSITIVE)).certainty == "assumed"
    assert read_roles(of(GAMMA, BETA, SIGNED, POSITIVE, called="nothing")).certainty == "by-layout"


@pytest.mark.parametrize("last", [(POSITIVE, SIGNED), (ONE, ZERO), (SIGNED, SIGNED)])
def test_values_that_contradict_the_order_of_keras(last):
    assert read_roles(of(GAMMA, BETA, *last)).certainty == "unproved"
    nameless = read_roles(of(GAMMA, BETA, *last, called="nothing"))
    assert nameless.certainty == "not-bn"


def test_a_variance_below_0_is_said():
    assert "below 0" in read_roles(of(GAMMA, BETA, POSITIVE, SIGNED)).reason


@pytest.mark.parametrize("name", ["norm", "nothing"])
def test_three_vectors_that_end_in_0_and_1_are_bn(name):
    assert read_roles(of(BETA, ZERO, ONE, called=name)).certainty == "by-layout"
    assert read_roles(of(BETA, POSITIVE, POSITIVE, called=name)).certainty == "unproved"


def test_scale_and_shift_of_another_normalization():
    for vectors in ((ONE, ZERO), (GAMMA, BETA), (GAMMA, BETA * 0 - 1)):
        assert read_roles(of(*vectors, called="norm")).certainty == "not-bn"
    assert read_roles(of(GAMMA, POSITIVE, called="norm")).certainty == "unproved"


def test_mean_variance_and_count_are_an_input_normalizer():
    found = of(SIGNED, POSITIVE, called="norm", has_scalars=True)
    assert read_roles(found).certainty == "not-bn"
    assert read_roles(found._replace(origin="foreign")).certainty == "not-bn"


@pytest.mark.parametrize("trained", [0, 1, 2])
def test_slots_that_part_the_vectors_prove_the_statistics(trained):
    vectors = [GAMMA, BETA][:trained]
    for name in ("norm", "nothing", "bn"):
        stuck = of(*vectors, ZERO, ONE, called=name, trained=trained)
        assert statistics(read_roles(stuck)) == (trained, trained + 1)
        assert read_roles(stuck).certainty == "proved"
        healthy = of(*vectors, POSITIVE, POSITIVE, called=name, trained=trained)
        assert read_roles(healthy).certainty == "assumed"


VECTORS = st.sampled_from([ZERO, ONE, SIGNED, POSITIVE, GAMMA, BETA, -ONE, np.full(3, np.nan)])


@given(
    st.lists(VECTORS, max_size=9),
    st.sampled_from(["batch-norm", "bn", "norm", "nothing", "other"]),
    st.sampled_from(["keras", "foreign", "unknown"]),
    st.none() | st.integers(0, 9),
)
def test_no_group_is_read_and_unproved_at_once(vectors, name, origin, trained):
    """What says batch normalization is read, or there is a reason; a role is given once."""
    trained = trained if trained is not None and trained <= len(vectors) else None
    if origin == "keras":
        vectors = [*vectors, GAMMA, BETA][:7]
    reading = read_roles(of(*vectors, called=name, origin=origin, trained=trained))
    assert bool(reading.roles) == (reading.certainty in ("proved", "assumed", "by-layout"))
    assert bool(reading.reason) == (reading.certainty == "unproved")
    if name in ("batch-norm", "bn") and len(vectors) > 1:
        assert reading.certainty != "not-bn"
    if reading.roles:
        mean, variance = statistics(reading)
        assert mean != variance
        assert origin == "keras" or not (vectors[variance] < 0).any()


@given(st.integers(2, 7))
def test_keras_order_ends_in_its_statistics(count):
    roles = [*roles_by_position([str(i) for i in range(count)], None).values()]
    assert len(roles) == count
    assert [role for role in roles if role in STATISTICS] == list(STATISTICS)


@pytest.mark.parametrize(
    ("first", "role"), [(ZERO, "beta"), (-ZERO, "beta"), (ONE, "gamma"), (BETA, "gamma_or_beta")]
)
def test_one_of_gamma_and_beta_is_known_where_it_never_moved(first, role):
    assert [*roles_by_position("012", first).values()] == [role, *STATISTICS]
    assert [*read_roles(of(first, ZERO, ONE)).roles.values()] == [role, *STATISTICS]


# --- Optimizer slots ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    trained: list[tuple[int, ...]]
    others: list[tuple[int, ...]]


@given(
    st.builds(
        Network,
        st.lists(st.sampled_from([(3,), (4,), (5,)]), max_size=6).map(lambda one: [(2, 3), *one]),
        st.lists(st.sampled_from([(3,), (4,)]), max_size=6),
    ),
    st.integers(1, 4),
)
def test_slots_tell_how_many_vectors_are_trained(network, slots):
    model = [*network.trained, *network.others]
    found = trained_vectors(model, [shape for shape in network.trained for _ in range(slots)])
    lengths = {shape[0] for shape in model if len(shape) == 1}
    assert found == {length: network.trained.count((length,)) for length in lengths}


@pytest.mark.parametrize(
    ("model", "slots"),
    [
        ([(3,), (3,)], [(3,)]),
        ([(2, 3), (3, 4), (3,)], [(2, 3), (3,)]),
        ([(2, 3), (3,), (3,)], []),
        ([(2, 3), (3,)], [(2, 3), (2, 3), (3,)]),
        ([(2, 3), (3,)], [(2,), (3,)]),
        ([(2, 3), (2, 3), (3,), (3,)], [(2, 3), (2, 3), (3,), (3,)]),
    ],
    ids=["no kernel", "a frozen one", "no slots", "another number", "factored", "masks"],
)
def test_slots_that_tell_nothing(model, slots):
    assert trained_vectors(model, slots) is None


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        ((GAMMA, POSITIVE), "2 vectors of one length may be batch normalization without gamma and"),
        ((BETA, POSITIVE, POSITIVE), "3 vectors of one length may be batch normalization without"),
        ((GAMMA, BETA, POSITIVE, SIGNED), "the file does not name its class"),
    ],
)
def test_why_is_said_by_the_number_of_vectors(vectors, says):
    reading = read_roles(of(*vectors, called="norm"))
    assert reading.certainty == "unproved"
    assert reading.reason.startswith(says)
    left_out = "gamma or beta" if len(vectors) == 3 else "gamma and beta"
    assert (left_out in reading.reason) == (len(vectors) < 4)


def test_two_vectors_that_are_both_1_are_in_no_order():
    assert proved_order(of(GAMMA, BETA, ONE, ONE, origin="foreign")) is None
    assert read_roles(of(GAMMA, BETA, ONE, ONE, origin="foreign")).certainty == "unproved"


@pytest.mark.parametrize(("extra", "certainty"), [([], "not-bn"), ([GAMMA], "unproved")])
def test_a_nameless_class_of_another_origin_is_bn_with_four_vectors_alone(extra, certainty):
    found = of(*extra, BETA, POSITIVE, POSITIVE, called="nothing", origin="foreign")
    assert read_roles(found).certainty == certainty
