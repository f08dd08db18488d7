"""The Markdown files behind the pages: all are used, links resolve, mistakes are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bninspect.model.rule import Cause
from bninspect.rules import CAUSES, RULES, pages
from bninspect.rules.channels import COLLAPSED_VARIANCE
from bninspect.rules.cold import COLD_SHARE
from bninspect.rules.numeric import EXPLODING_VARIANCE
from bninspect.rules.pages import DIRECTORY, Fix, page_of

CAUSE = Cause("made-up", "a test", ("BN101",))
GOOD = """\
# made-up

## What it means

It means
nothing.

Nothing at all.

## What proves it

A test.

## What does not

Anything else.

## Why it is bad

It is not.

```text
1 + 1 = 2
```

## Usual mistakes behind it

- one {.slim .jax}
- another that goes on
  in a second line

## How to fix it

- [TF1 layers](../fixes/code.md)
- [Keras](../fixes/code.md): Say: `this`.
- Any framework: Do nothing.
- Keras 1: Build it
  anew. {.keras-1}
"""
CODE = "It says\nso.\n\n```python {.keras-2 .keras-3}\na = 1\n\nb = 2\n```\n"


def entries() -> dict[Path, str]:
    rules = {DIRECTORY / f"{rule.code}.md": rule.code for rule in RULES}
    return rules | {DIRECTORY / "causes" / f"{cause.name}.md": cause.name for cause in CAUSES}


def test_there_is_a_file_for_each_rule_and_cause_and_no_other() -> None:
    there = {*DIRECTORY.glob("*.md"), *DIRECTORY.glob("causes/*.md")}
    assert there == {*entries()}


def test_each_fix_is_linked_from_a_page_and_each_link_resolves() -> None:
    linked = {
        (path.parent / link).resolve()
        for path in entries()
        for link in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8"))
    }
    assert linked == {*DIRECTORY.glob("fixes/*.md")}


def test_no_line_is_longer_than_others_of_the_repository() -> None:
    files = [*DIRECTORY.rglob("*.md")]
    assert files
    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert len(line) <= 100, path


@pytest.mark.parametrize(
    ("code", "number"),
    [
        ("BN106", f"{COLD_SHARE:.0%}"),
        ("BN303", f"{COLLAPSED_VARIANCE:g}"),
        ("BN304", f"{EXPLODING_VARIANCE:.3g}"),
    ],
)
def test_a_page_gives_the_number_that_its_rule_uses(code: str, number: str) -> None:
    page = next(page_of(rule) for rule in RULES if rule.code == code)
    assert number in page.meaning


# --- How a file is read ---------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a page and a fix; the page's file."""
    for folder in ("causes", "fixes"):
        (tmp_path / folder).mkdir()
    (tmp_path / "fixes" / "code.md").write_text(CODE, encoding="utf-8")
    page = tmp_path / "causes" / "made-up.md"
    page.write_text(GOOD, encoding="utf-8")
    monkeypatch.setattr(pages, "DIRECTORY", tmp_path)
    monkeypatch.setattr(pages, "page_of", page_of.__wrapped__)
    return page


def test_a_page_is_read_whole(written: Path) -> None:
    assert written.exists()
    page = pages.page_of(CAUSE)
    assert page.meaning == "It means nothing.\n\nNothing at all."
    assert (page.proof, page.unproved) == ("A test.", "Anything else.")
    assert (page.why, page.arithmetic) == ("It is not.", "1 + 1 = 2")
    assert page.causes == ("one", "another that goes on in a second line")
    assert page.cause_frameworks == (("slim", "jax"), ())
    assert page.fixes == (
        Fix("TF1 layers", "It says so.", "a = 1\n\nb = 2", ("keras-2", "keras-3")),
        Fix("Keras", "Say: `this`.", "a = 1\n\nb = 2", ("keras-2", "keras-3")),
        Fix("Any framework", "Do nothing."),
        Fix("Keras 1", "Build it anew.", frameworks=("keras-1",)),
    )


@pytest.mark.parametrize(
    ("framework", "causes", "fixes"),
    [
        ("keras-3", ["another"], ["TF1 layers", "Keras", "Any framework"]),
        ("keras-1", ["another"], ["Any framework", "Keras 1"]),
        ("slim", ["one", "another"], ["Any framework"]),
    ],
)
def test_a_page_for_one_framework(
    written: Path, framework: str, causes: list[str], fixes: list[str]
) -> None:
    """It leaves out what is for others alone, and keeps the order of the page."""
    assert written.exists()
    page = pages.page_of(CAUSE).for_framework(framework)
    assert [cause.split()[0] for cause in page.causes] == causes
    assert [fix.where for fix in page.fixes] == fixes
    assert page.meaning == pages.page_of(CAUSE).meaning
    assert pages.page_of(CAUSE).has_fix_for(framework) == (fixes != ["Any framework"])


def test_an_unknown_framework_is_refused(written: Path) -> None:
    written.write_text(GOOD.replace(".slim", ".slimm"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"made-up\.md: 'slimm' is none of tf1-layers"):
        pages.page_of(CAUSE)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("# made-up", "# made up"),
        ("# made-up\n", "# made-up\n\nToo early.\n"),
        ("## What it means", "## What it meant"),
        ("## What does not\n\nAnything else.\n\n", ""),
        ("## Why it is bad", "### Why it is bad"),
        ("## Usual mistakes behind it", "## Usual causes"),
        ("Anything else.\n", ""),
        ("It is not.\n\n```text\n1 + 1 = 2\n```", "It is not."),
        ("```text\n1 + 1 = 2", "```python\n1 + 1 = 2"),
        ("It is not.\n\n```text", "It is not.\n```text"),
        ("A test.", "- A test."),
        ("- one {.slim .jax}\n- another", "One, another"),
        ("- another", "\n- another"),
        ("- Any framework: Do nothing.", "- Do nothing."),
        ("- Any framework: Do nothing.", "- [Keras](../fixes/code.txt)"),
    ],
)
def test_a_page_that_is_written_otherwise_is_refused(written: Path, right: str, wrong: str) -> None:
    assert right in GOOD
    written.write_text(GOOD.replace(right, wrong), encoding="utf-8")
    with pytest.raises(ValueError, match=r"made-up\.md: "):
        pages.page_of(CAUSE)


def test_a_fix_with_code_of_another_language_is_refused(written: Path) -> None:
    fix = written.parent.parent / "fixes" / "code.md"
    fix.write_text(CODE.replace("python", "text"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"code\.md: expected a block of python"):
        pages.page_of(CAUSE)
