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
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bninspect.frozen import NamedTuple
from bninspect.model.roles import AFFINE, STATISTICS

if TYPE_CHECKING:
    from numpy.typing import NDArray

RENORM = ("moving_stddev", "renorm_mean", "renorm_stddev")
# A name that no family knows: the variable is not looked at.
EITHER = "gamma_or_beta"
MOST_OF_BN = 7  # variables of Keras's own BN layer, those of renorm among them

_KERAS_BN = r"(sync_)?batch_normalization(_\d+)?"
# Other normalizations have two vectors as well; metrics that count by threshold or class have four.
_OTHER_NORM = r"(^|_)(layer|group|instance|rms|unit|weight|spectral)_?norm"
_METRIC = r"(^|_)(metric|auc|f\d?_?(beta)?_?score|precision|recall|sensitivity|specificity)"

# The kind of an object by its names: batch normalization, "bn", a normalization, certainly another
# one, or not known.
Called = Literal["batch-norm", "bn", "norm", "other", "nothing"]
_CALLED: tuple[tuple[Called, str], ...] = (
    ("other", _OTHER_NORM),
    ("batch-norm", r"batch_?norm"),
    ("bn", r"(^|_)bn(_|\d|$)"),
    ("other", _METRIC),
    ("norm", r"norm"),
)
# The class of an object: called like Keras's own BN layer, another one, or not in the file.
Origin = Literal["keras", "foreign", "unknown"]
Order = Literal["mean-first", "variance-first"]


class NumberedObject(NamedTuple):
    """An object that may be a BN layer, and whose configuration does not have the roles.

    `vectors` are the values of its variables that are no scalars by number, if these are floats of
    one shape; else there are none. `class_name` is empty if the file does not spell it.
    `has_scalars` says that it has scalars, too. An optimizer has slots for `trained` of the
    vectors; None if that is unknown.
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
    """Return the kind of an object by its names and that of its class, in snake case."""
    lower = [name.lower() for name in names]
    for kind, expression in _CALLED:
        if any(re.search(expression, name) for name in lower):
            return kind
    return "nothing"


def roles_by_position(members: Sequence[str], first: NDArray[Any] | None) -> dict[str, str]:
    """Return the roles of the variables, 2 to 7, of a layer of Keras's own class.

    If gamma or beta is left out, only the values of the `first` variable show which, and only if it
    never moved: beta starts at 0 and gamma at 1.
    """
    sole = EITHER
    if first is not None and (_is(first, 0.0) or _is(first, 1.0)):
        sole = "beta" if _is(first, 0.0) else "gamma"
    before: tuple[str, ...] = ((), (sole,), AFFINE)[(len(members) - 2) % 3]
    return dict(zip(members, (*before, *STATISTICS, *RENORM), strict=False))


def proved_order(numbered: NumberedObject) -> Order | None:
    """Return the order of the statistics that the values of an object prove, if they prove one."""
    last = numbered.last
    return _order(*last) if len(last) == 2 else None


def read_roles(numbered: NumberedObject, order_of_class: Order | None = None) -> Reading:
    """Return how the variables of an object are read.

    `order_of_class` is the order of the statistics that other objects of its class prove.
    """
    if numbered.origin == "keras":
        return _read_keras(numbered)
    if _is_no_bn(numbered):
        return NOT_BN
    return (
        _read_foreign(numbered, order_of_class)
        if numbered.origin == "foreign"
        else _read_unknown(numbered)
    )


def _read_keras(numbered: NumberedObject) -> Reading:
    """Read a layer that is called like Keras's own: by position, unless its values are another's.

    A class of the user's own may be called BatchNormalization, too. Keras's own never starts with a
    mean of 1 and a variance of 0; and with renorm its variance is made from moving_stddev.
    """
    members, arrays = [*numbered.vectors], [*numbered.vectors.values()]
    affine_count = (len(members) - 2) % 3
    is_renorm = len(members) > 4
    if (is_renorm and not _is_renorm(*arrays[affine_count + 1 : affine_count + 3])) or (
        not is_renorm and _are(arrays[-2:], 1.0, 0.0)
    ):
        return _read_foreign(numbered._replace(origin="foreign"), None)
    return Reading("proved", roles_by_position(members, arrays[0]))


def _is_renorm(variance: NDArray[Any], stddev: NDArray[Any]) -> bool:
    """Return whether a variance is the square of the standard deviation, but for epsilon."""
    with np.errstate(all="ignore"):
        rest = np.abs(stddev.astype("f8") ** 2 - variance)
        return not bool((rest > 0.1 + 0.01 * np.abs(variance)).any())


def _read_foreign(numbered: NumberedObject, order_of_class: Order | None) -> Reading:
    """Read an object of a class that is not Keras's own, by its values."""
    last = numbered.last
    positions = _statistics(last)
    if positions is None and len(last) == 2 and order_of_class is not None:
        assumed = _POSITIONS[order_of_class]
        positions = None if _is_negative(last[assumed[1]]) else assumed
    if numbered.called == "norm" and len(numbered.vectors) < 4:
        positions = None  # another normalization may have two or three vectors of this kind
    return _by_values(numbered, positions)


def _read_unknown(numbered: NumberedObject) -> Reading:
    """Read an object whose class the file does not name: in Keras's order, or not at all."""
    last = numbered.last
    if len(numbered.vectors) > 4 or len(last) != 2:
        return _by_values(numbered, _statistics(last))
    order = _order(*last)
    if order == "variance-first" or _is_negative(last[1]) or not _is_enough(numbered, order):
        return Reading("unproved", reason=_why_unproved(numbered))
    roles = roles_by_position([*numbered.vectors], next(iter(numbered.vectors.values())))
    if not numbered.is_called_bn and numbered.trained is None:
        return Reading("by-layout", roles)
    return Reading("assumed" if order is None else "proved", roles)


def _by_values(numbered: NumberedObject, positions: tuple[int, int] | None) -> Reading:
    """Read an object whose statistics are at these positions of its `last` vectors, or unproved."""
    if positions is None:
        return Reading("unproved", reason=_why_unproved(numbered))
    return Reading("proved" if numbered.is_called_bn else "by-layout", _roles(numbered, positions))


def _is_enough(numbered: NumberedObject, order: Order | None) -> bool:
    """Return whether there is enough evidence for a BN layer in Keras's order.

    Four vectors are enough, or slots that show which vectors are trainable. Three vectors need a
    name that says BN, or statistics that are exactly 0 and 1; two need a name and their values.
    """
    count = len(numbered.vectors)
    if count == 4 or numbered.trained is not None:
        return True
    if count == 3:
        return numbered.is_called_bn or _are(numbered.last, 0.0, 1.0)
    return numbered.is_called_bn and order is not None


def _is_no_bn(numbered: NumberedObject) -> bool:
    """Return whether an object is so surely no BN layer that it is not mentioned.

    Its names may say so. Without any that says BN, values that Keras's own layer cannot have (a
    variance below 0, or a mean of 1 and a variance of 0) do, as does an optimizer that trains all
    vectors. Two vectors and a scalar are the mean, variance and count of Keras's Normalization.
    """
    count = len(numbered.vectors)
    if numbered.called == "other" or count < 2:
        return True
    if numbered.is_called_bn:
        return False
    *_, before, last = numbered.vectors.values()
    is_nameless = numbered.called == "nothing"
    if _is_negative(last) or _are([before, last], 1.0, 0.0):
        return is_nameless or count == 2
    if (count == 2 and numbered.has_scalars) or numbered.trained == count:
        return True
    return is_nameless and (count > 4 or (numbered.origin == "foreign" and count < 4))


_POSITIONS: dict[Order, tuple[int, int]] = {"mean-first": (0, 1), "variance-first": (1, 0)}


def _statistics(last: Sequence[NDArray[Any]]) -> tuple[int, int] | None:
    """Return the positions of mean and variance among vectors that were not made as trainable.

    Of more than two none is proved, unless all are exactly 0 or exactly 1: then whichever of them
    the statistics are, the mean is 0 and the variance 1.
    """
    if len(last) == 2:
        order = _order(*last)
        return _POSITIONS[order] if order else None
    kinds = [0.0 if _is(vector, 0.0) else 1.0 if _is(vector, 1.0) else None for vector in last]
    if None in kinds or len(set(kinds)) < 2:
        return None
    return kinds.index(0.0), kinds.index(1.0)


def _order(first: NDArray[Any], second: NDArray[Any]) -> Order | None:
    """Return in which order two vectors are mean and variance, as far as their values prove it.

    A variance is never below 0, and it starts at 1, the mean at 0.
    """
    if _is(second, 1.0) and not _is(first, 1.0):
        return "mean-first"
    if _is(first, 1.0) and not _is(second, 1.0):
        return "variance-first"
    # The other way round a negative variance might be meant, or a class of another order.
    return "mean-first" if _is_negative(first) and bool((second >= 0).all()) else None


def _roles(numbered: NumberedObject, positions: tuple[int, int]) -> dict[str, str]:
    """Return the roles of an object with its statistics at these positions of `last`."""
    members, arrays = [*numbered.vectors], [*numbered.vectors.values()]
    start = len(members) - len(numbered.last)
    affine = [EITHER] * start
    if start == 2 and _are(arrays[:2], 1.0, 0.0):
        affine = [*AFFINE]
    elif start == 2 and _are(arrays[:2], 0.0, 1.0):
        affine = [*reversed(AFFINE)]
    roles = dict(zip(members, affine, strict=False))
    return roles | {
        members[start + position]: role
        for position, role in zip(positions, STATISTICS, strict=True)
    }


def _why_unproved(numbered: NumberedObject) -> str:
    """Return a clause that says why an object that may be a BN layer is not judged."""
    arrays = [*numbered.vectors.values()]
    count = len(arrays)
    if numbered.trained == count:
        return f"an optimizer trains all of its {count} vectors, so none is known to be a statistic"
    if numbered.origin == "foreign":
        named = f" {numbered.class_name}" if numbered.class_name else ""
        reason = f"its class{named} is not Keras's own"
    elif count < 4:
        left_out = "gamma or beta" if count == 3 else "gamma and beta"
        reason = f"{count} vectors of one length may be batch normalization without {left_out}"
    else:
        reason = "the file does not name its class"
    if numbered.origin != "foreign" and _is_negative(arrays[-1]):
        reason += ", the last of them has values below 0, which no variance has"
    elif not all(np.isfinite(array).all() for array in arrays):
        reason += ", they hold NaN or infinite values"
    return f"{reason}, and nothing stored proves which of its {count} vectors are the statistics"


def _is(vector: NDArray[Any], value: float) -> bool:
    return bool((vector == value).all())


def _are(vectors: Sequence[NDArray[Any]], *values: float) -> bool:
    return all(_is(vector, value) for vector, value in zip(vectors, values, strict=True))


def _is_negative(vector: NDArray[Any]) -> bool:
    return bool((vector < 0).any())
