"""JSON, schema_version 1: a contract with other people's scripts, only ever extended.

`schema.json` describes every key; the tests hold both together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from bninspect._version import __version__
from bninspect.batchnorm.inference import Dump, Inference, columns
from bninspect.config.model import Config
from bninspect.model.layer import BNLayer, Values
from bninspect.model.layer_views import Architecture, LayerViews
from bninspect.model.report import CheckpointReport, Finding, Report, Suppressed
from bninspect.model.roles import ROLES, STATISTICS
from bninspect.model.rule import PossibleCause, Rule
from bninspect.reporters.escapes import json_text

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

    from bninspect.model.computation import Computation
    from bninspect.model.graph import Condition
    from bninspect.runs.watch import Conclusion

SCHEMA_VERSION = 1
_PORTION = 1 << 16  # channels that are written at once
# The keys of a line of a check that are not those of the checkpoint.
_OF_LINE = ("schema_version", "tool", "event", "settings", "state", "known", "names")


def schema_text() -> str:
    """Return the JSON Schema (draft 2020-12) of every document written here: `schema.json`."""
    from importlib.resources import files

    return files("bninspect.reporters").joinpath("schema.json").read_text(encoding="utf-8")


class JsonReport:
    """Writer of a report, each checkpoint as it arrives; without `findings` for `list`.

    `summary.baseline` is present if a baseline was used; its `gone` is null if not everything could
    be read. `summary.interrupted` is present, and true, if not all named checkpoints were read.
    """

    needs_layers = True
    needs_checkpoints = True

    def __init__(self, stream: TextIO, *, findings: bool = True) -> None:
        self._stream, self._findings = stream, findings
        self._begun, self._first = False, True
        self.render = partial(_indented, findings=findings)

    def add(self, _: CheckpointReport, document: str) -> None:
        """Write one checkpoint."""
        self._begin()
        self._stream.write(("" if self._first else ",") + document)
        self._first = False

    def end(self, report: Report) -> None:
        """Write the end of the document: notes and counts."""
        self._begin()
        document: dict[str, Any] = {"notes": list(report.notes)} if self._findings else {}
        document["summary"] = _summary(report, findings=self._findings)
        tail = json_text(document, indent=1).removeprefix("{")
        self._stream.write(("" if self._first else "\n ") + f"],{tail}\n")

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            head = json_text(heading(), indent=1).removesuffix("\n}")
            self._stream.write(f'{head},\n "checkpoints": [')


def _indented(item: CheckpointReport, *, findings: bool) -> str:
    """Return the document of a checkpoint as it stands in the list of all."""
    document = json_text(_checkpoint(item, findings=findings), indent=1)
    return "\n  " + document.replace("\n", "\n  ")


def write_json(report: Report, stream: TextIO, *, findings: bool = True) -> None:
    """Write a whole report; `findings` is that of `JsonReport`."""
    writer = JsonReport(stream, findings=findings)
    for item in report.checkpoints:
        writer.add(item, writer.render(item))
    writer.end(report)


class CheckLines:
    """Writer of a check as JSON Lines: one document per checkpoint, at last a `summary`.

    `settings` name the options that the results depend on. A result of an earlier run is written as
    it was then; with `appends` it is in the file already.
    """

    needs_layers = True
    needs_checkpoints = False

    def __init__(self, stream: TextIO, settings: str, *, appends: bool = False) -> None:
        self._stream = stream
        self.render = partial(_line_of, settings=settings, appends=appends)

    def add(self, _: CheckpointReport, line: str) -> None:
        """Write the line of one checkpoint."""
        if line:
            self._stream.write(line)
            self._stream.flush()

    def end(self, report: Report) -> None:
        """Write the line of the summary: notes and counts."""
        summary = _summary(report, findings=True)
        document = {"event": "summary", "notes": list(report.notes), "summary": summary}
        _write_line(document, self._stream)


def _line_of(item: CheckpointReport, *, settings: str, appends: bool) -> str:
    """Return the line of a checkpoint; nothing if the file that is written has it already."""
    if item.line is not None:
        return "" if appends else item.line + "\n"
    head = {"event": "checkpoint", "settings": settings, "state": item.state}
    more = {
        "known": [finding_document(finding, whole=False) for finding in item.known],
        "names": list(item.example_names),
    }
    return _checkpoint_text(item, head, more) + "\n"


class JsonLines:
    """Writer of a watch as JSON Lines: one document per checkpoint, at last a `summary`.

    `event` is the kind of the line, `time` when it was written (ISO 8601, with the offset to UTC).
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def add(self, item: CheckpointReport, moment: datetime) -> None:
        """Write the line of one checkpoint."""
        self._write("checkpoint", moment, _checkpoint(item, findings=True))

    def end(self, conclusion: Conclusion, moment: datetime) -> None:
        """Write the line of the summary: how the watch ended, notes and counts."""
        tally = conclusion.tally
        summary: dict[str, Any] = {
            "checkpoints": tally.checkpoints + len(tally.unreadable),
            "layers": tally.layers,
            "errors": tally.findings["error"],
            "warnings": tally.findings["warning"],
            "notes": tally.findings["note"],
            "unreadable": len(tally.unreadable),
            "suppressed": tally.suppressed,
        }
        if conclusion.baseline is not None:
            summary["baseline"] = conclusion.baseline._asdict()
        document = {
            "directory": conclusion.directory,
            "ended": conclusion.ended,
            "seconds": round(conclusion.seconds, 3),
            "unchecked": list(conclusion.unchecked),
            "notes": list(conclusion.notes),
            "summary": summary,
        }
        self._write("summary", moment, document)

    def _write(self, event: str, moment: datetime, document: dict[str, Any]) -> None:
        head = {"event": event, "time": moment.isoformat(timespec="milliseconds")}
        _write_line(head | document, self._stream)


def write_dump_json(dumps: Sequence[Dump], stream: TextIO, *, several: bool = False) -> None:
    """Write the values of some layers, with what inference does with them.

    Those of one checkpoint are the document; of several they are its `checkpoints`. Each array is
    one line, written in portions: there may be a million channels.
    """
    from uuid import uuid4

    arrays: list[NDArray[Any] | None] = []
    mark = uuid4().hex  # stands for an array, and in no file

    def layer_document(layer: BNLayer, result: Inference) -> dict[str, Any]:
        values = {}
        for name, array in columns(layer, result).items():
            values[name] = f"{mark}{len(arrays)}"
            arrays.append(array)
        return _layer(layer) | {
            "epsilon_used": result.epsilon,
            "caution": result.caution,
            "values": values,
        }

    written = [
        {
            "path": report.path,
            "resolved": report.resolved,
            "format": report.format,
            "step": report.step,
            "layers": [layer_document(layer, result) for layer, result in layers],
        }
        for report, layers in dumps
    ]
    document = heading() | ({"checkpoints": written} if several else written[0])
    frame, *parts = json_text(document, indent=1).split(f'"{mark}')
    stream.write(frame)
    for array, part in zip(arrays, parts, strict=True):
        _write_array(array, stream)
        stream.write(part.partition('"')[2])
    stream.write("\n")


def _write_array(array: NDArray[Any] | None, stream: TextIO) -> None:
    """Write the values of an array of shape (C,) as JSON, null for None."""
    import numpy as np

    if array is None:
        stream.write("null")
        return
    stream.write("[")
    for start in range(0, array.size, _PORTION):
        portion = array[start : start + _PORTION].astype("f8")
        finite = bool(np.isfinite(portion).all())
        values = portion.tolist() if finite else [number(value) for value in portion.tolist()]
        stream.write((", " if start else "") + json.dumps(values)[1:-1])
    stream.write("]")


def write_config_json(config: Config, rules: Sequence[Rule], stream: TextIO) -> None:
    """Write a configuration: `file`, `values` with their `sources`, the codes of `rules`."""
    from bninspect.reporters.config_text import config_document

    write_document(heading() | config_document(config, rules), stream)


def write_document(document: dict[str, Any], stream: TextIO) -> None:
    """Write one JSON document."""
    stream.write(json_text(document, indent=1) + "\n")


def _write_line(document: dict[str, Any], stream: TextIO) -> None:
    """Write a document in one line, and flush it for whoever follows the file."""
    stream.write(json_text(heading() | document) + "\n")
    stream.flush()


def heading() -> dict[str, Any]:
    """Return the keys with which every document begins."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "bninspect", "version": __version__},
    }


def _checkpoint(item: CheckpointReport, *, findings: bool, whole: bool = True) -> dict[str, Any]:
    """Return the document of a checkpoint.

    Unless `whole`, it has an empty list of layers, and so has each finding of possible causes.
    """
    if item.line is not None:  # the result of an earlier run: there is nothing else left of it
        written = json.loads(item.line)
        return {key: value for key, value in written.items() if key not in _OF_LINE}
    document = opened(item)
    notes, error = document.pop("notes"), document.pop("error")
    document["layers"] = [_layer(layer) for layer in item.layers] if whole else []
    if item.computations is not None:
        for layer in document["layers"]:
            layer["graph"] = _computation(item.computations.get(layer["name"]))
    if findings:
        document["findings"] = [finding_document(one, whole=whole) for one in item.findings]
        since = item.since
        document["since"] = since and {
            "path": since.path,
            "step": since.step,
            "compared": since.layers,
        }
        document["suppressed"] = [_suppressed(one, whole=whole) for one in item.suppressed]
    document["unchecked"] = [
        {"name": group.name, "variables": list(group.variables), "reason": group.reason}
        for group in item.unchecked
    ]
    return document | {"notes": notes, "error": error}


def opened(item: CheckpointReport) -> dict[str, Any]:
    """Return the keys about the opened file, or about the error; without layers."""
    error = item.error
    return {
        "path": item.path,
        "resolved": item.resolved,
        "format": item.format,
        "step": item.step,
        "variables": item.variable_count,
        "verified": item.verified,
        "notes": list(item.notes),
        "error": error
        and {
            "kind": error.kind,
            "message": f"{error.path}: {error.message}",
            "hint": error.hint,
        },
    }


class _LayerHead(NamedTuple):
    """The keys of a layer before its statistics; `variables` has the stored names by `ROLES`."""

    name: str
    family: str
    channels: int | None
    dtype: str | None
    momentum: float | None
    epsilon: float | None
    trainable: bool | None
    variables: tuple[str | None, ...]


def _head_of(layer: BNLayer) -> _LayerHead:
    names = tuple(layer.variables[role].name if role in layer.variables else None for role in ROLES)
    return _LayerHead(
        layer.name,
        layer.family,
        layer.channels,
        layer.dtype,
        layer.momentum,
        layer.epsilon,
        layer.trainable,
        names,
    )


def _head_document(head: _LayerHead) -> dict[str, Any]:
    return head._asdict() | {"variables": dict(zip(ROLES, head.variables, strict=True))}


def _layer(layer: BNLayer) -> dict[str, Any]:
    statistics = {role: _statistic(layer.values.get(role)) for role in STATISTICS}
    return _head_document(_head_of(layer)) | {"statistics": statistics}


def _computation(computation: Computation | None) -> dict[str, Any] | None:
    """Return how training computes a layer, null where nothing is stored that says it."""
    if computation is None:
        return None
    before, proof = computation.before, computation.proof
    updates, conditions = computation.updates, computation.conditions
    return computation._asdict() | {
        "before": before and before._asdict(),
        "proof": proof and proof._asdict(),
        "updates": None if updates is None else [update._asdict() for update in updates],
        "conditions": None if conditions is None else [_condition(one) for one in conditions],
    }


def _condition(condition: Condition) -> dict[str, Any]:
    """Return what decides whether updates change anything; its numbers need not be finite."""
    return condition._asdict() | {
        key: number(value) if isinstance(value, float) else value
        for key, value in (("value", condition.value), ("bound", condition.bound))
    }


def _checkpoint_text(item: CheckpointReport, head: dict[str, Any], more: dict[str, Any]) -> str:
    """Return the document of a checkpoint, between `head` and `more`, in one line.

    Many checkpoints of a run have the same layers: what does not depend on values is written once.
    """
    document = heading() | head | _checkpoint(item, findings=True, whole=False) | more
    frame = _with_possible_causes(json_text(document), item)
    if isinstance(item.layers, LayerViews):
        layers = _frame(item.layers.architecture) % tuple(item.layers.statistics())
    else:
        layers = ",".join(map(_layer_text, item.layers))
    # No text in the document can hold a quotation mark that is not escaped.
    return frame.replace('"layers":[]', f'"layers":[{layers}]', 1)


def _with_possible_causes(text: str, item: CheckpointReport) -> str:
    """Return the document of a checkpoint with the possible causes of its findings."""
    suppressed = (one.finding for one in item.suppressed)
    findings = (*item.findings, *suppressed, *item.known)
    if not findings:
        return text
    head, *rest = text.split('"possible_causes":[]')
    return head + "".join(
        f'"possible_causes":{_causes_text(finding.possible_causes)}{part}'
        for finding, part in zip(findings, rest, strict=True)
    )


@lru_cache(maxsize=256)
def _causes_text(causes: tuple[PossibleCause, ...]) -> str:
    return json_text([_possible_cause(cause) for cause in causes])


@lru_cache(maxsize=64)
def _frame(architecture: Architecture) -> str:
    """Return the documents of layers whose statistics are not initial, %r for each number."""
    statistic = '{"min":%r,"max":%r,"mean":%r,"at_initial":0}'
    statistics = ",".join(f'"{role}":{statistic}' for role in STATISTICS)
    texts = (_head_text(_head_of(layer)) for layer in architecture.layers)
    heads = (text.replace("%", "%%") for text in texts)
    return ",".join(f'{head},"statistics":{{{statistics}}}}}' for head in heads)


def _layer_text(layer: BNLayer) -> str:
    """Return the document of a layer as text."""
    statistics = ",".join(
        f'"{role}":{_statistic_text(layer.values.get(role))}' for role in STATISTICS
    )
    return f'{_head_text(_head_of(layer))},"statistics":{{{statistics}}}}}'


@lru_cache(maxsize=1 << 14)
def _head_text(head: _LayerHead) -> str:
    """Return the document of a layer up to its statistics, as text that is to be continued."""
    return json_text(_head_document(head))[:-1]


def _statistic_text(values: Values | None) -> str:
    if values is None or values.at_initial is None or values.not_finite or not values.channels:
        return json_text(_statistic(values))
    low, high, mean = values.minimum, values.maximum, values.mean
    return f'{{"min":{low!r},"max":{high!r},"mean":{mean!r},"at_initial":{values.at_initial}}}'


def _statistic(values: Values | None) -> dict[str, Any] | None:
    if values is None:
        return None
    return {
        "min": number(values.minimum),
        "max": number(values.maximum),
        "mean": number(values.mean),
        "at_initial": values.at_initial,
    }


def finding_document(finding: Finding, *, whole: bool = True) -> dict[str, Any]:
    """Return a finding for JSON; its list of possible causes is empty unless it is `whole`."""
    causes = finding.possible_causes if whole else ()
    return {
        "rule": finding.rule.code,
        "name": finding.rule.name,
        "severity": finding.severity,
        "layer": finding.layer,
        "message": finding.message,
        "cause": finding.cause,
        "evidence": list(finding.evidence),
        "fix": finding.fix,
        "possible_causes": [_possible_cause(cause) for cause in causes],
        "framework": finding.framework,
    }


def _possible_cause(suspect: PossibleCause) -> dict[str, str]:
    """Return a suspect for JSON."""
    return {
        "cause": suspect.cause,
        "for": suspect.speaks_for,
        "tells_apart": suspect.tells_apart,
        "test": suspect.test,
    }


def _suppressed(suppressed: Suppressed, *, whole: bool) -> dict[str, Any]:
    """Return a suppressed finding, with its suppression and the day on which that expires."""
    layer, rules, reason, expires, _ = suppressed.suppression
    suppression = {
        "reason": reason,
        "expires": None if expires is None else expires.isoformat(),
        "layer": layer,
        "rules": list(rules),
    }
    document = finding_document(suppressed.finding, whole=whole)
    return document | {"suppression": suppression}


def _summary(report: Report, *, findings: bool) -> dict[str, Any]:
    summary: dict[str, Any] = {"checkpoints": len(report.checkpoints), "layers": report.layer_count}
    if findings:
        summary |= {
            "errors": report.count("error"),
            "warnings": report.count("warning"),
            "notes": report.count("note"),
        }
    summary["unreadable"] = report.unreadable
    if findings:
        summary["suppressed"] = report.suppressed
    if report.baseline is not None:
        summary["baseline"] = report.baseline._asdict()
    if report.interrupted:
        summary["interrupted"] = True
    return summary


def number(value: float) -> float | str:
    """Return a number for JSON; NaN and infinities as the strings that JavaScript calls them by."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
