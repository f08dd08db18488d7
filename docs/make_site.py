"""The site of the documents: `python docs/make_site.py DIRECTORY` builds it, strictly.

Sources are the documents as they stand in the repository. The start page is README.md, and the live
examples are reports that bninspect writes of fixtures. Links that leave the documents lead to the
repository. A broken link, or a page that the navigation does not name, fails the build.

Needs `pip install '.[docs]'`, in a checkout.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from bninspect.rules import CAUSES, RULES
from bninspect.rules.pages import document_of, title_of

ROOT = Path(__file__).parents[1]
SITE = "https://bninspect.github.io/bninspect/"
_REPOSITORY = "https://github.com/bninspect/bninspect/blob/main/"
_CONFIGURATION = ROOT / "docs/mkdocs.yml"

# Without --quiet, which keeps warnings from failing the build.
BUILD = [sys.executable, "-m", "mkdocs", "build", "--strict"]

# Documents outside docs/, and the pages that they become.
_PAGES = {"README.md": "index.md", "CHANGELOG.md": "changes.md"}

# The live examples, and what `bninspect report` is told. Its exit codes are 1, 0 and 1.
EXAMPLES = {
    "broken.html": ["fixtures/tf1_graph_update_ops_forgotten/model.ckpt-60"],
    "healthy.html": ["fixtures/tf1_graph_correct/model.ckpt-60"],
    "training.html": ["fixtures/tf1_history_stopped", "--all-checkpoints"],
}

_FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")


def main() -> None:
    """Build the site in the directory that is named."""
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/make_site.py DIRECTORY")
    make_site(Path(sys.argv[1]))


def make_site(target: Path) -> None:
    """Build the site in `target`, which is made or replaced."""
    with tempfile.TemporaryDirectory() as folder:
        write_sources(Path(folder))
        environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # the version is pinned
        done = subprocess.run(BUILD, cwd=folder, env=environment, check=False)  # noqa: S603
        if done.returncode:
            sys.exit("the site was not built: mkdocs says above what is wrong")
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(Path(folder, "site"), target)


def write_sources(folder: Path) -> None:
    """Write what the site is built from: its configuration and the directory docs/."""
    pages = folder / "docs"
    shutil.copytree(ROOT / "docs/pictures", pages / "pictures")
    shutil.copy(ROOT / "docs/site.css", pages)
    documents = [ROOT / name for name in _PAGES]
    documents += [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/*/*.md")]
    for document in documents:
        source = document.relative_to(ROOT).as_posix()
        page = pages / (_page_of(source) or "")
        page.parent.mkdir(exist_ok=True)
        page.write_text(with_links_of_the_site(document.read_text("utf-8"), source), "utf-8")
    write_examples(pages / "examples")
    configuration = yaml.safe_dump(configuration_with_pages(), sort_keys=False)
    (folder / "mkdocs.yml").write_text(configuration, "utf-8")


def write_examples(folder: Path) -> None:
    """Write the reports of the live examples."""
    folder.mkdir()
    for name, arguments in EXAMPLES.items():
        report = [sys.executable, "-m", "bninspect", "report", *arguments, "-o", folder / name]
        subprocess.run(report, cwd=ROOT, check=False, capture_output=True)  # noqa: S603
        if not (folder / name).exists():
            sys.exit(f"bninspect wrote no report of {arguments[0]}")


def configuration_with_pages() -> dict[str, Any]:
    """Return docs/mkdocs.yml, with the pages of rules and causes in its navigation."""
    configuration: dict[str, Any] = yaml.safe_load(_CONFIGURATION.read_text("utf-8"))
    for section in configuration["nav"]:
        if "Rules" in section:
            section["Rules"] += [{title_of(rule): document_of(rule)} for rule in RULES]
        if "Causes" in section:
            section["Causes"] = [{title_of(cause): document_of(cause)} for cause in CAUSES]
    return configuration


def with_links_of_the_site(text: str, source: str) -> str:
    """Return a document whose links lead to pages of the site or, where there is none, elsewhere.

    `source` is its path in the repository. Blocks of code are left as they are.
    """
    parts = _FENCED.split(text)
    return "".join(
        part if part.startswith("```") else _LINK.sub(lambda link: _linked(link, source), part)
        for part in parts
    )


def _linked(link: re.Match[str], source: str) -> str:
    target, anchor = link["target"], link["anchor"] or ""
    if target.startswith(SITE):
        page: str | None = target.removeprefix(SITE) or "index.md"
    elif "://" in target:
        return link[0]
    else:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        page = _page_of(path)
        if page is None:
            return f"]({_REPOSITORY}{path}{anchor})"
    folder = posixpath.dirname(_page_of(source) or "")
    return f"]({posixpath.relpath(page, folder)}{anchor})"


def _page_of(path: str) -> str | None:
    """Return the page that a file of the repository becomes on the site; None if there is none."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return _PAGES.get(path)


if __name__ == "__main__":
    main()
