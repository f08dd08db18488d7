"""Lines on a terminal: folded at blanks, whatever its width, and nothing of them lost."""

from __future__ import annotations

import io
from itertools import pairwise

import click
from hypothesis import given
from hypothesis import strategies as st

from bninspect.reporters.rule_pages import write_page
from bninspect.reporters.text_utils import fold
from bninspect.rules import RULES

words = st.lists(st.text("ab/-_", min_size=1, max_size=30), min_size=1, max_size=20)


@given(words, st.integers(1, 100), st.integers(0, 8))
def test_folds_at_blanks_alone(line: list[str], width: int, indent: int) -> None:
    folded = fold([" ".join(line)], width, indent)
    assert " ".join(folded).split() == line
    for part in folded:
        longest = max(map(len, part.split()))
        assert len(part) <= max(width, longest + indent + 1 + indent)
    for first, second in pairwise(folded):
        assert len(first) + 1 + len(second.split()[0]) > width
        assert second.startswith(" " * min(indent, width // 2))


@given(words)
def test_without_a_terminal_a_line_is_a_line(line: list[str]) -> None:
    assert fold([" ".join(line)], None) == [" ".join(line)]


@given(words, st.integers(20, 100))
def test_colours_have_no_width(line: list[str], width: int) -> None:
    colored = fold([" ".join([click.style("FAIL", fg="red", bold=True), "", *line])], width)
    plain = fold([" ".join(["FAIL", "", *line])], width)
    assert [click.unstyle(part) for part in colored] == plain


@given(st.integers(1, 40), st.integers(0, 20))
def test_a_long_word_below_a_deep_indent_makes_no_empty_line(length: int, indent: int) -> None:
    line = " " * indent + "w" * length
    assert all(part.strip() for part in fold([line], 20))


@given(st.integers(-1, 30))
def test_a_page_has_all_its_words_however_narrow_the_terminal_is(width: int) -> None:
    pages = []
    for columns in (width, 80):
        stream = io.StringIO()
        write_page(next(iter(RULES)), RULES, (), stream, width=columns)
        pages.append(stream.getvalue().split())
    assert pages[0] == pages[1]
