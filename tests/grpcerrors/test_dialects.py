"""The table of words itself: each row is used, is found by its hints, and costs linear time."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpcerrors import CATALOGUE, MODEL_NOT_LOADED, Catalogue, Dialect
from grpcerrors._condition import _compiled
from tests.grpcerrors.support.answers import ANSWERS, MORE_ANSWERS, Answer

ROWS = [dialect for condition in CATALOGUE for dialect in condition.dialects]
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.system)

_LENGTH = 16 * 1024
_UNBOUNDED = 100


def patterns(row: Dialect) -> list[re.Pattern[str]]:
    return [_compiled(each) for each in (row.pattern, row.unless) if each]


def says(row: Dialect, answer: Answer) -> bool:
    alone = Catalogue(replace(MODEL_NOT_LOADED, dialects=(row,)))
    return alone.by_words(answer.message, answer.code) is not None


@pytest.mark.parametrize("row", MODEL_NOT_LOADED.dialects, ids=lambda row: row.system)
def test_each_row_is_said_by_a_real_backend(row: Dialect) -> None:
    """And by more that mean it than do not."""
    said = [answer for answer in ANSWERS + MORE_ANSWERS if says(row, answer)]
    right = [answer for answer in said if answer.means == "not loaded"]
    assert right, "no answer has these words: drop the row"
    assert len(right) > len(said) / 2


@every_row
def test_each_row_says_where_it_is_from(row: Dialect) -> None:
    assert row.source
    assert all(hint == hint.lower() for hint in row.hints)


@every_row
@settings(max_examples=50)
@given(data=st.data())
def test_whatever_matches_has_a_hint(row: Dialect, data: st.DataObject) -> None:
    """A message without one is not searched."""
    text = data.draw(
        st.from_regex(_compiled(row.pattern), alphabet=st.characters(max_codepoint=127))
    )
    assert any(hint in text.lower() for hint in row.hints)


@every_row
def test_no_repeat_without_bound_is_inside_another(row: Dialect) -> None:
    """Such patterns take exponential time on what they do not match."""
    # The parser has no public name; before Python 3.11 it has another one.
    parser: Any = getattr(re, "_parser", None) or importlib.import_module("sre_parse")
    for pattern in patterns(row):
        assert deepest(parser.parse(pattern.pattern, pattern.flags)) <= 1


def deepest(node: Any) -> int:
    """How many repeats without a bound, or of a high one, are at most inside each other."""
    if isinstance(node, tuple) and str(node[0]) in {"MAX_REPEAT", "MIN_REPEAT"}:
        _, most, body = node[1]
        return deepest(body) + int(most >= _UNBOUNDED)
    depths: list[int] = [0]
    if isinstance(node, (list, tuple)) or hasattr(node, "data"):
        depths += [deepest(child) for child in node]
    return max(depths)


def test_a_nested_repeat_would_be_found() -> None:
    parser: Any = getattr(re, "_parser", None) or importlib.import_module("sre_parse")
    assert deepest(parser.parse(r"(?:a+ )+b", 0)) == 2
    assert deepest(parser.parse(r"(?:a{0,200}|b){0,3} c+", 0)) == 1


@every_row
@pytest.mark.parametrize(
    "unit",
    [
        *("model ", "model a-", "model '", "no model is ", "Model x ", "call a."),
        *("'Servicer", "\n", "Model with name ", "Application '", "engine or a "),
        *("Request for unknown model: '", "Model version: a ", "Unexpected <class 'a"),
        "model 1 is currently not been yet ",
    ],
)
def test_long_hostile_messages_are_judged(row: Dialect, unit: str) -> None:
    """Each begins over and over what a pattern looks for; a pattern of bad cost would not end."""
    text = (unit * _LENGTH)[:_LENGTH]
    for pattern in patterns(row):
        pattern.search(text)
        pattern.search(unit + "a" * _LENGTH)
        pattern.search(unit + "a-" * (_LENGTH // 2))


@every_row
def test_the_patterns_need_no_look_around(row: Dialect) -> None:
    """RE2 has neither that nor back-references."""
    for pattern in patterns(row):
        assert not re.search(r"\(\?(?:<?[!=]|P=|>)|\\[1-9]", pattern.pattern)
