"""Checkpoints that are judged by the layout of another: the same reports as in the ordinary way."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bninspect.config.model import Config, make_config
from bninspect.model.report import CheckpointReport
from bninspect.opening import find_checkpoints
from bninspect.runs import known_layouts
from bninspect.runs.known_layouts import KnownLayouts
from bninspect.runs.run import check_paths
from tests.conftest import FIXTURES, Run
from tests.support.table_writer import shard_path, write_bundle

CHANNELS = 3
Arrays = dict[str | bytes, np.ndarray]


class Collector:
    """An observer that keeps all reports."""

    needs_checkpoints = False

    def __init__(self, *, needs_layers: bool) -> None:
        self.needs_layers = needs_layers
        self.reports: list[CheckpointReport] = []

    def begin(self, total: int) -> None:
        """Nothing is counted."""

    def add(self, item: CheckpointReport) -> None:
        """Keep the report."""
        self.reports.append(item)


@pytest.fixture
def by_layout(monkeypatch: pytest.MonkeyPatch) -> Counter[bool]:
    """How many checkpoints were judged by a known layout, and how many were not."""
    counts: Counter[bool] = Counter()
    ordinary = KnownLayouts.report

    def counted(*arguments: Any, **options: Any) -> CheckpointReport | None:
        report = ordinary(*arguments, **options)
        counts[report is not None] += 1
        return report

    monkeypatch.setattr(KnownLayouts, "report", counted)
    return counts


def facts(report: CheckpointReport) -> tuple[Any, ...]:
    return (
        report.path,
        report.resolved,
        report.format,
        report.step,
        report.verified,
        report.variable_count,
        report.layer_count,
        tuple((f.rule.code, f.severity, f.layer, *f[3:]) for f in report.findings),
        report.notes,
        report.unchecked,
        None if report.error is None else (type(report.error), str(report.error)),
        report.since,
        report.training,
    )


def assert_same_reports(paths: list[Path], config: Config) -> None:
    """Check all together, with and without layers, and each alone: the same must be said."""
    alone = [check_paths([path], config).checkpoints[0] for path in paths]
    for needs_layers in (False, True):
        together = Collector(needs_layers=needs_layers)
        check_paths(paths, config, together)
        assert list(map(facts, together.reports)) == list(map(facts, alone))
        if needs_layers:
            assert list(map(layers_of, together.reports)) == list(map(layers_of, alone))


def layers_of(report: CheckpointReport) -> list[Any]:
    """Everything that is known of the layers; the text of an array is equal where NaN is."""
    return [
        (
            layer.name,
            layer.family,
            layer.channels,
            layer.dtype,
            layer.momentum,
            layer.epsilon,
            layer.trainable,
            [(role, variable[:3]) for role, variable in layer.variables.items()],
            [
                (role, values.array.tobytes(), repr(values[1:]), repr(values.mean))
                for role, values in layer.values.items()
            ],
            layer.training,
            layer.may_be_optimized,
        )
        for layer in report.layers
    ]


# --- Checkpoints ----------------------------------------------------------------------------------

STRUCTURES = (
    "usual",
    "no-step",
    "adam",
    "slots",
    "slots-of-statistics",
    "half",
    "shadows",
    "step32",
)


def healthy(structure: str, step: int, seed: int) -> Arrays:
    """The variables of two BN layers after a training that went well."""
    random = np.random.default_rng(seed)
    arrays: Arrays = {"dense/kernel": random.normal(size=7).astype("f4")}
    for name in ("net/bn_1", "net/bn_2"):
        dtype = "f2" if structure == "half" else "f4"
        arrays |= {
            f"{name}/beta": random.normal(size=CHANNELS).astype("f4"),
            f"{name}/gamma": random.uniform(0.5, 1.5, CHANNELS).astype("f4"),
            f"{name}/moving_mean": (1 + random.uniform(0, 1, CHANNELS)).astype(dtype),
            f"{name}/moving_variance": random.uniform(0.01, 0.04, CHANNELS).astype(dtype),
        }
        slot = np.ones(CHANNELS, "f4")
        if structure == "slots":
            arrays[f"{name}/gamma/Momentum"] = slot
        if structure == "slots-of-statistics":
            arrays[f"{name}/moving_variance/Momentum"] = slot
        if structure == "shadows":
            arrays[f"{name}/moving_mean/ExponentialMovingAverage"] = slot
    if structure == "adam":
        powers = {"beta1_power": 0.9 ** (step + 1), "beta2_power": 0.999 ** (step + 1)}
        arrays |= {name: np.array(value, "f4") for name, value in powers.items()}
    if structure not in ("no-step", "adam"):
        arrays["global_step"] = np.array(step, "i4" if structure == "step32" else "i8")
    return arrays


def set_values(arrays: Arrays, leaf: str, value: float, channels: slice = slice(None)) -> None:
    for name in arrays:
        if str(name).endswith(leaf):
            arrays[name] = arrays[name].copy()
            arrays[name][channels] = value


ONE = slice(0, 1)
MUTATIONS: Mapping[str, Any] = {
    "none": lambda _: None,
    "stuck": lambda a: (set_values(a, "moving_mean", 0), set_values(a, "moving_variance", 1)),
    "mean-zero": lambda a: set_values(a, "moving_mean", 0),
    "one-mean-zero": lambda a: set_values(a, "moving_mean", -0.0, ONE),
    "variance-one": lambda a: set_values(a, "moving_variance", 1),
    "one-variance-one": lambda a: set_values(a, "moving_variance", 1, ONE),
    "one-value": lambda a: set_values(a, "moving_variance", 0.99**60),
    "dead": lambda a: (
        set_values(a, "moving_mean", 0, ONE),
        set_values(a, "moving_variance", 0, ONE),
    ),
    "collapsed": lambda a: set_values(a, "moving_variance", 1e-20, ONE),
    "negative": lambda a: set_values(a, "moving_variance", -0.5, ONE),
    "exploded": lambda a: set_values(a, "moving_variance", 1e10, ONE),
    "large": lambda a: set_values(a, "moving_variance", 100.0),
    "nan-mean": lambda a: set_values(a, "moving_mean", np.nan, ONE),
    "nan-variance": lambda a: set_values(a, "moving_variance", np.nan),
    "inf-gamma": lambda a: set_values(a, "gamma", np.inf, ONE),
    "nan-beta": lambda a: set_values(a, "beta", np.nan, ONE),
    "near-start": lambda a: (
        set_values(a, "moving_mean", 0.1),
        set_values(a, "moving_variance", 0.9),
        set_values(a, "moving_variance", 0.8, ONE),
    ),
    # Just above the limit of BN106, which float32 rounds to this number.
    "hardly-cold": lambda a: (
        set_values(a, "moving_variance", 0.06),
        set_values(a, "moving_variance", 0.05, ONE),
    ),
    "cold": lambda a: (
        set_values(a, "moving_variance", 0.6),
        set_values(a, "moving_variance", 0.7, ONE),
    ),
}
DAMAGES = ("none", "none", "none", "shard-cut", "shard-gone", "shard-byte", "index-byte", "graph")


def damage(prefix: Path, how: str, place: int) -> None:
    shard, index = shard_path(prefix, 0, 1), Path(f"{prefix}.index")
    if how == "shard-cut":
        shard.write_bytes(shard.read_bytes()[: place % 80])
    elif how == "shard-gone":
        shard.unlink()
    elif how in ("shard-byte", "index-byte"):
        path = shard if how == "shard-byte" else index
        content = bytearray(path.read_bytes())
        content[place % len(content)] ^= 0x40
        path.write_bytes(bytes(content))
    elif how == "graph":
        Path(f"{prefix}.meta").write_bytes(b"no graph")


checkpoints = st.lists(
    st.tuples(
        st.one_of(st.just("none"), st.sampled_from(sorted(MUTATIONS))),
        st.sampled_from(DAMAGES),
        st.integers(0, 10_000),
        st.sampled_from([0, 60, 1000, 50_000, -1]),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.slow
def test_the_report_is_that_of_the_ordinary_way(by_layout: Counter[bool]) -> None:
    @settings(max_examples=300, deadline=None)
    @given(st.sampled_from(STRUCTURES), checkpoints, st.sampled_from([None, 0.9, 0.9999, 0.0]))
    def compare(structure: str, drawn: list[tuple[Any, ...]], momentum: float | None) -> None:
        folder = Path(tempfile.mkdtemp())
        paths = [folder / f"run_{number}" / "model.ckpt" for number in range(len(drawn) + 2)]
        for number, path in enumerate(paths):
            path.parent.mkdir()
            mutation, how, place, step = ("none", "none", 0, 1000)
            if number > 1:
                mutation, how, place, step = drawn[number - 2]
            arrays = healthy(structure, step, number)
            MUTATIONS[mutation](arrays)
            write_bundle(path, arrays)
            damage(path, how, place)
        try:
            assert_same_reports(paths, make_config(momentum=momentum))
        finally:
            shutil.rmtree(folder)

    compare()
    assert by_layout[True] > 100
    assert by_layout[False] > 100


@pytest.mark.parametrize("structure", ["usual", "no-step", "slots", "step32"])
def test_plain_checkpoints_are_judged_by_the_layout_of_the_second(
    tmp_path: Path, by_layout: Counter[bool], structure: str
) -> None:
    paths = [tmp_path / f"run_{number}" / "model.ckpt" for number in range(5)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        write_bundle(path, healthy(structure, 1000, number))
    assert_same_reports(paths, make_config())
    assert by_layout == {False: 4, True: 6}


@pytest.mark.parametrize("mutation", sorted(MUTATIONS.keys() - {"none", "large"}))
def test_what_a_rule_may_speak_of_is_examined_layer_by_layer(
    tmp_path: Path, by_layout: Counter[bool], mutation: str
) -> None:
    paths = [tmp_path / f"run_{number}" / "model.ckpt" for number in range(3)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        arrays = healthy("usual", 60, number)
        if number == 2:
            MUTATIONS[mutation](arrays)
        write_bundle(path, arrays)
    assert_same_reports(paths, make_config())
    assert by_layout == {False: 6}


def test_two_architectures_with_indexes_of_one_size_are_told_apart(
    tmp_path: Path, by_layout: Counter[bool]
) -> None:
    paths = [tmp_path / f"run_{number}" / "model.ckpt" for number in range(8)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        arrays = healthy("usual", 1000, number)
        if number % 2:
            arrays = {str(name).replace("bn_1", "bn_3"): arrays[name] for name in arrays}
        write_bundle(path, arrays)
    assert len({Path(f"{path}.index").stat().st_size for path in paths}) == 1
    assert_same_reports(paths, make_config())
    assert by_layout[True] >= 8


def test_checkpoints_that_are_not_plain_leave_the_other_layouts_known(
    tmp_path: Path, by_layout: Counter[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_layouts, "_MOST_LAYOUTS", 2)
    paths = [tmp_path / f"run_{number}" / "model.ckpt" for number in range(9)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        is_stuck = 2 <= number < 8
        arrays = healthy("adam" if is_stuck else "usual", 1000, number)
        if is_stuck:
            arrays["global_step"] = np.array(1000, "i8")
            MUTATIONS["stuck"](arrays)
        write_bundle(path, arrays)
    check_paths(paths, make_config(), Collector(needs_layers=False))
    assert by_layout == {False: 8, True: 1}


def test_threads_share_the_layouts_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a worker of a Dask cluster do."""
    monkeypatch.setattr(known_layouts, "_MOST_LAYOUTS", 2)
    config, layouts = make_config(), KnownLayouts()
    locations = []
    for number in range(12):
        path = tmp_path / f"run_{number}" / "model.ckpt"
        path.parent.mkdir()
        arrays = healthy("usual", 1000, number)
        arrays |= {f"other_{extra}": np.ones(1, "f4") for extra in range(number)}
        write_bundle(path, arrays)
        locations += find_checkpoints(str(path))

    def examine_some(first: int) -> None:
        for number in range(300):
            location = locations[(first + number * 5) % len(locations)]
            if layouts.report(location, config, with_values=False) is None:
                layouts.learn(location, config)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # seconds: threads change within nearly every statement
    try:
        with ThreadPoolExecutor(8) as threads:
            for examined in [threads.submit(examine_some, first) for first in range(8)]:
                examined.result()
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("stem", ["keras2_ckpt_legacy_correct", "tf1_layers_correct"])
def test_copies_of_a_fixture_are_passed_like_the_fixture(
    tmp_path: Path, run: Run, by_layout: Counter[bool], stem: str
) -> None:
    for number in range(4):
        shutil.copytree(FIXTURES / stem, tmp_path / f"run_{number}")
    outcome = run("check", tmp_path, "--momentum", "0.5")
    assert outcome.exit_code == 0
    assert by_layout == {False: 2, True: 2}
    verdicts = [line for line in outcome.out.splitlines() if " BN layers, no finding" in line]
    assert len(verdicts) == 4
    assert len({line.rpartition(":")[2] for line in verdicts}) == 1


def test_a_rule_that_has_not_said_so_is_asked_of_each_layer(
    tmp_path: Path, by_layout: Counter[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    import bninspect.rules

    first, *others = bninspect.rules.RULES
    monkeypatch.setattr(bninspect.rules, "RULES", (first._replace(passes_plain=False), *others))
    paths = [tmp_path / f"run_{number}" / "model.ckpt" for number in range(3)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        write_bundle(path, healthy("usual", 1000, number))
    assert_same_reports(paths, make_config())
    assert not by_layout


def test_json_lines_are_those_of_each_checkpoint_alone(
    tmp_path: Path, run: Run, by_layout: Counter[bool]
) -> None:
    paths = [tmp_path / f"run_{number}" / "model.ckpt" for number in range(6)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        arrays = healthy("usual", 1000, number)
        if number == 4:
            MUTATIONS["nan-mean"](arrays)
        write_bundle(path, arrays)
    together = run("check", *paths, "--format", "jsonl").out.splitlines()[:-1]
    assert by_layout == {False: 3, True: 3}
    alone = [run("check", path, "--format", "jsonl").out.splitlines()[0] for path in paths]
    assert together == alone
    document = run("check", *paths, "--format", "json").json
    lines = [json.loads(line) for line in together]
    assert [line["layers"] for line in lines] == [c["layers"] for c in document["checkpoints"]]
