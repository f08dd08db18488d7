"""The program where POSIX calls are missing, as on Windows: the same answers.

What Windows lacks is taken away before the program is imported. That is no Windows: it shows that
nothing else of POSIX is needed to start, and to read and write files.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bninspect.storage.patterns import matching
from tests.conftest import FIXTURES, STUCK
from tests.support.processes import start_program

pytestmark = pytest.mark.processes

# In the order of the documentation of Python: modules and names that are "Availability: Unix".
AS_ON_WINDOWS = """
import numpy, tensorstore  # the builds for this platform need os.uname and more
import os, signal, sys
for module in ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"):
    sys.modules[module] = None
for name in (
    "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "chown", "chroot", "fchmod", "fork",
    "geteuid", "getuid", "initgroups", "mkfifo", "nice", "pread", "preadv", "pwrite", "setsid",
    "sysconf", "sync", "uname",
):
    if hasattr(os, name):
        delattr(os, name)
for name in (
    "SIGALRM", "SIGCHLD", "SIGHUP", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm",
    "pthread_kill", "pthread_sigmask", "setitimer", "sigpending", "sigwait",
):
    delattr(signal, name)
"""


def outcome(*arguments: object, before: str = "") -> tuple[int, str, str]:
    process = start_program(*arguments, before=before)
    out, err = process.communicate()
    return process.returncode, out, err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("rule", "BN101"),
        ("config",),
        ("completion", "zsh"),
        ("check", FIXTURES, "--format", "jsonl"),
        ("list", STUCK, "--graph"),
        ("dump", STUCK, "--layer", "*"),
        ("compare", STUCK, STUCK),
        ("check", STUCK.parent, "--all-checkpoints", "--format", "sarif"),
        ("recalibrate", STUCK, "--data", "none.npz", "--dry-run"),
    ],
    ids=lambda arguments: " ".join(getattr(part, "name", part) for part in arguments),
)
def test_the_same_answer(arguments: tuple[object, ...]) -> None:
    expected = outcome(*arguments)
    assert outcome(*arguments, before=AS_ON_WINDOWS) == expected


def test_the_test_sees_what_is_missing() -> None:
    before = f"{AS_ON_WINDOWS}\nimport bninspect.cli.main\nimport fcntl"
    code, _, err = outcome("--version", before=before)
    assert code == 1
    assert "import of fcntl halted" in err


def test_a_watch_runs() -> None:
    arguments = ("watch", STUCK.parent, "--timeout", "0.1", "--format", "jsonl")
    code, out, err = outcome(*arguments, before=AS_ON_WINDOWS)
    assert code == 1, err
    assert json.loads(out.splitlines()[0])["findings"]


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    for arguments in (("report", STUCK), ("check", STUCK, "--format", "json")):
        file = tmp_path / "result"
        for _ in range(2):
            code, out, err = outcome(*arguments, "-o", file, before=AS_ON_WINDOWS)
            assert code == 1, err
            assert out == ""
        assert "BN101" in file.read_text("utf-8")
        assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_pattern_with_the_separator_of_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.h5").touch()
    expected = [str(tmp_path / name / "model.h5") for name in ("a", "b")]
    pattern = str(tmp_path / "*" / "model.h5").replace("/", "\\")
    monkeypatch.setattr(os, "sep", "\\")
    assert matching(pattern).paths == expected
