"""The house: who may import whom, what a command may import, how large a file may grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import FIXTURES, ROOT

PACKAGE = ROOT / "bninspect"

# A row imports only from rows below it; modules of one row leave each other alone, but for the
# modules inside one of the packages named here.
ROWS = (
    {"__main__"},
    {"cli", "keras"},
    {"about", "following", "page", "watch"},
    {"faults", "writers"},
    {"exit_codes", "inspection", "manual", "options", "output", "reporters"},
    {"resuming", "workers"},
    {"batch", "cluster", "watching"},
    {"examine"},
    {"comparison", "config", "layer_values", "triage"},
    {"baseline", "formats", "layers", "evidence", "rules", "measure", "inference", "selection"},
    {"families"},
    {"findings"},
    {"graph"},
    {"model"},
    {"errors"},
    {"__init__"},  # the version, and names that lead elsewhere only when they are used
)
# libraries that one room alone may know
ONLY_USER = {
    "h5py": {"formats/hdf5.py"},
    "rich": {"reporters/tables.py"},
    "cramjam": {"formats/sstable.py"},
    "tensorflow": {"formats/tensorflow_engine.py"},
    "google": {"formats/protos.py"},
    "click": {
        "about.py",
        "cli.py",
        "faults.py",
        "following.py",
        "options.py",
        "page.py",
        "reporters/words.py",
        "watch.py",
    },
    "tomllib": {"config/toml_file.py"},
    "tomli": {"config/toml_file.py"},
    "distributed": {"cluster.py"},
    "jinja2": {"reporters/html/rendering.py"},
    "markupsafe": {"reporters/html/page.py", "reporters/html/rendering.py"},
    "fsspec": {"formats/remote.py"},
    "xml": {"reporters/junit.py"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every module a file imports, at its head or inside a function, but not for typing alone."""
    found: set[str] = set()

    class Visitor(ast.NodeVisitor):
        def visit_If(self, node: ast.If) -> None:
            if ast.unparse(node.test) != "TYPE_CHECKING":
                self.generic_visit(node)

        def visit_Import(self, node: ast.Import) -> None:
            found.update(alias.name for alias in node.names)

        def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
            assert not node.level, f"{path} imports by a relative name"
            if node.module == "bninspect":
                found.update(f"bninspect.{alias.name}" for alias in node.names)
            else:
                found.add(str(node.module))

    Visitor().visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    level = next(i for i, row in enumerate(ROWS) if room(path) in row)
    for name in imports(path):
        if not name.startswith("bninspect"):
            continue
        imported = name.split(".")[1] if "." in name else "__init__"
        imported = "__init__" if imported.startswith("_") else imported
        if imported == room(path):
            continue
        assert any(imported in row for row in ROWS), name
        below = next(i for i, row in enumerate(ROWS) if imported in row)
        assert below > level, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("library", sorted(ONLY_USER))
def test_one_room_knows_a_library(library: str) -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert users == ONLY_USER[library]


def test_no_code_of_a_model_can_run() -> None:
    for path in modules():
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & {"keras", "pickle"}, path


def test_input_is_never_asserted() -> None:
    for path in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)], path


# what looks at the disk by a name, as `os.path.exists` or `os.listdir`
_LOOKS = {"exists", "lexists", "isfile", "isdir", "getsize", "realpath", "listdir", "scandir"}
_LOOKS |= {"stat", "lstat", "walk", "glob", "open"}


def test_two_rooms_of_the_formats_alone_look_at_the_disk() -> None:
    for path in (PACKAGE / "formats").glob("*.py"):
        if path.name in {"files.py", "source.py", "tensorflow_engine.py", "urls.py"}:
            continue
        found = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
        }
        assert not {f"os.{name}" for name in _LOOKS} & found, path
        assert not {f"os.path.{name}" for name in _LOOKS} & found, path
        assert not {"open", "glob"} & found, path


def test_the_picture_of_the_house_shows_every_room() -> None:
    picture = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Recipes")[0]
    for path in modules():
        shown = path.parent.name + "/" if path.name == "__init__.py" else path.name
        assert shown in picture, path


def test_files_stay_readable() -> None:
    for path in modules():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 420, path


V1 = FIXTURES / "tf1_v1_correct" / "model.ckpt-60"
V2 = FIXTURES / "tf1_layers_correct" / "model.ckpt-60"
H5 = FIXTURES / "keras2_functional_correct"


REPORTERS = {path.stem for path in (PACKAGE / "reporters").glob("[!_]*.py")} | {"jinja2"}
REPORTERS |= {path.stem for path in (PACKAGE / "reporters/html").glob("[!_]*.py")}
# what those that write prose share
SPOKEN = {"outcomes", "words"}


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (
            ["--version"],
            {"numpy", "rich", "h5py", "google", "google_crc32c", "bninspect.inspection"},
        ),
        (["rule", "BN101"], {"numpy", "rich", "h5py", "google", "bninspect.formats"}),
        (["check", str(V2)], {"rich", "h5py", "cramjam", "json", "pathlib", "tensorflow", "keras"}),
        (["check", str(V2)], {"bninspect.comparison", "bninspect.graph", "bninspect.formats.hdf5"}),
        (["check", str(V1)], {"rich", "h5py", "cramjam", "json", "tensorflow", "keras"}),
        (
            ["check", str(V2)],
            {f"bninspect.{name}" for name in ("baseline", "cluster", "triage", "workers")},
        ),
        (["check", str(V2)], {"bninspect.formats.discover", "multiprocessing", "tempfile"}),
        (["check", str(V2)], REPORTERS - {"text", *SPOKEN}),
        (["check", str(V2), "--format", "json"], REPORTERS - {"json_v1"}),
        (["check", str(V2), "--format", "json"], {"bninspect.comparison"}),
        (
            ["check", str(V2), "--format", "github"],
            REPORTERS - {"github", "locations", "text", *SPOKEN},
        ),
        (
            ["check", str(V2), "--format", "sarif"],
            REPORTERS - {"sarif", "catalogue", "locations", *SPOKEN},
        ),
        (["check", str(V2), "--format", "junit"], REPORTERS - {"junit", "locations", *SPOKEN}),
        (
            ["report", str(V2)],
            {"rich", "h5py", "cramjam", "tensorflow", "keras", "notebook"},
        ),
        (
            ["watch", str(V2.parent), "--timeout", "0.1", "--interval", "0.05", "-q"],
            {"rich", "h5py", "cramjam", "tensorflow", "keras", *REPORTERS}
            - {"text", "watched", *SPOKEN},
        ),
        (["list", str(V2)], {"h5py", "cramjam", "tensorflow"}),
        (["check", str(next(H5.iterdir(), H5))], {"rich", "google", "cramjam", "tensorflow"}),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else "",
)
def test_a_command_imports_only_what_it_needs(arguments: list[str], unwanted: set[str]) -> None:
    program = (
        "import sys, bninspect.__main__\n"
        "try:\n    bninspect.__main__.main()\n"
        "except SystemExit as leaving:\n"
        "    assert not leaving.code, leaving.code\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.split())
    loaded |= {
        name.rpartition(".")[2] for name in loaded if name.startswith("bninspect.reporters.")
    }
    assert "bninspect.cli" in loaded
    assert not loaded & unwanted
