"""What the documents show, and a directory in which their commands run.

The directory has what the examples speak of, made from fixtures. Blocks of a document are run in
the order in which they stand, so that one may use what another wrote:

- ```console: each line that begins with `$ ` is run by bash, and what follows it must be its
  output, on standard output and standard error together, but for times of day and durations;
- ```sh: each line that begins with `bninspect` is run by bash. It must end with exit code 0, or
  with that of a comment behind it that says `exit 1`. What else such a block may hold is listed in
  `NOT_RUN`.

`s3://bucket/` is a bucket that holds the same as the directory, served by moto on loopback for the
documents that speak of it. Other URLs stand in sentences and tables, where nothing is run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import FIXTURES, ROOT
from tests.support.servers import s3, s3_environment
from tests.support.table_writer import write_bundle

README = ROOT / "README.md"
DOCUMENTS = (README, *sorted((ROOT / "docs").glob("*.md")))
# The pages of rules and causes, which docs/make_pages.py makes; test_samples runs their code.
RULE_PAGES = tuple(sorted((ROOT / "docs").glob("*/*.md")))

# Lines of ```sh blocks that install, or set up a shell or a repository: .ci/run and other tests run
# what of it is ours.
NOT_RUN = ("python3 -m venv", "eval ", "source (")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    text: str


def blocks(document: Path, *languages: str) -> list[Block]:
    """The fenced blocks in these languages, in order."""
    text = document.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(language, body) for language, body in found if language in languages]


@dataclass(frozen=True)
class Command:
    """A command that a document shows; `output` is None where it shows none."""

    line: str
    exit_code: int | None = None
    output: str | None = None


def commands(document: Path) -> Iterator[Command]:
    """The commands of a document, in order."""
    for block in blocks(document, "console", "sh"):
        if block.language == "console":
            for session in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                line, _, output = session.partition("\n")
                yield Command(line, output=output.strip("\n"))
        else:
            for line in block.text.splitlines():
                if line.startswith("bninspect"):
                    yield Command(line, exit_code=stated_exit_code(line))
                else:
                    assert not line or line.startswith(NOT_RUN), f"{document.name}: {line!r}"


def timeless(text: str) -> str:
    """An output without the times of day and durations in it (14:02:10, 0:00:01)."""
    return re.sub(r"\b\d{1,2}:\d\d:\d\d\b", "H:MM:SS", text)


def framework_marks(lines: Iterable[str]) -> tuple[pytest.MarkDecorator, ...]:
    """Return the mark `framework` if one of the commands runs a model."""
    runs_model = any(line.startswith("bninspect recalibrate ") for line in lines)
    return (pytest.mark.framework,) if runs_model else ()


def stated_exit_code(line: str) -> int:
    stated = re.search(r" # .*\bexit (\d+)\b", line)
    return int(stated[1]) if stated else 0


# What the examples speak of, and the fixture it is a copy of.
_COPIES = {
    "model.h5": "keras2_functional_correct/model.h5",
    "stuck.h5": "keras315_h5_updates_dropped/model.h5",
    "model.keras": "keras3_zip_nested/model.keras",
    "model.weights.h5": "keras2_weights_nested/model.weights.h5",
    "export/1": "saved_model_keras2_traced",
    "run1": "tf1_training_directory",
    "run2": "tf1_layers_update_ops_forgotten",
    "runs/first": "tf1_training_directory",
    "runs/second": "tf1_graph_update_ops_forgotten",
    "models/birds.h5": "keras2_nested/model.h5",
    "models/gan": "tf1_graph_gan",
    "models/cats.h5": "keras2_too_few_steps/model.h5",
}
# A training whose statistics stood still after its second checkpoint.
_HISTORY = FIXTURES / "tf1_history_stopped"
_STEPS = {"20": "100", "40": "200", "60": "400"}


def make_workplace(folder: Path) -> None:
    """Fill a directory with what the examples speak of, and a `bninspect` to run there."""
    (folder / "fixtures").symlink_to(FIXTURES)
    for name, stem in _COPIES.items():
        source = FIXTURES / stem
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    training = folder / "training_dir"
    training.mkdir()
    for path in _HISTORY.iterdir():
        prefix, _, rest = path.name.partition("-")
        step, _, end = rest.partition(".")
        name = f"{prefix}-{_STEPS[step]}.{end}"
        shutil.copy(path, training / name)
        if step != "20":
            shutil.copy(path, folder / name)
    state = [f'model_checkpoint_path: "model.ckpt-{_STEPS["60"]}"']
    state += [f'all_model_checkpoint_paths: "model.ckpt-{step}"' for step in _STEPS.values()]
    (training / "checkpoint").write_text("\n".join(state) + "\n", encoding="utf-8")
    values = np.float32([0.5, 1.5, 2.5])
    own = {f"norm/{name}": values for name in ("gamma", "beta", "mu", "sigma2")}
    write_bundle(str(folder / "model.ckpt"), own)
    (folder / "ci").mkdir()
    (folder / "ci" / "bninspect.toml").write_text('fail-on = "warning"\n', encoding="utf-8")
    samples = np.random.default_rng(0).normal(size=(2048, 6, 6, 3)).astype("f4")
    np.savez(folder / "samples.npz", x=samples)
    program = folder / ".bin" / "bninspect"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bninspect "$@"\n', encoding="utf-8")
    program.chmod(0o755)


@contextmanager
def served_bucket(folder: Path) -> Iterator[dict[str, str]]:
    """The variables by which a program finds `s3://bucket/`, filled from what goes to `folder`."""
    make_workplace(folder)
    with s3({"bucket": folder}) as server:
        told = s3_environment(server.url).items()
        yield {name: value for name, value in told if value is not None}


def run_in(folder: Path, line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line in bash in such a directory, as on a terminal of 80 columns that is none.

    Standard output and standard error come together, as `stdout`.
    """
    bash = shutil.which("bash")
    assert bash, "the documents' commands are run by bash, which is not installed"
    environment = {
        "PATH": os.pathsep.join((str(folder / ".bin"), os.environ.get("PATH", os.defpath))),
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
        "LC_ALL": "C.UTF-8",
        "HOME": str(folder),
        **variables,
    }
    return subprocess.run(
        [bash, "-c", line],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
