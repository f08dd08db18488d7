"""`compare`, `check --since` and the history that `check --all-checkpoints` sees."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bninspect
from bninspect.evidence.changes import changes_between, match_layers
from bninspect.model.report import CheckpointReport
from bninspect.model.roles import ROLES
from bninspect.reporters.compare_text import write_comparison
from bninspect.reporters.text_utils import TextStyle
from bninspect.verdicts.comparison import Comparison, compare_checkpoints
from tests.conftest import FIXTURES, Run
from tests.support.layers_in_memory import bn
from tests.support.table_writer import write_bundle
from tests.support.work import LINEAR, growth

CORRECT = FIXTURES / "tf1_history_correct"
FORGOTTEN = FIXTURES / "tf1_history_forgotten"
STOPPED = FIXTURES / "tf1_history_stopped"
FROZEN = FIXTURES / "keras2_history_frozen"
FROZEN_WEIGHTS = FIXTURES / "keras3_history_weights"
EMPTY = FIXTURES / "tf1_lookalikes"
NAN, INF = float("nan"), float("inf")

MEAN, VARIANCE = (0.5, -1.0, 2.0), (4.0, 1.0, 0.25)
STATE = {"mean": MEAN, "variance": VARIANCE, "gamma": 1.5, "beta": 0.5}


def taken(*layers: Any, path: str = "model", step: int | None = None) -> CheckpointReport:
    """A checkpoint in memory with these layers."""
    return CheckpointReport(path=path, resolved=path, step=step, layers=layers)


def compared(*states: Any, steps: bool = True) -> Comparison:
    """A comparison of checkpoints, each given as its layers (or the arguments of its only one)."""
    return compare_checkpoints(
        [
            taken(
                *([bn(**state)] if isinstance(state, dict) else state),
                path=f"model-{number}",
                step=10 * number if steps else None,
            )
            for number, state in enumerate(states, 1)
        ]
    )


def codes(comparison: Comparison) -> list[tuple[str, str]]:
    return [(finding.layer, finding.rule.code) for finding in comparison.findings]


def shown(comparison: Comparison, **options: Any) -> str:
    stream = io.StringIO()
    write_comparison(comparison, stream, TextStyle(**options))
    return stream.getvalue()


def save(prefix: Path, step: int | None = None, **layers: dict[str, Any]) -> Path:
    """A TensorFlow checkpoint of these layers (name → member → values)."""
    variables: dict[str, Any] = {
        f"{layer}/{member}": np.asarray(values, np.float32)
        for layer, members in layers.items()
        for member, values in members.items()
    }
    if step is not None:
        variables["global_step"] = np.asarray(step, np.int64)
    write_bundle(str(prefix), variables)
    return prefix


def members(gamma: float, mean: float = 0.5) -> dict[str, Any]:
    return {"gamma": [gamma] * 2, "moving_mean": [mean, 1.0], "moving_variance": [0.5, 2.0]}


class TestRealTrainings:
    @pytest.mark.parametrize(
        ("path", "code", "first", "stretch"),
        [
            (CORRECT, 0, "PASS", None),
            (FORGOTTEN, 1, "FAIL", {"from": 0, "to": 2}),
            (STOPPED, 1, "FAIL", {"from": 1, "to": 2}),
        ],
    )
    def test_the_verdict(
        self, run: Run, path: Path, code: int, first: str, stretch: dict[str, int] | None
    ) -> None:
        outcome = run("compare", path)
        assert outcome.exit_code == code
        assert outcome.out.startswith(first)
        document = run("compare", path, "--format", "json").json
        assert [item["step"] for item in document["checkpoints"]] == [20, 40, 60]
        assert len(document["layers"]) == document["summary"]["compared"] == 3
        assert document["layers"]
        for layer in document["layers"]:
            ends = [{key: one[key] for key in ("from", "to")} for one in layer["stretches"]]
            assert ends == ([] if stretch is None else [stretch])
            assert layer["still_since"] == (None if stretch is None else stretch["from"])
        found = [(one["rule"], one["from"], one["to"]) for one in document["findings"]]
        assert found == ([] if stretch is None else [("BN107", *stretch.values())] * 3)

    @pytest.mark.framework
    @pytest.mark.parametrize("path", [CORRECT, STOPPED])
    def test_the_changes_are_those_of_the_values_that_tensorflow_reads(
        self, run: Run, path: Path
    ) -> None:
        import tensorflow as tf

        readers = [tf.train.load_checkpoint(str(path / f"model.ckpt-{n}")) for n in (20, 40, 60)]
        layers = list(run("compare", path, "--format", "json").json["layers"])
        assert layers
        for layer in layers:
            values = [
                {role: reader.get_tensor(f"{layer['name']}/{role}").astype("f8") for role in ROLES}
                for reader in readers
            ]
            for number, (before, after) in enumerate(pairwise(values)):
                deviation = np.sqrt(before["moving_variance"] + 1e-3)
                changed = {role: abs(after[role] - before[role]) for role in ROLES}
                changed["moving_mean"] /= deviation
                now = np.sqrt(after["moving_variance"] + 1e-3)
                changed["moving_variance"] = abs(now - deviation) / deviation
                for role in ROLES:
                    told = layer["members"][role]["intervals"][number]
                    assert told["moved"] == bool((before[role] != after[role]).any())
                    assert told["largest_change"] == pytest.approx(changed[role].max())

    def test_a_layer_that_the_config_calls_frozen_is_a_note(self, run: Run) -> None:
        outcome = run("compare", FROZEN)
        assert outcome.exit_code == 0
        assert outcome.out.splitlines()[0].endswith("1 stood still (BN107, a note)")
        (finding,) = run("compare", FROZEN, "--format", "json").json["findings"]
        assert (finding["severity"], finding["cause"]) == ("note", "layer-frozen")

    def test_a_frozen_backbone_is_clean_where_no_config_is_stored(self, run: Run) -> None:
        document = run("compare", FROZEN_WEIGHTS, "--format", "json")
        assert document.exit_code == 0
        assert document.json["findings"] == []
        assert [layer["still_since"] for layer in document.json["layers"]] == [0, None]

    def test_csv_has_a_row_a_layer_member_and_interval(self, run: Run) -> None:
        rows = list(csv.DictReader(io.StringIO(run("compare", STOPPED, "--format", "csv").out)))
        assert len(rows) == 3 * 4 * 2
        still = {(row["from_step"], row["to_step"]) for row in rows if row["moved"] == "false"}
        assert still == {("40", "60")}

    def test_in_python(self) -> None:
        comparison = bninspect.compare(STOPPED / "model.ckpt-40", STOPPED / "model.ckpt-60")
        assert [finding.rule.code for finding in comparison.findings] == ["BN107"] * 3
        assert [layer.still_since for layer in comparison.layers] == [0, 0, 0]

    @pytest.mark.framework
    def test_across_containers(self, run: Run, tmp_path: Path) -> None:
        import keras
        import tensorflow as tf

        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.BatchNormalization(momentum=0.5, name="first"),
                keras.layers.Dense(3, name="dense"),
                keras.layers.BatchNormalization(momentum=0.5, name="second"),
                keras.layers.Dense(1, name="out"),
            ]
        )
        model.compile("sgd", "mse")
        inputs = np.random.default_rng(1).normal(3, 2, (16, 4))
        for _ in range(10):
            model.train_on_batch(inputs, inputs[:, :1])
        model.save(tmp_path / "model.keras")
        tf.train.Checkpoint(model=model).save(str(tmp_path / "ckpt"))
        same = run("compare", tmp_path / "model.keras", tmp_path / "ckpt-1", "--format", "json")
        layers = same.json["layers"]
        assert sorted(layer["name"].rpartition("/")[2] for layer in layers) == ["first", "second"]
        for layer in layers:
            assert None not in layer["names"]
            assert layer["members"]["moving_mean"]["moved"] is False
            assert layer["members"]["moving_variance"]["moved"] is False
        assert same.exit_code == 0
        model.train_on_batch(inputs, inputs[:, :1])
        tf.train.Checkpoint(model=model).save(str(tmp_path / "later"))
        later = run("compare", tmp_path / "model.keras", tmp_path / "later-1", "--format", "json")
        assert later.json["layers"]
        assert all(one["members"]["moving_mean"]["moved"] for one in later.json["layers"])
        assert later.exit_code == 0


class TestWhatMoved:
    def test_the_same_state_twice_is_no_finding(self) -> None:
        comparison = compare_checkpoints([taken(bn(**STATE), step=5), taken(bn(**STATE), step=5)])
        assert not comparison.findings
        assert shown(comparison).startswith("SAME")

    def test_a_copy_on_the_disk(self, run: Run, tmp_path: Path) -> None:
        for file in FORGOTTEN.glob("model.ckpt-60.*"):
            shutil.copy(file, tmp_path)
        outcome = run("compare", FORGOTTEN / "model.ckpt-60", tmp_path / "model.ckpt-60")
        assert outcome.exit_code == 0
        assert outcome.out.startswith("SAME")

    def test_units(self) -> None:
        """Deviations 2, 1, 0.5: the third channel's mean goes 2 of them, its variance doubles."""
        state = STATE | {"epsilon": 0.0}
        later = state | {
            "mean": (0.5, -1.0, 3.0), "variance": (4.0, 1.0, 1.0), "gamma": 1.25, "beta": 0.75,
        }  # fmt: skip
        changes = changes_between(bn(**state), bn(**later))
        assert changes["moving_mean"] == (True, 2.0)
        assert changes["moving_variance"] == (True, 1.0)
        assert changes["gamma"] == changes["beta"] == (True, 0.25)

    def test_a_variance_of_zero_counts_as_epsilon(self) -> None:
        before, after = ({"mean": mean, "variance": 0.0, "epsilon": 0.25} for mean in (0.0, 1.0))
        assert changes_between(bn(**before), bn(**after))["moving_mean"] == (True, 2.0)

    def test_numbers_decide(self) -> None:
        for before, after, moved in [
            (0.0, -0.0, False), (NAN, NAN, False), (1.0, np.nextafter(np.float32(1), 2), True),
        ]:  # fmt: skip
            pair = bn(before, VARIANCE), bn(after, VARIANCE)
            assert changes_between(*pair)["moving_mean"].moved is moved

    @pytest.mark.parametrize(
        ("mean", "variance", "after"),
        [(NAN, 1.0, 0.5), (0.5, 1.0, NAN), (0.5, -1.0, 1.0), (0.5, NAN, 1.0), (INF, 1.0, -INF)],
    )
    def test_what_is_not_finite_is_told(self, mean: float, variance: float, after: float) -> None:
        comparison = compared({"mean": mean, "variance": variance}, {"mean": after, "variance": 1})
        change = comparison.layers[0].total["moving_mean"]
        assert change.moved
        assert change.largest is None or not np.isfinite(change.largest)
        assert shown(comparison)

    def test_json_holds_what_is_not_finite(self, run: Run, tmp_path: Path) -> None:
        paths = [save(tmp_path / f"m-{n}", bn=members(1.0, mean)) for n, mean in ((1, 0), (2, NAN))]
        document = run("compare", *paths, "--format", "json").json
        assert document["layers"][0]["members"]["moving_mean"]["largest_change"] == "NaN"

    def test_a_layer_without_channels(self) -> None:
        nothing = {"mean": (), "variance": (), "gamma": ()}
        comparison = compared(nothing, nothing)
        assert not comparison.findings
        assert shown(comparison).startswith("NONE")

    @pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
    def test_other_types(self, dtype: str) -> None:
        comparison = compared({**STATE, "dtype": dtype}, {**STATE, "gamma": 1.75, "dtype": dtype})
        assert codes(comparison) == [("bn", "BN107")]

    def test_other_byte_order(self) -> None:
        layer = bn(**STATE)
        big = {r: v._replace(array=v.array.astype(">f4")) for r, v in layer.values.items()}
        changes = changes_between(layer, replace(layer, values=big))
        assert [change.moved for change in changes.values()] == [False] * 4

    def test_a_mean_without_a_variance_has_no_measure(self) -> None:
        comparison = compared({"mean": MEAN, "gamma": 1.0}, {"mean": 0.25, "gamma": 1.0})
        assert comparison.layers[0].total["moving_mean"] == (True, None)
        assert " moved" in shown(comparison)


class TestStretches:
    def test_each_time_that_they_stood_still_is_one_finding(self) -> None:
        def at(mean: float, gamma: float) -> dict[str, Any]:
            return STATE | {"mean": mean, "gamma": gamma}

        comparison = compared(at(1, 1), at(1, 2), at(1, 3), at(2, 4), at(2, 5))
        (layer,) = comparison.layers
        assert [(one.first, one.last) for one in layer.stretches] == [(0, 2), (3, 4)]
        first, second = layer.findings
        assert "at step 10, while gamma moved by up to 2" in first.message
        assert first.evidence[-1] == "this lasted until step 30"
        assert "this lasted" not in str(second.evidence)
        assert layer.still_since == 3
        assert shown(comparison).count("__█_") == 1

    def test_still_and_then_updated_again_is_a_finding_but_no_present_state(self) -> None:
        comparison = compared(STATE, STATE | {"gamma": 2.0}, STATE | {"gamma": 3.0, "mean": 1.0})
        assert len(comparison.findings) == 1
        assert comparison.layers[0].still_since is None

    def test_a_layer_without_gamma_and_beta_asks_the_others(self) -> None:
        bare = bn(MEAN, VARIANCE, name="bare")
        before, after = bn(**STATE), bn(**STATE | {"gamma": 2.0, "mean": 1.0})
        assert codes(compared([bare, before], [bare, after], steps=False)) == [("bare", "BN107")]
        assert codes(compared([bare, before], [bare, before], steps=False)) == []
        assert codes(compared([bare], [bare])) == [("bare", "BN107")]  # the step went up

    def test_a_frozen_layer_beside_a_trained_one(self) -> None:
        frozen = bn(**STATE, name="frozen")
        after = bn(**STATE | {"gamma": 2.0, "mean": 1.0})
        assert codes(compared([frozen, bn(**STATE)], [frozen, after])) == []


class TestLayersThemselves:
    def test_they_appear_vanish_and_change(self) -> None:
        wide = bn((1.0, 2.0), (1.0, 2.0), (1.0, 2.0), name="shape")
        half = {**STATE, "name": "type", "dtype": "float16"}
        first = [bn(**STATE, name="gone"), bn(**STATE, name="shape"), bn(**STATE, name="type")]
        comparison = compared(first, [wide, bn(**half), bn(**STATE, name="new")])
        assert {layer.name: layer.events for layer in comparison.layers} == {
            "shape": (
                "gamma, moving_mean, moving_variance: from 3 x float32 to 2 x float32 at step 20",
                "beta: from 3 x float32 to nothing stored at step 20",
            ),
            "type": (
                (
                    "gamma, beta, moving_mean, moving_variance: from 3 x float32 to 3 x float16 at"
                    " step 20"
                ),
            ),
            "new": ("appears at step 20",),
            "gone": ("vanishes at step 20",),
        }
        assert not comparison.findings
        assert "gone: vanishes at step 20" in shown(comparison)

    def test_one_that_comes_back(self) -> None:
        comparison = compared([bn(**STATE)], [], [bn(**STATE)])
        (layer,) = comparison.layers
        assert layer.events == ("vanishes at step 20", "appears at step 30")
        assert not layer.compared

    @pytest.mark.parametrize(
        ("earlier", "later", "expected"),
        [
            (["a", "b"], ["b", "a"], {"b": "b", "a": "a"}),
            (["inner/bn"], ["bn"], {"bn": "inner/bn"}),
            (["bn"], ["model/inner/bn"], {"model/inner/bn": "bn"}),
            (["bn", "inner/bn"], ["inner/bn"], {"inner/bn": "inner/bn"}),
            (["x/bn", "y/bn"], ["bn"], {}),
            (["bn"], ["x/bn", "y/bn"], {}),
            (["x/bn"], ["y/bn"], {}),
            (["a/bn", "b/bn"], ["m/a/bn", "m/b/bn"], {"m/a/bn": "a/bn", "m/b/bn": "b/bn"}),
            (["rn/bn"], ["n/bn"], {}),
        ],
    )
    def test_names(self, earlier: list[str], later: list[str], expected: dict[str, str]) -> None:
        old, new = ([bn(**STATE, name=name) for name in names] for names in (earlier, later))
        matched = {new[b].name: old[a].name for b, a in match_layers(old, new).items()}
        assert matched == expected

    def test_what_was_matched_is_said(self) -> None:
        comparison = compared([bn(**STATE, name="bn")], [bn(**STATE, name="inner/bn")])
        assert comparison.layers[0].events == ("was called bn, taken for inner/bn at step 20",)

    def test_another_number_of_channels_is_another_layer(self) -> None:
        old, new = [bn(**STATE, name="inner/bn")], [bn((1.0,), (1.0,), name="bn")]
        assert match_layers(old, new) == {}

    NAMES = st.lists(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join),
        unique=True,
        max_size=8,
    )

    @given(earlier=NAMES, later=NAMES)
    def test_any_names(self, earlier: list[str], later: list[str]) -> None:
        old, new = ([bn(MEAN, name=name) for name in names] for names in (earlier, later))
        matched = match_layers(old, new)
        assert len(set(matched.values())) == len(matched)
        for b, a in matched.items():
            short, long = sorted((later[b], earlier[a]), key=len)
            assert short == long or long.endswith(f"/{short}")
        backwards = match_layers(new, old)
        assert {(a, b) for b, a in matched.items()} == set(backwards.items())


class TestTheTable:
    LONG = "/".join(["a_scope_of_some_length"] * 4)

    def many(self, count: int, name: str = "block_{}/bn") -> Comparison:
        before = [bn(**STATE, name=name.format(number)) for number in range(count)]
        after = [bn(1.0, 2.0, 2.0, 1.0, name=name.format(number)) for number in range(count)]
        return compared(before, after)

    @pytest.mark.parametrize("width", [80, 160])
    def test_fits_the_terminal_and_cuts_no_name(self, width: int) -> None:
        layers = [bn(**STATE, name=name) for name in ("short", self.LONG)]
        later = [bn(**STATE | {"gamma": 2.0}, name=layer.name) for layer in layers]
        lines = shown(compared(layers, layers, later), width=width).splitlines()
        table = lines[lines.index(next(x for x in lines if x.startswith("layer "))) :]
        table = table[: table.index("")]
        assert any(self.LONG in line for line in table)
        assert table
        assert all(len(line) <= width or line == self.LONG for line in table)
        ends = {line.rindex("step") for line in table[1:] if "step" in line}
        assert ends == {table[0].index("still since")}

    def test_a_pipe_has_one_row_a_layer(self) -> None:
        lines = shown(compared([bn(**STATE, name=self.LONG)], [bn(**STATE, name=self.LONG)]))
        assert f"{self.LONG}  still" in lines

    @pytest.mark.slow
    def test_of_very_many_layers_the_first(self) -> None:
        lines = shown(self.many(2000)).splitlines()
        assert "and 1975 more layers (--verbose names them)" in lines
        assert len(lines) < 60
        assert len(shown(self.many(2000), verbose=True).splitlines()) > 2000

    def test_what_is_wrong_comes_first(self) -> None:
        before = [bn(**STATE, name=f"bn_{number}") for number in range(40)]
        after = [bn(1.0, 2.0, 2.0, name=layer.name) for layer in before[:-1]]
        wrong = bn(**STATE | {"gamma": 2.0}, name="bn_39")
        lines = shown(compared(before, [*after, wrong])).splitlines()
        header = next(number for number, line in enumerate(lines) if line.startswith("layer "))
        assert lines[header + 1].startswith("bn_39 ")
        assert lines[0].startswith("FAIL  model-1 to model-2: 1 of 40 BN layers")

    def test_a_terminal_without_unicode(self) -> None:
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        write_comparison(compared(STATE, STATE | {"mean": 1.0}, STATE), stream)
        stream.flush()

    def test_quiet_is_the_verdict(self, run: Run) -> None:
        assert len(run("compare", STOPPED, "--quiet").out.splitlines()) == 1

    def test_control_characters_never_reach_the_terminal(self) -> None:
        state = {**STATE, "name": "b\x1b[31mn"}
        assert "\x1b" not in shown(compared(state, {**state, "gamma": 2.0}))

    def test_work_grows_as_layers_and_as_checkpoints(self) -> None:
        def comparing(layers: int, checkpoints: int) -> Callable[[], object]:
            states = [
                [bn(float(n), 2.0, 1.0, name=f"m/bn_{i}") for i in range(layers)]
                for n in range(checkpoints)
            ]
            return lambda: compared(*states)

        assert growth(lambda size: comparing(size, 3), 20) < LINEAR
        assert growth(lambda size: comparing(3, size), 10) < LINEAR


class TestWhichCheckpoints:
    def test_steps_that_contradict_the_order(self, run: Run) -> None:
        outcome = run("compare", CORRECT / "model.ckpt-60", CORRECT / "model.ckpt-20")
        assert "note: the stored steps contradict the order" in outcome.said
        assert outcome.exit_code == 0

    def test_one_is_not_enough(self, run: Run) -> None:
        for paths in ([CORRECT / "model.ckpt-20"], [CORRECT / "model.ckpt-20"] * 2):
            outcome = run("compare", *paths)
            assert outcome.exit_code == 2
            assert "at least two checkpoints" in outcome.err

    def test_one_that_cannot_be_read(self, run: Run, tmp_path: Path) -> None:
        missing = tmp_path / "missing.ckpt"
        outcome = run("compare", CORRECT / "model.ckpt-20", missing)
        assert outcome.exit_code == 2
        assert str(missing) in outcome.err
        outcome = run("compare", STOPPED, missing)
        assert outcome.exit_code == 2
        assert outcome.out.startswith("FAIL")
        assert f"ERROR  {missing}" in outcome.out
        document = run("compare", STOPPED, missing, "--format", "json").json
        assert [item["error"]["kind"] for item in document["unreadable"]] == ["not-found"]
        assert document["summary"]["unreadable"] == 1

    def test_values_that_are_missing_cannot_be_compared(self, run: Run, tmp_path: Path) -> None:
        shutil.copy(CORRECT / "model.ckpt-20.index", tmp_path)
        outcome = run("compare", tmp_path / "model.ckpt-20", CORRECT / "model.ckpt-40")
        assert outcome.exit_code == 2

    def test_without_a_bn_layer(self, run: Run, tmp_path: Path) -> None:
        assert run("compare", *[save(tmp_path / f"m-{n}", n) for n in (1, 2)]).exit_code == 3
        assert run("compare", CORRECT / "model.ckpt-20", FROZEN / "epoch-6.h5").exit_code == 3

    def test_the_output_never_replaces_a_checkpoint(self, run: Run, tmp_path: Path) -> None:
        shutil.copytree(FROZEN, tmp_path / "run")
        target = tmp_path / "run" / "epoch-12.h5"
        before = target.read_bytes()
        assert run("compare", tmp_path / "run", "-o", target).exit_code == 2
        assert target.read_bytes() == before


class TestSince:
    def test_of_an_unreadable_one(self, run: Run, tmp_path: Path) -> None:
        outcome = run("check", CORRECT / "model.ckpt-60", "--since", tmp_path / "missing.ckpt")
        assert outcome.exit_code == 2
        assert "missing.ckpt" in outcome.err

    def test_of_several_wants_one(self, run: Run) -> None:
        outcome = run("check", CORRECT / "model.ckpt-60", "--since", CORRECT)
        assert outcome.exit_code == 2
        assert "names 3" in outcome.err

    def test_the_same_checkpoint_is_said(self, run: Run) -> None:
        path = STOPPED / "model.ckpt-60"
        outcome = run("check", path, "--since", path)
        assert outcome.exit_code == 0
        assert "is it the same?" in outcome.said

    def test_another_model_is_said(self, run: Run) -> None:
        outcome = run("check", CORRECT / "model.ckpt-60", "--since", FROZEN / "epoch-6.h5")
        assert outcome.exit_code == 3
        assert "lacks 3 of 3 BN layers" in outcome.said

    def test_the_later_one_is_said(self, run: Run) -> None:
        outcome = run("check", CORRECT / "model.ckpt-20", "--since", CORRECT / "model.ckpt-60")
        assert outcome.exit_code == 0
        assert "should be the earlier one" in outcome.said

    def test_it_is_opened_once(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        from bninspect.runs import one_checkpoint

        opened: list[str] = []
        open_target = one_checkpoint.open_target
        monkeypatch.setattr(
            one_checkpoint,
            "open_target",
            lambda path, *rest, **named: opened.append(path) or open_target(path, *rest, **named),
        )
        paths = [str(STOPPED / f"model.ckpt-{step}") for step in (20, 40, 60)]
        assert run("check", *paths[1:], "--since", paths[0]).exit_code == 0
        assert opened == paths

    def test_bn107_alone_needs_it(self, run: Run) -> None:
        outcome = run("check", CORRECT / "model.ckpt-60", "--select", "BN107")
        assert outcome.exit_code == 2
        assert "--since" in outcome.err
        outcome = run("check", STOPPED, "--select", "BN107", "--all-checkpoints")
        assert outcome.exit_code == 1

    def test_in_python(self) -> None:
        with pytest.raises(bninspect.ReadProblem):
            bninspect.check(STOPPED / "model.ckpt-60", since=STOPPED / "missing")
        report = bninspect.check(STOPPED / "model.ckpt-60", since=STOPPED / "model.ckpt-40")
        assert {finding.rule.code for finding in report.findings} == {"BN107"}


class TestTheHistoryOfADirectory:
    def found(self, run: Run, *arguments: object) -> dict[str, list[str]]:
        document = run("check", *arguments, "--all-checkpoints", "--format", "json").json
        return {
            Path(item["path"]).name.removesuffix(".index"): sorted(
                {finding["rule"] for finding in item["findings"]}
            )
            for item in document["checkpoints"]
        }

    def test_each_is_compared_with_the_one_before(self, run: Run) -> None:
        assert self.found(run, STOPPED) == {
            "model.ckpt-20": [], "model.ckpt-40": [], "model.ckpt-60": ["BN107"],
        }  # fmt: skip
        assert not any(self.found(run, CORRECT).values())
        assert self.found(run, FROZEN)["epoch-12.h5"] == ["BN107"]

    def test_without_the_option_there_is_none(self, run: Run) -> None:
        paths = [STOPPED / f"model.ckpt-{step}" for step in (20, 40, 60)]
        assert run("check", *paths).exit_code == 0

    def test_an_explicit_since_is_for_all(self, run: Run) -> None:
        since = ("--since", STOPPED / "model.ckpt-20")
        assert not any(self.found(run, STOPPED, *since).values())

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("a/model-1", "b/model-2"),  # directories
            ("gen-1", "disc-2"),  # names
            ("model-2", "model-10"),  # the step goes back
        ],
    )
    def test_other_trainings_are_none_of_its_history(
        self, run: Run, tmp_path: Path, first: str, second: str
    ) -> None:
        for name, gamma, step in ((first, 1.5, 9), (second, 2.5, 8)):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            save(tmp_path / name, step, bn=members(gamma))
        assert not any(self.found(run, tmp_path).values())

    def test_nor_are_other_layers(self, run: Run, tmp_path: Path) -> None:
        save(tmp_path / "resnet-50", bn=members(1.5))
        save(tmp_path / "resnet-101", bn=members(2.5), bn_1=members(3.5))
        assert self.found(run, tmp_path) == {"resnet-50": [], "resnet-101": []}
        save(tmp_path / "resnet-102", bn=members(2.75), bn_1=members(3.75))
        assert self.found(run, tmp_path)["resnet-102"] == ["BN107"]

    def test_one_that_cannot_be_read_is_passed_over(self, run: Run, tmp_path: Path) -> None:
        for number, gamma in ((1, 1.5), (3, 2.5)):
            save(tmp_path / f"model-{number}", number, bn=members(gamma))
        (tmp_path / "model-2.index").write_bytes(b"")
        (tmp_path / "model-2.data-00000-of-00001").write_bytes(b"")
        assert self.found(run, tmp_path)["model-3"] == ["BN107"]

    def test_networks_in_one_directory_take_turns(self, run: Run, tmp_path: Path) -> None:
        for number in (1, 2):
            save(tmp_path / f"gen-{number}", number, bn=members(1.0 + number))
            save(tmp_path / f"disc-{number}", number, bn=members(1.0 + number, mean=number))
        assert self.found(run, tmp_path) == {
            "disc-1": [], "disc-2": [], "gen-1": [], "gen-2": ["BN107"],
        }  # fmt: skip


@pytest.mark.framework
def test_folds_at_the_same_step_are_no_history(tmp_path, run):
    """Two trainings from one backbone, saved under names that differ in a number."""
    for number in (1, 2):
        for part in (FIXTURES / "tf1_history_forgotten").glob("model.ckpt-60.*"):
            name = part.name.replace("model.ckpt-60", f"fold_{number}.ckpt")
            (tmp_path / name).write_bytes(part.read_bytes())
    outcome = run("check", tmp_path, "--all-checkpoints", "--format", "json")
    rules = {f["rule"] for item in outcome.json["checkpoints"] for f in item["findings"]}
    assert "BN107" not in rules


def test_one_checkpoint_twice_is_told(run):
    path = FIXTURES / "tf1_history_correct" / "model.ckpt-20"
    outcome = run("compare", path, path)
    assert outcome.exit_code == 2
    assert "names the same one" in outcome.err
