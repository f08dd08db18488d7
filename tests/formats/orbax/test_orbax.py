"""Steps of Orbax as a person has them: paths, unfinished saves, damage, every command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bninspect
from bninspect.errors import ReadProblem
from tests.conftest import FIXTURES, ROOT, Run

LINEN = FIXTURES / "orbax_linen_correct"  # state_15, state_30
STUCK = FIXTURES / "orbax_linen_not_kept"
ZARR = FIXTURES / "orbax_linen_zarr2"
KERAS = FIXTURES / "orbax_keras_correct"
ITEMS = FIXTURES / "orbax_linen_items"
TEMPORARY = ".orbax-checkpoint-tmp"
HALF_SAVED = "Orbax has not saved this step to its end"


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A copy of a training of two steps."""
    shutil.copytree(LINEN, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def zarr(tmp_path: Path) -> Path:
    shutil.copytree(ZARR, tmp_path / "zarr")
    return tmp_path / "zarr"


def resolved(run: Run, *arguments: object) -> list[str]:
    outcome = run("list", *arguments, "--format", "json")
    return [one["resolved"] or one["error"]["kind"] for one in outcome.json["checkpoints"]]


# --- Paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inside",
    [
        "state_30",
        "state_30/",
        "state_30/_CHECKPOINT_METADATA",
        "state_30/commit_success.txt",
        "state_30/default",
        "state_30/default/_METADATA",
        "state_30/default/manifest.ocdbt",
        "state_30/default/ocdbt.process_0",
        "state_30/default/ocdbt.process_0/manifest.ocdbt",
    ],
)
def test_every_part_of_a_step_is_the_step(run: Run, inside: str) -> None:
    (found,) = resolved(run, f"{LINEN}/{inside}")
    assert os.path.normpath(found) == str(LINEN / "state_30")


def test_a_data_file_is_its_step(run: Run) -> None:
    (file,) = (LINEN / "state_30/default/d").iterdir()
    assert resolved(run, file) == [str(LINEN / "state_30")]


def test_an_array_of_zarr_is_its_step(run: Run) -> None:
    assert resolved(run, ZARR / "params.bn.scale" / ".zarray") == [str(ZARR)]


def test_a_training_is_its_newest_step(run: Run) -> None:
    outcome = run("list", LINEN)
    assert "state_30 is the newest step in" in outcome.said
    assert "other models" not in outcome.said
    assert resolved(run, LINEN) == [str(LINEN / "state_30")]


def test_all_steps_are_one_training(run: Run, training: Path) -> None:
    steps = [str(training / "state_15"), str(training / "state_30")]
    assert resolved(run, training, "--all-checkpoints") == steps
    assert resolved(run, f"{training}/*") == steps
    assert resolved(run, training.parent) == steps
    shutil.copytree(training / "state_30", training / "state_100")
    assert resolved(run, training, "--all-checkpoints") == [*steps, str(training / "state_100")]
    assert resolved(run, training) == [str(training / "state_100")]


def test_a_training_stands_still_between_its_steps(run: Run, training: Path) -> None:
    """BN107 compares the steps of one training."""
    kept = training / "state_45"
    shutil.copytree(FIXTURES / "orbax_linen_not_kept", training.parent / "other")
    shutil.copytree(training / "state_30", kept)
    outcome = run("check", training, "--all-checkpoints", "--format", "json").json
    assert [one["step"] for one in outcome["checkpoints"]] == [15, 30, 30]
    assert all(not one["findings"] for one in outcome["checkpoints"])


def test_a_training_that_goes_on_with_a_new_optimizer_is_one(run: Run) -> None:
    """The step of the train state goes on where the optimizer counts from 0 again."""
    path = FIXTURES / "orbax_linen_new_optimizer"
    outcome = run("check", path, "--all-checkpoints", "--format", "json").json
    assert [one["step"] for one in outcome["checkpoints"]] == [15, 30]
    rules = [[finding["rule"] for finding in one["findings"]] for one in outcome["checkpoints"]]
    assert rules == [[], ["BN107", "BN107"]]


def test_steps_of_other_prefixes_are_no_one_training(run: Run, tmp_path: Path) -> None:
    shutil.copytree(LINEN / "state_15", tmp_path / "a_1")
    shutil.copytree(LINEN / "state_30", tmp_path / "b_2")
    assert resolved(run, tmp_path) == [str(tmp_path / "a_1"), str(tmp_path / "b_2")]


def test_a_step_of_an_older_orbax_has_items_alone(run: Run, tmp_path: Path) -> None:
    step = tmp_path / "run" / "30"
    shutil.copytree(LINEN / "state_30", step)
    for file in ("_CHECKPOINT_METADATA", "commit_success.txt", "default/commit_success.txt"):
        (step / file).unlink()
    assert resolved(run, step) == [str(step)]
    assert resolved(run, step.parent) == [str(step)]
    assert resolved(run, step / "default") == [str(step)]
    assert resolved(run, step.parent, "--all-checkpoints") == [str(step)]


def test_arrays_without_a_tree_have_their_names(run: Run, zarr: Path) -> None:
    for file in ("_METADATA", "_CHECKPOINT_METADATA", "commit_success.txt"):
        (zarr / file).unlink()
    (checkpoint,) = run("list", zarr, "--format", "json").json["checkpoints"]
    assert [layer["name"] for layer in checkpoint["layers"]] == ["Block_0/BatchNorm_0", "bn"]


@pytest.mark.parametrize("path", ["", "/", "/30", "/30/", "/30/default/manifest.ocdbt"])
def test_a_url_is_refused_in_one_sentence(run: Run, path: str) -> None:
    memory = fsspec.filesystem("memory")
    for file in (LINEN / "state_30").rglob("*"):
        if file.is_file():
            memory.pipe_file(f"/orbax/30/{file.relative_to(LINEN / 'state_30')}", file.read_bytes())
    outcome = run("check", f"memory://orbax{path}")
    assert outcome.exit_code == 2
    assert "Orbax checkpoint, which is read from the local disk alone" in outcome.said
    assert "Traceback" not in outcome.said


# --- Saves that did not end -----------------------------------------------------------------------


def begin_only(step: Path) -> None:
    """Leave a step as it is while it is written, by a writer that does not rename it."""
    (step / "commit_success.txt").unlink()
    file = step / "_CHECKPOINT_METADATA"
    begun = json.loads(file.read_text("utf-8")) | {"commit_timestamp_nsecs": None}
    file.write_text(json.dumps(begun), "utf-8")


@pytest.mark.parametrize("how", ["name", "timed name", "begun", "marker"])
def test_a_save_that_did_not_end_is_passed_over(run: Run, training: Path, how: str) -> None:
    step = training / "state_30"
    if how == "begun":
        begin_only(step)
    elif how == "marker":
        (step / "commit_success.txt").unlink()
    else:
        suffix = TEMPORARY + ("-1796048956" if how == "timed name" else "")
        step = step.rename(training / f"state_30{suffix}")
    for arguments in ((training,), (training, "--all-checkpoints"), (f"{training}/*",)):
        outcome = run("check", *arguments, "--momentum", "0.8")
        assert outcome.exit_code == 0, arguments
        assert f"passed over {step}" in outcome.said, arguments
        assert resolved(run, *arguments) == [str(training / "state_15")], arguments
    alone = run("check", step)
    assert alone.exit_code == 2
    assert HALF_SAVED in alone.said


def test_a_training_without_a_whole_step_is_incomplete(run: Run, training: Path) -> None:
    shutil.rmtree(training / "state_15")
    (training / "state_30").rename(training / f"state_30{TEMPORARY}")
    for more in ((), ("--all-checkpoints",)):
        outcome = run("check", training, *more)
        assert outcome.exit_code == 2
        assert HALF_SAVED in outcome.said


def test_a_step_without_a_marker_is_whole_where_no_step_has_one(run: Run, training: Path) -> None:
    for file in training.rglob("commit_success.txt"):
        file.unlink()
    assert resolved(run, training) == [str(training / "state_30")]


@pytest.mark.processes
def test_watch_waits_for_the_end_of_a_save(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copytree(LINEN / "state_15", run / "state_15")
    writer = (
        "import shutil, sys, time; source, run = sys.argv[1:]; time.sleep(1);"
        f" shutil.copytree(source, run + '/state_30{TEMPORARY}'); time.sleep(1);"
        f" import os; os.rename(run + '/state_30{TEMPORARY}', run + '/state_30')"
    )
    with subprocess.Popen([sys.executable, "-c", writer, str(LINEN / "state_30"), str(run)]):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "bninspect", "watch", str(run), "--until-step", "30"),
                *("--interval", "0.1", "--timeout", "60", "--format", "jsonl"),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    seen = [one["resolved"] for one in lines if one.get("resolved")]
    assert seen == [str(run / "state_15"), str(run / "state_30")]


def test_a_file_of_that_name_of_another_program_is_passed_over(run: Run, training: Path) -> None:
    other = training.parent / "other"
    other.mkdir()
    (other / "_METADATA").write_text('{"rows": 3}', "utf-8")
    assert run("check", training.parent, "--momentum", "0.8").exit_code == 0
    assert run("check", other).exit_code == 2


# --- Damage ---------------------------------------------------------------------------------------


def test_a_chunk_that_is_missing_is_damage_where_all_were_stored(run: Run, zarr: Path) -> None:
    (zarr / "batch_stats.bn.mean" / "0").unlink()
    outcome = run("check", zarr)
    assert outcome.exit_code == 2
    assert "a part of batch_stats.bn.mean (0) is missing" in outcome.said


def test_a_chunk_that_need_not_be_stored_is_zero(run: Run, zarr: Path) -> None:
    """So stuck means are found where Orbax left them out."""
    tree = json.loads((zarr / "_METADATA").read_text("utf-8"))
    tree["store_array_data_equal_to_fill_value"] = False
    (zarr / "_METADATA").write_text(json.dumps(tree), "utf-8")
    (zarr / "batch_stats.bn.mean" / "0").unlink()
    outcome = run("check", zarr, "--format", "json")
    assert outcome.exit_code == 1
    (checkpoint,) = outcome.json["checkpoints"]
    assert [one["rule"] for one in checkpoint["findings"]] == ["BN101", "BN101"]


def test_an_index_that_is_missing_is_named(run: Run, training: Path) -> None:
    (training / "state_30/default/manifest.ocdbt").unlink()
    outcome = run("check", training / "state_30")
    assert outcome.exit_code == 2
    assert "manifest.ocdbt, the index of its arrays, is missing" in outcome.said


def test_a_data_file_that_is_missing_is_named(run: Run, training: Path) -> None:
    shutil.rmtree(training / "state_30/default/d")
    outcome = run("check", training / "state_30")
    assert outcome.exit_code == 2
    assert "which it names, does not exist" in outcome.said


def test_an_array_that_is_missing_is_named(run: Run, zarr: Path) -> None:
    shutil.rmtree(zarr / "batch_stats.bn.var")
    outcome = run("check", zarr)
    assert outcome.exit_code == 2
    assert "batch_stats.bn.var, which its tree names, is not stored" in outcome.said


def test_a_step_without_arrays_is_incomplete(run: Run, tmp_path: Path) -> None:
    shutil.copytree(KERAS / "2", tmp_path / "2")
    shutil.rmtree(tmp_path / "2" / "pytree")
    outcome = run("check", tmp_path / "2")
    assert outcome.exit_code == 2
    assert "holds no arrays" in outcome.said


@pytest.mark.parametrize(
    ("stem", "file"),
    [
        ("orbax_linen_not_kept", "_METADATA"),
        ("orbax_linen_not_kept", "_CHECKPOINT_METADATA"),
        ("orbax_linen_scanned", "_METADATA"),
        ("orbax_haiku_not_kept", "_METADATA"),
        ("orbax_keras_correct", "2/model_config/_strings.json"),
        ("orbax_keras_correct", "2/pytree/_METADATA"),
        ("orbax_linen_zarr2", "batch_stats.bn.mean/.zarray"),
    ],
)
@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.data())
def test_damage_in_text_is_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, stem: str, file: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged") / "step"
    shutil.copytree(FIXTURES / stem, folder)
    path = folder / file
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    more = data.draw(st.sampled_from([None, b"", b"0", b"[", b"null", b"\xff", b"-1", b'"']))
    path.write_bytes(whole[:at] if more is None else whole[:at] + more + whole[at + 1 :])
    for report in bninspect.check(str(folder)).checkpoints:
        assert report.error is None or isinstance(report.error, ReadProblem)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.data())
def test_damage_in_binary_files_gives_the_right_values_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Members of a BN layer are small: they lie in the index, which has checksums."""
    folder = tmp_path_factory.mktemp("damaged") / "step"
    shutil.copytree(STUCK, folder)
    files = sorted(one for one in folder.rglob("*") if one.is_file() and one.suffix != ".txt")
    path = files[data.draw(st.integers(0, len(files) - 1))]
    whole = path.read_bytes()
    at = data.draw(st.integers(0, 1 << 20)) % len(whole)
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
    (report,) = bninspect.check(str(folder)).checkpoints
    if report.error is None and path.parent.name == "d":
        assert [one.rule.code for one in report.findings] == ["BN101", "BN101"]


# --- Commands and options -------------------------------------------------------------------------


@pytest.mark.processes
def test_a_tensorstore_that_cannot_be_loaded_is_tried_once(tmp_path: Path) -> None:
    """A second attempt to load the real one would abort the process."""
    (tmp_path / "tensorstore.py").write_text(
        "print('attempt'); raise ImportError('initialization failed')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "bninspect", "check", LINEN, KERAS, "--jobs", "1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout.count("which cannot be loaded (initialization failed)") == 2
    assert done.stdout.count("attempt") == 1


@pytest.mark.processes
def test_without_tensorstore_one_sentence_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['tensorstore'] = None;"
        " from bninspect.cli.main import run; run(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "check", str(LINEN)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    said = " ".join((done.stdout + done.stderr).split())
    assert "pip install 'bninspect[orbax]'" in said
    assert "Traceback" not in said


@pytest.mark.processes
def test_a_check_of_other_files_loads_no_tensorstore() -> None:
    program = (
        "import sys, bninspect;"
        f" bninspect.check({str(FIXTURES / 'keras3_zip_nested' / 'model.keras')!r});"
        " assert not {'tensorstore', 'bninspect.formats.orbax.checkpoint'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.framework
def test_the_engine_of_tensorflow_reads_no_orbax(run: Run) -> None:
    outcome = run("check", STUCK, "--engine", "tensorflow")
    assert outcome.exit_code == 2
    assert "--engine tensorflow reads TensorFlow's own files, no others" in outcome.said


def test_recalibrate_says_from_which_file_to_start(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data.npy"
    np.save(data, np.ones((8, 4), "f4"))
    for path in (STUCK, FIXTURES / "orbax_keras_state_dropped"):
        outcome = run("recalibrate", path, "--data", data, "-o", tmp_path / "fixed")
        assert outcome.exit_code == 2
        assert "model.save as a .keras file" in " ".join((outcome.out + outcome.err).split())


def test_verify_says_which_checksums_there_are(run: Run) -> None:
    assert "Orbax has checksums for its index alone" in run("check", STUCK, "--verify").said


def test_dump_has_the_values(run: Run) -> None:
    outcome = run("dump", KERAS, "--layer", "inner/bn", "--format", "json")
    assert outcome.exit_code == 0
    expected = json.loads((FIXTURES / "orbax_keras_correct.json").read_text("utf-8"))
    (layer,) = outcome.json["layers"]
    values: Any = expected["values"]["inner/bn"]
    assert layer["values"]["moving_mean"] == pytest.approx(values["moving_mean"])


def test_compare_shows_what_moved(run: Run) -> None:
    outcome = run("compare", LINEN / "state_15", LINEN / "state_30")
    assert outcome.exit_code == 0
    assert "Block_0/BatchNorm_0" in outcome.out


def test_the_page_and_the_baseline_take_orbax(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert run("report", STUCK, "-o", page).exit_code == 1
    assert "Block_0/BatchNorm_0" in page.read_text("utf-8")
    baseline = tmp_path / "baseline.json"
    assert run("check", STUCK, "--baseline", baseline, "--update-baseline").exit_code == 0
    assert run("check", STUCK, "--baseline", baseline).exit_code == 0


@pytest.mark.parametrize("typed", [".", "state_30"])
@pytest.mark.parametrize(
    "name", ["default/_METADATA", "default/manifest.ocdbt", "commit_success.txt"]
)
def test_output_never_replaces_a_file_of_a_step(
    run: Run, training: Path, typed: str, name: str
) -> None:
    file = training / "state_30" / name
    before = file.read_bytes()
    outcome = run("check", training / typed, "-o", file)
    assert outcome.exit_code == 2
    assert "Refusing to overwrite" in outcome.err
    assert file.read_bytes() == before


def test_the_configuration_of_keras_is_read(run: Run) -> None:
    (checkpoint,) = run("list", KERAS, "--format", "json").json["checkpoints"]
    assert [layer["momentum"] for layer in checkpoint["layers"]] == [0.8, 0.8]
    assert [layer["trainable"] for layer in checkpoint["layers"]] == [True, True]


def test_statistics_of_another_item_belong_to_the_layer(run: Run) -> None:
    (checkpoint,) = run("list", ITEMS, "--format", "json").json["checkpoints"]
    (first, _) = checkpoint["layers"]
    assert first["variables"]["gamma"] == "params/Block_0.BatchNorm_0.scale"
    assert first["variables"]["moving_mean"] == "batch_stats/Block_0.BatchNorm_0.mean"
