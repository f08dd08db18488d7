"""Reading ahead: the output of reading one by one, by the same requests, several at once.

What overlaps is proved by a server that gives one answer only when it was asked for another.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import fsspec
import numpy as np
import pytest

from bninspect.storage import filesystem, run_scope, urls
from bninspect.storage.remote import http, read_ahead, stores
from bninspect.storage.remote.read_ahead import map_ahead
from tests.conftest import FIXTURES, Outcome, Run, load_fixture
from tests.support.processes import PATIENCE, start_program, wait_until
from tests.support.servers import Answer, Folder, Request, on, refusing, s3, s3_environment
from tests.support.table_writer import write_bundle

pytestmark = pytest.mark.servers

# Of each container one, with and without findings.
STEMS = (
    "tf1_layers_correct",
    "tf1_layers_update_ops_forgotten",
    "tf1_layers_partitioned",
    "tf1_v1_correct",
    "tf1_lookalikes",
    "saved_model_tf1_stuck",
    "saved_model_keras3_export",
    "keras3_ckpt_stuck",
    "keras2_functional_correct",
    "keras2_zip_nested",
    "keras3_weights_subclassed",
    "keras3_weights_sharded",
)
COUNT = 6


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that was given no URL yet; failed requests are soon sent again."""
    monkeypatch.setattr(urls, "_credentials", {})
    monkeypatch.setattr(http, "_PAUSES", (0.0, 0.0))
    run_scope.begin_run()


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch, run: Run) -> Run:
    """The program, without reading ahead."""

    def run_one_by_one(*arguments: object) -> Outcome:
        with monkeypatch.context() as patch:
            patch.setattr(
                filesystem, "map_ahead", lambda function, items, _path_of=str: map(function, items)
            )
            return run(*arguments)

    return run_one_by_one


def network(seed: int, channels: int = 4) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    variables: dict[str, Any] = {"global_step": np.array(1000 + seed, np.int64)}
    for name in ("beta", "gamma", "moving_mean", "moving_variance"):
        values = random.uniform(0.5, 2, channels).astype(np.float32)
        variables[f"net/batch_normalization/{name}"] = values
    return variables


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder with a V2 checkpoint `model.ckpt-NUMBER` in each folder `run_NUMBER`."""
    for number in range(COUNT):
        prefix = tmp_path / f"run_{number}" / f"model.ckpt-{number}"
        prefix.parent.mkdir()
        write_bundle(prefix, network(number))
    return tmp_path


def urls_of(server: Folder) -> list[str]:
    return [f"{server.url}/run_{number}/model.ckpt-{number}" for number in range(COUNT)]


def asked(server: Folder) -> Counter[tuple[str, str]]:
    return Counter((request.path, request.range) for request in server.requests)


def number_of(request: Request) -> int:
    """The checkpoint that a request is for."""
    found = re.match(r"/run_(\d+)/", request.path)
    return int(found[1]) if found else -1


class Held:
    """A fault: the answer to the first request for one path waits for a request for another."""

    def __init__(self, held: str, until: str) -> None:
        self._held, self._until = held, until
        self._came = Event()
        self.was_in_time: bool | None = None

    def __call__(self, request: Request, answer: Callable[[], Answer]) -> Answer:
        if re.search(self._until, request.path):
            self._came.set()
        if self.was_in_time is None and re.search(self._held, request.path):
            self.was_in_time = self._came.wait(20)
        return answer()


# --- The same output, by the same requests --------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ("check", "--format", "json"),
        ("check", "--format", "jsonl"),
        ("check", "--format", "json", "--all-checkpoints"),
        ("check", "--verify"),
        ("list",),
    ],
    ids=" ".join,
)
def test_the_output_is_that_of_one_by_one(
    run: Run, one_by_one: Run, options: tuple[str, ...]
) -> None:
    with Folder(FIXTURES) as server:
        paths = []
        for stem in STEMS:
            named = load_fixture(stem).expected["checkpoint"]
            paths.append(f"{server.url}/{stem}" + ("" if named == "." else f"/{named}"))
        paths.insert(5, f"{server.url}/there_is_none.h5")
        paths.insert(7, str(load_fixture("tf1_layers_correct").path))  # on the disk
        expected = one_by_one(*options[:1], *paths, *options[1:])
        requests = asked(server)
        server.forget()
        outcome = run(*options[:1], *paths, *options[1:])
        assert outcome == expected
        assert outcome.out.count("there_is_none") >= 1
        assert asked(server) == requests


def test_a_training_is_followed_in_order(trained: Path, run: Run, one_by_one: Run) -> None:
    """Each checkpoint is compared with the one before it, one of which cannot be read."""
    training = trained / "training"
    training.mkdir()
    for number in range(COUNT):
        write_bundle(
            training / f"model.ckpt-{number}", network(7) | {"global_step": np.int64(number)}
        )
    (training / "model.ckpt-2.index").write_bytes(b"")
    with Folder(trained) as server:
        paths = [f"{server.url}/training/model.ckpt-{number}" for number in range(COUNT)]
        expected = one_by_one("check", *paths, "--all-checkpoints", "--format", "json")
        requests = asked(server)
        server.forget()
        held = Held("ckpt-0.data", until="ckpt-5.data")
        server.faults = [held]
        outcome = run("check", *paths, "--all-checkpoints", "--format", "json")
        assert held.was_in_time
        assert outcome == expected
        assert asked(server) == requests
    since = [found["since"] and found["since"]["path"] for found in outcome.json["checkpoints"]]
    assert since == [None, paths[0], None, paths[1], paths[3], paths[4]]


def test_what_arrives_together_is_read_ahead(
    trained: Path, run: Run, one_by_one: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a watch of a bucket, where each is compared with the one before it, too."""
    options = ("--all-checkpoints", "--timeout", "0.2", "--interval", "0.1", "--format", "jsonl")

    def watched(program: Run) -> list[dict[str, Any]]:
        lines = program("watch", "s3://bucket", *options).out.splitlines()
        varying = ("time", "seconds")
        documents = map(json.loads, lines)
        return [{k: v for k, v in one.items() if k not in varying} for one in documents]

    training = trained / "training"
    training.mkdir()
    for number in range(COUNT):
        step = {"global_step": np.int64(number)}
        write_bundle(training / f"model.ckpt-{number}", network(7) | step)
    with s3({"bucket": training}) as server:
        for name, value in s3_environment(server.url).items():
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)
        expected = watched(one_by_one)
        held = Held("ckpt-0.data", until="ckpt-4.data")
        server.faults = [held]
        assert watched(run) == expected
    assert held.was_in_time
    assert [found["since"] is None for found in expected[:-1]] == [True] + [False] * (COUNT - 1)


def test_the_graphs_of_a_training_are_read_ahead(tmp_path: Path, run: Run, one_by_one: Run) -> None:
    """Those that rules ask for, before the report of the checkpoint before is there."""
    source = load_fixture("tf1_graph_update_ops_forgotten").path
    for number in range(COUNT):
        for path in source.parent.glob(f"{source.name}.*"):
            end = path.name.removeprefix(source.name)
            shutil.copy(path, tmp_path / f"model.ckpt-{number}{end}")
    with Folder(tmp_path) as server:
        paths = [f"{server.url}/model.ckpt-{number}" for number in range(COUNT)]
        expected = one_by_one("check", *paths, "--all-checkpoints", "--format", "json")
        requests = asked(server)
        server.forget()
        held = Held("ckpt-0.meta", until="ckpt-5.meta")
        server.faults = [held]
        assert run("check", *paths, "--all-checkpoints", "--format", "json") == expected
        assert held.was_in_time
        assert asked(server) == requests
    assert expected.exit_code == 1


def test_a_note_on_a_graph_that_was_read_ahead_is_written_once(
    tmp_path: Path, run: Run, one_by_one: Run
) -> None:
    graph = Path(f"{load_fixture('tf1_graph_update_ops_forgotten').path}.meta")
    for number in range(COUNT):
        prefix = tmp_path / f"model.ckpt-{number}"
        stuck = {"a/bn/moving_mean": np.zeros(3, "f4"), "a/bn/moving_variance": np.ones(3, "f4")}
        write_bundle(prefix, stuck | {"a/bn/gamma": np.full(3, number, "f4")})
        shutil.copy(graph, f"{prefix}.meta")
    with Folder(tmp_path) as server:
        paths = [f"{server.url}/model.ckpt-{number}" for number in range(COUNT)]
        expected = one_by_one("check", *paths, "--all-checkpoints", "--format", "json")
        assert run("check", *paths, "--all-checkpoints", "--format", "json") == expected
    assert expected.out.count("is it of another model?") == COUNT


def test_steps_that_order_a_training_are_read_ahead(
    trained: Path, run: Run, one_by_one: Run
) -> None:
    training = trained / "training"
    training.mkdir()
    for number in range(4):
        name = f"model-{number % 2}-loss-{number}.ckpt"
        write_bundle(training / name, network(number) | {"global_step": np.int64(9 - number)})
    with Folder(trained) as server:
        paths = [f"{server.url}/training/{path.name[:-6]}" for path in training.glob("*.index")]
        expected = one_by_one("compare", *paths, "--format", "json")
        server.forget()
        assert run("compare", *paths, "--format", "json") == expected


# --- At once, within bounds -----------------------------------------------------------------------


@pytest.mark.parametrize("end", ["index", "data-00000-of-00001"])
def test_later_checkpoints_are_asked_for_meanwhile(trained: Path, run: Run, end: str) -> None:
    """To locate them, then to read them."""
    with Folder(trained) as server:
        held = Held(f"run_0/.*{end}", until=f"run_{COUNT - 1}/.*{end}")
        server.faults = [held]
        assert run("check", *urls_of(server)).exit_code == 0
    assert held.was_in_time


def test_the_fingerprints_of_a_resumed_run_are_asked_for_meanwhile(
    trained: Path, run: Run, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    options = ("--format", f"jsonl={results}", "--quiet")
    with Folder(trained) as server:
        run("check", *urls_of(server)[:-1], *options)
        held = Held("run_0/.*data", until="run_3/.*data")
        server.forget()
        server.faults = [held]
        outcome = run("check", *urls_of(server), *options, "--resume", results)
    assert held.was_in_time
    assert outcome.exit_code == 0
    # One request for the entry, which a web server has not; the bytes of the last are verified.
    versions = [one for one in server.requests if one.range == "bytes=0-0"]
    assert {number_of(one) for one in versions} == {COUNT - 1}


def test_no_more_checkpoints_are_read_than_the_limit(
    trained: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "MOST_AHEAD", 3)
    with Folder(trained) as server:
        held = Held("run_0/.*data", until="run_2/.*data")
        server.faults = [held]
        assert run("check", *urls_of(server)).exit_code == 0
        first = next(one for one in server.requests if one.path.startswith("/run_0/model.ckpt-0.d"))
        fourth = next(
            one for one in server.requests if one.path.startswith("/run_3/model.ckpt-3.d")
        )
    assert held.was_in_time
    assert fourth.begun >= first.answered


def test_no_more_bytes_are_fetched_ahead_than_the_limit(
    trained: Path, run: Run, one_by_one: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that would exceed it waits for its turn."""
    monkeypatch.setattr(stores, "head_of", lambda _url: 64)
    monkeypatch.setattr(read_ahead, "MOST_BYTES", 0)
    with Folder(trained) as server:
        expected = one_by_one("check", *urls_of(server), "--format", "json")
        server.forget()
        assert run("check", *urls_of(server), "--format", "json") == expected
        heads = ("bytes=0-63", "bytes=0-0")
        fetched = [number_of(one) for one in server.requests if one.range not in heads]
    assert set(fetched) == set(range(COUNT))
    assert fetched == sorted(fetched)


def test_requests_at_once_are_limited(
    trained: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "AT_ONCE", 2)
    monkeypatch.setattr(stores, "_stores", {})
    under_way, most = 0, 0
    lock = threading.Lock()

    def counted(_request: Request, answer: Callable[[], Answer]) -> Answer:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        answered = answer()
        with lock:
            under_way -= 1
        return answered

    with Folder(trained, latency=0.01) as server:
        server.faults = [counted]
        assert run("check", *urls_of(server)).exit_code == 0
    assert most <= 2


def test_a_directory_of_many_is_listed_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many threads ask what is in it."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    source = load_fixture("tf1_layers_correct").path
    for number in range(COUNT):
        for path in source.parent.glob(f"{source.name}.*"):
            memory.pipe_file(f"/runs/model.ckpt-{number}{path.suffix}", path.read_bytes())
    listed = []
    listing = stores.Store.listing

    def recorded(store: stores.Store, url: str) -> Any:
        listed.append(url)
        return listing(store, url)

    monkeypatch.setattr(stores.Store, "listing", recorded)
    paths = [f"memory://runs/model.ckpt-{number}" for number in range(COUNT)]
    assert run("check", *paths, "--quiet").exit_code == 0
    assert Counter(listed) == {"memory://runs": 1}
    memory.store.clear()


# --- Failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404, 500])
def test_what_fails_is_told_at_its_place(
    trained: Path, run: Run, one_by_one: Run, status: int
) -> None:
    with Folder(trained) as server:
        server.faults = [on("run_2/.*data", refusing(status))]
        expected = one_by_one("check", *urls_of(server), "--format", "json")
        assert run("check", *urls_of(server), "--format", "json") == expected
    errors = [found["error"] is not None for found in expected.json["checkpoints"]]
    assert errors == [number == 2 for number in range(COUNT)]


def test_a_server_that_refuses_several_at_once_is_read_one_by_one(
    trained: Path, run: Run, one_by_one: Run
) -> None:
    """It answers to the requests for one checkpoint at a time."""
    under_way: Counter[int] = Counter()
    refused = 0
    lock = threading.Lock()

    def busy(request: Request, answer: Callable[[], Answer]) -> Answer:
        nonlocal refused
        number = number_of(request)
        with lock:
            under_way[number] += 1
            is_refused = len(+under_way) > 1
            refused += is_refused
        threading.Event().wait(0.01)
        answered = Answer(503) if is_refused else answer()
        with lock:
            under_way[number] -= 1
        return answered

    with Folder(trained) as server:
        server.faults = [busy]
        expected = one_by_one("check", *urls_of(server), "--format", "json")
        assert not refused
        outcome = run("check", *urls_of(server), "--format", "json")
    assert refused
    assert outcome == expected
    assert outcome.exit_code == 0


def test_an_object_that_is_replaced_while_it_waits_is_noticed(
    trained: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first time that its version is asked for again, it is another."""
    monkeypatch.setattr(stores, "head_of", lambda _url: 64)
    is_first = threading.Semaphore(1)

    def replace_first(request: Request, answer: Callable[[], Answer]) -> Answer:
        asks_version = request.range == "bytes=0-0" and "run_3" in request.path
        if asks_version and is_first.acquire(blocking=False):
            write_bundle(trained / "run_3/model.ckpt-3", network(99))
        return answer()

    with Folder(trained) as server:
        server.faults = [replace_first]
        outcome = run("check", *urls_of(server), "--format", "json")
    messages = [
        found["error"] and found["error"]["message"] for found in outcome.json["checkpoints"]
    ]
    assert [number for number, message in enumerate(messages) if message] == [3]
    assert "replaced" in messages[3]


# --- The end --------------------------------------------------------------------------------------


def test_an_interrupt_ends_the_requests_too(trained: Path, tmp_path: Path) -> None:
    """The server would answer to none of them; what came before is reported."""
    with Folder(trained) as server:
        never = Event()

        def silent(request: Request, answer: Callable[[], Answer]) -> Answer:
            if number_of(request) >= 2 and ".data" in request.path:
                never.wait(PATIENCE)
            return answer()

        server.faults = [silent]
        target = tmp_path / "report.json"
        process = start_program("check", *urls_of(server), "--format", f"json={target}", "-q")
        wait_until(
            lambda: {number_of(one) for one in server.requests if ".data" in one.path} >= {2, 5},
            process,
        )
        wait_until(
            lambda: any(
                one.range == "bytes=0-0" and number_of(one) == 1 for one in server.requests
            ),
            process,
        )
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE / 2)
        never.set()
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    document = json.loads(target.read_text(encoding="utf-8"))
    assert document["summary"]["interrupted"] is True


def test_threads_end_with_the_iterator() -> None:
    before = set(threading.enumerate())
    begun = threading.Semaphore(0)

    def wait_ahead(item: str) -> str:
        if item != "s3://bucket/0":
            begun.release()
            read_ahead.wait_for_turn()
        return item

    results = map_ahead(wait_ahead, [f"s3://bucket/{number}" for number in range(9)], str)
    assert next(results) == "s3://bucket/0"
    assert begun.acquire(timeout=20)
    results.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) <= before


def test_an_exception_is_raised_in_its_turn() -> None:
    def fail_at_two(item: str) -> str:
        if item.endswith("2"):
            raise ZeroDivisionError
        return item

    items = [f"s3://bucket/{number}" for number in range(5)]
    results = map_ahead(fail_at_two, items, str)
    assert [next(results), next(results)] == items[:2]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_paths_of_the_disk_take_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those between URLs, which wait for them."""

    def name_of_thread(_item: str) -> str:
        return threading.current_thread().name

    def refuse(*_: object) -> Iterator[str]:
        raise AssertionError

    items = ["a", "s3://bucket/b", "c", "s3://bucket/d"]
    names = list(filesystem.map_ahead(name_of_thread, items))
    here = threading.current_thread().name
    assert [name == here for name in names] == [True, False, True, False]
    monkeypatch.setattr(read_ahead, "map_ahead", refuse)
    assert list(filesystem.map_ahead(str, ["a", "b"])) == ["a", "b"]
