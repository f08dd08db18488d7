"""Architecture: which package imports which, which library each may use, what a command loads."""

from __future__ import annotations

import importlib
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

import bninspect
from tests.conftest import FIXTURES, ROOT, unmeasured_environment
from tests.support.package_source import PACKAGE, modules, scan

# One worker parses the modules, for all tests of this file.
pytestmark = pytest.mark.xdist_group("architecture")

# From the top down: a package imports only from rows below its own.
ROWS = (
    {"__main__"},
    {"cli"},
    {"flax", "keras", "tf1", "__init__"},  # the public modules
    {"recalibrate"},
    {"guard"},
    {"reporters"},
    {"api"},
    {"runs"},
    {"verdicts"},
    {"opening"},
    {"config", "evidence", "formats", "locate"},
    {"batchnorm", "rules", "storage"},
    {"model"},
    {"errors", "frozen", "wording"},
    {"_version"},
)
# Each library and the package, or the module, that alone may import it.
ONLY_USER = {
    "click": ("cli", "reporters/text_utils.py"),
    "cramjam": ("formats/orbax/ocdbt.py", "formats/tensorflow/sstable.py"),
    "distributed": ("runs/dask.py",),
    "fsspec": ("storage/remote/stores.py",),
    "google": ("formats/tensorflow/protos.py",),
    "google_crc32c": ("formats/orbax/ocdbt.py", "formats/tensorflow/sstable.py"),
    "jinja2": ("reporters/html",),
    "markupsafe": ("reporters/html",),
    "multiprocessing": ("runs/worker.py",),
    "regex": ("batchnorm/name_patterns.py",),
    "rich": ("reporters/rule_pages.py",),
    "tensorflow": ("formats/tensorflow/tensorflow_engine.py", "guard/session_guard.py"),
    "tensorstore": ("formats/orbax/arrays.py",),
    "tomli": ("config/toml_file.py",),
    "tomllib": ("config/toml_file.py",),
    "xml": ("reporters/junit.py",),
    "zipfile": ("formats/keras/archive.py", "recalibrate/samples.py"),
}


def row_of(module: str) -> int:
    package = [*module.split("."), "__init__"][1]
    return next(i for i, row in enumerate(ROWS) if package in row)


def own_imports(module: str) -> set[str]:
    return {name for name in scan(module).imports if name.split(".")[0] == "bninspect"}


@pytest.mark.parametrize("module", modules())
def test_imports_run_down(module: str) -> None:
    package = module.split(".")[1:2]
    for name in own_imports(module):
        assert name in modules(), f"{module} imports {name}, which is no module"
        if name.split(".")[1:2] != package:
            assert row_of(name) > row_of(module), f"{module} imports {name}"


def test_no_imports_form_a_circle() -> None:
    try:
        order = list(
            TopologicalSorter({name: own_imports(name) for name in modules()}).static_order()
        )
    except CycleError as error:
        raise AssertionError(" imports ".join(error.args[1])) from error
    assert set(order) == set(modules())


@pytest.mark.parametrize("library", ONLY_USER)
def test_one_package_knows_a_library(library: str) -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for name, path in modules().items()
        if any(imported.split(".")[0] == library for imported in scan(name).imports)
    }
    assert users
    for place in ONLY_USER[library]:
        inside = {user for user in users if user == place or user.startswith(f"{place}/")}
        assert inside, f"{place} does not import {library}"
        users -= inside
    assert not users


def test_every_public_name_is_where_the_package_says() -> None:
    for module, names in bninspect._MODULES.items():
        for name in names:
            assert getattr(importlib.import_module(module), name) is getattr(bninspect, name)
            assert name in bninspect.__all__


def test_no_code_of_a_model_can_run() -> None:
    for name in modules():
        roots = {imported.split(".")[0] for imported in scan(name).imports}
        assert not roots & {"keras", "pickle"}, name


def test_engines_alone_import_a_framework_that_runs_models() -> None:
    """They import by name, since which Keras a model needs is known only then."""
    users = {
        name for name in modules() if "importlib" in scan(name).imports and "recalibrate" in name
    }
    assert users == {"bninspect.recalibrate.engines.frameworks"}


def test_input_is_never_asserted() -> None:
    for name in modules():
        assert not scan(name).asserts, name


# Functions that look at the disk, as `os.path.exists` or `os.listdir`.
_DISK = {"exists", "lexists", "isfile", "isdir", "getsize", "realpath", "listdir", "scandir"}
_DISK |= {"stat", "lstat", "walk", "glob", "open"}
_DISK_CALLS = {f"os.{name}" for name in _DISK} | {f"os.path.{name}" for name in _DISK}
# TensorFlow's engine gives paths to TensorFlow; `urls` asks whether a file is called like a URL.
_MAY_LOOK = {
    "bninspect.storage.descriptors",
    "bninspect.storage.filesystem",
    "bninspect.storage.overwrites",
    "bninspect.storage.source",
    "bninspect.storage.urls",
    "bninspect.formats.tensorflow.tensorflow_engine",
}


def test_storage_alone_looks_at_the_disk() -> None:
    packages = ("bninspect.storage", "bninspect.locate", "bninspect.formats", "bninspect.opening")
    checked = [name for name in modules() if name.startswith(packages) and name not in _MAY_LOOK]
    assert len(checked) > 30
    for name in checked:
        assert not (_DISK_CALLS | {"open", "glob"}) & scan(name).calls, name


def test_contributing_names_every_package() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Recipes")[0]
    for name, path in modules().items():
        if path.parent == PACKAGE or path.name == "__init__.py":
            shown = f"{path.parent.name}/" if path.name == "__init__.py" else path.name
            assert shown in text, name


V1 = FIXTURES / "tf1_v1_correct" / "model.ckpt-60"
V2 = FIXTURES / "tf1_layers_correct" / "model.ckpt-60"
H5 = FIXTURES / "keras2_functional_correct" / "model.h5"
WEIGHTS = FIXTURES / "keras2_weights_nested" / "model.weights.h5"
ZIP = FIXTURES / "keras3_zip_nested" / "model.keras"
TFJS = FIXTURES / "tfjs_graph_folded" / "model.json"


REPORTERS = {path.stem for path in (PACKAGE / "reporters").glob("[!_]*.py")} | {"jinja2"}
REPORTERS |= {path.stem for path in (PACKAGE / "reporters/html").glob("[!_]*.py")}
# The modules that every reporter of prose uses.
SPOKEN = {"escapes", "text_utils", "verdict_text"}


NEEDED: list[tuple[list[str], set[str]]] = [
    (
        ["--version"],
        {
            "numpy",
            "rich",
            "bninspect.formats.hdf5",
            "google",
            "google_crc32c",
            "bninspect.runs.run",
        },
    ),
    (["rule", "BN101"], {"numpy", "rich", "bninspect.formats.hdf5", "google", "bninspect.formats"}),
    (
        ["check", str(V2)],
        {"rich", "bninspect.formats.hdf5", "cramjam", "json", "pathlib", "tensorflow", "keras"},
    ),
    (["check", "--allow-empty", str(TFJS)], {"rich", "bninspect.formats.hdf5.file", "google"}),
    (
        ["check", str(V2)],
        {
            "bninspect.verdicts.comparison",
            "bninspect.model.graph",
            "regex",
        },
    ),
    (
        ["check", str(V1)],
        {"rich", "bninspect.formats.hdf5", "cramjam", "json", "tensorflow", "keras"},
    ),
    (
        ["check", str(V2)],
        {
            "bninspect.runs.dask",
            "bninspect.runs.parallel",
            "bninspect.verdicts.baseline",
            "bninspect.verdicts.triage",
        },
    ),
    (["check", str(V2)], {"bninspect.locate.discover", "multiprocessing", "tempfile", "google"}),
    (["check", str(V2)], REPORTERS - {"check_text", *SPOKEN}),
    (["check", str(V2), "--format", "json"], REPORTERS - {"escapes", "json_v1"}),
    (["check", str(V2), "--format", "json"], {"bninspect.verdicts.comparison"}),
    (
        ["check", str(V2), "--format", "github"],
        REPORTERS - {"check_text", "ci_locations", "github", *SPOKEN},
    ),
    (
        ["check", str(V2), "--format", "sarif"],
        REPORTERS - {"ci_locations", "rule_pages", "sarif", *SPOKEN},
    ),
    (["check", str(V2), "--format", "junit"], REPORTERS - {"ci_locations", "junit", *SPOKEN}),
    (
        ["report", str(V2)],
        {"rich", "bninspect.formats.hdf5", "cramjam", "tensorflow", "keras", "notebook"},
    ),
    (
        ["watch", str(V2.parent), "--timeout", "0.1", "--interval", "0.05", "-q"],
        {"rich", "bninspect.formats.hdf5", "cramjam", "tensorflow", "keras", *REPORTERS}
        - {"check_text", "watch_text", *SPOKEN},
    ),
    (["list", str(V2)], {"bninspect.formats.hdf5", "cramjam", "tensorflow"}),
    (["check", str(H5)], {"rich", "h5py", "google", "cramjam", "tensorflow"}),
]


def loaded_by(program: str, *arguments: str) -> set[str]:
    """The modules that a program loads."""
    done = subprocess.run(
        [sys.executable, "-c", program + "\nprint(*sys.modules, file=sys.stderr)", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=unmeasured_environment(),
    )
    return set(done.stderr.split())


RUN = """
import sys, bninspect.__main__
try:
    bninspect.__main__.main()
except SystemExit as leaving:
    assert not leaving.code, leaving.code
"""


def test_the_unwanted_modules_exist() -> None:
    """A module that was renamed would never be loaded, and its row below never fail."""
    own = {name for *_, names in NEEDED for name in names if name.startswith("bninspect.")}
    assert own
    assert own <= set(modules())


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    NEEDED,
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else "",
)
def test_a_command_imports_only_what_it_needs(arguments: list[str], unwanted: set[str]) -> None:
    loaded = loaded_by(RUN, *arguments)
    loaded |= {
        name.rpartition(".")[2] for name in loaded if name.startswith("bninspect.reporters.")
    }
    assert "bninspect.cli.main" in loaded
    assert not loaded & unwanted


# The most modules that a command may load: of the package, and of others without those that
# `import click, numpy` loads, on the Python that needs the most. Each module takes some 0.2 ms of
# the start. Raise a number only for what each run needs; the rest is imported inside a function.
MOST: list[tuple[list[str], int, int]] = [
    (["--version"], 13, 3),
    (["--help"], 29, 15),
    (["check", "--help"], 19, 14),
    (["list", "--isolated", str(V2)], 95, 13),
    (["check", "--isolated", str(V2)], 97, 13),
    (["check", "--isolated", str(H5)], 109, 14),
    (["check", "--isolated", str(WEIGHTS)], 113, 14),
    (["check", "--isolated", str(ZIP)], 113, 35),
]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "most_own", "most_others"),
    MOST,
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_a_command_imports_few_modules(
    arguments: list[str], most_own: int, most_others: int
) -> None:
    loaded = loaded_by(RUN, *arguments)
    own = {name for name in loaded if name.partition(".")[0] == "bninspect"}
    others = loaded - own - loaded_by("import sys, click, numpy")
    assert "bninspect.cli.main" in own
    assert len(own) <= most_own, sorted(own)
    assert len(others) <= most_others, sorted(others)
