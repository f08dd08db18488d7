"""Runs by the workers of a Dask cluster: the same report, whatever becomes of a worker."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bninspect.cli.formats import CHECK
from bninspect.runs import dask as cluster_
from tests.conftest import FIXTURES, Run
from tests.runs.test_parallel import make_models
from tests.support.clusters import Cluster, cluster
from tests.support.pages import without_run
from tests.support.processes import PATIENCE, start_program
from tests.support.servers import Folder

pytestmark = [pytest.mark.servers, pytest.mark.xdist_group("dask")]

SLOW = """
import time
import bninspect.runs.sequential
from bninspect.runs import parallel
from bninspect.runs.one_checkpoint import examine
def slowly(*arguments, **more):
    time.sleep(0.05)
    return examine(*arguments, **more)
bninspect.runs.sequential.examine = slowly
"""
DEADLY = """
import os
import bninspect.runs.sequential
from bninspect.runs import parallel
from bninspect.runs.one_checkpoint import examine
def deadly(item, *rest, **more):
    if "model_003" in item.path:
        os._exit(9)
    return examine(item, *rest, **more)
bninspect.runs.sequential.examine = deadly
"""
BROKEN = """
import bninspect.runs.sequential
from bninspect.runs import parallel
def broken(*arguments, **more):
    raise RuntimeError("a bug of ours")
bninspect.runs.sequential.examine = broken
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_models(tmp_path_factory.mktemp("fleet"), 150)


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as started:
        started.worker()
        started.worker(threads=2)
        yield started


@pytest.mark.parametrize("format_", sorted(CHECK))
def test_writes_what_one_process_writes(
    run: Run, models: Path, two_workers: Cluster, format_: str
) -> None:
    alone = run("check", models, "--format", format_)
    shared = run("check", models, "--format", format_, "--scheduler", two_workers.address)
    assert alone.exit_code == shared.exit_code == 2
    assert alone.out
    assert without_run(shared.out) == without_run(alone.out)
    assert shared.err == alone.err


def test_follows_each_training(run: Run, two_workers: Cluster, tmp_path: Path) -> None:
    for name in ("tf1_history_stopped", "tf1_history_correct", "keras2_history_frozen"):
        shutil.copytree(FIXTURES / name, tmp_path / name)
    call = ("check", tmp_path, "--all-checkpoints", "--format", "json")
    shared = run(*call, "--scheduler", two_workers.address).json
    assert shared == run(*call).json
    assert {f["rule"] for c in shared["checkpoints"] for f in c["findings"]} >= {"BN107"}


def test_reads_since_anew_in_each_run(run: Run, two_workers: Cluster, tmp_path: Path) -> None:
    """The workers outlive a run, and the checkpoint of --since may change meanwhile."""
    run_ = FIXTURES / "tf1_history_stopped"
    earlier = tmp_path / "earlier"
    call = (
        "check",
        run_ / "model.ckpt-60",
        "--since",
        earlier / "model.ckpt-20",
        "--format",
        "json",
    )
    shutil.copytree(run_, earlier)
    before = run(*call, "--scheduler", two_workers.address).json
    for end in (".index", ".data-00000-of-00001"):
        shutil.copy(run_ / f"model.ckpt-40{end}", earlier / f"model.ckpt-20{end}")
    after = run(*call, "--scheduler", two_workers.address).json
    assert before["checkpoints"][0]["since"]["step"] == 20
    assert after["checkpoints"][0]["since"]["step"] == 40
    assert after == run(*call).json


def test_asks_anew_what_lies_behind_urls(run: Run, two_workers: Cluster, tmp_path: Path) -> None:
    """The workers outlive a run: an object of the same name may be another one in the next."""
    model = tmp_path / "model.h5"
    with Folder(tmp_path) as server:
        call = ("check", f"{server.url}/model.h5", "--scheduler", two_workers.address)
        codes = []
        for stem in ("keras2_functional_correct", "keras2_training_false") * 3:  # two workers
            shutil.copy(FIXTURES / stem / "model.h5", model)
            outcome = run(*call, "--format", "json")
            assert outcome.json["summary"]["unreadable"] == 0, outcome.out
            codes.append(outcome.exit_code)
    assert codes == [0, 1, 0, 1, 0, 1]


def test_no_log_of_a_cluster_holds_a_secret(run: Run, tmp_path: Path) -> None:
    """Dask logs what has failed, and may log the arguments of that."""
    secret = "never5ecret"  # noqa: S105 - of no server
    with cluster(tmp_path / "cluster") as started, Folder(FIXTURES) as server:
        started.worker(BROKEN)
        url = server.url.replace("://", f"://user:{secret}@") + f"/model.h5?sig={secret}"
        outcome = run("check", url, "--scheduler", started.address)
        assert "internal error" in outcome.err
        logs = [log.read_text(encoding="utf-8") for log in started.folder.glob("*.log")]
    assert any("a bug of ours" in log for log in logs)
    assert not [text for text in (outcome.out, outcome.err, *logs) if secret in text]


def test_a_path_that_a_worker_does_not_find_is_an_error_of_its_own(
    run: Run, two_workers: Cluster, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)  # the workers are elsewhere
    outcome = run("check", "model_001", "--scheduler", two_workers.address, "--format", "json")
    assert outcome.exit_code == 2
    assert outcome.json["checkpoints"][0]["error"]["kind"] in ("not-found", "incomplete")


def test_a_worker_that_is_killed_loses_nothing(run: Run, models: Path, tmp_path: Path) -> None:
    with cluster(tmp_path / "cluster") as started:
        doomed = started.worker(SLOW)
        started.worker(SLOW)
        call = ("check", models, "--scheduler", started.address, "--format", "jsonl")
        process = start_program(*call)
        assert process.stdout is not None
        first = process.stdout.readline()  # so both have their portions
        doomed.send_signal(signal.SIGKILL)
        rest = process.stdout.read()  # with what has been read ahead, which `communicate` loses
        _, err = process.communicate(timeout=PATIENCE)
        assert doomed.wait() == -signal.SIGKILL
        assert process.returncode == 2
        assert err == ""
        assert first + rest == run("check", models, "--format", "jsonl").out


def test_a_checkpoint_that_kills_its_readers_is_named(models: Path, tmp_path: Path) -> None:
    with cluster(tmp_path / "cluster", allowed_failures=0) as started:
        started.worker(DEADLY)
        process = start_program("check", models, "--scheduler", started.address, "-q")
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert out == ""
    assert re.fullmatch(r"bninspect: --scheduler \S+: every worker died that .*model_0.*\n", err)


def test_an_interrupt_leaves_what_is_done(models: Path, tmp_path: Path) -> None:
    with cluster(tmp_path / "cluster") as started:
        started.worker(SLOW)
        target = tmp_path / "results.jsonl"
        call = ("check", models, "--scheduler", started.address)
        process = start_program(*call, "--format", f"jsonl={target}", "--format", "concise")
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.15)  # the others of its portion are written, too
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert err.endswith("bninspect: interrupted\n")
    assert "Traceback" not in err
    lines = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert 1 < len(lines) < 150
    assert lines[-1]["summary"]["interrupted"] is True
    assert lines[-1]["summary"]["checkpoints"] == len(lines) - 1


def test_a_scheduler_that_is_gone_ends_the_run(models: Path, tmp_path: Path) -> None:
    with cluster(tmp_path / "cluster") as started:
        started.worker(SLOW)
        process = start_program(
            "check", models, "--scheduler", started.address, "--format", "jsonl"
        )
        assert process.stdout is not None
        process.stdout.readline()
        started.scheduler.kill()
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert re.fullmatch(r"bninspect: --scheduler \S+: the scheduler is gone.*\n", err)


@pytest.mark.parametrize(
    ("preload", "told"),
    [
        ("import sys; sys.modules['bninspect'] = None", "has no bninspect"),
        ("import bninspect; bninspect.__version__ = '0.0.1'", "has bninspect 0.0.1"),
    ],
)
def test_the_workers_need_the_same_bninspect(
    run: Run, models: Path, tmp_path: Path, preload: str, told: str
) -> None:
    with cluster(tmp_path / "cluster") as started:
        started.worker(preload)
        outcome = run("check", models, "--scheduler", started.address)
    assert outcome.exit_code == 2
    assert outcome.out == ""
    assert told in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_cluster_without_workers_is_not_waited_for_in_vain(
    run: Run, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_, "_NO_WORKER", 1.0)
    with cluster(tmp_path / "cluster") as started:
        outcome = run("check", models, "--scheduler", started.address)
    assert outcome.exit_code == 2
    assert "no workers for 1 seconds" in outcome.err


@pytest.mark.parametrize("address", ["", "host", "foo://host:1", "tcp://host"])
def test_an_address_that_is_none(run: Run, models: Path, address: str) -> None:
    outcome = run("check", models, "--scheduler", address)
    assert outcome.exit_code == 2
    assert "is not the address of a Dask scheduler" in outcome.err


@pytest.mark.parametrize("answers", [True, False])
def test_a_scheduler_that_does_not_answer(
    run: Run, models: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """Nobody is there, or somebody who is no scheduler and says nothing."""
    monkeypatch.setattr(cluster_, "_CONNECT", 1.0)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers:
            server.listen()
        port = server.getsockname()[1]
        outcome = run("check", models, "--scheduler", f"tcp://127.0.0.1:{port}")
    assert outcome.exit_code == 2
    assert "no Dask scheduler answers at this address" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_jobs_are_for_this_machine(run: Run, models: Path) -> None:
    outcome = run("check", models, "--scheduler", "tcp://127.0.0.1:1", "-j", "2")
    assert outcome.exit_code == 2
    assert "--jobs" in outcome.err


def test_says_which_package_is_missing(
    run: Run, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    outcome = run("check", models, "--scheduler", "tcp://127.0.0.1:1")
    assert outcome.exit_code == 2
    assert "pip install 'bninspect[dask]'" in outcome.err


@pytest.mark.parametrize("address", ["tls://127.0.0.1:9", "ucx://127.0.0.1:9"])
def test_ways_that_dask_is_not_set_up_for(run: Run, models: Path, address: str) -> None:
    outcome = run("check", models, "--scheduler", address)
    assert outcome.exit_code == 2
    assert f"--scheduler {address}: Dask is not configured for" in outcome.err
