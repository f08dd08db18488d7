"""Checkpoints that are judged by the layout of another: the same reports as in the ordinary way."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bninspect.config.model import Config, make_config
from bninspect.model.report import CheckpointReport
from bninspect.opening import find_checkpoints
from bninspect.rules import RULES
from bninspect.runs import known_layout, known_layouts
from bninspect.runs.known_layout import KnownLayout
from bninspect.runs.known_layouts import KnownLayouts
from bninspect.runs.one_checkpoint import EarlierReports, Wanted
from bninspect.runs.run import check_paths
from tests.conftest import FIXTURES, Run
from tests.support.compared_reports import Collector, assert_same_reports, facts, layers_of
from tests.support.table_writer import shard_path, write_bundle

CHANNELS = 3
Arrays = dict[str | bytes, np.ndarray]


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
            with np.errstate(over="ignore"):  # a float16 is infinite then
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
def test_the_report_is_that_of_the_ordinary_way(ways: Counter[str]) -> None:
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
    assert all(ways[way] > 100 for way in ("plain", "by layer", "ordinary"))


@pytest.mark.parametrize("structure", ["usual", "no-step", "slots", "step32"])
def test_plain_checkpoints_are_judged_by_the_layout_of_the_second(
    tmp_path: Path, ways: Counter[str], structure: str
) -> None:
    paths = [tmp_path / f"run_{number}" / "model.ckpt" for number in range(5)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        write_bundle(path, healthy(structure, 1000, number))
    assert_same_reports(paths, make_config())
    assert ways == {"ordinary": 6, "plain": 9}


@pytest.mark.parametrize("mutation", sorted(MUTATIONS.keys() - {"none", "large"}))
def test_what_a_rule_may_speak_of_is_judged_layer_by_layer(
    tmp_path: Path, ways: Counter[str], mutation: str
) -> None:
    paths = [tmp_path / f"run_{number}" / "model.ckpt" for number in range(3)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        arrays = healthy("usual", 60, number)
        if number == 2:
            MUTATIONS[mutation](arrays)
        write_bundle(path, arrays)
    assert_same_reports(paths, make_config())
    assert ways == {"ordinary": 6, "by layer": 3}


@pytest.mark.parametrize(("momentum", "way"), [(0.9, "plain"), (0.9999, "by layer")])
def test_a_note_for_want_of_a_step_is_that_of_the_ordinary_way(
    tmp_path: Path, ways: Counter[str], momentum: float, way: str
) -> None:
    paths = [tmp_path / f"run_{number}" / "model.ckpt" for number in range(3)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        arrays = healthy("no-step", 60, number)
        MUTATIONS["cold"](arrays)
        write_bundle(
            path, arrays | {f"net/bn_{n}/gamma/Momentum": np.ones(3, "f4") for n in (1, 2)}
        )
    assert_same_reports(paths, make_config(momentum=momentum))
    assert ways == {"ordinary": 6, way: 3}


def test_two_architectures_with_indexes_of_one_size_are_told_apart(
    tmp_path: Path, ways: Counter[str]
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
    assert ways["plain"] >= 12


def test_layouts_that_no_other_checkpoint_has_are_learned_a_few_times(
    tmp_path: Path, ways: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their indexes have one size, so that each looks like one that is known."""
    learned = counted_learning(monkeypatch)
    paths = [tmp_path / f"run_{number}" / "model.ckpt" for number in range(10)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        write_bundle(path, healthy("usual", 1000, number) | {f"other_{number}": np.ones(1, "f4")})
    assert len({Path(f"{path}.index").stat().st_size for path in paths}) == 1
    check_paths(paths, make_config(), Collector(needs_layers=False))
    assert ways == {"ordinary": 10}
    assert len(learned) == 3
    assert all(learned)


@pytest.mark.parametrize("structure", ["half", "adam"])
def test_layouts_that_cannot_be_learned_are_tried_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, structure: str
) -> None:
    """Learning one takes nearly as long as a check."""
    learned = counted_learning(monkeypatch)
    paths = [tmp_path / f"run_{number}" / "model.ckpt" for number in range(10)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        write_bundle(path, healthy(structure, 1000, number))
    check_paths(paths, make_config(), Collector(needs_layers=False))
    assert learned == [None, None, None]


def test_no_layout_is_learned_where_names_are_those_of_patterns(
    tmp_path: Path, ways: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = counted_learning(monkeypatch)
    paths = [tmp_path / f"run_{number}" / "model.ckpt" for number in range(4)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        write_bundle(path, healthy("usual", 1000, number))
    assert_same_reports(paths, make_config(patterns="moving_mean=/no_such_name$"))
    assert ways == {}
    assert learned == []


def counted_learning(monkeypatch: pytest.MonkeyPatch) -> list[KnownLayout | None]:
    """Return the list that will hold what is learned, of 3 layouts of a size at most."""
    learned: list[KnownLayout | None] = []
    learn = known_layout.learn

    def counted(*arguments: Any) -> KnownLayout | None:
        learned.append(learn(*arguments))
        return learned[-1]

    monkeypatch.setattr(known_layout, "learn", counted)
    monkeypatch.setattr(known_layouts, "_FIRST_OF_A_SIZE", 3)
    monkeypatch.setattr(known_layouts, "_MOST_OF_A_SIZE", 3)
    return learned


def test_layouts_of_large_indexes_are_dropped_sooner(
    tmp_path: Path, ways: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"run_{number}" / "model.ckpt" for number in range(9)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        structure = ("usual", "no-step", "slots")[number // 2 % 3]
        write_bundle(path, healthy(structure, 1000, number))
    largest = max(Path(f"{path}.index").stat().st_size for path in paths)
    monkeypatch.setattr(known_layouts, "_MOST_BYTES", largest)
    check_paths(paths, make_config(), Collector(needs_layers=False))
    # The seventh finds its layout dropped and gives it to the eighth; the ninth has none again.
    assert ways == {"ordinary": 8, "plain": 1}


def test_checkpoints_that_are_not_plain_leave_the_other_layouts_known(
    tmp_path: Path, ways: Counter[str], monkeypatch: pytest.MonkeyPatch
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
    assert ways == {"ordinary": 4, "by layer": 4, "plain": 1}


def test_threads_share_the_layouts_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a worker of a Dask cluster do."""
    monkeypatch.setattr(known_layouts, "_MOST_LAYOUTS", 2)
    config, layouts = make_config(), KnownLayouts()
    wanted = Wanted(config, RULES, values=False, variables=False, passes_plain=True)
    alone = EarlierReports(None, None)
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
            if layouts.report(location, wanted, alone) is None:
                layouts.learn(location)

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
    tmp_path: Path, run: Run, ways: Counter[str], stem: str
) -> None:
    for number in range(4):
        shutil.copytree(FIXTURES / stem, tmp_path / f"run_{number}")
    outcome = run("check", tmp_path, "--momentum", "0.5")
    assert outcome.exit_code == 0
    assert ways == {"ordinary": 2, "plain": 2}
    verdicts = [line for line in outcome.out.splitlines() if " BN layers, no finding" in line]
    assert len(verdicts) == 4
    assert len({line.rpartition(":")[2] for line in verdicts}) == 1


def test_a_rule_that_has_not_said_so_is_asked_of_each_layer(
    tmp_path: Path, ways: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import bninspect.rules

    first, *others = bninspect.rules.RULES
    monkeypatch.setattr(bninspect.rules, "RULES", (first._replace(passes_plain=False), *others))
    paths = [tmp_path / f"run_{number}" / "model.ckpt" for number in range(3)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        write_bundle(path, healthy("usual", 1000, number))
    assert_same_reports(paths, make_config())
    assert ways == {"ordinary": 6, "by layer": 3}


def test_json_lines_are_those_of_each_checkpoint_alone(
    tmp_path: Path, run: Run, ways: Counter[str]
) -> None:
    paths = [tmp_path / f"run_{number}" / "model.ckpt" for number in range(6)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        arrays = healthy("usual", 1000, number)
        if number == 4:
            MUTATIONS["nan-mean"](arrays)
        write_bundle(path, arrays)
    together = run("check", *paths, "--format", "jsonl").out.splitlines()[:-1]
    assert ways == {"ordinary": 2, "by layer": 1, "plain": 3}
    alone = [run("check", path, "--format", "jsonl").out.splitlines()[0] for path in paths]
    assert together == alone
    document = run("check", *paths, "--format", "json").json
    lines = [json.loads(line) for line in together]
    assert [line["layers"] for line in lines] == [c["layers"] for c in document["checkpoints"]]


def test_checkpoints_with_stored_configurations_are_examined_in_the_ordinary_way(
    tmp_path: Path, ways: Counter[str]
) -> None:
    for number in range(3):
        shutil.copytree(FIXTURES / "tf113_ckpt_config_json", tmp_path / f"run_{number}")
    assert_same_reports([tmp_path / f"run_{number}" / "weights" for number in range(3)], Config())
    assert ways == {"ordinary": 9}


# --- Trainings ------------------------------------------------------------------------------------


def write_training(folder: Path, structure: str, drawn: list[tuple[Any, ...]]) -> None:
    """Checkpoints of one training, of which some statistics stand still from a drawn place on."""
    still: Arrays = {}
    for number, (mutation, how, place, step, keeps) in enumerate(drawn):
        arrays = healthy(structure, step, number)
        MUTATIONS[mutation](arrays)
        if keeps:
            arrays |= {name: still[name] for name in arrays if name in still and keeps in str(name)}
        still = dict(arrays)
        path = folder / f"model.ckpt-{number}"
        write_bundle(path, arrays)
        damage(path, how, place)


def changes_of(report: CheckpointReport) -> list[Any]:
    return [
        (layer.name, None if layer.since is None else repr(layer.since[:3]))
        for layer in report.layers
    ]


@pytest.mark.slow
def test_a_training_is_compared_as_in_the_ordinary_way(
    ways: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = st.sampled_from(["", "moving", "bn_1", "gamma", "/"])
    drawn = st.tuples(
        st.sampled_from(["none", "none", *sorted(MUTATIONS)]),
        st.sampled_from(DAMAGES),
        st.integers(0, 10_000),
        st.sampled_from([1000, 2000, 60]),
        kept,
    )

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from(STRUCTURES), st.lists(drawn, min_size=2, max_size=4), st.booleans())
    def compare(structure: str, drawn: list[tuple[Any, ...]], trends: bool) -> None:
        folder = Path(tempfile.mkdtemp())
        first = [("none", "none", 0, step, "") for step in (10, 20)]
        write_training(folder, structure, [*first, *drawn])
        config = replace(make_config(all_checkpoints=True), trends=trends)
        try:
            with monkeypatch.context() as ordinary:
                ordinary.setattr(KnownLayouts, "report", lambda *_: None)
                expected = check_paths([folder], config).checkpoints
            followed = check_paths([folder], config).checkpoints
            assert list(map(facts, followed)) == list(map(facts, expected))
            assert list(map(layers_of, followed)) == list(map(layers_of, expected))
            assert list(map(changes_of, followed)) == list(map(changes_of, expected))
            assert [one.previous for one in followed] == [one.previous for one in expected]
        finally:
            shutil.rmtree(folder)

    compare()
    assert ways["by layer"] > 50
    assert not ways["plain"]


def test_checkpoints_are_compared_with_an_earlier_one_layer_by_layer(
    tmp_path: Path, run: Run, ways: Counter[str]
) -> None:
    earlier = healthy("usual", 1000, 7)
    write_bundle(tmp_path / "earlier", earlier)
    for number in range(5):
        arrays = healthy("usual", 2000, number)
        if number in (0, 4):
            arrays |= {name: earlier[name] for name in arrays if "moving" in str(name)}
        (tmp_path / f"run_{number}").mkdir()
        write_bundle(tmp_path / f"run_{number}" / "model.ckpt-2000", arrays)
    since = ("--since", tmp_path / "earlier")
    together = run("check", *(tmp_path / f"run_{n}" for n in range(5)), *since, "--format", "jsonl")
    assert ways == {"ordinary": 2, "by layer": 3}
    alone = [
        run("check", tmp_path / f"run_{n}", *since, "--format", "jsonl").out.splitlines()[0]
        for n in range(5)
    ]
    assert together.out.splitlines()[:-1] == alone
    assert [len(json.loads(line)["findings"]) > 0 for line in alone] == [True, *[False] * 3, True]
