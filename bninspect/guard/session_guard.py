"""`BatchNormGuard` of TF1: a SessionRunHook, and a call in a loop over session.run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from bninspect.errors import ReadProblem, UsageProblem
from bninspect.evidence.graph.layer_evidence import graph_evidence
from bninspect.guard.session_checkpoint import SessionVariables, session_checkpoint
from bninspect.guard.step_guard import StepGuard
from bninspect.model.graph import GraphEvidence
from bninspect.model.layer import BNLayer
from bninspect.model.report import Finding
from bninspect.model.rule import RuleContext
from bninspect.rules import apply_rules
from bninspect.runs.graph_beside import GraphBeside


class _Search:
    """The BN layers that were found in the graph of a session, and what that proves of them.

    `version` is that of the graph, which grows while nodes are added.
    """

    def __init__(self, session: Any) -> None:
        self.graph, self.version = session.graph, session.graph.version
        self.variables = SessionVariables(session)
        self.checkpoint = session_checkpoint(self.variables)
        self.layers = GraphBeside(self.checkpoint).search_layers(())
        self._evidence: Mapping[str, GraphEvidence] | None = None

    def is_of(self, session: Any) -> bool:
        """Return whether the graph of `session` is the one that was searched, without new nodes."""
        return session.graph is self.graph and session.graph.version == self.version

    def evidence_of(self, layer: BNLayer) -> GraphEvidence | None:
        """Return what the graph proves of a layer; None if the graph cannot be read."""
        if self._evidence is None:
            try:
                self._evidence = graph_evidence(self.checkpoint.graphs(), self.layers, {})
            except ReadProblem:
                self._evidence = {}
        return self._evidence.get(layer.name)


class BatchNormGuard(StepGuard, tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """A guard of a TF1 training that warns of BN statistics that training does not update.

    It is a SessionRunHook: `hooks=[BatchNormGuard()]` of a MonitoredTrainingSession or an
    Estimator. A loop over session.run calls `check` after each step. Both read the BN layers at the
    first step and every `every_n_steps` steps later, the hook at the end, too, and compare them
    with the reading before. Each finding is a `BatchNormWarning`, once for each layer and rule,
    with evidence and fix. With `action="stop"` an error also stops the training: the hook calls
    `request_stop`, and `check` returns True.

    `select` and `ignore` are rule codes or their beginnings, as in `bninspect check`; `GUARD_RULES`
    are those that are judged here. `findings` are those of the last reading, including notes, which
    are never warned of; `layers` are the BN layers with their values then. `should_stop` says that
    the training is to stop.

    Layers are found as beside a checkpoint: by the names of the variables in GLOBAL_VARIABLES, and
    by the structure of the graph. That graph also proves causes: update ops that no train op
    depends on, a layer that is built with training=False. Raises `UsageProblem` for a wrong option.
    """

    _source = "the graph"

    def _forget(self) -> None:
        super()._forget()
        self._search: _Search | None = None

    def check(self, session: Any, step: int) -> bool:
        """Judge the layers of `session` if `step` is due; return whether training is to stop.

        `step` counts the training steps, as the global step does. A session that runs hooks is read
        without them. Raises `UsageProblem` for a session without a graph.
        """
        session = _raw(session)
        if self._is_due(step):
            self._judge_session(session, step)
        return self.should_stop

    def _judge_session(self, session: Any, step: int) -> None:
        if self._search is None or not self._search.is_of(session):
            if self._search is not None and self._search.graph is not session.graph:
                self._forget()
            self._search = _Search(session)
        self._search.variables.session = session
        self._judge_at(step, self._search.checkpoint, self._search.layers, stacklevel=4)

    def _find(self, layers: Sequence[BNLayer]) -> tuple[Finding, ...]:
        context = RuleContext(live=True, graph=self._evidence_of, format="tf-v2")
        return apply_rules(layers, self._rules, context)

    def _evidence_of(self, layer: BNLayer) -> GraphEvidence | None:
        """Return what the graph proves, with when the statistics moved without the train op."""
        evidence = None if self._search is None else self._search.evidence_of(layer)
        if evidence is None or any(update.run_by for update in evidence.updates):
            return evidence
        return evidence._replace(moved_before=self._moved.get(layer.name))

    # --- The hook -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Find the global step; raises `UsageProblem` if the graph has none."""
        self._forget()
        self._global_step = tf.compat.v1.train.get_global_step()
        if self._global_step is None:
            raise UsageProblem(
                "The graph has no global step: call tf.train.get_or_create_global_step(), and give"
                " it to `minimize`, so that the guard can count the steps."
            )

    def after_create_session(self, session: Any, coord: Any) -> None:  # noqa: ARG002
        """Take a first reading to compare with."""
        self.check(session, int(session.run(self._global_step)))

    def before_run(self, run_context: Any) -> Any:  # noqa: ARG002
        """Fetch the global step with each run."""
        return tf.compat.v1.train.SessionRunArgs(self._global_step)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Judge the layers if a step is due; request the stop of a training that is to stop."""
        if self.check(run_context.session, int(run_values.results)):
            run_context.request_stop()

    def end(self, session: Any) -> None:
        """Judge the layers after the last step."""
        step = int(session.run(self._global_step))
        if self._step is not None and step > self._step:
            self._judge_session(session, step)


def _raw(session: Any) -> Any:
    """Return the session below a MonitoredSession; raises `UsageProblem` for no session."""
    if hasattr(session, "raw_session"):
        session = session.raw_session()
    if not hasattr(session, "graph") or not hasattr(session, "run"):
        raise UsageProblem(f"expected a session of TF1, got {type(session).__name__}")
    return session
