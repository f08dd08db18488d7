"""Odd URLs, and objects that lie oddly: what a bucket's console and careless scripts leave."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import FIXTURES, Outcome
from tests.servers import Proxy, s3, s3_client, s3_environment
from tests.test_servers import forget_clients

pytest.importorskip("s3fs", reason="needs bninspect[remote]")
pytest.importorskip("moto", reason="needs moto[server]")

Run = Callable[..., Outcome]

GOOD = FIXTURES / "keras2_functional_correct/model.h5"
KEY = "wJalrXUtn/FEMI/K7MDENG"  # of AWS's form: it has slashes


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A SavedModel at the root of a bucket, and a bucket as a console leaves one."""
    root = tmp_path_factory.mktemp("bucket")
    for name in ("a.h5", "b.h5", "some/c.h5"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(GOOD, root / name)
    with s3({"bucket": root, "model": FIXTURES / "saved_model_keras3_export"}) as server:
        client = s3_client(server.url)
        client.create_bucket(Bucket="empty")
        client.put_object(Bucket="bucket", Key="aa/", Body=b"")  # "create folder"
        client.put_object(Bucket="bucket", Key="aa", Body=b"a file of a directory's name")
        client.put_object(Bucket="bucket", Key="aa/x.h5", Body=GOOD.read_bytes())
        yield server


@pytest.fixture(autouse=True)
def _environment(served: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_environment(served.url).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    forget_clients()
    served.forget()


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "s3://bucket//", "S3://bucket"])
def test_a_whole_bucket(run: Run, url: str) -> None:
    """Objects that are named like directories lie between the checkpoints, and hinder none."""
    outcome = run("check", url, "--format", "json")
    assert outcome.exit_code == 0, outcome.out
    found = [
        one["path"].rstrip("/").split("bucket")[1].lstrip("/")
        for one in outcome.json["checkpoints"]
    ]
    assert found == ["a.h5", "b.h5", "aa/x.h5", "some/c.h5"]


def test_a_model_that_is_a_whole_bucket(run: Run) -> None:
    (found,) = run("check", "s3://model", "--format", "json").json["checkpoints"]
    assert found["format"] == "saved-model"


@pytest.mark.parametrize(
    ("url", "phrase"),
    [
        ("s3://nosuch", "there is no such bucket"),
        ("s3://empty", "nothing in it"),
        ("s3://", "names no bucket or server"),
        ("s3:///x.h5", "names no bucket or server"),
        ("https://", "names no bucket or server"),
        ("http:///x.h5", "names no bucket or server"),
        ("s3://*", "not for the bucket itself"),
        ("s3://buck*/a.h5", "not for the bucket itself"),
        ("memory:///x", "no such checkpoint or file"),
        ("s3://bucket/nosuch/", "no such checkpoint or file"),
    ],
)
def test_what_names_nothing(run: Run, url: str, phrase: str) -> None:
    """One sentence about it, and the rest of the run goes on."""
    outcome = run("check", url, "s3://bucket/a.h5", "--format", "json")
    assert outcome.exit_code == 2
    bad, good = outcome.json["checkpoints"]
    assert phrase in bad["error"]["message"]
    assert ".index" not in bad["error"]["message"] + bad["path"]
    assert good["error"] is None


def test_a_key_is_no_part_of_the_url_of_a_bucket(run: Run) -> None:
    outcome = run("check", f"s3://AKIAIOSFODNN7:{KEY}@bucket/a.h5", "--format", "json")
    assert outcome.exit_code == 2
    (found,) = outcome.json["checkpoints"]
    assert "has no user or key in it" in found["error"]["message"]
    for secret in ("AKIA", *KEY.split("/")):
        assert secret not in outcome.out + outcome.err


@pytest.mark.parametrize("scheme", ["https", "s3", "ftp"])
def test_a_password_that_cannot_be_told(run: Run, scheme: str) -> None:
    """With an @ and a / it reads as a server's name and a path; no part of it is shown."""
    outcome = run("check", f"{scheme}://user:begun@middle/end@host/a.h5")
    assert outcome.exit_code == 2
    assert "write %2F for a / in a password" in outcome.err
    for secret in ("begun", "middle", "end@"):
        assert secret not in outcome.out + outcome.err
