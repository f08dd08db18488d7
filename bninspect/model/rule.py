"""Immutable data types of rules and causes. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from bninspect.frozen import NamedTuple
from bninspect.model.layer import BNLayer, ModeProof, OptimizerSteps
from bninspect.model.roles import ROLES, Role

if TYPE_CHECKING:
    from bninspect.model.graph import GraphEvidence
    from bninspect.model.live import LiveModel


Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


def no_mode(_: BNLayer) -> ModeProof | None:
    """Return None: nothing proves the mode of training."""
    return None


def no_inference() -> bool:
    """Return False: nothing proves that training ran a layer in inference mode."""
    return False


def no_graph(_: BNLayer) -> GraphEvidence | None:
    """Return None: without a stored graph nothing is known of a layer."""
    return None


class RuleContext(NamedTuple):
    """The facts about a checkpoint that rules use besides the layer.

    `step` is the stored training step, `momentum` that of the user. `trained` says that some layer
    of the checkpoint shows training, `updated` that the statistics of some layer moved, `dead` that
    all channels of some layer look dead, `all_dead` those of every layer; `restarted` that some
    layer got more updates than the step counts (a fine-tuned or recompiled model), so that the step
    proves nothing. `least_share` is the smallest of all variances as a share of its initial value:
    no layer of the same momentum holds a larger share of its own. `optimizer_steps` are counts of
    optimizers, read only if a rule may use them. `graph` returns what the stored graph proves of a
    layer, None without one; `mode` returns the mode that training ran a layer in, None unless it is
    proved; `inference_elsewhere` whether that is inference mode in any layer whose statistics are
    initial. All read files, so rules call them only for a finding. `live` says that the layers are
    those of a model in training, not of a file; `live_model` is what that model shows, None unless
    it was looked at. `format`, `resolved` and `frozen` are those of `Checkpoint`, empty without
    a file.
    """

    step: int | None = None
    momentum: float | None = None
    trained: bool = False
    updated: bool = False
    dead: bool = False
    all_dead: bool = False
    live: bool = False
    live_model: LiveModel | None = None
    restarted: bool = False
    least_share: float | None = None
    optimizer_steps: tuple[OptimizerSteps, ...] = ()
    graph: Callable[[BNLayer], GraphEvidence | None] = no_graph
    mode: Callable[[BNLayer], ModeProof | None] = no_mode
    inference_elsewhere: Callable[[], bool] = no_inference
    format: str = ""
    resolved: str = ""
    frozen: bool = False

    @property
    def of_graph(self) -> bool:
        """Return whether the graph of TensorFlow 1 names the variables in this format."""
        return self.format in ("tf-v1", "tf-v2", "saved-model")

    @property
    def may_store_step(self) -> bool:
        """Return whether a file of this format may store the step of the training."""
        return not (self.frozen or self.live or self.format == "onnx")

    @property
    def of_whole_model(self) -> bool:
        """Return whether Keras stores the model beside its weights in this format."""
        return self.format in ("keras-h5", "keras-zip", "saved-model")

    @property
    def of_graph_beside(self) -> bool:
        """Return whether the graph is stored beside a checkpoint of this format."""
        return self.format == "tf-v2" and not self.live


class Violation(NamedTuple):
    """The result of a rule for a layer: the message and its evidence.

    `cause` is None unless the file proves it. `severity` and `fix` are None for the rule's own.
    """

    message: str
    evidence: tuple[str, ...] = ()
    cause: str | None = None
    severity: Severity | None = None
    fix: str | None = None


class Cause(NamedTuple):
    """A reason that files can prove; `rules` are the codes of the rules that may give it.

    `frameworks` are those in which it can be proved, where these are not all of them.
    """

    name: str
    summary: str
    rules: tuple[str, ...]
    frameworks: tuple[str, ...] = ()


class PossibleCause(NamedTuple):
    """A reason that may be behind a finding whose cause nothing proves: no more than a suspicion.

    `cause` is its name, that of a `Cause` where the files may prove it. `speaks_for` says what in
    this file makes it likely, `tells_apart` what would tell it from the other reasons, and `test`
    is the one line or file that settles it. All three are for a person.
    """

    cause: str
    speaks_for: str
    tells_apart: str
    test: str


def every_role(_: BNLayer, __: Role) -> bool:
    """Return True: the findings of a rule concern all of its `members`."""
    return True


class Rule(NamedTuple):
    """One entry of the catalogue: `check` judges a layer, `fix` says what to do about a violation.

    `members` are the roles that a finding may be about; `concerns` selects those for a layer.
    `needs_earlier` marks a rule that compares with an earlier checkpoint of the training and finds
    nothing without one. `live` marks a rule that also judges a model while it trains.
    `passes_plain` marks one that finds nothing in layers that `runs.plain_values` accepts.
    """

    code: str
    name: str
    severity: Severity
    summary: str
    check: Callable[[BNLayer, RuleContext], Iterator[Violation]]
    fix: Callable[[BNLayer, Violation], str]
    members: tuple[Role, ...] = ROLES
    concerns: Callable[[BNLayer, Role], bool] = every_role
    needs_earlier: bool = False
    live: bool = False
    passes_plain: bool = False

    def members_of(self, layer: BNLayer) -> tuple[Role, ...]:
        """Return the roles of `layer` that a finding is about; `members` if none is selected."""
        concerned = tuple(role for role in self.members if self.concerns(layer, role))
        return concerned or self.members

    def __repr__(self) -> str:
        return f"<Rule {self.code} {self.name}>"


def at_least(severity: str) -> tuple[Severity, ...]:
    """Return a severity and the graver ones; none for `never`."""
    return SEVERITIES[: SEVERITIES.index(severity) + 1] if severity in SEVERITIES else ()
