"""Checkpoints behind URLs, on real servers on loopback: what is found, what it costs, what fails.

See `tests.support.servers` for which server is whose. What the same files say on the disk is the
measure: a report by URL may differ from the local one in nothing but the paths.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from tests.conftest import FIXTURES, Outcome, Run, load_fixture
from tests.support.servers import (
    NO_CREDENTIALS,
    SECRET,
    Folder,
    Hub,
    Recorder,
    azure,
    azure_environment,
    cut_after,
    doing,
    free_port,
    gcs,
    gcs_environment,
    hub_environment,
    late,
    on,
    redirecting,
    refusing,
    s3,
    s3_client,
    s3_environment,
    s3_error,
    with_headers,
)
from tests.support.table_writer import index_path, shard_path, write_bundle

pytestmark = pytest.mark.servers


# One of each container but Orbax, which is read from the local disk alone.
CONTAINERS = {
    "graph-def": "frozen_tf1_stuck",
    "keras-h5": "keras2_functional_correct",
    "keras-weights-h5": "keras3_weights_subclassed",
    "keras-zip": "keras2_zip_nested",
    "onnx": "onnx_pytorch_external",
    "saved-model": "saved_model_keras3_export",
    "tf-object": "keras3_ckpt_stuck",
    "tf-v1": "tf1_v1_correct",
    "tf-v2": "tf1_layers_update_ops_forgotten",
    "tfjs": "tfjs_layers_correct",
}
# … and of each way in which one lies in several files, or holds its values.
STEMS = (
    *CONTAINERS.values(),
    "frozen_keras315_correct",
    "keras3_weights_sharded",
    "onnx_keras2_stuck",
    "saved_model_tf1_constants",
    "saved_model_tf1_flat",
    "saved_model_tf1_stuck",
    "tf1_graph_update_ops_forgotten",
    "tf1_history_forgotten",
    "tf1_layers_partitioned",
    "tf1_layers_sharded",
    "tf1_training_directory",
    "tf1_v1_sharded",
    "tfjs_graph_loop_stuck",
    "tfjs_javascript",
    "tfjs_layers_uint8",
)
ORBAX = "orbax_linen_zarr2"
STORES = ("s3", "gcs", "azure", "hub")
LARGE = "large/model.ckpt-1000"
SECONDS = 120  # that a test may take, on a slow machine, before it counts as hanging


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    """No test may hang."""

    def too_late(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"not done after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _nobody_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials but those a test sets, and no client that remembers another test's server."""
    set_all(monkeypatch, NO_CREDENTIALS)
    forget_clients()


def forget_clients() -> None:
    """As in a process that has sent no request yet."""
    from fsspec.spec import AbstractFileSystem

    from bninspect.storage import urls
    from bninspect.storage.remote import stores

    stores._stores.clear()
    urls._credentials.clear()
    kinds = [AbstractFileSystem]
    for kind in kinds:
        kind.clear_instance_cache()
        kinds += kind.__subclasses__()


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


@dataclass
class Place:
    """The same files on the disk and behind a URL."""

    local: Path
    url: str
    server: Recorder

    def by_url(self, outcome: Outcome) -> str:
        """What was said of the local files, as it is to be said of those behind the URL."""
        return outcome.out.replace(str(self.local), self.url)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder for each stem."""
    folder = tmp_path_factory.mktemp("stored") / "runs"
    for stem in STEMS:
        shutil.copytree(FIXTURES / stem, folder / stem)
    (folder / "large").mkdir()
    write_bundle(folder / LARGE, some_network(LAYERS, 100_000))
    return folder


@pytest.fixture(scope="module")
def steps(runs: Path) -> Path:
    """A folder with a step of Orbax, beside the others."""
    folder = runs.parent.parent / "steps"
    shutil.copytree(FIXTURES / ORBAX, folder / ORBAX)
    return folder


@pytest.fixture(scope="module")
def served(
    runs: Path, steps: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Recorder]]:
    """Starts each server once, when it is asked for."""
    buckets = {"bucket": runs.parent, "steps": steps}
    makers: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "s3": lambda: s3(buckets),
        "gcs": lambda: gcs(buckets),
        "azure": lambda: azure(buckets, tmp_path_factory.mktemp("azurite")),
        "hub": lambda: Hub(runs.parent.parent),
        "web": lambda: Folder(runs.parent),
    }
    running: dict[str, tuple[AbstractContextManager[Any], Recorder]] = {}

    def server(name: str) -> Recorder:
        if name not in running:
            manager = makers[name]()
            running[name] = manager, manager.__enter__()
        return running[name][1]

    yield server
    for manager, _ in running.values():
        manager.__exit__(None, None, None)


@pytest.fixture
def open_place(
    runs: Path, served: Callable[[str], Recorder], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Place]:
    """The stems at a server of this name, without faults, and the environment to find it."""

    def place(name: str) -> Place:
        server = served(name)
        server.forget()
        if name == "web":
            return Place(runs, f"{server.url}/runs", server)
        environment = {
            "s3": s3_environment,
            "gcs": gcs_environment,
            "azure": azure_environment,
            "hub": hub_environment,
        }
        set_all(monkeypatch, environment[name](server.url))
        if name == "hub":
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
            return Place(runs, f"hf://{runs.parent.name}/runs", server)
        scheme = {"s3": "s3", "gcs": "gs", "azure": "az"}[name]
        return Place(runs, f"{scheme}://bucket/runs", server)

    return place


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, open_place: Callable[[str], Place]) -> Place:
    """One of the object stores."""
    return open_place(request.param)


@pytest.fixture(params=[*STORES, "web"])
def place(request: pytest.FixtureRequest, open_place: Callable[[str], Place]) -> Place:
    """One of the object stores, or a web server."""
    return open_place(request.param)


@pytest.fixture
def web(open_place: Callable[[str], Place]) -> Place:
    return open_place("web")


@pytest.fixture
def bucket(open_place: Callable[[str], Place]) -> Place:
    return open_place("s3")


def checkpoint_of(stem: str) -> str:
    """The path of a fixture's checkpoint below the folder of all."""
    named = load_fixture(stem).expected["checkpoint"]
    return stem if named == "." else f"{stem}/{named}"


# --- The same report ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        *((stem, name) for stem in STEMS for name in ("s3", "web")),
        *((stem, name) for stem in CONTAINERS.values() for name in ("gcs", "azure", "hub")),
    ],
)
def test_a_url_gives_the_report_of_the_file(
    stem: str, name: str, open_place: Callable[[str], Place], run: Run
) -> None:
    """One by one; the others come as a directory from all stores, too (see below)."""
    if (stem, name) == ("tf1_v1_sharded", "web"):
        pytest.skip("by HTTP nobody tells which shards there are")
    place = open_place(name)
    path = checkpoint_of(stem)
    local = run("check", place.local / path, "--format", "json")
    there = run("check", f"{place.url}/{path}", "--format", "json")
    assert local.json["checkpoints"][0]["error"] is None
    assert there.exit_code == local.exit_code
    assert json.loads(there.out) == json.loads(place.by_url(local))
    assert not there.err


def test_every_container_comes_from_every_store() -> None:
    formats = {load_fixture(path.stem).expected["format"] for path in FIXTURES.glob("*.json")}
    assert formats == {*CONTAINERS, "orbax"}
    for format_, stem in CONTAINERS.items():
        assert load_fixture(stem).expected["format"] == format_


@pytest.mark.parametrize("inside", ["", "/_METADATA"])
def test_a_step_of_orbax_is_refused_in_one_sentence(store: Place, run: Run, inside: str) -> None:
    url = f"{store.url.partition('://')[0]}://steps/{ORBAX}"
    outcome = run("check", url + inside)
    assert outcome.exit_code == 2
    assert "Orbax checkpoint, which is read from the local disk alone" in outcome.said


def test_a_step_of_orbax_on_a_web_server_is_refused(steps: Path, run: Run) -> None:
    with Folder(steps) as server:
        outcome = run("check", f"{server.url}/{ORBAX}/_METADATA")
    assert outcome.exit_code == 2
    assert "Orbax checkpoint, which is read from the local disk alone" in outcome.said


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "", "--all-checkpoints"),
        ("check", "/tf1_training_directory"),
        ("check", "/tf1_training_directory", "--all-checkpoints"),
        ("check", "/tf1_*/model.ckpt-*"),
        ("check", "/saved_*"),
        ("list", "/keras*/"),
    ],
    ids=" ".join,
)
def test_directories_and_patterns(store: Place, run: Run, arguments: tuple[str, ...]) -> None:
    command, path, *options = arguments
    local = run(command, f"{store.local}{path}", *options, "--format", "json")
    there = run(command, f"{store.url}{path}", *options, "--format", "json")
    assert len(local.json["checkpoints"]) >= 1
    assert there.exit_code == local.exit_code
    assert json.loads(there.out) == json.loads(store.by_url(local))


@pytest.mark.parametrize(("name", "jobs"), [("s3", "2"), ("gcs", "1")])
def test_a_program(open_place: Callable[[str], Place], run: Run, name: str, jobs: str) -> None:
    """As a user starts it: no library says anything, and its own processes find the server."""
    store = open_place(name)
    local = run("check", store.local, "--format", "json")
    command = [sys.executable, "-m", "bninspect", "check", store.url, "--jobs", jobs]
    there = subprocess.run(
        [*command, "--format", "json"], capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert there.returncode == local.exit_code, there.stderr
    assert json.loads(there.stdout) == json.loads(store.by_url(local))
    assert not there.stderr


def test_a_whole_bucket(store: Place, run: Run) -> None:
    whole = store.url if store.url.startswith("hf:") else store.url.removesuffix("/runs")
    plain, slash = (run("check", whole + end, "--format", "json") for end in ("", "/"))
    assert plain.json["checkpoints"] == slash.json["checkpoints"]
    assert len(plain.json["checkpoints"]) >= len(STEMS)
    assert not plain.json["summary"]["unreadable"]


def test_stars_that_stand_for_directories(store: Place, run: Run) -> None:
    found = run("check", f"{store.url}/**/*.h5", "--format", "json").json["checkpoints"]
    h5 = {path.relative_to(store.local).as_posix() for path in store.local.rglob("*.h5")}
    parts = {path for path in h5 if path.startswith("keras3_weights_sharded")}
    whole = {f"{store.url}/{path}" for path in h5 - parts}
    # the parts of one checkpoint count once, by its map
    assert {one["path"] for one in found if "_sharded" not in one["path"]} == whole
    assert len(found) == len(whole) + 1
    everything = run("check", f"{store.url}/**", "--format", "json").json["checkpoints"]
    assert len(everything) >= len(STEMS)
    assert everything
    assert all(one["error"] is None for one in everything)


@pytest.mark.parametrize(
    ("command", "paths", "options"),
    [
        ("check", ["tf1_history_forgotten/model.ckpt-60"], ["--since"]),
        ("compare", ["tf1_history_forgotten/model.ckpt-20"], []),
        ("list", ["keras2_functional_correct/model.h5"], []),
        ("dump", ["tf1_layers_update_ops_forgotten/model.ckpt-60"], ["--layer", "*"]),
        ("dump", ["keras2_zip_nested/model.keras"], ["--layer", "*"]),
    ],
    ids=["since", "compare", "list", "dump V2", "dump keras"],
)
def test_commands(
    place: Place, run: Run, command: str, paths: list[str], options: list[str]
) -> None:
    outcomes = []
    for home in (str(place.local), place.url):
        arguments = [f"{home}/{path}" for path in paths]
        later = f"{home}/tf1_history_forgotten/model.ckpt-60"
        earlier = f"{home}/tf1_history_forgotten/model.ckpt-20"
        if command == "compare":
            arguments.append(later)
        more = ["--since", earlier] if options == ["--since"] else options
        outcomes.append(run(command, *arguments, *more, "--format", "json"))
    local, there = outcomes
    assert there.exit_code == local.exit_code != 2
    assert json.loads(there.out) == json.loads(place.by_url(local))


def test_a_training_is_followed(bucket: Place, run: Run, tmp_path: Path) -> None:
    """What a training puts into a bucket while it is watched."""
    client = s3_client(bucket.server.url)

    def put(step: int) -> None:
        prefix = tmp_path / f"model.ckpt-{step}"
        write_bundle(prefix, some_network(2, 10))
        for path in (shard_path(prefix), index_path(prefix)):
            client.upload_file(str(path), "bucket", f"watched/{path.name}")

    put(10)
    bucket.server.faults = [on("list-type.*watched", doing(lambda: put(20)), skip=4, times=1)]
    outcome = run("watch", "s3://bucket/watched", "--timeout", "2", "--interval", "0.1")
    assert outcome.exit_code == 0
    for step in (10, 20):
        assert f"s3://bucket/watched/model.ckpt-{step}: 2 BN layers" in outcome.said


def test_by_http_nobody_tells_what_a_directory_holds(web: Place, run: Run) -> None:
    for path, phrase in (
        ("", "not a file but a directory"),
        ("/keras2_functional_correct/", "not a file but a directory"),
        ("/none*/model.h5", "does not list what a directory holds"),
    ):
        outcome = run("check", web.url + path, "--format", "json")
        assert outcome.exit_code == 2
        (found,) = outcome.json["checkpoints"]
        assert phrase in found["error"]["message"], path


def test_a_web_server_alone_is_no_checkpoint(web: Place, run: Run) -> None:
    server = web.url.partition("://")[2].partition("/")[0]
    outcome = run("check", f"http://{server}", "--format", "json")
    assert outcome.exit_code == 2
    (found,) = outcome.json["checkpoints"]
    assert found["error"]["message"] == f"http://{server}: no such checkpoint or file"


def test_by_http_nothing_is_watched(web: Place, run: Run) -> None:
    outcome = run("watch", f"{web.url}/tf1_history_stopped", "--timeout", "0.1")
    assert outcome.exit_code == 2
    assert "a web server does not list what is in" in outcome.err


def test_a_page(place: Place, run: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    path = checkpoint_of("tf1_layers_update_ops_forgotten")
    outcome = run("report", f"{place.url}/{path}", "-o", page)
    assert outcome.exit_code == 1
    assert "BN101" in page.read_text(encoding="utf-8")


# --- Faults ---------------------------------------------------------------------------------------

GOOD = "keras2_functional_correct/model.h5"
V2 = "tf1_layers_update_ops_forgotten/model.ckpt-60"


def one_fault(place: Place, run: Run, path: str, *phrases: str, good: str = GOOD) -> dict[str, Any]:
    """Check `path`, which fails, and a file beside it, which does not; the error that is reported.

    It says one of the phrases, in one sentence and what to do.
    """
    url = path if "://" in path else f"{place.url}/{path}"
    outcome = run("check", url, f"{place.url}/{good}", "--format", "json")
    assert outcome.exit_code == 2, outcome.out
    bad, other = outcome.json["checkpoints"]
    assert other["error"] is None
    assert other["format"] == "keras-h5"
    error: dict[str, Any] = bad["error"]
    said = f"{error['message']} {error.get('hint', '')}"
    assert any(phrase in said for phrase in phrases), said
    assert len(said) < 500
    for text in (outcome.out, outcome.err):
        assert "Traceback" not in text
        assert SECRET not in text
        assert "127.0.0.1" not in text or place.url.startswith("http")
    return error


@pytest.mark.parametrize("status", [401, 403])
def test_http_refuses(web: Place, run: Run, status: int) -> None:
    web.server.faults = [on("model.ckpt-60", refusing(status, SECRET.encode()))]
    error = one_fault(web, run, V2, str(status))
    assert "signature or its password" in error["hint"]


def test_http_has_no_such_object(web: Place, run: Run) -> None:
    assert one_fault(web, run, "none/model.h5", "no such")["kind"] == "not-found"


def test_http_fails_and_recovers(web: Place, run: Run) -> None:
    right = run("check", f"{web.url}/{V2}", "--format", "json")
    forget_clients()
    web.server.faults = [
        on("[.]index", refusing(500), times=2),
        on("[.]data", refusing(503), times=1),
    ]
    assert run("check", f"{web.url}/{V2}", "--format", "json") == right


def test_http_fails_for_ever(web: Place, run: Run) -> None:
    web.server.faults = [on("model.ckpt-60", refusing(500))]
    one_fault(web, run, V2, "500")
    asked = sum("model.ckpt-60" in request.path for request in web.server.requests)
    assert asked < 30


@pytest.mark.parametrize("times", [1, 10**9], ids=["once", "always"])
def test_a_connection_that_is_cut(web: Place, run: Run, times: int) -> None:
    web.server.faults = [on("[.]data", cut_after(100), method="GET", times=times)]
    if times == 1:
        local = run("check", web.local / V2, "--format", "json")
        there = run("check", f"{web.url}/{V2}", "--format", "json")
        assert json.loads(there.out) == json.loads(web.by_url(local))
    else:
        one_fault(web, run, V2, "cut")


def test_a_server_that_cannot_be_reached(web: Place, run: Run) -> None:
    one_fault(web, run, f"http://127.0.0.1:{free_port()}/model.h5", "cannot be reached")


def test_a_server_that_does_not_answer(
    web: Place, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bninspect.storage.remote import stores

    monkeypatch.setattr(stores, "_LIMIT", 1.0)
    web.server.faults = [on("model.ckpt-60", late(10.0))]
    one_fault(web, run, V2, "in time")
    assert 0 < len(web.server.requests) < 10


def test_redirections_are_followed(web: Place, run: Run) -> None:
    with Folder(web.local.parent) as other:
        web.server.faults = [on("model", redirecting(other.url))]
        right = run("check", web.local / V2, "--format", "json")
        there = run("check", f"{web.url}/{V2}", "--format", "json")
    assert json.loads(there.out) == json.loads(web.by_url(right))
    assert other.requests


def test_redirections_without_end(web: Place, run: Run) -> None:
    web.server.faults = [on("model.ckpt-60", redirecting(""))]
    one_fault(web, run, V2, "redirect", "refuses", "cannot be read")


def test_a_server_that_refuses_head(web: Place, run: Run) -> None:
    web.server.faults = [on("", refusing(405), method="HEAD")]
    right = run("check", web.local / V2, "--format", "json")
    there = run("check", f"{web.url}/{V2}", "--format", "json")
    assert json.loads(there.out) == json.loads(web.by_url(right))


def test_other_bytes_than_those_asked_for(web: Place, run: Run) -> None:
    wrong = with_headers(Content_Range="bytes 1-2239/2240")
    web.server.faults = [on("[.]data", wrong, method="GET")]
    one_fault(web, run, V2, "other bytes")


def test_a_small_file_from_a_server_without_ranges(runs: Path, run: Run) -> None:
    with Folder(runs.parent, ranges=False) as server:
        for path in (V2, GOOD, checkpoint_of("keras2_zip_nested")):
            right = run("check", runs / path, "--format", "json")
            there = run("check", f"{server.url}/runs/{path}", "--format", "json")
            told = right.out.replace(str(runs), f"{server.url}/runs")
            assert json.loads(there.out) == json.loads(told)


def test_a_signed_url_of_a_bucket(bucket: Place, run: Run) -> None:
    path = f"runs/{GOOD}"
    client = s3_client(bucket.server.url)
    url = client.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": path})
    assert "Signature" in url
    local = run("check", bucket.local / GOOD, "--format", "json")
    there = run("check", url, "--format", "json")
    told = local.out.replace(str(bucket.local), f"{bucket.server.url}/bucket/runs")
    assert json.loads(there.out) == json.loads(told)
    assert "Signature" not in there.out


def test_keys_that_are_no_paths(bucket: Place, run: Run) -> None:
    """An empty name in a key is none of a file beside those that are there."""
    before = run("check", bucket.url, "--format", "json")
    client = s3_client(bucket.server.url)
    odd = ["runs//odd.h5", "runs/deep//odd.h5"]
    for key in odd:
        client.put_object(Bucket="bucket", Key=key, Body=b"\x89HDF\r\n\x1a\n")
    try:
        assert run("check", bucket.url, "--format", "json") == before
    finally:
        for key in odd:
            client.delete_object(Bucket="bucket", Key=key)


def test_what_comes_whole_comes_once(tmp_path: Path, run: Run) -> None:
    """Whether it was replaced meanwhile is told by the head of the answer."""
    prefix = tmp_path / "model.ckpt-1"
    write_bundle(prefix, some_network(12, 312_500))
    with Folder(tmp_path, ranges=False) as server:
        outcome = run("check", f"{server.url}/{prefix.name}", "--format", "json")
        assert outcome.json["checkpoints"][0]["error"] is None
        whole = [r for r in server.requests if r.sent >= shard_path(prefix).stat().st_size]
    assert len(whole) == 1


@pytest.mark.parametrize("honest", [True, False], ids=["says its size", "does not"])
def test_a_large_file_from_a_server_without_ranges(
    runs: Path, run: Run, tmp_path: Path, honest: bool
) -> None:
    shutil.copytree(runs / "keras2_functional_correct", tmp_path / "keras2_functional_correct")
    large = tmp_path / "large.h5"
    shutil.copy(runs / GOOD, large)
    os.truncate(large, 64 << 20)
    with Folder(tmp_path, ranges=False) as server:
        if not honest:
            server.faults = [on("large", with_headers(Content_Length=None))]
        place = Place(tmp_path, server.url, server)
        error = one_fault(place, run, "large.h5", "whole files only")
        assert error["kind"] == "unsupported"
        taken = sum(request.sent for request in server.requests if "large" in request.path)
    assert taken < 40 << 20  # what lies in buffers when the connection ends counts as sent


def put_both(folder: Path, seed: int, kernel: int) -> Path:
    """A checkpoint whose values differ by the seed alone: its files have the same sizes."""
    prefix = folder / "model.ckpt-1"
    new = folder / f"new-{seed}"
    write_bundle(new, some_network(3, kernel, seed=seed))
    for place in (index_path, shard_path):
        os.utime(place(new), (seed, seed))
        os.replace(place(new), place(prefix))
    return prefix


@pytest.mark.parametrize("kernel", [300_000, 10], ids=["large", "small"])
@pytest.mark.parametrize("asked", [0, 1], ids=["between index and data", "between two reads"])
def test_an_object_that_is_replaced(
    runs: Path, run: Run, tmp_path: Path, kernel: int, asked: int
) -> None:
    """While it is read, the training writes the next one over it."""
    shutil.copytree(runs / "keras2_functional_correct", tmp_path / "keras2_functional_correct")
    put_both(tmp_path, 1, kernel)
    with Folder(tmp_path) as server:
        anew = doing(lambda: put_both(tmp_path, 2, kernel))
        server.faults = [on("[.]data", anew, skip=asked, times=1)]
        error = one_fault(Place(tmp_path, server.url, server), run, "model.ckpt-1", "replaced")
        assert error["kind"] == "incomplete"


def test_an_object_that_is_replaced_in_a_bucket(bucket: Place, run: Run, tmp_path: Path) -> None:
    client = s3_client(bucket.server.url)

    def put(seed: int) -> None:
        prefix = put_both(tmp_path, seed, 300_000)
        for path in (index_path(prefix), shard_path(prefix)):
            client.upload_file(str(path), "bucket", f"replaced/{path.name}")

    put(1)
    bucket.server.faults = [on("[.]data", doing(lambda: put(2)), method="GET", times=1)]
    path = "s3://bucket/replaced/model.ckpt-1"
    assert one_fault(bucket, run, path, "replaced")["kind"] == "incomplete"


@pytest.mark.parametrize(
    ("status", "code", "phrase"),
    [
        (400, "ExpiredToken", "expired"),
        (403, "AccessDenied", "denies access"),
        (403, "InvalidAccessKeyId", "refuses the credentials"),
        (403, "SignatureDoesNotMatch", "refuses the credentials"),
        (500, "InternalError", "500"),
        (503, "SlowDown", "fewer requests"),
    ],
)
def test_what_s3_says(
    bucket: Place,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    phrase: str,
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    bucket.server.faults = [on("/private", s3_error(status, code, SECRET))]
    one_fault(bucket, run, "s3://private/model.h5", phrase)


def test_s3_without_listing(bucket: Place, run: Run) -> None:
    """Who may read objects but not list them still checks what is named in full."""
    bucket.server.faults = [on("list-type", s3_error(403, "AccessDenied"))]
    right = run("check", bucket.local / V2, "--format", "json")
    there = run("check", f"{bucket.url}/{V2}", "--format", "json")
    assert json.loads(there.out) == json.loads(bucket.by_url(right))


def test_another_run_asks_anew(bucket: Place) -> None:
    """A process that checks again is told of a permission that was given meanwhile."""
    program = (
        "import sys, bninspect\n"
        "for _ in range(2):\n"
        "    print(bninspect.check(sys.argv[1]).checkpoints[0].error, flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    bucket.server.faults = [on("", s3_error(403, "AccessDenied"))]
    command = [sys.executable, "-c", program, f"{bucket.url}/{V2}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert "denies access" in process.stdout.readline()
        bucket.server.faults = []
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "None\n"
        process.stdin.write("\n")


def test_s3_fails_and_recovers(bucket: Place, run: Run) -> None:
    right = run("check", f"{bucket.url}/{V2}", "--format", "json")
    bucket.server.faults = [on("[.]index", s3_error(500, "InternalError"), times=1)]
    assert run("check", f"{bucket.url}/{V2}", "--format", "json") == right


def test_what_google_says(open_place: Callable[[str], Place], run: Run) -> None:
    place = open_place("gcs")
    for status, phrase in ((401, "refuses the credentials"), (403, "denies access")):
        body = json.dumps({"error": {"code": status, "message": SECRET}}).encode()
        place.server.faults = [on("/private/", refusing(status, body))]
        one_fault(place, run, "gs://private/model.h5", phrase)


def test_what_azure_says(open_place: Callable[[str], Place], run: Run) -> None:
    place = open_place("azure")
    codes = {
        "AuthenticationFailed": "refuses the credentials",
        "AuthorizationPermissionMismatch": "denies access",
    }
    for code, phrase in codes.items():
        body = f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode()
        told = {"x-ms-error-code": code, "Content-Type": "application/xml"}
        place.server.faults = [on("/private", refusing(403, body, **told))]
        one_fault(place, run, "az://private/model.h5", phrase)


def test_azure_without_an_account(run: Run) -> None:
    outcome = run("check", "az://container/model.h5", "--format", "json")
    assert outcome.exit_code == 2
    (found,) = outcome.json["checkpoints"]
    assert "credentials" in found["error"]["message"] + found["error"]["hint"]


def test_a_bucket_that_is_not_there(store: Place, run: Run) -> None:
    scheme = store.url.partition("://")[0]
    error = one_fault(store, run, f"{scheme}://nowhere-at-all/none/model.h5", "no such")
    assert error["kind"] == "not-found"


def test_each_path_in_a_bucket_that_is_not_there_is_told(store: Place, run: Run) -> None:
    paths = [store.url.partition("://")[0] + f"://nowhere-at-all/runs/{name}" for name in "ab"]
    outcome = run("check", *paths, "--format", "json")
    assert outcome.exit_code == 2
    assert [one["path"] for one in outcome.json["checkpoints"]] == paths


def test_an_object_that_is_not_there(store: Place, run: Run) -> None:
    assert one_fault(store, run, "none/model.h5", "no such")["kind"] == "not-found"


def test_no_credentials(bucket: Place, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    outcome = run("check", f"{bucket.url}/{V2}", "--format", "json")
    assert outcome.exit_code == 2
    (found,) = outcome.json["checkpoints"]
    assert "no credentials" in found["error"]["message"]


def test_an_unknown_scheme(web: Place, run: Run) -> None:
    one_fault(web, run, "gopher://host/model.h5", "gopher")


# --- Secrets --------------------------------------------------------------------------------------

FORMATS = ("text", "concise", "json", "github", "sarif", "junit")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("path", [V2 + ".index", GOOD, "none.h5", "denied.h5"])
def test_no_secret_is_shown(web: Place, run: Run, form: str, path: str) -> None:
    web.server.faults = [on("denied", refusing(403, SECRET.encode()))]
    host = web.url.replace("://", f"://user:{SECRET}@")
    url = f"{host}/{path}?X-Amz-Credential=some&X-Amz-Signature={SECRET}#{SECRET}"
    outcome = run("check", url, "--format", form, "--verbose")
    assert web.server.requests
    assert web.server.requests
    assert all(
        "X-Amz-Signature" in request.path for request in web.server.requests if ".h5" in path
    )
    for text in (outcome.out, outcome.err):
        assert SECRET not in text
        assert "X-Amz" not in text
        assert "user:" not in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "URL"),
        ("list", "URL", "--format", "csv"),
        ("dump", "URL", "--layer", "*"),
        ("dump", "URL", "--layer", "none"),
        ("dump", "NONE", "--layer", "none"),
        ("compare", "URL", "URL"),
        ("compare", "URL", "NONE", "--format", "json"),
        ("check", "URL", "--since", "URL"),
        ("check", "URL", "--since", "NONE"),
        ("check", "URL", "--engine", "tensorflow"),
        ("check", "URL", "--config", "URL"),
        ("check", "URL", "--baseline", "URL"),
        ("check", "URL", "--no-such-option=URL"),
        ("check", "URL", "-o", "URL"),
        ("check", "URL", "URL", "-j", "2"),
        ("check", "URL", "--baseline", "baseline.json", "--update-baseline"),
        ("no-such-command", "URL"),
        ("watch", "URL", "--timeout", "0.1", "--interval", "0.05"),
    ],
    ids=" ".join,
)
def test_no_command_shows_a_secret(
    web: Place,
    run: Run,
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    host = web.url.replace("://", f"://user:{SECRET}@")
    signed = {name: f"{host}/{path}?sig={SECRET}" for name, path in (("URL", GOOD), ("NONE", "no"))}

    def with_urls(text: str) -> str:
        for name, url in signed.items():
            text = text.replace(name, url)
        return text

    outcome = run(*map(with_urls, arguments))
    assert "Traceback" not in outcome.err
    written = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file()]
    for text in (outcome.out, outcome.err, *written):
        assert SECRET not in text


@pytest.mark.parametrize("path", [GOOD, "none.h5"])
def test_no_secret_is_on_a_page(web: Place, run: Run, path: str, tmp_path: Path) -> None:
    url = f"{web.url.replace('://', f'://user:{SECRET}@')}/{path}?sig={SECRET}"
    outcome = run("report", url, "-o", tmp_path / "page.html")
    page = tmp_path / "page.html"
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    assert SECRET not in text + outcome.out + outcome.err


# --- What it costs --------------------------------------------------------------------------------

CHANNELS = 16
LAYERS = 12


def some_network(
    layers: int, kernel: int, *, apart: bool = True, seed: int = 0
) -> dict[str, np.ndarray]:
    """Kernels of so many elements, each with a BN layer beside it, or with all of them together."""
    random = np.random.default_rng(seed)
    variables: dict[str, np.ndarray] = {"global_step": np.array(1000, np.int64)}
    for number in range(layers):
        scope = f"net/unit_{number:02d}" if apart else "net"
        variables[f"{scope}/conv_{number:02d}/kernel"] = np.zeros(kernel, np.float32)
        norm = f"{scope}/norm_{number:02d}/batch_normalization"
        for member in ("beta", "gamma", "moving_mean", "moving_variance"):
            variables[f"{norm}/{member}"] = random.uniform(0.5, 2, CHANNELS).astype(np.float32)
    return dict(sorted(variables.items()))


def cost(folder: Path, run: Run, variables: dict[str, np.ndarray]) -> tuple[int, int, int]:
    """Requests, bytes sent, and bytes of the index, of a check by HTTP."""
    folder.mkdir()
    prefix = folder / "model.ckpt-1000"
    write_bundle(prefix, variables)
    with Folder(folder) as server:
        outcome = run("check", f"{server.url}/{prefix.name}", "--format", "json")
        (found,) = outcome.json["checkpoints"]
        assert found["error"] is None
        return len(server.requests), server.sent, index_path(prefix).stat().st_size


def test_bytes_grow_with_bn_alone(tmp_path: Path, run: Run) -> None:
    small = cost(tmp_path / "small", run, some_network(LAYERS, 50_000))
    large = cost(tmp_path / "large", run, some_network(LAYERS, 400_000))
    # 2.4 MB and 19.2 MB: not a byte more but those of the index, which is read twice at most
    assert large[0] == small[0]
    assert large[1] - small[1] <= 2 * (large[2] - small[2])
    of_bn = LAYERS * 4 * CHANNELS * 4
    head = 64 << 10  # what the first request for an object asks for
    assert large[1] <= large[2] + of_bn + 2 * head + (64 << 10)


def test_no_store_sends_more_than_bn(place: Place, run: Run) -> None:
    local = run("check", place.local / LARGE, "--format", "json")
    there = run("check", f"{place.url}/{LARGE}", "--format", "json")
    assert json.loads(there.out) == json.loads(place.by_url(local))
    assert len(place.server.requests) <= 12 + LAYERS
    assert place.server.sent < 256 << 10  # of 4.8 MB


def test_variables_that_lie_together_are_one_request(tmp_path: Path, run: Run) -> None:
    few = cost(tmp_path / "few", run, some_network(4, 100_000, apart=False))
    many = cost(tmp_path / "many", run, some_network(40, 100_000, apart=False))
    assert many[0] == few[0]


def test_requests_for_a_checkpoint(tmp_path: Path, run: Run) -> None:
    together = cost(tmp_path / "together", run, some_network(LAYERS, 400_000, apart=False))
    apart = cost(tmp_path / "apart", run, some_network(LAYERS, 400_000))
    assert together[0] <= 12
    assert apart[0] <= 12 + LAYERS


def test_a_directory_is_listed_once(bucket: Place, run: Run) -> None:
    run("check", bucket.url, "--format", "json")
    listed = [request.path for request in bucket.server.requests if "list-type" in request.path]
    assert len(listed) == len(set(listed))


def test_requests_go_out_at_once(tmp_path: Path, run: Run) -> None:
    prefix = tmp_path / "model.ckpt-1000"
    write_bundle(prefix, some_network(LAYERS * 2, 100_000))
    with Folder(tmp_path, latency=0.05) as server:
        run("check", f"{server.url}/{prefix.name}", "--format", "json")
    most = max(
        sum(other.begun <= request.begun < other.answered for other in server.requests)
        for request in server.requests
    )
    assert most >= 8
