"""Runs over many checkpoints: processes, order, memory, interrupts, what is seen meanwhile."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bninspect
from bninspect import check
from bninspect.cli.formats import CHECK
from bninspect.config.model import make_config
from bninspect.errors import BninspectError, UsageProblem
from bninspect.model.report import CheckpointReport
from bninspect.runs import worker
from bninspect.runs.processes import ProcessPool
from bninspect.runs.run import check_paths
from tests.conftest import FIXTURES, Run, load_fixture
from tests.support.pages import without_run
from tests.support.processes import (
    ENVIRONMENT,
    PATIENCE,
    children,
    group_is_running,
    is_running,
    start_program,
    wait_until,
)
from tests.support.table_writer import write_bundle


def layer(name: str, *, stuck: bool = False, channels: int = 4) -> dict[str, np.ndarray]:
    return {
        f"{name}/gamma": np.linspace(1.1, 1.5, channels, dtype=np.float32),
        f"{name}/moving_mean": np.full(channels, 0.0 if stuck else 0.5, np.float32),
        f"{name}/moving_variance": np.full(channels, 1.0 if stuck else 0.7, np.float32),
    }


def make_models(folder: Path, count: int) -> Path:
    """Checkpoints of which every third is stuck, every seventh damaged, every fifth without BN."""
    for number in range(count):
        prefix = folder / f"model_{number:03d}" / "model.ckpt"
        prefix.parent.mkdir(parents=True)
        bn = layer(f"net_{number}/bn", stuck=number % 3 == 0)
        write_bundle(prefix, bn if number % 5 else {"dense/kernel": np.ones(3, np.float32)})
        if number % 7 == 0:
            index = Path(f"{prefix}.index")
            index.write_bytes(index.read_bytes()[:-9])
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_models(tmp_path_factory.mktemp("many"), 45)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 healthy checkpoints of 30 layers and 720 KB, which cost the disk one."""
    folder = tmp_path_factory.mktemp("long")
    many = {}
    for number in range(30):
        many |= layer(f"bn_{number}", channels=2000)
    write_bundle(folder / "model.ckpt-0", many)
    for number in range(1, 400):
        for end in (".index", ".data-00000-of-00001"):
            os.link(folder / f"model.ckpt-0{end}", folder / f"model.ckpt-{number}{end}")
    return folder


OF_EACH_KIND = [
    "frozen_tf1_stuck",
    "keras2_functional_correct",
    "keras3_zip_nested",
    "keras3_weights_sharded",
    "onnx_pytorch_spelled_out_stuck",
    "onnx_pytorch_stuck",
    "saved_model_keras3_export",
    "saved_model_tf1_constants",
    "tf1_graph_update_ops_forgotten",
    "tf1_v1_correct",
    "tfjs_graph_loop_stuck",
    "tfjs_layers_stuck",
]
OF_ONE_LAYOUT = ["tf1_graph_estimator", "tf1_graph_handwritten_sgd"] * 20
# Worker processes are started for any work, and this process leaves them the most of it.
EAGER = """
import time
import bninspect.runs.workload
from bninspect.runs import parallel
bninspect.runs.workload.OF_PROCESS = 1e-6
here = parallel._examine_here
def slowly(*arguments):
    for report in here(*arguments):
        time.sleep(0.1)
        yield report
parallel._examine_here = slowly
"""
# A worker is killed by its first checkpoint.
DEADLY = """
from bninspect.runs import worker
kill = "import os; from bninspect.runs import parallel; "
kill += "parallel._examine = lambda *_: os.kill(os.getpid(), 9); serve()"
worker._PROGRAM = worker._PROGRAM.removesuffix("serve()") + kill
"""


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Worker processes for any work; the sizes of the portions that they got, at least one."""
    portions: list[int] = []
    begin, take_part = worker.Worker.begin, ProcessPool._take_part

    def counted(worker: Any, number: int, portion: Any) -> None:
        portions.append(len(portion))
        begin(worker, number, portion)

    def when_all_have_started(pool: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while not portions and time.monotonic() < deadline:
            pool._receive(0.1)
        if pool.waiting:
            take_part(pool)

    monkeypatch.setattr(worker.Worker, "begin", counted)
    monkeypatch.setattr(ProcessPool, "_take_part", when_all_have_started)
    monkeypatch.setattr("bninspect.runs.workload.OF_PROCESS", 1e-6)
    monkeypatch.setattr("bninspect.runs.workload.processors", lambda: 3)
    yield portions
    assert portions


class TestProcesses:
    @pytest.mark.processes
    @pytest.mark.usefixtures("eager")
    @pytest.mark.parametrize("format_", sorted(CHECK))
    @pytest.mark.parametrize("jobs", [2, "auto"])
    def test_write_what_one_writes(
        self, run: Run, models: Path, format_: str, jobs: object
    ) -> None:
        alone = run("check", models, "--format", format_, "--jobs", 1)
        shared = run("check", models, "--format", format_, "--jobs", jobs)
        assert alone.exit_code == shared.exit_code == 2
        assert alone.out
        assert without_run(shared.out) == without_run(alone.out)

    @pytest.mark.processes
    @pytest.mark.usefixtures("eager")
    @pytest.mark.parametrize("stems", [OF_EACH_KIND, OF_ONE_LAYOUT], ids=["kinds", "layout"])
    def test_send_layers_with_their_graphs(
        self, run: Run, stems: list[str], tmp_path: Path
    ) -> None:
        models = [tmp_path / ("m" * count) for count in range(1, len(stems) + 1)]
        for stem, model in zip(stems, models, strict=True):
            shutil.copytree(FIXTURES / stem, model)
        alone = run("report", *models, "--jobs", 1)
        shared = run("report", *models, "--jobs", 2)
        assert alone.exit_code == shared.exit_code, shared.err
        assert without_run(shared.out) == without_run(alone.out)

    @pytest.mark.processes
    @pytest.mark.usefixtures("eager")
    def test_write_several_formats(self, run: Run, models: Path, tmp_path: Path) -> None:
        call = ["check", models, "-v", "--format", "text"]
        for format_ in sorted(CHECK):
            call += ["--format", f"{format_}={tmp_path / format_}"]
        written = []
        for jobs in (1, 2):
            out = run(*call, "--jobs", jobs).out
            files = [(tmp_path / one).read_text("utf-8") for one in sorted(CHECK)]
            written.append((out, list(map(without_run, files))))
        assert written[0] == written[1]

    @pytest.mark.processes
    @pytest.mark.usefixtures("eager")
    def test_read_each_checkpoint_once(self, run: Run, models: Path, tmp_path: Path) -> None:
        """Reading begins before it is known which paths name the same."""
        (tmp_path / "again").symlink_to(models)
        h5 = load_fixture("keras2_functional_correct").path
        paths = [models / "model_003", tmp_path, models, h5, models / "model_0*", models / "none"]
        alone = run("check", *paths, "--format", "concise", "--jobs", 1)
        shared = run("check", *paths, "--format", "concise", "--jobs", 2)
        assert shared == alone

    @pytest.mark.processes
    @pytest.mark.usefixtures("eager")
    def test_go_on_with_results(self, run: Run, models: Path, tmp_path: Path) -> None:
        results = tmp_path / "results.jsonl"
        call = ("check", models, "--format", f"jsonl={results}", "--resume", results)
        run(*call, "--jobs", 1)
        whole = results.read_bytes().splitlines()
        results.write_bytes(b"\n".join(whole[:20]) + b"\n")
        run(*call, "--jobs", 2)
        lines = results.read_bytes().splitlines()
        # What could not be read is tried again.
        assert set(lines) == set(whole)
        assert lines[-1] == whole[-1]

    @pytest.mark.processes
    @pytest.mark.usefixtures("eager")
    def test_give_whole_reports_in_python(self, models: Path) -> None:
        alone, shared = check(models), check(models, jobs=2)
        assert bninspect.explain(shared, verbose=True) == bninspect.explain(alone, verbose=True)
        pairs = list(zip(alone.checkpoints, shared.checkpoints, strict=True))
        for one, other in pairs:
            assert [layer.name for layer in one.layers] == [layer.name for layer in other.layers]
            for layer, its_copy in zip(one.layers, other.layers, strict=True):
                for role, values in layer.values.items():
                    assert values.array.tobytes() == its_copy.values[role].array.tobytes()
        [variable, *_] = next(item for _, item in pairs if item.layers).layers[0].variables.values()
        with pytest.raises(BninspectError, match="has closed it"):
            variable.read()

    @pytest.mark.processes
    @pytest.mark.usefixtures("eager")
    def test_follow_each_training(self, run: Run, tmp_path: Path) -> None:
        for name in ("tf1_history_stopped", "tf1_history_correct", "keras2_history_frozen"):
            shutil.copytree(FIXTURES / name, tmp_path / name)
        call = ("check", tmp_path, "--all-checkpoints", "--format", "json")
        alone, shared = run(*call), run(*call, "-j", 2)
        assert shared.json == alone.json
        assert {f["rule"] for c in shared.json["checkpoints"] for f in c["findings"]} >= {"BN107"}

    @pytest.mark.processes
    @pytest.mark.usefixtures("eager")
    def test_follow_trainings_that_are_named_in_turn(self, run: Run) -> None:
        stopped, correct = FIXTURES / "tf1_history_stopped", FIXTURES / "tf1_history_correct"
        paths = [f"{run_}/model.ckpt-{step}" for step in (40, 60) for run_ in (stopped, correct)]
        call = ("check", *paths, "--all-checkpoints", "--format", "json")
        alone, shared = run(*call), run(*call, "-j", 2)
        assert shared.json == alone.json
        assert {f["rule"] for c in shared.json["checkpoints"] for f in c["findings"]} == {"BN107"}

    @pytest.mark.processes
    @pytest.mark.usefixtures("eager")
    def test_compare_with_the_one_that_is_given(self, run: Run, models: Path) -> None:
        run_ = FIXTURES / "tf1_history_stopped"
        later = [run_ / "model.ckpt-40", run_ / "model.ckpt-60"]
        call = ("check", *later, "--since", run_ / "model.ckpt-20", "--format", "json")
        assert run(*call, "--jobs", 2).json == run(*call).json
        missing = run("check", *later, "--since", run_ / "missing", "--jobs", 2)
        assert missing.exit_code == 2
        assert "missing" in missing.err
        # Below a directory, too, where reading could begin before all is found.
        call = ("check", models, "--since", run_ / "missing")
        assert run(*call, "--jobs", 2) == run(*call, "--jobs", 1)

    @pytest.mark.processes
    @pytest.mark.usefixtures("eager")
    def test_know_names_severities_and_suppressions(
        self, run: Run, tmp_path: Path, models: Path
    ) -> None:
        own = {"a/mu": np.zeros(3, np.float32), "a/sigma": np.ones(3, np.float32)}
        write_bundle(tmp_path / "own.ckpt", own)
        config = tmp_path / "bninspect.toml"
        config.write_text(
            'severity = {BN101 = "note"}\n[[suppress]]\nlayer = "net_3/*"\n'
            'rules = ["BN101"]\nreason = "known"\n'
            '[patterns]\nmoving_mean = "/mu$"\nmoving_variance = "/sigma$"\n',
            encoding="utf-8",
        )
        call = ("check", tmp_path / "own.ckpt", models, "--config", config)
        shared = run(*call, "--format", "json", "--jobs", 2)
        assert shared.json == run(*call, "--format", "json").json
        assert shared.json["summary"]["suppressed"] > 0
        assert shared.json["checkpoints"][0]["layers"]
        assert "1 suppressed" in run(*call, "--jobs", 2).said  # which needs no layers to be written
        assert run(*call, "--jobs", 2).out == run(*call).out

    @pytest.mark.parametrize("jobs", ["0", "-1", "many", "1.5", ""])
    def test_wants_one_at_least(self, run: Run, models: Path, jobs: str) -> None:
        outcome = run("check", models, "--jobs", jobs)
        assert outcome.exit_code == 2
        assert "auto" in outcome.err
        with pytest.raises(UsageProblem, match="auto"):
            check(models, jobs=0)

    @pytest.mark.processes
    def test_one_that_is_killed_is_no_pass(self, long_run: Path) -> None:
        """The system ends a process that takes too much memory."""
        process = start_program("check", long_run, "--jobs", "2", before=EAGER + DEADLY)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 2
        assert re.fullmatch(
            r"bninspect: The process that was reading \S+model.ckpt-\d+ was killed \(SIGKILL\),"
            r" perhaps for lack of memory; use fewer --jobs.\n",
            err,
        )

    @pytest.mark.processes
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
    def test_end_with_the_one_that_started_them(self, long_run: Path, number: int) -> None:
        process = start_program(
            "check", long_run, "--jobs", "3", before=EAGER, stdout=subprocess.DEVNULL
        )
        wait_until(lambda: len(children(process.pid)) >= 2, process)
        workers = children(process.pid)
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == -number
        wait_until(lambda: not any(is_running(pid) for pid in workers))

    @pytest.mark.processes
    @pytest.mark.parametrize("program", ["/bin/false", "/no/such/program"])
    def test_that_cannot_start_are_done_without(
        self, run: Run, models: Path, monkeypatch: pytest.MonkeyPatch, program: str
    ) -> None:
        alone = run("check", models, "--jobs", 1)
        monkeypatch.setattr("bninspect.runs.workload.OF_PROCESS", 1e-6)
        monkeypatch.setattr(sys, "executable", program)
        assert run("check", models, "--jobs", 2) == alone


class TestWork:
    """As many processes are started as the work pays for."""

    @pytest.fixture
    def started(self, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        """One entry for each process that was started."""
        started: list[object] = []
        start = subprocess.Popen

        def counted(*arguments: Any, **options: Any) -> Any:
            started.append(arguments)
            return start(*arguments, **options)

        monkeypatch.setattr(subprocess, "Popen", counted)
        monkeypatch.setattr("bninspect.runs.workload.processors", lambda: 3)
        return started

    @pytest.fixture
    def fleet(self, tmp_path: Path) -> Callable[..., Path]:
        """Make a number of checkpoints of one architecture."""

        def make(count: int, *, stuck: bool = False) -> Path:
            folder = tmp_path / f"{count}-{stuck}"
            folder.mkdir()
            write_bundle(folder / "model.ckpt-0", layer("bn", stuck=stuck))
            for number in range(1, count):
                for end in (".index", ".data-00000-of-00001"):
                    os.link(folder / f"model.ckpt-0{end}", folder / f"model.ckpt-{number}{end}")
            return folder

        return make

    @pytest.mark.processes
    @pytest.mark.parametrize("jobs", ["2", "auto"])
    def test_little_needs_one_process(
        self, run: Run, started: list[object], models: Path, jobs: str
    ) -> None:
        run("check", models, "--jobs", jobs)
        assert not started

    @pytest.mark.processes
    @pytest.mark.parametrize(("jobs", "most"), [("1", 0), ("2", 1), ("auto", 2)])
    def test_much_gets_several(
        self, run: Run, eager: list[int], started: list[object], models: Path, jobs: str, most: int
    ) -> None:
        """Each further process is started when there is work that nobody has begun."""
        run("check", models, "--jobs", jobs)
        assert len(started) == most
        eager.append(0)

    @pytest.mark.processes
    def test_auto_has_a_limit(
        self,
        run: Run,
        eager: list[int],
        started: list[object],
        models: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("bninspect.runs.workload.processors", lambda: 64)
        run("check", models)
        assert 1 <= len(started) <= 7
        assert eager

    @pytest.mark.processes
    @pytest.mark.parametrize(("stuck", "count"), [(False, 0), (True, 1)])
    def test_findings_are_work(
        self, run: Run, started: list[object], fleet: Any, *, stuck: bool, count: int
    ) -> None:
        """What is stuck takes longer, which is known when the first have been read."""
        run("check", fleet(400, stuck=stuck), "--jobs", "2")
        assert len(started) == count


def test_the_report_holds_no_layers_when_they_are_written(models: Path) -> None:
    class Observer:
        needs_layers = needs_checkpoints = True
        render = None

        def __init__(self) -> None:
            self.total, self.items = 0, list[CheckpointReport]()

        def begin(self, total: int) -> None:
            self.total = total

        def add(self, item: CheckpointReport, _: None) -> None:
            self.items.append(item)

    observer = Observer()
    whole = check_paths([models], make_config())
    light = check_paths([models], make_config(), observer)
    assert observer.total == len(observer.items) == len(whole.checkpoints)
    assert any(item.layers for item in observer.items)
    assert not any(item.layers for item in light.checkpoints)
    assert light.layer_count == whole.layer_count > 0
    assert light.findings == whole.findings


@pytest.mark.processes
@pytest.mark.parametrize("options", [(), ("--baseline", "known.json", "--update-baseline")])
def test_memory_does_not_grow_with_the_number_of_checkpoints(
    long_run: Path, options: tuple[str, ...], tmp_path: Path
) -> None:
    """What a healthy checkpoint leaves is less than its layers by far."""

    def peak(*paths: Path) -> int:
        """Peak resident memory of a check, in KB."""
        command = [sys.executable, "-m", "bninspect", "check", "-q", *map(str, paths), *options]
        before = {"OPENBLAS_NUM_THREADS": "1", **ENVIRONMENT}
        process = subprocess.Popen(command, env=before, cwd=tmp_path, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        return usage.ru_maxrss

    few = peak(*(long_run / f"model.ckpt-{number}" for number in range(4)))
    # All together have 288 MB of statistics.
    assert peak(long_run) - few < 10_000


@pytest.fixture
def with_a_slow_one(tmp_path: Path) -> Path:
    """Models of which `SLOW` takes a minute for the last."""
    folder = make_models(tmp_path / "models", 12)
    (folder / "z_last").mkdir()
    write_bundle(folder / "z_last" / "model.ckpt", layer("late/bn"))
    return folder


SLOW = """
import sys
import time
import bninspect.runs.sequential

examine = bninspect.runs.sequential.examine

def slowly(item, *rest, **more):
    if "z_last" in item.path:
        print("asleep", file=sys.stderr, flush=True)
        time.sleep(600)
    return examine(item, *rest, **more)

bninspect.runs.sequential.examine = slowly
"""


def start_slow(*arguments: object) -> subprocess.Popen[str]:
    """The program, with a last checkpoint that takes minutes; it says so before."""
    return start_program(*arguments, before=SLOW)


class TestInterrupt:
    @pytest.mark.processes
    def test_leaves_what_is_done(self, with_a_slow_one: Path, tmp_path: Path) -> None:
        folder = with_a_slow_one
        target = tmp_path / "report.json"
        process = start_slow("check", folder, "--format", "concise", "--format", f"json={target}")
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(7)]  # as they come
        assert lines
        assert all(line.startswith(str(folder)) for line in lines)
        assert process.stderr is not None
        assert process.stderr.readline() == "asleep\n"  # all others are done
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert "interrupted" in err
        assert "Traceback" not in err
        document = json.loads(target.read_text(encoding="utf-8"))
        assert document["summary"]["interrupted"] is True
        assert document["summary"]["checkpoints"] == len(document["checkpoints"]) == 12

    @pytest.mark.parametrize("format_", sorted(CHECK))
    def test_is_said_in_every_format(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, models: Path, format_: str
    ) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        whole = run("check", models, "--format", format_).out
        monkeypatch.setattr("bninspect.runs.one_checkpoint.apply_rules", interrupt)
        outcome = run("check", models, "--format", format_)
        assert outcome.exit_code == 130
        assert "interrupted" in outcome.err
        if format_ != "concise":  # which says nothing of the run as a whole
            assert "interrupted" in outcome.out
            assert "interrupted" not in whole

    def test_is_said_in_the_first_line(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is done by then may have passed: that is no verdict on all."""
        done = []

        def interrupt(*_: object) -> tuple[()]:
            if len(done) == 2:
                raise KeyboardInterrupt
            done.append(None)
            return ()

        monkeypatch.setattr("bninspect.runs.one_checkpoint.apply_rules", interrupt)
        sound = ("tf1_layers_correct", "tf1_v1_correct", "keras2_nested")
        out = run("check", *(load_fixture(name).path for name in sound), "--quiet").out
        assert out.startswith("PASS  interrupted after 2 checkpoints: 2 passed\n")

    @pytest.mark.processes
    def test_ends_the_processes_too(self, long_run: Path) -> None:
        """All of a terminal's foreground processes get the signal."""
        process = start_program(
            "check", long_run, "--jobs", "2", before=EAGER, start_new_session=True
        )
        wait_until(lambda: children(process.pid), process)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert err.strip() == "bninspect: interrupted"
        wait_until(lambda: not group_is_running(process.pid))

    def test_is_for_the_caller_in_python(
        self, monkeypatch: pytest.MonkeyPatch, models: Path
    ) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("bninspect.runs.one_checkpoint.apply_rules", interrupt)
        with pytest.raises(KeyboardInterrupt):
            check_paths([models], make_config())


@pytest.mark.processes
class TestClosedOutput:
    def test_files_are_written_all_the_same(self, models: Path, tmp_path: Path) -> None:
        target = tmp_path / "report.json"
        command = f"{sys.executable} -m bninspect check {models} --format concise"
        done = subprocess.run(
            ["bash", "-c", f"{command} --format json={target} | head -1; exit ${{PIPESTATUS[0]}}"],
            capture_output=True,
            text=True,
            check=False,
            env=ENVIRONMENT,
        )
        assert done.returncode == 2
        assert len(json.loads(target.read_text(encoding="utf-8"))["checkpoints"]) == 45

    def test_ends_a_run_that_writes_no_file(self, models: Path) -> None:
        command = f"{sys.executable} -m bninspect check {models} --format concise"
        done = subprocess.run(
            ["bash", "-c", f"{command} | head -1; exit ${{PIPESTATUS[0]}}"],
            capture_output=True,
            text=True,
            check=False,
            env=ENVIRONMENT,
        )
        assert done.returncode == 141
        assert done.stderr == ""


class TestProgress:
    def bar(self, *arguments: object) -> str:
        """What a terminal at standard error gets to see."""
        ours, theirs = pty.openpty()
        try:
            subprocess.run(
                [sys.executable, "-m", "bninspect", "check", *map(str, arguments)],
                stdout=subprocess.DEVNULL,
                stderr=theirs,
                check=False,
                env={**ENVIRONMENT, "TERM": "xterm"},
            )
            os.set_blocking(ours, False)
            seen = b""
            with suppress(BlockingIOError):
                while chunk := os.read(ours, 65536):
                    seen += chunk
            return seen.decode()
        finally:
            os.close(ours)
            os.close(theirs)

    @pytest.mark.processes
    def test_is_for_a_terminal_and_several(self, run: Run, models: Path) -> None:
        assert "Checking" not in run("check", models).err
        assert self.bar(models, "--quiet") == ""
        assert self.bar(FIXTURES / "tf1_layers_correct" / "model.ckpt-60") == ""


@pytest.mark.processes
def test_thousands_of_open_files_are_not_needed(models: Path) -> None:
    """Each checkpoint is closed before the next is opened."""
    done = subprocess.run(
        [sys.executable, "-m", "bninspect", "check", str(models), "-q"],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24)),
    )
    assert done.returncode == 2
    assert "Too many open files" not in done.stdout + done.stderr


@pytest.mark.processes
def test_with_few_file_handles_fewer_processes_read(run: Run, models: Path) -> None:
    process = start_program(
        "check",
        models,
        "--jobs",
        "30",
        before=EAGER,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16)),
    )
    out, err = process.communicate(timeout=PATIENCE)
    alone = run("check", models, "--jobs", 1)
    assert (process.returncode, out, err) == (alone.exit_code, alone.out, alone.err)
