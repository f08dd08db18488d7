"""Odd URLs, and objects that lie oddly: what a bucket's console and careless scripts leave."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from tests.conftest import FIXTURES, Run
from tests.storage.remote.test_servers import forget_clients
from tests.support.servers import (
    Answer,
    Fault,
    Folder,
    Proxy,
    Request,
    free_port,
    on,
    redirecting,
    refusing,
    s3,
    s3_client,
    s3_environment,
    with_headers,
)
from tests.support.tools import need_tool

pytestmark = pytest.mark.servers


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
        client.create_bucket(Bucket="careless")
        client.put_object(Bucket="careless", Key="runs//a.h5", Body=GOOD.read_bytes())
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


def test_a_key_with_an_empty_part(run: Run) -> None:
    assert run("check", "s3://careless/runs//a.h5").exit_code == 0


def test_a_model_that_is_a_whole_bucket(run: Run) -> None:
    (found,) = run("check", "s3://model", "--format", "json").json["checkpoints"]
    assert found["format"] == "saved-model"


@pytest.mark.parametrize(
    ("url", "phrase"),
    [
        ("s3://nosuch", "no such bucket"),
        ("s3://empty", "or it is empty"),
        ("s3://", "names no bucket or server"),
        ("s3:///x.h5", "names no bucket or server"),
        ("https://", "names no bucket or server"),
        ("http:///x.h5", "names no bucket or server"),
        ("http://[::1/a.h5", "name or port is not valid"),
        ("http://127.0.0.1:99999/a.h5", "name or port is not valid"),
        ("http://127.0.0.1:port/a.h5", "name or port is not valid"),
        ("s3://*", "but not the bucket itself"),
        ("s3://buck*/a.h5", "but not the bucket itself"),
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
    assert "cannot have a user or a key" in found["error"]["message"]
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


# --- Web servers that behave oddly ----------------------------------------------------------------


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Folder]:
    for name in ("bad.h5", "good.h5"):
        shutil.copy(GOOD, tmp_path / name)
    with Folder(tmp_path) as server:
        yield server


def new_etags(*names: str) -> Fault:
    """Servers that share the load and have an ETag of their own each; without names ever more."""
    number = count()

    def renamed(_request: Request, answer: Callable[[], Answer]) -> Answer:
        turn = next(number)
        right = answer()
        etag = names[turn % len(names)] if names else str(turn)
        return replace(right, headers={**right.headers, "ETag": f'"{etag}"'})

    return renamed


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c"), ()])
def test_servers_of_several_names_for_one_file(run: Run, web: Folder, names: tuple[str]) -> None:
    web.faults = [on("bad[.]h5$", new_etags(*names))]
    assert run("check", f"{web.url}/bad.h5").exit_code == 0


def test_a_new_name_that_stays_is_another_file(run: Run, web: Folder) -> None:
    web.faults = [on("bad[.]h5$", with_headers(ETag='"new"'), skip=1)]
    outcome = run("check", f"{web.url}/bad.h5")
    assert outcome.exit_code == 2
    assert "was replaced by another object" in outcome.said


def test_a_server_that_has_a_page_for_everything(run: Run, web: Folder) -> None:
    """What is but tried beside a file is not there, then; the file itself is."""
    page = refusing(200, b"<!DOCTYPE html><html><body>Log in</body></html>")
    web.faults = [on("[.]index|/checkpoint|saved_model", page)]
    assert run("check", f"{web.url}/good.h5").exit_code == 0
    web.faults = [on("bad", page)]
    outcome = run("check", f"{web.url}/bad.h5", f"{web.url}/good.h5", "--format", "json")
    bad, good = outcome.json["checkpoints"]
    assert "this is a text file" in bad["error"]["message"]
    assert good["error"] is None


@pytest.mark.parametrize(
    ("fault", "phrase"),
    [
        (refusing(302, Location="file:///etc/passwd"), "redirects in a circle, or to something"),
        (refusing(301, Location="/bad.h5.index"), "redirects in a circle, or to something"),
        (refusing(302, Location="http://[bad"), "redirects in a circle, or to something"),
        (refusing(302), "status is not one that comes with a file"),
        (refusing(204), "status is not one that comes with a file"),
        (refusing(999), "status is not one that comes with a file"),
        (with_headers(Content_Range="bytes 0-65535/" + "9" * 5000), "other bytes than those"),
        (redirecting(f"http://127.0.0.1:{free_port()}"), "cannot be reached"),
    ],
)
def test_answers_that_bring_nothing(run: Run, web: Folder, fault: Fault, phrase: str) -> None:
    web.faults = [on("bad", fault)]
    if phrase.startswith("other"):
        web.faults = [on("bad[.]h5$", fault)]
    one_sentence(run, f"{web.url}/bad.h5", f"{web.url}/good.h5", phrase)


def one_sentence(run: Run, bad: str, good: str, phrase: str) -> None:
    outcome = run("check", bad, good, "--format", "json")
    assert outcome.exit_code == 2
    first, second = outcome.json["checkpoints"]
    assert phrase in first["error"]["message"]
    assert first["error"]["message"].startswith(f"{bad}: ")  # not a file that was only tried
    assert second["error"] is None


def test_a_certificate_of_ones_own(run: Run, web: Folder, tmp_path: Path) -> None:
    need_tool("openssl")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run([*command.split(), *files], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    plain = socket.create_server(("127.0.0.1", 0))
    with context.wrap_socket(plain, server_side=True) as listening:
        threading.Thread(target=shake_hands, args=(listening,), daemon=True).start()
        bad = f"https://127.0.0.1:{listening.getsockname()[1]}/bad.h5"
        one_sentence(run, bad, f"{web.url}/good.h5", "certificate is not trusted")


def shake_hands(listening: ssl.SSLSocket) -> None:
    while listening.fileno() >= 0:
        with suppress(OSError):  # whoever does not trust it goes away
            listening.accept()


def test_no_tls_there(run: Run, web: Folder) -> None:
    secure = web.url.replace("http:", "https:")
    one_sentence(run, f"{secure}/bad.h5", f"{web.url}/good.h5", "does not support TLS")


@pytest.mark.parametrize(
    ("proxy", "phrase"),
    [
        ("http://user:hidden@127.0.0.1:9", "the proxy cannot be reached"),
        ("odd", "that of the proxy, is not valid"),
    ],
)
def test_a_proxy_that_is_none(
    run: Run, monkeypatch: pytest.MonkeyPatch, proxy: str, phrase: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.delenv("http_proxy", raising=False)
    outcome = run("check", "http://host.invalid/a.h5")
    assert outcome.exit_code == 2
    assert phrase in outcome.said
    assert "hidden" not in outcome.out + outcome.err
