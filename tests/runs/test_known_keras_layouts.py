"""Keras files that are judged by the layout of another: the same reports as in the ordinary way."""

from __future__ import annotations

import io
import re
import shutil
import tempfile
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bninspect import find_layers, open_checkpoint
from bninspect.config.model import make_config
from bninspect.formats.keras.layout import KerasLayout
from bninspect.runs import known_layout, known_layouts
from bninspect.runs.known_layout import KnownLayout
from bninspect.runs.run import check_paths
from tests.conftest import FIXTURES, Run
from tests.runs.test_known_layouts import MUTATIONS, Arrays
from tests.support.compared_reports import Collector, assert_same_reports

WEIGHTS = "model.weights.h5"


class Original(NamedTuple):
    """A file that Keras wrote: the HDF5 file in it, and the other members of an archive.

    `members` has place, type and shape of the members of BN layers, `step` the place of the step.
    """

    suffix: str
    data: bytes
    others: dict[str, bytes]
    members: dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]]
    step: int | None


@cache
def original(name: str) -> Original:
    path = FIXTURES / name
    suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".weights.h5") else path.suffix
    data, others = path.read_bytes(), {}
    if suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            others = {name: archive.read(name) for name in archive.namelist() if name != WEIGHTS}
            data = archive.read(WEIGHTS)
    members: dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]] = {}
    steps: list[int] = []

    def note_step(name: str, item: Any) -> None:
        is_step = re.search(r"(^|/)(iter(ation)?(:0)?|optimizer/vars/0)$", name)
        if is_step and isinstance(item, h5py.Dataset) and item.dtype == "i8" and not item.shape:
            steps.append(item.id.get_offset())

    with open_checkpoint(str(path)) as checkpoint, h5py.File(io.BytesIO(data)) as file:
        for layer in find_layers(checkpoint):
            for role, variable in layer.variables.items():
                stored = file[variable.name]
                place = stored.id.get_offset(), stored.dtype, stored.shape
                members[f"{layer.name}/{role}"] = place
        file.visititems(note_step)
    return Original(suffix, data, others, members, steps[0] if len(steps) == 1 else None)


def healthy(source: Original, seed: int) -> Arrays:
    """The members of all BN layers after a training that went well."""
    random = np.random.default_rng(seed)
    arrays: Arrays = {}
    for name, (_, dtype, shape) in source.members.items():
        low, high = {"moving_mean": (1, 2), "moving_variance": (0.01, 0.04)}.get(
            name.rpartition("/")[2], (0.5, 1.5)
        )
        arrays[name] = random.uniform(low, high, shape).astype(dtype)
    return arrays


def write(path: Path, source: Original, arrays: Arrays, step: int, number: int) -> None:
    """Write a file with other values, as the same program writes it at another time."""
    data = bytearray(source.data)
    for name, values in arrays.items():
        offset, _, _ = source.members[str(name)]
        data[offset : offset + values.nbytes] = values.tobytes()
    if source.step is not None:
        data[source.step : source.step + 8] = step.to_bytes(8, "little", signed=True)
    if not source.others:
        path.write_bytes(data)
        return
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (source.others | {WEIGHTS: bytes(data)}).items():
            member = zipfile.ZipInfo(name, (2024, 1 + number % 12, 7, 8, 9, 10))
            with archive.open(member, "w", force_zip64=name == WEIGHTS) as stored:
                stored.write(as_at_another_time(name, content, number))


def as_at_another_time(name: str, content: bytes, number: int) -> bytes:
    if name == "metadata.json":
        return re.sub(rb"-\d\d@", f"-{number + 10:02}@".encode(), content)
    if name == "config.json":
        digits = f"{number + 1}".encode()
        return re.sub(
            rb'("shared_object_id": )(\d{9,})',
            lambda match: match[1] + digits * len(match[2]),
            content,
        )
    return content


SOURCES = (
    "keras1_correct/model.h5",
    "keras23_nested_correct/model.h5",
    "keras2_frozen/model.h5",
    "keras2_functional_correct/model.h5",
    "keras2_functional_weights/weights.h5",
    "keras2_no_gamma_beta/model.h5",
    "keras2_training_false/model.h5",
    "keras2_zip_training_false/model.keras",
    "keras315_h5_updates_dropped/model.h5",
    "keras315_zip_call_without_training/model.keras",
    "keras315_zip_loop_in_inference_mode/model.keras",
    "keras3_discriminator_frozen/model.h5",
    "keras3_functional_correct/model.h5",
    "keras3_history_weights/epoch-12.weights.h5",
    "keras3_momentum_one/model.h5",
    "keras3_zip_accumulation/model.keras",
    "keras3_zip_mixed_float16/model.keras",
    "keras3_zip_training_false_overridden/model.keras",
    # Of these, values say which variables are which, or more is stored than the usual.
    "keras2_statistics_trained/model.h5",
    "keras2_weights_short_stuck/model.weights.h5",
    "keras315_weights_own_class_stuck/model.weights.h5",
    "keras3_zip_nested/model.keras",
)
DAMAGES = ("none", "none", "none", "cut", "byte", "head-byte", "longer")


def damage(path: Path, how: str, place: int) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        del content[place % len(content) :]
    elif how == "byte":
        content[place % len(content)] ^= 0x40
    elif how == "head-byte":
        content[place % 3000] ^= 0x01
    elif how == "longer":
        content += bytes(place % 10)
    path.write_bytes(content)


OTHER_MUTATIONS = {
    # What a layer with a mean of 1 and a variance of 0 is not: Keras's own.
    "another-class": lambda a: a.update(
        {
            name: np.full_like(values, str(name).endswith("moving_mean"))
            for name, values in a.items()
            if "moving" in str(name)
        }
    ),
    "all-zero": lambda a: a.update({name: values * 0 for name, values in a.items()}),
}
EVERY_MUTATION = MUTATIONS | OTHER_MUTATIONS
files = st.lists(
    st.tuples(
        st.one_of(st.just("none"), st.sampled_from(sorted(EVERY_MUTATION))),
        st.sampled_from(DAMAGES),
        st.integers(0, 1_000_000),
        st.sampled_from([0, 5, 60, 1000, 50_000, -1]),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.slow
def test_the_report_is_that_of_the_ordinary_way(ways: Counter[str]) -> None:
    @settings(max_examples=300, deadline=None)
    @given(st.sampled_from(SOURCES), files, st.sampled_from([None, 0.9, 0.9999, 0.0]))
    def compare(name: str, drawn: list[tuple[Any, ...]], momentum: float | None) -> None:
        folder, source = Path(tempfile.mkdtemp()), original(name)
        paths = [folder / f"run_{n}" / f"model{source.suffix}" for n in range(len(drawn) + 2)]
        for number, path in enumerate(paths):
            path.parent.mkdir()
            mutation, how, place, step = ("none", "none", 0, 1000)
            if number > 1:
                mutation, how, place, step = drawn[number - 2]
            arrays = healthy(source, number)
            EVERY_MUTATION[mutation](arrays)
            write(path, source, arrays, step, number)
            damage(path, how, place)
        try:
            assert_same_reports(paths, make_config(momentum=momentum), reads_again=False)
        finally:
            shutil.rmtree(folder)

    compare()
    assert all(ways[way] > 100 for way in ("plain", "by layer", "ordinary"))


@pytest.mark.parametrize("name", SOURCES[:18])
def test_healthy_files_are_judged_by_the_layout_of_the_second(
    tmp_path: Path, ways: Counter[str], name: str
) -> None:
    source = original(name)
    paths = [tmp_path / f"run_{number}" / f"model{source.suffix}" for number in range(5)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        write(path, source, healthy(source, number), 1000, number)
    assert_same_reports(paths, make_config(), reads_again=False)
    assert ways == {"ordinary": 6, "plain": 9}


@pytest.mark.parametrize("name", SOURCES[18:])
def test_no_layout_is_known_where_values_decide_or_more_is_stored(
    tmp_path: Path, ways: Counter[str], name: str
) -> None:
    source = original(name)
    paths = [tmp_path / f"run_{number}" / f"model{source.suffix}" for number in range(4)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        write(path, source, healthy(source, number), 1000, number)
    assert_same_reports(paths, make_config(), reads_again=False)
    assert ways == {"ordinary": 12}


def test_no_layout_is_known_where_a_layer_has_weights_named_as_those_of_an_optimizer(
    tmp_path: Path, ways: Counter[str]
) -> None:
    """Such names are evidence of training, which the layouts of Keras files do not read."""
    extended = Path(shutil.copy(FIXTURES / "keras3_functional_correct" / "model.h5", tmp_path))
    with h5py.File(extended, "r+") as file:
        group = file["model_weights/bn1"]
        group["bn1/beta1_power"] = group["bn1/beta2_power"] = np.float32(0.9)
        names = [*group.attrs["weight_names"], "bn1/beta1_power", "bn1/beta2_power"]
        group.attrs["weight_names"] = names
    source = original(str(extended))
    paths = [tmp_path / f"run_{number}" / "model.h5" for number in range(4)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        arrays = healthy(source, number)
        if number == 3:
            MUTATIONS["stuck"](arrays)
        write(path, source, arrays, 1000, number)
    assert_same_reports(paths, make_config(), reads_again=False)
    assert ways == {"ordinary": 12}


@pytest.mark.parametrize("name", ["keras3_functional_correct/model.h5", SOURCES[15]])
def test_values_are_read_again_from_the_file(tmp_path: Path, ways: Counter[str], name: str) -> None:
    source = original(name)
    paths = [tmp_path / f"run_{number}" / f"model{source.suffix}" for number in range(4)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        arrays = healthy(source, number)
        if number == 3:
            MUTATIONS["stuck"](arrays)
        write(path, source, arrays, 1000, number)
    reports = check_paths(paths, make_config()).checkpoints
    assert ways == {"ordinary": 2, "plain": 1, "by layer": 1}
    for report in reports[2:]:
        for layer in report.layers:
            for role, variable in layer.variables.items():
                assert variable.read().tobytes() == layer.values[role].array.tobytes()


@pytest.mark.parametrize("name", ["keras3_history_weights/epoch-12.weights.h5", SOURCES[15]])
def test_every_byte_of_structure_is_compared(tmp_path: Path, ways: Counter[str], name: str) -> None:
    """A changed byte is either that of a value, or it sends the file through the ordinary way."""
    source = original(name)
    paths = [tmp_path / f"run_{number}" / f"model{source.suffix}" for number in range(62)]
    random = np.random.default_rng(1)
    for number, path in enumerate(paths):
        path.parent.mkdir()
        content = bytearray(source.data)
        if number > 1:
            content[int(random.integers(len(content)))] ^= 0x40
        write(path, source._replace(data=bytes(content)), healthy(source, 1), 1000, number)
    assert_same_reports(paths, make_config(), reads_again=False)
    assert ways["plain"] > 20
    assert ways["ordinary"] > 20


@pytest.mark.parametrize("name", ["keras3_functional_correct/model.h5", SOURCES[15]])
def test_the_places_of_variables_are_compared(
    tmp_path: Path, ways: Counter[str], name: str
) -> None:
    """A file that is the same but for the address of one variable is read in the ordinary way."""
    source = original(name)
    paths = [tmp_path / f"run_{number}" / f"model{source.suffix}" for number in range(4)]
    mean = next(member for member in source.members if member.endswith("moving_mean"))
    place, _, _ = source.members[mean]
    other, _, _ = source.members[mean.replace("moving_mean", "moving_variance")]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        write(path, source, healthy(source, number), 1000, number)
    data = source.data
    assert data.count(place.to_bytes(8, "little")) == 1
    moved = data.replace(place.to_bytes(8, "little"), other.to_bytes(8, "little"))
    write(paths[3], source._replace(data=moved), healthy(source, 3), 1000, 3)
    assert_same_reports(paths, make_config(), reads_again=False)
    assert ways == {"ordinary": 9, "plain": 3}


def test_a_checksum_of_an_archive_is_verified(tmp_path: Path, run: Run) -> None:
    source = original("keras3_zip_accumulation/model.keras")
    paths = [tmp_path / f"run_{number}" / "model.keras" for number in range(4)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        write(path, source, healthy(source, number), 1000, number)
    content = bytearray(paths[3].read_bytes())
    gamma = next(values for name, values in healthy(source, 3).items() if "gamma" in str(name))
    content[content.index(gamma.tobytes())] ^= 1
    paths[3].write_bytes(content)
    outcome = run("check", *paths)
    assert outcome.exit_code == 2
    assert "does not match its checksum (CRC-32)" in outcome.out + outcome.err


def test_shards_of_weights_are_read_in_the_ordinary_way(tmp_path: Path, ways: Counter[str]) -> None:
    """Their layers may lack variables, which lie in another shard."""
    source = original("keras3_history_weights/epoch-12.weights.h5")
    paths = [tmp_path / f"run_{number}" / "model_00001.weights.h5" for number in range(4)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        write(path, source, healthy(source, number), 1000, number)
    (paths[3].parent / "model_00000.weights.h5").write_bytes(b"")
    known = Collector(needs_layers=False)
    check_paths(paths, make_config(), known)
    assert ways == {"ordinary": 3, "plain": 1}


def test_a_size_whose_layouts_are_never_known_again_is_given_up(
    tmp_path: Path, ways: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_layouts, "_FIRST_OF_A_SIZE", 2)
    monkeypatch.setattr(known_layouts, "_MOST_OF_A_SIZE", 2)
    matched = []
    matches = KerasLayout.matches

    def noted(*arguments: Any) -> bool:
        matched.append(matches(*arguments))
        return matched[-1]

    monkeypatch.setattr(KerasLayout, "matches", noted)
    source = original(SOURCES[12])
    for number in range(30):
        data = source.data.replace(b'"epsilon": 0.001', b'"epsilon": 0.%03d' % (number + 1))
        path = tmp_path / f"run_{number:02}" / "model.h5"
        path.parent.mkdir()
        write(path, source._replace(data=data), healthy(source, number), 1000, number)
    check_paths([tmp_path], make_config(), Collector(needs_layers=False))
    assert ways == {"ordinary": 30}
    assert 5 <= len(matched) <= 12
    assert not any(matched)


def test_large_structures_are_dropped_sooner(
    tmp_path: Path, ways: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [original(name) for name in (SOURCES[3], SOURCES[12])]
    paths = []
    for number in range(9):
        source = sources[number // 2 % 2]
        paths.append(tmp_path / f"run_{number}" / f"model{source.suffix}")
        paths[-1].parent.mkdir()
        write(paths[-1], source, healthy(source, number), 1000, number)
    monkeypatch.setattr(known_layouts, "_MOST_BYTES", 20_000)
    check_paths(paths, make_config(), Collector(needs_layers=False))
    # The fifth finds its layout dropped and gives it to the sixth, and so on.
    assert ways == {"ordinary": 7, "plain": 2}


def test_layouts_that_read_too_much_are_not_learned(
    tmp_path: Path, ways: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bninspect.formats.keras import layout

    monkeypatch.setattr(layout, "_MOST_BYTES", 1000)
    learned: list[KnownLayout | None] = []
    learn = known_layout.learn

    def noted(*arguments: Any) -> KnownLayout | None:
        learned.append(learn(*arguments))
        return learned[-1]

    monkeypatch.setattr(known_layout, "learn", noted)
    source = original(SOURCES[3])
    for number in range(4):
        path = tmp_path / f"run_{number}" / "model.h5"
        path.parent.mkdir()
        write(path, source, healthy(source, number), 1000, number)
    check_paths([tmp_path], make_config(), Collector(needs_layers=False))
    assert ways == {"ordinary": 4}
    assert learned == [None, None, None]
