"""Checkpoints behind URLs: what is known of them, what is asked for, and what is never shown.

Servers are fsspec's own memory, which is there in this process alone, and one on loopback; what
real services say is the matter of test_servers.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

import bninspect
from bninspect.errors import ReadProblem, Unsupported, UsageProblem
from bninspect.formats.hdf5 import prefetch
from bninspect.opening import open_checkpoint
from bninspect.storage import run_scope, urls
from bninspect.storage.remote import cache, errors, stores
from bninspect.storage.remote.cache import RemoteObject
from bninspect.storage.remote.listings import Listings
from bninspect.storage.remote.ranges import CachedBytes, Range, merged
from bninspect.storage.remote.stores import Info
from tests.conftest import FIXTURES, ROOT, Run, load_fixture
from tests.support.servers import Answer, Folder, Request, on, refusing, with_headers

SECRET = "never5ecret"  # noqa: S105 - of no server
QUERY = f"?X-Amz-Credential=AKIA{SECRET}&X-Amz-Signature={SECRET}"


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that was given no URL yet."""
    monkeypatch.setattr(urls, "_credentials", {})
    run_scope.begin_run()


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's memory, empty."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    yield filesystem
    filesystem.store.clear()


def put(memory: Any, stem: str, place: str = "") -> str:
    """A fixture's files, in memory; the URL of the directory."""
    for path in (FIXTURES / stem).rglob("*"):
        if path.is_file():
            name = path.relative_to(FIXTURES / stem).as_posix()
            memory.pipe_file(f"/runs/{place or stem}/{name}", path.read_bytes())
    return f"memory://runs/{place or stem}"


# --- What is known of a URL -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "known", "opens"),
    [
        ("https://host/a.h5", "https://host/a.h5", "https://host/a.h5"),
        ("https://host/a.h5?sig=x&y#z", "https://host/a.h5", "https://host/a.h5?sig=x&y"),
        ("https://me:pw@host:80/a.h5", "https://host:80/a.h5", "https://me:pw@host:80/a.h5"),
        ("https://me:p@w@host/a.h5", "https://host/a.h5", "https://me:p@w@host/a.h5"),
        ("https://me:p/w@host/a.h5", "https://host/a.h5", "https://me:p/w@host/a.h5"),
        ("https://host/@me/a.h5", "https://host/@me/a.h5", "https://host/@me/a.h5"),
        ("HTTPS://host/a.h5", "https://host/a.h5", "https://host/a.h5"),
        ("s3://bucket/run?/a.h5", "s3://bucket/run?/a.h5", "s3://bucket/run?/a.h5"),
        ("s3://me:pw@bucket/a.h5", "s3://bucket/a.h5", "s3://me:pw@bucket/a.h5"),
        ("az://box/a.h5?sv=1&sig=x", "az://box/a.h5", "az://box/a.h5?sv=1&sig=x"),
        ("zip://a::https://me:pw@host/b?c=d", "zip://a", "zip://a::https://me:pw@host/b?c=d"),
        (
            "abfs://box@account.net/a.h5",
            "abfs://box@account.net/a.h5",
            "abfs://box@account.net/a.h5",
        ),
        ("hf://gpt2@main/a.h5", "hf://gpt2@main/a.h5", "hf://gpt2@main/a.h5"),
        ("runs/model.ckpt", "runs/model.ckpt", "runs/model.ckpt"),
        ("C://model.ckpt", "C://model.ckpt", "C://model.ckpt"),
    ],
)
def test_credentials_are_stripped(typed: str, known: str, opens: str) -> None:
    assert urls.strip_credentials([typed]) == [known]
    assert urls.strip_credentials([known]) == [known]  # at every door
    assert not urls.is_url(known) or urls.url_with_credentials(known) == opens


def test_a_file_is_no_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert urls.strip_credentials([f"file://{tmp_path}/a%20b.h5"]) == [f"{tmp_path}/a b.h5"]
    monkeypatch.chdir(tmp_path)
    Path("s3:/bucket").mkdir(parents=True)
    Path("s3:/bucket/a.h5").write_bytes(b"")
    (there,) = urls.strip_credentials(["s3://bucket/a.h5"])
    assert not urls.is_url(there)
    assert Path(there).samefile("s3:/bucket/a.h5")
    with pytest.raises(UsageProblem, match="another machine"):
        urls.strip_credentials(["file://host/a.h5"])


def test_one_query_opens_what_lies_beside_and_below() -> None:
    urls.strip_credentials(
        [f"https://me:pw@host/runs/model.ckpt{QUERY}", "https://other/runs/a.h5?sig=other"]
    )
    for name in ("model.ckpt.index", "checkpoint", "model.ckpt/variables/variables.index"):
        assert (
            urls.url_with_credentials(f"https://host/runs/{name}")
            == f"https://me:pw@host/runs/{name}{QUERY}"
        )
    assert urls.url_with_credentials("https://host/else/a.h5") == "https://me:pw@host/else/a.h5"
    assert urls.url_with_credentials("https://other/else/a.h5") == "https://other/else/a.h5"
    assert urls.url_with_credentials("https://host.evil/runs/a.h5") == "https://host.evil/runs/a.h5"


def test_two_signatures_of_one_object_are_one_checkpoint() -> None:
    first, second = (f"https://host/a.h5?X-Amz-Signature={one}&v=1" for one in "ab")
    assert set(urls.strip_credentials([first, second])) == {"https://host/a.h5"}
    with pytest.raises(UsageProblem, match="twice") as told:
        urls.strip_credentials([first, "https://host/a.h5?v=2"])
    assert "v=2" not in str(told.value)


@pytest.mark.parametrize("option", ["", "--since=", "-o", "json="])
def test_an_argument_loses_its_secrets(option: str) -> None:
    shown = urls.strip_arguments(["check", f"{option}https://user:{SECRET}@host/a.h5{QUERY}"])
    assert shown == ["check", f"{option}https://host/a.h5"]


def test_two_objects_that_look_like_one_are_refused(run: Run) -> None:
    outcome = run("check", "https://host/get?id=1", "https://host/get?id=2")
    assert outcome.exit_code == 2
    assert "https://host/get is named twice" in outcome.err


def test_a_text_of_a_library_loses_its_secrets() -> None:
    urls.strip_credentials([f"https://user:pass{SECRET}@host/a.h5{QUERY}"])
    text = f"get('https://user:x@host/b?q={SECRET}'), host/a.h5{QUERY} and pass{SECRET}"
    shown = urls.redact(text)
    assert SECRET not in shown
    assert "https://host/b" in shown


# --- Ranges ---------------------------------------------------------------------------------------

RANGES = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 60)).map(lambda r: (r[0], sum(r))))


def size_of(ranges: list[Range]) -> int:
    return len({byte for start, end in ranges for byte in range(start, end)})


@drawn(RANGES, st.integers(0, 3000))
def test_merged_ranges(wanted: list[Range], waste: int) -> None:
    found = merged(wanted, waste)
    assert all(start < end for start, end in found)
    assert all(before[1] < after[0] for before, after in pairwise(found))
    there = {byte for start, end in found for byte in range(start, end)}
    assert all(byte in there for start, end in wanted for byte in range(start, end))
    assert size_of(found) - size_of(wanted) <= waste
    # No gap that is left would have fitted.
    left = waste - (size_of(found) - size_of(wanted))
    gaps = [after[0] - before[1] for before, after in pairwise(found)]
    assert all(gap > left for gap in gaps)


@drawn(RANGES, st.tuples(st.integers(0, 2060), st.integers(0, 300)))
def test_what_is_held_is_not_asked_for(fetched_: list[Range], wanted: tuple[int, int]) -> None:
    whole = bytes(byte % 251 for byte in range(2400))
    held = CachedBytes()
    for one in fetched_:
        for start, end in held.missing(*one):
            held.add(start, whole[start:end])
    assert held.size == size_of(fetched_)
    start, end = wanted[0], sum(wanted)
    missing = held.missing(start, end)
    assert size_of(missing) == size_of([wanted and (start, end), *fetched_]) - size_of(fetched_)
    for first, last in missing:
        held.add(first, whole[first:last])
    assert held.get(start, end) == whole[start:end]


@drawn(st.lists(st.one_of(RANGES, st.tuples(st.integers(0, 900_000), st.integers(1, 9000)))))
def test_an_object_gives_the_bytes_that_are_stored(asked: list[Any]) -> None:
    whole = bytes(range(256)) * 4000
    sent: list[Range] = []

    def fetch(_url: str, ranges: list[Range], _known: Info) -> list[bytes]:
        sent.extend(ranges)
        return [whole[start:end] for start, end in ranges]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "fetch", fetch)
        one = RemoteObject("memory://a", Info(len(whole)))
        for wanted in asked:
            if isinstance(wanted, list):
                one.prefetch(wanted)
                before = len(sent)
                assert all(one.read(a, b - a) == whole[a:b] for a, b in wanted)
                assert len(sent) == before  # all of it was here
            else:
                assert one.read(*wanted) == whole[wanted[0] : sum(wanted)]
    assert size_of(sent) == sum(end - start for start, end in sent)  # nothing twice


def test_nothing_is_fetched_on_a_files_word(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Range] = []

    def fetch(_url: str, ranges: list[Range], _known: Info) -> list[bytes]:
        sent.extend(ranges)
        return [b"" for _ in ranges]

    monkeypatch.setattr(stores, "fetch", fetch)
    one = RemoteObject("memory://a", Info(1 << 40))
    one.prefetch([(0, 1 << 39), (-5, 3), (1 << 40, 1 << 41)])
    assert not sent
    with pytest.raises(ReadProblem, match="0 of 16384 bytes"):
        one.read(0, 10)


# --- What lies where ------------------------------------------------------------------------------


def test_all_that_names_a_checkpoint(memory: Any) -> None:
    home = put(memory, "tf1_layers_correct")
    put(memory, "keras2_functional_correct")
    put(memory, "tf1_layers_correct", "deep/er/still")
    prefix = f"{home}/model.ckpt-60"
    for path in (prefix, f"{prefix}.index", f"{prefix}.data-00000-of-00001", home, f"{home}/"):
        (found,) = bninspect.check(path).checkpoints
        assert found.error is None, path
        assert found.resolved == prefix
        assert found.layer_count == 3
    assert len(bninspect.check("memory://runs").checkpoints) == 3
    assert len(bninspect.check("memory://runs/**").checkpoints) == 3
    assert len(bninspect.check("memory://runs/*/model*").checkpoints) == 2
    assert len(bninspect.check("memory://runs/**/*.index").checkpoints) == 2
    assert len(bninspect.check("memory://runs/**/still/*").checkpoints) == 1
    assert len(bninspect.check("memory://runs/tf1*").checkpoints) == 1
    assert len(bninspect.check(home, prefix, f"{home}/../nothing").checkpoints) == 2
    with open_checkpoint(prefix) as checkpoint:
        assert checkpoint.resolved == prefix


def test_what_is_not_there(memory: Any) -> None:
    home = put(memory, "tf1_layers_correct")
    for path, kind in (
        ("memory://nowhere/model.ckpt", "not-found"),
        (f"{home}/modle.ckpt-60", "not-found"),
        (f"{home}/none*", "not-found"),
        ("memory://runs/**/none*", "not-found"),
        ("gopher://host/model.ckpt", "not-found"),
        ("zip://a.h5::https://host/b.zip", "unreachable"),
        (f"{home}/model.ckpt-60.index?versionId=3", "corrupt"),
    ):
        (found,) = bninspect.check(path).checkpoints
        assert found.error is not None
        assert found.error.kind == kind, found.error
    said = str(bninspect.check(f"{home}/modle.ckpt-60").checkpoints[0].error)
    assert f"Did you mean {home}/model.ckpt-60?" in said


def test_a_state_file_leads_nowhere_else(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = put(memory, "tf1_layers_correct")
    local = load_fixture("tf1_v1_correct").path
    for named in (str(local), f"file://{local}", "memory://else/model", "../else/model"):
        memory.pipe_file("/else/model", local.read_bytes())
        state = f'model_checkpoint_path: "{named}"\n'.encode()
        memory.pipe_file("/runs/tf1_layers_correct/checkpoint", state)
        (found,) = bninspect.check(home).checkpoints
        assert found.resolved == f"{home}/model.ckpt-60"
    whole = f'model_checkpoint_path: "{home}/model.ckpt-60"\n'.encode()
    memory.pipe_file("/runs/tf1_layers_correct/checkpoint", whole)
    (found,) = bninspect.check(home).checkpoints
    assert found.notes == (f"{home}/checkpoint names {home}/model.ckpt-60",)
    # Nor does a local one lead to a URL.
    state = tmp_path / "checkpoint"
    state.write_text(f'model_checkpoint_path: "{home}/model.ckpt-60"\n', encoding="utf-8")
    assert bninspect.check(tmp_path).checkpoints[0].error is not None
    monkeypatch.chdir(tmp_path)
    for path in (".", "checkpoint"):
        assert bninspect.check(path).checkpoints[0].error is not None


@pytest.mark.servers
def test_a_name_in_a_state_file_is_no_part_of_a_request(tmp_path: Path) -> None:
    with Folder(tmp_path) as server:
        for named in ("a?b=c", "a#b", "%2e%2e%2fa"):
            state = f'model_checkpoint_path: "{named}"\n'
            (tmp_path / "checkpoint").write_text(state, encoding="utf-8")
            bninspect.check(f"{server.url}/checkpoint?sig=x")
        asked = {request.path.removesuffix(".index?sig=x") for request in server.requests}
    assert asked >= {"/a%3Fb=c", "/a%23b", "/%252e%252e%252fa"}
    assert not [path for path in asked if "?b" in path or path.startswith("/%2e")]


def test_a_directory_is_asked_for_once_in_a_run(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = put(memory, "tf1_layers_correct")
    listed: list[str] = []
    listing = stores.Store.listing

    def recorded(store: stores.Store, url: str) -> dict[str, Info]:
        listed.append(url)
        return listing(store, url)

    monkeypatch.setattr(stores.Store, "listing", recorded)
    bninspect.check(f"{home}/model.ckpt-60")
    assert listed == [home]
    bninspect.check(f"{home}/model.ckpt-60")
    assert listed == [home, home]


def test_many_files_are_told_apart_together(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_AHEAD", 8)
    data = load_fixture("keras2_functional_correct").path.read_bytes()
    for number in range(20):
        memory.pipe_file(f"/runs/run_{number}/model.h5", data)
        memory.pipe_file(f"/runs/run_{number}/events", b"no checkpoint")
    at_once: list[int] = []
    fetch_ends = cache._fetch_ends
    monkeypatch.setattr(
        cache, "_fetch_ends", lambda one, n: (at_once.append(one.size), fetch_ends(one, n))
    )
    report = bninspect.check("memory://runs")
    assert len(report.checkpoints) == 20
    assert not report.unreadable
    assert len(at_once) == 40


def test_an_object_that_is_replaced_is_noticed(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = put(memory, "tf1_layers_correct")
    fetch = stores.fetch

    def replacing(url: str, ranges: list[Range], known: Info) -> list[bytes]:
        if ".data" in url:
            put(memory, "tf1_layers_update_ops_forgotten", "tf1_layers_correct")
        return fetch(url, ranges, known)

    monkeypatch.setattr(stores, "fetch", replacing)
    (found,) = bninspect.check(f"{home}/model.ckpt-60").checkpoints
    assert found.error is not None
    assert "replaced by another object while it was read" in str(found.error)


def test_tensorflow_reads_no_url(memory: Any) -> None:
    home = put(memory, "tf1_layers_correct")
    (found,) = bninspect.check(home, engine="tensorflow").checkpoints
    assert isinstance(found.error, Unsupported)
    assert "copy the files here first" in str(found.error)


@pytest.mark.processes
@pytest.mark.parametrize("missing", ["fsspec", "s3fs"])
def test_a_missing_package_is_told(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from bninspect.cli.main import run; run(['check', 's3://bucket/model.ckpt'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert "pip install 'bninspect[remote]'" in " ".join(done.stdout.split())
    assert not done.stderr


@pytest.mark.processes
def test_a_package_that_the_extra_does_not_bring_is_named() -> None:
    program = (
        "import sys; sys.modules['paramiko'] = None\n"
        "from bninspect.cli.main import run; run(['check', 'sftp://host/model.ckpt'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert "the module paramiko is missing" in " ".join(done.stdout.split())
    assert "bninspect[remote]" not in done.stdout


@pytest.mark.servers
def test_runs_in_threads() -> None:
    """Each forgets what lies behind URLs when it begins, while others read."""
    program = (
        "import sys; sys.setswitchinterval(1e-5)\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "import bninspect\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    for report in pool.map(bninspect.check, sys.argv[1:] * 20):\n"
        "        print(report.unreadable, len(report.findings))\n"
    )
    with Folder(FIXTURES) as server:
        paths = [f"{server.url}/{path}" for path in (GOOD, BAD, H5)]
        done = subprocess.run(
            [sys.executable, "-c", program, *paths],
            capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["0 0", "0 3", "0 0"] * 20


def test_damage_far_away_is_told_as_damage_here(memory: Any, tmp_path: Path) -> None:
    for stem in ("tf1_layers_correct", "keras2_functional_correct", "keras3_functional_correct"):
        if not (FIXTURES / stem).exists():
            continue
        path = load_fixture(stem).path
        for cut in (7, 60, 400):
            for file in path.parent.iterdir():
                data = file.read_bytes()[:-cut]
                (tmp_path / file.name).write_bytes(data)
                memory.pipe_file(f"/cut/{file.name}", data)
            here = bninspect.check(tmp_path / path.name).checkpoints[0].error
            there = bninspect.check(f"memory://cut/{path.name}").checkpoints[0].error
            assert here is not None
            assert str(there) == str(here).replace(str(tmp_path), "memory://cut")


# --- Commands -------------------------------------------------------------------------------------


def test_a_watch(memory: Any, run: Run) -> None:
    home = put(memory, "tf1_layers_correct")
    options = ("--interval", "0.1", "--timeout", "1.5", "--grace", "1")
    outcome = run("watch", home, *options, "--format", "jsonl")
    assert outcome.exit_code == 0, outcome.err
    first, *_ = [json.loads(line) for line in outcome.out.splitlines()]
    assert f"{home}/model.ckpt-60" in json.dumps(first)
    assert run("watch", f"{home}/model.ckpt-60.index", *options).exit_code == 2


@pytest.mark.servers
@pytest.mark.parametrize("stem", ["keras2_functional_correct", "keras2_zip_nested"])
@pytest.mark.parametrize("answered", [1, 2, 3, 4])
def test_a_server_that_fails_in_the_middle_is_no_damage(
    run: Run, monkeypatch: pytest.MonkeyPatch, answered: int, stem: str
) -> None:
    """HDF5 would call it that: what could not be fetched it takes for unreadable."""
    monkeypatch.setattr(stores, "head_of", lambda _url: 64)
    monkeypatch.setattr(prefetch, "_BLOCK", 64)
    monkeypatch.setattr(prefetch, "_LARGE_BLOCK", 64)
    monkeypatch.setattr(cache, "_SMALL", 0)
    monkeypatch.setattr(cache, "_BLOCK", 64)
    monkeypatch.setattr(cache, "_LEAST_WASTE", 0)
    path = load_fixture(stem).path
    with Folder(path.parent) as server:
        server.faults = [on(f"{path.name}$", refusing(403), skip=answered)]
        outcome = run("check", f"{server.url}/{path.name}", "--format", "json")
    (found,) = outcome.json["checkpoints"]
    assert found["error"]["message"].endswith(": the server denies access (status 403)")


FAILING = ["tf1_history_stopped", "keras3_weights_sharded", "saved_model_keras2_traced"]
FAILING += ["tf1_v1_correct", "keras2_zip_nested", ""]


@pytest.mark.parametrize("options", [(), ("--all-checkpoints",), ("--format", "jsonl=results")])
@pytest.mark.parametrize("stem", FAILING)
def test_a_request_that_fails_is_told_or_changes_nothing(
    memory: Any,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stem: str,
    options: Any,
) -> None:
    """Whichever it is, and for how long: nothing is lost in silence, and the run goes on."""
    monkeypatch.chdir(tmp_path)
    for one in filter(None, FAILING):
        put(memory, one, f"bad/{one}")
    good = f"{put(memory, 'keras2_functional_correct')}/model.h5"
    asked = 0
    failing = range(0)

    def flaky(real: Any) -> Any:
        def ask(store: stores.Store, url: str, *more: Any) -> Any:
            nonlocal asked
            if "/bad" in url:
                asked += 1
                if asked in failing:
                    raise errors.HttpStatus(503)
            return real(store, url, *more)

        return ask

    for name in ("listing", "find", "info", "fetch"):
        monkeypatch.setattr(stores.Store, name, flaky(getattr(stores.Store, name)))

    def verdicts() -> list[tuple[str, int, int]]:
        nonlocal asked
        asked = 0
        outcome = run("check", f"memory://runs/bad/{stem}", good, "--format", "json", *options)
        found = outcome.json["checkpoints"]
        told = [(one["path"], len(one["layers"]), len(one["findings"])) for one in found]
        assert told[-1] == (good, 2, 0)
        assert outcome.exit_code == 2 or not outcome.json["summary"]["unreadable"]
        return [] if outcome.json["summary"]["unreadable"] else told

    right = verdicts()
    assert right
    for first in range(1, asked + 1, 1 if stem else 4):
        for last in (first, 10**6):
            failing = range(first, last + 1)
            assert verdicts() in ([], right)


# --- Secrets --------------------------------------------------------------------------------------


def signed(request: Request, answer: Callable[[], Answer]) -> Answer:
    """A server that wants the signature and the password."""
    well = f"X-Amz-Signature={SECRET}" in request.path and "Authorization" in request.headers
    return answer() if well else Answer(403, f"{request.path} {SECRET}".encode())


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Signed URLs of a server that wants them; "closed" is refused all the same."""
    with Folder(FIXTURES) as server:
        server.faults = [on("closed", refusing(403, SECRET.encode())), signed]
        host = server.url.replace("://", f"://user:{SECRET}@")
        yield lambda path: f"{host}/{path}{QUERY}"


GOOD = "tf1_layers_correct/model.ckpt-60"
BAD = "tf1_layers_update_ops_forgotten/model.ckpt-60"
H5 = "keras2_functional_correct/model.h5"


@pytest.mark.servers
@pytest.mark.parametrize("path", [GOOD, BAD, H5, "closed/model.h5", "none.h5", "none/", "*"])
@pytest.mark.parametrize(
    ("command", "options"),
    [
        *(
            ("check", ["--format", form, "-v"])
            for form in ("text", "concise", "json", "github", "sarif", "junit")
        ),
        ("check", ["--jobs", "2", "--since", "URL", "{url}2"]),
        ("check", ["--engine", "tensorflow"]),
        ("check", ["--baseline", "{tmp}/baseline", "--update-baseline"]),
        ("check", ["-o", "URL"]),
        ("check", ["--format", "nonsense=URL"]),
        ("check", ["--config", "URL"]),
        ("check", ["--all-checkpoints", "--skip-unknown"]),
        ("list", ["-v"]),
        ("list", ["--format", "csv"]),
        ("dump", ["--layer", "*"]),
        ("dump", ["--layer", "none"]),
        ("dump", ["--layer", "*", "URL"]),
        ("dump", ["--layer", "*", "--format", "npz={tmp}/values.npz"]),
        ("compare", ["URL"]),
        ("compare", ["--format", "json"]),
        ("report", ["-o", "{tmp}/page.html"]),
        ("watch", ["--timeout", "0.2", "--interval", "0.1", "--grace", "0.1"]),
        ("config", []),
        ("rule", []),
        ("", []),
    ],
    ids=lambda value: "".join(value) if isinstance(value, list) else value,
)
def test_no_secret_is_shown_anywhere(
    private: Callable[[str], str], run: Run, tmp_path: Path, path: str, command: str, options: Any
) -> None:
    url = private(path)
    given = [one.replace("URL", url).format(tmp=tmp_path, url=url) for one in options]
    outcome = run(*([command] if command else []), url, *given)
    texts = [outcome.out, outcome.err, *(str(file) for file in tmp_path.rglob("*"))]
    texts += [file.read_text("latin-1") for file in tmp_path.rglob("*") if file.is_file()]
    for text in texts:
        assert SECRET not in text
        assert "X-Amz" not in text
        assert "user:" not in text
        assert "Traceback" not in text


@pytest.mark.servers
def test_a_signature_opens_what_it_should(private: Callable[[str], str], run: Run) -> None:
    good = run("check", private(GOOD), private(H5), "--jobs", "2", "--format", "json")
    assert good.exit_code == 0, good.out
    assert len(good.json["checkpoints"]) == 2
    (found,) = bninspect.check(private(GOOD)).checkpoints
    assert found.error is None
    assert SECRET not in repr(found)


@pytest.mark.servers
@pytest.mark.parametrize("query", [QUERY, "?X-Amz-Signature=old"])
def test_a_signature_of_one_object_alone(run: Run, query: str) -> None:
    """It opens that object, though others are asked for first; a wrong one is told as such."""

    def strict(request: Request, answer: Callable[[], Answer]) -> Answer:
        return answer() if request.path == f"/{H5}{QUERY}" else Answer(403)

    with Folder(FIXTURES) as server:
        server.faults = [strict]
        outcome = run("check", f"{server.url}/{H5}{query}", "--format", "json")
        (found,) = outcome.json["checkpoints"]
        if query == QUERY:
            assert found["error"] is None
            assert found["format"] == "keras-h5"
        else:
            assert f"{server.url}/{H5}: the server denies access" in found["error"]["message"]


@pytest.mark.servers
@pytest.mark.parametrize(
    "path", [H5, "keras2_zip_nested/model.keras", "tf1_v1_correct/model.ckpt-60"]
)
@pytest.mark.parametrize("query", [QUERY, ""])
def test_one_object_may_be_read(run: Run, path: str, query: str) -> None:
    """A store denies access to all but what is public or signed, be it there or not."""
    with Folder(FIXTURES) as server:
        server.faults = [on(f"^(?!/{path}([?]|$))", refusing(403))]
        outcome = run("check", f"{server.url}/{path}{query}", "--format", "jsonl")
        assert outcome.exit_code == 0, outcome.out
        server.faults = [on("", refusing(403))]
        outcome = run("check", f"{server.url}/{path}{query}", "--format", "json")
    problem = outcome.json["checkpoints"][0]["error"]
    assert problem["message"] == f"{server.url}/{path}: the server denies access (status 403)"
    assert problem["kind"] == "unreachable"  # no damage


@pytest.mark.servers
def test_a_shard_that_is_denied(tmp_path: Path, run: Run) -> None:
    with Folder(FIXTURES) as server:
        server.faults = [on("[.]data-", refusing(403))]
        outcome = run("check", f"{server.url}/{GOOD}")
    assert outcome.exit_code == 2
    assert ".data-00000-of-00001: the server denies access (status 403)" in outcome.said


@pytest.mark.servers
@pytest.mark.parametrize("options", [["--format", "jsonl"], ["--skip-unknown"]])
def test_what_cannot_be_told_of_one_file_does_not_end_the_run(run: Run, options: Any) -> None:
    with Folder(FIXTURES) as server:
        server.faults = [on("[.]meta|/failing", refusing(500))]
        paths = [f"{server.url}/failing.h5", f"{server.url}/{BAD}.index", f"{server.url}/{H5}"]
        outcome = run("check", *paths, *options)
    assert outcome.exit_code == 2
    assert "the server failed repeatedly (status 500)" in outcome.said
    assert "BN101" in outcome.said


@pytest.mark.servers
def test_a_time_without_end(run: Run) -> None:
    with Folder(FIXTURES) as server:
        server.faults = [with_headers(Last_Modified="inf")]
        outcome = run("check", f"{server.url}/{H5}", "--format", "jsonl")
    assert outcome.exit_code == 0, outcome.err


@pytest.mark.servers
def test_a_problem_holds_no_secret(private: Callable[[str], str]) -> None:
    import traceback

    for path in ("closed/model.h5", "none.h5"):
        with pytest.raises(ReadProblem) as caught:
            open_checkpoint(private(path))
        told = "".join(traceback.format_exception(caught.value))
        assert SECRET not in told
    with pytest.raises(ReadProblem) as caught:
        open_checkpoint(f"https://user:{SECRET}@127.0.0.1:9/a.h5{QUERY}")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.servers
def test_a_bug_of_ours_holds_no_secret(
    private: Callable[[str], str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_listings: Listings, url: str) -> Info:
        raise RuntimeError(f"at {urls.url_with_credentials(url)}")

    monkeypatch.setattr(Listings, "lookup", broken)
    outcome = run("check", private(GOOD))
    assert outcome.exit_code == 2
    assert "internal error" in outcome.err
    assert SECRET not in outcome.out + outcome.err


# --- The house ------------------------------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.parametrize(
    "command", [["check"], ["check", "--all-checkpoints"], ["list"], ["report"], ["compare"]]
)
def test_a_local_path_imports_nothing_for_urls(command: list[str]) -> None:
    program = (
        "import sys\nfrom bninspect.cli.main import run\n"
        "try:\n    run(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    folder = FIXTURES / "tf1_history_forgotten"
    done = subprocess.run(
        [sys.executable, "-c", program, command[0], str(folder), *command[1:]],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    loaded = set(done.stderr.split())
    assert "bninspect.storage.source" in loaded
    assert not {name for name in loaded if name.startswith("bninspect.storage.remote")}
    assert not loaded & {"fsspec", "aiohttp", "asyncio", "s3fs", "concurrent.futures"}
    assert not loaded & {"urllib.request", "bninspect.formats.hdf5.prefetch"}
