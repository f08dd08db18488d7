"""Roles of numbered variables: which of an object's variables are gamma, beta and the statistics.

Keras numbers the variables of an object: those that it made as trainable, then the others, each
kind in the order in which its class made them (`variables` of keras/src/layers/layer.py, `weights`
of keras/engine/base_layer.py). Its own BN layer makes gamma, beta, moving_mean, moving_variance,
and with renorm moving_stddev, renorm_mean, renorm_stddev (keras/src/layers/normalization/
batch_normalization.py); gamma and beta are left out without scale and center, which moves the
others up. Another class may have any order, so the position of a variable proves its role in
Keras's own class alone. Elsewhere values and optimizer slots prove it, or nothing does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bninspect.model.roles import AFFINE, STATISTICS

RENORM = ("moving_stddev", "renorm_mean", "renorm_stddev")
# A name that no family knows: the variable is not looked at.
EITHER = "gamma_or_beta"
MOST_OF_BN = 7  # variables of Keras's own BN layer, those of renorm among them

_KERAS_BN = r"(sync_)?batch_normalization(_\d+)?"
# Other normalizations have two vectors as well; metrics that count by threshold or class have four.
_OTHER_NORM = r"(^|_)(layer|group|instance|rms|unit|weight|spectral)_?norm"
_METRIC = r"(^|_)(metric|auc|f\d?_?(beta)?_?score|precision|recall|sensitivity|specificity)"

# What the names of an object call it: batch normalization, "bn", a normalization, something else
# that is no BN layer for certain, or nothing that tells.
Called = Literal["batch-norm", "bn", "norm", "other", "nothing"]
_CALLED: tuple[tuple[Called, str], ...] = (
    ("other", _OTHER_NORM),
    ("batch-norm", r"batch_?norm"),
    ("bn", r"(^|_)bn(_|\d|$)"),
    ("other", _METRIC),
    ("norm", r"norm"),
)
# Whose class an object is of: called like Keras's own BN layer, another one, or not in the file.
Origin = Literal["keras", "foreign", "unknown"]
Order = Literal["mean-first", "variance-first"]


class NumberedObject(NamedTuple):
    """An object that may be a BN layer, and whose configuration does not tell the roles.

    `vectors` are the values of its variables that are no scalars by number, if these are floats of
    one shape; else there are none. `class_name` is empty where the file does not spell it.
    `has_scalars` says whether it has scalars besides. An optimizer has slots for `trained` of the
    vectors; None if nothing tells.
    """

    origin: Origin
    called: Called
    vectors: Mapping[str, NDArray[Any]]
    class_name: str = ""
    has_scalars: bool = False
    trained: int | None = None

    @property
    def is_called_bn(self) -> bool:
        """Return whether its names say that it is a BN layer."""
        return self.called in ("batch-norm", "bn")

    @property
    def last(self) -> list[NDArray[Any]]:
        """Its vectors that may be statistics: those that were not made as trainable.

        Without slots they are taken for the last two; of more than four vectors, for all but two.
        """
        first = {2: 0, 3: 1}.get(len(self.vectors), 2) if self.trained is None else self.trained
        return [*self.vectors.values()][first:]


class Reading(NamedTuple):
    """How the variables of an object are read: number → role, and how certain that is.

    The roles are `proved`, or `assumed`: in Keras's order, which nothing contradicts, while the
    file does not name the class; `by-layout` if even that it is a BN layer is assumed. What is
    `unproved` has no roles but a `reason`; `not-bn` has neither.
    """

    certainty: Literal["proved", "assumed", "by-layout", "unproved", "not-bn"]
    roles: Mapping[str, str] = {}
    reason: str = ""


NOT_BN = Reading("not-bn")


def is_keras_bn(name: str) -> bool:
    """Return whether Keras gives this name to its own BN layers and to their groups."""
    return re.fullmatch(_KERAS_BN, name) is not None


def called(names: Iterable[str]) -> Called:
    """Return what the names of an object and of its class, in snake case, call it."""
    lower = [name.lower() for name in names]
    for kind, expression in _CALLED:
        if any(re.search(expression, name) for name in lower):
            return kind
    return "nothing"


def roles_by_position(members: Sequence[str], first: NDArray[Any] | None) -> dict[str, str]:
    """Return the roles of the variables, 2 to 7, of a layer of Keras's own class.

    Where gamma or beta is left out, only the values of the `first` variable tell which, and only if
    it never moved: beta starts at 0 and gamma at 1.
    """
    sole = EITHER
    if first is not None and (_is(first, 0.0) or _is(first, 1.0)):
        sole = "beta" if _is(first, 0.0) else "gamma"
    before: tuple[str, ...] = ((), (sole,), AFFINE)[(len(members) - 2) % 3]
    return dict(zip(members, (*before, *STATISTICS, *RENORM), strict=False))


def proved_order(found: NumberedObject) -> Order | None:
    """Return the order of the statistics that the values of an object prove, if they prove one."""
    last = found.last
    return _order(*last) if len(last) == 2 else None


def read_roles(found: NumberedObject, order_of_class: Order | None = None) -> Reading:
    """Return how the variables of an object are read.

    `order_of_class` is the order of the statistics that other objects of its class prove.
    """
    if found.origin == "keras":
        return _read_keras(found)
    if _is_no_bn(found):
        return NOT_BN
    return (
        _read_foreign(found, order_of_class) if found.origin == "foreign" else _read_unknown(found)
    )


def _read_keras(found: NumberedObject) -> Reading:
    """Read a layer that is called like Keras's own: by position, unless its values are another's.

    A class of the user's own may be called BatchNormalization, too. Keras's own never starts with a
    mean of 1 and a variance of 0; and with renorm its variance is made from moving_stddev.
    """
    members, arrays = [*found.vectors], [*found.vectors.values()]
    place = (len(members) - 2) % 3
    is_renorm = len(members) > 4
    if (is_renorm and not _is_renorm(*arrays[place + 1 : place + 3])) or (
        not is_renorm and _are(arrays[-2:], 1.0, 0.0)
    ):
        return _read_foreign(found._replace(origin="foreign"), None)
    return Reading("proved", roles_by_position(members, arrays[0]))


def _is_renorm(variance: NDArray[Any], stddev: NDArray[Any]) -> bool:
    """Return whether a variance is the square of the standard deviation, but for epsilon."""
    with np.errstate(all="ignore"):
        rest = np.abs(stddev.astype("f8") ** 2 - variance)
        return not bool((rest > 0.1 + 0.01 * np.abs(variance)).any())


def _read_foreign(found: NumberedObject, order_of_class: Order | None) -> Reading:
    """Read an object of a class that is not Keras's own, by its values."""
    last = found.last
    places = _statistics(last)
    if places is None and len(last) == 2 and order_of_class is not None:
        assumed = _PLACES[order_of_class]
        places = None if _is_negative(last[assumed[1]]) else assumed
    if found.called == "norm" and len(found.vectors) < 4:
        places = None  # another normalization may have two or three vectors of this kind
    return _by_values(found, places)


def _read_unknown(found: NumberedObject) -> Reading:
    """Read an object whose class the file does not name: in Keras's order, or not at all."""
    last = found.last
    if len(found.vectors) > 4 or len(last) != 2:
        return _by_values(found, _statistics(last))
    order = _order(*last)
    if order == "variance-first" or _is_negative(last[1]) or not _is_enough(found, order):
        return Reading("unproved", reason=_why_unproved(found))
    roles = roles_by_position([*found.vectors], next(iter(found.vectors.values())))
    if not found.is_called_bn and found.trained is None:
        return Reading("by-layout", roles)
    return Reading("assumed" if order is None else "proved", roles)


def _by_values(found: NumberedObject, places: tuple[int, int] | None) -> Reading:
    """Read an object whose statistics are at these places of its `last` vectors, or unproved."""
    if places is None:
        return Reading("unproved", reason=_why_unproved(found))
    return Reading("proved" if found.is_called_bn else "by-layout", _roles(found, places))


def _is_enough(found: NumberedObject, order: Order | None) -> bool:
    """Return whether as much speaks for a BN layer in Keras's order as is asked of so few vectors.

    Four vectors are enough, or slots that tell the trainable vectors from the others. Three need a
    name that says BN, or statistics that are exactly 0 and 1; two need a name and their values.
    """
    count = len(found.vectors)
    if count == 4 or found.trained is not None:
        return True
    if count == 3:
        return found.is_called_bn or _are(found.last, 0.0, 1.0)
    return found.is_called_bn and order is not None


def _is_no_bn(found: NumberedObject) -> bool:
    """Return whether an object is no BN layer of which anything would have to be said.

    Its names may say so. Without any that says BN, values that Keras's own layer cannot have (a
    variance below 0, or a mean of 1 and a variance of 0) do, as does an optimizer that trains all
    vectors. Two vectors and a scalar are the mean, variance and count of Keras's Normalization.
    """
    count = len(found.vectors)
    if found.called == "other" or count < 2:
        return True
    if found.is_called_bn:
        return False
    *_, before, last = found.vectors.values()
    is_nameless = found.called == "nothing"
    if _is_negative(last) or _are([before, last], 1.0, 0.0):
        return is_nameless or count == 2
    if (count == 2 and found.has_scalars) or found.trained == count:
        return True
    return is_nameless and (count > 4 or (found.origin == "foreign" and count < 4))


_PLACES: dict[Order, tuple[int, int]] = {"mean-first": (0, 1), "variance-first": (1, 0)}


def _statistics(last: Sequence[NDArray[Any]]) -> tuple[int, int] | None:
    """Return the places of mean and variance among vectors that were not made as trainable.

    Of more than two none is proved, unless all are exactly 0 or exactly 1: then whichever of them
    the statistics are, the mean is 0 and the variance 1.
    """
    if len(last) == 2:
        order = _order(*last)
        return _PLACES[order] if order else None
    kinds = [0.0 if _is(one, 0.0) else 1.0 if _is(one, 1.0) else None for one in last]
    if None in kinds or len(set(kinds)) < 2:
        return None
    return kinds.index(0.0), kinds.index(1.0)


def _order(first: NDArray[Any], second: NDArray[Any]) -> Order | None:
    """Return in which order two vectors are mean and variance, as far as their values prove it.

    A variance is never below 0, and it starts at 1, the mean at 0.
    """
    if _are([first, second], 0.0, 1.0) or (_is(second, 1.0) and not _is(first, 1.0)):
        return "mean-first"
    if _is(first, 1.0) and not _is(second, 1.0):
        return "variance-first"
    # The other way round a negative variance might be meant, or a class of another order.
    return "mean-first" if _is_negative(first) and bool((second >= 0).all()) else None


def _roles(found: NumberedObject, places: tuple[int, int]) -> dict[str, str]:
    """Return the roles of an object whose statistics are at these places of its `last` vectors."""
    members, arrays = [*found.vectors], [*found.vectors.values()]
    start = len(members) - len(found.last)
    affine = [EITHER] * start
    if start == 2 and _are(arrays[:2], 1.0, 0.0):
        affine = [*AFFINE]
    elif start == 2 and _are(arrays[:2], 0.0, 1.0):
        affine = [*reversed(AFFINE)]
    roles = dict(zip(members, affine, strict=False))
    return roles | {members[start + at]: role for at, role in zip(places, STATISTICS, strict=True)}


def _why_unproved(found: NumberedObject) -> str:
    """Return a clause that says why an object that may be a BN layer is not judged."""
    arrays = [*found.vectors.values()]
    count = len(arrays)
    if found.trained == count:
        return f"an optimizer trains all of its {count} vectors, so none is known to be a statistic"
    if found.origin == "foreign":
        named = f" {found.class_name}" if found.class_name else ""
        told = f"its class{named} is not Keras's own"
    elif count < 4:
        left_out = "gamma or beta" if count == 3 else "gamma and beta"
        told = f"{count} vectors of one length may be batch normalization without {left_out}"
    else:
        told = "the file does not name its class"
    if found.origin != "foreign" and _is_negative(arrays[-1]):
        told += ", the last of them has values below 0, which no variance has"
    elif not all(np.isfinite(one).all() for one in arrays):
        told += ", they hold NaN or infinite values"
    return f"{told}, and nothing stored proves which of its {count} vectors are the statistics"


def _is(vector: NDArray[Any], value: float) -> bool:
    return bool((vector == value).all())


def _are(vectors: Sequence[NDArray[Any]], *values: float) -> bool:
    return all(_is(one, value) for one, value in zip(vectors, values, strict=True))


def _is_negative(vector: NDArray[Any]) -> bool:
    return bool((vector < 0).any())
