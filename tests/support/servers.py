"""Object stores and web servers on loopback, for checkpoints that are read by URL.

Each is a context manager on a free port of its own. `Folder` and `Proxy` record what they are
asked (`requests`), may wait before each answer (`latency`, in seconds) and go wrong on purpose
(`faults`).
What is real and what stands in for it:

- S3: moto's server, an implementation by others, in this process. It checks no credentials; what S3
  answers to bad ones, `s3_error` says in S3's own words.
- Google Cloud Storage: gcp-storage-emulator, an implementation by others, in this process.
- Azure: azurite, Microsoft's emulator, a program of Node.js; None where it is not installed.
- Hugging Face: `Hub`, a stand-in for the few answers that a client of its Hub asks for.
- A plain web server: `Folder`. With `ranges` it behaves as nginx does, without as Python's does.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import logging
import mimetypes
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.support.processes import PATIENCE
from tests.support.tools import need_tool

FOREVER = 10**9


# --- A request, its answer, and what may go wrong between the two ---------------------------------


@dataclass
class Request:
    """What a client asked for, and, when it is over, what it was given."""

    method: str
    path: str  # with the query, still quoted
    headers: Mapping[str, str]
    body: bytes = b""
    status: int = 0
    sent: int = 0  # bytes of the body
    begun: float = 0.0  # seconds of a clock, as for the next
    answered: float = 0.0

    @property
    def range(self) -> str:
        """The bytes that were asked for, as the header names them; empty for all."""
        names = ("range", "x-ms-range")
        return next((value for name, value in self.headers.items() if name.lower() in names), "")


@dataclass(frozen=True)
class Answer:
    """What is sent; of the body only the first `cut` bytes, after which the connection ends."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    cut: int | None = None


# Between a request and its answer, which it may ask for, change, delay or replace.
Fault = Callable[[Request, Callable[[], Answer]], Answer]


def refusing(status: int, body: bytes = b"", **headers: str) -> Fault:
    """Another status instead of the answer."""
    return lambda _request, _answer: Answer(status, body, headers)


def s3_error(status: int, code: str, message: str = "") -> Fault:
    """What S3 answers, by its code (ErrorResponses.html of the S3 API Reference)."""
    text = f"<Error><Code>{code}</Code><Message>{message or code}</Message></Error>"
    body = b'<?xml version="1.0" encoding="UTF-8"?>\n' + text.encode()
    return refusing(status, body, **{"Content-Type": "application/xml"})


def cut_after(size: int) -> Fault:
    """The connection ends after so many bytes of the body."""
    return lambda _request, answer: replace(answer(), cut=size)


def late(seconds: float) -> Fault:
    """The answer comes so much later."""

    def wait(_request: Request, answer: Callable[[], Answer]) -> Answer:
        time.sleep(seconds)
        return answer()

    return wait


def with_headers(**changed: str | None) -> Fault:
    """The answer with other headers, or without one; `_` stands for the `-` of a name."""
    names = {name.replace("_", "-"): value for name, value in changed.items()}

    def change(_request: Request, answer: Callable[[], Answer]) -> Answer:
        right = answer()
        return replace(right, headers={**right.headers, **names})

    return change


def redirecting(to: str) -> Fault:
    """A redirection of each path to the same on another server."""
    return lambda request, _answer: Answer(302, headers={"Location": to + request.path})


def on(path: str, fault: Fault, *, method: str = "", skip: int = 0, times: int = FOREVER) -> Fault:
    """`fault` where the pattern `path` is found in a path: after `skip` of these, `times` times."""
    asked = 0
    lock = threading.Lock()

    def narrowed(request: Request, answer: Callable[[], Answer]) -> Answer:
        nonlocal asked
        if not re.search(path, request.path) or method not in ("", request.method):
            return answer()
        with lock:
            asked += 1
            hit = skip < asked <= skip + times
        return fault(request, answer) if hit else answer()

    return narrowed


def doing(act: Callable[[], object]) -> Fault:
    """`act` before the answer is made: an object may be replaced just then."""

    def do_first(_request: Request, answer: Callable[[], Answer]) -> Answer:
        act()
        return answer()

    return do_first


# --- The servers that record ----------------------------------------------------------------------


class Recorder:
    """A web server on loopback; `answer` says what a right answer is.

    `requests` are in the order of their arrival; `sent` counts the bytes of all bodies.
    """

    def __init__(self, *, latency: float = 0.0) -> None:
        self.latency = latency
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        handler = type("Handler", (_Handler,), {"recorder": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, request: Request) -> Answer:
        """The right answer."""
        raise NotImplementedError

    def faulty(self, request: Request) -> Answer:
        """The answer as the faults leave it; the first of them is the outermost."""

        def after(number: int) -> Answer:
            if number == len(self.faults):
                return self.answer(request)
            return self.faults[number](request, lambda: after(number + 1))

        return after(0)

    @property
    def sent(self) -> int:
        """Bytes of all bodies."""
        return sum(request.sent for request in self.requests)

    @property
    def rounds(self) -> int:
        """How many requests, at most, were each sent after the answer to the one before."""
        count, before = 0, 0.0
        for request in sorted(self.requests, key=lambda one: one.answered):
            if request.begun > before:
                count, before = count + 1, request.answered
        return count

    def forget(self) -> None:
        """Start with no requests and no faults."""
        self.requests, self.faults = [], []

    def __enter__(self) -> Any:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may go away."""


class _Handler(BaseHTTPRequestHandler):
    recorder: Recorder
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        """As the parent does, for whatever method."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, self.path, dict(self.headers.items()), body)
        request.begun = time.monotonic()
        self.recorder.requests.append(request)
        time.sleep(self.recorder.latency)
        answer = self.recorder.faulty(request)
        request.answered = time.monotonic()
        self._send(request, answer)

    def _send(self, request: Request, answer: Answer) -> None:
        request.status = answer.status
        self.send_response(answer.status)
        headers = {"Content-Length": str(len(answer.body)), **answer.headers}
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.close_connection |= headers["Content-Length"] is None
        self.end_headers()
        if request.method == "HEAD":
            return
        body = memoryview(answer.body)[: answer.cut]
        for start in range(0, len(body), 1 << 16):
            part = body[start : start + (1 << 16)]
            self.wfile.write(part)
            request.sent += len(part)
        self.close_connection = self.close_connection or answer.cut is not None

    def log_message(self, *_words: object) -> None:
        """What is asked is recorded, not printed."""


class Folder(Recorder):
    """The files below `root`, with an ETag each, and an index page for each directory.

    Without `ranges` a part of a file cannot be had: all of it comes, as from Python's http.server.
    """

    def __init__(self, root: Path, *, ranges: bool = True, latency: float = 0.0) -> None:
        super().__init__(latency=latency)
        self.root = root
        self.ranges = ranges

    def answer(self, request: Request) -> Answer:
        """The file, a part of it, or what lies in the directory."""
        path = unquote(urlsplit(request.path).path)
        place = self.root / path.strip("/")
        if place.is_dir():
            if not path.endswith("/"):
                return Answer(301, headers={"Location": quote(path) + "/"})
            return Answer(200, _index_page(place), {"Content-Type": "text/html; charset=utf-8"})
        if request.method not in ("GET", "HEAD"):
            return Answer(501)
        if not place.is_file():
            return Answer(404, b"not found")
        return self._file(place, request)

    def _file(self, place: Path, request: Request) -> Answer:
        status = place.stat()
        tag = hashlib.md5(f"{status.st_mtime_ns} {status.st_size}".encode()).hexdigest()  # noqa: S324
        headers = {
            "ETag": f'"{tag}"',
            "Last-Modified": formatdate(status.st_mtime, usegmt=True),
            "Content-Type": mimetypes.guess_type(place)[0] or "application/octet-stream",
            "Content-Length": str(status.st_size),
        }
        if self.ranges:
            headers["Accept-Ranges"] = "bytes"
        if request.method == "HEAD":
            return Answer(200, b"", headers)
        if not (self.ranges and request.range):
            return Answer(200, place.read_bytes(), headers)
        part = _part_of(request.range, status.st_size)
        if part is None:
            unsatisfied = {"Content-Range": f"bytes */{status.st_size}"}
            return Answer(416, b"", unsatisfied)
        with place.open("rb") as file:
            file.seek(part[0])
            body = file.read(part[1] - part[0])
        headers["Content-Length"] = str(len(body))
        headers["Content-Range"] = f"bytes {part[0]}-{part[1] - 1}/{status.st_size}"
        return Answer(206, body, headers)


def _part_of(header: str, size: int) -> tuple[int, int] | None:
    """Start and end of the one range that a header names (RFC 9110, 14.1.2); None if not there."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header)
    if match is None:
        return 0, size
    first, last = match.groups()
    if first:
        start, end = int(first), min(int(last) + 1 if last else size, size)
    else:
        start, end = max(size - int(last), 0), size
    return (start, end) if start < end else None


def _index_page(folder: Path) -> bytes:
    """A page of links, as Python's http.server makes it."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    links = "".join(f'<li><a href="{quote(name)}">{escape(name)}</a></li>\n' for name in names)
    return f"<!DOCTYPE HTML>\n<html><body><ul>\n{links}</ul></body></html>\n".encode()


class Hub(Folder):
    """The folders `root/ORG/NAME` as models of the Hugging Face Hub, each with one revision.

    `/api/models/…` tells what there is and `/…/resolve/…` gives files, as huggingface_hub asks for
    them (hf_api.py).
    """

    def answer(self, request: Request) -> Answer:
        """What is asked for, or that it is not there, in the words of the Hub."""
        path = unquote(urlsplit(request.path).path)
        match = re.fullmatch(r"(/api/models)?/([^/]+/[^/]+)(?:/([^/]+)/main)?(?:/(.*))?", path)
        if match is None or not (self.root / match[2]).is_dir():
            return _not_on_hub("RepoNotFound", 401)
        _, name, what, rest = match.groups()
        if match[1] and what in (None, "revision"):
            return _json({"id": name, "sha": _COMMIT})
        if not match[1] and what == "resolve":
            found = super().answer(replace(request, path=f"/{quote(name)}/{quote(rest)}"))
            return replace(found, headers={**found.headers, "X-Repo-Commit": _COMMIT})
        places = self._asked(self.root / name, what, rest or "", request)
        if places is None:
            return _not_on_hub("EntryNotFound")
        return _json([_on_hub(self.root / name, place) for place in places])

    @staticmethod
    def _asked(model: Path, what: str, rest: str, request: Request) -> list[Path] | None:
        if what == "paths-info":
            form = request.body.decode()
            names = json.loads(form)["paths"] if form.startswith("{") else parse_qs(form)["paths"]
            return [model / one for one in names if (model / one).exists()]
        if what != "tree" or not (model / rest).is_dir():
            return None
        all_below = "recursive=true" in request.path.lower()
        return sorted((model / rest).rglob("*") if all_below else (model / rest).iterdir())


_COMMIT = "0" * 40


def _json(told: object, status: int = 200, **headers: str) -> Answer:
    return Answer(
        status, json.dumps(told).encode(), {"Content-Type": "application/json", **headers}
    )


def _not_on_hub(code: str, status: int = 404) -> Answer:
    return _json({"error": code}, status, **{"X-Error-Code": code})


def _on_hub(model: Path, place: Path) -> dict[str, object]:
    path = place.relative_to(model).as_posix()
    if place.is_dir():
        return {"type": "directory", "path": path, "oid": _COMMIT}
    data = place.read_bytes()
    oid = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    return {"type": "file", "path": path, "size": len(data), "oid": oid}


class Proxy(Recorder):
    """All that another server on loopback says, recorded."""

    def __init__(self, upstream: str, *, latency: float = 0.0) -> None:
        super().__init__(latency=latency)
        self._upstream = urlsplit(upstream).netloc
        self._local = threading.local()

    def answer(self, request: Request) -> Answer:
        """What the other server says; the name that the client called stays in the request."""
        connection = http.client.HTTPConnection(self._upstream, timeout=30)
        with contextlib.closing(connection):
            connection.putrequest(
                request.method, request.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in request.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(request.body)
            said = connection.getresponse()
            own = ("connection", "transfer-encoding", "server", "date", "keep-alive")
            headers = {n.title(): v for n, v in said.getheaders() if n.lower() not in own}
            body = said.read()
            if request.method != "HEAD":
                headers["Content-Length"] = str(len(body))
            return Answer(said.status, body, headers)


# --- Object stores --------------------------------------------------------------------------------

# No place but these variables may give credentials: neither files of a person nor a machine's role.
NO_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": None,
    "AWS_SECRET_ACCESS_KEY": None,
    "AWS_SESSION_TOKEN": None,
    "AWS_PROFILE": None,
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "GOOGLE_APPLICATION_CREDENTIALS": None,
    "NO_GCE_CHECK": "true",
    "AZURE_STORAGE_CONNECTION_STRING": None,
    "HF_TOKEN": None,
    "HF_TOKEN_PATH": os.devnull,
}
SECRET = "never-to-be-shown"  # noqa: S105 - it opens nothing


def s3_environment(endpoint: str) -> dict[str, str | None]:
    """The variables by which a client of S3 finds `endpoint`."""
    return {
        **NO_CREDENTIALS,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }


@contextlib.contextmanager
def s3(buckets: Mapping[str, Path]) -> Iterator[Proxy]:
    """moto's S3 behind a recording proxy, with a bucket for each folder, filled with its files.

    One at a time: what moto holds is the process's.
    """
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # which prints each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        upstream = "http://{}:{}".format(*server.get_host_and_port())
        client = s3_client(upstream)
        for bucket, folder in buckets.items():
            client.create_bucket(Bucket=bucket)
            for name, path in files_below(folder):
                client.upload_file(str(path), bucket, name)
        with Proxy(upstream) as proxy:
            yield proxy
    finally:
        _post(upstream, "/moto-api/reset", b"")
        server.stop()


def s3_client(endpoint: str) -> Any:
    """What puts objects there."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key=SECRET,
    )


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a folder, with the name of its object."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def gcs_environment(endpoint: str) -> dict[str, str | None]:
    """The variables by which a client of Google Cloud Storage finds an emulator."""
    return {**NO_CREDENTIALS, "STORAGE_EMULATOR_HOST": endpoint}


@contextlib.contextmanager
def gcs(buckets: Mapping[str, Path]) -> Iterator[Proxy]:
    """An emulator of Google Cloud Storage, filled as `s3` is."""
    from gcp_storage_emulator.server import create_server

    port = free_port()
    upstream = f"http://127.0.0.1:{port}"
    server = create_server("127.0.0.1", port, in_memory=True)
    server.start()
    try:
        for bucket, folder in buckets.items():
            _post(upstream, "/storage/v1/b?project=test", b'{"name": "%s"}' % bucket.encode())
            for name, path in files_below(folder):
                place = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, '')}"
                _post(upstream, place, path.read_bytes(), "application/octet-stream")
        with Proxy(upstream) as proxy:
            yield proxy
    finally:
        server.stop()


def _post(server: str, place: str, body: bytes, kind: str = "application/json") -> None:
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", place, body, {"Content-Type": kind})
        said = connection.getresponse()
        assert said.status == 200, (said.status, said.read())


# The account that every azurite has, and its key, which is published (azurite's README).
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


def azure_environment(endpoint: str) -> dict[str, str | None]:
    """The variables by which adlfs finds azurite."""
    told = {
        "DefaultEndpointsProtocol": "http",
        "AccountName": AZURE_ACCOUNT,
        "AccountKey": AZURE_KEY,
        "BlobEndpoint": f"{endpoint}/{AZURE_ACCOUNT}",
    }
    text = ";".join(f"{name}={value}" for name, value in told.items())
    return {**NO_CREDENTIALS, "AZURE_STORAGE_CONNECTION_STRING": text + ";"}


@contextlib.contextmanager
def azure(containers: Mapping[str, Path], scratch: Path) -> Iterator[Proxy]:
    """azurite, filled as `s3` is; what it stores goes to `scratch`."""
    from azure.storage.blob import BlobServiceClient

    port = free_port()
    program = need_tool("azurite")
    options = ["--skipApiVersionCheck", "--silent", "--disableTelemetry", "--inMemoryPersistence"]
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), *options]
    process = subprocess.Popen(
        command, cwd=scratch, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(port, process)
        upstream = f"http://127.0.0.1:{port}"
        connection = azure_environment(upstream)["AZURE_STORAGE_CONNECTION_STRING"] or ""
        with BlobServiceClient.from_connection_string(connection) as client:
            for container, folder in containers.items():
                client.create_container(container)
                for name, path in files_below(folder):
                    client.get_blob_client(container, name).upload_blob(path.read_bytes())
        with Proxy(upstream) as proxy:
            yield proxy
    finally:
        process.terminate()
        process.wait(10)


def hub_environment(endpoint: str) -> dict[str, str | None]:
    """The variables by which huggingface_hub finds `endpoint`, if it is not imported yet."""
    return {**NO_CREDENTIALS, "HF_ENDPOINT": endpoint}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = PATIENCE) -> None:
    """Return when somebody listens on a port."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, "the server ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on port {port}")
