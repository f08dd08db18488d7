"""A rule is one entry: what is made up here is selected, listed, drawn and documented as it is."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bninspect
from bninspect.config.model import make_config
from bninspect.model.layer import BNLayer
from bninspect.model.roles import Role
from bninspect.model.rule import Rule, RuleContext, Violation
from bninspect.reporters.html.layers import layer_view
from bninspect.rules import pages
from bninspect.runs.run import check_paths
from tests.conftest import FIXTURES, Run

CORRECT = FIXTURES / "tf1_history_correct" / "model.ckpt-60"
EARLIER = FIXTURES / "tf1_history_correct" / "model.ckpt-40"


def _moved_up(layer: BNLayer, _: RuleContext) -> Iterator[Violation]:
    if layer.since is not None:
        yield Violation(f"compared with {layer.since.earlier}")


def _beta_alone(_: BNLayer, role: Role) -> bool:
    return role == "beta"


PAGE = """\
# BN901 made-up

## What it means

The layer was there before, as far as anybody can tell.

## Why it is bad

It is not bad at all.

```text
1 + 1 = 2
```

## Usual causes

- a test

## How to fix it

- Any framework: Nothing.
"""
MADE_UP = Rule(
    code="BN901",
    name="made-up",
    severity="warning",
    summary="a layer has an earlier state",
    check=_moved_up,
    fix=lambda _, __: "Do nothing.",
    members=("gamma", "beta"),
    concerns=_beta_alone,
    needs_earlier=True,
    live=True,
)


@pytest.fixture(autouse=True)
def catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Add the rule to the catalogue, in every module that has imported it, and its page."""
    shutil.copytree(pages.DIRECTORY, tmp_path / "pages")
    (tmp_path / "pages" / "BN901.md").write_text(PAGE, encoding="utf-8")
    monkeypatch.setattr(pages, "DIRECTORY", tmp_path / "pages")
    importlib.import_module("bninspect.reporters.html.page")  # else it would keep what it imports
    known = sys.modules["bninspect.rules"].RULES
    holding = [
        module
        for name, module in sys.modules.items()
        if name.startswith("bninspect") and vars(module).get("RULES") is known
    ]
    assert holding
    for module in holding:
        monkeypatch.setattr(module, "RULES", (*known, MADE_UP))


def test_it_is_listed(run: Run) -> None:
    assert "BN901  warning  made-up" in run("rule").out


@pytest.mark.parametrize("name", ["BN901", "made-up"])
def test_it_is_documented(run: Run, name: str) -> None:
    page = run("rule", name)
    assert page.exit_code == 0
    assert "The layer was there before, as far as anybody can tell." in page.said
    assert (
        "### Why it is bad\n\nIt is not bad at all." in run("rule", name, "--format=markdown").out
    )


def test_it_is_selected_and_applied(run: Run) -> None:
    outcome = run("check", CORRECT, "--since", EARLIER, "--select", "BN9", "--format", "json")
    [checkpoint] = outcome.json["checkpoints"]
    assert {one["rule"] for one in checkpoint["findings"]} == {"BN901"}
    assert len(checkpoint["findings"]) == len(checkpoint["layers"]) > 0


def test_without_an_earlier_checkpoint_it_is_refused_alone(run: Run) -> None:
    outcome = run("check", CORRECT, "--select", "BN107,BN901")
    assert outcome.exit_code == 2
    assert "BN107, BN901" in outcome.err
    assert "--since" in outcome.err


def test_sarif_describes_it(run: Run) -> None:
    out = run("check", CORRECT, "--since", EARLIER, "--select", "BN901", "--format", "sarif").out
    [described] = json.loads(out)["runs"][0]["tool"]["driver"]["rules"]
    assert described["id"] == "BN901"
    assert "The layer was there before" in described["fullDescription"]["text"]


def test_it_is_drawn_and_explained_on_the_page(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    run("report", CORRECT, "--since", EARLIER, "--select", "BN901", "-o", file)
    page = file.read_text(encoding="utf-8")
    assert 'id="rule-BN901"' in page
    assert "The layer was there before" in page


def test_it_colours_the_members_that_it_is_about() -> None:
    report = check_paths([CORRECT], make_config(("BN901",), (), since=str(EARLIER)))
    [checkpoint] = report.checkpoints
    view = layer_view(checkpoint.layers[0], checkpoint.findings[:1])
    assert {cell.role: cell.state for cell in view.cells} == {
        "gamma": "fine",
        "beta": "warning",
        "moving_mean": "fine",
        "moving_variance": "fine",
    }


def test_the_guard_judges_a_live_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    from bninspect.keras import BatchNormGuard

    BatchNormGuard(select="BN901")
    monkeypatch.setattr(sys.modules["bninspect.rules"], "RULES", (MADE_UP._replace(live=False),))
    with pytest.raises(bninspect.UsageProblem, match="No rule is left"):
        BatchNormGuard(select="BN901")
