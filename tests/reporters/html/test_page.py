"""`report`: what the page says, that names stay text, and that the page keeps to itself.

How it behaves in a browser is in test_page_in_browser.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import bninspect
import bninspect.runs.run
from bninspect.model.layer import BNLayer
from bninspect.model.report import CheckpointReport, Report
from bninspect.reporters.escapes import printable
from bninspect.reporters.html.charts import HEIGHT, WIDTH, histogram, trend
from bninspect.reporters.html.layers import anchor, layer_view
from bninspect.reporters.html.page import HtmlReport
from bninspect.reporters.html.rendering import render
from bninspect.rules import RULES
from tests.conftest import CLEAN, FIXTURES, ROOT, STUCK, Fixture, Run, load_fixture
from tests.support.layers_in_memory import bn
from tests.support.pages import Page, keep_to_themselves, whole_page, write_resnet
from tests.support.reports_in_memory import HOSTILE, checkpoint, finding, hostile_reports, report
from tests.support.table_writer import write_bundle

STOPPED = FIXTURES / "tf1_history_stopped"
NAMES = ["conv1/batch_normalization", "conv2/batch_normalization", "dense/batch_normalization"]
MISSING = FIXTURES / "no_such_checkpoint"

# What could be taken for markup, or turn the text around it.
MARKUP = (
    *HOSTILE,
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "\"><svg onload='alert(1)'>",
    "' onfocus='alert(1)' autofocus x='",
    "<!--",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;&amp;",
    "a\u202egnp.exe\u202c\u200f\u2066",
    "javascript:alert(1)",
    "`<b>`",
    "x" * 10_000,
)


def page_of(one: Report) -> Page:
    """The page of a report made in memory."""
    stream = io.StringIO()
    page = HtmlReport(stream)
    page.begin(len(one.checkpoints))
    for item in one.checkpoints:
        page.add(item, None)
    page.end(one)
    return whole_page(stream.getvalue())


def cards(page: Page) -> list[str]:
    return [one.text for one in page.all("section", "layer")]


def names_of(page: Page) -> list[str]:
    return [one.text for one in page.all("a", "name")]


# --- The command ----------------------------------------------------------------------------------


class TestCommand:
    def test_the_file_is_written_and_the_exit_code_is_that_of_check(
        self, run: Run, tmp_path: Path
    ) -> None:
        file = tmp_path / "page.html"
        outcome = run("report", STUCK, "-o", file)
        assert outcome.exit_code == 1
        assert outcome.out == ""
        answer, counts = outcome.err.splitlines()
        assert answer.startswith("FAIL  ")
        assert "3 of 3 BN layers" in answer
        assert counts.startswith("1 checkpoint, 3 BN layers: 3 errors")
        assert str(file) in outcome.err
        assert "3 of 3 BN layers" in whole_page(file.read_text("utf-8")).text

    @pytest.mark.parametrize(
        "arguments",
        [
            [CLEAN],
            [STUCK],
            [STUCK, "--fail-on", "never"],
            [STUCK, "--ignore", "BN1"],
            [STUCK, MISSING],
            [FIXTURES / "keras2_lookalikes"],
            [FIXTURES / "keras2_lookalikes", "--allow-empty"],
            [CLEAN, "--since", CLEAN],
        ],
        ids=lambda arguments: " ".join(Path(str(one)).name for one in arguments),
    )
    def test_the_exit_code_is_that_of_check(self, run: Run, arguments: list[object]) -> None:
        expected = run("check", *arguments)
        outcome = run("report", *arguments)
        assert outcome.exit_code == expected.exit_code
        whole_page(outcome.out)

    def test_quiet_says_nothing(self, run: Run, tmp_path: Path) -> None:
        outcome = run("report", CLEAN, "-q", "-o", tmp_path / "page.html")
        assert (outcome.out, outcome.err) == ("", "")

    def test_a_terminal_gets_no_page(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        outcome = run("report", CLEAN)
        assert outcome.exit_code == 2
        assert "-o FILE.html" in outcome.err
        assert outcome.out == ""

    @pytest.mark.processes
    def test_a_package_that_is_missing_is_named(self, tmp_path: Path) -> None:
        call = "sys.modules['jinja2'] = None; from bninspect.cli.main import run; run(sys.argv[1:])"
        command = [sys.executable, "-c", f"import sys; {call}", "report", CLEAN, "-o"]
        done = subprocess.run(
            [*command, tmp_path / "page.html"],
            check=False,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert done.stderr.startswith("bninspect: the package jinja2 is missing: ")
        assert done.stderr.count("\n") == 1
        assert not [*tmp_path.iterdir()]

    def test_a_checkpoint_is_not_overwritten(self, run: Run, tmp_path: Path) -> None:
        write_bundle(tmp_path / "model.ckpt-1", {"bn/moving_mean": np.zeros(3, "f4")})
        index = tmp_path / "model.ckpt-1.index"
        before = index.read_bytes()
        outcome = run("report", tmp_path, "-o", index)
        assert outcome.exit_code == 2
        assert "is a file of the checkpoint" in outcome.err
        assert index.read_bytes() == before

    def test_an_interrupted_run_is_no_whole_one(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = bninspect.runs.run.check_paths

        def cut_short(*arguments: Any) -> Report:
            return replace(whole(*arguments), interrupted=True)

        monkeypatch.setattr("bninspect.runs.run.check_paths", cut_short)
        file = tmp_path / "page.html"
        outcome = run("report", CLEAN, "-o", file)
        assert outcome.exit_code == 130
        assert "interrupted" in outcome.err
        page = whole_page(file.read_text("utf-8"))
        assert "what was still to be read is not in this report" in page.text

    def test_an_interrupt_while_a_training_is_drawn_loses_none_of_it(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[str] = []

        def interrupted_once(template: str, **values: Any) -> Any:
            drawn.append(template)
            if len(drawn) == 2:
                raise KeyboardInterrupt
            return render(template, **values)

        monkeypatch.setattr("bninspect.reporters.html.page.render", interrupted_once)
        file = tmp_path / "page.html"
        outcome = run("report", STOPPED, CLEAN, "--all-checkpoints", "-o", file)
        assert outcome.exit_code == 130
        page = whole_page(file.read_text("utf-8"))
        assert page.one("div", "lead").text.startswith("FAIL interrupted after 3 checkpoints: ")
        assert [one.text for one in page.all("h2")][1:4] == [
            str(STOPPED / f"model.ckpt-{step}") for step in (20, 40, 60)
        ]
        assert "3 checkpoints, from step 20 to step 60" in page.text

    @pytest.mark.processes
    def test_several_processes_make_the_same_page(self, tmp_path: Path) -> None:
        made = []
        for jobs in ("1", "2"):
            file = tmp_path / f"{jobs}.html"
            command = [sys.executable, "-m", "bninspect", "report", STOPPED, STUCK, CLEAN]
            command += ["--all-checkpoints", "--jobs", jobs, "-o", file]
            subprocess.run(command, check=False, cwd=ROOT)
            made.append(file.read_text("utf-8"))
        assert made[0] == made[1]
        assert len(whole_page(made[0]).all("section", "checkpoint")) == 5


def test_every_fixture_is_shown(run: Run, fixture: Fixture) -> None:
    """Every layer and every finding that the maker of the fixture expects."""
    outcome = run("report", fixture.path, "--isolated", *fixture.expected["options"])
    page = whole_page(outcome.out)
    assert names_of(page) == [layer["name"] for layer in fixture.expected["layers"]]
    told = run("check", fixture.path, "--isolated", "--format=json", *fixture.expected["options"])
    for found in told.json["checkpoints"][0]["findings"]:
        card = next(
            one
            for one in page.all("section", "layer")
            if one.attributes["id"] == anchor(found["layer"])
        )
        assert found["rule"] in card.text
        assert found["severity"] in card.text


# --- What it says ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stuck() -> Page:
    return page_of(bninspect.check(STUCK))


@pytest.fixture(scope="module")
def stopped() -> Page:
    return page_of(bninspect.check(STOPPED, all_checkpoints=True))


def test_the_verdict_comes_first_with_cause_and_fix(stuck: Page) -> None:
    lead = stuck.one("div", "lead").text
    assert lead.startswith("FAIL")
    assert "moving_mean and moving_variance are still at their initial values (BN101)" in lead
    assert "Cause cannot be told from this file" in lead
    assert "Fix Run the update ops with every training step" in lead
    assert stuck.text.index(lead) < stuck.text.index("Map of all layers")


def test_the_verdict_leads_to_what_it_means(stuck: Page) -> None:
    link = next(one for one in stuck.all("a") if one.inside[-3:] == ("div", "dl", "dd"))
    assert link.text == "BN101 statistics-never-updated"
    assert link.attributes["href"] == f"#{stuck.one('details', 'rule').attributes['id']}"


def test_a_rule_that_a_fix_sends_to_is_explained(stopped: Page) -> None:
    """Whoever looks at the page may have no program to ask for another rule."""
    assert "bninspect rule BN101" in stopped.one("article", "finding").text
    explained = [one.attributes["id"] for one in stopped.all("details", "rule")]
    assert explained == ["rule-BN101", "rule-BN107"]


def test_a_cause_that_is_proved_is_told_in_words() -> None:
    path = load_fixture("tf1_graph_history_forgotten").path
    lead = page_of(bninspect.check(path)).one("div", "lead").text
    assert "Cause update-ops-not-run: " in lead


def test_the_gravest_finding_of_all_checkpoints_leads() -> None:
    milder = checkpoint("one", [finding("BN303", layer="other")])
    lead = page_of(report(milder, checkpoint("two", [finding("BN101")]))).one("div", "lead").text
    assert "Gravest two: BN101" in lead
    assert "mend other" not in lead


def test_a_rule_leads_to_the_layers_that_it_hits(stuck: Page) -> None:
    article = stuck.one("article", "finding").text
    assert "error BN101 statistics-never-updated: 3 layers" in article
    links = [one for one in stuck.all("a") if "article" in one.inside and "li" in one.inside]
    assert [one.text for one in links] == NAMES
    assert [one.attributes["href"] for one in links] == [f"#{anchor(name)}" for name in NAMES]


def test_a_rule_is_explained(stuck: Page) -> None:
    page = stuck.one("details", "rule").text
    for title in ("What it means", "Why it is bad", "Usual causes", "How to fix it"):
        assert title in page
    assert "tf.control_dependencies" in page


def test_the_map_has_every_statistic_of_every_layer(stuck: Page) -> None:
    columns = [one for one in stuck.all("a") if one.inside[-2:] == ("ol", "li")]
    assert [one.attributes["title"] for one in columns] == [
        f"{name}: gamma no finding, beta no finding, moving_mean error, moving_variance error"
        for name in NAMES
    ]
    cells = [one.classes[0] for one in stuck.all("i") if one.inside[-3:] == ("ol", "li", "a")]
    assert cells == ["fine", "fine", "error", "error"] * 3


@pytest.mark.parametrize(
    ("code", "layer", "states"),
    [
        ("BN102", {}, "fine fine error fine"),
        ("BN103", {}, "fine fine fine error"),
        ("BN105", {}, "warning warning warning warning"),
        ("BN301", {"gamma": [1.0, np.nan, 1.0]}, "error fine fine fine"),
        ("BN302", {}, "fine fine fine error"),
        ("BN303", {}, "fine fine note note"),
    ],
)
def test_a_finding_colours_what_it_is_about(code: str, layer: dict, states: str) -> None:
    whole = {"gamma": [1.0] * 3, "beta": [0.0] * 3, "mean": [0.1] * 3, "variance": [2.0] * 3}
    view = layer_view(bn(**whole | layer), [finding(code)])
    assert " ".join(cell.state for cell in view.cells) == states


def test_the_gravest_finding_colours(stuck: Page) -> None:
    both = [finding("BN104"), finding("BN302")]
    assert [cell.state for cell in layer_view(bn(), both).cells][2:] == ["warning", "error"]
    assert [cell.state for cell in layer_view(bn(), (), both).cells][2:] == ["muted", "muted"]


def test_a_layer_shows_its_members_and_what_inference_makes_of_them(stuck: Page) -> None:
    captions = [one.text for one in stuck.all("figcaption")]
    values = bninspect.check(STUCK).checkpoints[0].layers[0].values
    gamma = values["gamma"]
    assert captions[0] == f"gamma {gamma.minimum:.3g} to {gamma.maximum:.3g}"
    assert captions[2:4] == ["moving_mean 0", "moving_variance 1"]
    scale = gamma.array.astype("f8") / np.sqrt(1 + 1e-3)
    assert captions[4] == f"scale {scale.min():.3g} to {scale.max():.3g}"
    assert captions[5].startswith("shift ")
    assert "4 channels, float32" in cards(stuck)[0]
    assert "4 stuck" in cards(stuck)[0]


def test_every_chart_is_told_in_words(stuck: Page, stopped: Page) -> None:
    for page in (stuck, stopped):
        drawn = [one for one in page.all("svg") if "figure" in one.inside]
        assert drawn
        for one in drawn:
            assert one.attributes["role"] == "img"
            assert len(one.attributes["aria-label"]) > 20
    said = [one.attributes.get("aria-label", "") for one in stuck.all("svg")]
    assert "moving_mean. Histogram: 4 values, all 0; 4 exactly at the initial value 0" in said


def test_dead_channels_are_counted() -> None:
    path = next(FIXTURES.glob("*dead*.json")).stem
    page = page_of(bninspect.check(load_fixture(path).path))
    dead = [int(one) for one in re.findall(r"(\d+) dead", " ".join(cards(page)))]
    table = [int(one.text) for one in dead_cells(page)]
    assert dead == table
    assert sum(dead) > 0


def dead_cells(page: Page) -> list:
    cells = [one for one in page.all("td") if one.inside[-1] == "tr"]
    return cells[5::10]


def test_what_is_missing_is_said() -> None:
    page = page_of(bninspect.check(load_fixture("keras2_no_gamma_beta").path))
    assert "gamma not stored" in [one.text for one in page.all("figcaption")]
    assert any("absent" in one.classes for one in page.all("i") if "ol" in one.inside)


def test_an_unreadable_checkpoint_is_shown(run: Run) -> None:
    page = whole_page(run("report", MISSING, CLEAN).out)
    assert page.one("div", "lead").text.startswith("ERROR 2 checkpoints: 1 unreadable, 1 passed")
    first, second = page.all("section", "checkpoint")
    assert "ERROR" in first.text
    assert "no_such_checkpoint" in first.text
    assert "PASS" in second.text


def test_what_is_suppressed_is_shown_as_such(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "bninspect.toml"
    entry = {"layer": NAMES[0], "rules": ["BN101"], "reason": "it is <b>meant</b> to be"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
    file.write_text("\n".join(["[[suppress]]", *lines]), "utf-8")
    page = whole_page(run("report", STUCK, "--config", file).out)
    article = page.one("article", "muted").text
    assert "Does not count suppressed: it is <b>meant</b> to be" in article
    assert NAMES[0] in article
    assert "not counted BN101" in cards(page)[0]
    assert "error BN101" in cards(page)[1]


def test_what_is_known_is_shown_as_such(run: Run, tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    run("check", STUCK, "--baseline", known, "--update-baseline")
    outcome = run("report", STUCK, "--baseline", known)
    assert outcome.exit_code == 0
    page = whole_page(outcome.out)
    assert "it is in the baseline" in page.one("article", "muted").text
    assert "baseline: 3 known findings, 0 gone" in page.text


def test_a_link_to_a_layer_stays_the_same() -> None:
    first, second = (page_of(bninspect.check(path)) for path in (STUCK, CLEAN))
    ids = [
        [one.attributes["id"] for one in page.all("section", "layer")] for page in (first, second)
    ]
    assert ids[0] == ids[1] == [anchor(name) for name in NAMES]


def test_layers_of_several_checkpoints_have_their_own_links() -> None:
    page = page_of(bninspect.check(STUCK, CLEAN))
    assert names_of(page) == NAMES * 2


# --- Over time ------------------------------------------------------------------------------------


def test_a_training_is_shown_over_time(stopped: Page) -> None:
    """The statistics of this training stood still from step 40 on, which is how it was made."""
    assert "3 checkpoints, from step 20 to step 60" in stopped.text
    history = bninspect.list_layers(STOPPED, all_checkpoints=True).checkpoints
    first, last = (item.layers[0].values["moving_mean"].mean for item in (history[0], history[-1]))
    said = [one.attributes["aria-label"] for one in stopped.all("svg") if "td" in one.inside]
    assert len(said) == 6
    assert said[0] == (
        f"moving_mean. Mean of the channels: {first:.3g} at step 20; {last:.3g} at step 60;"
        " stood still from step 40 to step 60"
    )
    assert said
    assert all("stood still from step 40 to step 60" in one for one in said)
    rows = [
        one.text
        for one in stopped.all("tr")
        if "data-layer" in one.attributes and "since" in one.text
    ][:3]
    assert rows
    assert all(row.endswith("since step 40") for row in rows)


def test_named_checkpoints_of_a_training_are_drawn_and_judged_over_time(run: Run) -> None:
    outcome = run("report", *(STOPPED / f"model.ckpt-{step}" for step in (60, 40)))
    page = whole_page(outcome.out)
    assert "2 checkpoints, from step 40 to step 60" in page.text
    assert "BN107" in page.text
    assert outcome.exit_code == 1


def test_trends_are_drawn_without_the_rule_that_judges_them(run: Run) -> None:
    outcome = run("report", STOPPED, "--all-checkpoints", "--ignore", "BN107")
    assert "3 checkpoints, from step 20 to step 60" in whole_page(outcome.out).text
    assert outcome.exit_code == 0


def test_a_training_that_never_moved_says_so() -> None:
    page = page_of(bninspect.check(FIXTURES / "tf1_history_forgotten", all_checkpoints=True))
    rows = [one.text for one in page.all("tr") if "data-layer" in one.attributes]
    assert any(row.endswith("never moved") for row in rows)


def test_the_newest_of_a_training_is_shown_in_full(stopped: Page) -> None:
    assert names_of(stopped) == NAMES
    paths = [one.text for one in stopped.all("h2")]
    assert paths[1:4] == [str(STOPPED / f"model.ckpt-{step}") for step in (20, 40, 60)]
    ids = [one.attributes["id"] for one in stopped.all("section", "checkpoint")]
    links = [one for one in stopped.all("a") if one.text == "the newest checkpoint"]
    assert [one.attributes["href"] for one in links] == [f"#{ids[2]}"] * 2


def test_each_training_leads_to_its_own_newest() -> None:
    histories = (FIXTURES / "tf1_history_correct", STOPPED)
    page = page_of(bninspect.check(*histories, all_checkpoints=True))
    ids = [one.attributes["id"] for one in page.all("section", "checkpoint")]
    links = [one for one in page.all("a") if one.text == "the newest checkpoint"]
    newest = [f"#{ids[len(ids) - 4]}"] * (len(ids) - 4) + [f"#{ids[-1]}"] * 2
    assert [one.attributes["href"] for one in links] == newest


def test_a_training_that_moves_never_stands_still() -> None:
    page = page_of(bninspect.check(FIXTURES / "tf1_history_correct", all_checkpoints=True))
    said = [one.attributes["aria-label"] for one in page.all("svg") if "td" in one.inside]
    assert said
    assert not any("stood still" in one for one in said)
    assert not page.all("path", "k")


def test_other_models_make_no_trend(run: Run, tmp_path: Path) -> None:
    for name, channels in (("net50", 3), ("net101", 4)):
        roles = ("gamma", "beta", "moving_mean", "moving_variance")
        write_bundle(tmp_path / name, {f"bn/{role}": np.ones(channels, "f4") for role in roles})
    page = whole_page(run("report", tmp_path / "net50", tmp_path / "net101").out)
    assert "Over time" not in page.text
    assert names_of(page) == ["bn", "bn"]


def test_an_unreadable_one_does_not_end_a_training(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        stored = {
            "bn/moving_mean": np.full(3, step, "f4"),
            "bn/moving_variance": np.ones(3, "f4"),
            "global_step": np.int64(step),
        }
        write_bundle(tmp_path / f"model.ckpt-{step}", stored)
    (tmp_path / "model.ckpt-2.data-00000-of-00001").write_bytes(b"")
    found = bninspect.check(tmp_path, all_checkpoints=True)
    page = page_of(found)
    assert "2 checkpoints, from step 1 to step 3" in page.text
    assert [one.text.split()[0] for one in page.all("p", "verdict")][2] == "ERROR"


# --- Charts ---------------------------------------------------------------------------------------


def test_a_histogram_is_drawn_bin_by_bin() -> None:
    drawn = histogram(np.array([0.0, 0.0, 24.0, 12.5]), initial=0.0, at_initial=2)
    assert drawn.bars == f"M0 36V2H5V36H60V19H65V36H115V19H120V{HEIGHT}z"
    assert drawn.stuck == "M0 36v-34h5V36z"
    assert drawn.initial == 0.0


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [([1e-4, 1e-2, 1.0], True), ([0.5, 1.0, 2.0], False), ([0.0, 1.0, 1e6], False)],
)
def test_the_axis_is_logarithmic_where_it_serves(values: list[float], logarithmic: bool) -> None:
    assert histogram(np.array(values)).logarithmic == logarithmic


@pytest.mark.parametrize(
    ("values", "initial", "where", "beyond"),
    [
        ([0.0, 2.0], 1.0, WIDTH / 2, ""),
        ([5.0, 5.0], 1.0, 0.0, ""),
        ([5.0, 5.1], 1.0, None, "left"),
        ([-5.0, -5.1], 1.0, None, "right"),
        ([1e-4, 1e-2], 1.0, float(WIDTH), ""),
        ([1e-4, 1e-2], 0.0, None, "left"),
        ([1.0, 2.0], None, None, ""),
    ],
)
def test_the_initial_value_is_marked(
    values: list[float], initial: float | None, where: float | None, beyond: str
) -> None:
    drawn = histogram(np.array(values), initial, 0)
    assert (drawn.initial, drawn.beyond) == (where, beyond)


_floats = arrays.arrays(
    st.sampled_from([np.float64, np.float32, np.float16]),
    st.integers(0, 40),
    elements={"allow_nan": True, "allow_infinity": True},
)


def _numbers(path: str) -> list[float]:
    return [float(one) for one in re.findall(r"-?[\d.]+(?:e-?\d+)?", path)]


@pytest.mark.filterwarnings("error")
@given(_floats, st.none() | st.floats(width=32))
def test_any_values_make_a_histogram_within_its_frame(array, initial) -> None:
    drawn = histogram(array, initial, 0)
    assert all(-HEIGHT <= one <= WIDTH for one in _numbers(drawn.bars + drawn.stuck))
    assert drawn.initial is None or 0 <= drawn.initial <= WIDTH
    assert bool(drawn.bars) == bool(np.isfinite(array).any())
    lost = int((~np.isfinite(array)).sum())
    assert not lost or str(lost) in drawn.description


_value = st.none() | st.floats()


@pytest.mark.filterwarnings("error")
@given(st.lists(st.tuples(_value, _value, st.none() | st.booleans()), min_size=2, max_size=9))
def test_any_course_makes_a_trend_within_its_frame(course) -> None:
    means = [one[0] for one in course]
    ranges = [
        None if None in (low, high) else (min(low, high), max(low, high)) for low, high, _ in course
    ]
    moved = [one[2] for one in course][1:]
    labels = [f"step {place}" for place in range(len(course))]
    drawn = trend(means, ranges, [float(place) for place in range(len(course))], moved, labels)
    paths = drawn.band + drawn.line + drawn.dots + drawn.still
    assert all(0 <= one <= WIDTH for one in _numbers(paths))
    if drawn.line:
        assert drawn.description.count("stood still") == drawn.still.count("M")


def test_a_trend_over_many_checkpoints_is_drawn_no_finer_than_it_is_wide() -> None:
    count = 5_000
    means = [float(place) for place in range(count)]
    ranges = [(mean - 1, mean + 1) for mean in means]
    ranges[2_500] = (-1_000.0, 9_000.0)  # a single one that goes far is seen
    labels = [f"step {place}" for place in range(count)]
    drawn = trend(means, ranges, means, [True] * (count - 1), labels)
    assert drawn.line.count("L") < WIDTH
    assert drawn.band.count("L") < 2 * WIDTH
    assert drawn.dots == ""
    assert {2.0, HEIGHT - 4.0} <= {*_numbers(drawn.band)}
    means[2_500] = np.nan  # and so is a gap
    drawn = trend(means, ranges, list(range(count)), [True] * (count - 1), labels)
    assert drawn.line.count("M") == 2


# --- Names ----------------------------------------------------------------------------------------

_TAGS = {
    *("html", "head", "meta", "title", "style", "script", "body", "main", "div", "section", "nav"),
    *("article", "h1", "h2", "h3", "h4", "p", "a", "b", "i", "bdi", "wbr", "code", "pre", "br"),
    *("ul", "ol", "li", "dl", "dt", "dd", "details", "summary", "table", "thead", "tbody", "tr"),
    *("th", "td", "figure", "figcaption", "svg", "path", "form", "label", "input", "select"),
    *("option", "button", "output", "footer", "small"),
}


@settings(max_examples=40, deadline=None)
@given(hostile_reports)
def test_hostile_texts_make_no_markup(one: Report) -> None:
    page = page_of(one)
    assert {element.tag for element in page.elements} <= _TAGS
    assert len(page.all("script")) == len(page.all("style")) == 1
    for item in one.checkpoints:
        assert " ".join(printable(item.path).split()) in page.text


@pytest.mark.parametrize("name", MARKUP, ids=lambda name: ascii(name)[:30])
def test_a_hostile_name_stays_text(name: str) -> None:
    harmless = page_of(report(checkpoint("a", [finding(layer="bn", evidence=("bn",))], ["bn"])))
    made = checkpoint(name, [finding(layer=name, evidence=(name,))], [name])
    page = page_of(report(made))
    extra = ("wbr", "code")
    told = [one.tag for one in page.elements if one.tag not in extra]
    assert told == [one.tag for one in harmless.elements if one.tag not in extra]
    shown = "".join(printable(name).split())
    assert ["".join(one.text.split()) for one in page.all("a", "name")] == [shown]
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f]", page.html)


def test_a_name_of_blanks_can_be_seen() -> None:
    page = page_of(report(checkpoint("a", [finding(layer=" ")], [" "])))
    assert names_of(page) == ["' '"]
    assert all(one.text for one in page.all("a") if "map" not in one.inside and one.pieces)


# --- Size -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stuck_", [False, True])
def test_a_resnet_152_stays_below_a_megabyte(run: Run, tmp_path: Path, stuck_: bool) -> None:
    layers = write_resnet(tmp_path / "resnet", stuck=stuck_)
    assert layers == 155
    html = run("report", tmp_path / "resnet").out
    assert len(whole_page(html).all("section", "layer")) == layers
    assert len(html.encode()) < 1_000_000


# --- In a notebook --------------------------------------------------------------------------------


def test_a_notebook_shows_a_report() -> None:
    shown = Page(bninspect.check(STUCK)._repr_html_())
    keep_to_themselves(shown)
    assert not shown.all("script")
    assert not [one for one in shown.elements if "id" in one.attributes or one.tag == "a"]
    text = shown.elements[0].text
    assert "FAIL" in text
    assert "BN101 statistics-never-updated: 3 layers" in text
    assert all(name in text for name in NAMES)
    assert len(shown.all("figure")) == 18


def test_a_notebook_shows_a_layer() -> None:
    layer = bninspect.check(STUCK).checkpoints[0].layers[0]
    shown = Page(layer._repr_html_())
    keep_to_themselves(shown)
    assert layer._repr_html_() == bninspect.as_html(layer)
    assert NAMES[0] in shown.elements[0].text
    captions = [one.text.split()[0] for one in shown.all("figcaption")]
    assert captions == ["gamma", "beta", "moving_mean", "moving_variance", "scale", "shift"]


def test_a_notebook_shows_a_layer_whose_values_were_not_read() -> None:
    shown = Page(bninspect.as_html(BNLayer("bn", "tf.layers", {})))
    assert "gamma not stored" in shown.elements[0].text


def test_a_notebook_shows_the_head_of_a_large_report(tmp_path: Path) -> None:
    write_resnet(tmp_path / "resnet")
    one = bninspect.check(tmp_path / "resnet").checkpoints[0]
    shown = Page(Report((one,) * 30, RULES)._repr_html_())
    text = shown.elements[0].text
    assert "115 more layers: bninspect report shows all." in text
    assert "20 more checkpoints: bninspect report shows all." in text


@settings(max_examples=20, deadline=None)
@given(hostile_reports)
def test_hostile_texts_make_no_markup_in_a_notebook(one: Report) -> None:
    shown = Page(one._repr_html_())
    keep_to_themselves(shown)
    assert {element.tag for element in shown.elements} <= _TAGS - {"script"}


def test_nothing_is_no_report() -> None:
    assert "no checkpoint was looked at" in Page(Report(())._repr_html_()).elements[0].text
    assert isinstance(page_of(Report((CheckpointReport("x"),), RULES)), Page)
