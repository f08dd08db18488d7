"""The pages of rules and causes: complete, with arithmetic that is right, and as in docs/."""

from __future__ import annotations

import io
import json
import math
import re
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bninspect.batchnorm.families import FAMILIES
from bninspect.model.checkpoint import KerasModel
from bninspect.model.frameworks import FRAMEWORKS
from bninspect.model.graph import GraphEvidence
from bninspect.model.layer import Change, Since
from bninspect.model.live import LiveModel
from bninspect.model.rule import Cause, Rule
from bninspect.reporters.rule_pages import write_catalogue
from bninspect.rules import CAUSES, RULES, RuleContext, apply_rules
from bninspect.rules.pages import document_of, page_of, title_of
from tests.conftest import FIXTURES, ROOT, Run, load_fixture
from tests.rules.test_samples import MISTAKEN
from tests.support.layers_in_memory import bn, keras_layer
from tests.support.package_source import modules, scan

DOCS = ROOT / "docs"
PAGES: tuple[Rule | Cause, ...] = (*RULES, *CAUSES)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


# --- Which causes there are -----------------------------------------------------------------------


def test_every_cause_that_the_rules_can_give_has_a_page() -> None:
    """A cause is a text of words and hyphens; so are the names of rules and families."""
    reasoning = {name for name in modules() if name.startswith("bninspect.rules.")}
    reasoning.remove("bninspect.rules.cause_catalogue")
    reasoning.remove("bninspect.rules.suspects.catalogue")  # which proves nothing
    texts = {text for name in reasoning for text in scan(name).texts}
    named = {text for text in texts if re.fullmatch(r"[a-z]+(-[a-z]+)+|untrained", text)}
    other = {rule.name for rule in RULES} | {family.name for family in FAMILIES}
    assert named - other == {cause.name for cause in CAUSES}


def test_the_schema_of_the_json_knows_every_cause() -> None:
    schema = json.loads((ROOT / "bninspect/reporters/schema.json").read_text(encoding="utf-8"))

    def enumerated(part: object) -> Iterator[set[str | None]]:
        if isinstance(part, dict):
            if "untrained" in part.get("enum", ()):
                yield set(part["enum"])
            part = list(part.values())
        if isinstance(part, list):
            for one in part:
                yield from enumerated(one)

    found = list(enumerated(schema))
    assert found
    for causes in found:
        assert causes == {*(cause.name for cause in CAUSES), None}


def test_the_pages_name_no_other_rules() -> None:
    codes = [rule.code for rule in RULES]
    for cause in CAUSES:
        assert list(cause.rules) == [code for code in codes if code in cause.rules], cause.name
        assert cause.rules
    assert len({page.name for page in PAGES}) == len(PAGES)


def foretold() -> Iterator[tuple[str, str]]:
    """Rule and cause of every finding that a fixture or a training of the samples shows."""

    def inside(value: object) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            if "rule" in value and value.get("cause"):
                yield value["rule"], value["cause"]
            value = list(value.values())
        if isinstance(value, list):
            for one in value:
                yield from inside(one)

    for path in FIXTURES.glob("*.json"):
        yield from inside(json.loads(path.read_text(encoding="utf-8")))
    for pairs in MISTAKEN.values():
        for findings in pairs.values():
            yield from ((one.rule, one.cause) for one in findings if one.cause)


STILL = {"moving_mean": Change(False, 0.0), "moving_variance": Change(False, 0.0)}
# No fixture has one statistic that moved beside a graph without any update op: such a graph is that
# of a later training. No more has one the second checkpoint of a Keras 1 layer with a mode.
IN_MEMORY = {
    ("BN102", "built-with-training-false"): ({"mean": 0.0, "variance": (0.5, 2.0, 3.0)}, True),
    ("BN103", "built-with-training-false"): ({"mean": 0.5, "variance": 1.0}, True),
    ("BN102", "layer-frozen"): ({"mean": 0.0, "variance": (0.5, 2.0, 3.0)}, False),
    ("BN103", "layer-frozen"): ({"mean": 0.5, "variance": 1.0}, False),
    ("BN101", "momentum-one"): (
        {"mean": 0.0, "variance": 1.0, "gamma": 1.5, "momentum": 1.0},
        True,
    ),
    ("BN107", "momentum-one"): (
        {
            "mean": 0.5,
            "variance": (0.5, 2.0, 3.0),
            "gamma": 1.5,
            "momentum": 1.0,
            "since": Since("model-1.h5", {**STILL, "gamma": Change(True, 0.5)}),
        },
        True,
    ),
    ("BN107", "batch-statistics-mode"): (
        {
            "mean": 0.0,
            "variance": 1.0,
            "gamma": 1.5,
            "family": "keras-1",
            "keras": keras_layer(mode=2),
            "since": Since("model-1.h5", {**STILL, "gamma": Change(True, 0.5)}),
        },
        True,
    ),
}


def graph_in_inference_mode(*, optimized: bool) -> GraphEvidence:
    return GraphEvidence(
        "model.ckpt.meta",
        training_ops=("train",),
        statistics={"moving_mean": "bn/mean", "moving_variance": "bn/variance"},
        reads=True,
        optimized=optimized,
        modes=frozenset({False}),
    )


@pytest.mark.parametrize("pair", IN_MEMORY, ids=" ".join)
def test_a_rule_gives_a_cause_that_its_page_names(pair: tuple[str, str]) -> None:
    layer, optimized = IN_MEMORY[pair]
    graph = graph_in_inference_mode(optimized=optimized)
    context = RuleContext(step=100, graph=lambda _: graph)
    found = apply_rules([bn(step=100, **layer)], RULES, context)
    assert pair in {(one.rule.code, one.cause) for one in found}


# What only a live model proves.
LIVE = {("BN101", "call-without-training"), ("BN107", "call-without-training")}


def test_a_live_model_gives_causes_that_the_pages_name() -> None:
    moved = Since("the start", {**STILL, "gamma": Change(True, 0.5)})
    of_keras = {"keras": keras_layer()._replace(built_in=True), "keras_version": "3.15.1"}
    layer = bn(0.0, 1.0, [0.5, 1.5, 2.0], family="keras", since=moved, **of_keras)
    model = LiveModel("Net", takes_training=False, is_fitted=True)
    found = apply_rules([layer], RULES, RuleContext(live=True, live_model=model))
    assert {(one.rule.code, one.cause) for one in found} == LIVE


def test_a_rule_gives_the_causes_that_its_page_names_and_no_other() -> None:
    claimed = {(code, cause.name) for cause in CAUSES for code in cause.rules}
    assert {*foretold(), *IN_MEMORY, *LIVE} == claimed


# --- What a page says -----------------------------------------------------------------------------


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
def test_the_page_of_a_cause_is_complete(cause: Cause) -> None:
    assert not cause.summary.endswith(".")
    page = page_of(cause)
    for text in (page.meaning, page.proof, page.unproved, page.why):
        assert len(text) > 40
        assert text.endswith(".")
    assert page.causes


@each_page
def test_a_fix_says_something(page: Rule | Cause) -> None:
    assert page_of(page).fixes
    assert len({fix.where for fix in page_of(page).fixes}) == len(page_of(page).fixes)
    for fix in page_of(page).fixes:
        assert fix.text or fix.code
        assert fix.text == "" or fix.text.endswith((".", ".)"))
        compile(fix.code, fix.where, "exec")


@each_page
def test_the_arithmetic_shows_what_is_computed(page: Rule | Cause) -> None:
    assert re.search(r"sqrt\(|m\^n|momentum \*|m \*", page_of(page).arithmetic)


def results() -> Iterator[tuple[str, str, str]]:
    """Every line of arithmetic that has a result: the page, the expression, the number."""
    for page in PAGES:
        for line in page_of(page).arithmetic.splitlines():
            last = re.split(r"\s{2,}", line)[-1]
            if found := re.fullmatch(r"(.+) = (-?[\d.]+)", last):
                yield page.name, found[1], found[2]


@pytest.mark.parametrize(("page", "expression", "number"), list(results()))
def test_the_arithmetic_is_right(page: str, expression: str, number: str) -> None:
    """To the last digit that is shown."""
    known = {"__builtins__": {}, "sqrt": math.sqrt, "log": math.log, "inf": math.inf}
    decimals = len(number.partition(".")[2])
    assert f"{eval(expression, known):.{decimals}f}" == number  # noqa: S307 - our own text


def test_all_pages_but_one_have_a_worked_example() -> None:
    worked = {page for page, _, _ in results()}
    assert {page.name for page in PAGES} - worked == {"shape-mismatch"}


# --- How it is written ----------------------------------------------------------------------------


def test_the_list_has_rules_and_causes(run: Run) -> None:
    lines = run("rule").out.splitlines()
    named = [line.split()[0] for line in lines if line and not line.startswith("bninspect")]
    assert named == [*(rule.code for rule in RULES), "Causes,", *(cause.name for cause in CAUSES)]


@each_page
def test_a_page_fits_into_80_columns(run: Run, page: Rule | Cause) -> None:
    out = run("rule", page.name).out
    assert max(len(line) for line in out.splitlines()) <= 80
    for fix in page_of(page).fixes:
        for line in fix.code.splitlines():
            assert f"    {line}".rstrip() in out


def test_a_cause_by_its_name(run: Run) -> None:
    page = run("rule", "Update-Ops-Not-Run")
    assert page.exit_code == 0
    for heading in ("What it means", "What proves it", "What does not", "Why it is bad"):
        assert heading in page.out
    assert "BN101 statistics-never-updated" in page.said
    assert "update-ops-not-run: the graph has update ops" in run("rule", "BN101").said


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("update-ops-not-ran", "update-ops-not-run"),
        ("BN190", "BN1"),
        ("BN1O1", "BN101"),
        ("statistics-cool", "BN106"),
        ("bn2", "BN201"),
    ],
)
def test_a_near_name_is_suggested(run: Run, typed: str, meant: str) -> None:
    outcome = run("rule", typed)
    assert outcome.exit_code == 2
    assert f"Did you mean {meant}" in outcome.err


def test_a_likely_reason_without_a_page_leads_to_its_rules(run: Run) -> None:
    outcome = run("rule", "updates-not-kept")
    assert outcome.exit_code == 2
    assert "no file proves it" in outcome.err
    assert "BN101, BN102, BN103, BN107: `bninspect rule BN101` has the fixes" in outcome.err


def test_a_cause_is_no_rule_to_select(run: Run) -> None:
    path = FIXTURES / "tf1_layers_correct" / "model.ckpt-60"
    outcome = run("check", path, "--select", "update-ops-not-run")
    assert outcome.exit_code == 2
    assert "Did you mean update-ops-not-run" not in outcome.err


# --- Markdown -------------------------------------------------------------------------------------


def test_the_committed_pages_are_those_of_the_program() -> None:
    """If not: `make pages`."""
    made = dict(runpy.run_path(str(DOCS / "make_pages.py"))["documents"]())
    committed = {
        path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
        for path in (DOCS / "rules.md", *DOCS.glob("rules/*"), *DOCS.glob("causes/*"))
    }
    assert committed == made
    assert len(made) == 1 + len(PAGES)


@each_page
def test_a_document_says_what_the_command_says(run: Run, page: Rule | Cause) -> None:
    """Only its headings are one level higher, and the names of other pages are links."""
    said = run("rule", page.name, "--format", "markdown").out
    document = (DOCS / document_of(page)).read_text(encoding="utf-8")
    assert document.startswith(f"# {title_of(page)}\n")
    assert re.search(r"^## How to fix it$", document, re.MULTILINE)
    without_links = re.sub(r"^- \[(.+?)\]\(.+?\)", r"- \1", document, flags=re.MULTILINE)
    assert re.sub(r"^#(#+ )", r"\1", said, flags=re.MULTILINE) == without_links


def test_every_page_has_an_address(run: Run) -> None:
    document = json.loads(run("rule", "--format", "json").out)
    for entry in (*document["rules"], *document["causes"]):
        place = entry["url"].partition("/blob/main/")[2]
        title = (ROOT / place).read_text(encoding="utf-8").partition("\n")[0]
        assert title.split()[1] == entry.get("code", entry["name"])


def test_the_addresses_in_the_list_of_earlier_versions_lead_somewhere() -> None:
    """Earlier versions print addresses such as docs/rules.md#bn101-statistics-never-updated."""
    text = (DOCS / "rules.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### \[(.+?)\]\((.+?)\)$", text, re.MULTILINE)
    assert headings == [(title_of(page), document_of(page)) for page in PAGES]


def test_the_table_of_contents_leads_to_every_page(run: Run) -> None:
    out = run("rule", "--format", "markdown").out
    anchors = [line[3:].lower().replace(" ", "-") for line in out.splitlines() if line[:3] == "## "]
    contents = re.findall(r"^- \[.+?\]\(#(.+?)\)", out.partition("\n## ")[0], re.MULTILINE)
    assert contents == anchors
    assert len(anchors) == len(PAGES)
    assert set(re.findall(r"\]\(#(.+?)\)", out)) == set(anchors)


@each_page
def test_a_page_in_markdown(run: Run, page: Rule | Cause) -> None:
    out = run("rule", page.name, "--format", "markdown").out
    heading = f"{page.code} {page.name}" if isinstance(page, Rule) else page.name
    assert out.startswith(f"## {heading}\n")
    assert "](#" not in out  # the page that it would lead to is not there
    for fix in page_of(page).fixes:
        assert not fix.code or f"\n```python\n{fix.code}\n```\n" in out
    assert f"\n```text\n{page_of(page).arithmetic}\n```\n" in out
    assert set(re.findall(r"^```(.*)$", out, re.MULTILINE)) <= {"text", "python", ""}


@each_page
def test_prose_is_no_markup_by_accident(run: Run, page: Rule | Cause) -> None:
    out = run("rule", page.name, "--format", "markdown").out
    fenced = re.sub(r"^```.*?^```$", "", out, flags=re.MULTILINE | re.DOTALL)
    plain = re.sub(r"`[^`\n]+`", "", fenced)
    assert not re.search(
        r"`|<|\*(?![ *])(?!\*)[^*\n]*[^ *]\*(?!\*)|\]\(|__|\b_|_\b", plain.replace("**", "")
    )


def test_colours_change_no_word_of_a_page(run: Run) -> None:
    """On a terminal headings are bold and code is highlighted; the text is that of a pipe."""
    plain = run("rule", "BN101", "--color", "never").out
    coloured = run("rule", "BN101", "--color", "always").out
    assert "\x1b[" not in plain
    assert run("rule", "BN101").out == plain
    assert "\x1b[1mHow to fix it" in re.sub(r"\n", "", coloured)
    escapes = re.findall(r"\x1b\[[0-9;]*m", coloured)
    assert len(set(escapes)) > 5  # the syntax of code has several colours
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


# --- For one framework ----------------------------------------------------------------------------


@each_page
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_page_for_one_framework_begins_with_its_fixes(
    run: Run, page: Rule | Cause, framework: str
) -> None:
    """It has all of its own code, none that is for others alone, and the whole meaning."""
    out = run("rule", page.name, "--for", framework).out
    heading = f"How to fix it: {FRAMEWORKS[framework]}"
    assert out.index(heading) < out.index("What it means")
    assert max(len(line) for line in out.splitlines()) <= 80
    for fix in page_of(page).fixes:
        if fix.code:
            code = "\n".join(f"    {line}".rstrip() for line in fix.code.splitlines())
            assert (code in out) == (framework in fix.frameworks)
        elif fix.frameworks:
            assert (f"{fix.where}: " in " ".join(out.split())) == (framework in fix.frameworks)
    assert page_of(page).for_framework(framework).fixes or "has no fix for it" in out


def test_the_catalogue_fits_a_terminal_and_is_one_line_per_entry_elsewhere() -> None:
    plain, narrow = io.StringIO(), io.StringIO()
    write_catalogue(RULES, CAUSES, plain)
    write_catalogue(RULES, CAUSES, narrow, width=80)
    assert max(map(len, narrow.getvalue().splitlines())) <= 80
    assert narrow.getvalue().split() == plain.getvalue().split()
    for rule in RULES:
        assert any(rule.summary in line for line in plain.getvalue().splitlines())


def test_a_page_for_one_framework_in_markdown(run: Run) -> None:
    out = run("rule", "BN101", "--for", "slim", "--format", "markdown").out
    assert out.startswith("## BN101 statistics-never-updated\n")
    assert "### How to fix it: slim\n" in out
    assert "slim.learning.create_train_op" in out
    assert "keras" not in out.partition("### Causes")[0].partition("### Usual causes")[2]


def test_a_page_for_one_framework_names_the_causes_that_are_proved_there(run: Run) -> None:
    causes = {
        framework: run("rule", "BN101", "--for", framework).out.partition("Causes that the files")[
            2
        ]
        for framework in ("tf1-layers", "keras-1", "keras-3", "flax")
    }
    assert [name for name, text in causes.items() if "update-ops-not-run" in text] == [
        "tf1-layers",
        "keras-1",
    ]
    assert [name for name, text in causes.items() if "call-without-training" in text] == ["keras-3"]
    assert [name for name, text in causes.items() if "batch-statistics-mode" in text] == ["keras-1"]
    assert all("momentum-one" in text for text in causes.values())


@pytest.mark.parametrize(("framework", "is_run"), [("keras-3", True), ("flax", False)])
def test_recalibrate_is_offered_where_it_runs_the_model(
    run: Run, framework: str, is_run: bool
) -> None:
    out = run("rule", "BN101", "--for", framework).out
    assert ("bninspect recalibrate MODEL" in out) == is_run


@each_page
def test_what_names_a_framework_at_its_beginning_is_for_that_one(page: Rule | Cause) -> None:
    content = page_of(page)
    causes = zip(content.causes, content.cause_frameworks, strict=True)
    items = [*((fix.where, fix.frameworks) for fix in content.fixes), *causes]
    named = r"(slim|keras|tf1|tflearn)\b"
    assert not [text for text, own in items if not own and re.match(named, text, re.IGNORECASE)]


def test_an_unknown_framework_is_named_with_all_known(run: Run) -> None:
    outcome = run("rule", "BN101", "--for", "keras3")
    assert outcome.exit_code == 2
    assert "Did you mean keras-3?" in outcome.err
    assert all(name in outcome.err for name in FRAMEWORKS)


def test_a_framework_without_a_page_is_refused(run: Run) -> None:
    outcome = run("rule", "--for", "slim")
    assert outcome.exit_code == 2
    assert "bninspect rule BN101 --for slim" in outcome.err


@pytest.mark.parametrize(
    ("stem", "framework"),
    [
        ("tf1_layers_update_ops_forgotten", "tf1-layers"),
        ("slim_update_ops_forgotten", "slim"),
        ("tf1_handwritten_pop_stuck", "tf1-hand-written"),
        ("keras1_model_updates_ignored", "keras-1"),
        ("keras23_model_updates_ignored", "tf1-keras"),
        ("keras2_training_false", "keras-2"),
        ("keras3_custom_loop_stuck", "keras-3"),
        ("keras315_weights_own_class_stuck", "keras-3"),
        ("sonnet2_never_updated", None),
        ("keras2_ckpt_stuck", None),
        ("tf1_graph_keras_updates_ignored", None),
    ],
)
def test_a_finding_leads_to_the_page_of_its_framework(
    run: Run, stem: str, framework: str | None
) -> None:
    path = load_fixture(stem).path
    finding = run("check", path, "--format", "json").json["checkpoints"][0]["findings"][0]
    assert finding["framework"] == framework
    command = f"bninspect rule {finding['rule']}" + (f" --for {framework}" if framework else "")
    assert re.search(rf"more +{command}$", run("check", path).out, re.MULTILINE)
    assert run(*command.split()[1:]).exit_code == 0


def test_layers_of_which_one_shows_the_framework_are_one_group(run: Run) -> None:
    path = load_fixture("tf1_layers_ema_shadows_forgotten").path
    findings = run("check", path, "--format", "json").json["checkpoints"][0]["findings"]
    assert [finding["framework"] for finding in findings] == ["tf1-layers", None]
    out = run("check", path).out
    assert "warning BN110 shadows-never-updated: 2 layers" in out
    assert out.count("more      bninspect rule BN110 --for tf1-layers\n") == 1


def test_a_scope_of_ones_own_is_any_frameworks_without_a_graph(run: Run, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "tf1_graph_estimator_forgotten", tmp_path / "run")

    def finding() -> dict[str, Any]:
        return run("check", tmp_path / "run", "--format", "json").json["checkpoints"][0][
            "findings"
        ][0]

    assert finding()["framework"] == "tf1-layers"
    for graph in (tmp_path / "run").glob("*.meta"):
        graph.unlink()
    assert finding()["framework"] is None


def test_a_model_on_jax_has_a_page_of_its_own() -> None:
    model = KerasModel("Functional", has_own_class=False, is_compiled=True, backend="jax")
    layer = bn(0.0, 1.0, (1.0, 1.5, 2.0), family="keras", keras_version="3.15.1", keras_model=model)
    (finding,) = apply_rules([layer], RULES, RuleContext(step=60, format="keras-h5"))
    assert finding.framework == "jax"
    assert page_of(finding.rule).has_fix_for("jax")
